//! The mark that a backup which has succeeded leaves in the data directory that it is of, for the daemon to tell when
//! that was. A file of one line: when the backup began, in milliseconds since 1970, UTC.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

use super::{access::make_file, sync::sync_directory};

/// The mark, in the data directory.
pub(super) const LAST_BACKUP: &str = "last-backup";
/// The mark until it is on the disk.
pub(super) const UNFINISHED_LAST_BACKUP: &str = "last-backup.unfinished";

/// Leaves the mark in a data directory, in the place of an older one.
pub(crate) fn write(directory: &Path, began_at_ms: i64) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED_LAST_BACKUP);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_file(&unfinished)?;
    // Where a link leads is not hitlog's.
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().write(true).custom_flags(no_link).open(&unfinished)?;
    writeln!(file, "{began_at_ms}")?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(LAST_BACKUP))?;
    sync_directory(directory).map_err(io::Error::other)
}

/// When the newest backup of a data directory that succeeded began, in milliseconds since 1970, UTC; `None` if there
/// was none, or the mark is not hitlog's.
pub(crate) fn read(directory: &Path) -> Option<i64> {
    /// The longest number, and the end of its line.
    const BYTES_MAX: u64 = 20;
    // Whatever else has the name must not be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(directory.join(LAST_BACKUP)).ok()?;
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok().filter(|began_at_ms| *began_at_ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(read(path), None);
        write(path, 1_764_000_000_123).unwrap();
        assert_eq!(read(path), Some(1_764_000_000_123));
        // What an interrupted one left is in nobody's way.
        fs::write(path.join(UNFINISHED_LAST_BACKUP), "17").unwrap();
        write(path, 1_764_000_000_456).unwrap();
        assert_eq!(read(path), Some(1_764_000_000_456));
        assert_eq!(fs::read_dir(path).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_mark_tells_nothing_and_is_left_alone() {
        for text in ["", "yesterday", "-5", "0", "99999999999999999999999"] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(LAST_BACKUP), text).unwrap();
            assert_eq!(read(folder.path()), None, "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let (mark, other) = (folder.path().join(LAST_BACKUP), folder.path().join("other"));
        fs::write(&other, "1764000000123").unwrap();
        std::os::unix::fs::symlink(&other, &mark).unwrap();
        assert_eq!(read(folder.path()), None, "a link leads to what is not hitlog's");
        std::os::unix::fs::symlink(&other, folder.path().join(UNFINISHED_LAST_BACKUP)).unwrap();
        write(folder.path(), 7).unwrap();
        assert_eq!((read(folder.path()), fs::read_to_string(&other).unwrap().as_str()), (Some(7), "1764000000123"));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(LAST_BACKUP)).unwrap();
        assert!(read(folder.path()).is_none() && write(folder.path(), 7).is_err());
    }
}

//! Where SQLite puts what does not fit into memory while it sorts: a folder of hitlog's.
//!
//! What a tool reads from a pipe and needs twice is kept there, too, in a file that never has a name.
//!
//! SQLite's own choice is `SQLITE_TMPDIR`, `/var/tmp` and the like, which a container may not write to. Its files there
//! lose their names as soon as they are open, so that only a crash at that instant leaves one.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use parking_lot::Mutex;
use rusqlite::ffi;

use rustix::io::Errno;

use super::{access::make_directory, directory::is_file, room::free_bytes};
use crate::store::error::{OpenError, is_no_room};

/// How SQLite's names for such files begin.
const PREFIX: &str = "etilqs_";

/// What `sqlite3_temp_directory` points to.
static FOLDER: Mutex<Option<CString>> = Mutex::new(None);

/// Has SQLite put its temporary files into this folder from now on, in the whole process; makes it, and removes what a
/// crash left there.
pub(crate) fn sort_in(folder: &Path) -> Result<(), OpenError> {
    match make_directory(folder) {
        Err(error) if is_no_room(&error) => {
            // Nothing is sorted before there is room.
            tracing::warn!(folder = %folder.display(), %error, "there is no room for scratch until the next start");
            return Ok(());
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(OpenError::io("make the directory", folder)(error));
        }
        _ => {}
    }
    for entry in fs::read_dir(folder).map_err(OpenError::io("read the directory", folder))? {
        let entry = entry.map_err(OpenError::io("read the directory", folder))?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) && is_file(&entry)? {
            fs::remove_file(entry.path()).map_err(OpenError::io("remove the leftover", entry.path()))?;
        }
    }
    let folder = fs::canonicalize(folder).map_err(OpenError::io("find the directory", folder))?;
    // A path that came from the system has no NUL.
    if let Ok(folder) = CString::new(folder.as_os_str().as_bytes()) {
        point_to(folder);
    }
    Ok(())
}

/// Why what comes from a pipe was not kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The pipe could not be read.
    #[error("{0}")]
    Pipe(io::Error),
    /// The file could not be made or written.
    #[error(transparent)]
    File(OpenError),
}

/// Bytes that are read from a pipe at once.
const SPOOLED_BYTES: usize = 1 << 20;

/// Makes the folder, unless it is there.
pub(crate) fn make(folder: &Path) -> Result<(), OpenError> {
    match make_directory(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(OpenError::io("make the directory", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Writes all that comes from a pipe to a file in this folder. The file has no name, so that its room is free again
/// when it is closed, however the process ends. So many bytes stay free beside it.
pub(crate) fn spool(
    pipe: &mut impl Read,
    folder: &Path,
    kept_bytes: u64,
    mut on_bytes: impl FnMut(u64),
) -> Result<File, SpoolError> {
    let failed = |action| move |error| SpoolError::File(OpenError::io(action, folder)(error));
    let keep = "keep what comes from a pipe in";
    let mut file = tempfile::tempfile_in(folder).map_err(failed(keep))?;
    let mut part = vec![0; SPOOLED_BYTES];
    loop {
        let count = match pipe.read(&mut part) {
            Ok(0) => return Ok(file),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Pipe(error)),
        };
        if free_bytes(folder).is_some_and(|free| free < kept_bytes + count as u64) {
            return Err(failed(keep)(Errno::NOSPC.into()));
        }
        file.write_all(&part[..count]).map_err(failed(keep))?;
        on_bytes(count as u64);
    }
}

fn point_to(folder: CString) {
    let mut kept = FOLDER.lock();
    // SAFETY: SQLite reads the variable, and what it points to, only while it holds this mutex of its own
    // (`unixGetTempname`); the text that the variable pointed to before is freed after it points to the new one. The
    // mutex is static and is never freed.
    unsafe {
        let mutex = ffi::sqlite3_mutex_alloc(ffi::SQLITE_MUTEX_STATIC_VFS1);
        ffi::sqlite3_mutex_enter(mutex);
        ffi::sqlite3_temp_directory = folder.as_ptr().cast_mut();
        let before = kept.replace(folder);
        ffi::sqlite3_mutex_leave(mutex);
        drop(before);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::format::SCRATCH;

    #[test]
    fn what_is_spooled_has_no_name_and_leaves_room() {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join(SCRATCH);
        let text = b"line\n".repeat(700_000);
        let mut told = 0;
        assert!(spool(&mut &text[..], &folder, 0, |_| {}).is_err(), "nothing is made here");
        make(&folder).unwrap();
        let file = spool(&mut &text[..], &folder, 0, |bytes| told += bytes).unwrap();
        assert_eq!((file.metadata().unwrap().len(), told), (text.len() as u64, text.len() as u64));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let refused = spool(&mut &text[..], &folder, u64::MAX / 2, |_| {}).unwrap_err().to_string();
        assert!(refused.contains("there is no room") && refused.contains(SCRATCH), "{refused}");
    }

    #[test]
    fn only_what_sqlite_left_is_removed() {
        let work = tempfile::tempdir().unwrap();
        let folder = work.path().join(SCRATCH);
        sort_in(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(folder.join("etilqs_0123"), "left").unwrap();
        fs::write(folder.join("mine"), "kept").unwrap();
        sort_in(&folder).unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
        assert!(sort_in(&work.path().join("not/mounted")).is_err());
    }
}

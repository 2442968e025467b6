//! What an error of SQLite's or of the system's means, and what a person does about it.
//!
//! The one place that decides what is a full disk, what may well succeed later and what is damage. Damage is said only
//! where SQLite found the file to be what it cannot have written.

use std::{borrow::Cow, io, path::Path};

use rusqlite::{ErrorCode, ffi};
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::command::hitlog;

/// The code, of ours, of a write-ahead log whose index finds no room to grow. Unlike `SQLITE_FULL` it does not say that
/// a transaction has changed nothing: COMMIT may meet it when the rows are on the disk already.
pub(crate) const WAL_INDEX_FULL: i32 = ffi::SQLITE_IOERR | 0x7f << 8;

const MAKE_ROOM: &str = "there is no room: make some on its file system with files that are not hitlog's, or raise the \
                         quota, or the limit on the size of files (ulimit -f)";
const ALLOW: &str = "hitlog may not do that: have the user that it runs as own the data directory and everything in \
                     it (chown -R), with leave to read and write (chmod -R u+rwX)";
const MOUNT: &str = "its file system may only be read: mount it for writing";
const LOOK_AT_DISK: &str = "look at the disk and at what the system says of it (dmesg); what is stored there stays as \
                            it is, and the next start goes on with it";
const CLEAR_THE_WAY: &str = "a folder has the name of a file of hitlog's: give it another name";
const RAISE_DESCRIPTORS: &str = "raise the limit on open files (ulimit -n)";
const LEAVE: &str = "leave the file where it is, as others may be able to read it, and restore a backup into another \
                     directory";

/// Whether a write that failed with this errno found no room: on the disk (ENOSPC), in a quota (EDQUOT), or within the
/// limit on the size of a file (EFBIG).
pub(crate) fn is_errno_of_full_disk(errno: i32) -> bool {
    [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].iter().any(|full| full.raw_os_error() == errno)
}

/// Whether the system found no room for what was to be written.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(is_errno_of_full_disk)
}

/// Whether SQLite found no room for a write; a transaction that it has rolled back has changed nothing.
pub(crate) fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether SQLite found no room at all, be it for what only serves to read a file.
pub(crate) fn lacks_room(error: &rusqlite::Error) -> bool {
    is_disk_full(error) || error.sqlite_error().is_some_and(|error| error.extended_code == WAL_INDEX_FULL)
}

/// Whether the same read may well succeed later: too few file descriptors, no memory, no room for the index of a
/// write-ahead log, a reader that was stopped. Everything else says that the file is not what was written.
pub(crate) fn is_transient(error: &rusqlite::Error, path: &Path) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen) => !matches!(path.try_exists(), Ok(false)),
        Some(
            ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted,
        ) => true,
        _ => lacks_room(error),
    }
}

/// Whether SQLite found the file to be none that it has written.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What to do about an error of the system's.
pub(crate) fn io_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno) => errno_advice(errno),
        None => LOOK_AT_DISK,
    }
}

fn errno_advice(errno: Errno) -> &'static str {
    match errno {
        _ if is_errno_of_full_disk(errno.raw_os_error()) => MAKE_ROOM,
        Errno::ACCESS | Errno::PERM => ALLOW,
        Errno::ROFS => MOUNT,
        Errno::ISDIR => CLEAR_THE_WAY,
        Errno::MFILE | Errno::NFILE => RAISE_DESCRIPTORS,
        Errno::NOENT | Errno::NOTDIR => "see that the path is right, and that the disk is mounted",
        _ => LOOK_AT_DISK,
    }
}

/// What to do about an error of SQLite's that this file gave.
pub(crate) fn sqlite_advice(error: &rusqlite::Error, path: &Path) -> Cow<'static, str> {
    let advice = match error.sqlite_error_code() {
        _ if lacks_room(error) => MAKE_ROOM,
        _ if is_damage(error) => LEAVE,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => refusal_advice(path),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            "another program has it open: end that one"
        }
        Some(ErrorCode::OutOfMemory) => "there is too little memory: give it more",
        Some(ErrorCode::SystemIoFailure) => LOOK_AT_DISK,
        _ => return format!("`{}` tells whether it is what hitlog wrote", hitlog(["check"])).into(),
    };
    advice.into()
}

/// Why SQLite was not let in, which it does not say: asked of the system, without opening anything.
fn refusal_advice(path: &Path) -> &'static str {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A file that is not there was to be made, or is not needed.
    let use_of = |path: &Path| match access(path, Access::READ_OK | Access::WRITE_OK) {
        Err(Errno::NOENT) => Ok(()),
        asked => asked,
    };
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        use_of(Path::new(&name))
    };
    let asked = [
        access(folder, Access::EXISTS),
        use_of(path),
        beside("-wal"),
        beside("-shm"),
        access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK),
    ];
    match asked.into_iter().find_map(Result::err) {
        Some(errno) => errno_advice(errno),
        None if !path.exists() => {
            "see that the disk has room, for more files too, and raise the limit on open files \
                                   (ulimit -n)"
        }
        None => RAISE_DESCRIPTORS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_words_for_a_full_disk() {
        for (errno, full) in
            [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::FBIG, true), (Errno::IO, false), (Errno::ROFS, false)]
        {
            assert_eq!(is_errno_of_full_disk(errno.raw_os_error()), full, "{errno}");
        }
        let sqlite = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for (code, full, room) in [
            (ffi::SQLITE_FULL, true, true),
            (WAL_INDEX_FULL, false, true),
            (ffi::SQLITE_IOERR_WRITE, false, false),
            (ffi::SQLITE_IOERR_FSYNC, false, false),
            (ffi::SQLITE_IOERR_DIR_FSYNC, false, false),
        ] {
            assert_eq!((is_disk_full(&sqlite(code)), lacks_room(&sqlite(code))), (full, room), "{code}");
        }
    }

    #[test]
    fn what_is_told_is_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        std::fs::write(&there, "x").unwrap();
        let sqlite = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for (code, path, words) in [
            (ffi::SQLITE_FULL, there.clone(), "no room"),
            (WAL_INDEX_FULL, there.clone(), "no room"),
            (ffi::SQLITE_CORRUPT, there.clone(), "restore a backup into another directory"),
            (ffi::SQLITE_IOERR_WRITE, there.clone(), "look at the disk"),
            (ffi::SQLITE_CANTOPEN, there.clone(), "ulimit -n"),
            (ffi::SQLITE_CANTOPEN, folder.path().join("new"), "has room"),
            (ffi::SQLITE_CANTOPEN, folder.path().join("not/mounted"), "is mounted"),
        ] {
            let advice = sqlite_advice(&sqlite(code), &path);
            assert!(advice.contains(words), "{code} {advice}");
        }
        for (errno, words) in [
            (Errno::DQUOT, "quota"),
            (Errno::ACCESS, "chown"),
            (Errno::ROFS, "mount it for writing"),
            (Errno::IO, "dmesg"),
            (Errno::ISDIR, "give it another name"),
            (Errno::MFILE, "ulimit -n"),
        ] {
            assert!(io_advice(&errno.into()).contains(words), "{errno}");
        }
    }
}

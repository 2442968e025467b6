//! The locks on a data directory: one on the directory itself, which counts, and one on the file `lock` in it, for an
//! older hitlog, which knows that one only, and for people, who find the holder's process there.
//!
//! The kernel keeps them, and they end with the process.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, statat},
    io::Errno,
};

use super::{
    access::{Owner, file_mode},
    identity::FileId,
};

pub(super) const LOCK: &str = "lock";

/// Opens a directory, and locks it; `Ok(None)` if somebody else has.
pub(super) fn lock_directory(path: &Path) -> io::Result<Option<File>> {
    let is_directory = OFlags::DIRECTORY.bits().cast_signed();
    let directory = OpenOptions::new().read(true).custom_flags(is_directory).open(path)?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // NFS locks nothing that is not open for writing, which a directory never is.
        Err(TryLockError::Error(error)) if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) => {
            tracing::warn!(
                directory = %path.display(),
                "this file system does not lock directories: the file `lock` alone keeps a second hitlog out; leave it \
                 where it is"
            );
            Ok(Some(directory))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Opens the file `lock` of a directory, makes it if there is none, and locks it; `Ok(None)` if somebody else has.
pub(super) fn lock_file(directory: &File) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = match openat(directory, LOCK, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let mode = Mode::from_raw_mode(file_mode());
            let made = File::from(openat(directory, LOCK, flags | OFlags::CREATE | OFlags::EXCL, mode)?);
            Owner::of_open(directory)?.give(&made)?;
            made
        }
        opened => File::from(opened?),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // For people only: a full disk must not keep hitlog from serving reads.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Some(file))
}

/// Whether the file `lock` of a directory is this one still.
pub(super) fn is_lock_file(directory: &File, file: &File) -> bool {
    let there = statat(directory, LOCK, AtFlags::SYMLINK_NOFOLLOW);
    there.is_ok_and(|there| FileId::of_file(file).is_ok_and(|id| id == FileId::of_stat(&there)))
}

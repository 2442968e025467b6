//! What a file is, whatever its name: by its name alone another one can't be told from it.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::io::Errno;

/// The device and the number of a file. While somebody has the file open, no other one has these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of the file that a path leads to. Opens nothing: to close a database would give up SQLite's locks on it.
    pub(super) fn of_path(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self::new(&file))
    }

    /// Of an open file.
    pub(super) fn of_file(file: &fs::File) -> io::Result<Self> {
        file.metadata().map(|file| Self::new(&file))
    }

    /// Of a file that was looked at.
    pub(super) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    fn new(file: &fs::Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// Whether a path leads to this file still; `None` if that can't be told at the moment.
pub(super) fn leads_to(path: &Path, id: FileId) -> Option<bool> {
    use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    match FileId::of_path(path) {
        Ok(found) => Some(found == id),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle) => Some(false),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Some(false),
        Err(_) => None,
    }
}

//! Why a tool could not do its work.

use std::{io, path::PathBuf};

use crate::store::error::{OpenError, io_advice, sqlite_advice};

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no such directory.
    #[error("there is no data directory {0}; name the one that hitlog serves from with --data-dir")]
    NoDirectory(PathBuf),
    /// The directory holds no catalog.
    #[error("the directory {0} has no catalog.db of hitlog's; name the one that hitlog serves from with --data-dir")]
    NoCatalog(PathBuf),
    /// A file is not hitlog's, or was written by a newer hitlog.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file could not be read.
    #[error("cannot read {path}: {source}; {}", sqlite_advice(source, path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A database could not be copied.
    #[error("cannot copy to {path}, so this is no whole copy: {source}; {}", sqlite_advice(source, path))]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A listed segment has no file.
    #[error("the segment {0} is listed and not there; restore the file from a backup")]
    Missing(PathBuf),
    /// The daemon replaced the file each time that it was to be read.
    #[error("{0} was replaced each time it was to be read; try again when hitlog is less busy")]
    KeepsChanging(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}; {}", io_advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory for a backup holds something already.
    #[error("the directory {0} is not empty; name one for the backup that is empty or does not exist yet")]
    NotEmpty(PathBuf),
}

impl OfflineError {
    pub(super) fn read(path: impl Into<PathBuf>) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    /// A file is not what the catalog lists.
    pub(super) fn damaged(path: impl Into<PathBuf>, reason: &str) -> Self {
        Self::Open(OpenError::Damaged { path: path.into(), reason: reason.into() })
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

//! Why nothing was repaired.

use std::path::PathBuf;

use crate::{
    command::hitlog,
    store::{error::OpenError, offline::OfflineError},
};

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A file could not be opened, moved or removed, or somebody serves from the directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The data directory could not be read.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// There is no such segment.
    #[error("the catalog lists no segment {0}; `{list}` shows those that it lists", list = hitlog(["segments"]))]
    NoSegment(i64),
    /// There is nothing to give up.
    #[error("segment {0} holds no events that could be written off: it is made ahead, or being removed")]
    NothingIn(i64),
    /// The segment is whole.
    #[error("segment {number} is sound: {path} holds what was written. Only a lost or damaged one is written off")]
    Sound {
        /// The segment's number.
        number: i64,
        /// Its file.
        path: PathBuf,
    },
    /// No such file is in quarantine.
    #[error(
        "nothing in quarantine is called {0} or was segment {0}; `{list}` shows what is there",
        list = hitlog(["quarantine", "list"])
    )]
    NotInQuarantine(String),
    /// The file cannot be listed as it is.
    #[error("{file} stays in quarantine: {reason}")]
    Unfit {
        /// Its name.
        file: String,
        /// What speaks against it.
        reason: String,
    },
}

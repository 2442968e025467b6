//! Why a segment was not rewritten.

use std::{io, path::PathBuf};

use rusqlite::ErrorCode;

use crate::store::{
    error::{CatalogError, DirectoryLost, OpenError, is_damage},
    rollup::RollupError,
    segments::SummaryError,
};

/// Why a segment was not rewritten. Its old generation goes on serving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    #[error("hitlog is stopping")]
    Stopping,
    #[error("it takes up to {wanted} bytes and {free} are free; make room on the file system of the data directory")]
    NoRoom { wanted: u64, free: u64 },
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the summary: {0}")]
    Summary(SummaryError),
    #[error("its numbers: {0}")]
    Rollup(RollupError),
    #[error(transparent)]
    Lost(#[from] DirectoryLost),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "{0} is there already, and the catalog does not know it; stop hitlog and start it again, which moves it away"
    )]
    InTheWay(PathBuf),
    #[error("{0} is no file of hitlog's, and is in the way: give it another name")]
    Blocked(PathBuf),
    #[error(
        "the ids of its events are in memory only, and whoever sends an erased event again must not store it again: \
         make sure that there is room in ids/ in the data directory, and that it may be written"
    )]
    IdsInMemory,
    #[error("the catalog: {0}")]
    Catalog(#[from] CatalogError),
}

impl RewriteError {
    /// Whether the segment's file is not what was written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) => is_damage(error),
            Self::Summary(_) => true,
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for RewriteError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Stopping,
            _ => Self::Sqlite(error),
        }
    }
}

impl From<RollupError> for RewriteError {
    fn from(error: RollupError) -> Self {
        match error {
            RollupError::Sqlite(error) => error.into(),
            other => Self::Rollup(other),
        }
    }
}

impl From<SummaryError> for RewriteError {
    fn from(error: SummaryError) -> Self {
        match error {
            SummaryError::Sqlite(error) => error.into(),
            damaged @ SummaryError::Damaged(_) => Self::Summary(damaged),
        }
    }
}

//! A data directory that nobody else has open.

use std::path::Path;

use super::error::RepairError;
use crate::store::{
    catalog::{CatalogFile, SegmentChange},
    error::OpenError,
    format::{DataDir, room::Room},
    offline::OfflineDir,
};

/// The directory, locked, and how its files are read.
pub(super) struct LockedDir {
    directory: DataDir,
    pub(super) files: OfflineDir,
}

impl LockedDir {
    /// Locks a directory that is there.
    pub(super) fn open(path: &Path) -> Result<Self, RepairError> {
        let files = OfflineDir::open(path)?;
        Ok(Self { directory: DataDir::open(path)?, files })
    }

    /// The lowest sequence that may be given from now on.
    pub(super) fn sequence_floor(&self) -> Result<u64, RepairError> {
        let floor = CatalogFile::open(&self.directory, Room::Enough)?.sequence_floor();
        self.directory.end_ties();
        Ok(floor)
    }

    /// The catalog is open only as long as it is changed: everything else reads its file.
    pub(super) fn change(&self, changes: &[SegmentChange]) -> Result<(), RepairError> {
        let mut catalog = CatalogFile::open(&self.directory, Room::Enough)?;
        let changed: Result<(), OpenError> = changes.iter().try_for_each(|change| catalog.change_segments(change));
        drop(catalog);
        self.directory.end_ties();
        Ok(changed?)
    }
}

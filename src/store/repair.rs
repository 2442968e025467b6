//! What a person decides about segments that are lost, damaged or in quarantine, while nobody serves from them.
//!
//! A segment is written off, a file in quarantine is adopted or discarded. Each is first described, so that whoever
//! decides knows what goes. A crash in between leaves a file in quarantine, or one that the next start puts there.

mod adopt;
mod error;
mod locked;
mod neighbours;
mod write_off;

use std::path::Path;

use self::locked::LockedDir;
pub use self::{adopt::Adoption, error::RepairError, write_off::Loss};
use super::{
    catalog::SegmentChange,
    error::OpenError,
    format::{file, sync_directory},
    offline::QuarantineLine,
};

/// A data directory that nobody else has open.
pub struct Repair(LockedDir);

impl Repair {
    /// Locks a directory that is there.
    pub fn open(path: &Path) -> Result<Self, RepairError> {
        LockedDir::open(path).map(Self)
    }

    /// What would go with a segment, which must be lost or damaged.
    pub fn loss(&self, number: i64) -> Result<Loss, RepairError> {
        Loss::of(&self.0.files, number)
    }

    /// Gives a segment up. A file that is left of it goes to the quarantine, or for good. Returns the names of the
    /// files that are in quarantine now.
    pub fn write_off(&self, loss: &Loss, discard: bool) -> Result<Vec<String>, RepairError> {
        write_off::write_off(&self.0, loss, discard)
    }

    /// The files in quarantine that a person means: by name, or all of a segment.
    pub fn find(&self, which: &str) -> Result<Vec<QuarantineLine>, RepairError> {
        let files = &self.0.files;
        let mut found = files.quarantined(&files.catalog()?)?;
        let number: Option<i64> = which.parse().ok();
        found.retain(|line| line.file == which || number == Some(line.segment));
        if found.is_empty() { Err(RepairError::NotInQuarantine(which.to_owned())) } else { Ok(found) }
    }

    /// Lists a file in quarantine again.
    pub fn adopt(&self, line: &QuarantineLine) -> Result<Adoption, RepairError> {
        adopt::adopt(&self.0, line)
    }

    /// Removes a file from the quarantine for good.
    pub fn discard(&self, line: &QuarantineLine) -> Result<(), RepairError> {
        file::remove(&line.path).map_err(OpenError::io("remove", &line.path))?;
        sync_directory(line.path.parent().unwrap_or(&line.path))?;
        self.0.change(&[SegmentChange::Released(line.file.clone())])
    }
}

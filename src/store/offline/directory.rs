//! A data directory that is not locked, and questions to files that may be replaced meanwhile.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::Connection;

use super::{
    catalog::{CatalogContents, read_catalog},
    consistent::{Observed, read_consistent},
    error::OfflineError,
    holdings::QuarantineLine,
};
use crate::store::{
    catalog::{ListedSegment, SegmentState},
    format::{
        CATALOG, SegmentPaths,
        quarantine::{Quarantine, QuarantinedFile},
        schema, vfs,
    },
};

/// How often a file that was replaced meanwhile is looked for again. Each time the daemon has sealed or erased
/// something, so more than a few in a row mean that something else is wrong.
pub(super) const TRIES_MAX: usize = 20;
/// The pause between two tries.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A data directory, not locked.
#[derive(Debug)]
pub struct OfflineDir {
    path: PathBuf,
    pub(crate) segments: SegmentPaths,
    pub(crate) quarantine: Quarantine,
}

impl OfflineDir {
    /// Finds the directory; makes nothing.
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
        vfs::install();
        let look = |at: &Path| match fs::metadata(at) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(OfflineError::io("look at", at)(error)),
        };
        if !look(path)? {
            return Err(OfflineError::NoDirectory(path.into()));
        }
        if !look(&path.join(CATALOG))? {
            return Err(OfflineError::NoCatalog(path.into()));
        }
        let (segments, quarantine) = (SegmentPaths::of_directory(path), Quarantine::of_directory(path));
        Ok(Self { path: path.into(), segments, quarantine })
    }

    /// Reads the catalog as it is at one moment.
    pub fn catalog(&self) -> Result<CatalogContents, OfflineError> {
        let path = self.catalog_path();
        for _ in 0..TRIES_MAX {
            match read_consistent(&path, false, |connection| read_catalog(connection, &path)) {
                Ok(Observed::Consistent(answer)) => return answer,
                Ok(Observed::Changed) => thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(OfflineError::read(path)(error)),
            }
        }
        Err(OfflineError::KeepsChanging(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn catalog_path(&self) -> PathBuf {
        self.path.join(CATALOG)
    }

    /// What is in quarantine, by name. Reads every file there.
    pub fn quarantined(&self, catalog: &CatalogContents) -> Result<Vec<QuarantineLine>, OfflineError> {
        let files = self.quarantine.files()?.into_iter();
        let line = |file: QuarantinedFile| {
            let reason = catalog.quarantine.get(&file.name).map(String::as_str);
            QuarantineLine::of(file, reason)
        };
        Ok(files.map(line).collect())
    }

    pub(crate) fn path_of(&self, listed: &ListedSegment) -> PathBuf {
        self.segments.of(listed.number, listed.generation)
    }

    /// Puts a question to the file that a segment is in now, which may be a later generation than the listed one.
    /// `None` if there is no such segment any more, or no row in it yet. A question may be put again, from its
    /// beginning.
    pub(super) fn on_segment<T>(
        &self,
        listed: ListedSegment,
        mut question: impl FnMut(&ListedSegment, &Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, OfflineError> {
        let mut now = listed;
        for _ in 0..TRIES_MAX {
            if now.state == SegmentState::Dropped {
                return Ok(None);
            }
            let path = self.path_of(&now);
            if fs::metadata(&path).is_ok_and(|file| now.is_unmade(file.len())) {
                return Ok(None);
            }
            let answer = read_consistent(&path, now.state == SegmentState::Sealed, |connection| {
                schema::check_segment(connection, &path)?;
                question(&now, connection).map_err(OfflineError::read(&path))
            });
            match answer {
                Ok(Observed::Consistent(answer)) => return answer.map(Some),
                Ok(Observed::Changed) => {}
                Err(error) => return Err(OfflineError::read(path)(error)),
            }
            let Some(listed) = self.catalog()?.segment(now.number) else { return Ok(None) };
            if listed == now && !path.exists() {
                // The catalog is switched before a file is unlinked, so this one was not replaced.
                return if now.is_unmade(0) { Ok(None) } else { Err(OfflineError::Missing(path)) };
            }
            if listed == now {
                thread::sleep(RETRY_PAUSE);
            }
            now = listed;
        }
        Err(OfflineError::KeepsChanging(self.path_of(&now)))
    }
}

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
        CATALOG, SegmentPaths, file,
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

    pub(crate) fn path(&self) -> &Path {
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
        // Of one that was adopted or discarded meanwhile nothing is told. A log may be here without its database.
        let is_there = |line: &QuarantineLine| {
            let beside = || file::BESIDE.iter().any(|suffix| file::with_suffix(&line.path, suffix).exists());
            line.fault.is_none() || line.path.exists() || beside()
        };
        Ok(files.map(line).filter(is_there).collect())
    }

    pub(crate) fn path_of(&self, listed: &ListedSegment) -> PathBuf {
        self.segments.of(listed.number, listed.generation)
    }

    /// Puts a question to the file that a segment is in now, which may be a later generation than the listed one;
    /// `segment` says which it was in the end. `None` if there is no such segment any more, or no row in it yet. A
    /// question may be put again, from its beginning.
    pub(super) fn on_segment<T>(
        &self,
        segment: &mut ListedSegment,
        question: impl FnMut(&OpenSegment<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, OfflineError> {
        self.on_sound_segment(segment, question, |_| true)
    }

    /// The same for a question whose answer may tell of damage. No error and no damage is told of a generation that
    /// was replaced meanwhile: the question is put to the one that took its place.
    pub(super) fn on_sound_segment<T>(
        &self,
        segment: &mut ListedSegment,
        mut question: impl FnMut(&OpenSegment<'_>) -> rusqlite::Result<T>,
        is_sound: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, OfflineError> {
        for _ in 0..TRIES_MAX {
            let now = *segment;
            if now.state == SegmentState::Dropped {
                return Ok(None);
            }
            let path = self.path_of(&now);
            if fs::metadata(&path).is_ok_and(|file| now.is_unmade(file.len())) {
                return Ok(None);
            }
            // Before it is opened: a file that is open may have no name any more.
            let bytes = bytes_of(self, &now);
            let observed = read_consistent(&path, now.state == SegmentState::Sealed, |connection| {
                schema::check_segment(connection, &path)?;
                let open = OpenSegment { listed: &now, bytes, connection };
                question(&open).map_err(OfflineError::read(&path))
            });
            let answer = match observed {
                Ok(Observed::Consistent(Ok(answer))) if is_sound(&answer) => return Ok(Some(answer)),
                Ok(Observed::Consistent(answer)) => Some(answer),
                Ok(Observed::Changed) => None,
                Err(error) => Some(Err(OfflineError::read(&path)(error))),
            };
            match (self.fate(&now, !path.exists())?, answer) {
                (Fate::Replaced(by), _) => *segment = by,
                (Fate::Gone | Fate::Unmade, _) => return Ok(None),
                (Fate::Missing, _) => return Err(OfflineError::Missing(path)),
                (Fate::Listed, Some(answer)) => return answer.map(Some),
                (Fate::Listed, None) => thread::sleep(RETRY_PAUSE),
            }
        }
        Err(OfflineError::KeepsChanging(self.path_of(segment)))
    }

    /// What has become of a segment since the catalog listed it like this. `is_gone`: its file was not there; whoever
    /// asks must have looked before. The catalog is switched before a file is unlinked, so only a file that was gone
    /// first, and that the catalog lists all the same, was not replaced.
    pub(super) fn fate(&self, listed: &ListedSegment, is_gone: bool) -> Result<Fate, OfflineError> {
        Ok(match self.catalog()?.segment(listed.number) {
            None => Fate::Gone,
            Some(now) if now.state == SegmentState::Dropped => Fate::Gone,
            Some(now) if now != *listed => Fate::Replaced(now),
            Some(now) if is_gone && now.is_unmade(0) => Fate::Unmade,
            Some(_) if is_gone => Fate::Missing,
            Some(_) => Fate::Listed,
        })
    }
}

/// A file of a segment, open to questions.
pub(super) struct OpenSegment<'a> {
    /// What the catalog says of it.
    pub(super) listed: &'a ListedSegment,
    /// The bytes of the file and its write-ahead log.
    pub(super) bytes: u64,
    pub(super) connection: &'a Connection,
}

impl OpenSegment<'_> {
    pub(super) fn is_sealed(&self) -> bool {
        self.listed.state == SegmentState::Sealed
    }
}

/// What has become of a segment.
pub(super) enum Fate {
    /// It is as it was.
    Listed,
    /// The catalog says something else of it, such as a later generation.
    Replaced(ListedSegment),
    /// All of its events have expired or are erased.
    Gone,
    /// It was made ahead, and the next start makes its file.
    Unmade,
    /// Its file is lost.
    Missing,
}

/// The bytes of a segment's file and its write-ahead log.
pub(super) fn bytes_of(directory: &OfflineDir, listed: &ListedSegment) -> u64 {
    let path = directory.path_of(listed);
    file::bytes(&file::with_suffix(&path, "-wal")) + file::bytes(&path)
}

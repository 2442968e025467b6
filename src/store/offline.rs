//! A data directory as the command-line tools see it: listed, checked, counted, exported and copied, whether hitlog
//! serves from it at the same time or not.
//!
//! Owns no lock and no thread, and writes to no file of the daemon's. What it reads may be replaced while it reads: a
//! seal or an erasure writes the next generation of a segment, switches the catalog and unlinks the one before. So
//! whoever finds a file gone asks the catalog again (`on_segment`), and statements are short, because a
//! long one would keep the daemon's write-ahead log from beginning anew. Must not know how anything is shown to people.

mod backup;
mod catalog;
mod check;
mod count;
mod export;
mod list;
mod steady;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

pub use backup::{Backup, BackupReport, Progress};
pub use catalog::CatalogView;
use catalog::read_catalog;
pub use check::{Check, CheckReport, Fault};
pub use count::{Counts, Days, SiteCounts, count};
pub use export::{EventChoice, Export};
pub use list::{SegmentLine, list_segments};
use rusqlite::Connection;
use steady::{Answer, read_steady};

use super::{
    catalog::{ListedSegment, SegmentState},
    directory::{CATALOG, SegmentPaths},
    error::OpenError,
    schema,
};

/// How often a segment is looked for again whose file was replaced meanwhile. Each time the daemon has sealed or erased
/// something, so that more than a few in a row are a sign of something else.
const TRIES_MAX: usize = 20;
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is nothing there.
    #[error("there is no data directory {0}; name the one of `hitlog serve` with --data-dir")]
    NoDirectory(PathBuf),
    /// There is something else there.
    #[error("the directory {0} has no catalog.db of hitlog's; name the one of `hitlog serve` with --data-dir")]
    NoCatalog(PathBuf),
    /// A file is not hitlog's, or of a newer one.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file could not be read.
    #[error("cannot read {path}: {source}; `hitlog check` tells more. Restore the file from a backup if it is damaged")]
    Read {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A database could not be copied.
    #[error("cannot copy to {path}: {source}; make room there, or see what `hitlog check` says of the original")]
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
    Restless(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory for a backup is not one that may be filled.
    #[error("the directory {0} is not empty; name one for the backup that is empty or does not exist yet")]
    NotEmpty(PathBuf),
}

impl OfflineError {
    fn read(path: impl Into<PathBuf>) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// A data directory, not locked.
#[derive(Debug)]
pub struct OfflineDir {
    path: PathBuf,
    segments: SegmentPaths,
}

impl OfflineDir {
    /// Finds the directory; nothing is made that is not there.
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
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
        Ok(Self { path: path.into(), segments: SegmentPaths::of_directory(path) })
    }

    /// Reads the catalog as it is at one moment.
    pub fn catalog(&self) -> Result<CatalogView, OfflineError> {
        let path = self.catalog_path();
        for _ in 0..TRIES_MAX {
            match read_steady(&path, false, |connection| read_catalog(connection, &path)) {
                Ok(Answer::Steady(answer)) => return answer,
                Ok(Answer::Moved) => thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(OfflineError::read(path)(error)),
            }
        }
        Err(OfflineError::Restless(path))
    }

    fn catalog_path(&self) -> PathBuf {
        self.path.join(CATALOG)
    }

    fn path_of(&self, listed: &ListedSegment) -> PathBuf {
        self.segments.of(listed.number, listed.generation)
    }

    /// Puts a question to the file that a segment is in now, which may be a later generation than the listed one.
    /// `None` if there is no such segment any more, or no row in it yet. A question may be put again, from its
    /// beginning.
    fn on_segment<T>(
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
            if now.state == SegmentState::Prepared && fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
                // It is being made, or its making was cut short: no row was ever in it.
                return Ok(None);
            }
            let answer = read_steady(&path, now.state == SegmentState::Sealed, |connection| {
                schema::check_segment(connection, &path)?;
                question(&now, connection).map_err(OfflineError::read(&path))
            });
            match answer {
                Ok(Answer::Steady(answer)) => return answer.map(Some),
                Ok(Answer::Moved) => {}
                Err(error) => return Err(OfflineError::read(path)(error)),
            }
            let Some(listed) = self.catalog()?.segment(now.number) else { return Ok(None) };
            if listed == now && !path.exists() {
                // The catalog is switched before a file goes, so this one was not replaced.
                return if now.state == SegmentState::Prepared { Ok(None) } else { Err(OfflineError::Missing(path)) };
            }
            if listed == now {
                thread::sleep(RETRY_PAUSE);
            }
            now = listed;
        }
        Err(OfflineError::Restless(self.path_of(&now)))
    }
}

#[cfg(test)]
mod tests;

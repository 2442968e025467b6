//! A copy of a data directory that hitlog can start from, made while it serves or not.
//!
//! # Why what is copied belongs together
//!
//! The copy of the catalog is one moment of it, and the files are those that this copy lists:
//!
//! - A segment is listed before a row goes to it, so every event that was acknowledged before the copy of the catalog
//!   is in a listed segment.
//! - Sealed files never change, and a name stands for one content for ever: a link is as good as a copy.
//! - The others are copied by SQLite, each in one read transaction, so that a batch is in it whole or not at all; and
//!   from the newest to the oldest. The log goes to a segment only when it has left the one before for good: once the
//!   copy of a segment has a row, every one copied after it is full, and its copy complete. So the backup ends at one
//!   place in the log, with no gap before it. In the other order the log could roll between two copies, and the older
//!   copy would lack rows that come before the newer one's.
//! - A listed file that is gone was sealed, erased or dropped meanwhile. Then all of this begins again with a new copy
//!   of the catalog; only the links that are still right are kept.
//!
//! The catalog gets its name last, when everything else is on the disk: without it the directory is none of hitlog's.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
};

use rusqlite::{
    Connection,
    backup::{self, StepResult},
};

use super::{OfflineDir, OfflineError, RETRY_PAUSE, TRIES_MAX, catalog::read_catalog, read_steady, steady::Answer};
use crate::store::{
    catalog::{ListedSegment, SegmentState},
    directory::{CATALOG, SegmentPaths, sync_directory},
    file,
};

/// Pages copied between two signs of life.
const PAGES_PER_STEP: i32 = 1_024;
const UNFINISHED_CATALOG: &str = "catalog.db.unfinished";

/// What a backup has become.
#[derive(Debug, Default)]
pub struct BackupReport {
    /// Segments that share their file with the original, and their bytes.
    pub linked: (u64, u64),
    /// Segments that were copied, and their bytes.
    pub copied: (u64, u64),
    /// Segments that are listed and whose files are not there: the backup cannot have them either.
    pub missing: Vec<PathBuf>,
}

/// How far a backup is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Bytes that are there.
    pub done: u64,
    /// Bytes that are to be there.
    pub total: u64,
}

/// A backup that is about to begin.
pub struct Backup<'a> {
    from: &'a OfflineDir,
    path: PathBuf,
    segments: SegmentPaths,
    linked: BTreeSet<PathBuf>,
}

/// Whether a round of copying got what it went for.
enum Round {
    Complete(BackupReport),
    /// A listed file is gone.
    Again,
}

impl<'a> Backup<'a> {
    /// Makes the directory, which must be empty if it is there.
    pub fn new(from: &'a OfflineDir, path: &Path) -> Result<Self, OfflineError> {
        let segments = SegmentPaths::of_directory(path);
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries = fs::read_dir(path).map_err(OfflineError::io("read the directory", path))?;
                if entries.next().is_some() {
                    return Err(OfflineError::NotEmpty(path.into()));
                }
            }
            Err(error) => return Err(OfflineError::io("make the directory", path)(error)),
        }
        let folder = segments.folder();
        DirBuilder::new().mode(0o700).create(folder).map_err(OfflineError::io("make the directory", folder))?;
        Ok(Self { from, path: path.into(), segments, linked: BTreeSet::new() })
    }

    /// Copies everything.
    pub fn run(mut self, mut on_progress: impl FnMut(Progress)) -> Result<BackupReport, OfflineError> {
        for _ in 0..TRIES_MAX {
            if let Round::Complete(report) = self.round(&mut on_progress)? {
                self.finish()?;
                return Ok(report);
            }
            thread::sleep(RETRY_PAUSE);
        }
        Err(OfflineError::Restless(self.from.segments.folder().into()))
    }

    fn round(&mut self, on_progress: &mut impl FnMut(Progress)) -> Result<Round, OfflineError> {
        let Some(listed) = self.copy_catalog()? else { return Ok(Round::Again) };
        self.remove_unlisted(&listed)?;
        let mut report = BackupReport::default();
        let total = listed.iter().map(|listed| bytes_of_file(&self.from.path_of(listed))).sum();
        let mut progress = Progress { done: 0, total };
        for segment in listed.iter().rev().filter(|segment| segment.state != SegmentState::Sealed) {
            let done = progress.done;
            let copied = self.copy_open(segment, |bytes| {
                progress.done = done + bytes;
                progress.total = progress.total.max(progress.done);
                on_progress(progress);
            })?;
            match copied {
                Some(bytes) => report.copied = (report.copied.0 + 1, report.copied.1 + bytes),
                None if !self.is_still_listed(segment)? => return Ok(Round::Again),
                // Its making was cut short; the start makes it anew.
                None if segment.state == SegmentState::Prepared => {}
                None => report.missing.push(self.from.path_of(segment)),
            }
        }
        for segment in listed.iter().filter(|segment| segment.state == SegmentState::Sealed) {
            match self.take_sealed(segment)? {
                Some((true, bytes)) => report.linked = (report.linked.0 + 1, report.linked.1 + bytes),
                Some((false, bytes)) => report.copied = (report.copied.0 + 1, report.copied.1 + bytes),
                None if !self.is_still_listed(segment)? => return Ok(Round::Again),
                None => report.missing.push(self.from.path_of(segment)),
            }
            progress.done += bytes_of_file(&self.segments.of(segment.number, segment.generation));
            on_progress(progress);
        }
        Ok(Round::Complete(report))
    }

    /// Copies the catalog under a name that makes no data directory yet, and returns what that copy lists.
    fn copy_catalog(&self) -> Result<Option<Vec<ListedSegment>>, OfflineError> {
        let (path, copy) = (self.from.catalog_path(), self.path.join(UNFINISHED_CATALOG));
        let copied = read_steady(&path, false, |source| copy_database(source, &copy, |_| {}));
        match copied.map_err(OfflineError::read(&path))? {
            Answer::Steady(copied) => drop(copied?),
            Answer::Moved => return Ok(None),
        }
        let connection = Connection::open(&copy).map_err(OfflineError::read(&copy))?;
        // One plain file, as the name will change. What is dropped is not copied, so it need not be listed either.
        connection
            .execute_batch("PRAGMA journal_mode = DELETE; DELETE FROM Segment WHERE state = 'dropped';")
            .map_err(OfflineError::read(&copy))?;
        Ok(Some(read_catalog(&connection, &copy)?.segments))
    }

    fn is_still_listed(&self, segment: &ListedSegment) -> Result<bool, OfflineError> {
        let is_there = bytes_of_file(&self.from.path_of(segment)) > 0;
        Ok(!is_there && self.from.catalog()?.segment(segment.number) == Some(*segment))
    }

    /// Copies a segment that has no indexes yet; `None` if its file is not there, or was replaced.
    fn copy_open(&self, segment: &ListedSegment, on_bytes: impl FnMut(u64)) -> Result<Option<u64>, OfflineError> {
        let (path, copy) = (self.from.path_of(segment), self.segments.of(segment.number, segment.generation));
        if bytes_of_file(&path) == 0 {
            return Ok(None);
        }
        let copied = read_steady(&path, false, |source| copy_database(source, &copy, on_bytes));
        match copied.map_err(OfflineError::read(&path))? {
            Answer::Steady(copied) => copied.map(Some),
            Answer::Moved => Ok(None),
        }
    }

    /// Links or copies a sealed segment. Returns whether it is a link, and its bytes; `None` if its file is not there.
    fn take_sealed(&mut self, segment: &ListedSegment) -> Result<Option<(bool, u64)>, OfflineError> {
        let (path, copy) = (self.from.path_of(segment), self.segments.of(segment.number, segment.generation));
        if !copy.exists() {
            match fs::hard_link(&path, &copy) {
                Ok(()) => drop(self.linked.insert(copy.clone())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                // Another file system, or one without links, or a file of somebody else's.
                Err(_) => match fs::copy(&path, &copy).and_then(|_| File::open(&copy)?.sync_all()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(OfflineError::io("copy a segment to", copy)(error)),
                },
            }
        }
        let bytes = fs::metadata(&copy).map_err(OfflineError::io("find", &copy))?.len();
        Ok(Some((self.linked.contains(&copy), bytes)))
    }

    /// Removes what an earlier round has left and this one does not want: other generations, and every segment that is
    /// not sealed, as these are copied anew.
    fn remove_unlisted(&mut self, listed: &[ListedSegment]) -> Result<(), OfflineError> {
        let sealed = listed.iter().filter(|segment| segment.state == SegmentState::Sealed);
        let kept: BTreeSet<_> = sealed.map(|of| self.segments.of(of.number, of.generation)).collect();
        let folder = self.segments.folder();
        for entry in fs::read_dir(folder).map_err(OfflineError::io("read the directory", folder))? {
            let path = entry.map_err(OfflineError::io("read the directory", folder))?.path();
            if !kept.contains(&path) {
                fs::remove_file(&path).map_err(OfflineError::io("remove", &path))?;
                self.linked.remove(&path);
            }
        }
        Ok(())
    }

    /// Makes the copy durable, and only then a data directory.
    fn finish(&self) -> Result<(), OfflineError> {
        let (unfinished, catalog) = (self.path.join(UNFINISHED_CATALOG), self.path.join(CATALOG));
        sync_directory(self.segments.folder())?;
        sync_directory(&self.path)?;
        fs::rename(&unfinished, &catalog).map_err(OfflineError::io("rename", unfinished))?;
        sync_directory(&self.path)?;
        sync_directory(self.path.parent().unwrap_or(&self.path))?;
        Ok(())
    }
}

fn bytes_of_file(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Copies a database as it is at one moment into one durable file, and returns its bytes.
fn copy_database(source: &Connection, path: &Path, mut on_bytes: impl FnMut(u64)) -> Result<u64, OfflineError> {
    file::remove(path).map_err(OfflineError::io("remove", path))?;
    let bytes =
        copy_pages(source, path, &mut on_bytes).map_err(|source| OfflineError::Copy { path: path.into(), source })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(OfflineError::io("sync", path))?;
    on_bytes(bytes);
    Ok(bytes)
}

fn copy_pages(source: &Connection, path: &Path, on_bytes: &mut impl FnMut(u64)) -> rusqlite::Result<u64> {
    // The moment: without a transaction of its own a copy in steps would begin anew with each change.
    let moment = source.unchecked_transaction()?;
    moment.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let number = |pragma| -> rusqlite::Result<u64> {
        Ok(moment.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))?.unsigned_abs())
    };
    let (page_bytes, pages) = (number("page_size")?, number("page_count")?);
    let mut copy = Connection::open(path)?;
    // A copy that is cut short is thrown away.
    copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;")?;
    let backup = backup::Backup::new(&moment, &mut copy)?;
    loop {
        match backup.step(PAGES_PER_STEP)? {
            StepResult::Done => break,
            StepResult::More => {
                let left = u64::from(backup.progress().remaining.unsigned_abs());
                on_bytes(pages.saturating_sub(left) * page_bytes);
            }
            // Somebody recovers the write-ahead log; that is over soon.
            _ => thread::sleep(RETRY_PAUSE),
        }
    }
    drop(backup);
    copy.close().map_err(|(_, error)| error)?;
    Ok(pages * page_bytes)
}

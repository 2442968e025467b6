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
//! - A listed file that is gone was sealed, erased or dropped meanwhile. What became of the segment is taken instead,
//!   and the copy of the catalog is told so, in the words that the daemon told its own: a segment that was sealed is
//!   full, and one that was dropped or erased in part was to go in any case. Only when the newest listed segment is
//!   sealed does all of this begin again, as the log has then gone on to one that the copy does not know.
//!
//! What root copies belongs to whom the original belongs, so that the same service can start from it.
//!
//! The copy of the catalog is marked: whoever starts from it must know that the original goes on, see `event_id`.
//!
//! The catalog gets its name last, when everything else is on the disk: until then this is no data directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

use rusqlite::{
    Connection,
    backup::{self, StepResult},
    params,
};

use super::{
    backup_ids::take_ids,
    catalog::read_catalog,
    consistent::{Observed, read_consistent},
    directory::{Fate, OfflineDir, RETRY_PAUSE, TRIES_MAX},
    error::OfflineError,
};
use crate::{
    clock::now_ms,
    store::{
        catalog::{ListedSegment, SegmentState, mark_backup, note_sealed},
        error::is_transient,
        format::{CATALOG, Owner, SegmentPaths, file, last_backup, sync_directory},
        segments::{Facts, Sites, Summary, SummaryError},
    },
};

/// Pages copied between two reports of progress.
const PAGES_PER_STEP: i32 = 1_024;
const UNFINISHED_CATALOG: &str = "catalog.db.unfinished";

/// What a backup has become.
#[derive(Debug, Default)]
pub struct BackupReport {
    /// Segments that share their file with the original.
    pub linked: FileCount,
    /// Segments that were copied.
    pub copied: FileCount,
    /// The files of segments that are listed but not there: the backup lacks them.
    pub missing: Vec<PathBuf>,
    /// Segments that are not what the catalog lists, and why; the backup has them as they are.
    pub damaged: Vec<(PathBuf, String)>,
    /// Files in quarantine, which the backup lacks.
    pub quarantined: usize,
    /// Why the original could not be told of the backup, if it could not; the backup is as good.
    pub unmarked: Option<io::Error>,
    /// When what is in the backup was looked at first, in milliseconds since 1970, UTC.
    began_at_ms: i64,
}

/// How many files, and how large they are together.
#[derive(Debug, Default, Clone, Copy)]
pub struct FileCount {
    /// The number of files.
    pub files: u64,
    /// The bytes of all of them.
    pub bytes: u64,
}

impl BackupReport {
    /// Whether everything that is listed is in the backup, and as it was written.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }
}

impl FileCount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// How far a backup is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Bytes copied or linked so far.
    pub done: u64,
    /// Bytes in all; may grow while the original does.
    pub total: u64,
}

/// A backup that is about to begin.
pub struct Backup<'a> {
    from: &'a OfflineDir,
    path: PathBuf,
    segments: SegmentPaths,
    owner: Owner,
    linked: BTreeSet<PathBuf>,
    /// The damage that reads have found, by the number of the segment.
    damage: BTreeMap<i64, String>,
}

/// What became of a segment in the backup.
enum SegmentCopy {
    Linked(u64),
    Copied(u64),
    /// The segment is not made yet, or gone.
    Nothing,
    /// The file of the segment is listed but not there.
    Missing(PathBuf),
    /// The log has gone on to a segment that is not listed.
    Again,
}

impl<'a> Backup<'a> {
    /// Makes the directory, which must be empty if it is there.
    pub fn new(from: &'a OfflineDir, path: &Path) -> Result<Self, OfflineError> {
        let segments = SegmentPaths::of_directory(path);
        let owner = Owner::of(from.path()).map_err(OfflineError::io("look at", from.path()))?;
        match owner.make_directory(path) {
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
        owner.make_directory(folder).map_err(OfflineError::io("make the directory", folder))?;
        let damage = from.catalog()?.damage;
        Ok(Self { from, path: path.into(), segments, owner, linked: BTreeSet::new(), damage })
    }

    /// Copies everything.
    pub fn run(mut self, mut on_progress: impl FnMut(Progress)) -> Result<BackupReport, OfflineError> {
        for _ in 0..TRIES_MAX {
            if let Some(mut report) = self.round(&mut on_progress)? {
                take_ids(self.from.path(), &self.path, self.owner)?;
                self.finish()?;
                if report.is_whole() {
                    report.unmarked = last_backup::write(self.from.path(), report.began_at_ms).err();
                }
                return Ok(report);
            }
        }
        Err(OfflineError::KeepsChanging(self.from.segments.folder().into()))
    }

    /// Copies what one copy of the catalog lists; `None` if that is out of date before it is done.
    fn round(&mut self, on_progress: &mut impl FnMut(Progress)) -> Result<Option<BackupReport>, OfflineError> {
        let began_at_ms = now_ms();
        let Some(listed) = self.copy_catalog()? else { return Ok(None) };
        self.remove_unlisted(&listed)?;
        let quarantined = self.from.quarantine.files()?.len();
        let mut report = BackupReport { quarantined, began_at_ms, ..BackupReport::default() };
        let total = listed.iter().map(|listed| file::bytes(&self.from.path_of(listed))).sum();
        let mut progress = Progress { done: 0, total };
        let newest = listed.last().map(|segment| segment.number);
        // Segments without indexes go first, the newest before the others.
        let is_sealed = |segment: &&ListedSegment| segment.state == SegmentState::Sealed;
        let open = listed.iter().rev().filter(|segment| !is_sealed(segment));
        for segment in open.chain(listed.iter().filter(is_sealed)) {
            let done = progress.done;
            let mut on_bytes = |bytes| {
                progress.done = done + bytes;
                progress.total = progress.total.max(progress.done);
                on_progress(progress);
            };
            match self.take(*segment, newest == Some(segment.number), &mut on_bytes, &mut report.damaged)? {
                SegmentCopy::Linked(bytes) => report.linked.add(bytes),
                SegmentCopy::Copied(bytes) => report.copied.add(bytes),
                SegmentCopy::Nothing => {}
                SegmentCopy::Missing(path) => report.missing.push(path),
                SegmentCopy::Again => return Ok(None),
            }
        }
        Ok(Some(report))
    }

    /// Takes a segment as it is now.
    fn take(
        &mut self,
        listed: ListedSegment,
        is_newest: bool,
        on_bytes: &mut impl FnMut(u64),
        damaged: &mut Vec<(PathBuf, String)>,
    ) -> Result<SegmentCopy, OfflineError> {
        let mut now = listed;
        for _ in 0..TRIES_MAX {
            let copied = match now.state {
                SegmentState::Sealed => self.take_sealed(&now, on_bytes)?,
                _ => self.copy_open(&now, on_bytes)?,
            };
            let is_gone = copied.is_none() && file::bytes(&self.from.path_of(&now)) == 0;
            let facts = match &copied {
                Some(_) if now.state == SegmentState::Sealed => self.look_at(&now)?,
                _ => Ok(None),
            };
            let fate = match (&copied, &facts) {
                (Some(_), Ok(_)) => Fate::Listed,
                // Nothing is told of a generation that was replaced meanwhile: the one in its place is taken.
                _ => self.from.fate(&now, is_gone)?,
            };
            match (fate, copied) {
                (Fate::Listed, Some(copied)) => {
                    if let Err(damage) = &facts {
                        damaged.push((self.from.path_of(&now), damage.clone()));
                    }
                    if now.generation != listed.generation {
                        self.note_generation(&now, facts.unwrap_or(now.facts))?;
                    }
                    return Ok(copied);
                }
                (Fate::Listed, None) => thread::sleep(RETRY_PAUSE),
                (Fate::Gone, copied) => {
                    self.forget(&now, copied.is_some())?;
                    let delete = "DELETE FROM Segment WHERE number = ?1";
                    self.change_copy(|copy| copy.execute(delete, [now.number]).map(drop))?;
                    return Ok(SegmentCopy::Nothing);
                }
                (Fate::Replaced(by), _) if is_newest && by.state == SegmentState::Sealed => {
                    return Ok(SegmentCopy::Again);
                }
                (Fate::Replaced(by), copied) => {
                    self.forget(&now, copied.is_some())?;
                    now = by;
                }
                // A segment whose making was cut short is made anew by the next start.
                (Fate::Unmade, _) => return Ok(SegmentCopy::Nothing),
                (Fate::Missing, _) => return Ok(SegmentCopy::Missing(self.from.path_of(&now))),
            }
        }
        Err(OfflineError::KeepsChanging(self.from.path_of(&now)))
    }

    /// Removes the copy of a generation that does not count any more.
    fn forget(&mut self, now: &ListedSegment, is_copied: bool) -> Result<(), OfflineError> {
        if is_copied {
            let copy = self.segments.of(now.number, now.generation);
            file::remove(&copy).map_err(OfflineError::io("remove", &copy))?;
            self.linked.remove(&copy);
        }
        Ok(())
    }

    /// What the copy of a sealed segment says of itself, or why that is not what the catalog lists.
    fn look_at(&self, now: &ListedSegment) -> Result<Result<Option<Facts>, String>, OfflineError> {
        let path = self.segments.of(now.number, now.generation);
        if let Some(found) = self.damage.get(&now.number) {
            return Ok(Err(format!("a read found: {found}")));
        }
        let summary = file::open_read_only(&path, true)
            .map_err(SummaryError::Sqlite)
            .and_then(|connection| Summary::read_listed(&connection, &Sites::default(), now.number, now.facts));
        match summary {
            Ok(summary) => Ok(Ok(Some(summary.facts))),
            Err(SummaryError::Sqlite(error)) if is_transient(&error, &path) => Err(OfflineError::read(path)(error)),
            Err(damage) => Ok(Err(damage.to_string())),
        }
    }

    /// Tells the copy of the catalog what the original was told when the segment was sealed, or erased from.
    fn note_generation(&self, now: &ListedSegment, facts: Option<Facts>) -> Result<(), OfflineError> {
        let (ListedSegment { number, generation, state, .. }, identity) = (*now, now.identity());
        self.change_copy(|copy| {
            let transaction = copy.transaction()?;
            match facts {
                Some(facts) => note_sealed(&transaction, identity, &facts, facts.last_sequence + 1)?,
                None => {
                    let sql = "UPDATE Segment SET generation = ?2, state = ?3 WHERE number = ?1";
                    transaction.execute(sql, params![number, generation, state.as_str()])?;
                }
            }
            transaction.commit()
        })
    }

    fn change_copy(&self, change: impl FnOnce(&mut Connection) -> rusqlite::Result<()>) -> Result<(), OfflineError> {
        let path = self.path.join(UNFINISHED_CATALOG);
        let changed = Connection::open(&path).and_then(|mut copy| {
            // A backup that is cut short is thrown away, and a whole one is synced at its end.
            copy.execute_batch("PRAGMA synchronous = OFF")?;
            change(&mut copy)
        });
        changed.map_err(|source| OfflineError::Copy { path, source })
    }

    /// Copies the catalog under a temporary name, so that this is no data directory yet; returns what the copy lists.
    fn copy_catalog(&self) -> Result<Option<Vec<ListedSegment>>, OfflineError> {
        let (path, copy) = (self.from.catalog_path(), self.path.join(UNFINISHED_CATALOG));
        let copied = read_consistent(&path, false, |source| copy_database(source, &copy, |_| {}));
        match copied.map_err(OfflineError::read(&path))? {
            Observed::Consistent(copied) => drop(copied?),
            Observed::Changed => return Ok(None),
        }
        // One file without a write-ahead log, because its name will change. Dropped segments are not copied.
        self.change_copy(|copy| {
            copy.execute_batch("PRAGMA journal_mode = DELETE; DELETE FROM Segment WHERE state = 'dropped';")?;
            // About files of the original: where the copy is put over a directory, they would be about others.
            if copy.table_exists(None, "Leftover")? {
                copy.execute("DELETE FROM Leftover", [])?;
            }
            if copy.table_exists(None, "Quarantine")? {
                copy.execute("DELETE FROM Quarantine", [])?;
            }
            mark_backup(copy, now_ms())
        })?;
        let connection = Connection::open(&copy).map_err(OfflineError::read(&copy))?;
        Ok(Some(read_catalog(&connection, &copy)?.segments))
    }

    /// Copies a segment that has no indexes yet; `None` if its file is not there, or was replaced.
    fn copy_open(
        &self,
        segment: &ListedSegment,
        on_bytes: &mut impl FnMut(u64),
    ) -> Result<Option<SegmentCopy>, OfflineError> {
        let (path, copy) = (self.from.path_of(segment), self.segments.of(segment.number, segment.generation));
        if file::bytes(&path) == 0 {
            return Ok(None);
        }
        let copied = read_consistent(&path, false, |source| copy_database(source, &copy, on_bytes));
        match copied.map_err(OfflineError::read(&path))? {
            Observed::Consistent(copied) => copied.map(|bytes| Some(SegmentCopy::Copied(bytes))),
            Observed::Changed => file::remove(&copy).map(|()| None).map_err(OfflineError::io("remove", copy)),
        }
    }

    /// Links or copies a sealed segment; `None` if its file is not there.
    fn take_sealed(
        &mut self,
        segment: &ListedSegment,
        on_bytes: &mut impl FnMut(u64),
    ) -> Result<Option<SegmentCopy>, OfflineError> {
        let (path, copy) = (self.from.path_of(segment), self.segments.of(segment.number, segment.generation));
        if !copy.exists() {
            match fs::hard_link(&path, &copy) {
                Ok(()) => drop(self.linked.insert(copy.clone())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                // No link can be made: another file system, one without links, or a file that belongs to another user.
                Err(_) => match fs::copy(&path, &copy) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(OfflineError::io("copy a segment to", copy)(error)),
                },
            }
        }
        let bytes = file::bytes(&copy);
        on_bytes(bytes);
        Ok(Some(if self.linked.contains(&copy) { SegmentCopy::Linked(bytes) } else { SegmentCopy::Copied(bytes) }))
    }

    /// Removes what an earlier round left and this one does not list: other generations, and every segment that is
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
        let sync = |path: &Path| {
            let synced = File::open(path).and_then(|file| self.owner.give(&file).and_then(|()| file.sync_all()));
            synced.map_err(OfflineError::io("sync", path))
        };
        let folder = self.segments.folder();
        for entry in fs::read_dir(folder).map_err(OfflineError::io("read the directory", folder))? {
            let path = entry.map_err(OfflineError::io("read the directory", folder))?.path();
            if !self.linked.contains(&path) {
                sync(&path)?;
            }
        }
        sync(&unfinished)?;
        sync_directory(folder)?;
        sync_directory(&self.path)?;
        fs::rename(&unfinished, &catalog).map_err(OfflineError::io("rename", unfinished))?;
        sync_directory(&self.path)?;
        sync_directory(self.path.parent().unwrap_or(&self.path))?;
        Ok(())
    }
}

/// Copies a database as it is at one moment into one file, and returns its bytes.
fn copy_database(source: &Connection, path: &Path, mut on_bytes: impl FnMut(u64)) -> Result<u64, OfflineError> {
    file::remove(path).map_err(OfflineError::io("remove", path))?;
    let bytes =
        copy_pages(source, path, &mut on_bytes).map_err(|source| OfflineError::Copy { path: path.into(), source })?;
    on_bytes(bytes);
    Ok(bytes)
}

fn copy_pages(source: &Connection, path: &Path, on_bytes: &mut impl FnMut(u64)) -> rusqlite::Result<u64> {
    // Holds one moment of the source: without a transaction a copy in steps begins anew with each change.
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
            // Another process recovers the write-ahead log, which takes a moment.
            _ => thread::sleep(RETRY_PAUSE),
        }
    }
    drop(backup);
    // The copied header says that the file has a write-ahead log; without that, one found beside it is another's.
    copy.execute_batch("PRAGMA journal_mode = DELETE;")?;
    copy.close().map_err(|(_, error)| error)?;
    Ok(pages * page_bytes)
}

//! What a new generation begins with: the pages of the one before, or its rows without those that are to be erased.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
    params,
};

use super::error::RewriteError;
use crate::store::{
    catalog::{Subject, Target},
    format::{file, schema},
};

/// Pages copied between two looks at whether hitlog is stopping.
const PAGES_PER_LOOK: i32 = 256;
/// How long the pages of a segment that is built may collect before they are written out.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// Instructions of SQLite's between two looks at the clock.
pub(super) const INSTRUCTIONS_PER_LOOK: i32 = 100_000;

/// How long an erasure pauses after working for [`SYNC_INTERVAL`]: it is in no hurry, and requests are.
const REST: Duration = SYNC_INTERVAL;

/// Runs now and then while SQLite works: syncs what has piled up, so that no commit waits behind a whole segment's
/// writes, and ends the work when hitlog is stopping.
pub(super) struct Pace {
    rests: bool,
    file: Arc<File>,
    /// A sync that failed. The kernel reports a failure only once, so the last sync would not hear of it.
    sync_error: Arc<Mutex<Option<io::Error>>>,
}

impl Pace {
    /// For a file that only this thread has open: closing a second descriptor would drop SQLite's locks on it.
    pub(super) fn new(path: &Path, rests: bool) -> io::Result<Self> {
        Ok(Self { rests, file: Arc::new(File::open(path)?), sync_error: Arc::default() })
    }

    /// Has every statement of the connection keep the pace.
    pub(super) fn set(&self, connection: &Connection, stopping: &Arc<AtomicBool>) -> rusqlite::Result<()> {
        let (file, sync_error) = (Arc::clone(&self.file), Arc::clone(&self.sync_error));
        let (stopping, rests, mut synced_at) = (Arc::clone(stopping), self.rests, Instant::now());
        let must_stop = move || {
            if synced_at.elapsed() > SYNC_INTERVAL {
                if let Err(error) = file.sync_data() {
                    *sync_error.lock() = Some(error);
                    return true;
                }
                if rests {
                    thread::sleep(REST);
                }
                synced_at = Instant::now();
            }
            stopping.load(Ordering::Relaxed)
        };
        connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(must_stop))
    }

    /// The result of statements that kept the pace.
    pub(super) fn check<T>(&self, result: Result<T, RewriteError>) -> Result<T, RewriteError> {
        match self.sync_error.lock().take() {
            Some(error) => Err(error.into()),
            None => result,
        }
    }

    /// Makes the file durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Copies a segment's pages.
pub(super) fn pages(
    source: &Path,
    is_sealed: bool,
    built: &mut Connection,
    pace: &Pace,
    stopping: &AtomicBool,
) -> Result<(), RewriteError> {
    let source = file::open_read_only(source, is_sealed)?;
    let copy = Backup::new(&source, built)?;
    loop {
        if stopping.load(Ordering::Relaxed) {
            return Err(RewriteError::Stopping);
        }
        match copy.step(PAGES_PER_LOOK)? {
            StepResult::Done => return Ok(()),
            StepResult::More => pace.file.sync_data()?,
            // Nobody writes to a full segment, so a lock is held only for a moment.
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Brings a copy of an older version to this one: what came later is empty in it.
pub(super) fn upgrade(built: &Connection) -> Result<(), RewriteError> {
    let version: i64 = built.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < schema::SEGMENT_VERSION_OF_IDS {
        built.execute_batch(schema::ADD_IDS)?;
    }
    if version < schema::SEGMENT_VERSION_OF_ROLLUPS {
        built.execute_batch(schema::ADD_FLAGS)?;
    }
    built.pragma_update(None, "user_version", schema::SEGMENT_VERSION)?;
    Ok(())
}

/// Copies a segment's rows, but for those of the targets, into an empty file: bytes that are never written there need
/// not be found and overwritten. Returns how many rows each target had that no target before it had.
pub(super) fn rows_without(
    source: &Path,
    is_sealed: bool,
    targets: &[Target],
    built: &Connection,
) -> Result<Vec<u64>, RewriteError> {
    // Set before the first use of the temporary table: what is erased must not be written to a file.
    built.execute_batch("PRAGMA temp_store = MEMORY;")?;
    built.execute("ATTACH ?1 AS source", [file::read_only_uri(source, is_sealed)])?;
    let page_bytes: i64 = built.query_row("PRAGMA source.page_size", [], |row| row.get(0))?;
    built.execute_batch(&format!(
        "PRAGMA main.page_size = {page_bytes};
         PRAGMA main.application_id = {}; PRAGMA main.user_version = {};
         {}
         CREATE TEMP TABLE Erased(id INTEGER PRIMARY KEY);",
        schema::APPLICATION_ID,
        schema::SEGMENT_VERSION,
        schema::SEGMENT_SQL,
    ))?;
    let erased = if is_sealed { find_by_index(targets, built)? } else { find_by_scan(targets, built)? };
    let version: i64 = built.query_row("PRAGMA source.user_version", [], |row| row.get(0))?;
    let columns = schema::EVENT_COLUMNS;
    let found = schema::columns_of_version(version);
    built.execute_batch(&format!(
        "INSERT INTO main.Event({columns}) SELECT {found} FROM source.Event NOT INDEXED
         WHERE id NOT IN temp.Erased ORDER BY id;
         DETACH source;"
    ))?;
    Ok(erased)
}

/// Notes the rows of the targets in a segment that has indexes.
fn find_by_index(targets: &[Target], built: &Connection) -> rusqlite::Result<Vec<u64>> {
    let mut of_visitor = built.prepare(
        "INSERT OR IGNORE INTO temp.Erased SELECT id FROM source.Event INDEXED BY EventByVisitor
         WHERE visitorId = ?2 AND websiteId = ?1 AND id <= ?3",
    )?;
    let mut of_website = built.prepare(
        "INSERT OR IGNORE INTO temp.Erased SELECT id FROM source.Event INDEXED BY EventByType WHERE websiteId = ?1",
    )?;
    let found = targets.iter().map(|Target { subject: Subject { website_id, visitor }, .. }| {
        let rows = match visitor {
            Some(of) => of_visitor.execute(params![website_id, of.visitor_id, of.up_to.cast_signed()])?,
            None => of_website.execute([website_id])?,
        };
        Ok(rows as u64)
    });
    found.collect()
}

/// The number of a target, and the highest sequence that it removes.
type NumberUpTo = (usize, u64);
/// A website, and a visitor if only one is meant.
type SubjectIds<'a> = (&'a [u8], Option<&'a [u8]>);

/// Notes the rows of the targets in a segment without indexes, in one pass however many targets there are.
fn find_by_scan(targets: &[Target], built: &Connection) -> rusqlite::Result<Vec<u64>> {
    let mut by_subject: HashMap<SubjectIds<'_>, Vec<NumberUpTo>> = HashMap::new();
    for (number, Target { subject: Subject { website_id, visitor }, .. }) in targets.iter().enumerate() {
        let visitor_id = visitor.as_ref().map(|of| of.visitor_id.as_bytes());
        let up_to = visitor.as_ref().map_or(u64::MAX, |of| of.up_to);
        by_subject.entry((website_id.as_bytes(), visitor_id)).or_default().push((number, up_to));
    }
    let mut counts = vec![0; targets.len()];
    let mut select = built.prepare("SELECT id, websiteId, visitorId FROM source.Event ORDER BY id")?;
    let mut insert = built.prepare("INSERT OR IGNORE INTO temp.Erased VALUES(?1)")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let sequence: i64 = row.get(0)?;
        let (website_id, visitor_id) = (row.get_ref(1)?.as_bytes()?, row.get_ref(2)?.as_bytes()?);
        for subject in [(website_id, Some(visitor_id)), (website_id, None)] {
            let here = by_subject.get(&subject).into_iter().flatten();
            for (number, _) in here.filter(|(_, up_to)| sequence.unsigned_abs() <= *up_to) {
                counts[*number] += insert.execute([sequence])? as u64;
            }
        }
    }
    Ok(counts)
}

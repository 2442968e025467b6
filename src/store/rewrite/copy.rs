//! What a new generation begins with: the pages of the one before, or its rows without those that are to be erased.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
    params,
};

use super::{RewriteError, Target};
use crate::store::{erasures::Subject, file, schema};

/// Pages copied between two looks at whether hitlog is stopping.
const PAGES_PER_LOOK: i32 = 256;
/// How long the pages of a segment that is built may gather before they are written out.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// Instructions of SQLite's between two looks at the clock.
const INSTRUCTIONS_PER_LOOK: i32 = 100_000;

/// Looked at while SQLite works: writes out what has come together, so that no commit ever waits behind a segment's
/// worth of it, and ends the work when hitlog is stopping.
pub(super) struct Pace {
    file: Arc<File>,
    /// The kernel tells a failure once: the sync at the end would know nothing of it.
    sync_error: Arc<Mutex<Option<io::Error>>>,
}

impl Pace {
    /// Of a file that nobody else has, so that there are no locks which closing it could drop.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(File::open(path)?), sync_error: Arc::default() })
    }

    /// Has every statement of the connection keep the pace.
    pub(super) fn set(&self, connection: &Connection, stopping: &Arc<AtomicBool>) -> rusqlite::Result<()> {
        let (file, sync_error) = (Arc::clone(&self.file), Arc::clone(&self.sync_error));
        let (stopping, mut synced_at) = (Arc::clone(stopping), Instant::now());
        let must_stop = move || {
            if synced_at.elapsed() > SYNC_INTERVAL {
                if let Err(error) = file.sync_data() {
                    *sync_error.lock() = Some(error);
                    return true;
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
            // Nobody writes here, so whoever has a lock gives it back soon.
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Copies a segment's rows, but for those of the targets, into an empty file: bytes that are never written there need
/// not be found and overwritten. Returns how many rows each target had.
pub(super) fn rows_without(
    source: &Path,
    is_sealed: bool,
    targets: &[Target],
    built: &Connection,
) -> Result<Vec<u64>, RewriteError> {
    // Before anything is written to the temporary table: it must not go to a file either.
    built.execute_batch("PRAGMA temp_store = MEMORY;")?;
    let access = if is_sealed { "immutable=1" } else { "mode=ro" };
    built.execute("ATTACH ?1 AS source", [file::uri(source, access)])?;
    let page_bytes: i64 = built.query_row("PRAGMA source.page_size", [], |row| row.get(0))?;
    built.execute_batch(&format!(
        "PRAGMA main.page_size = {page_bytes};
         PRAGMA main.application_id = {}; PRAGMA main.user_version = {};
         {}
         CREATE TEMP TABLE Erased(
            number INTEGER PRIMARY KEY, websiteId TEXT NOT NULL, visitorId TEXT, upTo INTEGER NOT NULL
         );
         CREATE INDEX temp.ErasedBySubject ON Erased(websiteId, visitorId);",
        schema::APPLICATION_ID,
        schema::SEGMENT_VERSION,
        schema::SEGMENT_SQL,
    ))?;
    for (number, (_, Subject { website_id, visitor })) in targets.iter().enumerate() {
        let visitor_id = visitor.as_ref().map(|visitor| &visitor.visitor_id);
        let up_to = visitor.as_ref().map_or(i64::MAX, |visitor| visitor.up_to.cast_signed());
        let row = params![number as i64, website_id, visitor_id, up_to];
        built.execute("INSERT INTO temp.Erased VALUES(?1, ?2, ?3, ?4)", row)?;
    }
    let mut counts = vec![0; targets.len()];
    for condition in [OF_VISITOR, OF_WEBSITE] {
        let count = format!(
            "SELECT erased.number, count(*) FROM source.Event AS event NOT INDEXED CROSS JOIN temp.Erased AS erased
             WHERE {condition} GROUP BY erased.number"
        );
        let mut count = built.prepare(&count)?;
        let mut rows = count.query([])?;
        while let Some(row) = rows.next()? {
            let (number, count): (i64, i64) = (row.get(0)?, row.get(1)?);
            counts[number as usize] += count.unsigned_abs();
        }
    }
    let erased = |condition| format!("EXISTS (SELECT 1 FROM temp.Erased AS erased WHERE {condition})");
    let columns = schema::EVENT_COLUMNS;
    built.execute_batch(&format!(
        "INSERT INTO main.Event({columns}) SELECT {columns} FROM source.Event AS event NOT INDEXED
         WHERE NOT {} AND NOT {} ORDER BY id",
        erased(OF_VISITOR),
        erased(OF_WEBSITE),
    ))?;
    built.execute_batch("DETACH source;")?;
    Ok(counts)
}

const OF_VISITOR: &str =
    "erased.websiteId = event.websiteId AND erased.visitorId = event.visitorId AND event.id <= erased.upTo";
const OF_WEBSITE: &str = "erased.websiteId = event.websiteId AND erased.visitorId IS NULL";

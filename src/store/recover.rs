//! The start: what the catalog lists is brought together with what is on the disk.
//!
//! What an interrupted rewriting or removal left is deleted; summaries of sealed segments are read; segments without an
//! index are recovered from their write-ahead logs, checked if hitlog did not stop in order, and read into memory.

use std::{
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    catalog::{CatalogFile, Erasure, Erasures, ListedSegment, SegmentChange, SegmentState, Subject},
    error::{OpenError, is_transient},
    format::{SegmentName, SegmentPaths, file, room::Room, schema},
    log::active::ActiveSegment,
    options::LogOptions,
    read::snapshot::Snapshot,
    segments::{Columns, Content, RowKeys, Segment, Segments, Sites, Summary, SummaryError},
};
use crate::metrics::StoreMetrics;

/// How long the start waits for a program that reads a segment without an index, such as a backup on a slow disk.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries, besides the time for which SQLite itself waits.
const READER_POLL: Duration = Duration::from_millis(200);

/// What the log begins with.
pub(super) struct Recovered {
    pub(super) active: ActiveSegment,
    pub(super) prepared: Option<ActiveSegment>,
    /// The oldest first.
    pub(super) unsealed: Vec<Arc<Segment>>,
    pub(super) next_sequence: u64,
    pub(super) next_number: i64,
}

/// Recovers every segment and shows them all in `segments`.
pub(super) fn recover_segments(
    paths: &SegmentPaths,
    catalog: &mut CatalogFile,
    segments: &Segments,
    options: &LogOptions,
    metrics: &Arc<StoreMetrics>,
    room: Room,
) -> Result<Recovered, OpenError> {
    let listed = catalog.segments()?;
    for segment in listed.iter().filter(|segment| segment.state == SegmentState::Sealed) {
        recover_sealed(paths, *segment, segments)?;
    }
    remove_orphans(paths, &listed, segments)?;
    for segment in listed.iter().filter(|segment| segment.state == SegmentState::Dropped) {
        catalog.change_segments(&SegmentChange::Unlisted(segment.number))?;
    }
    let mut open = Vec::new();
    for segment in &listed {
        let is_open = !matches!(segment.state, SegmentState::Sealed | SegmentState::Dropped);
        // One whose making was cut short has nothing in it, and is made anew when its number comes.
        if is_open && !segment.is_unmade(file::bytes(&paths.of(segment.number, segment.generation))) {
            open.push((recover_open(paths, *segment, segments, options, metrics, room)?, segment.state));
        }
    }
    // A crash may have kept the roll from the catalog, but rows tell: a prepared segment that has some was rolled to.
    let is_begun = |(segment, state): &(Arc<Segment>, SegmentState)| {
        *state == SegmentState::Active || segment.sequences().is_some()
    };
    let at = open.iter().rposition(is_begun).unwrap_or(0);
    if open.is_empty() {
        let number = listed.last().map_or(1, |segment| segment.number + 1);
        file::create(&paths.of(number, 1), options, metrics)?;
        catalog.change_segments(&SegmentChange::Prepared(number))?;
        open.push((Arc::new(Segment::open(paths, number, Columns::default())), SegmentState::Prepared));
    }
    let prepared = open.split_off(at + 1).into_iter().next();
    let (active, state) = open.remove(at);
    let unsealed: Vec<_> = open.into_iter().map(|(segment, _)| segment).collect();
    for segment in unsealed.iter().chain([&active]) {
        segments.push(Arc::clone(segment));
    }
    let last = segments.view().segments.iter().filter_map(|segment| segment.sequences()).map(|(_, last)| last).max();
    let next_sequence = catalog.sequence_floor().max(last.unwrap_or(0) + 1);
    if state != SegmentState::Active {
        catalog.change_segments(&SegmentChange::Activated { number: active.number, sequence_floor: next_sequence })?;
    }
    let open = |segment| ActiveSegment::open(segment, options, metrics, room);
    Ok(Recovered {
        next_number: active.number + 1,
        active: open(active)?,
        prepared: prepared.map(|(segment, _)| open(segment)).transpose()?,
        unsealed,
        next_sequence,
    })
}

/// Removes what an interrupted rewriting left: a file that was being built, generations that are not the listed one,
/// dropped segments. What stands beside a damaged generation stays: it may be all that is left of the segment.
fn remove_orphans(paths: &SegmentPaths, listed: &[ListedSegment], segments: &Segments) -> Result<(), OpenError> {
    let sealed = segments.view();
    let is_replaced = |number: i64, generation: i64| {
        listed.iter().any(|segment| {
            segment.number == number
                && segment.generation != generation
                && paths.of(number, segment.generation).exists()
                && (segment.state != SegmentState::Sealed || sealed.segment(number).is_some())
        })
    };
    let is_dropped =
        |number: i64| listed.iter().any(|segment| segment.number == number && segment.state == SegmentState::Dropped);
    let entries = fs::read_dir(paths.folder()).map_err(OpenError::io("read the directory", paths.folder()))?;
    for entry in entries {
        let entry = entry.map_err(OpenError::io("read the directory", paths.folder()))?;
        let is_orphan = match entry.file_name().to_str().map(SegmentPaths::parse) {
            Some(SegmentName::Unfinished) => true,
            Some(SegmentName::Generation(number, generation)) => is_dropped(number) || is_replaced(number, generation),
            // A segment that is not listed is dealt with when the log reaches its number.
            Some(SegmentName::Foreign) | None => false,
        };
        if is_orphan {
            tracing::info!(file = %entry.path().display(), "removing what an interrupted rewriting has left");
            fs::remove_file(entry.path()).map_err(OpenError::io("remove the leftover", entry.path()))?;
        }
    }
    Ok(())
}

/// Shows a sealed segment, or quarantines a damaged one. A newer hitlog's is an error, and so is a transient failure to
/// read: nobody wants to serve without a sound segment.
fn recover_sealed(paths: &SegmentPaths, listed: ListedSegment, segments: &Segments) -> Result<(), OpenError> {
    let ListedSegment { number, generation, .. } = listed;
    let path = paths.of(number, generation);
    let opened = file::open_read_only(&path, true).map_err(OpenError::sqlite(&path));
    let checked = opened.and_then(|connection| schema::check_segment(&connection, &path).map(|()| connection));
    match checked.map(|connection| Summary::read(&connection, &segments.sites)) {
        Ok(Ok(summary)) => {
            let content = Content::Sealed(summary);
            segments.push(Arc::new(Segment { number, generation, path, content }));
        }
        Ok(Err(SummaryError::Sqlite(error))) if is_transient(&error, &path) => {
            return Err(OpenError::sqlite(&path)(error));
        }
        Err(OpenError::Sqlite { source, .. }) if is_transient(&source, &path) => {
            return Err(OpenError::sqlite(&path)(source));
        }
        Ok(Err(error)) => segments.quarantine(number, &path, &error),
        Err(newer @ OpenError::Newer { .. }) => return Err(newer),
        Err(error) => segments.quarantine(number, &path, &error),
    }
    Ok(())
}

fn recover_open(
    paths: &SegmentPaths,
    listed: ListedSegment,
    segments: &Segments,
    options: &LogOptions,
    metrics: &Arc<StoreMetrics>,
    room: Room,
) -> Result<Arc<Segment>, OpenError> {
    let path = paths.of(listed.number, listed.generation);
    let unclean = file::has_wal(&path);
    let connection = file::open(&path, options, metrics)?;
    let sqlite = || OpenError::sqlite(&path);
    match room {
        Room::Enough => truncate_or_wait(&connection, &path)?,
        Room::Scarce => file::leave_wal(&connection).map_err(sqlite())?,
    }
    if unclean {
        quick_check(&connection, &path)?;
    }
    let columns = read_columns(&connection, &segments.sites).map_err(sqlite())?;
    Ok(Arc::new(Segment::open(paths, listed.number, columns)))
}

/// Empties the write-ahead log. A backup or an export may be reading the segment: the start waits for it.
fn truncate_or_wait(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let began_at = Instant::now();
    while file::truncate_wal(connection).map_err(OpenError::sqlite(path))? {
        if began_at.elapsed() > READER_TIMEOUT {
            return Err(OpenError::BeingRead(path.into()));
        }
        tracing::info!(file = %path.display(), "waiting for another program that reads this segment");
        thread::sleep(READER_POLL);
    }
    Ok(())
}

/// Checks, after a crash, that the file is what SQLite wrote.
fn quick_check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(OpenError::sqlite(path))?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.into(), reason: verdict }) }
}

/// Reads the keys of all rows of a segment that has no index.
fn read_columns(connection: &Connection, sites: &Sites) -> rusqlite::Result<Columns> {
    const ROWS_AT_ONCE: usize = 4_096;
    let columns = Columns::default();
    let mut select = connection
        .prepare("SELECT id, websiteId, eventType, createdAt, sessionId, visitorId FROM Event ORDER BY id")?;
    let mut rows = select.query([])?;
    let (mut first, mut waiting) = (0, Vec::with_capacity(ROWS_AT_ONCE));
    while let Some(row) = rows.next()? {
        let sequence = row.get::<_, i64>(0)?.unsigned_abs();
        if waiting.len() == ROWS_AT_ONCE || first + waiting.len() as u64 != sequence {
            columns.add(first, &waiting);
            waiting.clear();
            first = sequence;
        }
        let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_bytes()?);
        waiting.push(RowKeys::new(sites, (text(1)?, text(2)?), row.get(3)?, (text(4)?, text(5)?)));
    }
    columns.add(first, &waiting);
    Ok(columns)
}

/// Hides again what is still to be erased; websites that were deleted are not asked for any more.
pub(super) fn recover_erasures(
    listed: Vec<Erasure>,
    segments: &Segments,
    erasures: &Erasures,
) -> Result<(), OpenError> {
    for mut erasure in listed {
        if let Some(Subject { website_id, visitor: Some(visitor) }) = &erasure.subject {
            let mut found = loop {
                let damaged = segments.damaged();
                match Snapshot::at_start(segments).find_visitor(website_id, &visitor.visitor_id, usize::MAX) {
                    Ok(found) => break found,
                    // A segment was found to be damaged, and is in quarantine by now.
                    Err(_) if segments.damaged() > damaged => {}
                    Err(error) => return Err(OpenError::Erasure(Arc::clone(&erasure.id), error)),
                }
            };
            for found in &mut found {
                found.events.retain(|(_, key)| key.sequence <= visitor.up_to);
            }
            found.retain(|found| !found.events.is_empty());
            erasure.remaining = found.iter().map(|found| found.segment).collect();
            segments.hide(&erasure.id, found);
        }
        erasures.insert(erasure);
    }
    Ok(())
}

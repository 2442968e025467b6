//! The start: what the catalog lists is brought together with what is on the disk.
//!
//! Summaries of sealed segments are read and compared with what the catalog knows of them; what an interrupted
//! rewriting or removal left is deleted, and what nobody knows is put into quarantine (`strays`); segments without an
//! index are recovered from their write-ahead logs, checked if hitlog did not stop in order, and read into memory.

mod strays;

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    catalog::{CatalogFile, Erasure, Erasures, ListedSegment, SegmentChange, SegmentState, Subject},
    error::{OpenError, is_transient},
    format::{DataDir, SegmentPaths, file, schema},
    log::active::ActiveSegment,
    options::LogOptions,
    read::snapshot::Snapshot,
    segments::{Columns, Content, Facts, RowKeys, Segment, Segments, Sites, Summary, SummaryError},
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
    directory: &DataDir,
    catalog: &mut CatalogFile,
    segments: &Segments,
    options: &LogOptions,
    metrics: &Arc<StoreMetrics>,
) -> Result<Recovered, OpenError> {
    let paths = &directory.segment_paths();
    let listed = catalog.segments()?;
    recover_all_sealed(paths, &listed, catalog, segments)?;
    let strays = strays::clear(directory, catalog, &listed, segments)?;
    let highest_stray = strays.highest_number;
    let last_number = listed.last().map_or(0, |segment| segment.number);
    let next_number = last_number.max(highest_stray).max(catalog.number_floor()?) + 1;
    let recover = |listed: &ListedSegment| recover_open(paths, *listed, segments, options, metrics);
    let mut open = recover_all_open(paths, &listed, catalog, highest_stray, recover)?;
    // A crash may have kept the roll from the catalog, but rows tell: a prepared segment that has some was rolled to.
    let is_begun = |(segment, state): &(Arc<Segment>, SegmentState)| {
        *state == SegmentState::Active || segment.sequences().is_some()
    };
    // Nothing more goes into a segment whose number, or a later one, was given to what is in quarantine, or whose rows
    // the next one would not follow.
    let floor = catalog.sequence_floor().max(strays.sequence_floor);
    let is_usable = |(segment, _): &(Arc<Segment>, SegmentState)| {
        segment.number > highest_stray && segment.sequences().is_none_or(|(_, last)| last + 1 >= floor)
    };
    let begun = open.iter().rposition(is_begun);
    let at = match begun.filter(|at| is_usable(&open[*at])).or_else(|| open.iter().position(is_usable)) {
        Some(at) => at,
        None => {
            file::create(&paths.of(next_number, 1), options, metrics)?;
            catalog.change_segments(&SegmentChange::Prepared(next_number))?;
            open.push((Arc::new(Segment::open(paths, next_number, Columns::default())), SegmentState::Prepared));
            open.len() - 1
        }
    };
    let prepared = open.split_off(at + 1).into_iter().next();
    let (active, state) = open.remove(at);
    let unsealed: Vec<_> = open.into_iter().map(|(segment, _)| segment).collect();
    for segment in unsealed.iter().chain([&active]) {
        segments.push(Arc::clone(segment));
    }
    let last = segments.view().segments.iter().filter_map(|segment| segment.sequences()).map(|(_, last)| last).max();
    let next_sequence = floor.max(last.unwrap_or(0) + 1);
    segments.begin_at(next_sequence);
    if state != SegmentState::Active {
        catalog.change_segments(&SegmentChange::Activated { number: active.number, sequence_floor: next_sequence })?;
    }
    let open = |segment| ActiveSegment::open(segment, options, metrics);
    Ok(Recovered {
        next_number: next_number.max(active.number + 1),
        active: open(active)?,
        prepared: prepared.map(|(segment, _)| open(segment)).transpose()?,
        unsealed,
        next_sequence,
    })
}

/// Recovers the segments that have no indexes, and has the catalog forget those in which there is nothing.
fn recover_all_open(
    paths: &SegmentPaths,
    listed: &[ListedSegment],
    catalog: &mut CatalogFile,
    highest_stray: i64,
    recover: impl Fn(&ListedSegment) -> Result<Arc<Segment>, OpenError>,
) -> Result<Vec<(Arc<Segment>, SegmentState)>, OpenError> {
    let mut open = Vec::new();
    for listed in listed.iter().filter(|of| !matches!(of.state, SegmentState::Sealed | SegmentState::Dropped)) {
        let path = paths.of(listed.number, listed.generation);
        let is_unmade = listed.is_unmade(file::bytes(&path)) && !file::has_wal(&path);
        if !is_unmade {
            let segment = recover(listed)?;
            // One that is empty may be gone, and must be where its number was given to another that is in quarantine.
            if segment.sequences().is_some() || segment.number > highest_stray {
                open.push((segment, listed.state));
                continue;
            }
        }
        // There is nothing in it: its making was cut short, or it is not to be used.
        catalog.change_segments(&SegmentChange::Unlisted(listed.number))?;
        file::remove(&path).map_err(OpenError::io("remove the empty segment", &path))?;
    }
    Ok(open)
}

/// Shows the sealed segments that are what the catalog says, and has it note what it did not know of them.
fn recover_all_sealed(
    paths: &SegmentPaths,
    listed: &[ListedSegment],
    catalog: &mut CatalogFile,
    segments: &Segments,
) -> Result<(), OpenError> {
    let (mut new, damage) = (Vec::new(), catalog.damage()?);
    for segment in listed.iter().filter(|segment| segment.state == SegmentState::Sealed) {
        if damage.contains_key(&segment.number) {
            let path = paths.of(segment.number, segment.generation);
            if let Err(error) = check_again(&path) {
                segments.note_damage(segment.number, &path, &error);
                continue;
            }
            catalog.change_segments(&SegmentChange::Damaged(segment.number, None))?;
        }
        let facts = recover_sealed(paths, *segment, segments)?.filter(|_| segment.facts.is_none());
        new.extend(facts.map(|facts| (segment.number, facts)));
    }
    match new.is_empty() {
        true => Ok(()),
        false => strays::if_there_is_room(catalog.change_segments(&SegmentChange::Noted(new))),
    }
}

/// Whether a segment in which a read has found damage is whole again: somebody may have put its file back.
fn check_again(path: &Path) -> Result<(), OpenError> {
    let connection = file::open_read_only(path, true).map_err(OpenError::sqlite(path))?;
    quick_check(&connection, path)
}

/// Shows a sealed segment and returns what it says of itself, or notes that it is damaged. A newer hitlog's is an
/// error, and so is a transient failure to read: nobody wants to serve without a sound segment.
fn recover_sealed(
    paths: &SegmentPaths,
    listed: ListedSegment,
    segments: &Segments,
) -> Result<Option<Facts>, OpenError> {
    let ListedSegment { number, generation, .. } = listed;
    let path = paths.of(number, generation);
    let opened = file::open_read_only(&path, true).map_err(OpenError::sqlite(&path));
    let checked = opened.and_then(|connection| schema::check_segment(&connection, &path).map(|()| connection));
    match checked.map(|connection| Summary::read_listed(&connection, &segments.sites, number, listed.facts)) {
        Ok(Ok(summary)) => {
            let facts = summary.facts;
            let content = Content::Sealed(summary);
            segments.push(Arc::new(Segment { number, generation, path, content }));
            return Ok(Some(facts));
        }
        Ok(Err(SummaryError::Sqlite(error))) if is_transient(&error, &path) => {
            return Err(OpenError::sqlite(&path)(error));
        }
        Err(OpenError::Sqlite { source, .. }) if is_transient(&source, &path) => {
            return Err(OpenError::sqlite(&path)(source));
        }
        Ok(Err(error)) => segments.note_damage(number, &path, &error),
        Err(newer @ OpenError::Newer { .. }) => return Err(newer),
        Err(error) => segments.note_damage(number, &path, &error),
    }
    Ok(None)
}

fn recover_open(
    paths: &SegmentPaths,
    listed: ListedSegment,
    segments: &Segments,
    options: &LogOptions,
    metrics: &Arc<StoreMetrics>,
) -> Result<Arc<Segment>, OpenError> {
    let path = paths.of(listed.number, listed.generation);
    if !path.exists() {
        return Err(OpenError::Lost { path, number: listed.number });
    }
    let unclean = file::has_wal(&path);
    let connection = file::open(&path, options, metrics)?;
    let sqlite = || OpenError::sqlite(&path);
    truncate_or_wait(&connection, &path)?;
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
            let reason = "another program has it open; end that one".into();
            return Err(OpenError::NotOurs { path: path.into(), reason });
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
                    // A segment was found to be damaged, and is in no view any more.
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

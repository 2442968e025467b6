//! The start: what the catalog lists is brought together with what is on the disk.
//!
//! Summaries of sealed segments are read and compared with what the catalog knows of them; what an interrupted
//! rewriting or removal left is deleted, and what nobody knows is put into quarantine (`strays`). Segments without an
//! index are recovered from their write-ahead logs, checked if hitlog did not stop in order, and found again through
//! the keys that were laid down beside them, or those of their rows.

pub(super) mod copies;
pub(super) mod ids;
mod strays;

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    catalog::{CatalogFile, Erasure, Erasures, ListedSegment, SegmentChange, SegmentState, Subject},
    error::{OpenError, ReadError, is_transient},
    format::{DataDir, SegmentPaths, blocks::BlockError, file, room::Room, schema},
    log::active::ActiveSegment,
    options::{ErasureOptions, LogOptions},
    read::{list::hiding::HidingRoom, snapshot::Snapshot},
    segments::{
        Columns, Content, Facts, HiddenVisitor, LaidKeys, OpenKeys, Segment, Segments, Sites, Summary, SummaryError,
        sample_of_rows,
    },
};
use crate::metrics::{ReadRefused, StoreMetrics};

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

/// What a start is given.
pub(super) struct Start<'a> {
    pub(super) directory: &'a DataDir,
    pub(super) options: &'a LogOptions,
    pub(super) metrics: &'a Arc<StoreMetrics>,
    pub(super) room: Room,
    /// The numbers of listed segments that have no file, as nothing was ever in them.
    pub(super) unmade: BTreeSet<i64>,
}

/// Recovers every segment and shows them all in `segments`.
pub(super) fn recover_segments(
    start: &Start<'_>,
    catalog: &mut CatalogFile,
    segments: &Segments,
) -> Result<Recovered, OpenError> {
    let Start { directory, options, metrics, room, .. } = *start;
    let paths = &directory.segment_paths();
    let listed = catalog.segments()?;
    recover_all_sealed(paths, &listed, catalog, segments)?;
    let strays = strays::clear(directory, catalog, &listed, segments)?;
    let highest_stray = strays.highest_number;
    let last_number = listed.last().map_or(0, |segment| segment.number);
    let next_number = last_number.max(highest_stray).max(catalog.number_floor()?) + 1;
    let recover = |listed: &ListedSegment| recover_open(paths, *listed, options, metrics, room);
    let mut found = recover_all_open(paths, &listed, catalog, (highest_stray, &start.unmade), recover)?;
    // A crash may have kept the roll from the catalog, but rows tell: a prepared segment that has some was rolled to.
    let is_begun = |found: &OpenFound| found.listed.state == SegmentState::Active || found.sequences.is_some();
    // Nothing more goes into a segment of an older format, or whose number, or a later one, was given to what is in
    // quarantine, or whose rows the next one would not follow.
    let noted = catalog.open_notes()?.into_values().max().map_or(0, |last| last + 1);
    let floor = catalog.sequence_floor().max(strays.sequence_floor).max(noted);
    let is_usable = |found: &OpenFound| {
        found.is_current
            && found.listed.number > highest_stray
            && found.sequences.is_none_or(|(_, last)| last + 1 >= floor)
    };
    let begun = found.iter().rposition(is_begun);
    let after = begun.map_or(0, |at| at + 1);
    let next_usable = || found[after..].iter().position(is_usable).map(|at| after + at);
    let at = match begun.filter(|at| is_usable(&found[*at])).or_else(next_usable) {
        Some(at) => at,
        None => {
            found.push(make_segment(start, catalog, next_number)?);
            found.len() - 1
        }
    };
    let state = found[at].listed.state;
    let with_keys = |(place, found)| recover_keys(paths, found, place < at, &segments.sites, room);
    let mut open = found.iter().enumerate().map(with_keys).collect::<Result<Vec<_>, _>>()?;
    let prepared = open.split_off(at + 1).into_iter().next();
    let active = open.remove(at);
    let unsealed = open;
    for segment in unsealed.iter().chain([&active]) {
        segments.push(Arc::clone(segment));
    }
    note_full(&found[..at], segments);
    let last = segments.view().segments.iter().filter_map(|segment| segment.sequences()).map(|(_, last)| last).max();
    let next_sequence = floor.max(last.unwrap_or(0) + 1);
    segments.begin_at(next_sequence);
    segments.note_written_off(catalog.written_off()?);
    if state != SegmentState::Active {
        catalog.change_segments(&SegmentChange::Activated { number: active.number, sequence_floor: next_sequence })?;
    }
    let open = |segment| ActiveSegment::open(segment, options, metrics, (directory, room));
    let recovered = Recovered {
        next_number: next_number.max(active.number + 1),
        active: open(active)?,
        prepared: prepared.map(open).transpose()?,
        unsealed,
        next_sequence,
    };
    if room == Room::Enough {
        // What was found is in the files by now, and no longer only in their write-ahead logs.
        let last = found.iter().map(|found| (found.listed.number, found.sequences.map_or(0, |(_, last)| last)));
        let noted = SegmentChange::OpenNoted { last: last.collect(), sequence_floor: next_sequence };
        strays::if_there_is_room(catalog.change_segments(&noted))?;
    }
    Ok(recovered)
}

/// Makes a segment and has the catalog list it.
fn make_segment(start: &Start<'_>, catalog: &mut CatalogFile, number: i64) -> Result<OpenFound, OpenError> {
    let Start { directory, options, metrics, .. } = *start;
    file::create(&directory.segment_paths().of(number, 1), directory.ties(), options, metrics)?;
    catalog.change_segments(&SegmentChange::Prepared(number))?;
    let listed = ListedSegment { number, generation: 1, state: SegmentState::Prepared, facts: None };
    Ok(OpenFound { listed, is_current: true, sequences: None, newest_received_at: None })
}

/// Notes since when full segments wait: by their events and not by their files, which what a start copies from
/// write-ahead logs makes younger.
fn note_full(full: &[OpenFound], segments: &Segments) {
    for found in full {
        if let Some(since) = found.newest_received_at {
            segments.found_full(found.listed.number, since);
        }
    }
}

/// Recovers the segments that have no indexes, and has the catalog forget those in which there is nothing: those that
/// are known as unmade, and empty ones up to the highest number that is in quarantine.
fn recover_all_open(
    paths: &SegmentPaths,
    listed: &[ListedSegment],
    catalog: &mut CatalogFile,
    (highest_stray, unmade): (i64, &BTreeSet<i64>),
    recover: impl Fn(&ListedSegment) -> Result<OpenFound, OpenError>,
) -> Result<Vec<OpenFound>, OpenError> {
    let mut open = Vec::new();
    for listed in listed.iter().filter(|of| !matches!(of.state, SegmentState::Sealed | SegmentState::Dropped)) {
        let path = paths.of(listed.number, listed.generation);
        if !unmade.contains(&listed.number) {
            let segment = recover(listed)?;
            // One that is empty may be gone, and must be where its number was given to another that is in quarantine.
            // So must one of an older format.
            if segment.sequences.is_some() || (segment.is_current && listed.number > highest_stray) {
                open.push(segment);
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

/// A segment without an index whose file is in order.
struct OpenFound {
    listed: ListedSegment,
    /// Whether it is of the newest format.
    is_current: bool,
    /// The first and the last; `None` if it is empty.
    sequences: Option<(u64, u64)>,
    /// When its newest event arrived, in milliseconds since 1970, UTC; `None` if it is empty.
    newest_received_at: Option<i64>,
}

fn recover_open(
    paths: &SegmentPaths,
    listed: ListedSegment,
    options: &LogOptions,
    metrics: &Arc<StoreMetrics>,
    room: Room,
) -> Result<OpenFound, OpenError> {
    let path = paths.of(listed.number, listed.generation);
    if !path.exists() {
        return Err(OpenError::LostSegment { path, number: listed.number });
    }
    let unclean = file::has_wal(&path);
    let connection = match room {
        Room::Enough => {
            let connection = file::open(&path, options, metrics)?;
            truncate_or_wait(&connection, &path)?;
            connection
        }
        Room::Scarce if unclean => {
            let connection = file::open(&path, options, metrics)?;
            file::leave_wal(&connection).map_err(OpenError::sqlite(&path))?;
            connection
        }
        // Takes no room at all: many segments may wait to be sealed.
        Room::Scarce => file::open_at_rest(&path)?,
    };
    if unclean {
        quick_check(&connection, &path)?;
    }
    let sequences = file::sequences(&connection).map_err(OpenError::sqlite(&path))?;
    // For a metric only: a start does not fail for it.
    let newest_received_at = file::newest_received_at(&connection).ok().flatten();
    let is_current = schema::pragma::<i64>(&connection, &path, "user_version")? == schema::SEGMENT_VERSION;
    Ok(OpenFound { listed, is_current, sequences, newest_received_at })
}

/// The keys of a segment without an index: of a full one those that were laid down, where they are sound and of these
/// rows, and otherwise those of its rows, which are laid down now.
fn recover_keys(
    paths: &SegmentPaths,
    found: &OpenFound,
    is_full: bool,
    sites: &Sites,
    room: Room,
) -> Result<Arc<Segment>, OpenError> {
    let number = found.listed.number;
    let path = paths.of(number, found.listed.generation);
    let keys_path = file::keys_path(&path);
    if is_full {
        match LaidKeys::open(&keys_path, number, sites) {
            Ok(keys) if is_of(&keys, found.sequences, &path, sites)? => {
                return Ok(Arc::new(Segment::open(paths, number, OpenKeys::Laid(Arc::new(keys)))));
            }
            Ok(_) => tracing::warn!(file = %keys_path.display(), "keys of other rows are made anew"),
            Err(BlockError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "keys are made anew"),
        }
    } else if let Err(error) = fs::remove_file(&keys_path)
        && error.kind() != io::ErrorKind::NotFound
        && !keys_path.is_dir()
    {
        // Rows that come in would not be in them.
        return Err(OpenError::io("remove the keys", keys_path)(error));
    }
    let columns = match found.sequences {
        Some(_) => file::open_unwritten(&path).and_then(|connection| Columns::read(&connection, sites)),
        None => Ok(Columns::default()),
    };
    let columns = Arc::new(columns.map_err(OpenError::sqlite(&path))?);
    let segment = Arc::new(Segment::open(paths, number, OpenKeys::InMemory(columns)));
    if is_full
        && room == Room::Enough
        && let Err(error) = segment.lay_down_keys(sites)
    {
        tracing::warn!(segment = number, %error, "the keys of a segment stay in memory: they could not be laid down");
    }
    Ok(segment)
}

/// Whether keys were laid down for the rows that are in the segment.
fn is_of(keys: &LaidKeys, sequences: Option<(u64, u64)>, path: &Path, sites: &Sites) -> Result<bool, OpenError> {
    let Some(sequences) = sequences.filter(|of| *of == (keys.first_sequence, keys.last_sequence)) else {
        return Ok(false);
    };
    let sample = file::open_unwritten(path).and_then(|rows| sample_of_rows(&rows, sequences, sites));
    Ok(sample.map_err(OpenError::sqlite(path))? == keys.sample)
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

/// When the newest event arrived, in milliseconds since 1970, UTC; `None` if there is none that can be read.
pub(super) fn newest_received_at(segments: &Segments) -> Option<i64> {
    let snapshot = Snapshot::at_start(segments);
    snapshot.event(snapshot.high_water_mark(), |row| Ok(row.received_at)).ok()?
}

/// Hides again what is still to be erased; websites that were deleted are not asked for any more.
pub(super) fn recover_erasures(
    listed: Vec<Erasure>,
    segments: &Segments,
    erasures: &Erasures,
    options: ErasureOptions,
) -> Result<(), OpenError> {
    // They had room when they were asked for.
    let mut room = HidingRoom { free: usize::MAX, ..HidingRoom::new(options.hidden_events_max, 0) };
    for mut erasure in listed {
        if let Some(Subject { website_id, visitor: Some(visitor) }) = &erasure.subject {
            let (website_id, visitor_id) = (Arc::clone(website_id), Arc::clone(&visitor.visitor_id));
            let visitor = HiddenVisitor { website_id, visitor_id, up_to: visitor.up_to };
            let mut remade = 0;
            let found = loop {
                let damaged = segments.damaged();
                let snapshot = Snapshot::at_start(segments);
                match snapshot.find_visitor(&visitor, room) {
                    Ok(found) => break found,
                    // A segment was found to be damaged, and is in no view any more.
                    Err(_) if segments.damaged() > damaged => {}
                    // The keys of a segment were damaged, and are made anew by now.
                    Err(ReadError::Refused(ReadRefused::Keys)) if remade <= snapshot.segments().len() => remade += 1,
                    // What was erased is in no answer, whatever memory that takes.
                    Err(ReadError::StorageFull(_)) if room.laid_from < usize::MAX => room.laid_from = usize::MAX,
                    Err(error) => return Err(OpenError::Erasure(Arc::clone(&erasure.id), error)),
                }
            };
            erasure.remaining = found.iter().map(|found| found.segment).collect();
            segments.hide(&erasure.id, &visitor, found);
        }
        erasures.insert(erasure);
    }
    Ok(())
}

//! Whether the segments that have no indexes are those that the catalog knows, before anything is changed: where one is
//! not, everything is as it was when the right file is put back.
//!
//! A sealed segment says itself which one it is. Of the others the catalog notes how far they go: one that holds less
//! is an older copy, and to go on with it would give the sequences that it lacks to other events. And segments follow
//! one another: two that hold the same sequences are copies of one, whose events would be in answers twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rusqlite::Connection;

use crate::store::{
    catalog::{ListedSegment, SegmentState, read_open_notes, read_segments},
    error::{OpenError, is_transient},
    format::{DataDir, SegmentName, SegmentPaths, file, header::Header, room::Room, schema},
};

/// What the catalog says.
struct Listing {
    segments: Vec<ListedSegment>,
    /// How far the files of those without indexes go at the least.
    notes: BTreeMap<i64, u64>,
}

/// Refuses files that are not the listed ones; `is_restored`: somebody says that they may be older. Returns the numbers
/// of the segments that have none, as nothing was ever in them. With little room what is in write-ahead logs is not
/// looked at: each look makes the index of one anew.
pub(crate) fn check(directory: &DataDir, is_restored: bool, room: Room) -> Result<BTreeSet<i64>, OpenError> {
    directory.ties().load()?;
    let (mut unmade, mut before) = (BTreeSet::new(), None);
    let Some(listing) = read_listing(directory, room)? else { return Ok(unmade) };
    let paths = directory.segment_paths();
    for segment in listing.segments.iter().filter(|segment| segment.state != SegmentState::Dropped) {
        let path = paths.of(segment.number, segment.generation);
        let held = if segment.state == SegmentState::Sealed {
            refuse_newer(&path)?;
            segment.facts.map(|facts| (facts.first_sequence, facts.last_sequence))
        } else if file::bytes(&path) > 0 {
            let noted = listing.notes.get(&segment.number).copied().unwrap_or(0);
            let Some(held) = look(directory, &path, room, |connection| {
                schema::check_segment(connection, &path)?;
                file::sequences(connection).map_err(OpenError::sqlite(&path))
            })?
            else {
                continue;
            };
            let found = held.map(|(_, last)| last);
            if found.unwrap_or(0) < noted && !is_restored {
                return Err(OpenError::OlderCopy { path, found, noted });
            }
            held
        } else {
            if is_unmade(directory, segment, &listing) && !file::has_wal(&path) {
                unmade.insert(segment.number);
            } else {
                refuse_lost(&paths, segment, is_restored)?;
            }
            None
        };
        let Some(sequences) = held else { continue };
        if let Some((other, other_sequences)) = before.replace((path.clone(), sequences))
            && sequences.0 <= other_sequences.1
        {
            return Err(OpenError::Overlap { path, sequences, other, other_sequences });
        }
    }
    Ok(unmade)
}

/// What the catalog says, without what is in a log that is another's. `None` if there is none, or it cannot be read:
/// who opens it says why.
fn read_listing(directory: &DataDir, room: Room) -> Result<Option<Listing>, OpenError> {
    let path = directory.catalog_path();
    if file::bytes(&path) == 0 {
        return Ok(None);
    }
    look(directory, &path, room, |connection| {
        schema::check_catalog(connection, &path)?;
        let sqlite = || OpenError::sqlite(&path);
        let transaction = connection.unchecked_transaction().map_err(sqlite())?;
        // Of one whose making was cut short there is nothing to read.
        if schema::pragma::<i64>(&transaction, &path, "user_version")? == 0 {
            return Ok(Listing { segments: Vec::new(), notes: BTreeMap::new() });
        }
        let segments = read_segments(&transaction).map_err(sqlite())?;
        Ok(Listing { segments, notes: read_open_notes(&transaction).map_err(sqlite())? })
    })
}

/// Whether a segment without a file never had a row: it was made ahead, and nobody can have rolled to it. An older
/// hitlog listed segments before it made them, and noted nothing of them.
fn is_unmade(directory: &DataDir, segment: &ListedSegment, listing: &Listing) -> bool {
    let is_empty = match listing.notes.get(&segment.number) {
        None => true,
        Some(last) => *last == 0 && directory.ties().was_ended(),
    };
    segment.is_unmade(0) && is_empty
}

/// Refuses a segment whose file is lost: the file or the catalog may be put back, and everything is as it was. Only
/// where somebody says that what is here may be older, what may take its place goes to the quarantine, from where a
/// person may list it, before the start is refused.
fn refuse_lost(paths: &SegmentPaths, segment: &ListedSegment, is_restored: bool) -> Result<(), OpenError> {
    let path = paths.of(segment.number, segment.generation);
    if path.exists() {
        return Err(OpenError::NotOurs { path, reason: "it is empty".into() });
    }
    let entries = fs::read_dir(paths.folder()).map_err(OpenError::io("read the directory", paths.folder()))?;
    let number = segment.number;
    let is_of = |name: &str| matches!(SegmentPaths::parse(name), SegmentName::Generation(of, _) if of == number);
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    if !is_restored || !names.any(|name| is_of(&name) && name.ends_with(".db")) {
        return Err(OpenError::LostSegment { path, number });
    }
    Ok(())
}

/// Refuses a sealed segment that a newer hitlog wrote. Of one that cannot be read who opens it says why.
fn refuse_newer(path: &Path) -> Result<(), OpenError> {
    match Header::read(path).ok().flatten().map(|header| i64::from(header.user_version)) {
        Some(found) if found > schema::SEGMENT_VERSION => {
            Err(OpenError::Newer { path: path.into(), found, known: schema::SEGMENT_VERSION })
        }
        _ => Ok(()),
    }
}

/// Reads a file as it is on the disk, without what is in a log that is another's. `None` of one that is damaged, as who
/// opens it says how, and of one that there is too little room to look at.
fn look<T>(
    directory: &DataDir,
    path: &Path,
    room: Room,
    read: impl FnOnce(&Connection) -> Result<T, OpenError>,
) -> Result<Option<T>, OpenError> {
    let is_alone = !file::has_wal(path) || directory.ties().is_foreign(path)?;
    if !is_alone && room == Room::Scarce {
        return Ok(None);
    }
    let opened = file::open_read_only(path, is_alone).map_err(OpenError::sqlite(path));
    match opened.and_then(|connection| read(&connection)) {
        Ok(found) => Ok(Some(found)),
        Err(OpenError::Sqlite { source, .. }) if !is_transient(&source, path) => Ok(None),
        Err(error) => Err(error),
    }
}

//! Listing a file again that is in quarantine.

use std::path::Path;

use super::{error::RepairError, locked::LockedDir, neighbours::check_neighbours};
use crate::{
    command::hitlog,
    store::{
        catalog::{ListedSegment, SegmentChange, SegmentState},
        format::{IDS, SegmentPaths, file, quarantine, schema},
        ids::remove_runs,
        offline::{CatalogContents, Holdings, OfflineDir, QuarantineLine, check_file},
    },
};

/// What a file has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adoption {
    /// The number of its segment.
    pub segment: i64,
    /// The generation under which it is listed.
    pub generation: i64,
    /// The number of its events.
    pub rows: u64,
    /// Whether it has its indexes; if not, the next start orders them.
    pub is_sealed: bool,
    /// Whether it has the place of a generation that was listed.
    pub replaces: bool,
    /// Events of websites that the catalog does not know: no answer shows them.
    pub rows_of_unknown: u64,
}

/// Moves the file to where the catalog will have it, and then has the catalog list it: after a crash in between, the
/// next start puts it back into quarantine.
pub(super) fn adopt(directory: &LockedDir, line: &QuarantineLine) -> Result<Adoption, RepairError> {
    let unfit = |reason: String| RepairError::Unfit { file: line.file.clone(), reason };
    let holdings =
        Holdings::read(&line.path).map_err(|error| unfit(format!("it cannot be read: {}", error.reason())))?;
    let Some(sequences) = holdings.sequences else { return Err(unfit("it holds no events; discard it".into())) };
    if sequences.1 > schema::SEQUENCE_MAX {
        return Err(unfit("it holds sequences that hitlog never gives".into()));
    }
    let number = holdings.identity.map_or(line.segment, |identity| identity.number);
    if !(1..=SegmentPaths::NUMBER_MAX).contains(&number) {
        return Err(unfit(format!(
            "it says that it is segment {number}, a number that hitlog never gives; discard it"
        )));
    }
    let catalog = directory.files.catalog()?;
    if catalog.segment(number).is_none() && catalog.is_erased_since(number) {
        return Err(unfit(format!(
            "segment {number} was written off, and erasures have ended since that may have meant events in it; hitlog \
             has forgotten whose they were and cannot leave them out. `{}` tells what would go for good with it",
            hitlog(["quarantine", "discard", &line.file])
        )));
    }
    let state = if holdings.facts.is_some() { SegmentState::Sealed } else { SegmentState::Unsealed };
    let is_sealed = state == SegmentState::Sealed;
    let mut adopted = ListedSegment { number, generation: 1, state, facts: holdings.facts };
    let checked = check_file(&line.path, &adopted)?;
    if !checked.faults.is_empty() {
        return Err(unfit(format!("it is damaged: {}", checked.faults.join("; "))));
    }
    check_neighbours(&directory.files, &catalog, number, sequences).map_err(unfit)?;
    let before = match catalog.segment(number) {
        Some(listed) => place_of(&directory.files, &listed, line, is_sealed).map_err(unfit)?,
        None => Place::Free,
    };
    if is_sealed {
        adopted.generation = free_generation(&directory.files, &catalog, number);
    }
    let rows_of_unknown = rows_of_unknown(&line.path, &catalog)
        .map_err(|error| unfit(format!("its websites cannot be read: {error}")))?;
    let path = directory.files.path_of(&adopted);
    let mut changes = Vec::new();
    if let Place::Damaged(listed) = &before {
        let damaged = directory.files.path_of(listed);
        let name = directory.files.quarantine.take_in(&damaged)?;
        let reason = format!("{} has the place of this damaged generation of segment {number}", line.file);
        let files = vec![(name, reason)];
        changes.push(SegmentChange::Quarantined { files, number_floor: number, sequence_floor: 0 });
    }
    if path.exists() {
        return Err(unfit(format!("{} is in the way; start hitlog once, which moves or removes it", path.display())));
    }
    // A log that comes along would be nobody's where it goes.
    if file::has_wal(&line.path) && file::empty_wal(&line.path)? {
        return Err(unfit("another program has it open: end that one".into()));
    }
    // The ids of its events are read with those of all others at the next start.
    remove_runs(&directory.files.path().join(IDS))?;
    quarantine::move_database(&line.path, &path)?;
    changes.extend([SegmentChange::Adopted(adopted, sequences), SegmentChange::Released(line.file.clone())]);
    directory.change(&changes)?;
    let replaces = !matches!(before, Place::Free);
    Ok(Adoption {
        segment: number,
        generation: adopted.generation,
        rows: holdings.rows,
        is_sealed,
        replaces,
        rows_of_unknown,
    })
}

fn rows_of_unknown(path: &Path, catalog: &CatalogContents) -> rusqlite::Result<u64> {
    let connection = file::open_unwritten(path)?;
    let mut select = connection.prepare("SELECT websiteId, count(*) FROM Event GROUP BY websiteId")?;
    let mut rows = select.query([])?;
    let mut unknown = 0;
    while let Some(row) = rows.next()? {
        if catalog.website(row.get_ref(0)?.as_bytes()?).is_none() {
            unknown += row.get::<_, i64>(1)?.unsigned_abs();
        }
    }
    Ok(unknown)
}

/// What stands at the place in the list that a file is to have.
enum Place {
    /// Nothing, or a segment whose file is lost.
    Free,
    /// A generation that cannot be read, or is not what was written.
    Damaged(ListedSegment),
    /// A sound generation, of which the file has every event.
    Covered,
}

fn place_of(
    files: &OfflineDir,
    listed: &ListedSegment,
    line: &QuarantineLine,
    is_sealed: bool,
) -> Result<Place, String> {
    let (number, path) = (listed.number, files.path_of(listed));
    if listed.state == SegmentState::Dropped {
        return Err(format!("segment {number} is being removed; start hitlog once, and try again"));
    }
    if file::bytes(&path) == 0 && !file::has_wal(&path) {
        return Ok(Place::Free);
    }
    let is_sound = check_file(&path, listed).is_ok_and(|checked| checked.faults.is_empty());
    if !is_sound {
        return Ok(Place::Damaged(*listed));
    }
    if !is_sealed {
        return Err(format!("segment {number} is listed and sound, and this file of it has no indexes"));
    }
    match rows_lacking(&path, line) {
        Ok(0) => Ok(Place::Covered),
        Ok(rows) => Err(format!("segment {number} is listed and sound, and {rows} of its events are not in this file")),
        Err(error) => Err(format!("it cannot be compared with segment {number}: {error}")),
    }
}

/// How many rows of a listed file are not in this one, or are others there.
fn rows_lacking(listed: &Path, line: &QuarantineLine) -> rusqlite::Result<u64> {
    let connection = file::open_unwritten(&line.path)?;
    connection.execute("ATTACH ?1 AS listed", [file::read_only_uri(listed, !file::has_wal(listed))])?;
    // One of the two may be of a version that has no more than these.
    let columns = schema::columns_of_version(1);
    let lacking = format!(
        "SELECT count(*) FROM (SELECT {columns} FROM listed.Event NOT INDEXED
         EXCEPT SELECT {columns} FROM main.Event NOT INDEXED)"
    );
    connection.query_row(&lacking, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// A generation that no file and no row of the catalog has.
fn free_generation(files: &OfflineDir, catalog: &CatalogContents, number: i64) -> i64 {
    let listed = catalog.segment(number).map(|listed| listed.generation);
    let known = catalog.leftovers.iter().filter(|of| of.number == number).map(|of| of.generation);
    let mut generation = known.chain(listed).max().unwrap_or(1) + 1;
    while files.segments.of(number, generation).exists() {
        generation += 1;
    }
    generation
}

//! Giving up a segment that is lost or damaged.

use std::path::PathBuf;

use super::{error::RepairError, locked::LockedDir, neighbours::check_neighbours};
use crate::store::{
    catalog::{ListedSegment, SegmentChange, SegmentState},
    error::{OpenError, is_transient},
    format::{IDS, file, sync_directory},
    ids::remove_runs,
    offline::{CatalogContents, Holdings, OfflineDir, check_file},
};

/// More sequences than any segment holds. Nobody knows how far those of a lost active one went.
const SEQUENCES_MAX: u64 = 1 << 40;

/// What goes with a segment.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The segment's number.
    pub number: i64,
    /// `prepared`, `active`, `unsealed` or `sealed`.
    pub state: &'static str,
    /// Where its file is, or should be.
    pub path: PathBuf,
    /// What is wrong with the file; `None` if there is none.
    pub damage: Option<String>,
    /// The number of its events; `None` if nobody knows.
    pub rows: Option<u64>,
    /// The first and the last sequence in it.
    pub sequences: Option<(u64, u64)>,
    /// The lowest and the highest `createdAt` in milliseconds since 1970, UTC.
    pub times: Option<(i64, i64)>,
    /// Other files of the segment that the catalog knows, which may be all that is left of it.
    pub leftovers: Vec<PathBuf>,
    /// The ids of the erasures under way that may mean events in it.
    pub erasures: Vec<String>,
    /// Whether the catalog knows of no sequence after its last.
    is_newest: bool,
}

impl Loss {
    /// What would go with a segment, which must be lost or damaged.
    pub fn of(files: &OfflineDir, number: i64) -> Result<Self, RepairError> {
        let catalog = files.catalog()?;
        let listed = catalog.segment(number).ok_or(RepairError::NoSegment(number))?;
        let path = files.path_of(&listed);
        let is_there = file::bytes(&path) > 0 || file::has_wal(&path);
        if listed.state == SegmentState::Dropped {
            return Err(RepairError::NothingIn(number));
        }
        let damage = if is_there { Some(damage(files, &catalog, &listed)?) } else { None };
        // What a damaged file says of itself is worth something only if nothing better is known.
        let found = if listed.facts.is_none() && is_there { Holdings::read(&path).ok() } else { None };
        let known = listed.facts.map(|facts| Holdings::of_facts(&facts)).or(found);
        let known_sequences = known.as_ref().and_then(|known| known.sequences);
        let mut later = catalog.segments_in_use().filter(|other| other.number > number);
        let is_begun = |other: &ListedSegment| {
            other.facts.is_some() || matches!(file::last_sequence_of(&files.path_of(other)), Ok(Some(_)))
        };
        let is_newest =
            matches!(listed.state, SegmentState::Active | SegmentState::Prepared) && !later.any(|of| is_begun(&of));
        let of_segment = catalog.leftovers.iter().filter(|of| of.number == number);
        let leftovers = of_segment.map(|of| files.segments.of(of.number, of.generation)).filter(|path| path.exists());
        Ok(Self {
            number,
            state: listed.state.as_str(),
            path,
            damage,
            rows: known.as_ref().map(|known| known.rows),
            sequences: known_sequences,
            times: known.and_then(|known| known.times),
            leftovers: leftovers.collect(),
            erasures: catalog.erasures_from(known_sequences.map_or(0, |(first, _)| first)),
            is_newest,
        })
    }
}

/// What is wrong with a segment's file. A sound one is an error, and so is one that cannot be read for a reason that
/// may pass.
fn damage(files: &OfflineDir, catalog: &CatalogContents, listed: &ListedSegment) -> Result<String, RepairError> {
    let path = files.path_of(listed);
    if let Err(error) = file::last_sequence_of(&path) {
        return if is_passing(&error) { Err(error.into()) } else { Ok(error.reason()) };
    }
    match check_file(&path, listed) {
        Ok(checked) if checked.faults.is_empty() => match misplaced(files, catalog, listed)? {
            Some(reason) => Ok(reason),
            None => Err(RepairError::Sound { number: listed.number, path }),
        },
        Ok(checked) => Ok(checked.faults.join("; ")),
        Err(error) if is_passing(&error) => Err(error.into()),
        Err(error) => Ok(error.reason()),
    }
}

/// Why a sound file without indexes is not the listed one; a sealed one says itself which it is.
fn misplaced(
    files: &OfflineDir,
    catalog: &CatalogContents,
    listed: &ListedSegment,
) -> Result<Option<String>, OpenError> {
    if listed.state == SegmentState::Sealed {
        return Ok(None);
    }
    let held = Holdings::read(&files.path_of(listed))?.sequences;
    let lacking = catalog.lacking(listed.number, held.map(|(_, last)| last));
    Ok(lacking.or_else(|| check_neighbours(files, catalog, listed.number, held?).err()))
}

fn is_passing(error: &OpenError) -> bool {
    match error {
        OpenError::Sqlite { source, path } => is_transient(source, path),
        OpenError::Newer { .. } | OpenError::Io { .. } => true,
        _ => false,
    }
}

/// Gives the segment up: its files first, so that a crash leaves a segment that is lost, and can be written off.
pub(super) fn write_off(directory: &LockedDir, loss: &Loss, discard: bool) -> Result<Vec<String>, RepairError> {
    let mut files = Vec::new();
    let mut move_away = |path: &PathBuf, reason: String| -> Result<(), RepairError> {
        files.push((directory.files.quarantine.take_in(path)?, reason));
        Ok(())
    };
    match &loss.damage {
        Some(_) if discard => {
            file::remove(&loss.path).map_err(OpenError::io("remove", &loss.path))?;
            sync_directory(directory.files.segments.folder())?;
        }
        Some(damage) => move_away(&loss.path, format!("segment {} was written off: {damage}", loss.number))?,
        None => {}
    }
    for path in &loss.leftovers {
        move_away(path, format!("another generation of segment {}, which was written off", loss.number))?;
    }
    // What is sent again is stored where it was lost. The ids of all other events are read from them at the next start.
    remove_runs(&directory.files.path().join(IDS))?;
    let after = loss.sequences.map_or(0, |(_, last)| last + 1);
    let known = directory.sequence_floor()?;
    let sequence_floor = if loss.is_newest { known.max(after).saturating_add(SEQUENCES_MAX) } else { after };
    let names = files.iter().map(|(name, _)| name.clone()).collect();
    let mut changes = vec![SegmentChange::WrittenOff { number: loss.number, sequence_floor }];
    if !files.is_empty() {
        changes.insert(0, SegmentChange::Quarantined { files, number_floor: loss.number, sequence_floor: 0 });
    }
    directory.change(&changes)?;
    Ok(names)
}

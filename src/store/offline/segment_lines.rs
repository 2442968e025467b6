//! What each segment holds, as a line for people.

use rusqlite::{Connection, OptionalExtension};

use super::{
    catalog::CatalogContents,
    directory::{OfflineDir, OpenSegment, bytes_of},
    error::OfflineError,
};
use crate::store::{
    catalog::ListedSegment,
    error::OpenError,
    segments::{Sites, Summary, SummaryError},
};

/// What is told of a segment.
#[derive(Debug, Clone)]
pub struct SegmentLine {
    /// The segment's number.
    pub number: i64,
    /// `prepared`, `active`, `unsealed`, `sealed` or `dropped`.
    pub state: &'static str,
    /// The generation that the catalog lists.
    pub generation: i64,
    /// The number of its events.
    pub rows: u64,
    /// The bytes of its file and its write-ahead log.
    pub bytes: u64,
    /// The lowest and the highest `createdAt` in milliseconds since 1970, UTC; `None` if it holds no events.
    pub times: Option<(i64, i64)>,
    /// Why its file cannot be read; `None` if it can.
    pub fault: Option<String>,
}

/// Every segment that the catalog lists, by number.
pub fn segment_lines(directory: &OfflineDir, catalog: &CatalogContents) -> Vec<SegmentLine> {
    let with_damage = |listed: &ListedSegment| {
        let mut line = line(directory, *listed);
        let found = || catalog.damage.get(&listed.number).map(|found| format!("damaged: a read found: {found}"));
        line.fault = line.fault.or_else(found);
        line
    };
    catalog.segments.iter().map(with_damage).collect()
}

fn line(directory: &OfflineDir, listed: ListedSegment) -> SegmentLine {
    let mut now = listed;
    let look = |open: &OpenSegment<'_>| {
        let (rows, times) = what_it_holds(open.connection, open.is_sealed())?;
        Ok(Held { rows, times, bytes: open.bytes, damage: damage_of(open)? })
    };
    let looked = directory.on_sound_segment(&mut now, look, |held| held.damage.is_none());
    let mut line = SegmentLine {
        number: now.number,
        state: now.state.as_str(),
        generation: now.generation,
        rows: 0,
        bytes: bytes_of(directory, &now),
        times: None,
        fault: None,
    };
    match looked {
        Ok(Some(Held { rows, times, bytes, damage })) => {
            (line.rows, line.times, line.bytes) = (rows, times, bytes);
            line.fault = damage.map(|damage| format!("damaged: {damage}"));
        }
        Ok(None) => {}
        Err(OfflineError::Missing(_)) => line.fault = Some("missing".into()),
        Err(OfflineError::Read { source, .. } | OfflineError::Open(OpenError::Sqlite { source, .. })) => {
            line.fault = Some(format!("damaged: {source}"));
        }
        Err(error) => line.fault = Some(error.to_string()),
    }
    line
}

/// What one look at a segment's file finds.
struct Held {
    rows: u64,
    times: Option<(i64, i64)>,
    bytes: u64,
    damage: Option<&'static str>,
}

fn what_it_holds(connection: &Connection, sealed: bool) -> rusqlite::Result<(u64, Option<(i64, i64)>)> {
    let from = if sealed {
        "SELECT count, firstCreatedAt, lastCreatedAt FROM Whole"
    } else {
        "SELECT count(*), min(createdAt), max(createdAt) FROM Event"
    };
    let read = |row: &rusqlite::Row<'_>| {
        let rows: i64 = row.get(0)?;
        Ok((rows.unsigned_abs(), row.get::<_, Option<i64>>(1)?.zip(row.get(2)?)))
    };
    Ok(connection.query_row(from, [], read).optional()?.unwrap_or((0, None)))
}

/// Why a sealed file is not what the catalog lists, as far as its summary tells.
pub(super) fn damage_of(open: &OpenSegment<'_>) -> rusqlite::Result<Option<&'static str>> {
    if !open.is_sealed() {
        return Ok(None);
    }
    match Summary::read_listed(open.connection, &Sites::default(), open.listed.number, open.listed.facts) {
        Ok(_) => Ok(None),
        Err(SummaryError::Damaged(damage)) => Ok(Some(damage)),
        Err(SummaryError::Sqlite(error)) => Err(error),
    }
}

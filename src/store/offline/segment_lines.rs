//! What each segment holds, as a line for people.

use rusqlite::{Connection, OptionalExtension};

use super::{catalog::CatalogContents, directory::OfflineDir, error::OfflineError};
use crate::store::{
    catalog::{ListedSegment, SegmentState},
    error::OpenError,
    format::file,
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
    let mut damage = None;
    let looked = directory.on_segment(listed, |listed, connection| {
        now = *listed;
        let holds = what_it_holds(connection, listed.state == SegmentState::Sealed)?;
        damage = if listed.state == SegmentState::Sealed { damage_of(connection, listed)? } else { None };
        Ok(holds)
    });
    let mut line = SegmentLine {
        number: now.number,
        state: now.state.as_str(),
        generation: now.generation,
        rows: 0,
        bytes: bytes_of(directory, &now),
        times: None,
        fault: damage.map(|damage| format!("damaged: {damage}")),
    };
    match looked {
        Ok(Some((rows, times))) => (line.rows, line.times) = (rows, times),
        Ok(None) => {}
        Err(OfflineError::Missing(_)) => line.fault = Some("missing".into()),
        Err(OfflineError::Read { source, .. } | OfflineError::Open(OpenError::Sqlite { source, .. })) => {
            line.fault = Some(format!("damaged: {source}"));
        }
        Err(error) => line.fault = Some(error.to_string()),
    }
    line
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
pub(super) fn damage_of(connection: &Connection, listed: &ListedSegment) -> rusqlite::Result<Option<&'static str>> {
    match Summary::read_listed(connection, &Sites::default(), listed.number, listed.facts) {
        Ok(_) => Ok(None),
        Err(SummaryError::Damaged(damage)) => Ok(Some(damage)),
        Err(SummaryError::Sqlite(error)) => Err(error),
    }
}

/// The bytes of a segment's file and its write-ahead log.
pub(super) fn bytes_of(directory: &OfflineDir, listed: &ListedSegment) -> u64 {
    let path = directory.path_of(listed);
    file::bytes(&file::with_suffix(&path, "-wal")) + file::bytes(&path)
}

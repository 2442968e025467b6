//! The list of segments, with what each holds.

use std::fs;

use rusqlite::{Connection, OptionalExtension};

use super::{CatalogView, OfflineDir, OfflineError};
use crate::store::{
    catalog::{ListedSegment, SegmentState},
    error::OpenError,
    file,
};

/// A segment as a line of the list.
#[derive(Debug, Clone)]
pub struct SegmentLine {
    /// Its number.
    pub number: i64,
    /// `prepared`, `active`, `unsealed`, `sealed` or `dropped`.
    pub state: &'static str,
    /// The generation of it that counts.
    pub generation: i64,
    /// Its events.
    pub rows: u64,
    /// What it takes on the disk, its write-ahead log included.
    pub bytes: u64,
    /// The lowest and the highest `createdAt`, if it holds events.
    pub times: Option<(i64, i64)>,
    /// Why it cannot be read, if it cannot.
    pub fault: Option<String>,
}

/// Every segment that the catalog lists, by number.
pub fn list_segments(directory: &OfflineDir, catalog: &CatalogView) -> Vec<SegmentLine> {
    catalog.segments.iter().map(|listed| line(directory, *listed)).collect()
}

fn line(directory: &OfflineDir, listed: ListedSegment) -> SegmentLine {
    let mut now = listed;
    let looked = directory.on_segment(listed, |listed, connection| {
        now = *listed;
        what_it_holds(connection, listed.state == SegmentState::Sealed)
    });
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

/// What a segment's files take on the disk.
pub(super) fn bytes_of(directory: &OfflineDir, listed: &ListedSegment) -> u64 {
    let path = directory.path_of(listed);
    let len = |path| fs::metadata(path).map_or(0, |file| file.len());
    len(file::with_suffix(&path, "-wal")) + len(path)
}

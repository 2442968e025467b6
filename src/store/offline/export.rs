//! Every event that an answer would show, in the order of arrival.
//!
//! Rows are read some thousand at a time, each time by a statement of its own that is over before anybody writes them
//! anywhere: a slow reader of the export never keeps the daemon's write-ahead log from beginning anew, and a segment
//! that is sealed or erased between two such statements is found in its next generation, behind the last sequence.

use std::{collections::VecDeque, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    catalog::CatalogContents,
    directory::{OfflineDir, OpenSegment},
    error::OfflineError,
    segment_lines::damage_of,
};
use crate::{
    event::{EventRow, EventType},
    store::{
        catalog::{ListedSegment, SegmentState, Website},
        format::{file, row::event_row, schema},
        segments::Facts,
    },
};

/// Most rows that one statement reads: some milliseconds of work, beside which opening the file costs nothing.
const CHUNK_ROWS: i64 = 16_384;
/// Bytes of output after which a statement ends before it has read all its rows.
const CHUNK_BYTES: usize = 8 << 20;

/// Which events are wanted.
#[derive(Debug, Clone)]
pub struct EventChoice {
    /// Only events of the website with this id.
    pub website_id: Option<Arc<str>>,
    /// Only events of this type.
    pub event_type: Option<EventType>,
    /// The lowest `createdAt`, in milliseconds since 1970, UTC.
    pub from: i64,
    /// The `createdAt` from which on events are left out, in milliseconds since 1970, UTC.
    pub to: i64,
    /// Events before this `createdAt` are past their retention; `i64::MIN` if they are kept for ever.
    pub expired_before: i64,
}

impl EventChoice {
    /// Whether events of a website and type with times from `first` to `last` may be wanted.
    fn may_want(&self, website_id: &[u8], event_type: &[u8], first: i64, last: i64) -> bool {
        self.website_id.as_ref().is_none_or(|wanted| wanted.as_bytes() == website_id)
            && self.event_type.is_none_or(|wanted| wanted.as_str().as_bytes() == event_type)
            && last >= self.from.max(self.expired_before)
            && first < self.to
    }
}

/// An export under way.
pub struct Export<'a> {
    directory: &'a OfflineDir,
    catalog: &'a CatalogContents,
    choice: EventChoice,
    /// The segments that are left to read, each with the number of its rows, about.
    waiting: VecDeque<(ListedSegment, u64)>,
    /// Rows of the first of them that have been read.
    rows_read: u64,
    /// Rows up to this sequence have been read.
    last: i64,
    /// The last sequence when the export began: without an end it would run after the daemon for ever.
    until: i64,
}

impl<'a> Export<'a> {
    /// Finds the segments that hold something that is wanted.
    pub fn new(
        directory: &'a OfflineDir,
        catalog: &'a CatalogContents,
        choice: EventChoice,
    ) -> Result<Self, OfflineError> {
        let (mut waiting, mut until) = (VecDeque::new(), None);
        // From the newest to the oldest: once a segment has rows, all before it are full.
        for mut listed in catalog.segments_in_use().rev() {
            let look = |open: &OpenSegment<'_>| {
                if let Some(damage) = damage_of(open)? {
                    return Ok(Err(damage));
                }
                if open.is_sealed() {
                    return Ok(Ok((wanted_rows(open.connection, catalog, &choice)?, None)));
                }
                let sequences = file::sequences(open.connection)?;
                Ok(Ok((sequences.map(|(first, last)| last - first + 1), sequences.map(|(_, last)| last))))
            };
            let held = directory.on_sound_segment(&mut listed, look, Result::is_ok)?.transpose();
            let held = held.map_err(|damage| OfflineError::damaged(directory.path_of(&listed), damage))?;
            let Some((Some(rows), last)) = held else { continue };
            until = until.or(last);
            waiting.push_front((listed, rows));
        }
        let until = until.map_or(i64::MAX, u64::cast_signed);
        Ok(Self { directory, catalog, choice, waiting, rows_read: 0, last: i64::MIN, until })
    }

    /// The number of rows that are left to read, about.
    pub fn rows_left(&self) -> u64 {
        self.waiting.iter().map(|(_, rows)| rows).sum()
    }

    /// Appends some thousand events to `out` by `write`, and returns how many rows it has looked at; `None` when all is
    /// done. What stands in `out` before is left as it is.
    pub fn next_chunk(
        &mut self,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&mut Vec<u8>, u64, &EventRow<'_>, &Arc<Website>),
    ) -> Result<Option<u64>, OfflineError> {
        let (begin, after) = (out.len(), self.last);
        while let Some(&(before, rows)) = self.waiting.front() {
            let mut listed = before;
            let read = self.directory.on_segment(&mut listed, |open| {
                out.truncate(begin);
                self.read(open.connection, after, out, &mut write)
            })?;
            if read.is_none() {
                // What was read of a segment that is gone by now is to be gone as well.
                out.truncate(begin);
            }
            self.waiting[0] = (listed, rows);
            match read {
                Some(chunk) if chunk.rows > 0 => {
                    self.last = chunk.last;
                    self.rows_read += chunk.rows;
                    return Ok(Some(chunk.rows));
                }
                // A page that was overwritten may look as if it ended the table.
                Some(_) if lacks_rows(&listed, self.rows_read, self.until) => {
                    return Err(OfflineError::damaged(
                        self.directory.path_of(&listed),
                        "it lacks events that it says it has",
                    ));
                }
                _ => {
                    self.waiting.pop_front();
                    self.rows_read = 0;
                }
            }
        }
        Ok(None)
    }

    fn read(
        &self,
        connection: &Connection,
        after: i64,
        out: &mut Vec<u8>,
        write: &mut impl FnMut(&mut Vec<u8>, u64, &EventRow<'_>, &Arc<Website>),
    ) -> rusqlite::Result<RowsRead> {
        let begin = out.len();
        let mut select = connection.prepare(schema::SELECT_EVENTS_AFTER)?;
        let mut rows = select.query(params![after, self.until, CHUNK_ROWS])?;
        let mut chunk = RowsRead { rows: 0, last: after };
        let mut website: Option<&Arc<Website>> = None;
        while let Some(row) = rows.next()? {
            (chunk.last, chunk.rows) = (row.get(0)?, chunk.rows + 1);
            let (sequence, event) = (chunk.last.unsigned_abs(), event_row(row)?);
            if website.is_none_or(|website| website.id.as_bytes() != event.website_id) {
                website = self.catalog.website(event.website_id);
            }
            let Some(website) = website else { continue };
            let at = event.created_at;
            if self.choice.may_want(event.website_id, event.event_type, at, at)
                && !self.catalog.erasures.covers(event.website_id, event.visitor_id, sequence)
            {
                write(out, sequence, &event, website);
                if out.len() - begin > CHUNK_BYTES {
                    break;
                }
            }
        }
        Ok(chunk)
    }
}

/// Whether fewer rows were read than a sealed segment had when it was sealed. Of one that was erased from meanwhile
/// more were read, in the generation before; of one that was written to when the export began not all are wanted.
fn lacks_rows(listed: &ListedSegment, rows_read: u64, until: i64) -> bool {
    let is_whole = |facts: &Facts| facts.last_sequence.cast_signed() <= until;
    let facts = listed.facts.filter(|facts| listed.state == SegmentState::Sealed && is_whole(facts));
    facts.is_some_and(|facts| rows_read < facts.rows)
}

struct RowsRead {
    rows: u64,
    last: i64,
}

/// The rows of a sealed segment, if its summary does not rule out that one of them is wanted.
fn wanted_rows(
    connection: &Connection,
    catalog: &CatalogContents,
    choice: &EventChoice,
) -> rusqlite::Result<Option<u64>> {
    let mut select = connection.prepare("SELECT websiteId, eventType, firstCreatedAt, lastCreatedAt FROM Summary")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (website_id, event_type) = (row.get_ref(0)?.as_bytes()?, row.get_ref(1)?.as_bytes()?);
        let is_known = catalog.website(website_id).is_some();
        if is_known && choice.may_want(website_id, event_type, row.get(2)?, row.get(3)?) {
            let rows: Option<i64> = connection.query_row("SELECT count FROM Whole", [], |row| row.get(0)).optional()?;
            return Ok(rows.map(i64::unsigned_abs));
        }
    }
    Ok(None)
}

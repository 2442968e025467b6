//! All events in the order of their sequences, whatever website they are of: for what is shipped.
//!
//! A run is a part of one segment. What has expired is in it, as it was taken in; whether what is hidden is in it, the
//! one who reads says: the rows of a run that was begun before an erasure must stay those that they were.

use std::{ops::ControlFlow, sync::Arc};

use rusqlite::params;

use super::snapshot::Snapshot;
use crate::{
    event::EventRow,
    store::{
        error::ReadError,
        format::{row, schema},
        segments::{Hidden, Key, KeysSnapshot, Segment, Stream, UnreadableList},
    },
};

/// What comes after a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Nothing,
    /// Events, in this segment.
    Rows(Run),
    /// Events that can't be read: their segments are damaged, or were given up.
    Lost(Run),
}

/// Sequences of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The number of the segment.
    pub segment: i64,
    /// The first of them.
    pub first: u64,
    /// The last that there is by now.
    pub last: u64,
}

/// Whether what is hidden is read, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfHidden {
    /// It is left out.
    LeftOut,
    /// It is read.
    Read,
}

impl Snapshot<'_> {
    /// What comes after a sequence.
    pub fn next_run(&self, after: u64) -> Next {
        let mut before = 0;
        for segment in self.segments() {
            if let Some((first, last)) = self.span(segment).filter(|(_, last)| *last > after) {
                if first > after + 1 && self.shared().has_lost_any(before + 1..segment.number) {
                    return Next::Lost(Run { segment: before + 1, first: after + 1, last: first - 1 });
                }
                return Next::Rows(Run { segment: segment.number, first: first.max(after + 1), last });
            }
            before = segment.number;
        }
        Next::Nothing
    }

    /// Reads the events of a run in their order, until `each` has enough. Returns whether the segment is there; where
    /// it is not, none is read.
    pub fn read_run(
        &self,
        run: Run,
        of_hidden: OfHidden,
        mut each: impl FnMut(u64, &EventRow<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<bool, ReadError> {
        let found = self.segments().binary_search_by_key(&run.segment, |segment| segment.number);
        let Ok(at) = found else { return Ok(false) };
        let segment: &Arc<Segment> = &self.segments()[at];
        let hidden = self.hidden(run.segment).filter(|_| of_hidden == OfHidden::LeftOut);
        self.on(segment, |connection| {
            let mut select = connection.prepare_cached(schema::SELECT_EVENTS_AFTER)?;
            let before = (run.first - 1).cast_signed();
            let mut rows = select.query(params![before, run.last.cast_signed(), -1])?;
            while let Some(row) = rows.next()? {
                let sequence = row.get::<_, i64>(0)?.unsigned_abs();
                let event = row::event_row(row)?;
                if let Some(hidden) = hidden
                    && self.is_in(hidden, sequence, &event).map_err(|list| self.remake_list(run.segment, &list))?
                {
                    continue;
                }
                if each(sequence, &event)?.is_break() {
                    break;
                }
            }
            Ok(true)
        })
    }

    /// Whether a segment is damaged, or was given up.
    pub fn is_lost(&self, segment: i64) -> bool {
        self.shared().has_lost_any(segment..segment + 1)
    }

    fn is_in(&self, hidden: &Hidden, sequence: u64, event: &EventRow<'_>) -> Result<bool, UnreadableList> {
        let stream = Stream::new(self.shared().sites.number(event.website_id), event.event_type);
        hidden.of(stream).holds(Key { created_at: event.created_at, sequence })
    }

    /// The first and the last sequence that there are to see in a segment.
    pub(super) fn span(&self, segment: &Segment) -> Option<(u64, u64)> {
        match self.keys(segment) {
            Some(KeysSnapshot::InMemory(columns)) => {
                Some((columns.first_sequence(), columns.last_sequence())).filter(|(_, last)| *last > 0)
            }
            _ => segment.sequences(),
        }
    }
}

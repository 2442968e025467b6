//! What a segment without rollups has of a website: the active one, full ones that wait to be sealed, and those that an
//! older hitlog has sealed. Its rows are read when somebody asks, and after that only those that are new.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::params;

use super::question::Asked;
use crate::store::{
    error::ReadError,
    format::{hash::visitor_hash, row, schema},
    read::snapshot::Snapshot,
    rollup::{Damaged, Evaluation, FragmentKey, Hit, MemoryPiece, PAUSE_MAX_MS, Selection, Sink},
    segments::{HiddenVisitor, Segment},
};

/// Events of a website in one segment, as far as they were read.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) piece: MemoryPiece,
    /// The sequence that the order of its events counts from.
    first_sequence: u64,
    /// Everything up to here was read.
    pub(super) read_up_to: u64,
    /// First and last `createdAt`.
    pub(super) times: Option<(i64, i64)>,
    /// When the last event that was read had come in, in milliseconds since 1970, UTC.
    pub(super) last_received_at: i64,
}

/// Sequences between two looks at the clock.
const ROWS_PER_LOOK: u64 = 4_096;

impl Tally {
    /// Reads the rows up to a sequence, for no longer than a time. Returns whether that was enough.
    pub(super) fn catch_up(
        &mut self,
        snapshot: &Snapshot<'_>,
        segment: &Arc<Segment>,
        website_id: &str,
        (up_to, time_max): (u64, Duration),
    ) -> Result<bool, ReadError> {
        if self.read_up_to >= up_to {
            return Ok(true);
        }
        let begun_at = Instant::now();
        snapshot.on(segment, |connection| {
            let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let mut select = connection.prepare_cached(schema::select_events_of_website(version))?;
            let begins_before = segment.sequences().map_or(0, |(first, _)| first.saturating_sub(1));
            self.read_up_to = self.read_up_to.max(begins_before);
            // Most rows may be other websites': the clock is looked at however few are of this one.
            while self.read_up_to < up_to {
                let end = up_to.min(self.read_up_to + ROWS_PER_LOOK);
                let mut rows = select.query(params![self.read_up_to.cast_signed(), end.cast_signed(), website_id])?;
                while let Some(row) = rows.next()? {
                    let sequence = row.get::<_, i64>(0)?.unsigned_abs();
                    self.add(sequence, row)?;
                }
                self.read_up_to = end;
                if self.read_up_to < up_to && begun_at.elapsed() > time_max {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn add(&mut self, sequence: u64, row: &rusqlite::Row<'_>) -> Result<(), ReadError> {
        let event = row::event_row(row)?;
        let flags: i64 = row.get(row::FLAGS)?;
        if self.piece.len() == 0 {
            self.first_sequence = sequence;
        }
        // A segment never spans as many sequences as that.
        let order = u32::try_from(sequence - self.first_sequence).unwrap_or(u32::MAX);
        self.piece.add_row(&event, flags, order);
        let at = event.created_at;
        self.times = Some(self.times.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        self.last_received_at = self.last_received_at.max(event.received_at);
        self.read_up_to = sequence;
        Ok(())
    }

    /// Whether a fragment of another piece may go on here, or the other way round.
    pub(super) fn is_near(&self, chain: usize, (first, last): (i64, i64)) -> bool {
        self.piece.hits(chain).any(|hit| first - PAUSE_MAX_MS <= hit.at && hit.at <= last + PAUSE_MAX_MS)
    }

    /// Marks the events of a chain that are hidden.
    pub(super) fn hide(&self, visitor: u64, hits: &mut [Hit], hidden: &[HiddenHash]) {
        for HiddenHash { up_to, .. } in hidden.iter().filter(|hidden| hidden.visitor == visitor) {
            let is_hidden = |hit: &&mut Hit| self.first_sequence + u64::from(hit.order) <= *up_to;
            hits.iter_mut().filter(is_hidden).for_each(|hit| hit.flags |= Hit::GONE);
        }
    }

    /// Has a sink go through its events, but for chains that are left out.
    pub(super) fn run(
        &self,
        asked: &Asked,
        expired_before: i64,
        hidden: &[HiddenHash],
        is_left_out: impl Fn(FragmentKey) -> bool,
        sink: &mut impl Sink,
    ) -> Result<(), Damaged> {
        let matcher = asked.filters.look_up(&self.piece.dictionaries)?;
        let selection = Selection { with_unwanted: asked.with_unwanted, expired_before };
        let evaluation = Evaluation { selection, matcher: &matcher };
        let prepare = |key: FragmentKey, hits: &mut Vec<Hit>| {
            if is_left_out(key) {
                hits.clear();
            }
            self.hide(key.visitor, hits, hidden);
        };
        self.piece.run(&evaluation, prepare, sink);
        Ok(())
    }
}

/// A visitor whose events are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct HiddenHash {
    /// The hash of the id.
    pub(super) visitor: u64,
    /// The last sequence.
    pub(super) up_to: u64,
}

impl HiddenHash {
    pub(super) fn of(visitor: &HiddenVisitor) -> Self {
        Self { visitor: visitor_hash(visitor.visitor_id.as_bytes()), up_to: visitor.up_to }
    }
}

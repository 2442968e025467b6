//! How far somebody has come who follows events, and what is shown to it.

use std::sync::Arc;

use crate::{
    budget::Share,
    event::{EventRow, EventType},
    store::segments::NextRows,
};

/// Which events are followed.
#[derive(Debug, Clone)]
pub struct TailFilter {
    /// The id of their website.
    pub website_id: Arc<str>,
    /// Only events of this type.
    pub event_type: Option<EventType>,
}

/// Of a place before everything: nothing of what had expired by then is told of.
pub(super) const FROM_START: i64 = i64::MAX;

/// How far somebody has come who follows events. A clone is at the same place, and goes on by itself.
#[derive(Debug, Clone)]
pub struct TailPlace {
    /// Everything up to this sequence has been shown, or is not followed.
    pub(super) after: u64,
    /// What came later than that arrived at this time or later, in milliseconds since 1970, UTC.
    pub(super) time: i64,
    /// Expired events with an earlier `createdAt` than this are not told of (again).
    pub(super) gaps_told_to: i64,
    /// Rows that are missing, to be told of before the next event.
    pub(super) missing: Option<Missing>,
    /// The next rows in the segment that it is in.
    pub(super) ahead: Option<Ahead>,
    /// It comes from a client, and may be one that a loss of power has taken.
    pub(super) is_doubtful: bool,
}

/// Rows that are missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing {
    pub(super) reason: GapReason,
    pub(super) from: i64,
    /// `None`: as far as the next event that is shown.
    pub(super) to: Option<i64>,
    /// The place that they are missing after, and its time: whoever goes on from there is told of them again.
    pub(super) after: u64,
    pub(super) time: i64,
}

/// What is shown to somebody who follows events.
pub enum Shown<'a, 'row> {
    /// Events may be missing here.
    Gap(Gap),
    /// The next event, with its sequence.
    Event(u64, &'a EventRow<'row>),
}

/// Events that came after a place may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// From when on, in milliseconds since 1970, UTC.
    pub from: i64,
    /// Until when, in milliseconds since 1970, UTC.
    pub to: i64,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// They have expired.
    Retention,
    /// Their segment is damaged, or lost.
    Damage,
}

/// What became of a read.
pub struct TailRead {
    /// The place behind what was shown.
    pub place: TailPlace,
    /// Whether that was everything that there is.
    pub is_at_end: bool,
}

impl TailPlace {
    /// Before everything that is kept.
    pub fn start() -> Self {
        Self::at(0, 0)
    }

    /// Behind the event with this sequence, which arrived at `time`, in milliseconds since 1970, UTC.
    pub fn at(sequence: u64, time: i64) -> Self {
        // What was told of a place before everything is that place.
        let gaps_told_to = if (sequence, time) == (0, 0) { FROM_START } else { i64::MIN };
        Self { after: sequence, time, gaps_told_to, missing: None, ahead: None, is_doubtful: false }
    }

    /// What a client was told by [`sequence`](Self::sequence) and [`time`](Self::time) of an earlier place.
    pub fn told(sequence: u64, time: i64) -> Self {
        Self { is_doubtful: true, ..Self::at(sequence, time) }
    }

    /// The sequence up to which everything has been shown or told of, or is not followed.
    pub fn sequence(&self) -> u64 {
        self.missing.map_or(self.after, |missing| missing.after)
    }

    /// When what comes after it has arrived at the earliest, in milliseconds since 1970, UTC.
    pub fn time(&self) -> i64 {
        self.missing.map_or(self.time, |missing| missing.time)
    }
}

/// The next rows that are wanted of a segment whose keys are not in the order of sequences.
#[derive(Debug, Clone)]
pub(super) struct Ahead {
    pub(super) segment: i64,
    /// There are no others up to this sequence.
    pub(super) up_to: u64,
    pub(super) list: Arc<AheadList>,
}

#[derive(Debug)]
pub(super) struct AheadList {
    /// Counted from this sequence.
    pub(super) first: u64,
    pub(super) rows: Vec<u32>,
    /// What counts them.
    pub(super) _share: Share,
}

impl Ahead {
    pub(super) fn next_rows(&self, after: u64) -> NextRows {
        let AheadList { first, rows, .. } = &*self.list;
        let passed = rows.partition_point(|row| first + u64::from(*row) <= after);
        let sequences = rows[passed..].iter().map(|row| first + u64::from(*row)).collect();
        NextRows { sequences, up_to: self.up_to }
    }
}

//! How far shipping is, in memory: what the catalog's tables say of it, for the thread that ships, for whoever asks,
//! and for whoever must not take away what has still to be sent.
//!
//! Changed by the catalog's thread only, each time that a change of the tables is committed; what is told of the moment
//! (a pause, an error) is not kept on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::clock::now_ms;

/// The longest that an erasure waits for a range which is being sent, before the rows are taken out under it.
const ERASURE_WAITS: Duration = Duration::from_secs(60 * 60);

/// Where events are shipped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShipTarget {
    /// The server's URL.
    pub url: String,
    /// The database there.
    pub database: String,
    /// The table there.
    pub table: String,
    /// When shipping to it began, in milliseconds since 1970, UTC.
    pub begun_at: i64,
}

/// The number and the name under which events are shipped, from a sequence on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShipNode {
    /// From which sequence on.
    pub first_sequence: u64,
    /// The number of the node.
    pub node: u32,
    /// The name of this data directory, which no other has; empty as long as it has none.
    pub instance: String,
}

/// A run of sequences that is one insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShipRange {
    /// Its first sequence.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// The number of the segment that it is in.
    pub segment: i64,
    /// The node under which it is shipped.
    pub node: u32,
    /// How many events are sent.
    pub rows: u64,
    /// The size of the block that is sent, in bytes.
    pub bytes: u64,
    /// The hash of that block.
    pub hash: [u8; 16],
    /// Counts the blocks that were made of it.
    pub epoch: u32,
    /// Which of its sequences are sent, as runs of first and last; `None`: all that there are.
    pub missing: Option<Vec<(u64, u64)>>,
    /// When the first of its events arrived, in milliseconds since 1970, UTC.
    pub first_arrival: i64,
    /// How often this block was sent.
    pub attempts: u32,
    /// When this block was sent first, in milliseconds since 1970, UTC; `None` if it never was.
    pub begun_at: Option<i64>,
    /// The version of the server at that time.
    pub version: Option<String>,
}

impl ShipRange {
    /// One of which nothing is made or sent yet: of these first and last sequences, in a segment.
    pub fn unsent(segment: i64, (first, last): (u64, u64), node: u32) -> Self {
        Self {
            first,
            last,
            segment,
            node,
            rows: 0,
            bytes: 0,
            hash: [0; 16],
            epoch: 0,
            missing: None,
            first_arrival: 0,
            attempts: 0,
            begun_at: None,
            version: None,
        }
    }
}

/// What has become of a range that is not sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeEnd {
    /// The target refuses this event, the only one of it that it has not.
    Dead(u64),
    /// Its events are gone from here before they were sent.
    Lost,
}

/// How far the target is with an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShipErasureState {
    /// Its events are, or may be, in answers there.
    Waiting,
    /// They are in no answer there any more.
    Masked,
    /// They are in none of its files.
    Done,
}

impl ShipErasureState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Masked, Self::Done];

    /// The name in the catalog and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Masked => "masked",
            Self::Done => "done",
        }
    }
}

/// An erasure that the target has to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShipErasure {
    /// The id by which the API names it.
    pub id: Arc<str>,
    /// The website whose events go; empty when nothing is left of them.
    pub website_id: String,
    /// The visitor whose events go; `None`: all of the website's.
    pub visitor_id: Option<String>,
    /// Events up to this sequence; `None` as long as more of a deleted website's may come.
    pub up_to: Option<u64>,
    /// How far it is.
    pub state: ShipErasureState,
    /// Since when, in milliseconds since 1970, UTC.
    pub changed_at: i64,
}

/// Why nothing is sent until somebody has done something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The reason, and what to do.
    pub reason: String,
    /// Since when, in milliseconds since 1970, UTC.
    pub since: i64,
}

/// What somebody has asked of whoever ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// To go on.
    GoOn,
    /// To look for all that is kept at the target, and ship what is not there.
    FromStart,
}

/// How far a comparison of the target's events with those here is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyWork {
    /// Somebody has asked for it; `true`: of all that is in the events.
    Asked(bool),
    /// It is under way; `true`: of all that is in the events.
    Running(bool),
    /// It has ended.
    Done(Verify),
    /// It could not be made, and why.
    Failed(String),
}

/// What a comparison of the target's events with those here has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verify {
    /// Whether all that is in the events was compared, and not only which there are.
    pub is_deep: bool,
    /// How many ranges were compared.
    pub ranges: u64,
    /// How many events are in them here.
    pub rows: u64,
    /// How many of the ranges differ.
    pub differences: u64,
    /// The first of those.
    pub told: Vec<VerifyDifference>,
    /// How many erasures the target had still to follow: what they are of is there and not here.
    pub erasures_waiting: u64,
    /// When it ended, in milliseconds since 1970, UTC.
    pub ended_at: i64,
}

/// A range that is not at the target what it is here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyDifference {
    /// The node under which it was shipped.
    pub node: u32,
    /// Its first sequence.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// How many events of it are here.
    pub here: u64,
    /// How many are there.
    pub there: u64,
    /// Whether it was found out which events differ; else the four below are empty.
    pub is_looked_into: bool,
    /// How many sequences are here and not there, and the first of them.
    pub missing: (u64, Vec<u64>),
    /// The same of those that are there and not here.
    pub extra: (u64, Vec<u64>),
    /// The same of those that are there more than once.
    pub doubled: (u64, Vec<u64>),
    /// The same of those that are once on both sides, with other contents; where contents are compared.
    pub changed: (u64, Vec<u64>),
}

/// What is told of the moment, and not kept on the disk.
#[derive(Debug, Clone, Default)]
pub struct ShipNow {
    /// Whether `ship_url` is set.
    pub is_on: bool,
    /// Why nothing is sent.
    pub paused: Option<Pause>,
    /// What went wrong last, and when in milliseconds since 1970, UTC; `None` since something was confirmed.
    pub last_error: Option<(i64, String)>,
    /// What of that was written to the log last, and when.
    pub logged: Option<(i64, String)>,
    /// When the oldest event arrived that is not confirmed, in milliseconds since 1970, UTC; `None`: all are.
    pub behind_since: Option<i64>,
    /// What comes after the last range has not arrived before this time, in the same measure; `None`: there is nothing
    /// after it, or nobody knows.
    pub rest_since: Option<i64>,
    /// Whether expired segments stay on the disk only because they are not shipped.
    pub holds_expired: bool,
    /// What of the target was warned of.
    pub warned: BTreeSet<String>,
    /// What somebody has asked for.
    pub resume: Option<Resume>,
    /// The comparison that was asked for last.
    pub verify: Option<VerifyWork>,
}

/// How far shipping is, all of it.
#[derive(Debug, Clone, Default)]
pub struct ShipState {
    /// What is told of the moment.
    pub now: ShipNow,
    /// Where to; `None` if nothing was ever shipped.
    pub target: Option<ShipTarget>,
    /// Under which numbers, by sequence.
    pub nodes: Vec<ShipNode>,
    /// The ranges that are on their way, by their first sequence.
    pub open: BTreeMap<u64, ShipRange>,
    /// Every sequence up to here is in a range, or in none as it is of no event.
    pub cut_up_to: u64,
    /// How many events were confirmed.
    pub events: u64,
    /// How many events the target refuses.
    pub dead: u64,
    /// How many ranges were lost.
    pub lost: u64,
    /// The segments whose events may come back of which ranges were lost.
    pub lost_segments: BTreeSet<i64>,
    /// The erasures that the target has to follow.
    pub erasures: BTreeMap<Arc<str>, ShipErasure>,
    /// When the last comparison ended, in milliseconds since 1970, UTC, and how many differences it found.
    pub verified: Option<(i64, u64)>,
}

impl ShipState {
    /// Everything up to this sequence is confirmed, or is not sent any more.
    pub fn shipped_up_to(&self) -> u64 {
        self.open.first_key_value().map_or(self.cut_up_to, |(first, _)| self.cut_up_to.min(first - 1))
    }

    /// How many events are not confirmed, where `durable` is the highest sequence that is durable. Of what is in no
    /// range yet its sequences are counted, of which some may be of no event.
    pub fn behind(&self, durable: u64) -> u64 {
        self.open.values().map(|range| range.rows).sum::<u64>() + durable.saturating_sub(self.cut_up_to)
    }

    /// Finds out anew when the oldest event arrived that is not confirmed, where `durable` is the highest sequence that
    /// is durable; times in milliseconds since 1970, UTC. Of one that is in no range it is known only that it arrived
    /// after what was cut last, or else that it was there when it was first looked for.
    pub(crate) fn look_behind(&mut self, durable: u64, now: i64) -> Option<i64> {
        let of_ranges = self.open.values().map(|range| range.first_arrival).min();
        let has_rest = self.cut_up_to < durable;
        self.now.rest_since = has_rest.then(|| self.now.rest_since.unwrap_or(now));
        self.now.behind_since = of_ranges.or(self.now.rest_since);
        self.now.behind_since
    }

    /// How many erasures the target has followed so far.
    pub fn erasures_in(&self, state: ShipErasureState) -> usize {
        self.erasures.values().filter(|erasure| erasure.state == state).count()
    }

    /// The node under which an event is shipped.
    pub fn node_of(&self, sequence: u64) -> Option<&ShipNode> {
        self.nodes.iter().rev().find(|node| node.first_sequence <= sequence)
    }

    /// The parts of a span of sequences that are in none of these spans, which are in their order: each of one node.
    pub(crate) fn passed_over(&self, (first, last): (u64, u64), known: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut parts = Vec::new();
        let mut from = first;
        for (begin, end) in known.iter().copied().chain([(last + 1, last + 1)]) {
            let after = from + 1..begin;
            let nodes = self.nodes.iter().map(|node| node.first_sequence).filter(|first| after.contains(first));
            for next in nodes.chain([begin]) {
                if from < next {
                    parts.push((from, next - 1));
                    from = next;
                }
            }
            from = from.max(end + 1);
        }
        parts
    }

    /// Whether an event comes from before a start from a copy: the original may have shipped it.
    pub fn is_inherited(&self, sequence: u64) -> bool {
        self.nodes.last().is_some_and(|newest| sequence < newest.first_sequence)
    }
}

/// The state, shared.
#[derive(Default)]
pub(crate) struct Shipped {
    state: Mutex<ShipState>,
    /// Wakes the thread that ships.
    pub(crate) wake: tokio::sync::Notify,
}

impl Shipped {
    pub(crate) fn new(state: ShipState) -> Self {
        Self { state: Mutex::new(state), wake: tokio::sync::Notify::new() }
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> ShipState {
        self.state.lock().clone()
    }

    /// Looks at the state without a copy of it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&ShipState) -> T) -> T {
        look(&self.state.lock())
    }

    /// Changes what is told of the state.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut ShipState) -> T) -> T {
        change(&mut self.state.lock())
    }

    /// Whether the events of a segment, up to this sequence, may leave the disk for good.
    pub(crate) fn may_go(&self, segment: i64, last_sequence: u64) -> bool {
        self.look(|state| {
            let is_shipped = state.shipped_up_to() >= last_sequence && !state.lost_segments.contains(&segment);
            !state.now.is_on || is_shipped
        })
    }

    /// Whether rows between these two sequences are being sent, and must stay as they are for now: an erasure waits for
    /// them, but not for ever.
    pub(crate) fn holds(&self, (first, last): (u64, u64)) -> bool {
        let now = now_ms();
        let is_recent = |range: &ShipRange| {
            // What was never sent can be sent in another form.
            range.begun_at.is_some_and(|begun| u128::from(now.abs_diff(begun)) < ERASURE_WAITS.as_millis())
        };
        self.look(|state| {
            state.now.is_on && state.open.range(..=last).any(|(_, range)| range.last >= first && is_recent(range))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, first_arrival: i64) -> ShipRange {
        ShipRange { first_arrival, ..ShipRange::unsent(1, (first, first + 9), 1) }
    }

    #[test]
    fn what_no_span_has_is_found_and_is_of_one_node_each() {
        let node = |first_sequence| ShipNode { first_sequence, node: 1, instance: String::new() };
        let state = ShipState { nodes: [0, 50, 80].map(node).into(), ..ShipState::default() };
        assert_eq!(state.passed_over((10, 20), &[]), [(10, 20)]);
        assert_eq!(state.passed_over((10, 20), &[(1, 12), (15, 16), (20, 40)]), [(13, 14), (17, 19)]);
        assert_eq!(state.passed_over((10, 20), &[(1, 9), (10, 20)]), []);
        assert_eq!(state.passed_over((40, 90), &[(60, 61)]), [(40, 49), (50, 59), (62, 79), (80, 90)]);
        assert_eq!(state.passed_over((50, 50), &[]), [(50, 50)]);
    }

    #[test]
    fn the_target_is_behind_by_the_oldest_event_that_it_has_not_confirmed_and_not_by_one_that_it_has() {
        let mut state = ShipState::default();
        assert_eq!(state.look_behind(0, 1_000), None);
        assert_eq!(state.look_behind(15, 2_000), Some(2_000), "first seen");
        assert_eq!(state.look_behind(15, 3_000), Some(2_000));
        // A range of the ten first ones, of which the last arrived at 1,900.
        state.open.insert(1, range(1, 1_500));
        (state.cut_up_to, state.now.rest_since) = (10, Some(1_900));
        assert_eq!(state.look_behind(15, 4_000), Some(1_500));
        state.open.clear();
        assert_eq!(state.look_behind(15, 4_500), Some(1_900), "the rest came after it");
        state.open.insert(11, range(11, 1_950));
        (state.cut_up_to, state.now.rest_since) = (15, Some(1_990));
        assert_eq!(state.look_behind(15, 5_000), Some(1_950));
        state.open.clear();
        assert_eq!(state.look_behind(15, 5_500), None);
        assert_eq!(state.look_behind(16, 9_000), Some(9_000), "nothing was left for a while");
    }
}

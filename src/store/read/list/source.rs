//! What a listing is merged from: sorted runs of keys, and what is taken from one of them for a page.

use std::{cell::RefCell, ops::Range, sync::Arc};

use crate::{
    event::EventType,
    store::segments::{
        Chunk, HiddenOf, Key, LaidEvents, LaidKeys, LaidRun, Segment, Stream, StreamSummary, Summary, UnreadableList,
    },
};

/// Keys of one stream in one segment.
pub(super) struct Source<'a> {
    pub(super) run: Run<'a>,
    /// The number of the segment.
    pub(super) segment: i64,
    pub(super) stream: Stream,
    /// The first sequence of the segment.
    pub(super) first_sequence: u64,
}

/// Keys that are sorted, or that an index has sorted.
pub(super) enum Run<'a> {
    Chunk {
        chunk: Arc<Chunk>,
        entries: Range<usize>,
    },
    Keys(Vec<Key>),
    Index {
        segment: &'a Arc<Segment>,
        summary: &'a Summary,
        of: StreamSummary,
        event_type: EventType,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
    Laid {
        segment: &'a Arc<Segment>,
        keys: &'a Arc<LaidKeys>,
        run: LaidRun,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
    /// Keys that other runs hold too and that no answer may show.
    Hidden(&'a [Key]),
    /// The same, on the disk.
    LaidHidden {
        list: &'a Arc<LaidEvents>,
        run: &'a LaidRun,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
}

impl Run<'_> {
    /// Sorted keys, the oldest first; nothing if there are none.
    pub(super) fn keys(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self::Keys(keys))
    }
}

impl Source<'_> {
    /// Whether its keys count for events or against them.
    pub(super) fn sign(&self) -> i64 {
        if matches!(self.run, Run::Hidden(_) | Run::LaidHidden { .. }) { -1 } else { 1 }
    }

    /// The least and the most that so many of its keys count.
    pub(super) fn counted(&self, keys: &Range<u64>) -> (i64, i64) {
        let (fewest, most) = (self.sign() * keys.start.cast_signed(), self.sign() * keys.end.cast_signed());
        (fewest.min(most), fewest.max(most))
    }

    pub(super) fn count(&self) -> u64 {
        match &self.run {
            Run::Chunk { entries, .. } => entries.len() as u64,
            Run::Keys(keys) => keys.len() as u64,
            Run::Hidden(keys) => keys.len() as u64,
            Run::Index { of, .. } => of.count,
            Run::Laid { run, .. } => run.count,
            Run::LaidHidden { run, .. } => run.count,
        }
    }

    pub(super) fn oldest_created_at(&self) -> i64 {
        match &self.run {
            Run::Chunk { chunk, entries } => chunk.key(entries.start).created_at,
            Run::Keys(keys) => keys[0].created_at,
            Run::Hidden(keys) => keys[0].created_at,
            Run::Index { of, .. } => of.first_created_at,
            Run::Laid { run, .. } => run.first_created_at,
            Run::LaidHidden { run, .. } => run.first_created_at,
        }
    }

    pub(super) fn newest_created_at(&self) -> i64 {
        match &self.run {
            Run::Chunk { chunk, entries } => chunk.key(entries.end - 1).created_at,
            Run::Keys(keys) => keys[keys.len() - 1].created_at,
            Run::Hidden(keys) => keys[keys.len() - 1].created_at,
            Run::Index { of, .. } => of.last_created_at,
            Run::Laid { run, .. } => run.last_created_at,
            Run::LaidHidden { run, .. } => run.last_created_at,
        }
    }
}

/// Hidden keys that are walked past one by one before a bisection finds the next key that is shown; it takes about as
/// long. After each there are twice as many, as it may have led past a few only.
const PASSED_MIN: usize = 128;

/// What is taken for a page from one source.
pub(super) struct Taking<'a> {
    /// Nothing is taken from this key down.
    pub(super) floor: Key,
    /// Keys of later events than this sequence are not wanted.
    pub(super) high_water_mark: u64,
    pub(super) hidden: HiddenOf<'a>,
    /// Those from other sources, too.
    pub(super) keys: Vec<Key>,
    /// The number of keys from which on no more are wanted.
    pub(super) enough: usize,
    /// How many hidden keys were passed since something was taken.
    passed: usize,
    /// After how many of them the rest is skipped.
    passed_max: usize,
    /// The hidden key from which on the rest of them is to be skipped.
    pub(super) stopped_at: Option<Key>,
    pub(super) failed: Option<UnreadableList>,
}

impl<'a> Taking<'a> {
    /// Goes on with these keys, down to but not including `floor`.
    pub(super) fn new(
        keys: Vec<Key>,
        limit: usize,
        (floor, high_water_mark): (Key, u64),
        hidden: HiddenOf<'a>,
    ) -> Self {
        let enough = keys.len().saturating_add(limit);
        let (passed, passed_max, stopped_at, failed) = (0, PASSED_MIN, None, None);
        Self { floor, high_water_mark, hidden, keys, enough, passed, passed_max, stopped_at, failed }
    }

    /// Takes the next key, if it is wanted. Returns whether more are.
    pub(super) fn take(&mut self, key: Key) -> bool {
        if key <= self.floor {
            return false;
        }
        if key.sequence > self.high_water_mark {
            return true;
        }
        match self.hidden.holds(key) {
            Ok(false) => {
                self.keys.push(key);
                self.passed = 0;
                self.keys.len() < self.enough
            }
            Ok(true) => {
                self.passed += 1;
                if self.passed < self.passed_max {
                    return true;
                }
                self.passed = 0;
                self.passed_max *= 2;
                self.stopped_at = Some(key);
                false
            }
            Err(unreadable) => {
                self.failed = Some(unreadable);
                false
            }
        }
    }
}

//! What a question looks at: the segments of one moment, and which of their events are in no answer any more.
//!
//! A view never changes; whoever asks a question keeps the one that was current when it began, and with it the
//! generations that are in it. Events that are being erased are hidden from the moment that this was asked for, and on
//! the disk until their segment is rewritten; view and hidden events change together.

use std::{collections::HashMap, sync::Arc};

use super::{
    hidden::{FoundIn, Hidden, HiddenVisitor, LaidEvents},
    segment::Segment,
};

/// The segments, by number, and the hidden events in them.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    pub(crate) segments: Vec<Arc<Segment>>,
    hidden: HashMap<i64, Hidden>,
}

impl View {
    /// The segment with this number.
    pub(crate) fn segment(&self, number: i64) -> Option<&Arc<Segment>> {
        self.segments.binary_search_by_key(&number, |segment| segment.number).ok().map(|at| &self.segments[at])
    }

    /// What is hidden in the segment with this number.
    pub(crate) fn hidden(&self, number: i64) -> Option<&Hidden> {
        self.hidden.get(&number)
    }

    /// Whether what was found is what the segments still hold, and not hidden yet: nothing was rewritten or hidden
    /// since.
    pub(crate) fn still_holds(&self, found: &[FoundIn]) -> bool {
        let hidden_by = |number| self.hidden(number).map_or(0, Hidden::erasures);
        let is_same = |found: &FoundIn| {
            let is_listed = self.segment(found.segment).is_some_and(|segment| segment.generation == found.generation);
            is_listed && hidden_by(found.segment) == found.hidden_by
        };
        found.iter().all(is_same)
    }

    /// How many events are hidden; and how many of them in memory.
    pub(crate) fn hidden_events(&self) -> (usize, usize) {
        let sum = |(all, in_memory), (here, here_in_memory)| (all + here, in_memory + here_in_memory);
        self.hidden.values().map(Hidden::events).fold((0, 0), sum)
    }

    /// Hides events of a segment.
    pub(crate) fn hide(&mut self, erasure: &Arc<str>, visitor: &HiddenVisitor, found: FoundIn) {
        self.hidden.entry(found.segment).or_default().hide(erasure, visitor, found.events);
    }

    /// Puts a list of hidden events that was made anew into the place of the one that it is of, if that is in use.
    pub(crate) fn replace_list(&mut self, number: i64, list: &Arc<LaidEvents>, new: &Arc<LaidEvents>) {
        if let Some(hidden) = self.hidden.get_mut(&number) {
            hidden.replace(list, new);
        }
    }

    /// Ends the hiding of what these erasures hid in a segment: its new generation does not hold it.
    pub(crate) fn erased(&mut self, number: i64, erasures: &[Arc<str>]) {
        if self.hidden.get_mut(&number).is_some_and(|hidden| !hidden.erased(erasures)) {
            self.hidden.remove(&number);
        }
    }

    /// Takes a segment out.
    pub(crate) fn remove(&mut self, number: i64) -> Option<Arc<Segment>> {
        self.hidden.remove(&number);
        let at = self.segments.iter().position(|segment| segment.number == number)?;
        Some(self.segments.remove(at))
    }
}

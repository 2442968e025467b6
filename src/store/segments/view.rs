//! What a question looks at: the segments of one moment, and which of their events are in no answer any more.
//!
//! A view never changes; whoever asks a question keeps the one that was current when it began, and with it the
//! generations that are in it. Events that are being erased are hidden from the moment that this was asked for, and on
//! the disk until their segment is rewritten; view and hidden events change together.

use std::{collections::HashMap, sync::Arc};

use super::{
    keys::{Key, Stream},
    segment::Segment,
};

/// The segments, by number, and the hidden events in them.
#[derive(Debug, Default, Clone)]
pub(crate) struct View {
    pub(crate) segments: Vec<Arc<Segment>>,
    hidden: HashMap<i64, Hidden>,
}

/// The events of one segment that are being erased, by who asked for it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hidden(Vec<HiddenBy>);

#[derive(Debug, Clone)]
struct HiddenBy {
    erasure: Arc<str>,
    /// Sorted. No key is hidden by two erasures, so that what is hidden can be counted.
    streams: Arc<Vec<(Stream, Vec<Key>)>>,
}

/// A visitor's events in one segment.
#[derive(Debug)]
pub(crate) struct FoundIn {
    /// The segment's number.
    pub(crate) segment: i64,
    /// The generation that was looked at.
    pub(crate) generation: i64,
    pub(crate) events: Vec<(Stream, Key)>,
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

    /// Whether what was found is what the segments still hold: none of them was rewritten since.
    pub(crate) fn still_holds(&self, found: &[FoundIn]) -> bool {
        let is_same =
            |found: &FoundIn| self.segment(found.segment).is_some_and(|segment| segment.generation == found.generation);
        found.iter().all(is_same)
    }

    /// How many events are hidden.
    pub(crate) fn hidden_events(&self) -> usize {
        self.hidden.values().flat_map(Hidden::streams).map(|(_, keys)| keys.len()).sum()
    }

    /// Hides events of a segment, but for those that are hidden already.
    pub(crate) fn hide(&mut self, number: i64, erasure: &Arc<str>, events: Vec<(Stream, Key)>) {
        let hidden = self.hidden.entry(number).or_default();
        let mut streams: HashMap<Stream, Vec<Key>> = HashMap::new();
        for (stream, key) in events.into_iter().filter(|(_, key)| !hidden.holds(*key)) {
            streams.entry(stream).or_default().push(key);
        }
        let mut streams: Vec<_> = streams.into_iter().collect();
        streams.iter_mut().for_each(|(_, keys)| keys.sort_unstable());
        hidden.0.push(HiddenBy { erasure: Arc::clone(erasure), streams: Arc::new(streams) });
    }

    /// Ends the hiding of what these erasures hid in a segment: its new generation does not hold it.
    pub(crate) fn erased(&mut self, number: i64, erasures: &[Arc<str>]) {
        if let Some(hidden) = self.hidden.get_mut(&number) {
            hidden.0.retain(|by| !erasures.contains(&by.erasure));
            if hidden.0.is_empty() {
                self.hidden.remove(&number);
            }
        }
    }

    /// Takes a segment out.
    pub(crate) fn remove(&mut self, number: i64) -> Option<Arc<Segment>> {
        self.hidden.remove(&number);
        let at = self.segments.iter().position(|segment| segment.number == number)?;
        Some(self.segments.remove(at))
    }
}

impl Hidden {
    /// The hidden events of every stream; a stream may come several times, a key comes once.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (Stream, &[Key])> {
        self.0.iter().flat_map(|by| by.streams.iter()).map(|(stream, keys)| (*stream, &**keys))
    }

    /// Whether the event with this key is hidden.
    pub(crate) fn holds(&self, key: Key) -> bool {
        self.streams().any(|(_, keys)| keys.binary_search(&key).is_ok())
    }
}

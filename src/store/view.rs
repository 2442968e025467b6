//! What a question looks at: the segments of one moment, and which of their events are in no answer any more.
//!
//! A view never changes; whoever asks a question keeps the one that was current when it began, and with it the
//! generations that are in it. Events that are being erased are hidden from the moment that this was asked for, and on
//! the disk until their segment is rewritten; view and hidden events change together.

use std::{collections::HashMap, sync::Arc};

use super::{
    keys::{Key, Stream},
    segments::Segment,
};

/// The segments, by number, and the hidden events in them.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    pub(super) segments: Vec<Arc<Segment>>,
    hidden: HashMap<i64, Hidden>,
}

/// The events of one segment that are being erased, by who asked for it.
#[derive(Debug, Default, Clone)]
pub(super) struct Hidden(Vec<HiddenBy>);

#[derive(Debug, Clone)]
struct HiddenBy {
    erasure: Arc<str>,
    /// Sorted. No key is hidden by two erasures, so that what is hidden can be counted.
    streams: Arc<Vec<(Stream, Vec<Key>)>>,
}

impl View {
    /// The segment with this number.
    pub(super) fn segment(&self, number: i64) -> Option<&Arc<Segment>> {
        self.segments.binary_search_by_key(&number, |segment| segment.number).ok().map(|at| &self.segments[at])
    }

    /// What is hidden in the segment with this number.
    pub(super) fn hidden(&self, number: i64) -> Option<&Hidden> {
        self.hidden.get(&number)
    }

    /// How many events are hidden.
    pub(super) fn hidden_events(&self) -> usize {
        self.hidden.values().flat_map(Hidden::streams).map(|(_, keys)| keys.len()).sum()
    }

    /// Hides events of a segment, but for those that are hidden already.
    pub(super) fn hide(&mut self, number: i64, erasure: &Arc<str>, events: Vec<(Stream, Key)>) {
        let hidden = self.hidden.entry(number).or_default();
        let mut streams: HashMap<Stream, Vec<Key>> = HashMap::new();
        for (stream, key) in events.into_iter().filter(|(_, key)| !hidden.holds(*key)) {
            streams.entry(stream).or_default().push(key);
        }
        let mut streams: Vec<_> = streams.into_iter().collect();
        streams.iter_mut().for_each(|(_, keys)| keys.sort_unstable());
        hidden.0.push(HiddenBy { erasure: Arc::clone(erasure), streams: Arc::new(streams) });
    }

    /// Forgets what these erasures hid in a segment, which holds it no more.
    pub(super) fn erased(&mut self, number: i64, erasures: &[Arc<str>]) {
        if let Some(hidden) = self.hidden.get_mut(&number) {
            hidden.0.retain(|by| !erasures.contains(&by.erasure));
            if hidden.0.is_empty() {
                self.hidden.remove(&number);
            }
        }
    }

    /// Takes a segment out.
    pub(super) fn remove(&mut self, number: i64) -> Option<Arc<Segment>> {
        self.hidden.remove(&number);
        let at = self.segments.iter().position(|segment| segment.number == number)?;
        Some(self.segments.remove(at))
    }
}

impl Hidden {
    /// The hidden events of every stream; a stream may come several times, a key comes once.
    pub(super) fn streams(&self) -> impl Iterator<Item = (Stream, &[Key])> {
        self.0.iter().flat_map(|by| by.streams.iter()).map(|(stream, keys)| (*stream, &**keys))
    }

    /// Whether the event with this key is hidden.
    pub(super) fn holds(&self, key: Key) -> bool {
        self.streams().any(|(_, keys)| keys.binary_search(&key).is_ok())
    }
}

//! What was read or worked out of sealed segments, for the next question. A generation never changes, so nothing in
//! here is ever wrong: what was not used for the longest time goes when there is no room for more.

use std::{any::Any, collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

use crate::store::segments::Segment;

/// One generation of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Generation {
    pub(super) number: i64,
    pub(super) generation: i64,
}

impl Generation {
    /// The generation of a segment that this is.
    pub(super) fn of(segment: &Segment) -> Self {
        Self { number: segment.number, generation: segment.generation }
    }
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum CacheKey {
    Rollup(Generation, Arc<str>),
    Dictionaries(Generation, Arc<str>),
    /// A block with its events.
    Block(Generation, i64),
    /// A block without.
    Keys(Generation, i64),
    /// What a piece answers; with every visitor, or thinned.
    Answer(Generation, Arc<str>, [u64; 2], bool),
    /// The list of a piece; with every visitor, or thinned.
    List(Generation, Arc<str>, [u64; 2], bool),
    /// The list of all sealed segments, of which this is the newest.
    Merged(Generation, Arc<str>, [u64; 2]),
    /// What all sealed segments have in spans, of which this is the newest.
    Sums(Generation, Arc<str>, [u64; 2]),
}

impl CacheKey {
    fn is_of_all(&self) -> bool {
        matches!(self, Self::Merged(..) | Self::Sums(..))
    }

    fn generation(&self) -> Generation {
        match self {
            Self::Rollup(generation, _)
            | Self::Dictionaries(generation, _)
            | Self::Block(generation, _)
            | Self::Keys(generation, _)
            | Self::Answer(generation, ..)
            | Self::List(generation, ..)
            | Self::Merged(generation, ..)
            | Self::Sums(generation, ..) => *generation,
        }
    }
}

struct Kept {
    value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
    used: u64,
}

#[derive(Default)]
struct Contents {
    kept: HashMap<CacheKey, Kept>,
    bytes: usize,
    uses: u64,
}

/// Values by their keys, up to a number of bytes.
#[derive(Default)]
pub(super) struct Cache {
    /// Of one segment each: read again in a moment, but there are many of them.
    parts: Mutex<Contents>,
    /// Of all segments together: made of all parts, which would push them out again and again.
    wholes: Mutex<Contents>,
}

/// What a key and its place take, in bytes.
const OVERHEAD_BYTES: usize = 200;

impl Cache {
    /// What is kept under a key.
    pub(super) fn get<T: Send + Sync + 'static>(&self, key: &CacheKey) -> Option<Arc<T>> {
        let mut contents = self.contents(key).lock();
        contents.uses += 1;
        let uses = contents.uses;
        let kept = contents.kept.get_mut(key)?;
        kept.used = uses;
        Arc::clone(&kept.value).downcast().ok()
    }

    /// Keeps a value, unless it is too large for what may be kept in all.
    pub(super) fn put<T: Send + Sync + 'static>(&self, key: CacheKey, value: &Arc<T>, bytes: usize, bytes_max: usize) {
        let bytes = bytes + OVERHEAD_BYTES;
        if bytes > bytes_max / if key.is_of_all() { 2 } else { 4 } {
            return;
        }
        {
            let mut contents = self.contents(&key).lock();
            contents.uses += 1;
            let kept = Kept { value: Arc::<T>::clone(value), bytes, used: contents.uses };
            contents.bytes += bytes;
            if let Some(old) = contents.kept.insert(key, kept) {
                contents.bytes -= old.bytes;
            }
        }
        self.shrink(bytes_max);
    }

    fn contents(&self, key: &CacheKey) -> &Mutex<Contents> {
        if key.is_of_all() { &self.wholes } else { &self.parts }
    }

    /// Gives up what was not used for the longest time until no more than this is kept: of all segments together three
    /// quarters of it at most.
    pub(super) fn shrink(&self, bytes_max: usize) {
        let of_wholes = {
            let mut wholes = self.wholes.lock();
            wholes.shrink(bytes_max / 4 * 3);
            wholes.bytes
        };
        self.parts.lock().shrink(bytes_max - of_wholes);
    }

    /// Forgets everything of generations that are no longer read.
    pub(super) fn retain(&self, is_current: impl Fn(Generation) -> bool) {
        for contents in [&self.parts, &self.wholes] {
            let mut contents = contents.lock();
            let mut freed = 0;
            contents.kept.retain(|key, kept| {
                let keeps = is_current(key.generation());
                freed += if keeps { 0 } else { kept.bytes };
                keeps
            });
            contents.bytes -= freed;
        }
    }

    /// The memory that all of it takes.
    pub(super) fn bytes(&self) -> usize {
        self.parts.lock().bytes + self.wholes.lock().bytes
    }
}

impl Contents {
    fn shrink(&mut self, bytes_max: usize) {
        if self.bytes <= bytes_max {
            return;
        }
        // More than is needed now, so that the next value need not look for room again.
        let wanted = bytes_max - bytes_max / 8;
        let mut by_use: Vec<_> = self.kept.iter().map(|(key, kept)| (kept.used, key.clone())).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= wanted {
                break;
            }
            if let Some(kept) = self.kept.remove(&key) {
                self.bytes -= kept.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_first() {
        let cache = Cache::default();
        let key = |number, id| CacheKey::Block(Generation { number, generation: 2 }, id);
        let value = Arc::new(String::from("value"));
        (0..10).for_each(|id| cache.put(key(id % 2, id), &value, 800, 10_000));
        assert_eq!(cache.bytes(), 10_000);
        assert_eq!(*cache.get::<String>(&key(0, 0)).unwrap(), "value");
        cache.put(key(1, 10), &value, 800, 10_000);
        assert!(cache.get::<String>(&key(1, 1)).is_none() && cache.get::<String>(&key(0, 0)).is_some());
        assert!(cache.get::<Vec<u8>>(&key(0, 0)).is_none(), "of another type");
        cache.put(key(1, 11), &value, 5_000, 10_000);
        assert!(cache.get::<String>(&key(1, 11)).is_none(), "too large to be kept");
        cache.retain(|generation| generation.number == 0);
        assert!(cache.get::<String>(&key(1, 10)).is_none() && cache.get::<String>(&key(0, 0)).is_some());
        cache.shrink(0);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_is_made_of_all_segments_is_not_pushed_out_by_them() {
        let cache = Cache::default();
        let of = |number| Generation { number, generation: 2 };
        let whole = |id| CacheKey::Sums(of(9), "web-1".into(), [id, 0]);
        let value = Arc::new(String::from("value"));
        (0..4).for_each(|id| cache.put(whole(id), &value, 1_800, 10_000));
        (0..20).for_each(|number| cache.put(CacheKey::Block(of(number), number), &value, 800, 10_000));
        assert!(cache.bytes() <= 10_000);
        assert!(cache.get::<String>(&whole(3)).is_some() && cache.get::<String>(&whole(0)).is_none());
        assert!(cache.get::<String>(&CacheKey::Block(of(19), 19)).is_some());
    }
}

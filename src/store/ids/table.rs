//! The newest ids, in memory: a hash table that is in the order of its hashes at any time, so that laying it down sorts
//! nothing.
//!
//! Ordered linear probing (Amble and Knuth, 1974): an entry stands at the place that the first bits of its hash say, or
//! behind it, and none stands behind a higher one. Hashes are keyed, so nobody can have them fall on one place.

use std::hint::black_box;

use crate::event::{IdHash, Original};

/// What is known of one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) hash: IdHash,
    /// From 1 on.
    pub(crate) sequence: u64,
    pub(crate) created_at: i64,
}

impl Entry {
    /// The event that has the id.
    pub(crate) fn original(self) -> Original {
        Original { sequence: self.sequence, created_at: self.created_at }
    }
}

/// An entry as it lies in memory; all zeros where there is none, which the system gives without being asked to write.
type Place = [u64; 4];
/// What a place takes, in bytes.
pub(crate) const PLACE_BYTES: usize = size_of::<Place>();
/// Places behind the last that a hash can say: a row of as many neighbours is less likely than two equal hashes.
const TAIL_PLACES: usize = 4_096;

/// Ids with the places of their events. Takes its memory with the first id.
#[derive(Debug)]
pub(crate) struct IdTable {
    places: Vec<Place>,
    /// The number of places that a hash can say is two to the power of this.
    bits: u32,
    len: usize,
}

impl IdTable {
    /// A table of at most so many bytes, or of as many as so many ids need.
    pub(crate) fn new(bytes: usize, ids: usize) -> Self {
        let of_bytes = (bytes / PLACE_BYTES).max(2).ilog2();
        let of_ids = (ids + ids / 4 + 1).next_power_of_two().ilog2();
        Self { places: Vec::new(), bits: of_bytes.max(of_ids).max(1), len: 0 }
    }

    /// How many ids it has.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many more it takes: it is full when four fifths are, as looking in it gets slow then.
    pub(crate) fn room(&self) -> usize {
        ((1_usize << self.bits) * 4 / 5).saturating_sub(self.len)
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.places.len() * PLACE_BYTES
    }

    /// The event with this id.
    pub(crate) fn find(&self, hash: IdHash) -> Option<Original> {
        match self.look(hash) {
            Look::There(at) => Some(entry(&self.places[at]).original()),
            Look::Missing(_) => None,
        }
    }

    /// Has the places of these ids at hand, for a look at each that follows: the waits for memory overlap here, where
    /// they would come one after the other there. Worth a twentieth of a batch's time (`benches/load`, `--ids`).
    pub(crate) fn fetch(&self, hashes: &[Option<IdHash>]) {
        let at = |hash: &IdHash| self.places.get((halves(*hash).0 >> (64 - self.bits)) as usize);
        black_box(hashes.iter().flatten().filter_map(at).fold(0, |all, place| all ^ place[0]));
    }

    /// Adds an id, or returns the event that has it. The caller has looked for room.
    pub(crate) fn find_or_add(&mut self, new: Entry) -> Option<Original> {
        if self.places.is_empty() {
            self.places = vec![[0; 4]; (1 << self.bits) + TAIL_PLACES];
        }
        let at = match self.look(new.hash) {
            Look::There(at) => return Some(entry(&self.places[at]).original()),
            Look::Missing(at) => at,
        };
        let end = at + self.places[at..].iter().position(is_empty).unwrap_or(self.places.len() - at);
        if end < self.places.len() {
            self.places.copy_within(at..end, at + 1);
            self.places[at] = place(new);
            self.len += 1;
        }
        None
    }

    /// Removes an id that is there.
    pub(crate) fn remove(&mut self, hash: IdHash) {
        let Look::There(at) = self.look(hash) else { return };
        let mut end = at + 1;
        while end < self.places.len() && !is_empty(&self.places[end]) && self.home(&self.places[end]) < end {
            end += 1;
        }
        self.places.copy_within(at + 1..end, at);
        self.places[end - 1] = [0; 4];
        self.len -= 1;
    }

    /// All entries, by their hashes.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = Entry> {
        self.places.iter().filter(|place| !is_empty(place)).map(entry)
    }

    fn look(&self, hash: IdHash) -> Look {
        let (high, low) = halves(hash);
        let mut at = (high >> (64 - self.bits)) as usize;
        loop {
            match self.places.get(at) {
                Some(place) if !is_empty(place) && (place[0], place[1]) < (high, low) => at += 1,
                Some(place) if !is_empty(place) && (place[0], place[1]) == (high, low) => return Look::There(at),
                _ => return Look::Missing(at),
            }
        }
    }

    fn home(&self, place: &Place) -> usize {
        (place[0] >> (64 - self.bits)) as usize
    }
}

/// Where an id is, or would be.
enum Look {
    There(usize),
    Missing(usize),
}

/// The higher and the lower half of a hash.
pub(super) fn halves(hash: IdHash) -> (u64, u64) {
    ((hash.0 >> 64) as u64, hash.0 as u64)
}

fn place(entry: Entry) -> Place {
    let (high, low) = halves(entry.hash);
    [high, low, entry.sequence, entry.created_at.cast_unsigned()]
}

fn entry(place: &Place) -> Entry {
    let hash = IdHash(u128::from(place[0]) << 64 | u128::from(place[1]));
    Entry { hash, sequence: place[2], created_at: place[3].cast_signed() }
}

fn is_empty(place: &Place) -> bool {
    place[2] == 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8),
        Remove(u8),
    }

    /// A hash whose first bits are those of few others, so that many want one place.
    fn hash(id: u8) -> IdHash {
        IdHash(u128::from(id % 4) << 126 | u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(
            steps in prop::collection::vec(
                prop_oneof![3 => any::<u8>().prop_map(Step::Add), 1 => any::<u8>().prop_map(Step::Remove)],
                0..120
            )
        ) {
            let (mut table, mut model) = (IdTable::new(0, 128), BTreeMap::new());
            for (sequence, step) in (1..).zip(steps) {
                match step {
                    Step::Add(id) => {
                        let new = Entry { hash: hash(id), sequence, created_at: -3 };
                        let known = model.get(&hash(id)).map(|known: &Entry| known.original());
                        prop_assert_eq!(table.find_or_add(new), known);
                        model.entry(hash(id)).or_insert(new);
                    }
                    Step::Remove(id) => {
                        table.remove(hash(id));
                        model.remove(&hash(id));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            prop_assert_eq!(table.sorted().collect::<Vec<_>>(), model.values().copied().collect::<Vec<_>>());
            for id in 0..=u8::MAX {
                prop_assert_eq!(table.find(hash(id)), model.get(&hash(id)).map(|known| known.original()));
            }
        }
    }

    #[test]
    fn it_has_room_for_what_it_was_made_for() {
        for (bytes, ids) in [(0, 1), (0, 1_000), (1 << 20, 10), (1 << 20, 100_000)] {
            let table = IdTable::new(bytes, ids);
            assert!(table.room() >= ids, "{bytes} {ids}: {}", table.room());
            assert_eq!(table.bytes(), 0);
        }
        assert_eq!(IdTable::new(4 << 20, 0).room(), 104_857);
    }
}

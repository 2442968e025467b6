//! The newest ids, in memory: entries in the order in which they came, and a small hash table of their places, so that
//! to add one touches little memory that is not at hand.

use hashbrown::{HashTable, hash_table};

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

/// What an id takes in a table, in bytes: its entry, and its place with a byte that tells most others apart.
const ID_BYTES: usize = size_of::<Entry>() + 5;

/// Ids with the places of their events. Takes its memory with the first id.
#[derive(Debug)]
pub(crate) struct IdTable {
    entries: Vec<Entry>,
    /// The places of the entries, by the lower halves of their hashes: these are keyed, so nobody can have them fall
    /// together.
    places: HashTable<u32>,
    ids_max: usize,
}

impl IdTable {
    /// A table for as many ids as so many bytes hold, but for so many at the least.
    pub(crate) fn new(bytes: usize, ids: usize) -> Self {
        Self { entries: Vec::new(), places: HashTable::new(), ids_max: (bytes / ID_BYTES).max(ids) }
    }

    /// How many ids it has.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many more it takes.
    pub(crate) fn room(&self) -> usize {
        self.ids_max - self.entries.len()
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.places.allocation_size()
    }

    /// The event with this id.
    pub(crate) fn find(&self, hash: IdHash) -> Option<Original> {
        let at = self.places.find(halves(hash).1, |at| self.entries[*at as usize].hash == hash)?;
        Some(self.entries[*at as usize].original())
    }

    /// Adds an id, or returns the event that has it. The caller has looked for room.
    pub(crate) fn find_or_add(&mut self, new: Entry) -> Option<Original> {
        let Self { entries, places, ids_max } = self;
        if entries.is_empty() {
            entries.reserve_exact(*ids_max);
            places.reserve(*ids_max, |_| 0);
        }
        let is_it = |at: &u32| entries[*at as usize].hash == new.hash;
        match places.entry(halves(new.hash).1, is_it, |at| halves(entries[*at as usize].hash).1) {
            hash_table::Entry::Occupied(at) => Some(entries[*at.get() as usize].original()),
            hash_table::Entry::Vacant(vacant) => {
                vacant.insert(entries.len() as u32);
                entries.push(new);
                None
            }
        }
    }

    /// Removes the ids that came last.
    pub(crate) fn remove_newest(&mut self, ids: usize) {
        for at in (self.entries.len() - ids..self.entries.len()).rev() {
            let hash = self.entries[at].hash;
            if let Ok(place) = self.places.find_entry(halves(hash).1, |place| *place as usize == at) {
                place.remove();
            }
            self.entries.pop();
        }
    }

    /// All entries, by their hashes. Takes as much memory as they do.
    pub(crate) fn sorted(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        entries.sort_unstable();
        entries
    }
}

/// The higher and the lower half of a hash.
pub(super) fn halves(hash: IdHash) -> (u64, u64) {
    ((hash.0 >> 64) as u64, hash.0 as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8),
        RemoveNewest(usize),
    }

    /// A hash whose lower half is that of few others.
    fn hash(id: u8) -> IdHash {
        IdHash(u128::from(id) << 64 | u128::from(id % 4))
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(
            steps in prop::collection::vec(
                prop_oneof![3 => any::<u8>().prop_map(Step::Add), 1 => (0..4_usize).prop_map(Step::RemoveNewest)],
                0..120
            )
        ) {
            let (mut table, mut model, mut order) = (IdTable::new(0, 128), BTreeMap::new(), Vec::new());
            for (sequence, step) in (1..).zip(steps) {
                match step {
                    Step::Add(id) => {
                        let new = Entry { hash: hash(id), sequence, created_at: -3 };
                        let known = model.get(&hash(id)).map(|known: &Entry| known.original());
                        prop_assert_eq!(table.find_or_add(new), known);
                        if known.is_none() {
                            model.insert(hash(id), new);
                            order.push(hash(id));
                        }
                    }
                    Step::RemoveNewest(ids) => {
                        let ids = ids.min(order.len());
                        table.remove_newest(ids);
                        order.drain(order.len() - ids..).for_each(|hash| assert!(model.remove(&hash).is_some()));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.room(), 128 - model.len());
            }
            prop_assert_eq!(table.sorted(), model.values().copied().collect::<Vec<_>>());
            for id in 0..=u8::MAX {
                prop_assert_eq!(table.find(hash(id)), model.get(&hash(id)).map(|known| known.original()));
            }
        }
    }

    #[test]
    fn it_takes_the_memory_that_it_was_given_and_none_before_the_first_id() {
        let mut table = IdTable::new(4 << 20, 10);
        assert_eq!((table.bytes(), table.room()), (0, 113_359));
        table.find_or_add(Entry { hash: hash(1), sequence: 1, created_at: 1 });
        let bytes = table.bytes();
        assert!((4_200_000..4_400_000).contains(&bytes), "{bytes}");
        for number in 0..113_358_u64 {
            let hash = IdHash(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) + 7);
            assert_eq!(table.find_or_add(Entry { hash, sequence: 2 + number, created_at: 1 }), None);
        }
        assert_eq!((table.bytes(), table.room()), (bytes, 0), "it never grows");
        assert_eq!(IdTable::new(0, 1_000).room(), 1_000);
    }
}

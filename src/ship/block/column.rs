//! One column of a block while rows are added: its name, its type and its values, as they will be sent.
//!
//! What a column has between two blocks is no column yet: [`Plain::begin`] and [`Dictionary::begin`] come first.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most keys for which a dictionary keeps memory from one block for the next: 0.5 MB of look-up and places.
const KEYS_KEPT_MAX: usize = 16 * 1024;
/// Most rows for which it keeps memory: 0.5 MB of indexes.
const ROWS_KEPT_MAX: usize = 128 * 1024;

/// Writes a number seven bits a byte, the lowest first, as Native has its lengths.
pub(super) fn write_varuint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes [`write_varuint`] writes.
pub(super) fn varuint_bytes(number: usize) -> usize {
    (usize::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_varuint(out, text.len());
    out.extend_from_slice(text);
}

/// A column whose values stand one after the other.
#[derive(Debug)]
pub(super) struct Plain {
    name: &'static str,
    kind: &'static str,
    /// The column as it is sent.
    pub(super) bytes: Vec<u8>,
}

impl Plain {
    pub(super) fn new(name: &'static str, kind: &'static str) -> Self {
        Self { name, kind, bytes: Vec::new() }
    }

    pub(super) fn begin(&mut self) {
        write_text(&mut self.bytes, self.name.as_bytes());
        write_text(&mut self.bytes, self.kind.as_bytes());
    }

    /// Appends a value of a fixed size, its lowest byte first.
    pub(super) fn push<const SIZE: usize>(&mut self, value: [u8; SIZE]) {
        self.bytes.extend_from_slice(&value);
    }

    pub(super) fn push_text(&mut self, text: &[u8]) {
        write_text(&mut self.bytes, text);
    }
}

/// A column of `LowCardinality(String)`: each different text once, its keys, and for each row which of them.
///
/// The keys stand in the order in which they appear, after the empty text, which is always there. So does ClickHouse
/// write them itself.
#[derive(Debug)]
pub(super) struct Dictionary {
    name: &'static str,
    seed: u64,
    /// The column as it is sent, up to the last key.
    head: Vec<u8>,
    /// The rest: how many rows, and which key each has.
    tail: Vec<u8>,
    /// Where in `head` the kind of the indexes and the number of keys are to be written.
    facts_at: usize,
    /// Where in `head` each key's text begins and ends.
    places: Vec<(usize, usize)>,
    /// The keys but the empty one, by their hash.
    table: HashTable<u32>,
    /// Which key each row has.
    indexes: Vec<u32>,
    /// The key of the newest row: events that follow each other are much alike.
    newest: u32,
}

impl Dictionary {
    pub(super) fn new(name: &'static str, seed: u64) -> Self {
        Self {
            name,
            seed,
            head: Vec::new(),
            tail: Vec::new(),
            facts_at: 0,
            places: Vec::new(),
            table: HashTable::new(),
            indexes: Vec::new(),
            newest: 0,
        }
    }

    pub(super) fn begin(&mut self) {
        const VERSION: u64 = 1;
        write_text(&mut self.head, self.name.as_bytes());
        write_text(&mut self.head, b"LowCardinality(String)");
        self.head.extend_from_slice(&VERSION.to_le_bytes());
        self.facts_at = self.head.len();
        self.head.extend_from_slice(&[0; 16]);
        self.newest = 0;
        self.add_key(b"");
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.newest = self.key(text);
        self.indexes.push(self.newest);
    }

    /// The key of this text, a new one if it has none.
    fn key(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let Self { head, places, table, seed, newest, .. } = self;
        let text_of = |key: u32| {
            let (begin, end) = places[key as usize];
            &head[begin..end]
        };
        if text_of(*newest) == text {
            return *newest;
        }
        let hash = xxh3_64_with_seed(text, *seed);
        if let Some(&key) = table.find(hash, |&key| text_of(key) == text) {
            return key;
        }
        // A block of as many keys as would not fit has more bytes than a machine.
        let key = places.len() as u32;
        table.insert_unique(hash, key, |&key| xxh3_64_with_seed(text_of(key), *seed));
        self.add_key(text);
        key
    }

    fn add_key(&mut self, text: &[u8]) {
        write_text(&mut self.head, text);
        self.places.push((self.head.len() - text.len(), self.head.len()));
    }

    /// How many bytes the column has when it is sent.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.head.len() + size_of::<u64>() + self.indexes.len() * self.width().bytes()
    }

    fn width(&self) -> Width {
        Width::of(self.places.len())
    }

    /// Writes what was not known before, and forgets the keys.
    pub(super) fn finish(&mut self) {
        /// The keys are this block's own, and they stand here.
        const OWN_KEYS: u64 = 0x600;
        let width = self.width();
        let facts = [OWN_KEYS | width as u64, self.places.len() as u64];
        for (at, fact) in [self.facts_at, self.facts_at + 8].into_iter().zip(facts) {
            self.head[at..at + 8].copy_from_slice(&fact.to_le_bytes());
        }
        self.tail.reserve(size_of::<u64>() + self.indexes.len() * width.bytes());
        self.tail.extend_from_slice(&(self.indexes.len() as u64).to_le_bytes());
        // Each key fits, by the choice of the width.
        match width {
            Width::One => self.tail.extend(self.indexes.iter().map(|&key| key as u8)),
            Width::Two => self.tail.extend(self.indexes.iter().flat_map(|&key| (key as u16).to_le_bytes())),
            Width::Four => self.tail.extend(self.indexes.iter().flat_map(|&key| key.to_le_bytes())),
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.places.clear();
        self.places.shrink_to(KEYS_KEPT_MAX);
        self.indexes.clear();
        self.indexes.shrink_to(ROWS_KEPT_MAX);
        self.table.clear();
        self.table.shrink_to(KEYS_KEPT_MAX, |_| 0);
    }

    /// The memory that it has between two blocks.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.places.capacity() * size_of::<(usize, usize)>()
            + self.table.allocation_size()
            + self.indexes.capacity() * size_of::<u32>()
    }

    /// The two pieces of the column, in the order of its bytes.
    pub(super) fn buffers(&mut self) -> [&mut Vec<u8>; 2] {
        [&mut self.head, &mut self.tail]
    }
}

/// How many bytes an index of a row takes; its number is what the column says of it.
#[derive(Debug, Clone, Copy)]
enum Width {
    One = 0,
    Two = 1,
    Four = 2,
}

impl Width {
    /// The one that ClickHouse takes for as many keys. It leaves the highest number of each width unused.
    fn of(keys: usize) -> Self {
        match keys {
            0..=0xff => Self::One,
            0x100..=0xffff => Self::Two,
            _ => Self::Four,
        }
    }

    fn bytes(self) -> usize {
        1 << self as usize
    }
}

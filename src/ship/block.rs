//! One block of ClickHouse's Native format: the events of a range, as an insert sends them.
//!
//! Owns the columns of the table `events`, their order and types, and how a row becomes bytes. The same rows always
//! make the same bytes, because a range is sent again byte for byte. Takes no memory for a row by itself: texts are
//! appended to the columns' buffers, which serve one block after the other. Does not bound a block: whoever pushes
//! does, by [`BlockBuilder::rows`] and [`BlockBuilder::bytes`]. Must not know where a block goes, or what a range is.

mod column;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, RandomState},
    iter, mem,
    ops::RangeInclusive,
};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use self::column::{Dictionary, Plain, varuint_bytes, write_varuint};
use crate::event::{EventRow, EventType};

/// Most memory that is kept from one block for the next, in bytes. The buffers of 100,000 usual events take 12 to
/// 24 MiB; those of larger ones are given back to the system.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How many columns a block has.
const COLUMNS: usize = 16;
/// How many of them have their values one after the other.
const PLAIN: usize = 10;
/// How many have a dictionary.
const DICTIONARIES: usize = COLUMNS - PLAIN;
/// In how many pieces a block is built: its head, one for each plain column, two for each with a dictionary.
const CHUNKS: usize = 1 + PLAIN + 2 * DICTIONARIES;

/// The times that `DateTime64(3)` has in every version that hitlog ships to, in milliseconds since 1970: the years 1900
/// to 2299. An insert takes any other number, too: 26.7 shows it as what it is, from the year 1 to 9999; older versions
/// show and partition by another time.
pub const TIMES_MS: RangeInclusive<i64> = -2_208_988_800_000..=10_413_791_999_999;

/// A time as it is sent. hitlog takes times from 1970 to the year 9999; what is later than 2299 becomes the last moment
/// of that year, so that a row reads the same on all servers of a cluster.
pub fn sent_time_ms(time_ms: i64) -> i64 {
    time_ms.clamp(*TIMES_MS.start(), *TIMES_MS.end())
}

/// Builds blocks, one after the other. It holds at most what its rows have, twice (a buffer grows by doubling), 32 MiB
/// for the next block, and 1 MiB a column with a dictionary.
#[derive(Debug)]
pub struct BlockBuilder {
    rows: usize,
    /// The numbers of columns and rows.
    head: Vec<u8>,
    /// In the order of the table: `type` to `properties`, and `flags`.
    plain: [Plain; PLAIN],
    /// In the order of the table: `site`, and `referrer` to `location`.
    dictionaries: [Dictionary; DICTIONARIES],
    /// The buffers of a block that was given back.
    spare: Vec<Vec<u8>>,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockBuilder {
    /// One without rows, which holds no buffer yet.
    pub fn new() -> Self {
        const TIME: &str = "DateTime64(3, 'UTC')";
        let plain = [
            Plain::new("type", "Enum8('pageview' = 1, 'click' = 2, 'custom' = 3)"),
            Plain::new("created_at", TIME),
            Plain::new("received_at", TIME),
            Plain::new("node", "UInt32"),
            Plain::new("seq", "UInt64"),
            Plain::new("visitor", "String"),
            Plain::new("session", "String"),
            Plain::new("url", "String"),
            Plain::new("properties", "String"),
            Plain::new("flags", "UInt8"),
        ];
        // Clients choose the texts. Who does not know the seed can't choose such as share a hash, which would have
        // every look-up go through all of them. The bytes of a block don't depend on it.
        let seed = RandomState::new().hash_one(());
        let names = ["site", "referrer", "device", "browser", "os", "location"];
        let dictionaries = names.map(|name| Dictionary::new(name, seed));
        Self { rows: 0, head: Vec::new(), plain, dictionaries, spare: Vec::new() }
    }

    /// Appends a row: the event that a node stored under a sequence.
    pub fn push(&mut self, node: u32, seq: u64, row: &EventRow<'_>) {
        if self.rows == 0 {
            self.begin();
        }
        self.rows += 1;
        let [kind, created_at, received_at, node_column, seq_column, visitor, session, url, properties, flags] =
            &mut self.plain;
        kind.push([kind_number(row.event_type)]);
        created_at.push(sent_time_ms(row.created_at).to_le_bytes());
        received_at.push(sent_time_ms(row.received_at).to_le_bytes());
        node_column.push(node.to_le_bytes());
        seq_column.push(seq.to_le_bytes());
        visitor.push_text(row.visitor_id);
        session.push_text(row.session_id);
        url.push_text(row.url);
        properties.push_text(row.properties.unwrap_or_default());
        flags.push([0]);
        let [site, referrer, device, browser, os, location] = &mut self.dictionaries;
        site.push(row.website_id);
        referrer.push(row.referrer.unwrap_or_default());
        device.push(row.device_type.unwrap_or_default());
        browser.push(row.browser.unwrap_or_default());
        os.push(row.os.unwrap_or_default());
        location.push(row.location.unwrap_or_default());
    }

    /// How many rows were pushed since the last block.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many bytes a block of these rows has.
    pub fn bytes(&self) -> usize {
        if self.rows == 0 {
            return 0;
        }
        let plain: usize = self.plain.iter().map(|column| column.bytes.len()).sum();
        let dictionaries: usize = self.dictionaries.iter().map(Dictionary::encoded_bytes).sum();
        varuint_bytes(COLUMNS) + varuint_bytes(self.rows) + plain + dictionaries
    }

    /// The block of the rows that were pushed since the last one. Without rows it has no bytes, which is an insert of
    /// nothing.
    pub fn finish(&mut self) -> Block {
        let rows = mem::take(&mut self.rows);
        if rows == 0 {
            return Block::default();
        }
        write_varuint(&mut self.head, COLUMNS);
        write_varuint(&mut self.head, rows);
        self.dictionaries.iter_mut().for_each(Dictionary::finish);
        let mut chunks = Vec::with_capacity(CHUNKS);
        chunks.extend(self.buffers().map(|buffer| Bytes::from(mem::take(buffer))));
        Block { rows, len: chunks.iter().map(Bytes::len).sum(), chunks }
    }

    /// Takes back the memory of a block that is needed no more, for the next one. What somebody else still holds of it
    /// stays theirs.
    pub fn take_back(&mut self, block: Block) {
        let mut kept_bytes = 0;
        let keep = |chunk: Bytes| {
            let buffer = if chunk.is_unique() { Vec::from(chunk) } else { Vec::new() };
            if kept_bytes + buffer.capacity() > KEPT_BYTES_MAX {
                return Vec::new();
            }
            kept_bytes += buffer.capacity();
            buffer
        };
        self.spare = block.chunks.into_iter().map(keep).collect();
    }

    /// Begins a block, in the buffers of the one that was given back.
    fn begin(&mut self) {
        let spare = mem::take(&mut self.spare);
        for (buffer, spare) in self.buffers().zip(spare) {
            *buffer = spare;
            buffer.clear();
        }
        self.plain.iter_mut().for_each(Plain::begin);
        self.dictionaries.iter_mut().for_each(Dictionary::begin);
    }

    /// The pieces of a block in the order of its bytes, which is the table's order of columns.
    fn buffers(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        let (site, after_properties) = self.dictionaries.split_at_mut(1);
        let (after_site, flags) = self.plain.split_at_mut(PLAIN - 1);
        iter::once(&mut self.head)
            .chain(site.iter_mut().flat_map(Dictionary::buffers))
            .chain(after_site.iter_mut().map(|column| &mut column.bytes))
            .chain(after_properties.iter_mut().flat_map(Dictionary::buffers))
            .chain(flags.iter_mut().map(|column| &mut column.bytes))
    }
}

/// The number that the table's `Enum8` gives a type.
fn kind_number(event_type: &[u8]) -> u8 {
    // Nothing else than these three is ever stored. Were it, "custom" says the least of it, and ClickHouse would take
    // any number without a word.
    const NAMES: [EventType; 2] = [EventType::Pageview, EventType::Click];
    NAMES.iter().zip(1..).find(|(kind, _)| kind.as_str().as_bytes() == event_type).map_or(3, |(_, number)| number)
}

/// The bytes of a block, in as many pieces as it was built in.
#[derive(Debug, Clone, Default)]
pub struct Block {
    rows: usize,
    len: usize,
    chunks: Vec<Bytes>,
}

impl Block {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has neither rows nor bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes, in pieces that follow each other. A clone of a piece is the same memory.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// What its bytes are known by: XXH3 of 128 bits, the highest first.
    pub fn hash(&self) -> [u8; 16] {
        let mut hasher = Xxh3::new();
        self.chunks.iter().for_each(|chunk| hasher.update(chunk));
        hasher.digest128().to_be_bytes()
    }
}

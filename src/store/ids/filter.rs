//! Which ids may be in a run, from memory; no means no.
//!
//! A small run, of which there are several at any time and each of which is merged before long, has a part of each hash
//! in memory: 36 bits an id, made in no time, and nothing else gets through. A large one has binary fuse filters: 19
//! bits an id, which let 1 in 65,536 others through.

use std::io;

use xorf::{BinaryFuse16, BinaryFuse16Ref, DmaSerializable, Filter, FilterRef};

use super::table::{Entry, halves};
use crate::event::IdHash;

/// The most ids of a run that has no filter in its file.
pub(super) const TAGGED_IDS_MAX: u64 = 256 * 1024;
/// Ids of one fuse filter, on the average: building one takes 40 bytes of memory an id.
const FUSE_IDS: u64 = 64 * 1024;
/// Ids whose hashes begin alike, on the average: a look goes through as many.
const GROUP_IDS: u64 = 8;

/// What tells which ids may be in a run.
#[derive(Debug)]
pub(super) enum IdFilter {
    Tags(Tags),
    /// By the first bits of the hash.
    Fuse(Box<[FuseFilter]>),
}

impl IdFilter {
    /// The memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Tags(tags) => 4 * (tags.starts.len() + tags.tags.capacity()),
            Self::Fuse(filters) => filters.iter().map(|filter| size_of::<FuseFilter>() + filter.bytes.capacity()).sum(),
        }
    }

    /// Whether an id may be in the run.
    pub(super) fn may_hold(&self, hash: IdHash) -> bool {
        let mut mark = [false];
        self.mark(&[(0, hash)], &mut mark);
        mark[0]
    }

    /// Marks those of many ids that may be in the run.
    pub(super) fn mark(&self, ids: &[(usize, IdHash)], marks: &mut [bool]) {
        let ids = ids.iter().map(|(_, hash)| halves(*hash)).zip(marks);
        match self {
            Self::Tags(tags) => ids.for_each(|((high, low), mark)| *mark |= tags.may_hold(high, low)),
            Self::Fuse(filters) => ids.for_each(|((high, low), mark)| {
                let filter = filters[place_of(high, filters.len())].as_ref();
                *mark |= filter.is_some_and(|filter| filter.contains(&low));
            }),
        }
    }
}

/// A part of each hash, those that begin alike together.
#[derive(Debug)]
pub(super) struct Tags {
    /// Where each group begins, and where the last one ends.
    starts: Box<[u32]>,
    /// The first bits of the lower halves of the hashes.
    tags: Vec<u32>,
}

impl Tags {
    /// Of a run with so many entries, which come in the order of their hashes.
    pub(super) fn of(count: u64) -> TagsBuilder {
        let groups = count.div_ceil(GROUP_IDS).max(1) as usize;
        TagsBuilder { groups, starts: Vec::with_capacity(groups + 1), tags: Vec::with_capacity(count as usize) }
    }

    fn may_hold(&self, high: u64, low: u64) -> bool {
        let group = place_of(high, self.starts.len() - 1);
        self.tags[self.starts[group] as usize..self.starts[group + 1] as usize].contains(&tag(low))
    }
}

/// Tags that are being gathered.
pub(super) struct TagsBuilder {
    groups: usize,
    starts: Vec<u32>,
    tags: Vec<u32>,
}

impl TagsBuilder {
    pub(super) fn add(&mut self, entry: &Entry) {
        let (high, low) = halves(entry.hash);
        while self.starts.len() <= place_of(high, self.groups) {
            self.starts.push(self.tags.len() as u32);
        }
        self.tags.push(tag(low));
    }

    pub(super) fn finish(mut self) -> Tags {
        self.starts.resize(self.groups + 1, self.tags.len() as u32);
        Tags { starts: self.starts.into(), tags: self.tags }
    }
}

fn tag(low: u64) -> u32 {
    (low >> 32) as u32
}

/// A fuse filter of some of the ids, as it was written; empty if there is none of them.
#[derive(Debug)]
pub(super) struct FuseFilter {
    bytes: Vec<u8>,
    /// Where it begins: its fingerprints must lie at an even address.
    start: usize,
}

impl FuseFilter {
    pub(super) fn read(written: &[u8]) -> Option<Self> {
        if !written.is_empty() && !is_whole(written) {
            return None;
        }
        let mut bytes = Vec::with_capacity(written.len() + 1);
        let start = (bytes.as_ptr() as usize + BinaryFuse16::DESCRIPTOR_LEN) % 2;
        bytes.resize(start, 0);
        bytes.extend_from_slice(written);
        Some(Self { bytes, start })
    }

    /// The filter itself; `None` if it is of no id.
    fn as_ref(&self) -> Option<BinaryFuse16Ref<'_>> {
        let (descriptor, fingerprints) = self.bytes[self.start..].split_at_checked(BinaryFuse16::DESCRIPTOR_LEN)?;
        Some(BinaryFuse16Ref::from_dma(descriptor, fingerprints))
    }
}

/// Whether there are as many fingerprints as the descriptor speaks of: a seed of 8 bytes, the length of a segment, its
/// mask, and the length of all segments but the last two.
fn is_whole(written: &[u8]) -> bool {
    let Some((descriptor, fingerprints)) = written.split_at_checked(BinaryFuse16::DESCRIPTOR_LEN) else { return false };
    let number = |at: usize| {
        let mut number = [0; 4];
        number.copy_from_slice(&descriptor[at..at + 4]);
        u64::from(u32::from_le_bytes(number))
    };
    let (length, mask, of_all) = (number(8), number(12), number(16));
    length.is_power_of_two()
        && mask == length - 1
        && of_all > 0
        && of_all.is_multiple_of(length)
        && fingerprints.len() as u64 == 2 * (of_all + 2 * length)
}

/// Builds fuse filters while entries come in, in the order of their hashes.
pub(super) struct FuseWriter {
    /// How many there will be: a power of two.
    count: usize,
    /// The lower halves of the hashes that are to be in the next one.
    hashes: Vec<u64>,
    built: Vec<Vec<u8>>,
}

impl FuseWriter {
    /// Of up to so many entries.
    pub(super) fn new(entries_max: u64) -> Self {
        let count = entries_max.div_ceil(FUSE_IDS).max(1).next_power_of_two() as usize;
        Self { count, hashes: Vec::new(), built: Vec::new() }
    }

    pub(super) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let (high, low) = halves(entry.hash);
        while self.built.len() < place_of(high, self.count) {
            self.build()?;
        }
        self.hashes.push(low);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Vec<Vec<u8>>> {
        while self.built.len() < self.count {
            self.build()?;
        }
        Ok(self.built)
    }

    fn build(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        if !self.hashes.is_empty() {
            let filter = BinaryFuse16::try_from(&self.hashes).or_else(|_| {
                // It cannot be built over a hash that comes twice, as one in thousands of millions of filters has it.
                self.hashes.sort_unstable();
                self.hashes.dedup();
                BinaryFuse16::try_from(&self.hashes)
            });
            let filter = filter.map_err(io::Error::other)?;
            bytes.resize(BinaryFuse16::DESCRIPTOR_LEN, 0);
            filter.dma_copy_descriptor_to(&mut bytes);
            bytes.extend_from_slice(filter.dma_fingerprints());
        }
        self.hashes.clear();
        self.built.push(bytes);
        Ok(())
    }
}

/// Which of so many parts, each with as many hashes as another, a hash with this first half is in.
fn place_of(high: u64, parts: usize) -> usize {
    ((u128::from(high) * parts as u128) >> 64) as usize
}

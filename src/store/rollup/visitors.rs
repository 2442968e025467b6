//! Who was there: the hashes of visitors, all of them or the lowest.
//!
//! Hashes are spread evenly, so where all those below a **threshold** are kept, their number divided by the part of all
//! numbers that lies below it says how many visitors there are (a theta sketch, as Apache DataSketches calls it:
//! <https://datasketches.apache.org/docs/Theta/ThetaSketches.html>). Parts are put together by the lowest threshold of
//! them. Unlike registers of a HyperLogLog, what is counted too much can be taken off again. A hash may come several
//! times, once for every visit that it is of, so that taking one visit off leaves the others.

use super::bytes::{Damaged, Reader, put};

/// Hashes of visitors, sorted; with a threshold below the highest number only those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visitors {
    /// `u64::MAX` if all are kept.
    pub(crate) threshold: u64,
    hashes: Vec<u64>,
}

impl Visitors {
    /// All of those with these hashes.
    pub(crate) fn all(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.shrink_to_fit();
        Self { threshold: u64::MAX, hashes }
    }

    /// Leaves no more visitors than this, those with the lowest hashes.
    pub(crate) fn thin(&mut self, visitors_max: usize) {
        // One may be there very often, and is one visitor still.
        let mut different = self.hashes.chunk_by(|one, next| one == next);
        if let Some(threshold) = different.nth(visitors_max).map(|same| same[0]) {
            self.threshold = threshold;
            let below = self.hashes.partition_point(|hash| *hash < threshold);
            self.hashes.truncate(below);
            self.hashes.shrink_to_fit();
        }
    }

    /// How many there are about, each as often as it is kept.
    pub(crate) fn estimate(&self) -> i64 {
        (self.hashes.len() as f64 / (self.threshold as f64 / 2.0_f64.powi(64))) as i64
    }

    /// How many different ones are kept.
    pub(crate) fn different(&self) -> usize {
        self.hashes.chunk_by(|one, next| one == next).count()
    }

    /// Adds those of another part.
    pub(crate) fn add(&mut self, other: &Self) {
        self.threshold = self.threshold.min(other.threshold);
        let mut hashes = self.below(self.threshold).to_vec();
        hashes.extend_from_slice(other.below(self.threshold));
        hashes.sort_unstable();
        self.hashes = hashes;
    }

    /// Those below a threshold.
    pub(crate) fn below(&self, threshold: u64) -> &[u64] {
        if threshold == u64::MAX {
            return &self.hashes;
        }
        &self.hashes[..self.hashes.partition_point(|hash| *hash < threshold)]
    }

    /// The memory that they take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.hashes.capacity() * size_of::<u64>()
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.threshold.to_le_bytes());
        put(bytes, self.hashes.len() as u64);
        self.hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.to_le_bytes()));
    }

    /// The same with the high half of each hash only.
    pub(super) fn write_high(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&high(self.threshold).to_le_bytes());
        put(bytes, self.hashes.len() as u64);
        self.hashes.iter().for_each(|hash| bytes.extend_from_slice(&high(*hash).to_le_bytes()));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let threshold = u64_of(reader.take(8)?);
        let count = usize::try_from(reader.number()?).map_err(|_| Damaged)?;
        let bytes = reader.take(count.checked_mul(8).ok_or(Damaged)?)?;
        let hashes: Vec<u64> = bytes.chunks_exact(8).map(u64_of).collect();
        if hashes.is_sorted() { Ok(Self { threshold, hashes }) } else { Err(Damaged) }
    }
}

/// The high halves of hashes of visitors, as they are written where numbers are estimated from them; sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HighVisitors<'a> {
    /// `u32::MAX` if all are kept.
    pub(crate) threshold: u32,
    hashes: &'a [[u8; 4]],
}

impl<'a> HighVisitors<'a> {
    /// Reads what [`Visitors::write_high`] has written.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Damaged> {
        let (threshold, _) = reader.take(4)?.as_chunks();
        let threshold = threshold.first().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let count = usize::try_from(reader.number()?).map_err(|_| Damaged)?;
        let (hashes, _) = reader.take(count.checked_mul(4).ok_or(Damaged)?)?.as_chunks();
        Ok(Self { threshold, hashes })
    }

    /// Those below a threshold; of the highest one, all.
    pub(crate) fn below(self, threshold: u32) -> impl Iterator<Item = u32> + 'a {
        let count = if threshold == u32::MAX {
            self.hashes.len()
        } else {
            self.hashes.partition_point(|hash| u32::from_le_bytes(*hash) < threshold)
        };
        self.hashes[..count].iter().map(|hash| u32::from_le_bytes(*hash))
    }
}

/// The high half of a hash.
pub(crate) fn high(hash: u64) -> u32 {
    (hash >> 32) as u32
}

pub(super) fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

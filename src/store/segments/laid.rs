//! Keys of rows without an index, laid down in a file beside their segment: sorted, so that a question reads the few
//! blocks that it needs of them and never the rows.
//!
//! What is in memory of a million rows is some 40 KB: where each stream begins, and fence posts. The file says nothing
//! that the rows do not say, goes with them, and is made anew from them where it is missing or damaged.

use std::{ops::Range, path::Path, sync::Arc};

use super::{
    fence::{FENCE_ENTRIES, RankBounds},
    keys::{Key, Sites, Stream},
};
use crate::store::format::blocks::{BlockError, BlockFile};

/// A key of a stream: its `createdAt`, 8 bytes, and its row, 4 bytes, both little-endian.
pub(crate) const KEY_BYTES: usize = 12;
/// A fingerprint and its row, 4 bytes each, little-endian.
pub(crate) const FINGERPRINT_BYTES: usize = 8;
/// The version of the header.
pub(crate) const VERSION: u64 = 1;

/// The keys of one segment.
#[derive(Debug)]
pub(crate) struct LaidKeys {
    file: Arc<BlockFile>,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    /// Of the rows that they were laid down for.
    pub(crate) sample: u64,
    /// By stream.
    streams: Vec<LaidStream>,
    /// Those of all streams, one after the other.
    posts: Arc<[Key]>,
    sessions: Fingerprints,
    visitors: Fingerprints,
}

/// Where the keys of one stream are.
#[derive(Debug, Clone, Copy)]
struct LaidStream {
    stream: Stream,
    posts_at: u32,
    at: u64,
    count: u64,
    first_created_at: i64,
    last_created_at: i64,
}

/// Where the rows of each fingerprint are.
#[derive(Debug)]
struct Fingerprints {
    at: u64,
    count: u64,
    /// Every 1,024th, from the first on.
    posts: Box<[u32]>,
}

/// The sorted keys of one stream.
#[derive(Debug, Clone)]
pub(crate) struct LaidRun {
    file: Arc<BlockFile>,
    at: u64,
    first_sequence: u64,
    posts: Arc<[Key]>,
    posts_range: Range<usize>,
    pub(crate) count: u64,
    pub(crate) first_created_at: i64,
    pub(crate) last_created_at: i64,
}

impl LaidKeys {
    /// Opens the keys of the segment with this number. One of another version or segment counts as damaged.
    pub(crate) fn open(path: &Path, number: i64, sites: &Sites) -> Result<Self, BlockError> {
        let (file, header) = BlockFile::open(path)?;
        let damaged = || BlockError::Damaged(path.into());
        let (mut keys, posts_at) = Header(&header).read(file, number, sites).ok_or_else(damaged)?;
        let posts = keys.file.read(posts_at)?;
        keys.posts = posts.chunks_exact(KEY_BYTES).map(|bytes| key(bytes, keys.first_sequence)).collect();
        let posts = keys.streams.iter().map(|of| of.count.div_ceil(FENCE_ENTRIES)).sum::<u64>();
        if keys.posts.len() as u64 == posts { Ok(keys) } else { Err(damaged()) }
    }

    /// The keys of a stream; `None` if it has none here.
    pub(crate) fn run(&self, stream: Stream) -> Option<LaidRun> {
        let at = self.streams.binary_search_by_key(&stream, |of| of.stream).ok()?;
        Some(self.run_at(at))
    }

    /// The keys of every stream.
    pub(crate) fn into_runs(self) -> Vec<(Stream, LaidRun)> {
        (0..self.streams.len()).map(|at| (self.streams[at].stream, self.run_at(at))).collect()
    }

    fn run_at(&self, at: usize) -> LaidRun {
        let LaidStream { posts_at, at, count, first_created_at, last_created_at, .. } = self.streams[at];
        let posts_at = posts_at as usize;
        LaidRun {
            file: Arc::clone(&self.file),
            at,
            first_sequence: self.first_sequence,
            posts: Arc::clone(&self.posts),
            posts_range: posts_at..posts_at + count.div_ceil(FENCE_ENTRIES) as usize,
            count,
            first_created_at,
            last_created_at,
        }
    }

    /// Whether any of these rows is of the website with this number.
    pub(crate) fn holds_site(&self, site: u32) -> bool {
        self.streams.iter().any(|of| of.stream.site() == site)
    }

    /// The sequences of the rows that may be of this session and this visitor, in their order.
    pub(crate) fn candidates(&self, session: Option<u32>, visitor: Option<u32>) -> Result<Vec<u64>, BlockError> {
        let find = |of: &Fingerprints, wanted: Option<u32>| wanted.map(|wanted| self.find(of, wanted)).transpose();
        let sessions = find(&self.sessions, session)?;
        if sessions.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut rows = match (sessions, find(&self.visitors, visitor)?) {
            (Some(sessions), Some(visitors)) => {
                sessions.into_iter().filter(|row| visitors.binary_search(row).is_ok()).collect()
            }
            (Some(rows), None) | (None, Some(rows)) => rows,
            (None, None) => Vec::new(),
        };
        rows.iter_mut().for_each(|row| *row += self.first_sequence);
        Ok(rows)
    }

    /// The rows with this fingerprint, in their order.
    fn find(&self, of: &Fingerprints, wanted: u32) -> Result<Vec<u64>, BlockError> {
        let mut rows = Vec::new();
        // The entries of a fingerprint may begin behind the last post that is lower.
        let mut from = of.posts.partition_point(|post| *post < wanted).saturating_sub(1) as u64 * FENCE_ENTRIES;
        while from < of.count {
            let to = (from + FENCE_ENTRIES).min(of.count);
            let bytes = FINGERPRINT_BYTES as u64;
            let entries = self.file.read(of.at + from * bytes..of.at + to * bytes)?;
            for entry in entries.chunks_exact(FINGERPRINT_BYTES) {
                let fingerprint = number_32(&entry[..4]);
                if fingerprint > wanted {
                    return Ok(rows);
                }
                if fingerprint == wanted {
                    rows.push(number_32(&entry[4..]).into());
                }
            }
            from = to;
        }
        Ok(rows)
    }
}

impl LaidRun {
    /// Bounds of how many keys are lower than or equal to one.
    pub(crate) fn rank_bounds(&self, key: Key) -> RankBounds {
        RankBounds::new(&self.posts[self.posts_range.clone()], self.count, key)
    }

    /// Reads some of the keys, the oldest first.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<Key>, BlockError> {
        let bytes = KEY_BYTES as u64;
        let entries = self.file.read(self.at + range.start * bytes..self.at + range.end.min(self.count) * bytes)?;
        Ok(entries.chunks_exact(KEY_BYTES).map(|bytes| key(bytes, self.first_sequence)).collect())
    }
}

/// What is left to read of a header.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    /// Reads the whole, and where the fence posts are.
    fn read(mut self, file: BlockFile, segment: i64, sites: &Sites) -> Option<(LaidKeys, Range<u64>)> {
        if self.number()? != VERSION || self.number()? != segment.unsigned_abs() {
            return None;
        }
        let (first_sequence, last_sequence, sample) = (self.number()?, self.number()?, self.number()?);
        let posts_at = self.number()?..self.number()?;
        let (sessions, visitors) = (self.fingerprints()?, self.fingerprints()?);
        let (mut streams, mut posts) = (Vec::new(), 0);
        while !self.0.is_empty() {
            let stream = self.stream(sites, posts)?;
            posts += u32::try_from(stream.count.div_ceil(FENCE_ENTRIES)).ok()?;
            streams.push(stream);
        }
        streams.sort_unstable_by_key(|of| of.stream);
        let (file, posts) = (Arc::new(file), [].into());
        Some((LaidKeys { file, first_sequence, last_sequence, sample, streams, posts, sessions, visitors }, posts_at))
    }

    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn fingerprints(&mut self) -> Option<Fingerprints> {
        let (at, count) = (self.number()?, self.number()?);
        let (posts, rest) = self.0.split_at_checked(count.div_ceil(FENCE_ENTRIES) as usize * 4)?;
        self.0 = rest;
        Some(Fingerprints { at, count, posts: posts.chunks_exact(4).map(number_32).collect() })
    }

    fn stream(&mut self, sites: &Sites, posts_at: u32) -> Option<LaidStream> {
        let (kind, length) = (self.number()?, self.number()?);
        let (website_id, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(LaidStream {
            stream: Stream::of_kind(sites.number(website_id), kind as u32 & 3),
            posts_at,
            at: self.number()?,
            count: self.number()?,
            first_created_at: self.number()?.cast_signed(),
            last_created_at: self.number()?.cast_signed(),
        })
    }
}

/// Reads a key of [`KEY_BYTES`] bytes.
fn key(bytes: &[u8], first_sequence: u64) -> Key {
    let mut created_at = [0; 8];
    created_at.copy_from_slice(&bytes[..8]);
    let row = number_32(&bytes[8..]);
    Key { created_at: i64::from_le_bytes(created_at), sequence: first_sequence + u64::from(row) }
}

fn number_32(bytes: &[u8]) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(number)
}

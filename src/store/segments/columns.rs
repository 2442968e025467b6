//! What is kept in memory about the rows of a segment that has no index yet.
//!
//! The writer adds a row's keys once its COMMIT has returned; readers take a snapshot, which copies nothing, and leave
//! the lock at once: the writer must never wait for a reader that lost the processor while it held it. Rows come in
//! chunks: a full one is sorted by stream and time and never changes again, so that a rank in it is a bisection, and a
//! question costs what it asks for and not the length of the segment.

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::keys::{Key, Sites, Stream, fingerprint};
use crate::store::format::hash::{session_hash, visitor_hash};

/// Rows of a chunk: few enough to sort between two groups, many enough that a million rows are 250 bisections.
const CHUNK_ROWS: usize = 4_096;

/// What is kept of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowKeys {
    pub(crate) stream: Stream,
    pub(crate) created_at: i64,
    /// Fingerprints of the session and the visitor: equal ones are candidates, to be looked at on the disk.
    pub(crate) session: u32,
    pub(crate) visitor: u32,
}

impl RowKeys {
    /// Of a row with these values, as they stand in its columns.
    pub(crate) fn new(
        sites: &Sites,
        (website_id, event_type): (&[u8], &[u8]),
        created_at: i64,
        (session_id, visitor_id): (&[u8], &[u8]),
    ) -> Self {
        Self {
            stream: Stream::new(sites.number(website_id), event_type),
            created_at,
            session: fingerprint(session_hash(session_id)),
            visitor: fingerprint(visitor_hash(visitor_id)),
        }
    }
}

/// The rows of one segment. The writer adds, everybody reads.
#[derive(Debug, Default)]
pub(crate) struct Columns(Mutex<ColumnsSnapshot>);

/// The rows as they were at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct ColumnsSnapshot {
    chunks: Arc<Vec<Arc<Chunk>>>,
    /// The sequence of the first row of the tail.
    tail_first: u64,
    /// The newest rows, in the order of their sequences. Copied before it changes if a reader still looks at it.
    tail: Arc<Vec<RowKeys>>,
}

/// Rows of some streams among consecutive ones.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NextRows {
    /// Their sequences, in order.
    pub(crate) sequences: Vec<u64>,
    /// The last sequence that was looked at.
    pub(crate) up_to: u64,
}

/// Consecutive rows, sorted by stream, then by time, then by sequence.
#[derive(Debug)]
pub(crate) struct Chunk {
    first_sequence: u64,
    /// Where each stream's entries begin, by stream.
    directory: Vec<(Stream, u16)>,
    created_at: Times,
    /// The row of each entry, counted from the first.
    rows: Vec<u16>,
    /// In the order of the rows.
    sessions: Vec<u32>,
    visitors: Vec<u32>,
}

/// Times of a chunk, in half the memory where they lie within 49 days, as they nearly always do.
#[derive(Debug)]
enum Times {
    Near { base: i64, offsets: Vec<u32> },
    Far(Vec<i64>),
}

impl Times {
    fn new(times: Vec<i64>) -> Self {
        let base = times.iter().copied().min().unwrap_or(0);
        match times.iter().map(|time| u32::try_from(time - base)).collect() {
            Ok(offsets) => Self::Near { base, offsets },
            Err(_) => Self::Far(times),
        }
    }

    fn get(&self, at: usize) -> i64 {
        match self {
            Self::Near { base, offsets } => base + i64::from(offsets[at]),
            Self::Far(times) => times[at],
        }
    }
}

impl Columns {
    /// Adds rows with consecutive sequences, which are higher than all before.
    pub(crate) fn add(&self, first_sequence: u64, rows: &[RowKeys]) {
        self.0.lock().add(first_sequence, rows);
    }

    /// Reads the keys of all rows of a segment.
    pub(crate) fn read(connection: &Connection, sites: &Sites) -> rusqlite::Result<Self> {
        let columns = Self::default();
        let mut select = connection
            .prepare("SELECT id, websiteId, eventType, createdAt, sessionId, visitorId FROM Event ORDER BY id")?;
        let mut rows = select.query([])?;
        let (mut first, mut waiting) = (0, Vec::with_capacity(CHUNK_ROWS));
        while let Some(row) = rows.next()? {
            let sequence = row.get::<_, i64>(0)?.unsigned_abs();
            if waiting.len() == CHUNK_ROWS || first + waiting.len() as u64 != sequence {
                columns.add(first, &waiting);
                waiting.clear();
                first = sequence;
            }
            let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_bytes()?);
            waiting.push(RowKeys::new(sites, (text(1)?, text(2)?), row.get(3)?, (text(4)?, text(5)?)));
        }
        columns.add(first, &waiting);
        Ok(columns)
    }

    pub(crate) fn snapshot(&self) -> ColumnsSnapshot {
        self.0.lock().clone()
    }

    /// The sequences that these rows have, from first to last.
    pub(crate) fn sequences(&self) -> Option<(u64, u64)> {
        let rows = self.0.lock();
        let last = rows.tail.len() as u64 + rows.tail_first;
        let first = rows.chunks.first().map_or(rows.tail_first, |chunk| chunk.first_sequence);
        (last > first).then(|| (first, last - 1))
    }
}

impl ColumnsSnapshot {
    fn add(&mut self, first_sequence: u64, rows: &[RowKeys]) {
        if self.tail_first + self.tail.len() as u64 != first_sequence {
            self.freeze_tail(first_sequence);
        }
        let mut rest = rows;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(CHUNK_ROWS - self.tail.len()));
            Arc::make_mut(&mut self.tail).extend_from_slice(now);
            rest = later;
            if self.tail.len() == CHUNK_ROWS {
                self.freeze_tail(self.tail_first + CHUNK_ROWS as u64);
            }
        }
    }

    fn freeze_tail(&mut self, next_sequence: u64) {
        if !self.tail.is_empty() {
            Arc::make_mut(&mut self.chunks).push(Arc::new(Chunk::new(self.tail_first, &self.tail)));
            self.tail = Arc::new(Vec::with_capacity(CHUNK_ROWS));
        }
        self.tail_first = next_sequence;
    }

    /// Whether any of these rows is of the website with this number.
    pub(crate) fn holds_site(&self, site: u32) -> bool {
        let in_chunk = |chunk: &Arc<Chunk>| chunk.directory.iter().any(|(stream, _)| stream.site() == site);
        self.chunks.iter().any(in_chunk) || self.tail.iter().any(|row| row.stream.site() == site)
    }

    /// The highest sequence of these rows; 0 if there are none.
    pub(crate) fn last_sequence(&self) -> u64 {
        if self.chunks.is_empty() && self.tail.is_empty() { 0 } else { self.tail_first + self.tail.len() as u64 - 1 }
    }

    /// The lowest sequence of these rows; 0 if there are none.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.chunks.first().map_or(self.tail_first, |chunk| chunk.first_sequence)
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.rows.len()).sum::<usize>() + self.tail.len()
    }

    pub(crate) fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// The stream and the key of every row, in sorted runs.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Stream, Key)> {
        let frozen = self.chunks.iter().flat_map(|chunk| {
            let streams = chunk.directory.iter().map(|(stream, _)| *stream);
            streams.flat_map(move |stream| {
                chunk.entries_of(stream).into_iter().flatten().map(move |entry| (stream, chunk.key(entry)))
            })
        });
        let tail = (self.tail_first..).zip(&*self.tail);
        frozen.chain(tail.map(|(sequence, row)| (row.stream, Key { created_at: row.created_at, sequence })))
    }

    /// The sequence of every row, and the fingerprints of its session and its visitor.
    pub(crate) fn fingerprints(&self) -> impl Iterator<Item = (u64, (u32, u32))> {
        let frozen = self.chunks.iter().flat_map(|chunk| {
            (chunk.first_sequence..).zip(chunk.sessions.iter().copied().zip(chunk.visitors.iter().copied()))
        });
        frozen.chain((self.tail_first..).zip(self.tail.iter().map(|row| (row.session, row.visitor))))
    }

    /// The entries of a stream in the tail, the oldest first.
    pub(crate) fn tail_of(&self, stream: Stream) -> Vec<Key> {
        let mut keys: Vec<Key> = (self.tail_first..)
            .zip(&*self.tail)
            .filter(|(_, row)| row.stream == stream)
            .map(|(sequence, row)| Key { created_at: row.created_at, sequence })
            .collect();
        keys.sort_unstable();
        keys
    }

    /// The rows of these streams among the next ones after a sequence, of which there are at most those of a chunk;
    /// `None` if there are no rows after it.
    pub(crate) fn next_rows(&self, after: u64, streams: &[Stream]) -> Option<NextRows> {
        let at = self.chunks.partition_point(|chunk| chunk.last_sequence() <= after);
        let (mut sequences, up_to) = match self.chunks.get(at) {
            Some(chunk) => (chunk.sequences_of(streams), chunk.last_sequence()),
            None => {
                let up_to = self.last_sequence();
                if up_to <= after {
                    return None;
                }
                // Only those after it are looked at: whoever follows what comes in asks for a few of many.
                let passed = (after + 1).saturating_sub(self.tail_first) as usize;
                let rows = (self.tail_first..).zip(&*self.tail).skip(passed);
                let of_streams = rows.filter(|(_, row)| streams.contains(&row.stream));
                (of_streams.map(|(sequence, _)| sequence).collect(), up_to)
            }
        };
        sequences.retain(|sequence| *sequence > after);
        sequences.sort_unstable();
        Some(NextRows { sequences, up_to })
    }

    /// The sequences of the rows that may be of this session and this visitor.
    pub(crate) fn candidates(&self, session: Option<u32>, visitor: Option<u32>) -> Vec<u64> {
        let matches = |row_session: u32, row_visitor: u32| {
            session.is_none_or(|wanted| wanted == row_session) && visitor.is_none_or(|wanted| wanted == row_visitor)
        };
        self.fingerprints()
            .filter(|&(_, (session, visitor))| matches(session, visitor))
            .map(|(sequence, _)| sequence)
            .collect()
    }
}

impl Chunk {
    fn new(first_sequence: u64, tail: &[RowKeys]) -> Self {
        let mut rows: Vec<u16> = (0..=u16::MAX).take(tail.len()).collect();
        // Stable, and rows come nearly in the order of time: a run is recognised, not sorted again.
        rows.sort_by_key(|&row| (tail[usize::from(row)].stream, tail[usize::from(row)].created_at));
        let mut directory: Vec<(Stream, u16)> = Vec::new();
        for (at, &row) in (0..=u16::MAX).zip(&rows) {
            let stream = tail[usize::from(row)].stream;
            if directory.last().is_none_or(|(last, _)| *last != stream) {
                directory.push((stream, at));
            }
        }
        Self {
            first_sequence,
            directory,
            created_at: Times::new(rows.iter().map(|&row| tail[usize::from(row)].created_at).collect()),
            rows,
            sessions: tail.iter().map(|row| row.session).collect(),
            visitors: tail.iter().map(|row| row.visitor).collect(),
        }
    }

    /// The entries of a stream, the oldest first; `None` if it has none here.
    pub(crate) fn entries_of(&self, stream: Stream) -> Option<Range<usize>> {
        let at = self.directory.binary_search_by_key(&stream, |(stream, _)| *stream).ok()?;
        let end = self.directory.get(at + 1).map_or(self.rows.len(), |(_, start)| usize::from(*start));
        Some(usize::from(self.directory[at].1)..end)
    }

    fn last_sequence(&self) -> u64 {
        self.first_sequence + self.rows.len() as u64 - 1
    }

    /// The sequences of the rows of these streams, in no order.
    fn sequences_of(&self, streams: &[Stream]) -> Vec<u64> {
        let entries = streams.iter().filter_map(|stream| self.entries_of(*stream)).flatten();
        entries.map(|entry| self.first_sequence + u64::from(self.rows[entry])).collect()
    }

    /// How many of the entries are lower than or equal to a key, the oldest first.
    pub(crate) fn count_up_to(&self, entries: &Range<usize>, key: Key) -> usize {
        let (mut low, mut high) = (entries.start, entries.end);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) > key { high = middle } else { low = middle + 1 }
        }
        low - entries.start
    }

    /// The key of one entry.
    pub(crate) fn key(&self, entry: usize) -> Key {
        Key { created_at: self.created_at.get(entry), sequence: self.first_sequence + u64::from(self.rows[entry]) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(stream: u32, created_at: i64) -> RowKeys {
        RowKeys { stream: Stream(stream), created_at, session: stream, visitor: 7 }
    }

    proptest! {
        #[test]
        fn every_row_is_an_entry_of_its_stream_in_order(
            groups in prop::collection::vec(
                (0..3_u64, prop::collection::vec((0..4_u32, 0..10_000_000_000_i64), 1..3_000)),
                1..6
            )
        ) {
            let (columns, mut model, mut next) = (Columns::default(), Vec::new(), 1);
            for (gap, group) in groups {
                next += gap;
                let rows: Vec<RowKeys> = group.iter().map(|&(stream, time)| row(stream, time)).collect();
                columns.add(next, &rows);
                for (sequence, row) in (next..).zip(&rows) {
                    model.push((row.stream, Key { created_at: row.created_at, sequence }));
                }
                next += rows.len() as u64;
            }
            model.sort_unstable();
            let snapshot = columns.snapshot();
            let mut found = Vec::new();
            for stream in (0..4).map(Stream) {
                for chunk in snapshot.chunks() {
                    let keys: Vec<Key> = chunk.entries_of(stream).unwrap_or_default().map(|at| chunk.key(at)).collect();
                    prop_assert!(keys.is_sorted());
                    found.extend(keys.into_iter().map(|key| (stream, key)));
                }
                found.extend(snapshot.tail_of(stream).into_iter().map(|key| (stream, key)));
                let of_stream = model.iter().filter(|(of, _)| *of == stream).map(|(_, key)| key.sequence);
                let mut of_stream: Vec<u64> = of_stream.collect();
                of_stream.sort_unstable();
                prop_assert_eq!(snapshot.candidates(Some(stream.0), Some(7)), of_stream);
            }
            found.sort_unstable();
            let sequences = (model.iter().map(|(_, key)| key.sequence).min(), next - 1);
            prop_assert_eq!(columns.sequences(), Some((sequences.0.unwrap(), sequences.1)));
            prop_assert_eq!(&found, &model);
            prop_assert!(snapshot.candidates(None, Some(8)).is_empty());
            for streams in [&[Stream(0)][..], &[Stream(1), Stream(3)], &[Stream(9)]] {
                let mut of_streams: Vec<u64> =
                    model.iter().filter(|(of, _)| streams.contains(of)).map(|(_, key)| key.sequence).collect();
                of_streams.sort_unstable();
                let (mut walked, mut after) = (Vec::new(), 0);
                while let Some(rows) = snapshot.next_rows(after, streams) {
                    prop_assert!(rows.up_to > after);
                    walked.extend(rows.sequences);
                    after = rows.up_to;
                }
                prop_assert_eq!(after, next - 1);
                prop_assert_eq!(&walked, &of_streams);
                // From the middle of wherever it is.
                let after = next / 2;
                let first = snapshot.next_rows(after, streams).map_or(Vec::new(), |rows| rows.sequences);
                prop_assert!(first.iter().eq(of_streams.iter().filter(|of| **of > after).take(first.len())));
            }
        }
    }
}

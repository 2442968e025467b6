//! Listings by website and type.
//!
//! Client timestamps make segments overlap in time, so an offset cannot skip whole segments. Instead every sorted
//! source (a stream of a sealed segment, a stream of a chunk in memory) can say how many of its entries are newer
//! than a key; the key that stands at an offset is then found by bisection over the sum of those ranks, and the
//! page is merged from there.

use std::{cell::RefCell, cmp::Reverse, ops::Range, sync::Arc};

use rusqlite::params;

use super::{EventFilter, Page, gather::READ_THROUGH, key_of_row, sql_integer, stream, types};
use crate::{
    event::EventType,
    metrics::ReadRefused,
    store::{
        columns::Chunk,
        keys::Key,
        read::ReadError,
        segments::{Content, Segment},
        snapshot::Snapshot,
        summary::{FENCE_ENTRIES, StreamSummary, Summary},
    },
};

impl Snapshot<'_> {
    /// The page of a listing by website and type.
    pub(super) fn merge(&self, filter: &EventFilter, site: u32, page: Page) -> Result<(u64, Vec<Key>), ReadError> {
        let mut sources = self.sources(filter, site)?;
        let total = sources.iter().map(Source::count).sum();
        if page.offset >= total {
            return Ok((total, Vec::new()));
        }
        let from = if page.offset == 0 { Key::MAX } else { self.key_at(&sources, filter, page.offset)? };
        sources.sort_unstable_by_key(|source| Reverse(source.newest_created_at()));
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let (mut keys, mut floor): (Vec<Key>, _) = (Vec::new(), Key::MIN);
        for source in &sources {
            // The page's oldest is newer than all that this source and the ones after it have.
            if source.newest_created_at() < floor.created_at {
                break;
            }
            if source.oldest_created_at() <= from.created_at {
                self.between(source, filter, (floor, from), limit, &mut keys)?;
                keys.sort_unstable_by_key(|key| Reverse(*key));
                keys.truncate(limit);
                floor = keys.last().filter(|_| keys.len() == limit).copied().unwrap_or(Key::MIN);
            }
        }
        Ok((total, keys))
    }

    /// Every sorted run of keys that a listing is merged from.
    fn sources(&self, filter: &EventFilter, site: u32) -> Result<Vec<Source<'_>>, ReadError> {
        let mut sources = Vec::new();
        for segment in self.view() {
            match &segment.content {
                Content::Sealed(summary) => {
                    for event_type in types(filter) {
                        if let Some(of) = summary.of(stream(site, event_type)) {
                            sources.push(Source::Index {
                                segment,
                                summary,
                                of,
                                event_type,
                                fenced: RefCell::default(),
                            });
                        }
                    }
                }
                Content::Open(open) => {
                    let Some(columns) = open.columns() else {
                        sources.extend(self.read_through(segment, filter)?);
                        continue;
                    };
                    let columns = columns.snapshot();
                    for event_type in types(filter) {
                        let stream = stream(site, event_type);
                        let in_chunk = |chunk: &Arc<Chunk>| {
                            let entries = chunk.entries_of(stream)?;
                            Some(Source::Chunk { chunk: Arc::clone(chunk), entries })
                        };
                        sources.extend(columns.chunks().iter().filter_map(in_chunk));
                        sources.extend(Source::keys(columns.tail_of(stream)));
                    }
                }
            }
        }
        Ok(sources)
    }

    /// The keys of a segment whose columns were given up, because too many unsealed ones wait.
    fn read_through(&self, segment: &Arc<Segment>, filter: &EventFilter) -> Result<Option<Source<'_>>, ReadError> {
        let (mut keys, mut count) = (Vec::new(), 0);
        self.look_up(segment, READ_THROUGH, filter, |key| {
            count += 1;
            if count <= self.keys_max {
                keys.push(key);
            }
        })?;
        if count > self.keys_max {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
        keys.sort_unstable();
        Ok(Source::keys(keys))
    }

    /// The key that has exactly `offset` others before it.
    fn key_at(&self, sources: &[Source<'_>], filter: &EventFilter, offset: u64) -> Result<Key, ReadError> {
        let oldest = sources.iter().map(Source::oldest_created_at).min().unwrap_or(0);
        let newest = sources.iter().map(Source::newest_created_at).max().unwrap_or(0);
        // The latest time from which on there are more than `offset` events, counting its own.
        let created_at = bisect(oldest, newest, |time| {
            self.more_than(sources, filter, Key { created_at: time, sequence: 0 }, offset)
        })?;
        // Among the events of this one time, the same by arrival.
        let last = self.view().iter().rev().find_map(|segment| segment.sequences()).map_or(0, |(_, last)| last);
        let sequence = bisect(0, last.cast_signed(), |sequence| {
            let below = sequence.cast_unsigned().saturating_sub(1);
            self.more_than(sources, filter, Key { created_at, sequence: below }, offset)
        })?;
        Ok(Key { created_at, sequence: sequence.cast_unsigned() })
    }

    /// Whether more than `count` entries are newer than the key.
    fn more_than(&self, sources: &[Source<'_>], filter: &EventFilter, key: Key, count: u64) -> Result<bool, ReadError> {
        let (mut least, mut most) = (0, 0);
        let mut open = Vec::new();
        for source in sources {
            let newer = self.newer_bounds(source, filter, key)?;
            (least, most) = (least + newer.start, most + newer.end);
            if newer.start < newer.end {
                open.push((source, newer));
            }
        }
        // Fence posts nearly always decide; only close to the place that is looked for an index is walked.
        for (source, newer) in open {
            if least > count || most <= count {
                break;
            }
            let exact = self.newer_exact(source, filter, key)?;
            (least, most) = (least - newer.start + exact, most - newer.end + exact);
        }
        Ok(least > count)
    }

    /// Bounds of how many entries of a source are newer than the key.
    fn newer_bounds(&self, source: &Source<'_>, filter: &EventFilter, key: Key) -> Result<Range<u64>, ReadError> {
        let count = source.count();
        if source.oldest_created_at() > key.created_at {
            return Ok(count..count);
        }
        if source.newest_created_at() < key.created_at {
            return Ok(0..0);
        }
        let exact = match source {
            Source::Chunk { chunk, entries } => (entries.len() - chunk.count_up_to(entries, key)) as u64,
            Source::Tail(keys) => (keys.len() - keys.partition_point(|entry| *entry <= key)) as u64,
            Source::Index { segment, summary, of, event_type, .. } => {
                let posts = self.fence_posts(segment, summary, *of, filter, *event_type)?;
                let bounds = summary.rank_bounds(*of, &posts, key);
                return Ok(count - bounds.most..count - bounds.least);
            }
        };
        Ok(exact..exact)
    }

    /// How many entries of a source with an index are newer than the key.
    fn newer_exact(&self, source: &Source<'_>, filter: &EventFilter, key: Key) -> Result<u64, ReadError> {
        let Source::Index { segment, summary, of, event_type, fenced } = source else {
            return Ok(self.newer_bounds(source, filter, key)?.start);
        };
        let posts = self.fence_posts(segment, summary, *of, filter, *event_type)?;
        let Some((post, before)) = summary.rank_bounds(*of, &posts, key).walk_from else { return Ok(of.count) };
        // A bisection ends behind one post: what is there is read once.
        let mut fenced = fenced.borrow_mut();
        if fenced.first() != Some(&post) {
            fenced.clear();
            self.walk(segment, FROM_KEY_UP, (filter, *event_type, post), FENCE_ENTRIES, |key| {
                fenced.push(key);
                true
            })?;
        }
        Ok(of.count - before - fenced.partition_point(|entry| *entry <= key) as u64)
    }

    fn fence_posts(
        &self,
        segment: &Arc<Segment>,
        summary: &Summary,
        of: StreamSummary,
        filter: &EventFilter,
        event_type: EventType,
    ) -> Result<Arc<[Key]>, ReadError> {
        match summary.known_fence_posts(of) {
            Some(posts) => Ok(posts),
            None => self.on(segment, |connection| {
                Ok(summary.read_fence_posts(of, connection, &filter.website_id, event_type.as_str())?)
            }),
        }
    }

    /// Adds the keys of a source from `from` down to, and without, `floor`: the newest first, at most `limit`.
    fn between(
        &self,
        source: &Source<'_>,
        filter: &EventFilter,
        (floor, from): (Key, Key),
        limit: usize,
        keys: &mut Vec<Key>,
    ) -> Result<(), ReadError> {
        match source {
            Source::Chunk { chunk, entries } => {
                let older = entries.start..entries.start + chunk.count_up_to(entries, from);
                let older = older.rev().map(|entry| chunk.key(entry));
                keys.extend(older.take_while(|key| *key > floor).take(limit));
            }
            Source::Tail(tail) => {
                let older = tail[..tail.partition_point(|key| *key <= from)].iter().rev().copied();
                keys.extend(older.take_while(|key| *key > floor).take(limit));
            }
            Source::Index { segment, event_type, .. } => {
                self.walk(segment, FROM_KEY_DOWN, (filter, *event_type, from), limit as u64, |key| {
                    if key > floor {
                        keys.push(key);
                    }
                    key > floor
                })?;
            }
        }
        Ok(())
    }

    /// Walks the index by type from a key on, for as long as `more` wants.
    fn walk(
        &self,
        segment: &Arc<Segment>,
        sql: &str,
        (filter, event_type, from): (&EventFilter, EventType, Key),
        limit: u64,
        mut more: impl FnMut(Key) -> bool,
    ) -> Result<(), ReadError> {
        self.on(segment, |connection| {
            let mut select = connection.prepare_cached(sql)?;
            let of = (&*filter.website_id, event_type.as_str());
            let mut rows =
                select.query(params![of.0, of.1, from.created_at, sql_integer(from.sequence), limit as i64])?;
            while let Some(row) = rows.next()? {
                if !more(key_of_row(row)?) {
                    break;
                }
            }
            Ok(())
        })
    }
}

// Entries of the index by type from a key on. `COLLATE` changes no comparison here: SQLite does not take the second of
// a row value into the index's range when it has no collation, and would walk through all rows of one millisecond.
pub(in crate::store) const FROM_KEY_UP: &str = "SELECT createdAt, id FROM Event INDEXED BY EventByType
     WHERE websiteId = ?1 AND eventType = ?2 AND (createdAt, id) >= (?3, ?4 COLLATE BINARY)
     ORDER BY createdAt, id LIMIT ?5";
pub(in crate::store) const FROM_KEY_DOWN: &str = "SELECT createdAt, id FROM Event INDEXED BY EventByType
     WHERE websiteId = ?1 AND eventType = ?2 AND (createdAt, id) <= (?3, ?4 COLLATE BINARY)
     ORDER BY createdAt DESC, id DESC LIMIT ?5";

/// Keys that are sorted, or that an index has sorted.
enum Source<'a> {
    Chunk {
        chunk: Arc<Chunk>,
        entries: Range<usize>,
    },
    Tail(Vec<Key>),
    Index {
        segment: &'a Arc<Segment>,
        summary: &'a Summary,
        of: StreamSummary,
        event_type: EventType,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
}

impl Source<'_> {
    /// Sorted keys, the oldest first; nothing if there are none.
    fn keys(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self::Tail(keys))
    }

    fn count(&self) -> u64 {
        match self {
            Self::Chunk { entries, .. } => entries.len() as u64,
            Self::Tail(keys) => keys.len() as u64,
            Self::Index { of, .. } => of.count,
        }
    }

    fn oldest_created_at(&self) -> i64 {
        match self {
            Self::Chunk { chunk, entries } => chunk.key(entries.start).created_at,
            Self::Tail(keys) => keys[0].created_at,
            Self::Index { of, .. } => of.first_created_at,
        }
    }

    fn newest_created_at(&self) -> i64 {
        match self {
            Self::Chunk { chunk, entries } => chunk.key(entries.end - 1).created_at,
            Self::Tail(keys) => keys[keys.len() - 1].created_at,
            Self::Index { of, .. } => of.last_created_at,
        }
    }
}

/// The highest number from `low` to `high` for which `holds`, which holds up to somewhere and not after, and for `low`.
fn bisect(
    mut low: i64,
    mut high: i64,
    mut holds: impl FnMut(i64) -> Result<bool, ReadError>,
) -> Result<i64, ReadError> {
    while low < high {
        let middle = low + (high - low + 1) / 2;
        if holds(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

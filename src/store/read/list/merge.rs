//! Listings by website and type.
//!
//! Client timestamps make segments overlap in time, so an offset cannot skip whole segments. Instead every sorted
//! source (a stream of a sealed segment or of keys that were laid down, a stream of a chunk in memory) can say how many
//! of its entries are newer than a key; the key that stands at an offset is then found by bisection over the sum of
//! those ranks, and the page is merged from there.

use std::{cell::RefCell, cmp::Reverse, ops::Range, sync::Arc};

use rusqlite::params;

use super::page::{EventFilter, Wanted, key_of_row, sql_integer, stream, types};
use crate::{
    event::EventType,
    store::{
        error::ReadError,
        format::blocks::BlockError,
        read::snapshot::Snapshot,
        segments::{
            Chunk, Content, FENCE_ENTRIES, Hidden, HiddenKeys, Key, KeysSnapshot, LaidKeys, LaidRun, RankBounds,
            Segment, StreamSummary, Summary,
        },
    },
};

impl Snapshot<'_> {
    /// The keys of a listing by website and type, and the total.
    pub(super) fn merge(&self, filter: &EventFilter, site: u32, wanted: Wanted) -> Result<(u64, Vec<Key>), ReadError> {
        let mut sources = self.sources(filter, site)?;
        // The listing lies between two keys: the lower one is not in it.
        let (lowest, highest) = bounds(filter);
        let newer = self.newer(&sources, filter, highest)?;
        let total = self.newer(&sources, filter, lowest)? - newer;
        if wanted.offset() >= total {
            return Ok((total, Vec::new()));
        }
        let from = match wanted.offset() {
            0 => highest.min(wanted.highest_key()),
            offset => self.key_at(&sources, filter, newer + offset)?,
        };
        sources.sort_unstable_by_key(|source| Reverse(source.newest_created_at()));
        let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
        let (mut keys, mut floor): (Vec<Key>, _) = (Vec::new(), lowest);
        for source in sources.iter().filter(|source| source.first_sequence <= wanted.high_water_mark) {
            // The page is full of events that are newer than all in this source and those after it.
            if source.newest_created_at() < floor.created_at {
                break;
            }
            if source.oldest_created_at() <= from.created_at {
                let failed = RefCell::new(None);
                let is_hidden =
                    |key| source.is_hidden(key).unwrap_or_else(|error| failed.replace(Some(error)).is_none());
                let is_wanted = |key: Key| key.sequence <= wanted.high_water_mark && !is_hidden(key);
                self.between(source, filter, (floor, from), limit, is_wanted, &mut keys)?;
                if let Some(error) = failed.into_inner() {
                    return Err(error.into());
                }
                keys.sort_unstable_by_key(|key| Reverse(*key));
                keys.truncate(limit);
                floor = keys.last().filter(|_| keys.len() == limit).copied().unwrap_or(lowest);
            }
        }
        Ok((total, keys))
    }

    /// Every sorted run of keys that a listing is merged from.
    fn sources(&self, filter: &EventFilter, site: u32) -> Result<Vec<Source<'_>>, ReadError> {
        let mut sources = Vec::new();
        for segment in self.segments() {
            let first_sequence = segment.sequences().map_or(0, |(first, _)| first);
            let hidden = self.hidden(segment.number);
            let source = |run| Source { run, hidden, first_sequence };
            for event_type in types(filter) {
                let stream = stream(site, event_type);
                if let Content::Sealed(summary) = &segment.content {
                    let index = |of| Run::Index { segment, summary, of, event_type, fenced: RefCell::default() };
                    sources.extend(summary.of(stream).map(index).map(source));
                }
                match self.keys(segment) {
                    Some(KeysSnapshot::InMemory(columns)) => {
                        let in_chunk = |chunk: &Arc<Chunk>| {
                            let entries = chunk.entries_of(stream)?;
                            Some(Run::Chunk { chunk: Arc::clone(chunk), entries })
                        };
                        sources.extend(columns.chunks().iter().filter_map(in_chunk).map(source));
                        sources.extend(Run::keys(columns.tail_of(stream)).map(source));
                    }
                    Some(KeysSnapshot::Laid(keys)) => {
                        let laid = |run| Run::Laid { segment, keys, run, fenced: RefCell::default() };
                        sources.extend(keys.run(stream).map(laid).map(source));
                    }
                    None => {}
                }
                let hidden = hidden.into_iter().flat_map(Hidden::streams);
                let hidden = hidden.filter(|(of, _)| *of == stream);
                let hidden = hidden.map(|(_, keys)| match keys {
                    HiddenKeys::InMemory(keys) => Run::Hidden(keys),
                    HiddenKeys::Laid(run) => Run::LaidHidden { run, fenced: RefCell::default() },
                });
                sources.extend(hidden.filter(|run| !matches!(run, Run::Hidden([]))).map(source));
            }
        }
        Ok(sources)
    }

    /// The key that has exactly `offset` others before it.
    fn key_at(&self, sources: &[Source<'_>], filter: &EventFilter, offset: u64) -> Result<Key, ReadError> {
        let oldest = sources.iter().map(Source::oldest_created_at).min().unwrap_or(0);
        let newest = sources.iter().map(Source::newest_created_at).max().unwrap_or(0);
        // The latest time from which on there are more than `offset` events, counting its own.
        let created_at = bisect(oldest, newest, |time| {
            self.more_than(sources, filter, Key { created_at: time, sequence: 0 }, offset)
        })?;
        // Among the events of this one time, the place by order of arrival.
        let sequence = bisect(0, sql_integer(self.high_water_mark()), |sequence| {
            let below = sequence.cast_unsigned().saturating_sub(1);
            self.more_than(sources, filter, Key { created_at, sequence: below }, offset)
        })?;
        Ok(Key { created_at, sequence: sequence.cast_unsigned() })
    }

    /// How many events are newer than the key.
    fn newer(&self, sources: &[Source<'_>], filter: &EventFilter, key: Key) -> Result<u64, ReadError> {
        let mut newer = 0;
        for source in sources {
            newer += source.sign() * self.newer_exact(source, filter, key)?.cast_signed();
        }
        Ok(newer.cast_unsigned())
    }

    /// Whether more than `count` events are newer than the key.
    fn more_than(&self, sources: &[Source<'_>], filter: &EventFilter, key: Key, count: u64) -> Result<bool, ReadError> {
        let count = count.cast_signed();
        let (mut least, mut most) = (0, 0);
        let mut open = Vec::new();
        for source in sources {
            let newer = self.newer_bounds(source, filter, key)?;
            let (lowest, highest) = source.counted(&newer);
            least += lowest;
            most += highest;
            if newer.start < newer.end {
                open.push((source, newer));
            }
        }
        // Fence posts nearly always decide; an index is walked only close to the place that is looked for.
        for (source, newer) in open {
            if least > count || most <= count {
                break;
            }
            let exact = source.sign() * self.newer_exact(source, filter, key)?.cast_signed();
            let (lowest, highest) = source.counted(&newer);
            least += exact - lowest;
            most += exact - highest;
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
        let newer_in = |keys: &[Key]| (keys.len() - keys.partition_point(|entry| *entry <= key)) as u64;
        let exact = match &source.run {
            Run::Chunk { chunk, entries } => (entries.len() - chunk.count_up_to(entries, key)) as u64,
            Run::Keys(keys) => newer_in(keys),
            Run::Hidden(keys) => newer_in(keys),
            Run::Index { .. } | Run::Laid { .. } | Run::LaidHidden { .. } => {
                let bounds = self.rank_bounds(source, filter, key)?;
                return Ok(count - bounds.most..count - bounds.least);
            }
        };
        Ok(exact..exact)
    }

    /// What fence posts say of the rank of a key in a source that has some.
    fn rank_bounds(&self, source: &Source<'_>, filter: &EventFilter, key: Key) -> Result<RankBounds, ReadError> {
        match &source.run {
            Run::Index { segment, summary, of, event_type, .. } => {
                let posts = self.fence_posts(segment, summary, *of, filter, *event_type)?;
                Ok(RankBounds::new(&posts, of.count, key))
            }
            Run::Laid { run, .. } => Ok(run.rank_bounds(key)),
            Run::LaidHidden { run, .. } => Ok(run.rank_bounds(key)),
            _ => Ok(RankBounds::new(&[], source.count(), key)),
        }
    }

    /// How many entries of a source with an index are newer than the key.
    fn newer_exact(&self, source: &Source<'_>, filter: &EventFilter, key: Key) -> Result<u64, ReadError> {
        let bounds = self.newer_bounds(source, filter, key)?;
        let (Run::Index { fenced, .. } | Run::Laid { fenced, .. } | Run::LaidHidden { fenced, .. }) = &source.run
        else {
            return Ok(bounds.start);
        };
        if bounds.start == bounds.end {
            return Ok(bounds.start);
        }
        let count = source.count();
        let Some((post, before)) = self.rank_bounds(source, filter, key)?.walk_from else { return Ok(count) };
        // The last steps of a bisection all fall behind one post: the entries there are read once.
        let mut fenced = fenced.borrow_mut();
        if fenced.first() != Some(&post) {
            fenced.clear();
            match &source.run {
                Run::Laid { segment, keys, run, .. } => {
                    let range = before..before + FENCE_ENTRIES;
                    *fenced = self.read_laid(segment, keys, run.read(range))?;
                }
                Run::LaidHidden { run, .. } => *fenced = run.read(before..before + FENCE_ENTRIES)?,
                Run::Index { segment, event_type, .. } => {
                    self.walk(segment, FROM_KEY_UP, (filter, *event_type, post), FENCE_ENTRIES, |key| {
                        fenced.push(key);
                        true
                    })?;
                }
                _ => {}
            }
        }
        Ok(count - before - fenced.partition_point(|entry| *entry <= key) as u64)
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

    /// Adds the wanted keys of a source, the newest first, from `from` down to but not including `floor`; at most
    /// `limit`.
    fn between(
        &self,
        source: &Source<'_>,
        filter: &EventFilter,
        (floor, from): (Key, Key),
        limit: usize,
        is_wanted: impl Fn(Key) -> bool,
        keys: &mut Vec<Key>,
    ) -> Result<(), ReadError> {
        match &source.run {
            Run::Chunk { chunk, entries } => {
                let older = entries.start..entries.start + chunk.count_up_to(entries, from);
                let older = older.rev().map(|entry| chunk.key(entry)).take_while(|key| *key > floor);
                keys.extend(older.filter(|key| is_wanted(*key)).take(limit));
            }
            Run::Keys(run) => {
                let older = run[..run.partition_point(|key| *key <= from)].iter().rev().copied();
                keys.extend(older.take_while(|key| *key > floor).filter(|key| is_wanted(*key)).take(limit));
            }
            Run::Index { segment, event_type, .. } => {
                let enough = keys.len() + limit;
                self.walk(segment, FROM_KEY_DOWN, (filter, *event_type, from), u64::MAX, |key| {
                    if key > floor && is_wanted(key) {
                        keys.push(key);
                    }
                    key > floor && keys.len() < enough
                })?;
            }
            Run::Laid { segment, keys: laid, run, .. } => {
                let enough = keys.len() + limit;
                let mut end = run.rank_bounds(from).most;
                while end > 0 && keys.len() < enough {
                    let begin = end.saturating_sub(FENCE_ENTRIES);
                    let older = self.read_laid(segment, laid, run.read(begin..end))?;
                    let is_last = older.first().is_none_or(|oldest| *oldest <= floor);
                    let older = older.into_iter().rev().filter(|key| *key <= from && *key > floor && is_wanted(*key));
                    keys.extend(older.take(enough - keys.len()));
                    end = if is_last { 0 } else { begin };
                }
            }
            Run::Hidden(_) | Run::LaidHidden { .. } => {}
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
                select.query(params![of.0, of.1, from.created_at, sql_integer(from.sequence), sql_integer(limit)])?;
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
pub(crate) const FROM_KEY_UP: &str = "SELECT createdAt, id FROM Event INDEXED BY EventByType
     WHERE websiteId = ?1 AND eventType = ?2 AND (createdAt, id) >= (?3, ?4 COLLATE BINARY)
     ORDER BY createdAt, id LIMIT ?5";
pub(crate) const FROM_KEY_DOWN: &str = "SELECT createdAt, id FROM Event INDEXED BY EventByType
     WHERE websiteId = ?1 AND eventType = ?2 AND (createdAt, id) <= (?3, ?4 COLLATE BINARY)
     ORDER BY createdAt DESC, id DESC LIMIT ?5";

/// Keys of one stream in one segment.
struct Source<'a> {
    run: Run<'a>,
    /// What is hidden in the segment.
    hidden: Option<&'a Hidden>,
    /// The first sequence of the segment.
    first_sequence: u64,
}

/// Keys that are sorted, or that an index has sorted.
enum Run<'a> {
    Chunk {
        chunk: Arc<Chunk>,
        entries: Range<usize>,
    },
    Keys(Vec<Key>),
    Index {
        segment: &'a Arc<Segment>,
        summary: &'a Summary,
        of: StreamSummary,
        event_type: EventType,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
    Laid {
        segment: &'a Arc<Segment>,
        keys: &'a Arc<LaidKeys>,
        run: LaidRun,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
    /// Keys that other runs hold too and that no answer may show.
    Hidden(&'a [Key]),
    /// The same, on the disk.
    LaidHidden {
        run: &'a LaidRun,
        /// The entries behind the fence post that was looked behind last.
        fenced: RefCell<Vec<Key>>,
    },
}

impl Run<'_> {
    /// Sorted keys, the oldest first; nothing if there are none.
    fn keys(keys: Vec<Key>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self::Keys(keys))
    }
}

impl Source<'_> {
    /// Whether its keys count for events or against them.
    fn sign(&self) -> i64 {
        if matches!(self.run, Run::Hidden(_) | Run::LaidHidden { .. }) { -1 } else { 1 }
    }

    /// The least and the most that so many of its keys count.
    fn counted(&self, keys: &Range<u64>) -> (i64, i64) {
        let (fewest, most) = (self.sign() * keys.start.cast_signed(), self.sign() * keys.end.cast_signed());
        (fewest.min(most), fewest.max(most))
    }

    fn is_hidden(&self, key: Key) -> Result<bool, BlockError> {
        self.hidden.map_or(Ok(false), |hidden| hidden.holds(key))
    }

    fn count(&self) -> u64 {
        match &self.run {
            Run::Chunk { entries, .. } => entries.len() as u64,
            Run::Keys(keys) => keys.len() as u64,
            Run::Hidden(keys) => keys.len() as u64,
            Run::Index { of, .. } => of.count,
            Run::Laid { run, .. } => run.count,
            Run::LaidHidden { run, .. } => run.count,
        }
    }

    fn oldest_created_at(&self) -> i64 {
        match &self.run {
            Run::Chunk { chunk, entries } => chunk.key(entries.start).created_at,
            Run::Keys(keys) => keys[0].created_at,
            Run::Hidden(keys) => keys[0].created_at,
            Run::Index { of, .. } => of.first_created_at,
            Run::Laid { run, .. } => run.first_created_at,
            Run::LaidHidden { run, .. } => run.first_created_at,
        }
    }

    fn newest_created_at(&self) -> i64 {
        match &self.run {
            Run::Chunk { chunk, entries } => chunk.key(entries.end - 1).created_at,
            Run::Keys(keys) => keys[keys.len() - 1].created_at,
            Run::Hidden(keys) => keys[keys.len() - 1].created_at,
            Run::Index { of, .. } => of.last_created_at,
            Run::Laid { run, .. } => run.last_created_at,
            Run::LaidHidden { run, .. } => run.last_created_at,
        }
    }
}

/// The keys that a filter's times lie between: those that are higher than the first, up to and with the second.
fn bounds(filter: &EventFilter) -> (Key, Key) {
    let before = |time: i64| Key { created_at: time.saturating_sub(1), sequence: u64::MAX };
    let lowest = if filter.from == i64::MIN { Key::MIN } else { before(filter.from) };
    (lowest, if filter.to == i64::MAX { Key::MAX } else { before(filter.to) })
}

/// The highest number from `low` to `high` that `holds` accepts; it accepts `low`, and nothing above what it refuses.
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

//! Listings by website and type.
//!
//! Client timestamps make segments overlap in time, so an offset cannot skip whole segments. Instead every sorted
//! source (a stream of a sealed segment or of keys that were laid down, a stream of a chunk in memory) can say how many
//! of its entries are newer than a key; the key that stands at an offset is then found by bisection over the sum of
//! those ranks, and the page is merged from there. Keys that are hidden are sources too, which count against the
//! others: a run of very many of them is passed by bisection as well.

use std::{cell::RefCell, cmp::Reverse, ops::Range, sync::Arc};

use rusqlite::params;

use super::{
    page::{EventFilter, Wanted, key_of_row, sql_integer, stream, types},
    source::{Run, Source, Taking},
};
use crate::{
    event::EventType,
    store::{
        error::ReadError,
        read::snapshot::Snapshot,
        segments::{
            Chunk, Content, FENCE_ENTRIES, Hidden, HiddenKeys, HiddenOf, Key, KeysSnapshot, RankBounds, Segment,
            StreamSummary, Summary, UnreadableList,
        },
    },
};

impl Snapshot<'_> {
    /// The keys of a listing by website and type, and the total.
    pub(super) fn merge(&self, filter: &EventFilter, site: u32, wanted: Wanted) -> Result<(u64, Vec<Key>), ReadError> {
        let sources = self.sources(filter, site)?;
        let mut sources: Vec<_> = sources.iter().collect();
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
                let hidden = self.hidden(source.segment).map_or_else(HiddenOf::default, |here| here.of(source.stream));
                let taking = Taking::new(keys, limit, (floor, wanted.high_water_mark), hidden);
                keys = self.take_from(source, &sources, filter, from, taking)?;
                keys.sort_unstable_by_key(|key| Reverse(*key));
                keys.truncate(limit);
                floor = keys.last().filter(|_| keys.len() == limit).copied().unwrap_or(lowest);
            }
        }
        Ok((total, keys))
    }

    /// Takes the keys of a source that a page may want, and passes by those that are hidden. Returns all that were
    /// taken.
    fn take_from(
        &self,
        source: &Source<'_>,
        sources: &[&Source<'_>],
        filter: &EventFilter,
        mut from: Key,
        mut taking: Taking<'_>,
    ) -> Result<Vec<Key>, ReadError> {
        loop {
            self.between(source, filter, from, &mut taking)?;
            if let Some(unreadable) = taking.failed {
                return Err(self.remake_list(source.segment, &unreadable));
            }
            let Some(hidden) = taking.stopped_at.take() else { break };
            // The newest event below that is shown, of all that the segment has in this stream.
            let is_near = |other: &&&Source<'_>| (other.segment, other.stream) == (source.segment, source.stream);
            let near: Vec<_> = sources.iter().filter(is_near).copied().collect();
            let newer = self.newer(&near, filter, hidden)?;
            if newer >= self.newer(&near, filter, taking.floor)? {
                break;
            }
            from = self.key_at(&near, filter, newer)?;
        }
        Ok(taking.keys)
    }

    /// Every sorted run of keys that a listing is merged from.
    fn sources(&self, filter: &EventFilter, site: u32) -> Result<Vec<Source<'_>>, ReadError> {
        let mut sources = Vec::new();
        for segment in self.segments() {
            let first_sequence = segment.sequences().map_or(0, |(first, _)| first);
            let number = segment.number;
            for event_type in types(filter) {
                let stream = stream(site, event_type);
                let source = |run| Source { run, segment: number, stream, first_sequence };
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
                let hidden = self.hidden(number).into_iter().flat_map(Hidden::streams);
                let hidden = hidden.filter(|(of, _)| *of == stream);
                let hidden = hidden.map(|(_, keys)| match keys {
                    HiddenKeys::InMemory(keys) => Run::Hidden(keys),
                    HiddenKeys::Laid(list, run) => Run::LaidHidden { list, run, fenced: RefCell::default() },
                });
                sources.extend(hidden.filter(|run| !matches!(run, Run::Hidden([]))).map(source));
            }
        }
        Ok(sources)
    }

    /// The key that has exactly `offset` others before it.
    fn key_at(&self, sources: &[&Source<'_>], filter: &EventFilter, offset: u64) -> Result<Key, ReadError> {
        let oldest = sources.iter().map(|source| source.oldest_created_at()).min().unwrap_or(0);
        let newest = sources.iter().map(|source| source.newest_created_at()).max().unwrap_or(0);
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
    fn newer(&self, sources: &[&Source<'_>], filter: &EventFilter, key: Key) -> Result<u64, ReadError> {
        let mut newer = 0;
        for source in sources {
            newer += source.sign() * self.newer_exact(source, filter, key)?.cast_signed();
        }
        Ok(newer.cast_unsigned())
    }

    /// Whether more than `count` events are newer than the key.
    fn more_than(
        &self,
        sources: &[&Source<'_>],
        filter: &EventFilter,
        key: Key,
        count: u64,
    ) -> Result<bool, ReadError> {
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
        // Fence posts nearly always decide; an index is walked only close to the place that is looked for, and last, as
        // that takes longest.
        open.sort_by_key(|(source, _)| matches!(source.run, Run::Index { .. }));
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
                Run::LaidHidden { list, run, .. } => {
                    *fenced = run.read(before..before + FENCE_ENTRIES).map_err(|error| {
                        self.remake_list(source.segment, &UnreadableList { list: Arc::clone(list), error })
                    })?;
                }
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

    /// Offers the keys of a source from `from` on, the newest first, for as long as more are wanted.
    fn between(
        &self,
        source: &Source<'_>,
        filter: &EventFilter,
        from: Key,
        taking: &mut Taking<'_>,
    ) -> Result<(), ReadError> {
        match &source.run {
            Run::Chunk { chunk, entries } => {
                let mut older = entries.start..entries.start + chunk.count_up_to(entries, from);
                while older.next_back().is_some_and(|entry| taking.take(chunk.key(entry))) {}
            }
            Run::Keys(run) => {
                let mut older = run[..run.partition_point(|key| *key <= from)].iter();
                while older.next_back().is_some_and(|key| taking.take(*key)) {}
            }
            Run::Index { segment, event_type, .. } => {
                self.walk(segment, FROM_KEY_DOWN, (filter, *event_type, from), u64::MAX, |key| taking.take(key))?;
            }
            Run::Laid { segment, keys: laid, run, .. } => {
                let mut end = run.rank_bounds(from).most;
                while end > 0 {
                    let begin = end.saturating_sub(FENCE_ENTRIES);
                    let older = self.read_laid(segment, laid, run.read(begin..end))?;
                    if !older.into_iter().rev().filter(|key| *key <= from).all(|key| taking.take(key)) {
                        break;
                    }
                    end = begin;
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

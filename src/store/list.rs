//! Listings: the newest first over all segments, exact totals, and any page at the price of the first.
//!
//! Client timestamps make segments overlap in time, so an offset cannot skip whole segments. Instead every sorted
//! source (a stream of a sealed segment, a stream of a chunk in memory) can say how many of its entries are newer
//! than a key; the key that stands at an offset is then found by bisection over the sum of those ranks, and the
//! page is merged from there. A question by session or visitor has few matches, which are gathered and sorted.

use std::{cell::RefCell, cmp::Reverse, ops::Range, sync::Arc};

use rusqlite::{Connection, Row, ToSql, params};

use super::{
    columns::Chunk,
    keys::{Key, Stream, fingerprint, session_hash, visitor_hash},
    read::ReadError,
    segments::{Content, Segment},
    snapshot::{Snapshot, fetch},
    summary::{FENCE_ENTRIES, StreamSummary, Summary},
};
use crate::{
    event::{EventRow, EventType},
    metrics::ReadRefused,
};

/// Which events a listing holds: those of a website that have everything that is given.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Of this website.
    pub website_id: Arc<str>,
    /// Of this type.
    pub event_type: Option<EventType>,
    /// Of this visit.
    pub session_id: Option<String>,
    /// Of this visitor.
    pub visitor_id: Option<String>,
}

/// Which part of a listing: `limit` events after the first `offset`, the newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most events.
    pub limit: u64,
    /// Events to pass over.
    pub offset: u64,
}

impl Snapshot<'_> {
    /// Shows `visit` a page of the events that the filter lets through, the newest `createdAt` first, ties by the
    /// newest arrival. Returns how many events there are on all pages.
    pub fn list(
        &self,
        filter: &EventFilter,
        page: Page,
        mut visit: impl FnMut(u64, &EventRow<'_>) -> Result<(), ReadError>,
    ) -> Result<u64, ReadError> {
        let Some(site) = self.site(&filter.website_id) else { return Ok(0) };
        let (total, keys) = if filter.session_id.is_some() || filter.visitor_id.is_some() {
            self.gather(filter, site, page)?
        } else {
            self.merge(filter, site, page)?
        };
        for key in keys {
            let Some(segment) = self.segment_with(key.sequence) else { continue };
            self.on(segment, |connection| fetch(connection, key.sequence, |row| visit(key.sequence, row)))?;
        }
        Ok(total)
    }

    /// The page of a listing by website and type.
    fn merge(&self, filter: &EventFilter, site: u32, page: Page) -> Result<(u64, Vec<Key>), ReadError> {
        let mut sources = self.sources(filter, site)?;
        let total = sources.iter().map(Source::count).sum();
        if page.offset >= total {
            return Ok((total, Vec::new()));
        }
        let from = if page.offset == 0 { Key::MAX } else { self.key_at(&sources, filter, page.offset)? };
        sources.sort_unstable_by_key(|source| Reverse(source.newest_created_at()));
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let mut keys: Vec<Key> = Vec::new();
        for source in &sources {
            // The page's oldest is newer than all that this source and the ones after it have.
            if keys.len() == limit && keys.last().is_some_and(|last| last.created_at > source.newest_created_at()) {
                break;
            }
            let floor = if keys.len() == limit { keys.last().copied().unwrap_or(Key::MIN) } else { Key::MIN };
            if source.newest_created_at() >= floor.created_at && source.oldest_created_at() <= from.created_at {
                self.newest_from(source, filter, from, limit, &mut keys)?;
                keys.sort_unstable_by_key(|key| Reverse(*key));
                keys.truncate(limit);
            }
        }
        Ok((total, keys))
    }

    /// Every sorted run of keys that a listing is merged from.
    fn sources(&self, filter: &EventFilter, site: u32) -> Result<Vec<Source<'_>>, ReadError> {
        let mut sources = Vec::new();
        for (at, segment) in self.view().iter().enumerate() {
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
                    let columns = self.columns(at, open)?;
                    for event_type in types(filter) {
                        let stream = stream(site, event_type);
                        let in_chunk = |chunk: &Arc<Chunk>| {
                            let entries = chunk.entries_of(stream)?;
                            Some(Source::Chunk { chunk: Arc::clone(chunk), entries })
                        };
                        sources.extend(columns.chunks().iter().filter_map(in_chunk));
                        let tail = columns.tail_of(stream);
                        if !tail.is_empty() {
                            sources.push(Source::Tail(tail));
                        }
                    }
                }
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
            Source::Chunk { chunk, entries } => {
                let (mut low, mut high) = (entries.start, entries.end);
                while low < high {
                    let middle = low.midpoint(high);
                    if chunk.key(middle) > key { high = middle } else { low = middle + 1 }
                }
                (entries.end - low) as u64
            }
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
            self.on(segment, |connection| {
                let mut select = connection.prepare_cached(
                    "SELECT createdAt, id FROM Event INDEXED BY EventByType WHERE websiteId = ?1 AND eventType = ?2
                     AND (createdAt, id) >= (?3, ?4) ORDER BY createdAt, id LIMIT ?5",
                )?;
                let (website, kind) = (&*filter.website_id, event_type.as_str());
                let parameters = params![website, kind, post.created_at, sql(post.sequence), FENCE_ENTRIES as i64];
                for key in select.query_map(parameters, key_of_row)? {
                    fenced.push(key?);
                }
                Ok(())
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

    /// Adds the newest keys of a source that are not newer than `from`, at most `limit`.
    fn newest_from(
        &self,
        source: &Source<'_>,
        filter: &EventFilter,
        from: Key,
        limit: usize,
        keys: &mut Vec<Key>,
    ) -> Result<(), ReadError> {
        match source {
            Source::Chunk { chunk, entries } => {
                let older = entries.clone().rev().map(|entry| chunk.key(entry)).skip_while(|key| *key > from);
                keys.extend(older.take(limit));
            }
            Source::Tail(tail) => {
                keys.extend(tail.iter().rev().copied().skip_while(|key| *key > from).take(limit));
            }
            Source::Index { segment, event_type, .. } => self.on(segment, |connection| {
                let mut select = connection.prepare_cached(
                    "SELECT createdAt, id FROM Event INDEXED BY EventByType WHERE websiteId = ?1 AND eventType = ?2
                     AND (createdAt, id) <= (?3, ?4) ORDER BY createdAt DESC, id DESC LIMIT ?5",
                )?;
                let (website, kind) = (&*filter.website_id, event_type.as_str());
                let parameters = params![website, kind, from.created_at, sql(from.sequence), limit as i64];
                for key in select.query_map(parameters, key_of_row)? {
                    keys.push(key?);
                }
                Ok(())
            })?,
        }
        Ok(())
    }

    /// The page of a listing by session or visitor, and whatever else is asked for.
    fn gather(&self, filter: &EventFilter, site: u32, page: Page) -> Result<(u64, Vec<Key>), ReadError> {
        let session = filter.session_id.as_ref().map(|id| session_hash(id.as_bytes()));
        let visitor = filter.visitor_id.as_ref().map(|id| visitor_hash(id.as_bytes()));
        let mut matches = Matches::new(page, self.keys_max);
        for (at, segment) in self.view().iter().enumerate() {
            match &segment.content {
                Content::Sealed(summary) => {
                    let here = types(filter).any(|event_type| summary.of(stream(site, event_type)).is_some());
                    if here && [session, visitor].into_iter().flatten().all(|hash| summary.may_hold(hash)) {
                        self.on(segment, |connection| gather_indexed(connection, filter, &mut matches))?;
                    }
                }
                Content::Open(open) => {
                    let columns = self.columns(at, open)?;
                    for sequence in columns.candidates(session.map(fingerprint), visitor.map(fingerprint)) {
                        let found = self.on(segment, |connection| {
                            fetch(connection, sequence, |row| Ok(filter.lets_through(row).then_some(row.created_at)))
                        })?;
                        if let Some(created_at) = found.flatten() {
                            matches.add(Key { created_at, sequence })?;
                        }
                    }
                }
            }
        }
        Ok((matches.total, matches.into_page(page)))
    }
}

/// Adds what an index by session or visitor leads to.
fn gather_indexed(connection: &Connection, filter: &EventFilter, matches: &mut Matches) -> Result<(), ReadError> {
    // The unary plus keeps a condition away from the choice of an index: nearly all rows of a website fit it.
    let (select, by) = match (&filter.session_id, &filter.visitor_id) {
        (Some(session), visitor) => (
            "SELECT createdAt, id FROM Event INDEXED BY EventBySession WHERE sessionId = ?1 AND +websiteId = ?2
             AND (?3 IS NULL OR eventType = ?3) AND (?4 IS NULL OR +visitorId = ?4)",
            (session, visitor.as_ref()),
        ),
        (None, Some(visitor)) => (
            "SELECT createdAt, id FROM Event INDEXED BY EventByVisitor WHERE visitorId = ?1 AND +websiteId = ?2
             AND (?3 IS NULL OR eventType = ?3) AND ?4 IS NULL",
            (visitor, None),
        ),
        (None, None) => return Ok(()),
    };
    let mut select = connection.prepare_cached(select)?;
    let event_type = filter.event_type.map(EventType::as_str);
    let parameters: [&dyn ToSql; 4] = [by.0, &filter.website_id, &event_type, &by.1];
    let mut rows = select.query(parameters)?;
    while let Some(row) = rows.next()? {
        matches.add(key_of_row(row)?)?;
    }
    Ok(())
}

impl EventFilter {
    fn lets_through(&self, row: &EventRow<'_>) -> bool {
        let fits =
            |wanted: &Option<String>, text: &[u8]| wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == text);
        row.website_id == self.website_id.as_bytes()
            && self.event_type.is_none_or(|kind| kind.as_str().as_bytes() == row.event_type)
            && fits(&self.session_id, row.session_id)
            && fits(&self.visitor_id, row.visitor_id)
    }
}

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

/// The matches of a question by session or visitor: their number, and the newest that the page may need.
struct Matches {
    keys: Vec<Key>,
    total: u64,
    wanted: usize,
    keys_max: usize,
}

impl Matches {
    fn new(page: Page, keys_max: usize) -> Self {
        let wanted = usize::try_from(page.offset.saturating_add(page.limit)).unwrap_or(usize::MAX);
        Self { keys: Vec::new(), total: 0, wanted, keys_max }
    }

    fn add(&mut self, key: Key) -> Result<(), ReadError> {
        self.total += 1;
        self.keys.push(key);
        if self.keys.len() >= self.keys_max {
            if self.wanted > self.keys_max / 2 {
                return Err(ReadError::Refused(ReadRefused::Memory));
            }
            self.keys.select_nth_unstable_by_key(self.wanted, |key| Reverse(*key));
            self.keys.truncate(self.wanted);
        }
        Ok(())
    }

    fn into_page(mut self, page: Page) -> Vec<Key> {
        self.keys.sort_unstable_by_key(|key| Reverse(*key));
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        self.keys.into_iter().skip(offset).take(usize::try_from(page.limit).unwrap_or(usize::MAX)).collect()
    }
}

fn types(filter: &EventFilter) -> impl Iterator<Item = EventType> {
    let wanted = filter.event_type;
    EventType::ALL.into_iter().filter(move |event_type| wanted.is_none_or(|wanted| wanted == *event_type))
}

fn stream(site: u32, event_type: EventType) -> Stream {
    Stream::new(site, event_type.as_str().as_bytes())
}

fn key_of_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key { created_at: row.get(0)?, sequence: row.get::<_, i64>(1)?.unsigned_abs() })
}

/// A sequence as SQLite knows it; one beyond its integers is as good as the highest.
fn sql(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
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

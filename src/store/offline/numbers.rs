//! Numbers of a website from a data directory, whether a hitlog runs there or not.
//!
//! The same rollups, rows and definitions as the daemon answers from. But nothing is kept for the next question and
//! nobody waits, so everything is counted one by one: the events of some visitors after those of others, as many as fit
//! into memory at once.

use std::{collections::HashMap, sync::Arc};

use rusqlite::Connection;

use super::{
    catalog::CatalogContents,
    directory::{OfflineDir, OpenSegment},
    error::OfflineError,
    segment_lines::damage_of,
};
use crate::store::{
    catalog::Website,
    format::{hash::visitor_hash, row, schema},
    rollup::{
        Counts, Damaged, Dictionaries, Dimension, Evaluation, Filter, Filters, FragmentKey, Hit, Lister, MemoryPiece,
        Needed, Own, PAUSE_MAX_MS, Rollup, RollupError, Selection, Sink, Visit, first_whole_quarter, read_block,
    },
};

/// Events in memory at once: some 250 MB of them.
const EVENTS_PER_PASS: u64 = 4_000_000;

/// What is to be counted of a website.
#[derive(Debug)]
pub struct CountNumbers {
    /// Whose events.
    pub website: Arc<Website>,
    /// What the website is to referrers and pages.
    pub own: Own,
    /// What leaves something out.
    pub filters: Vec<Filter>,
    /// Events of bots and spam count, too.
    pub with_bots: bool,
    /// Events with an earlier `createdAt` are past their retention; `i64::MIN` if they are kept for ever.
    pub expired_before: i64,
    /// From an instant up to, not including, another, in milliseconds since 1970, UTC; they may overlap.
    pub spans: Vec<(i64, i64)>,
    /// What is listed of the first of them.
    pub listed: Option<Dimension>,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct NumbersFound {
    /// Sums and different visitors of each span.
    pub spans: Vec<(Counts, u64)>,
    /// The same of each value; an empty one is none, and `None` stands for those that were not told apart.
    pub values: HashMap<Option<Vec<u8>>, (Counts, u64)>,
}

/// When the first event of a website happened that has not expired, in milliseconds since 1970, UTC; `None` if there is
/// none. Where a segment has expired events, too, that is where the retention begins.
pub fn first_event(
    directory: &OfflineDir,
    catalog: &CatalogContents,
    website: &Website,
    expired_before: i64,
) -> Result<Option<i64>, OfflineError> {
    let expired_before = first_whole_quarter(expired_before);
    let mut first_of_all: Option<i64> = None;
    for mut segment in catalog.segments_in_use() {
        let found = directory.on_segment(&mut segment, |open| held(open, &website.id))?;
        if let Some((first, last)) = found.and_then(|held| held.times).filter(|(_, last)| *last >= expired_before) {
            let first = first.max(expired_before).min(last);
            first_of_all = Some(first_of_all.map_or(first, |known| known.min(first)));
        }
    }
    Ok(first_of_all)
}

/// What a segment has of a website.
struct Held {
    events: u64,
    /// First and last `createdAt`.
    times: Option<(i64, i64)>,
}

fn held(open: &OpenSegment<'_>, website_id: &str) -> rusqlite::Result<Held> {
    let of = if open.is_sealed() {
        "SELECT sum(count), min(firstCreatedAt), max(lastCreatedAt) FROM Summary WHERE websiteId = ?1"
    } else {
        "SELECT count(*), min(createdAt), max(createdAt) FROM Event WHERE websiteId = ?1"
    };
    open.connection.query_row(of, [website_id], |row| {
        let events = row.get::<_, Option<i64>>(0)?.unwrap_or(0).unsigned_abs();
        Ok(Held { events, times: row.get::<_, Option<i64>>(1)?.zip(row.get::<_, Option<i64>>(2)?) })
    })
}

/// Counts. `done` is told how much of the work is done, in parts of 1.
pub fn count_numbers(
    directory: &OfflineDir,
    catalog: &CatalogContents,
    wanted: &CountNumbers,
    mut done: impl FnMut(f64),
) -> Result<NumbersFound, OfflineError> {
    let counting = Counting {
        catalog,
        wanted,
        filters: Filters::new(wanted.filters.clone(), wanted.own.clone()),
        reach: reach(&wanted.spans),
    };
    let mut found = NumbersFound::default();
    found.spans.resize(wanted.spans.len(), (Counts::default(), 0));
    let (mut segments, mut events) = (Vec::new(), 0);
    for mut segment in catalog.segments_in_use() {
        let held = directory.on_segment(&mut segment, |open| held(open, &wanted.website.id))?;
        if let Some(held) = held.filter(|held| held.times.is_some_and(|times| counting.may_have(times))) {
            events += held.events;
            segments.push(segment);
        }
    }
    let passes = events.div_ceil(EVENTS_PER_PASS).max(1);
    for pass in 0..passes {
        let mut piece = MemoryPiece::default();
        piece.dictionaries = Dictionaries::unlimited();
        for (at, listed) in segments.iter().enumerate() {
            let mut segment = *listed;
            let is_of_pass = |visitor: u64| visitor % passes == pass;
            let look = |open: &OpenSegment<'_>| match damage_of(open)? {
                Some(damage) => Ok(Err(damage)),
                None => counting.read(open, is_of_pass).map(Ok),
            };
            let part = directory.on_sound_segment(&mut segment, look, Result::is_ok)?.transpose();
            let part = part.map_err(|damage| OfflineError::damaged(directory.path_of(&segment), damage))?;
            part.into_iter().for_each(|part| part.add_to(&mut piece, at as u32));
            done((pass as f64 + (at + 1) as f64 / segments.len() as f64) / passes as f64);
        }
        counting
            .count(&piece, &mut found)
            .map_err(|_: Damaged| OfflineError::damaged(directory.path(), "its numbers cannot be read"))?;
    }
    Ok(found)
}

/// From the first instant of all spans to the last.
fn reach(spans: &[(i64, i64)]) -> (i64, i64) {
    let from = spans.iter().map(|span| span.0).min().unwrap_or(0);
    (from, spans.iter().map(|span| span.1).max().unwrap_or(from))
}

/// A count that is under way.
struct Counting<'a> {
    catalog: &'a CatalogContents,
    wanted: &'a CountNumbers,
    filters: Filters,
    reach: (i64, i64),
}

/// Events of one segment.
enum Part {
    Rows(MemoryPiece),
    Fragments(Dictionaries, Vec<(FragmentKey, Vec<Hit>)>),
}

impl Part {
    /// Adds them to those of earlier segments.
    fn add_to(self, piece: &mut MemoryPiece, segment: u32) {
        match self {
            Self::Rows(rows) => {
                let mut hits = Vec::new();
                for chain in 0..rows.chains() {
                    rows.sorted(chain, &mut hits);
                    add(piece, &rows.dictionaries, rows.key(chain), &hits, segment);
                }
            }
            Self::Fragments(dictionaries, fragments) => {
                for (key, hits) in fragments {
                    add(piece, &dictionaries, key, &hits, segment);
                }
            }
        }
    }
}

/// Adds events. Of those of the same time the ones of an earlier segment came in first, and those of one stay in order.
fn add(piece: &mut MemoryPiece, from: &Dictionaries, key: FragmentKey, hits: &[Hit], segment: u32) {
    piece.add_of(from, key, hits.iter().map(|hit| Hit { order: segment, ..*hit }));
}

impl Counting<'_> {
    /// The events of some visitors in a segment, as far as visits in the spans may have them.
    fn read(&self, open: &OpenSegment<'_>, is_of_pass: impl Fn(u64) -> bool) -> rusqlite::Result<Part> {
        let has_rollups = open.is_sealed() && open.connection.table_exists(None, "RollupList")?;
        // A rollup does not know which sequences events have, which an erasure is about.
        if has_rollups && !self.catalog.erasures.is_any_under_way() {
            match self.read_fragments(open.connection, &is_of_pass) {
                Ok(part) => return Ok(part),
                Err(RollupError::Sqlite(error)) if error != rusqlite::Error::QueryReturnedNoRows => return Err(error),
                // One that cannot be read is made anew by the daemon; the rows have the same events.
                Err(_) => {}
            }
        }
        self.read_rows(open.connection, &is_of_pass)
    }

    fn read_fragments(&self, connection: &Connection, is_of_pass: impl Fn(u64) -> bool) -> Result<Part, RollupError> {
        let website_id = &self.wanted.website.id;
        let mut fragments = Vec::new();
        // Only segments with events of the website are looked at.
        let rollup = Rollup::read(connection, website_id)?.ok_or(Damaged)?;
        let dictionaries = Rollup::read_dictionaries(connection, website_id)?;
        let listed = self.wanted.listed.map_or(Needed::NONE, |dimension| dimension.field().needed());
        let needed = self.filters.look_up(&dictionaries)?.needed().and(listed);
        for block in rollup.blocks.iter().filter(|block| self.may_have(block.times)) {
            let read = read_block(connection, block, needed)?;
            let wanted =
                (0..read.len()).filter(|at| is_of_pass(read.key(*at).visitor) && self.may_have(read.times(*at)));
            fragments.extend(wanted.map(|at| (read.key(at), read.hits(at).to_vec())));
        }
        Ok(Part::Fragments(dictionaries, fragments))
    }

    fn read_rows(&self, connection: &Connection, is_of_pass: impl Fn(u64) -> bool) -> rusqlite::Result<Part> {
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let mut select = connection.prepare(schema::select_events_of_website(version))?;
        let mut rows = select.query((0, i64::MAX, &*self.wanted.website.id))?;
        let mut piece = MemoryPiece::default();
        piece.dictionaries = Dictionaries::unlimited();
        let mut order = 0;
        while let Some(row) = rows.next()? {
            let event = row::event_row(row)?;
            let sequence = row.get::<_, i64>(0)?.unsigned_abs();
            let is_erased = || self.catalog.erasures.covers(event.website_id, event.visitor_id, sequence);
            if self.may_have((event.created_at, event.created_at))
                && is_of_pass(visitor_hash(event.visitor_id))
                && !is_erased()
            {
                piece.add_row(&event, row.get(row::FLAGS)?, order);
                order += 1;
            }
        }
        Ok(Part::Rows(piece))
    }

    /// Whether events of these times may be of visits that count: those that go on are followed for a day.
    fn may_have(&self, (first, last): (i64, i64)) -> bool {
        const FOLLOWED_MS: i64 = 24 * 60 * 60 * 1_000;
        let before = self.reach.0.saturating_sub(FOLLOWED_MS.max(PAUSE_MAX_MS));
        before <= last && first < self.reach.1.saturating_add(FOLLOWED_MS)
    }

    /// Counts the events of a pass, whose visitors are in no other.
    fn count(&self, piece: &MemoryPiece, found: &mut NumbersFound) -> Result<(), Damaged> {
        let wanted = self.wanted;
        let matcher = self.filters.look_up(&piece.dictionaries)?;
        let selection =
            Selection { with_unwanted: wanted.with_bots, expired_before: first_whole_quarter(wanted.expired_before) };
        let evaluation = Evaluation { selection, matcher: &matcher };
        let mut sink = SpansSink::new(&wanted.spans);
        piece.run(&evaluation, |_, _| {}, &mut sink);
        for (sum, (counts, visitors)) in found.spans.iter_mut().zip(sink.end()) {
            sum.0 += counts;
            sum.1 += visitors;
        }
        let Some((dimension, span)) = wanted.listed.zip(wanted.spans.first()) else { return Ok(()) };
        let mut lister = Lister::new(dimension, &piece.dictionaries, &wanted.own, *span)?;
        piece.run(&evaluation, |_, _| {}, &mut lister);
        for (value, group) in lister.end().groups() {
            let sum = found.values.entry(value.map(<[u8]>::to_vec)).or_default();
            sum.0 += group.counts;
            sum.1 += group.visitors.different() as u64;
        }
        Ok(())
    }
}

/// Counts events and visits by spans.
struct SpansSink<'a> {
    spans: &'a [(i64, i64)],
    of: Vec<(Counts, Vec<u64>)>,
}

impl<'a> SpansSink<'a> {
    fn new(spans: &'a [(i64, i64)]) -> Self {
        Self { spans, of: spans.iter().map(|_| Default::default()).collect() }
    }

    fn of(&mut self, at: i64) -> impl Iterator<Item = &mut (Counts, Vec<u64>)> {
        self.spans.iter().zip(&mut self.of).filter(move |((from, to), _)| (*from..*to).contains(&at)).map(|(_, of)| of)
    }

    fn end(self) -> impl Iterator<Item = (Counts, u64)> {
        self.of.into_iter().map(|(counts, mut visitors)| {
            visitors.sort_unstable();
            visitors.dedup();
            (counts, visitors.len() as u64)
        })
    }
}

impl Sink for SpansSink<'_> {
    fn begin_run(&mut self, _: &[Hit], _: Option<&Hit>) {}

    fn event(&mut self, visitor: u64, hit: &Hit) {
        for (counts, visitors) in self.of(hit.at) {
            counts.add_event(hit);
            // Of one run after the other, so the visitor is the last one or was not here in this run.
            if visitors.last() != Some(&visitor) {
                visitors.push(visitor);
            }
        }
    }

    fn visit(&mut self, visit: &Visit) {
        self.of(visit.begun_at).for_each(|(counts, _)| counts.add_visit(visit));
    }
}

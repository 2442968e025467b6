//! Makes the rollups of a segment of its rows, those of some visitors at once.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{
    answer::Answer,
    block::{Fragment, block_len},
    file::{BlockEntry, RollupError},
    filter::Matcher,
    lists::{ListsBuilder, ListsSink},
    memory::MemoryPiece,
    visit::{Evaluation, Selection},
};
use crate::store::format::{hash::visitor_hash, row, schema};

/// Events that are in memory at once while rollups are made: some 60 MB of them. Of a segment with more, those of some
/// visitors are read after those of others.
pub(super) const EVENTS_PER_PASS: u64 = 1_024 * 1_024;

/// A website's rollup while it is made.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) piece: MemoryPiece,
    pub(super) events: u64,
    pub(super) unwanted: u64,
    pub(super) times: Option<(i64, i64)>,
    pub(super) answer: Answer,
    pub(super) lists: ListsBuilder,
    pub(super) blocks: Vec<BlockEntry>,
}

/// Makes the rollups of all websites in so many [`passes()`], sorted by website; `each` takes the fragments of a block
/// and says its number.
pub(super) fn build(
    connection: &Connection,
    passes: u64,
    mut each: impl FnMut(&[Fragment<'_>]) -> Result<i64, RollupError>,
) -> Result<Vec<(Vec<u8>, Builder)>, RollupError> {
    let mut builders: HashMap<Vec<u8>, Builder> = HashMap::new();
    for pass in 0..passes {
        read_pass(connection, &mut builders, |visitor_id| visitor_hash(visitor_id) % passes == pass)?;
        let mut sorted: Vec<_> = builders.iter_mut().collect();
        sorted.sort_unstable_by_key(|(website_id, _)| website_id.as_slice());
        sorted.into_iter().try_for_each(|(_, builder)| builder.end_pass(&mut each))?;
    }
    let mut built: Vec<_> = builders.into_iter().collect();
    built.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(built)
}

/// In how many passes the rollups of a segment are made, with at most about so many events in memory at once.
pub(super) fn passes(connection: &Connection, events_per_pass: u64) -> rusqlite::Result<u64> {
    let select = "SELECT count(*) FROM Event NOT INDEXED";
    let events = connection.query_row(select, [], |row| row.get(0)).map(i64::cast_unsigned)?;
    Ok(events.div_ceil(events_per_pass).max(1))
}

fn read_pass(
    connection: &Connection,
    builders: &mut HashMap<Vec<u8>, Builder>,
    is_of_pass: impl Fn(&[u8]) -> bool,
) -> Result<(), RollupError> {
    let mut select = connection.prepare(schema::SELECT_FLAGGED_EVENTS)?;
    let mut rows = select.query([])?;
    let mut order = 0;
    while let Some(row) = rows.next()? {
        if !is_of_pass(row.get_ref(row::VISITOR_ID)?.as_bytes().map_err(rusqlite::Error::from)?) {
            continue;
        }
        let event = row::event_row(row)?;
        let flags: i64 = row.get(row::FLAGS)?;
        if !builders.contains_key(event.website_id) {
            builders.insert(event.website_id.to_vec(), Builder::default());
        }
        if let Some(builder) = builders.get_mut(event.website_id) {
            builder.piece.add_row(&event, flags, order);
        }
        order += 1;
    }
    Ok(())
}

impl Builder {
    /// Ends a pass: what was read of it becomes blocks.
    fn end_pass(
        &mut self,
        each: &mut impl FnMut(&[Fragment<'_>]) -> Result<i64, RollupError>,
    ) -> Result<(), RollupError> {
        let mut piece = std::mem::take(&mut self.piece);
        self.events += piece.len() as u64;
        self.unwanted += piece.unwanted();
        self.times = match (self.times, piece.times()) {
            (Some((first, last)), Some((begin, end))) => Some((first.min(begin), last.max(end))),
            (times, of_pass) => times.or(of_pass),
        };
        let everything = Selection { with_unwanted: false, expired_before: i64::MIN };
        let matcher = Matcher::default();
        let evaluation = Evaluation { selection: everything, matcher: &matcher };
        let groupings = self.lists.groupings(&piece.dictionaries)?;
        let mut sink = ListsSink::new(groupings);
        let (mut hits, mut fragments, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for chain in 0..piece.chains() {
            piece.sort(chain, &mut hits);
            evaluation.run(piece.key(chain), &hits, &mut scratch, &mut sink);
            let mut places = piece.places(chain);
            for run in hits.chunk_by(|hit, next| hit.is_joined_by(next.at)) {
                let Some(begin) = places.next() else { break };
                fragments.push(Found { place: run[0].place(), chain, begin, len: run.len() });
                places.by_ref().take(run.len() - 1).for_each(drop);
            }
        }
        let (collector, lists) = sink.end();
        self.lists.add(lists);
        self.answer.add(collector.end());
        // A visitor is of one pass only, so the lowest of all are among the lowest of each.
        self.answer.thin();
        fragments.sort_unstable_by_key(|found| found.place);
        let mut rest = fragments.as_slice();
        while !rest.is_empty() {
            let (block, after) = rest.split_at(block_len(rest.iter().map(|found| found.len)));
            self.blocks.push(end_block(&piece, block, each)?);
            rest = after;
        }
        // Only what they are filed under is needed in the next pass.
        self.piece.dictionaries = std::mem::take(&mut piece.dictionaries);
        Ok(())
    }
}

/// A fragment of a piece.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Of its first event in time.
    place: (i64, u32),
    chain: usize,
    /// Where its first event is, and how many there are from there on.
    begin: usize,
    len: usize,
}

/// Hands the fragments of a block on.
fn end_block(
    piece: &MemoryPiece,
    block: &[Found],
    each: &mut impl FnMut(&[Fragment<'_>]) -> Result<i64, RollupError>,
) -> Result<BlockEntry, RollupError> {
    let mut hits = Vec::with_capacity(block.iter().map(|found| found.len).sum());
    for found in block {
        hits.extend(piece.places_from(found.begin).take(found.len).map(|place| *piece.hit(place)));
    }
    let mut rest = hits.as_slice();
    let mut last = i64::MIN;
    let fragments = block.iter().map(|found| {
        let (hits, after) = rest.split_at(found.len);
        rest = after;
        last = last.max(hits[hits.len() - 1].at);
        Fragment { key: piece.key(found.chain), hits }
    });
    let fragments: Vec<Fragment<'_>> = fragments.collect();
    Ok(BlockEntry { id: each(&fragments)?, fragments: block.len() as u32, times: (block[0].place.0, last) })
}

//! Rollups in the file of a sealed segment.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    answer::Answer,
    block::{Fragment, Fragments, Needed, block_len, write as write_block},
    bytes::{Damaged, Reader, pack, put, put_signed, unpack},
    dictionary::Dictionaries,
    filter::Matcher,
    hit::Hit,
    list::{self, Group, ListKind},
    lists::{ListsBuilder, ListsSink},
    memory::MemoryPiece,
    visit::{Evaluation, Selection},
};
use crate::store::format::{hash::visitor_hash, rollup_schema, row, schema};

/// Events that are in memory at once while rollups are made: some 60 MB of them. Of a segment with more, those of some
/// visitors are read after those of others.
const EVENTS_PER_PASS: u64 = 1_024 * 1_024;

/// Why a rollup cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollupError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("a rollup could not be packed: {0}")]
    Pack(#[from] std::io::Error),
    #[error("a rollup is damaged: {0}")]
    Damaged(#[from] Damaged),
}

/// What a sealed segment knows of a website's events, but for the events themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollup {
    /// How many there are.
    pub(crate) events: u64,
    /// How many of them are a bot's or spam.
    pub(crate) unwanted: u64,
    /// The lowest and the highest `createdAt`.
    pub(crate) times: (i64, i64),
    /// Of all events that are not unwanted, thinned.
    pub(crate) answer: Arc<Answer>,
    pub(crate) blocks: Vec<BlockEntry>,
}

/// A block of fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    /// Its row.
    pub(crate) id: i64,
    pub(crate) fragments: u32,
    /// The lowest and the highest `createdAt`.
    pub(crate) times: (i64, i64),
}

impl Rollup {
    /// The rollup of a website; `None` if the segment has none of its events.
    pub(crate) fn read(connection: &Connection, website_id: &str) -> Result<Option<Self>, RollupError> {
        let select = "SELECT events, unwanted, firstCreatedAt, lastCreatedAt, quarters, blocks, hash
                      FROM Rollup WHERE websiteId = ?1";
        let read = |row: &Row<'_>| {
            let times = (row.get(2)?, row.get(3)?);
            let [events, unwanted] = [row.get::<_, i64>(0)?, row.get(1)?].map(i64::cast_unsigned);
            let (quarters, blocks) = (row.get_ref(4)?.as_blob()?, row.get_ref(5)?.as_blob()?);
            let hash = row.get::<_, i64>(6)?.cast_unsigned();
            Ok(Self::of_parts(events, unwanted, times, (quarters, blocks), hash))
        };
        let found = connection.prepare_cached(select)?.query_row([website_id], read).optional()?;
        Ok(found.transpose()?)
    }

    fn of_parts(
        events: u64,
        unwanted: u64,
        times: (i64, i64),
        (quarters, blocks): (&[u8], &[u8]),
        hash: u64,
    ) -> Result<Self, Damaged> {
        if hash_of(events, unwanted, times, quarters, blocks) != hash {
            return Err(Damaged);
        }
        Ok(Self { events, unwanted, times, answer: Arc::new(Answer::read(quarters)?), blocks: read_entries(blocks)? })
    }

    /// The dictionaries of its events.
    pub(crate) fn read_dictionaries(connection: &Connection, website_id: &str) -> Result<Dictionaries, RollupError> {
        let select = "SELECT dictionaries, dictionariesHash FROM Rollup WHERE websiteId = ?1";
        let read = |row: &Row<'_>| Ok(checked(row, 0, 1)?.map(<[u8]>::to_vec));
        let packed = connection.prepare_cached(select)?.query_row([website_id], read)??;
        Ok(Dictionaries::read(&unpack(&packed)?)?)
    }

    /// What it has of each group of a list; `None` if that is not in the file.
    pub(crate) fn read_list(
        connection: &Connection,
        website_id: &str,
        kind: ListKind,
    ) -> Result<Option<Vec<(u32, Group)>>, RollupError> {
        let select = "SELECT groups, hash FROM RollupList WHERE websiteId = ?1 AND kind = ?2";
        let read = |row: &Row<'_>| {
            let groups = row.get_ref(0)?.as_blob()?;
            let is_whole = hash_of_list(website_id, kind, groups) == row.get::<_, i64>(1)?;
            Ok(if is_whole { list::read(groups) } else { Err(Damaged) })
        };
        let found =
            connection.prepare_cached(select)?.query_row(params![website_id, kind.number()], read).optional()?;
        Ok(found.transpose()?)
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.answer.memory_bytes() + self.blocks.capacity() * size_of::<BlockEntry>()
    }
}

/// A blob whose hash stands in another column.
fn checked<'a>(row: &'a Row<'_>, blob: usize, hash: usize) -> rusqlite::Result<Result<&'a [u8], Damaged>> {
    let bytes = row.get_ref(blob)?.as_blob()?;
    let is_whole = xxh3_64(bytes) == row.get::<_, i64>(hash)?.cast_unsigned();
    Ok(is_whole.then_some(bytes).ok_or(Damaged))
}

/// Reads the keys of a block's fragments.
pub(crate) fn read_keys(connection: &Connection, block: &BlockEntry) -> Result<Fragments, RollupError> {
    let select = "SELECT keys, keysHash FROM RollupBlock WHERE id = ?1";
    let read = |row: &Row<'_>| Ok(checked(row, 0, 1)?.and_then(Fragments::read_keys));
    let fragments = connection.prepare_cached(select)?.query_row([block.id], read)??;
    if fragments.len() == block.fragments as usize { Ok(fragments) } else { Err(Damaged.into()) }
}

/// Reads a block's fragments with their events, and of what these are filed under what is needed.
pub(crate) fn read_block(
    connection: &Connection,
    block: &BlockEntry,
    needed: Needed,
) -> Result<Fragments, RollupError> {
    let mut fragments = read_keys(connection, block)?;
    let select = "SELECT hits, hitsHash FROM RollupBlock WHERE id = ?1";
    connection.prepare_cached(select)?.query_row([block.id], |row| {
        Ok(checked(row, 0, 1)?.and_then(|packed| fragments.read_hits(packed, needed)))
    })??;
    Ok(fragments)
}

fn hash_of(events: u64, unwanted: u64, times: (i64, i64), quarters: &[u8], blocks: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for number in [events, unwanted, times.0.cast_unsigned(), times.1.cast_unsigned(), quarters.len() as u64] {
        hash.update(&number.to_le_bytes());
    }
    hash.update(quarters);
    hash.update(blocks);
    hash.digest()
}

/// The hash of a list: of what it is, too.
fn hash_of_list(website_id: &str, kind: ListKind, groups: &[u8]) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&kind.number().to_le_bytes());
    hash.update(&(website_id.len() as u64).to_le_bytes());
    hash.update(website_id.as_bytes());
    hash.update(groups);
    hash.digest().cast_signed()
}

fn write_entries(blocks: &[BlockEntry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, blocks.len() as u64);
    for BlockEntry { id, fragments, times: (first, last) } in blocks {
        put(&mut bytes, id.cast_unsigned());
        put(&mut bytes, u64::from(*fragments));
        put_signed(&mut bytes, *first);
        put_signed(&mut bytes, last - first);
    }
    bytes
}

fn read_entries(bytes: &[u8]) -> Result<Vec<BlockEntry>, Damaged> {
    let mut reader = Reader(bytes);
    let mut blocks = Vec::new();
    for _ in 0..reader.number()? {
        let (id, fragments) = (reader.number()?.cast_signed(), reader.small()?);
        let first = reader.signed()?;
        let last = first.checked_add(reader.signed()?).ok_or(Damaged)?;
        blocks.push(BlockEntry { id, fragments, times: (first, last) });
    }
    reader.end()?;
    Ok(blocks)
}

/// A website's rollup while it is made.
#[derive(Default)]
struct Builder {
    piece: MemoryPiece,
    events: u64,
    unwanted: u64,
    times: Option<(i64, i64)>,
    answer: Answer,
    lists: ListsBuilder,
    blocks: Vec<BlockEntry>,
}

/// Makes the rollups of all websites of a segment of which the rows are complete, and writes them.
pub(crate) fn write(connection: &Connection) -> Result<(), RollupError> {
    write_in_passes(connection, EVENTS_PER_PASS)
}

/// The same, with at most about so many events in memory at once.
pub(super) fn write_in_passes(connection: &Connection, events_per_pass: u64) -> Result<(), RollupError> {
    // Those that it has may be damaged.
    connection.execute_batch(
        "DROP TABLE IF EXISTS Rollup; DROP TABLE IF EXISTS RollupBlock; DROP TABLE IF EXISTS RollupList;",
    )?;
    connection.execute_batch(rollup_schema::ROLLUP_SQL)?;
    let mut insert =
        connection.prepare("INSERT INTO RollupBlock(keys, keysHash, hits, hitsHash) VALUES(?1, ?2, ?3, ?4)")?;
    let built = build(connection, events_per_pass, |fragments| {
        let (keys, hits) = write_block(fragments)?;
        let [keys_hash, hits_hash] = [&keys, &hits].map(|bytes| xxh3_64(bytes).cast_signed());
        insert.execute(params![keys, keys_hash, hits, hits_hash])?;
        Ok(connection.last_insert_rowid())
    })?;
    let mut insert = connection.prepare("INSERT INTO Rollup VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
    let mut insert_list = connection.prepare("INSERT INTO RollupList VALUES(?1, ?2, ?3, ?4)")?;
    for (website_id, builder) in built {
        let Builder { piece, events, unwanted, times, answer, lists, blocks } = builder;
        let website_id = String::from_utf8(website_id).map_err(|_| Damaged)?;
        let times = times.unwrap_or_default();
        let (quarters, blocks) = (answer.write(), write_entries(&blocks));
        let hash = hash_of(events, unwanted, times, &quarters, &blocks).cast_signed();
        let dictionaries = pack(&piece.dictionaries.write())?;
        let dictionaries_hash = xxh3_64(&dictionaries).cast_signed();
        let [events, unwanted] = [events, unwanted].map(u64::cast_signed);
        insert.execute(params![
            website_id,
            events,
            unwanted,
            times.0,
            times.1,
            quarters,
            blocks,
            hash,
            dictionaries,
            dictionaries_hash
        ])?;
        for (kind, groups) in lists.end() {
            let hash = hash_of_list(&website_id, kind, &groups);
            insert_list.execute(params![website_id, kind.number(), groups, hash])?;
        }
    }
    Ok(())
}

/// Makes the rollups of all websites, sorted by website; `each` takes the fragments of a block and says its number.
fn build(
    connection: &Connection,
    events_per_pass: u64,
    mut each: impl FnMut(&[Fragment<'_>]) -> Result<i64, RollupError>,
) -> Result<Vec<(Vec<u8>, Builder)>, RollupError> {
    let events: i64 = connection.query_row("SELECT count(*) FROM Event NOT INDEXED", [], |row| row.get(0))?;
    let passes = events.cast_unsigned().div_ceil(events_per_pass).max(1);
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

/// Makes the rollups of a sealed segment anew from its rows, and says what differs from those that it has; `None` if
/// nothing does.
pub(crate) fn verify(connection: &Connection) -> Result<Option<String>, RollupError> {
    let mut id = 0;
    let mut differing = None;
    let built = build(connection, EVENTS_PER_PASS, |fragments| {
        id += 1;
        let entry = BlockEntry { id, fragments: fragments.len() as u32, times: (0, 0) };
        let stored = read_block(connection, &entry, Needed::ALL);
        let is_same = stored.is_ok_and(|stored| is_same(&stored, fragments));
        if !is_same && differing.is_none() {
            differing = Some(format!("block {id} of its rollups differs from its rows"));
        }
        Ok(id)
    })?;
    if differing.is_some() {
        return Ok(differing);
    }
    let stored: i64 = connection.query_row("SELECT count(*) FROM Rollup", [], |row| row.get(0))?;
    let blocks: i64 = connection.query_row("SELECT count(*) FROM RollupBlock", [], |row| row.get(0))?;
    if stored != built.len() as i64 || blocks != id {
        return Ok(Some("it has rollups of what it has no rows of, or lacks some".into()));
    }
    let lists: i64 = connection.query_row("SELECT count(*) FROM RollupList", [], |row| row.get(0))?;
    let mut lists_built = 0;
    for (website_id, builder) in built {
        let Builder { piece, events, unwanted, times, answer, lists, blocks } = builder;
        let website_id = String::from_utf8(website_id).map_err(|_| Damaged)?;
        let (times, answer) = (times.unwrap_or_default(), Arc::new(answer));
        let rollup = Rollup { events, unwanted, times, answer, blocks };
        let is_same = Rollup::read(connection, &website_id).is_ok_and(|stored| stored == Some(rollup))
            && Rollup::read_dictionaries(connection, &website_id)
                .is_ok_and(|stored| stored.write() == piece.dictionaries.write());
        if !is_same {
            return Ok(Some(format!("the rollup of website {website_id} differs from its rows")));
        }
        for (kind, groups) in lists.end() {
            lists_built += 1;
            let is_same = Rollup::read_list(connection, &website_id, kind)
                .is_ok_and(|stored| stored.is_some_and(|stored| list::write(&stored) == groups));
            if !is_same {
                return Ok(Some(format!("a list of website {website_id} in its rollup differs from its rows")));
            }
        }
    }
    if lists != lists_built {
        return Ok(Some("it has lists of what it has no rows of, or lacks some".into()));
    }
    Ok(None)
}

fn is_same(stored: &Fragments, fragments: &[Fragment<'_>]) -> bool {
    let without_order = |hit: &Hit| Hit { order: 0, ..*hit };
    stored.len() == fragments.len()
        && fragments.iter().enumerate().all(|(at, Fragment { key, hits })| {
            let same = stored.hits(at).iter().map(without_order).eq(hits.iter().map(without_order));
            stored.key(at) == *key && same
        })
}

//! Writes rollups into the file of a segment, and looks whether those that it has are right.

use std::sync::Arc;

use rusqlite::{Connection, Statement, params};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    block::{Fragment, Fragments, Needed, write as write_block},
    build::{Builder, EVENTS_PER_PASS, build, passes},
    bytes::{Damaged, pack, put, put_signed},
    file::{BlockEntry, Rollup, RollupError, hash_of, hash_of_list, read_block},
    hit::Hit,
    list::KeptList,
};
use crate::store::format::{rollup_schema, schema};

/// Most bytes of blocks that wait in memory until they are written: a million events of a usual website have 9 MB.
const AHEAD_BYTES_MAX: usize = 20 << 20;

/// Rollups of all websites of a segment that are not written yet.
pub(crate) struct Made {
    /// Keys and hits of all blocks.
    blocks: Vec<PackedBlock>,
    built: Vec<(Vec<u8>, Builder)>,
}

/// The keys of a block and its hits, as they are written.
type PackedBlock = (Vec<u8>, Vec<u8>);

/// Makes the rollups of all websites of a segment of which the rows are complete. `None` if they were too large to be
/// in memory until they are written, or if its rows have no flags yet: [`write()`] makes them of a copy with flags.
pub(crate) fn make(connection: &Connection) -> Result<Option<Made>, RollupError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < schema::SEGMENT_VERSION_OF_ROLLUPS || passes(connection, EVENTS_PER_PASS)? > 1 {
        return Ok(None);
    }
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    let built = build(connection, 1, |fragments| {
        let (keys, hits) = write_block(fragments)?;
        bytes += keys.len() + hits.len();
        // Those that are too many are counted, and made again.
        blocks.push(if bytes <= AHEAD_BYTES_MAX { (keys, hits) } else { PackedBlock::default() });
        Ok(blocks.len() as i64)
    })?;
    Ok((bytes <= AHEAD_BYTES_MAX).then_some(Made { blocks, built }))
}

impl Made {
    /// Writes them into the segment's file.
    pub(crate) fn write(self, connection: &Connection) -> Result<(), RollupError> {
        create_tables(connection)?;
        let mut insert = connection.prepare(INSERT_BLOCK)?;
        self.blocks.iter().try_for_each(|block| insert_block(&mut insert, block))?;
        write_built(connection, self.built)
    }
}

/// Makes the rollups of all websites of a segment of which the rows are complete, and writes them.
pub(crate) fn write(connection: &Connection) -> Result<(), RollupError> {
    write_in_passes(connection, EVENTS_PER_PASS)
}

/// The same, with at most about so many events in memory at once.
pub(super) fn write_in_passes(connection: &Connection, events_per_pass: u64) -> Result<(), RollupError> {
    create_tables(connection)?;
    let mut insert = connection.prepare(INSERT_BLOCK)?;
    let built = build(connection, passes(connection, events_per_pass)?, |fragments| {
        insert_block(&mut insert, &write_block(fragments)?)?;
        Ok(connection.last_insert_rowid())
    })?;
    write_built(connection, built)
}

fn create_tables(connection: &Connection) -> rusqlite::Result<()> {
    // Those that it has may be damaged.
    connection.execute_batch(
        "DROP TABLE IF EXISTS Rollup; DROP TABLE IF EXISTS RollupBlock; DROP TABLE IF EXISTS RollupList;",
    )?;
    connection.execute_batch(rollup_schema::ROLLUP_SQL)
}

/// The first row of an empty table has the number 1, as the first block of a segment.
const INSERT_BLOCK: &str = "INSERT INTO RollupBlock(keys, keysHash, hits, hitsHash) VALUES(?1, ?2, ?3, ?4)";

fn insert_block(insert: &mut Statement<'_>, (keys, hits): &PackedBlock) -> rusqlite::Result<()> {
    let [keys_hash, hits_hash] = [keys, hits].map(|bytes| xxh3_64(bytes).cast_signed());
    insert.execute(params![keys, keys_hash, hits, hits_hash])?;
    Ok(())
}

/// Writes all but the blocks.
fn write_built(connection: &Connection, built: Vec<(Vec<u8>, Builder)>) -> Result<(), RollupError> {
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

/// Makes the rollups of a sealed segment anew from its rows, and says what differs from those that it has; `None` if
/// nothing does.
pub(crate) fn verify(connection: &Connection) -> Result<Option<String>, RollupError> {
    let mut id = 0;
    let mut differing = None;
    let built = build(connection, passes(connection, EVENTS_PER_PASS)?, |fragments| {
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
            let is_same = Rollup::read_list(connection, &website_id, kind, |stored| Ok(stored == KeptList(&groups)))
                .is_ok_and(|is_same| is_same == Some(true));
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

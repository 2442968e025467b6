//! Reads rollups in the file of a sealed segment.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    answer::Answer,
    block::{Fragments, Needed},
    bytes::{Damaged, Reader, unpack},
    dictionary::Dictionaries,
    list::{KeptList, ListKind},
};

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

    /// What becomes of a list of groups; `None` if it is not in the file.
    pub(crate) fn read_list<T>(
        connection: &Connection,
        website_id: &str,
        kind: ListKind,
        each: impl FnOnce(KeptList<'_>) -> Result<T, Damaged>,
    ) -> Result<Option<T>, RollupError> {
        let select = "SELECT groups, hash FROM RollupList WHERE websiteId = ?1 AND kind = ?2";
        let mut select = connection.prepare_cached(select)?;
        let mut rows = select.query(params![website_id, kind.number()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        // Not copied: a list may have megabytes.
        let groups = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        if hash_of_list(website_id, kind, groups) != row.get::<_, i64>(1)? {
            return Err(Damaged.into());
        }
        Ok(Some(each(KeptList(groups))?))
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
    connection.prepare_cached(SELECT_HITS)?.query_row([block.id], |row| {
        Ok(checked(row, 0, 1)?.and_then(|packed| fragments.read_hits(packed, needed)))
    })??;
    Ok(fragments)
}

/// Reads some of a block's fragments with their events: those with these numbers, which are in order.
pub(crate) fn read_some(
    connection: &Connection,
    block: &BlockEntry,
    keys: &Fragments,
    wanted: &[usize],
) -> Result<Fragments, RollupError> {
    let read = |row: &Row<'_>| Ok(checked(row, 0, 1)?.and_then(|packed| keys.read_some(packed, wanted)));
    Ok(connection.prepare_cached(SELECT_HITS)?.query_row([block.id], read)??)
}

const SELECT_HITS: &str = "SELECT hits, hitsHash FROM RollupBlock WHERE id = ?1";

pub(super) fn hash_of(events: u64, unwanted: u64, times: (i64, i64), quarters: &[u8], blocks: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    for number in [events, unwanted, times.0.cast_unsigned(), times.1.cast_unsigned(), quarters.len() as u64] {
        hash.update(&number.to_le_bytes());
    }
    hash.update(quarters);
    hash.update(blocks);
    hash.digest()
}

/// The hash of a list: of what it is, too.
pub(super) fn hash_of_list(website_id: &str, kind: ListKind, groups: &[u8]) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&kind.number().to_le_bytes());
    hash.update(&(website_id.len() as u64).to_le_bytes());
    hash.update(website_id.as_bytes());
    hash.update(groups);
    hash.digest().cast_signed()
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

//! What a sealed segment says of itself, so that most questions need not open it.
//!
//! Written once, from the finished indexes, when a segment is sealed; read into memory at the start. Per website and
//! type it has the count and the first and last `createdAt`, which is all that a total takes; its fence posts make
//! the rank of a time a bisection and a short walk; its filter says which sessions and visitors are not in it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, Row, Statement, params};
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    facts::{Digest, Facts, Identity},
    fence::FENCE_ENTRIES,
    keys::{Key, Sites, Stream},
};
use crate::store::format::{
    hash::{session_hash, visitor_hash},
    schema,
};

/// A sealed segment, in memory.
#[derive(Debug)]
pub(crate) struct Summary {
    /// By stream.
    streams: Vec<StreamSummary>,
    pub(crate) facts: Facts,
    /// Whether its numbers are in the file, and can be read; an older hitlog did not write them.
    has_rollups: AtomicBool,
    /// Empty when there is no room for it in memory: then every session may be in the segment.
    filter: RwLock<Vec<u8>>,
    fence_posts: Mutex<HashMap<Stream, Arc<[Key]>>>,
}

/// The events of one website and type in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamSummary {
    stream: Stream,
    pub(crate) count: u64,
    pub(crate) first_created_at: i64,
    pub(crate) last_created_at: i64,
}

/// Why a segment's summary cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SummaryError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Damaged(&'static str),
}

impl Summary {
    /// Writes the summary of a segment whose rows and indexes are complete.
    pub(crate) fn write(connection: &Connection) -> Result<(), SummaryError> {
        connection.execute_batch(schema::SUMMARY_SQL)?;
        let mut insert = Inserts {
            summary: connection.prepare("INSERT INTO Summary VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?,
            daily: connection.prepare("INSERT INTO Daily VALUES(?1, ?2, ?3, ?4)")?,
        };
        let mut walk = connection.prepare(
            "SELECT websiteId, eventType, createdAt, id FROM Event INDEXED BY EventByType
             ORDER BY websiteId, eventType, createdAt, id",
        )?;
        let mut rows = walk.query([])?;
        let mut stream = StreamBuilder::default();
        while let Some(row) = rows.next()? {
            if !stream.is_of(row)? {
                stream.finish(&mut insert)?;
                stream = StreamBuilder::begin(row)?;
            }
            stream.add(row)?;
        }
        stream.finish(&mut insert)?;
        let filter = build_filter(connection)?;
        let written = connection.execute(
            "INSERT INTO Whole
             SELECT 1, count(*), min(createdAt), max(createdAt), min(id), max(id), ?1, ?2 FROM Event
             HAVING count(*) = (SELECT sum(count) FROM Summary)",
            params![filter, xxh3_64(&filter).cast_signed()],
        )?;
        if written == 1 { Ok(()) } else { Err(SummaryError::Damaged("its index and its rows differ in number")) }
    }

    /// Reads what [`Summary::write`] has written.
    pub(crate) fn read(connection: &Connection, sites: &Sites) -> Result<Self, SummaryError> {
        let mut digest = Digest::new(Identity::read(connection)?);
        let streams = read_streams(connection, sites, &mut digest)?;
        let select = "SELECT count, firstSequence, lastSequence, firstCreatedAt, lastCreatedAt, filterHash, filter
                      FROM Whole";
        let (facts, filter, hash) = connection.query_row(select, [], |row| {
            let hash: i64 = row.get(5)?;
            let (first_created_at, last_created_at) = (row.get(3)?, row.get(4)?);
            let [rows, first, last] = [row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?];
            digest.numbers(&[rows, first, last, first_created_at, last_created_at, hash]);
            let [rows, first_sequence, last_sequence] = [rows, first, last].map(i64::unsigned_abs);
            let digest = digest.end();
            let facts = Facts { rows, first_sequence, last_sequence, first_created_at, last_created_at, digest };
            Ok((facts, row.get::<_, Vec<u8>>(6)?, hash.cast_unsigned()))
        })?;
        if xxh3_64(&filter) != hash {
            return Err(SummaryError::Damaged("its filter is not what was written"));
        }
        if facts.rows != streams.iter().map(|of| of.count).sum::<u64>() {
            return Err(SummaryError::Damaged("its counts do not add up"));
        }
        let has_rollups = connection.table_exists(None, "RollupList")?.into();
        Ok(Self { streams, facts, has_rollups, filter: RwLock::new(filter), fence_posts: Mutex::default() })
    }

    /// Reads the summary of the segment with this number, and sees that it is the one of which these facts were noted.
    /// Where none were, what the file says that it is must do.
    pub(crate) fn read_listed(
        connection: &Connection,
        sites: &Sites,
        number: i64,
        noted: Option<Facts>,
    ) -> Result<Self, SummaryError> {
        let summary = Self::read(connection, sites)?;
        let is_same = match noted {
            Some(noted) => noted == summary.facts,
            None => Identity::read(connection)?.is_none_or(|identity| identity.number == number),
        };
        if is_same { Ok(summary) } else { Err(SummaryError::Damaged("it is not the file that the catalog lists")) }
    }

    /// Whether numbers are answered from rollups; if not, from its rows.
    pub(crate) fn has_rollups(&self) -> bool {
        self.has_rollups.load(Ordering::Relaxed)
    }

    /// Notes that its rollups cannot be read. Its rows can, and rollups are made anew from these.
    pub(crate) fn note_bad_rollups(&self) {
        self.has_rollups.store(false, Ordering::Relaxed);
    }

    /// The segment's events of one stream.
    pub(crate) fn of(&self, stream: Stream) -> Option<StreamSummary> {
        self.streams.binary_search_by_key(&stream, |of| of.stream).ok().map(|at| self.streams[at])
    }

    /// Whether any event is of the website with this number.
    pub(crate) fn holds_site(&self, site: u32) -> bool {
        self.streams.iter().any(|of| of.stream.site() == site)
    }

    /// The lowest and the highest `createdAt` of the website with this number; `None` if no event is of it.
    pub(crate) fn times_of_site(&self, site: u32) -> Option<(i64, i64)> {
        let of_site = self.streams.iter().filter(|of| of.stream.site() == site);
        of_site
            .map(|of| (of.first_created_at, of.last_created_at))
            .reduce(|(first, last), (begin, end)| (first.min(begin), last.max(end)))
    }

    /// The newest `createdAt`.
    pub(crate) fn last_created_at(&self) -> i64 {
        self.streams.iter().map(|of| of.last_created_at).max().unwrap_or(i64::MIN)
    }

    /// Whether a session or visitor with this hash may be in the segment; no means no.
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        let filter = self.filter.read();
        let Some((descriptor, fingerprints)) = filter.split_at_checked(BinaryFuse8::DESCRIPTOR_LEN) else {
            return true;
        };
        BinaryFuse8Ref::from_dma(descriptor, fingerprints).contains(&hash)
    }

    /// The memory that the filter takes.
    pub(crate) fn filter_bytes(&self) -> usize {
        self.filter.read().len()
    }

    /// Gives the filter's memory up.
    pub(crate) fn drop_filter(&self) {
        *self.filter.write() = Vec::new();
    }

    /// The fence posts of a stream, the oldest first, if they have been read before.
    pub(crate) fn known_fence_posts(&self, of: StreamSummary) -> Option<Arc<[Key]>> {
        self.fence_posts.lock().get(&of.stream).map(Arc::clone)
    }

    /// Reads the fence posts of a stream.
    pub(crate) fn read_fence_posts(
        &self,
        of: StreamSummary,
        connection: &Connection,
        website_id: &str,
        event_type: &str,
    ) -> rusqlite::Result<Arc<[Key]>> {
        let posts: Arc<[Key]> = connection
            .prepare_cached("SELECT fencePosts FROM Summary WHERE websiteId = ?1 AND eventType = ?2")?
            .query_row([website_id, event_type], |row| {
                Ok(row.get_ref(0)?.as_blob()?.chunks_exact(16).map(key_of_bytes).collect())
            })?;
        self.fence_posts.lock().insert(of.stream, Arc::clone(&posts));
        Ok(posts)
    }
}

/// What a stream's facts are written with.
struct Inserts<'a> {
    summary: Statement<'a>,
    daily: Statement<'a>,
}

/// Gathers what is said of one website and type.
#[derive(Default)]
struct StreamBuilder {
    website_id: Vec<u8>,
    event_type: Vec<u8>,
    count: u64,
    first_created_at: i64,
    last_created_at: i64,
    fence_posts: Vec<u8>,
    /// Days and counts, the oldest first.
    daily: Vec<(i64, i64)>,
}

impl StreamBuilder {
    fn begin(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            website_id: row.get_ref(0)?.as_bytes()?.to_vec(),
            event_type: row.get_ref(1)?.as_bytes()?.to_vec(),
            first_created_at: row.get(2)?,
            ..Self::default()
        })
    }

    fn is_of(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        Ok(row.get_ref(0)?.as_bytes()? == self.website_id && row.get_ref(1)?.as_bytes()? == self.event_type)
    }

    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let (created_at, sequence): (i64, i64) = (row.get(2)?, row.get(3)?);
        if self.count.is_multiple_of(FENCE_ENTRIES) {
            self.fence_posts.extend_from_slice(&created_at.to_le_bytes());
            self.fence_posts.extend_from_slice(&sequence.to_le_bytes());
        }
        let day = created_at.div_euclid(schema::DAY_MS);
        match self.daily.last_mut() {
            Some((last, count)) if *last == day => *count += 1,
            _ => self.daily.push((day, 1)),
        }
        self.count += 1;
        self.last_created_at = created_at;
        Ok(())
    }

    fn finish(&self, insert: &mut Inserts<'_>) -> Result<(), SummaryError> {
        if self.count == 0 {
            return Ok(());
        }
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| SummaryError::Damaged("a website's id is not UTF-8"));
        let (website_id, event_type) = (text(&self.website_id)?, text(&self.event_type)?);
        insert.summary.execute(params![
            website_id,
            event_type,
            self.count.cast_signed(),
            self.first_created_at,
            self.last_created_at,
            self.fence_posts
        ])?;
        for (day, count) in &self.daily {
            insert.daily.execute(params![website_id, event_type, day, count])?;
        }
        Ok(())
    }
}

/// Reads what there is of every website and type, sorted by stream; the digest takes it in sorted by name.
fn read_streams(connection: &Connection, sites: &Sites, digest: &mut Digest) -> rusqlite::Result<Vec<StreamSummary>> {
    let mut select = connection.prepare(
        "SELECT websiteId, eventType, count, firstCreatedAt, lastCreatedAt FROM Summary ORDER BY websiteId, eventType",
    )?;
    let rows = select.query_map([], |row| {
        let (website_id, event_type) = (row.get_ref(0)?.as_bytes()?, row.get_ref(1)?.as_bytes()?);
        let (count, first_created_at, last_created_at) = (row.get::<_, i64>(2)?, row.get(3)?, row.get(4)?);
        digest.text(website_id);
        digest.text(event_type);
        digest.numbers(&[count, first_created_at, last_created_at]);
        let stream = Stream::new(sites.number(website_id), event_type);
        Ok(StreamSummary { stream, count: count.unsigned_abs(), first_created_at, last_created_at })
    })?;
    let mut streams = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    streams.sort_unstable_by_key(|of| of.stream);
    Ok(streams)
}

fn build_filter(connection: &Connection) -> Result<Vec<u8>, SummaryError> {
    let mut hashes = Vec::new();
    for (select, hash) in [
        ("SELECT DISTINCT sessionId FROM Event INDEXED BY EventBySession", session_hash as fn(&[u8]) -> u64),
        ("SELECT DISTINCT visitorId FROM Event INDEXED BY EventByVisitor", visitor_hash),
    ] {
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            hashes.push(hash(row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?));
        }
    }
    // The filter cannot be built over a hash that comes twice.
    hashes.sort_unstable();
    hashes.dedup();
    let filter = BinaryFuse8::try_from(&hashes).map_err(SummaryError::Damaged)?;
    let mut bytes = vec![0; BinaryFuse8::DESCRIPTOR_LEN];
    filter.dma_copy_descriptor_to(&mut bytes);
    bytes.extend_from_slice(filter.dma_fingerprints());
    Ok(bytes)
}

fn key_of_bytes(bytes: &[u8]) -> Key {
    let (mut created_at, mut sequence) = ([0; 8], [0; 8]);
    created_at.copy_from_slice(&bytes[..8]);
    sequence.copy_from_slice(&bytes[8..]);
    Key { created_at: i64::from_le_bytes(created_at), sequence: u64::from_le_bytes(sequence) }
}

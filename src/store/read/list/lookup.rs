//! Listings by session or visitor, and whatever else is asked for: few matches, looked up and sorted.

use std::{cmp::Reverse, sync::Arc};

use rusqlite::{Connection, Rows, Statement, params};

use super::page::{EventFilter, Wanted, key_of_row, sql_integer, stream, types};
use crate::{
    event::EventType,
    metrics::ReadRefused,
    store::{
        error::ReadError,
        read::snapshot::Snapshot,
        segments::{
            Content, FoundEvents, FoundIn, Hidden, Key, KeysSnapshot, Segment, Stream, fingerprint, session_hash,
            visitor_hash,
        },
    },
};

impl Snapshot<'_> {
    /// The total of a listing by session or visitor (with any other conditions), and the keys of its page.
    pub(super) fn look_up(
        &self,
        filter: &EventFilter,
        site: u32,
        wanted: Wanted,
    ) -> Result<(u64, Vec<Key>), ReadError> {
        let mut matches = Matches::new(wanted, self.keys_max);
        for segment in self.segments() {
            let hidden = self.hidden(segment.number);
            self.find(segment, filter, site, |key, _| {
                if !hidden.map_or(Ok(false), |hidden| hidden.holds(key))? {
                    matches.add(key);
                }
                Ok(())
            })?;
        }
        matches.into_page()
    }

    /// Every event of a visitor of a website up to a sequence, by segment, the hidden ones too; or, laid down, those
    /// that are not hidden yet.
    pub(crate) fn find_visitor(
        &self,
        website_id: &Arc<str>,
        visitor_id: &str,
        up_to: u64,
        room: HidingRoom,
    ) -> Result<Vec<FoundIn>, ReadError> {
        let filter = EventFilter {
            website_id: Arc::clone(website_id),
            event_type: None,
            session_id: None,
            visitor_id: Some(visitor_id.to_owned()),
            from: i64::MIN,
            to: i64::MAX,
        };
        let (mut found, mut in_memory) = (Vec::new(), 0);
        let Some(site) = self.site(website_id) else { return Ok(found) };
        for segment in self.segments() {
            let mut here = Vec::new();
            self.find(segment, &filter, site, |key, event_type| {
                if key.sequence <= up_to {
                    here.push((Stream::new(site, event_type), key));
                }
                Ok(())
            })?;
            if !here.is_empty() {
                in_memory += here.len();
                let (number, generation) = (segment.number, segment.generation);
                found.push(FoundIn { segment: number, generation, events: FoundEvents::InMemory(here) });
            }
            // Once there are so many, those of every further segment are laid down when they are found.
            if in_memory > room.laid_from {
                found.iter_mut().try_for_each(|found| self.lay_found_down(found))?;
            }
        }
        if in_memory > room.free && in_memory <= room.laid_from {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
        Ok(found)
    }

    fn lay_found_down(&self, found: &mut FoundIn) -> Result<(), ReadError> {
        let FoundEvents::InMemory(events) = &mut found.events else { return Ok(()) };
        let hidden = self.hidden(found.segment);
        let mut failed = None;
        events.retain(|(_, key)| {
            let is_hidden = hidden.map_or(Ok(false), |hidden| hidden.holds(*key));
            !is_hidden.unwrap_or_else(|error| failed.replace(error).is_some())
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        if !events.is_empty() {
            let events = Arc::new(self.lay_hidden_down(found.segment, events)?);
            found.events = FoundEvents::Laid { events, hidden_by: hidden.map_or(0, Hidden::erasures) };
        }
        Ok(())
    }

    /// Shows every match in a segment with its type, in no order.
    fn find(
        &self,
        segment: &Arc<Segment>,
        filter: &EventFilter,
        site: u32,
        mut found: impl FnMut(Key, &[u8]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let session = filter.session_id.as_ref().map(|id| session_hash(id.as_bytes()));
        let visitor = filter.visitor_id.as_ref().map(|id| visitor_hash(id.as_bytes()));
        let by_index = if session.is_some() { BY_SESSION } else { BY_VISITOR };
        if let Content::Sealed(summary) = &segment.content {
            let is_here = types(filter).any(|event_type| summary.of(stream(site, event_type)).is_some());
            if is_here && [session, visitor].into_iter().flatten().all(|hash| summary.may_hold(hash)) {
                self.select_keys(segment, by_index, filter, found)?;
            }
            return Ok(());
        }
        let (session, visitor) = (session.map(fingerprint), visitor.map(fingerprint));
        let candidates = match self.keys(segment) {
            Some(KeysSnapshot::InMemory(columns)) => columns.candidates(session, visitor),
            Some(KeysSnapshot::Laid(keys)) => self.read_laid(segment, keys, keys.candidates(session, visitor))?,
            None => Vec::new(),
        };
        for sequence in candidates {
            let is_match = self.on(segment, |connection| check(connection, filter, sequence))?;
            if let Some((created_at, event_type)) = is_match {
                found(Key { created_at, sequence }, event_type.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Shows every key that a statement with the filter's conditions finds in a segment, and its type.
    fn select_keys(
        &self,
        segment: &Arc<Segment>,
        sql: &str,
        filter: &EventFilter,
        mut found: impl FnMut(Key, &[u8]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.on(segment, |connection| {
            let mut select = connection.prepare_cached(sql)?;
            let mut rows = query(&mut select, filter, u64::MAX)?;
            while let Some(row) = rows.next()? {
                found(key_of_row(row)?, row.get_ref(2)?.as_bytes().map_err(rusqlite::Error::from)?)?;
            }
            Ok(())
        })
    }
}

/// How many events an erasure may hide in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HidingRoom {
    /// Most that one of few events may take.
    pub(crate) free: usize,
    /// One of more than this has them laid down on the disk.
    pub(crate) laid_from: usize,
}

impl HidingRoom {
    /// What is left of room for so many.
    pub(crate) fn new(events_max: usize, in_memory: usize) -> Self {
        Self { free: events_max.saturating_sub(in_memory), laid_from: events_max / 2 }
    }
}

/// The conditions of a filter; one whose value is not given excludes nothing.
macro_rules! conditions {
    () => {
        "websiteId = ?1 AND (?2 IS NULL OR eventType = ?2) AND (?3 IS NULL OR sessionId = ?3)
         AND (?4 IS NULL OR visitorId = ?4) AND createdAt >= ?5 AND createdAt < ?6"
    };
}

macro_rules! matches_in {
    ($rows:literal) => {
        concat!("SELECT createdAt, id, eventType FROM Event ", $rows, " AND ", conditions!())
    };
}

const BY_SESSION: &str = matches_in!("INDEXED BY EventBySession WHERE sessionId = ?3 AND ?7 > 0");
const BY_VISITOR: &str = matches_in!("INDEXED BY EventByVisitor WHERE visitorId = ?4 AND ?7 > 0");
const ONE: &str = matches_in!("WHERE id = ?7");

/// Runs a statement with [`conditions!`], and a sequence that [`ONE`] looks for.
fn query<'a>(select: &'a mut Statement<'_>, filter: &EventFilter, sequence: u64) -> rusqlite::Result<Rows<'a>> {
    let event_type = filter.event_type.map(EventType::as_str);
    let EventFilter { website_id, session_id, visitor_id, from, to, .. } = filter;
    select.query(params![website_id, event_type, session_id, visitor_id, from, to, sql_integer(sequence)])
}

/// The time and type of an event, if the filter lets it through: fingerprints of different ids can be equal.
fn check(connection: &Connection, filter: &EventFilter, sequence: u64) -> Result<Option<(i64, String)>, ReadError> {
    let mut select = connection.prepare_cached(ONE)?;
    let mut rows = query(&mut select, filter, sequence)?;
    Ok(rows.next()?.map(|row| Ok::<_, rusqlite::Error>((row.get(0)?, row.get(2)?))).transpose()?)
}

/// The matches of a question by session or visitor: their number, and the newest that the page may need.
struct Matches {
    keys: Vec<Key>,
    total: u64,
    wanted: Wanted,
    /// How many of the newest, from the page's highest key on, are needed.
    needed: usize,
    keys_max: usize,
    /// There are more than may be held, and the page lies too deep to know which of them it needs.
    too_many: bool,
}

impl Matches {
    fn new(wanted: Wanted, keys_max: usize) -> Self {
        let needed = usize::try_from(wanted.offset().saturating_add(wanted.limit)).unwrap_or(usize::MAX);
        Self { keys: Vec::new(), total: 0, wanted, needed, keys_max, too_many: false }
    }

    fn add(&mut self, key: Key) {
        self.total += 1;
        if self.too_many || key > self.wanted.highest_key() || key.sequence > self.wanted.high_water_mark {
            return;
        }
        self.keys.push(key);
        if self.keys.len() >= self.keys_max {
            if self.needed > self.keys_max / 2 {
                self.too_many = true;
                self.keys = Vec::new();
                return;
            }
            self.keys.select_nth_unstable_by_key(self.needed, |key| Reverse(*key));
            self.keys.truncate(self.needed);
        }
    }

    /// The total, and the keys of the page.
    fn into_page(mut self) -> Result<(u64, Vec<Key>), ReadError> {
        if self.too_many && self.wanted.offset() < self.total {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
        self.keys.sort_unstable_by_key(|key| Reverse(*key));
        let offset = usize::try_from(self.wanted.offset()).unwrap_or(usize::MAX);
        let limit = usize::try_from(self.wanted.limit).unwrap_or(usize::MAX);
        Ok((self.total, self.keys.into_iter().skip(offset).take(limit).collect()))
    }
}

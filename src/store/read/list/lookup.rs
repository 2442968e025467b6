//! Listings by session or visitor, and whatever else is asked for: few matches, looked up and sorted.

use std::{cmp::Reverse, sync::Arc};

use rusqlite::{Connection, Rows, Statement, params};

use super::page::{EventFilter, Wanted, key_of_row, sql_integer, stream, types};
use crate::{
    event::EventType,
    metrics::ReadRefused,
    store::{
        error::ReadError,
        format::hash::{session_hash, visitor_hash},
        read::snapshot::Snapshot,
        segments::{Content, Hidden, Key, KeysSnapshot, Segment, Stream, fingerprint},
    },
};

/// Matches that are looked up at once among what is hidden in their segment: 24 bytes each.
const LOOKED_UP_AT_ONCE: usize = 16 * 1024;

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
            let hides = |hidden: &Hidden| types(filter).any(|of| !hidden.of(stream(site, of)).is_empty());
            if !self.hidden(segment.number).is_some_and(hides) {
                self.find(segment, filter, site, |key, _| {
                    matches.add(key);
                    Ok(())
                })?;
                continue;
            }
            // Found in any order, and looked up among what is hidden in that of the keys.
            let mut found = Vec::new();
            self.find(segment, filter, site, |key, event_type| {
                found.push((Stream::new(site, event_type), key));
                if found.len() == LOOKED_UP_AT_ONCE {
                    self.add_shown(segment.number, &mut found, &mut matches)?;
                }
                Ok(())
            })?;
            self.add_shown(segment.number, &mut found, &mut matches)?;
        }
        matches.into_page()
    }

    /// Adds what is not hidden of what was found in a segment, and empties it.
    fn add_shown(&self, number: i64, found: &mut Vec<(Stream, Key)>, matches: &mut Matches) -> Result<(), ReadError> {
        self.retain_shown(number, found)?;
        found.drain(..).for_each(|(_, key)| matches.add(key));
        Ok(())
    }

    /// Shows every match in a segment with its type, in no order.
    pub(super) fn find(
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

//! Listings by session or visitor, and whatever else is asked for: few matches, gathered and sorted.

use std::{cmp::Reverse, sync::Arc};

use rusqlite::{Connection, OptionalExtension, params};

use super::{EventFilter, Page, key_of_row, sql_integer, stream, types};
use crate::{
    event::EventType,
    metrics::ReadRefused,
    store::{
        keys::{Key, fingerprint, session_hash, visitor_hash},
        read::ReadError,
        segments::{Content, Segment},
        snapshot::Snapshot,
    },
};

impl Snapshot<'_> {
    /// The page of a listing by session or visitor, and whatever else is asked for.
    pub(super) fn gather(&self, filter: &EventFilter, site: u32, page: Page) -> Result<(u64, Vec<Key>), ReadError> {
        let session = filter.session_id.as_ref().map(|id| session_hash(id.as_bytes()));
        let visitor = filter.visitor_id.as_ref().map(|id| visitor_hash(id.as_bytes()));
        let mut matches = Matches::new(page, self.keys_max);
        let by_index = if session.is_some() { BY_SESSION } else { BY_VISITOR };
        for segment in self.view() {
            match &segment.content {
                Content::Sealed(summary) => {
                    let here = types(filter).any(|event_type| summary.of(stream(site, event_type)).is_some());
                    if here && [session, visitor].into_iter().flatten().all(|hash| summary.may_hold(hash)) {
                        self.look_up(segment, by_index, filter, |key| matches.add(key))?;
                    }
                }
                Content::Open(open) => {
                    let Some(columns) = open.columns() else {
                        self.look_up(segment, READ_THROUGH, filter, |key| matches.add(key))?;
                        continue;
                    };
                    for sequence in columns.snapshot().candidates(session.map(fingerprint), visitor.map(fingerprint)) {
                        let found = self.on(segment, |connection| is_match(connection, filter, sequence))?;
                        if let Some(created_at) = found {
                            matches.add(Key { created_at, sequence });
                        }
                    }
                }
            }
        }
        matches.into_page(page)
    }

    /// Shows every key that a statement with the filter's conditions finds in a segment.
    pub(super) fn look_up(
        &self,
        segment: &Arc<Segment>,
        sql: &str,
        filter: &EventFilter,
        mut found: impl FnMut(Key),
    ) -> Result<(), ReadError> {
        self.on(segment, |connection| {
            let mut select = connection.prepare_cached(sql)?;
            let event_type = filter.event_type.map(EventType::as_str);
            let parameters = params![&*filter.website_id, event_type, filter.session_id, filter.visitor_id];
            let mut rows = select.query(parameters)?;
            while let Some(row) = rows.next()? {
                found(key_of_row(row)?);
            }
            Ok(())
        })
    }
}

/// The conditions of a filter, each of which is one only if its value is given.
macro_rules! conditions {
    () => {
        "websiteId = ?1 AND (?2 IS NULL OR eventType = ?2) AND (?3 IS NULL OR sessionId = ?3)
         AND (?4 IS NULL OR visitorId = ?4)"
    };
}

const BY_SESSION: &str =
    concat!("SELECT createdAt, id FROM Event INDEXED BY EventBySession WHERE sessionId = ?3 AND ", conditions!());
const BY_VISITOR: &str =
    concat!("SELECT createdAt, id FROM Event INDEXED BY EventByVisitor WHERE visitorId = ?4 AND ", conditions!());
/// For a segment whose columns were given up.
pub(super) const READ_THROUGH: &str = concat!("SELECT createdAt, id FROM Event NOT INDEXED WHERE ", conditions!());
const IS_MATCH: &str = concat!("SELECT createdAt, id FROM Event WHERE id = ?5 AND ", conditions!());

/// The time of an event, if the filter lets it through: fingerprints of different ids can be equal.
fn is_match(connection: &Connection, filter: &EventFilter, sequence: u64) -> Result<Option<i64>, ReadError> {
    let mut select = connection.prepare_cached(IS_MATCH)?;
    let event_type = filter.event_type.map(EventType::as_str);
    let parameters =
        params![&*filter.website_id, event_type, filter.session_id, filter.visitor_id, sql_integer(sequence)];
    Ok(select.query_row(parameters, |row| row.get(0)).optional()?)
}

/// The matches of a question by session or visitor: their number, and the newest that the page may need.
struct Matches {
    keys: Vec<Key>,
    total: u64,
    wanted: usize,
    keys_max: usize,
    /// There are more than may be held, and the page lies too deep to know which of them it needs.
    too_many: bool,
}

impl Matches {
    fn new(page: Page, keys_max: usize) -> Self {
        let wanted = usize::try_from(page.offset.saturating_add(page.limit)).unwrap_or(usize::MAX);
        Self { keys: Vec::new(), total: 0, wanted, keys_max, too_many: false }
    }

    fn add(&mut self, key: Key) {
        self.total += 1;
        if self.too_many {
            return;
        }
        self.keys.push(key);
        if self.keys.len() >= self.keys_max {
            if self.wanted > self.keys_max / 2 {
                self.too_many = true;
                self.keys = Vec::new();
                return;
            }
            self.keys.select_nth_unstable_by_key(self.wanted, |key| Reverse(*key));
            self.keys.truncate(self.wanted);
        }
    }

    /// The total, and the keys of the page.
    fn into_page(mut self, page: Page) -> Result<(u64, Vec<Key>), ReadError> {
        if self.too_many && page.offset < self.total {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
        self.keys.sort_unstable_by_key(|key| Reverse(*key));
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        Ok((self.total, self.keys.into_iter().skip(offset).take(limit).collect()))
    }
}

//! Listings: the newest first over all segments, exact totals, and any page at the price of the first.
//!
//! A listing by website and type is merged from sorted sources ([`merge`]); one by session or visitor has few matches,
//! which are gathered and sorted ([`gather`]). Either gives the keys of a page, and only then whole rows are read.

mod gather;
pub(super) mod merge;

use std::sync::Arc;

use rusqlite::Row;

use super::{
    keys::{Key, Stream},
    read::ReadError,
    snapshot::{Snapshot, fetch},
};
use crate::event::{EventRow, EventType};

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
fn sql_integer(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

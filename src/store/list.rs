//! Listings: the newest first over all segments, exact totals, and any page at the price of the first.
//!
//! A listing by website and type is merged from sorted sources ([`merge`]); one by session or visitor has few matches,
//! which are gathered and sorted ([`gather`]). Either gives the keys of a page, and only then whole rows are read. What
//! is hidden or has expired is left out of pages and totals alike.

mod gather;
pub(super) mod merge;

use std::sync::Arc;

pub(super) use gather::FoundIn;
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
    /// With a `createdAt` of this or later, in milliseconds since 1970, UTC.
    pub from: i64,
    /// With an earlier `createdAt` than this.
    pub to: i64,
}

/// Which part of a listing, the newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most events.
    pub limit: u64,
    /// Where it begins.
    pub start: PageStart,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy)]
pub enum PageStart {
    /// After so many events.
    Offset(u64),
    /// Where the page before ended.
    Cursor(Cursor),
}

/// A place in a walk through a listing: whoever goes from cursor to cursor sees every event that there was when the
/// walk began exactly once, whatever comes in meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The `createdAt` of the last event that was shown.
    pub created_at: i64,
    /// Its sequence.
    pub sequence: u64,
    /// The highest sequence when the walk began; later events are not in it.
    pub high_water_mark: u64,
    /// How many events stand before it.
    pub passed: u64,
}

/// What a page says of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// How many events there are on all pages.
    pub total: u64,
    /// Where the next page begins; `None` if this one is the last.
    pub next: Option<Cursor>,
}

impl PageStart {
    /// How many events stand before the page.
    pub fn passed(&self) -> u64 {
        match self {
            Self::Offset(offset) => *offset,
            Self::Cursor(cursor) => cursor.passed,
        }
    }
}

impl Snapshot<'_> {
    /// Shows `visit` a page of the events that the filter lets through, the newest `createdAt` first, ties by the
    /// newest arrival.
    pub fn list(
        &self,
        filter: &EventFilter,
        page: Page,
        mut visit: impl FnMut(u64, &EventRow<'_>) -> Result<(), ReadError>,
    ) -> Result<Listed, ReadError> {
        let nothing = Listed { total: 0, next: None };
        let filter = EventFilter { from: filter.from.max(self.expired_before), ..filter.clone() };
        let Some(site) = self.site(&filter.website_id).filter(|_| filter.from < filter.to) else { return Ok(nothing) };
        let high_water_mark = match page.start {
            PageStart::Offset(_) => self.high_water_mark(),
            PageStart::Cursor(cursor) => cursor.high_water_mark,
        };
        // One more than is shown tells whether there are more.
        let wanted = Wanted { start: page.start, limit: page.limit.saturating_add(1), high_water_mark };
        let (total, mut keys) = if filter.session_id.is_some() || filter.visitor_id.is_some() {
            self.gather(&filter, site, wanted)?
        } else {
            self.merge(&filter, site, wanted)?
        };
        let is_last = keys.len() as u64 <= page.limit;
        keys.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
        for key in &keys {
            let Some(segment) = self.segment_with(key.sequence) else { continue };
            self.on(segment, |connection| fetch(connection, key.sequence, |row| visit(key.sequence, row)))?;
        }
        let next = keys.last().filter(|_| !is_last).map(|last| Cursor {
            created_at: last.created_at,
            sequence: last.sequence,
            high_water_mark,
            passed: page.start.passed() + keys.len() as u64,
        });
        Ok(Listed { total, next })
    }
}

/// Which keys of a listing are wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    start: PageStart,
    limit: u64,
    /// Of no later event.
    high_water_mark: u64,
}

impl Wanted {
    /// The highest key that the page may begin with, before any offset.
    fn highest_key(&self) -> Key {
        match self.start {
            PageStart::Offset(_) => Key::MAX,
            PageStart::Cursor(Cursor { created_at, sequence, .. }) => {
                Key { created_at, sequence: sequence.saturating_sub(1) }
            }
        }
    }

    fn offset(&self) -> u64 {
        match self.start {
            PageStart::Offset(offset) => offset,
            PageStart::Cursor(_) => 0,
        }
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

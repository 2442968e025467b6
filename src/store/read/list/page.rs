//! What a listing is asked for, and what a page says of it.

use std::sync::Arc;

use rusqlite::Row;

use crate::{
    event::EventType,
    store::segments::{Key, Stream},
};

/// Which events a listing holds: those of one website for which every given condition holds.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// The id of the website.
    pub website_id: Arc<str>,
    /// Only events of this type.
    pub event_type: Option<EventType>,
    /// Only events of this session.
    pub session_id: Option<String>,
    /// Only events of this visitor.
    pub visitor_id: Option<String>,
    /// The lowest `createdAt`, in milliseconds since 1970, UTC.
    pub from: i64,
    /// The `createdAt` from which on events are left out, in milliseconds since 1970, UTC.
    pub to: i64,
}

/// Which part of a listing, the newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most events on the page.
    pub limit: u64,
    /// Where the page begins.
    pub start: PageStart,
}

/// Where a page of a listing begins.
#[derive(Debug, Clone, Copy)]
pub enum PageStart {
    /// After so many events.
    Offset(u64),
    /// Where the page before it ended.
    After(WalkPlace),
}

/// A place in a walk through a listing: whoever goes from cursor to cursor sees every event that there was when the
/// walk began exactly once, whatever comes in meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkPlace {
    /// The `createdAt` of the last event that was shown.
    pub created_at: i64,
    /// The sequence of the last event that was shown.
    pub sequence: u64,
    /// The highest sequence when the walk began; later events are not in it.
    pub high_water_mark: u64,
    /// How many events the walk has shown.
    pub passed: u64,
}

/// What a page says of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSummary {
    /// How many events there are on all pages.
    pub total: u64,
    /// Where the next page begins; `None` if this one is the last.
    pub next: Option<WalkPlace>,
}

impl PageStart {
    /// How many events stand before the page.
    pub fn passed(&self) -> u64 {
        match self {
            Self::Offset(offset) => *offset,
            Self::After(place) => place.passed,
        }
    }
}

/// Which keys of a listing are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) start: PageStart,
    pub(super) limit: u64,
    /// Keys of later events than this sequence are not wanted.
    pub(super) high_water_mark: u64,
}

impl Wanted {
    /// The highest key that the page may begin with, before any offset.
    pub(super) fn highest_key(&self) -> Key {
        match self.start {
            PageStart::Offset(_) => Key::MAX,
            PageStart::After(WalkPlace { created_at, sequence, .. }) => {
                Key { created_at, sequence: sequence.saturating_sub(1) }
            }
        }
    }

    /// How many keys stand between the highest one and the page.
    pub(super) fn offset(&self) -> u64 {
        match self.start {
            PageStart::Offset(offset) => offset,
            PageStart::After(_) => 0,
        }
    }
}

/// The types that a filter lets through.
pub(super) fn types(filter: &EventFilter) -> impl Iterator<Item = EventType> {
    let wanted = filter.event_type;
    EventType::ALL.into_iter().filter(move |event_type| wanted.is_none_or(|wanted| wanted == *event_type))
}

/// The events of one type of the website with this number.
pub(super) fn stream(site: u32, event_type: EventType) -> Stream {
    Stream::new(site, event_type.as_str().as_bytes())
}

/// The key in a row that begins with `createdAt` and the sequence.
pub(super) fn key_of_row(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key { created_at: row.get(0)?, sequence: row.get::<_, i64>(1)?.unsigned_abs() })
}

/// A sequence as SQLite knows it; one beyond its integers is as good as the highest.
pub(super) fn sql_integer(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

//! Listings: the newest first over all segments, exact totals, and any page at the price of the first.
//!
//! A listing by website and type is merged from sorted sources ([`merge`]); one by session or visitor has few matches,
//! which are looked up and sorted ([`lookup`]). Either gives the keys of a page, and only then whole rows are read.
//! What is hidden ([`hiding`]) or has expired is left out of pages and totals alike.

pub(crate) mod hiding;
pub(crate) mod lookup;
pub(crate) mod merge;
pub(crate) mod page;
mod source;

use self::page::{EventFilter, Page, PageStart, PageSummary, WalkPlace, Wanted};
use super::snapshot::Snapshot;
use crate::{
    event::EventRow,
    store::{error::ReadError, format::row},
};

impl Snapshot<'_> {
    /// Shows `visit` a page of the events that the filter lets through, the newest `createdAt` first, ties by the
    /// newest arrival.
    pub fn list(
        &self,
        filter: &EventFilter,
        page: Page,
        mut visit: impl FnMut(u64, &EventRow<'_>) -> Result<(), ReadError>,
    ) -> Result<PageSummary, ReadError> {
        let nothing = PageSummary { total: 0, next: None };
        let filter = EventFilter { from: filter.from.max(self.expired_before), ..filter.clone() };
        let Some(site) = self.site(&filter.website_id).filter(|_| filter.from < filter.to) else { return Ok(nothing) };
        let high_water_mark = match page.start {
            PageStart::Offset(_) => self.high_water_mark(),
            PageStart::After(place) => place.high_water_mark,
        };
        // One key more than is shown tells whether another page follows.
        let wanted = Wanted { start: page.start, limit: page.limit.saturating_add(1), high_water_mark };
        let (total, mut keys) = if filter.session_id.is_some() || filter.visitor_id.is_some() {
            self.look_up(&filter, site, wanted)?
        } else {
            self.merge(&filter, site, wanted)?
        };
        let is_last = keys.len() as u64 <= page.limit;
        keys.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
        for key in &keys {
            let Some(segment) = self.segment_with(key.sequence) else { continue };
            self.on(segment, |connection| row::fetch(connection, key.sequence, |row| visit(key.sequence, row)))?;
        }
        let next = keys.last().filter(|_| !is_last).map(|last| WalkPlace {
            created_at: last.created_at,
            sequence: last.sequence,
            high_water_mark,
            passed: page.start.passed() + keys.len() as u64,
        });
        Ok(PageSummary { total, next })
    }
}

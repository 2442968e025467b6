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

use std::{ops::ControlFlow, sync::Arc};

use self::page::{EventFilter, Page, PageStart, PageSummary, WalkPlace, Wanted};
use super::snapshot::Snapshot;
use crate::{
    budget::{OverBudget, Share},
    event::EventRow,
    metrics::ReadRefused,
    store::{error::ReadError, format::row, segments::Key},
};

/// The rows of a page that have not been shown yet: they are shown by later questions, each as the store is then. What
/// was erased or has expired in the meantime is passed over, and what came in is not on the page. A clone is at the
/// same row, and goes on by itself.
#[derive(Clone)]
pub struct RestOfPage {
    keys: Arc<Keys>,
    /// How many of them have been shown or passed over.
    shown: usize,
}

struct Keys {
    keys: Vec<Key>,
    /// What counts them.
    _share: Share,
}

impl Snapshot<'_> {
    /// Shows `visit` a page of the events that the filter lets through, the newest `createdAt` first, ties by the
    /// newest arrival, until it has enough. Returns what the page says of the listing, and the rest of the page, whose
    /// keys `share` counts.
    pub fn list(
        &self,
        filter: &EventFilter,
        page: Page,
        mut share: Share,
        mut visit: impl FnMut(u64, &EventRow<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(PageSummary, Option<RestOfPage>), ReadError> {
        let nothing = (PageSummary { total: 0, next: None }, None);
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
        let next = keys.last().filter(|_| !is_last).map(|last| WalkPlace {
            created_at: last.created_at,
            sequence: last.sequence,
            high_water_mark,
            passed: page.start.passed() + keys.len() as u64,
        });
        let mut shown = 0;
        for key in &keys {
            shown += 1;
            let Some(segment) = self.segment_with(key.sequence) else { continue };
            let row =
                self.on(segment, |connection| row::fetch(connection, key.sequence, |row| visit(key.sequence, row)))?;
            if row.is_some_and(|more| more.is_break()) {
                break;
            }
        }
        let summary = PageSummary { total, next };
        if shown >= keys.len() {
            return Ok((summary, None));
        }
        // Many more may have been looked at than are on the page.
        keys.shrink_to_fit();
        share
            .grow_to(keys.capacity() * size_of::<Key>())
            .map_err(|OverBudget| ReadError::Refused(ReadRefused::Memory))?;
        Ok((summary, Some(RestOfPage { keys: Arc::new(Keys { keys, _share: share }), shown })))
    }

    /// Shows `visit` more of a page until it has enough. Returns whether that was the last of it. A visit that fails is
    /// one that did not take place.
    pub fn go_on(
        &self,
        rest: &mut RestOfPage,
        mut visit: impl FnMut(u64, &EventRow<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<bool, ReadError> {
        let keys = Arc::clone(&rest.keys);
        while let Some(key) = keys.keys.get(rest.shown) {
            let more = self.event(key.sequence, |row| visit(key.sequence, row))?;
            rest.shown += 1;
            if more.is_some_and(|more| more.is_break()) {
                break;
            }
        }
        Ok(rest.shown >= keys.keys.len())
    }
}

//! `GET /api/v1/dashboard/top-pages`, `/referrers`, `/devices` and `/locations`: the busiest values of a dimension.

use serde::Serialize;

use super::asking::{Asking, bounce_rate, visit_seconds};
use crate::{
    http::stats::{Meta, shown},
    store::{Dimension, ListOrder, ListReply, ListRow, ReadError},
};

/// Rows of a list of devices: there are three of them, and what has none.
const DEVICES: usize = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    url: String,
    views: i64,
    unique_visitors: u64,
    bounce_rate: i64,
    avg_session_duration: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    referrer: String,
    visitors: u64,
    sessions: i64,
    page_views: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    location: String,
    visitors: u64,
    sessions: i64,
    page_views: i64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Devices {
    mobile: i64,
    desktop: i64,
    tablet: i64,
    other: i64,
}

#[derive(Serialize)]
struct Rows<R> {
    success: bool,
    data: Vec<R>,
    /// Of the rows that are here.
    total: usize,
    meta: Meta,
}

#[derive(Serialize)]
struct Answer<D> {
    success: bool,
    data: D,
    meta: Meta,
}

pub(super) fn top_pages(asking: &Asking<'_>) -> Result<Vec<u8>, ReadError> {
    let page = |row: ListRow| Page {
        url: row.value.unwrap_or_default(),
        views: row.counts.pageviews,
        unique_visitors: row.visitors,
        bounce_rate: bounce_rate(&row.counts),
        avg_session_duration: visit_seconds(&row.counts),
    };
    rows(viewed(asking, Dimension::Page)?, page)
}

pub(super) fn referrers(asking: &Asking<'_>) -> Result<Vec<u8>, ReadError> {
    let referrer = |row: ListRow| Referrer {
        referrer: row.value.unwrap_or_else(|| "Direct".into()),
        visitors: row.visitors,
        sessions: row.counts.visits,
        page_views: row.counts.pageviews,
    };
    rows(viewed(asking, Dimension::Referrer)?, referrer)
}

pub(super) fn locations(asking: &Asking<'_>) -> Result<Vec<u8>, ReadError> {
    let location = |row: ListRow| Location {
        location: row.value.unwrap_or_else(|| "Unknown".into()),
        visitors: row.visitors,
        sessions: row.counts.visits,
        page_views: row.counts.pageviews,
    };
    rows(asking.list(Dimension::Location, ListOrder::Visitors, asking.limit)?, location)
}

pub(super) fn devices(asking: &Asking<'_>) -> Result<Vec<u8>, ReadError> {
    let reply = asking.list(Dimension::DeviceType, ListOrder::Pageviews, DEVICES)?;
    let meta = meta_of(&reply);
    shown(&Answer { success: true, data: Devices::new(&reply), meta })
}

impl Devices {
    fn new(reply: &ListReply) -> Self {
        let mut devices = Self { other: reply.other.pageviews, ..Self::default() };
        for row in &reply.rows {
            let device = match row.value.as_deref() {
                Some("mobile") => &mut devices.mobile,
                Some("desktop") => &mut devices.desktop,
                Some("tablet") => &mut devices.tablet,
                _ => &mut devices.other,
            };
            *device += row.counts.pageviews;
        }
        devices
    }
}

/// The values that were viewed most. What was not viewed is none of them: a page on which there was a click alone.
fn viewed(asking: &Asking<'_>, dimension: Dimension) -> Result<ListReply, ReadError> {
    let mut reply = asking.list(dimension, ListOrder::Pageviews, asking.limit)?;
    reply.rows.retain(|row| row.counts.pageviews > 0);
    Ok(reply)
}

fn rows<R: Serialize>(reply: ListReply, row: impl FnMut(ListRow) -> R) -> Result<Vec<u8>, ReadError> {
    let meta = meta_of(&reply);
    let data: Vec<R> = reply.rows.into_iter().map(row).collect();
    shown(&Rows { success: true, total: data.len(), data, meta })
}

fn meta_of(reply: &ListReply) -> Meta {
    Meta::of([&reply.all].into_iter()).with_errors(reply.rows.iter().map(|row| row.visitors_error))
}

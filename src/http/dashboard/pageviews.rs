//! `GET /api/v1/dashboard/pageviews`: the page views and visitors of each day of UTC, the oldest first.

use serde::Serialize;

use super::asking::{Asking, DAY_MS};
use crate::{
    event::time::time_text,
    http::stats::{Meta, shown},
    store::{ReadError, Span, SpanNumbers},
};

#[derive(Serialize)]
struct Day {
    date: String,
    pageviews: i64,
    visitors: u64,
}

#[derive(Serialize)]
struct Answer {
    success: bool,
    data: Vec<Day>,
    /// Of page views, not of days.
    total: i64,
    meta: Meta,
}

pub(super) fn answer(asking: &Asking<'_>) -> Result<Vec<u8>, ReadError> {
    let days = days_of(asking.range());
    let replies = asking.ask(days.clone())?;
    let day = |(day, numbers): (&Span, &SpanNumbers)| Day {
        date: date_text(day.from),
        pageviews: numbers.counts.pageviews,
        visitors: numbers.visitors,
    };
    let spans = replies.iter().flat_map(|reply| &reply.spans);
    let data: Vec<Day> = days.iter().zip(spans).map(day).collect();
    let total = data.iter().fold(0, |total: i64, day| total.wrapping_add(day.pageviews));
    shown(&Answer { success: true, data, total, meta: Meta::of(replies.iter()) })
}

/// A range cut where days of UTC begin: a whole number of days that does not begin at midnight has a part of one more.
fn days_of(range: Span) -> Vec<Span> {
    let numbers = range.from.div_euclid(DAY_MS)..=(range.to - 1).div_euclid(DAY_MS);
    let day = |number: i64| {
        let midnight = number * DAY_MS;
        Span { from: midnight.max(range.from), to: (midnight + DAY_MS).min(range.to) }
    };
    numbers.map(day).collect()
}

/// The day of UTC that a time is in.
fn date_text(at: i64) -> String {
    let mut text = time_text(at);
    if let Some(end) = text.find('T') {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc_and_make_up_the_range() {
        for (from, to, wanted) in [
            (0, DAY_MS, &[(0, DAY_MS)][..]),
            (DAY_MS - 1, 2 * DAY_MS + 1, &[(DAY_MS - 1, DAY_MS), (DAY_MS, 2 * DAY_MS), (2 * DAY_MS, 2 * DAY_MS + 1)]),
            (5, 6, &[(5, 6)]),
        ] {
            let found: Vec<_> = days_of(Span { from, to }).iter().map(|day| (day.from, day.to)).collect();
            assert_eq!(found, wanted);
        }
        assert_eq!(date_text(1_769_630_400_000), "2026-01-28");
        assert_eq!(date_text(DAY_MS - 1), "1970-01-01");
    }
}

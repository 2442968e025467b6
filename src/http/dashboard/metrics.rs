//! `GET /api/v1/dashboard/metrics`: the numbers of the last days, and how they have changed since as many days before.

use serde::Serialize;

use super::asking::{Asking, bounce_rate, ranges, visit_seconds};
use crate::{
    http::stats::{Meta, shown},
    store::{ReadError, SpanNumbers},
};

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    page_views: i64,
    page_views_change: i64,
    unique_visitors: u64,
    unique_visitors_change: i64,
    sessions: i64,
    sessions_change: i64,
    avg_session_duration: i64,
    avg_session_duration_change: i64,
    bounce_rate: i64,
    bounce_rate_change: i64,
}

#[derive(Serialize)]
struct Answer<'a> {
    success: bool,
    data: Metrics,
    website: &'a str,
    period: String,
    meta: Meta,
}

pub(super) fn answer(asking: &Asking<'_>) -> Result<Vec<u8>, ReadError> {
    let replies = asking.ask(ranges(asking.days, asking.now_ms).to_vec())?;
    let mut spans = replies.iter().flat_map(|reply| &reply.spans);
    let [then, now] = [spans.next(), spans.next()].map(|span| span.copied().unwrap_or_default());
    shown(&Answer {
        success: true,
        data: Metrics::new(&now, &then),
        website: asking.website_id,
        period: format!("Last {} days", asking.days),
        meta: Meta::of(replies.iter()),
    })
}

impl Metrics {
    /// Changes are between the numbers that are shown.
    fn new(now: &SpanNumbers, then: &SpanNumbers) -> Self {
        let of = |number: fn(&SpanNumbers) -> i64| (number(now), change(number(now), number(then)));
        let (page_views, page_views_change) = of(|numbers| numbers.counts.pageviews);
        let (_, unique_visitors_change) = of(|numbers| numbers.visitors.cast_signed());
        let (sessions, sessions_change) = of(|numbers| numbers.counts.visits);
        let (avg_session_duration, avg_session_duration_change) = of(|numbers| visit_seconds(&numbers.counts));
        let bounce_rate_now = bounce_rate(&now.counts);
        Self {
            page_views,
            page_views_change,
            unique_visitors: now.visitors,
            unique_visitors_change,
            sessions,
            sessions_change,
            avg_session_duration,
            avg_session_duration_change,
            bounce_rate: bounce_rate_now,
            bounce_rate_change: bounce_rate_now - bounce_rate(&then.counts),
        }
    }
}

/// A change in percent of what was, a whole number. As JavaScript's `Math.round` does it, halves go up, of negative
/// ones too. What was nothing has grown by 100, if it is something now.
fn change(now: i64, then: i64) -> i64 {
    if then <= 0 {
        return if now > 0 { 100 } else { 0 };
    }
    let (now, then) = (i128::from(now), i128::from(then));
    (200 * (now - then) + then).div_euclid(2 * then) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Counts;

    #[test]
    fn a_change_is_in_whole_percent_with_halves_up() {
        for (now, then, percent) in [
            (0, 0, 0),
            (5, 0, 100),
            (0, 5, -100),
            (5, 5, 0),
            (3, 2, 50),
            (9, 8, 13),
            (7, 8, -12),
            (1, 3, -67),
            (2, 3, -33),
            (1_003, 1_000, 0),
            (1_005, 1_000, 1),
            (995, 1_000, 0),
            (994, 1_000, -1),
            (i64::MAX, i64::MAX, 0),
        ] {
            assert_eq!(change(now, then), percent, "{now} {then}");
        }
    }

    #[test]
    fn rates_change_by_points_and_all_else_by_percent() {
        let numbers = |pageviews, visits, bounces, duration_ms, visitors| {
            let counts = Counts {
                pageviews,
                visits,
                entered: visits,
                bounces,
                duration_ms,
                views: pageviews,
                ..Counts::default()
            };
            SpanNumbers { counts, visitors }
        };
        let found = Metrics::new(&numbers(30, 10, 4, 125_000, 9), &numbers(20, 8, 6, 80_000, 6));
        let wanted = Metrics {
            page_views: 30,
            page_views_change: 50,
            unique_visitors: 9,
            unique_visitors_change: 50,
            sessions: 10,
            sessions_change: 25,
            avg_session_duration: 13,
            avg_session_duration_change: 30,
            bounce_rate: 40,
            bounce_rate_change: -35,
        };
        assert_eq!(found, wanted);
    }
}

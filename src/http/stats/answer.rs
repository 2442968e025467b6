//! Numbers as answers show them.

use serde::Serialize;

use crate::{
    calendar::{Range, Zone},
    event::time::time_text,
    store::{Counts, NumbersReply, SpanNumbers, Website},
};

/// A website, as it stands above its numbers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfWebsite {
    id: String,
    tracking_code: String,
    domain: String,
}

impl From<&Website> for OfWebsite {
    fn from(website: &Website) -> Self {
        let Website { id, tracking_code, domain, .. } = website;
        Self { id: id.to_string(), tracking_code: tracking_code.to_string(), domain: domain.clone() }
    }
}

/// A range of time.
#[derive(Serialize)]
pub(super) struct OfRange {
    from: String,
    to: String,
    timezone: String,
}

impl OfRange {
    pub(super) fn new(range: &Range, zone: &Zone) -> Self {
        Self { from: time_text(range.from), to: time_text(range.to), timezone: zone.name().to_owned() }
    }
}

/// What the numbers are worth.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    as_of: String,
    complete: bool,
    visitors: &'static str,
    visitors_error: f64,
}

impl Meta {
    /// Of one answer, or of several together.
    pub(crate) fn of<'a>(replies: impl Iterator<Item = &'a NumbersReply>) -> Self {
        let (mut as_of, mut complete, mut error) = (i64::MAX, true, None);
        for reply in replies {
            as_of = as_of.min(reply.as_of);
            complete &= reply.is_complete;
            error = error.max(reply.visitors_error.map(|error| (error * 10_000.0).ceil() as u64));
        }
        Self {
            as_of: time_text(as_of.max(0)),
            complete,
            visitors: if error.is_some() { "estimated" } else { "exact" },
            visitors_error: error.unwrap_or(0) as f64 / 10_000.0,
        }
    }

    /// The same where more is estimated: the error is the largest of all.
    pub(crate) fn with_errors(mut self, errors: impl Iterator<Item = Option<f64>>) -> Self {
        for error in errors.flatten() {
            self.visitors = "estimated";
            self.visitors_error = self.visitors_error.max((error * 10_000.0).ceil() / 10_000.0);
        }
        self
    }
}

/// The numbers of a range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metrics {
    pub(super) visitors: u64,
    pub(super) visits: i64,
    pub(super) pageviews: i64,
    pub(super) interactions: i64,
    pub(super) views_per_visit: f64,
    pub(super) bounce_rate: f64,
    pub(super) visit_duration: f64,
    pub(super) engaged_seconds: Option<f64>,
}

/// A part of a whole, times `scale`, rounded to a whole number: halves up. 0 of nothing.
pub(crate) fn scaled(part: i64, whole: i64, scale: i64) -> i64 {
    let (part, whole, scale) = (i128::from(part), i128::from(whole), i128::from(scale));
    if whole <= 0 { 0 } else { ((2 * part * scale + whole) / (2 * whole)) as i64 }
}

impl From<&SpanNumbers> for Metrics {
    fn from(numbers: &SpanNumbers) -> Self {
        let SpanNumbers { counts, visitors } = numbers;
        let Counts {
            pageviews,
            interactions,
            visits,
            entered,
            bounces,
            duration_ms,
            views,
            engaged_ms,
            engagements,
            ..
        } = *counts;
        // Of milliseconds, tenths of a second.
        let seconds = |ms| scaled(ms, visits.saturating_mul(100), 1) as f64 / 10.0;
        Self {
            visitors: *visitors,
            visits,
            pageviews,
            interactions,
            views_per_visit: scaled(views, visits, 100) as f64 / 100.0,
            bounce_rate: scaled(bounces, entered, 1_000) as f64 / 10.0,
            visit_duration: seconds(duration_ms),
            engaged_seconds: (engagements > 0).then(|| seconds(engaged_ms)),
        }
    }
}

/// By how much numbers have changed, in percent of what they were.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    visitors: Option<f64>,
    visits: Option<f64>,
    pageviews: Option<f64>,
    interactions: Option<f64>,
    views_per_visit: Option<f64>,
    bounce_rate: Option<f64>,
    visit_duration: Option<f64>,
    engaged_seconds: Option<f64>,
}

/// The change between two numbers that are shown with at most two decimals.
fn change(now: f64, then: f64) -> Option<f64> {
    let [now, then] = [now, then].map(|number| (number * 100.0).round() as i64);
    if then == 0 {
        return None;
    }
    let tenths = scaled((now - then).abs(), then, 1_000) as f64 / 10.0;
    Some(if now < then { -tenths } else { tenths })
}

impl Change {
    pub(super) fn between(now: &Metrics, then: &Metrics) -> Self {
        let of = |number: fn(&Metrics) -> f64| change(number(now), number(then));
        Self {
            visitors: of(|metrics| metrics.visitors as f64),
            visits: of(|metrics| metrics.visits as f64),
            pageviews: of(|metrics| metrics.pageviews as f64),
            interactions: of(|metrics| metrics.interactions as f64),
            views_per_visit: of(|metrics| metrics.views_per_visit),
            bounce_rate: of(|metrics| metrics.bounce_rate),
            visit_duration: of(|metrics| metrics.visit_duration),
            engaged_seconds: now.engaged_seconds.zip(then.engaged_seconds).and_then(|(now, then)| change(now, then)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_means_are_rounded_halves_up() {
        let counts = Counts {
            events: 30,
            pageviews: 20,
            interactions: 3,
            visits: 8,
            entered: 8,
            bounces: 3,
            duration_ms: 8 * 83_450,
            views: 21,
            engaged_ms: 8 * 1_049,
            engagements: 1,
        };
        let metrics = Metrics::from(&SpanNumbers { counts, visitors: 7 });
        assert_eq!((metrics.bounce_rate, metrics.visit_duration, metrics.views_per_visit), (37.5, 83.5, 2.63));
        assert_eq!(metrics.engaged_seconds, Some(1.0));
        let nothing = Metrics::from(&SpanNumbers::default());
        assert_eq!((nothing.bounce_rate, nothing.visit_duration, nothing.engaged_seconds), (0.0, 0.0, None));
    }

    #[test]
    fn a_change_is_in_percent_of_what_was() {
        for (now, then, changed) in [
            (112.3, 100.0, Some(12.3)),
            (0.0, 4.0, Some(-100.0)),
            (2.0, 3.0, Some(-33.3)),
            (3.0, 2.0, Some(50.0)),
            (2.83, 2.8, Some(1.1)),
            (1_001.0, 2_000.0, Some(-50.0)),
            (1.0, 0.0, None),
            (0.0, 0.0, None),
        ] {
            assert_eq!(change(now, then), changed, "{now} {then}");
        }
    }
}

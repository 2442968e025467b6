//! Numbers as people see them: rates, means and changes, rounded alike wherever they are shown. Pure.

use serde::Serialize;

use crate::{
    calendar::{Bucket, Range, Zone},
    event::time::time_text,
    store::{Counts, ListRow, SpanNumbers},
};

/// A range of time.
#[derive(Debug, Serialize)]
pub struct OfRange {
    /// Its first instant, and the first one behind it.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// The zone of its days.
    pub timezone: String,
}

impl OfRange {
    /// What is shown of it.
    pub fn new(range: &Range, zone: &Zone) -> Self {
        Self { from: time_text(range.from), to: time_text(range.to), timezone: zone.name().to_owned() }
    }
}

/// The numbers of a range.
#[allow(missing_docs, reason = "docs/numbers.md says what each is")]
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    pub visitors: u64,
    pub visits: i64,
    pub pageviews: i64,
    pub interactions: i64,
    pub views_per_visit: f64,
    pub bounce_rate: f64,
    pub visit_duration: f64,
    pub engaged_seconds: Option<f64>,
}

/// A part of a whole, times `scale`, rounded to a whole number: halves up. 0 of nothing.
pub fn scaled(part: i64, whole: i64, scale: i64) -> i64 {
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
#[allow(missing_docs, reason = "docs/numbers.md says what each is")]
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
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
    /// How the first has changed from the second.
    pub fn between(now: &Metrics, then: &Metrics) -> Self {
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

/// A bucket of a series.
#[allow(missing_docs, reason = "docs/numbers.md says what each is")]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketNumbers {
    pub label: String,
    pub at: String,
    pub visitors: u64,
    pub visits: i64,
    pub pageviews: i64,
    pub interactions: i64,
    pub bounce_rate: f64,
    pub visit_duration: f64,
    pub partial: bool,
}

impl BucketNumbers {
    /// What is shown of a bucket.
    pub fn new(bucket: Bucket, numbers: &SpanNumbers) -> Self {
        let Metrics { visitors, visits, pageviews, interactions, bounce_rate, visit_duration, .. } = numbers.into();
        let Bucket { label, at, is_partial: partial, .. } = bucket;
        let at = time_text(at);
        Self { label, at, visitors, visits, pageviews, interactions, bounce_rate, visit_duration, partial }
    }
}

/// A value of a dimension, and what it has.
#[allow(missing_docs, reason = "docs/numbers.md says what each is")]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueNumbers {
    pub value: Option<String>,
    pub visitors: u64,
    pub visits: i64,
    pub pageviews: i64,
    pub events: i64,
    pub bounce_rate: f64,
    pub visit_duration: f64,
    pub share: f64,
}

impl ValueNumbers {
    /// What is shown of a value; its part is of all visitors.
    pub fn new(row: ListRow, visitors_of_all: u64) -> Self {
        let ListRow { value, counts, visitors, .. } = row;
        let Metrics { visits, pageviews, bounce_rate, visit_duration, .. } =
            Metrics::from(&SpanNumbers { counts, visitors });
        // Where visitors are estimated, a part may come out larger than the whole.
        let part = visitors.min(visitors_of_all);
        let share = scaled(part.cast_signed(), visitors_of_all.cast_signed(), 1_000) as f64 / 10.0;
        Self { value, visitors, visits, pageviews, events: counts.events, bounce_rate, visit_duration, share }
    }
}

/// What values have together that are not told apart; a visit counts for each of them.
#[allow(missing_docs, reason = "docs/numbers.md says what each is")]
#[derive(Debug, Serialize)]
pub struct OtherNumbers {
    pub visits: i64,
    pub pageviews: i64,
    pub events: i64,
}

impl From<Counts> for OtherNumbers {
    fn from(Counts { visits, pageviews, events, .. }: Counts) -> Self {
        Self { visits, pageviews, events }
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

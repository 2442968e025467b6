//! Whether an answer is what the oracle says, to the digit.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    calendar::{Bucket, Interval, Range, Zone},
    oracle::{Left, Oracle, Totals, change},
    questions::{Kind, Question, text_of},
};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// What a series has in each bucket.
const OF_A_BUCKET: [&str; 6] = ["visitors", "visits", "pageviews", "interactions", "bounceRate", "visitDuration"];

/// When an answer was made, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub now: i64,
    pub expired_before: Option<i64>,
}

/// One comparison, and what was found.
pub struct Comparison<'a> {
    pub question: &'a Question,
    pub answer: &'a Value,
    pub moment: Moment,
    zone: Zone,
    left: Left,
    pub found: Vec<String>,
}

/// Everything in which an answer is not what it should be, had it been made at this moment.
pub fn differences(oracle: &Oracle, question: &Question, answer: &Value, moment: Moment) -> Vec<String> {
    let zone = Zone::named(question.zone_name());
    let first_at = oracle.first_at(question.website, moment.expired_before);
    let left = oracle.left(question.website, &question.filters, moment.expired_before);
    let expected = question.range(&zone, moment.now, first_at);
    let mut comparison = Comparison { question, answer, moment, zone, left, found: Vec::new() };
    let Some(range) = comparison.range(expected) else { return comparison.found };
    comparison.meta();
    match &question.kind {
        Kind::Totals => comparison.totals(range),
        Kind::Series => comparison.series(range),
        Kind::Top(top) => comparison.list(oracle, top, range),
        Kind::Goals => comparison.goals(oracle, range),
    }
    comparison.found
}

impl Comparison<'_> {
    pub fn expect(&mut self, what: &str, got: &Value, is_right: bool, expected: impl std::fmt::Debug) {
        if !is_right {
            self.found.push(format!("{what} is {got}, and should be {expected:?}"));
        }
    }

    /// A number that has this many units, of which so many make one; a whole one if that is one.
    pub fn number(&mut self, what: &str, got: &Value, units: Option<i64>, per_one: u64) {
        let Some(units) = units else {
            self.expect(what, got, got.is_null(), "null");
            return;
        };
        let expected = units as f64 / per_one as f64;
        let is_right = if per_one == 1 { got.as_i64() == Some(units) } else { got.as_f64() == Some(expected) };
        self.expect(what, got, is_right, expected);
    }

    fn metrics(&mut self, place: &str, got: &Value, expected: &Totals) {
        for (name, units, per_one) in expected.named() {
            self.number(&format!("{place}.{name}"), &got[name], units.map(|units| units as i64), per_one);
        }
    }

    /// The range of the answer, unless that is wrong already.
    fn range(&mut self, expected: Option<Range>) -> Option<Range> {
        let said = &self.answer["range"];
        let range = (instant(&said["from"]), instant(&said["to"]));
        let zone = self.question.zone_name();
        self.expect("range.timezone", &said["timezone"], said["timezone"] == zone, zone);
        let is_right = match (expected, range) {
            (Some(expected), range) => range == (Some(expected.0), Some(expected.1)),
            // The last 24 hours, whenever the question came.
            (None, (Some(from), Some(to))) => to - from == DAY_MS && (to - self.moment.now).abs() <= 30_000,
            _ => false,
        };
        self.expect("range", said, is_right, expected);
        is_right.then(|| range.0.zip(range.1)).flatten()
    }

    fn meta(&mut self) {
        let meta = &self.answer["meta"];
        self.expect("meta.visitors", &meta["visitors"], meta["visitors"] == "exact", "exact");
        let error = &meta["visitorsError"];
        self.expect("meta.visitorsError", error, error.as_f64() == Some(0.0), 0.0);
        self.expect("meta.asOf", &meta["asOf"], instant(&meta["asOf"]).is_some(), "a time");
    }

    fn totals(&mut self, range: Range) {
        let (answer, expected) = (self.answer, self.left.totals(range.0, range.1));
        self.metrics("metrics", &answer["metrics"], &expected);
        let earlier = &answer["comparison"];
        let Some(earlier_range) = self.earlier(range) else {
            self.expect("comparison", earlier, earlier.is_null(), "null");
            return;
        };
        let said = (instant(&earlier["range"]["from"]), instant(&earlier["range"]["to"]));
        let (from, mut to) = earlier_range;
        let has_ended = range.1 <= self.moment.now;
        let is_right = match said {
            (Some(said_from), Some(said_to)) if !has_ended => {
                // Cut at the same point, by the clock on the wall or by the time that has passed.
                let slack = if self.question.compare == Some("year") { 25 * HOUR_MS } else { HOUR_MS } + 30_000;
                let cut = from + (self.moment.now - range.0);
                to = said_to;
                said_from == from && (said_to - cut).abs() <= slack && said_to <= earlier_range.1
            }
            said => said == (Some(from), Some(to)),
        };
        self.expect("comparison.range", &earlier["range"], is_right, earlier_range);
        if !is_right {
            return;
        }
        let then = self.left.totals(from, to);
        self.metrics("comparison.metrics", &earlier["metrics"], &then);
        for ((name, now, _), (_, then, _)) in expected.named().into_iter().zip(then.named()) {
            self.number(&format!("change.{name}"), &earlier["change"][name], change(now, then), 10);
        }
    }

    /// The range to compare with, not cut.
    fn earlier(&self, range: Range) -> Option<Range> {
        match self.question.compare {
            Some("previous") => Some(self.zone.previous(range)),
            Some("year") => Some(self.zone.year_earlier(range)),
            _ => None,
        }
    }

    fn series(&mut self, range: Range) {
        let Some(interval) = self.question.interval(range) else { return };
        let answer = self.answer;
        let name = format!("{interval:?}").to_lowercase();
        self.expect("interval", &answer["interval"], answer["interval"] == *name, &name);
        let buckets = self.zone.buckets(range, interval);
        // Of what a label looks like, only the date is said.
        let label_bytes = if interval == Interval::Month { "2026-11".len() } else { "2026-11-19".len() };
        let series = &Series { place: "series", label_bytes, range };
        self.buckets(series, &answer["series"], &buckets);
        self.partial(&answer["series"], range, &buckets);
        let Some(earlier) = self.earlier(range) else {
            self.expect("comparison", &answer["comparison"], answer["comparison"].is_null(), "null");
            return;
        };
        let length = answer["comparison"].as_array().map(Vec::len);
        self.expect("the comparison's length", &length.into(), length == Some(buckets.len()), buckets.len());
        let then = self.zone.buckets(earlier, interval);
        // Where it is cut, or has another number of buckets, docs/numbers.md does not say which stand side by side.
        if range.1 <= self.moment.now && then.len() == buckets.len() {
            let series = &Series { place: "comparison", label_bytes, range: earlier };
            self.buckets(series, &answer["comparison"], &then);
        }
    }

    fn buckets(&mut self, series: &Series, got: &Value, expected: &[Bucket]) {
        let Series { place, label_bytes, range: (from, to) } = *series;
        let Some(got) = got.as_array().filter(|got| got.len() == expected.len()) else {
            let starts: Vec<_> = expected.iter().map(|bucket| text_of(bucket.from)).collect();
            self.found.push(format!("{place} should have {} buckets: {starts:?}", expected.len()));
            return;
        };
        for (got, bucket) in got.iter().zip(expected) {
            let place = format!("{place} at {}", text_of(bucket.from));
            self.expect(&place, &got["at"], instant(&got["at"]) == Some(bucket.from), bucket.from);
            let date = &bucket.date.to_string()[..label_bytes];
            let is_labelled = got["label"].as_str().is_some_and(|label| label.starts_with(date));
            self.expect(&format!("{place}, label"), &got["label"], is_labelled, date);
            let totals = self.left.totals(bucket.from.max(from), bucket.to.min(to));
            for (name, units, per_one) in totals.named() {
                if OF_A_BUCKET.contains(&name) {
                    self.number(&format!("{place}, {name}"), &got[name], units.map(|units| units as i64), per_one);
                }
            }
        }
    }

    fn partial(&mut self, got: &Value, (from, to): Range, expected: &[Bucket]) {
        for (got, bucket) in got.as_array().into_iter().flatten().zip(expected) {
            let is_partial = bucket.to > self.moment.now || bucket.from < from || bucket.to > to;
            let what = format!("partial at {}", text_of(bucket.from));
            self.expect(&what, &got["partial"], got["partial"] == is_partial, is_partial);
        }
    }
}

/// Buckets of an answer, and what is to know of them all.
struct Series {
    place: &'static str,
    /// So many of the label are the date.
    label_bytes: usize,
    range: Range,
}

pub fn instant(text: &Value) -> Option<i64> {
    text.as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

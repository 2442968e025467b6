//! Ranges, days and zones of docs/numbers.md, by looking at every quarter of an hour. What a zone's clock shows is
//! asked of jiff; where a day, an hour, a week begins is found here.

use jiff::{
    Span, Timestamp,
    civil::Date,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

use super::oracle::QUARTER_MS;

const HOUR_MS: i64 = 60 * 60 * 1_000;

/// From one instant up to, not including, another.
pub type Range = (i64, i64);

/// A zone by its name, with what its clocks show.
pub struct Zone(TimeZone);

/// What a series is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    Hour,
    Day,
    Week,
    Month,
}

/// One of a series, whole, whatever the range of the series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    pub from: i64,
    pub to: i64,
    /// The day that it begins on, as its label has it.
    pub date: Date,
}

impl Zone {
    pub fn named(name: &str) -> Self {
        Self(TimeZone::get(name).unwrap())
    }

    fn shown(&self, at: i64) -> (Date, i8, Offset) {
        let offset = self.0.to_offset(Timestamp::from_millisecond(at).unwrap());
        let local = offset.to_datetime(Timestamp::from_millisecond(at).unwrap());
        (local.date(), local.minute(), offset)
    }

    /// When a day begins: the first instant that shows it, or a later one if the country skipped it.
    pub fn day_start(&self, date: Date) -> i64 {
        let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap().as_millisecond();
        // No sooner than by the zone's offset on either side, and no clock has gone back by so much as two hours more.
        let offset = |at| i64::from(self.shown(at).2.seconds()) * 1_000;
        let mut at = midnight - offset(midnight - 20 * HOUR_MS).max(offset(midnight + 20 * HOUR_MS)) - 2 * HOUR_MS;
        while self.shown(at).0 < date {
            at += QUARTER_MS;
        }
        at
    }

    /// The day that an instant is in.
    pub fn date(&self, at: i64) -> Date {
        let mut date = self.shown(at).0.tomorrow().unwrap();
        while self.day_start(date) > at {
            date = date.yesterday().unwrap();
        }
        date
    }

    /// The days from one up to and including another.
    pub fn days(&self, first: Date, last: Date) -> Range {
        (self.day_start(first), self.day_start(last.tomorrow().unwrap()))
    }

    /// The buckets that have a part of a range.
    pub fn buckets(&self, (from, to): Range, interval: Interval) -> Vec<Bucket> {
        let all = match interval {
            Interval::Hour => self.hours(from, to),
            _ => self.spans_of_days(from, to, interval),
        };
        all.into_iter().filter(|bucket| bucket.from < bucket.to && bucket.from < to && bucket.to > from).collect()
    }

    /// An hour begins where the clock shows a full one, and where it was changed.
    fn hours(&self, from: i64, to: i64) -> Vec<Bucket> {
        let begins = |at: i64| {
            let (_, minute, offset) = self.shown(at);
            minute == 0 || offset != self.shown(at - 1).2
        };
        let first = from - from.rem_euclid(QUARTER_MS) - 2 * HOUR_MS;
        let starts = (0..).map(|quarter| first + quarter * QUARTER_MS).take_while(|&at| at <= to + 2 * HOUR_MS);
        let starts: Vec<i64> = starts.filter(|&at| begins(at)).collect();
        starts.windows(2).map(|pair| Bucket { from: pair[0], to: pair[1], date: self.shown(pair[0]).0 }).collect()
    }

    fn spans_of_days(&self, from: i64, to: i64, interval: Interval) -> Vec<Bucket> {
        let date = self.date(from);
        let (mut date, step) = match interval {
            Interval::Week => {
                let since_monday = date.weekday().to_monday_zero_offset();
                (date.checked_sub(Span::new().days(since_monday)).unwrap(), Span::new().weeks(1))
            }
            Interval::Month => (date.first_of_month(), Span::new().months(1)),
            _ => (date, Span::new().days(1)),
        };
        let mut buckets = Vec::new();
        let mut start = self.day_start(date);
        while start < to {
            let next = date.checked_add(step).unwrap();
            let end = self.day_start(next);
            buckets.push(Bucket { from: start, to: end, date });
            (date, start) = (next, end);
        }
        buckets
    }

    /// The first and the last day of a range that is made of whole ones.
    fn whole_days(&self, (from, to): Range) -> Option<(Date, Date)> {
        let (first, behind) = (self.date(from), self.date(to));
        let is_whole = self.day_start(first) == from && self.day_start(behind) == to && from < to;
        is_whole.then(|| (first, behind.yesterday().unwrap()))
    }

    /// As many days just before, or as long a time.
    pub fn previous(&self, range: Range) -> Range {
        let (from, to) = range;
        let Some((first, last)) = self.whole_days(range) else { return (from - (to - from), from) };
        let days = first.until(last).unwrap().get_days() + 1;
        (self.day_start(first.checked_sub(Span::new().days(days)).unwrap()), from)
    }

    /// The same days a year earlier.
    pub fn year_earlier(&self, range: Range) -> Range {
        let year = Span::new().years(1);
        if let Some((first, last)) = self.whole_days(range) {
            return self.days(first.checked_sub(year).unwrap(), last.checked_sub(year).unwrap());
        }
        let earlier = |at: i64| {
            let then = self.0.to_datetime(Timestamp::from_millisecond(at).unwrap()).checked_sub(year).unwrap();
            // A time that the clock did not show begins where it went on.
            let early = self.0.to_ambiguous_timestamp(then);
            let is_skipped = matches!(early.offset(), AmbiguousOffset::Gap { .. });
            let before = early.earlier().unwrap();
            let change = self.0.following(before).next().filter(|_| is_skipped);
            change.map_or_else(|| self.0.to_timestamp(then).unwrap(), |change| change.timestamp()).as_millisecond()
        };
        (earlier(range.0), earlier(range.1))
    }

    /// The range of a period; `first_at` is the website's first event. None of `24h`, which ends at no full anything,
    /// and of `all` where there are no events.
    pub fn period(&self, name: &str, now: i64, first_at: Option<i64>) -> Option<Range> {
        let today = self.date(now);
        let ago = |days: i64| today.checked_sub(Span::new().days(days)).unwrap();
        let month = today.first_of_month();
        let months_ago = |months: i64| month.checked_sub(Span::new().months(months)).unwrap();
        let (first, last) = match name {
            "today" => (today, today),
            "yesterday" => (ago(1), ago(1)),
            "7d" => (ago(6), today),
            "28d" => (ago(27), today),
            "30d" => (ago(29), today),
            "91d" => (ago(90), today),
            "month" => (month, today.last_of_month()),
            "lastmonth" => (months_ago(1), month.yesterday().unwrap()),
            "year" => (today.first_of_year(), today.last_of_year()),
            "12mo" => (months_ago(11), today.last_of_month()),
            "all" => (self.date(first_at?), today),
            _ => return None,
        };
        Some(self.days(first, last))
    }
}

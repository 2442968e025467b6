//! A range cut into hours, days, weeks or months of a zone.

use std::iter;

use super::{
    day::{Day, HOUR_MS},
    interval::Interval,
    range::Range,
    zone::Zone,
};

/// Where clocks are set at a multiple of this, an hour is cut. Since 1980 all full hours are multiples of it.
const QUARTER_MS: i64 = HOUR_MS / 4;

/// One bucket of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// What the wall clock shows at its start: `2026-11-25T14:00`, `2026-11-25`, of a week its Monday, or `2026-11`. An
    /// hour that comes twice has two buckets with one label.
    pub label: String,
    /// Where it starts as a whole, in milliseconds since 1970: its first instant that exists. That may lie before the
    /// range.
    pub at: i64,
    /// The first instant of it that lies in the range.
    pub from: i64,
    /// The first instant behind what of it lies in the range.
    pub to: i64,
    /// Whether it has not ended yet, or does not lie in the range as a whole.
    pub is_partial: bool,
}

/// A series would have more buckets than are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// All buckets of a range, in order: they follow one another without a gap, and together they are the range. Of a range
/// that has more than `max` no more are made than that.
pub fn buckets(
    range: &Range,
    interval: Interval,
    zone: &Zone,
    now_ms: i64,
    max: usize,
) -> Result<Vec<Bucket>, TooMany> {
    let mut all = walk(range, interval, zone, now_ms);
    let buckets = all.by_ref().take(max).collect();
    match all.next() {
        None => Ok(buckets),
        Some(_) => Err(TooMany),
    }
}

/// The buckets of an earlier range beside those of a later one, position by position: as many as that has. What the
/// earlier one has more is dropped, what it has not is None.
pub fn buckets_like(
    later: &[Bucket],
    earlier: &Range,
    interval: Interval,
    zone: &Zone,
    now_ms: i64,
) -> Vec<Option<Bucket>> {
    let mut all = walk(earlier, interval, zone, now_ms);
    later.iter().map(|_| all.next()).collect()
}

/// Where a bucket starts. The day is that of its label; an hour has no use for it.
#[derive(Debug, Clone, Copy)]
struct Cut {
    day: Day,
    at: i64,
}

fn walk(range: &Range, interval: Interval, zone: &Zone, now_ms: i64) -> impl Iterator<Item = Bucket> {
    let range = *range;
    let mut cut = first_cut(range.from, interval, zone);
    let mut is_done = range.from >= range.to;
    iter::from_fn(move || {
        if is_done {
            return None;
        }
        let mut next = next_cut(cut, interval, zone);
        // A day that the country skipped has no instant, and the one after it begins where it would.
        while next.at <= cut.at {
            cut = next;
            next = next_cut(cut, interval, zone);
        }
        let bucket = Bucket {
            label: label(cut, interval, zone),
            at: cut.at,
            from: cut.at.max(range.from),
            to: next.at.min(range.to),
            is_partial: next.at > now_ms || cut.at < range.from || next.at > range.to,
        };
        is_done = next.at >= range.to;
        cut = next;
        Some(bucket)
    })
}

/// The start of the bucket that an instant lies in.
fn first_cut(instant: i64, interval: Interval, zone: &Zone) -> Cut {
    let day = zone.day_of(instant);
    match interval {
        Interval::Hour => {
            // From the day's start, because every day starts an hour: so hours are the same for every range.
            let mut at = zone.start_of(day);
            loop {
                let next = next_hour(at, zone);
                if next > instant {
                    return Cut { day, at };
                }
                at = next;
            }
        }
        Interval::Day => cut_at(day, zone),
        Interval::Week => cut_at(day.monday(), zone),
        Interval::Month => cut_at(day.first_of_month(0), zone),
    }
}

fn next_cut(cut: Cut, interval: Interval, zone: &Zone) -> Cut {
    match interval {
        Interval::Hour => Cut { day: cut.day, at: next_hour(cut.at, zone) },
        Interval::Day => cut_at(cut.day.plus(1), zone),
        Interval::Week => cut_at(cut.day.plus(7), zone),
        Interval::Month => cut_at(cut.day.first_of_month(1), zone),
    }
}

fn cut_at(day: Day, zone: &Zone) -> Cut {
    Cut { day, at: zone.start_of(day) }
}

/// Where the next hour starts: where the wall clock shows a full hour, or is set to something else.
///
/// St. John's changed its clocks at one minute past midnight, until 2011. An hour is not cut there but goes on to the
/// next full one, so that every hour since 1980 starts with a quarter of an hour of UTC, which is as fine as is counted
/// in advance.
fn next_hour(after: i64, zone: &Zone) -> i64 {
    let to_full_hour = |instant: i64| HOUR_MS - zone.wall_clock(instant).rem_euclid(HOUR_MS);
    let mut at = after;
    loop {
        let full_hour = at + to_full_hour(at);
        let Some(change) = zone.next_change(at).filter(|change| *change < full_hour) else { return full_hour };
        if change % QUARTER_MS == 0 {
            return change;
        }
        at = change;
    }
}

fn label(cut: Cut, interval: Interval, zone: &Zone) -> String {
    match interval {
        Interval::Hour => {
            let clock = zone.wall_clock(cut.at);
            let day = Day::of_wall_clock(clock);
            format!("{day}T{:02}:00", (clock - day.midnight()) / HOUR_MS)
        }
        Interval::Day | Interval::Week => cut.day.to_string(),
        Interval::Month => cut.day.month_text(),
    }
}

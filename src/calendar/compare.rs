//! What a range is compared with.

use super::{
    day::{Day, LAST_MS},
    range::Range,
    zone::Zone,
};

/// What a range is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Nothing.
    None,
    /// As many days just before, or the same length.
    Previous,
    /// The same days a year earlier.
    Year,
}

impl Compare {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::None, Self::Previous, Self::Year];

    /// The comparison with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compare| compare.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Previous => "previous",
            Self::Year => "year",
        }
    }
}

/// The earlier range that this one is compared with. Of a range that goes on, it ends where now is in that one: at the
/// same time of the wall clock where it is made of whole days, else after the same time since its begin.
///
/// That can leave nothing: at half past midnight, of a day that began at one.
pub fn comparison(range: &Range, compare: Compare, zone: &Zone, now_ms: i64) -> Option<Range> {
    let now_ms = now_ms.clamp(0, LAST_MS);
    let goes_on = range.from < now_ms && now_ms < range.to;
    let length = range.to - range.from;
    let (whole, cut) = match (compare, range.days()) {
        (Compare::None, _) => return None,
        (Compare::Previous, Some(days)) => days_earlier(range, days, zone, now_ms, |day| day.plus(-days)),
        (Compare::Year, Some(days)) => days_earlier(range, days, zone, now_ms, Day::a_year_earlier),
        (Compare::Previous, None) => ((range.from - length, range.from), now_ms - length),
        (Compare::Year, None) => {
            let (from, to) = a_year_earlier(range, zone);
            ((from, to), from + (now_ms - range.from))
        }
    };
    let (from, to) = whole;
    Some(Range::new(from, if goes_on { cut.clamp(from, to) } else { to }, zone))
}

/// The range of the days that are `earlier` than those of this one, and where now is in it.
fn days_earlier(range: &Range, days: i64, zone: &Zone, now_ms: i64, earlier: impl Fn(Day) -> Day) -> ((i64, i64), i64) {
    let first = zone.day_of(range.from);
    // The last day and not the one behind it: 28 February a year earlier may be the day before a 29th.
    let last = first.plus(days - 1);
    let whole = (zone.start_of(earlier(first)), zone.start_of(earlier(last).plus(1)));
    (whole, on_another_day(now_ms, zone, earlier))
}

/// Both ends a year earlier, by the wall clock.
fn a_year_earlier(range: &Range, zone: &Zone) -> (i64, i64) {
    let [from, to] = [range.from, range.to].map(|instant| on_another_day(instant, zone, Day::a_year_earlier));
    // From a 28 February to the 29th nothing is left, nor of an hour that did not exist: then it is the same length.
    if from < to { (from, to) } else { (from, from + (range.to - range.from)) }
}

/// When the wall clock showed the same time as at this instant, on another day.
fn on_another_day(instant: i64, zone: &Zone, other: impl Fn(Day) -> Day) -> i64 {
    let clock = zone.wall_clock(instant);
    let day = Day::of_wall_clock(clock);
    zone.first_instant_of(clock - day.midnight() + other(day).midnight())
}

//! How wide the buckets of a series are.

use super::{day::DAY_MS, range::Range};

/// How wide a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// An hour of the wall clock.
    Hour,
    /// A calendar day.
    Day,
    /// A week, from Monday.
    Week,
    /// A calendar month.
    Month,
}

impl Interval {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The one that makes a readable series of a range: hours for up to 2 days, days for up to 92, else months.
    pub fn auto(range: &Range) -> Self {
        const HOURS_DAYS_MAX: i64 = 2;
        const DAYS_DAYS_MAX: i64 = 92;
        let is_within = |days_max: i64| match range.days() {
            // Not the length: where clocks are set back, two days have 49 hours.
            Some(days) => days <= days_max,
            None => range.to - range.from <= days_max * DAY_MS,
        };
        if is_within(HOURS_DAYS_MAX) {
            Self::Hour
        } else if is_within(DAYS_DAYS_MAX) {
            Self::Day
        } else {
            Self::Month
        }
    }
}

/// The interval that was asked for, which may depend on the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntervalChoice {
    /// The one that suits the range.
    Auto,
    /// This one.
    Fixed(Interval),
}

impl IntervalChoice {
    /// The choice with this name: `auto`, or that of an interval.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "auto" {
            return Some(Self::Auto);
        }
        Interval::ALL.into_iter().find(|interval| interval.as_str() == name).map(Self::Fixed)
    }

    /// The interval that this is for a range.
    pub fn of(self, range: &Range) -> Interval {
        match self {
            Self::Auto => Interval::auto(range),
            Self::Fixed(interval) => interval,
        }
    }
}

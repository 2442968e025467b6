//! From one instant up to another: what a question is about.

use super::{
    day::{DAY_MS, Day, LAST_MS},
    moment::{Moment, OUT_OF_YEARS},
    period::Period,
    zone::Zone,
};

/// From one instant up to, not including, another. Made by its constructors only, for a zone.
///
/// What was asked for is never empty, and ends with the year 9999. It may begin some hours before 1970, where the zone
/// is ahead of UTC; what it is compared with may begin long before, and be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first instant, in milliseconds since 1970.
    pub from: i64,
    /// The first instant behind it, in milliseconds since 1970.
    pub to: i64,
    days: Option<i64>,
}

impl Range {
    /// The range of a period, now. `first_event` is when the website's first event happened, if there is one.
    pub fn of_period(period: Period, zone: &Zone, now_ms: i64, first_event: Option<i64>) -> Self {
        // A clock that is set to no time at all must not take the arithmetic beyond the calendar.
        let now_ms = now_ms.clamp(0, zone.start_of(Day::END) - 1);
        let today = zone.day_of(now_ms);
        let tomorrow = today.plus(1);
        let (first, end) = match period {
            Period::Hours24 => return Self::new(now_ms - DAY_MS, now_ms, zone),
            Period::Today => (today, tomorrow),
            Period::Yesterday => (today.plus(-1), today),
            Period::Days7 => (tomorrow.plus(-7), tomorrow),
            Period::Days28 => (tomorrow.plus(-28), tomorrow),
            Period::Days30 => (tomorrow.plus(-30), tomorrow),
            Period::Days91 => (tomorrow.plus(-91), tomorrow),
            Period::Month => (today.first_of_month(0), today.first_of_month(1)),
            Period::LastMonth => (today.first_of_month(-1), today.first_of_month(0)),
            Period::Year => (today.first_of_year(), today.first_of_year().first_of_month(12)),
            Period::Months12 => (today.first_of_month(-11), today.first_of_month(1)),
            // Events may be a little ahead of the clock.
            Period::All => (first_event.map_or(today, |at| zone.day_of(at.clamp(0, LAST_MS)).min(today)), tomorrow),
        };
        Self::new(zone.start_of(first), zone.start_of(end), zone)
    }

    /// The range between two moments; a date at its end belongs to it. The error says what was expected.
    pub fn between(from: Moment, to: Moment, zone: &Zone) -> Result<Self, &'static str> {
        let (from, to) = (from.as_from(zone), to.as_to(zone));
        if from >= to {
            return Err("Expected a time before that of `to`");
        }
        // East of UTC the year 9999 ends earlier, and no date behind it can be written.
        if to > zone.start_of(Day::END) {
            return Err(OUT_OF_YEARS);
        }
        Ok(Self::new(from, to, zone))
    }

    /// How many calendar days it is made of; None where it begins or ends in the midst of one. A day that the country
    /// skipped counts.
    pub fn days(&self) -> Option<i64> {
        self.days
    }

    /// The range between two instants that are in bounds.
    pub(super) fn new(from: i64, to: i64, zone: &Zone) -> Self {
        let [first, end] = [from, to].map(|at| Some(zone.day_of(at)).filter(|day| zone.start_of(*day) == at));
        Self { from, to, days: first.zip(end).map(|(first, end)| end.since(first)) }
    }
}

//! A date of the calendar as a number, so that it can be counted with. Knows no zone and no instant.

use std::fmt;

use jiff::{
    SignedDuration, ToSpan,
    civil::{Date, date},
};

pub(super) const HOUR_MS: i64 = 60 * 60 * 1_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// The last instant that a text can name: the end of the year 9999, of UTC.
pub(super) const LAST_MS: i64 = 253_402_300_799_999;

const IN_1970: Date = date(1970, 1, 1);

/// A date: the days from 1 January 1970 to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(i64);

impl Day {
    /// The first day that a range may have.
    pub(super) const FIRST: Self = Self(0);
    /// The day after the last one that a range may have: 1 January 10000, of which jiff knows no date.
    pub(super) const END: Self = Self(2_932_897);

    /// The day of this date.
    pub(super) fn of(date: Date) -> Self {
        Self(date.duration_since(IN_1970).as_hours() / 24)
    }

    /// The day that a wall clock shows, which is told in milliseconds since 1970 as if it were that of UTC.
    pub(super) fn of_wall_clock(milliseconds: i64) -> Self {
        Self(milliseconds.div_euclid(DAY_MS))
    }

    /// What a wall clock shows at the day's midnight.
    pub(super) fn midnight(self) -> i64 {
        self.0 * DAY_MS
    }

    /// So many days later, or earlier.
    pub(super) fn plus(self, days: i64) -> Self {
        Self(self.0 + days)
    }

    /// The days from that one to this one.
    pub(super) fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// The Monday of its week.
    pub(super) fn monday(self) -> Self {
        // 1 January 1970 was a Thursday.
        Self(self.0 - (self.0 + 3).rem_euclid(7))
    }

    /// The first day of the month that is so many months after its own, or before it.
    pub(super) fn first_of_month(self, months_later: i64) -> Self {
        let date = self.date();
        let months = i64::from(date.year()) * 12 + i64::from(date.month()) - 1 + months_later;
        let year = i16::try_from(months.div_euclid(12)).unwrap_or(i16::MAX);
        let month = i8::try_from(months.rem_euclid(12) + 1).unwrap_or(1);
        // The only month that a range reaches and jiff does not know is the one behind the year 9999.
        Date::new(year, month, 1).map_or(Self::END, Self::of)
    }

    /// 1 January of its year.
    pub(super) fn first_of_year(self) -> Self {
        Self::of(self.date().first_of_year())
    }

    /// The same date a year earlier; 28 February for a 29th.
    pub(super) fn a_year_earlier(self) -> Self {
        Self::of(self.date().saturating_sub(1.year()))
    }

    /// Its month, as `2026-11`.
    pub(super) fn month_text(self) -> String {
        let date = self.date();
        format!("{:04}-{:02}", date.year(), date.month())
    }

    fn date(self) -> Date {
        IN_1970.saturating_add(SignedDuration::from_hours(self.0 * 24))
    }
}

/// As `2026-11-25`.
impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.date().fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (year, month, day, number, monday) in [
            (1970, 1, 1, 0, "1969-12-29"),
            (1970, 1, 4, 3, "1969-12-29"),
            (1970, 1, 5, 4, "1970-01-05"),
            (2000, 2, 29, 11_016, "2000-02-28"),
            (2026, 11, 25, 20_782, "2026-11-23"),
            (9999, 12, 31, 2_932_896, "9999-12-27"),
        ] {
            let of_date = Day::of(date(year, month, day));
            assert_eq!(of_date, Day(number));
            assert_eq!(of_date.to_string(), date(year, month, day).to_string());
            assert_eq!(of_date.monday().to_string(), monday, "{of_date}");
        }
        assert_eq!(Day::END.midnight(), LAST_MS + 1);
        assert_eq!(Day::of(date(9999, 12, 31)).plus(1), Day::END);
        assert_eq!([-1, 0, DAY_MS - 1, DAY_MS].map(Day::of_wall_clock), [Day(-1), Day(0), Day(0), Day(1)]);
    }

    #[test]
    fn months_and_years_are_counted_on_the_calendar() {
        for (day, months, text) in [
            (date(2026, 11, 25), 0, "2026-11-01"),
            (date(2026, 11, 25), 1, "2026-12-01"),
            (date(2026, 11, 25), 2, "2027-01-01"),
            (date(2026, 1, 31), -1, "2025-12-01"),
            (date(2026, 11, 25), -11, "2025-12-01"),
            (date(1970, 1, 1), -1, "1969-12-01"),
            (date(9999, 12, 31), 0, "9999-12-01"),
        ] {
            assert_eq!(Day::of(day).first_of_month(months).to_string(), text, "{day} {months}");
        }
        assert_eq!(Day::of(date(9999, 12, 5)).first_of_month(1), Day::END);
        assert_eq!(Day::of(date(2026, 11, 25)).first_of_year().to_string(), "2026-01-01");
        assert_eq!(Day::of(date(2026, 1, 25)).month_text(), "2026-01");
        for (day, earlier) in [
            (date(2024, 2, 29), "2023-02-28"),
            (date(2024, 2, 28), "2023-02-28"),
            (date(2025, 2, 28), "2024-02-28"),
            (date(2026, 11, 25), "2025-11-25"),
        ] {
            assert_eq!(Day::of(day).a_year_earlier().to_string(), earlier, "{day}");
        }
    }
}

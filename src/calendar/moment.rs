//! One end of a range, as it is written.

use std::ops::RangeInclusive;

use jiff::civil::Date;

use crate::event::time::parse_time;

use super::{
    day::{Day, LAST_MS},
    zone::Zone,
};

/// More than a time has, in bytes, with as many digits of a second as jiff reads.
const TEXT_BYTES_MAX: usize = 64;

const TIMES: RangeInclusive<i64> = 0..=LAST_MS;

pub(super) const OUT_OF_YEARS: &str = "Expected a time from 1970 to the end of the year 9999";

/// One end of a range: an instant, or a date whose midnight depends on the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(Written);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Instant(i64),
    Date(Day),
}

impl Moment {
    /// Reads RFC 3339 with its offset, milliseconds since 1970, or a date such as 2026-11-25. The error says what was
    /// expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() <= TEXT_BYTES_MAX && is_shaped_as_date(text) {
            let date: Date = text.parse().map_err(|_| "Expected a day of the calendar, such as 2026-11-25")?;
            let day = Day::of(date);
            return if day < Day::FIRST { Err(OUT_OF_YEARS) } else { Ok(Self(Written::Date(day))) };
        }
        let time = if text.len() > TEXT_BYTES_MAX { None } else { parse_time(text) };
        match time {
            Some(time) if TIMES.contains(&time) => Ok(Self(Written::Instant(time))),
            Some(_) => Err(OUT_OF_YEARS),
            None => Err("Expected a date such as 2026-11-25, RFC 3339 such as 2026-11-25T14:00:00Z, or milliseconds \
                         since 1970"),
        }
    }

    /// The instant, where a range begins with this. Of a date, its first one.
    pub(super) fn as_from(self, zone: &Zone) -> i64 {
        match self.0 {
            Written::Instant(instant) => instant,
            Written::Date(day) => zone.start_of(day),
        }
    }

    /// The instant that a range does not reach any more. A date is included, so that is where the next one begins.
    pub(super) fn as_to(self, zone: &Zone) -> i64 {
        match self.0 {
            Written::Instant(instant) => instant,
            Written::Date(day) => zone.start_of(day.plus(1)),
        }
    }
}

fn is_shaped_as_date(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let utc = Zone::utc();
        for (text, from, to) in [
            ("0", 0, 0),
            ("1795618800000", 1_795_618_800_000, 1_795_618_800_000),
            ("253402300799999", LAST_MS, LAST_MS),
            ("2026-11-25T14:20:00+01:00", 1_795_612_800_000, 1_795_612_800_000),
            ("9999-12-31T23:59:59.999Z", LAST_MS, LAST_MS),
            ("1970-01-01", 0, 86_400_000),
            ("2024-02-29", 1_709_164_800_000, 1_709_251_200_000),
            ("9999-12-31", LAST_MS + 1 - 86_400_000, LAST_MS + 1),
        ] {
            let moment = Moment::parse(text);
            assert_eq!(moment.map(|moment| (moment.as_from(&utc), moment.as_to(&utc))), Ok((from, to)), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment() {
        let (digits, fraction) = ("1".repeat(10_000), format!("2026-11-25T14:00:00.{}Z", "0".repeat(10_000)));
        for (text, expected) in [
            ("", "Expected a date such as"),
            (" ", "Expected a date such as"),
            ("-1", "Expected a date such as"),
            ("+1", "Expected a date such as"),
            ("1e3", "Expected a date such as"),
            ("yesterday", "Expected a date such as"),
            ("2026-11", "Expected a date such as"),
            ("2026-1-25", "Expected a date such as"),
            ("2026-11-25 ", "Expected a date such as"),
            ("12026-11-25", "Expected a date such as"),
            ("12000-01-01", "Expected a date such as"),
            ("+012000-01-01", "Expected a date such as"),
            ("12000-01-01T00:00:00Z", "Expected a date such as"),
            ("2026-11-25T14:00:00", "Expected a date such as"),
            ("2026-11-25T14:00:00 01:00", "Expected a date such as"),
            ("2026-11-25T14:00:00Z\0", "Expected a date such as"),
            ("2026-02-30T14:00:00Z", "Expected a date such as"),
            ("２026-11-2", "Expected a date such as"),
            (&digits, "Expected a date such as"),
            (&fraction, "Expected a date such as"),
            ("2026-02-30", "Expected a day of the calendar"),
            ("2025-02-29", "Expected a day of the calendar"),
            ("2026-13-01", "Expected a day of the calendar"),
            ("2026-00-00", "Expected a day of the calendar"),
            ("1969-12-31", "Expected a time from 1970"),
            ("1969-12-31T23:59:59Z", "Expected a time from 1970"),
            ("0000-01-01", "Expected a time from 1970"),
            ("253402300800000", "Expected a time from 1970"),
            ("9223372036854775807", "Expected a time from 1970"),
            ("9999-12-31T23:59:59-01:00", "Expected a time from 1970"),
        ] {
            let outcome = Moment::parse(text);
            assert!(outcome.is_err_and(|error| error.starts_with(expected)), "{text:.50}: {outcome:?}");
        }
    }
}

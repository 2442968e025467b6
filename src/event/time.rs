//! Times as the API writes and takes them.

use std::ops::Range;

use jiff::{
    SignedDuration,
    civil::{DateTime, date},
    fmt::temporal::{DateTimePrinter, Pieces},
};

const IN_1970: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Writes milliseconds since 1970 as RFC 3339 with milliseconds and `Z`.
pub fn write_time(out: &mut Vec<u8>, milliseconds: i64) {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    // A civil time, because jiff's timestamps end a day before the year 9999 does. Times are checked when they come
    // in, so the fallback is never seen.
    let time = IN_1970.checked_add(SignedDuration::from_millis(milliseconds)).unwrap_or(DateTime::MAX);
    let _ = PRINTER.print_datetime(&time, &mut *out);
    out.push(b'Z');
}

/// Milliseconds since 1970 as a text: RFC 3339 with milliseconds and `Z`.
pub fn time_text(milliseconds: i64) -> String {
    let mut out = Vec::with_capacity(24);
    write_time(&mut out, milliseconds);
    String::from_utf8(out).unwrap_or_default()
}

/// Reads milliseconds since 1970, given as digits or as RFC 3339 with its offset. A finer time is
/// rounded up to a millisecond, so that it divides events into before and after as the finer time does. The seconds
/// since 1970 know no leap second: 23:59:60 is the second that follows it.
pub fn parse_time(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    // jiff reads more than RFC 3339: hours alone, offsets of hours alone or with seconds, names of time zones.
    let pieces = Pieces::parse(text).ok().filter(|_| is_rfc_3339(text.as_bytes()))?;
    let offset = pieces.to_numeric_offset()?;
    let local = DateTime::from_parts(pieces.date(), pieces.time()?);
    // jiff reads a leap second as the second before it.
    let leap = SignedDuration::from_secs(i64::from(&text.as_bytes()[SECONDS] == b"60"));
    let since_1970 = local.duration_since(IN_1970) + leap - SignedDuration::from_secs(offset.seconds().into());
    let nanoseconds = since_1970.as_nanos();
    i64::try_from((nanoseconds + 999_999).div_euclid(1_000_000)).ok()
}

/// Where the seconds stand in a time of RFC 3339.
const SECONDS: Range<usize> = 17..19;

/// Whether this has the shape of RFC 3339: `2026-01-28T20:00:00`, a fraction or none, and `Z` or `+01:30`.
fn is_rfc_3339(text: &[u8]) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let Some((time, rest)) = text.split_at_checked(SHAPE.len()) else { return false };
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte.eq_ignore_ascii_case(shape),
    };
    let zone = match rest {
        [b'.', rest @ ..] => &rest[rest.iter().take_while(|byte| byte.is_ascii_digit()).count()..],
        _ => rest,
    };
    time.iter().zip(SHAPE).all(fits)
        && match zone {
            b"Z" | b"z" => true,
            [b'+' | b'-', tens, ones, b':', _, _] => [*tens, *ones] <= *b"23",
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_769_630_400_001, "2026-01-28T20:00:00.001Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time_text(milliseconds), text);
            assert_eq!(parse_time(text), Some(milliseconds));
        }
    }

    #[test]
    fn times_are_read() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("1769630400001", Some(1_769_630_400_001)),
            ("2026-01-28T20:00:00Z", Some(1_769_630_400_000)),
            ("2026-01-28t20:00:00.001z", Some(1_769_630_400_001)),
            ("2026-01-28T21:30:00+01:30", Some(1_769_630_400_000)),
            ("2026-01-28T20:00:00.0010001Z", Some(1_769_630_400_002)),
            ("1969-12-31T23:59:59.9995Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-1_000)),
            ("2016-12-31T23:59:59Z", Some(1_483_228_799_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("2016-12-31T18:59:60.25-05:00", Some(1_483_228_800_250)),
            ("2017-01-01T05:29:60.0001+05:30", Some(1_483_228_800_001)),
            ("2016-12-31T23:59:61Z", None),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("99999999999999999999", None),
            ("2026-01-28", None),
            ("2026-01-28T20:00:00", None),
            ("2026-01-28T20:00Z", None),
            ("2026-01-28T20:00+01:00", None),
            ("2026-01-28T20+01:00:00", None),
            ("2026-01-28T200000+01:00", None),
            ("2026-01-28T20:00:00+01", None),
            ("2026-01-28T20:00:00+0100", None),
            ("2026-01-28T20:00:00+01:00:30", None),
            ("2026-01-28T20:00:00+24:00", None),
            ("2026-01-28T20:00:00,5Z", None),
            ("2026-01-28 20:00:00Z", None),
            ("2026-02-30T20:00:00Z", None),
            ("2026-01-28T20:00:00Z[UTC]", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_time(text), milliseconds, "{text}");
        }
    }
}

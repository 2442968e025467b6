//! Periods, ranges between moments, and what they are compared with.

use super::{
    super::{Compare, Moment, Period, Range, comparison, day::Day},
    Zone, at, between, ends, zone,
};

#[test]
fn periods_are_ranges() {
    let berlin = zone("Europe/Berlin");
    // A Wednesday in Berlin, half past midnight; in UTC it is Tuesday still.
    let (now, first) = (at("2026-11-24T23:30Z"), Some(at("2026-11-20T10:00Z")));
    for (period, from, to, days) in [
        (Period::Today, "2026-11-24T23:00Z", "2026-11-25T23:00Z", Some(1)),
        (Period::Yesterday, "2026-11-23T23:00Z", "2026-11-24T23:00Z", Some(1)),
        (Period::Hours24, "2026-11-23T23:30Z", "2026-11-24T23:30Z", None),
        (Period::Days7, "2026-11-18T23:00Z", "2026-11-25T23:00Z", Some(7)),
        (Period::Days28, "2026-10-28T23:00Z", "2026-11-25T23:00Z", Some(28)),
        (Period::Days30, "2026-10-26T23:00Z", "2026-11-25T23:00Z", Some(30)),
        (Period::Days91, "2026-08-26T22:00Z", "2026-11-25T23:00Z", Some(91)),
        (Period::Month, "2026-10-31T23:00Z", "2026-11-30T23:00Z", Some(30)),
        (Period::LastMonth, "2026-09-30T22:00Z", "2026-10-31T23:00Z", Some(31)),
        (Period::Year, "2025-12-31T23:00Z", "2026-12-31T23:00Z", Some(365)),
        (Period::Months12, "2025-11-30T23:00Z", "2026-11-30T23:00Z", Some(365)),
        (Period::All, "2026-11-19T23:00Z", "2026-11-25T23:00Z", Some(6)),
    ] {
        let range = Range::of_period(period, &berlin, now, first);
        assert_eq!((ends(&range), range.days()), ([from, to].map(str::to_owned), days), "{period:?}");
    }
    for first in [None, Some(now), Some(now + 200_000_000), Some(i64::MAX)] {
        let today = Range::of_period(Period::Today, &berlin, now, None);
        assert_eq!(Range::of_period(Period::All, &berlin, now, first), today, "{first:?}");
    }
    assert_eq!(Range::of_period(Period::All, &Zone::utc(), now, Some(i64::MIN)).from, 0);
}

#[test]
fn periods_at_the_ends_of_months_and_years() {
    for (name, now, period, from, to) in [
        ("UTC", "2026-01-01T00:00Z", Period::LastMonth, "2025-12-01T00:00Z", "2026-01-01T00:00Z"),
        ("UTC", "2024-03-31T23:59Z", Period::LastMonth, "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
        ("UTC", "2026-12-31T23:59Z", Period::Months12, "2026-01-01T00:00Z", "2027-01-01T00:00Z"),
        ("UTC", "2026-01-15T00:00Z", Period::Months12, "2025-02-01T00:00Z", "2026-02-01T00:00Z"),
        ("Pacific/Apia", "2011-12-30T12:00Z", Period::Today, "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        ("Pacific/Apia", "2011-12-30T12:00Z", Period::Month, "2011-12-01T10:00Z", "2011-12-31T10:00Z"),
        ("America/Sao_Paulo", "2018-11-04T03:00Z", Period::Today, "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        ("America/Sao_Paulo", "2018-11-04T02:59Z", Period::Today, "2018-11-03T03:00Z", "2018-11-04T03:00Z"),
        // Midnight was there, one minute later the clocks were set back over it, and the day had begun.
        ("America/St_Johns", "2010-11-07T02:31Z", Period::Today, "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
        ("America/St_Johns", "2010-11-07T03:29Z", Period::Today, "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
    ] {
        let range = Range::of_period(period, &zone(name), at(now), None);
        assert_eq!(ends(&range), [from, to], "{name} {now} {period:?}");
    }
}

#[test]
fn ranges_lie_between_moments() {
    let berlin = zone("Europe/Berlin");
    for (from, to, expected_from, expected_to, days) in [
        ("2026-10-25", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z", Some(1)),
        ("2026-10-24", "2026-10-26", "2026-10-23T22:00Z", "2026-10-26T23:00Z", Some(3)),
        ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "2026-10-24T22:00Z", "2026-10-25T23:00Z", Some(1)),
        ("2026-10-25", "2026-10-25T12:00:00Z", "2026-10-24T22:00Z", "2026-10-25T12:00Z", None),
        ("1792879200000", "2026-10-25", "2026-10-24T22:00Z", "2026-10-25T23:00Z", Some(1)),
        ("1970-01-01", "1970-01-01", "1969-12-31T23:00Z", "1970-01-01T23:00Z", Some(1)),
        ("9999-12-31", "9999-12-31", "9999-12-30T23:00Z", "9999-12-31T23:00Z", Some(1)),
    ] {
        let range = between(from, to, &berlin);
        let expected = ([expected_from, expected_to].map(str::to_owned), days);
        assert_eq!((ends(&range), range.days()), expected, "{from} {to}");
    }
    for (name, from, to, error) in [
        ("UTC", "2026-10-26", "2026-10-25", "Expected a time before"),
        ("UTC", "2026-10-26", "2026-10-26T00:00:00Z", "Expected a time before"),
        ("UTC", "5", "5", "Expected a time before"),
        ("Pacific/Apia", "2011-12-30", "2011-12-30", "Expected a time before"),
        ("Europe/Berlin", "2026-10-25", "253402300799999", "Expected a time from 1970"),
        ("Pacific/Kiritimati", "9999-12-31T22:00:00Z", "9999-12-31T23:00:00Z", "Expected a time from 1970"),
    ] {
        let [from, to] = [from, to].map(|text| Moment::parse(text).unwrap());
        let outcome = Range::between(from, to, &zone(name));
        assert!(outcome.is_err_and(|text| text.starts_with(error)), "{from:?} {to:?}: {outcome:?}");
    }
    assert!(Range::between(Moment::parse("0").unwrap(), Moment::parse("9999-12-31").unwrap(), &Zone::utc()).is_ok());
}

#[test]
fn ranges_that_have_ended_are_compared_as_a_whole() {
    use Compare::{Previous, Year};
    for (name, from, to, compare, earlier_from, earlier_to) in [
        ("UTC", "2026-11-25", "2026-11-25", Previous, "2026-11-24T00:00Z", "2026-11-25T00:00Z"),
        ("UTC", "2026-11-19", "2026-11-25", Previous, "2026-11-12T00:00Z", "2026-11-19T00:00Z"),
        // A month is so many days.
        ("UTC", "2026-03-01", "2026-03-31", Previous, "2026-01-29T00:00Z", "2026-03-01T00:00Z"),
        ("Europe/Berlin", "2026-10-25", "2026-10-25", Previous, "2026-10-23T22:00Z", "2026-10-24T22:00Z"),
        ("Europe/Berlin", "2026-10-26", "2026-10-26", Previous, "2026-10-24T22:00Z", "2026-10-25T23:00Z"),
        ("America/Sao_Paulo", "2018-11-05", "2018-11-05", Previous, "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        (
            "Europe/Berlin",
            "2026-10-25T00:30:00Z",
            "2026-10-26T00:00:00Z",
            Previous,
            "2026-10-24T01:00Z",
            "2026-10-25T00:30Z",
        ),
        ("UTC", "2026-11-25", "2026-11-25", Year, "2025-11-25T00:00Z", "2025-11-26T00:00Z"),
        ("Europe/Berlin", "2026-10-25", "2026-10-26", Year, "2025-10-24T22:00Z", "2025-10-26T23:00Z"),
        ("UTC", "2024-02-29", "2024-02-29", Year, "2023-02-28T00:00Z", "2023-03-01T00:00Z"),
        ("UTC", "2024-02-01", "2024-02-29", Year, "2023-02-01T00:00Z", "2023-03-01T00:00Z"),
        ("UTC", "2024-02-29", "2024-03-01", Year, "2023-02-28T00:00Z", "2023-03-02T00:00Z"),
        ("UTC", "2025-02-01", "2025-02-28", Year, "2024-02-01T00:00Z", "2024-02-29T00:00Z"),
        ("UTC", "2025-01-01", "2025-12-31", Year, "2024-01-01T00:00Z", "2025-01-01T00:00Z"),
        ("UTC", "2026-11-25T10:00:00Z", "2026-11-26T10:00:00Z", Year, "2025-11-25T10:00Z", "2025-11-26T10:00Z"),
        (
            "Europe/Berlin",
            "2026-03-29T12:00:00Z",
            "2026-03-29T14:00:00Z",
            Year,
            "2025-03-29T13:00Z",
            "2025-03-29T15:00Z",
        ),
        // Nothing is left by the dates alone.
        ("UTC", "2024-02-28T14:00:00Z", "2024-02-29T14:00:00Z", Year, "2023-02-28T14:00Z", "2023-03-01T14:00Z"),
        (
            "Europe/Berlin",
            "2027-03-29T00:00:00Z",
            "2027-03-29T00:30:00Z",
            Year,
            "2026-03-29T01:00Z",
            "2026-03-29T01:30Z",
        ),
    ] {
        let zone = zone(name);
        let range = between(from, to, &zone);
        let ended = [range.to, i64::MAX, range.from, 0, i64::MIN];
        for now in ended {
            let earlier = comparison(&range, compare, &zone, now).unwrap();
            assert_eq!(ends(&earlier), [earlier_from, earlier_to], "{name} {from} {to} {compare:?} at {now}");
        }
        assert_eq!(comparison(&range, Compare::None, &zone, range.to), None);
    }
}

#[test]
fn what_goes_on_is_compared_up_to_the_same_point() {
    use Compare::{Previous, Year};
    for (name, period, now, compare, from, to) in [
        ("UTC", Period::Today, "2026-11-25T17:20Z", Previous, "2026-11-24T00:00Z", "2026-11-24T17:20Z"),
        ("UTC", Period::Days7, "2026-11-25T17:20Z", Previous, "2026-11-12T00:00Z", "2026-11-18T17:20Z"),
        ("UTC", Period::Days7, "2026-11-25T17:20Z", Year, "2025-11-19T00:00Z", "2025-11-25T17:20Z"),
        ("UTC", Period::Month, "2026-03-10T12:00Z", Previous, "2026-01-29T00:00Z", "2026-02-07T12:00Z"),
        ("UTC", Period::Year, "2024-12-01T12:00Z", Year, "2023-01-01T00:00Z", "2023-12-01T12:00Z"),
        ("UTC", Period::Month, "2024-02-29T14:00Z", Year, "2023-02-01T00:00Z", "2023-02-28T14:00Z"),
        // The same time of the wall clock, where a day has 23 or 25 hours.
        ("Europe/Berlin", Period::Today, "2026-10-25T12:00Z", Previous, "2026-10-23T22:00Z", "2026-10-24T11:00Z"),
        ("Europe/Berlin", Period::Today, "2026-10-26T12:00Z", Previous, "2026-10-24T22:00Z", "2026-10-25T12:00Z"),
        ("Europe/Berlin", Period::Today, "2026-03-29T12:00Z", Previous, "2026-03-27T23:00Z", "2026-03-28T13:00Z"),
        // A time that there was not, and one that there was twice.
        ("Europe/Berlin", Period::Today, "2026-03-30T00:30Z", Previous, "2026-03-28T23:00Z", "2026-03-29T01:00Z"),
        ("Europe/Berlin", Period::Today, "2026-10-26T01:30Z", Previous, "2026-10-24T22:00Z", "2026-10-25T00:30Z"),
        ("America/Sao_Paulo", Period::Today, "2018-11-05T02:30Z", Previous, "2018-11-04T03:00Z", "2018-11-04T03:00Z"),
        // The clock shows the evening again, of a day that the range has not got.
        ("America/St_Johns", Period::Today, "2010-11-07T02:40Z", Previous, "2010-11-06T02:30Z", "2010-11-06T02:30Z"),
        // The last 24 hours have always ended.
        ("UTC", Period::Hours24, "2026-11-25T17:20Z", Previous, "2026-11-23T17:20Z", "2026-11-24T17:20Z"),
        ("UTC", Period::Hours24, "2026-11-25T17:20Z", Year, "2025-11-24T17:20Z", "2025-11-25T17:20Z"),
    ] {
        let zone = zone(name);
        let range = Range::of_period(period, &zone, at(now), None);
        let earlier = comparison(&range, compare, &zone, at(now)).unwrap();
        assert_eq!(ends(&earlier), [from, to], "{name} {period:?} {now} {compare:?}");
    }
    let berlin = zone("Europe/Berlin");
    for (from, to, now, compare, earlier_from, earlier_to) in [
        (
            "2026-10-25T00:30:00Z",
            "2026-10-25T20:30:00Z",
            "2026-10-25T10:30Z",
            Previous,
            "2026-10-24T04:30Z",
            "2026-10-24T14:30Z",
        ),
        (
            "2026-10-25T00:30:00Z",
            "2026-10-25T20:30:00Z",
            "2026-10-25T10:30Z",
            Year,
            "2025-10-25T00:30Z",
            "2025-10-25T10:30Z",
        ),
        // From one to five, which was three hours a year earlier.
        (
            "2027-03-28T23:00:00Z",
            "2027-03-29T03:00:00Z",
            "2027-03-29T02:30Z",
            Year,
            "2026-03-29T00:00Z",
            "2026-03-29T03:00Z",
        ),
        // It has ended, on a day that has none a year earlier.
        ("2024-02-28", "2024-02-28", "2024-02-29T12:00Z", Year, "2023-02-27T23:00Z", "2023-02-28T23:00Z"),
    ] {
        let range = between(from, to, &berlin);
        let earlier = comparison(&range, compare, &berlin, at(now)).unwrap();
        assert_eq!(ends(&earlier), [earlier_from, earlier_to], "{from} {to} {now} {compare:?}");
    }
}

#[test]
fn a_clock_that_is_set_to_no_time_does_no_harm() {
    for name in ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin"] {
        let zone = zone(name);
        for now in [i64::MIN, -1, 0, 253_402_300_799_999, i64::MAX] {
            for period in Period::ALL {
                let range = Range::of_period(period, &zone, now, Some(now));
                assert!(range.from < range.to, "{name} {now} {period:?}");
                assert!(range.to <= zone.start_of(Day::END), "{name} {now} {period:?}");
                for compare in Compare::ALL {
                    let earlier = comparison(&range, compare, &zone, now);
                    assert!(earlier.is_none_or(|earlier| earlier.from <= earlier.to), "{name} {now} {period:?}");
                }
            }
        }
    }
}

#[test]
fn comparisons_have_names() {
    for compare in Compare::ALL {
        assert_eq!(Compare::from_name(compare.as_str()), Some(compare));
    }
    assert_eq!(["", "None", "week"].map(Compare::from_name), [None; 3]);
}

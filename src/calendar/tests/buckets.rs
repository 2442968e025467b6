//! Buckets at the changes of clocks, worked out by hand.

use super::{
    super::{
        Bucket, Compare, Interval, IntervalChoice, Moment, Period, Range, TooMany, buckets, buckets_like, comparison,
    },
    Zone, at, between, labels, text, zone,
};

/// A time that is later than all that is asked for here.
const LATE: i64 = 4_000_000_000_000;

fn series(name: &str, from: &str, to: &str, interval: Interval) -> Vec<Bucket> {
    let zone = zone(name);
    buckets(&between(from, to, &zone), interval, &zone, LATE, 2_000).unwrap()
}

/// The starts of these buckets and the end of the last one.
fn cuts(buckets: &[Bucket]) -> Vec<String> {
    buckets.iter().map(|bucket| bucket.at).chain(buckets.last().map(|bucket| bucket.to)).map(text).collect()
}

#[test]
fn days_begin_at_the_first_instant_that_exists() {
    for (name, first, last, starts) in [
        ("UTC", "2026-11-25", "2026-11-25", &["2026-11-25T00:00Z", "2026-11-26T00:00Z"][..]),
        ("Asia/Kathmandu", "2026-11-25", "2026-11-25", &["2026-11-24T18:15Z", "2026-11-25T18:15Z"]),
        // Iran set its clocks at midnight, to one and back to eleven in the evening.
        ("Asia/Tehran", "2022-03-21", "2022-03-22", &["2022-03-20T20:30Z", "2022-03-21T20:30Z", "2022-03-22T19:30Z"]),
        ("Asia/Tehran", "2022-09-21", "2022-09-22", &["2022-09-20T19:30Z", "2022-09-21T20:30Z", "2022-09-22T20:30Z"]),
        ("Asia/Tehran", "2026-03-22", "2026-03-22", &["2026-03-21T20:30Z", "2026-03-22T20:30Z"]),
        ("Pacific/Chatham", "2026-04-05", "2026-04-05", &["2026-04-04T10:15Z", "2026-04-05T11:15Z"]),
        ("Pacific/Chatham", "2026-09-27", "2026-09-27", &["2026-09-26T11:15Z", "2026-09-27T10:15Z"]),
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-05", &["2026-04-04T13:00Z", "2026-04-05T13:30Z"]),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-04", &["2026-10-03T13:30Z", "2026-10-04T13:00Z"]),
        // From 00:01 back to 23:01: midnight came twice.
        (
            "America/St_Johns",
            "2010-11-06",
            "2010-11-07",
            &["2010-11-06T02:30Z", "2010-11-07T02:30Z", "2010-11-08T03:30Z"],
        ),
        ("America/St_Johns", "2010-03-14", "2010-03-14", &["2010-03-14T03:30Z", "2010-03-15T02:30Z"]),
        ("Pacific/Apia", "2011-12-29", "2011-12-31", &["2011-12-29T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"]),
        ("Europe/Berlin", "2026-03-29", "2026-03-29", &["2026-03-28T23:00Z", "2026-03-29T22:00Z"]),
        ("Europe/Berlin", "2026-10-25", "2026-10-25", &["2026-10-24T22:00Z", "2026-10-25T23:00Z"]),
        ("America/New_York", "2026-03-08", "2026-03-08", &["2026-03-08T05:00Z", "2026-03-09T04:00Z"]),
        ("America/New_York", "2026-11-01", "2026-11-01", &["2026-11-01T04:00Z", "2026-11-02T05:00Z"]),
        // Without the hour from midnight to one.
        (
            "America/Sao_Paulo",
            "2018-11-03",
            "2018-11-04",
            &["2018-11-03T03:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z"],
        ),
        // Far beyond the changes that the database lists.
        ("Europe/Berlin", "9999-07-01", "9999-07-01", &["9999-06-30T22:00Z", "9999-07-01T22:00Z"]),
        ("Pacific/Kiritimati", "9999-12-31", "9999-12-31", &["9999-12-30T10:00Z", "9999-12-31T10:00Z"]),
    ] {
        assert_eq!(cuts(&series(name, first, last, Interval::Day)), starts, "{name} {first}");
    }
    assert_eq!(
        labels(&series("Pacific/Apia", "2011-12-29", "2011-12-31", Interval::Day)),
        ["2011-12-29", "2011-12-31"]
    );
    assert_eq!(labels(&series("Asia/Tehran", "2022-09-21", "2022-09-22", Interval::Day)), ["2022-09-21", "2022-09-22"]);
}

#[test]
fn hours_are_those_of_the_wall_clock() {
    // When each begins, of UTC, and what the wall clock shows then; and when the last one ends.
    for (name, day, hours) in [
        ("Asia/Kathmandu", "2026-11-25", "10:15=16:00 11:15=17:00 12:15"),
        ("Europe/Berlin", "2026-03-29", "00:00=01:00 01:00=03:00 02:00"),
        ("Europe/Berlin", "2026-10-25", "00:00=02:00 01:00=02:00 02:00=03:00 03:00"),
        ("America/New_York", "2026-03-08", "06:00=01:00 07:00=03:00 08:00"),
        ("America/New_York", "2026-11-01", "05:00=01:00 06:00=01:00 07:00=02:00 08:00"),
        // From 02:00 back to 01:30, and to 02:30.
        ("Australia/Lord_Howe", "2026-04-04", "14:00=01:00 15:00=01:00 15:30=02:00 16:30"),
        ("Australia/Lord_Howe", "2026-10-03", "14:30=01:00 15:30=02:00 16:00=03:00 17:00"),
        // From 03:45 back to 02:45, and the other way.
        ("Pacific/Chatham", "2026-04-04", "12:15=02:00 13:15=03:00 14:00=02:00 14:15=03:00 15:15"),
        ("Pacific/Chatham", "2026-09-26", "12:15=01:00 13:15=02:00 14:00=03:00 14:15=04:00 15:15"),
        ("Asia/Tehran", "2022-03-21", "19:30=23:00 20:30=01:00 21:30"),
        ("Asia/Tehran", "2022-09-21", "18:30=23:00 19:30=23:00 20:30=00:00 21:30"),
        ("America/Sao_Paulo", "2018-11-04", "02:00=23:00 03:00=01:00 04:00"),
        ("Pacific/Apia", "2011-12-30", "09:00=23:00 10:00=00:00 11:00"),
        // At 00:01 back to 23:01, and to 01:01: no hour is cut at a minute past. Later at 02:00, as elsewhere.
        ("America/St_Johns", "2010-11-07", "01:30=23:00 02:30=00:00 03:30=00:00 04:30"),
        ("America/St_Johns", "2010-03-14", "03:30=00:00 04:30=02:00 05:30"),
        ("America/St_Johns", "2026-03-08", "04:30=01:00 05:30=03:00 06:30"),
        // Later than jiff's instants go.
        ("Australia/Sydney", "9999-12-31", "10:00=21:00 11:00=22:00 12:00"),
    ] {
        let time = |time: &str| format!("{day}T{time}:00Z");
        let found = series(name, &time(&hours[..5]), &time(&hours[hours.len() - 5..]), Interval::Hour);
        let clock = |instant: i64| text(instant)[11..16].to_owned();
        let each = found.iter().map(|hour| format!("{}={}", clock(hour.at), &hour.label[11..]));
        let end = found.last().map(|hour| clock(hour.to));
        assert_eq!(each.chain(end).collect::<Vec<_>>().join(" "), hours, "{name} {day}");
    }
    assert_eq!(
        labels(&series("Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-30T11:00:00Z", Interval::Hour)),
        ["2011-12-29T23:00", "2011-12-31T00:00"]
    );
    for (name, day, hours) in [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("Australia/Lord_Howe", "2026-04-05", 25),
        ("Australia/Lord_Howe", "2026-10-04", 24),
        ("America/Sao_Paulo", "2018-11-04", 23),
    ] {
        assert_eq!(series(name, day, day, Interval::Hour).len(), hours, "{name} {day}");
    }
}

#[test]
fn an_hour_that_the_range_cuts_starts_where_it_does_for_every_range() {
    for (name, from, label, start) in [
        ("Europe/Berlin", "2026-10-25T01:40Z", "2026-10-25T02:00", "2026-10-25T01:00Z"),
        ("Asia/Kathmandu", "2026-11-25T10:14Z", "2026-11-25T15:00", "2026-11-25T09:15Z"),
        // Just after a change by half an hour, and by an hour at a minute past midnight.
        ("Australia/Lord_Howe", "2026-10-03T15:40Z", "2026-10-04T02:00", "2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:10Z", "2026-04-05T01:00", "2026-04-04T15:00Z"),
        ("America/St_Johns", "2010-03-14T04:00Z", "2010-03-14T00:00", "2010-03-14T03:30Z"),
        ("America/St_Johns", "2010-11-07T02:45Z", "2010-11-07T00:00", "2010-11-07T02:30Z"),
        // War time became peace time in the midst of this hour, and no clock was touched.
        ("Pacific/Honolulu", "1945-08-14T23:10Z", "1945-08-14T13:00", "1945-08-14T22:30Z"),
    ] {
        let zone = zone(name);
        let range = Range::new(at(from), at(from) + 60_000, &zone);
        let hours = buckets(&range, Interval::Hour, &zone, LATE, 2).unwrap();
        let found: Vec<_> = hours.iter().map(|hour| (&*hour.label, text(hour.at), hour.is_partial)).collect();
        assert_eq!(found, [(label, start.to_owned(), true)], "{name} {from}");
    }
}

#[test]
fn weeks_begin_on_monday_and_months_on_the_first() {
    let weeks = series("Europe/Berlin", "2026-11-18", "2026-12-01", Interval::Week);
    assert_eq!(labels(&weeks), ["2026-11-16", "2026-11-23", "2026-11-30"]);
    let of_weeks: Vec<_> =
        weeks.iter().map(|week| ([week.at, week.from, week.to].map(text), week.is_partial)).collect();
    let texts = |texts: [&str; 3]| texts.map(str::to_owned);
    assert_eq!(
        of_weeks,
        [
            (texts(["2026-11-15T23:00Z", "2026-11-17T23:00Z", "2026-11-22T23:00Z"]), true),
            (texts(["2026-11-22T23:00Z", "2026-11-22T23:00Z", "2026-11-29T23:00Z"]), false),
            (texts(["2026-11-29T23:00Z", "2026-11-29T23:00Z", "2026-12-01T23:00Z"]), true),
        ]
    );

    let months = series("America/New_York", "2026-10-01", "2027-01-31", Interval::Month);
    assert_eq!(labels(&months), ["2026-10", "2026-11", "2026-12", "2027-01"]);
    let starts =
        ["2026-10-01T04:00Z", "2026-11-01T04:00Z", "2026-12-01T05:00Z", "2027-01-01T05:00Z", "2027-02-01T05:00Z"];
    assert_eq!(cuts(&months), starts);
    assert!(months.iter().all(|month| !month.is_partial));
    assert_eq!(labels(&series("UTC", "9999-11-30", "9999-12-31", Interval::Month)), ["9999-11", "9999-12"]);
    assert_eq!(labels(&series("UTC", "9999-12-26", "9999-12-31", Interval::Week)), ["9999-12-20", "9999-12-27"]);
}

#[test]
fn a_bucket_is_partial_until_it_has_ended_and_where_the_range_cuts_it() {
    let berlin = zone("Europe/Berlin");
    let now = at("2026-11-25T17:20Z");
    let days = buckets(&Range::of_period(Period::Month, &berlin, now, None), Interval::Day, &berlin, now, 31).unwrap();
    assert_eq!(days.len(), 30);
    assert!(days.iter().enumerate().all(|(at, day)| day.is_partial == (at >= 24)));

    let range = Range::of_period(Period::Hours24, &berlin, now, None);
    let hours = buckets(&range, Interval::Hour, &berlin, now, 25).unwrap();
    let partial: Vec<_> = hours.iter().map(|hour| hour.is_partial).collect();
    assert_eq!(partial, [[true; 1].as_slice(), &[false; 23], &[true]].concat());
    assert_eq!(
        [hours[0].at, hours[0].from, hours[24].at, hours[24].to].map(text),
        ["2026-11-24T17:00Z", "2026-11-24T17:20Z", "2026-11-25T17:00Z", "2026-11-25T17:20Z"]
    );
    let ended = at("2026-11-25T18:00Z");
    let day = between("2026-11-25T17:00:00Z", "2026-11-25T18:00:00Z", &berlin);
    for (now, is_partial) in [(ended - 1, true), (ended, false)] {
        let hours = buckets(&day, Interval::Hour, &berlin, now, 1).unwrap();
        assert_eq!(hours.iter().map(|hour| hour.is_partial).collect::<Vec<_>>(), [is_partial]);
    }
}

#[test]
fn a_series_has_a_bound() {
    let (utc, berlin) = (Zone::utc(), zone("Europe/Berlin"));
    let day = between("2026-11-25", "2026-11-25", &utc);
    assert_eq!(buckets(&day, Interval::Hour, &utc, LATE, 24).map(|hours| hours.len()), Ok(24));
    assert_eq!(buckets(&day, Interval::Hour, &utc, LATE, 23), Err(TooMany));
    assert_eq!(buckets(&day, Interval::Month, &utc, LATE, 0), Err(TooMany));
    // Seventy million hours: stopped early, or this would take minutes.
    let everything = between("1970-01-01", "9999-12-31", &berlin);
    for interval in Interval::ALL {
        assert_eq!(buckets(&everything, interval, &berlin, LATE, 2_000), Err(TooMany), "{interval:?}");
    }
}

#[test]
fn an_earlier_series_has_as_many_positions() {
    let utc = Zone::utc();
    let now = at("2026-03-10T12:00Z");
    let range = Range::of_period(Period::Month, &utc, now, None);
    let later = buckets(&range, Interval::Day, &utc, now, 31).unwrap();
    let earlier = comparison(&range, Compare::Previous, &utc, now).unwrap();
    let beside = buckets_like(&later, &earlier, Interval::Day, &utc, now);
    let found: Vec<_> = beside.iter().flatten().map(|day| (&*day.label, day.is_partial)).collect();
    assert_eq!((beside.len(), found.len(), found[0]), (31, 10, ("2026-01-29", false)));
    assert_eq!(found[9], ("2026-02-07", true));
    assert!(beside[10..].iter().all(Option::is_none));

    let longer = between("2026-01-01", "2026-02-28", &utc);
    let beside = buckets_like(&later, &longer, Interval::Day, &utc, now);
    assert_eq!(beside.iter().flatten().count(), 31);

    // Half past midnight of a day, beside one that began at one: nothing is there yet.
    let (sao_paulo, now) = (zone("America/Sao_Paulo"), at("2018-11-05T02:30Z"));
    let range = Range::of_period(Period::Today, &sao_paulo, now, None);
    let earlier = comparison(&range, Compare::Previous, &sao_paulo, now).unwrap();
    assert_eq!(buckets(&earlier, Interval::Hour, &sao_paulo, now, 24), Ok(Vec::new()));

    let skipped = zone("Pacific/Apia");
    let later = buckets(&between("2012-12-29", "2012-12-31", &skipped), Interval::Day, &skipped, LATE, 9).unwrap();
    let earlier = between("2011-12-29", "2011-12-31", &skipped);
    let beside = buckets_like(&later, &earlier, Interval::Day, &skipped, LATE);
    let found: Vec<_> = beside.iter().map(|day| day.as_ref().map(|day| &*day.label)).collect();
    assert_eq!(found, [Some("2011-12-29"), Some("2011-12-31"), None]);
}

#[test]
fn intervals_suit_the_range() {
    let berlin = zone("Europe/Berlin");
    let of = |from: &str, to: &str| Interval::auto(&between(from, to, &berlin));
    for (from, to, interval) in [
        ("2026-11-25", "2026-11-25", Interval::Hour),
        ("2026-11-25", "2026-11-26", Interval::Hour),
        ("2026-11-25", "2026-11-27", Interval::Day),
        // 49 hours, and 71.
        ("2026-10-24", "2026-10-25", Interval::Hour),
        ("2026-03-28", "2026-03-30", Interval::Day),
        ("2026-08-01", "2026-10-31", Interval::Day),
        ("2026-08-01", "2026-11-01", Interval::Month),
        ("2026-11-25T00:30:00Z", "2026-11-27T00:30:00Z", Interval::Hour),
        ("2026-11-25T00:30:00Z", "2026-11-27T00:30:00.001Z", Interval::Day),
        ("2026-01-01T00:30:00Z", "2026-04-03T00:30:00Z", Interval::Day),
        ("2026-01-01T00:30:00Z", "2026-04-03T00:30:00.001Z", Interval::Month),
    ] {
        assert_eq!(of(from, to), interval, "{from} {to}");
    }
    let day = Range::between(Moment::parse("2026-11-25").unwrap(), Moment::parse("2026-11-25").unwrap(), &berlin);
    for (name, interval) in [
        ("auto", Some(Interval::Hour)),
        ("hour", Some(Interval::Hour)),
        ("day", Some(Interval::Day)),
        ("week", Some(Interval::Week)),
        ("month", Some(Interval::Month)),
        ("", None),
        ("Day", None),
        ("year", None),
    ] {
        assert_eq!(IntervalChoice::from_name(name).map(|choice| choice.of(&day.unwrap())), interval, "{name}");
    }
}

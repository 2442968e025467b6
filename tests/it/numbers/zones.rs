//! Days and hours of zones where clocks and calendars do what they do.

use jiff::civil::Date;
use serde_json::{Value, json};

use super::{
    calendar::Zone,
    oracle::{Event, Website},
    questions::{Asked, Kind, Question},
    site::{Site, seed},
};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Days of a zone around a change, of which there are so many, and how many hours its clocks show in them.
struct Change {
    zone: &'static str,
    first: &'static str,
    last: &'static str,
    days: usize,
    /// `None`: the clocks change at a minute past the hour, and what an hour is then is not said.
    hours: Option<usize>,
}

const fn change(zone: &'static str, first: &'static str, last: &'static str, days: usize, hours: usize) -> Change {
    Change { zone, first, last, days, hours: Some(hours) }
}

const CHANGES: [Change; 15] = [
    change("Europe/Berlin", "2025-03-29", "2025-03-31", 3, 71),
    change("Europe/Berlin", "2025-10-25", "2025-10-27", 3, 73),
    change("America/New_York", "2025-03-08", "2025-03-10", 3, 71),
    change("America/New_York", "2025-11-01", "2025-11-03", 3, 73),
    change("America/St_Johns", "2025-03-08", "2025-03-10", 3, 71),
    change("America/St_Johns", "2025-11-01", "2025-11-03", 3, 73),
    Change { hours: None, ..change("America/St_Johns", "2010-11-06", "2010-11-08", 3, 0) },
    change("Asia/Kathmandu", "2025-03-29", "2025-03-31", 3, 72),
    change("Asia/Tehran", "2022-03-21", "2022-03-23", 3, 71),
    change("Asia/Tehran", "2022-09-20", "2022-09-22", 3, 73),
    // Half an hour back: the hour of the first half comes again, from its middle on.
    change("Australia/Lord_Howe", "2025-04-05", "2025-04-07", 3, 73),
    change("Australia/Lord_Howe", "2025-10-04", "2025-10-06", 3, 72),
    // At a quarter to three, standard time: in autumn a quarter of the hour 2 comes again, and then the hour 3.
    change("Pacific/Chatham", "2025-04-05", "2025-04-07", 3, 74),
    change("Pacific/Chatham", "2025-09-27", "2025-09-29", 3, 72),
    // There was no 30th.
    change("Pacific/Apia", "2011-12-29", "2011-12-31", 2, 48),
];

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

/// A website for each change, with visits over every hour around it, some of whose events are beside full quarters.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for (website, change) in CHANGES.iter().enumerate() {
        let (from, to) = Zone::named(change.zone).days(date(change.first), date(change.last));
        let times = (from - DAY_MS..to + DAY_MS).step_by(15 * MINUTE_MS as usize);
        for (number, at) in times.enumerate() {
            let visit = number / 5;
            events.push(Event {
                website,
                kind: if number % 7 == 6 { "click" } else { "pageview" },
                url: format!("https://example.com/{}", number % 3),
                referrer: None,
                session: format!("s{visit}"),
                visitor: format!("v{}", visit % 11),
                device_type: None,
                browser: None,
                os: None,
                location: None,
                properties: Value::Null,
                created_at: at + [0, -1, 1, 4 * MINUTE_MS][number % 4],
                arrival: 0,
            });
        }
    }
    events
}

#[test]
fn hours_add_up_to_days_and_days_to_the_total_wherever_clocks_change() {
    let website = |number: usize| Website { domain: format!("zone-{number}.example"), ..Website::default() };
    let websites = (0..CHANGES.len()).map(website).collect();
    let mut site = Site::start(seed(), websites, &["--segment-rows-max", "1000"]);
    let mut events = events();
    site.dice.shuffle(&mut events);
    site.send(&events);
    for is_sealed in [false, true] {
        if is_sealed {
            site.daemon().wait_until_sealed();
        }
        for (website, change) in CHANGES.iter().enumerate() {
            check(&mut site, website, change);
        }
    }
    site.stop();
}

fn check(site: &mut Site, website: usize, change: &Change) {
    let question = Question {
        website,
        kind: Kind::Totals,
        range: Asked::Dates(date(change.first), date(change.last)),
        zone: Some(change.zone),
        interval: None,
        compare: Some("previous"),
        filters: Vec::new(),
        idle: None,
    };
    let total = site.ask(&question);
    let cut_into =
        |interval| Question { kind: Kind::Series, interval: Some(interval), compare: None, ..question.clone() };
    let days = site.ask(&cut_into("day"));
    let hours = match change.hours {
        Some(_) => site.ask(&cut_into("hour")),
        None => site.answer(&cut_into("hour")).1,
    };
    let place = format!("{} {}", change.zone, change.first);
    let count = |answer: &Value| answer["series"].as_array().unwrap().len();
    assert_eq!(count(&days), change.days, "{place}: {days}");
    assert!(change.hours.is_none_or(|expected| count(&hours) == expected), "{place}: {hours}");
    for metric in ["visits", "pageviews"] {
        let sum = |answer: &Value| -> Value {
            let buckets = answer["series"].as_array().unwrap();
            buckets.iter().map(|bucket| bucket[metric].as_u64().unwrap()).sum::<u64>().into()
        };
        let sums = json!([sum(&hours), sum(&days), total["metrics"][metric]]);
        assert!(sums[0] == sums[1] && sums[1] == sums[2] && sums[0] != 0, "{place}, {metric}: {sums}");
    }
}

//! The oracle itself, in cases that were counted by hand.

use serde_json::{Value, json};

use super::{
    calendar::{Interval, Range, Zone},
    fault::Rules,
    filed,
    filters::Filters,
    oracle::{Event, Oracle, Question, Totals, Website, change, expired_before, rounded},
};

pub const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
pub const ALWAYS: Range = (0, i64::MAX - 1);

pub fn event(kind: &'static str, path: &str, created_at: i64, properties: Value) -> Event {
    Event {
        website: 0,
        kind,
        url: format!("https://example.com{path}"),
        referrer: None,
        session: "s".to_owned(),
        visitor: "v".to_owned(),
        device_type: None,
        browser: None,
        os: None,
        location: None,
        properties,
        created_at,
        arrival: 0,
    }
}

pub fn view(path: &str, created_at: i64) -> Event {
    event("pageview", path, created_at, Value::Null)
}

pub fn of(visitor: &str, event: Event) -> Event {
    Event { visitor: visitor.to_owned(), ..event }
}

pub fn oracle(events: impl IntoIterator<Item = Event>) -> Oracle {
    let arrived = |(arrival, event)| Event { arrival, ..event };
    let website = Website { domain: "example.com".to_owned(), ..Website::default() };
    Oracle {
        websites: vec![website],
        events: events.into_iter().enumerate().map(arrived).collect(),
        ..Oracle::default()
    }
}

fn ask(oracle: &Oracle, (from, to): Range, filters: &[(&str, &str)]) -> Totals {
    let filters: Vec<_> = filters.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    oracle.totals(&Question { website: 0, from, to, filters: &filters, expired_before: None })
}

#[test]
fn half_an_hour_is_within_a_visit_and_a_millisecond_more_is_not() {
    let one = ask(&oracle([view("/", 0), view("/", 30 * MINUTE)]), ALWAYS, &[]);
    let expected = Totals {
        visitors: 1,
        visits: 1,
        pageviews: 2,
        views_per_visit: 200,
        visit_duration: 18_000,
        ..Totals::default()
    };
    assert_eq!(one, expected);
    let two = ask(&oracle([view("/", 30 * MINUTE + 1), view("/", 0)]), ALWAYS, &[]);
    let expected = Totals { visits: 2, views_per_visit: 100, bounce_rate: 1_000, visit_duration: 0, ..expected };
    assert_eq!(two, expected);
    // What lies between joins them, whatever it is and whenever it came.
    let quiet = event("custom", "/", 15 * MINUTE, json!({"name": "$engagement"}));
    let joined = ask(&oracle([view("/", 0), view("/", 45 * MINUTE), quiet]), ALWAYS, &[]);
    assert_eq!((joined.visits, joined.visit_duration, joined.bounce_rate), (1, 27_000, 0));
    // Another session, or another visitor, is another visit.
    let other = Event { session: "other".to_owned(), ..view("/", 1) };
    let three = ask(&oracle([view("/", 0), other, of("other", view("/", 2))]), ALWAYS, &[]);
    assert_eq!((three.visits, three.visitors), (3, 2));
}

#[test]
fn a_visit_over_midnight_counts_as_a_whole_where_it_began() {
    let oracle = oracle([view("/a", DAY - 10 * MINUTE), view("/b", DAY + 10 * MINUTE), view("/c", DAY + 20 * MINUTE)]);
    let first = ask(&oracle, (0, DAY), &[]);
    assert_eq!((first.visits, first.pageviews, first.views_per_visit, first.visit_duration), (1, 1, 300, 18_000));
    let expected = Totals { visitors: 1, pageviews: 2, ..Totals::default() };
    assert_eq!(ask(&oracle, (DAY, 2 * DAY), &[]), expected);
    // Its other events are in no range that it could be left by, and it is.
    assert_eq!(ask(&oracle, (0, DAY), &[("page", "/b")]).visits, 1);
    assert_eq!(ask(&oracle, (DAY - 10 * MINUTE, DAY), &[]).visits, 1, "its first instant is in");
    assert_eq!(ask(&oracle, (0, DAY - 10 * MINUTE), &[]).visits, 0, "the end is not");
}

#[test]
fn what_a_bounce_is() {
    let custom = |properties| event("custom", "/", 1, properties);
    for (others, bounces, interactions) in [
        (vec![], 1, 0),
        (vec![view("/", 1)], 0, 0),
        (vec![event("click", "/", 1, Value::Null)], 0, 1),
        (vec![custom(json!({"name": "$engagement", "engagedMs": 5})), custom(json!({"interactive": false}))], 1, 0),
        (vec![event("click", "/", 1, json!({"buttonId": "x", "interactive": false}))], 1, 0),
        (vec![custom(json!({"interactive": "false"}))], 0, 1),
        (vec![custom(json!({"interactive": null}))], 0, 1),
        (vec![custom(json!({"name": "", "event": "$engagement"}))], 1, 0),
        (vec![custom(json!({"name": "x", "event": "$engagement"}))], 0, 1),
    ] {
        let case = format!("{others:?}");
        let totals = ask(&oracle([vec![view("/", 0)], others].concat()), ALWAYS, &[]);
        assert_eq!(
            (totals.bounce_rate, totals.interactions, totals.visits),
            (bounces * 1_000, interactions, 1),
            "{case}"
        );
    }
    let without_a_view = ask(&oracle([custom(json!({}))]), ALWAYS, &[]);
    assert_eq!(without_a_view, Totals { visitors: 1, interactions: 1, ..Totals::default() });
}

#[test]
fn a_filter_by_page_rates_those_who_entered_there() {
    let oracle = oracle([
        of("one", view("/a", 0)),
        of("two", view("/b", 0)),
        of("two", view("/a", MINUTE)),
        of("three", view("/a", 0)),
        of("three", view("/b", 3 * MINUTE)),
        of("four", view("/b", 0)),
    ]);
    let totals = ask(&oracle, ALWAYS, &[("page", "/a")]);
    assert_eq!((totals.visitors, totals.visits, totals.pageviews), (3, 3, 3));
    assert_eq!((totals.bounce_rate, totals.views_per_visit, totals.visit_duration), (500, 167, 800));
    assert_eq!(ask(&oracle, ALWAYS, &[]).bounce_rate, 500);
    assert_eq!(ask(&oracle, ALWAYS, &[("page", "/b")]).bounce_rate, 500);
    assert_eq!(ask(&oracle, ALWAYS, &[("entryPage", "/a")]).bounce_rate, 500);
    assert_eq!(ask(&oracle, ALWAYS, &[("exitPage", "/a")]).bounce_rate, 500);
    assert_eq!(ask(&oracle, ALWAYS, &[("entryPage", "/b"), ("exitPage", "/a")]).bounce_rate, 0);
    // Two names mean one event that has both.
    assert_eq!(ask(&oracle, ALWAYS, &[("page", "/a"), ("event", "click")]).visits, 0);
    assert_eq!(ask(&oracle, ALWAYS, &[("page", "/a"), ("event", "")]).visits, 3);
}

#[test]
fn runs_without_a_view_are_filtered_by_what_they_have() {
    let click = Event { browser: Some("Lynx".to_owned()), ..event("click", "/?utm_source=x", 0, Value::Null) };
    let oracle = oracle([click]);
    for (name, text, interactions) in [
        ("browser", "Lynx", 1),
        ("browser", "", 0),
        ("utmSource", "x", 0),
        ("utmSource", "", 1),
        ("entryPage", "!", 0),
        ("exitPage", "!/", 1),
        ("page", "/", 1),
        ("event", "click", 1),
    ] {
        assert_eq!(ask(&oracle, ALWAYS, &[(name, text)]).interactions, interactions, "{name}={text}");
    }
}

#[test]
fn engagement_is_of_visits_and_within_its_bounds() {
    let engaged = |ms: Value| event("custom", "/", 1, json!({"name": "$engagement", "engagedMs": ms}));
    for (sent, tenths) in [
        (vec![], None),
        (vec![json!(149)], Some(1)),
        (vec![json!(150)], Some(2)),
        (vec![json!(149.9)], Some(1)),
        (vec![json!(100), json!(50)], Some(2)),
        (vec![json!(0)], Some(0)),
        (vec![json!(86_400_000), json!(86_400_001), json!(-1), json!("5"), json!(true)], Some(864_000)),
        (vec![json!(86_400_000.5), json!(-0.5), json!([5])], None),
    ] {
        let case = format!("{sent:?}");
        let events = [vec![view("/", 0)], sent.into_iter().map(engaged).collect()].concat();
        assert_eq!(ask(&oracle(events), ALWAYS, &[]).engaged_seconds, tenths, "{case}");
    }
    assert_eq!(ask(&oracle([engaged(json!(1_000))]), ALWAYS, &[]).engaged_seconds, None);
}

#[test]
fn what_an_event_is_filed_under() {
    let site = |hosts: &[&str]| Website {
        domain: "www.example.com:8080".to_owned(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        goals: Vec::new(),
    };
    let rules = Rules::default();
    for (url, page) in [
        ("https://example.com", "/"),
        ("https://example.com?q", "/"),
        ("https://example.com#x", "/"),
        ("https://Example.com:80/A/b?q=/x#y", "/A/b"),
        ("https://example.com/app#/users/7", "/app#/users/7"),
        ("https://example.com/app#/users/7?tab=1#x", "/app#/users/7"),
        ("https://example.com/app?q#!/x", "/app#!/x"),
        ("https://example.com/app#!x", "/app"),
        ("https://example.com#/", "/#/"),
    ] {
        let event = Event { url: url.to_owned(), ..view("/", 0) };
        assert_eq!(filed::of_event(&site(&[]), &event, "page", rules).unwrap(), page, "{url}");
        for hosts in [&["example.com"][..], &["example.com:80", "www.example.com"]] {
            assert_eq!(filed::of_event(&site(hosts), &event, "page", rules).unwrap(), page, "{url} {hosts:?}");
        }
        for hosts in [&["other.example"][..], &["example.com", "other.example"]] {
            let many = filed::of_event(&site(hosts), &event, "page", rules);
            assert_eq!(many.unwrap(), format!("example.com{page}"), "{url} {hosts:?}");
        }
        assert_eq!(filed::of_event(&site(&[]), &event, "hostname", rules).unwrap(), "example.com");
    }
    for (letters, kept) in [(1_021, 1_024), (1_022, 1_023), (1_023, 1_024)] {
        let url = format!("https://example.com/{}\u{fc}\u{fc}", "x".repeat(letters));
        let page = filed::of_event(&site(&[]), &Event { url, ..view("/", 0) }, "page", rules);
        assert_eq!(page.unwrap().len(), kept);
    }
}

#[test]
fn what_a_visit_is_filed_under() {
    let site = Website { domain: "www.example.com:8080".to_owned(), ..Website::default() };
    let filed = |referrer: &str, query: &str, name: &str| {
        let event = view(query, 0);
        let event = Event { referrer: (!referrer.is_empty()).then(|| referrer.to_owned()), ..event };
        filed::of_visit(&site, &[&event], name, Rules::default()).unwrap_or_default()
    };
    for (referrer, query, name, value) in [
        ("https://WWW.Google.de/x", "", "referrer", "google.de"),
        ("https://www.google.de/x", "", "source", "Google"),
        ("https://news.example.org", "", "source", "example.org"),
        ("https://example.com/", "", "referrer", ""),
        ("https://www.example.com:8443/", "", "source", ""),
        ("https://blog.example.com/", "", "referrer", "blog.example.com"),
        ("https://www.google.de/x", "?ref=a&source=b&utm_source=c", "source", "c"),
        ("https://www.google.de/x", "?ref=a&source=b&utm_source=", "source", "b"),
        ("https://www.google.de/x", "?ref=a&source=", "source", "a"),
        ("https://www.google.de/x", "?ref=#?utm_source=x", "source", "Google"),
        ("", "?utm_source=&utm_source=x", "utmSource", ""),
        ("", "?utm_source=a&utm_source=b", "utmSource", "a"),
        ("", "?utm_campaign=a+b%20c%2B%C3%BC%zz", "utmCampaign", "a b c+\u{fc}%zz"),
        ("", "?utm_term", "utmTerm", ""),
        ("", "?utm_medium=a=b", "utmMedium", "a=b"),
    ] {
        assert_eq!(filed(referrer, query, name), value, "{referrer} {query} {name}");
    }
    let several =
        Website { hosts: vec!["blog.example.com".to_owned(), "www.google.de:8080".to_owned()], ..site.clone() };
    for referrer in
        ["https://blog.example.com/", "https://google.de/", "https://www.google.de:81/", "http://example.com"]
    {
        let view = Event { referrer: Some(referrer.to_owned()), ..view("/", 0) };
        assert_eq!(filed::of_visit(&several, &[&view], "source", Rules::default()), None, "{referrer}");
    }
    let run = [event("click", "/", 0, Value::Null), view("/a", 1), view("/b", 2), event("click", "/c", 3, Value::Null)];
    let run: Vec<&Event> = run.iter().collect();
    assert_eq!(filed::of_visit(&site, &run, "entryPage", Rules::default()).unwrap(), "/a");
    assert_eq!(filed::of_visit(&site, &run, "exitPage", Rules::default()).unwrap(), "/b");
}

#[test]
fn what_filters_leave() {
    for (texts, value, is_left) in [
        (&["/blog"][..], "/blog", true),
        (&["/blog"], "/Blog", false),
        (&["/blog"], "/blog/", false),
        (&["/blog/*"], "/blog", false),
        (&["/blog/*"], "/blog/", true),
        (&["/blog*"], "/blog", true),
        (&["*a*b"], "xaxbxb", true),
        (&["*a*b"], "xbxa", false),
        (&["a*a"], "a", false),
        (&["*"], "x", true),
        (&["*"], "", false),
        (&["!*"], "", true),
        (&[""], "", true),
        (&[""], "x", false),
        (&["!"], "", false),
        (&["!"], "x", true),
        (&["!/blog*"], "/blog", false),
        (&["!/blog*"], "/a", true),
        (&["!/blog*"], "", true),
        (&["\\*"], "*", true),
        (&["\\*"], "x", false),
        (&["\\!x"], "!x", true),
        (&["a!"], "a!", true),
        (&["a\\\\b"], "a\\b", true),
        (&["a", "b"], "b", true),
        (&["a", "b"], "c", false),
        (&["!a", "!b"], "b", false),
        (&["!a", "!b"], "c", true),
        (&["a*", "!ab"], "ab", false),
        (&["a*", "!ab"], "ac", true),
        (&["a", ""], "", true),
    ] {
        let parameters: Vec<_> = texts.iter().map(|text| ("page".to_owned(), (*text).to_owned())).collect();
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        let filters = Filters::new(&parameters, Rules::default());
        assert_eq!(filters.leave(&["page"], |_| value.clone()), is_left, "{texts:?} {value:?}");
    }
}

#[test]
fn halves_go_away_from_zero() {
    for (sum, count, whole) in [(0, 0, 0), (5, 0, 0), (1, 2, 1), (1, 3, 0), (2, 3, 1), (3, 2, 2), (49, 100, 0)] {
        assert_eq!(rounded(sum, count), whole, "{sum} / {count}");
    }
    for (now, then, tenths) in [
        (Some(421), Some(400), Some(53)),
        (Some(379), Some(400), Some(-53)),
        (Some(1), Some(3), Some(-667)),
        (Some(0), Some(3), Some(-1_000)),
        (Some(3), Some(0), None),
        (None, Some(3), None),
        (Some(3), None, None),
    ] {
        assert_eq!(change(now, then), tenths, "{now:?} {then:?}");
    }
}

#[test]
fn what_is_erased_or_expired_was_never_there() {
    let mut oracle =
        oracle([view("/a", 0), view("/b", 20 * MINUTE), view("/c", 40 * MINUTE), of("other", view("/", 0))]);
    let question = |expired_before| Question { website: 0, from: 0, to: DAY, filters: &[], expired_before };
    let totals = oracle.totals(&question(Some(15 * MINUTE)));
    assert_eq!((totals.visits, totals.views_per_visit, totals.visit_duration), (1, 200, 12_000));
    oracle.erase(0, "v");
    oracle.events.push(view("/", HOUR));
    assert_eq!(oracle.totals(&question(None)).pageviews, 2);
    for (now, cut) in [(0, 0), (1, 15), (15 * MINUTE, 15), (15 * MINUTE + 1, 30)] {
        assert_eq!(expired_before(DAY + now, DAY), cut * MINUTE, "{now}");
    }
}

#[test]
fn of_two_events_at_once_the_one_that_came_first_is_the_first() {
    let oracle = oracle([view("/b", 0), view("/a", 0)]);
    assert_eq!(ask(&oracle, ALWAYS, &[("entryPage", "/b"), ("exitPage", "/a")]).visits, 1);
}

fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn when_days_begin() {
    for (zone, day, begin, minutes) in [
        ("UTC", "2025-03-30", "2025-03-30T00:00Z", 1_440),
        ("Europe/Berlin", "2025-03-30", "2025-03-29T23:00Z", 1_380),
        ("Europe/Berlin", "2025-10-26", "2025-10-25T22:00Z", 1_500),
        ("Asia/Kathmandu", "2025-01-01", "2024-12-31T18:15Z", 1_440),
        ("Asia/Tehran", "2022-03-22", "2022-03-21T20:30Z", 1_380),
        ("Asia/Tehran", "2022-09-21", "2022-09-20T19:30Z", 1_500),
        ("Australia/Lord_Howe", "2025-04-06", "2025-04-05T13:00Z", 1_470),
        ("Australia/Lord_Howe", "2025-10-05", "2025-10-04T13:30Z", 1_410),
        ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00Z", 1_440),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00Z", 0),
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00Z", 1_440),
    ] {
        let (zone, date) = (Zone::named(zone), day.parse().unwrap());
        let (from, to) = zone.days(date, date);
        assert_eq!((from, to - from), (at(begin), minutes * MINUTE), "{day}");
    }
}

#[test]
fn what_a_series_is_cut_into() {
    let starts = |zone: &str, from: &str, to: &str, interval| -> Vec<i64> {
        Zone::named(zone).buckets((at(from), at(to)), interval).iter().map(|bucket| bucket.from).collect()
    };
    let expected = ["2025-03-30T00:00Z", "2025-03-30T01:00Z", "2025-03-30T02:00Z"].map(at);
    assert_eq!(starts("Europe/Berlin", "2025-03-30T00:59Z", "2025-03-30T02:00:01Z", Interval::Hour), expected);
    let expected = ["2025-04-05T14:00Z", "2025-04-05T15:00Z", "2025-04-05T15:30Z"].map(at);
    assert_eq!(starts("Australia/Lord_Howe", "2025-04-05T14:00Z", "2025-04-05T16:00Z", Interval::Hour), expected);
    let expected = ["2025-03-23T23:00Z", "2025-03-30T22:00Z"].map(at);
    assert_eq!(starts("Europe/Berlin", "2025-03-30T21:00Z", "2025-03-31T00:00Z", Interval::Week), expected);
    let expected = ["2025-02-28T23:00Z", "2025-03-31T22:00Z"].map(at);
    assert_eq!(starts("Europe/Berlin", "2025-03-31T21:00Z", "2025-04-01T00:00Z", Interval::Month), expected);
    let expected = ["2011-12-29T10:00Z", "2011-12-30T10:00Z"].map(at);
    assert_eq!(starts("Pacific/Apia", "2011-12-29T10:00Z", "2011-12-31T10:00Z", Interval::Day), expected);
}

#[test]
fn what_is_compared_with() {
    let berlin = Zone::named("Europe/Berlin");
    let days = |first: &str, last: &str| berlin.days(first.parse().unwrap(), last.parse().unwrap());
    assert_eq!(berlin.previous(days("2025-03-31", "2025-04-01")), days("2025-03-29", "2025-03-30"));
    assert_eq!(berlin.year_earlier(days("2024-02-29", "2024-02-29")), days("2023-02-28", "2023-02-28"));
    assert_eq!(berlin.year_earlier(days("2024-02-01", "2024-02-28")), days("2023-02-01", "2023-02-28"));
    assert_eq!(berlin.previous((1_000, 1_700)), (300, 1_000));
    let hour = (at("2025-04-01T10:00Z"), at("2025-04-01T11:00Z"));
    assert_eq!(berlin.year_earlier(hour), (at("2024-04-01T10:00Z"), at("2024-04-01T11:00Z")));
    let now = at("2025-03-31T22:30Z");
    let period = |name: &str| berlin.period(name, now, Some(at("2025-01-01T00:00Z"))).unwrap();
    assert_eq!(period("today"), days("2025-04-01", "2025-04-01"));
    assert_eq!(period("7d"), days("2025-03-26", "2025-04-01"));
    assert_eq!(period("lastmonth"), days("2025-03-01", "2025-03-31"));
    assert_eq!(period("12mo"), days("2024-05-01", "2025-04-30"));
    assert_eq!(period("all"), days("2025-01-01", "2025-04-01"));
    assert_eq!(berlin.period("24h", now, None), None);
}

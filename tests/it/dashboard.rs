//! The routes of the dashboard project: its shapes and its rounding, over numbers that were counted by hand.

use std::collections::BTreeSet;

use harness::{Client, Daemon, Response, wait_until};
use jiff::Timestamp;
use serde_json::{Value, json};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const PATHS: [&str; 6] = ["metrics", "pageviews", "top-pages", "referrers", "devices", "locations"];

/// An event that happened so many hours and seconds ago: hours minus seconds.
#[derive(Clone, Copy)]
struct Ago {
    hours: i64,
    seconds: i64,
    visitor: &'static str,
    session: &'static str,
    kind: &'static str,
    page: &'static str,
}

const fn view(hours: i64, seconds: i64, (visitor, session): (&'static str, &'static str), page: &'static str) -> Ago {
    Ago { hours, seconds, visitor, session, kind: "pageview", page }
}

const fn kind(kind: &'static str, of: Ago) -> Ago {
    Ago { kind, ..of }
}

/// What visits say of themselves, by their sessions: device, location, referrer.
const SESSIONS: [(&str, &str, &str, &str); 4] = [
    ("a", "desktop", "DE", "https://www.google.com/search"),
    ("b", "mobile", "FR", ""),
    ("c", "tablet", "", "https://example.com/"),
    ("d", "", "FR", "https://google.com/"),
];

/// Four visits and a click without a page view within 48 hours; three visits in the 48 hours before; one before them;
/// and one that is still to come by the clock of its visitor.
const EVENTS: [Ago; 15] = [
    view(30, 0, ("v1", "a"), "/"),
    view(30, 90, ("v1", "a"), "/blog?x=1"),
    kind("custom", view(30, 100, ("v1", "a"), "/blog")),
    view(20, 0, ("v2", "b"), "/"),
    view(10, 0, ("v1", "c"), "/blog"),
    kind("click", view(10, 10, ("v1", "c"), "/blog")),
    view(3, 0, ("v3", "d"), "/"),
    kind("click", view(2, 0, ("v4", "e"), "/contact")),
    view(60, 0, ("v1", "f"), "/"),
    view(60, 20, ("v1", "f"), "/"),
    view(70, 0, ("v5", "g"), "/"),
    view(80, 0, ("v6", "h"), "/"),
    view(100, 0, ("v7", "i"), "/old"),
    view(-1, 0, ("v8", "j"), "/"),
    kind("click", view(-1, -10, ("v8", "j"), "/")),
];

impl Ago {
    fn at(self, now: i64) -> i64 {
        now - self.hours * HOUR_MS + self.seconds * 1_000
    }

    fn body(self, code: &str, now: i64) -> String {
        let said = SESSIONS.iter().find(|(session, ..)| *session == self.session);
        let (_, device, location, referrer) = said.copied().unwrap_or_default();
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        json!({
            "trackingCode": code, "eventType": self.kind, "url": format!("https://example.com{}", self.page),
            "sessionId": self.session, "visitorId": self.visitor, "timestamp": self.at(now), "deviceType": text(device),
            "location": if self.session == "e" { json!("US") } else { text(location) }, "referrer": text(referrer)
        })
        .to_string()
    }
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Registers a website; returns its id and its code.
fn register(client: &mut Client, domain: &str) -> (String, String) {
    let website = client.post("/api/v1/websites", json!({"name": "A", "domain": domain}).to_string()).json();
    ["id", "trackingCode"].map(|name| website[name].as_str().unwrap().to_owned()).into()
}

fn get(client: &mut Client, path: &str, query: &str) -> Response {
    client.get(&format!("/api/v1/dashboard/{path}?{query}"))
}

/// An answer that has counted everything, without what says so.
fn ask(client: &mut Client, path: &str, query: &str) -> Value {
    let mut answer = wait_until("everything is counted", || {
        let response = get(client, path, query);
        assert_eq!(response.status, 200, "{path} {query}: {}", response.text());
        assert_eq!(response.header("cache-control"), Some("private, no-cache"), "{path}");
        assert_eq!(response.header("etag"), None, "{path}");
        let answer = response.json();
        (answer["meta"]["complete"] == true).then_some(answer)
    });
    let meta = answer.as_object_mut().unwrap().remove("meta").unwrap();
    assert_eq!((&meta["visitors"], &meta["visitorsError"]), (&json!("exact"), &json!(0.0)), "{path}");
    answer
}

/// The numbers, in the order of the answer.
fn metrics(numbers: [i64; 10]) -> Value {
    let names = [
        "pageViews",
        "pageViewsChange",
        "uniqueVisitors",
        "uniqueVisitorsChange",
        "sessions",
        "sessionsChange",
        "avgSessionDuration",
        "avgSessionDurationChange",
        "bounceRate",
        "bounceRateChange",
    ];
    names.into_iter().zip(numbers).map(|(name, number)| (name.to_owned(), json!(number))).collect()
}

#[test]
fn the_numbers_are_those_that_were_counted_by_hand() {
    for flags in [&[][..], &["--segment-rows-max", "5"]] {
        let daemon = Daemon::start(flags);
        let client = &mut daemon.client();
        let (id, code) = register(client, "example.com");
        let now = now_ms();
        for event in EVENTS {
            assert_eq!(client.post("/api/v1/events", event.body(&code, now)).status, 201);
        }
        let of = format!("websiteId={id}&days=2");
        let wanted = metrics([5, 25, 4, 33, 4, 33, 28, 300, 50, -17]);
        let wanted = json!({"success": true, "data": wanted, "website": id, "period": "Last 2 days"});
        assert_eq!(ask(client, "metrics", &of), wanted);
        // The same website by its code, a week if nothing is said, and nothing before it.
        let wanted = metrics([10, 100, 7, 100, 8, 100, 16, 100, 63, 63]);
        let wanted = json!({"success": true, "data": wanted, "website": id, "period": "Last 7 days"});
        assert_eq!(ask(client, "metrics", &format!("trackingCode={code}")), wanted);

        let pages = json!([
            {"url": "/", "views": 3, "uniqueVisitors": 3, "bounceRate": 67, "avgSessionDuration": 33},
            {"url": "/blog", "views": 2, "uniqueVisitors": 1, "bounceRate": 0, "avgSessionDuration": 55}
        ]);
        assert_eq!(ask(client, "top-pages", &of), json!({"success": true, "data": pages, "total": 2}));
        let first = json!({"success": true, "data": [pages[0]], "total": 1});
        assert_eq!(ask(client, "top-pages", &format!("{of}&limit=1")), first);
        let referrers = json!([
            {"referrer": "google.com", "visitors": 2, "sessions": 2, "pageViews": 3},
            {"referrer": "Direct", "visitors": 3, "sessions": 2, "pageViews": 2}
        ]);
        assert_eq!(ask(client, "referrers", &of), json!({"success": true, "data": referrers, "total": 2}));
        let devices = json!({"mobile": 1, "desktop": 2, "tablet": 1, "other": 1});
        assert_eq!(ask(client, "devices", &of), json!({"success": true, "data": devices}));
        let locations = json!([
            {"location": "FR", "visitors": 2, "sessions": 2, "pageViews": 2},
            {"location": "Unknown", "visitors": 1, "sessions": 1, "pageViews": 1},
            {"location": "DE", "visitors": 1, "sessions": 1, "pageViews": 2},
            {"location": "US", "visitors": 1, "sessions": 0, "pageViews": 0}
        ]);
        assert_eq!(ask(client, "locations", &of), json!({"success": true, "data": locations, "total": 4}));
        let first = json!({"success": true, "data": [locations[0]], "total": 1});
        assert_eq!(ask(client, "locations", &format!("{of}&limit=1")), first);
        daemon.stop();
    }
}

fn date(at: i64) -> String {
    Timestamp::from_millisecond(at).unwrap().to_string()[..10].to_owned()
}

/// The days up to this moment, each with what happened in it and in the range.
fn chart(days: i64, sent: i64, now: i64) -> Value {
    let counted = || EVENTS.into_iter().filter(|event| (0..days * 24).contains(&event.hours));
    let dates = ((now - days * DAY_MS).div_euclid(DAY_MS)..=now.div_euclid(DAY_MS)).map(|day| date(day * DAY_MS));
    let day = |date_of_day: String| {
        let of_day = || counted().filter(|event| date(event.at(sent)) == date_of_day);
        let visitors: BTreeSet<_> = of_day().map(|event| event.visitor).collect();
        let views = of_day().filter(|event| event.kind == "pageview").count();
        json!({"date": date_of_day, "pageviews": views, "visitors": visitors.len()})
    };
    let data: Vec<Value> = dates.map(day).collect();
    let total = counted().filter(|event| event.kind == "pageview").count();
    json!({"success": true, "data": data, "total": total})
}

#[test]
fn the_chart_has_every_day_of_utc() {
    let daemon = Daemon::start(&[]);
    let client = &mut daemon.client();
    let (id, code) = register(client, "example.com");
    let sent = now_ms();
    for event in EVENTS {
        assert_eq!(client.post("/api/v1/events", event.body(&code, sent)).status, 201);
    }
    for (days, total) in [(1, 3), (2, 5), (7, 10), (30, 10)] {
        let before = now_ms();
        let answer = ask(client, "pageviews", &format!("websiteId={id}&days={days}"));
        // Midnight may have been in between.
        let wanted = [before, now_ms()].map(|now| chart(days, sent, now));
        assert!(wanted.contains(&answer), "{answer}\n{}", wanted[0]);
        assert_eq!(answer["total"], total);
        assert_eq!(answer["data"].as_array().unwrap().len() as i64, days + 1);
    }
    daemon.stop();
}

#[test]
fn nothing_is_nothing_and_no_change() {
    let daemon = Daemon::start(&[]);
    let client = &mut daemon.client();
    let (id, _) = register(client, "example.com");
    let of = format!("websiteId={id}&days=3660&limit=1000");
    let answer = ask(client, "metrics", &of);
    assert_eq!((&answer["data"], &answer["period"]), (&metrics([0; 10]), &json!("Last 3660 days")));
    for path in ["top-pages", "referrers", "locations"] {
        assert_eq!(ask(client, path, &of), json!({"success": true, "data": [], "total": 0}), "{path}");
    }
    let devices = json!({"mobile": 0, "desktop": 0, "tablet": 0, "other": 0});
    assert_eq!(ask(client, "devices", &of), json!({"success": true, "data": devices}));
    let answer = ask(client, "pageviews", &of);
    let days = answer["data"].as_array().unwrap();
    assert_eq!((days.len(), &answer["total"]), (3_661, &json!(0)));
    assert!(days.iter().all(|day| day["pageviews"] == 0 && day["visitors"] == 0));
    assert!(days.is_sorted_by_key(|day| day["date"].as_str().unwrap()), "the oldest comes first");
    daemon.stop();
}

#[test]
fn questions_are_refused_by_field_and_by_method() {
    let daemon = Daemon::start(&[]);
    let client = &mut daemon.client();
    let (id, code) = register(client, "example.com");
    for path in PATHS {
        for (query, fields) in [
            ("", &["websiteId"][..]),
            ("days=0&limit=0", &["days", "limit", "websiteId"]),
            (&format!("websiteId={id}&days=3661&limit=1001"), &["days", "limit"]),
            (&format!("websiteId={id}&days=1.5&limit=-1"), &["days", "limit"]),
            (&format!("websiteId={id}&days=7&days=7"), &["days"]),
            (&format!("websiteId={id}&trackingCode={code}"), &["trackingCode"]),
        ] {
            let refused = get(client, path, query);
            assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"), "{path}?{query}");
            let told =
                refused.json()["details"]["fieldErrors"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(told, fields, "{path}?{query}");
        }
        for query in ["websiteId=web-000000000000", "trackingCode=pm-nobody", &format!("websiteId={code}")] {
            let refused = get(client, path, query);
            assert_eq!((refused.status, refused.error().as_str()), (404, "NOT_FOUND"), "{path}?{query}");
        }
        let path = format!("/api/v1/dashboard/{path}?websiteId={id}");
        let head = client.send("HEAD", &path, &[], b"");
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = client.send(method, &path, &[("content-type", "application/json")], b"");
            assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
        }
    }
    let gone = client.send("DELETE", &format!("/api/v1/websites/{id}"), &[], b"");
    assert_eq!(gone.status, 200);
    assert_eq!(get(client, "metrics", &format!("websiteId={id}")).status, 404);
    daemon.stop();
}

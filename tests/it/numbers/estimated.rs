//! Visitors that are estimated: as near as the answer says, and everything else to the digit.

use serde_json::{Value, json};

use super::{
    lists::{ORDERS, Row},
    oracle::{self, Event},
    planted::websites,
    questions::{Asked, Kind, Question, Top},
    site::{Site, seed_or},
};

/// 2025-03-28.
const FROM: i64 = 1_743_120_000_000;
const HOUR_MS: i64 = 60 * 60 * 1_000;
const EVENTS: usize = 24_000;
const VISITORS: usize = 30_000;
const KINDS: [&str; 3] = ["pageview", "pageview", "click"];
/// How many times its standard error an estimate may be off. Of hundreds of rows one in a thousand is further off by
/// chance, so chance is the same each time, unless the environment says a seed.
const ERRORS: f64 = 3.0;

/// Very many visitors within a few hours, in the order of time: so many in a quarter of an hour of one segment that it
/// does not keep all of them.
fn events(site: &mut Site) -> Vec<Event> {
    let dice = &mut site.dice;
    let mut events = Vec::new();
    while events.len() < EVENTS {
        let visitor = format!("v{}", dice.below(VISITORS));
        let mut at = FROM + dice.between(0, 3 * HOUR_MS);
        let browser = dice.pick(&[None, Some("Firefox"), Some("Chrome"), Some("Lynx")]).map(str::to_owned);
        for _ in 0..1 + dice.below(3) {
            let page = if dice.once_in(3) { dice.below(40) } else { dice.below(4) };
            events.push(Event {
                website: 0,
                kind: KINDS[dice.below(KINDS.len())],
                url: format!("https://example.com/{page}"),
                referrer: None,
                session: "s".to_owned(),
                visitor: visitor.clone(),
                device_type: None,
                browser: browser.clone(),
                os: None,
                location: None,
                properties: json!({"plan": *dice.pick(&["gold", "silver"])}),
                created_at: at,
                arrival: 0,
            });
            at += dice.between(0, 40 * HOUR_MS / 60);
        }
    }
    events.sort_by_key(|event| event.created_at);
    events
}

#[test]
fn estimated_visitors_are_as_near_as_is_said() {
    let flags = ["--segment-rows-max", "4000", "--stats-exact-visits-max", "10"];
    let mut site = Site::start(seed_or(1), websites(), &flags);
    site.batch_events_max = 900;
    let events = events(&mut site);
    site.send(&events);
    site.daemon().wait_until_sealed();
    for (name, filter, hours) in [
        ("page", None, (0, 30)),
        ("browser", None, (0, 30)),
        ("hostname", None, (0, 30)),
        ("event", Some(("browser", "!Lynx")), (0, 30)),
        ("entryPage", None, (1, 3)),
        ("page", Some(("page", "!/3")), (1, 30)),
        ("property:plan", None, (0, 30)),
    ] {
        for order in ORDERS {
            let question = Question {
                website: 0,
                kind: Kind::Top(Top { name: name.to_owned(), order: Some(order), limit: Some(1_000), offset: None }),
                range: Asked::Milliseconds(FROM + hours.0 * HOUR_MS, FROM + hours.1 * HOUR_MS + 1),
                zone: None,
                interval: None,
                compare: None,
                filters: filter.iter().map(|(name, text): &(&str, &str)| ((*name).into(), (*text).into())).collect(),
                idle: None,
            };
            check(&mut site, &question, name, order);
            if order == "visitors" {
                site.ask(&Question { idle: Some(("exact", "true")), ..question });
            }
        }
    }
    site.stop();
}

fn check(site: &mut Site, question: &Question, name: &str, order: &str) {
    let answer = site.answer(question).1;
    let Asked::Milliseconds(from, to) = question.range else { panic!("{:?} has no milliseconds", question.range) };
    let asked = oracle::Question { website: 0, from, to, filters: &question.filters, expired_before: None };
    let expected = site.oracle.list(&asked, name, order);
    let all = site.oracle.totals(&asked).visitors;
    let error = answer["meta"]["visitorsError"].as_f64().unwrap();
    let place = format!("{name} by {order}, within {error}: {answer}");
    assert!(answer["meta"]["visitors"] == "estimated" && (0.001..0.05).contains(&error), "{place}");
    assert_eq!(answer["pagination"], json!({"total": expected.len(), "limit": 1_000, "offset": 0}), "{place}");
    let rows = answer["rows"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len(), "{place}");
    // By visitors they are in the order of what is shown.
    let is_sorted = |pair: &[Value]| pair[0]["visitors"].as_u64() >= pair[1]["visitors"].as_u64();
    assert!(order != "visitors" || rows.windows(2).all(is_sorted), "{place}");
    for (at, row) in rows.iter().enumerate() {
        let by_value = || expected.iter().find(|expected| row["value"] == json!(expected.value));
        let expected = if order == "visitors" { by_value() } else { expected.get(at) };
        hold(row, expected.unwrap_or_else(|| panic!("{row} in {place}")), all, error);
    }
}

fn hold(row: &Value, expected: &Row, all: u64, error: f64) {
    let Row { value, totals, events, .. } = expected;
    let tenths = |units: u64| units as f64 / 10.0;
    for (name, number) in [
        ("value", json!(value)),
        ("visits", json!(totals.visits)),
        ("pageviews", json!(totals.pageviews)),
        ("events", json!(events)),
        ("bounceRate", json!(tenths(totals.bounce_rate))),
        ("visitDuration", json!(tenths(totals.visit_duration))),
    ] {
        assert_eq!(row[name], number, "{name} of {value:?}");
    }
    let off = |number: &Value, exact: f64| (number.as_f64().unwrap() - exact).abs();
    let visitors = totals.visitors as f64;
    let most = (ERRORS * error * visitors).max(1.0);
    assert!(off(&row["visitors"], visitors) <= most, "{row} within {most} of {visitors}");
    // Both the part and the whole are estimated.
    let share = 100.0 * visitors / all as f64;
    let most = (2.0 * ERRORS * error * share).max(0.1);
    assert!(off(&row["share"], share) <= most, "{row} within {most} of {share}");
}

//! Parsing against tables, and against serde_json as a model.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{reasons::ECHO_CHARS_MAX, *};
use crate::event::{rejection::Faults, values::TIMESTAMP_MAX_MS, warning::WarningCode};

const RULES: Rules = Rules {
    url_bytes_max: 4_096,
    any_bare_scheme: false,
    id_bytes_max: 128,
    text_chars_max: 100,
    properties_bytes_max: 32 * 1024,
    properties_depth_max: 32,
    timestamp_ahead_max_ms: 86_400_000,
    timestamp_age_max_ms: i64::MAX,
    batch_events_max: 1_000,
    item_bytes_max: 256 * 1024,
    warnings_told_max: 100,
};
const NOW: i64 = 1_769_630_400_000;
const CODE: &str = "pm-abc123-1704067200000";

fn intake(code: &str) -> Option<Arc<Intake>> {
    (code == CODE).then(|| Intake::of_anything("web-123"))
}

fn parse(body: &[u8]) -> Result<(ValidEvents, Warnings), Rejection> {
    parse_event(body.to_vec(), &RULES, &Arrival::at(NOW), intake)
}

/// A valid event with `changes` made to it; a change to null that is not wanted as null is made with `without`.
#[allow(clippy::needless_pass_by_value, reason = "the callers' tables read better")]
fn event_with(changes: Value) -> Value {
    let mut event = json!({
        "trackingCode": CODE, "eventType": "pageview", "url": "https://example.com/", "sessionId": "s", "visitorId": "v"
    });
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn codes(warnings: &Warnings) -> Vec<(&'static str, WarningCode)> {
    warnings.told().iter().map(|warning| (warning.field, warning.code)).collect()
}

fn field_faults(result: Result<(ValidEvents, Warnings), Rejection>) -> Vec<&'static str> {
    match result {
        Err(Rejection::Invalid(faults)) => faults.fields.iter().map(|(field, _)| *field).collect(),
        other => panic!("expected faults, found {other:?}"),
    }
}

#[test]
fn a_whole_event_keeps_every_member() {
    let body = json!({
        "trackingCode": CODE, "eventType": "click", "url": "https://example.com/a\u{20ac}", "referrer": "https://g.example/",
        "sessionId": "sess \"1\"", "visitorId": "vis", "deviceType": "tablet", "browser": "Chrome", "os": "Windows",
        "location": "US", "timestamp": 1_704_067_200_000.9, "properties": {"b": 1, "a": [true, null]}, "unknown": {"x": [1]}
    });
    let (events, warnings) = parse(body.to_string().as_bytes()).unwrap();
    let row = events.rows().next().unwrap();
    assert_eq!((events.len(), warnings), (1, Warnings::default()));
    assert_eq!(row.website_id, b"web-123");
    assert_eq!(row.event_type, b"click");
    assert_eq!(row.url, "https://example.com/a\u{20ac}".as_bytes());
    assert_eq!(row.referrer, Some(&b"https://g.example/"[..]));
    assert_eq!(row.session_id, b"sess \"1\"");
    assert_eq!(row.visitor_id, b"vis");
    assert_eq!(row.device_type, Some(&b"tablet"[..]));
    assert_eq!(row.browser, Some(&b"Chrome"[..]));
    assert_eq!(row.os, Some(&b"Windows"[..]));
    assert_eq!(row.location, Some(&b"US"[..]));
    assert_eq!(row.created_at, 1_704_067_200_000);
    assert_eq!(row.received_at, NOW);
    let properties: Value = serde_json::from_slice(row.properties.unwrap()).unwrap();
    assert_eq!(properties, body["properties"]);
}

#[test]
fn values_at_their_limits_are_taken() {
    for changes in [
        json!({"trackingCode": CODE}),
        json!({"url": format!("https://example.com/{}", "a".repeat(4_096 - 20))}),
        json!({"referrer": null}),
        json!({"referrer": ""}),
        json!({"eventId": "x".repeat(128)}),
        json!({"eventId": "é".repeat(64)}),
        json!({"eventId": null}),
        json!({"sessionId": "x".repeat(128), "visitorId": "é".repeat(64)}),
        json!({"deviceType": null, "browser": null, "os": null, "location": null, "properties": null}),
        json!({"browser": "é".repeat(100), "os": "", "location": "x".repeat(100)}),
        json!({"timestamp": null}),
        json!({"timestamp": 0}),
        json!({"timestamp": TIMESTAMP_MAX_MS}),
        json!({"timestamp": 0.5}),
        json!({"properties": {}}),
        json!({"properties": {"control": "\u{0}\u{1f}\u{7f}"}}),
        json!({"properties": {"numbers": [i64::MIN, u64::MAX, 1e308, -0.5]}}),
    ] {
        let body = event_with(changes.clone()).to_string();
        assert!(parse(body.as_bytes()).is_ok(), "{changes}: {:?}", parse(body.as_bytes()));
    }
}

#[test]
fn every_fault_names_its_field() {
    let long_url = format!("https://example.com/{}", "a".repeat(4_096 - 19));
    for (changes, fields) in [
        (json!({"trackingCode": "abc"}), &["trackingCode"][..]),
        (json!({"trackingCode": "pm-"}), &["trackingCode"]),
        (json!({"trackingCode": "pm-a b"}), &["trackingCode"]),
        (json!({"trackingCode": format!("pm-{}", "a".repeat(62))}), &["trackingCode"]),
        (json!({"trackingCode": null}), &["trackingCode"]),
        (json!({"eventType": "view"}), &["eventType"]),
        (json!({"eventType": 1}), &["eventType"]),
        (json!({"url": "/page"}), &["url"]),
        (json!({"url": "javascript:alert(1)"}), &["url"]),
        (json!({"url": long_url}), &["url"]),
        (json!({"url": "https://example.com/\u{7f}"}), &["url"]),
        (json!({"sessionId": ""}), &["sessionId"]),
        (json!({"sessionId": "x".repeat(129)}), &["sessionId"]),
        (json!({"visitorId": "a\nb"}), &["visitorId"]),
        (json!({"visitorId": ["v"]}), &["visitorId"]),
        (json!({"deviceType": "watch"}), &["deviceType"]),
        (json!({"deviceType": ""}), &["deviceType"]),
        (json!({"browser": "x".repeat(101)}), &["browser"]),
        (json!({"os": {"name": "x"}, "location": true}), &["location", "os"]),
        (json!({"timestamp": "now"}), &["timestamp"]),
        (json!({"timestamp": -1}), &["timestamp"]),
        (json!({"timestamp": -0.5}), &["timestamp"]),
        (json!({"timestamp": TIMESTAMP_MAX_MS + 1}), &["timestamp"]),
        (json!({"timestamp": u64::MAX}), &["timestamp"]),
        (json!({"timestamp": 1e300}), &["timestamp"]),
        (json!({"eventId": ""}), &["eventId"]),
        (json!({"eventId": "é".repeat(65)}), &["eventId"]),
        (json!({"eventId": "a\u{1f}b"}), &["eventId"]),
        (json!({"eventId": "\u{7f}"}), &["eventId"]),
        (json!({"eventId": 7}), &["eventId"]),
        (json!({"eventId": ["a"]}), &["eventId"]),
        (json!({"eventId": {"a": "b"}, "os": true}), &["eventId", "os"]),
        (json!({"properties": []}), &["properties"]),
        (json!({"properties": {"a": "x".repeat(32 * 1024)}}), &["properties"]),
        (json!({"eventType": 1, "url": 2, "sessionId": 3}), &["eventType", "sessionId", "url"]),
    ] {
        let body = event_with(changes.clone()).to_string();
        let mut found = field_faults(parse(body.as_bytes()));
        found.sort_unstable();
        assert_eq!(found, fields, "{changes}");
    }
}

#[test]
fn what_is_missing_or_doubled_is_told_too() {
    assert_eq!(field_faults(parse(b"{}")), ["trackingCode", "eventType", "url", "sessionId", "visitorId"]);
    let doubled = event_with(json!({})).to_string().replacen('{', r#"{"os":"a","os":null,"unknown":1,"unknown":2,"#, 1);
    assert_eq!(field_faults(parse(doubled.as_bytes())), ["os"]);
    match parse(b"[]") {
        Err(Rejection::Invalid(faults)) => assert_eq!(faults.form, ["Expected an object, received an array"]),
        other => panic!("{other:?}"),
    }
    let unknown = event_with(json!({"trackingCode": "pm-nobody"})).to_string();
    assert_eq!(parse(unknown.as_bytes()).unwrap_err(), Rejection::UnknownWebsite("pm-nobody".into()));
}

#[test]
fn properties_take_no_more_room_than_their_batch() {
    let numbers = vec!["1e15"; 1_600].join(",");
    let item = event_with(json!({"properties": {"n": "x"}})).to_string().replace(r#""x""#, &format!("[{numbers}]"));
    let body = format!(r#"{{"events":[{}]}}"#, vec![item.as_str(); 40].join(","));
    let batch = parse_batch(body.clone().into_bytes(), &RULES, &Arrival::at(NOW), intake).unwrap();
    assert!(
        batch.events.len() > 5 && !batch.refused.is_empty(),
        "{} taken, {} not",
        batch.events.len(),
        batch.refused.len()
    );
    assert!(batch.events.bytes() < 4 * body.len(), "{} B for {} B", batch.events.bytes(), body.len());
    assert!(matches!(&batch.refused[0].1, Rejection::Invalid(faults) if faults.fields[0].0 == "properties"));
    assert_eq!(parse(item.as_bytes()).unwrap().0.len(), 1, "alone it is taken");
}

#[test]
fn a_batch_takes_what_is_valid_and_lists_the_rest() {
    let item = |changes| event_with(changes);
    let body = json!({"other": [{}], "events": [
        item(json!({"sessionId": "first"})),
        item(json!({"trackingCode": "invalid", "url": 1})),
        item(json!({"trackingCode": "pm-unknown", "eventType": 5})),
        item(json!({"trackingCode": 7})),
        17,
        item(json!({"eventType": "view"})),
        item(json!({"sessionId": "last", "properties": {"k": "v"}})),
        {},
    ]});
    let batch = parse_batch(body.to_string().into_bytes(), &RULES, &Arrival::at(NOW), intake).unwrap();
    let sessions: Vec<_> = batch.events.rows().map(|row| row.session_id).collect();
    assert_eq!(sessions, [b"first".as_slice(), b"last"]);
    let kinds: Vec<_> = batch
        .refused
        .iter()
        .map(|(index, rejection)| match rejection {
            Rejection::UnknownWebsite(code) => (*index, code.as_str()),
            Rejection::Invalid(faults) => (*index, faults.fields.first().map_or("form", |(field, _)| field)),
            Rejection::Malformed(_) => (*index, "malformed"),
            Rejection::OtherHost(_) | Rejection::Gpc => (*index, "not taken here"),
        })
        .collect();
    assert_eq!(
        kinds,
        [(1, "invalid"), (2, "pm-unknown"), (3, "trackingCode"), (4, "form"), (5, "eventType"), (7, "trackingCode")]
    );
}

#[test]
fn a_batch_is_refused_whole() {
    let rules = Rules { batch_events_max: 2, ..RULES };
    for (body, words) in [
        ("{}", "Required"),
        (r#"{"events": null}"#, "Expected an array"),
        (r#"{"events": {}}"#, "Expected an array"),
        (r#"{"events": []}"#, "at least 1"),
        (r#"{"events": [1, 2, 3]}"#, "at most 2"),
        (r#"{"events": [1], "events": [2]}"#, "more than once"),
        ("[]", "Expected an object"),
        ("[1e999]", "Expected an object"),
        (r#"{"events": [1, 2, 1e999]}"#, "at most 2"),
        (r#"{"events": [1e999], "events": [2]}"#, "more than once"),
        (r#"{"other": 1e999}"#, "Required"),
        (r#"{"events": 1e999}"#, "Expected an array, received a number"),
        (r#"{"events": [1,]}"#, "byte 14"),
    ] {
        let refusal = parse_batch(body.as_bytes().to_vec(), &rules, &Arrival::at(NOW), intake).unwrap_err();
        assert!(format!("{refusal:?}").contains(words), "{body}: {refusal:?}");
    }
}

#[test]
fn a_very_long_code_is_not_repeated_whole() {
    let body = json!({"events": [event_with(json!({"trackingCode": "é".repeat(10_000)}))]});
    let batch = parse_batch(body.to_string().into_bytes(), &RULES, &Arrival::at(NOW), intake).unwrap();
    assert!(
        matches!(&batch.refused[0].1, Rejection::UnknownWebsite(code) if code.chars().count() == ECHO_CHARS_MAX + 1)
    );
}

mod beacon;
mod faults;
mod ids;
mod properties;
mod taken;
mod warnings;

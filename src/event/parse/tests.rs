//! Parsing against tables, and against serde_json as a model.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::event::fields::TIMESTAMP_MAX_MS;

const RULES: Rules = Rules {
    url_bytes_max: 4_096,
    id_bytes_max: 128,
    text_chars_max: 100,
    properties_bytes_max: 32 * 1024,
    properties_depth_max: 32,
    timestamp_ahead_max_ms: 86_400_000,
    timestamp_age_max_ms: i64::MAX,
    batch_events_max: 1_000,
};
const NOW: i64 = 1_769_630_400_000;
const CODE: &str = "pm-abc123-1704067200000";

fn website_id(code: &str) -> Option<Arc<str>> {
    (code == CODE).then(|| "web-123".into())
}

fn parse(body: &[u8]) -> Result<(ValidEvents, u64), Rejection> {
    parse_event(body.to_vec(), &RULES, NOW, website_id)
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

fn field_faults(result: Result<(ValidEvents, u64), Rejection>) -> Vec<&'static str> {
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
    let (events, corrected) = parse(body.to_string().as_bytes()).unwrap();
    let row = events.rows().next().unwrap();
    assert_eq!((events.len(), corrected), (1, 0));
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
        json!({"sessionId": "x".repeat(128), "visitorId": "é".repeat(64)}),
        json!({"deviceType": null, "browser": null, "os": null, "location": null, "properties": null}),
        json!({"browser": "é".repeat(100), "os": "", "location": "x".repeat(100)}),
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
        (json!({"referrer": "google"}), &["referrer"]),
        (json!({"sessionId": ""}), &["sessionId"]),
        (json!({"sessionId": "x".repeat(129)}), &["sessionId"]),
        (json!({"visitorId": "a\nb"}), &["visitorId"]),
        (json!({"visitorId": ["v"]}), &["visitorId"]),
        (json!({"deviceType": "watch"}), &["deviceType"]),
        (json!({"deviceType": ""}), &["deviceType"]),
        (json!({"browser": "x".repeat(101)}), &["browser"]),
        (json!({"os": {"name": "x"}, "location": true}), &["location", "os"]),
        (json!({"timestamp": "now"}), &["timestamp"]),
        (json!({"timestamp": null}), &["timestamp"]),
        (json!({"timestamp": -1}), &["timestamp"]),
        (json!({"timestamp": -0.5}), &["timestamp"]),
        (json!({"timestamp": TIMESTAMP_MAX_MS + 1}), &["timestamp"]),
        (json!({"timestamp": u64::MAX}), &["timestamp"]),
        (json!({"timestamp": 1e300}), &["timestamp"]),
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
fn clocks_that_run_ahead_are_set_to_the_arrival() {
    for (ahead_ms, corrected) in [(86_400_000, 0), (86_400_001, 1)] {
        let body = event_with(json!({"timestamp": NOW + ahead_ms})).to_string();
        let (events, count) = parse(body.as_bytes()).unwrap();
        let wanted = if corrected == 1 { NOW } else { NOW + ahead_ms };
        assert_eq!((events.rows().next().unwrap().created_at, count), (wanted, corrected));
    }
}

#[test]
fn malformed_bodies_are_told_with_the_place() {
    let valid = event_with(json!({})).to_string();
    let nested = |depth: usize| {
        let properties = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        valid.replacen('{', &format!(r#"{{"properties":{properties},"#), 1)
    };
    assert!(parse(nested(32).as_bytes()).is_ok());
    for (body, words) in [
        (String::new(), "empty"),
        (" \n".into(), "empty"),
        ("{".into(), "byte 1: the body ends"),
        (format!("{valid}x"), "byte"),
        (format!("{valid}{{}}"), "byte"),
        (r#"{"a" 1}"#.into(), "byte 5"),
        (r#"{"a": tru}"#.into(), "byte 6"),
        (r#"{"a": "\ud800"}"#.into(), "byte 6"),
        (r#"{"a": "\udc00"}"#.into(), "byte 6"),
        (r#"{"a\tb": "c\td\u00e9", "e": ["\ud800\u0041"]}"#.into(), "byte 29"),
        (r#"{"a": "\x"}"#.into(), "byte"),
        (r#"{"a": "b"#.into(), "byte 8: a string"),
        ("{\"a\": \"\u{1}\"}".into(), "byte 7"),
        (r#"{"a": 18446744073709551616}"#.into(), "byte"),
        (r#"{"a": -9223372036854775809}"#.into(), "byte"),
        (r#"{"a": 1e999}"#.into(), "byte"),
        (r#"{"a": NaN}"#.into(), "byte 6"),
        ("1e999".into(), "byte 0"),
        (nested(33), "nested"),
        (nested(40), "nested"),
        ("[".repeat(100_000), "nested"),
    ] {
        match parse(body.as_bytes()) {
            Err(Rejection::Malformed(text)) => assert!(text.contains(words), "{body:.60}: {text}"),
            other => panic!("{body:.60}: {other:?}"),
        }
    }
    match parse(b"{\"url\": \"\xff\"}") {
        Err(Rejection::Malformed(text)) => assert!(text.contains("UTF-8") && text.contains("byte 9"), "{text}"),
        other => panic!("{other:?}"),
    }
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
    let batch = parse_batch(body.to_string().into_bytes(), &RULES, NOW, website_id).unwrap();
    let sessions: Vec<_> = batch.events.rows().map(|row| row.session_id).collect();
    assert_eq!(sessions, [b"first".as_slice(), b"last"]);
    let kinds: Vec<_> = batch
        .refused
        .iter()
        .map(|(index, rejection)| match rejection {
            Rejection::UnknownWebsite(code) => (*index, code.as_str()),
            Rejection::Invalid(faults) => (*index, faults.fields.first().map_or("form", |(field, _)| field)),
            Rejection::Malformed(_) => (*index, "malformed"),
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
        (r#"{"events": [1,]}"#, "byte"),
    ] {
        let refusal = parse_batch(body.as_bytes().to_vec(), &rules, NOW, website_id).unwrap_err();
        assert!(format!("{refusal:?}").contains(words), "{body}: {refusal:?}");
    }
}

#[test]
fn a_very_long_code_is_not_repeated_whole() {
    let body = json!({"events": [event_with(json!({"trackingCode": "é".repeat(10_000)}))]});
    let batch = parse_batch(body.to_string().into_bytes(), &RULES, NOW, website_id).unwrap();
    assert!(
        matches!(&batch.refused[0].1, Rejection::UnknownWebsite(code) if code.chars().count() == ECHO_CHARS_MAX + 1)
    );
}

/// Any JSON value, objects and arrays up to six deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\x00-\\x7f\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// What a client says about an event in `properties` comes back as the same JSON.
    #[test]
    fn properties_come_back_equal(members in prop::collection::btree_map(".{0,6}", any_json(), 0..8)) {
        let properties = Value::Object(members.into_iter().collect());
        let body = event_with(json!({"properties": properties})).to_string();
        let (events, _) = parse(body.as_bytes()).unwrap();
        let back: Value = serde_json::from_slice(events.rows().next().unwrap().properties.unwrap()).unwrap();
        prop_assert_eq!(back, properties);
    }

    /// Whatever JSON is put in for a member: it is refused by name, or comes back equal.
    #[test]
    fn any_value_is_refused_or_kept(
        field in prop::sample::select(vec!["url", "referrer", "sessionId", "visitorId", "browser", "os", "location"]),
        value in any_json(),
    ) {
        let body = event_with(json!({field: value})).to_string();
        match parse(body.as_bytes()) {
            Ok((events, _)) => {
                let row = events.rows().next().unwrap();
                let kept = match field {
                    "url" => Some(row.url),
                    "referrer" => row.referrer,
                    "sessionId" => Some(row.session_id),
                    "visitorId" => Some(row.visitor_id),
                    "browser" => row.browser,
                    "os" => row.os,
                    _ => row.location,
                };
                prop_assert_eq!(kept, value.as_str().filter(|text| field != "referrer" || !text.is_empty()).map(str::as_bytes));
            }
            Err(Rejection::Invalid(faults)) => prop_assert_eq!(faults.fields[0].0, field),
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }

    /// Damage a valid body anywhere: we take it exactly when serde_json does (which has our limits on numbers and,
    /// at this size, on depth), and never panic.
    #[test]
    fn damaged_bodies_are_judged_as_serde_json_judges(
        value in any_json(),
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0123456789eE+-.tfn \x01\x7f\xc3\xed".to_vec())],
        insert: bool,
    ) {
        let mut body = format!(r#"{{"unknown":{value},"url":"x"}}"#).into_bytes();
        let at = at.index(body.len());
        if insert { body.insert(at, byte) } else { body[at] = byte }
        let model = serde_json::from_slice::<Value>(&body);
        let ours = parse(&body);
        let malformed = matches!(ours, Err(Rejection::Malformed(_)));
        // serde_json reads whole numbers beyond 64 bits as doubles; the contract refuses them.
        let wide = String::from_utf8_lossy(&body).split(|letter: char| !letter.is_ascii_digit()).any(|run| run.len() > 18);
        if !wide {
            prop_assert_eq!(malformed, model.is_err(), "{}: {:?}", String::from_utf8_lossy(&body), ours);
        }
    }
}

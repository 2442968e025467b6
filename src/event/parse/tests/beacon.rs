//! A beacon of the dashboard project: other names of the same members.

use super::*;
use crate::event::IdHasher;

fn parse(body: &Value, arrival: &Arrival) -> Result<(ValidEvents, Warnings), Rejection> {
    parse_named_event(Naming::Beacon, body.to_string().into_bytes(), &RULES, arrival, intake)
}

/// A valid beacon with `changes` made to it.
#[allow(clippy::needless_pass_by_value, reason = "the callers' tables read better")]
fn beacon_with(changes: Value) -> Value {
    let mut beacon = json!({"code": CODE, "sid": "s", "vid": "v", "url": "https://example.com/"});
    for (name, value) in changes.as_object().unwrap() {
        beacon[name] = value.clone();
    }
    beacon
}

#[test]
fn a_beacon_is_a_page_view() {
    let body = beacon_with(json!({
        "url": "https://example.com/a?b", "ref": "https://g.example/", "t": 1_704_067_200_000.9,
        "eventType": "click", "sessionId": "other", "timestamp": "x", "browser": 7, "properties": [1]
    }));
    let (events, warnings) = parse(&body, &Arrival::at(NOW)).unwrap();
    let row = events.rows().next().unwrap();
    assert_eq!((events.len(), warnings), (1, Warnings::default()));
    assert_eq!((row.website_id, row.event_type), (&b"web-123"[..], &b"pageview"[..]));
    assert_eq!((row.session_id, row.visitor_id), (&b"s"[..], &b"v"[..]));
    assert_eq!((row.url, row.referrer), (&b"https://example.com/a?b"[..], Some(&b"https://g.example/"[..])));
    assert_eq!((row.created_at, row.received_at), (1_704_067_200_000, NOW));
    assert_eq!((row.device_type, row.browser, row.properties), (None, None, None));
}

#[test]
fn the_time_is_a_number_or_a_text() {
    for (time, created_at) in [
        (json!(null), NOW),
        (json!(0), 0),
        (json!(1_704_067_200_000_i64), 1_704_067_200_000),
        (json!("1704067200000"), 1_704_067_200_000),
        (json!("2024-01-01T00:00:00.000Z"), 1_704_067_200_000),
        (json!("2024-01-01T01:30:00+01:30"), 1_704_067_200_000),
        (json!("9999-12-31T23:59:59.999Z"), NOW),
    ] {
        let (events, _) = parse(&beacon_with(json!({ "t": time })), &Arrival::at(NOW)).unwrap();
        assert_eq!(events.rows().next().unwrap().created_at, created_at, "{time}");
    }
    for (time, words) in [
        (json!(""), "RFC 3339"),
        (json!("yesterday"), "RFC 3339"),
        (json!("2024-01-01"), "RFC 3339"),
        (json!("1969-12-31T23:59:59Z"), "from 0"),
        (json!(-1), "from 0"),
        (json!(true), "RFC 3339, received a boolean"),
        (json!({}), "RFC 3339, received an object"),
    ] {
        let Err(Rejection::Invalid(faults)) = parse(&beacon_with(json!({ "t": time })), &Arrival::at(NOW)) else {
            panic!("{time} is taken")
        };
        let [("t", texts)] = &faults.fields[..] else { panic!("{time}: {faults:?}") };
        assert!(texts[0].contains(words), "{time}: {texts:?}");
    }
    // An event's own time is a number, as ever.
    let with_text = parse_event(
        event_with(json!({"timestamp": "2024-01-01T00:00:00Z"})).to_string().into_bytes(),
        &RULES,
        &Arrival::at(NOW),
        intake,
    );
    assert_eq!(field_faults(with_text), ["timestamp"]);
}

#[test]
fn faults_and_warnings_have_the_names_that_were_sent() {
    for (body, fields) in [
        (json!({}), &["code", "sid", "vid", "url"][..]),
        (json!({"trackingCode": CODE, "sessionId": "s", "visitorId": "v"}), &["code", "sid", "vid", "url"]),
        (beacon_with(json!({"code": "x", "sid": "", "vid": 1, "url": "/a"})), &["code", "sid", "url", "vid"]),
        (beacon_with(json!({"eventId": ""})), &["eventId"]),
    ] {
        let mut found = field_faults(parse(&body, &Arrival::at(NOW)));
        let mut wanted = fields.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{body}");
    }
    let twice = format!(r#"{{"code":"{CODE}","sid":"s","vid":"v","url":"https://a.example/","sid":"s"}}"#);
    let refused =
        |body: &str| parse_named_event(Naming::Beacon, body.as_bytes().to_vec(), &RULES, &Arrival::at(NOW), intake);
    assert_eq!(field_faults(refused(&twice)), ["sid"]);
    let Err(Rejection::Malformed(message)) = refused(&twice.replace(r#""sid":"s"}"#, r#""t":1e999}"#)) else {
        panic!("a number that is none is taken")
    };
    assert!(message.ends_with(r#" in "t""#), "{message}");
    for (referrer, has_warning) in [(json!(null), false), (json!(""), false), (json!("google"), true), (json!(1), true)]
    {
        let (events, warnings) = parse(&beacon_with(json!({ "ref": referrer })), &Arrival::at(NOW)).unwrap();
        assert_eq!(events.rows().next().unwrap().referrer, None);
        let wanted = if has_warning { vec![("ref", WarningCode::ReferrerDropped)] } else { vec![] };
        assert_eq!(codes(&warnings), wanted, "{referrer}");
    }
}

#[test]
fn a_beacon_is_named_as_any_event_is() {
    let hasher = || IdHasher::new(b"0123456789abcdef");
    let arrival = Arrival { idempotency_key: Some("key".into()), ids: Some(hasher()), ..Arrival::at(NOW) };
    for (changes, hash) in
        [(json!({}), hasher().of_key("web-123", "key", 0)), (json!({"eventId": "a"}), hasher().of_id("web-123", "a"))]
    {
        let (events, _) = parse(&beacon_with(changes.clone()), &arrival).unwrap();
        assert_eq!(events.id_hashes(), [Some(hash)], "{changes}");
    }
}

//! `POST /api/v1/track`: a page view as the dashboard project's tracker sends it.

use harness::{Client, Daemon, Response, work_dir};
use serde_json::{Value, json};

const TRACK: &str = "/api/v1/track";
/// A moment that no test runs at.
const THEN: i64 = 1_767_225_600_000;

/// A beacon with some members changed.
fn beacon_with(code: &str, changes: Value) -> Value {
    let mut beacon = json!({"code": code, "sid": "s", "vid": "v", "url": "https://example.com/"});
    beacon.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    beacon
}

fn send(client: &mut Client, body: &Value, headers: &[(&str, &str)]) -> Response {
    client.send("POST", TRACK, headers, body.to_string().as_bytes())
}

fn assert_stored(response: &Response) {
    assert_eq!((response.status, response.text().as_str()), (204, ""));
    for header in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(response.header(header), None, "{header}");
    }
}

/// The events of a website, the newest first.
fn events(client: &mut Client, code: &str) -> Vec<Value> {
    client.get(&format!("/api/v1/events?trackingCode={code}")).json()["events"].as_array().unwrap().clone()
}

#[test]
fn a_beacon_is_stored_before_it_is_answered() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("example.com");
    let sent = beacon_with(
        &code,
        json!({"url": "https://example.com/a?b=c", "ref": "https://g.example/", "t": THEN, "eventType": "click"}),
    );
    assert_stored(&send(&mut daemon.client(), &sent, &[]));
    daemon.crash();

    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    let [event] = &events(&mut client, &code)[..] else { panic!("one event was sent") };
    let mut event = event.clone();
    let id = event.as_object_mut().unwrap().remove("id").unwrap();
    assert_eq!(client.get(&format!("/api/v1/events/{}", id.as_str().unwrap())).status, 200);
    assert!(event.as_object_mut().unwrap().remove("websiteId").is_some());
    let wanted = json!({
        "eventType": "pageview", "url": "https://example.com/a?b=c", "referrer": "https://g.example/", "sessionId": "s",
        "visitorId": "v", "deviceType": null, "browser": null, "os": null, "location": null, "properties": null,
        "createdAt": "2026-01-01T00:00:00.000Z"
    });
    assert_eq!(event, wanted);
    daemon.stop();
}

#[test]
fn a_beacon_comes_in_any_type_from_any_page() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let origin = ("origin", "https://shop.example");
    for content_type in [&[][..], &["text/plain;charset=UTF-8"], &["application/json"], &["application/octet-stream"]] {
        let types = content_type.iter().map(|content_type| ("content-type", *content_type));
        let headers: Vec<_> = types.chain([origin]).collect();
        let stored = send(&mut client, &beacon_with(&code, json!({})), &headers);
        assert_stored(&stored);
        assert_eq!(stored.header("access-control-allow-origin"), Some(origin.1));
        assert_eq!(stored.header("access-control-allow-credentials"), Some("true"));
        assert!(stored.header("hitlog-position").is_none(), "a page of another site must not learn how much arrives");
    }
    assert!(send(&mut client, &beacon_with(&code, json!({})), &[]).header("hitlog-position").is_some());
    assert_eq!(events(&mut client, &code).len(), 5);
    for (number, time) in
        [json!("2026-01-01T01:00:00+01:00"), json!("1767225600000"), json!(THEN as f64 + 0.9)].into_iter().enumerate()
    {
        let other = daemon.register(&format!("{number}.example.com"));
        assert_stored(&send(&mut client, &beacon_with(&other, json!({ "t": time })), &[]));
        assert_eq!(events(&mut client, &other)[0]["createdAt"], "2026-01-01T00:00:00.000Z", "{time}");
    }
    daemon.stop();
}

#[test]
fn a_beacon_is_refused_by_the_names_that_it_has() {
    let daemon = Daemon::start(&["--event-bytes-max", "2048"]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    for (body, fields) in [
        (json!({}), &["code", "sid", "url", "vid"][..]),
        (json!({"code": code, "eventType": "click"}), &["sid", "url", "vid"]),
        (
            beacon_with("code", json!({"sid": "", "vid": 1, "url": "/a", "t": "today", "eventId": 7})),
            &["code", "eventId", "sid", "t", "url", "vid"],
        ),
        (beacon_with(&code, json!({"t": -1})), &["t"]),
        (beacon_with(&code, json!({"t": [THEN]})), &["t"]),
    ] {
        let refused = send(&mut client, &body, &[]);
        assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"), "{body}");
        let told = refused.json()["details"]["fieldErrors"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(told, fields, "{body}");
    }
    let large = beacon_with(&code, json!({"x": "x".repeat(2_048)})).to_string();
    let unknown = beacon_with("pm-nobody", json!({})).to_string();
    for (body, status, code) in [
        ("{", 400, "MALFORMED_JSON"),
        ("[]", 400, "VALIDATION_ERROR"),
        (&unknown, 404, "NOT_FOUND"),
        (&large, 413, "PAYLOAD_TOO_LARGE"),
    ] {
        let refused = daemon.client().send("POST", TRACK, &[], body.as_bytes());
        assert_eq!((refused.status, refused.error().as_str()), (status, code));
    }
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let refused = client.send(method, TRACK, &[], b"");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("POST, OPTIONS")), "{method}");
    }
    assert!(events(&mut client, &code).is_empty());
    assert_eq!(daemon.assert_conserved(), (9.0, 0.0));
    daemon.stop();
}

#[test]
fn a_beacon_that_is_sent_again_is_stored_once() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let key = [("idempotency-key", "key")];
    for (changes, headers) in [(json!({}), &key[..]), (json!({"eventId": "a"}), &[]), (json!({"eventId": "b"}), &key)] {
        for is_repeat in [false, true] {
            let stored = send(&mut client, &beacon_with(&code, changes.clone()), headers);
            assert_stored(&stored);
            assert_eq!(stored.header("idempotency-replayed").is_some(), is_repeat, "{changes}");
        }
    }
    assert_eq!(events(&mut client, &code).len(), 3);
    // An event of the same name is the same event, whatever it is sent as.
    let event = harness::event_with(&code, json!({"eventId": "a"})).to_string();
    assert_eq!(client.post("/api/v1/events", event).header("idempotency-replayed"), Some("true"));
    let refused = send(&mut client, &beacon_with(&code, json!({})), &[("idempotency-key", "a b")]);
    assert!(refused.json()["details"]["fieldErrors"]["Idempotency-Key"].is_array(), "{}", refused.text());
    daemon.stop();
}

#[test]
fn what_is_odd_about_a_beacon_is_stored_and_counted() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    for referrer in [json!(null), json!(""), json!("google"), json!(7)] {
        assert_stored(&send(&mut client, &beacon_with(&code, json!({ "ref": referrer })), &[]));
    }
    assert!(events(&mut client, &code).iter().all(|event| event["referrer"].is_null()));
    assert_eq!(daemon.metrics()["hitlog_event_warnings_total{code=\"REFERRER_DROPPED\"}"], 2.0);
    daemon.stop();
}

//! What trackers are known to send, and what becomes of it: no odd member costs its event, no odd item its batch, and
//! each fault is told with its true place and in a bounded answer.

use harness::{Client, Daemon, Response, event_with};
use serde_json::{Value, json};

const SINGLE: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";

/// The warnings of an answer as (index, field, code).
fn warnings(response: &Response) -> Vec<(Value, String, String)> {
    let body = response.json();
    let text = |warning: &Value, name: &str| warning[name].as_str().unwrap().to_owned();
    let told = body["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(told.iter().all(|warning| !text(warning, "message").is_empty()), "{body}");
    told.iter().map(|warning| (warning["index"].clone(), text(warning, "field"), text(warning, "code"))).collect()
}

fn read_back(client: &mut Client, response: &Response) -> Value {
    let id = response.json()["id"].as_str().unwrap().to_owned();
    let event = client.get(&format!("/api/v1/events/{id}")).json();
    assert!(event.get("warnings").is_none(), "{event}");
    event
}

fn count(daemon: &Daemon, code: &str) -> f64 {
    let metrics = daemon.metrics();
    metrics.get(&format!("hitlog_event_warnings_total{{code=\"{code}\"}}")).copied().unwrap_or_default()
}

#[test]
fn an_odd_member_is_stored_and_told_in_both_answers() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let far_ahead = 253_402_300_799_999_i64;
    for (member, value, told, stored) in [
        ("timestamp", json!(1_795_627_235), "TIMESTAMP_LOOKS_LIKE_SECONDS", None),
        ("timestamp", json!(0), "TIMESTAMP_BEFORE_2000", None),
        ("timestamp", json!(far_ahead), "TIMESTAMP_AHEAD", None),
        ("referrer", json!("google.com"), "REFERRER_DROPPED", Some(json!(null))),
        ("referrer", json!("x".repeat(5_000)), "REFERRER_DROPPED", Some(json!(null))),
        ("referrer", json!(7), "REFERRER_DROPPED", Some(json!(null))),
        ("browser", json!("cut \\ud83d"), "TEXT_REPAIRED", Some(json!("cut \u{fffd}"))),
        ("properties", json!({"a": ["\\ude00"]}), "TEXT_REPAIRED", Some(json!({"a": ["\u{fffd}"]}))),
    ] {
        let before = count(&daemon, told);
        let event = event_with(&code, json!({member: value})).to_string().replace(r"\\u", r"\u");
        let single = client.post(SINGLE, &event);
        assert_eq!(single.status, 201, "{event:.300}: {}", single.text());
        assert_eq!(warnings(&single), [(Value::Null, member.to_owned(), told.to_owned())]);
        if let Some(stored) = stored {
            assert_eq!(read_back(&mut client, &single)[member], stored, "{event:.300}");
        }
        let plain = event_with(&code, json!({"timestamp": null, "referrer": ""}));
        let refused = event_with(&code, json!({"referrer": "x", "timestamp": 1, "os": 1}));
        let batch = client.post(BATCH, format!(r#"{{"events":[{plain},{refused},{event}]}}"#));
        assert_eq!((batch.status, &batch.json()["eventsCreated"]), (207, &json!(2)), "{}", batch.text());
        assert_eq!(warnings(&batch), [(json!(2), member.to_owned(), told.to_owned())]);
        assert_eq!(count(&daemon, told) - before, 2.0, "{told}");
    }
    let plain = client.post(SINGLE, event_with(&code, json!({"timestamp": null})).to_string());
    assert!(plain.json().get("warnings").is_none());
    assert_eq!(daemon.metrics()["hitlog_events_clock_corrected_total"], 2.0);
    daemon.assert_conserved();
    daemon.stop();
}

#[test]
fn one_odd_item_does_not_take_its_batch() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let padding = "x".repeat(300 * 1024);
    for (member, stored) in [
        (r#""browser":"\ud83d""#.to_owned(), true),
        (r#""x\udc00":1"#.to_owned(), true),
        (r#""properties":{"n":18446744073709551616}"#.to_owned(), false),
        (r#""timestamp":1e999"#.to_owned(), false),
        (format!(r#""properties":{{"deep":{deep}}}"#), false),
        (r#""os":"a","os":"b""#.to_owned(), false),
        (format!(r#""x":"{padding}""#), false),
    ] {
        let items: Vec<String> = (0..1_000)
            .map(|number| {
                let item = event_with(&code, json!({"properties": {"note": "a \"quoted\" text"}})).to_string();
                // Before the others, so that the second of two is the good one.
                if number == 500 { item.replacen('{', &format!("{{{member},"), 1) } else { item }
            })
            .map(|item| item.replace(r#","properties":{"note":"a \"quoted\" text"}"#, ""))
            .collect();
        let response = client.post(BATCH, format!(r#"{{"events":[{}]}}"#, items.join(",")));
        let body = response.json();
        let (status, created) = if stored { (201, 1_000) } else { (207, 999) };
        assert_eq!((response.status, &body["eventsCreated"]), (status, &json!(created)), "{member:.60}");
        if !stored {
            let error = &body["errors"][0];
            assert_eq!((&error["index"], &error["error"]), (&json!(500), &json!("VALIDATION_ERROR")), "{error}");
            assert!(error["details"].is_object(), "{error}");
        }
    }
    daemon.assert_conserved();
    daemon.stop();
}

#[test]
fn an_answer_to_refused_items_is_bounded() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let response = client.post(BATCH, format!(r#"{{"events":[{}]}}"#, vec!["{}"; 1_000].join(",")));
    let body = response.json();
    let errors = body["errors"].as_array().unwrap();
    assert_eq!((response.status, errors.len()), (207, 1_000));
    for (index, error) in errors.iter().enumerate() {
        assert_eq!((&error["index"], &error["error"]), (&json!(index), &json!("VALIDATION_ERROR")));
        assert_eq!(error.get("details").is_some(), index < 100, "{error}");
    }
    assert!(response.body.len() < 120_000, "{} bytes", response.body.len());

    let repeated = format!("{{{}\"os\":1}}", r#""os":1,"#.repeat(9_000));
    let response = client.post(SINGLE, repeated);
    let faults = response.json()["details"]["fieldErrors"]["os"].clone();
    assert_eq!((response.status, faults.as_array().unwrap().len()), (400, 2), "{faults}");
    daemon.assert_conserved();
    daemon.stop();
}

#[test]
fn warnings_are_bounded_in_the_answer_and_all_counted() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let items = vec![event_with(&code, json!({"referrer": "x", "timestamp": 5})).to_string(); 150];
    let response = daemon.client().post(BATCH, format!(r#"{{"events":[{}]}}"#, items.join(",")));
    assert_eq!((response.status, warnings(&response).len()), (201, 100));
    assert_eq!(response.json()["warningsOmitted"], 200);
    assert_eq!(count(&daemon, "REFERRER_DROPPED") + count(&daemon, "TIMESTAMP_BEFORE_2000"), 300.0);
    daemon.stop();
}

#[test]
fn the_byte_of_a_fault_is_the_bodys_own() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let escaped = r#"{"trackingCode":"pm-abc123-1704067200000","x":"aaaaa\x41"}"#;
    for path in [SINGLE, BATCH] {
        for (body, at) in [
            (escaped.to_owned(), 52),
            (format!("\u{feff}{escaped}"), 55),
            (r#"{"a\n\n\n\n":"\n\n\n\n","b":tru}"#.to_owned(), 28),
        ] {
            let response = client.post(path, &body);
            let message = response.json()["message"].as_str().unwrap().to_owned();
            assert_eq!((response.status, response.error().as_str()), (400, "MALFORMED_JSON"));
            assert!(message.contains(&format!("at byte {at}:")), "{body}: {message}");
        }
    }
    daemon.stop();
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let event = event_with(&code, json!({}));
    for (path, body) in [(SINGLE, event.to_string()), (BATCH, json!({"events": [event]}).to_string())] {
        let response = client.post(path, format!("\u{feff}{body}"));
        assert_eq!(response.status, 201, "{}", response.text());
    }
    daemon.stop();
}

#[test]
fn a_url_without_its_scheme_is_told_what_it_lacks() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    for (url, words) in [
        ("localhost:3000/page", "write http://localhost:3000/page"),
        ("example.com/page", "write https://example.com/page"),
        (r"C:\x", "path on a disk"),
        ("/page", "without scheme and host"),
        ("urn:isbn:1", "Expected \"//\""),
    ] {
        let response = client.post(SINGLE, event_with(&code, json!({"url": url})).to_string());
        let told = response.json()["details"]["fieldErrors"]["url"][0].as_str().unwrap_or_default().to_owned();
        assert!(response.status == 400 && told.contains(words), "{url}: {}", response.text());
    }
    for url in ["about:blank", "mailto:a@example.com", "file:///x", "android-app://a.b/", "app://x"] {
        let response = client.post(SINGLE, event_with(&code, json!({"url": url})).to_string());
        assert_eq!(response.status, 201, "{url}: {}", response.text());
    }
    daemon.stop();
}

//! The contract's rules, in tables, against the real binary.

use std::io::Write;

use harness::{Client, Daemon, Response, event_with, traffic};
use serde_json::{Value, json};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn brotli(data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    brotli::CompressorWriter::new(&mut packed, 4096, 5, 20).write_all(data).unwrap();
    packed
}

fn field_errors(response: &Response) -> Vec<String> {
    response.json()["details"]["fieldErrors"]
        .as_object()
        .map(|fields| fields.keys().cloned().collect())
        .unwrap_or_default()
}

#[test]
fn one_event_is_stored_or_refused_by_field() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    for (changes, status, fields) in [
        (json!({}), 201, &[][..]),
        (json!({"unknown": {"x": [1, 2]}, "referrer": "", "deviceType": null, "properties": null}), 201, &[]),
        (json!({"timestamp": 253_402_300_799_999_i64 }), 201, &[]),
        (
            json!({"eventType": "view", "url": "x", "sessionId": "", "visitorId": 1}),
            400,
            &["eventType", "sessionId", "url", "visitorId"],
        ),
        (json!({"trackingCode": "PM-1", "os": 1}), 400, &["os", "trackingCode"]),
        (json!({"trackingCode": "pm-nobody"}), 404, &[]),
        (json!({"url": "javascript:alert(1)"}), 400, &["url"]),
        (json!({"url": "localhost:3000/page"}), 400, &["url"]),
        (json!({"timestamp": null, "referrer": "google.com"}), 201, &[]),
        (json!({"timestamp": -1}), 400, &["timestamp"]),
        (json!({"properties": "x"}), 400, &["properties"]),
    ] {
        let response = client.post("/api/v1/events", event_with(&code, changes.clone()).to_string());
        assert_eq!(response.status, status, "{changes}: {}", response.text());
        assert_eq!(field_errors(&response), fields, "{changes}");
        if status == 201 {
            let mut stored = response.json();
            // What is odd is told once, when it comes in.
            stored.as_object_mut().unwrap().remove("warnings");
            let again = client.get(&format!("/api/v1/events/{}", stored["id"].as_str().unwrap())).json();
            assert_eq!(again, stored, "read back as answered");
        }
    }
    daemon.stop();
}

#[test]
fn what_comes_back_is_what_was_sent() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let sent = json!({
        "trackingCode": code, "eventType": "custom", "url": "HTTPS://Example.com:443/a b?q=\u{e9}#f", "referrer": "https://t.co/\"x\"",
        "sessionId": "s\u{1f980}\u{2028}", "visitorId": "v\\", "deviceType": "tablet", "browser": "\u{424}", "os": "<os>",
        "location": "", "timestamp": 1_704_067_200_123.999_f64,
        "properties": {"text": "\u{0}\u{1f}\u{7f}\"\\/\u{1f980}", "numbers": [0, -1, i64::MIN, u64::MAX, 0.1, 1e300, -0.5], "deep": {"a": [[], {}, null, true]}}
    });
    let response = daemon.client().post("/api/v1/events", sent.to_string());
    assert_eq!(response.status, 201, "{}", response.text());
    let mut wanted = sent.clone();
    let stored = response.json();
    let members = wanted.as_object_mut().unwrap();
    members.remove("trackingCode");
    members.remove("timestamp");
    members.insert("id".into(), stored["id"].clone());
    members.insert("websiteId".into(), stored["websiteId"].clone());
    members.insert("createdAt".into(), "2024-01-01T00:00:00.123Z".into());
    assert_eq!(stored, wanted);
    let list = daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json();
    assert_eq!(list["events"], json!([stored]));
    daemon.stop();
}

#[test]
fn bodies_that_are_no_events() {
    const EXCESS: &str = "well-formed, and not taken";
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let valid = event_with(&code, json!({})).to_string();
    let nested = |depth: usize| {
        valid.replacen('{', &format!(r#"{{"properties":{}1{},"#, r#"{"a":"#.repeat(depth), "}".repeat(depth)), 1)
    };
    let doubled = valid.replacen('{', r#"{"url":"https://a.b/","#, 1);
    let mut client = daemon.client();
    for (body, error) in [
        (b"{".to_vec(), "MALFORMED_JSON"),
        (b"\xff\xfe".to_vec(), "MALFORMED_JSON"),
        (format!("{valid} {valid}").into_bytes(), "MALFORMED_JSON"),
        (valid.replacen('s', "\\x", 1).into_bytes(), "MALFORMED_JSON"),
        (nested(33).into_bytes(), EXCESS),
        (valid.replacen('{', r#"{"properties":{"n":1e999},"#, 1).into_bytes(), EXCESS),
        (valid.replacen('{', r#"{"properties":{"n":-9223372036854775809},"#, 1).into_bytes(), EXCESS),
        (b"[]".to_vec(), "VALIDATION_ERROR"),
        (b"null".to_vec(), "VALIDATION_ERROR"),
        (doubled.into_bytes(), "VALIDATION_ERROR"),
    ] {
        let in_batch = [&br#"{"events":["#[..], &body, b"]}"].concat();
        for (path, body) in [("/api/v1/events", &body), ("/api/v1/events/batch", &in_batch)] {
            let response = client.post(path, body);
            // What is an item's own fault is listed; what is the whole body's refuses it. Nesting too deep and a number
            // out of range are faults of the body where it is one event, and of the item where it is a batch.
            let in_batch = path.ends_with("batch");
            let error = match error {
                EXCESS if in_batch => "VALIDATION_ERROR",
                EXCESS => "MALFORMED_JSON",
                error => error,
            };
            let status = if error == "VALIDATION_ERROR" && in_batch { 207 } else { 400 };
            let found =
                if status == 207 { response.json()["errors"][0]["error"].to_string() } else { response.error() };
            let place = format!("{path} {}", String::from_utf8_lossy(body));
            assert_eq!((response.status, found.trim_matches('"')), (status, error), "{place}");
        }
    }
    for path in ["/api/v1/events", "/api/v1/events/batch"] {
        assert_eq!(client.post(path, "").error(), "MALFORMED_JSON", "{path}");
    }
    assert_eq!(client.post("/api/v1/events", nested(32)).status, 201);
    daemon.stop();
}

#[test]
fn batches() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let batch = |events: &[Value]| json!({"events": events}).to_string();
    let good = || event_with(&code, json!({}));

    let response = client.post("/api/v1/events/batch", traffic::batch(&code, 1_000));
    assert_eq!((response.status, &response.json()["eventsCreated"]), (201, &json!(1_000)));
    let ids: Vec<_> =
        response.json()["events"].as_array().unwrap().iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 1_000, "ids differ");

    let response =
        client.post("/api/v1/events/batch", batch(&[event_with("pm-none", json!({})), event_with("x", json!({}))]));
    let body = response.json();
    assert_eq!((response.status, &body["eventsCreated"], &body["events"]), (207, &json!(0), &json!([])));
    assert_eq!(body["message"], "Created 0 events with 2 errors");

    let mut no_code = good();
    no_code.as_object_mut().unwrap().remove("trackingCode");
    let items = [
        good(),
        no_code,
        event_with("x", json!({"url": 1})),
        json!(3),
        event_with(&code, json!({"url": "x", "os": 1})),
        good(),
    ];
    let response = client.post("/api/v1/events/batch", batch(&items));
    let body = response.json();
    assert_eq!((response.status, &body["eventsCreated"]), (207, &json!(2)));
    let errors: Vec<_> =
        body["errors"].as_array().unwrap().iter().map(|item| (item["index"].clone(), item["error"].clone())).collect();
    assert_eq!(
        json!(errors),
        json!([[1, "VALIDATION_ERROR"], [2, "NOT_FOUND"], [3, "VALIDATION_ERROR"], [4, "VALIDATION_ERROR"]])
    );
    assert_eq!(body["errors"][0]["details"]["fieldErrors"]["trackingCode"], json!(["Required"]));
    assert!(body["errors"][1].get("details").is_none());
    assert_eq!(body["errors"][2]["details"]["formErrors"].as_array().unwrap().len(), 1);

    for body in ["{}".into(), r#"{"events": {}}"#.into(), r#"{"events": []}"#.into(), traffic::batch(&code, 1_001)] {
        let response = client.post("/api/v1/events/batch", body);
        assert_eq!((response.status, field_errors(&response)), (400, vec!["events".to_owned()]));
    }
    daemon.stop();
}

#[test]
fn sizes_at_their_limits() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let padded = |body: String, size: usize| format!("{body}{}", " ".repeat(size - body.len()));
    let event = event_with(&code, json!({})).to_string();
    let batch = traffic::batch(&code, 10);
    for (path, body, limit) in
        [("/api/v1/events", event.clone(), 64 * 1024), ("/api/v1/events/batch", batch.clone(), 4 * 1024 * 1024)]
    {
        for (size, status) in [(limit, 201), (limit + 1, 413)] {
            let plain = padded(body.clone(), size).into_bytes();
            let mut client = daemon.client();
            let response = match status {
                201 => client.send("POST", path, &[], &plain),
                // Refused by its head: the answer is there before the body is.
                _ => {
                    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
                    client.write(head.as_bytes()).unwrap();
                    client.read_response(false).unwrap()
                }
            };
            assert_eq!(response.status, status, "{path} {size}");
            let packed =
                [("gzip", gzip(&plain)), ("br", brotli(&plain)), ("zstd", zstd::encode_all(&plain[..], 1).unwrap())];
            for (encoding, packed) in packed {
                let response = daemon.client().send("POST", path, &[("content-encoding", encoding)], &packed);
                assert_eq!(response.status, status, "{path} {size} {encoding}: {}", response.text());
            }
        }
    }
    let large = |size: usize| event_with(&code, json!({"properties": {"p": "x".repeat(size)}})).to_string();
    let mut client = daemon.client();
    assert_eq!(client.post("/api/v1/events", large(32 * 1024 - 8)).status, 201);
    assert_eq!(client.post("/api/v1/events", large(32 * 1024 - 7)).status, 400);
    for (headers, status, error) in [
        (&[("content-encoding", "compress")][..], 415, "UNSUPPORTED_ENCODING"),
        (&[("content-encoding", "deflate")], 400, "MALFORMED_JSON"),
        (&[("content-encoding", "gzip, br")], 415, "UNSUPPORTED_ENCODING"),
        (&[("content-encoding", "gzip")], 400, "MALFORMED_JSON"),
        (&[("content-encoding", "zstd")], 400, "MALFORMED_JSON"),
        (&[("content-encoding", "identity"), ("content-type", "text/plain;charset=UTF-8")], 201, ""),
    ] {
        let response = daemon.client().send("POST", "/api/v1/events", headers, event.as_bytes());
        assert_eq!((response.status, response.error().as_str()), (status, error), "{headers:?}: {}", response.text());
    }
    daemon.stop();
}

#[test]
fn clocks() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut client = daemon.client();
    let mut created_at = |timestamp: i64| {
        let response = client.post("/api/v1/events", event_with(&code, json!({"timestamp": timestamp})).to_string());
        response.json()["createdAt"].as_str().unwrap().to_owned()
    };
    assert_eq!(created_at(0), "1970-01-01T00:00:00.000Z");
    let before = now_ms();
    let hour_ahead = created_at(before + 3_600_000);
    let days_ahead = created_at(before + 2 * 86_400_000);
    assert!(hour_ahead > days_ahead, "an hour is kept, two days become the arrival: {hour_ahead} {days_ahead}");
    assert_eq!(daemon.metrics()["hitlog_events_clock_corrected_total"], 1.0);
    daemon.stop();
}

#[test]
fn listings() {
    let daemon = Daemon::start(&[]);
    let (code, other) = (daemon.register("example.com"), daemon.register("other.example"));
    let mut client = daemon.client();
    // Out of order and with ties, on purpose.
    let times = [5, 1, 9, 5, 5, 0, 9];
    let events: Vec<_> = times
        .iter()
        .enumerate()
        .map(|(number, time)| {
            let kind = ["pageview", "click", "custom"][number % 3];
            let (session, visitor) = (number.to_string(), ["a", "b"][number % 2]);
            let ids = json!({"timestamp": time, "sessionId": session, "visitorId": visitor, "eventType": kind});
            event_with(&code, ids)
        })
        .collect();
    assert_eq!(client.post("/api/v1/events/batch", json!({"events": events}).to_string()).status, 201);
    assert_eq!(client.post("/api/v1/events", event_with(&other, json!({})).to_string()).status, 201);
    let mut sessions = |query: &str| {
        let response = client.get(&format!("/api/v1/events?trackingCode={code}{query}"));
        assert_eq!(response.status, 200, "{query}: {}", response.text());
        let body = response.json();
        let events = body["events"].as_array().unwrap();
        let sessions: Vec<_> = events.iter().map(|event| event["sessionId"].as_str().unwrap().to_owned()).collect();
        let mut pagination = body["pagination"].clone();
        let next = pagination.as_object_mut().unwrap().remove("next").unwrap();
        let number = |name: &str| pagination[name].as_u64().unwrap();
        let is_last = number("offset").saturating_add(number("limit")) >= number("total");
        assert_eq!(next.is_null(), is_last, "{query}: {next}");
        (sessions.join(""), pagination)
    };
    for (query, wanted, pagination) in [
        ("", "6243015", json!({"total": 7, "limit": 100, "offset": 0})),
        ("&limit=3", "624", json!({"total": 7, "limit": 3, "offset": 0})),
        ("&limit=3&offset=3", "301", json!({"total": 7, "limit": 3, "offset": 3})),
        ("&limit=3&offset=6", "5", json!({"total": 7, "limit": 3, "offset": 6})),
        ("&offset=7", "", json!({"total": 7, "limit": 100, "offset": 7})),
        ("&limit=5000", "6243015", json!({"total": 7, "limit": 1000, "offset": 0})),
        ("&offset=9223372036854775807", "", json!({"total": 7, "limit": 100, "offset": 9_223_372_036_854_775_807_u64})),
        ("&eventType=pageview", "630", json!({"total": 3, "limit": 100, "offset": 0})),
        ("&eventType=click&limit=1&offset=1", "1", json!({"total": 2, "limit": 1, "offset": 1})),
        ("&eventType=custom&other=1", "25", json!({"total": 2, "limit": 100, "offset": 0})),
        ("&visitorId=a", "6240", json!({"total": 4, "limit": 100, "offset": 0})),
        ("&visitorId=b&limit=2&offset=1", "15", json!({"total": 3, "limit": 2, "offset": 1})),
        ("&visitorId=a&eventType=pageview", "60", json!({"total": 2, "limit": 100, "offset": 0})),
        ("&sessionId=4", "4", json!({"total": 1, "limit": 100, "offset": 0})),
        ("&sessionId=3&visitorId=b&eventType=pageview", "3", json!({"total": 1, "limit": 100, "offset": 0})),
        ("&sessionId=3&visitorId=a", "", json!({"total": 0, "limit": 100, "offset": 0})),
        ("&sessionId=nobody", "", json!({"total": 0, "limit": 100, "offset": 0})),
        ("&from=5", "62430", json!({"total": 5, "limit": 100, "offset": 0})),
        ("&from=1970-01-01T00:00:00.001Z&to=9", "4301", json!({"total": 4, "limit": 100, "offset": 0})),
        ("&to=1970-01-01T01:00:00.005%2B01:00", "15", json!({"total": 2, "limit": 100, "offset": 0})),
        ("&from=1&to=9&limit=2&offset=1", "30", json!({"total": 4, "limit": 2, "offset": 1})),
        ("&from=5&to=5", "", json!({"total": 0, "limit": 100, "offset": 0})),
        ("&visitorId=a&from=1&to=9", "40", json!({"total": 2, "limit": 100, "offset": 0})),
        ("&eventType=pageview&to=6", "30", json!({"total": 2, "limit": 100, "offset": 0})),
    ] {
        assert_eq!(sessions(query), (wanted.to_owned(), pagination), "{query}");
    }
    for (query, status) in [
        ("", 400),
        ("?trackingCode=", 400),
        ("?trackingCode=pm-nobody-1", 404),
        (&format!("?trackingCode={code}&eventType=view"), 400),
        (&format!("?trackingCode={code}&limit=0"), 400),
        (&format!("?trackingCode={code}&limit=1.5"), 400),
        (&format!("?trackingCode={code}&offset=-1"), 400),
        (&format!("?trackingCode={code}&offset=9223372036854775808"), 400),
        (&format!("?trackingCode={code}&limit=10&limit=10"), 400),
        (&format!("?trackingCode={code}&sessionId=&eventType=&from=&to=&limit=&offset=&cursor="), 200),
        (&format!("?trackingCode={code}&from=2026-01-28T21:30:00+01:30"), 400),
        (&format!("?trackingCode={code}&from=yesterday"), 400),
        (&format!("?trackingCode={code}&from=5&to=4"), 400),
        (&format!("?trackingCode={code}&cursor=AAAA"), 400),
        (&format!("?trackingCode={code}&visitorId={}", "v".repeat(129)), 400),
    ] {
        assert_eq!(daemon.client().get(&format!("/api/v1/events{query}")).status, status, "{query}");
    }
    daemon.stop();
}

#[test]
fn cursors() {
    let daemon = Daemon::start(&[]);
    let (code, other) = (daemon.register("example.com"), daemon.register("other.example"));
    let mut client = daemon.client();
    let event = |number: u64| event_with(&code, json!({"timestamp": number / 3, "sessionId": number.to_string()}));
    let send = |client: &mut Client, numbers: std::ops::Range<u64>| {
        let body = json!({"events": numbers.map(event).collect::<Vec<_>>()}).to_string();
        assert_eq!(client.post("/api/v1/events/batch", body).status, 201);
    };
    send(&mut client, 0..50);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/api/v1/events?trackingCode={code}&from=1&limit=7{cursor}")).json();
        assert_eq!(page["pagination"]["offset"], seen.len());
        let sessions = page["events"].as_array().unwrap().iter().map(|event| event["sessionId"].as_str().unwrap());
        seen.extend(sessions.map(|session| session.parse::<u64>().unwrap()));
        let Some(next) = page["pagination"]["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
        // Among those that are still to come, and those that have been shown.
        send(&mut client, 0..50);
    }
    assert_eq!(seen, (3..50).rev().collect::<Vec<_>>());
    for query in [
        format!("?trackingCode={code}&from=1&limit=100{cursor}"),
        format!("?trackingCode={code}&limit=7{cursor}"),
        format!("?trackingCode={other}&from=1{cursor}"),
        format!("?trackingCode={code}&from=1&eventType=click{cursor}"),
        format!("?trackingCode={code}&from=1&offset=0{cursor}"),
        format!("?trackingCode={code}&from=1{cursor}x"),
    ] {
        let response = daemon.client().get(&format!("/api/v1/events{query}"));
        let wanted = if query.contains("limit=100") { 200 } else { 400 };
        assert_eq!(response.status, wanted, "{query}: {}", response.text());
    }
    daemon.stop();
}

#[test]
fn events_by_id() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let code = daemon.register("example.com");
    let event = client.post("/api/v1/events", event_with(&code, json!({})).to_string()).json();
    let id = event["id"].as_str().unwrap();
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for written in [id.to_owned(), format!("{id}/"), escaped.clone(), escaped + "/"] {
        assert_eq!(client.get(&format!("/api/v1/events/{written}")).json(), event, "{written}");
    }
    for id in ["x", "clv1234567890", "c0000000000000000000000000", "1", "c", "%63", "%ff", "%", &"c".repeat(5_000)] {
        let response = client.get(&format!("/api/v1/events/{id}"));
        assert_eq!((response.status, response.json()["message"].as_str()), (404, Some("Event not found")), "{id}");
    }
    daemon.stop();
}

#[test]
fn websites() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let first = client
        .post("/api/v1/websites", r#"{"name": "First", "domain": "https://First.Example/x", "description": "d"}"#);
    assert_eq!(first.status, 201);
    let first = first.json();
    assert_eq!((&first["domain"], &first["description"]), (&json!("first.example"), &json!("d")));
    assert_eq!(first["createdAt"], first["updatedAt"]);
    for (body, status) in [
        (r#"{"name": "Again", "domain": "FIRST.example"}"#, 409),
        (r#"{"name": "", "domain": "a.example"}"#, 400),
        (r#"{"name": "A"}"#, 400),
        (r#"{"name": "A", "domain": "not a host"}"#, 400),
        ("{", 400),
        ("[]", 400),
        (r#"{"name": "Second", "domain": "second.example", "description": null, "other": 1}"#, 201),
    ] {
        assert_eq!(client.post("/api/v1/websites", body).status, status, "{body}");
    }
    let list = client.get("/api/v1/websites").json();
    let names: Vec<_> = list["websites"].as_array().unwrap().iter().map(|website| &website["name"]).collect();
    assert_eq!((json!(names), &list["total"]), (json!(["Second", "First"]), &json!(2)));

    let path = format!("/api/v1/websites/{}", first["id"].as_str().unwrap());
    assert_eq!(client.get(&path).json(), first);
    let changed = client.put(&path, r#"{"name": "Renamed", "trackingCode": "pm-other-1", "description": null}"#);
    assert_eq!(changed.status, 200);
    let changed = changed.json();
    assert_eq!((&changed["name"], &changed["domain"]), (&json!("Renamed"), &json!("first.example")));
    assert_eq!((&changed["trackingCode"], &changed["description"]), (&first["trackingCode"], &Value::Null));
    assert_eq!(client.put(&path, r#"{"domain": "second.example"}"#).status, 409);
    assert_eq!(client.put(&path, "{}").status, 200);
    assert_eq!(client.put(&path, r#"{"name": null}"#).status, 400);

    let code = first["trackingCode"].as_str().unwrap();
    let event = client.post("/api/v1/events", event_with(code, json!({})).to_string()).json();
    let event_path = format!("/api/v1/events/{}", event["id"].as_str().unwrap());
    assert_eq!(client.get(&event_path).status, 200);
    let deleted = client.send("DELETE", &path, &[], b"");
    assert_eq!((deleted.status, &deleted.json()["success"]), (200, &json!(true)));
    for path in [&path, &event_path, &format!("/api/v1/events?trackingCode={code}")] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
    for method in ["PUT", "DELETE"] {
        let json = [("content-type", "application/json")];
        assert_eq!(client.send(method, &path, &json, b"{}").status, 404, "{method}");
    }
    assert_eq!(client.post("/api/v1/events", event_with(code, json!({})).to_string()).status, 404);
    assert_eq!(client.post("/api/v1/websites", r#"{"name": "Back", "domain": "first.example"}"#).status, 201);
    daemon.stop();
}

#[test]
fn seconds_for_milliseconds_and_a_lost_plus_are_told() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let list = |query: &str| daemon.client().get(&format!("/api/v1/events?trackingCode={code}{query}"));
    for (query, fields) in [
        ("&from=1769630400", &["from"][..]),
        ("&from=1769630400&to=1795627235", &["from", "to"]),
        ("&from=0&to=1769630400000", &[]),
        ("&from=1970-01-20T00:00:00Z", &[]),
        ("", &[]),
    ] {
        let answer = list(query).json();
        let warnings: Vec<_> = answer["warnings"].as_array().into_iter().flatten().collect();
        let told: Vec<_> = warnings.iter().map(|warning| warning["field"].as_str().unwrap()).collect();
        assert_eq!(told, fields, "{query}");
        assert!(warnings.iter().all(|warning| warning["code"] == "TIMESTAMP_LOOKS_LIKE_SECONDS"));
        assert!(warnings.iter().all(|warning| warning["message"].as_str().is_some_and(|text| !text.is_empty())));
        assert_eq!(answer.get("warnings").is_some(), !fields.is_empty(), "{query}");
    }
    assert_eq!(daemon.metrics()["hitlog_query_warnings_total{code=\"TIMESTAMP_LOOKS_LIKE_SECONDS\"}"], 3.0);
    let lost = list("&from=2026-01-28T21:30:00+01:30");
    assert_eq!(lost.status, 400);
    assert!(lost.json()["details"]["fieldErrors"]["from"][0].as_str().unwrap().contains("%2B"), "{}", lost.text());
    daemon.stop();
}

#[test]
fn methods_and_paths() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let list = format!("/api/v1/events?trackingCode={code}");
    for (method, path, status, allow) in [
        ("DELETE", "/api/v1/events", 405, Some("GET, HEAD, POST, OPTIONS")),
        ("GET", "/api/v1/events/batch", 405, Some("POST, OPTIONS")),
        ("POST", "/api/v1/events/c1", 405, Some("GET, HEAD, OPTIONS")),
        ("PATCH", "/api/v1/websites/web-1", 405, Some("GET, HEAD, PUT, DELETE")),
        ("OPTIONS", "/api/v1/websites", 405, Some("GET, HEAD, POST")),
        ("POST", "/livez", 405, Some("GET, HEAD")),
        ("BREW", "/metrics", 405, Some("GET, HEAD")),
        ("GET", "/", 404, None),
        ("GET", "/api/v1/events/", 400, None),
        ("GET", "/api/v1/events//", 404, None),
        ("DELETE", "/api/v1/events/", 405, Some("GET, HEAD, POST, OPTIONS")),
        ("GET", "/api/v1/events/batch/", 405, Some("POST, OPTIONS")),
        ("PATCH", "/api/v1/websites/web-1/", 405, Some("GET, HEAD, PUT, DELETE")),
        ("GET", "/health/", 200, None),
        ("GET", "/livez/", 200, None),
        ("GET", "/metrics/", 200, None),
        ("GET", "/openapi.yaml/", 200, None),
        ("GET", "//", 404, None),
        ("POST", "/api/v2/events", 404, None),
        ("GET", "/livez", 200, None),
        ("GET", "/readyz", 200, None),
        ("GET", "/health", 200, None),
        ("HEAD", "/livez", 200, None),
        ("HEAD", &list, 200, None),
        ("HEAD", "/metrics", 200, None),
    ] {
        let response = daemon.client().send(method, path, &[], b"");
        assert_eq!((response.status, response.header("allow")), (status, allow), "{method} {path}");
        if method == "HEAD" {
            assert!(
                response.header("content-length").is_some_and(|length| length != "0"),
                "{path}: as GET, without the body"
            );
        }
    }
    daemon.stop();
}

#[test]
fn who_may_do_what() {
    let token = "0123456789abcdef0123456789abcdef";
    let daemon = Daemon::start(&["--token", token]);
    let bearer = format!("Bearer {token}");
    let with_token = [("authorization", bearer.as_str())];
    let with_json = [with_token[0], ("content-type", "application/json")];
    let website =
        daemon.client().send("POST", "/api/v1/websites", &with_json, br#"{"name":"A","domain":"a.example"}"#).json();
    let code = website["trackingCode"].as_str().unwrap();
    assert_eq!(daemon.client().post("/api/v1/events", event_with(code, json!({})).to_string()).status, 201);
    let list = format!("/api/v1/events?trackingCode={code}");
    for (method, path, open) in [
        ("GET", list.as_str(), false),
        ("GET", "/api/v1/events/c1", false),
        ("GET", "/api/v1/websites", false),
        ("DELETE", "/api/v1/websites/web-1", false),
        ("GET", "/metrics", false),
        ("HEAD", "/metrics", false),
        ("GET", "/livez", true),
        ("GET", "/readyz", true),
        ("OPTIONS", "/api/v1/events", true),
        ("POST", "/api/v1/events/batch", true),
    ] {
        let without = daemon.client().send(method, path, &[], b"");
        assert_eq!(without.status != 401, open, "{method} {path}");
        if !open {
            assert_eq!(without.header("www-authenticate"), Some("Bearer"), "{method} {path}");
            let wrong = daemon.client().send(method, path, &[("authorization", "Bearer 0123456789abcdeX")], b"");
            assert_eq!(wrong.status, 401, "{method} {path}");
        }
        assert_ne!(daemon.client().send(method, path, &with_token, b"").status, 401, "{method} {path}");
    }
    assert!(!daemon.log().contains(token));
}

//! Every request of the Event Collection API guide, as printed there: only host, port, tracking code and event id
//! are put in. Run through a shell and curl, as a reader of the guide would.

use std::{collections::BTreeSet, process::Command};

use harness::Daemon;
use serde_json::Value;

/// Runs a request of the guide; `curl` prints the answer.
fn run(daemon: &Daemon, request: &str, code: &str, id: &str) -> Value {
    let request = request
        .replace("http://localhost:3000", &format!("http://{}", daemon.address))
        .replace("pm-abc123-1704067200000", code)
        .replace("clv1234567890", id)
        .replace("curl ", "curl --silent --show-error ");
    let output = Command::new("bash").arg("-c").arg(&request).output().unwrap();
    assert!(output.status.success(), "{request}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {request}"))
}

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Holds that `answer` has at least the members of `shown`, with the same types.
fn assert_like(response: &Value, shown: &str) {
    let shown: Value = serde_json::from_str(shown).unwrap();
    compare(response, &shown, "");
}

fn compare(response: &Value, shown: &Value, place: &str) {
    assert_eq!(std::mem::discriminant(response), std::mem::discriminant(shown), "at {place}: {response} for {shown}");
    match (response, shown) {
        (Value::Object(response), Value::Object(shown)) => {
            for (name, value) in shown {
                let found = response.get(name).unwrap_or_else(|| panic!("{place}/{name} is missing"));
                compare(found, value, &format!("{place}/{name}"));
            }
        }
        (Value::Array(response), Value::Array(shown)) => {
            assert!(!response.is_empty(), "{place} is empty");
            for value in response {
                compare(value, &shown[0], &format!("{place}[]"));
            }
        }
        _ => {}
    }
}

const FULL_EVENT: &str = r#"{"id": "clv1234567890", "websiteId": "web-123", "eventType": "pageview",
    "url": "https://example.com/page", "referrer": "https://google.com", "sessionId": "sess-123",
    "visitorId": "vis-123", "deviceType": "desktop", "browser": "Chrome", "os": "Windows", "location": "US",
    "createdAt": "2026-01-28T20:00:00.000Z"}"#;

#[test]
fn the_guide_from_its_first_step_to_its_last() {
    let daemon = Daemon::start(&[]);
    let website = run(
        &daemon,
        r#"curl -X POST http://localhost:3000/api/v1/websites \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer YOUR_ACCESS_TOKEN" \
  -d '{
    "name": "My Website",
    "domain": "example.com",
    "description": "My example website"
  }'"#,
        "",
        "",
    );
    assert_like(
        &website,
        r#"{"id": "web-123", "trackingCode": "pm-abc123-1704067200000", "name": "My Website", "domain": "example.com"}"#,
    );
    let code = website["trackingCode"].as_str().unwrap();

    let event = run(
        &daemon,
        r#"curl -X POST http://localhost:3000/api/v1/events \
  -H "Content-Type: application/json" \
  -d '{
    "trackingCode": "pm-abc123-1704067200000",
    "eventType": "pageview",
    "url": "https://example.com/blog/article-1",
    "referrer": "https://google.com",
    "sessionId": "sess-user123-session1",
    "visitorId": "vis-user123",
    "deviceType": "desktop",
    "browser": "Chrome",
    "os": "Windows",
    "location": "US"
  }'"#,
        code,
        "",
    );
    assert_like(&event, FULL_EVENT);
    assert_eq!(event["websiteId"], website["id"]);
    assert_eq!(event["url"], "https://example.com/blog/article-1");

    let batch = run(
        &daemon,
        r#"curl -X POST http://localhost:3000/api/v1/events/batch \
  -H "Content-Type: application/json" \
  -d '{
    "events": [
      {
        "trackingCode": "pm-abc123-1704067200000",
        "eventType": "pageview",
        "url": "https://example.com/page1",
        "sessionId": "sess-123",
        "visitorId": "vis-123",
        "deviceType": "desktop",
        "browser": "Chrome",
        "os": "Windows"
      },
      {
        "trackingCode": "pm-abc123-1704067200000",
        "eventType": "pageview",
        "url": "https://example.com/page2",
        "sessionId": "sess-123",
        "visitorId": "vis-123",
        "deviceType": "desktop",
        "browser": "Chrome",
        "os": "Windows"
      },
      {
        "trackingCode": "pm-abc123-1704067200000",
        "eventType": "click",
        "url": "https://example.com/page2",
        "sessionId": "sess-123",
        "visitorId": "vis-123",
        "deviceType": "desktop",
        "browser": "Chrome",
        "properties": {
          "buttonId": "subscribe-btn"
        }
      }
    ]
  }'"#,
        code,
        "",
    );
    assert_like(
        &batch,
        r#"{"success": true, "eventsCreated": 3, "events": [{"id": "clv1234567890", "websiteId": "web-123",
            "eventType": "pageview", "url": "https://example.com/page1", "createdAt": "2026-01-28T20:00:00.000Z"}],
            "message": "Successfully created 2 events"}"#,
    );
    assert_eq!(batch["eventsCreated"], 3);
    assert_eq!(batch["message"], "Successfully created 3 events");
    assert!(!members(&batch).contains("errors"));

    // "Get all events", "Get only pageview events" and "Get with pagination": unquoted in the guide, so a shell cuts
    // the address at the first "&" and runs curl in the background; the answer is that of the first parameter.
    for request in [
        "curl http://localhost:3000/api/v1/events?trackingCode=pm-abc123-1704067200000",
        "curl http://localhost:3000/api/v1/events?trackingCode=pm-abc123-1704067200000&eventType=pageview\nwait",
        "curl http://localhost:3000/api/v1/events?trackingCode=pm-abc123-1704067200000&limit=50&offset=0\nwait",
    ] {
        let list = run(&daemon, request, code, "");
        assert_like(&list, r#"{"events": [{}], "pagination": {"total": 1, "limit": 100, "offset": 0}}"#);
        assert_eq!(list["pagination"]["total"], 4);
        assert_eq!(list["events"].as_array().unwrap().len(), 4);
    }
    // The same with the quotes that the guide forgot.
    let pageviews = run(
        &daemon,
        "curl 'http://localhost:3000/api/v1/events?trackingCode=pm-abc123-1704067200000&eventType=pageview'",
        code,
        "",
    );
    assert_eq!(pageviews["pagination"]["total"], 3);
    let page = run(
        &daemon,
        "curl 'http://localhost:3000/api/v1/events?trackingCode=pm-abc123-1704067200000&limit=50&offset=1'",
        code,
        "",
    );
    assert_eq!(page["pagination"], serde_json::json!({"total": 4, "limit": 50, "offset": 1, "next": null}));
    assert_eq!(page["events"].as_array().unwrap().len(), 3);

    let id = event["id"].as_str().unwrap();
    let one = run(&daemon, "curl http://localhost:3000/api/v1/events/clv1234567890", code, id);
    assert_like(&one, FULL_EVENT);
    assert_eq!(one, event, "the stored event is the same wherever it is returned");
    assert_eq!(one["properties"], Value::Null);
    daemon.stop();
}

#[test]
fn the_errors_that_the_guide_shows() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let body = |code: &str| {
        format!(
            r#"{{"trackingCode": "{code}", "eventType": "pageview", "url": "https://example.com/page1",
                "sessionId": "sess-123", "visitorId": "vis-123", "deviceType": "desktop", "browser": "Chrome"}}"#
        )
    };
    let response = client.post("/api/v1/events", body("invalid"));
    assert_eq!(response.status, 400);
    let error = response.json();
    assert_eq!(error["error"], "VALIDATION_ERROR");
    assert_eq!(error["message"], "Invalid event data");
    assert_eq!(error["details"]["fieldErrors"], serde_json::json!({"trackingCode": ["Invalid tracking code format"]}));

    let response = client.post("/api/v1/events", body("pm-unknown-1"));
    assert_eq!(response.status, 404);
    assert_eq!(
        response.json(),
        serde_json::json!({"error": "NOT_FOUND", "message": "Website with this tracking code not found"})
    );

    let response =
        client.post("/api/v1/events/batch", format!(r#"{{"events": [{}, {}]}}"#, body(&code), body("invalid")));
    assert_eq!(response.status, 207);
    let partial = response.json();
    assert_eq!(partial["success"], false);
    assert_eq!(partial["eventsCreated"], 1);
    assert_eq!(partial["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        partial["errors"],
        serde_json::json!([
            {"index": 1, "error": "NOT_FOUND", "message": "Website with tracking code \"invalid\" not found"}
        ])
    );
    assert_eq!(partial["message"], "Created 1 events with 1 errors");
    daemon.stop();
}

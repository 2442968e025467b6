//! What websites take: pages of their own hosts, visitors who send `Sec-GPC: 1`, and the tracking codes that they had.

use std::{fs, path::Path};

use harness::{Client, Daemon, Response, event_with, tool, wait_until, work_dir};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::imports::{fine, sessions};

const SINGLE: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";
const TRACK: &str = "/api/v1/track";

/// Registers a website; its id and its code.
fn register(client: &mut Client, website: Value) -> (String, String) {
    let created = client.post("/api/v1/websites", website.to_string());
    assert_eq!(created.status, 201, "{}", created.text());
    let member = |name: &str| created.json()[name].as_str().unwrap().to_owned();
    (member("id"), member("trackingCode"))
}

fn page(code: &str, url: &str) -> Value {
    event_with(code, json!({ "url": url }))
}

fn post_batch(client: &mut Client, items: &[Value], headers: &[(&str, &str)]) -> Response {
    client.send("POST", BATCH, headers, json!({ "events": items }).to_string().as_bytes())
}

fn url_faults(response: &Response) -> String {
    response.json()["details"]["fieldErrors"]["url"].to_string()
}

fn listed(client: &mut Client, code: &str) -> Vec<Value> {
    let listed = client.get(&format!("{SINGLE}?trackingCode={code}"));
    assert_eq!(listed.status, 200, "{}", listed.text());
    listed.json()["events"].as_array().unwrap().clone()
}

fn metric(daemon: &Daemon, series: &str) -> f64 {
    daemon.metrics().get(series).copied().unwrap_or_else(|| panic!("there is no {series}"))
}

#[test]
fn pages_of_other_hosts_are_told_or_refused() {
    const WARNED: &str = "hitlog_event_warnings_total{code=\"HOST_NOT_LISTED\"}";
    const REJECTED: &str = "hitlog_events_rejected_total{reason=\"host\"}";
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    let (id, code) = register(&mut client, json!({"name": "A", "domain": "www.shop.example:8443"}));
    let path = format!("/api/v1/websites/{id}");
    let (own, other, none) = ("https://SHOP.example./x", "https://sub.Shop.example/", "file:///home/x.html");
    assert_eq!((metric(&daemon, WARNED), metric(&daemon, REJECTED)), (0.0, 0.0), "the series are there");
    // Whoever names no hosts is told nothing.
    for url in [own, other, none] {
        let taken = client.post(SINGLE, page(&code, url).to_string());
        assert_eq!((taken.status, &taken.json()["warnings"]), (201, &json!(null)), "{url}");
    }
    assert_eq!(client.put(&path, r#"{"hosts": ["bücher.example", "[2001:db8::1]:3000"]}"#).status, 200);
    for (url, is_own) in [
        (own, true),
        ("http://www.BÜCHER.example:80/", true),
        ("https://xn--bcher-kva.example", true),
        ("http://[2001:DB8:0::1]/", true),
        (other, false),
        (none, false),
        ("about:blank", false),
    ] {
        let taken = client.post(SINGLE, page(&code, url).to_string());
        assert_eq!(taken.status, 201, "{url}: {}", taken.text());
        let told = taken.json()["warnings"].clone();
        let wanted = if is_own { json!(null) } else { json!(["HOST_NOT_LISTED", "url"]) };
        let found = if is_own { told } else { json!([told[0]["code"], told[0]["field"]]) };
        assert_eq!(found, wanted, "{url}");
    }
    let batch = post_batch(&mut client, &[page(&code, own), page(&code, other)], &[]);
    assert_eq!((batch.status, &batch.json()["warnings"][0]["index"]), (201, &json!(1)), "{}", batch.text());
    assert_eq!((metric(&daemon, WARNED), metric(&daemon, REJECTED)), (4.0, 0.0));

    assert_eq!(client.put(&path, r#"{"hostsPolicy": "refuse"}"#).status, 200);
    let origin = [("origin", "https://sub.shop.example")];
    let refused = client.send("POST", SINGLE, &origin, page(&code, other).to_string().as_bytes());
    assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"));
    assert!(url_faults(&refused).contains("The host sub.shop.example is not one of this website's hosts"));
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://sub.shop.example"));
    let beacon = json!({"code": code, "sid": "s", "vid": "v", "url": none}).to_string();
    let refused = client.post(TRACK, &beacon);
    assert!(refused.status == 400 && url_faults(&refused).contains("no host"), "{}", refused.text());
    let items =
        [page(&code, own), page(&code, other), page("pm-nobody", own), page(&code, "no url"), page(&code, none)];
    let batch = post_batch(&mut client, &items, &[]);
    assert_eq!((batch.status, &batch.json()["eventsCreated"]), (207, &json!(1)), "{}", batch.text());
    let errors = batch.json()["errors"].clone();
    let of = |at: usize| json!([errors[at]["index"], errors[at]["error"]]);
    assert_eq!(of(0), json!([1, "VALIDATION_ERROR"]));
    assert!(errors[0]["details"]["fieldErrors"]["url"][0].as_str().unwrap().contains("sub.shop.example"), "{errors}");
    assert_eq!([of(1), of(2)], [json!([2, "NOT_FOUND"]), json!([3, "VALIDATION_ERROR"])]);
    assert_eq!(of(3), json!([4, "VALIDATION_ERROR"]));
    assert_eq!((metric(&daemon, WARNED), metric(&daemon, REJECTED)), (4.0, 4.0));
    daemon.stop();

    // With the domain alone, and after a start.
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    for (url, status) in [(own, 201), (other, 400), ("https://bücher.example/", 201)] {
        assert_eq!(client.post(SINGLE, page(&code, url).to_string()).status, status, "{url}");
    }
    assert_eq!(client.put(&path, r#"{"hosts": null}"#).status, 200);
    for (url, status) in [(own, 201), (other, 400), ("https://bücher.example/", 400)] {
        assert_eq!(client.post(SINGLE, page(&code, url).to_string()).status, status, "{url}");
    }
    assert_eq!(client.put(&path, r#"{"domain": "sub.shop.example"}"#).status, 200);
    assert_eq!(client.post(SINGLE, page(&code, other).to_string()).status, 201);
    assert_eq!(client.post(SINGLE, page(&code, own).to_string()).status, 400);
    daemon.stop();
}

/// Whether this is an id that stands for nobody.
fn is_nobody(id: &Value) -> bool {
    let id = id.as_str().unwrap();
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[test]
fn visitors_who_ask_not_to_be_tracked_are_taken_as_websites_say() {
    const GPC: [(&str, &str); 1] = [("sec-gpc", "1")];
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let mut website = |gpc: Value| {
        let domain = format!("{}.example", gpc.as_str().unwrap_or("plain"));
        register(&mut client, json!({"name": "A", "domain": domain, "gpc": gpc})).1
    };
    let [ignores, takes, drops] = [json!(null), json!("anonymous"), json!("drop")].map(&mut website);
    let mut client = daemon.client();
    let counts = || {
        ["ignored", "anonymized", "dropped"]
            .map(|action| metric(&daemon, &format!("hitlog_gpc_events_total{{action=\"{action}\"}}")))
    };
    assert_eq!(counts(), [0.0; 3], "the series are there");
    let event = |code: &str, id: &str| {
        let properties = json!({"email": "a@b.example", "eventName": "signup", "buttonId": "buy"});
        event_with(code, json!({"eventType": "custom", "eventId": id, "properties": properties, "browser": "B"}))
    };
    let mut post =
        |event: &Value, headers: &[(&str, &str)]| client.send("POST", SINGLE, headers, event.to_string().as_bytes());
    let whole = post(&event(&ignores, "1"), &GPC);
    assert_eq!(
        (whole.status, &whole.json()["sessionId"], &whole.json()["properties"]["email"]),
        (201, &json!("s"), &json!("a@b.example"))
    );
    let bare = post(&event(&takes, "1"), &GPC);
    assert_eq!((bare.status, &bare.json()["properties"]), (201, &json!({"eventName": "signup"})), "{}", bare.text());
    assert_eq!((&bare.json()["browser"], &bare.json()["url"]), (&json!("B"), &json!("https://example.com/")));
    assert!(is_nobody(&bare.json()["sessionId"]) && bare.json()["sessionId"] == bare.json()["visitorId"]);
    let again = post(&event(&takes, "1"), &GPC);
    assert_eq!((again.status, &again.json()["id"]), (201, &bare.json()["id"]));
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "it is known by its name");
    let other = post(&event(&takes, "2"), &GPC);
    assert_ne!(other.json()["sessionId"], bare.json()["sessionId"], "nobody is recognised");
    // Anything else in the header is nothing.
    for header in ["0", "true", "1, 1", ""] {
        let taken = post(&event(&drops, &format!("as {header}")), &[("sec-gpc", header)]);
        assert_eq!((taken.status, &taken.json()["sessionId"]), (201, &json!("s")), "{header:?}");
    }
    let with_origin = [("sec-gpc", "1"), ("origin", "https://drop.example")];
    let refused = post(&event(&drops, "1"), &with_origin);
    assert_eq!((refused.status, refused.error().as_str()), (403, "FORBIDDEN"));
    assert!(refused.json()["message"].as_str().unwrap().contains("Sec-GPC: 1"), "{}", refused.text());
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://drop.example"));
    assert_eq!(counts(), [1.0, 3.0, 1.0]);

    let items = [event(&ignores, "3"), event(&takes, "3"), event(&drops, "3"), event(&takes, "4"), event("pm-no", "1")];
    let batch = post_batch(&mut client, &items, &GPC);
    assert_eq!((batch.status, &batch.json()["eventsCreated"]), (207, &json!(3)), "{}", batch.text());
    let errors = batch.json()["errors"].clone();
    assert_eq!((&errors[0]["index"], &errors[0]["error"]), (&json!(2), &json!("FORBIDDEN")), "{errors}");
    assert!(errors[0]["message"].as_str().unwrap().contains("Sec-GPC: 1") && errors[0].get("details").is_none());
    assert_eq!((&errors[1]["index"], &errors[1]["error"]), (&json!(4), &json!("NOT_FOUND")));
    let all = post_batch(&mut client, &[event(&takes, "5")], &GPC);
    assert_eq!(all.status, 201);
    let beacon = json!({"code": takes, "sid": "s", "vid": "v", "url": "https://a.example/"}).to_string();
    assert_eq!(client.send("POST", TRACK, &GPC, beacon.as_bytes()).status, 204);
    let beacon = beacon.replace(&takes, &drops);
    assert_eq!(client.send("POST", TRACK, &GPC, beacon.as_bytes()).error(), "FORBIDDEN");
    assert_eq!(counts(), [2.0, 7.0, 3.0]);
    assert_eq!(metric(&daemon, "hitlog_events_rejected_total{reason=\"gpc\"}"), 3.0);

    let stored = listed(&mut client, &takes);
    assert_eq!(stored.len(), 6);
    assert!(stored.iter().all(|event| is_nobody(&event["sessionId"]) && event["sessionId"] == event["visitorId"]));
    let ids: std::collections::BTreeSet<_> = stored.iter().map(|event| event["visitorId"].to_string()).collect();
    assert_eq!(ids.len(), 5, "one of each request");
    assert_eq!(listed(&mut client, &drops).len(), 4);
    let shown = daemon.client().get("/.well-known/gpc.json");
    assert_eq!((shown.status, shown.json()), (200, json!({"gpc": true, "lastUpdate": "2026-11-28"})));
    assert_eq!(shown.header("content-type"), Some("application/json"));
    assert_eq!(shown.header("cache-control"), Some("max-age=86400"));
    daemon.stop();
}

/// The statuses of everything that takes a tracking code.
fn statuses(daemon: &Daemon, code: &str) -> Vec<u16> {
    let mut client = daemon.client();
    let sent = client.post(SINGLE, event_with(code, json!({})).to_string()).status;
    let batch = post_batch(&mut client, &[event_with(code, json!({}))], &[]).status;
    let beacon = json!({"code": code, "sid": "s", "vid": "v", "url": "https://a.example/"}).to_string();
    let mut statuses = vec![sent, batch, client.post(TRACK, &beacon).status];
    for path in [SINGLE, "/api/v1/stats", "/api/v1/stats/live", "/api/v1/dashboard/metrics"] {
        statuses.push(client.get(&format!("{path}?trackingCode={code}")).status);
    }
    statuses.push(client.send("HEAD", &format!("/api/v1/events/tail?trackingCode={code}"), &[], b"").status);
    let path = format!("/api/v1/visitors/nobody?trackingCode={code}");
    statuses.push(daemon.client().send("DELETE", &path, &[], b"").status);
    statuses
}

const KNOWN: [u16; 9] = [201, 201, 204, 200, 200, 200, 200, 200, 202];
const UNKNOWN: [u16; 9] = [404, 207, 404, 404, 404, 404, 404, 404, 404];

fn renew(client: &mut Client, id: &str, body: &str) -> Response {
    client.post(&format!("/api/v1/websites/{id}/tracking-code"), body)
}

/// Has the time of this code pass, of a hitlog that does not run.
fn end(data: &Path, code: &str) {
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    let changed = catalog.execute("UPDATE RetiredCode SET validUntil = 1000 WHERE code = ?1", [code]).unwrap();
    assert_eq!(changed, 1, "{code}");
}

#[test]
fn a_website_gets_a_new_code_and_the_old_one_is_as_good_for_a_while() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    let (id, first) = register(&mut client, json!({"name": "A", "domain": "a.example", "hosts": ["b.example"]}));
    let before = client.get(&format!("/api/v1/websites/{id}")).json();
    let renewed = client.send("POST", &format!("/api/v1/websites/{id}/tracking-code/"), &[], b"");
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    let mut renewed = renewed.json();
    assert_eq!(renewed["previousTrackingCode"], json!(first));
    let until = renewed["previousTrackingCodeValidUntil"].as_str().unwrap().to_owned();
    assert!(until.ends_with('Z') && *until > *renewed["updatedAt"].as_str().unwrap(), "{until}");
    let second = renewed["trackingCode"].as_str().unwrap().to_owned();
    let parts: Vec<_> = second.split('-').collect();
    assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("pm", 6, 13), "{second}");
    // The website is otherwise as it was.
    for member in ["previousTrackingCode", "previousTrackingCodeValidUntil"] {
        renewed.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(client.get(&format!("/api/v1/websites/{id}")).json(), renewed);
    assert_ne!(second, first);
    for member in ["trackingCode", "updatedAt"] {
        renewed[member] = before[member].clone();
    }
    assert_eq!(renewed, before);
    for code in [&first, &second] {
        assert_eq!(statuses(&daemon, code), KNOWN, "{code}");
    }
    // An event is known by its name whatever code it comes with.
    let mut named = |code: &str| client.post(SINGLE, event_with(code, json!({"eventId": "e"})).to_string());
    assert_eq!(named(&first).json()["id"], named(&second).json()["id"]);
    assert_eq!(named(&first).header("idempotency-replayed"), Some("true"));
    // What is said of the website holds for both, and one that ends at once is gone.
    let path = format!("/api/v1/websites/{id}");
    assert_eq!(client.put(&path, r#"{"hostsPolicy": "refuse"}"#).status, 200);
    for code in [&first, &second] {
        assert_eq!(client.post(SINGLE, page(code, "https://c.example/").to_string()).status, 400);
    }
    assert_eq!(client.put(&path, r#"{"hostsPolicy": null, "hosts": null}"#).status, 200);
    let third = renew(&mut client, &id, r#"{"previousValidSeconds": 0, "other": 1}"#).json();
    let third = third["trackingCode"].as_str().unwrap().to_owned();
    assert_eq!(statuses(&daemon, &second), UNKNOWN);
    for code in [&first, &third] {
        assert_eq!(statuses(&daemon, code), KNOWN, "{code}");
    }
    // Without a restart it ends, too.
    let fourth = renew(&mut client, &id, r#"{"previousValidSeconds": 1}"#).json()["trackingCode"].clone();
    wait_until("the code ends", || (client.get(&format!("{SINGLE}?trackingCode={third}")).status == 404).then_some(()));
    assert_eq!(statuses(&daemon, &third), UNKNOWN);
    daemon.stop();

    let mut daemon = Daemon::start_in(&data, &[]);
    assert_eq!(statuses(&daemon, &first), KNOWN, "after a start");
    assert_eq!(statuses(&daemon, fourth.as_str().unwrap()), KNOWN);
    assert_eq!([statuses(&daemon, &second), statuses(&daemon, &third)], [UNKNOWN, UNKNOWN]);
    daemon.crash();
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!(statuses(&daemon, &first), KNOWN, "after a kill");
    daemon.stop();
    end(&data, &first);
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!(statuses(&daemon, &first), UNKNOWN);
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    let noted = catalog.query_row("SELECT count(*) FROM RetiredCode", [], |row| row.get::<_, i64>(0));
    assert_eq!(noted, Ok(0), "what has ended is forgotten");
    drop(catalog);
    daemon.stop();
}

#[test]
fn what_a_new_code_is_asked_for_with_is_checked_and_bounded() {
    let daemon = Daemon::start(&[]);
    let mut client = daemon.client();
    let (id, first) = register(&mut client, json!({"name": "A", "domain": "a.example"}));
    for body in ["-1", "0.5", "31622401", "\"1\"", "[1]", "true"] {
        let refused = renew(&mut client, &id, &format!("{{\"previousValidSeconds\": {body}}}"));
        assert_eq!((refused.status, refused.error().as_str()), (400, "VALIDATION_ERROR"), "{body}");
        let faults = &refused.json()["details"]["fieldErrors"]["previousValidSeconds"];
        assert_eq!(*faults, json!(["Expected a whole number from 0 to 31622400"]), "{body}");
    }
    for (body, error) in [("[]", "VALIDATION_ERROR"), ("{", "MALFORMED_JSON"), ("null", "VALIDATION_ERROR")] {
        let refused = renew(&mut client, &id, body);
        assert_eq!((refused.status, refused.error().as_str()), (400, error), "{body}");
    }
    assert_eq!(renew(&mut client, "web-nobody", "{}").status, 404);
    assert_eq!(client.get(&format!("/api/v1/websites/{id}/tracking-code")).status, 405);
    assert_eq!(
        client.get(&format!("/api/v1/websites/{id}")).json()["trackingCode"],
        json!(first),
        "nothing was changed"
    );
    let mut ends = Vec::new();
    for (number, body) in [" ", "{}", "{\"previousValidSeconds\": null}"].into_iter().cycle().take(10).enumerate() {
        let body = if number == 4 { r#"{"previousValidSeconds": 3600}"# } else { body };
        let renewed = renew(&mut client, &id, body);
        assert_eq!(renewed.status, 200, "{number}: {}", renewed.text());
        ends.push(renewed.json()["previousTrackingCodeValidUntil"].as_str().unwrap().to_owned());
    }
    let refused = renew(&mut client, &id, r#"{"previousValidSeconds": 1}"#);
    assert_eq!((refused.status, refused.error().as_str()), (409, "CONFLICT"));
    assert!(refused.json()["message"].as_str().unwrap().contains(&ends[4]), "{} {ends:?}", refused.text());
    assert_eq!(statuses(&daemon, &first), KNOWN);
    let renewed = renew(&mut client, &id, r#"{"previousValidSeconds": 0}"#);
    assert_eq!(renewed.status, 200, "it adds none");
    // Another website has a place of its own, and whoever is gone has no code.
    let (other, _) = register(&mut client, json!({"name": "B", "domain": "b.example"}));
    assert_eq!(renew(&mut client, &other, "").status, 200);
    assert_eq!(client.send("DELETE", &format!("/api/v1/websites/{id}"), &[], b"").status, 200);
    assert_eq!(statuses(&daemon, &first), UNKNOWN);
    assert_eq!(renew(&mut client, &id, "").status, 404);
    daemon.stop();
}

#[test]
fn tools_take_the_codes_that_a_website_had() {
    let work = work_dir();
    let (data, file) = (work.path().join("data"), work.path().join("lines"));
    let daemon = Daemon::start_in(&data, &[]);
    let mut client = daemon.client();
    let (id, first) = register(&mut client, json!({"name": "A", "domain": "a.example"}));
    assert_eq!(client.post(SINGLE, event_with(&first, json!({"sessionId": "s0"})).to_string()).status, 201);
    let before = tool(&data, &["export", "--websites"]).out;
    let events_before = tool(&data, &["export"]).out;
    let second = renew(&mut client, &id, "").json()["trackingCode"].as_str().unwrap().to_owned();
    daemon.stop();
    for code in [&first, &second] {
        assert_eq!(sessions(&data, &["--website", code]), ["s0"], "{code}");
        let only: Value = serde_json::from_str(&tool(&data, &["export", "--websites", "--website", code]).out).unwrap();
        assert_eq!(only["trackingCode"], json!(second));
    }
    let import = |lines: &str| {
        fs::write(&file, lines).unwrap();
        tool(&data, &["import", file.to_str().unwrap()])
    };
    let line = json!({
        "trackingCode": first, "eventType": "pageview", "url": "https://c.example/", "sessionId": "s1",
        "visitorId": "v",
        "createdAt": "2026-01-28T20:00:00.000Z"
    });
    fine(&import(&format!("{line}\n")));
    // Exports of before: the events find their website by its id, and the website stays as it is here.
    fine(&import(&events_before));
    fine(&import(&before));
    let mut found = sessions(&data, &[]);
    found.sort_unstable();
    assert_eq!(found, ["s0", "s0", "s1"]);
    let websites = tool(&data, &["export", "--websites"]).out;
    assert!(websites.contains(&second) && websites.lines().count() == 1, "{websites}");
    // Another website cannot have a code that is valid.
    let other = before.replace(&id, "web-other").replace("a.example", "b.example");
    let refused = import(&other);
    assert!(refused.code == 1 && refused.err.contains(&format!("belongs to the website {id}")), "{}", refused.err);

    end(&data, &first);
    assert_ne!(tool(&data, &["export", "--website", &first]).code, 0);
    let refused = import(&before);
    assert!(refused.code == 1 && refused.err.contains("if it got a new one since"), "{}", refused.err);
    fine(&import(&events_before));
    // A copy knows the code of now.
    let (copy, sites) = (work.path().join("copy"), work.path().join("sites"));
    fs::write(&sites, &websites).unwrap();
    fine(&tool(&copy, &["import", sites.to_str().unwrap()]));
    assert_eq!(tool(&copy, &["export", "--websites"]).out, websites);
}

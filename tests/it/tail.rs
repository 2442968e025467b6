//! Following events over HTTP: how it is asked for, what it says, and where it begins.

use std::{
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use harness::{Daemon, Response, TIMEOUT, Tail, Told, event_with, wait_until};
use serde_json::{Value, json};

const LINES: (&str, &str) = ("accept", "application/x-ndjson");

/// Follows a website's events.
pub(crate) fn tail(daemon: &Daemon, code: &str, more: &str) -> Tail {
    let tail = Tail::open(&daemon.address, &format!("trackingCode={code}{more}"), &[]);
    tail.unwrap_or_else(|refusal| panic!("{}", refusal.text()))
}

/// The same as lines of JSON.
pub(crate) fn lines(daemon: &Daemon, code: &str, more: &str) -> Tail {
    let tail = Tail::open(&daemon.address, &format!("trackingCode={code}{more}"), &[LINES]);
    tail.unwrap_or_else(|refusal| panic!("{}", refusal.text()))
}

/// Stores an event with this address, with some members changed.
pub(crate) fn send(daemon: &Daemon, code: &str, url: &str, mut changes: Value) -> Response {
    changes["url"] = format!("https://example.com/{url}").into();
    let stored = daemon.client().post("/api/v1/events", event_with(code, changes).to_string());
    assert_eq!(stored.status, 201, "{}", stored.text());
    stored
}

/// The ends of the addresses of events.
pub(crate) fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| told.data["url"].as_str().unwrap().strip_prefix("https://example.com/").unwrap()).collect()
}

pub(crate) fn position(told: &Told) -> &str {
    told.position.as_deref().unwrap()
}

#[test]
fn a_tail_begins_now_at_the_start_or_after_a_position() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let other = daemon.register("b.example");
    send(&daemon, &code, "before", json!({}));
    let mut from_now = tail(&daemon, &code, "");
    let mut as_lines = lines(&daemon, &code, "");
    send(&daemon, &other, "of another", json!({}));
    let first = send(&daemon, &code, "first", json!({"properties": {"a": "\u{2028}\n"}}));
    send(&daemon, &code, "second", json!({"eventType": "click"}));

    // Byte by byte.
    let begin = from_now.begins_after().to_owned();
    assert_eq!(from_now.piece().unwrap().unwrap(), format!("retry: 3000\nid: {begin}\n\n"));
    let piece = from_now.piece().unwrap().unwrap();
    let after_first = first.header("hitlog-position").unwrap();
    assert_eq!(piece, format!("id: {after_first}\nevent: event\ndata: {}\n\n", first.text()));
    let line = as_lines.piece().unwrap().unwrap();
    let open = first.text().strip_suffix('}').unwrap().to_owned();
    assert_eq!(line, format!("{open},\"position\":\"{after_first}\"}}\n"));
    let second = from_now.events(1);
    assert_eq!(names(&second), ["second"]);

    // Where it begins.
    assert_eq!(names(&tail(&daemon, &code, "&after=start").events(3)), ["before", "first", "second"]);
    assert_eq!(names(&tail(&daemon, &code, &format!("&after={begin}")).events(2)), ["first", "second"]);
    let after = format!("&after={after_first}");
    assert_eq!(names(&lines(&daemon, &code, &after).events(1)), ["second"]);
    let last = [("last-event-id", after_first), LINES];
    let query = format!("trackingCode={code}&after=start");
    assert_eq!(names(&Tail::open(&daemon.address, &query, &last).unwrap().events(1)), ["second"]);
    assert_eq!(names(&tail(&daemon, &code, "&after=start&eventType=click").events(1)), ["second"]);
    assert_eq!(names(&tail(&daemon, &other, "&after=start").events(1)), ["of another"]);
    let mut after_second = tail(&daemon, &code, &format!("&after={}", position(&second[0])));
    send(&daemon, &code, "third", json!({}));
    assert_eq!(names(&after_second.events(1)), ["third"]);
    assert_eq!(names(&from_now.events(1)), ["third"]);
    daemon.stop();
}

#[test]
fn the_head_says_what_comes() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    for (accept, content_type) in [
        (&[][..], "text/event-stream"),
        (&[("accept", "*/*")], "text/event-stream"),
        (&[("accept", "text/event-stream")], "text/event-stream"),
        (&[LINES], "application/x-ndjson"),
        (&[("accept", "application/ndjson, text/event-stream;q=0.5")], "application/x-ndjson"),
    ] {
        let tail = Tail::open(&daemon.address, &format!("trackingCode={code}"), accept).unwrap();
        let header = |name: &str| tail.headers.get(name).map(String::as_str);
        assert_eq!(header("content-type"), Some(content_type));
        assert_eq!(header("cache-control"), Some("no-store"));
        assert_eq!(header("x-accel-buffering"), Some("no"));
        assert_eq!(header("transfer-encoding"), Some("chunked"));
        assert_eq!(header("content-length"), None);
        assert_eq!(header("access-control-allow-origin"), None);
        let position = tail.begins_after();
        let is_plain = position.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        assert!(position.len() == 43 && is_plain, "{position}");
        // The same without a body, over a connection that goes on.
        let mut client = daemon.client();
        for _ in 0..2 {
            let head = client.send("HEAD", &format!("/api/v1/events/tail?trackingCode={code}"), accept, b"");
            assert_eq!((head.status, head.header("content-type")), (200, Some(content_type)));
            assert_eq!(head.header("hitlog-position").map(str::len), Some(43));
        }
    }
    wait_until("nobody follows any more", || {
        drop(send(&daemon, &code, "x", json!({})));
        (daemon.metrics()["hitlog_tails"] == 0.0).then_some(())
    });
    daemon.stop();
}

#[test]
fn a_client_of_http_1_0_reads_until_the_connection_ends() {
    let mut daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    send(&daemon, &code, "first", json!({}));
    let stream = TcpStream::connect(&daemon.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut tail = Tail::ask(stream, "1.0", &format!("trackingCode={code}&after=start"), &[]).unwrap();
    assert_eq!(tail.headers.get("transfer-encoding"), None);
    assert_eq!(names(&tail.events(1)), ["first"]);
    send(&daemon, &code, "second", json!({}));
    assert_eq!(names(&tail.events(1)), ["second"]);
    daemon.signal("TERM");
    assert_eq!(tail.news().unwrap().kind, "bye");
    assert_eq!(tail.piece().unwrap(), None, "its end is the connection's, and no reset");
    assert!(daemon.wait().success(), "{}", daemon.log());
}

/// The fields that a refusal names.
fn fields(refusal: &Response) -> Vec<String> {
    assert_eq!((refusal.status, refusal.error().as_str()), (400, "VALIDATION_ERROR"), "{}", refusal.text());
    refusal.json()["details"]["fieldErrors"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn what_is_refused_says_which_field_is_wrong() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let refused = |query: &str, headers: &[(&str, &str)]| match Tail::open(&daemon.address, query, headers) {
        Ok(_) => panic!("{query} {headers:?}: it begins"),
        Err(refusal) => refusal,
    };
    let whole = format!("trackingCode={code}");
    for (query, headers, field) in [
        ("", &[][..], "trackingCode"),
        ("trackingCode=", &[], "trackingCode"),
        (&format!("{whole}&trackingCode=pm-other"), &[], "trackingCode"),
        (&format!("{whole}&eventType=view"), &[], "eventType"),
        (&format!("{whole}&after=now"), &[], "after"),
        (&format!("{whole}&after=start&after=start"), &[], "after"),
        (&whole, &[("last-event-id", "start")], "Last-Event-ID"),
        (&whole, &[("last-event-id", "gr\u{fc}n")], "Last-Event-ID"),
        (&whole, &[("last-event-id", "a"), ("last-event-id", "b")], "Last-Event-ID"),
    ] {
        assert_eq!(fields(&refused(query, headers)), [field], "{query} {headers:?}");
    }
    let unknown = refused("trackingCode=pm-nobody", &[]);
    assert_eq!((unknown.status, unknown.error().as_str()), (404, "NOT_FOUND"));
    for accept in ["application/json", "text/html, image/*", "text/event-stream;q=0", "*/*;q=0"] {
        let refusal = refused(&whole, &[("accept", accept)]);
        assert_eq!((refusal.status, refusal.error().as_str()), (406, "NOT_ACCEPTABLE"), "{accept}");
    }
    let wrong = daemon.client().post("/api/v1/events/tail", "{}");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    daemon.stop();
}

#[test]
fn a_position_is_of_one_website_of_one_hitlog() {
    let daemon = Daemon::start(&[]);
    let (code, other) = (daemon.register("a.example"), daemon.register("b.example"));
    let elsewhere = Daemon::start(&[]);
    let foreign = elsewhere.register("a.example");
    let position_of = |daemon: &Daemon, code: &str| {
        send(daemon, code, "x", json!({}));
        send(daemon, code, "x", json!({})).header("hitlog-position").unwrap().to_owned()
    };
    let good = position_of(&daemon, &code);
    let listed = daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1")).json();
    let flipped: String = [&good[..20], if &good[20..21] == "A" { "B" } else { "A" }, &good[21..]].concat();
    let bad = [
        position_of(&daemon, &other),
        position_of(&elsewhere, &foreign),
        listed["pagination"]["next"].as_str().unwrap().to_owned(),
        flipped,
        good[..42].to_owned(),
        format!("{good}A"),
    ];
    for position in &bad {
        let refusal = Tail::open(&daemon.address, &format!("trackingCode={code}&after={position}"), &[]);
        assert_eq!(fields(&refusal.err().unwrap()), ["after"], "{position}");
        let header = [("last-event-id", position.as_str())];
        let refusal = Tail::open(&daemon.address, &format!("trackingCode={code}&after={good}"), &header);
        assert_eq!(fields(&refusal.err().unwrap()), ["Last-Event-ID"], "{position}");
    }
    // Where the header is good, it does not matter what the address says.
    let header = [("last-event-id", good.as_str())];
    let query = format!("trackingCode={code}&eventType=custom&after={}", bad[0]);
    let mut tail = Tail::open(&daemon.address, &query, &header).unwrap();
    send(&daemon, &code, "custom", json!({"eventType": "custom"}));
    assert_eq!(names(&tail.events(1)), ["custom"], "it is good with any type");
    elsewhere.stop();
    daemon.stop();
}

#[test]
fn a_heartbeat_moves_on_with_the_events_of_others_and_sees_that_the_website_is_gone() {
    let daemon = Daemon::start(&[]);
    let (code, other, doomed) =
        (daemon.register("a.example"), daemon.register("b.example"), daemon.register("c.example"));
    let mut tails = [tail(&daemon, &code, ""), lines(&daemon, &code, "")];
    let mut dooms = [tail(&daemon, &doomed, ""), lines(&daemon, &doomed, "")];
    let opened_at = Instant::now();
    let begin = tails[0].begins_after().to_owned();
    assert_eq!(tails[0].told().unwrap().kind, "head");
    send(&daemon, &other, "of another", json!({}));
    let website = daemon.client().get("/api/v1/websites").json()["websites"][0]["id"].as_str().unwrap().to_owned();
    let deleted = daemon.client().send("DELETE", &format!("/api/v1/websites/{website}"), &[], b"");
    assert_eq!(deleted.status, 200, "{}", deleted.text());

    let piece = tails[0].piece().unwrap().unwrap();
    let waited = opened_at.elapsed();
    assert!(waited > Duration::from_secs(14) && waited < Duration::from_secs(18), "{waited:?}");
    let moved = piece.strip_prefix(": heartbeat\nid: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    assert_ne!(moved, begin, "it is behind the event of another");
    assert_eq!(tails[1].piece().unwrap().unwrap(), "\n");
    send(&daemon, &code, "after", json!({}));
    assert_eq!(names(&tail(&daemon, &code, &format!("&after={moved}")).events(1)), ["after"]);
    for tail in &mut tails {
        assert_eq!(names(&tail.events(1)), ["after"]);
    }
    for tail in &mut dooms {
        let bye = tail.news().unwrap();
        assert_eq!((bye.kind.as_str(), &bye.data), ("bye", &json!({"reason": "deleted"})));
        assert!(bye.position.is_some());
        assert_eq!(tail.told(), None);
    }
    daemon.stop();
}

const READ: &str = "read-0123456789abcdef";
const ADMIN: &str = "admin-0123456789abcdef";
const METRICS: &str = "metrics-0123456789abcdef";

#[test]
fn who_may_follow_events_is_told_the_position_of_what_it_sends() {
    let position = |response: &Response| response.header("hitlog-position").map(str::to_owned);
    let body = |code: &str| event_with(code, json!({})).to_string();
    for (flags, headers, is_told) in [
        (&[][..], &[][..], true),
        (&[], &[("sec-fetch-site", "same-origin")], true),
        (&[], &[("sec-fetch-site", "cross-site")], false),
        (&[], &[("origin", "https://shop.example")], false),
        (&[], &[("x-forwarded-for", "192.0.2.1")], false),
        (&["--token", ADMIN, "--read-token", READ, "--metrics-token", METRICS], &[], false),
        (
            &["--token", ADMIN, "--read-token", READ, "--metrics-token", METRICS],
            &[("authorization", "Bearer x")],
            false,
        ),
    ] {
        let daemon = Daemon::start(flags);
        let website = r#"{"name":"A","domain":"a.example"}"#.as_bytes();
        let admin = [("authorization", &*format!("Bearer {ADMIN}")), ("content-type", "application/json")];
        let website = daemon.client().send("POST", "/api/v1/websites", &admin, website).json();
        let code = website["trackingCode"].as_str().unwrap();
        // Whatever the type of the body is.
        for content_type in ["application/json", "text/plain"] {
            let headers = [headers, &[("content-type", content_type)]].concat();
            let stored = daemon.client().send("POST", "/api/v1/events", &headers, body(code).as_bytes());
            assert_eq!((stored.status, position(&stored).is_some()), (201, is_told), "{headers:?}");
            let exposed = stored.header("access-control-expose-headers").unwrap_or_default();
            assert!(!exposed.contains("position"), "{exposed}");
        }
        if flags.is_empty() {
            continue;
        }
        for (token, is_told) in [(READ, true), (ADMIN, true), (METRICS, false)] {
            let headers = [("authorization", &*format!("Bearer {token}")), ("x-forwarded-for", "192.0.2.1")];
            let stored = daemon.client().send("POST", "/api/v1/events", &headers, body(code).as_bytes());
            assert_eq!((stored.status, position(&stored).is_some()), (201, is_told), "{token}");
        }
    }
}

#[test]
fn the_position_of_what_was_sent_is_that_of_its_last_event() {
    let daemon = Daemon::start(&[]);
    let (code, other) = (daemon.register("a.example"), daemon.register("b.example"));
    let event = |code: &str, name: &str, id: Option<&str>| {
        event_with(code, json!({"url": format!("https://example.com/{name}"), "eventId": id}))
    };
    let batch = |events: &[Value]| {
        let answer = daemon.client().post("/api/v1/events/batch", json!({"events": events}).to_string());
        (answer.status, answer.header("hitlog-position").map(str::to_owned))
    };
    let after = |code: &str, position: &str| tail(&daemon, code, &format!("&after={position}"));
    let (status, first) =
        batch(&[event(&other, "a", None), event(&code, "b", Some("b")), event(&code, "c", None), json!({})]);
    assert_eq!(status, 207);
    let first = first.unwrap();
    // A repeat has the position of the original.
    let (status, repeated) = batch(&[event(&code, "d", None), event(&code, "b again", Some("b"))]);
    assert_eq!(status, 201);
    let (status, mixed) = batch(&[event(&code, "b again", Some("b")), event(&code, "e", None)]);
    assert_eq!(status, 201);
    assert_eq!(batch(&[json!({})]), (207, None), "nothing is stored");
    send(&daemon, &code, "f", json!({}));
    assert_eq!(names(&after(&code, &first).events(3)), ["d", "e", "f"]);
    assert_eq!(names(&after(&code, &repeated.unwrap()).events(4)), ["c", "d", "e", "f"]);
    assert_eq!(names(&after(&code, &mixed.unwrap()).events(1)), ["f"]);
    daemon.stop();
}

#[test]
fn only_so_many_follow_at_once() {
    let daemon = Daemon::start(&["--tails-max=2"]);
    let code = daemon.register("a.example");
    let mut first = tail(&daemon, &code, "");
    let _second = tail(&daemon, &code, "");
    let query = format!("trackingCode={code}");
    let refusal = Tail::open(&daemon.address, &query, &[]).err().unwrap();
    assert_eq!((refusal.status, refusal.error().as_str()), (503, "OVERLOADED"));
    let seconds: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert_eq!(daemon.client().get(&format!("/api/v1/events?{query}")).status, 200, "others are served");
    // That one is gone is seen at once or soon, not only with the next heartbeat: reset, or closed in order.
    for is_reset in [true, false] {
        let _ = first.told();
        if is_reset {
            socket2::SockRef::from(first.stream()).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let gone_at = Instant::now();
        drop(first);
        first = wait_until("there is a place", || Tail::open(&daemon.address, &query, &[]).ok());
        assert!(gone_at.elapsed() < Duration::from_secs(5), "{is_reset} {:?}", gone_at.elapsed());
    }
    // One that is only done sending goes on.
    first.stream().shutdown(Shutdown::Write).unwrap();
    let pieces: Vec<_> = (0..3).map(|_| first.told().unwrap().kind).collect();
    assert_eq!(pieces, ["head", "heartbeat", "heartbeat"]);
    send(&daemon, &code, "x", json!({}));
    assert_eq!(names(&first.events(1)), ["x"]);
    daemon.stop();
}

//! What is sent again is stored once: events that have a name, in `eventId` or by their request's `Idempotency-Key`,
//! as a client sees them.

use std::{collections::BTreeSet, process::Command, thread};

use harness::{Client, Daemon, Response, Tampering, event_with, side_by_side, wait_until, work_dir};
use serde_json::{Value, json};

use crate::papers::Paper;

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";
/// A moment that no test runs at, so that a time that was kept is told from one that was made anew.
const THEN: i64 = 1_767_225_600_000;

fn send(client: &mut Client, event: &Value) -> Response {
    client.post(EVENTS, event.to_string())
}

fn send_batch(client: &mut Client, events: &[Value]) -> Response {
    client.post(BATCH, json!({"events": events}).to_string())
}

fn send_with_key(client: &mut Client, path: &str, key: &str, body: &Value) -> Response {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.send("POST", path, &headers, body.to_string().as_bytes())
}

/// An event that has a name.
fn named(code: &str, id: &str) -> Value {
    event_with(code, json!({"eventId": id}))
}

fn id_of(response: &Response) -> String {
    assert_eq!(response.status, 201, "{}", response.text());
    response.json()["id"].as_str().unwrap().to_owned()
}

/// The ids of the items of a batch that are stored.
fn ids_of(response: &Response) -> Vec<String> {
    let body = response.json();
    let events = body["events"].as_array().unwrap();
    assert_eq!(body["eventsCreated"], events.len(), "{body}");
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

fn is_replayed(response: &Response) -> bool {
    let said = response.header("idempotency-replayed");
    assert!(said.is_none_or(|said| said == "true"), "{said:?}");
    said.is_some()
}

/// How many events of a website are stored.
fn stored(client: &mut Client, code: &str) -> u64 {
    client.get(&format!("{EVENTS}?trackingCode={code}")).json()["pagination"]["total"].as_u64().unwrap()
}

/// How many events the daemon has answered as repeats.
fn replayed(daemon: &Daemon) -> f64 {
    daemon.metrics()["hitlog_events_replayed_total"]
}

#[test]
fn an_id_that_is_none_is_a_fault_of_its_field() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let mut refused = 0;
    for id in [
        json!(""),
        json!("x".repeat(129)),
        json!("é".repeat(65)),
        json!("a\nb"),
        json!("\u{0}"),
        json!("\u{7f}"),
        json!(7),
        json!(1.5),
        json!(true),
        json!(["a"]),
        json!({"id": "a"}),
    ] {
        let event = event_with(&code, json!({"eventId": id, "os": 1}));
        let alone = send(&mut client, &event);
        let batch = send_batch(&mut client, &[event_with(&code, json!({})), event]);
        assert_eq!((alone.status, batch.status), (400, 207), "{id}");
        for error in [alone.json(), batch.json()["errors"][0].clone()] {
            assert_eq!(error["error"], "VALIDATION_ERROR", "{id}: {error}");
            let faults = error["details"]["fieldErrors"].as_object().unwrap();
            let fields: Vec<_> = faults.keys().collect();
            assert_eq!(fields, ["eventId", "os"], "{id}: told with the others");
        }
        refused += 1;
    }
    let event = named(&code, "a").to_string();
    let twice = client.post(EVENTS, event.replacen('{', r#"{"eventId":"a","#, 1));
    assert_eq!(twice.status, 400);
    assert_eq!(twice.json()["details"]["fieldErrors"], json!({"eventId": ["Given more than once"]}));
    // What is no fault: the longest ones, and null, which is none.
    for id in [json!("x".repeat(128)), json!("é".repeat(64)), json!(" "), json!(null), json!(null)] {
        let taken = send(&mut client, &event_with(&code, json!({"eventId": id})));
        assert_eq!((taken.status, is_replayed(&taken)), (201, false), "{id}: {}", taken.text());
        assert_eq!(taken.json().get("eventId"), None, "it is in no answer");
    }
    assert_eq!(stored(&mut client, &code), refused + 5);
    daemon.stop();
}

/// A request with these lines of `Idempotency-Key` as they are.
fn send_lines(client: &mut Client, path: &str, lines: &[&[u8]], body: &str) -> Response {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for line in lines {
        request.extend_from_slice(b"Idempotency-Key: ");
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"content-type: application/json\r\n\r\n");
    request.extend_from_slice(body.as_bytes());
    client.write(&request).unwrap();
    client.read_response(false).unwrap()
}

#[test]
fn a_key_that_is_none_refuses_its_request() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let event = event_with(&code, json!({}));
    let batch = json!({"events": [event, event, event]}).to_string();
    let long = "k".repeat(256);
    let bad: [&[&[u8]]; 11] = [
        &[b""],
        &[br#""""#],
        &[long.as_bytes()],
        &[b"a b"],
        &[br#""a b""#],
        &["é".as_bytes()],
        &[b"\xff"],
        &[br#""a"#],
        &[br#""a"b"#],
        &[br#""a\b""#],
        &[b"a", b"a"],
    ];
    let mut refused = 0.0;
    for lines in bad {
        for (path, body) in [(EVENTS, event.to_string()), (BATCH, batch.clone())] {
            let response = send_lines(&mut client, path, lines, &body);
            assert_eq!((response.status, response.error().as_str()), (400, "VALIDATION_ERROR"), "{lines:?}");
            let details = &response.json()["details"];
            assert_eq!(details["fieldErrors"].as_object().unwrap().keys().collect::<Vec<_>>(), ["Idempotency-Key"]);
            refused += 1.0;
        }
        // Where no events come in nothing is read of it.
        let listing =
            format!("GET {EVENTS}?trackingCode={code} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: a b\r\n\r\n");
        client.write(listing.as_bytes()).unwrap();
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics["hitlog_events_rejected_total{reason=\"validation\"}"], refused, "each of them counts as one");
    assert_eq!(metrics["hitlog_events_received_total"], refused);
    assert_eq!(stored(&mut client, &code), 0);
    let website = send_with_key(&mut client, "/api/v1/websites", "a b", &json!({"name": "B", "domain": "b.example"}));
    assert_eq!(website.status, 201);
    daemon.stop();
}

#[test]
fn a_repeat_is_answered_as_the_first_was() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let first = send(&mut client, &event_with(&code, json!({"eventId": "a", "timestamp": THEN})));
    assert!(!is_replayed(&first));
    let id = id_of(&first);
    // Its id names it: what else is said is not looked at.
    let again = send(&mut client, &event_with(&code, json!({"eventId": "a", "url": "https://example.com/other"})));
    assert_eq!((id_of(&again), is_replayed(&again)), (id.clone(), true));
    assert_eq!(again.json()["createdAt"], first.json()["createdAt"]);
    assert_eq!(client.get(&format!("{EVENTS}/{id}")).json(), first.json(), "it is stored as it came first");

    // With others, in a batch: the same item, and not the same request.
    let mixed = send_batch(&mut client, &[named(&code, "b"), named(&code, "a"), event_with(&code, json!({}))]);
    assert_eq!((mixed.status, is_replayed(&mixed)), (201, false));
    let body = mixed.json();
    assert_eq!(body["message"], "Successfully created 3 events");
    assert_eq!((&body["events"][1]["id"], &body["events"][1]["createdAt"]), (&json!(id), &first.json()["createdAt"]));
    let ids = ids_of(&mixed);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3);

    // All of what is stored are repeats, in another order and with a fault beside them.
    let partly = send_batch(&mut client, &[named(&code, "a"), json!({"eventId": "c"}), named(&code, "b")]);
    assert_eq!((partly.status, is_replayed(&partly)), (207, true));
    assert_eq!(ids_of(&partly), [id.clone(), ids[0].clone()]);
    let fresh = send_batch(&mut client, &[named(&code, "a"), json!({"eventId": "c"}), named(&code, "c")]);
    assert_eq!((fresh.status, is_replayed(&fresh)), (207, false), "c is new: what was refused left it free");
    // Where nothing is stored nothing is a repeat.
    let none = send_batch(&mut client, &[json!({"eventId": "a"})]);
    assert_eq!((none.status, is_replayed(&none)), (207, false));

    assert_eq!(stored(&mut client, &code), 4);
    assert_eq!(replayed(&daemon), 5.0);
    let (_, committed) = daemon.assert_conserved();
    assert_eq!(committed, 4.0);
    daemon.stop();
}

#[test]
fn a_repeat_has_the_warnings_of_what_it_was_sent_with() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let id = id_of(&send(&mut client, &named(&code, "a")));
    let again = send(&mut client, &event_with(&code, json!({"eventId": "a", "referrer": "google.com"})));
    assert_eq!((id_of(&again), is_replayed(&again)), (id, true));
    assert_eq!(again.json()["warnings"][0]["code"], "REFERRER_DROPPED");
    daemon.stop();
}

#[test]
fn a_key_names_the_events_that_have_no_name() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let plain = event_with(&code, json!({}));
    let first = send_with_key(&mut client, EVENTS, "one", &plain);
    assert!(!is_replayed(&first));
    // With quotes it is the same key, and its event the same as one that says its name itself.
    for again in [
        send_with_key(&mut client, EVENTS, "one", &plain),
        send_with_key(&mut client, EVENTS, "\"one\"", &plain),
        send(&mut client, &named(&code, "one/0")),
        send_with_key(&mut client, EVENTS, "two", &named(&code, "one/0")),
    ] {
        assert_eq!((id_of(&again), is_replayed(&again)), (id_of(&first), true));
    }
    // The key of a request names no event that has a name: this one was taken for the first time.
    let free = send_with_key(&mut client, EVENTS, "two", &plain);
    assert!(!is_replayed(&free) && id_of(&free) != id_of(&first));

    // Of a batch all items count, those refused, too; and those that have a name keep it.
    let batch = json!({"events": [plain, {}, named(&code, "own"), plain]});
    let sent = send_with_key(&mut client, BATCH, r#""b\"\\""#, &batch);
    assert_eq!((sent.status, is_replayed(&sent)), (207, false));
    let ids = ids_of(&sent);
    let again = send_with_key(&mut client, BATCH, r#"b"\"#, &batch);
    assert_eq!((again.status, is_replayed(&again), ids_of(&again)), (207, true, ids.clone()));
    let names = [r#"b"\/0"#, "own", r#"b"\/3"#].map(|name| named(&code, name));
    let by_name = send_batch(&mut client, &names);
    assert_eq!((by_name.status, is_replayed(&by_name), ids_of(&by_name)), (201, true, ids));
    let free = send_batch(&mut client, &[named(&code, r#"b"\/1"#), named(&code, r#"b"\/2"#)]);
    assert_eq!((free.status, is_replayed(&free)), (201, false), "nobody has these names");
    assert_eq!(stored(&mut client, &code), 7);
    daemon.stop();
}

#[test]
fn another_website_s_event_is_another_one() {
    let daemon = Daemon::start(&[]);
    let codes = ["a.example", "b.example"].map(|domain| daemon.register(domain));
    let mut client = daemon.client();
    let ids = codes.each_ref().map(|code| id_of(&send(&mut client, &named(code, "a"))));
    assert_ne!(ids[0], ids[1]);
    let again = send_batch(&mut client, &codes.each_ref().map(|code| named(code, "a")));
    assert_eq!((is_replayed(&again), ids_of(&again)), (true, ids.to_vec()));
    // One key names an event of each.
    let events = codes.each_ref().map(|code| event_with(code, json!({})));
    let by_key = events.each_ref().map(|event| send_with_key(&mut client, EVENTS, "k", event));
    assert!(by_key.iter().all(|response| response.status == 201 && !is_replayed(response)));
    // A website that is changed keeps its events' names.
    let website = client.get("/api/v1/websites").json()["websites"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(client.put(&format!("/api/v1/websites/{website}"), r#"{"name":"Other"}"#).status, 200);
    let after = send(&mut client, &named(&codes[0], "a"));
    assert_eq!((id_of(&after), is_replayed(&after)), (ids[0].clone(), true));
    assert_eq!((stored(&mut client, &codes[0]), stored(&mut client, &codes[1])), (2, 2));
    daemon.stop();
}

#[test]
fn one_batch_may_have_an_event_twice() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let at = |timestamp| event_with(&code, json!({"eventId": "a", "timestamp": timestamp}));
    let sent = send_batch(&mut client, &[at(THEN), named(&code, "b"), at(THEN + 1), at(THEN + 2)]);
    assert_eq!((sent.status, is_replayed(&sent)), (201, false));
    let ids = ids_of(&sent);
    assert_eq!((&ids[2], &ids[3]), (&ids[0], &ids[0]));
    let events = sent.json()["events"].clone();
    assert!([2, 3].iter().all(|item| events[item]["createdAt"] == events[0]["createdAt"]), "{events}");
    assert_ne!(ids[1], ids[0]);
    assert_eq!(stored(&mut client, &code), 2);
    assert_eq!(replayed(&daemon), 2.0);
    daemon.stop();
}

/// Whoever is first: each event is there once, and everybody is told the same of it.
#[test]
fn what_many_send_at_once_is_stored_once() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 40;
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let rounds = || {
        let mut client = daemon.client();
        let answer = |round: usize| {
            let names = [round, round + 1, round + 1].map(|number| named(&code, &format!("id-{number}")));
            let alone = id_of(&send(&mut client, &names[0]));
            let ids = ids_of(&send_batch(&mut client, &names));
            assert_eq!((&ids[0], &ids[1]), (&alone, &ids[2]));
            ids
        };
        (0..ROUNDS).map(answer).collect::<Vec<_>>()
    };
    let told: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(rounds)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(told.iter().all(|ids| *ids == told[0]), "somebody was told other ids");
    let once: BTreeSet<_> = told[0].iter().flatten().collect();
    assert_eq!(once.len(), ROUNDS + 1);
    assert_eq!(stored(&mut daemon.client(), &code), ROUNDS as u64 + 1);
    let (received, committed) = daemon.assert_conserved();
    assert_eq!((received, committed), ((THREADS * ROUNDS * 4) as f64, ROUNDS as f64 + 1.0));
    daemon.stop();
}

#[test]
fn what_was_refused_left_its_name_free() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let refused = [
        send(&mut client, &event_with(&code, json!({"eventId": "a", "url": 1}))),
        send(&mut client, &named("pm-nobody", "a")),
        send_with_key(&mut client, EVENTS, "a", &event_with(&code, json!({"sessionId": ""}))),
        client.post(EVENTS, named(&code, "a").to_string() + "x"),
    ];
    assert_eq!(refused.map(|response| response.status), [400, 404, 400, 400]);
    for event in [named(&code, "a"), named(&code, "a/0")] {
        assert!(!is_replayed(&send(&mut client, &event)));
        assert!(is_replayed(&send(&mut client, &event)));
    }
    daemon.stop();
}

#[test]
fn what_a_full_disk_refused_left_its_name_free() {
    let daemon = Daemon::start(&["--segment-page-bytes=4096", "--wal-checkpoint-bytes=64KiB"]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let known = id_of(&send(&mut client, &named(&code, "known")));
    let full_disk = Tampering::with(&daemon, "pwrite64:error=ENOSPC");
    for _ in 0..3 {
        let refused = send_batch(&mut client, &[named(&code, "a"), named(&code, "known"), named(&code, "b")]);
        assert_eq!((refused.status, refused.error().as_str()), (503, "STORAGE_FULL"));
        assert!(!is_replayed(&refused));
    }
    drop(full_disk);
    let first = wait_until("ingest resumes", || {
        let response = send(&mut client, &named(&code, "a"));
        (response.status == 201).then_some(response)
    });
    assert!(!is_replayed(&first), "it had not been stored");
    let again = send_batch(&mut client, &[named(&code, "a"), named(&code, "known"), named(&code, "b")]);
    assert_eq!(ids_of(&again)[..2], [id_of(&first), known]);
    assert!(!is_replayed(&again));
    assert_eq!(stored(&mut client, &code), 3);
    daemon.stop();
}

/// A client in doubt sends everything again in other batches than before.
#[test]
fn who_is_in_doubt_after_a_kill_sends_again() {
    side_by_side([100, 7], |events| {
        let work = work_dir();
        let data = work.path().join("data");
        let mut daemon = Daemon::start_in(&data, &[]);
        let code = daemon.register("example.com");
        let mut client = daemon.client();
        let names: Vec<_> = (0..events).map(|number| named(&code, &format!("id-{number}"))).collect();
        let told = ids_of(&send_batch(&mut client, &names));
        daemon.crash();
        let daemon = Daemon::start_in(&data, &[]);
        let mut client = daemon.client();
        for (chunk, told) in names.chunks(3).zip(told.chunks(3)) {
            let again = send_batch(&mut client, chunk);
            assert_eq!((is_replayed(&again), &*ids_of(&again)), (true, told));
        }
        assert_eq!(stored(&mut client, &code), events);
        assert_eq!(replayed(&daemon), events as f64);
        daemon.stop();
    });
}

#[test]
fn a_page_of_another_site_sends_a_key_and_reads_whether_it_was_known() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let origin = ("origin", "https://shop.example");
    let asks = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,idempotency-key"),
    ];
    for path in [EVENTS, BATCH] {
        let preflight = client.send("OPTIONS", path, &asks, b"");
        let allowed: Vec<_> = preflight.header("access-control-allow-headers").unwrap().split(", ").collect();
        assert!(allowed.contains(&"idempotency-key"), "{allowed:?}");
    }
    let event = event_with(&code, json!({})).to_string();
    for is_repeat in [false, true] {
        let headers = [origin, ("content-type", "application/json"), ("idempotency-key", "k")];
        let response = client.send("POST", EVENTS, &headers, event.as_bytes());
        let exposed = response.header("access-control-expose-headers").unwrap();
        assert!(exposed.split(", ").any(|name| name == "idempotency-replayed"), "{exposed}");
        assert_eq!((response.status, is_replayed(&response)), (201, is_repeat));
    }
    daemon.stop();
}

/// The example of `docs/api.md`, run twice by a reader of it.
#[test]
fn the_example_stores_one_event() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let page = Paper::of("docs/api.md");
    let (_, example) = page.blocks.iter().find(|(_, text)| text.contains("\"eventId\"")).unwrap();
    let request = example
        .replace("http://localhost:3000", &format!("http://{}", daemon.address))
        .replace("curl ", "curl --silent --show-error ");
    let ids = ["", "idempotency-replayed: true"].map(|header| {
        let output = Command::new("bash").args(["-c", &request]).env("CODE", &code).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
        assert!(head.starts_with("HTTP/1.1 201 "), "{text}");
        assert!(head.contains(header) && head.contains("idempotency-replayed") != header.is_empty(), "{text}");
        serde_json::from_str::<Value>(body).unwrap()["id"].clone()
    });
    assert_eq!(ids[0], ids[1]);
    assert_eq!(stored(&mut daemon.client(), &code), 1);
    daemon.stop();
}

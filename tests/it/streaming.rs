//! Answers that are made while they are sent: pages too large for one chunk, read slowly, badly or not at all.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use harness::{Client, Daemon, TIMEOUT, event_with, wait_until};
use serde_json::{Value, json};

use crate::clients::connect_narrow;

/// The memory of pages in these tests: less than two chunks with their room to grow, and far less than a page.
const READ_BYTES_MAX: usize = 2 << 20;
const READ_BYTES: &str = "--read-bytes-max=2MiB";
/// What one event has in its properties.
const PROPERTY_BYTES: usize = 30 * 1024;

/// Stores events of about 30 KiB each, the time of each a second after the one before.
fn fill(daemon: &Daemon, code: &str, count: usize) {
    let text = "x".repeat(PROPERTY_BYTES);
    for first in (0..count).step_by(100) {
        let event = |number: usize| {
            let visitor = if number.is_multiple_of(10) { "erased" } else { "v" };
            let time = 1_700_000_000_000_u64 + 1_000 * number as u64;
            let properties = json!({"number": number, "text": text});
            event_with(code, json!({"timestamp": time, "visitorId": visitor, "properties": properties}))
        };
        let events: Vec<_> = (first..count.min(first + 100)).map(event).collect();
        let stored = daemon.client().post("/api/v1/events/batch", json!({"events": events}).to_string());
        assert_eq!(stored.status, 201, "{}", stored.text());
    }
}

fn page_path(code: &str, limit: usize) -> String {
    format!("/api/v1/events?trackingCode={code}&limit={limit}")
}

/// Asks for a page, and reads no more of the answer than its first bytes.
fn ask(daemon: &Daemon, path: &str, version: &str) -> Client {
    let mut stream = connect_narrow(&daemon.address);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/{version}\r\nhost: localhost\r\n\r\n").unwrap();
    // Looked at and left where it is.
    assert_eq!(stream.peek(&mut [0; 1]).unwrap(), 1);
    of_stream(stream)
}

fn of_stream(stream: TcpStream) -> Client {
    // The smallest buffer, so that nothing is read ahead.
    Client { stream: std::io::BufReader::with_capacity(1, stream) }
}

/// The numbers of the events of a page.
fn numbers(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().unwrap();
    events.iter().map(|event| event["properties"]["number"].as_u64().unwrap()).collect()
}

fn sample(daemon: &Daemon, name: &str) -> f64 {
    daemon.metrics()[name]
}

/// How many connections were closed for this reason.
pub(crate) fn closed(daemon: &Daemon, reason: &str) -> f64 {
    sample(daemon, &format!("hitlog_connections_closed_total{{reason=\"{reason}\"}}"))
}

/// Reads until the connection ends. Whether it ended in order, and what came.
fn read_to_end(client: &mut Client) -> (bool, Vec<u8>) {
    let (mut came, mut piece) = (Vec::new(), [0; 64 * 1024]);
    loop {
        match client.stream.get_mut().read(&mut piece) {
            Ok(0) => return (true, came),
            Ok(count) => came.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (false, came),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_large_page_begins_before_its_last_row_is_read_and_holds_one_chunk() {
    let daemon = Daemon::start(&[READ_BYTES]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 1_000);
    let mut client = ask(&daemon, &page_path(&code, 1_000), "1.1");
    // It has begun. What comes in now is not on it, and what is erased before its row is read is not, either.
    fill(&daemon, &code, 1);
    let erasure = daemon.client().send("DELETE", &format!("/api/v1/visitors/erased?trackingCode={code}"), &[], b"");
    assert_eq!(erasure.status, 202, "{}", erasure.text());
    let (reader, most) = thread::scope(|scope| {
        let reader = scope.spawn(move || client.read_response(false).expect("a whole answer"));
        let mut most = 0.0_f64;
        while !reader.is_finished() {
            most = most.max(sample(&daemon, "hitlog_read_bytes"));
        }
        (reader.join().unwrap(), most)
    });
    assert!(most > 0.0 && most <= READ_BYTES_MAX as f64, "{most} bytes held");
    assert_eq!(reader.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reader.header("content-length"), None);
    let page = reader.json();
    assert_eq!(page["pagination"], json!({"total": 1_000, "limit": 1_000, "offset": 0, "next": null}));
    let shown = numbers(&page);
    // The first chunk has 17 events, and a little more than one chunk is with the kernel.
    let (early, late): (Vec<u64>, Vec<u64>) = shown.iter().partition(|number| **number >= 800);
    let not_erased: Vec<u64> = (0..800).rev().filter(|number| number % 10 != 0).collect();
    assert_eq!(late, not_erased);
    assert!(early.len() >= 180 && early.contains(&990), "{early:?}");
    wait_until("the memory is given back", || (sample(&daemon, "hitlog_read_bytes") == 0.0).then_some(()));
    daemon.stop();
}

#[test]
fn a_page_in_chunks_is_the_page_as_it_would_be_at_once() {
    let daemon = Daemon::start(&[READ_BYTES, "--segment-rows-max=40"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 205);
    let mut client = daemon.client();
    let whole = |client: &mut Client, query: &str| {
        let answer = client.get(&format!("/api/v1/events?trackingCode={code}&{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.header("content-length").is_some(), answer.json())
    };
    for filter in
        ["", "&eventType=pageview", "&visitorId=v", "&visitorId=erased", "&from=1700000030000&to=1700000170000"]
    {
        // In pages that are whole, and in one that is not.
        let (mut events, mut cursor) = (Vec::new(), String::new());
        let total = loop {
            let (has_length, page) = whole(&mut client, &format!("limit=10{filter}{cursor}"));
            assert!(has_length, "a page that fits one chunk");
            events.extend(page["events"].as_array().unwrap().iter().cloned());
            match page["pagination"]["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break page["pagination"]["total"].clone(),
            }
        };
        let (has_length, page) = whole(&mut client, &format!("limit=1000{filter}"));
        assert_eq!(has_length, events.len() < 18, "{filter}: {} events", events.len());
        assert_eq!(page["events"].as_array().unwrap(), &events, "{filter}");
        assert_eq!(page["pagination"], json!({"total": total, "limit": 1_000, "offset": 0, "next": null}), "{filter}");
        // A deep one, and the one that comes after it.
        let (_, deep) = whole(&mut client, &format!("limit=100&offset=3{filter}"));
        let after = (3..103).len().min(events.len().saturating_sub(3));
        assert_eq!(deep["events"].as_array().unwrap(), &events[3..3 + after], "{filter}");
        assert_eq!(deep["pagination"]["next"].is_null(), events.len() <= 103, "{filter}");
    }
    // Of an answer to HEAD the head alone comes, and another request may follow it.
    let head = client.send("HEAD", &page_path(&code, 1_000), &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, None, 0));
    assert_eq!(client.get("/livez").status, 200);
    wait_until("the memory is given back", || (sample(&daemon, "hitlog_read_bytes") == 0.0).then_some(()));
    // So may one behind a page, sent before the page was read.
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    client
        .write([get(&page_path(&code, 1_000)), get("/livez"), get(&page_path(&code, 50))].concat().as_bytes())
        .unwrap();
    let answers = [(); 3].map(|()| client.read_response(false).unwrap());
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200; 3]);
    assert_eq!((numbers(&answers[0].json()).len(), numbers(&answers[2].json()).len()), (205, 50));
    let json = "content-type: application/json\r\n";
    // A body that nobody asked for is no request, however late it comes.
    let path = page_path(&code, 1_000);
    client
        .write(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{json}content-length: 9\r\n\r\n").as_bytes())
        .unwrap();
    let answer = client.read_response(false).unwrap();
    assert_eq!((numbers(&answer.json()).len(), answer.header("connection")), (205, Some("close")));
    client.write(b"GET /live").unwrap();
    assert!(client.is_closed());
    // HTTP/1.0 knows no chunks: the connection's end is the page's.
    let (in_order, answer) = read_to_end(&mut ask(&daemon, &page_path(&code, 1_000), "1.0"));
    let body = String::from_utf8(answer).unwrap();
    let (head, body) = body.split_once("\r\n\r\n").unwrap();
    assert!(in_order && !head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    assert_eq!(numbers(&serde_json::from_str(body).unwrap()), (0..205).rev().collect::<Vec<_>>());
    daemon.stop();
}

#[test]
fn a_page_ends_where_its_website_was_deleted() {
    let daemon = Daemon::start(&[READ_BYTES]);
    let website =
        daemon.client().post("/api/v1/websites", json!({"name": "A", "domain": "a.example"}).to_string()).json();
    let code = website["trackingCode"].as_str().unwrap();
    fill(&daemon, code, 500);
    let mut client = ask(&daemon, &page_path(code, 500), "1.1");
    let deleted = format!("/api/v1/websites/{}", website["id"].as_str().unwrap());
    assert_eq!(daemon.client().send("DELETE", &deleted, &[], b"").status, 200);
    let page = client.read_response(false).unwrap().json();
    let shown = numbers(&page);
    assert!((17..480).contains(&shown.len()), "{} events", shown.len());
    assert_eq!(shown, (0..500).rev().take(shown.len()).collect::<Vec<_>>());
    assert_eq!(page["pagination"]["total"], 500);
    daemon.stop();
}

#[test]
fn a_slow_reader_is_not_idle() {
    let daemon = Daemon::start(&[READ_BYTES, "--idle-timeout-seconds=0.5", "--warm-connections-max=0"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 200);
    let mut client = ask(&daemon, &page_path(&code, 200), "1.1");
    let (mut came, mut piece) = (Vec::new(), [0; 256 * 1024]);
    let started = Instant::now();
    while !came.ends_with(b"\r\n0\r\n\r\n") {
        let count = client.stream.get_mut().read(&mut piece).unwrap();
        assert!(count > 0, "closed after {:?} and {} bytes", started.elapsed(), came.len());
        came.extend_from_slice(&piece[..count]);
        // So slow at its beginning that the rest takes far longer than a connection may be idle.
        thread::sleep(if came.len() < 1 << 20 { Duration::from_millis(40) } else { Duration::ZERO });
    }
    assert!(started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
    // And then it is idle.
    assert!(client.is_closed());
    wait_until("it is closed as idle", || (closed(&daemon, "idle") > 0.0).then_some(()));
    daemon.stop();
}

#[test]
fn a_steady_reader_does_not_stall() {
    let daemon = Daemon::start(&["--body-stall-timeout-seconds=1"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 1_000);
    // With the kernel's own buffers, which take some megabytes at once.
    let mut stream = TcpStream::connect(&daemon.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(stream, "GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", page_path(&code, 1_000)).unwrap();
    let (mut came, mut piece, started) = (0, [0; 16 * 1024], Instant::now());
    // At 400 KB/s, which takes seven seconds. A third of those buffers would be two.
    while came < 3_000_000 {
        let count = stream.read(&mut piece).unwrap_or_else(|error| panic!("{came} bytes: {error}"));
        assert!(count > 0, "{came} bytes");
        came += count;
        thread::sleep(Duration::from_secs_f64(came as f64 / 400_000.0).saturating_sub(started.elapsed()));
    }
    assert_eq!(closed(&daemon, "write_stalled"), 0.0);
    daemon.stop();
}

#[test]
fn a_page_by_session_holds_its_own_keys() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("a.example");
    let event = json!({"trackingCode": code, "eventType": "click", "url": "https://a.example/", "sessionId": "s",
        "visitorId": "v", "timestamp": 1_600_000_000_000_u64});
    for _ in 0..30 {
        let batch = json!({"events": vec![&event; 1_000]});
        assert_eq!(daemon.client().post("/api/v1/events/batch", batch.to_string()).status, 201);
    }
    fill(&daemon, &code, 100);
    let held = |filter: &str| {
        let client = ask(&daemon, &format!("{}{filter}", page_path(&code, 100)), "1.1");
        let held = sample(&daemon, "hitlog_read_bytes");
        drop(client);
        wait_until("the memory is given back", || (sample(&daemon, "hitlog_read_bytes") == 0.0).then_some(()));
        held
    };
    // The keys of all that were found would be 480 KB more.
    let (all, of_visitor) = (held(""), held("&visitorId=v"));
    assert!(all > 0.0 && of_visitor < all + 50_000.0, "{all} and {of_visitor}");
    daemon.stop();
}

#[test]
fn a_stop_cuts_a_page_that_is_not_read_and_ends_in_order() {
    for version in ["1.0", "1.1"] {
        let mut daemon = Daemon::start(&[READ_BYTES, "--drain-timeout-seconds=1"]);
        let code = daemon.register("a.example");
        fill(&daemon, &code, 300);
        let mut client = ask(&daemon, &page_path(&code, 300), version);
        daemon.signal("TERM");
        assert!(daemon.wait().success(), "a client that does not read is no fault of the stop");
        daemon.wait_for_log("were cut off");
        daemon.wait_for_log("the store is closed");
        assert!(!read_to_end(&mut client).0, "HTTP/{version}: an end that is none");
        let logs = fs::read_dir(daemon.data().join("segments")).unwrap().map(|entry| entry.unwrap().path());
        let logs: Vec<_> = logs.filter(|path| path.to_string_lossy().ends_with("-wal")).collect();
        assert!(logs.is_empty(), "{logs:?}");
    }
}

#[test]
fn whatever_ends_the_process_a_page_without_its_end_does_not_look_whole() {
    for signals in [&["KILL"][..], &["TERM", "TERM"]] {
        let mut daemon = Daemon::start(&[READ_BYTES]);
        let code = daemon.register("a.example");
        fill(&daemon, &code, 300);
        let mut client = ask(&daemon, &page_path(&code, 300), "1.0");
        for signal in signals {
            daemon.signal(signal);
            if *signal == "TERM" {
                // Two within a second are one.
                thread::sleep(Duration::from_millis(1_200));
            }
        }
        assert!(!daemon.wait().success());
        assert!(!read_to_end(&mut client).0, "{signals:?}: an end that is none");
    }
}

#[test]
fn a_stop_lets_a_page_end() {
    let mut daemon = Daemon::start(&[READ_BYTES]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 300);
    let mut client = ask(&daemon, &page_path(&code, 300), "1.1");
    daemon.signal("TERM");
    daemon.wait_for_log("stopping");
    // Far longer than a connection without a request stays.
    thread::sleep(Duration::from_millis(600));
    let page = client.read_response(false).expect("a whole page").json();
    assert_eq!(numbers(&page).len(), 300);
    assert!(daemon.wait().success());
}

#[test]
fn readers_that_stall_or_take_too_long_are_cut_and_their_memory_is_given_back() {
    for (flag, reason) in
        [("--body-stall-timeout-seconds=1", "write_stalled"), ("--answer-timeout-seconds=1", "broken_off")]
    {
        let daemon = Daemon::start(&[READ_BYTES, flag]);
        let code = daemon.register("a.example");
        fill(&daemon, &code, 300);
        for version in ["1.1", "1.0"] {
            let before = closed(&daemon, reason);
            let mut client = ask(&daemon, &page_path(&code, 300), version);
            assert!(sample(&daemon, "hitlog_read_bytes") > 0.0);
            wait_until("it is cut", || (closed(&daemon, reason) > before).then_some(()));
            assert!(!read_to_end(&mut client).0, "{reason}, HTTP/{version}: an end that is none");
            assert_eq!(sample(&daemon, "hitlog_read_bytes"), 0.0, "{reason}");
        }
        daemon.stop();
    }
}

#[test]
fn a_client_that_goes_gives_its_memory_back() {
    let daemon = Daemon::start(&[READ_BYTES]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 300);
    for _ in 0..4 {
        let client = ask(&daemon, &page_path(&code, 300), "1.1");
        assert!(sample(&daemon, "hitlog_read_bytes") > 0.0);
        drop(client);
        wait_until("the memory is given back", || (sample(&daemon, "hitlog_read_bytes") == 0.0).then_some(()));
    }
    daemon.stop();
}

#[test]
fn who_leaves_a_page_unread_gives_way_to_those_who_read() {
    let daemon = Daemon::start(&[READ_BYTES]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 1_000);
    // Three hold all the memory that there is but half a chunk.
    let stalled = [(); 3].map(|()| ask(&daemon, &page_path(&code, 1_000), "1.1"));
    assert!(sample(&daemon, "hitlog_read_bytes") > 1.5 * f64::from(1 << 20));
    // What is less than a chunk, and a page of sixty while others come that read nothing.
    assert_eq!(numbers(&daemon.client().get(&page_path(&code, 15)).json()).len(), 15);
    let page = thread::scope(|scope| {
        let reader = scope.spawn(|| daemon.client().get(&page_path(&code, 1_000)));
        let mut others = Vec::new();
        while !reader.is_finished() {
            others.push(ask(&daemon, &page_path(&code, 1_000), "1.1"));
            thread::sleep(Duration::from_millis(5));
        }
        reader.join().unwrap()
    });
    assert_eq!((page.status, numbers(&page.json()).len()), (200, 1_000));
    assert!(closed(&daemon, "gave_way") >= 1.0);
    drop(stalled);
    daemon.stop();
}

#[test]
fn who_leaves_a_list_of_websites_unread_gives_way_to_those_who_read() {
    let daemon = Daemon::start(&["--answer-bytes-max=2MiB", "--small-answer-bytes=512KiB"]);
    register_many(&daemon);
    let path = "/api/v1/websites?limit=1000";
    // Two hold all but half a chunk.
    let stalled = [(); 2].map(|()| ask(&daemon, path, "1.1"));
    for _ in 0..3 {
        let page = daemon.client().get(path);
        assert_eq!((page.status, page.json()["websites"].as_array().unwrap().len()), (200, 600));
    }
    assert!(closed(&daemon, "gave_way") >= 1.0);
    drop(stalled);
    daemon.stop();
}

#[test]
fn a_page_whose_rest_cannot_be_read_is_broken_off() {
    let daemon = Daemon::start(&[READ_BYTES, "--segment-rows-max=20", "--segment-connections-max=1"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 400);
    daemon.wait_until_sealed();
    let mut client = ask(&daemon, &page_path(&code, 400), "1.1");
    let segments = fs::read_dir(daemon.data().join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = segments.filter(|path| path.to_string_lossy().contains(".g")).collect();
    files.sort();
    fs::rename(&files[1], daemon.data().join("elsewhere")).unwrap();
    let (in_order, came) = read_to_end(&mut client);
    assert!(!in_order && !came.ends_with(b"0\r\n\r\n"), "{} bytes", came.len());
    assert_eq!(closed(&daemon, "broken_off"), 1.0);
    daemon.wait_for_log("an answer was broken off");
    assert_eq!(sample(&daemon, "hitlog_read_bytes"), 0.0);
    daemon.stop();
}

/// Registers websites whose listing takes some chunks.
fn register_many(daemon: &Daemon) {
    let mut client = daemon.client();
    let description = "\u{1}\u{e9}\u{10348}\"".repeat(250);
    for number in 0..600 {
        let website =
            json!({"name": "é".repeat(255), "domain": format!("w{number}.example"), "description": description});
        let made = client.post("/api/v1/websites", website.to_string());
        assert_eq!(made.status, 201, "{}", made.text());
    }
}

#[test]
fn websites_are_listed_in_chunks() {
    let daemon = Daemon::start(&["--answer-bytes-max=2MiB", "--small-answer-bytes=1MiB"]);
    register_many(&daemon);
    let mut client = daemon.client();
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = client.get(&format!("/api/v1/websites?limit=100{cursor}"));
        assert!(answer.header("content-length").is_some());
        let page = answer.json();
        listed.extend(page["websites"].as_array().unwrap().iter().cloned());
        let Some(next) = page["pagination"]["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let answer = client.get("/api/v1/websites?limit=1000");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{} bytes", answer.body.len());
    let page = answer.json();
    assert_eq!(page["websites"].as_array().unwrap(), &listed);
    assert_eq!(
        (&page["total"], &page["pagination"]),
        (&json!(600), &json!({"total": 600, "limit": 1_000, "next": null}))
    );
    // One that is not read holds a chunk, and what is left goes on to others.
    let stalled = ask(&daemon, "/api/v1/websites?limit=1000", "1.1");
    let held = sample(&daemon, "hitlog_answer_bytes");
    assert!((300_000.0..1_100_000.0).contains(&held), "{held}");
    drop(stalled);
    wait_until("the memory is given back", || (sample(&daemon, "hitlog_answer_bytes") < 300_000.0).then_some(()));
    daemon.stop();
}

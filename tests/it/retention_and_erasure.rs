//! What is kept and what goes: erasure, deleted websites, retention, walks while all of it is going on.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;
use serde_json::{Value, json};

use harness::{Client, Daemon, Response, Tampering, command, event_with, side_by_side, wait_until, work_dir};

const FLAGS: [&str; 2] = ["--segment-rows-max", "60"];
/// Stands in every field of an event that may hold it.
const MARK: &str = "mark-of-the-erased";

/// An event with the mark all over it.
fn marked(code: &str, visitor: &str) -> Value {
    event_with(
        code,
        json!({
            "visitorId": visitor, "sessionId": format!("{MARK}-session"), "url": format!("https://example.com/{MARK}"),
            "referrer": format!("https://example.org/{MARK}"), "browser": MARK, "os": MARK, "location": MARK,
            "properties": {"mark": MARK.repeat(400)}
        }),
    )
}

fn send(client: &mut Client, events: &[Value]) -> Vec<String> {
    let response = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
    assert_eq!(response.status, 201, "{}", response.text());
    let events = response.json();
    events["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

/// Sends what fills a segment, and waits until it is sealed.
fn fill(daemon: &Daemon, events: &[Value]) -> Vec<String> {
    let rolls = daemon.metrics()["hitlog_segment_rolls_total"];
    let ids = send(&mut daemon.client(), events);
    wait_until("the segment is followed by the next", || {
        (daemon.metrics()["hitlog_segment_rolls_total"] > rolls).then_some(())
    });
    daemon.wait_until_sealed();
    ids
}

fn total(client: &mut Client, code: &str, rest: &str) -> u64 {
    let response = client.get(&format!("/api/v1/events?trackingCode={code}{rest}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["pagination"]["total"].as_u64().unwrap()
}

fn erase(client: &mut Client, code: &str, visitor: &str) -> Response {
    client.send("DELETE", &format!("/api/v1/visitors/{visitor}?trackingCode={code}"), &[], b"")
}

/// Waits until an erasure is done, and returns what is said of it then.
fn wait_until_done(daemon: &Daemon, id: &str) -> Value {
    wait_until("the erasure is done", || {
        let erasure = daemon.client().get(&format!("/api/v1/erasures/{id}"));
        assert_eq!(erasure.status, 200, "{}", erasure.text());
        Some(erasure.json()).filter(|erasure| erasure["state"] == "done")
    })
}

/// The files below a folder whose bytes hold these.
fn files_with(folder: &Path, bytes: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn an_erased_visitor_leaves_every_answer_at_once_and_every_file_soon() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let (code, other) = (daemon.register("example.com"), daemon.register("other.example"));
    let mut client = daemon.client();
    let visitor = format!("{MARK}/visitor");
    let (mut ids, mut kept) = (Vec::new(), Vec::new());
    // Three segments full, and some in the next; the same visitor of another website stays.
    for round in 0..7 {
        let mut events: Vec<_> =
            (0..24).map(|at| event_with(&code, json!({"timestamp": 1_000 * at + round}))).collect();
        events.push(event_with(&other, json!({"visitorId": "somebody", "timestamp": round})));
        kept.extend(send(&mut client, &events));
        ids.extend(send(&mut client, &[marked(&code, &visitor), marked(&code, &visitor)]));
        if round % 2 == 1 {
            daemon.wait_until_sealed();
        }
    }
    let encoded = visitor.replace('/', "%2F");
    assert_eq!((total(&mut client, &code, ""), total(&mut client, &code, &format!("&visitorId={encoded}"))), (182, 14));
    assert!(files_with(&data, MARK).len() >= 3, "what is looked for can be found");

    let response = erase(&mut client, &code, &encoded);
    assert_eq!(response.status, 202, "{}", response.text());
    let erasure = response.json();
    let id = erasure["id"].as_str().unwrap().to_owned();
    assert_eq!(response.header("location"), Some(&*format!("/api/v1/erasures/{id}")));
    assert_eq!((total(&mut client, &code, ""), total(&mut client, &code, &format!("&visitorId={encoded}"))), (168, 0));
    for id in &ids {
        assert_eq!(client.get(&format!("/api/v1/events/{id}")).status, 404);
    }
    // What comes in later is not erased.
    let again = send(&mut client, &[event_with(&code, json!({"visitorId": "again"}))]);

    let done = wait_until_done(&daemon, &id);
    assert_eq!((&done["rows"], &done["segments"]), (&json!(14), &done["segmentsDone"]), "{done}");
    assert!(done["segments"].as_u64().unwrap() >= 3 && done["doneAt"].is_string(), "{done}");
    assert_eq!(files_with(&data, MARK), [""; 0]);
    let metrics = daemon.metrics();
    assert_eq!((metrics["hitlog_events_erased_total"], metrics["hitlog_events_hidden"]), (14.0, 0.0));
    let check = |daemon: &Daemon| {
        let mut client = daemon.client();
        assert_eq!(total(&mut client, &code, ""), 169);
        assert_eq!(total(&mut client, &other, "&visitorId=somebody"), 7);
        for id in kept.iter().chain(&again) {
            assert_eq!(client.get(&format!("/api/v1/events/{id}")).status, 200);
        }
    };
    check(&daemon);
    daemon.stop();
    let daemon = Daemon::start_in(&data, &FLAGS);
    check(&daemon);
    assert_eq!(daemon.client().get(&format!("/api/v1/erasures/{id}")).json(), done, "it is remembered");
    daemon.stop();
    assert_eq!(files_with(&data, MARK), [""; 0]);
    let check = command(&["check", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn a_deleted_website_leaves_every_file() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let (code, other) = (daemon.register(&format!("{MARK}.example")), daemon.register("other.example"));
    let mut client = daemon.client();
    for _ in 0..5 {
        send(&mut client, &(0..30).map(|_| event_with(&other, json!({}))).collect::<Vec<_>>());
        send(&mut client, &[marked(&code, "v")]);
    }
    daemon.wait_until_sealed();
    let websites = client.get("/api/v1/websites").json();
    let website = websites["websites"].as_array().unwrap().iter().find(|website| website["trackingCode"] == *code);
    let id = website.unwrap()["id"].as_str().unwrap().to_owned();
    assert!(!files_with(&data, MARK).is_empty());
    let response = client.send("DELETE", &format!("/api/v1/websites/{id}"), &[], b"");
    assert_eq!((response.status, &response.json()["success"]), (200, &json!(true)));
    let erasure = response.json()["erasureId"].as_str().unwrap().to_owned();
    assert_eq!(wait_until_done(&daemon, &erasure)["rows"], 5);
    for bytes in [MARK, &id, &code] {
        assert_eq!(files_with(&data, bytes), [""; 0], "{bytes}");
    }
    assert_eq!(total(&mut client, &other, ""), 150);
    daemon.stop();
}

#[test]
fn what_an_erasure_may_ask() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    for (visitor, query, status) in [
        ("v", String::new(), 400),
        ("v", "?trackingCode=".into(), 400),
        ("v", format!("?trackingCode={code}&trackingCode={code}"), 400),
        ("v", "?trackingCode=pm-nobody-1".into(), 404),
        ("%FF", format!("?trackingCode={code}"), 400),
        (&"v".repeat(129), format!("?trackingCode={code}"), 400),
        ("nobody", format!("?trackingCode={code}"), 202),
    ] {
        let response = client.send("DELETE", &format!("/api/v1/visitors/{visitor}{query}"), &[], b"");
        assert_eq!(response.status, status, "{visitor}{query}: {}", response.text());
    }
    let id = erase(&mut client, &code, "nobody").json()["id"].as_str().unwrap().to_owned();
    let done = wait_until_done(&daemon, &id);
    assert_eq!((&done["rows"], &done["segments"]), (&json!(0), &json!(0)));
    assert_eq!(client.get("/api/v1/erasures/era-none").status, 404);
    assert_eq!(client.send("GET", "/api/v1/visitors/v", &[], b"").status, 405);
    daemon.stop();
}

/// A kill at the first, the second, ... of these calls of a thread leaves the files as a crash between
/// any two steps would.
#[test]
fn killed_at_every_step_of_an_erasure() {
    let calls = [
        ("rename", 4, 1),
        ("unlink", 16, 1),
        ("fdatasync", 24, 1),
        ("fsync", 12, 1),
        ("ftruncate", 8, 1),
        ("openat", 60, 2),
        ("pwrite64", 90, 3),
    ];
    let kills =
        side_by_side(calls, |(call, at_most, step)| kill_at_every(call, at_most, step)).into_iter().sum::<usize>();
    assert!(kills > 30, "only {kills} kills: what is injected does not fit any more");
}

/// Kills hitlog at such calls of a thread in erasures, until it lives on. Returns how often it was killed.
fn kill_at_every(call: &str, at_most: usize, step: usize) -> usize {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let (mut others, mut kills) = (0, 0);
    for at in (1..=at_most).step_by(step) {
        let visitor = format!("{MARK}-{at}-");
        let mut client = daemon.client();
        for _ in 0..3 {
            let mut events: Vec<_> = (0..36).map(|_| event_with(&code, json!({}))).collect();
            others += events.len() as u64;
            events.extend((0..2).map(|_| marked(&code, &visitor)));
            send(&mut client, &events);
        }
        daemon.wait_until_sealed();
        let tampering = Tampering::with(&daemon, &format!("{call}:signal=KILL:when={at}"));
        let path = format!("/api/v1/visitors/{visitor}?trackingCode={code}");
        let response = client.try_send("DELETE", &path, &[], b"");
        let is_alive = wait_until("it is killed, or has done everything", || match daemon.try_metrics() {
            None => Some(false),
            Some(metrics) => (metrics["hitlog_erasures_pending"] == 0.0).then_some(true),
        });
        drop(tampering);
        daemon.crash();
        daemon = Daemon::start_in(&data, &FLAGS);
        let left = total(&mut daemon.client(), &code, &format!("&visitorId={visitor}"));
        match response {
            Some(response) => assert_eq!((response.status, left), (202, 0), "{call} {at}"),
            None if left > 0 => {
                assert_eq!(left, 6, "{call} {at}");
                assert_eq!(erase(&mut daemon.client(), &code, &visitor).status, 202);
            }
            None => {}
        }
        wait_until("the erasure is done", || (daemon.metrics()["hitlog_erasures_pending"] == 0.0).then_some(()));
        assert_eq!(total(&mut daemon.client(), &code, ""), others, "{call} {at}");
        if is_alive {
            break;
        }
        kills += 1;
    }
    daemon.wait_until_sealed();
    assert_eq!(files_with(&data, MARK), [""; 0], "{call}");
    daemon.stop();
    kills
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn what_has_expired_is_in_no_answer_and_leaves_the_disk_with_its_segment() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let aged = |days: u64| event_with(&code, json!({"timestamp": now_ms() - days * 24 * 60 * 60 * 1_000}));
    let mut ids = Vec::new();
    // A segment of old events, a mixed one, a new one, and some of each in the active one.
    for days in [[40, 40], [40, 2], [2, 1]] {
        ids.push(fill(&daemon, &(0..60).map(|at| aged(days[at % 2])).collect::<Vec<_>>()));
    }
    ids.push(send(&mut client, &(0..10).map(|at| aged([40, 1][at % 2])).collect::<Vec<_>>()));
    assert_eq!(total(&mut client, &code, ""), 190);
    daemon.stop();

    let flags = [FLAGS[0], FLAGS[1], "--retention-days=30", "--retention-grace-seconds=1"];
    let daemon = Daemon::start_in(&data, &flags);
    let mut client = daemon.client();
    assert_eq!(total(&mut client, &code, ""), 30 + 60 + 5);
    assert_eq!(total(&mut client, &code, "&from=0&visitorId=v"), 30 + 60 + 5);
    for (segment, at, status) in [(0, 0, 404), (1, 0, 404), (1, 1, 200), (2, 0, 200), (3, 0, 404), (3, 1, 200)] {
        let id: &str = &ids[segment][at];
        assert_eq!(client.get(&format!("/api/v1/events/{id}")).status, status, "{segment} {at}");
    }
    let refused = client.post("/api/v1/events", aged(31).to_string());
    assert_eq!((refused.status, refused.error()), (400, "VALIDATION_ERROR".into()));
    assert!(refused.json()["details"]["fieldErrors"]["timestamp"][0].as_str().unwrap().contains("30 days"));
    assert_eq!(client.post("/api/v1/events", aged(29).to_string()).status, 201);
    wait_until("the expired segment is gone", || (!data.join("segments/000000000001.g2.db").exists()).then_some(()));
    let metrics = daemon.metrics();
    assert_eq!(metrics["hitlog_segments_removed_total"], 1.0);
    assert_eq!(metrics["hitlog_events_removed_total"], 60.0);
    assert_eq!(metrics["hitlog_retention_due_segments"], 0.0);
    daemon.wait_for_log("all events of a segment have expired: it is about to be removed");
    daemon.wait_for_log("an expired segment is removed");
    assert!(data.join("segments/000000000002.g2.db").exists());
    daemon.stop();
    let daemon = Daemon::start_in(&data, &flags);
    assert_eq!(total(&mut daemon.client(), &code, ""), 96);
    daemon.stop();
}

#[test]
fn an_expired_segment_stays_for_the_grace_of_running_time() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let old = event_with(&code, json!({"timestamp": now_ms() - 40 * 24 * 60 * 60 * 1_000}));
    fill(&daemon, &vec![old; 60]);
    daemon.stop();
    let file = data.join("segments/000000000001.g2.db");
    let held_ms = || -> Option<i64> {
        let catalog = Connection::open(data.join("catalog.db")).unwrap();
        catalog.query_row("SELECT sum(expiredMs) FROM Expiry", [], |row| row.get(0)).unwrap()
    };
    let flags = [FLAGS[0], FLAGS[1], "--retention-days=30", "--retention-grace-seconds=6"];
    let mut held = 0;
    for _ in 0..2 {
        let daemon = Daemon::start_in(&data, &flags);
        assert_eq!(total(&mut daemon.client(), &code, ""), 0, "hidden at once");
        thread::sleep(Duration::from_millis(2_500));
        let metrics = daemon.metrics();
        assert_eq!((metrics["hitlog_retention_due_segments"], metrics["hitlog_retention_due_events"]), (1.0, 60.0));
        assert_eq!(metrics["hitlog_retention_suspended"], 0.0);
        let due = metrics["hitlog_retention_due_seconds"];
        assert!((0.1..6.0 - held as f64 / 1_000.0).contains(&due), "due in {due} s after {held} ms");
        daemon.stop();
        assert!(file.exists());
        let now = held_ms().unwrap();
        assert!((held + 1_000..held + 3_500).contains(&now), "{held} ms, then {now} ms");
        held = now;
    }
    // A longer retention takes it all back, and a shorter one begins anew.
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&mut daemon.client(), &code, ""), 60);
    wait_until("nothing is noted any more", || held_ms().is_none().then_some(()));
    daemon.stop();
    let began_at = std::time::Instant::now();
    let daemon = Daemon::start_in(&data, &flags);
    wait_until("the segment is gone", || (!file.exists()).then_some(()));
    assert!(began_at.elapsed() > Duration::from_secs(5), "{:?}", began_at.elapsed());
    assert_eq!(daemon.metrics()["hitlog_retention_due_seconds"], 0.0);
    daemon.stop();
}

/// The steps of a removal: the catalog says so, the file goes, the catalog forgets. A crash after each:
#[test]
fn killed_at_every_step_of_a_removal() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    for _ in 0..4 {
        fill(&daemon, &(0..60).map(|_| event_with(&code, json!({}))).collect::<Vec<_>>());
    }
    daemon.stop();
    let drop_segment = |number: i64| {
        let catalog = Connection::open(data.join("catalog.db")).unwrap();
        let dropped = "UPDATE Segment SET state = 'dropped' WHERE number = ?1";
        assert_eq!(catalog.execute(dropped, [number]).unwrap(), 1);
    };
    let file = |number: i64| data.join(format!("segments/{number:012}.g2.db"));
    drop_segment(1);
    drop_segment(2);
    fs::remove_file(file(2)).unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&mut daemon.client(), &code, ""), 120);
    assert_eq!((file(1).exists(), file(2).exists(), file(3).exists()), (false, false, true));
    assert_eq!(daemon.segments("damaged"), 0);
    daemon.stop();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    let listed: i64 = catalog.query_row("SELECT count(*) FROM Segment WHERE number < 3", [], |row| row.get(0)).unwrap();
    assert_eq!(listed, 0);
}

/// Whoever walks from cursor to cursor sees all that there was when the walk began, once, whatever comes in meanwhile.
#[test]
fn walks_while_eight_writers_write() {
    let daemon = Daemon::start(&["--segment-rows-max", "4000"]);
    let code = daemon.register("example.com");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..8_u64 {
            let (mut client, code, stop) = (daemon.client(), &code, &stop);
            scope.spawn(move || {
                let mut number = writer;
                while !stop.load(Ordering::Relaxed) {
                    let event = |at: u64| {
                        // All over the times that a walk passes, with many ties.
                        let time = (number * 7_919 + at * 31) % 5_000;
                        event_with(code, json!({"timestamp": time, "visitorId": format!("v{}", at % 10)}))
                    };
                    send(&mut client, &(0..50).map(event).collect::<Vec<_>>());
                    number += 8;
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
        wait_until("there is something to walk through", || {
            (daemon.metrics()["hitlog_segment_rolls_total"] >= 3.0).then_some(())
        });
        for (filter, limit) in [("", 500), ("&visitorId=v1", 100), ("&from=1000&to=3000", 500)] {
            walk(&daemon, &code, filter, limit);
        }
        stop.store(true, Ordering::Relaxed);
    });
    daemon.stop();
}

fn walk(daemon: &Daemon, code: &str, filter: &str, limit: u64) {
    let mut client = daemon.client();
    let (mut seen, mut order, mut cursor, mut pages) = (BTreeSet::new(), Vec::new(), String::new(), 0);
    let mut total_at_begin = None;
    loop {
        let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit={limit}{filter}{cursor}"));
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        total_at_begin.get_or_insert(page["pagination"]["total"].as_u64().unwrap());
        for event in page["events"].as_array().unwrap() {
            let id = event["id"].as_str().unwrap().to_owned();
            order.push(event["createdAt"].as_str().unwrap().to_owned());
            assert!(seen.insert(id.clone()), "{id} came twice");
        }
        pages += 1;
        let Some(next) = page["pagination"]["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(order.is_sorted_by(|a, b| a >= b), "newest first");
    assert_eq!(Some(seen.len() as u64), total_at_begin, "what came in later is not in the walk");
    assert!(pages > 5, "{pages} pages are no walk");
}

#[test]
fn the_setting_is_checked() {
    for days in ["-1", "forever", "99999999"] {
        let output = command(&["config", "check", &format!("--retention-days={days}")]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{days}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("number of days"), "{days}");
    }
}

#[test]
fn who_meets_a_bound_that_does_not_drain_is_asked_to_wait_for_longer() {
    let wait_of = |response: &Response| {
        assert_eq!((response.status, response.error().as_str()), (503, "OVERLOADED"), "{}", response.text());
        let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        seconds
    };
    let grows = |daemon: &Daemon, path: &str| {
        let ask = || wait_of(&daemon.client().send("DELETE", path, &[], b""));
        assert_eq!(ask(), 1, "{path}");
        wait_until("clients are asked to wait for longer", || (ask() >= 3).then_some(()));
    };
    let erase = |daemon: &Daemon, code: &str, visitor: &str| erase(&mut daemon.client(), code, visitor);
    let visit = |daemon: &Daemon, code: &str, visitor: &str| {
        let event = event_with(code, json!({ "visitorId": visitor })).to_string();
        assert_eq!(daemon.client().post("/api/v1/events", event).status, 201);
    };
    // One erasure of a visitor may be under way, and one of a website.
    let daemon = Daemon::start(&["--erasures-max", "1"]);
    keep_from_rewriting(daemon.data(), 1);
    let (code, other) = (daemon.register("example.com"), daemon.register("example.org"));
    ["a", "b", "c"].iter().for_each(|visitor| visit(&daemon, &code, visitor));
    visit(&daemon, &other, "a");
    assert_eq!(erase(&daemon, &code, "a").status, 202);
    grows(&daemon, &format!("/api/v1/visitors/b?trackingCode={code}"));
    // Nothing to erase is done at once and takes no place, and websites have one of their own.
    for _ in 0..3 {
        let nothing = erase(&daemon, &code, "nobody");
        let erasure = nothing.json();
        assert_eq!((nothing.status, &erasure["state"], &erasure["segments"]), (202, &json!("done"), &json!(0)));
        let asked = daemon.client().get(nothing.header("location").unwrap());
        assert_eq!(asked.status, if erasure["id"] == asked.json()["id"] { 200 } else { 404 });
    }
    let websites = daemon.client().get("/api/v1/websites").json();
    let id_of = |code: &str| {
        let mut all = websites["websites"].as_array().unwrap().iter();
        all.find(|website| website["trackingCode"] == code).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let deleted = daemon.client().send("DELETE", &format!("/api/v1/websites/{}", id_of(&other)), &[], b"");
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    grows(&daemon, &format!("/api/v1/websites/{}", id_of(&code)));
    daemon.stop();
    // Two events may be hidden in memory, and two others are.
    let daemon = Daemon::start(&["--hidden-events-max", "2"]);
    keep_from_rewriting(daemon.data(), 1);
    let code = daemon.register("example.com");
    ["a", "b", "c"].iter().for_each(|visitor| visit(&daemon, &code, visitor));
    assert_eq!((erase(&daemon, &code, "a").status, erase(&daemon, &code, "b").status), (202, 202));
    grows(&daemon, &format!("/api/v1/visitors/c?trackingCode={code}"));
    // What could be made shows that the way is free again.
    assert_eq!(erase(&daemon, &code, "nobody").status, 202);
    assert_eq!(wait_of(&erase(&daemon, &code, "c")), 1);
    daemon.stop();
}

/// Something stands where hitlog wants to rewrite a segment, so that what it holds stays on the disk.
fn keep_from_rewriting(data: &Path, segment: usize) {
    fs::create_dir_all(data.join(format!("segments/{segment:012}.building/x"))).unwrap();
}

/// A visitor of more events than may be hidden in memory is erased like any other.
#[test]
fn a_visitor_of_very_many_events_is_erased() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", "60", "--hidden-events-max", "10", "--log-level", "info"];
    let daemon = Daemon::start_in(&data, &flags);
    (1..=3).for_each(|segment| keep_from_rewriting(&data, segment));
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    // In each batch a third is of the visitor; times run against the order of arrival.
    let event = |number: u64| {
        let visitor = if number.is_multiple_of(3) { "many" } else { "other" };
        let time = 1_700_000_000_000 + (number * 7_919 % 1_000);
        event_with(&code, json!({"visitorId": visitor, "timestamp": time, "sessionId": format!("s{number}")}))
    };
    for batch in 0..10_u64 {
        send(&mut client, &(batch * 30..batch * 30 + 30).map(event).collect::<Vec<_>>());
        wait_until("the next segment is ready", || (daemon.segments("prepared") == 1).then_some(()));
    }
    assert!(daemon.segments("unsealed") >= 3);
    assert_eq!(total(&mut client, &code, ""), 300);
    let erased = erase(&mut client, &code, "many");
    assert_eq!(erased.status, 202, "{}", erased.text());
    let id = erased.json()["id"].as_str().unwrap().to_owned();
    let check = |daemon: &Daemon, later: u64| {
        let mut client = daemon.client();
        assert_eq!(total(&mut client, &code, ""), 200 + later);
        assert_eq!(total(&mut client, &code, "&visitorId=many"), later);
        assert_eq!(total(&mut client, &code, "&visitorId=other"), 200);
        assert_eq!(total(&mut client, &code, "&sessionId=s0"), 0);
        let mut seen = BTreeSet::new();
        for offset in (0..200 + later).step_by(7) {
            let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=7&offset={offset}")).json();
            let events = page["events"].as_array().unwrap();
            seen.extend(events.iter().map(|event| event["sessionId"].as_str().unwrap().to_owned()));
        }
        assert_eq!(seen.len() as u64, 200 + later, "every page begins where the one before ended");
    };
    check(&daemon, 0);
    let lists = || {
        fs::read_dir(data.join("segments"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("hidden"))
            .count()
    };
    assert!(lists() >= 3, "lists are on the disk");
    // What comes later is another visitor's, and can be erased as well.
    send(&mut client, &[event_with(&code, json!({"visitorId": "many", "sessionId": "later"}))]);
    check(&daemon, 1);
    let erased = erase(&mut client, &code, "many");
    assert_eq!(erased.status, 202);
    let later_id = erased.json()["id"].as_str().unwrap().to_owned();
    check(&daemon, 0);
    daemon.stop();
    (1..=3).for_each(|number| fs::remove_dir_all(data.join(format!("segments/{number:012}.building"))).unwrap());
    let daemon = Daemon::start_in(&data, &flags);
    check(&daemon, 0);
    let done = wait_until_done(&daemon, &id);
    assert_eq!(done["rows"], 100, "{done}");
    let done = wait_until_done(&daemon, &later_id);
    assert_eq!(done["rows"], 1, "an event counts as the first one's who asked: {done}");
    check(&daemon, 0);
    wait_until("the lists are gone", || (lists() == 0).then_some(()));
    daemon.stop();
}

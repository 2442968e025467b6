//! Following events across everything that may come in between: stops, kills, rolls, seals, erasures, what has expired
//! or is damaged, slow readers, a proxy. Every event is seen once, and in order.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use harness::{Client, Daemon, TIMEOUT, Tail, Told, event_with, side_by_side, tool, wait_until, work_dir};
use serde_json::{Value, json};

use crate::{
    clients::connect_narrow,
    smuggling::Front,
    streaming::closed,
    tail::{lines, names, position, send, tail},
};

/// Stores events whose addresses end with these numbers, `bytes` large, in batches.
fn fill(daemon: &Daemon, code: &str, numbers: std::ops::Range<usize>, bytes: usize) {
    let numbers: Vec<usize> = numbers.collect();
    for some in numbers.chunks(100) {
        let event = |number: &usize| {
            let changes =
                json!({"url": format!("https://example.com/{number}"), "properties": {"x": "x".repeat(bytes)}});
            event_with(code, changes)
        };
        let events: Vec<_> = some.iter().map(event).collect();
        let stored = daemon.client().post("/api/v1/events/batch", json!({"events": events}).to_string());
        assert_eq!(stored.status, 201, "{}", stored.text());
    }
}

fn numbers(told: &[Told]) -> Vec<usize> {
    names(told).iter().map(|name| name.parse().unwrap()).collect()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn a_stop_says_goodbye_to_everybody() {
    let mut daemon = Daemon::start(&["--segment-rows-max=200", "--body-stall-timeout-seconds=2"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 0..1_000, 4_000);
    let mut idle: Vec<Tail> = (0..50).map(|at| if at % 2 == 0 { tail } else { lines }(&daemon, &code, "")).collect();
    // Some are far behind, and one does not read.
    let mut behind: Vec<Tail> = (0..3).map(|_| tail(&daemon, &code, "&after=start")).collect();
    behind.iter_mut().for_each(|tail| drop(tail.events(1)));
    let stream = connect_narrow(&daemon.address);
    let _unread = Tail::ask(stream, "1.1", &format!("trackingCode={code}&after=start"), &[]).unwrap();
    send(&daemon, &code, "last", json!({}));
    for tail in &mut idle {
        assert_eq!(names(&tail.events(1)), ["last"]);
    }
    let stopped_at = Instant::now();
    daemon.signal("TERM");
    for tail in idle.iter_mut().chain(&mut behind) {
        let bye = loop {
            let told = tail.news().expect("it says goodbye");
            if told.kind != "event" {
                break told;
            }
        };
        assert_eq!((bye.kind.as_str(), &bye.data), ("bye", &json!({"reason": "stop"})));
        assert!(bye.position.is_some());
        assert_eq!(tail.told(), None, "and ends in order");
    }
    let status = daemon.wait();
    assert!(status.success(), "{status}: {}", daemon.log());
    assert!(stopped_at.elapsed() < Duration::from_secs(10), "{:?}", stopped_at.elapsed());
}

/// Reads what a tail tells until it breaks, or it has been told the event with this number; returns the numbers and the
/// last position.
fn read_until(tail: &mut Tail, last: usize, pause: Duration, at_most: usize) -> (Vec<usize>, Option<String>) {
    let (mut seen, mut place) = (Vec::new(), None);
    while seen.last() != Some(&last) && seen.len() < at_most {
        match tail.try_told() {
            Ok(Some(told)) if told.kind == "event" => {
                place = told.position.clone();
                seen.extend(numbers(&[told]));
                thread::sleep(pause);
            }
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends and nobody has said goodbye"),
            Err(_) => break,
        }
    }
    (seen, place)
}

#[test]
fn whoever_does_not_read_is_closed_and_goes_on_without_loss() {
    const COUNT: usize = 600;
    let daemon = Daemon::start(&["--body-stall-timeout-seconds=1"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 0..COUNT, 10_000);
    let query = format!("trackingCode={code}&after=start");
    let mut tail = Tail::ask(connect_narrow(&daemon.address), "1.1", &query, &[]).unwrap();
    let begun_at = Instant::now();
    wait_until("it is closed", || (closed(&daemon, "write_stalled") == 1.0).then_some(()));
    assert!(begun_at.elapsed() >= Duration::from_secs(1));
    let held = daemon.metrics()["hitlog_tail_bytes"];
    assert_eq!(held, 0.0, "what was on its way is given back");
    let (mut seen, place) = read_until(&mut tail, COUNT - 1, Duration::ZERO, usize::MAX);
    assert!(seen.len() < COUNT);
    let after = place.unwrap_or_else(|| tail.begins_after().to_owned());
    let mut tail = Tail::open(&daemon.address, &format!("trackingCode={code}&after={after}"), &[]).unwrap();
    seen.extend(read_until(&mut tail, COUNT - 1, Duration::ZERO, usize::MAX).0);
    assert_eq!(seen, (0..COUNT).collect::<Vec<_>>());
    drop(tail);
    daemon.stop();
}

#[test]
fn a_slow_reader_sees_everything_once_and_in_order() {
    let daemon = Daemon::start(&["--body-stall-timeout-seconds=1"]);
    // Bytes of an event, how many there are, the pause after each: 1 KiB/s, 16 KiB/s, and whoever comes back all the
    // time.
    let readers = [(600, 14, 1_000, usize::MAX), (4_000, 60, 250, usize::MAX), (100, 40, 10, 3)];
    side_by_side(readers.into_iter().enumerate(), |(at, (bytes, count, pause, at_most))| {
        let code = daemon.register(&format!("slow{at}.example"));
        fill(&daemon, &code, 0..count, bytes);
        let (mut seen, mut after, mut connections) = (Vec::new(), "start".to_owned(), 0);
        while seen.last() != Some(&(count - 1)) {
            let query = format!("trackingCode={code}&after={after}");
            let mut tail = Tail::ask(connect_narrow(&daemon.address), "1.1", &query, &[]).unwrap();
            let (more, place) = read_until(&mut tail, count - 1, Duration::from_millis(pause), at_most);
            seen.extend(more);
            after = place.unwrap_or(after);
            connections += 1;
        }
        assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{bytes}");
        assert!(at_most == usize::MAX || connections > count / at_most, "{connections}");
    });
    daemon.stop();
}

#[test]
fn erased_visitors_are_left_out() {
    let daemon = Daemon::start(&["--segment-rows-max=60"]);
    let code = daemon.register("a.example");
    let mut live = tail(&daemon, &code, "");
    for (name, visitor) in [("a", "v"), ("b", "gone"), ("c", "v"), ("d", "gone"), ("e", "v")] {
        send(&daemon, &code, name, json!({"visitorId": visitor}));
    }
    assert_eq!(names(&live.events(5)), ["a", "b", "c", "d", "e"]);
    let erase = || {
        let erased = daemon.client().send("DELETE", &format!("/api/v1/visitors/gone?trackingCode={code}"), &[], b"");
        assert_eq!(erased.status, 202, "{}", erased.text());
        erased.header("location").unwrap().to_owned()
    };
    // At once, while they are still on the disk; then when they are not.
    let erasure = erase();
    assert_eq!(names(&tail(&daemon, &code, "&after=start").events(3)), ["a", "c", "e"]);
    let wait_until_done = |erasure: &str| {
        wait_until("the erasure is done", || (daemon.client().get(erasure).json()["state"] == "done").then_some(()));
    };
    fill(&daemon, &code, 0..60, 10);
    daemon.wait_until_sealed();
    wait_until_done(&erasure);
    assert_eq!(names(&lines(&daemon, &code, "&after=start").events(4)), ["a", "c", "e", "0"]);
    // And in a segment that is sealed already.
    send(&daemon, &code, "f", json!({"visitorId": "gone"}));
    fill(&daemon, &code, 60..120, 10);
    daemon.wait_until_sealed();
    wait_until_done(&erase());
    let all = tail(&daemon, &code, "&after=start").events(123);
    assert_eq!(names(&all)[3..], (0..120).map(|number| number.to_string()).collect::<Vec<_>>());
    daemon.stop();
}

#[test]
fn what_has_expired_after_a_position_is_told_as_a_gap() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("a.example");
    let days_ago = |days: u64| json!({"timestamp": now_ms() - days * 24 * 60 * 60 * 1_000});
    send(&daemon, &code, "seen", days_ago(1));
    let begin = tail(&daemon, &code, "").begins_after().to_owned();
    send(&daemon, &code, "old", days_ago(40));
    let after_old = send(&daemon, &code, "older", days_ago(50)).header("hitlog-position").unwrap().to_owned();
    send(&daemon, &code, "new", days_ago(1));
    daemon.stop();
    let daemon = Daemon::start_in(&data, &["--retention-days=30"]);
    let mut resumed = [tail, lines].map(|open| open(&daemon, &code, &format!("&after={begin}")));
    for tail in &mut resumed {
        let gap = tail.news().unwrap();
        assert_eq!((gap.kind.as_str(), &gap.data["reason"]), ("gap", &json!("retention")));
        let time = |name: &str| gap.data[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let (from, to) = (time("from"), time("to"));
        assert!(from <= to && (to.as_millisecond() as u64) < now_ms() - 29 * 24 * 60 * 60 * 1_000, "{gap:?}");
        assert_eq!(names(&tail.events(1)), ["new"]);
    }
    assert_eq!(resumed[1].headers["content-type"], "application/x-ndjson");
    // Whoever has seen them misses nothing, and neither does whoever wants what is kept.
    assert_eq!(names(&tail(&daemon, &code, &format!("&after={after_old}")).events(1)), ["new"]);
    assert_eq!(names(&tail(&daemon, &code, "&after=start").events(2)), ["seen", "new"]);
    daemon.stop();
}

#[test]
fn a_damaged_segment_is_told_as_a_gap() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max=100"]);
    let code = daemon.register("a.example");
    for first in (0..300).step_by(100) {
        fill(&daemon, &code, first..first + 100, 10);
        wait_until("it is followed by the next", || {
            (daemon.metrics()["hitlog_segment_rolls_total"] == (first / 100 + 1) as f64).then_some(())
        });
        daemon.wait_until_sealed();
    }
    fill(&daemon, &code, 300..310, 10);
    daemon.stop();
    let files: Vec<_> = sealed_files(&data);
    assert_eq!(files.len(), 3);
    fs::OpenOptions::new().write(true).open(&files[1]).unwrap().write_all(&[0x5a; 100]).unwrap();
    let tells_of_it = |daemon: &Daemon| {
        for open in [tail, lines] {
            let mut tail = open(daemon, &code, "&after=start");
            assert_eq!(numbers(&tail.events(100)), (0..100).collect::<Vec<_>>());
            let gap = tail.news().unwrap();
            assert_eq!((gap.kind.as_str(), &gap.data["reason"]), ("gap", &json!("damage")));
            assert_eq!(numbers(&tail.events(110)), (200..310).collect::<Vec<_>>());
        }
    };
    let daemon = Daemon::start_in(&data, &["--segment-rows-max=100"]);
    assert_eq!(daemon.segments("damaged"), 1);
    tells_of_it(&daemon);
    daemon.stop();
    // It is given up: it is no more damaged, and its events are as gone.
    assert_eq!(tool(&data, &["segments", "write-off", "2", "--yes"]).code, 0);
    let daemon = Daemon::start_in(&data, &["--segment-rows-max=100"]);
    assert_eq!(daemon.segments("damaged"), 0);
    tells_of_it(&daemon);
    daemon.stop();
}

#[test]
fn a_token_that_is_withdrawn_ends_its_tails() {
    let (kept, withdrawn) = ("read-of-somebody-else", "read-that-has-leaked-out");
    let work = work_dir();
    let file = work.path().join("tokens");
    let admin = "admin-0123456789abcdef";
    fs::write(&file, format!("{admin}\nread:{kept}\nread:{withdrawn}\n")).unwrap();
    let mut daemon = Daemon::start_in(&work.path().join("data"), &[&format!("--token-file={}", file.display())]);
    let website = json!({"name": "a", "domain": "a.example"}).to_string();
    let header = |token: &str| ("authorization", format!("Bearer {token}"));
    let (name, value) = header(admin);
    let headers = [(name, value.as_str()), ("content-type", "application/json")];
    let made = daemon.client().send("POST", "/api/v1/websites", &headers, website.as_bytes());
    let code = made.json()["trackingCode"].as_str().unwrap().to_owned();
    let mut tails = [kept, withdrawn].map(|token| {
        let (name, value) = header(token);
        Tail::open(&daemon.address, &format!("trackingCode={code}"), &[(name, &value)]).unwrap()
    });
    fs::write(&file, format!("{admin}\nread:{kept}\n")).unwrap();
    daemon.signal("HUP");
    daemon.wait_for_log("token_file was read anew");
    let bye = tails[1].news().unwrap();
    assert_eq!((bye.kind.as_str(), &bye.data), ("bye", &json!({"reason": "token"})));
    assert_eq!(tails[1].told(), None);
    send(&daemon, &code, "for those who may", json!({}));
    assert_eq!(names(&tails[0].events(1)), ["for those who may"]);
    let (name, value) = header(withdrawn);
    let again = Tail::open(&daemon.address, &format!("trackingCode={code}"), &[(name, &value)]);
    assert_eq!(again.map(|_| ()).unwrap_err().status, 401);
    drop(tails);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
}

fn sealed_files(data: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(data.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_str().unwrap().ends_with(".g2.db")).collect();
    files.sort();
    files
}

/// Follows a website in its own way until it has seen what it waits for, over restarts of hitlog.
fn follow(address: &Mutex<String>, code: &str, is_over: &AtomicBool, all: &Mutex<HashSet<String>>) -> Vec<String> {
    let (mut seen, mut after) = (Vec::new(), "start".to_owned());
    loop {
        let now = address.lock().unwrap().clone();
        let Ok(stream) = TcpStream::connect(&now) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let query = format!("trackingCode={code}&after={after}");
        let Some(Ok(mut tail)) = Tail::try_ask(stream, "1.1", &query, &[]) else { continue };
        while let Ok(Some(told)) = tail.try_told() {
            if told.kind == "event" {
                seen.push(told.data["id"].as_str().unwrap().to_owned());
            }
            after = told.position.unwrap_or(after);
            if is_over.load(Ordering::Acquire) && seen.len() >= all.lock().unwrap().len() {
                return seen;
            }
        }
    }
}

#[test]
fn a_tail_beside_writers_rolls_seals_and_kills_sees_each_event_once() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max=150"];
    let mut daemon = Daemon::start_in(&data, &flags);
    let codes = ["a.example", "b.example"].map(|domain| daemon.register(domain));
    let address = Mutex::new(daemon.address.clone());
    let (writers_stop, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let answered = codes.each_ref().map(|_| Mutex::new(HashSet::new()));
    let write = |writer: usize| {
        let mut number = 0;
        while !writers_stop.load(Ordering::Relaxed) {
            let address = address.lock().unwrap().clone();
            let Some(mut client) = Client::try_connect(&address) else { continue };
            while !writers_stop.load(Ordering::Relaxed) {
                number += 1;
                let events: Vec<Value> =
                    (0..7).map(|_| event_with(&codes[(writer + number) % 2], json!({"sessionId": "s"}))).collect();
                let body = json!({"events": events}).to_string();
                let Some(stored) = client.try_send("POST", "/api/v1/events/batch", &[], body.as_bytes()) else { break };
                if stored.status == 201 {
                    let stored = stored.json();
                    let ids = stored["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap());
                    answered[(writer + number) % 2].lock().unwrap().extend(ids.map(str::to_owned));
                }
            }
        }
    };
    let seen: Vec<Vec<String>> = thread::scope(|scope| {
        let tails: Vec<_> = (0..4)
            .map(|at| {
                let (address, code, is_over, all) = (&address, &codes[at % 2], &is_over, &answered[at % 2]);
                scope.spawn(move || follow(address, code, is_over, all))
            })
            .collect();
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || write(writer))).collect();
        for is_kill in [true, false, true] {
            thread::sleep(Duration::from_millis(1_500));
            if is_kill {
                daemon.crash();
            } else {
                daemon.signal("TERM");
                assert!(daemon.wait().success(), "{}", daemon.log());
            }
            daemon = Daemon::start_in(&data, &flags);
            *address.lock().unwrap() = daemon.address.clone();
        }
        thread::sleep(Duration::from_millis(1_500));
        writers_stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        // What was committed before a kill and not answered is there as well; one more event each ends the wait.
        for (code, answered) in codes.iter().zip(&answered) {
            let total = || {
                let page = daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1")).json();
                page["pagination"]["total"].as_u64().unwrap() as usize
            };
            let mut answered = answered.lock().unwrap();
            let missing = total() - answered.len();
            answered.extend((0..=missing).map(|number| format!("not answered {number}")));
        }
        is_over.store(true, Ordering::Release);
        codes.iter().for_each(|code| drop(send(&daemon, code, "end", json!({}))));
        tails.into_iter().map(|tail| tail.join().unwrap()).collect()
    });
    for (at, code) in codes.iter().enumerate() {
        let all: Vec<String> = tail(&daemon, code, "&after=start")
            .events(seen[at].len())
            .iter()
            .map(|told| told.data["id"].as_str().unwrap().to_owned())
            .collect();
        let distinct: HashSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        let answered = answered[at].lock().unwrap();
        assert!(answered.iter().filter(|id| !id.starts_with("not")).all(|id| distinct.contains(id)));
        assert!(all.len() > 500, "{}", all.len());
        for seen in seen.iter().skip(at).step_by(2) {
            assert!(*seen == all, "{} seen, {} there, or in another order", seen.len(), all.len());
        }
    }
    daemon.stop();
}

/// All events from the start. Whom a busy machine lets read too late gives way where memory is short, as promised, and
/// goes on from the last position that it was sent.
fn follow_all(daemon: &Daemon, code: &str, count: usize) -> (Tail, Vec<Told>) {
    let (mut follows, mut events, mut cuts) = (tail(daemon, code, "&after=start"), Vec::<Told>::new(), 0);
    while events.len() < count {
        match follows.try_told() {
            Ok(Some(told)) if told.kind == "event" => events.push(told),
            Ok(Some(told)) => assert!(["head", "heartbeat"].contains(&told.kind.as_str()), "{told:?}"),
            Ok(None) => panic!("it ends in order, though nobody stops"),
            Err(cut) => {
                cuts += 1;
                assert!(cuts < 20, "cut again and again: {cut}");
                let after = events.last().map_or("start", position);
                follows = tail(daemon, code, &format!("&after={after}"));
            }
        }
    }
    (follows, events)
}

#[test]
fn nobody_waits_for_those_who_follow() {
    let daemon = Daemon::start(&["--readers=1", "--segment-rows-max=500"]);
    let code = daemon.register("a.example");
    fill(&daemon, &code, 0..2_000, 100);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (daemon, code, stop) = (&daemon, &code, &stop);
        // All of them come at once, and all want everything.
        let tails: Vec<_> = (0..300)
            .map(|_| {
                scope.spawn(move || {
                    let (tail, events) = follow_all(daemon, code, 2_000);
                    assert_eq!(numbers(&events), (0..2_000).collect::<Vec<_>>());
                    tail
                })
            })
            .collect();
        let slowest = scope.spawn(move || {
            let (mut slowest, mut client) = (Duration::ZERO, daemon.client());
            while !stop.load(Ordering::Relaxed) {
                let asked_at = Instant::now();
                let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=10"));
                assert_eq!(page.status, 200, "{}", page.text());
                slowest = slowest.max(asked_at.elapsed());
                thread::sleep(Duration::from_millis(10));
            }
            slowest
        });
        let tails: Vec<_> = tails.into_iter().map(thread::ScopedJoinHandle::join).collect();
        // Before anything is looked at: what fails must not have the other thread wait for ever.
        stop.store(true, Ordering::Relaxed);
        let tails: Vec<Tail> = tails.into_iter().map(Result::unwrap).collect();
        let slowest = slowest.join().unwrap();
        assert!(slowest < Duration::from_secs(2), "a page took {slowest:?}");
        assert_eq!(daemon.metrics()["hitlog_tails"], 300.0);
        drop(tails);
    });
    daemon.stop();
}

#[test]
fn a_tail_through_nginx() {
    const TOKEN: &str = "read-0123456789abcdef";
    const ADMIN: &str = "admin-0123456789abcdef";
    let mut daemon = Daemon::start(&["--read-token", TOKEN, "--token", ADMIN]);
    let front = Front::start(&daemon.address);
    let admin = [("authorization", &*format!("Bearer {ADMIN}")), ("content-type", "application/json")];
    let website = r#"{"name":"A","domain":"a.example"}"#;
    let website = daemon.client().send("POST", "/api/v1/websites", &admin, website.as_bytes()).json();
    let code = website["trackingCode"].as_str().unwrap();
    let bearer = ("authorization", &*format!("Bearer {TOKEN}"));
    let query = format!("trackingCode={code}");
    let mut tails = [&[bearer][..], &[bearer, ("accept", "application/x-ndjson")]]
        .map(|headers| Tail::open(&front.addresses[0], &query, headers).unwrap());
    for name in ["first", "second"] {
        send(&daemon, code, name, json!({}));
        let sent_at = Instant::now();
        for tail in &mut tails {
            assert_eq!(names(&tail.events(1)), [name]);
        }
        assert!(sent_at.elapsed() < Duration::from_secs(1), "nothing is kept back: {:?}", sent_at.elapsed());
    }
    daemon.signal("TERM");
    for tail in &mut tails {
        assert_eq!(tail.news().unwrap().kind, "bye");
        assert_eq!(tail.told(), None);
    }
    assert!(daemon.wait().success());
}

//! What is shown to whoever follows events is durable; what was answered is shown at once; and what is read for it is
//! no other website's.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon, Tail, Tampering, Told,
    checker::{Load, check_store, random_below, rounds, walk},
    event_with,
    traffic::batch,
    wait_until, work_dir,
};
use serde_json::{Value, json};

use crate::tail::{lines, names, position, send, tail};

/// Small logs, groups and segments, so that kills also fall into checkpoints, rolls and seals.
const FLAGS: [&str; 4] =
    ["--durability=full", "--wal-checkpoint-bytes=128KiB", "--group-events-max=64", "--segment-rows-max=500"];

/// Reads until the connection is gone. What was cut off was not told.
fn until_gone(mut tail: Tail) -> Vec<Told> {
    let mut told = Vec::new();
    while let Ok(Some(next)) = tail.try_told() {
        told.push(next);
    }
    told.retain(|told| told.kind != "head" && told.kind != "heartbeat");
    told
}

fn ids(told: &[Value]) -> Vec<&str> {
    told.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

#[test]
fn a_kill_in_the_middle_takes_nothing_that_was_shown_and_leaves_no_gap() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &FLAGS);
    let mut shown_in_all = 0;
    for round in 0..rounds("HITLOG_CRASH_ROUNDS", 12) {
        let code = daemon.register(&format!("round-{round}.example"));
        let readers: Vec<_> = [tail(&daemon, &code, ""), lines(&daemon, &code, "&after=start")]
            .into_iter()
            .map(|tail| thread::spawn(move || (tail.begins_after().to_owned(), until_gone(tail))))
            .collect();
        let load = Load::start(&daemon.address, &code, 4);
        load.wait_for_answers(1);
        thread::sleep(Duration::from_millis(random_below(250)));
        daemon.crash();
        let sents = load.finish();
        daemon = Daemon::start_in(&data, &FLAGS);
        check_store(&daemon, &code, &sents);
        let stored = walk(&daemon, &code).unwrap();
        let count = stored.len();
        for reader in readers {
            let (begin, shown) = reader.join().unwrap();
            assert!(shown.iter().all(|told| told.kind == "event"), "{shown:?}");
            // What it was shown, and what comes after that: all that is stored, each once.
            let after = shown.last().map_or(begin, |told| position(told).to_owned());
            let rest = tail(&daemon, &code, &format!("&after={after}")).events(count - shown.len());
            let seen: Vec<Value> = shown.iter().chain(&rest).map(|told| told.data.clone()).collect();
            let whole: Vec<Value> =
                tail(&daemon, &code, "&after=start").events(count).into_iter().map(|told| told.data).collect();
            assert_eq!(ids(&seen), ids(&whole), "{} had been shown of {count}", shown.len());
            let mut sorted = whole;
            let by_id = |event: &Value| event["id"].to_string();
            sorted.sort_by_key(by_id);
            let mut listed = stored.clone();
            listed.sort_by_key(by_id);
            assert_eq!(sorted, listed);
            shown_in_all += shown.len();
        }
    }
    println!("{shown_in_all} events had been shown before kills");
    assert!(shown_in_all > 0);
    daemon.stop();
}

/// While the disk takes its time nobody is shown what is not synced; if it fails, nobody ever was.
#[test]
fn nothing_is_shown_before_it_is_synced() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &["--durability=full"]);
    let code = daemon.register("a.example");
    send(&daemon, &code, "first", json!({}));
    let mut follows = tail(&daemon, &code, "&after=start");
    assert_eq!(names(&follows.events(1)), ["first"]);
    let slow_disk = Tampering::with(&daemon, "fdatasync:delay_enter=1500000");
    let sent_at = Instant::now();
    let sender = thread::spawn({
        let (mut client, body) = (daemon.client(), event_with(&code, json!({"url": "https://example.com/slow"})));
        move || client.post("/api/v1/events", body.to_string()).status
    });
    assert_eq!(names(&follows.events(1)), ["slow"]);
    assert!(sent_at.elapsed() > Duration::from_millis(1_400), "shown after {:?}", sent_at.elapsed());
    assert_eq!(sender.join().unwrap(), 201);
    drop(slow_disk);

    let after = send(&daemon, &code, "before", json!({})).header("hitlog-position").unwrap().to_owned();
    assert_eq!(names(&follows.events(1)), ["before"]);
    let bad_disk = Tampering::with(&daemon, "fdatasync:error=EIO");
    let mut client = daemon.client();
    let answer = client.try_send("POST", "/api/v1/events", &[], event_with(&code, json!({})).to_string().as_bytes());
    assert!(answer.is_none_or(|answer| answer.error() == "COMMIT_UNKNOWN"));
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
    drop(bad_disk);
    let shown = until_gone(follows);
    assert!(shown.iter().all(|told| told.kind == "bye"), "nobody knows whether it is stored: {shown:?}");
    // Now it is known, and shown if it is.
    let daemon = Daemon::start_in(&data, &[]);
    let mut goes_on = tail(&daemon, &code, &format!("&after={after}"));
    let count = walk(&daemon, &code).unwrap().len();
    send(&daemon, &code, "last", json!({}));
    let mut rest = goes_on.events(count - 3 + 1);
    assert_eq!(names(&rest.split_off(count - 3)), ["last"]);
    daemon.stop();
}

/// Sooner than a heartbeat would come, with which whoever was not woken finds what has come.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The next event, which has to come at once.
fn next(tail: &mut Tail, sent_at: Instant) -> Told {
    let mut told = tail.told().unwrap();
    if told.kind == "head" {
        told = tail.told().unwrap();
    }
    assert_eq!(told.kind, "event", "after {:?}", sent_at.elapsed());
    assert!(sent_at.elapsed() < AT_ONCE, "{told:?} came after {:?}", sent_at.elapsed());
    told
}

#[test]
fn what_was_answered_is_shown_to_who_asks_then_and_to_who_waits() {
    let daemon = Daemon::start(&["--segment-rows-max=200"]);
    let codes = ["a.example", "b.example", "c.example"].map(|domain| daemon.register(domain));
    let mut waiting: Vec<Tail> = codes.iter().map(|code| tail(&daemon, code, "")).collect();
    let mut clicks = lines(&daemon, &codes[0], "&eventType=click");
    let mut places: Vec<String> = waiting.iter().map(|tail| tail.begins_after().to_owned()).collect();
    let mut client = daemon.client();
    for round in 0..500_usize {
        // To one website, to two, or to all three of them in one request.
        let first = round % 3;
        let sites: Vec<usize> = (first..=(first + round / 3 % 3).min(2)).collect();
        let of = ["click", "pageview"][usize::from(round % 5 > 0)];
        let event = |site: &usize| {
            event_with(&codes[*site], json!({"eventType": of, "url": format!("https://example.com/{round}")}))
        };
        let events: Vec<Value> = sites.iter().map(event).collect();
        let stored = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(stored.status, 201, "{}", stored.text());
        let sent_at = Instant::now();
        for &site in &sites {
            let after = format!("&after={}", places[site]);
            let open = if round % 2 == 0 { tail } else { lines };
            let told = next(&mut open(&daemon, &codes[site], &after), sent_at);
            assert_eq!(names(std::slice::from_ref(&told)), [round.to_string()], "after {}", places[site]);
            places[site] = position(&told).to_owned();
            assert_eq!(next(&mut waiting[site], sent_at), told);
        }
        assert_eq!(stored.header("hitlog-position"), Some(&*places[*sites.last().unwrap()]));
        if of == "click" && sites[0] == 0 {
            assert_eq!(position(&next(&mut clicks, sent_at)), places[0]);
        }
    }
    daemon.stop();
}

/// Bytes that the process has read from files.
fn bytes_read(daemon: &Daemon) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
    let read = counts.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    read.parse().unwrap()
}

const ROWS: usize = 200_000;
const RARE: usize = 10;
const PAGE_BYTES: u64 = 16 * 1024;

#[test]
fn a_rare_websites_tail_reads_no_other_websites_rows() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", &ROWS.to_string(), "--segment-page-bytes=16KiB"];
    let daemon = Daemon::start_in(&data, &flags);
    let [code, rare] = ["busy.example", "rare.example"].map(|domain| daemon.register(domain));
    let many = batch(&code, 1_000);
    let mut client = daemon.client();
    for request in 0..ROWS / 1_000 {
        let body = if request % (ROWS / 1_000 / RARE) == 7 { many.replacen(&code, &rare, 1) } else { many.clone() };
        assert_eq!(client.post("/api/v1/events/batch", body).status, 201);
    }
    send(&daemon, &code, "in the next", json!({}));
    wait_until("it is full", || (daemon.metrics()["hitlog_segment_rolls_total"] == 1.0).then_some(()));
    daemon.wait_until_sealed();
    daemon.stop();
    let file = fs::metadata(data.join("segments/000000000001.g2.db")).unwrap().len();
    for (more, count) in [("&after=start", RARE), ("&after=start&eventType=pageview", RARE)] {
        let daemon = Daemon::start_in(&data, &flags);
        // The pages of the catalog, and whatever a start does.
        let mut client = daemon.client();
        assert_eq!(client.get("/readyz").status, 200);
        let read_by = |code: &str, more: &str, count: usize| {
            let before = bytes_read(&daemon);
            let told = tail(&daemon, code, more).events(count);
            (bytes_read(&daemon) - before, told)
        };
        let (bytes, told) = read_by(&rare, more, count);
        println!("{bytes} bytes read for {count} of {ROWS} rows in {file}");
        assert!(bytes < 60 * PAGE_BYTES, "{more}: {bytes} bytes are read for {count} events");
        // From the middle, where their keys have been read before.
        let (bytes, rest) = read_by(&rare, &format!("&after={}", position(&told[4])), count - 5);
        assert_eq!(rest, told[5..]);
        assert!(bytes < 30 * PAGE_BYTES, "{more}: {bytes} bytes are read for {} events", rest.len());
        // That it is counted at all.
        let (bytes, _) = read_by(&code, "&after=start", ROWS / 10);
        assert!(bytes > file / 20, "{bytes} bytes are read for a tenth of {file}");
        daemon.stop();
    }
}

//! A clock that jumps a day either way while hitlog runs: ids and sequences stay unique and increasing, no time limit
//! misfires, and `createdAt` follows the clock.
//!
//! The clock is libfaketime's: the wall clock alone jumps, as when somebody sets it; the monotonic one never does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use harness::{Client, Daemon, checker::event_ids, command, event_with, named::NamedEvents, wait_until, work_dir};
use serde_json::{Value, json};

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A hitlog whose wall clock can be set.
struct Clocked {
    daemon: Daemon,
    offset: PathBuf,
}

impl Clocked {
    fn start(work: &Path, flags: &[&str]) -> Self {
        Self::start_off(work, flags, 0)
    }

    /// With a clock that is so many days off from the beginning.
    fn start_off(work: &Path, flags: &[&str], days: i64) -> Self {
        let (data, offset) = (work.join("data"), work.join("offset"));
        fs::write(&offset, format!("{:+}", days * DAY_SECONDS)).unwrap();
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
        arguments.extend(flags);
        let mut command = command(&arguments);
        command
            .env("LD_PRELOAD", faketime_library())
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self { daemon: Daemon::spawn(&mut command, &data), offset }
    }

    /// Sets the clock so many days off; every look at it from now on finds it so.
    fn set_days(&self, days: i64) {
        self.set_seconds(days * DAY_SECONDS);
    }

    /// Sets the clock so many seconds off.
    fn set_seconds(&self, seconds: i64) {
        let written = self.offset.with_extension("new");
        fs::write(&written, format!("{seconds:+}")).unwrap();
        fs::rename(written, &self.offset).unwrap();
    }

    /// Sets the clock to so many minutes after a midnight that is to come, UTC.
    fn set_minutes_after_midnight(&self, minutes: i64) {
        let now = now_ms() / 1_000;
        // Not the next one: the clock goes forward from wherever it is.
        let midnight = (now / DAY_SECONDS + 2) * DAY_SECONDS;
        self.set_seconds(midnight + minutes * 60 - now);
    }
}

fn faketime_library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map_while(Result::ok).map(|folder| folder.path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.exists()).expect("libfaketime is needed: apt-get install libfaketime")
}

/// Stores a few events without a timestamp, and returns them as they are answered.
fn store(client: &mut Client, code: &str) -> Vec<Value> {
    let event = event_with(code, json!({}));
    let single = client.post("/api/v1/events", event.to_string());
    assert_eq!(single.status, 201, "{}", single.text());
    let batch = client.post("/api/v1/events/batch", json!({"events": vec![event; 20]}).to_string());
    assert_eq!(batch.status, 201, "{}", batch.text());
    let mut events = vec![single.json()];
    events.extend(batch.json()["events"].as_array().unwrap().iter().cloned());
    events
}

fn milliseconds(event: &Value) -> i64 {
    event["createdAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn a_clock_that_jumps_a_day_either_way() {
    let work = work_dir();
    // Two segments' ends come by age within the jumps; the rest of the time limits is short enough to misfire.
    let flags = [
        "--segment-age-max-seconds=3600",
        "--idle-timeout-seconds=20",
        "--body-timeout-seconds=20",
        "--wal-checkpoint-bytes=64KiB",
    ];
    let clocked = Clocked::start(work.path(), &flags);
    let daemon = &clocked.daemon;
    let code = daemon.register("example.com");
    let ids = event_ids(daemon.data());
    let mut client = daemon.client();
    // This one is in the middle of a request while the clock jumps, that one idle.
    let body = event_with(&code, json!({"sessionId": "slow"})).to_string();
    let mut slow = daemon.client();
    slow.write(format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    let mut idle = daemon.client();
    assert_eq!(idle.get("/livez").status, 200);
    let (mut seen, mut last) = (BTreeSet::new(), 0);
    for days in [0, 1, 0, -1, 0, 1, -1] {
        clocked.set_days(days);
        let before = now_ms() + days * DAY_SECONDS * 1_000;
        for event in store(&mut client, &code) {
            let sequence = ids.decode(event["id"].as_str().unwrap()).unwrap();
            assert!(sequence > last, "sequence {sequence} after {last}");
            last = sequence;
            assert!(seen.insert(event["id"].as_str().unwrap().to_owned()), "an id twice");
            let off = milliseconds(&event) - before;
            assert!((-1_000..20_000).contains(&off), "createdAt is {off} ms off a clock that is {days} days off");
        }
        slow.write(&body.as_bytes()[seen.len() / 21 - 1..][..1]);
        // One after another the websites' codes hold the clock, too, and must differ all the same.
        assert!(daemon.register(&format!("at-{}.example", seen.len())).starts_with("pm-"));
    }
    slow.write(&body.as_bytes()[7..]);
    assert_eq!(slow.read_response(false).unwrap().status, 201, "the body was in time by any honest clock");
    assert_eq!(idle.get("/livez").status, 200, "the idle connection is still there");
    let metrics = daemon.metrics();
    for (name, value) in metrics.iter().filter(|(name, _)| name.starts_with("hitlog_connections_closed_total")) {
        assert!(name.contains("client") || *value == 0.0, "{name} {value}");
    }
    let total = client.get(&format!("/api/v1/events?trackingCode={code}")).json()["pagination"]["total"].clone();
    assert_eq!(total, json!(seen.len() + 1));
    // A jump ahead makes the active segment old: once each, not at every look.
    let rolls = wait_until("segments have rolled by age", || {
        Some(daemon.metrics()["hitlog_segment_rolls_total"]).filter(|rolls| *rolls >= 1.0)
    });
    std::thread::sleep(Duration::from_secs(1));
    let later = daemon.metrics()["hitlog_segment_rolls_total"];
    assert!(later <= 7.0 && later - rolls <= 1.0, "{rolls} rolls, then {later}");
    clocked.daemon.stop();
    // A start in the past finds everything, and goes on above it.
    let clocked = Clocked::start(work.path(), &flags);
    clocked.set_days(-1);
    for event in store(&mut clocked.daemon.client(), &code) {
        let sequence = ids.decode(event["id"].as_str().unwrap()).unwrap();
        assert!(sequence > last, "sequence {sequence} after {last}, in the past");
        last = sequence;
    }
    clocked.daemon.stop();
}

#[test]
fn a_wrong_clock_hides_events_and_removes_none() {
    let work = work_dir();
    let file = work.path().join("data/segments/000000000001.g2.db");
    let rows_max = "--segment-rows-max=20";
    let clocked = Clocked::start(work.path(), &[rows_max]);
    let code = clocked.daemon.register("example.com");
    store(&mut clocked.daemon.client(), &code);
    wait_until("a segment is sealed", || (clocked.daemon.segments("sealed") == 1).then_some(()));
    clocked.daemon.stop();
    let total = |clocked: &Clocked| {
        let page = clocked.daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json();
        page["pagination"]["total"].as_u64().unwrap()
    };
    let suspended = |clocked: &Clocked| clocked.daemon.metrics()["hitlog_retention_suspended"] == 1.0;

    // From the start: the grace gives whoever looks the time to set it right.
    let clocked = Clocked::start_off(work.path(), &[rows_max, "--retention-days=30"], 400);
    clocked.daemon.wait_for_log("all events of a segment have expired: it is about to be removed");
    assert_eq!(total(&clocked), 0);
    let due = wait_until("it is due", || {
        Some(clocked.daemon.metrics()["hitlog_retention_due_seconds"]).filter(|seconds| *seconds > 0.0)
    });
    assert!((86_000.0..=86_400.0).contains(&due), "due in {due} s");
    clocked.set_days(0);
    assert_eq!(total(&clocked), 21, "all is back");
    clocked.daemon.stop();

    // While hitlog runs: suspended for the grace at least, and a restart does not end that.
    let flags = [rows_max, "--retention-days=30", "--retention-grace-seconds=5"];
    let clocked = Clocked::start(work.path(), &flags);
    assert!(!suspended(&clocked));
    std::thread::sleep(Duration::from_secs(1));
    clocked.set_days(400);
    wait_until("it is suspended", || suspended(&clocked).then_some(()));
    clocked.daemon.wait_for_log("the machine's clock has jumped ahead");
    assert_eq!(total(&clocked), 0);
    clocked.set_days(0);
    assert_eq!(total(&clocked), 21);
    clocked.daemon.stop();
    let clocked = Clocked::start(work.path(), &flags);
    clocked.daemon.wait_for_log("the machine's clock was in doubt when hitlog last ran");
    assert!(suspended(&clocked));
    wait_until("the clock has agreed for the grace", || (!suspended(&clocked)).then_some(()));
    clocked.daemon.wait_for_log("the machine's clock is believed again");
    clocked.daemon.stop();

    // Behind the newest event at a start; with a grace that outlasts the slowest machine.
    let clocked = Clocked::start_off(work.path(), &[rows_max, "--retention-days=30"], -1);
    clocked.daemon.wait_for_log("the machine's clock stands behind the newest event");
    assert!(suspended(&clocked));
    clocked.daemon.stop();
    assert!(file.exists());
}

#[test]
fn a_wrong_clock_forgets_no_ids() {
    let work = work_dir();
    let clocked = Clocked::start(work.path(), &["--segment-rows-max=20"]);
    let mut events = NamedEvents::new(&clocked.daemon.register("example.com"));
    let mut client = clocked.daemon.client();
    for days in [0, 2, 0, -2, 400] {
        clocked.set_days(days);
        let next = events.told.len();
        let numbers: Vec<usize> = (next..next + 30).collect();
        assert_eq!(events.send(&mut client, &numbers), Some(201));
        // Whoever forgets what is old looks once a second.
        std::thread::sleep(Duration::from_millis(1_200));
        events.send_again(&clocked.daemon);
    }
    assert_eq!(clocked.daemon.metrics()["hitlog_dedup_window_seconds"], 86_400.0);
    clocked.daemon.stop();
}

#[test]
fn visitors_are_others_after_midnight_but_for_those_whose_visits_go_on() {
    let work = work_dir();
    let clocked = Clocked::start(work.path(), &["--trusted-proxies", "127.0.0.1"]);
    let daemon = &clocked.daemon;
    let code = daemon.register("example.com");
    let event = event_with(&code, json!({"sessionId": "server", "visitorId": "server"})).to_string();
    let id = |address: &str, minutes: i64| {
        clocked.set_minutes_after_midnight(minutes);
        let sent = daemon.client().send("POST", "/api/v1/events", &[("x-forwarded-for", address)], event.as_bytes());
        assert_eq!(sent.status, 201, "{}", sent.text());
        let stored = daemon.client().get(&format!("/api/v1/events/{}", sent.json()["id"].as_str().unwrap()));
        stored.json()["visitorId"].as_str().unwrap().to_owned()
    };
    let (stays, leaves) = ("192.0.2.1", "192.0.2.2");
    let (staying, leaving) = (id(stays, -20), id(leaves, -40));
    let salts = || fs::read(daemon.data().join("salts")).unwrap();
    let secret_in = |bytes: &[u8], at: usize| bytes[at + 8..at + 40].to_vec();
    wait_until("the salt of the day is on the disk", || (salts()[8..56] != [0; 48]).then_some(()));
    // It may have been written for another day before the clock was set.
    let last_of = || secret_in(&salts(), 8);
    assert_eq!(id(stays, 5), staying, "the visit goes on");
    assert_ne!(id(leaves, 6), leaving, "that one had ended");
    wait_until("both salts are on the disk", || (salts()[56..] != [0; 48]).then_some(()));
    let (new, old) = (last_of(), secret_in(&salts(), 56));
    assert_ne!(new, old);
    assert_eq!(id(stays, 29), staying);
    // Whether anybody comes or not.
    clocked.set_minutes_after_midnight(31);
    let is_gone = || !salts().windows(32).any(|bytes| bytes == old);
    wait_until("the salt of the day before is gone from the disk", || is_gone().then_some(()));
    assert_eq!(last_of(), new);
    assert_ne!(id(stays, 32), staying);
    clocked.daemon.stop();
}

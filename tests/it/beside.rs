//! Tools beside a hitlog that goes on: whatever it seals and erases while they read, they tell of no fault.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use harness::{Daemon, event_with, tool, work_dir};

/// Rounds of all tools, unless they take longer than [`TIME_MAX`].
const ROUNDS: usize = 12;
const TIME_MAX: Duration = Duration::from_secs(20);
const BATCH: usize = 20;

/// What a tool printed, which found that all is well.
fn fine(data: &Path, arguments: &[&str]) -> String {
    let ran = tool(data, arguments);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}: {}", ran.out);
    ran.out
}

/// Ends the threads beside a test also when an assertion of it fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_tool_tells_of_what_was_replaced_while_it_ran() {
    let daemon = Daemon::start(&["--segment-rows-max", "100", "--log-level", "warn", "--erasures-max", "100000"]);
    let code = daemon.register("a.example");
    let (end, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let backups = work_dir();
    // A visitor for each batch, so that an erasure rewrites one segment: the one before the newest or one further back.
    let post = || {
        let mut client = daemon.client();
        while !end.load(Ordering::Relaxed) {
            let visitor = format!("v{}", sent.load(Ordering::Relaxed));
            let events: Vec<_> = (0..BATCH).map(|_| event_with(&code, json!({ "visitorId": visitor }))).collect();
            let response = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
            assert_eq!(response.status, 201, "{}", response.text());
            sent.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(15));
        }
    };
    let erase = || {
        let (mut client, mut next) = (daemon.client(), 0);
        while !end.load(Ordering::Relaxed) {
            if next + 10 < sent.load(Ordering::Relaxed) {
                let path = format!("/api/v1/visitors/v{next}?trackingCode={code}");
                let response = client.send("DELETE", &path, &[], b"");
                assert!([202, 503].contains(&response.status), "{}", response.text());
                next += 3;
            }
            thread::sleep(Duration::from_millis(10));
        }
    };
    thread::scope(|scope| {
        scope.spawn(post);
        scope.spawn(erase);
        let _end = End(&end);
        let began = Instant::now();
        for round in 0..ROUNDS {
            if began.elapsed() > TIME_MAX {
                break;
            }
            let told = fine(daemon.data(), &["check"]);
            assert!(told.lines().count() == 1 && told.ends_with(": nothing is wrong\n"), "{told}");
            let listing: Value = serde_json::from_str(&fine(daemon.data(), &["segments", "--json"])).unwrap();
            for segment in listing["segments"].as_array().unwrap() {
                assert_eq!(segment.get("fault"), None, "{segment}");
                assert!(segment["state"] != "sealed" || segment["bytes"].as_u64() > Some(4_096), "{segment}");
            }
            fine(daemon.data(), &["stats"]);
            fine(daemon.data(), &["export"]);
            let to = backups.path().join("backup");
            fine(daemon.data(), &["backup", to.to_str().unwrap()]);
            let told = fine(&to, &["check"]);
            assert!(told.lines().count() == 1, "{round}: {told}");
            fs::remove_dir_all(to).unwrap();
        }
    });
    daemon.stop();
}

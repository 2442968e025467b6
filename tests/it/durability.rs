//! What a 201 promises: through stops, full queues and failing disks, with the law of conservation after each.

use std::{
    thread,
    time::{Duration, Instant},
};

use harness::{
    Client, Daemon, Tampering,
    checker::{Load, Outcome, check_store},
    event_with, traffic, wait_until, work_dir,
};
use serde_json::json;

#[test]
fn a_stop_under_load_answers_everything_taken_in() {
    for _ in 0..5 {
        let work = work_dir();
        let data = work.path().join("data");
        let mut daemon = Daemon::start_in(&data, &[]);
        let code = daemon.register("example.com");
        let load = Load::start(&daemon.address, &code, 16);
        load.wait_for_answers(200);
        daemon.signal("TERM");
        let status = daemon.wait();
        assert!(status.success(), "{status}");
        let outcomes = load.finish();
        let unanswered: Vec<_> = outcomes.iter().filter(|(_, sent)| sent.outcome == Outcome::Unknown).collect();
        assert!(unanswered.is_empty(), "without an answer: {unanswered:?}");
        assert!(!data.join("segments/000000000001.db-wal").exists(), "the log is closed in order");
        let daemon = Daemon::start_in(&data, &[]);
        check_store(&daemon, &code, &outcomes);
        daemon.stop();
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_loses_nothing() {
    let daemon = Daemon::start(&["--batch-events-max=100", "--queue-events-max=100"]);
    let code = daemon.register("example.com");
    let slow_disk = Tampering::with(&daemon, "fdatasync:delay_enter=2000000");
    let (address, body) = (daemon.address.clone(), traffic::batch(&code, 100));
    let first = thread::spawn(move || Client::connect(&address).post("/api/v1/events/batch", body));
    let full = wait_until("the queue is full", || {
        Some(daemon.metrics()).filter(|metrics| metrics["hitlog_events_in_flight"] == 100.0)
    });
    assert!(full["hitlog_queue_bytes"] > 0.0);
    let mut client = daemon.client();
    let started = Instant::now();
    let refused = client.post("/api/v1/events", event_with(&code, json!({})).to_string());
    assert!(started.elapsed() < Duration::from_secs(1), "refused at once, not after the sync");
    assert_eq!((refused.status, refused.error().as_str()), (503, "OVERLOADED"));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(client.get("/readyz").status, 503);
    assert_eq!(client.get("/livez").status, 200);
    assert!(daemon.metrics()["hitlog_queue_oldest_request_seconds"] > 0.0);
    drop(slow_disk);
    assert_eq!(first.join().unwrap().status, 201);
    wait_until("it is ready again", || (client.get("/readyz").status == 200).then_some(()));
    assert_eq!(client.post("/api/v1/events", event_with(&code, json!({})).to_string()).status, 201);
    assert_eq!(daemon.assert_conserved(), (102.0, 101.0));
    daemon.stop();
}

#[test]
fn a_full_disk_is_survived() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let event = || event_with(&code, json!({})).to_string();
    let mut client = daemon.client();
    let stored = client.post("/api/v1/events", event()).json();
    let full_disk = Tampering::with(&daemon, "pwrite64:error=ENOSPC");
    for path in ["/api/v1/events", "/api/v1/events"] {
        let refused = client.post(path, event());
        assert_eq!((refused.status, refused.error().as_str()), (503, "STORAGE_FULL"));
        assert!(refused.header("retry-after").is_some());
    }
    let website = client.post("/api/v1/websites", r#"{"name":"B","domain":"b.example"}"#);
    assert_eq!((website.status, website.error().as_str()), (503, "STORAGE_FULL"));
    assert_eq!(client.get("/readyz").error(), "STORAGE_FULL");
    assert_eq!(client.get(&format!("/api/v1/events/{}", stored["id"].as_str().unwrap())).json(), stored, "reads go on");
    drop(full_disk);
    let room_at = Instant::now();
    wait_until("ingest resumes", || (client.post("/api/v1/events", event()).status == 201).then_some(()));
    assert!(room_at.elapsed() < Duration::from_secs(5), "resumed after {:?}", room_at.elapsed());
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.get(&format!("/api/v1/events?trackingCode={code}")).json()["pagination"]["total"], 2);
    daemon.stop();
}

#[test]
fn a_failed_sync_is_answered_unknown_and_ends_the_process() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 8);
    load.wait_for_answers(50);
    let bad_disk = Tampering::with(&daemon, "fdatasync:error=EIO:when=3+");
    let status = daemon.wait();
    drop(bad_disk);
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    let outcomes = load.finish();
    assert!(outcomes.values().any(|sent| sent.outcome == Outcome::Unknown), "somebody was told");
    assert!(daemon.log().contains("the storage failed"), "{}", daemon.log());
    let daemon = Daemon::start_in(&data, &[]);
    check_store(&daemon, &code, &outcomes);
    daemon.stop();
}

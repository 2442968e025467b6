//! Disks that fail, fill up, stall or may not be written: no answer promises more than the disk has, and what can go on
//! goes on.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use harness::{
    Client, Daemon, Response, Tampering,
    checker::{Load, Outcome, check_store, check_store_above},
    command, event_with,
    mount::{Mount, is_root},
    side_by_side, traffic, turn, wait_until, work_dir,
};
use serde_json::json;

/// Small pages, logs and segments, so that a short run has a checkpoint, a roll and a seal.
const SMALL: [&str; 3] = ["--segment-page-bytes=4096", "--wal-checkpoint-bytes=64KiB", "--segment-rows-max=300"];

#[test]
fn an_error_at_every_sync() {
    let (failures, _) = fail_at_every("fdatasync", usize::MAX, |_| 0);
    assert!(failures > 10, "only {failures} failures: what is injected does not fit any more");
}

/// Of folders and of files that are made aside: what fails there is tried again, or hitlog ends.
#[test]
fn an_error_at_every_sync_of_names() {
    // A segment has two, the last roll may not have come to them, and a run that nothing ends has any number of segments.
    let (_, hits) = fail_at_every("fsync", 6, |at| at);
    assert!(hits > 2, "only {hits} hits: what is injected does not fit any more");
}

#[test]
fn an_error_at_every_write() {
    let (failures, _) = fail_at_every("pwrite64", usize::MAX, |_| 0);
    assert!(failures > 40, "only {failures} failures: what is injected does not fit any more");
}

/// SQLite and the system each have their own words for it.
fn has_met_eio(daemon: &Daemon) -> bool {
    ["disk I/O error", "Input/output error"].iter().any(|words| daemon.log().contains(words))
}

/// Runs hitlog again and again, with EIO at the first, the second, ... such call of each thread, until a run has so few
/// that none fails, or `at_most` times. A run that meets none has rolled so many times, by the number of the call.
/// Returns how many runs the failure ended, and how many met it.
fn fail_at_every(call: &str, at_most: usize, rolls_min: fn(usize) -> usize) -> (usize, usize) {
    let work = work_dir();
    let data = work.path().join("data");
    let (mut failures, mut hits, mut floor) = (0, 0, 0);
    for at in 1..=at_most {
        let mut daemon = Daemon::start_in(&data, &SMALL);
        let code = daemon.register(&format!("{at}.example"));
        let bad_disk = Tampering::with(&daemon, &format!("{call}:error=EIO:when={at}"));
        let load = Load::start(&daemon.address, &code, 4);
        let has_ended = wait_until("it has ended, or has done what it can", || {
            let Some(metrics) = daemon.try_metrics() else { return Some(true) };
            // What fails beside the writer is tried again after some time.
            let has_rolled = metrics["hitlog_segment_rolls_total"] >= rolls_min(at) as f64;
            let is_done = has_met_eio(&daemon) || (has_rolled && metrics["hitlog_segments{state=\"unsealed\"}"] == 0.0);
            (load.answers() >= 30 && is_done).then_some(false)
        });
        let sents = load.finish();
        let unknown = sents.values().filter(|sent| sent.outcome == Outcome::Unknown).count();
        drop(bad_disk);
        let mut has_failed = has_ended || unknown > 0;
        if !has_failed {
            // A kill would take the last lines with it; they are written in their order. What fails after the last
            // answer ends it all the same.
            daemon.signal("HUP");
            has_failed = wait_until("the log is written, or it has ended", || {
                let has_ended = daemon.try_metrics().is_none();
                (has_ended || daemon.log().contains("SIGHUP reads")).then_some(has_ended)
            });
        }
        if has_failed {
            assert_eq!(daemon.wait().code(), Some(1), "{call} {at}: {}", daemon.log());
            assert!(daemon.log().contains("the storage failed"), "{call} {at}: {}", daemon.log());
            failures += 1;
        }
        daemon.crash();
        let was_hit = has_met_eio(&daemon);
        assert!(was_hit || !has_failed, "{call} {at}: {}", daemon.log());
        let daemon = Daemon::start_in(&data, &SMALL);
        floor = check_store_above(&daemon, &code, &sents, floor);
        daemon.wait_until_sealed();
        daemon.stop();
        if !was_hit {
            break;
        }
        hits += 1;
    }
    let check = command(&["check", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    (failures, hits)
}

#[test]
fn what_the_system_said_is_told() {
    let cases = [
        ("pwrite64:error=EROFS", "Read-only file system", "mount it for writing"),
        ("pwrite64:error=EACCES", "Permission denied", "chown"),
        ("fdatasync:error=EIO", "Input/output error", "dmesg"),
    ];
    side_by_side(cases, |(refusal, words, advice)| {
        let mut daemon = Daemon::start(&SMALL);
        let code = daemon.register("example.com");
        let mut client = daemon.client();
        let refused = Tampering::with(&daemon, refusal);
        let response = client.post("/api/v1/events", event_with(&code, json!({})).to_string());
        assert_eq!((response.status, response.error().as_str()), (503, "COMMIT_UNKNOWN"), "{refusal}");
        drop(refused);
        assert_eq!(daemon.wait().code(), Some(1), "{refusal}: {}", daemon.log());
        let log = daemon.log();
        assert!(log.contains(words) && log.contains(advice), "{refusal}: {log}");
    });
}

#[test]
fn who_is_told_that_nobody_knows_finds_it_not_ready() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut looking = daemon.client();
    assert_eq!(looking.get("/readyz").status, 200);
    let mut client = daemon.client();
    let bad_disk = Tampering::with(&daemon, "fdatasync:error=EIO");
    let response = client.post("/api/v1/events", event_with(&code, json!({})).to_string());
    assert_eq!((response.status, response.error().as_str()), (503, "COMMIT_UNKNOWN"));
    assert!(response.header("retry-after").is_some());
    // On its way out it may have closed the other connection already.
    if let Some(ready) = looking.try_send("GET", "/readyz", &[], b"") {
        assert_eq!(ready.status, 503, "{}", ready.text());
    }
    drop(bad_disk);
}

#[test]
fn a_disk_that_is_really_full() {
    if !is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let work = work_dir();
    let disk = Mount::in_memory(32, work.path());
    let ballast = work.path().join("ballast");
    fs::write(&ballast, vec![1; 20 * 1024 * 1024]).unwrap();
    let daemon = Daemon::start_in(&work.path().join("data"), &["--segment-rows-max=4000"]);
    let (code, other) = (daemon.register("example.com"), daemon.register("other.example"));
    let load = Load::start(&daemon.address, &code, 8);
    let shed = || daemon.metrics()["hitlog_events_shed_total{reason=\"storage_full\"}"];
    wait_until("the disk is full", || (shed() > 1_000.0).then_some(()));
    let mut client = daemon.client();
    let event = event_with(&code, json!({"sessionId": "1"})).to_string();
    let ready = client.get("/readyz");
    assert_eq!((ready.status, ready.error().as_str()), (503, "STORAGE_FULL"));
    assert_eq!(client.get("/livez").status, 200);
    // It does not drain by itself: the longer it lasts, the longer is what clients are asked to wait for.
    let wait =
        |response: &Response| response.header("retry-after").map_or(1, |seconds| seconds.parse::<u64>().unwrap());
    wait_until("clients are asked to wait for longer", || {
        let refused = client.post("/api/v1/events", event_with(&other, json!({})).to_string());
        let waits = [wait(&refused), wait(&client.get("/readyz"))];
        assert!(waits.iter().all(|seconds| (1..=60).contains(seconds)), "{waits:?}");
        waits.iter().all(|seconds| *seconds >= 3).then_some(())
    });
    let listing = client.get(&format!("/api/v1/events?trackingCode={code}"));
    assert_eq!((listing.status, listing.json()["events"].as_array().unwrap().len()), (200, 100), "reads go on");
    let committed = daemon.metrics()["hitlog_events_committed_total"];
    fs::remove_file(ballast).unwrap();
    let room_at = Instant::now();
    wait_until("ingest resumes", || {
        (daemon.metrics()["hitlog_events_committed_total"] > committed + 100.0).then_some(())
    });
    assert!(room_at.elapsed() < Duration::from_secs(5), "resumed after {:?}", room_at.elapsed());
    let sents = load.finish();
    assert_eq!(client.get("/readyz").status, 200);
    assert!(sents.values().all(|sent| sent.outcome != Outcome::Unknown), "a full disk leaves nobody in doubt");
    check_store(&daemon, &code, &sents);
    assert_eq!(client.post("/api/v1/events", event).status, 201);
    daemon.wait_until_sealed();
    daemon.stop();
    drop(disk);
}

#[test]
fn a_disk_that_stalls() {
    const REFUSALS: usize = 100;
    let _alone = turn::alone();
    let daemon = Daemon::start(&["--batch-events-max=100", "--queue-events-max=1000"]);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    let event = event_with(&code, json!({})).to_string();
    let stored = client.post("/api/v1/events", &event).json();
    let resident = daemon.metrics()["process_resident_memory_bytes"];
    let stalled_disk = Tampering::with(&daemon, "fdatasync:delay_enter=5000000");
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (address, body) = (daemon.address.clone(), traffic::batch(&code, 100));
            thread::spawn(move || Client::connect(&address).post("/api/v1/events/batch", body).status)
        })
        .collect();
    wait_until("the queue is full", || (daemon.metrics()["hitlog_events_in_flight"] == 1_000.0).then_some(()));
    let id = stored["id"].as_str().unwrap();
    let mut times = Vec::new();
    for _ in 0..REFUSALS {
        let asked_at = Instant::now();
        let refused = client.post("/api/v1/events", &event);
        times.push(asked_at.elapsed());
        assert_eq!((refused.status, refused.error().as_str()), (503, "OVERLOADED"));
        assert!(refused.header("retry-after").is_some());
        assert_eq!(client.get(&format!("/api/v1/events/{id}")).json(), stored, "reads answer");
        assert_eq!(client.get("/livez").status, 200);
        assert_eq!(client.get("/readyz").error(), "OVERLOADED");
        if times.iter().sum::<Duration>() > Duration::from_secs(2) {
            break;
        }
    }
    assert_eq!(daemon.metrics()["hitlog_events_in_flight"], 1_000.0, "the disk has stalled all the while");
    times.sort_unstable();
    // Two cores are shared with the system: one in twenty may have waited for a turn.
    let most = times[times.len() * 95 / 100];
    assert!(most < Duration::from_millis(50), "refused after {most:?}, the slowest after {:?}", times.last());
    let grown = daemon.metrics()["process_resident_memory_bytes"] - resident;
    assert!(grown < 32.0 * 1024.0 * 1024.0, "{grown} bytes more");
    drop(stalled_disk);
    assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == 201), "whoever was taken in is stored");
    daemon.stop();
}

#[test]
fn a_disk_that_may_only_be_read() {
    if !is_root() {
        println!("skipped: only root can mount a disk that may only be read");
        return;
    }
    let work = work_dir();
    let disk = Mount::in_memory(32, work.path());
    let data = work.path().join("data");
    Daemon::start_in(&data, &[]).stop();
    disk.change("ro");
    for data in [data, work.path().join("new")] {
        let started =
            command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
        let log = String::from_utf8_lossy(&started.stderr).into_owned();
        assert_eq!((started.status.code(), started.stdout.as_slice()), (Some(1), &b""[..]), "{log}");
        assert!(log.contains("Read-only file system") && log.contains(data.to_str().unwrap()), "{log}");
    }
}

//! While ClickHouse is down, nothing that is not shipped leaves the disk: not what has expired, not on a full disk; and
//! what leaves it nevertheless, because somebody has set a bound, is told as lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use harness::{
    ClickHouse, Daemon, Tampering, event_with,
    mount::{Mount, is_root},
    proxy::{Fault, Proxy},
    shipped::{self, Fields},
    wait_until,
};
use serde_json::{Value, json};

use crate::ship::{plain_target, serve, ship};

const RETENTION: [&str; 2] = ["--retention-days=30", "--retention-grace-seconds=0"];
/// Which of an event's fields is the visitor, and which the page.
const VISITOR: usize = 4;
const URL: usize = 6;

/// Sends events that expire as soon as there is a retention.
fn send_old(daemon: &Daemon, code: &str, from: usize, count: usize, more: &str) {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let event = |number: usize| {
        event_with(
            code,
            json!({
                "timestamp": now_ms - 40 * 24 * 60 * 60 * 1_000, "visitorId": format!("v{}", number % 10),
                "url": format!("https://example.com/{number}"), "properties": {"more": more}
            }),
        )
    };
    let events: Vec<Value> = (from..from + count).map(event).collect();
    let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
    assert_eq!(response.status, 201, "{}", response.text());
}

/// Sends such events, and waits until the segment that they have filled is followed by the next.
fn fill_segment(daemon: &Daemon, code: &str, from: usize, count: usize, more: &str) {
    let rolls = || daemon.metrics()["hitlog_segment_rolls_total"];
    let before = rolls();
    send_old(daemon, code, from, count, more);
    wait_until("the segment is followed by the next", || (rolls() > before).then_some(()));
}

/// Everything of these is there, once and as it was, and nothing else.
fn assert_there(clickhouse: &ClickHouse, expected: &BTreeMap<u64, Fields>) {
    let there = shipped::there(clickhouse, "default.events");
    let twice: Vec<_> = there.iter().filter(|(_, rows)| rows.len() > 1).map(|(key, _)| key).collect();
    assert!(twice.is_empty(), "twice: {twice:?}");
    let there: BTreeMap<u64, Fields> = there.into_iter().map(|((_, seq), mut rows)| (seq, rows.remove(0))).collect();
    let keys = |of: &BTreeMap<u64, Fields>| of.keys().copied().collect::<BTreeSet<u64>>();
    let (wanted, found) = (keys(expected), keys(&there));
    let lost: Vec<_> = wanted.difference(&found).collect();
    let more: Vec<_> = found.difference(&wanted).collect();
    assert!(lost.is_empty() && more.is_empty(), "lost: {lost:?}, not expected: {more:?}");
    assert!(there == *expected, "some are not as they were");
}

fn wait_until_held(daemon: &Daemon) {
    wait_until("expired segments are held", || (daemon.metrics()["hitlog_ship_held_bytes"] > 0.0).then_some(()));
}

/// Waits until what has expired has left the disk.
fn wait_until_removed(daemon: &Daemon, segments: f64) {
    wait_until("what has expired is gone", || {
        (daemon.metrics()["hitlog_segments_removed_total"] >= segments).then_some(())
    });
}

#[test]
fn what_expires_and_is_erased_while_the_target_is_down_arrives_or_is_erased() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    let proxy = Proxy::start(&clickhouse.address());
    let flags = ["--segment-rows-max=60", "--ship-rows-max=40", "--ship-erasure-seconds=0"];
    let daemon = serve(&data, &proxy.url(), &flags);
    let code = daemon.register("ship.example");
    send_old(&daemon, &code, 0, 50, "");
    shipped::wait_until_shipped(&daemon);
    proxy.refuse(true);
    (0..10).for_each(|batch| fill_segment(&daemon, &code, 50 + batch * 60, 60, ""));
    daemon.wait_until_sealed();
    daemon.stop();

    let flags = [&flags[..], &RETENTION].concat();
    let mut daemon = serve(&data, &proxy.url(), &flags);
    wait_until_held(&daemon);
    let erased = daemon.client().send("DELETE", &format!("/api/v1/visitors/v7?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    let erasure = format!("/api/v1/erasures/{}", erased.json()["id"].as_str().unwrap());
    let fresh = |daemon: &Daemon| {
        let event = event_with(&code, json!({"visitorId": "fresh"})).to_string();
        assert_eq!(daemon.client().post("/api/v1/events", event).status, 201);
        assert_eq!(daemon.client().get("/readyz").status, 200);
    };
    fresh(&daemon);
    daemon.crash();
    let daemon = serve(&data, &proxy.url(), &flags);
    wait_until_held(&daemon);
    fresh(&daemon);
    // The look for what has expired comes every second.
    thread::sleep(Duration::from_millis(2_500));
    let mut expected = shipped::here(&data);
    assert!(expected.len() > 650 - 65, "{}", expected.len());
    expected.retain(|_, fields| fields[VISITOR] != "v7");
    assert_eq!(expected.len(), 650 - 65 + 2);

    proxy.refuse(false);
    shipped::wait_until_shipped(&daemon);
    wait_until("the erasure is followed", || {
        let erasure = daemon.client().get(&erasure).json();
        // Its files are gone there when the server removes old ones.
        (erasure["state"] == "done" && erasure["target"]["state"] != "waiting").then_some(())
    });
    assert_there(&clickhouse, &expected);
    wait_until_removed(&daemon, 10.0);
    let metrics = daemon.metrics();
    assert_eq!((metrics["hitlog_ship_held_bytes"], metrics["hitlog_ship_lost_ranges"]), (0.0, 0.0));
    daemon.stop();
}

#[test]
fn what_has_expired_leaves_as_it_is_shipped_however_slow_the_disk_is() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    let proxy = Proxy::start(&clickhouse.address());
    proxy.refuse(true);
    let flags = ["--segment-rows-max=60"];
    let daemon = serve(&data, &proxy.url(), &flags);
    let code = daemon.register("ship.example");
    (0..3).for_each(|batch| fill_segment(&daemon, &code, batch * 60, 60, ""));
    daemon.wait_until_sealed();
    daemon.stop();
    let daemon = serve(&data, &proxy.url(), &[&flags[..], &RETENTION].concat());
    wait_until_held(&daemon);
    // What is done after a look for what has expired takes longer than the pause until the next.
    let slow_disk = Tampering::with(&daemon, "fsync:delay_enter=600000");
    proxy.next_with("INSERT", 1, Fault::DelayRequest(Duration::ZERO));
    proxy.next_with("INSERT", 2, Fault::DelayRequest(Duration::from_secs(3)));
    proxy.refuse(false);
    wait_until_removed(&daemon, 1.0);
    assert_eq!(daemon.metrics()["hitlog_segments_removed_total"], 1.0);
    wait_until_removed(&daemon, 3.0);
    drop(slow_disk);
    assert_eq!(clickhouse.query("SELECT count(), uniqExact(seq) FROM default.events"), "180\t180");
    daemon.stop();
}

/// Takes every byte that is left.
fn fill(ballast: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(ballast).unwrap();
    for part in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; part]).and_then(|()| file.sync_all()).is_ok() {}
    }
}

#[test]
fn a_disk_that_is_full_of_what_is_not_shipped_is_emptied_by_shipping() {
    if !is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let Some((clickhouse, work, data)) = plain_target() else { return };
    let disk = Mount::in_memory(32, work.path());
    let ballast = work.path().join("ballast");
    let proxy = Proxy::start(&clickhouse.address());
    let flags = ["--segment-rows-max=500", "--ship-rows-max=300"];
    let daemon = serve(&data, &proxy.url(), &flags);
    let code = daemon.register("ship.example");
    send_old(&daemon, &code, 0, 10, "");
    shipped::wait_until_shipped(&daemon);
    proxy.refuse(true);
    (0..4).for_each(|batch| fill_segment(&daemon, &code, batch * 500, 500, &"x".repeat(2_000)));
    daemon.wait_until_sealed();
    daemon.stop();

    let daemon = serve(&data, &proxy.url(), &[&flags[..], &RETENTION].concat());
    wait_until_held(&daemon);
    fill(&ballast);
    let event = event_with(&code, json!({"visitorId": "fresh"})).to_string();
    let refused = wait_until("the disk is full", || {
        Some(daemon.client().post("/api/v1/events", &event)).filter(|response| response.status != 201)
    });
    assert_eq!((refused.status, refused.error().as_str()), (503, "STORAGE_FULL"));
    assert_eq!(daemon.client().get("/readyz").error(), "STORAGE_FULL");
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(daemon.client().post("/api/v1/events", &event).status, 503);
    let expected = shipped::here(&data);
    assert!(expected.len() >= 2_010, "{}", expected.len());

    // Nobody makes room but hitlog itself.
    proxy.refuse(false);
    wait_until("ingest resumes", || (daemon.client().post("/api/v1/events", &event).status == 201).then_some(()));
    shipped::wait_until_shipped(&daemon);
    let there = shipped::there(&clickhouse, "default.events");
    assert!(expected.iter().all(|(sequence, fields)| there[&(0, *sequence)] == [fields.clone()]));
    assert_eq!(daemon.metrics()["hitlog_ship_lost_ranges"], 0.0);
    wait_until_removed(&daemon, 3.0);
    daemon.stop();
    drop(disk);
}

#[test]
fn what_a_bound_takes_off_the_disk_is_told_as_lost() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    let proxy = Proxy::start(&clickhouse.address());
    let flags = ["--segment-rows-max=100", "--ship-rows-max=70"];
    let daemon = serve(&data, &proxy.url(), &flags);
    let code = daemon.register("ship.example");
    send_old(&daemon, &code, 0, 100, "");
    shipped::wait_until_shipped(&daemon);
    proxy.refuse(true);
    (1..9).for_each(|batch| fill_segment(&daemon, &code, batch * 100, 100, &"x".repeat(500)));
    daemon.wait_until_sealed();
    daemon.stop();
    let first_of_held = fs::metadata(data.join("segments/000000000005.g2.db")).unwrap().len();

    // Room for three of them and a half.
    let most = format!("--ship-held-bytes-max={}", first_of_held * 7 / 2);
    let daemon = serve(&data, &proxy.url(), &[&flags[..], &RETENTION, &[&most]].concat());
    daemon.wait_for_log("an expired segment leaves the disk before it was shipped");
    // With the first, which was shipped.
    wait_until_removed(&daemon, 6.0);
    thread::sleep(Duration::from_millis(1_500));
    assert_eq!(daemon.metrics()["hitlog_segments_removed_total"], 6.0);
    let kept = shipped::here(&data);
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), (601..=900).collect::<Vec<_>>());
    let lost = || daemon.metrics()["hitlog_ship_lost_ranges"];
    assert!(lost() >= 5.0, "{}", lost());

    proxy.refuse(false);
    shipped::wait_until_shipped(&daemon);
    let mut expected = kept;
    let before =
        shipped::there(&clickhouse, "default.events").into_iter().filter(|((_, sequence), _)| *sequence <= 100);
    expected.extend(before.map(|((_, sequence), mut rows)| (sequence, rows.remove(0))));
    assert_there(&clickhouse, &expected);
    let (exit, said) = ship(&daemon, &["status"]);
    assert!(exit == 1 && said.contains("lost"), "{exit} {said}");
    assert!(lost() >= 5.0);
    daemon.stop();
}

#[test]
fn a_refused_event_that_expires_is_told_as_lost() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    clickhouse.query("ALTER TABLE default.events ADD CONSTRAINT fine CHECK url != 'https://example.com/3'");
    let flags = ["--segment-rows-max=10"];
    let daemon = serve(&data, &clickhouse.url(), &flags);
    let code = daemon.register("ship.example");
    send_old(&daemon, &code, 0, 10, "");
    wait_until("it is put aside", || (daemon.metrics()["hitlog_ship_dead_events"] == 1.0).then_some(()));
    shipped::wait_until_shipped(&daemon);
    let mut expected = shipped::here(&data);
    expected.retain(|_, fields| fields[URL] != "https://example.com/3");
    assert_eq!(expected.len(), 9);
    assert_there(&clickhouse, &expected);
    daemon.stop();

    let daemon = serve(&data, &clickhouse.url(), &[&flags[..], &RETENTION].concat());
    wait_until_removed(&daemon, 1.0);
    let told = || {
        let metrics = daemon.metrics();
        (metrics["hitlog_ship_dead_events"], metrics["hitlog_ship_lost_ranges"])
    };
    assert_eq!(told(), (0.0, 1.0));
    daemon.wait_for_log("events of a segment that has left the disk were never shipped");
    // It cannot come back, and is not counted as shipped.
    ship(&daemon, &["resume", "--dead"]);
    shipped::wait_until_shipped(&daemon);
    assert_eq!(told(), (0.0, 1.0));
    assert_there(&clickhouse, &expected);
    daemon.stop();
}

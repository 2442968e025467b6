//! What people do to a data directory, a table and a hitlog that ships: put back, copied, deleted from, changed, asked
//! for once more. Nothing is lost by it, nothing is there twice, and what was erased stays so.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use harness::{ClickHouse, Daemon, event_with, proxy::Proxy, shipped, tool, wait_until, work_dir};
use serde_json::{Value, json};

use crate::{
    quarantine::copy_all,
    ship::{assert_same, paused, plain_table, plain_target, send, serve, ship},
};

fn count(clickhouse: &ClickHouse, condition: &str) -> u64 {
    clickhouse.query(&format!("SELECT count() FROM default.events WHERE {condition}")).trim().parse().unwrap()
}

/// A daemon that ships this seldom.
fn serve_every(data: &Path, url: &str, seconds: u32, flags: &[&str]) -> Daemon {
    let own = [format!("--ship-url={url}"), format!("--ship-interval-seconds={seconds}")];
    Daemon::start_in(data, &[&own.each_ref().map(String::as_str), flags].concat())
}

#[test]
fn what_was_deleted_there_is_shipped_again_from_the_start() {
    let Some((clickhouse, work, _)) = plain_target() else { return };
    let [one, two] = ["one", "two"].map(|name| work.path().join(name));
    let daemon = serve(&one, &clickhouse.url(), &["--node=1", "--ship-rows-max=100"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 350);
    let other = serve(&two, &clickhouse.url(), &["--node=2"]);
    let code = other.register("ship.example");
    send(&other, &code, 0, 50);
    [&daemon, &other].into_iter().for_each(shipped::wait_until_shipped);
    // The table remembers the tokens of what it has no more; of the rest nothing is to be there twice.
    for (of, left) in [(3, 234), (6, 292)] {
        let delete = format!("ALTER TABLE default.events DELETE WHERE node = 1 AND seq % {of} = 0");
        clickhouse.query(&format!("{delete} SETTINGS mutations_sync = 2"));
        assert_eq!(count(&clickhouse, "node = 1"), left);
        let (_, said) = ship(&daemon, &["resume", "--from-start"]);
        assert!(!said.contains("paused"), "{said}");
        wait_until("all is there again", || (count(&clickhouse, "node = 1") == 350).then_some(()));
        shipped::wait_until_shipped(&daemon);
        assert_same(&clickhouse, &[(1, &one), (2, &two)]);
        let (exit, said) = ship(&daemon, &["verify", "--deep"]);
        assert!(exit == 0 && said.contains("350 events"), "{said}");
    }
    // What comes from then on has another number.
    let code = daemon.register("later.example");
    send(&daemon, &code, 0, 40);
    shipped::wait_until_shipped(&daemon);
    assert_eq!(["node = 1", "node % 65536 = 1"].map(|of| count(&clickhouse, of)), [350, 390]);
    daemon.stop();
    other.stop();
}

#[test]
fn a_directory_that_was_put_back_without_a_word_ships_nothing_under_what_is_taken() {
    let Some((clickhouse, work, _)) = plain_target() else { return };
    let [data, kept] = ["data", "kept"].map(|name| work.path().join(name));
    let flags = ["--node=1"];
    let daemon = serve(&data, &clickhouse.url(), &flags);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 100);
    shipped::wait_until_shipped(&daemon);
    daemon.stop();
    assert!(Command::new("cp").arg("-a").args([&data, &kept]).status().unwrap().success());
    let daemon = serve(&data, &clickhouse.url(), &flags);
    send(&daemon, &code, 100, 30);
    shipped::wait_until_shipped(&daemon);
    daemon.stop();

    let daemon = serve(&kept, &clickhouse.url(), &flags);
    send(&daemon, &code, 200, 30);
    let said = paused(&daemon);
    assert!(said.contains("put back from a copy") && said.contains("--restored"), "{said}");
    assert_eq!(count(&clickhouse, "1"), 130);
    daemon.stop();
    let daemon = serve(&kept, &clickhouse.url(), &["--node=1", "--restored"]);
    send(&daemon, &code, 300, 20);
    shipped::wait_until_shipped(&daemon);
    // What came in before it was said would have the numbers of others.
    let there = ["node = 1", "node = 65537"].map(|of| count(&clickhouse, of));
    assert_eq!(there, [130, 50]);
    let (exit, said) = ship(&daemon, &["verify", "--deep"]);
    assert!(exit == 0 && said.contains("150 events"), "{said}");
    assert!(daemon.log().contains("has other events under these numbers"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn the_original_sends_nothing_any_more_when_a_copy_has_taken_over() {
    let Some((clickhouse, work, _)) = plain_target() else { return };
    let [first, backup] = ["first", "backup"].map(|name| work.path().join(name));
    let original = serve_every(&first, &clickhouse.url(), 14, &["--node=1"]);
    let code = original.register("ship.example");
    wait_until("it has registered", || (original.log().contains("registered at the target")).then_some(()));
    thread::sleep(Duration::from_millis(500));
    send(&original, &code, 0, 40);
    let made = tool(&first, &["backup", backup.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.err);
    let copy = serve(&backup, &clickhouse.url(), &["--node=1"]);
    let said = paused(&original);
    assert!(said.contains("copy of this data directory"), "{said}");
    wait_until("the copy has sent them", || (count(&clickhouse, "node = 1") >= 40).then_some(()));
    shipped::wait_until_shipped(&copy);
    assert_same(&clickhouse, &[(1, &backup)]);
    copy.stop();
    original.stop();
}

#[test]
fn what_comes_back_from_quarantine_is_shipped_under_the_number_that_it_had() {
    let Some((clickhouse, work, data)) = plain_target() else { return };
    let backup = work.path().join("backup");
    let proxy = Proxy::start(&clickhouse.address());
    let flags = ["--segment-rows-max=60", "--node=1"];
    let daemon = serve(&data, &proxy.url(), &flags);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 80);
    daemon.wait_until_sealed();
    shipped::wait_until_shipped(&daemon);
    assert_eq!(tool(&data, &["backup", backup.to_str().unwrap()]).code, 0);
    send(&daemon, &code, 80, 70);
    shipped::wait_until_shipped(&daemon);
    proxy.refuse(true);
    send(&daemon, &code, 150, 60);
    daemon.wait_until_sealed();
    daemon.stop();
    // The backup over all of it.
    copy_all(&backup, &data);
    proxy.refuse(false);
    let daemon = serve(&data, &proxy.url(), &flags);
    let files = daemon.metrics()["hitlog_quarantined_files"];
    assert!(files >= 2.0, "{files} files");
    send(&daemon, &code, 300, 20);
    shipped::wait_until_shipped(&daemon);
    let there = || ["node = 1", "node = 65537"].map(|of| count(&clickhouse, of));
    assert_eq!(there(), [150, 20]);
    daemon.stop();

    let listed: Value = serde_json::from_str(&tool(&data, &["quarantine", "list", "--json"]).out).unwrap();
    for file in listed["files"].as_array().unwrap() {
        let adopted = tool(&data, &["quarantine", "adopt", file["file"].as_str().unwrap()]);
        assert_eq!(adopted.code, 0, "{}", adopted.err);
    }
    let daemon = serve(&data, &proxy.url(), &flags);
    wait_until("all of it is there", || (there() == [210, 20]).then_some(()));
    shipped::wait_until_shipped(&daemon);
    let (exit, said) = ship(&daemon, &["verify", "--deep"]);
    assert!(exit == 0 && said.contains("230 events"), "{said}");
    assert_eq!(daemon.metrics()["hitlog_ship_lost_ranges"], 0.0);
    daemon.stop();
}

#[test]
fn a_table_of_nodes_that_is_lost_is_told_and_registered_again() {
    let Some((clickhouse, work, data)) = plain_target() else { return };
    let other = serve(&work.path().join("other"), &clickhouse.url(), &["--node=2"]);
    let daemon = serve(&data, &clickhouse.url(), &["--node=1"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 20);
    shipped::wait_until_shipped(&daemon);
    other.stop();
    clickhouse.query("ALTER TABLE default.events_nodes DELETE WHERE node = 1 SETTINGS mutations_sync = 2");
    // For so long a look counts.
    thread::sleep(Duration::from_millis(5_500));
    send(&daemon, &code, 20, 20);
    let said = paused(&daemon);
    assert!(said.contains("does not know this hitlog") && !said.contains("--restored"), "{said}");
    let begin = said.find("INSERT INTO default.events_nodes").expect("a statement");
    let end = said[begin..].find("now64(6))").expect("its end");
    clickhouse.query(&said[begin..begin + end + "now64(6))".len()]);
    ship(&daemon, &["resume"]);
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(1, &data)]);
    daemon.stop();
}

#[test]
fn a_directory_that_runs_twice_stays_paused() {
    let Some((clickhouse, work, data)) = plain_target() else { return };
    let twin = work.path().join("twin");
    let daemon = serve(&data, &clickhouse.url(), &["--node=1"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 20);
    shipped::wait_until_shipped(&daemon);
    daemon.stop();
    assert!(Command::new("cp").arg("-a").args([&data, &twin]).status().unwrap().success());
    let daemon = serve(&data, &clickhouse.url(), &["--node=1"]);
    wait_until("it is registered", || daemon.client().get("/api/v1/shipping").json()["instance"].as_str().map(drop));
    thread::sleep(Duration::from_millis(500));
    let twin = serve(&twin, &clickhouse.url(), &["--node=1"]);
    thread::sleep(Duration::from_millis(5_500));
    send(&daemon, &code, 20, 20);
    let said = paused(&daemon);
    assert!(said.contains("the same data directory runs twice"), "{said}");
    // It is looked again, and nothing is better.
    for _ in 0..2 {
        let (exit, said) = ship(&daemon, &["resume"]);
        assert!(exit == 1 && said.contains("runs twice"), "{said}");
    }
    assert_eq!(count(&clickhouse, "1"), 20);
    twin.stop();
    daemon.stop();
}

#[test]
fn a_view_that_fails_pauses_and_is_filled_when_it_is_mended() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    plain_table(&clickhouse, "default");
    clickhouse.query(
        "CREATE TABLE default.copied (seq UInt64) ENGINE = MergeTree ORDER BY seq SETTINGS \
         non_replicated_deduplication_window = 10000",
    );
    let view = "CREATE MATERIALIZED VIEW default.copy TO default.copied AS SELECT seq";
    clickhouse.query(&format!("{view} + throwIf(seq > 10) AS seq FROM default.events"));
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = serve(&data, &clickhouse.url(), &[]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 10);
    shipped::wait_until_shipped(&daemon);
    send(&daemon, &code, 10, 20);
    let said = paused(&daemon);
    assert!(said.contains("a view behind default.events fails") && said.contains("ship resume"), "{said}");
    clickhouse.query("DROP VIEW default.copy SYNC");
    clickhouse.query(&format!("{view} FROM default.events"));
    ship(&daemon, &["resume"]);
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(0, &data)]);
    assert_eq!(clickhouse.query("SELECT count(), uniqExact(seq) FROM default.copied").trim(), "30\t30");
    daemon.stop();
}

#[test]
fn a_refused_event_that_was_erased_meanwhile_is_not_sent_when_it_is_tried_again() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    clickhouse.query("ALTER TABLE default.events ADD CONSTRAINT fine CHECK visitor != 'gone'");
    let daemon = serve(&data, &clickhouse.url(), &[]);
    let code = daemon.register("ship.example");
    let mut client = daemon.client();
    let event = event_with(&code, json!({ "visitorId": "gone" })).to_string();
    assert_eq!(client.post("/api/v1/events", &event).status, 201);
    // Many rows have the segment wait for its rewriting.
    send(&daemon, &code, 0, 20_000);
    wait_until("it is put aside", || (daemon.metrics()["hitlog_ship_dead_events"] == 1.0).then_some(()));
    shipped::wait_until_shipped(&daemon);
    clickhouse.query("ALTER TABLE default.events DROP CONSTRAINT fine");
    let erased = client.send("DELETE", &format!("/api/v1/visitors/gone?trackingCode={code}"), &[], b"");
    let place = erased.header("location").unwrap().to_owned();
    let is = |states: &[&str], of: &Value| states.iter().any(|state| of == state);
    wait_until("it is masked", || {
        is(&["masked", "done"], &daemon.client().get(&place).json()["target"]["state"]).then_some(())
    });
    ship(&daemon, &["resume", "--dead"]);
    wait_until("it is tried again", || (daemon.metrics()["hitlog_ship_dead_events"] == 0.0).then_some(()));
    shipped::wait_until_shipped(&daemon);
    assert_eq!((count(&clickhouse, "visitor = 'gone'"), count(&clickhouse, "1")), (0, 20_000));
    daemon.stop();
}

#[test]
fn while_events_come_in_all_the_time_they_are_sent_once_an_interval() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let daemon = serve_every(&work.path().join("data"), &clickhouse.url(), 1, &[]);
    let code = daemon.register("ship.example");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    send(&daemon, &code, 0, 5);
                }
            });
        }
        thread::sleep(Duration::from_secs(5));
        stop.store(true, Ordering::Relaxed);
    });
    shipped::wait_until_shipped(&daemon);
    let inserts = daemon.metrics()["hitlog_ship_attempts_total{outcome=\"stored\"}"];
    // Five, and what is sent at the beginning and at the end.
    assert!((3.0..=9.0).contains(&inserts), "{inserts} inserts in five seconds");
    daemon.stop();
}

#[test]
fn where_every_event_is_refused_it_pauses_after_a_few() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    clickhouse.query("ALTER TABLE default.events ADD CONSTRAINT none CHECK seq = 0");
    let daemon = serve_every(&data, &clickhouse.url(), 2, &["--ship-dead-max=1"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 10_000);
    let said = paused(&daemon);
    assert!(said.contains("refused 2 events"), "{said}");
    let open = daemon.client().get("/api/v1/shipping").json()["openRanges"].as_array().unwrap().len();
    assert!(open < 40, "{open} ranges");
    clickhouse.query("ALTER TABLE default.events DROP CONSTRAINT none");
    ship(&daemon, &["resume", "--dead"]);
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(0, &data)]);
    daemon.stop();
}

#[test]
fn a_table_that_is_changed_so_that_it_keeps_other_values_gets_no_more() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = serve(&data, &clickhouse.url(), &[]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 10);
    shipped::wait_until_shipped(&daemon);
    clickhouse.query("ALTER TABLE default.events MODIFY COLUMN session FixedString(30)");
    // For so long it counts that it was as it should be.
    thread::sleep(Duration::from_millis(5_500));
    send(&daemon, &code, 10, 10);
    let said = paused(&daemon);
    assert!(said.contains("the column session is FixedString(30)"), "{said}");
    clickhouse.query("ALTER TABLE default.events MODIFY COLUMN session String");
    clickhouse.query("ALTER TABLE default.events MODIFY COLUMN url String EPHEMERAL");
    ship(&daemon, &["resume"]);
    wait_until("the next reason is told", || ship(&daemon, &["status"]).1.contains("column url").then_some(()));
    clickhouse.query("ALTER TABLE default.events MODIFY COLUMN url String DEFAULT ''");
    ship(&daemon, &["resume"]);
    shipped::wait_until_shipped(&daemon);
    assert_eq!(count(&clickhouse, "1"), 20);
    daemon.stop();
}

#[test]
fn a_comparison_ends_whatever_is_asked_for_meanwhile() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let daemon = serve(&work.path().join("data"), &clickhouse.url(), &["--ship-rows-max=10"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 3_000);
    shipped::wait_until_shipped(&daemon);
    let mut client = daemon.client();
    for _ in 0..10 {
        assert_eq!(client.post("/api/v1/shipping/verify?deep=true", "").status, 202);
        assert_eq!(client.post("/api/v1/shipping/resume", "").status, 202);
    }
    let found = wait_until("it has ended", || {
        let found = client.get("/api/v1/shipping/verify").json();
        (found["state"] != "running").then_some(found)
    });
    assert_eq!((&found["state"], &found["differences"]), (&json!("done"), &json!(0)), "{found}");
    daemon.stop();
}

//! Shipping to a real ClickHouse: what arrives, and what keeps it from arriving.

use std::path::{Path, PathBuf};

use harness::{ClickHouse, Daemon, command, event_with, shipped, wait_until, work_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ship_page::statements;

/// A daemon that ships to this server, soon after events come in.
pub(crate) fn serve(data: &Path, url: &str, flags: &[&str]) -> Daemon {
    let url = format!("--ship-url={url}");
    Daemon::start_in(data, &[&[url.as_str(), "--ship-interval-seconds=0.1"], flags].concat())
}

/// Runs `hitlog ship` against a daemon.
pub(crate) fn ship(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let url = format!("http://{}", daemon.address);
    said(&[&["ship"], arguments, &["--url", &url]].concat())
}

/// Runs hitlog to its end. Returns its exit code and all that it says.
pub(crate) fn said(arguments: &[&str]) -> (i32, String) {
    let output = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
}

/// Waits until shipping is paused. Returns what is said of it.
pub(crate) fn paused(daemon: &Daemon) -> String {
    wait_until("shipping is paused", || (daemon.metrics()["hitlog_ship_paused"] == 1.0).then_some(()));
    let (exit, said) = ship(daemon, &["status"]);
    assert_eq!(exit, 1, "{said}");
    said
}

/// Makes the table as hitlog does, but as a plain MergeTree, which hides nothing that is there twice; in a database of
/// this name.
pub(crate) fn plain_table(clickhouse: &ClickHouse, database: &str) {
    clickhouse.query(&format!("CREATE DATABASE IF NOT EXISTS {database}"));
    let table = statements()["table"].replace("CREATE TABLE events", &format!("CREATE TABLE {database}.events"));
    let plain = table.replace("ReplacingMergeTree", "MergeTree");
    assert!(plain != table && plain.contains("non_replicated_deduplication_window = 10000"), "{plain}");
    clickhouse.query(&plain);
}

/// A server with a plain table `default.events`; a directory for what a test keeps, and where in it a daemon's data go.
pub(crate) fn plain_target() -> Option<(ClickHouse, TempDir, PathBuf)> {
    let clickhouse = ClickHouse::start()?;
    plain_table(&clickhouse, "default");
    let work = work_dir();
    let data = work.path().join("data");
    Some((clickhouse, work, data))
}

/// Sends a batch of events that differ in everything that an event has.
pub(crate) fn send(daemon: &Daemon, code: &str, from: usize, count: usize) {
    let mut client = daemon.client();
    for begin in (from..from + count).step_by(500) {
        let events: Vec<Value> = (begin..(begin + 500).min(from + count)).map(|number| event(code, number)).collect();
        let response = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{:.300}", response.text());
    }
}

pub(crate) fn event(code: &str, number: usize) -> Value {
    let maybe = |of: usize, text: String| if number.is_multiple_of(of) { Value::Null } else { json!(text) };
    event_with(
        code,
        json!({
            "eventType": (["pageview", "click", "custom"][number % 3]),
            "url": format!("https://example.com/{}?q=ü\u{1f469}&n={number}", "p".repeat(number % 300)),
            "visitorId": format!("v{}", number % 97),
            "sessionId": format!("s{}'\\", number % 131),
            "referrer": maybe(2, format!("https://ref.example/{}", number % 7)),
            "deviceType": maybe(3, ["mobile", "tablet", "desktop"][number % 3].into()),
            "browser": maybe(5, format!("browser {}", number % 4)),
            "os": maybe(7, format!("os {}", number % 3)),
            "location": maybe(4, format!("location {}", number % 5)),
            "properties": if number.is_multiple_of(3) { Value::Null } else { json!({"n": number, "t": "\u{0}\n"}) },
        }),
    )
}

pub(crate) fn assert_same(clickhouse: &ClickHouse, nodes: &[(u32, &Path)]) {
    let found = shipped::differences(clickhouse, "default.events", nodes);
    assert!(found.is_empty(), "{} differences, such as {:?}", found.len(), &found[..found.len().min(5)]);
}

#[test]
fn every_field_of_every_event_arrives_once() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max=700", "--ship-rows-max=300", "--node=7"];
    let daemon = serve(&data, &clickhouse.url(), &flags);
    let code = daemon.register("ship.example");
    let other = daemon.register("other.example");
    send(&daemon, &code, 0, 2_000);
    send(&daemon, &other, 2_000, 500);
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(7, &data)]);
    let (exit, said) = ship(&daemon, &["verify", "--deep"]);
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("2,500 events") && said.contains("all are there, once"), "{said}");
    let (exit, said) = ship(&daemon, &["status"]);
    assert!(exit == 0 && said.contains("as node 7") && said.contains("2,500 events"), "{said}");
    let metrics = daemon.metrics();
    assert_eq!(metrics["hitlog_ship_events_total"], 2_500.0);
    assert_eq!(metrics["hitlog_ship_last_verify_differences"], 0.0);
    daemon.stop();
    // What comes after a restart follows, and nothing is sent again.
    let daemon = serve(&data, &clickhouse.url(), &flags);
    send(&daemon, &code, 2_500, 100);
    wait_until("it is shipped", || (daemon.metrics()["hitlog_ship_events_total"] >= 100.0).then_some(()));
    shipped::wait_until_shipped(&daemon);
    assert_same(&clickhouse, &[(7, &data)]);
    assert_eq!(daemon.metrics()["hitlog_ship_events_total"], 100.0);
    daemon.stop();
}

#[test]
fn a_comparison_finds_what_is_lost_doubled_and_changed() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = serve(&data, &clickhouse.url(), &["--segment-rows-max=1000"]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 3_000);
    shipped::wait_until_shipped(&daemon);
    assert_eq!(ship(&daemon, &["verify", "--deep"]).0, 0);
    let check = |change: &str, back: &str, only_deep: bool| {
        clickhouse.query(change);
        let (exit, said) = ship(&daemon, &["verify"]);
        assert_eq!(exit, i32::from(!only_deep), "{change}: {said}");
        let (exit, said) = ship(&daemon, &["verify", "--deep"]);
        assert!(exit == 1 && said.contains("1 difference\n"), "{change}: {said}");
        assert_eq!(daemon.metrics()["hitlog_ship_last_verify_differences"], 1.0);
        clickhouse.query(back);
        let (exit, said) = ship(&daemon, &["verify", "--deep"]);
        assert_eq!(exit, 0, "{back}: {said}");
    };
    clickhouse.query("CREATE TABLE kept ENGINE = MergeTree ORDER BY seq AS SELECT * FROM default.events");
    let back = "INSERT INTO default.events SELECT * FROM kept WHERE seq = 1500";
    check("ALTER TABLE default.events DELETE WHERE seq = 1500 SETTINGS mutations_sync = 2", back, false);
    let merge = "OPTIMIZE TABLE default.events FINAL";
    check("INSERT INTO default.events SELECT * FROM kept WHERE seq = 2999", merge, false);
    let change =
        |os: &str| format!("ALTER TABLE default.events UPDATE os = '{os}' WHERE seq = 10 SETTINGS mutations_sync = 2");
    let os = clickhouse.query("SELECT os FROM kept WHERE seq = 10");
    check(&change("another"), &change(os.trim()), true);
    daemon.stop();
}

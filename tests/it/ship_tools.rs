//! What `hitlog ship` and the settings of shipping tell people.

use harness::{ClickHouse, Daemon, command, shipped, wait_until, work_dir};

use crate::ship::{plain_target, said, send, serve, ship};

#[test]
fn no_message_has_the_password_that_somebody_has_put_into_the_url() {
    for url in ["http://user:S3CRET@host:8123", "http://user:S3CRET@host:99999", "http://host/?password=S3CRET"] {
        for arguments in [&["serve"][..], &["config", "check"], &["config", "show"], &["ship", "status"]] {
            let output = command(arguments).env("HITLOG_SHIP_URL", url).output().unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(!output.status.success() && text.contains("ship_url = "), "{url}: {text}");
            assert!(!text.contains("S3CRET"), "{url}: {text}");
        }
    }
}

#[test]
fn settings_of_shipping_that_do_nothing_are_told() {
    let (code, text) = said(&["config", "check", "--node=7", "--ship-table=hits"]);
    assert_eq!(code, 2, "{text}");
    assert_eq!(text.matches("does nothing: ship_url is not set").count(), 2, "{text}");
    let (code, text) = said(&["config", "check", "--node=7", "--ship-url=http://127.0.0.1:1"]);
    assert_eq!(code, 0, "{text}");
    let daemon = Daemon::start(&["--node=7"]);
    assert_eq!(daemon.log().matches("node does nothing: ship_url is not set").count(), 1, "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_difference_is_told_with_the_events_that_differ() {
    let Some((clickhouse, _work, data)) = plain_target() else { return };
    let daemon = serve(&data, &clickhouse.url(), &[]);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 25);
    shipped::wait_until_shipped(&daemon);
    clickhouse.query("INSERT INTO default.events SELECT * FROM default.events WHERE seq = 14");
    clickhouse.query("DELETE FROM default.events WHERE seq = 12");
    let (exit, text) = ship(&daemon, &["verify"]);
    assert!(exit == 1 && text.contains("1 to 25: 1 missing (12), 1 twice (14)\n"), "{text}");
    assert!(text.contains("When verify finds differences"), "{text}");
    // What the last comparison has found is there until another finds that it is not.
    let (exit, text) = ship(&daemon, &["status"]);
    assert!(exit == 1 && text.contains("1 difference\n"), "{text}");
    clickhouse.query("DELETE FROM default.events WHERE seq != 20");
    clickhouse.query("INSERT INTO default.events SELECT * REPLACE('other' AS os) FROM default.events WHERE seq = 20");
    clickhouse.query("ALTER TABLE default.events DELETE WHERE seq = 20 AND os != 'other' SETTINGS mutations_sync = 2");
    let (exit, text) = ship(&daemon, &["verify", "--deep"]);
    assert!(exit == 1 && text.contains("1 to 25: 24 missing (1, 2, 3, 4, 5, ...), 1 changed (20)\n"), "{text}");
    daemon.stop();
}

#[test]
fn who_asks_to_go_on_is_told_what_comes_of_it() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    clickhouse.query("CREATE TABLE default.events (seq UInt64) ENGINE = MergeTree ORDER BY seq");
    let daemon = serve(&work.path().join("data"), &clickhouse.url(), &["--node=3"]);
    wait_until("it pauses", || (daemon.metrics()["hitlog_ship_paused"] == 1.0).then_some(()));
    let (exit, text) = ship(&daemon, &["resume"]);
    assert!(exit == 1 && text.contains("paused") && !text.contains("being tried again"), "{text}");
    assert!(text.contains(&format!("default.events at {}", clickhouse.url())), "{text}");
    clickhouse.query("DROP TABLE default.events SYNC");
    let (exit, text) = ship(&daemon, &["resume"]);
    assert!(exit == 0 && text.contains("state        shipping\n"), "{text}");
    daemon.stop();
}

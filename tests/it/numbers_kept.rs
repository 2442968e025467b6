//! Rollups over the life of a directory: one of an older hitlog is brought up to date, damage is found, and very many
//! visitors are estimated.

use std::{fs, path::Path, thread, time::Duration};

use harness::{Daemon, checker::random_below, event_with, tool, wait_until, work_dir};
use rusqlite::Connection;
use serde_json::{Value, json};

const HOUR_MS: u64 = 3_600_000;
/// 1 November 2026.
const FIRST_MS: u64 = 1_793_491_200_000;

/// Makes segments what an older hitlog would have made of them: of version 1 or 2.
pub(crate) fn make_segments_older(data: &Path, version: i64) {
    for entry in fs::read_dir(data.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "db") {
            continue;
        }
        let without_ids = if version < 2 { "ALTER TABLE Event DROP COLUMN eventIdHash;" } else { "" };
        let sql = format!(
            "ALTER TABLE Event DROP COLUMN flags; {without_ids} DROP TABLE IF EXISTS Rollup;
             DROP TABLE IF EXISTS RollupBlock; DROP TABLE IF EXISTS RollupList; PRAGMA user_version = {version};"
        );
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(&sql).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Sends events over some hours, of so many visitors.
fn send(daemon: &Daemon, code: &str, events: usize, visitors: usize) {
    for first in (0..events).step_by(100) {
        let event = |at: usize| {
            let time = FIRST_MS + at as u64 * 6 * HOUR_MS / events as u64;
            let changes = json!({
                "timestamp": time, "sessionId": format!("s{}", at % visitors), "visitorId": format!("v{}", at % visitors),
                "url": format!("https://example.com/{}", at % 5), "eventType": if at % 3 == 1 { "click" } else { "pageview" },
            });
            event_with(code, changes)
        };
        let batch = json!({"events": (first..(first + 100).min(events)).map(event).collect::<Vec<_>>()}).to_string();
        assert_eq!(daemon.client().post("/api/v1/events/batch", batch).status, 201);
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
    }
}

/// Everything that is asked of a website, once all of it is counted.
fn numbers(daemon: &Daemon, code: &str) -> Vec<Value> {
    let range = format!("trackingCode={code}&from=2026-11-01&to=2026-11-02");
    let paths = [
        format!("/api/v1/stats?{range}"),
        format!("/api/v1/stats/series?{range}&interval=hour"),
        format!("/api/v1/stats?{range}&page=/3&compare=previous"),
    ];
    let answer = |path: &String| {
        wait_until("everything is counted", || {
            let answer = daemon.client().get(path).json();
            (answer["meta"]["complete"] == true).then_some(answer)
        })
    };
    let mut answers: Vec<Value> = paths.iter().map(answer).collect();
    answers.iter_mut().for_each(|answer| drop(answer.as_object_mut().unwrap().remove("meta")));
    answers
}

/// The sealed segments that have no rollups.
fn older(data: &Path) -> usize {
    let sealed = fs::read_dir(data.join("segments")).unwrap().flatten();
    let sealed = sealed.filter(|entry| entry.file_name().to_string_lossy().contains(".g"));
    let is_older = |path: &Path| {
        // One that is gone has been replaced.
        Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .is_ok_and(|connection| !connection.table_exists(None, "RollupList").unwrap_or(true))
    };
    sealed.filter(|entry| is_older(&entry.path())).count()
}

#[test]
fn segments_of_an_older_hitlog_are_brought_up_to_date() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max=300"];
    let mut daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("example.com");
    send(&daemon, &code, 2_150, 40);
    daemon.wait_until_sealed();
    let before = numbers(&daemon, &code);
    assert_eq!(before[0]["metrics"]["visitors"], 40, "{before:?}");
    for version in [2, 1] {
        daemon.stop();
        make_segments_older(&data, version);
        assert!(older(&data) >= 5);
        // Killed at any moment, and served from the first one on.
        let mut log = String::new();
        for _ in 0..4 {
            daemon = Daemon::start_in(&data, &flags);
            assert_eq!(numbers(&daemon, &code), before);
            thread::sleep(Duration::from_millis(random_below(60)));
            daemon.crash();
            log += &daemon.log();
        }
        daemon = Daemon::start_in(&data, &flags);
        wait_until("all segments are up to date", || (older(&data) == 0).then_some(()));
        assert_eq!(numbers(&daemon, &code), before);
        log += &daemon.log();
        assert!(log.contains("is brought up to date"), "{log}");
        daemon.assert_conserved();
    }
    daemon.stop();
    let checked = tool(&data, &["check"]);
    assert!(checked.code == 0, "{}{}", checked.out, checked.err);
}

#[test]
fn a_rollup_with_one_number_changed_is_found() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max=300"]);
    let code = daemon.register("example.com");
    send(&daemon, &code, 400, 40);
    daemon.wait_until_sealed();
    daemon.stop();
    assert_eq!(tool(&data, &["check"]).code, 0);
    let sealed = data.join("segments/000000000001.g2.db");
    let whole = fs::read(&sealed).unwrap();
    for (change, told) in [
        ("UPDATE Rollup SET events = events + 1", "the rollup of website"),
        ("UPDATE Rollup SET lastCreatedAt = lastCreatedAt - 1", "the rollup of website"),
        (
            "UPDATE Rollup SET quarters = CAST(substr(quarters, 1, 3) || x'7e' || substr(quarters, 5) AS BLOB)",
            "the rollup",
        ),
        ("UPDATE Rollup SET websiteId = 'web-000000000000'", "the rollup"),
        ("UPDATE RollupBlock SET hitsHash = hitsHash + 1", "block 1 of its rollups"),
        ("DELETE FROM RollupBlock", "block 1 of its rollups"),
        ("DELETE FROM Rollup", "it has rollups of what it has no rows of, or lacks some"),
    ] {
        Connection::open(&sealed).unwrap().execute_batch(change).unwrap();
        let checked = tool(&data, &["check"]);
        let said = checked.out + &checked.err;
        assert!(checked.code != 0 && said.contains(told), "{change}: {said}");
        fs::write(&sealed, &whole).unwrap();
    }
    assert_eq!(tool(&data, &["check"]).code, 0);
}

#[test]
fn very_many_visitors_are_estimated_as_well_as_is_said() {
    const VISITORS: usize = 20_000;
    let work = work_dir();
    let flags = ["--segment-rows-max=10000", "--stats-exact-visits-max=1000"];
    let daemon = Daemon::start_in(&work.path().join("data"), &flags);
    let code = daemon.register("example.com");
    send(&daemon, &code, VISITORS, VISITORS);
    daemon.wait_until_sealed();
    let ask = |more: &str| {
        let path = format!("/api/v1/stats?trackingCode={code}&from=2026-11-01&to=2026-11-01{more}");
        daemon.client().get(&path).json()
    };
    let visitors = VISITORS as f64;
    for more in ["", "&page=/*", "&page=!/7"] {
        let answer = ask(more);
        let (found, error) =
            (answer["metrics"]["visitors"].as_f64().unwrap(), answer["meta"]["visitorsError"].as_f64());
        assert_eq!(answer["meta"]["visitors"], "estimated", "{answer}");
        let error = error.unwrap();
        assert!(error > 0.0 && error < 0.05 && (found / visitors - 1.0).abs() < 3.0 * error, "{answer}");
        assert!((found - visitors).abs() > 0.5, "an estimate that is exact by chance: {answer}");
        let exact = ask(&format!("{more}&exact=true"));
        assert_eq!(
            (exact["metrics"]["visitors"].as_f64(), &exact["meta"]["visitors"]),
            (Some(visitors), &json!("exact"))
        );
        assert_eq!(exact["metrics"]["visits"], answer["metrics"]["visits"]);
    }
}

#[test]
fn an_answer_that_the_client_has_is_not_sent_again() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    send(&daemon, &code, 10, 5);
    let path = format!("/api/v1/stats?trackingCode={code}&from=2026-11-01&to=2026-11-01");
    let ask = |tag: &str| daemon.client().send("GET", &path, &[("if-none-match", tag)], b"");
    let first = ask("\"other\"");
    assert_eq!((first.status, first.header("cache-control")), (200, Some("private, no-cache")));
    let tag = first.header("etag").unwrap().to_owned();
    let again = ask(&format!("\"other\", W/{tag}"));
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag.as_str())));
    send(&daemon, &code, 1, 1);
    let changed = ask(&tag);
    assert!(changed.status == 200 && changed.header("etag") != Some(&tag), "{}", changed.text());
    assert_eq!(
        changed.json()["metrics"]["pageviews"].as_u64(),
        first.json()["metrics"]["pageviews"].as_u64().map(|n| n + 1)
    );
}

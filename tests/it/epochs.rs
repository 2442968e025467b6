//! Starts from copies: no id and no cursor of one run leads to another event in the other.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use harness::{Client, Daemon, command, event_with, work_dir};

/// Stores events whose session says which they are, in a batch; returns their ids.
fn store(client: &mut Client, code: &str, sessions: &[String]) -> Vec<String> {
    let events: Vec<_> = sessions.iter().map(|session| event_with(code, json!({ "sessionId": session }))).collect();
    let response = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
    assert_eq!(response.status, 201, "{}", response.text());
    let events = response.json();
    events["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

fn sessions(run: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{run}-{number}")).collect()
}

/// Each id leads to the event of its session.
fn assert_found(client: &mut Client, ids: &[String], sessions: &[String]) {
    for (id, session) in ids.iter().zip(sessions) {
        let response = client.get(&format!("/api/v1/events/{id}"));
        assert_eq!((response.status, &response.json()["sessionId"]), (200, &json!(session)), "{id}");
    }
}

fn assert_lost(client: &mut Client, ids: &[String]) {
    for id in ids {
        let response = client.get(&format!("/api/v1/events/{id}"));
        assert_eq!(response.status, 404, "{id} leads to {}", response.text());
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

fn cursor(client: &mut Client, code: &str) -> String {
    let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=2")).json();
    page["pagination"]["next"].as_str().unwrap().to_owned()
}

fn walk_on(client: &mut Client, code: &str, cursor: &str) -> u16 {
    client.get(&format!("/api/v1/events?trackingCode={code}&limit=2&cursor={cursor}")).status
}

#[test]
fn ids_of_lost_events_lead_nowhere_after_a_start_from_a_backup() {
    let work = work_dir();
    let path = |name: &str| work.path().join(name);
    let (data, backup) = (path("data"), path("backup"));
    let flags = ["--segment-rows-max", "60"];
    let daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    // One segment is full, and there are some in the next.
    let (old, lost, new) = (sessions("old", 90), sessions("lost", 90), sessions("new", 90));
    let old_ids = [store(&mut client, &code, &old[..60]), store(&mut client, &code, &old[60..])].concat();
    let old_cursor = cursor(&mut client, &code);
    let made = command(&["backup", "--data-dir", data.to_str().unwrap(), backup.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let lost_ids = store(&mut client, &code, &lost);
    let lost_cursor = cursor(&mut client, &code);
    assert_found(&mut client, &lost_ids, &lost);
    daemon.stop();
    copy(&backup, &path("again"));

    let mut seen: BTreeSet<String> = old_ids.iter().chain(&lost_ids).cloned().collect();
    for start in ["backup", "again"] {
        let daemon = Daemon::start_in(&path(start), &flags);
        daemon.wait_for_log("hitlog starts from a copy");
        let mut client = daemon.client();
        assert_lost(&mut client, &lost_ids);
        let new_ids = store(&mut client, &code, &new);
        assert_lost(&mut client, &lost_ids);
        assert_found(&mut client, &old_ids, &old);
        assert_found(&mut client, &new_ids, &new);
        for id in &new_ids {
            assert!(seen.insert(id.clone()), "{start}: {id} was given before");
        }
        let (of_old, of_lost) = (walk_on(&mut client, &code, &old_cursor), walk_on(&mut client, &code, &lost_cursor));
        assert_eq!((of_old, of_lost), (200, 400), "{start}: cursors");
        daemon.stop();
        // It is a backup only once.
        let daemon = Daemon::start_in(&path(start), &flags);
        assert!(!daemon.log().contains("starts from a copy"), "{}", daemon.log());
        let mut client = daemon.client();
        assert_lost(&mut client, &lost_ids);
        assert_found(&mut client, &old_ids, &old);
        assert_found(&mut client, &new_ids, &new);
        daemon.stop();
        let export = command(&["export", "--data-dir", path(start).to_str().unwrap()]).output().unwrap();
        let lines = String::from_utf8(export.stdout).unwrap();
        let exported: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let exported: Vec<_> = exported.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(exported, [&old_ids[..], &new_ids].concat(), "{start}: the export's ids are the API's");
    }
}

#[test]
fn a_backup_of_a_backup_is_one_and_another_copy_says_so_by_a_flag() {
    let work = work_dir();
    let path = |name: &str| work.path().join(name);
    let daemon = Daemon::start_in(&path("data"), &[]);
    let code = daemon.register("example.com");
    let old = sessions("old", 5);
    let old_ids = store(&mut daemon.client(), &code, &old);
    daemon.stop();
    copy(&path("data"), &path("snapshot"));
    let backup = |from: &str, to: &str| {
        let (from, to) = (path(from), path(to));
        let made = command(&["backup", "--data-dir", from.to_str().unwrap(), to.to_str().unwrap()]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    backup("data", "first");
    backup("first", "second");
    let daemon = Daemon::start_in(&path("data"), &[]);
    let lost = sessions("lost", 5);
    let lost_ids = store(&mut daemon.client(), &code, &lost);
    assert_found(&mut daemon.client(), &old_ids, &old);
    assert_found(&mut daemon.client(), &lost_ids, &lost);
    daemon.stop();
    for (start, flags) in [("second", &[][..]), ("snapshot", &["--restored"])] {
        let daemon = Daemon::start_in(&path(start), flags);
        let mut client = daemon.client();
        let new = sessions("new", 5);
        let new_ids = store(&mut client, &code, &new);
        assert_lost(&mut client, &lost_ids);
        assert_found(&mut client, &old_ids, &old);
        daemon.stop();
        // Said again by mistake, it takes nothing away.
        let daemon = Daemon::start_in(&path(start), &["--restored"]);
        let mut client = daemon.client();
        store(&mut client, &code, &sessions("newest", 5));
        assert_found(&mut client, &old_ids, &old);
        assert_found(&mut client, &new_ids, &new);
        assert_lost(&mut client, &lost_ids);
        daemon.stop();
    }
    assert!(!fs::read_dir(path("data")).unwrap().any(|entry| entry.unwrap().file_name() == "catalog.db.unfinished"));
}

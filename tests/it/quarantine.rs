//! Files that the catalog does not know: a backup copied over a live directory, a catalog of another day, kills while a
//! generation takes the place of another. Nothing that may hold an acknowledged event is ever unlinked.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::{Value, json};

use harness::{Daemon, command, event_with, wait_until, work_dir};

const FLAGS: [&str; 2] = ["--segment-rows-max", "60"];
const BATCH: usize = 20;

/// What a tool did.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn tool(data: &Path, arguments: &[&str]) -> Ran {
    let output = command(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Sends batches of events, and returns their ids in order.
fn send(daemon: &Daemon, code: &str, batches: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..batches {
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
        let events: Vec<Value> =
            (0..BATCH).map(|at| event_with(code, json!({"visitorId": format!("v{at}")}))).collect();
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{}", response.text());
        let stored = response.json();
        ids.extend(stored["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    ids
}

fn total(daemon: &Daemon, code: &str) -> u64 {
    let response = daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["pagination"]["total"].as_u64().unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &to);
        } else {
            // It may be one file under two names, which a copy onto itself would empty.
            fs::remove_file(&to).ok();
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// Everything that the files of the segments and the quarantine hold: which sequences.
fn sequences(data: &Path) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for folder in ["segments", "quarantine"] {
        for name in names(&data.join(folder)).iter().filter(|name| name.ends_with(".db")) {
            let connection = Connection::open(data.join(folder).join(name)).unwrap();
            let mut select =
                connection.prepare("SELECT id FROM Event").unwrap_or_else(|error| panic!("{name}: {error}"));
            found.extend(select.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(Result::unwrap));
        }
    }
    found
}

/// A live directory that went on after its backup was made, with the backup copied over it.
struct Overlaid {
    _work: tempfile::TempDir,
    data: PathBuf,
    code: String,
    ids: Vec<String>,
}

/// Eighty events, a backup, two hundred more, and the backup over all of it.
fn overlaid() -> Overlaid {
    let work = work_dir();
    let (data, backup) = (work.path().join("data"), work.path().join("backup"));
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let mut ids = send(&daemon, &code, 4);
    daemon.wait_until_sealed();
    assert_eq!(tool(&data, &["backup", backup.to_str().unwrap()]).code, 0);
    ids.extend(send(&daemon, &code, 10));
    daemon.wait_until_sealed();
    assert_eq!(total(&daemon, &code), 280);
    daemon.stop();
    copy_all(&backup, &data);
    Overlaid { _work: work, data, code, ids }
}

#[test]
fn a_backup_over_a_live_directory_deletes_nothing() {
    let Overlaid { data, code, ids, .. } = &overlaid();
    let before = sequences(data);
    assert_eq!(before.len(), 280);
    let daemon = Daemon::start_in(data, &FLAGS);
    daemon.wait_for_log("put into quarantine");
    assert_eq!(total(&daemon, code), 80);
    // Segments 2, 3 and 4 sealed, and the active one; the backup's own prepared segment had the number of one of them.
    assert_eq!(daemon.metrics()["hitlog_quarantined_files"], 4.0);
    let quarantined = names(&data.join("quarantine"));
    let kept = ["2.g2.db", "3.g2.db", "4.g2.db", "5.db"].map(|name| format!("00000000000{name}"));
    assert!(kept.iter().all(|name| quarantined.contains(name)), "{quarantined:?}");
    // What comes now has new sequences in segments with new numbers.
    let new = send(&daemon, code, 4);
    daemon.wait_until_sealed();
    assert_eq!(total(&daemon, code), 160);
    assert!(new.iter().all(|id| !ids.contains(id)), "an id is given once");
    let numbers: BTreeSet<String> = names(&data.join("segments")).into_iter().map(|name| name[..12].into()).collect();
    let wanted: BTreeSet<String> = [1, 2, 6, 7, 8].iter().map(|number| format!("{number:012}")).collect();
    assert_eq!(numbers, wanted, "a number is given once");
    daemon.stop();
    assert!(sequences(data).is_superset(&before));
    assert_eq!(sequences(data).len(), 360);
    // It goes on like this at every start.
    let daemon = Daemon::start_in(data, &FLAGS);
    assert_eq!((total(&daemon, code), daemon.metrics()["hitlog_quarantined_files"]), (160, 4.0));
    daemon.stop();
}

/// A catalog that is put back alone knows neither the generations nor the segments that came after it.
#[test]
fn a_catalog_of_another_day() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    send(&daemon, &code, 4);
    daemon.wait_until_sealed();
    daemon.stop();
    let catalog = fs::read(data.join("catalog.db")).unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    send(&daemon, &code, 10);
    daemon.wait_until_sealed();
    daemon.stop();
    let before = sequences(&data);
    assert_eq!(before.len(), 280);
    fs::write(data.join("catalog.db"), catalog).unwrap();
    let refused =
        command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    let log = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{log}");
    assert!(log.contains("000000000002.db is listed in catalog.db and is not there"), "{log}");
    assert!(log.contains("hitlog quarantine list") && log.contains("hitlog segments write-off 2"), "{log}");
    assert_eq!(sequences(&data), before, "nothing is gone");
}

/// What holds nothing is no reason for alarm, and what only a write-ahead log holds is one.
#[test]
fn what_is_empty_is_removed_and_what_cannot_be_read_is_kept() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    send(&daemon, &code, 4);
    daemon.wait_until_sealed();
    daemon.stop();
    let folder = data.join("segments");
    fs::write(folder.join("000000000009.db"), "").unwrap();
    fs::copy(folder.join("000000000003.db"), folder.join("000000000010.db")).unwrap();
    fs::write(folder.join("000000000011.db"), "neither a database nor nothing").unwrap();
    fs::write(folder.join("000000000012.db"), "").unwrap();
    fs::write(folder.join("000000000012.db-wal"), "a log without its database").unwrap();
    fs::write(folder.join("000000000001.g3.db"), "not a generation").unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!((total(&daemon, &code), daemon.segments("damaged")), (80, 0));
    let wanted = ["000000000001.g3.db", "000000000011.db", "000000000012.db", "000000000012.db-wal"];
    assert_eq!(names(&data.join("quarantine")), wanted.map(str::to_owned).into());
    assert_eq!(daemon.metrics()["hitlog_quarantined_files"], 3.0);
    send(&daemon, &code, 4);
    daemon.wait_until_sealed();
    assert!(names(&folder).contains("000000000013.g2.db"), "above every number that was there: {:?}", names(&folder));
    daemon.stop();
}

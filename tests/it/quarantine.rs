//! Files that the catalog does not know: a backup copied over a live directory, a catalog of another day, kills while a
//! generation takes the place of another. Nothing that may hold an acknowledged event is ever unlinked.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

use harness::{Daemon, command, event_with, tool, wait_until, work_dir};

const FLAGS: [&str; 2] = ["--segment-rows-max", "60"];
const BATCH: usize = 20;

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

/// A directory with so many batches, every full segment of it sealed, and nobody who serves from it.
struct Filled {
    _work: TempDir,
    data: PathBuf,
    code: String,
    ids: Vec<String>,
}

fn filled(batches: usize) -> Filled {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let ids = send(&daemon, &code, batches);
    daemon.wait_until_sealed();
    daemon.stop();
    Filled { _work: work, data, code, ids }
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

pub(crate) fn copy_all(from: &Path, to: &Path) {
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
            let path = data.join(folder).join(name);
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let mut select =
                connection.prepare("SELECT id FROM Event").unwrap_or_else(|error| panic!("{name}: {error}"));
            found.extend(select.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(Result::unwrap));
        }
    }
    found
}

/// A live directory that went on after its backup was made, with the backup copied over it.
struct Overlaid {
    _work: TempDir,
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

/// What was killed leaves write-ahead logs, which belong to files that were there before the backup's.
#[test]
fn a_backup_over_the_directory_of_a_killed_hitlog() {
    let work = work_dir();
    let (data, backup) = (work.path().join("data"), work.path().join("backup"));
    let mut daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    send(&daemon, &code, 1);
    assert_eq!(tool(&data, &["backup", backup.to_str().unwrap()]).code, 0);
    daemon.register("later.example");
    send(&daemon, &code, 1);
    daemon.crash();
    copy_all(&backup, &data);
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&daemon, &code), 20, "what the backup had");
    assert_eq!(daemon.client().get("/api/v1/websites").json()["total"], 1);
    daemon.wait_for_log("catalog.db-wal is the log of the one that was here before");
    daemon.wait_for_log("its write-ahead log is that of another file");
    let kept = names(&data.join("quarantine"));
    assert!(kept.contains("catalog.db-wal") && kept.contains("000000000001.db-wal"), "{kept:?}");
    assert_eq!(daemon.metrics()["hitlog_quarantined_files"], 2.0);
    send(&daemon, &code, 1);
    assert_eq!(total(&daemon, &code), 40);
    daemon.stop();
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&daemon, &code), 40);
    daemon.stop();
    let check = tool(&data, &["check"]);
    assert_eq!(check.out.matches("it is in quarantine").count(), 2, "{}", check.out);
    // Whom erasures are of may stand in the log of the catalog: it can be removed for good.
    assert!(tool(&data, &["quarantine", "list"]).out.contains("the log of another catalog.db"));
    assert_eq!(tool(&data, &["quarantine", "adopt", "catalog.db"]).code, 1);
    assert_eq!(tool(&data, &["quarantine", "discard", "catalog.db", "--yes"]).code, 0);
    assert!(!data.join("quarantine/catalog.db-wal").exists());
}

#[test]
fn a_backup_over_a_live_directory_deletes_nothing() {
    let Overlaid { data, code, ids, .. } = &overlaid();
    let before = sequences(data);
    assert_eq!(before.len(), 280);
    let daemon = Daemon::start_in(data, &FLAGS);
    daemon.wait_for_log("put into quarantine");
    assert!(!daemon.log().contains("`hitlog quarantine list`"), "a command that is told says where the data are");
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

/// What was put into quarantine comes back, segment by segment, and everything is in answers again.
#[test]
fn what_is_adopted_is_in_answers_again() {
    let Overlaid { data, code, ids, .. } = &overlaid();
    let before = sequences(data);
    let refused = |arguments: &[&str], words: &str| {
        let ran = tool(data, arguments);
        assert_ne!(ran.code, 0, "{}", ran.out);
        assert!(ran.err.contains(words), "{}", ran.err);
    };
    let daemon = Daemon::start_in(data, &FLAGS);
    refused(&["quarantine", "adopt", "2"], "is in use by another hitlog");
    let new = send(&daemon, code, 1);
    daemon.stop();
    let listing: Value = serde_json::from_str(&tool(data, &["quarantine", "list", "--json"]).out).unwrap();
    let files = listing["files"].as_array().unwrap();
    let told: Vec<_> = files.iter().map(|file| (&file["segment"], &file["events"], &file["lastSequence"])).collect();
    let wanted = [(2, 60, 120), (3, 60, 180), (4, 60, 240), (5, 40, 280)];
    let wanted = wanted.map(|(segment, events, last)| (json!(segment), json!(events), json!(last)));
    assert_eq!(told, wanted.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>(), "{listing:#}");
    let table = tool(data, &["quarantine", "list"]).out;
    assert!(table.contains("000000000004.g2.db") && table.contains("181-240"), "{table}");
    let check = tool(data, &["check"]);
    assert_eq!(check.code, 1, "{}", check.out);
    assert_eq!(check.out.matches("it is in quarantine and holds").count(), 4, "{}", check.out);
    assert!(tool(data, &["segments"]).out.contains("4 files in quarantine"));
    assert!(
        tool(data, &["backup", data.with_extension("copy").to_str().unwrap()]).out.contains("4 files in quarantine")
    );
    refused(&["quarantine", "adopt", "9"], "nothing in quarantine is called 9");
    // In any order; the second takes the place of what the backup had of it.
    for (which, words) in
        [("4", "60 events"), ("5", "40 events, without indexes"), ("2", "in the place of"), ("3", "60")]
    {
        let ran = tool(data, &["quarantine", "adopt", which]);
        assert_eq!(ran.code, 0, "{which}: {}", ran.err);
        assert!(ran.out.contains(words), "{}", ran.out);
    }
    assert_eq!(tool(data, &["quarantine", "list"]).out, "nothing is in quarantine\n");
    let daemon = Daemon::start_in(data, &FLAGS);
    daemon.wait_until_sealed();
    assert_eq!((total(&daemon, code), daemon.metrics()["hitlog_quarantined_files"]), (300, 0.0));
    for id in ids.iter().chain(&new) {
        assert_eq!(daemon.client().get(&format!("/api/v1/events/{id}")).status, 200);
    }
    send(&daemon, code, 4);
    daemon.wait_until_sealed();
    assert_eq!(total(&daemon, code), 380);
    daemon.stop();
    assert!(sequences(data).is_superset(&before));
    let check = tool(data, &["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
}

/// Nothing that is listed is replaced by less, and nothing is listed twice.
#[test]
fn what_does_not_fit_stays_in_quarantine() {
    let Filled { data, code, _work, .. } = filled(7);
    let (folder, quarantine) = (data.join("segments"), data.join("quarantine"));
    // Another generation of a sound segment that has less, and a copy of one under a number of its own.
    let sealed = |number: u64| folder.join(format!("{number:012}.g2.db"));
    fs::copy(sealed(1), folder.join("000000000001.g3.db")).unwrap();
    let less = Connection::open(folder.join("000000000001.g3.db")).unwrap();
    less.execute_batch("DELETE FROM Event WHERE id = 7").unwrap();
    drop(less);
    fs::copy(sealed(2), folder.join("000000000009.g2.db")).unwrap();
    let active = folder.join("000000000003.db");
    fs::copy(&active, folder.join("000000000010.db")).unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!((total(&daemon, &code), daemon.metrics()["hitlog_quarantined_files"]), (140, 3.0));
    daemon.stop();
    let before = names(&quarantine);
    for (which, words) in [
        ("000000000001.g3.db", "is damaged"),
        ("000000000009.g2.db", ""),
        ("10", "segment 3 is listed with 121 to 140"),
    ] {
        let ran = tool(&data, &["quarantine", "adopt", which]);
        if which == "000000000009.g2.db" {
            // It says that it is segment 2, and has all of it.
            assert_eq!(ran.code, 0, "{}", ran.err);
            continue;
        }
        assert_eq!(ran.code, 1, "{which}: {}", ran.out);
        assert!(ran.err.contains(words), "{}", ran.err);
    }
    assert_eq!(before.difference(&names(&quarantine)).count(), 1);
    let ran = tool(&data, &["quarantine", "discard", "10"]);
    assert_eq!((ran.code, names(&quarantine).len()), (1, 2), "{}", ran.out);
    assert!(ran.out.contains("20 events, sequences 121 to 140"), "{}", ran.out);
    assert_eq!(tool(&data, &["quarantine", "discard", "10", "--yes"]).code, 0);
    assert_eq!(tool(&data, &["quarantine", "discard", "000000000001.g3.db", "--yes"]).code, 0);
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!((total(&daemon, &code), daemon.metrics()["hitlog_quarantined_files"]), (140, 0.0));
    daemon.stop();
    let check = tool(&data, &["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
}

/// An erasure waits for what is lost, damaged or in quarantine, says so, and ends when that is dealt with.
#[test]
fn erasures_end_when_what_they_wait_for_is_dealt_with() {
    let Filled { data, code, _work, .. } = filled(10);
    let sealed = |number: u64| data.join(format!("segments/{number:012}.g2.db"));
    fs::remove_file(sealed(1)).unwrap();
    fs::write(sealed(2), "no database").unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    let erased = daemon.client().send("DELETE", &format!("/api/v1/visitors/v3?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    let id = erased.json()["id"].as_str().unwrap().to_owned();
    let erasure = |daemon: &Daemon| daemon.client().get(&format!("/api/v1/erasures/{id}")).json();
    let waits_for = |daemon: &Daemon, words: &[&str]| {
        let waits = wait_until("only what can't be reached is left", || {
            let erasure = erasure(daemon);
            assert_eq!(erasure["state"], "running", "{erasure:#}");
            let waits = erasure["waitsFor"].as_array().unwrap().clone();
            (waits.len() == words.len()).then_some(waits)
        });
        for (wait, words) in waits.iter().zip(words) {
            assert!(wait.as_str().unwrap().contains(words), "{wait}: {words}");
            // Whoever may read need not know where the data are, and looks before anything goes.
            let folder = data.file_name().unwrap().to_str().unwrap();
            assert!(!["--data-dir", "--yes", &format!("/{folder}")].iter().any(|told| wait.to_string().contains(told)));
        }
    };
    assert!(erased.json()["waitsFor"].as_array().unwrap().len() > 2, "{}", erased.text());
    waits_for(&daemon, &["`hitlog segments write-off 1`", "`hitlog segments write-off 2`"]);
    daemon.wait_for_log("give it up (`hitlog segments write-off 1 ");
    daemon.stop();

    let sound = tool(&data, &["segments", "write-off", "3", "--yes"]);
    assert_eq!(sound.code, 1, "{}", sound.out);
    assert!(sound.err.contains("segment 3 is sound"), "{}", sound.err);
    let told = tool(&data, &["segments", "write-off", "1"]);
    assert_eq!(told.code, 1);
    for words in ["is lost", "60 events, sequences 1 to 60, from 20", "Nothing was changed: say --yes"] {
        assert!(told.out.contains(words), "{}", told.out);
    }
    let listed = tool(&data, &["segments"]).out;
    assert!(listed.contains("missing") && listed.contains("damaged"), "{listed}");
    for (number, words) in
        [("1", "Erasures that waited for it go on"), ("2", "quarantine discard 000000000002.g2.db --data-dir=")]
    {
        let ran = tool(&data, &["segments", "write-off", number, "--yes"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains(words) && !ran.out.contains("--yes"), "{}", ran.out);
    }
    assert_eq!(tool(&data, &["segments", "write-off", "1", "--yes"]).code, 1, "it is none any more");
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(daemon.segments("damaged"), 0);
    daemon.wait_for_log("an erasure can't end");
    waits_for(&daemon, &["1 file in quarantine"]);
    daemon.stop();
    assert_eq!(tool(&data, &["quarantine", "discard", "000000000002.g2.db", "--yes"]).code, 0);
    let daemon = Daemon::start_in(&data, &FLAGS);
    let done =
        wait_until("the erasure is done", || Some(erasure(&daemon)).filter(|erasure| erasure["state"] == "done"));
    assert_eq!((&done["waitsFor"], &done["rows"]), (&json!([]), &json!(4)), "{done:#}");
    daemon.stop();
    let check = tool(&data, &["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
}

/// Nobody knows which sequences a lost active segment had: those that come are above all that it can have had.
#[test]
fn a_lost_active_segment_is_written_off() {
    let Filled { data, code, ids, _work } = filled(4);
    fs::remove_file(data.join("segments/000000000002.db")).unwrap();
    let refused =
        command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("hitlog segments write-off 2"));
    let ran = tool(&data, &["segments", "write-off", "2", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("events that nobody has counted"), "{}", ran.out);
    let daemon = Daemon::start_in(&data, &FLAGS);
    let new = send(&daemon, &code, 4);
    assert_eq!(total(&daemon, &code), 140);
    assert!(new.iter().all(|id| !ids.contains(id)));
    daemon.wait_until_sealed();
    daemon.stop();
    let after = sequences(&data);
    assert!(after.range(61..).next().is_some_and(|first| *first > 1 << 40), "{after:?}");
    assert!(!data.join("segments/000000000002.db").exists(), "nor is its number given again");
    let check = tool(&data, &["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
}

/// A catalog that is put back alone knows neither the generations nor the segments that came after it.
#[test]
fn a_catalog_of_another_day() {
    let Filled { data, code, _work, .. } = filled(4);
    let catalog = fs::read(data.join("catalog.db")).unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    send(&daemon, &code, 10);
    daemon.wait_until_sealed();
    daemon.stop();
    let before = (sequences(&data), names(&data.join("segments")));
    assert_eq!(before.0.len(), 280);
    let right = fs::read(data.join("catalog.db")).unwrap();
    let refused = |flags: &[&str]| {
        fs::write(data.join("catalog.db"), &catalog).unwrap();
        let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
        let ran = serve.args(flags).output().unwrap();
        let log = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{log}");
        assert!(log.contains("000000000002.db is listed in catalog.db and is not there"), "{log}");
        assert!(log.contains("hitlog quarantine list") && log.contains("hitlog segments write-off 2"), "{log}");
    };
    refused(&[]);
    assert_eq!((sequences(&data), names(&data.join("segments"))), before, "nothing is changed");
    fs::write(data.join("catalog.db"), &right).unwrap();
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&daemon, &code), 280, "with the right one nothing has happened");
    daemon.stop();
    // Where that is lost.
    refused(&["--restored"]);
    assert_eq!(sequences(&data), before.0, "nothing is gone");
    for number in ["2", "3", "4", "5"] {
        let ran = tool(&data, &["quarantine", "adopt", number]);
        assert_eq!(ran.code, 0, "{number}: {}", ran.err);
    }
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&daemon, &code), 280, "everything is back");
    send(&daemon, &code, 4);
    daemon.wait_until_sealed();
    assert_eq!(total(&daemon, &code), 360);
    daemon.stop();
    assert_eq!(sequences(&data).len(), 360);
    let check = tool(&data, &["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
}

/// What holds nothing is no reason for alarm, and what only a write-ahead log holds is one.
#[test]
fn what_is_empty_is_removed_and_what_cannot_be_read_is_kept() {
    let Filled { data, code, _work, .. } = filled(4);
    let folder = data.join("segments");
    fs::write(folder.join("000000000009.db"), "").unwrap();
    fs::copy(folder.join("000000000003.db"), folder.join("000000000010.db")).unwrap();
    fs::write(folder.join("000000000011.db"), "neither a database nor nothing").unwrap();
    fs::write(folder.join("000000000012.db"), "").unwrap();
    fs::write(folder.join("000000000012.db-wal"), "a log without its database").unwrap();
    fs::write(folder.join("000000000001.g3.db"), "not a generation").unwrap();
    // Numbers and sequences that hitlog never gave do not end those that it gives.
    let absurd = folder.join("999999999999.db");
    fs::copy(folder.join("000000000002.db"), &absurd).unwrap();
    let absurd = Connection::open(absurd).unwrap();
    assert_eq!(absurd.execute("UPDATE Event SET id = ?1 WHERE id = 61", [i64::MAX]).unwrap(), 1);
    drop(absurd);
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!((total(&daemon, &code), daemon.segments("damaged")), (80, 0));
    let wanted = ["000000000001.g3.db", "000000000011.db", "000000000012.db", "000000000012.db-wal", "999999999999.db"];
    let quarantined: Vec<_> =
        names(&data.join("quarantine")).into_iter().filter(|name| !name.ends_with("-shm")).collect();
    assert_eq!(quarantined, wanted);
    assert_eq!(daemon.metrics()["hitlog_quarantined_files"], 4.0);
    send(&daemon, &code, 4);
    daemon.wait_until_sealed();
    assert!(names(&folder).contains("000000000013.g2.db"), "above every number that was there: {:?}", names(&folder));
    daemon.stop();
}

/// A catalog of the second version knows no leftovers: what an older hitlog can have left is removed, and an interrupted
/// seal, which may as well be a generation of another day, is kept.
#[test]
fn a_catalog_of_an_older_hitlog_with_an_interrupted_rewriting() {
    let Filled { data, code, _work, .. } = filled(7);
    let folder = data.join("segments");
    let sealed = |number: u64, generation: u64| folder.join(format!("{number:012}.g{generation}.db"));
    // Replaced by a seal, and about to be by an erasure.
    fs::copy(sealed(1, 2), folder.join("000000000001.db")).unwrap();
    fs::copy(sealed(2, 2), sealed(2, 3)).unwrap();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog
        .execute_batch(
            "ALTER TABLE Log ADD COLUMN node INTEGER NOT NULL DEFAULT 0;
             ALTER TABLE Log ADD COLUMN idKey BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
             UPDATE Log SET idKey = (SELECT idKey FROM Epoch);
             DROP TABLE Leftover; DROP TABLE Quarantine; DROP TABLE WrittenOff; DROP TABLE Damage; DROP TABLE Epoch;
             DROP TABLE Expiry; DROP TABLE Backup; DROP TABLE Clock; DROP TABLE OpenSegment;
             ALTER TABLE Log DROP COLUMN numberFloor;
             ALTER TABLE Segment DROP COLUMN rows; ALTER TABLE Segment DROP COLUMN digest;
             ALTER TABLE Segment DROP COLUMN firstSequence; ALTER TABLE Segment DROP COLUMN lastSequence;
             ALTER TABLE Segment DROP COLUMN firstCreatedAt; ALTER TABLE Segment DROP COLUMN lastCreatedAt;
             DROP TABLE ShipTarget; DROP TABLE ShipNode; DROP TABLE ShipRange; DROP TABLE ShipDead;
             DROP TABLE ShipErasure; ALTER TABLE Website DROP COLUMN timezone;
             ALTER TABLE Website DROP COLUMN hosts; ALTER TABLE Website DROP COLUMN goals;
             ALTER TABLE Website DROP COLUMN hostsPolicy; ALTER TABLE Website DROP COLUMN gpc;
             DROP TABLE RetiredCode;
             PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(catalog);
    assert!(tool(&data, &["segments"]).out.contains("sealed"), "tools read it as it is");
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!((total(&daemon, &code), daemon.metrics()["hitlog_quarantined_files"]), (140, 0.0));
    daemon.stop();
    let left = names(&folder);
    let sealed: Vec<_> = left.iter().filter(|name| name.contains(".g") || name.contains("0001.db")).collect();
    assert_eq!(sealed, ["000000000001.g2.db", "000000000002.g2.db"]);
    assert_eq!(tool(&data, &["check"]).code, 0);
}

/// A catalog that was copied while a generation was about to be listed calls that a leftover. Put back when much has come
/// since, it must not have the start remove it.
#[test]
fn a_leftover_of_another_day_is_not_removed() {
    let Overlaid { data, code, .. } = &overlaid();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog.execute("INSERT INTO Leftover VALUES(2, 2)", []).unwrap();
    drop(catalog);
    let before = sequences(data);
    let daemon = Daemon::start_in(data, &FLAGS);
    assert_eq!((total(&daemon, code), daemon.metrics()["hitlog_quarantined_files"]), (80, 4.0));
    daemon.stop();
    assert_eq!(sequences(data), before);
}

/// An active segment whose pages were overwritten keeps hitlog from starting; given up, it does not.
#[test]
fn a_damaged_active_segment_is_written_off() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("example.com");
    send(&daemon, &code, 3);
    daemon.crash();
    let active = data.join("segments/000000000001.db");
    assert!(fs::metadata(active.with_extension("db-wal")).unwrap().len() > 0);
    fs::write(&active, "no database").unwrap();
    let refused =
        command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let ran = tool(&data, &["segments", "write-off", "1", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let kept = names(&data.join("quarantine"));
    assert!(kept.contains("000000000001.db") && kept.contains("000000000001.db-wal"), "{kept:?}");
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!(total(&daemon, &code), 0);
    send(&daemon, &code, 1);
    assert_eq!(total(&daemon, &code), 20);
    daemon.stop();
}

/// A file of a segment that was written off turns up again: whose events were erased since, nobody knows any more.
#[test]
fn what_was_written_off_brings_nobody_back() {
    for is_erased in [true, false] {
        let Filled { data, code, _work, .. } = filled(7);
        let (listed, kept) = (data.join("segments/000000000001.g2.db"), data.join("kept"));
        fs::copy(&listed, &kept).unwrap();
        fs::remove_file(&listed).unwrap();
        let daemon = Daemon::start_in(&data, &FLAGS);
        let erase = |visitor: &str| {
            let path = format!("/api/v1/visitors/{visitor}?trackingCode={code}");
            let erased = daemon.client().send("DELETE", &path, &[], b"");
            assert_eq!(erased.status, 202, "{}", erased.text());
            erased.json()["id"].as_str().unwrap().to_owned()
        };
        let ids = if is_erased { ["v3", "v4"].map(erase).to_vec() } else { Vec::new() };
        daemon.stop();
        let told = tool(&data, &["segments", "write-off", "1"]).out;
        assert_eq!(told.contains("without proof"), is_erased, "{told}");
        assert!(ids.iter().all(|id| told.contains(id)), "{told}");
        assert_eq!(tool(&data, &["segments", "write-off", "1", "--yes"]).code, 0);
        // A copy of the catalog knows it as well.
        let backup = data.with_file_name("backup");
        assert_eq!(tool(&data, &["backup", backup.to_str().unwrap()]).code, 0);
        for data in [&data, &backup] {
            let daemon = Daemon::start_in(data, &FLAGS);
            for id in &ids {
                wait_until("the erasure is done", || {
                    let erasure = daemon.client().get(&format!("/api/v1/erasures/{id}")).json();
                    (erasure["state"] == "done").then_some(())
                });
            }
            let left = total(&daemon, &code);
            daemon.stop();
            fs::copy(&kept, data.join("segments/000000000001.g2.db")).unwrap();
            Daemon::start_in(data, &FLAGS).stop();
            let adopted = tool(data, &["quarantine", "adopt", "1"]);
            if is_erased {
                assert_eq!(adopted.code, 1, "{}", adopted.out);
                for words in ["segment 1 was written off", "hitlog quarantine discard 000000000001.g2.db --data-dir"] {
                    assert!(adopted.err.contains(words), "{}", adopted.err);
                }
                assert!(!adopted.err.contains("--yes"), "nobody has seen yet what would go: {}", adopted.err);
                let discard = ["quarantine", "discard", "000000000001.g2.db", "--yes"];
                assert_eq!(tool(data, &discard).code, 0, "discarded");
            } else {
                assert_eq!(adopted.code, 0, "{}", adopted.err);
            }
            let daemon = Daemon::start_in(data, &FLAGS);
            assert_eq!(total(&daemon, &code), left + if is_erased { 0 } else { 60 });
            daemon.stop();
        }
    }
}

/// A number that hitlog never gives would leave no number for the segments to come.
#[test]
fn a_number_that_is_never_given_is_not_adopted() {
    let Filled { data, code, _work, .. } = filled(4);
    let quarantine = data.join("quarantine");
    fs::create_dir(&quarantine).unwrap();
    fs::copy(data.join("segments/000000000002.db"), quarantine.join("999999999999.db")).unwrap();
    let adopted = tool(&data, &["quarantine", "adopt", "999999999999.db"]);
    assert_eq!(adopted.code, 1, "{}", adopted.out);
    assert!(adopted.err.contains("a number that hitlog never gives"), "{}", adopted.err);
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!(total(&daemon, &code), 80);
    daemon.stop();
}

/// What a check says to do about a file helps, whatever the file is called.
#[test]
fn what_no_name_of_hitlogs_has_is_told_with_what_helps() {
    let Filled { data, code, _work, .. } = filled(4);
    let segments = data.join("segments");
    let names_of = ["000000000007.g1.db", "000000000008.g02.db", "+00000000009.db", "000000000006.g3.db"];
    for name in names_of {
        fs::copy(segments.join("000000000001.g2.db"), segments.join(name)).unwrap();
    }
    Connection::open(segments.join("notes.db")).unwrap().execute_batch("CREATE TABLE Note(text)").unwrap();
    let check = || {
        let checked = tool(&data, &["check"]);
        assert_eq!(checked.code, 1, "{}", checked.out);
        checked.out
    };
    let told = check();
    assert!(told.contains("notes.db: not one of the catalog's files"), "{told}");
    assert_eq!(told.matches("hitlog gives no file such a name, and leaves it alone").count(), 3, "{told}");
    assert_eq!(told.matches("start hitlog anew, which puts it into quarantine").count(), 1, "{told}");
    let daemon = Daemon::start_in(&data, &FLAGS);
    assert_eq!((total(&daemon, &code), daemon.metrics()["hitlog_quarantined_files"]), (80, 1.0));
    daemon.stop();
    let told = check();
    assert!(!told.contains("start hitlog anew"), "{told}");
    assert!(names_of[..3].iter().all(|name| segments.join(name).exists()), "{told}");
    fs::copy(segments.join(names_of[0]), data.join("quarantine/000000000007.g2.db")).unwrap();
    let listed = tool(&data, &["quarantine", "list"]);
    assert!(listed.out.contains("000000000007.g2.db"), "{}", listed.out);
}

/// Folders with the names of files that hitlog leaves behind are not hitlog's: they keep nobody from starting.
#[test]
fn folders_that_are_called_like_files_are_left_alone() {
    let Filled { data, code, _work, .. } = filled(4);
    let names = [
        "000000000001.building",
        "000000000009.making",
        "000000000007.hidden-3",
        "000000000002.laying",
        "000000000002.db-keys",
        "000000000008.db",
        "000000000001.g7.db",
    ];
    let folders: Vec<_> = names.iter().map(|name| data.join("segments").join(name)).collect();
    folders.iter().for_each(|folder| fs::create_dir_all(folder.join("x")).unwrap());
    fs::create_dir_all(data.join("quarantine/000000000004.db")).unwrap();
    fs::create_dir_all(data.join("scratch/etilqs_x")).unwrap();
    // Whoever opened it would wait for ever.
    let pipe = data.join("segments/000000000006.db");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let check = tool(&data, &["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
    let daemon = Daemon::start_in(&data, &FLAGS);
    daemon.wait_for_log("000000000001.building");
    daemon.wait_for_log("it is left alone; give it another name");
    send(&daemon, &code, 8);
    assert_eq!(total(&daemon, &code), 240);
    let erased = daemon.client().send("DELETE", &format!("/api/v1/visitors/v3?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    assert_eq!(total(&daemon, &code), 228);
    // One stands in the way of the rewriting, and that is said.
    let path = format!("/api/v1/erasures/{}", erased.json()["id"].as_str().unwrap());
    let waits = |daemon: &Daemon| daemon.client().get(&path).json()["waitsFor"].to_string();
    wait_until("it is told", || waits(&daemon).contains("segment 1, which could not be rewritten").then_some(()));
    daemon.wait_for_log("000000000001.building is no file of hitlog's, and is in the way");
    daemon.stop();
    assert!(folders.iter().all(|folder| folder.join("x").is_dir()) && pipe.exists(), "nothing was touched");
}

/// A segment that turns out to be damaged before it has its indexes is told to whoever waits for an erasure.
#[test]
fn an_erasure_tells_of_a_damaged_segment_without_indexes() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("example.com");
    let events = vec![event_with(&code, json!({"properties": {"long": "x".repeat(4_000)}})); 100];
    let sent = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
    assert_eq!(sent.status, 201, "{}", sent.text());
    daemon.stop();
    let daemon = Daemon::start_in(&data, &[]);
    send(&daemon, &code, 1);
    let active = data.join("segments/000000000001.db");
    let page = 16 * 1024;
    assert!(fs::metadata(&active).unwrap().len() > 12 * page);
    fs::File::options().write(true).open(&active).unwrap().write_all_at(&vec![7; page as usize], 6 * page).unwrap();
    let erased = daemon.client().send("DELETE", &format!("/api/v1/visitors/v3?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    let path = format!("/api/v1/erasures/{}", erased.json()["id"].as_str().unwrap());
    wait_until("the damage is told", || {
        let erasure = daemon.client().get(&path).json();
        assert_eq!(erasure["state"], "running", "{erasure:#}");
        let waits = erasure["waitsFor"].to_string();
        (waits.contains("segment 1, whose file is damaged") && waits.contains("write-off 1`")).then_some(())
    });
    daemon.stop();
}

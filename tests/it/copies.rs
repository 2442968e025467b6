//! Copies that `hitlog backup` did not make, put over a directory or in the place of one of its files. What the copy has
//! is in answers, no id leads to another event, and what came after the copy is in quarantine or told of.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use harness::{Daemon, command, event_with, side_by_side, tool, wait_until, work_dir};

const FLAGS: [&str; 2] = ["--segment-rows-max", "60"];
const BATCH: usize = 20;
const ACTIVE: &str = "segments/000000000002.db";

/// Events as they were stored: the id, and the session, which no other event has.
type Stored = Vec<(String, String)>;

fn send(daemon: &Daemon, code: &str, run: &str, batches: usize) -> Stored {
    let mut stored = Vec::new();
    for batch in 0..batches {
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
        let sessions: Vec<String> = (0..BATCH).map(|at| format!("{run}-{batch}-{at}")).collect();
        let events: Vec<Value> =
            sessions.iter().map(|session| event_with(code, json!({ "sessionId": session }))).collect();
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{}", response.text());
        let answer = response.json();
        let ids = answer["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned());
        stored.extend(ids.zip(sessions));
    }
    stored
}

fn total(daemon: &Daemon, code: &str) -> usize {
    let response = daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["pagination"]["total"].as_u64().unwrap() as usize
}

/// Each id leads to its event; `may_be_lost`: or nowhere, but never to another.
fn assert_found(daemon: &Daemon, stored: &Stored, may_be_lost: bool, why: &str) {
    let mut client = daemon.client();
    for (id, session) in stored {
        let response = client.get(&format!("/api/v1/events/{id}"));
        if response.status != 404 || !may_be_lost {
            assert_eq!((response.status, &response.json()["sessionId"]), (200, &json!(session)), "{why}: {id}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    // What a backup shares with the original is one file under two names.
    let copied = Command::new("cp").args(["-a", "--remove-destination"]).args([from, to]).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

/// What a start says that ends at once.
fn refused(data: &Path, flags: &[&str]) -> String {
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    let ran = serve.args(FLAGS).args(flags).output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stderr).unwrap()
}

/// Every file, and what is in it, but for what only a running hitlog reads.
fn contents(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in [data.to_owned(), data.join("segments"), data.join("quarantine")] {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_file() && name != "lock" && !name.ends_with("-shm") {
                found.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Made {
    /// Of a directory that nobody serves from.
    Stopped,
    /// By `hitlog backup`, and started once.
    StartedOnce,
}

/// Eighty events, of which twenty are in the active segment, and a copy of that; nobody serves from either.
struct Copied {
    _work: TempDir,
    data: PathBuf,
    copy: PathBuf,
    code: String,
    old: Stored,
}

fn copied(made: Made) -> Copied {
    let work = work_dir();
    let (data, to) = (work.path().join("data"), work.path().join("copy"));
    let daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let old = send(&daemon, &code, "old", 4);
    daemon.wait_until_sealed();
    daemon.stop();
    match made {
        Made::Stopped => copy(&data, &to),
        Made::StartedOnce => {
            assert_eq!(tool(&data, &["backup", to.to_str().unwrap()]).code, 0);
            Daemon::start_in(&to, &FLAGS).stop();
        }
    }
    assert!(!data.join("wal-tags").exists() && !to.join("wal-tags").exists(), "they are there while hitlog runs");
    Copied { _work: work, data, copy: to, code, old }
}

impl Copied {
    /// So many batches more, and a website, and then a kill.
    fn go_on(&self, batches: usize) -> Stored {
        let mut daemon = Daemon::start_in(&self.data, &FLAGS);
        let lost = send(&daemon, &self.code, "lost", batches);
        daemon.register("later.example");
        if batches > 3 {
            daemon.wait_until_sealed();
        }
        daemon.crash();
        assert!(self.data.join("wal-tags").exists());
        lost
    }

    /// What is served now has the copy's events, `total` in all, and goes on without giving an id again.
    fn check(&self, lost: &Stored, served: usize, why: &str) -> Stored {
        let Self { data, code, old, .. } = self;
        let daemon = Daemon::start_in(data, &FLAGS);
        assert_eq!(total(&daemon, code), served, "{why}");
        assert_found(&daemon, old, false, why);
        assert_found(&daemon, lost, true, why);
        let new = send(&daemon, code, "new", 8);
        daemon.wait_until_sealed();
        assert_eq!(total(&daemon, code), served + new.len(), "{why}");
        for stored in [old, &new] {
            assert_found(&daemon, stored, false, why);
        }
        assert_found(&daemon, lost, true, why);
        let known: BTreeSet<&String> = old.iter().chain(lost).map(|(id, _)| id).collect();
        assert!(new.iter().all(|(id, _)| !known.contains(id)), "{why}: an id is given once");
        daemon.stop();
        let check = tool(data, &["check"]);
        for line in check.out.lines().filter(|line| line.contains(".db")) {
            assert!(line.contains("quarantine"), "{why}: {}", check.out);
        }
        let daemon = Daemon::start_in(data, &FLAGS);
        assert_eq!(total(&daemon, code), served + new.len(), "{why}");
        daemon.stop();
        new
    }
}

#[test]
fn a_copy_over_the_directory_of_a_killed_hitlog() {
    let cases = [Made::Stopped, Made::StartedOnce].into_iter().flat_map(|made| [1, 10].map(|batches| (made, batches)));
    side_by_side(cases, |(made, batches)| {
        let why = format!("{made:?}, {batches}");
        let copied = copied(made);
        let lost = copied.go_on(batches);
        copy(&copied.copy.join("."), &copied.data);
        // What only reads passes over the logs of others, too.
        let events = copied.old.len();
        assert_eq!(tool(&copied.data, &["export"]).out.lines().count(), events, "{why}");
        let backup = copied.data.with_extension("backup");
        assert_eq!(tool(&copied.data, &["backup", backup.to_str().unwrap()]).code, 0, "{why}");
        let daemon = Daemon::start_in(&backup, &FLAGS);
        assert_eq!(total(&daemon, &copied.code), events, "{why}: in a backup");
        daemon.stop();
        copied.check(&lost, events, &why);
        let quarantine = copied.data.join("quarantine");
        // What was active when it was killed; by then the copy's active segment was sealed, or had a log.
        let active = if batches == 1 { "000000000002.db-wal" } else { "000000000005.db" };
        for kept in ["catalog.db-wal", active] {
            assert!(quarantine.join(kept).exists(), "{why}: {kept} is not in quarantine");
        }
    });
}

#[test]
fn an_older_catalog_over_that_of_a_killed_hitlog() {
    side_by_side([Made::Stopped, Made::StartedOnce], |made| {
        let why = format!("{made:?}");
        let copied = copied(made);
        let lost = copied.go_on(1);
        copy(&copied.copy.join("catalog.db"), &copied.data);
        // The active segment is the same one, with its own log.
        copied.check(&lost, copied.old.len() + lost.len(), &why);
        assert!(copied.data.join("quarantine/catalog.db-wal").exists(), "{why}");
    });
}

/// What the older catalog lists as active was sealed since: nothing is changed, so that the right one can be put back.
#[test]
fn an_older_catalog_that_lists_what_is_gone_is_refused_before_anything_changes() {
    let copied = copied(Made::Stopped);
    let lost = copied.go_on(10);
    let right = copied.data.with_extension("right");
    copy(&copied.data.join("catalog.db"), &right);
    copy(&copied.copy.join("catalog.db"), &copied.data);
    let before = contents(&copied.data);
    let message = refused(&copied.data, &[]);
    assert!(message.contains("000000000002.db is listed in catalog.db and is not there"), "{message}");
    assert!(before == contents(&copied.data), "a refused start has changed something");
    copy(&right, &copied.data.join("catalog.db"));
    let daemon = Daemon::start_in(&copied.data, &FLAGS);
    assert_eq!(total(&daemon, &copied.code), 280);
    assert_found(&daemon, &lost, false, "the right one is back");
    assert_eq!(daemon.client().get("/api/v1/websites").json()["total"], 2, "with its log");
    daemon.stop();
    assert!(!copied.data.join("quarantine").exists());
}

#[test]
fn an_older_active_segment_over_that_of_a_killed_hitlog() {
    side_by_side([Made::Stopped, Made::StartedOnce], |made| {
        let why = format!("{made:?}");
        let copied = copied(made);
        let lost = copied.go_on(1);
        copy(&copied.copy.join(ACTIVE), &copied.data.join(ACTIVE));
        copied.check(&lost, copied.old.len(), &why);
        assert!(copied.data.join("quarantine/000000000002.db-wal").exists(), "{why}");
    });
}

/// The catalog knows how far a segment without indexes goes.
#[test]
fn an_older_active_segment_is_refused_and_a_person_may_go_on_with_it() {
    let copied = copied(Made::Stopped);
    let daemon = Daemon::start_in(&copied.data, &FLAGS);
    let mut lost = send(&daemon, &copied.code, "lost", 1);
    daemon.stop();
    let right = copied.data.with_extension("right");
    copy(&copied.data.join(ACTIVE), &right);
    for is_killed in [false, true] {
        copy(&copied.copy.join(ACTIVE), &copied.data.join(ACTIVE));
        let before = contents(&copied.data);
        let message = refused(&copied.data, &[]);
        for words in ["holds events up to sequence 80", "up to sequence 100", "--restored", "with its -wal"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        let check = tool(&copied.data, &["check"]);
        assert!(check.code == 1 && check.out.contains("it is an older copy"), "{}", check.out);
        assert!(before == contents(&copied.data), "a refused start has changed something");
        copy(&right, &copied.data.join(ACTIVE));
        let mut daemon = Daemon::start_in(&copied.data, &FLAGS);
        assert_found(&daemon, &lost, false, "the right one is back");
        assert_eq!(total(&daemon, &copied.code), 100);
        if is_killed {
            lost.extend(send(&daemon, &copied.code, "killed", 1));
            daemon.crash();
        } else {
            daemon.stop();
        }
    }
    copy(&copied.copy.join(ACTIVE), &copied.data.join(ACTIVE));
    assert!(refused(&copied.data, &[]).contains("it is an older copy"));
    let daemon = Daemon::start_in(&copied.data, &[&FLAGS[..], &["--restored"]].concat());
    assert_eq!(total(&daemon, &copied.code), 80);
    daemon.stop();
    copied.check(&lost, 80, "restored");
}

/// One segment in the place of another: its events would be counted twice.
#[test]
fn two_segments_that_hold_the_same_are_refused() {
    let Copied { data, code, old, copy: other, .. } = &copied(Made::Stopped);
    let prepared = "segments/000000000003.db";
    for (from, to) in [(ACTIVE, prepared), ("segments/000000000001.g2.db", prepared)] {
        copy(&data.join(from), &data.join(to));
        let before = contents(data);
        let message = refused(data, &[]);
        for words in ["comes before it", to, "write-off", "Put the file that was there back"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        assert!(refused(data, &["--restored"]).contains("comes before it"), "nor does it help to say so");
        assert!(before == contents(data), "a refused start has changed something");
        copy(&other.join(to), &data.join(to));
    }
    // An empty one in the place of one that has events.
    copy(&data.join(prepared), &data.join(ACTIVE));
    let message = refused(data, &[]);
    assert!(message.contains("holds no events") && message.contains("up to sequence 80"), "{message}");
    copy(&other.join(ACTIVE), &data.join(ACTIVE));
    let daemon = Daemon::start_in(data, &FLAGS);
    assert_eq!(total(&daemon, code), 80);
    assert_found(&daemon, old, false, "everything is back");
    daemon.stop();
    // Where what was there is lost, one of the two is given up, and may be had back.
    copy(&data.join(ACTIVE), &data.join(prepared));
    let check = tool(data, &["check"]);
    assert!(check.code == 1 && check.out.contains("one before it ends with 80"), "{}", check.out);
    let ran = tool(data, &["segments", "write-off", "3", "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(data.join("quarantine/000000000003.db").exists());
    let daemon = Daemon::start_in(data, &FLAGS);
    assert_eq!(total(&daemon, code), 80);
    let new = send(&daemon, code, "new", 4);
    for stored in [old, &new] {
        assert_found(&daemon, stored, false, "it goes on");
    }
    daemon.stop();
}

/// Nothing was ever in it, if hitlog stopped in order; after a kill nobody knows.
#[test]
fn a_prepared_segment_that_is_missing() {
    let copied = copied(Made::Stopped);
    let prepared = copied.data.join("segments/000000000003.db");
    fs::remove_file(&prepared).unwrap();
    copied.check(&Vec::new(), 80, "made anew");
    let mut daemon = Daemon::start_in(&copied.data, &FLAGS);
    wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
    let names = fs::read_dir(copied.data.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let newest = names.filter(|path| path.extension().is_some_and(|extension| extension == "db")).max().unwrap();
    daemon.crash();
    fs::remove_file(&newest).unwrap();
    fs::remove_file(newest.with_extension("db-wal")).unwrap();
    assert!(refused(&copied.data, &[]).contains("put that very file back"));
    let number = newest.file_stem().unwrap().to_str().unwrap().parse::<i64>().unwrap().to_string();
    let ran = tool(&copied.data, &["segments", "write-off", &number, "--yes"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let daemon = Daemon::start_in(&copied.data, &FLAGS);
    assert_eq!(total(&daemon, &copied.code), 240);
    daemon.stop();
}

/// A start that is killed at its first, second, ... such call leaves no file of which the next one thinks that its log
/// is another's: everything that was acknowledged is there, and nothing is in quarantine.
#[test]
fn a_start_that_is_cut_short_anywhere_loses_no_log() {
    let calls = ["pwrite64", "fdatasync", "fsync", "rename", "ftruncate", "unlink"];
    let parts = calls.into_iter().flat_map(|call| [false, true].map(|is_stopped| (call, is_stopped)));
    let kills: usize = side_by_side(parts, |(call, is_stopped)| cut_starts_short(call, is_stopped)).into_iter().sum();
    assert!(kills > 60, "only {kills} kills: what is injected does not fit any more");
}

/// Starts hitlog where it was killed, or has stopped, and kills it at every such call. Returns the number of kills.
fn cut_starts_short(call: &str, is_stopped: bool) -> usize {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &FLAGS);
    let code = daemon.register("example.com");
    let mut stored = Stored::new();
    for at in 1.. {
        let why = format!("{call} {at}, stopped in order: {is_stopped}");
        stored.extend(send(&daemon, &code, &why, 1));
        if is_stopped {
            daemon.stop();
        } else {
            daemon.crash();
        }
        let serve = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
        let mut traced = Command::new("strace");
        traced.args(["-D", "-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        traced.args(["-e", &format!("inject={call}:signal=KILL:when={at}")]);
        let mut cut = traced
            .arg(serve.get_program())
            .args(serve.get_args())
            .args(FLAGS)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(cut.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        cut.kill().unwrap();
        cut.wait().unwrap();
        daemon = Daemon::start_in(&data, &FLAGS);
        assert_eq!(total(&daemon, &code), stored.len(), "{why}");
        assert!(!data.join("quarantine").exists(), "{why}: {}", daemon.log());
        assert!(!daemon.log().contains("starts from a copy"), "{why}: {}", daemon.log());
        if !ready.is_empty() {
            assert_found(&daemon, &stored, false, &why);
            daemon.stop();
            return at - 1;
        }
    }
    unreachable!("it is killed at most as often as it calls")
}

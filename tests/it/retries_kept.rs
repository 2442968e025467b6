//! How long an id is known: through roll, seal, retention, erasure, restarts, backups and damage, and no longer than the
//! window.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::numbers_kept;
use harness::{
    Daemon, event_with,
    named::{NamedEvents, id_runs},
    side_by_side, tool, wait_until, work_dir,
};

const ROWS_MAX: &str = "--segment-rows-max=60";

/// Sends the events with numbers from one to below another, so that each segment is followed by the next.
fn send(daemon: &Daemon, events: &mut NamedEvents, from: usize, to: usize) {
    let numbers: Vec<usize> = (from..to).collect();
    for numbers in numbers.chunks(20) {
        wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
        assert_eq!(events.send(&mut daemon.client(), numbers), Some(201));
    }
}

/// Has a visitor erased, and waits until the events are on the disk no more.
fn erase(daemon: &Daemon, code: &str, visitor: &str) {
    let path = format!("/api/v1/visitors/{visitor}?trackingCode={code}");
    let erased = daemon.client().send("DELETE", &path, &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    let location = erased.header("location").unwrap().to_owned();
    wait_until("they are erased", || (daemon.client().get(&location).json()["state"] == "done").then_some(()));
}

/// Sent again, erased events are answered as they were, and are not there.
fn assert_gone(daemon: &Daemon, events: &mut NamedEvents, gone: &[usize]) {
    let mut client = daemon.client();
    for numbers in [gone, &gone[..1]] {
        assert_eq!(events.send(&mut client, numbers), Some(201));
    }
    for number in gone {
        let id = events.told[number].clone().unwrap();
        assert_eq!(client.get(&format!("/api/v1/events/{id}")).status, 404, "event {number} is back");
    }
    let found = events.find(daemon);
    assert!(!gone.iter().any(|number| found.contains_key(number)));
    assert_eq!(found.len(), events.told.len() - gone.len());
}

#[test]
fn an_erased_event_does_not_come_back() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    // Of three visitors: one in sealed segments, one whose last event was stored a moment ago.
    send(&daemon, &mut events, 0, 130);
    daemon.wait_until_sealed();
    let of = |visitor: usize| (0..130).filter(|number| number % 7 == visitor).collect::<Vec<_>>();
    let mut gone = of(3);
    erase(&daemon, &events.code, "v3");
    assert_gone(&daemon, &mut events, &gone);
    daemon.crash();
    daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    assert_gone(&daemon, &mut events, &gone);
    erase(&daemon, &events.code, "v5");
    gone.extend(of(5));
    assert_gone(&daemon, &mut events, &gone);
    daemon.stop();
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    assert_gone(&daemon, &mut events, &gone);
    daemon.stop();
}

/// Their ids are not laid down yet when the events leave the disk: whatever happens then, they are not stored again.
#[test]
fn an_event_is_not_erased_before_its_id_is_on_the_disk() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    send(&daemon, &mut events, 0, 20);
    // No run can be laid down.
    let in_the_way = data.join("ids/laying/x");
    fs::create_dir_all(&in_the_way).unwrap();
    let path = format!("/api/v1/visitors/v3?trackingCode={}", events.code);
    let erased = daemon.client().send("DELETE", &path, &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    wait_until("it was tried", || {
        (daemon.metrics()["hitlog_dedup_writes_total{outcome=\"failed\"}"] > 0.0).then_some(())
    });
    thread::sleep(Duration::from_millis(500));
    daemon.crash();
    fs::remove_dir_all(data.join("ids")).unwrap();
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    assert_gone(&daemon, &mut events, &[3, 10, 17]);
    wait_until("it is erased", || (daemon.metrics()["hitlog_erasures_pending"] == 0.0).then_some(()));
    assert_gone(&daemon, &mut events, &[3, 10, 17]);
    daemon.stop();
}

#[test]
fn what_has_expired_is_not_stored_again() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = [ROWS_MAX, "--retention-days=30", "--retention-grace-seconds=0"];
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    let code = daemon.register("example.com");
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let old = now_ms - 40 * 24 * 60 * 60 * 1_000;
    // Sent again, they say another time: as old a one would be refused.
    let event = |at: usize, time: i64| event_with(&code, json!({"timestamp": time, "eventId": format!("old {at}")}));
    let batch = |time| json!({"events": (0..80).map(|at| event(at, time)).collect::<Vec<_>>()}).to_string();
    let answer = daemon.client().post("/api/v1/events/batch", batch(old)).json();
    wait_until("it is sealed", || (daemon.segments("sealed") == 1).then_some(()));
    daemon.stop();
    let sealed = data.join("segments/000000000001.g2.db");
    assert!(sealed.exists());
    for _ in 0..2 {
        let daemon = Daemon::start_in(&data, &flags);
        wait_until("the segment is removed", || (!sealed.exists()).then_some(()));
        let again = daemon.client().post("/api/v1/events/batch", batch(now_ms));
        assert_eq!((again.header("idempotency-replayed"), again.json()), (Some("true"), answer.clone()));
        assert_eq!(daemon.metrics()["hitlog_events_committed_total"], 0.0);
        daemon.stop();
    }
}

#[test]
fn ids_of_a_deleted_website_are_not_of_the_next() {
    let daemon = Daemon::start(&[ROWS_MAX]);
    let mut client = daemon.client();
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    send(&daemon, &mut events, 0, 80);
    let websites = client.get("/api/v1/websites").json();
    let path = format!("/api/v1/websites/{}", websites["websites"][0]["id"].as_str().unwrap());
    assert_eq!(client.send("DELETE", &path, &[], b"").status, 200);
    let mut next = NamedEvents::new(&daemon.register("example.com"));
    send(&daemon, &mut next, 0, 80);
    next.send_again(&daemon);
    assert!(next.told.iter().all(|(number, id)| events.told[number] != *id));
    daemon.stop();
}

#[test]
fn a_backup_knows_what_it_holds_and_nothing_else() {
    let work = work_dir();
    let (data, backup, copy) = (work.path().join("data"), work.path().join("backup"), work.path().join("copy"));
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    send(&daemon, &mut events, 0, 150);
    erase(&daemon, &events.code, "v3");
    let gone: Vec<usize> = (0..150).filter(|number| number % 7 == 3).collect();
    let made = tool(&data, &["backup", backup.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.err);
    let mut at_backup = events.clone();
    send(&daemon, &mut events, 150, 300);
    daemon.stop();
    assert!(Command::new("cp").args(["-a"]).args([&data, &copy]).status().unwrap().success());
    let of_backup = Daemon::start_in(&backup, &[ROWS_MAX]);
    assert_gone(&of_backup, &mut at_backup, &gone);
    // What came after the backup is free there, under other ids, and known from then on.
    send(&of_backup, &mut at_backup, 150, 300);
    assert!((150..300).all(|number| at_backup.told[&number] != events.told[&number]));
    gone.iter().for_each(|number| drop(at_backup.told.remove(number)));
    at_backup.send_again(&of_backup);
    of_backup.stop();
    gone.iter().for_each(|number| drop(events.told.remove(number)));
    let of_copy = Daemon::start_in(&copy, &[ROWS_MAX, "--restored"]);
    events.send_again(&of_copy);
    send(&of_copy, &mut events, 300, 330);
    events.send_again(&of_copy);
    of_copy.stop();
    let of_copy = Daemon::start_in(&copy, &[ROWS_MAX]);
    events.send_again(&of_copy);
    of_copy.stop();
}

/// What becomes of the folder with the ids.
type Damage = (&'static str, fn(&Path));

fn newest_run(data: &Path) -> fs::File {
    let run = data.join("ids").join(id_runs(data).pop().unwrap());
    OpenOptions::new().read(true).write(true).open(run).unwrap()
}

fn flip(data: &Path, at: u64) {
    let (run, mut byte) = (newest_run(data), [0]);
    run.read_exact_at(&mut byte, at).unwrap();
    run.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// Events that are sent, and ids in the run that is damaged: those of one of seven visitors are erased.
const SENT: usize = 1_500;
const IDS: usize = SENT - 214;

const DAMAGES: [Damage; 8] = [
    ("no folder", |data| fs::remove_dir_all(data.join("ids")).unwrap()),
    ("an empty folder", |data| {
        fs::remove_dir_all(data.join("ids")).unwrap();
        fs::create_dir(data.join("ids")).unwrap();
    }),
    ("an entry", |data| flip(data, 100)),
    ("the header", |data| flip(data, IDS as u64 * 32 + 50)),
    ("the end", |data| flip(data, newest_run(data).metadata().unwrap().len() - 20)),
    ("cut short", |data| newest_run(data).set_len(20_000).unwrap()),
    ("empty", |data| newest_run(data).set_len(0).unwrap()),
    ("stray files", |data| {
        for name in ["notes.txt", "laying", "merging", "1-2.ids", "00000000000000000001-00000000000000009999.ids"] {
            fs::write(data.join("ids").join(name), "left over").unwrap();
        }
    }),
];

#[test]
fn ids_that_are_damaged_are_found_again() {
    side_by_side(DAMAGES, |(what, damage)| {
        let work = work_dir();
        let data = work.path().join("data");
        let daemon = Daemon::start_in(&data, &["--segment-rows-max=400"]);
        let mut events = NamedEvents::new(&daemon.register("example.com"));
        for from in (0..SENT).step_by(100) {
            let numbers: Vec<usize> = (from..from + 100).collect();
            assert_eq!(events.send(&mut daemon.client(), &numbers), Some(201));
        }
        // So that there are segments that were copied row by row.
        erase(&daemon, &events.code, "v3");
        events.told.retain(|number, _| number % 7 != 3);
        assert_eq!(events.told.len(), IDS);
        daemon.stop();
        // One run with all of them.
        fs::remove_dir_all(data.join("ids")).unwrap();
        Daemon::start_in(&data, &["--segment-rows-max=400"]).stop();
        assert_eq!(id_runs(&data).len(), 1, "{what}");
        damage(&data);
        let daemon = Daemon::start_in(&data, &["--segment-rows-max=400"]);
        let numbers: Vec<usize> = events.told.keys().copied().collect();
        for numbers in numbers.chunks(500) {
            let mut client = daemon.client();
            // Who finds the damage is asked to come again.
            wait_until(what, || (events.send(&mut client, numbers)? == 201).then_some(()));
        }
        events.send_again(&daemon);
        assert_eq!(daemon.metrics()["hitlog_events_committed_total"], 0.0, "{what}");
        daemon.stop();
        let daemon = Daemon::start_in(&data, &["--segment-rows-max=400"]);
        events.send_again(&daemon);
        daemon.stop();
        if what == "stray files" {
            assert!(data.join("ids/notes.txt").exists(), "nobody else's file is touched");
        }
    });
}

/// A directory of the version before there were ids, with sealed segments and one that is written to.
fn make_older(data: &Path) {
    let execute = |path: &Path, sql: &str| {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    numbers_kept::make_segments_older(data, 1);
    execute(
        &data.join("catalog.db"),
        "ALTER TABLE Log DROP COLUMN idHashKey; UPDATE Segment SET digest = NULL; DROP TABLE ShipTarget;
         DROP TABLE ShipNode; DROP TABLE ShipRange; DROP TABLE ShipDead; DROP TABLE ShipErasure;
         ALTER TABLE Website DROP COLUMN timezone; ALTER TABLE Website DROP COLUMN hosts;
         ALTER TABLE Website DROP COLUMN goals; ALTER TABLE Website DROP COLUMN hostsPolicy;
         ALTER TABLE Website DROP COLUMN gpc; DROP TABLE RetiredCode; PRAGMA user_version = 4;",
    );
    fs::remove_dir_all(data.join("ids")).unwrap();
}

#[test]
fn a_directory_without_ids_is_taken_over() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    let code = daemon.register("example.com");
    let event =
        |at: usize| event_with(&code, json!({"sessionId": at.to_string(), "visitorId": format!("v{}", at % 7)}));
    for from in (0..150).step_by(30) {
        let batch = json!({"events": (from..from + 30).map(event).collect::<Vec<_>>()}).to_string();
        assert_eq!(daemon.client().post("/api/v1/events/batch", batch).status, 201);
    }
    daemon.wait_until_sealed();
    daemon.stop();
    make_older(&data);

    let mut daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    let total = |daemon: &Daemon, code: &str| -> Value {
        daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json()["pagination"]["total"].clone()
    };
    assert_eq!((total(&daemon, &code), daemon.segments("damaged")), (json!(150), 0));
    let mut events = NamedEvents::new(&daemon.register("new.example"));
    send(&daemon, &mut events, 0, 150);
    events.send_again(&daemon);
    erase(&daemon, &code, "v3");
    assert_eq!(total(&daemon, &code), 150 - 21);
    daemon.crash();
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    events.send_again(&daemon);
    assert_eq!(total(&daemon, &code), 150 - 21);
    daemon.stop();
    fs::remove_dir_all(data.join("ids")).unwrap();
    let daemon = Daemon::start_in(&data, &[ROWS_MAX]);
    events.send_again(&daemon);
    daemon.wait_until_sealed();
    daemon.stop();
    let checked = tool(&data, &["check"]);
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
}

#[test]
fn an_id_is_free_after_the_window() {
    let daemon = Daemon::start(&["--dedup-window-seconds=2"]);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    assert_eq!(daemon.metrics()["hitlog_dedup_window_seconds"], 2.0);
    let mut client = daemon.client();
    assert_eq!(events.send(&mut client, &[0, 1, 2]), Some(201));
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(200));
        assert_eq!(events.send(&mut client, &[2, 0, 1]), Some(201), "the same ids are told");
    }
    // A sixteenth of the window late at the most, and a look once a second.
    thread::sleep(Duration::from_millis(4_000 - 8 * 200));
    let before = std::mem::take(&mut events.told);
    assert_eq!(events.send(&mut client, &[0, 1, 2]), Some(201), "they are stored again");
    assert!(events.told.iter().all(|(number, id)| before[number] != *id));
    assert_eq!(events.send(&mut client, &[2]), Some(201));
    assert_eq!(daemon.metrics()["hitlog_events_committed_total"], 6.0);
    daemon.stop();
}

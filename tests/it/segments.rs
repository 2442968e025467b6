//! Segments as a user finds them: rolled, sealed, killed at every step, damaged.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::{Value, json};

use harness::{Client, Daemon, Tampering, command, event_with, side_by_side, wait_until, work_dir};

const BATCH: usize = 20;
const ROWS_MAX: &str = "60";

/// A batch whose events carry its number, and times that run against the order in which they arrive.
fn batch(code: &str, number: usize) -> String {
    let event = |at: usize| {
        let time = 1_700_000_000_000_u64 + (number * 7_919 % 1_000 * 1_000 + at) as u64;
        let changes = json!({"sessionId": format!("batch-{number}"), "visitorId": format!("v{at}"), "timestamp": time});
        event_with(code, changes)
    };
    json!({"events": (0..BATCH).map(event).collect::<Vec<_>>()}).to_string()
}

fn send(daemon: &Daemon, code: &str, number: usize) -> Option<u16> {
    let body = batch(code, number);
    Client::try_connect(&daemon.address)?
        .try_send("POST", "/api/v1/events/batch", &[], body.as_bytes())
        .map(|response| response.status)
}

/// Every event of the listing, page by page.
fn list(daemon: &Daemon, code: &str, rest: &str) -> Vec<Value> {
    let (mut client, mut events) = (daemon.client(), Vec::new());
    loop {
        let path = format!("/api/v1/events?trackingCode={code}&limit=1000&offset={}{rest}", events.len());
        let response = client.get(&path);
        assert_eq!(response.status, 200, "{}", response.text());
        let mut page = response.json();
        let total = page["pagination"]["total"].as_u64().unwrap();
        events.append(page["events"].as_array_mut().unwrap());
        if events.len() as u64 >= total || page["events"].as_array().unwrap().is_empty() && events.is_empty() {
            assert_eq!(events.len() as u64, total);
            return events;
        }
    }
}

/// What became of each batch that was sent.
#[derive(Default)]
struct Sent {
    next: usize,
    acknowledged: Vec<usize>,
}

impl Sent {
    /// Sends some batches, or as many as the process lives for; each when the next segment stands ready, so that a
    /// segment is followed by another as soon as it is full.
    fn send(&mut self, daemon: &Daemon, code: &str, count: usize) {
        for _ in 0..count {
            wait_until("the next segment is prepared, or hitlog is gone", || match daemon.try_metrics() {
                Some(metrics) => (metrics["hitlog_segments{state=\"prepared\"}"] == 1.0).then_some(()),
                None => Some(()),
            });
            let number = self.next;
            self.next += 1;
            match send(daemon, code, number) {
                Some(status) => {
                    assert_eq!(status, 201);
                    self.acknowledged.push(number);
                }
                None => return,
            }
        }
    }

    /// Every acknowledged batch is there exactly once and whole, any other one whole or not at all, all in order.
    fn check(&self, daemon: &Daemon, code: &str) {
        let events = list(daemon, code, "");
        let key = |event: &Value| event["createdAt"].as_str().unwrap().to_owned();
        assert!(events.is_sorted_by(|a, b| key(a) >= key(b)), "newest first");
        let mut batches: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in &events {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            batches.entry(text("sessionId")).or_default().push(text("visitorId"));
        }
        for visitors in batches.values_mut() {
            visitors.sort_unstable();
            visitors.dedup();
        }
        for number in &self.acknowledged {
            assert!(batches.contains_key(&format!("batch-{number}")), "batch {number} is lost");
        }
        assert!(batches.values().all(|visitors| visitors.len() == BATCH), "a batch is torn: {batches:?}");
        assert_eq!(events.len(), batches.len() * BATCH, "an event is there twice");
        let last = *self.acknowledged.last().unwrap();
        assert_eq!(list(daemon, code, &format!("&sessionId=batch-{last}")).len(), BATCH);
    }
}

/// The changes of roll and seal are made by these calls, each of them by several threads; a kill at the first, the
/// second, ... call of a thread leaves the files as a crash between any two steps would.
#[test]
fn killed_at_every_step_of_roll_and_seal() {
    let calls = [
        ("openat", 80),
        ("fdatasync", 30),
        ("fsync", 20),
        ("rename", 2),
        ("unlink", 30),
        ("ftruncate", 20),
        ("pwrite64", 80),
    ];
    let kills = side_by_side(calls, |(call, at_most)| kill_at_every(call, at_most)).into_iter().sum::<usize>();
    assert!(kills > 30, "only {kills} kills: what is injected does not fit any more");
}

/// Kills hitlog at the first, the second, ... such call of a thread, until it lives on. Returns the number of kills.
fn kill_at_every(call: &str, at_most: usize) -> usize {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", ROWS_MAX];
    let mut daemon = Daemon::start_in(&data, &flags);
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 1);
    let mut kills = 0;
    for at in 1..=at_most {
        let tampering = Tampering::with(&daemon, &format!("{call}:signal=KILL:when={at}"));
        // Three segments full.
        sent.send(&daemon, &code, 9);
        let is_alive = wait_until("it is killed, or has done everything", || match daemon.try_metrics() {
            None => Some(false),
            Some(metrics) => (metrics["hitlog_segment_rolls_total"] >= 2.0
                && metrics["hitlog_segments{state=\"unsealed\"}"] == 0.0
                && metrics["hitlog_segments{state=\"prepared\"}"] == 1.0)
                .then_some(true),
        });
        drop(tampering);
        daemon.crash();
        daemon = Daemon::start_in(&data, &flags);
        sent.check(&daemon, &code);
        if is_alive {
            break;
        }
        kills += 1;
    }
    daemon.wait_until_sealed();
    sent.check(&daemon, &code);
    let (sealed, files) = (daemon.segments("sealed"), segment_files(&data));
    assert!(sealed > kills / 2, "{call}: {kills} kills, {sealed} segments sealed");
    daemon.stop();
    assert_eq!(files.iter().filter(|path| path.ends_with(".g2.db")).count(), sealed, "{files:?}");
    assert!(!files.iter().any(|path| path.contains("building")), "{files:?}");
    kills
}

fn segment_files(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("segments")).unwrap();
    entries.map(|entry| entry.unwrap().path().display().to_string()).collect()
}

fn sealed_files(data: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        segment_files(data).into_iter().filter(|path| path.ends_with(".g2.db")).map(PathBuf::from).collect();
    files.sort();
    files
}

#[test]
fn a_sealed_segment_is_a_plain_file_of_sqlite() {
    let daemon = Daemon::start(&["--segment-rows-max", ROWS_MAX]);
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 7);
    daemon.wait_until_sealed();
    let files = sealed_files(daemon.data());
    assert_eq!(files.len(), 2);
    for (file, first) in files.iter().zip([1, 61]) {
        let connection = Connection::open(file).unwrap();
        let texts = |sql: &str| -> Vec<String> {
            let mut select = connection.prepare(sql).unwrap();
            select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(texts("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(texts("PRAGMA journal_mode"), ["delete"], "no log beside it");
        assert_eq!(
            texts("SELECT name FROM pragma_table_info('Event')"),
            [
                "id",
                "websiteId",
                "eventType",
                "url",
                "referrer",
                "sessionId",
                "visitorId",
                "deviceType",
                "browser",
                "os",
                "location",
                "properties",
                "createdAt",
                "receivedAt",
                "eventIdHash",
                "flags"
            ]
        );
        assert_eq!(
            texts(
                "SELECT group_concat(c.name, ' ') FROM pragma_index_list('Event') AS l, pragma_index_info(l.name) AS c
                 GROUP BY l.name ORDER BY 1"
            ),
            ["createdAt", "sessionId", "visitorId", "websiteId eventType createdAt"]
        );
        let rows: (i64, i64, i64) = connection
            .query_row("SELECT count(*), min(id), max(id) FROM Event", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(rows, (60, first, first + 59));
    }
    daemon.stop();
}

/// Whoever has a link to a sealed file, as a backup has, keeps what it was: erasures, starts and kills make new files.
#[test]
fn a_sealed_file_never_changes() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", ROWS_MAX];
    let mut daemon = Daemon::start_in(&data, &flags);
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 7);
    daemon.wait_until_sealed();
    let link = |(at, path): (usize, PathBuf)| {
        let kept = work.path().join(format!("kept-{at}"));
        fs::hard_link(&path, &kept).unwrap();
        (fs::read(&path).unwrap(), kept, path)
    };
    let kept: Vec<_> = sealed_files(&data).into_iter().enumerate().map(link).collect();
    assert_eq!(kept.len(), 2);
    let erased = daemon.client().send("DELETE", &format!("/api/v1/visitors/v1?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    wait_until("the erasure is done", || (daemon.metrics()["hitlog_erasures_pending"] == 0.0).then_some(()));
    list(&daemon, &code, "&visitorId=v2");
    daemon.crash();
    let daemon = Daemon::start_in(&data, &flags);
    list(&daemon, &code, "");
    daemon.stop();
    assert!(kept.iter().all(|(_, _, path)| !path.exists()), "each has a later generation");
    assert!(kept.iter().all(|(bytes, kept, _)| fs::read(kept).unwrap() == *bytes));
}

#[test]
fn an_old_segment_is_full_however_little_it_holds() {
    let daemon = Daemon::start(&["--segment-age-max-seconds", "1"]);
    let code = daemon.register("example.com");
    assert_eq!(send(&daemon, &code, 0), Some(201));
    wait_until("it is sealed", || (daemon.segments("sealed") == 1).then_some(()));
    assert_eq!(daemon.metrics()["hitlog_segment_rolls_total"], 1.0, "an empty segment does not grow old");
    assert_eq!(list(&daemon, &code, "").len(), BATCH);
    daemon.stop();
}

/// A copy of another segment, whole and sound, is not the segment that was sealed.
#[test]
fn a_sealed_segment_that_is_another_is_damaged() {
    let work = work_dir();
    let data = work.path().join("data");
    let (code, _) = three_sealed(&data);
    let files = sealed_files(&data);
    // Where an older hitlog noted nothing, the file's own word for which segment it is must do.
    for forget in ["", "UPDATE Segment SET digest = NULL WHERE number = 2"] {
        let kept = fs::read(&files[1]).unwrap();
        Connection::open(data.join("catalog.db")).unwrap().execute_batch(forget).unwrap();
        fs::copy(&files[2], &files[1]).unwrap();
        let daemon = Daemon::start_in(&data, &[]);
        assert_eq!((daemon.segments("damaged"), daemon.segments("sealed")), (1, 2));
        daemon.wait_for_log("it is not the file that the catalog lists");
        assert_eq!(list(&daemon, &code, "").len(), 10 * BATCH - 60, "each event once");
        daemon.stop();
        fs::write(&files[1], kept).unwrap();
    }
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!((daemon.segments("damaged"), list(&daemon, &code, "").len()), (0, 10 * BATCH));
    daemon.stop();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    let noted: (i64, i64, i64) = catalog
        .query_row(
            "SELECT count(digest), min(rows), max(lastSequence) FROM Segment WHERE state = 'sealed'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(noted, (3, 60, 180), "what was not noted is noted by a start");
}

/// Three sealed segments and a stop.
fn three_sealed(data: &Path) -> (String, Sent) {
    let daemon = Daemon::start_in(data, &["--segment-rows-max", ROWS_MAX]);
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 10);
    daemon.wait_until_sealed();
    assert_eq!(daemon.segments("sealed"), 3);
    daemon.stop();
    (code, sent)
}

#[test]
fn a_damaged_sealed_segment_is_quarantined_and_the_rest_serves() {
    let work = work_dir();
    let data = work.path().join("data");
    let (code, _) = three_sealed(&data);
    let files = sealed_files(&data);
    // What a crash between the catalog's switch and the removal leaves may be all that is left.
    let before = data.join("segments/000000000001.db");
    fs::copy(&files[0], &before).unwrap();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog.execute("INSERT INTO Leftover VALUES(1, 1)", []).unwrap();
    drop(catalog);
    overwrite(&files[0], 0, 100);
    OpenOptions::new().write(true).open(&files[1]).unwrap().set_len(20_000).unwrap();
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!((daemon.segments("damaged"), daemon.segments("sealed")), (2, 1));
    daemon.wait_for_log("a sealed segment is damaged");
    assert_eq!(list(&daemon, &code, "").len(), 10 * BATCH - 120);
    assert_eq!(send(&daemon, &code, 99), Some(201));
    daemon.stop();
    assert!(files.iter().all(|file| file.exists()), "what is damaged may still be mended");
    assert!(before.exists(), "and so may what stands beside it");
}

#[test]
fn a_sealed_segment_of_a_newer_hitlog_is_refused() {
    let work = work_dir();
    let data = work.path().join("data");
    three_sealed(&data);
    Connection::open(&sealed_files(&data)[1]).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let output = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("format version 99"), "{log}");
}

#[test]
fn damage_that_shows_only_when_it_is_read() {
    let work = work_dir();
    let data = work.path().join("data");
    let (code, _) = three_sealed(&data);
    let files = sealed_files(&data);
    let whole = fs::read(&files[1]).unwrap();
    // The second page: the root of table Event. The summary, behind, says nothing of it.
    overwrite(&files[1], 16 * 1024, 16 * 1024);
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!(daemon.segments("damaged"), 0);
    let response = daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1000"));
    assert_eq!((response.status, response.error().as_str()), (500, "INTERNAL_ERROR"), "{}", response.text());
    assert_eq!((daemon.segments("damaged"), daemon.segments("sealed")), (1, 2));
    assert_eq!(list(&daemon, &code, "").len(), 10 * BATCH - 60);
    wait_until("it is noted", || found_damage(&data).contains("malformed").then_some(()));
    daemon.stop();
    // It is remembered, and told of by the tools, until the file is whole again.
    let listed = command(&["segments", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("damaged: a read found"), "{listed:?}");
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!((daemon.segments("damaged"), list(&daemon, &code, "").len()), (1, 10 * BATCH - 60));
    daemon.stop();
    fs::write(&files[1], whole).unwrap();
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!((daemon.segments("damaged"), list(&daemon, &code, "").len()), (0, 10 * BATCH));
    daemon.stop();
    assert_eq!(found_damage(&data), "");
}

/// What the catalog knows of damage that reads have found.
fn found_damage(data: &Path) -> String {
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog.query_row("SELECT ifnull(group_concat(reason), '') FROM Damage", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_sequence_is_not_given_again_when_its_segment_is_lost() {
    let work = work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", ROWS_MAX]);
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 3);
    // The third batch fills the segment, and is answered before the log rolls.
    wait_until("it is sealed", || (daemon.segments("sealed") == 1).then_some(()));
    daemon.stop();
    overwrite(&sealed_files(&data)[0], 0, 100);
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!(daemon.metrics()["hitlog_durable_sequence"], 60.0);
    sent.send(&daemon, &code, 1);
    assert_eq!(daemon.metrics()["hitlog_durable_sequence"], 80.0);
    daemon.stop();
}

fn overwrite(file: &Path, from: u64, bytes: usize) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&vec![0xa5; bytes]).unwrap();
}

#[test]
fn what_an_interrupted_seal_leaves_is_removed() {
    let work = work_dir();
    let data = work.path().join("data");
    let (code, sent) = three_sealed(&data);
    let folder = data.join("segments");
    let unfinished = ["000000000001.building", "000000000001.building-journal"];
    let leftovers = ["000000000002.db", "000000000002.g3.db"];
    for name in unfinished.iter().chain(&["notes.txt"]) {
        fs::write(folder.join(name), "left over").unwrap();
    }
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    for (name, generation) in leftovers.iter().zip([1, 3]) {
        fs::copy(&sealed_files(&data)[1], folder.join(name)).unwrap();
        // As a rewriting notes it: replaced, or about to be listed.
        catalog.execute("INSERT INTO Leftover VALUES(2, ?1)", [generation]).unwrap();
    }
    drop(catalog);
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", ROWS_MAX]);
    for name in unfinished.iter().chain(&leftovers) {
        assert!(!folder.join(name).exists(), "{name}");
    }
    assert!(folder.join("notes.txt").exists(), "nobody else's file is touched");
    assert!(!data.join("quarantine").exists(), "all of it is known");
    sent.check(&daemon, &code);
    daemon.stop();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    let left: i64 = catalog.query_row("SELECT count(*) FROM Leftover", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "and forgotten");
}

#[test]
fn a_segment_that_was_being_made_is_made_anew() {
    let work = work_dir();
    let data = work.path().join("data");
    let (code, mut sent) = three_sealed(&data);
    let prepared = data.join("segments/000000000005.db");
    fs::write(&prepared, "").unwrap();
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", ROWS_MAX]);
    sent.send(&daemon, &code, 6);
    daemon.wait_until_sealed();
    assert_eq!((daemon.segments("sealed"), daemon.segments("active")), (5, 1));
    sent.check(&daemon, &code);
    daemon.stop();
}

#[test]
fn after_a_crash_the_active_segment_is_checked() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 100);
    daemon.stop();
    daemon = Daemon::start_in(&data, &[]);
    sent.send(&daemon, &code, 1);
    daemon.crash();
    let active = data.join("segments/000000000001.db");
    assert!(fs::metadata(&active).unwrap().len() > 12 * 16 * 1024);
    overwrite(&active, 6 * 16 * 1024, 16 * 1024);
    let output = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("000000000001.db is damaged"), "{log}");
}

/// Where the sealer wants to build these segments, something stands in the way.
fn in_the_way(data: &Path, number: usize) -> PathBuf {
    data.join(format!("segments/{number:012}.building/x"))
}

fn keys_file(data: &Path, number: usize) -> PathBuf {
    data.join(format!("segments/{number:012}.db-keys"))
}

/// Keys of full segments stand beside them until they are sealed, are never in a backup, and are made anew from the
/// rows whatever becomes of them.
#[test]
fn keys_that_were_laid_down() {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", ROWS_MAX];
    let daemon = Daemon::start_in(&data, &flags);
    (1..=4).for_each(|number| fs::create_dir_all(in_the_way(&data, number)).unwrap());
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 13);
    wait_until("keys are laid down", || keys_file(&data, 4).exists().then_some(()));
    assert_eq!(daemon.segments("unsealed"), 4);
    sent.check(&daemon, &code);
    // What is damaged is found by whoever needs it, who is told to ask again.
    let mut bytes = fs::read(keys_file(&data, 1)).unwrap();
    bytes[0] ^= 1;
    fs::write(keys_file(&data, 1), bytes).unwrap();
    fs::remove_file(keys_file(&data, 2)).unwrap();
    OpenOptions::new().write(true).open(keys_file(&data, 3)).unwrap().set_len(10).unwrap();
    let path = format!("/api/v1/events?trackingCode={code}&limit=1000");
    let statuses: Vec<u16> = (0..4).map(|_| daemon.client().get(&path).status).collect();
    assert_eq!(statuses, [503, 503, 503, 200], "one after the other");
    sent.check(&daemon, &code);
    let backup = work.path().join("backup");
    let made = command(&["backup", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()]).status().unwrap();
    assert!(made.success());
    assert!(!segment_files(&backup).iter().any(|file| file.contains("keys")), "{:?}", segment_files(&backup));
    daemon.stop();
    // Those of other rows, and what an interrupted laying down has left.
    fs::copy(keys_file(&data, 4), keys_file(&data, 1)).unwrap();
    fs::write(keys_file(&data, 2), "").unwrap();
    fs::remove_file(keys_file(&data, 3)).unwrap();
    let unfinished = data.join("segments/000000000004.laying");
    fs::write(&unfinished, "half").unwrap();
    (1..=4).for_each(|number| fs::remove_dir_all(in_the_way(&data, number).parent().unwrap()).unwrap());
    let daemon = Daemon::start_in(&data, &flags);
    assert!(!unfinished.exists());
    sent.check(&daemon, &code);
    daemon.wait_for_log("000000000001.db-keys is not what was written");
    daemon.wait_for_log("000000000002.db-keys is not what was written");
    daemon.wait_until_sealed();
    wait_until("keys go with their segment", || (1..=4).all(|number| !keys_file(&data, number).exists()).then_some(()));
    sent.check(&daemon, &code);
    daemon.stop();
}

/// Keys that are made anew and that the disk does not take stay in memory, as far as that may be. Beyond it, what is
/// asked of their segment is refused until the disk takes them.
#[test]
fn keys_that_are_made_anew_and_find_no_place() {
    let work = work_dir();
    let data = work.path().join("data");
    let rows: u64 = ROWS_MAX.parse().unwrap();
    let daemon = Daemon::start_in(&data, &["--segment-rows-max", ROWS_MAX, "--unsealed-rows-max", ROWS_MAX]);
    (1..=3).for_each(|number| fs::create_dir_all(in_the_way(&data, number)).unwrap());
    let (code, mut sent) = (daemon.register("example.com"), Sent::default());
    sent.send(&daemon, &code, 8);
    wait_until("keys are laid down", || keys_file(&data, 2).exists().then_some(()));
    assert_eq!(daemon.segments("unsealed"), 2);
    let laying = [1, 2].map(|number| data.join(format!("segments/{number:012}.laying")));
    laying.iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let status = || daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1000")).status;
    fs::write(keys_file(&data, 1), "no keys").unwrap();
    assert_eq!([status(), status()], [503, 200]);
    daemon.wait_for_log("are made anew, and stay in memory: they could not be laid down");
    sent.check(&daemon, &code);
    fs::write(keys_file(&data, 2), "no keys").unwrap();
    assert_eq!([status(), status(), status()], [503; 3], "more than {rows} keys would be in memory");
    daemon.wait_for_log("what is asked of it is refused until they are");
    laying.iter().for_each(|folder| fs::remove_dir(folder).unwrap());
    assert_eq!([status(), status()], [503, 200]);
    sent.check(&daemon, &code);
    daemon.stop();
}

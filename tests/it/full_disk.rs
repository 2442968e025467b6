//! Full disks, by whatever word the system has for them: what is refused is refused for sure, what can be read is read,
//! and what waits goes on by itself when there is room.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use harness::{
    Daemon, Tampering,
    checker::{Load, Outcome, check_store},
    command, event_with,
    mount::{Mount, is_root, run},
    side_by_side, wait_until, work_dir,
};
use serde_json::json;

/// Small pages, logs and segments, so that a short run has checkpoints, rolls and seals.
const SMALL: [&str; 3] = ["--segment-page-bytes=4096", "--wal-checkpoint-bytes=64KiB", "--segment-rows-max=300"];
/// A full disk, a quota, a limit on the size of files.
const WORDS: [&str; 3] = ["ENOSPC", "EDQUOT", "EFBIG"];

#[test]
fn a_write_without_room_is_a_full_disk_in_every_word() {
    side_by_side(WORDS, |word| {
        let daemon = Daemon::start(&SMALL);
        let code = daemon.register("example.com");
        let load = Load::start(&daemon.address, &code, 4);
        // Segments that are full, of which some have no indexes yet.
        load.wait_for_answers(400);
        let full_disk = Tampering::with(&daemon, &format!("pwrite64:error={word}"));
        let shed = || daemon.metrics()["hitlog_events_shed_total{reason=\"storage_full\"}"];
        wait_until("the disk is full", || (shed() > 100.0).then_some(()));
        let mut client = daemon.client();
        assert_eq!(client.get("/readyz").error(), "STORAGE_FULL", "{word}");
        let website = client.post("/api/v1/websites", r#"{"name":"Test","domain":"other.example"}"#);
        assert_eq!((website.status, website.error().as_str()), (503, "STORAGE_FULL"), "{word}");
        let mut offset = 0;
        loop {
            let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=1000&offset={offset}"));
            assert_eq!(page.status, 200, "{word}: reads go on: {}", page.text());
            match page.json()["events"].as_array().unwrap().len() {
                0 => break,
                events => offset += events,
            }
        }
        let committed = daemon.metrics()["hitlog_events_committed_total"];
        assert_eq!(offset as f64, committed, "{word}: every event is read");
        drop(full_disk);
        wait_until("ingest resumes", || {
            (daemon.metrics()["hitlog_events_committed_total"] > committed + 100.0).then_some(())
        });
        let sents = load.finish();
        assert!(sents.values().all(|sent| sent.outcome != Outcome::Unknown), "{word}: nobody is left in doubt");
        daemon.register("other.example");
        check_store(&daemon, &code, &sents);
        daemon.stop();
    });
}

#[test]
fn one_write_without_room_at_every_place() {
    let daemon = Daemon::start(&SMALL);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 4);
    for at in 1..=40 {
        let full_disk = Tampering::with(&daemon, &format!("pwrite64:error={}:when={at}", WORDS[at % 3]));
        let answers = load.answers();
        wait_until("it has gone on", || (load.answers() > answers + 60).then_some(()));
        drop(full_disk);
    }
    let sents = load.finish();
    assert!(sents.values().any(|sent| sent.outcome == Outcome::Refused), "none of them met a group");
    assert!(sents.values().all(|sent| sent.outcome != Outcome::Unknown), "a full disk leaves nobody in doubt");
    check_store(&daemon, &code, &sents);
    daemon.stop();
}

#[test]
fn a_sync_without_room_is_in_doubt_in_every_word() {
    side_by_side(WORDS, |word| {
        let mut daemon = Daemon::start(&SMALL);
        let code = daemon.register("example.com");
        let mut client = daemon.client();
        let bad_disk = Tampering::with(&daemon, &format!("fdatasync:error={word}"));
        let response = client.post("/api/v1/events", event_with(&code, json!({})).to_string());
        assert_eq!((response.status, response.error().as_str()), (503, "COMMIT_UNKNOWN"), "{word}");
        drop(bad_disk);
        assert_eq!(daemon.wait().code(), Some(1), "{word}: {}", daemon.log());
    });
}

/// `hitlog` under a limit on the size of files, in KiB.
fn limited(kib: u64, arguments: &[&str]) -> Command {
    let hitlog = command(arguments);
    let mut shell = Command::new("sh");
    // In blocks of 512 bytes.
    shell.args(["-c", &format!("ulimit -S -f {}; exec \"$0\" \"$@\"", kib * 2)]);
    shell.arg(hitlog.get_program()).args(hitlog.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    arguments.extend(&SMALL[..2]);
    let daemon = Daemon::spawn(&mut limited(256, &arguments), &data);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 4);
    let shed = || daemon.metrics()["hitlog_events_shed_total{reason=\"storage_full\"}"];
    wait_until("the limit is reached", || (shed() > 100.0).then_some(()));
    let committed = daemon.metrics()["hitlog_events_committed_total"];
    assert_eq!(daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).status, 200, "reads go on");
    let raised = Command::new("prlimit").args([&format!("--pid={}", daemon.pid()), "--fsize=unlimited"]).status();
    assert!(raised.unwrap().success());
    wait_until("ingest resumes", || {
        (daemon.metrics()["hitlog_events_committed_total"] > committed + 100.0).then_some(())
    });
    let sents = load.finish();
    assert!(sents.values().all(|sent| sent.outcome != Outcome::Unknown), "nobody is left in doubt");
    check_store(&daemon, &code, &sents);
    daemon.stop();

    // The tools tell it as what it is, and no signal ends them.
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let run = |kib, arguments: &[&str]| {
        let ran = limited(kib, &[arguments, &["--data-dir", &text(&data)]].concat()).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let (code, told) = run(64, &["backup", &text(&work.path().join("backup"))]);
    assert!(code == Some(1) && told.contains("there is no room"), "{code:?} {told}");
    let exported = command(&["export", "--data-dir", &text(&data)]).output().unwrap().stdout;
    let events = work.path().join("events");
    let lines = exported.split_inclusive(|byte| *byte == b'\n').cycle().take(4_000).flatten().copied();
    fs::write(&events, lines.collect::<Vec<_>>()).unwrap();
    let (code, told) = run(512, &["import", &text(&events)]);
    assert!(code == Some(1) && told.contains("the disk is full") && told.contains("--skip"), "{code:?} {told}");
    assert!(command(&["check", "--data-dir", &text(&data)]).output().unwrap().status.success());
}

#[test]
fn a_backup_without_room_says_so_in_every_word() {
    let daemon = Daemon::start(&SMALL);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 1);
    load.wait_for_answers(50);
    load.finish();
    let work = work_dir();
    for word in WORDS {
        let to = work.path().join(word);
        let backup = command(&["backup", to.to_str().unwrap(), "--data-dir", daemon.data().to_str().unwrap()]);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-o", "/dev/null", "-e", "trace=pwrite64"]);
        traced.args(["-e", &format!("inject=pwrite64:error={word}")]);
        let ran = traced.arg(backup.get_program()).args(backup.get_args()).output().unwrap();
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(1) && told.contains("there is no room"), "{word} {told}");
        assert!(!to.join("catalog.db").exists(), "{word}: what is cut short is no data directory");
    }
    daemon.stop();
}

/// Takes every byte that is left.
fn fill(ballast: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(ballast).unwrap();
    for part in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; part]).and_then(|()| file.sync_all()).is_ok() {}
    }
}

/// Log that is long at the kill: megabytes in it that no checkpoint has copied.
const LONG_LOG: [&str; 2] = ["--wal-checkpoint-bytes=64MiB", "--wal-bytes-max=64MiB"];

/// Kills a hitlog with a log of so many bytes on a disk that is filled to the last byte, and starts it there.
fn start_on_full(folder: &Path, rows_max: &str, clients: usize, unsealed: usize, wal_bytes_min: f64) {
    let (data, ballast) = (folder.join("data"), folder.join("ballast"));
    let flags = [&LONG_LOG[..], &[rows_max]].concat();
    let mut daemon = Daemon::start_in(&data, &flags);
    let (code, other) = (daemon.register("example.com"), daemon.register("other.example"));
    // No seal comes to its end.
    let stalled = Tampering::with(&daemon, "setpriority:delay_enter=100000000");
    let load = Load::start(&daemon.address, &code, clients);
    wait_until("segments wait, and the log is long enough", || {
        (daemon.segments("unsealed") >= unsealed && daemon.metrics()["hitlog_wal_bytes"] > wal_bytes_min).then_some(())
    });
    let sents = load.finish();
    daemon.signal("KILL");
    drop(stalled);
    daemon.crash();
    // What a start removes of it would make room.
    let _ = fs::remove_dir_all(data.join("ids"));
    fill(&ballast);
    let refused = |daemon: &Daemon| {
        let mut client = daemon.client();
        let answer = client.post("/api/v1/events", event_with(&other, json!({})).to_string());
        assert_eq!((answer.status, answer.error().as_str()), (503, "STORAGE_FULL"), "{}", daemon.log());
        assert_eq!(client.get("/readyz").error(), "STORAGE_FULL");
        assert_eq!(client.get("/livez").status, 200);
    };
    for stop_in_order in [false, false, true] {
        let mut daemon = Daemon::start_in(&data, &flags);
        refused(&daemon);
        check_store(&daemon, &code, &sents);
        refused(&daemon);
        if stop_in_order { daemon.stop() } else { daemon.crash() }
    }
    let daemon = Daemon::start_in(&data, &flags);
    check_store(&daemon, &code, &sents);
    fs::remove_file(&ballast).unwrap();
    wait_until("ingest resumes", || (daemon.client().get("/readyz").status == 200).then_some(()));
    check_store(&daemon, &code, &sents);
    wait_until("an event is stored", || {
        let answer = daemon.client().post("/api/v1/events", event_with(&other, json!({})).to_string());
        (answer.status == 201).then_some(())
    });
    assert_eq!(daemon.metrics()["hitlog_reserve_standing"], 1.0);
    daemon.stop();
    assert_eq!(fs::metadata(data.join("reserve")).unwrap().len(), 4 << 20);
    let daemon = Daemon::start_in(&data, &flags);
    daemon.wait_until_sealed();
    daemon.stop();
    assert!(command(&["check", "--data-dir", data.to_str().unwrap()]).output().unwrap().status.success());
}

#[test]
fn a_start_on_a_full_disk_serves_reads_until_there_is_room() {
    if !is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let work = work_dir();
    let disk = Mount::in_memory(32, work.path());
    start_on_full(work.path(), "--segment-rows-max=1000000", 8, 0, 6e6);
    drop(disk);

    // On a file system with blocks that are not free at once, and with segments that wait to be sealed; once with
    // blocks smaller than a page of memory, in which a file that is mapped has holes.
    for block in ["4096", "1024"] {
        let (work, device) = (work_dir(), work_dir());
        let device = device.path().join("disk");
        fs::File::create(&device).and_then(|file| file.set_len(96 << 20)).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-b", block, device.to_str().unwrap()]);
        let disk = Mount::new(&["-o", "loop", device.to_str().unwrap()], work.path());
        start_on_full(work.path(), "--segment-rows-max=12000", 8, 3, 6e6);
        drop(disk);
    }

    // With more segments than the reserve has room for the indexes of their logs, if those had any. One client sends no
    // faster than they can be made.
    let work = work_dir();
    let disk = Mount::in_memory(96, work.path());
    start_on_full(work.path(), "--segment-rows-max=40", 1, 100, 0.0);
    drop(disk);
}

#[test]
fn what_has_expired_makes_room_on_a_full_disk() {
    if !is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let work = work_dir();
    let disk = Mount::in_memory(32, work.path());
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--segment-rows-max=3000"]);
    let code = daemon.register("example.com");
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let old = event_with(&code, json!({"timestamp": now_ms - 40 * 24 * 60 * 60 * 1_000}));
    let batch = json!({"events": vec![old; 500]}).to_string();
    for _ in 0..7 {
        assert_eq!(daemon.client().post("/api/v1/events/batch", &batch).status, 201);
    }
    daemon.wait_until_sealed();
    daemon.stop();
    let daemon = Daemon::start_in(&data, &["--retention-days=30", "--retention-grace-seconds=3"]);
    daemon.wait_for_log("all events of a segment have expired: it is about to be removed");
    let ballast = work.path().join("ballast");
    fill(&ballast);
    let event = event_with(&code, json!({})).to_string();
    wait_until("it is gone, and ingest resumes", || {
        let is_gone = !data.join("segments/000000000001.g2.db").exists();
        (is_gone && daemon.client().post("/api/v1/events", &event).status == 201).then_some(())
    });
    daemon.wait_for_log("the reserve is given up so that an expired segment can be removed");
    assert_eq!(daemon.metrics()["hitlog_reserve_standing"], 1.0);
    assert_eq!(fs::metadata(data.join("reserve")).unwrap().len(), 4 << 20);
    daemon.stop();
    drop(disk);
}

#[test]
fn a_start_that_a_quota_leaves_no_byte_says_how_many_it_needs() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &SMALL);
    daemon.register("example.com");
    daemon.crash();
    for word in WORDS {
        let serve = command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-o", "/dev/null", "-e", "trace=pwrite64"]);
        traced.args(["-e", &format!("inject=pwrite64:error={word}")]);
        let ran = traced.arg(serve.get_program()).args(serve.get_args()).output().unwrap();
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(1) && told.contains("bytes there to read what is stored"), "{word} {told}");
        assert!(told.contains("quota") && !told.contains("move"), "{word} {told}");
    }
    Daemon::start_in(&data, &SMALL).stop();
}

#[test]
fn a_start_within_a_limit_on_the_size_of_files_serves_reads() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &LONG_LOG);
    let (code, other) = (daemon.register("example.com"), daemon.register("other.example"));
    let load = Load::start(&daemon.address, &code, 4);
    wait_until("the log has megabytes", || (daemon.metrics()["hitlog_wal_bytes"] > 2e6).then_some(()));
    let sents = load.finish();
    daemon.crash();
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    arguments.extend(LONG_LOG);
    let daemon = Daemon::spawn(&mut limited(128, &arguments), &data);
    let event = event_with(&other, json!({})).to_string();
    let refused = daemon.client().post("/api/v1/events", &event);
    assert_eq!((refused.status, refused.error().as_str()), (503, "STORAGE_FULL"), "{}", daemon.log());
    check_store(&daemon, &code, &sents);
    let raised = Command::new("prlimit").args([&format!("--pid={}", daemon.pid()), "--fsize=unlimited"]).status();
    assert!(raised.unwrap().success());
    wait_until("ingest resumes", || (daemon.client().post("/api/v1/events", &event).status == 201).then_some(()));
    daemon.stop();
}

/// COMMIT asks for room for the index of the write-ahead log after its frames are on the disk, so a refusal for want of
/// that must not say that nothing is stored.
#[test]
fn an_index_that_cannot_grow_leaves_in_doubt_what_may_be_stored() {
    let work = work_dir();
    let data = work.path().join("data");
    // Frames are small, so that there are more of them than a part of the index is for.
    let flags = [&LONG_LOG[..], &["--segment-page-bytes=512"]].concat();
    let mut daemon = Daemon::start_in(&data, &flags);
    let code = daemon.register("example.com");
    let index = data.join("segments/000000000001.db-shm");
    let no_room = Tampering::with_files(&daemon, "pwrite64:error=ENOSPC", &[index]);
    let load = Load::start(&daemon.address, &code, 8);
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
    drop(no_room);
    let sents = load.finish();
    let parts = fs::metadata(data.join("segments/000000000001.db-wal")).unwrap().len() / (512 + 24) / 4_062;
    assert!(parts >= 2, "{parts}: one part more than is needed is there ahead");
    assert!(sents.values().any(|sent| sent.outcome == Outcome::Unknown), "somebody waited for that commit");
    let daemon = Daemon::start_in(&data, &flags);
    check_store(&daemon, &code, &sents);
    daemon.stop();
}

/// Keys and lists of hidden events that turn out to be damaged on a full disk: what is asked of them is refused, with the
/// reason, until there is room to make them anew.
#[test]
fn what_is_damaged_is_made_anew_when_there_is_room() {
    if !is_root() {
        eprintln!("skipped: it needs root to mount");
        return;
    }
    let work = work_dir();
    let _mounted = Mount::in_memory(48, work.path());
    let (data, ballast) = (work.path().join("data"), work.path().join("ballast"));
    let segments = data.join("segments");
    let flags = ["--segment-rows-max=60", "--unsealed-rows-max=1", "--hidden-events-max=10"];
    let daemon = Daemon::start_in(&data, &flags);
    // A folder in the way of its rewriting keeps each as it is.
    (1..=2).for_each(|number| fs::create_dir_all(segments.join(format!("{number:012}.building/x"))).unwrap());
    let code = daemon.register("example.com");
    let mut client = daemon.client();
    for batch in 0..3 {
        if batch == 2 {
            // The next segment may have been made only now; the last events are to be in it.
            daemon.wait_for_log("rolled to the next segment");
        }
        let of = |visitor: &str| event_with(&code, json!({"visitorId": visitor}));
        let events: Vec<_> = (0..15).flat_map(|_| [of("many"), of("other")]).collect();
        let sent = client.post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(sent.status, 201, "{}", sent.text());
    }
    let keys = segments.join("000000000001.db-keys");
    wait_until("keys are laid down", || keys.exists().then_some(()));
    let erased = client.send("DELETE", &format!("/api/v1/visitors/many?trackingCode={code}"), &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text());
    // An erasure rolls the segment that it waits for, and that must not fall into the time of the full disk.
    daemon.wait_for_log("rolled to the next segment\",\"segment\":3");
    let of_second = segments.join("000000000002.db-keys");
    wait_until("its keys are laid down, too", || of_second.exists().then_some(()));
    let is_list = |path: &PathBuf| path.to_str().unwrap().contains(".hidden-");
    let lists = fs::read_dir(&segments).unwrap().map(|entry| entry.unwrap().path()).filter(is_list);
    let lists: Vec<_> = lists.collect();
    assert_eq!(lists.len(), 2);
    for damaged in [vec![keys], lists] {
        fill(&ballast);
        for path in &damaged {
            // In its place, so that there is no room from what it had.
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 0).unwrap();
            file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
        }
        let path = format!("/api/v1/events?trackingCode={code}&limit=100");
        for _ in 0..3 {
            let refused = client.get(&path);
            assert_eq!(refused.status, 503, "{}", refused.text());
            assert!(refused.text().contains("The disk is full"), "{}", refused.text());
        }
        fs::remove_file(&ballast).unwrap();
        let page = wait_until("there is an answer", || Some(client.get(&path)).filter(|page| page.status != 503));
        assert_eq!((page.status, page.json()["pagination"]["total"].as_u64()), (200, Some(45)), "{}", page.text());
    }
    daemon.wait_for_log("there is no room to lay them down");
    daemon.wait_for_log("there is no room to make a list of events that are being erased anew");
    daemon.stop();
}

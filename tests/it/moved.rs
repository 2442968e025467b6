//! A data directory that is moved, deleted, replaced or mounted over beneath a running hitlog: it stops, answers nothing
//! that it can't keep, and touches nothing of what is there instead.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use harness::{
    Client, Daemon, Tampering, command, event_with,
    mount::{Mount, is_root},
    wait_until, work_dir,
};

const FLAGS: [&str; 1] = ["--segment-rows-max=60"];

/// A hitlog that has a sealed segment and a few events in the next.
fn filled(data: &Path) -> (Daemon, String) {
    let daemon = Daemon::start_in(data, &FLAGS);
    let code = daemon.register("example.com");
    let events = vec![event_with(&code, json!({})); 35];
    for _ in 0..2 {
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{}", response.text());
    }
    wait_until("a segment is sealed", || (daemon.segments("sealed") == 1).then_some(()));
    daemon.wait_until_sealed();
    (daemon, code)
}

/// Sends events one by one while `change` is made, until hitlog is gone; returns how many were answered 201.
fn stored_meanwhile(daemon: &mut Daemon, code: &str, change: impl FnOnce()) -> u64 {
    let (stop, address) = (AtomicBool::new(false), daemon.address.clone());
    let stored = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (mut stored, body) = (0, event_with(code, json!({})).to_string());
            // One that nothing ends must not be sent to for ever.
            let until = Instant::now() + Duration::from_secs(10);
            let goes_on = || !stop.load(Ordering::Relaxed) && Instant::now() < until;
            while let Some(mut client) = Client::try_connect(&address).filter(|_| goes_on()) {
                while let Some(response) = client.try_send("POST", "/api/v1/events", &[], body.as_bytes()) {
                    match response.status {
                        201 => stored += 1,
                        503 => assert!(["COMMIT_UNKNOWN", "OVERLOADED"].contains(&response.error().as_str())),
                        status => panic!("{status}: {}", response.text()),
                    }
                    if !goes_on() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            }
            stored
        });
        thread::sleep(Duration::from_millis(100));
        change();
        let began_at = Instant::now();
        let status = daemon.wait();
        assert_eq!(status.code(), Some(1), "{}", daemon.log());
        assert!(began_at.elapsed() < Duration::from_secs(6), "it took {:?}", began_at.elapsed());
        stop.store(true, Ordering::Relaxed);
        sending.join().unwrap()
    });
    assert!(
        daemon.log().contains("hitlog has stopped, and has written nothing to what is there now"),
        "{}",
        daemon.log()
    );
    stored
}

fn total(data: &Path, code: &str) -> u64 {
    let daemon = Daemon::start_in(data, &FLAGS);
    let page = daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json();
    daemon.stop();
    page["pagination"]["total"].as_u64().unwrap()
}

/// Every event that was answered 201 is there; and at most the one whose answer is unknown.
fn assert_kept(data: &Path, code: &str, stored: u64) {
    let total = total(data, code);
    assert!((70 + stored..=71 + stored).contains(&total), "{total} events after {stored} answers");
}

/// Every file below a folder, with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_that_is_moved_keeps_every_event_and_its_successor_is_not_touched() {
    let work = work_dir();
    let (data, away, other) = (work.path().join("data"), work.path().join("away"), work.path().join("other"));
    // What takes its place has files of the same names, written and not yet copied from their logs.
    let (mut second, _) = filled(&other);
    second.crash();
    let (mut daemon, code) = filled(&data);
    let before = contents(&other).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    let stored = stored_meanwhile(&mut daemon, &code, || {
        fs::rename(&data, &away).unwrap();
        fs::rename(&other, &data).unwrap();
    });
    assert!(daemon.log().contains("is not the directory any more that hitlog has opened"), "{}", daemon.log());
    assert!(contents(&data).into_iter().map(|(_, bytes)| bytes).eq(before), "what is there now was changed");
    assert!(stored > 0);
    assert_kept(&away, &code, stored);
}

/// A full segment is emptied and closed, and its keys are laid down beside it, a moment after the next has begun.
#[test]
fn a_full_segment_leaves_nothing_in_the_successor_of_a_directory() {
    let send = |daemon: &Daemon, code: &str| {
        let events = vec![event_with(code, json!({})); 35];
        let response = daemon.client().post("/api/v1/events/batch", json!({ "events": events }).to_string());
        assert_eq!(response.status, 201, "{}", response.text());
    };
    for _ in 0..2 {
        let work = work_dir();
        let (data, away, other) = (work.path().join("data"), work.path().join("away"), work.path().join("other"));
        let (mut second, code) = filled(&other);
        send(&second, &code);
        second.crash();
        assert!(fs::metadata(other.join("segments/000000000002.db-wal")).unwrap().len() > 0);
        let before = contents(&other).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
        let (mut daemon, code) = filled(&data);
        send(&daemon, &code);
        let rolls = daemon.metrics()["hitlog_segment_rolls_total"];
        let slow = Tampering::with(&daemon, "fdatasync:delay_enter=250000:when=2+");
        send(&daemon, &code);
        wait_until("it is full", || (daemon.metrics()["hitlog_segment_rolls_total"] > rolls).then_some(()));
        // By now it is at that.
        thread::sleep(Duration::from_millis(50));
        fs::rename(&data, &away).unwrap();
        fs::rename(&other, &data).unwrap();
        assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
        drop(slow);
        assert!(contents(&data).into_iter().map(|(_, bytes)| bytes).eq(before), "what is there now was changed");
        assert_eq!(total(&away, &code), 140);
    }
}

#[test]
fn nothing_is_made_where_the_directory_was() {
    let work = work_dir();
    let (data, away) = (work.path().join("data"), work.path().join("away"));
    let (mut daemon, code) = filled(&data);
    let mut looking = daemon.client();
    assert_eq!(looking.get("/readyz").status, 200);
    let stored = stored_meanwhile(&mut daemon, &code, || {
        fs::rename(&data, &away).unwrap();
        let mut is_ready = || looking.try_send("GET", "/readyz", &[], b"").is_some_and(|ready| ready.status == 200);
        wait_until("it is not ready any more", || (!is_ready()).then_some(()));
    });
    assert!(!data.exists());
    assert_kept(&away, &code, stored);
    // An idle one notices as well.
    fs::rename(&away, &data).unwrap();
    let mut daemon = Daemon::start_in(&data, &FLAGS);
    fs::rename(&data, &away).unwrap();
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
    assert!(!data.exists());
    assert_kept(&away, &code, stored);
}

#[test]
fn files_that_are_deleted_or_replaced_beneath_it_end_it() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("deleted", |data| fs::remove_dir_all(data).unwrap()),
        ("catalog deleted", |data| fs::remove_file(data.join("catalog.db")).unwrap()),
        ("catalog replaced", |data| {
            fs::copy(data.join("catalog.db"), data.join("new")).unwrap();
            fs::rename(data.join("new"), data.join("catalog.db")).unwrap();
        }),
        ("the active segment deleted", |data| fs::remove_file(data.join("segments/000000000002.db")).unwrap()),
        ("its log deleted", |data| fs::remove_file(data.join("segments/000000000002.db-wal")).unwrap()),
        ("segments replaced", |data| {
            fs::rename(data.join("segments"), data.join("old")).unwrap();
            fs::create_dir(data.join("segments")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let work = work_dir();
        let data = work.path().join("data");
        let (mut daemon, code) = filled(&data);
        stored_meanwhile(&mut daemon, &code, || change(&data));
        assert!(daemon.log().contains("was moved, deleted or replaced"), "{what}: {}", daemon.log());
        if what == "deleted" {
            assert!(!data.exists());
        }
        if what == "segments replaced" {
            assert_eq!(fs::read_dir(data.join("segments")).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_directory_that_is_mounted_over_is_noticed() {
    if !is_root() {
        eprintln!("skipped: it needs root to mount");
        return;
    }
    let work = work_dir();
    let data = work.path().join("data");
    let (mut daemon, code) = filled(&data);
    let mut mounted = None;
    let stored = stored_meanwhile(&mut daemon, &code, || mounted = Some(Mount::in_memory(4, &data)));
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "something was written to what is mounted there");
    drop(mounted);
    assert_kept(&data, &code, stored);
}

#[test]
fn a_lock_that_is_deleted_ends_nobody_and_lets_nobody_in() {
    let daemon = Daemon::start(&[]);
    let (data, lock) = (daemon.data().to_owned(), daemon.data().join("lock"));
    for _ in 0..2 {
        fs::remove_file(&lock).unwrap();
        let second =
            command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(told.contains("in use by another hitlog"), "{told}");
        wait_until("the lock is made anew", || {
            (fs::read_to_string(&lock).ok()?.trim() == daemon.pid().to_string()).then_some(())
        });
        assert_eq!(daemon.client().get("/readyz").status, 200);
    }
    let file = File::open(&lock).unwrap();
    assert!(file.try_lock().is_err(), "an older hitlog would find it locked");
    daemon.stop();
    // One that knows the file only keeps us out.
    file.try_lock().unwrap();
    let start = command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert_eq!(start.status.code(), Some(1), "{}", String::from_utf8_lossy(&start.stderr));
}

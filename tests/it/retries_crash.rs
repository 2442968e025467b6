//! Who is in doubt sends again: through kills at every step, losses of power, failing and full disks each event is
//! stored once, whatever requests it is sent in, and what is answered is what is stored.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rusqlite::Connection;

use harness::{
    Client, Daemon, Tampering,
    checker::random_below,
    command,
    disk::{Call, Image, Loss, What, calls, image, traced, write_image},
    named::{NamedEvents, id_runs},
    side_by_side, wait_until, work_dir,
};
use rand::{SeedableRng, rngs::SmallRng};
use tempfile::TempDir;

/// Small pages, logs and segments, so that a short run has checkpoints, rolls, seals, and runs of ids.
const SMALL: [&str; 3] = ["--segment-page-bytes=4096", "--wal-checkpoint-bytes=64KiB", "--segment-rows-max=60"];

/// The sizes of the requests that are sent, one after the other.
const SIZES: [usize; 6] = [1, 20, 3, 1, 40, 15];

/// Sends new events in so many requests, or as many as the process lives for.
fn send_new(events: &mut NamedEvents, address: &str, requests: usize) {
    let Some(mut client) = Client::try_connect(address) else { return };
    for request in 0..requests {
        let next = events.told.keys().next_back().map_or(0, |last| last + 1);
        let numbers: Vec<usize> = (next..next + SIZES[request % SIZES.len()]).collect();
        match events.send(&mut client, &numbers) {
            Some(status) => assert_eq!(status, 201),
            None => return,
        }
    }
}

/// Whether everything is done that a roll brings with it; `None` if hitlog is gone.
fn is_settled(daemon: &Daemon) -> Option<bool> {
    let metrics = daemon.try_metrics()?;
    Some(
        metrics["hitlog_segment_rolls_total"] >= 1.0
            && metrics["hitlog_dedup_writes_total{outcome=\"ok\"}"] >= 1.0
            && metrics["hitlog_segments{state=\"unsealed\"}"] == 0.0
            && metrics["hitlog_segments{state=\"prepared\"}"] == 1.0,
    )
}

#[test]
fn killed_at_every_step_of_commits_with_ids() {
    let calls: [(&str, &[&str], usize); 7] = [
        // Of the writer, the roller, the sealer and the keeper of ids.
        ("pwrite64", &[], 24),
        ("fdatasync", &[], 12),
        ("fsync", &[], 8),
        ("rename", &[], 2),
        // Of the keeper alone: its first run, and its merging of several.
        ("pwrite64", &["ids/laying", "ids/merging"], 6),
        ("openat", &["ids/laying", "ids/merging"], 3),
        ("unlink", &[], 6),
    ];
    let kills = side_by_side(calls, |(call, files, at_most)| kill_at_every(call, files, at_most));
    println!("{kills:?} kills");
    assert!(kills.iter().all(|kills| *kills > 0), "what is injected does not fit any more: {kills:?}");
    assert!(kills.iter().sum::<usize>() > 25, "only {kills:?} kills: what is injected does not fit any more");
}

/// Kills hitlog at the first, the second, ... such call of a thread, until it lives on. Returns the number of kills.
fn kill_at_every(call: &str, files: &[&str], at_most: usize) -> usize {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &SMALL);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    let files: Vec<_> = files.iter().map(|file| data.join(file)).collect();
    let mut kills = 0;
    for at in 1..=at_most {
        let tampering = Tampering::with_files(&daemon, &format!("{call}:signal=KILL:when={at}"), &files);
        send_new(&mut events, &daemon.address, 6);
        let is_alive = wait_until("it is killed, or has done everything", || match is_settled(&daemon) {
            None => Some(false),
            Some(is_settled) => is_settled.then_some(true),
        });
        drop(tampering);
        daemon.crash();
        daemon = Daemon::start_in(&data, &SMALL);
        events.send_again(&daemon);
        if is_alive {
            break;
        }
        kills += 1;
    }
    daemon.wait_until_sealed();
    daemon.stop();
    let daemon = Daemon::start_in(&data, &SMALL);
    events.send_again(&daemon);
    assert_eq!(daemon.metrics()["hitlog_events_committed_total"], 0.0, "all of them were stored before");
    daemon.stop();
    kills
}

/// Nobody knows what a commit with a failed sync has stored, but the next start does.
#[test]
fn a_commit_that_nobody_knows_of() {
    side_by_side(["fdatasync", "pwrite64"], |call| {
        let work = work_dir();
        let data = work.path().join("data");
        let mut daemon = Daemon::start_in(&data, &SMALL);
        let mut events = NamedEvents::new(&daemon.register("example.com"));
        let mut in_doubt = 0;
        for at in 1..=8 {
            let bad_disk = Tampering::with(&daemon, &format!("{call}:error=EIO:when={at}+"));
            send_new(&mut events, &daemon.address, 12);
            in_doubt += events.told.values().filter(|told| told.is_none()).count();
            assert_eq!(daemon.wait().code(), Some(1), "{call} {at}: {}", daemon.log());
            drop(bad_disk);
            daemon = Daemon::start_in(&data, &SMALL);
            events.send_again(&daemon);
        }
        assert!(in_doubt > 0, "{call}: nobody was ever in doubt");
        daemon.stop();
    });
}

/// What a full disk refused left its names free; what was stored before, or is stored beside, is known.
#[test]
fn a_full_disk_leaves_names_free() {
    let work = work_dir();
    let data = work.path().join("data");
    // Short ages, so that ids are to be laid down while there is no room.
    let daemon = Daemon::start_in(&data, &[&SMALL[..], &["--dedup-window-seconds=8"]].concat());
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    send_new(&mut events, &daemon.address, 3);
    let mut client = daemon.client();
    let refused: Vec<usize> = (1_000..1_050).collect();
    for group in [50, 1] {
        let full_disk = Tampering::with(&daemon, "pwrite64:error=ENOSPC");
        for _ in 0..2 {
            for numbers in refused.chunks(group) {
                assert_eq!(events.send(&mut client, numbers), Some(503));
            }
            // Nothing has to be stored of what is stored.
            assert_eq!(daemon.client().get("/readyz").error(), "STORAGE_FULL");
        }
        wait_until("ids could not be laid down", || {
            (daemon.metrics()["hitlog_dedup_writes_total{outcome=\"failed\"}"] > 0.0).then_some(())
        });
        drop(full_disk);
        wait_until("ingest resumes", || (daemon.client().get("/readyz").status == 200).then_some(()));
        assert!(refused.iter().all(|number| !events.told.contains_key(number)));
        events.send_again(&daemon);
    }
    for numbers in refused.chunks(7) {
        assert_eq!(events.send(&mut client, numbers), Some(201));
    }
    wait_until("ids are laid down after all", || (!id_runs(&data).is_empty()).then_some(()));
    events.send_again(&daemon);
    daemon.stop();
}

/// A run under strace: what it did to the disk, and what it answered.
struct Run {
    work: TempDir,
    calls: Vec<Call>,
    events: NamedEvents,
    /// The line of the trace at which each event's id began its way to the client.
    told_at: HashMap<String, usize>,
    begun_at: usize,
}

fn record(durability: &str) -> Run {
    let work = work_dir();
    let (data, trace) = (work.path().join("data"), work.path().join("trace"));
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--durability", durability, "--data-dir"];
    arguments.push(data.to_str().unwrap());
    arguments.extend(SMALL);
    // So that ids are laid down between rolls, too: under `normal` before their events are durable.
    arguments.push("--dedup-window-seconds=3");
    let mut daemon = Daemon::spawn(&mut traced(&command(&arguments), &trace), &data);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    for _ in 0..3 {
        send_new(&mut events, &daemon.address, 6);
        wait_until("it is sealed", || (is_settled(&daemon)?).then_some(()));
        let last = |data: &Path| id_runs(data).pop()?[21..41].parse::<usize>().ok();
        wait_until("all ids are laid down", || (last(&data)? >= events.told.len()).then_some(()));
    }
    let text = || fs::read_to_string(&trace).unwrap();
    let ended_at = text().lines().count();
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let text = wait_until("strace has written everything", || {
        let ended =
            |line: &str| line.starts_with(&format!("{} ", daemon.pid())) && line.ends_with("+++ exited with 0 +++");
        Some(text()).filter(|text| text.lines().next_back().is_some_and(ended))
    });
    assert!(ended_at < text.lines().count());
    let (calls, code) = (calls(&text), events.code.clone());
    let (mut told_at, mut begun_at) = (HashMap::new(), None);
    for call in &calls {
        let What::Response(response) = &call.what else { continue };
        let response = String::from_utf8_lossy(response);
        for (at, marker) in response.match_indices(r#""id":"c"#) {
            let id = response[at + marker.len() - 1..].split('"').next().unwrap();
            told_at.entry(id.to_owned()).or_insert(call.began);
        }
        begun_at = begun_at.or_else(|| response.contains(&code).then_some(call.began));
    }
    Run { work, calls, events, told_at, begun_at: begun_at.expect("the website was registered") }
}

impl Run {
    /// Starts hitlog on what a loss of power before line `cut` has left, and sends everything again. Returns how many
    /// acknowledged events had been lost, which only `normal` may.
    fn check(&self, files: &Image, cut: usize, may_lose: bool) -> usize {
        let work = work_dir();
        let data = work.path().join("data");
        write_image(files, self.work.path(), work.path());
        let daemon = Daemon::start_in(&data, &SMALL);
        let mut events = self.events.clone();
        // Later answers nobody has seen.
        for told in events.told.values_mut() {
            *told = told.take().filter(|id| self.told_at[id] < cut);
        }
        let found = events.find(&daemon);
        let acknowledged = |(number, id): &(&usize, &Option<String>)| id.is_some() && !found.contains_key(number);
        let lost: Vec<usize> = events.told.iter().filter(acknowledged).map(|(number, _)| *number).collect();
        assert!(may_lose || lost.is_empty(), "acknowledged, and lost: {lost:?}");
        lost.iter().for_each(|number| *events.told.get_mut(number).unwrap() = None);
        events.send_again(&daemon);
        // What was stored again must not be taken for what was lost by the next start either.
        let mut daemon = daemon;
        daemon.crash();
        let daemon = Daemon::start_in(&data, &SMALL);
        events.send_again(&daemon);
        assert_eq!(daemon.metrics()["hitlog_events_committed_total"], 0.0, "all of them are stored");
        lost.len()
    }

    /// Cuts the run when a run of ids has become durable and at some other boundaries of syncs, and checks what is left.
    /// Returns how many acknowledged events the worst of the cuts had lost.
    fn cut(&self, images_max: usize, may_lose: bool) -> usize {
        let seed = random_below(1 << 32);
        let mut random = SmallRng::seed_from_u64(seed);
        let syncs = self.calls.iter().filter(|call| matches!(call.what, What::Sync(_)) && call.began > self.begun_at);
        // When a run is durable, and whatever else was: always; the others in turn.
        let (of_runs, others): (Vec<&Call>, Vec<&Call>) =
            syncs.partition(|call| call.what.path().is_some_and(|path| path.ends_with("ids")));
        let others: Vec<usize> = others.iter().flat_map(|call| [call.ended, call.ended + 1]).collect();
        let step = others.len().div_ceil(images_max / 2);
        let others = others.into_iter().skip(random_below(step as u64) as usize).step_by(step);
        let mut images = Vec::new();
        for cut in of_runs.iter().map(|call| call.ended + 1).chain(others) {
            images.push((cut, image(self.calls.iter(), self.work.path(), cut, Loss::Everything)));
            images.push((cut, image(self.calls.iter(), self.work.path(), cut, Loss::Random(&mut random))));
        }
        println!("{} images of a disk, {} of them beside a new run of ids", images.len(), 2 * of_runs.len());
        let (next, worst) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while let Some((cut, files)) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _place = Place(*cut, seed);
                        worst.fetch_max(self.check(files, *cut, may_lose), Ordering::Relaxed);
                    }
                });
            }
        });
        worst.into_inner()
    }
}

/// Says where a check failed.
struct Place(usize, u64);

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the power was cut before line {} of the trace, the losses drawn from seed {}", self.0, self.1);
        }
    }
}

#[test]
fn after_a_loss_of_power_full_stores_each_once() {
    record("full").cut(40, false);
}

#[test]
fn after_a_loss_of_power_normal_stores_again_what_is_lost() {
    let lost = record("normal").cut(40, true);
    assert!(lost > 0, "a loss of power that loses nothing under `normal` is none");
}

/// A directory whose ids say more than its events: events are lost that were stored, and their ids are in a run.
fn lose_a_tail(work: &Path) -> (NamedEvents, Vec<usize>) {
    let data = work.join("data");
    let flags = ["--dedup-window-seconds=16"];
    let mut daemon = Daemon::start_in(&data, &flags);
    let mut events = NamedEvents::new(&daemon.register("example.com"));
    send_new(&mut events, &daemon.address, 6);
    wait_until("ids are laid down", || (!id_runs(&data).is_empty()).then_some(()));
    daemon.crash();
    // As a loss of power under `normal` leaves it.
    let segment = Connection::open(data.join("segments/000000000001.db")).unwrap();
    assert_eq!(segment.execute("DELETE FROM Event WHERE id > 50", []).unwrap(), 30);
    (events, (50..80).collect())
}

#[test]
fn a_run_does_not_claim_what_is_lost() {
    let work = work_dir();
    let (mut events, lost) = lose_a_tail(work.path());
    let data = work.path().join("data");
    assert_eq!(id_runs(&data), [run_name(1, 80)]);
    let daemon = Daemon::start_in(&data, &[]);
    assert_eq!(id_runs(&data), [run_name(1, 50)]);
    lost.iter().for_each(|number| *events.told.get_mut(number).unwrap() = None);
    // Others come first, and get the sequences.
    let others: Vec<usize> = (100..120).collect();
    assert_eq!(events.send(&mut daemon.client(), &others), Some(201));
    events.send_again(&daemon);
    daemon.stop();
    let daemon = Daemon::start_in(&data, &[]);
    events.send_again(&daemon);
    daemon.stop();
}

fn run_name(first: u64, last: u64) -> String {
    format!("{first:020}-{last:020}.ids")
}

/// A run that claims too much is gone for good before other events get the sequences: if a loss of power brought it
/// back, it would claim events of others.
#[test]
fn what_claims_too_much_is_gone_before_anything_is_stored() {
    let work = work_dir();
    let (mut events, _) = lose_a_tail(work.path());
    let (data, trace) = (work.path().join("data"), work.path().join("trace"));
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let mut daemon = Daemon::spawn(&mut traced(&command(&arguments), &trace), &data);
    let mut client = daemon.client();
    assert_eq!(events.send(&mut client, &[100]), Some(201));
    // Who answers has returned from the call that sent the one before, so the trace has it whole.
    assert_eq!(client.get("/health").status, 200);
    daemon.crash();
    let read = || fs::read_to_string(&trace).ok().filter(|text| text.trim_end().ends_with("+++ killed by SIGKILL +++"));
    let calls = calls(&wait_until("strace has written everything", read));
    let removed = data.join("ids").join(run_name(1, 80));
    let at = calls.iter().position(|call| call.what == What::Remove(removed.clone())).expect("it is removed");
    let is_sync = |call: &&Call| call.what == What::Sync(data.join("ids"));
    let synced = calls[at..].iter().find(is_sync).expect("its folder is made durable");
    let id = events.told[&100].clone().unwrap();
    let is_answer = |what: &What| matches!(what, What::Response(text) if String::from_utf8_lossy(text).contains(&id));
    let answered = calls.iter().position(|call| is_answer(&call.what)).expect("it is answered");
    let is_commit =
        |call: &&Call| matches!(&call.what, What::Write { path, .. } if path.ends_with("000000000001.db-wal"));
    let of_commit: Vec<usize> = calls[at..answered].iter().filter(is_commit).map(|call| call.began).collect();
    assert!(!of_commit.is_empty(), "the event is stored after the removal");
    assert!(synced.ended < of_commit[0], "durable at line {}, and the event is at {of_commit:?}", synced.ended);
}

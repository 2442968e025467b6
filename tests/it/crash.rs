//! Killed at random moments, hitlog keeps what it acknowledged: across commits, checkpoints, rolls, seals and erasures.
//!
//! `HITLOG_CRASH_ROUNDS` says how many kills; `scripts/crash ROUNDS` sets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use harness::{
    Client, Daemon,
    checker::{Load, Outcome, Sents, check_store_above, event_ids, hold, random_below, rounds, send_again, walk},
    command, event_with, work_dir,
};
use serde_json::{Value, json};

/// Small logs, groups and segments, so that kills also fall into checkpoints and resets of the log, rolls and seals.
const FLAGS: [&str; 4] =
    ["--wal-checkpoint-bytes=256KiB", "--group-events-max=64", "--segment-rows-max=4000", "--warm-connections-max=4"];
const CLIENTS: usize = 8;

#[test]
fn killed_at_random_moments_full_keeps_what_it_acknowledged() {
    kill_and_check("full", rounds("HITLOG_CRASH_ROUNDS", 25));
}

#[test]
fn killed_at_random_moments_normal_keeps_what_it_acknowledged() {
    // A kill is no loss of power: what a COMMIT wrote is in the page cache either way.
    kill_and_check("normal", rounds("HITLOG_CRASH_ROUNDS", 25));
}

fn kill_and_check(durability: &str, rounds: usize) {
    let work = work_dir();
    let data = work.path().join("data");
    let flags = [&FLAGS[..], &["--durability", durability]].concat();
    let mut daemon = Daemon::start_in(&data, &flags);
    let erased_code = daemon.register("erased.example");
    let mut erasures = Visitors::default();
    let (mut floor, mut requests, mut seals, mut rolls) = (0, 0, 0.0, 0.0);
    let mut kept: Vec<(String, Sents, u64)> = Vec::new();
    for round in 0..rounds {
        let code = daemon.register(&format!("round-{round}.example"));
        let load = Load::start(&daemon.address, &code, CLIENTS);
        let eraser = Eraser::start(&daemon.address, &erased_code, round);
        load.wait_for_answers(1);
        thread::sleep(Duration::from_millis(random_below(250)));
        let metrics = daemon.try_metrics().unwrap_or_default();
        rolls += metrics.get("hitlog_segment_rolls_total").unwrap_or(&0.0);
        seals += metrics.get("hitlog_seal_duration_seconds_count").unwrap_or(&0.0);
        daemon.crash();
        let mut sents = load.finish();
        erasures.extend(eraser.finish());
        requests += sents.len();
        daemon = Daemon::start_in(&data, &flags);
        let before = floor;
        floor = check_store_above(&daemon, &code, &sents, floor);
        // Nothing is stored twice, and nobody is in doubt any more.
        send_again(&daemon, &code, &mut sents);
        floor = floor.max(check_store_above(&daemon, &code, &sents, before));
        kept.push((code, sents, before));
        // What an earlier round stored has been moved by seals and erasures since; each look takes long, so not always.
        let again = random_below(kept.len() as u64) as usize;
        let (code, sents, before) = &mut kept[again];
        send_again(&daemon, code, sents);
        check_store_above(&daemon, code, sents, *before);
        erasures.check(&walk(&daemon, &erased_code).unwrap());
    }
    for (code, sents, before) in &kept {
        check_store_above(&daemon, code, sents, *before);
    }
    daemon.wait_until_sealed();
    erasures.check(&walk(&daemon, &erased_code).unwrap());
    let erased = erasures.0.values().filter(|state| **state == Erasure::Acknowledged).count();
    println!("{durability}: {rounds} kills, {requests} requests, {rolls} rolls, {seals} seals, {erased} erasures");
    daemon.stop();
    let check = command(&["check", "--data-dir", data.to_str().unwrap()]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

/// What became of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Erasure {
    /// The events were acknowledged, and nobody has asked for more.
    Stored,
    /// The erasure was answered 202.
    Acknowledged,
    /// A connection broke on the way.
    Unknown,
}

/// Visitors by their names.
#[derive(Default)]
struct Visitors(BTreeMap<String, Erasure>);

const VISITOR_EVENTS: usize = 5;

impl Visitors {
    fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// No event of an erased visitor is in any answer, and every event of one that was not is.
    fn check(&self, found: &[Value]) {
        let mut events: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for event in found {
            let [visitor, id] = ["visitorId", "id"].map(|name| event[name].as_str().unwrap());
            assert!(events.entry(visitor).or_default().insert(id), "twice: {event}");
        }
        for (visitor, erasure) in &self.0 {
            let count = events.remove(visitor.as_str()).map_or(0, |ids| ids.len());
            match erasure {
                Erasure::Stored => assert_eq!(count, VISITOR_EVENTS, "{visitor} was stored"),
                Erasure::Acknowledged => assert_eq!(count, 0, "{visitor} is erased"),
                Erasure::Unknown => assert!(count == 0 || count == VISITOR_EVENTS, "{count} events of {visitor}"),
            }
        }
        assert!(events.is_empty(), "nobody sent {:?}", events.keys());
    }
}

/// A client that stores events of a new visitor and has every second visitor erased.
struct Eraser {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Visitors>,
}

impl Eraser {
    fn start(address: &str, code: &str, round: usize) -> Self {
        let (stop, address, code) = (Arc::<AtomicBool>::default(), address.to_owned(), code.to_owned());
        let asked_to_stop = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut client, mut erasures) = (Client::connect(&address), Visitors::default());
            for number in 0.. {
                if asked_to_stop.load(Ordering::Relaxed) {
                    break;
                }
                let visitor = format!("visitor-{round}-{number}");
                let event = event_with(&code, json!({"visitorId": visitor}));
                let batch = json!({"events": vec![event; VISITOR_EVENTS]}).to_string();
                let stored = client.try_send("POST", "/api/v1/events/batch", &[], batch.as_bytes());
                let mut state = if stored.is_some_and(|response| response.status == 201) {
                    Erasure::Stored
                } else {
                    Erasure::Unknown
                };
                if number % 2 == 0 && state == Erasure::Stored {
                    let path = format!("/api/v1/visitors/{visitor}?trackingCode={code}");
                    let response = client.try_send("DELETE", &path, &[], b"");
                    let is_erased = response.is_some_and(|response| response.status == 202);
                    state = if is_erased { Erasure::Acknowledged } else { Erasure::Unknown };
                }
                erasures.0.insert(visitor, state);
                if state == Erasure::Unknown {
                    break;
                }
            }
            erasures
        });
        Self { stop, thread }
    }

    fn finish(self) -> Visitors {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The check itself is checked: it finds each fault that it is there for, planted into what a store really holds.
#[test]
fn the_check_finds_what_it_is_there_for() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 2);
    load.wait_for_answers(40);
    let sents = load.finish();
    let (found, ids) = (walk(&daemon, &code).unwrap(), event_ids(daemon.data()));
    let highest = hold(&sents, &found, &ids, 0).unwrap();
    assert_eq!(highest, found.len() as u64);
    let of = |request: usize| found.iter().position(|event| event["sessionId"] == json!(request.to_string())).unwrap();
    type Fault = Box<dyn Fn(&mut Sents, &mut Vec<Value>)>;
    let single = of(8);
    let (batch, member) = (of(7), of(3));
    let faults: [(&str, Fault); 10] = [
        ("was acknowledged, stored is", Box::new(move |_, found| drop(found.remove(single)))),
        ("was acknowledged, stored is", Box::new(move |_, found| drop(found.remove(batch)))),
        ("have one sequence", Box::new(move |_, found| found.push(found[single].clone()))),
        (
            "twice",
            Box::new(move |_, found| {
                let mut again = found[single].clone();
                again["id"] = String::from_utf8_lossy(&ids.encode(u64::MAX)).into();
                found.push(again);
            }),
        ),
        ("sent was", Box::new(move |_, found| found[member]["properties"] = json!({"n": 0}))),
        ("sent was", Box::new(move |_, found| found[single]["createdAt"] = json!("2026-05-28T20:26:40.001Z"))),
        ("is Refused", Box::new(|sents, _| sents.get_mut(&0).unwrap().outcome = Outcome::Refused)),
        (
            "is Unknown",
            Box::new(move |sents, found| {
                sents.get_mut(&7).unwrap().outcome = Outcome::Unknown;
                found.remove(batch);
            }),
        ),
        (
            "other ids",
            Box::new(move |_, found| {
                let id = found[batch]["id"].take();
                found[batch]["id"] = std::mem::replace(&mut found[batch + 1]["id"], id);
            }),
        ),
        ("nobody sent", Box::new(|sents, _| drop(sents.remove(&8)))),
    ];
    for (message, plant) in faults {
        let (mut sents, mut found) = (sents.clone(), found.clone());
        plant(&mut sents, &mut found);
        let fault = hold(&sents, &found, &event_ids(daemon.data()), 0).expect_err(message);
        assert!(fault.contains(message), "{message}: {fault}");
    }
    assert!(hold(&sents, &found, &event_ids(daemon.data()), 1).unwrap_err().contains("has been passed before"));
    daemon.stop();
}

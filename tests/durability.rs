//! What a 201 promises: through kills, stops, full queues and failing disks, with the law of conservation after each.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use support::{Answer, Client, Daemon, Tampering, event_with, traffic, wait_until, work_dir};

/// What came back for one request of some events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Stored,
    Refused,
    /// The connection broke, or the answer was COMMIT_UNKNOWN.
    Unknown,
}

/// Clients that send requests without pause until told to stop, and keep what came back for each.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    /// Request number to (events in it, outcome).
    outcomes: Arc<Mutex<BTreeMap<usize, (usize, Outcome)>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: &str, code: &str, clients: usize) -> Self {
        let (stop, answered, next) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let outcomes = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let threads = (0..clients)
            .map(|_| {
                let (address, code) = (address.to_owned(), code.to_owned());
                let (stop, answered, next, outcomes) =
                    (stop.clone(), answered.clone(), next.clone(), Arc::clone(&outcomes));
                thread::spawn(move || {
                    let mut client = Client::connect(&address);
                    while !stop.load(Ordering::Relaxed) {
                        let request = next.fetch_add(1, Ordering::Relaxed);
                        let (count, answer) = send_request(&mut client, &code, request);
                        let (outcome, broken) = judge(answer.as_ref());
                        outcomes.lock().unwrap().insert(request, (count, outcome));
                        answered.fetch_add(1, Ordering::Relaxed);
                        if broken {
                            return;
                        }
                    }
                })
            })
            .collect();
        Self { stop, answered, outcomes, threads }
    }

    fn wait_for_answers(&self, count: usize) {
        wait_until("the load is under way", || (self.answered.load(Ordering::Relaxed) >= count).then_some(()));
    }

    /// Waits for the clients' ends and returns what came back.
    fn finish(self) -> BTreeMap<usize, (usize, Outcome)> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        Arc::into_inner(self.outcomes).unwrap().into_inner().unwrap()
    }
}

/// Sends the request with this number: a single event, or a batch. Its number is the session, its place the visitor.
fn send_request(client: &mut Client, code: &str, request: usize) -> (usize, Option<Answer>) {
    let event = |place: usize| {
        event_with(
            code,
            json!({"sessionId": request.to_string(), "visitorId": place.to_string(), "properties": {"n": request}}),
        )
    };
    let count = [1, 1, 7, 40][request % 4];
    let (path, body) = match count {
        1 => ("/api/v1/events", event(0).to_string()),
        _ => ("/api/v1/events/batch", json!({"events": (0..count).map(event).collect::<Vec<_>>()}).to_string()),
    };
    (count, client.try_send("POST", path, &[], body.as_bytes()))
}

/// What an answer means, and whether the connection is over.
fn judge(answer: Option<&Answer>) -> (Outcome, bool) {
    let Some(answer) = answer else { return (Outcome::Unknown, true) };
    let closing = answer.header("connection") == Some("close");
    let outcome = match answer.status {
        201 => Outcome::Stored,
        503 if answer.error() == "COMMIT_UNKNOWN" => Outcome::Unknown,
        _ => Outcome::Refused,
    };
    (outcome, closing)
}

/// Holds the store against what was answered: acknowledged events are there exactly once and as sent, refused ones
/// are not, and no batch is torn.
fn check_store(daemon: &Daemon, code: &str, outcomes: &BTreeMap<usize, (usize, Outcome)>) {
    let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut client = daemon.client();
    let mut offset = 0;
    loop {
        let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=1000&offset={offset}")).json();
        let events = page["events"].as_array().unwrap().clone();
        offset += events.len();
        for event in &events {
            let number = |name: &str| event[name].as_str().unwrap().parse::<usize>().unwrap();
            assert_eq!(event["properties"], json!({"n": number("sessionId")}));
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "an id twice");
            found.entry(number("sessionId")).or_default().push(number("visitorId"));
        }
        if events.is_empty() {
            assert_eq!(page["pagination"]["total"], json!(offset), "the total is the rows");
            break;
        }
    }
    for (request, (count, outcome)) in outcomes {
        let mut places = found.remove(request).unwrap_or_default();
        places.sort_unstable();
        let whole = places.iter().copied().eq(0..*count);
        match outcome {
            Outcome::Stored => assert!(whole, "request {request} was acknowledged: {places:?} of {count}"),
            Outcome::Refused => assert!(places.is_empty(), "request {request} was refused: {places:?}"),
            Outcome::Unknown => assert!(whole || places.is_empty(), "request {request} is torn: {places:?} of {count}"),
        }
    }
    assert!(found.is_empty(), "nobody sent {found:?}");
}

/// A number that differs from run to run; the crash is at a random moment.
fn random_below(bound: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now()) % bound
}

#[test]
fn killed_at_random_moments_it_keeps_what_it_acknowledged() {
    for durability in ["full", "normal"] {
        let work = work_dir();
        let data = work.path().join("data");
        // Small logs and groups, so that kills also fall into checkpoints and resets of the log.
        let flags = ["--durability", durability, "--wal-checkpoint-bytes=256KiB", "--group-events-max=64"];
        let mut daemon = Daemon::start_in(&data, &flags);
        for round in 0..20 {
            let code = daemon.register(&format!("round-{round}.example"));
            let load = Load::start(&daemon.address, &code, 8);
            load.wait_for_answers(1);
            thread::sleep(Duration::from_millis(random_below(250)));
            daemon.crash();
            let outcomes = load.finish();
            daemon = Daemon::start_in(&data, &flags);
            check_store(&daemon, &code, &outcomes);
        }
        daemon.stop();
    }
}

#[test]
fn a_stop_under_load_answers_everything_taken_in() {
    for _ in 0..5 {
        let work = work_dir();
        let data = work.path().join("data");
        let mut daemon = Daemon::start_in(&data, &[]);
        let code = daemon.register("example.com");
        let load = Load::start(&daemon.address, &code, 16);
        load.wait_for_answers(200);
        daemon.signal("TERM");
        let status = daemon.wait();
        assert!(status.success(), "{status}");
        let outcomes = load.finish();
        let unanswered: Vec<_> = outcomes.iter().filter(|(_, (_, outcome))| *outcome == Outcome::Unknown).collect();
        assert!(unanswered.is_empty(), "without an answer: {unanswered:?}");
        assert!(!data.join("segments/000000000001.db-wal").exists(), "the log is closed in order");
        let daemon = Daemon::start_in(&data, &[]);
        check_store(&daemon, &code, &outcomes);
        daemon.stop();
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_loses_nothing() {
    let daemon = Daemon::start(&["--batch-events-max=100", "--queue-events-max=100"]);
    let code = daemon.register("example.com");
    let slow_disk = Tampering::with(&daemon, "fdatasync:delay_enter=2000000");
    let (address, body) = (daemon.address.clone(), traffic::batch(&code, 100));
    let first = thread::spawn(move || Client::connect(&address).post("/api/v1/events/batch", body));
    let full = wait_until("the queue is full", || {
        Some(daemon.metrics()).filter(|metrics| metrics["hitlog_queue_events"] == 100.0)
    });
    assert!(full["hitlog_queue_bytes"] > 0.0);
    let mut client = daemon.client();
    let started = Instant::now();
    let refused = client.post("/api/v1/events", event_with(&code, json!({})).to_string());
    assert!(started.elapsed() < Duration::from_secs(1), "refused at once, not after the sync");
    assert_eq!((refused.status, refused.error().as_str()), (503, "OVERLOADED"));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(client.get("/readyz").status, 503);
    assert_eq!(client.get("/livez").status, 200);
    assert!(daemon.metrics()["hitlog_queue_oldest_request_seconds"] > 0.0);
    drop(slow_disk);
    assert_eq!(first.join().unwrap().status, 201);
    wait_until("it is ready again", || (client.get("/readyz").status == 200).then_some(()));
    assert_eq!(client.post("/api/v1/events", event_with(&code, json!({})).to_string()).status, 201);
    assert_eq!(daemon.assert_conserved(), (102.0, 101.0));
    daemon.stop();
}

#[test]
fn a_full_disk_is_survived() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let event = || event_with(&code, json!({})).to_string();
    let mut client = daemon.client();
    let stored = client.post("/api/v1/events", event()).json();
    let full_disk = Tampering::with(&daemon, "pwrite64:error=ENOSPC");
    for path in ["/api/v1/events", "/api/v1/events"] {
        let refused = client.post(path, event());
        assert_eq!((refused.status, refused.error().as_str()), (503, "STORAGE_FULL"));
        assert!(refused.header("retry-after").is_some());
    }
    let website = client.post("/api/v1/websites", r#"{"name":"B","domain":"b.example"}"#);
    assert_eq!((website.status, website.error().as_str()), (503, "STORAGE_FULL"));
    assert_eq!(client.get("/readyz").error(), "STORAGE_FULL");
    assert_eq!(client.get(&format!("/api/v1/events/{}", stored["id"].as_str().unwrap())).json(), stored, "reads go on");
    drop(full_disk);
    let room_at = Instant::now();
    wait_until("ingest resumes", || (client.post("/api/v1/events", event()).status == 201).then_some(()));
    assert!(room_at.elapsed() < Duration::from_secs(5), "resumed after {:?}", room_at.elapsed());
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.get(&format!("/api/v1/events?trackingCode={code}")).json()["pagination"]["total"], 2);
    daemon.stop();
}

#[test]
fn a_failed_sync_is_answered_unknown_and_ends_the_process() {
    let work = work_dir();
    let data = work.path().join("data");
    let mut daemon = Daemon::start_in(&data, &[]);
    let code = daemon.register("example.com");
    let load = Load::start(&daemon.address, &code, 8);
    load.wait_for_answers(50);
    let bad_disk = Tampering::with(&daemon, "fdatasync:error=EIO:when=3+");
    let status = daemon.wait();
    drop(bad_disk);
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    let outcomes = load.finish();
    assert!(outcomes.values().any(|(_, outcome)| *outcome == Outcome::Unknown), "somebody was told");
    assert!(daemon.log().contains("the storage failed"), "{}", daemon.log());
    let daemon = Daemon::start_in(&data, &[]);
    check_store(&daemon, &code, &outcomes);
    daemon.stop();
}

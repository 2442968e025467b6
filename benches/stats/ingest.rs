//! Ingest while many ask: how long a single event takes, alone and beside clients that ask for numbers without pause.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon,
    measure::{Latencies, timed},
    traffic, work_dir,
};
use rusqlite::Connection;

use super::{CODE, WEBSITE};

const SENDERS: usize = 32;
const ASKERS: usize = 8;
const ROUNDS: usize = 5;
/// From an answer to the same sender's next event.
const PAUSE: Duration = Duration::from_millis(10);
const RANGE: &str = "from=2026-01-01T00:00:00Z&to=2026-12-31T00:00:00Z";
const QUESTIONS: [&str; 6] = [
    "stats?",
    "stats/series?interval=day&",
    "stats/top/page?",
    "stats/top/source?",
    "stats/top/location?",
    "stats/top/entryPage?",
];

/// On a copy of the directory, as the events that come in would be in the way of other questions.
pub fn measure(path: &Path, seconds: f64) {
    let work = work_dir();
    let copy = work.path().join("data");
    assert!(Command::new("cp").arg("-r").args([path, &copy]).status().unwrap().success());
    register(&copy);
    // Nothing is sealed meanwhile: that has its own price.
    let daemon = Daemon::start_in(&copy, &["--segment-rows-max", "100000000"]);
    run(&daemon, ASKERS, seconds);
    println!("\none event in turn alone and beside {ASKERS} clients that ask for numbers without pause");
    println!(
        "{:>12} {:>12} {:>12} {:>12} {:>7} {:>12}",
        "p50 alone", "p99 alone", "p50 beside", "p99 beside", "p99", "asked"
    );
    for _ in 0..ROUNDS {
        let (alone, _) = run(&daemon, 0, seconds);
        let (beside, asked) = run(&daemon, ASKERS, seconds);
        let columns = [alone.at(0.5), alone.at(0.99), beside.at(0.5), beside.at(0.99)];
        let ratio = columns[3] / columns[1];
        println!("{} {ratio:>7.2} {asked:>10.0}/s", columns.map(|column| format!("{column:>9.2} ms")).join(" "));
    }
    daemon.stop();
}

/// The website that the events of the directory are of.
fn register(data: &Path) {
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    let website = "INSERT OR IGNORE INTO Website(id, trackingCode, name, domain, createdAt, updatedAt)
        VALUES(?, ?, 'bench', 'example.com', 0, 0)";
    catalog.execute(website, [WEBSITE, CODE]).unwrap();
}

/// How long each event took, and how many questions a second were answered meanwhile.
fn run(daemon: &Daemon, askers: usize, seconds: f64) -> (Latencies, f64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let senders: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || send(daemon, sender, stop))).collect();
        let askers: Vec<_> = (0..askers).map(|asker| scope.spawn(move || ask(daemon, asker, stop))).collect();
        thread::sleep(Duration::from_secs_f64(seconds));
        stop.store(true, Ordering::Relaxed);
        let latencies = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        let asked: u64 = askers.into_iter().map(|asker| asker.join().unwrap()).sum();
        (Latencies(latencies), asked as f64 / seconds)
    })
}

fn send(daemon: &Daemon, sender: usize, stop: &AtomicBool) -> Vec<(f64, f64)> {
    let (mut client, begun) = (daemon.client(), Instant::now());
    let mut latencies = Vec::new();
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let event = traffic::event(CODE, sender + at * SENDERS);
        thread::sleep(PAUSE);
        let sent = Instant::now();
        assert_eq!(client.post("/api/v1/events", event).status, 201);
        latencies.push((begun.elapsed().as_secs_f64(), sent.elapsed().as_secs_f64() * 1e3));
    }
    latencies
}

fn ask(daemon: &Daemon, asker: usize, stop: &AtomicBool) -> u64 {
    let mut client = daemon.client();
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        let question = QUESTIONS[(asker + asked as usize) % QUESTIONS.len()];
        timed(&mut client, &format!("/api/v1/{question}trackingCode={CODE}&{RANGE}"));
        asked += 1;
    }
    asked
}

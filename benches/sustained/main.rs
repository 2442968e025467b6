//! Does hitlog answer while events come in faster than segments get their indexes, and does it give the memory back?
//! Batches at full rate beside three questions, then the sealing of what has piled up, then a minute of rest.
//!
//! `cargo bench --bench sustained [-- SECONDS [--beside BINARY]]`: sixty if not said; first BINARY, if one is named,
//! another hitlog whose rate ours is compared with. Takes 0.7 KB of disk an event, at some hundred thousand a second.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Client, Daemon, binary,
    measure::{BATCH, Latencies, memory_mib, send},
    traffic,
};

const WRITERS: usize = 8;
/// Between two questions.
const QUESTION_PAUSE: Duration = Duration::from_millis(25);
const LOOK: Duration = Duration::from_millis(250);
const REST: Duration = Duration::from_secs(60);
/// A backlog takes some times as long to seal as it took to pile up.
const SEALING_FACTOR_MAX: f64 = 20.0;
const QUESTIONS: [&str; 3] = ["first page", "deep page", "nobody's session"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seconds: f64 = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(60.0);
    let beside =
        arguments.iter().position(|argument| argument == "--beside").map(|at| PathBuf::from(&arguments[at + 1]));
    let other = beside.map(|other| {
        println!("the other hitlog");
        let (daemon, filled) = fill(&other, seconds);
        daemon.stop();
        filled
    });
    println!("this hitlog");
    let (daemon, filled) = fill(&binary(), seconds);
    if let Some(other) = other {
        println!("rate over the last third against the other: {:.2}", filled.last_third / other.last_third);
    }
    seal(&daemon, &filled, seconds);
    daemon.stop();
}

/// What a time at full rate has given.
struct Filled {
    code: String,
    events: usize,
    /// Events a second over the last third.
    last_third: f64,
}

/// Sends batches at full rate for so long, beside the questions.
fn fill(binary: &Path, seconds: f64) -> (Daemon, Filled) {
    let daemon = Daemon::start_of(binary, &["--log-level", "warn"]);
    let code = daemon.register("sustained.example");
    send(&mut daemon.client(), traffic::Batches::new(&code, BATCH).from(0));
    let (stop, next, stored) = (AtomicBool::new(false), AtomicUsize::new(BATCH), AtomicUsize::new(BATCH));
    let (started, duration) = (Instant::now(), Duration::from_secs_f64(seconds));
    let (counts, asked, most_unsealed) = thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let (mut client, mut batches) = (daemon.client(), traffic::Batches::new(&code, BATCH));
                while !stop.load(Ordering::Relaxed) {
                    send(&mut client, batches.from(next.fetch_add(BATCH, Ordering::Relaxed)));
                    stored.fetch_add(BATCH, Ordering::Relaxed);
                }
            });
        }
        let asker = scope.spawn(|| ask(&daemon, &code, &stored, &stop));
        let (mut counts, mut most_unsealed) = (vec![(0.0, 0)], 0);
        while started.elapsed() < duration {
            thread::sleep(LOOK.min(duration / 4));
            counts.push((started.elapsed().as_secs_f64(), stored.load(Ordering::Relaxed)));
            most_unsealed = most_unsealed.max(daemon.segments("unsealed"));
        }
        stop.store(true, Ordering::Relaxed);
        (counts, asker.join().unwrap(), most_unsealed)
    });
    let rate_of = |from: f64, to: f64| {
        let at = |share: f64| counts[((counts.len() - 1) as f64 * share) as usize];
        let ((from, events_before), (to, events)) = (at(from), at(to));
        (events - events_before) as f64 / (to - from)
    };
    let events = stored.load(Ordering::Relaxed);
    let last_third = rate_of(2.0 / 3.0, 1.0);
    println!("{events} events, up to {most_unsealed} segments unsealed");
    println!("a second: first third {:.0}, last third {last_third:.0}", rate_of(0.0, 1.0 / 3.0));
    report(&asked);
    println!("resident: now {} MiB, peak {} MiB", memory_mib(&daemon, "VmRSS"), memory_mib(&daemon, "VmHWM"));
    (daemon, Filled { code, events, last_third })
}

/// Waits until everything is sealed, beside the questions, and then rests.
fn seal(daemon: &Daemon, filled: &Filled, seconds: f64) {
    let (stop, stored) = (AtomicBool::new(false), AtomicUsize::new(filled.events));
    let (started, waiting) = (Instant::now(), daemon.segments("unsealed"));
    let asked = thread::scope(|scope| {
        let asker = scope.spawn(|| ask(daemon, &filled.code, &stored, &stop));
        while daemon.segments("unsealed") > 0 && started.elapsed().as_secs_f64() < seconds * SEALING_FACTOR_MAX {
            thread::sleep(LOOK);
        }
        stop.store(true, Ordering::Relaxed);
        asker.join().unwrap()
    });
    println!("while {waiting} segments are sealed, {:.0} s", started.elapsed().as_secs_f64());
    report(&asked);
    println!("resident: now {} MiB, peak {} MiB", memory_mib(daemon, "VmRSS"), memory_mib(daemon, "VmHWM"));
    thread::sleep(REST.min(Duration::from_secs_f64(seconds)));
    println!("after a minute of rest: {} MiB", memory_mib(daemon, "VmRSS"));
}

/// What became of one question, asked again and again.
struct Asked {
    latencies: Latencies,
    /// Answered 503.
    refused: usize,
}

/// Asks the three questions in turn until the end.
fn ask(daemon: &Daemon, code: &str, stored: &AtomicUsize, stop: &AtomicBool) -> [Asked; 3] {
    let mut client: Client = daemon.client();
    let mut asked = QUESTIONS.map(|_| Asked { latencies: Latencies(Vec::new()), refused: 0 });
    let mut round = 0;
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let deep = stored.load(Ordering::Relaxed) / 2;
        let paths = [
            format!("/api/v1/events?trackingCode={code}&limit=100"),
            format!("/api/v1/events?trackingCode={code}&limit=100&offset={deep}"),
            format!("/api/v1/events?trackingCode={code}&sessionId=nobody-{round}"),
        ];
        for (path, asked) in paths.iter().zip(&mut asked) {
            let begun = Instant::now();
            let answer = client.get(path);
            assert!(matches!(answer.status, 200 | 503), "{path}: {}", answer.text());
            asked.refused += usize::from(answer.status == 503);
            asked.latencies.0.push((started.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64() * 1e3));
            thread::sleep(QUESTION_PAUSE);
        }
        round += 1;
    }
    asked
}

fn report(asked: &[Asked; 3]) {
    for (name, Asked { latencies, refused }) in QUESTIONS.iter().zip(asked) {
        let (p50, p99, most) = (latencies.at(0.5), latencies.at(0.99), latencies.at(1.0));
        let times = latencies.0.len();
        println!("{name:<18} {times:>6} times, {refused} refused, p50 {p50:>8.1} p99 {p99:>8.1} most {most:>8.1} ms");
    }
}

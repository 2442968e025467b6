//! In ten million events: does a walk from cursor to cursor take as long for its last page as for its first, how fast
//! is an hour found, and what does erasing a visitor that is all over the segments cost those who send events?
//!
//! `cargo bench --bench erasure [-- EVENTS]`: ten million if not said. Takes some minutes, and EVENTS times 0.4 KB of
//! disk.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon,
    measure::{BATCH, Latencies, Paced, WRITERS, memory_mib, send, timed},
    traffic,
};

/// The times of the events: so many milliseconds apart, about ten days for ten million.
const FIRST_TIME: u64 = 1_700_000_000_000;
const TIME_STEP: u64 = 86;
const HOUR: u64 = 60 * 60 * 1_000;
/// Every so-many-th event is of one of a few visitors that are everywhere.
const SPREAD_EVERY: usize = 10_007;
const ERASURES: usize = 2;

fn main() {
    let events: Option<usize> = std::env::args().find_map(|argument| argument.parse().ok());
    let events = events.unwrap_or(10_000_000).next_multiple_of(10 * BATCH);
    let daemon = Daemon::start(&["--segment-rows-max", &(events / 10).to_string(), "--log-level", "warn"]);
    let code = daemon.register("example.com");
    let rate = ingest(&daemon, &code, events);
    println!("{events} events in {} sealed segments, taken in at {rate:.0} events/s", daemon.segments("sealed"));
    walk(&daemon, &code, events);
    hours(&daemon, &code, events);
    erasures(&daemon, &code, events, rate / 2.0);
    println!("\npeak {} MiB resident, now {} MiB", memory_mib(&daemon, "VmHWM"), memory_mib(&daemon, "VmRSS"));
    daemon.stop();
}

/// The visitors that are everywhere; as long as the names of the others.
fn spread_visitor(number: usize) -> Option<String> {
    number.is_multiple_of(SPREAD_EVERY).then(|| format!("vis-everywhere{:02}", number / SPREAD_EVERY % ERASURES))
}

fn ingest(daemon: &Daemon, code: &str, events: usize) -> f64 {
    let (started, next) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let (mut client, mut batches) = (daemon.client(), traffic::Batches::timed(code, BATCH));
                loop {
                    let at = next.fetch_add(BATCH, Ordering::Relaxed);
                    if at >= events {
                        return;
                    }
                    let time = |number: usize| FIRST_TIME + number as u64 * TIME_STEP;
                    send(&mut client, batches.batch_with(at, time, spread_visitor));
                }
            });
        }
    });
    let rate = events as f64 / started.elapsed().as_secs_f64();
    while daemon.segments("unsealed") > 0 {
        thread::sleep(Duration::from_millis(50));
    }
    rate
}

/// Every event, 1,000 a page.
fn walk(daemon: &Daemon, code: &str, events: usize) {
    let (mut client, mut pages, mut seen, mut cursor) = (daemon.client(), Vec::new(), 0, String::new());
    loop {
        let begun = Instant::now();
        let page = client.get(&format!("/api/v1/events?trackingCode={code}&limit=1000{cursor}"));
        pages.push((0.0, begun.elapsed().as_secs_f64() * 1e3));
        let page = page.json();
        seen += page["events"].as_array().unwrap().len();
        let Some(next) = page["pagination"]["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, events);
    let tenth = pages.len().div_ceil(10);
    println!("\na walk over {seen} events, {} pages of 1,000", pages.len());
    println!("{:<20} {:>9} {:>9} {:>9}", "", "mean ms", "p50 ms", "p99 ms");
    let mut means = Vec::new();
    for (at, part) in pages.chunks(tenth).enumerate() {
        let mean = part.iter().map(|(_, latency)| latency).sum::<f64>() / part.len() as f64;
        let part = Latencies(part.to_vec());
        println!("tenth {:<14} {mean:>9.2} {:>9.2} {:>9.2}", at + 1, part.at(0.5), part.at(0.99));
        means.push(mean);
    }
    println!("the last tenth against the first: {:.2}", means[means.len() - 1] / means[0]);
}

/// An hour anywhere, its first page and one deep in it.
fn hours(daemon: &Daemon, code: &str, events: usize) {
    const READS: usize = 500;
    let hours = (events as u64 * TIME_STEP / HOUR).max(1);
    println!("\nfrom and to of one hour among {hours}, 100 events a page, {READS} of each");
    println!("{:<34} {:>9} {:>9}", "", "p50 ms", "p99 ms");
    for (name, rest) in [("first page", ""), ("offset 20,000", "&offset=20000"), ("clicks", "&eventType=click")] {
        let mut client = daemon.client();
        let hour = |at: usize| {
            let from = FIRST_TIME + (at as u64 * 7_919 % hours) * HOUR + at as u64 * 997;
            format!("/api/v1/events?trackingCode={code}&from={from}&to={}{rest}", from + HOUR)
        };
        let latencies = Latencies((0..READS).map(|at| (0.0, timed(&mut client, &hour(at)))).collect());
        println!("{name:<34} {:>9.2} {:>9.2}", latencies.at(0.5), latencies.at(0.99));
    }
}

/// A visitor of every segment is erased while events come in at a fixed rate.
fn erasures(daemon: &Daemon, code: &str, events: usize, rate: f64) {
    let seconds = if events >= 1_000_000 { 15.0 } else { 0.5 };
    println!("\nin turn: events come in alone at {rate:.0}/s, and while a visitor of every segment is erased");
    println!("{:>12} {:>12} {:>12} {:>12} {:>7}", "p50 alone", "p99 alone", "p50 beside", "p99 beside", "p99");
    for at in 0..ERASURES {
        let alone = paced(daemon, code, rate, || thread::sleep(Duration::from_secs_f64(seconds)));
        let mut took = (0.0, serde_json::Value::Null);
        let beside = paced(daemon, code, rate, || took = erase(daemon, code, &format!("vis-everywhere{at:02}")));
        let columns = [alone.at(0.5), alone.at(0.99), beside.at(0.5), beside.at(0.99)];
        let ratio = columns[3] / columns[1];
        let (seconds, erasure) = took;
        println!(
            "{} {ratio:>7.2}   {} rows of {} segments in {seconds:.1} s",
            columns.map(|column| format!("{column:>9.2} ms")).join(" "),
            erasure["rows"],
            erasure["segments"]
        );
    }
    println!(
        "{:.2} s a segment, rewritten at low priority",
        daemon.metrics()["hitlog_erase_duration_seconds_sum"] / daemon.metrics()["hitlog_erase_duration_seconds_count"]
    );
}

fn paced(daemon: &Daemon, code: &str, rate: f64, meanwhile: impl FnOnce()) -> Latencies {
    let paced = Paced::new(rate, 0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| paced.run(daemon, code));
        meanwhile();
        paced.stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    })
}

/// Until it is done, in seconds, and what is said of it then.
fn erase(daemon: &Daemon, code: &str, visitor: &str) -> (f64, serde_json::Value) {
    let (mut client, begun) = (daemon.client(), Instant::now());
    let path = format!("/api/v1/visitors/{visitor}?trackingCode={code}");
    let answer = client.send("DELETE", &path, &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let path = format!("/api/v1/erasures/{}", answer.json()["id"].as_str().unwrap());
    loop {
        let erasure = client.get(&path).json();
        if erasure["state"] == "done" {
            return (begun.elapsed().as_secs_f64(), erasure);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

//! What does it cost that every event has an id, so that it can be sent again? The same events with and without, in turn,
//! each measurement on a daemon of its own; then very many of them, what their ids take, and how long a start with them
//! does.

use std::{
    fs,
    time::{Duration, Instant},
};

use harness::Daemon;

use super::{
    beside::print,
    generator::Generator,
    results::Row,
    sections::{BATCH, closed, thousands},
    server::{directory_bytes, memory_mib},
    shape::Source,
};

/// Events of a request, and connections.
const CLOSED_LOOPS: [(usize, usize); 3] = [(1, 64), (1, 256), (BATCH, 16)];
/// Of how many requests one is sent again.
const SENT_AGAIN: usize = 1_000;

/// Prints the rates with and without ids, and their ratios; then what `events` events with ids take.
pub fn run(seconds: f64, rounds: usize, events: u64) {
    println!("an id on every event: with, without, ratio (least to greatest of {rounds} rounds)");
    for (of_request, connections) in CLOSED_LOOPS {
        let pairs: Vec<(Row, Row)> = (0..rounds).map(|round| pair(round, of_request, connections, seconds)).collect();
        let what = if of_request == 1 { "single events".to_owned() } else { format!("batches of {of_request}") };
        print(&format!("{what}, {connections} connections, events/s"), &pairs, |row| row.rate);
        print("  processor time of an event, µs", &pairs, |row| row.cpu_us_per_event.unwrap_or(0.0));
    }
    if events > 0 {
        many(events);
    }
}

/// One measurement of each, in turns at being first.
fn pair(round: usize, events: usize, connections: usize, seconds: f64) -> (Row, Row) {
    let measure = |is_named: bool| {
        let daemon = Daemon::start(&["--log-level", "warn"]);
        let code = daemon.register("example.com");
        let mut source = if is_named { Source::named(&code, events) } else { Source::uniform(&code, events) };
        closed(&daemon, &mut source, connections, seconds)
    };
    if round.is_multiple_of(2) {
        let with = measure(true);
        (with, measure(false))
    } else {
        let without = measure(false);
        (measure(true), without)
    }
}

/// Sends so many events, then a sample of them again, and starts anew.
fn many(events: u64) {
    let work = harness::work_dir();
    let data = work.path().join("data");
    let daemon = Daemon::start_in(&data, &["--log-level", "warn"]);
    let code = daemon.register("example.com");
    let requests = events / BATCH as u64;
    let begun = Instant::now();
    let load = Generator::connect(&daemon.address, 16).closed_for(&mut Source::named(&code, BATCH), requests);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} events with ids: {}/s over {seconds:.0} s",
        thousands(events as f64),
        thousands(events as f64 / seconds)
    );
    assert_eq!(load.refused, 0);
    let metrics = daemon.metrics();
    println!(
        "  {} known in {:.1} MiB of {:.0}, window {:.0} s; resident {:.0} MiB; their files {:.0} MB",
        thousands(metrics["hitlog_dedup_ids"]),
        metrics["hitlog_dedup_bytes"] / 1_048_576.0,
        metrics["hitlog_dedup_limit_bytes"] / 1_048_576.0,
        metrics["hitlog_dedup_window_seconds"],
        memory_mib(daemon.pid(), "VmRSS"),
        directory_bytes(&data.join("ids")) as f64 / 1e6,
    );
    send_again(&daemon, &code, requests);
    let runs = fs::read_dir(data.join("ids")).unwrap().count();
    daemon.stop();
    let begun = Instant::now();
    let daemon = Daemon::start_in(&data, &["--log-level", "warn"]);
    let with_ids = begun.elapsed();
    println!("  {runs} runs; a start with them takes {with_ids:.2?}");
    send_again(&daemon, &code, requests);
    daemon.stop();
    // Without any id and without any event that has one the rest of the start is the same.
    fs::rename(data.join("ids"), data.join("ids-away")).unwrap();
    let begun = Instant::now();
    let daemon = Daemon::start_in(&data, &["--log-level", "warn", "--dedup-window-seconds", "1"]);
    let without: Duration = begun.elapsed();
    println!("  without them {without:.2?}: {:+.2} s", with_ids.as_secs_f64() - without.as_secs_f64());
    daemon.stop();
}

/// Sends some of the requests again: all of their events must be known.
fn send_again(daemon: &Daemon, code: &str, requests: u64) {
    let mut source = Source::named(code, BATCH);
    let (mut bytes, mut again, mut taken) = (Vec::new(), 0, Duration::ZERO);
    for at in 0..requests as usize {
        bytes.clear();
        source.write_next(&mut bytes);
        if !at.is_multiple_of(SENT_AGAIN) {
            continue;
        }
        let body = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let begun = Instant::now();
        let answer = daemon.client().post("/api/v1/events/batch", &bytes[body..]);
        taken += begun.elapsed();
        assert_eq!((answer.status, answer.header("idempotency-replayed")), (201, Some("true")), "request {at}");
        again += 1;
    }
    println!("  {again} requests sent again: all known, {:.2} ms each", taken.as_secs_f64() * 1e3 / f64::from(again));
}

//! Is this hitlog as fast as another build of it? Both under the same load, in turn, each measurement on a daemon of its
//! own.

use std::path::Path;

use harness::{Daemon, binary};

use super::{
    generator::Generator,
    results::Row,
    sections::{BATCH, OPEN_CONNECTIONS, WARM_UP_SECONDS, closed, median, thousands},
    server::Meter,
    shape::Source,
};

/// Events of a request, and connections.
const CLOSED_LOOPS: [(usize, usize); 4] = [(1, 16), (1, 64), (1, 256), (BATCH, 16)];

/// Prints for each load what this build and `other` did, and the median, least and greatest ratio of the rounds.
pub fn run(other: &Path, seconds: f64, rounds: usize) {
    println!("beside {}: this build, the other, ratio (least to greatest of {rounds} rounds)", other.display());
    let mut half_rate = 0.0;
    for (events, connections) in CLOSED_LOOPS {
        let pairs = pairs(other, rounds, |daemon, code| {
            closed(daemon, &mut Source::uniform(code, events), connections, seconds)
        });
        let what = if events == 1 { "single events".to_owned() } else { format!("batches of {events}") };
        print(&format!("{what}, {connections} connections, events/s"), &pairs, |row| row.rate);
        print("  processor time of an event, µs", &pairs, |row| row.cpu_us_per_event.unwrap_or(0.0));
        if (events, connections) == (1, OPEN_CONNECTIONS) {
            half_rate = median(&pairs, |(_, other)| other.rate) / 2.0;
        }
    }
    let pairs = pairs(other, rounds, |daemon, code| {
        let mut source = Source::uniform(code, 1);
        let mut generator = Generator::connect(&daemon.address, OPEN_CONNECTIONS);
        generator.open(&mut source, half_rate, WARM_UP_SECONDS);
        let meter = Meter::start(daemon);
        let load = generator.open(&mut source, half_rate, seconds);
        meter.row(daemon, &load)
    });
    print(&format!("single events at {}/s, open loop, p99 ms", thousands(half_rate)), &pairs, |row| row.p99_ms);
    print("  peak resident memory, MiB", &pairs, |row| row.peak_rss_mib.unwrap_or(0.0));
}

/// What both did, round by round. They take turns at being first, as whoever is second finds a busier disk.
fn pairs(other: &Path, rounds: usize, load: impl Fn(&Daemon, &str) -> Row) -> Vec<(Row, Row)> {
    let measure = |binary: &Path| {
        let daemon = Daemon::start_of(binary, &["--log-level", "warn"]);
        let code = daemon.register("example.com");
        load(&daemon, &code)
    };
    let round = |round: usize| {
        if round.is_multiple_of(2) {
            let ours = measure(&binary());
            (ours, measure(other))
        } else {
            let theirs = measure(other);
            (measure(&binary()), theirs)
        }
    };
    (0..rounds).map(round).collect()
}

/// Prints what both did, and the ratio.
pub fn print(what: &str, pairs: &[(Row, Row)], figure: impl Fn(&Row) -> f64) {
    let ratio = |(ours, other): &(Row, Row)| figure(ours) / figure(other);
    let ratios = || pairs.iter().map(ratio);
    println!(
        "{what:<46} {:>12.1} {:>12.1} {:>6.2} ({:.2} to {:.2})",
        median(pairs, |(ours, _)| figure(ours)),
        median(pairs, |(_, other)| figure(other)),
        median(pairs, ratio),
        ratios().fold(f64::INFINITY, f64::min),
        ratios().fold(0.0, f64::max),
    );
}

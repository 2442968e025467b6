//! How much does hitlog take on this machine, how close is that to the limits of the machine, and what do its clients
//! wait? The real binary under load over loopback, beside a bare hyper server and raw SQLite in the same run.
//!
//! `cargo bench --bench load [-- SECONDS [ROUNDS [EVENTS]] [--html FILE] [--json FILE]]`: seconds of one measurement,
//! rounds of which the median counts, events of the long run. With 4, 3 and 10,000,000, which are the defaults, it takes
//! a quarter of an hour and 6 GB of disk. `scripts/load` runs it and keeps the report.
//!
//! `… -- SECONDS ROUNDS --beside HITLOG` compares this build with the program `HITLOG`, another build, and nothing else;
//! `scripts/compare` builds that of a commit.
//!
//! `… -- SECONDS ROUNDS EVENTS --ids` measures what it costs that every event has an `eventId`, and what it takes to know
//! those of so many events (30,000,000).

use std::{fs, path::Path, process::Command};

mod beside;
mod chart;
mod generator;
mod ids;
mod report;
mod results;
mod sections;
mod server;
mod shape;
mod table;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [mode, answer, threads] = &arguments[..]
        && mode == server::BARE_HYPER
    {
        return server::run_bare(fs::read(answer).unwrap(), threads.parse().unwrap());
    }
    // A connection takes a descriptor here and one in the server, which inherits the limit.
    if let Err(error) = harness::raise_descriptors(0) {
        eprintln!("the limit on open files stays as it is: {error}");
    }
    let value_of = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{flag} wants a file")).clone())
    };
    let numbers: Vec<f64> = arguments.iter().map_while(|argument| argument.parse().ok()).collect();
    let number = |at: usize, default: f64| numbers.get(at).copied().unwrap_or(default);
    let (seconds, rounds, events) = (number(0, 4.0), number(1, 3.0) as usize, number(2, 1e7) as usize);
    if let Some(other) = value_of("--beside") {
        return beside::run(Path::new(&other), seconds, rounds.max(1));
    }
    if arguments.iter().any(|argument| argument == "--ids") {
        return ids::run(seconds, rounds.max(1), number(2, 3e7) as u64);
    }
    let mut bench = sections::Bench::new(seconds, rounds.max(1), events);
    bench.results.facts = facts(seconds, rounds, events);
    bench.run();
    let results = bench.results;
    print!("{}", table::text(&results));
    if let Some(path) = value_of("--json") {
        fs::write(path, serde_json::to_vec_pretty(&results).unwrap()).unwrap();
    }
    if let Some(path) = value_of("--html") {
        fs::write(&path, report::html(&results)).unwrap();
    }
}

/// What somebody who compares two reports wants to know of each.
fn facts(seconds: f64, rounds: usize, events: usize) -> Vec<(String, String)> {
    let line = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let facts = [
        ("processor", format!("{}, {cores} cores", line("/proc/cpuinfo", "model name"))),
        ("memory", line("/proc/meminfo", "MemTotal")),
        ("kernel", output("uname", &["-sr"])),
        ("file system", output("stat", &["-f", "-c", "%T", harness::scratch_dir().to_str().unwrap()])),
        ("date", output("date", &["-u", "+%-d %B %Y, %H:%M UTC"])),
        (
            "hitlog",
            format!("{}, commit {}", env!("CARGO_PKG_VERSION"), output("git", &["rev-parse", "--short", "HEAD"])),
        ),
        ("durability", "full".to_owned()),
        ("command", format!("scripts/load {seconds} {rounds} {events}")),
    ];
    facts.map(|(name, text)| (name.to_owned(), text)).into()
}

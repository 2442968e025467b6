//! What does the writer's path make of the disk, without HTTP: by size of the group, durability and page size, beside
//! raw SQLite appending the same rows, and beside the same table with its four indexes kept up row by row?
//!
//! `cargo bench --bench commit [-- SECONDS [ROUNDS]]`. Rows a second; sides in turn, the median of the rounds' ratios.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use harness::{raw_append, traffic, work_dir};
use hitlog::{
    app,
    config::{Config, RawSettings},
    event::{Arrival, Intake, ValidEvents, parse_batch},
    metrics::{BuildInfo, Metrics},
    store::{DataDir, Durability, Store},
};

mod limits;
const PAGE_BYTES: usize = 16 * 1024;

fn main() {
    let numbers: Vec<f64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let seconds = numbers.first().copied().unwrap_or(2.0);
    let rounds = numbers.get(1).copied().unwrap_or(3.0) as usize;
    let bench = Bench { work: work_dir(), seconds, rounds };
    println!("{seconds} s a run, median of {rounds}\n");

    println!("durability full, pages of 16 KiB; hitlog against");
    println!(
        "{:>10} {:>14} {:>22} {:>22} {:>22}",
        "group", "hitlog rows/s", "append, no copy", "append", "four indexes"
    );
    for group in [1, 64, 500, 5_000] {
        bench.by_group(group);
    }
    println!("\nagainst appending without copies, at the same durability");
    println!("{:>10} {:>10} {:>14} {:>22}", "durability", "group", "hitlog rows/s", "append, no copy");
    for (durability, synchronous) in [(Durability::Full, "FULL"), (Durability::Normal, "NORMAL")] {
        for group in [64, 500] {
            let (ours, raw) = bench.pair(group, (durability, synchronous), PAGE_BYTES);
            println!("{synchronous:>10} {group:>10} {ours:>14.0} {:>22}", beside(ours, raw));
        }
    }
    println!("\nagainst appending without copies, at the same page size");
    println!("{:>10} {:>10} {:>14} {:>22}", "page", "group", "hitlog rows/s", "append, no copy");
    for page_bytes in [4, 8, 16, 32].map(|kib| kib * 1024) {
        for group in [64, 500] {
            let (ours, raw) = bench.pair(group, (Durability::Full, "FULL"), page_bytes);
            println!("{page_bytes:>10} {group:>10} {ours:>14.0} {:>22}", beside(ours, raw));
        }
    }
}

fn beside(ours: f64, other: f64) -> String {
    format!("{other:.0}: {:>6.2} ×", ours / other)
}

struct Bench {
    work: tempfile::TempDir,
    seconds: f64,
    rounds: usize,
}

impl Bench {
    /// hitlog against every limit.
    fn by_group(&self, group: usize) {
        let mut rounds: Vec<[f64; 4]> = (0..self.rounds)
            .map(|_| {
                let raw = limits::append_static(&self.file("raw"), group, "FULL", PAGE_BYTES, self.seconds);
                let copied = raw_append::run(&self.file("copied"), group, self.seconds);
                let indexed = limits::append_indexed(&self.file("indexed"), group, self.seconds);
                [self.append(group, Durability::Full, PAGE_BYTES), raw, copied, indexed]
            })
            .collect();
        let medians = [1, 2, 3].map(|side| {
            rounds.sort_by(|a, b| (a[0] / a[side]).total_cmp(&(b[0] / b[side])));
            let middle = rounds[self.rounds / 2];
            format!("{:.0}: {:>6.2} ×", middle[side], middle[0] / middle[side])
        });
        rounds.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let [raw, copied, indexed] = medians;
        println!("{group:>10} {:>14.0} {raw:>22} {copied:>22} {indexed:>22}", rounds[self.rounds / 2][0]);
    }

    /// hitlog and appending without copies, of the round with the median ratio.
    fn pair(&self, group: usize, (durability, synchronous): (Durability, &str), page_bytes: usize) -> (f64, f64) {
        let mut rounds: Vec<(f64, f64)> = (0..self.rounds)
            .map(|_| {
                let raw = limits::append_static(&self.file("raw"), group, synchronous, page_bytes, self.seconds);
                (self.append(group, durability, page_bytes), raw)
            })
            .collect();
        rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        rounds[self.rounds / 2]
    }

    /// The writer's path without the queue: groups of parsed events into the log, checkpoints included; rows a second.
    fn append(&self, group: usize, durability: Durability, page_bytes: usize) -> f64 {
        let metrics = Metrics::new(&BuildInfo { version: "", sqlite: "", sqlite_build: "", durability: "" }).unwrap();
        let directory = DataDir::open(&self.file("hitlog")).unwrap();
        let config = Config::check(&RawSettings::default()).unwrap();
        let mut options = app::store_options(&config);
        options.log.durability = durability;
        options.log.page_bytes = page_bytes as u32;
        // Nothing rolls, so nothing is sealed beside it.
        options.log.segment_rows_max = u64::MAX;
        options.log.segment_age_max = Duration::MAX;
        let mut store =
            Store::open(&directory, &options, &metrics.store, Arc::new(|reason| panic!("{reason}"))).unwrap();
        let events = parse(group, &config);
        let (started, mut rows) = (Instant::now(), 0);
        while started.elapsed().as_secs_f64() < self.seconds {
            store.log.append(std::iter::once(&events)).unwrap();
            store.log.maintain().unwrap();
            rows += group;
        }
        let rate = rows as f64 / started.elapsed().as_secs_f64();
        store.close().unwrap();
        rate
    }

    /// A path where nothing is, the last run's files removed.
    fn file(&self, name: &str) -> PathBuf {
        let folder = self.work.path().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        folder.join("it")
    }
}

fn parse(events: usize, config: &Config) -> ValidEvents {
    let rules = hitlog::event::Rules { batch_events_max: events, ..app::rules(config) };
    let body = traffic::batch("pm-x", events).into_bytes();
    let website = |_: &str| Some(Intake::of_anything(raw_append::WEBSITE));
    parse_batch(body, &rules, &Arrival::at(raw_append::TIME), website).unwrap().events
}

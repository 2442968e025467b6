//! What is binding text without a copy worth? Rows appended to a bare table in groups, through rusqlite (which has
//! SQLite copy each text) and through hitlog's log (which does not), in turn.
//!
//! `cargo bench --bench commit [-- SECONDS [ROUNDS]]`. Rows a second, the median of the rounds, and the ratio.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hitlog::{
    event::{Rules, ValidEvents, parse_batch},
    metrics::{BuildInfo, Metrics},
    store::{DataDir, Durability, LogOptions, ReadOptions, SegmentOptions, Store, StoreOptions},
};

#[path = "../tests/support/raw_append.rs"]
mod raw_append;
#[path = "../tests/support/traffic.rs"]
mod traffic;

fn main() {
    let arguments: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (seconds, rounds) = (*arguments.first().unwrap_or(&4) as f64, *arguments.get(1).unwrap_or(&3));
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!("{seconds} s a run, median of {rounds}; one transaction a group, synced\n");
    println!("{:>12} {:>14} {:>14} {:>7}", "group", "hitlog rows/s", "rusqlite rows/s", "ratio");
    for group in [1, 64, 500, 5_000] {
        let mut pairs: Vec<(f64, f64)> = (0..rounds)
            .map(|round| {
                let path = |side: &str| work.path().join(format!("{side}-{group}-{round}"));
                (append(&path("hitlog"), group, seconds), raw_append::run(&path("raw"), group, seconds))
            })
            .collect();
        pairs.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (ours, raw) = pairs[rounds / 2];
        println!("{group:>12} {ours:>14.0} {raw:>14.0} {:>7.2}", ours / raw);
    }
}

/// The writer's path without the queue: groups of parsed events into the log, checkpoints included; rows/s.
fn append(path: &Path, group: usize, seconds: f64) -> f64 {
    let metrics = Arc::new(Metrics::new(&BuildInfo { version: "", sqlite: "", durability: "full" }).unwrap());
    let directory = DataDir::open(path).unwrap();
    let options = options();
    let store = Store::open(&directory, &options, &metrics, Arc::new(|reason| panic!("{reason}"))).unwrap();
    let mut log = store.log;
    let events = parse(group);
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds {
        log.append(std::iter::once(&events)).unwrap();
        log.maintain().unwrap();
        rows += group;
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    log.close().unwrap();
    rate
}

/// The defaults, but nothing rolls.
fn options() -> StoreOptions {
    StoreOptions {
        log: LogOptions {
            durability: Durability::Full,
            page_bytes: 16 * 1024,
            cache_bytes: 16 << 20,
            wal_checkpoint_bytes: 8 << 20,
            wal_bytes_max: 256 << 20,
            segment_rows_max: u64::MAX,
            segment_age_max: Duration::MAX,
        },
        read: ReadOptions {
            readers: 1,
            waiting_max: 1,
            deadline: Duration::from_secs(10),
            answer_bytes_max: 1 << 20,
            retention: None,
        },
        erasures: hitlog::store::ErasureOptions { erasures_max: 1, hidden_events_max: 1 },
        segments: SegmentOptions { unsealed_rows_max: u64::MAX, filter_bytes_max: 0, connections_max: 1 },
        seal_cache_bytes: 1 << 20,
    }
}

fn parse(events: usize) -> ValidEvents {
    let rules = Rules {
        url_bytes_max: 4_096,
        id_bytes_max: 128,
        text_chars_max: 100,
        properties_bytes_max: 32 * 1024,
        properties_depth_max: 32,
        timestamp_ahead_max_ms: 86_400_000,
        timestamp_age_max_ms: i64::MAX,
        batch_events_max: events,
    };
    let body = traffic::batch("pm-x", events).into_bytes();
    parse_batch(body, &rules, 1_769_630_400_000, |_| Some("web-0123456789ab".into())).unwrap().events
}

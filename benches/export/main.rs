//! How fast does an export write its lines? `hitlog export` of N events in sealed segments against `sqlite3 -json` over
//! one table with the same rows, in turn, both into /dev/null.
//!
//! `cargo bench --bench export [-- EVENTS [ROUNDS]]`: 200,000 events and 3 rounds if not said. Takes EVENTS times
//! 0.6 KB of disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use rusqlite::Connection;

use harness::{
    Daemon, command,
    measure::{BATCH, store},
    wait_until,
};

/// The segments of the default settings, as far as there are enough events for some.
const SEGMENT_ROWS_MAX: usize = 1_000_000;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(200_000).next_multiple_of(BATCH);
    let rounds = numbers.get(1).copied().unwrap_or(3);
    let work = harness::work_dir();
    let (data, table) = (work.path().join("data"), work.path().join("table.db"));
    take_in(&data, events);
    one_table(&data, &table, events);
    println!("{events} events, the sealed segments {} MiB, the table {} MiB", mib(&data.join("segments")), mib(&table));
    println!("{:>8} {:>16} {:>16} {:>16} {:>8}", "", "ndjson rows/s", "csv rows/s", "sqlite3 rows/s", "ratio");
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let data = data.to_str().unwrap();
        let ndjson = rate(events, &mut command(&["export", "--data-dir", data]));
        let csv = rate(events, &mut command(&["export", "--data-dir", data, "--format", "csv"]));
        let sqlite3 = rate(events, Command::new("sqlite3").arg("-json").arg(&table).arg("SELECT * FROM Event"));
        ratios.push(ndjson / sqlite3);
        println!("{round:>8} {ndjson:>16.0} {csv:>16.0} {sqlite3:>16.0} {:>8.2}", ndjson / sqlite3);
    }
    ratios.sort_by(f64::total_cmp);
    println!("hitlog export against sqlite3 -json, the median: {:.2} times", ratios[ratios.len() / 2]);
}

/// As trackers would send them; then everything is sealed.
fn take_in(data: &Path, events: usize) {
    let rows_max = SEGMENT_ROWS_MAX.min(events / 2).to_string();
    let daemon = Daemon::start_in(data, &["--segment-rows-max", &rows_max, "--log-level", "warn"]);
    let code = daemon.register("example.com");
    store(&daemon, &code, events);
    let unsealed = || daemon.metrics()["hitlog_segments{state=\"unsealed\"}"];
    while unsealed() > 0.0 {
        thread::sleep(std::time::Duration::from_millis(100));
    }
    wait_until("the next segment is prepared", || (daemon.segments("prepared") == 1).then_some(()));
    daemon.stop();
}

/// A table with the rows that hitlog has, in their order, without an index.
fn one_table(data: &Path, table: &Path, events: usize) {
    let connection = Connection::open(table).unwrap();
    connection.execute_batch("PRAGMA page_size = 16384; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(data.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for (number, file) in files.iter().enumerate() {
        connection.execute("ATTACH ?1 AS segment", [file.to_str().unwrap()]).unwrap();
        if number == 0 {
            let sql = "SELECT sql FROM segment.sqlite_schema WHERE name = 'Event'";
            let sql: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
            connection.execute_batch(&sql).unwrap();
        }
        let insert = "INSERT INTO main.Event SELECT * FROM segment.Event ORDER BY id";
        connection.execute_batch(&format!("{insert}; DETACH segment")).unwrap();
    }
    let rows: i64 = connection.query_row("SELECT count(*) FROM main.Event", [], |row| row.get(0)).unwrap();
    assert_eq!(rows as usize, events);
}

fn rate(events: usize, command: &mut Command) -> f64 {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::inherit()).status();
    assert!(status.expect("sqlite3 is needed: apt-get install sqlite3").success());
    events as f64 / begun.elapsed().as_secs_f64()
}

fn mib(path: &Path) -> u64 {
    if path.is_file() {
        return fs::metadata(path).unwrap().len() >> 20;
    }
    fs::read_dir(path).unwrap().map(|entry| fs::metadata(entry.unwrap().path()).unwrap().len()).sum::<u64>() >> 20
}

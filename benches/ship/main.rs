//! How fast are events shipped to ClickHouse, beside what that takes from a file, and what does it cost hitlog?
//!
//! `cargo bench --bench ship [-- EVENTS [SECONDS [ROUNDS]]]`: how many events are shipped from sealed segments (2,000,000),
//! for how long events come in at 50,000 a second while they are shipped (20), and how often all is done in turn (5).
//! ClickHouse runs on the same processors, so ratios count. Takes EVENTS times 2 KB of disk.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    ClickHouse, Client, Daemon,
    measure::{BATCH, Latencies, Paced, memory_mib, store},
    shipped::wait_until_shipped,
    work_dir,
};

/// Rows of an insert, and inserts on their way at once.
const RANGE: usize = 100_000;
const AT_ONCE: usize = 2;
const LIVE_RATE: f64 = 50_000.0;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (events, seconds, rounds) = (number(0, 2_000_000).next_multiple_of(BATCH), number(1, 20), number(2, 5));
    let Some(clickhouse) = ClickHouse::start() else { return };
    let work = work_dir();
    let sealed = work.path().join("sealed");
    fill(&sealed, events);
    let mut rates = Vec::new();
    for round in 0..rounds {
        let table = format!("round_{round}");
        calm(&clickhouse);
        let whole = whole_path(&clickhouse, &sealed, &work.path().join(&table), &table, events);
        let files = write_files(&clickhouse, &table, events, work.path());
        calm(&clickhouse);
        let file = from_file(&clickhouse, &table, &files);
        calm(&clickhouse);
        let http = prepared(&clickhouse, &table, &files);
        clickhouse.query(&format!("DROP TABLE {table} SYNC"));
        println!("round {round}: {file:.0} rows/s from a file, {http:.0} prepared over HTTP, {whole:.0} shipped");
        rates.push((http / file, whole / file));
    }
    told("prepared, of the rate from a file", rates.iter().map(|of| of.0));
    told("shipped, of the rate from a file", rates.iter().map(|of| of.1));
    live(&clickhouse, seconds, rounds);
}

/// Tells the median, the least and the most.
fn told(what: &str, of: impl Iterator<Item = f64>) {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    if let [least, .., most] | [least @ most] = sorted.as_slice() {
        println!("{what}: {:.2} ({least:.2} to {most:.2})", sorted[sorted.len() / 2]);
    }
}

/// Stores events, and waits until all their segments but the newest are sealed.
fn fill(data: &Path, events: usize) {
    let daemon = Daemon::start_in(data, &["--durability=normal"]);
    let code = daemon.register("example.com");
    store(&daemon, &code, events);
    wait(|| daemon.metrics()["hitlog_segments{state=\"unsealed\"}"] == 0.0);
    daemon.stop();
}

/// Ships a copy of the directory; rows a second, and tells what that costs hitlog.
fn whole_path(clickhouse: &ClickHouse, sealed: &Path, copy: &Path, table: &str, events: usize) -> f64 {
    let copied = Command::new("cp").arg("-a").args([sealed, copy]).status().unwrap();
    assert!(copied.success());
    let daemon = Daemon::start_in(copy, &[]);
    let before = memory_mib(&daemon, "VmHWM:");
    daemon.stop();
    let flags = [format!("--ship-url={}", clickhouse.url()), format!("--ship-table={table}")];
    let daemon = Daemon::start_in(copy, &flags.each_ref().map(String::as_str));
    // The table is made first.
    while daemon.metrics()["hitlog_ship_open_ranges"] == 0.0 {
        thread::sleep(Duration::from_millis(2));
    }
    let begun = Instant::now();
    wait_until_shipped(&daemon);
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    let most = memory_mib(&daemon, "VmHWM:");
    println!(
        "shipping takes {:.2} us of hitlog's processor time an event, and {} MiB ({before} before, {most} at the most)",
        shipping_cpu_seconds(&daemon) / events as f64 * 1e6,
        most.saturating_sub(before)
    );
    daemon.stop();
    fs::remove_dir_all(copy).unwrap();
    rate
}

/// Processor time of the threads that ship, so far.
fn shipping_cpu_seconds(daemon: &Daemon) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().map(|task| task.unwrap().path());
    let of_shipping =
        |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("ship"));
    let ticks: f64 = tasks
        .filter(of_shipping)
        .map(|task| {
            let stat = fs::read_to_string(task.join("stat")).unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let ticks = |at: usize| fields.split_whitespace().nth(at).unwrap().parse::<f64>().unwrap();
            ticks(11) + ticks(12)
        })
        .sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// What was shipped, as files of one block each.
fn write_files(clickhouse: &ClickHouse, table: &str, events: usize, work: &Path) -> Vec<Vec<u8>> {
    let block = |from: usize| {
        let sql = format!(
            "SELECT * FROM {table} WHERE seq BETWEEN {} AND {} ORDER BY seq FORMAT Native SETTINGS max_block_size = \
             {RANGE}, max_threads = 1",
            from + 1,
            from + RANGE
        );
        let file = work.join(format!("block_{from}.native"));
        let response = Client::connect(&clickhouse.address()).post("/", sql);
        assert_eq!(response.status, 200, "{}", response.text());
        fs::write(&file, &response.body).unwrap();
        response.body
    };
    (0..events).step_by(RANGE).map(block).collect()
}

/// The server's own rate, from those files.
fn from_file(clickhouse: &ClickHouse, table: &str, files: &[Vec<u8>]) -> f64 {
    let rows = count(clickhouse, table);
    clickhouse.query(&format!("CREATE TABLE file_{table} AS {table}"));
    let folder = clickhouse.data().parent().unwrap().join("blocks");
    fs::create_dir_all(&folder).unwrap();
    for (number, file) in files.iter().enumerate() {
        fs::write(folder.join(format!("{number:05}.native")), file).unwrap();
    }
    let begun = Instant::now();
    for number in 0..files.len() {
        clickhouse.query(&format!(
            "INSERT INTO file_{table} SELECT * FROM file('{}/{number:05}.native', Native) SETTINGS max_threads = 1, \
             max_insert_threads = 1, async_insert = 0",
            folder.display()
        ));
    }
    let rate = rows / begun.elapsed().as_secs_f64();
    assert_eq!(count(clickhouse, &format!("file_{table}")), rows);
    clickhouse.query(&format!("DROP TABLE file_{table} SYNC"));
    rate
}

/// The rate of the same blocks over HTTP, as many on their way at once as hitlog has.
fn prepared(clickhouse: &ClickHouse, table: &str, files: &[Vec<u8>]) -> f64 {
    let rows = count(clickhouse, table);
    clickhouse.query(&format!("CREATE TABLE http_{table} AS {table}"));
    let next = AtomicUsize::new(0);
    let path = format!("/?async_insert=0&wait_end_of_query=1&query=INSERT%20INTO%20http_{table}%20FORMAT%20Native");
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut client = Client::connect(&clickhouse.address());
                while let Some(block) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let response = client.post(&path, block);
                    assert_eq!(response.status, 200, "{}", response.text());
                }
            });
        }
    });
    let rate = rows / begun.elapsed().as_secs_f64();
    assert_eq!(count(clickhouse, &format!("http_{table}")), rows);
    clickhouse.query(&format!("DROP TABLE http_{table} SYNC"));
    rate
}

fn count(clickhouse: &ClickHouse, table: &str) -> f64 {
    clickhouse.query(&format!("SELECT count() FROM {table}")).trim().parse().unwrap()
}

/// Events that come in all the time: how far behind the target is, and how long they wait for their answers beside
/// shipping, of what they wait without it.
fn live(clickhouse: &ClickHouse, seconds: usize, rounds: usize) {
    let url = format!("--ship-url={}", clickhouse.url());
    let mut found = Vec::new();
    for round in 0..rounds {
        let table = format!("live_{round}");
        let flag = format!("--ship-table={table}");
        calm(clickhouse);
        let (alone, _) = paced(&[], seconds);
        let (beside, lags) = paced(&[&url, &flag], seconds);
        println!(
            "round {round}, at {LIVE_RATE:.0} events/s: the target is {:.1} s behind (p50), {:.1} s (p99); answers to \
             batches of {BATCH} beside it and alone: p50 {:.1} and {:.1} ms, p99 {:.1} and {:.1} ms",
            lags.at(0.5) / 1e3,
            lags.at(0.99) / 1e3,
            beside.at(0.5),
            alone.at(0.5),
            beside.at(0.99),
            alone.at(0.99),
        );
        clickhouse.query(&format!("DROP TABLE {table} SYNC"));
        found.push((alone, beside, lags));
    }
    told("seconds behind, p99", found.iter().map(|(_, _, lags)| lags.at(0.99) / 1e3));
    for share in [0.5, 0.99] {
        let ratio = |(alone, beside, _): &(Latencies, Latencies, Latencies)| beside.at(share) / alone.at(share);
        told(&format!("answers beside shipping, of alone, p{:.0}", share * 100.0), found.iter().map(ratio));
    }
}

/// The latencies of batches, and how far behind the target was, in milliseconds.
fn paced(flags: &[&str], seconds: usize) -> (Latencies, Latencies) {
    let daemon = Daemon::start(flags);
    let code = daemon.register("example.com");
    let load = Paced::new(LIVE_RATE, 0);
    let (mut lags, begun) = (Vec::new(), Instant::now());
    let latencies = thread::scope(|scope| {
        let running = scope.spawn(|| load.run(&daemon, &code));
        while begun.elapsed() < Duration::from_secs(seconds as u64) {
            thread::sleep(Duration::from_millis(100));
            let lag = daemon.metrics().get("hitlog_ship_lag_seconds").copied().unwrap_or(0.0);
            lags.push((begun.elapsed().as_secs_f64(), lag * 1e3));
        }
        load.stop.store(true, Ordering::Relaxed);
        running.join().unwrap()
    });
    if !flags.is_empty() {
        wait_until_shipped(&daemon);
    }
    daemon.stop();
    (latencies, Latencies(lags))
}

/// Waits until the target joins no parts any more: what was measured before must not slow down what comes after.
fn calm(clickhouse: &ClickHouse) {
    wait(|| clickhouse.query("SELECT count() FROM system.merges").trim() == "0");
}

fn wait(mut is_done: impl FnMut() -> bool) {
    while !is_done() {
        thread::sleep(Duration::from_millis(50));
    }
}

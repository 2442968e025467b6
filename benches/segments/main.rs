//! Does an event cost the same whether it is the first or the ten-millionth, and does a page of many come back as
//! fast as a page of few? Ingest with sealing on against one SQLite table with the same four indexes, then reads beside
//! ingest, then what each index costs.
//!
//! `cargo bench --bench segments [-- EVENTS [TABLE_EVENTS]]`: ten million into hitlog and the first two million into the
//! table if not said. Takes some minutes, and EVENTS times 0.6 KB of disk.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{
    Daemon,
    indexed_table::{INDEXES, indexed_table},
    measure::{BATCH, Latencies, Paced, WRITERS, memory_mib, send, timed},
    traffic,
};
use rusqlite::Connection;

const READERS: usize = 8;
const READS: usize = 400;
fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(10_000_000);
    let table_events = numbers.get(1).copied().unwrap_or(2_000_000).min(events);
    // Whole batches, ten steps.
    let step = (events / 10).next_multiple_of(BATCH);
    let daemon = Daemon::start(&["--segment-rows-max", &step.to_string(), "--log-level", "warn"]);
    let code = daemon.register("example.com");
    let rate = ingest(&daemon, &code, events, step);
    let ours = directory_bytes(daemon.data()) as f64 / events as f64;
    println!("\none table with four indexes kept up row by row, {BATCH} rows a transaction");
    let table = indexed_table(&daemon.data().join("../table.db"), table_events);
    for (rows, rate) in &table.rates {
        println!("{rows:>12} {rate:>12.0} from the first on");
    }
    println!("\ningest against one table with four indexes, whole against whole: {:.1} times", rate / table.rate);
    println!("bytes on disk an event: {ours:.0}, one table {:.0}, ratio {:.2}", table.bytes, ours / table.bytes);
    reads(&daemon, &code, events, rate / 2.0);
    println!("\npeak {} MiB resident, now {} MiB", memory_mib(&daemon, "VmHWM"), memory_mib(&daemon, "VmRSS"));
    index_costs(&daemon.data().join("segments"));
    let sealed = sealed_files(&daemon.data().join("segments")).remove(0);
    starts(&sealed, events.min(2_000_000));
    daemon.stop();
    rolls(rate / 2.0, if events >= 1_000_000 { 20.0 } else { 0.5 });
}

/// What a request waits when its segment rolls: the batches around each of many rolls against the others.
fn rolls(rate: f64, seconds: f64) {
    let daemon = Daemon::start(&["--segment-rows-max", "50000", "--log-level", "warn"]);
    let code = daemon.register("example.com");
    let (paced, started) = (Paced::new(rate, 0), Instant::now());
    let (latencies, rolls) = thread::scope(|scope| {
        let writer = scope.spawn(|| paced.run(&daemon, &code));
        let (mut rolls, mut count) = (Vec::new(), 0.0);
        while started.elapsed().as_secs_f64() < seconds {
            thread::sleep(Duration::from_millis(5));
            let now = daemon.metrics()["hitlog_segment_rolls_total"];
            if now > std::mem::replace(&mut count, now) {
                rolls.push(started.elapsed().as_secs_f64());
            }
        }
        paced.stop.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), rolls)
    });
    // A roll is seen up to one look later than it happened.
    let is_near = |due: f64| rolls.iter().any(|roll| (-0.025..0.01).contains(&(due - roll)));
    let (near, far): (Vec<_>, Vec<_>) = latencies.0.into_iter().partition(|(due, _)| is_near(*due));
    let (near, far) = (Latencies(near), Latencies(far));
    println!("\n{} rolls while {rate:.0} events/s come in", rolls.len());
    for (name, latencies) in [("around a roll", &near), ("the others", &far)] {
        let (p50, p99) = (latencies.at(0.5), latencies.at(0.99));
        println!("{name:<20} {:>7} batches, p50 / p99: {p50:>7.2} / {p99:>7.2} ms", latencies.0.len());
    }
    daemon.stop();
}

/// How long a start takes: after a kill with unindexed events, and with a thousand sealed segments.
fn starts(sealed: &Path, events: usize) {
    const SEALED: usize = 1_000;
    let work = harness::work_dir();
    let data = work.path().join("data");
    let flags = ["--segment-rows-max", "100000000", "--log-level", "warn"];
    let timed_start = || {
        let begun = Instant::now();
        (Daemon::start_in(&data, &flags), begun.elapsed().as_secs_f64())
    };
    let (mut daemon, empty) = timed_start();
    let code = daemon.register("example.com");
    let (mut client, mut batches) = (daemon.client(), traffic::Batches::new(&code, BATCH));
    (0..events).step_by(BATCH).for_each(|at| send(&mut client, batches.from(at)));
    daemon.crash();
    let (mut daemon, killed) = timed_start();
    let million = (killed - empty) / events as f64 * 1e6;
    println!(
        "\na start takes {empty:.3} s with nothing, {million:.2} s more for each million unindexed events after a kill"
    );
    daemon.crash();
    fs::remove_dir_all(&data).unwrap();
    let (mut daemon, _) = timed_start();
    // The second segment is made behind the start.
    daemon.wait_until_sealed();
    daemon.crash();
    let catalog = Connection::open(data.join("catalog.db")).unwrap();
    catalog.execute("UPDATE Segment SET number = number + ?1", [SEALED as i64]).unwrap();
    let file = |number: usize, generation: &str| data.join(format!("segments/{number:012}{generation}.db"));
    for number in [2, 1] {
        fs::rename(file(number, ""), file(number + SEALED, "")).unwrap();
    }
    // One that does not say which segment it is, as an older hitlog left them.
    let nameless = work.path().join("sealed.db");
    fs::copy(sealed, &nameless).unwrap();
    Connection::open(&nameless).unwrap().execute_batch("DROP TABLE Identity").unwrap();
    for number in 1..=SEALED {
        fs::hard_link(&nameless, file(number, ".g2")).unwrap();
        let sql = "INSERT INTO Segment(number, generation, state) VALUES(?1, 2, 'sealed')";
        catalog.execute(sql, [number as i64]).unwrap();
    }
    drop(catalog);
    let (daemon, many) = timed_start();
    assert_eq!(daemon.segments("sealed"), SEALED);
    println!("and {:.3} s more for {SEALED} sealed segments", many - empty);
}

/// Every writer in turn sends the next batch as soon as its last is answered. Returns events a second over all.
fn ingest(daemon: &Daemon, code: &str, events: usize, step: usize) -> f64 {
    println!("{events} events in batches of {BATCH} over {WRITERS} connections, durability full, sealing on");
    println!("{:>12} {:>12} {:>10} {:>10}", "events", "events/s", "unsealed", "resident");
    let (started, mut rates) = (Instant::now(), Vec::new());
    for first in (0..events).step_by(step) {
        let (begun, next) = (Instant::now(), AtomicUsize::new(first));
        let end = first + step;
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    let (mut client, mut batches) = (daemon.client(), traffic::Batches::new(code, BATCH));
                    loop {
                        let at = next.fetch_add(BATCH, Ordering::Relaxed);
                        if at >= end {
                            return;
                        }
                        send(&mut client, batches.from(at));
                    }
                });
            }
        });
        rates.push((end - first) as f64 / begun.elapsed().as_secs_f64());
        let unsealed = daemon.metrics()["hitlog_segments{state=\"unsealed\"}"];
        let rate = rates[rates.len() - 1];
        println!("{end:>12} {rate:>12.0} {unsealed:>10} {:>6} MiB", memory_mib(daemon, "VmRSS"));
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    while daemon.metrics()["hitlog_segments{state=\"unsealed\"}"] > 0.0 {
        thread::sleep(Duration::from_millis(100));
    }
    let all = started.elapsed().as_secs_f64();
    println!("whole {rate:.0} events/s; all sealed {:.0} s after the last", all - events as f64 / rate);
    let metrics = daemon.metrics();
    let sealed = (metrics["hitlog_events_sealed_total"], metrics["hitlog_seal_duration_seconds_sum"]);
    println!("sealed {:.0} events a second, beside the ingest", sealed.0 / sealed.1);
    println!("the last step against the second: {:.2}", rates[rates.len() - 1] / rates[1.min(rates.len() - 1)]);
    rate
}

/// The path that asks it for the so-and-so-many-th time.
type Question<'a> = Box<dyn Fn(usize) -> String + Sync + 'a>;

/// Reads beside ingest at a fixed rate, and what they do to it.
fn reads(daemon: &Daemon, code: &str, events: usize, rate: f64) {
    let list = |rest: &str| format!("/api/v1/events?trackingCode={code}&limit=100{rest}");
    let first = daemon.client().get(&list("")).json();
    let total = first["pagination"]["total"].as_u64().unwrap();
    assert_eq!(total, events as u64);
    let id = first["events"][0]["id"].as_str().unwrap().to_owned();
    let old = daemon.client().get(&list(&format!("&offset={}", total / 3))).json();
    let old_id = old["events"][0]["id"].as_str().unwrap().to_owned();
    let questions: Vec<(&str, Question<'_>)> = vec![
        ("offset 0", Box::new(move |_| list(""))),
        ("offset in the middle", Box::new(move |at| list(&format!("&offset={}", total / 2 + at as u64 * 97)))),
        ("offset at the end", Box::new(move |at| list(&format!("&offset={}", total - 100 - at as u64)))),
        (
            "clicks, offset in the middle",
            Box::new(move |at| list(&format!("&eventType=click&offset={}", total / 20 + at as u64))),
        ),
        ("by id, newest", Box::new(move |_| format!("/api/v1/events/{id}"))),
        ("by id, old", Box::new(move |_| format!("/api/v1/events/{old_id}"))),
        ("by sessionId", Box::new(move |at| list(&format!("&sessionId={}", traffic::session(at * 24_593 % events))))),
        ("by visitorId", Box::new(move |at| list(&format!("&visitorId={}", traffic::visitor(at * 24_593 % events))))),
    ];
    println!("\nreads beside ingest at {rate:.0} events/s, {READS} of each");
    println!("{:<30} {:>9} {:>9}", "", "p50 ms", "p99 ms");
    let paced = Paced::new(rate, events);
    thread::scope(|scope| {
        scope.spawn(|| paced.run(daemon, code));
        for (name, question) in &questions {
            let mut client = daemon.client();
            let latencies = Latencies((0..READS).map(|at| (0.0, timed(&mut client, &question(at)))).collect());
            println!("{name:<30} {:>9.2} {:>9.2}", latencies.at(0.5), latencies.at(0.99));
        }
        paced.stop.store(true, Ordering::Relaxed);
    });
    let seconds = if events >= 1_000_000 { 6.0 } else { 0.5 };
    println!("\ningest in turn alone and beside {READERS} clients that read without pause");
    println!("{:>12} {:>12} {:>12} {:>12} {:>7}", "p50 alone", "p99 alone", "p50 beside", "p99 beside", "p99");
    for _ in 0..5 {
        let run = |readers| paced_for(daemon, code, rate, events, seconds, readers, &questions);
        let (alone, beside) = (run(0), run(READERS));
        let columns = [alone.at(0.5), alone.at(0.99), beside.at(0.5), beside.at(0.99)];
        let ratio = columns[3] / columns[1];
        println!("{} {ratio:>7.2}", columns.map(|column| format!("{column:>9.2} ms")).join(" "));
    }
}

fn paced_for(
    daemon: &Daemon,
    code: &str,
    rate: f64,
    first: usize,
    seconds: f64,
    readers: usize,
    questions: &[(&str, Question<'_>)],
) -> Latencies {
    let paced = Paced::new(rate, first);
    thread::scope(|scope| {
        let writer = scope.spawn(|| paced.run(daemon, code));
        for reader in 0..readers {
            let paced = &paced;
            scope.spawn(move || {
                let mut client = daemon.client();
                for at in 0.. {
                    if paced.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    timed(&mut client, &questions[(reader + at) % questions.len()].1(at % READS));
                }
            });
        }
        thread::sleep(Duration::from_secs_f64(seconds));
        paced.stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    })
}

/// What each index adds to a segment, built over the rows of the oldest sealed one.
fn index_costs(segments: &Path) {
    let sealed = sealed_files(segments);
    let copy = segments.join("../costs.db");
    fs::copy(&sealed[0], &copy).unwrap();
    let connection = Connection::open(&copy).unwrap();
    let number = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    connection
        .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768")
        .unwrap();
    let rows = number("SELECT count(*) FROM Event");
    let used = || number("PRAGMA page_count") - number("PRAGMA freelist_count");
    println!("\nan index over a segment of {rows} rows");
    println!("{:<18} {:>12} {:>12} {:>12}", "", "seconds", "rows/s", "bytes a row");
    for sql in INDEXES {
        let name = sql.split(' ').nth(2).unwrap();
        connection.execute_batch(&format!("DROP INDEX {name}")).unwrap();
        let (before, begun) = (used(), Instant::now());
        connection.execute_batch(sql).unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        let bytes = (used() - before) * number("PRAGMA page_size");
        let rows = rows as f64;
        println!("{name:<18} {seconds:>12.2} {:>12.0} {:>12.1}", rows / seconds, bytes as f64 / rows);
    }
}

fn sealed_files(segments: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(segments).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(".g2.db"));
    files.sort();
    files
}

fn directory_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => directory_bytes(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

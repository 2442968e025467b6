//! The measurements, one function each. Each takes hitlog fresh, so that its peak of memory is its own, and what it is
//! compared with in turn with it, because a noisy machine must disturb both.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, indexed_table::indexed_table, measure::cpu_seconds, raw_append, traffic, work_dir};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    generator::{Generator, Load},
    results::{ByConnections, ByRate, Moment, Percentiles, Results, Row, Verdict},
    server::{Bare, Meter, directory_bytes, memory_mib},
    shape::{Source, WEBSITES},
};

pub const BATCH: usize = 500;
const CONNECTIONS: [usize; 5] = [1, 16, 64, 256, 1_024];
const SHARES: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
/// Connections of an open loop.
pub const OPEN_CONNECTIONS: usize = 256;
pub const WARM_UP_SECONDS: f64 = 0.5;
const IDLE_CONNECTIONS: usize = 10_000;
/// Sealing is off when no segment is ever full.
const NO_SEALING: [&str; 2] = ["--segment-rows-max", "100000000"];

/// What is measured, how long, and what has been found so far.
pub struct Bench {
    pub seconds: f64,
    pub rounds: usize,
    pub events: usize,
    pub results: Results,
    work: tempfile::TempDir,
    bar: ProgressBar,
    /// Single events a second over the connections of an open loop.
    top_rate: f64,
}

impl Bench {
    pub fn new(seconds: f64, rounds: usize, events: usize) -> Self {
        let steps = CONNECTIONS.len() * rounds * 2 + 2 + SHARES.len() * rounds + 3 + rounds + 2;
        let bar = ProgressBar::new(steps as u64);
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}").unwrap());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { seconds, rounds, events, results: Results::default(), work: work_dir(), bar, top_rate: 0.0 }
    }

    pub fn run(&mut self) {
        self.singles();
        self.batches();
        self.by_rate();
        self.real();
        self.long();
        self.idle();
        let peak = self.results.rows.iter().filter_map(|row| row.peak_rss_mib).fold(0.0, f64::max);
        self.verdict("peak resident memory", "any of these", peak, "MiB", (256.0, 128.0), false);
        self.bar.finish_and_clear();
    }

    fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.inc(1);
    }

    fn verdict(&mut self, measure: &str, against: &str, figure: f64, unit: &str, asked: (f64, f64), at_least: bool) {
        let (measure, against, unit) = (measure.to_owned(), against.to_owned(), unit.to_owned());
        let (bar, aim) = asked;
        self.results.verdicts.push(Verdict { measure, against, figure, unit, bar, aim, at_least });
    }

    /// A bare server that answers what hitlog answers, to the same bodies.
    fn bare(&self, daemon: &Daemon, code: &str, threads: usize) -> Bare {
        let path = self.work.path().join("answer");
        let answer = daemon.client().post("/api/v1/events", traffic::event(code, 0));
        assert_eq!(answer.status, 201, "{}", answer.text());
        fs::write(&path, answer.body).unwrap();
        Bare::start(&path, threads)
    }

    /// Single events, closed loop.
    fn singles(&mut self) {
        let cores = cores();
        for connections in CONNECTIONS.into_iter().filter(|count| *count <= connections_max()) {
            let (daemon, code) = start(&[]);
            let bare = self.bare(&daemon, &code, cores);
            let mut rounds = Vec::new();
            for _ in 0..self.rounds {
                self.step(&format!("single events, {connections} connections"));
                let ours = closed(&daemon, &mut Source::uniform(&code, 1), connections, self.seconds);
                rounds.push((ours, self.closed_bare(&bare, &code, connections)));
            }
            let ratio = median(&rounds, |(ours, bare)| ours.rate / bare.rate);
            let cpu = median(&rounds, |(ours, bare)| cpu_of(ours) / cpu_of(bare));
            let row = middle(&rounds, |(ours, _)| ours.rate).0;
            let limit = median(&rounds, |(_, bare)| bare.rate);
            if connections == OPEN_CONNECTIONS {
                self.top_rate = row.rate;
            }
            self.results.by_connections.push(ByConnections { connections, hitlog: row.rate, bare: limit });
            let name = format!("{connections} connections");
            if matches!(connections, 64 | 256) {
                let measure = format!("single events, {name}");
                self.verdict(&measure, "bare hyper, same bodies", ratio, "×", (0.65, 0.80), true);
                self.verdict(
                    &format!("processor time of a {}", &measure.replace("events", "event")),
                    "bare hyper's for a request",
                    cpu,
                    "×",
                    (2.0, 1.5),
                    false,
                );
            }
            let limit =
                format!("bare hyper {}/s, {:.1} µs", thousands(limit), median(&rounds, |(_, bare)| cpu_of(bare)));
            self.row("single events, closed loop", &name, Some((ratio, limit)), row);
        }
        // Is one thread without stealing a higher limit?
        for connections in [64, 256] {
            let (daemon, code) = start(&[]);
            self.step("bare hyper on one thread");
            let bare = self.bare(&daemon, &code, 1);
            let row = self.closed_bare(&bare, &code, connections);
            self.row("single events, closed loop", &format!("{connections}, bare hyper on one thread"), None, row);
        }
    }

    /// Batches, closed loop, nothing sealed, against rows appended to a bare table.
    fn batches(&mut self) {
        let mut best = 0.0_f64;
        for connections in CONNECTIONS.into_iter().filter(|count| *count <= connections_max()) {
            let mut rounds = Vec::new();
            for round in 0..self.rounds {
                self.step(&format!("batches, {connections} connections"));
                let (daemon, code) = start(&NO_SEALING);
                let ours = closed(&daemon, &mut Source::uniform(&code, BATCH), connections, self.seconds);
                drop(daemon);
                let path = self.work.path().join(format!("raw-{connections}-{round}.db"));
                rounds.push((ours, raw_append::run(&path, BATCH, self.seconds)));
                remove_database(&path);
            }
            let ratio = median(&rounds, |(ours, raw)| ours.rate / raw);
            best = best.max(ratio);
            let limit = format!("raw append {} rows/s", thousands(median(&rounds, |(_, raw)| *raw)));
            let row = middle(&rounds, |(ours, _)| ours.rate).0;
            self.row(
                "batches of 500, closed loop, sealing off",
                &format!("{connections} connections"),
                Some((ratio, limit)),
                row,
            );
        }
        self.verdict("batches of 500, sealing off", "raw SQLite append", best, "×", (0.60, 0.85), true);
    }

    /// Single events at fixed rates.
    fn by_rate(&mut self) {
        let (daemon, code) = start(&[]);
        let bare = self.bare(&daemon, &code, cores());
        for share in SHARES {
            let rate = self.top_rate * share;
            let mut rounds = Vec::new();
            for _ in 0..self.rounds {
                self.step(&format!("single events at {:.0} % of the top rate", share * 100.0));
                let mut source = Source::uniform(&code, 1);
                let mut generator = Generator::connect(&daemon.address, OPEN_CONNECTIONS);
                generator.open(&mut source, rate, WARM_UP_SECONDS);
                let meter = Meter::start(&daemon);
                let load = generator.open(&mut source, rate, self.seconds);
                let row = meter.row(&daemon, &load);
                drop(generator);
                let mut generator = Generator::connect(&bare.address, OPEN_CONNECTIONS);
                generator.open(&mut source, rate, WARM_UP_SECONDS);
                rounds.push((row, load.percentiles(), generator.open(&mut source, rate, self.seconds).percentiles()));
            }
            let more = median(&rounds, |(_, ours, bare)| ours.p99 - bare.p99);
            let (row, ours, bare) = middle(&rounds, |(_, ours, _)| ours.p99);
            self.results.by_rate.push(ByRate { rate, hitlog: ours, bare });
            let name = format!("{:.0} % of the top rate", share * 100.0);
            let limit = format!("bare hyper p99 {:.2} ms, p99.9 {:.2}", bare.p99, bare.p999);
            if share == 0.5 {
                self.verdict(
                    "p99 of single events at half the top rate, open loop",
                    "bare hyper's at that rate, more",
                    more,
                    "ms",
                    (5.0, 2.0),
                    false,
                );
            }
            self.results.rows.push(Row { section: "single events, open loop".into(), name, limit, ..row });
        }
    }

    /// Traffic as sites have it, and reads beside it.
    fn real(&mut self) {
        const SECTION: &str = "traffic of 300 websites";
        for (name, events) in [("single events, 64 connections", 1), ("batches of 500, 16 connections", BATCH)] {
            self.step(name);
            let (daemon, codes) = start_with_websites();
            let connections = if events == 1 { 64 } else { 16 };
            let row = closed(&daemon, &mut Source::real(&codes, events), connections, self.seconds);
            self.row(SECTION, name, None, row);
        }
        self.step("reads beside single events");
        let (daemon, codes) = start_with_websites();
        let stop = AtomicBool::new(false);
        let mut source = Source::real(&codes, 1);
        let mut generator = Generator::connect(&daemon.address, OPEN_CONNECTIONS);
        generator.open(&mut source, self.top_rate / 2.0, WARM_UP_SECONDS);
        let (row, reads) = thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(&daemon, &codes, &stop));
            let meter = Meter::start(&daemon);
            let load = generator.open(&mut source, self.top_rate / 2.0, self.seconds);
            let row = meter.row(&daemon, &load);
            stop.store(true, Ordering::Relaxed);
            (row, reader.join().unwrap())
        });
        let name = format!("single events at half the top rate, {:.0} reads/s beside", reads.rate);
        self.row(SECTION, &name, None, row);
        self.row(SECTION, "those reads: lists, sessions, events by id", None, reads);
    }

    /// Many events with everything on, against one table that keeps its four indexes up row by row, which takes so long
    /// that it gets them once.
    fn long(&mut self) {
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            self.step(&format!("{} events, round {}", self.events, round + 1));
            let (daemon, codes) = start_with_websites();
            let (mut row, timeline) = ingest(&daemon, &codes, self.events);
            while daemon.metrics()["hitlog_segments{state=\"unsealed\"}"] > 0.0 {
                thread::sleep(Duration::from_millis(100));
            }
            row.disk_bytes_per_event = Some(directory_bytes(daemon.data()) as f64 / self.events as f64);
            row.peak_rss_mib = Some(memory_mib(daemon.pid(), "VmHWM"));
            rounds.push((row, timeline));
        }
        self.step("the same into one table");
        let path = self.work.path().join("table.db");
        let table = indexed_table(&path, self.events);
        remove_database(&path);
        let (row, timeline) = middle(&rounds, |(row, _)| row.rate);
        self.results.timeline = timeline;
        let ratio = row.rate / table.rate;
        let limit = format!("table with four indexes {} rows/s, {:.0} B", thousands(table.rate), table.bytes);
        let name = format!("{} million events in batches of 500", self.events as f64 / 1e6);
        self.row("sealing on", &name, Some((ratio, limit)), row);
        let measure = format!("{name}, sealing on");
        self.verdict(&measure, "SQLite with four indexes kept up row by row", ratio, "×", (10.0, 20.0), true);
    }

    /// What ten thousand connections cost that have nothing to do.
    fn idle(&mut self) {
        self.step("idle connections");
        let (daemon, code) = start(&[]);
        let event = traffic::event(&code, 0);
        for _ in 0..100 {
            assert_eq!(daemon.client().post("/api/v1/events", &event).status, 201);
        }
        let resident = || {
            thread::sleep(Duration::from_millis(500));
            memory_mib(daemon.pid(), "VmRSS")
        };
        let before = resident();
        let mut clients: Vec<_> = (0..IDLE_CONNECTIONS.min(connections_max())).map(|_| daemon.client()).collect();
        let silent = resident() - before;
        for client in &mut clients {
            assert_eq!(client.post("/api/v1/events", &event).status, 201);
        }
        let idle = resident() - before;
        let name = format!("{} idle connections", clients.len());
        let detail = format!("above idle; {silent:.0} MiB before their first request");
        self.verdict(&name, &detail, idle, "MiB", (100.0, 50.0), false);
    }

    fn row(&mut self, section: &str, name: &str, limit: Option<(f64, String)>, row: Row) {
        let (ratio, limit) = limit.map_or((None, String::new()), |(ratio, limit)| (Some(ratio), limit));
        let (section, name) = (section.to_owned(), name.to_owned());
        self.results.rows.push(Row { section, name, ratio, limit, ..row });
    }

    fn closed_bare(&self, bare: &Bare, code: &str, connections: usize) -> Row {
        let mut source = Source::uniform(code, 1);
        let mut generator = Generator::connect(&bare.address, connections);
        generator.closed(&mut source, WARM_UP_SECONDS.min(self.seconds));
        let cpu = cpu_seconds(bare.pid());
        let load = generator.closed(&mut source, self.seconds);
        let Percentiles { p50, p99, p999 } = load.percentiles();
        let cpu = (cpu_seconds(bare.pid()) - cpu) * 1e6 / load.requests as f64;
        let rate = load.per_second();
        Row { rate, p50_ms: p50, p99_ms: p99, p999_ms: p999, cpu_us_per_event: Some(cpu), ..Row::default() }
    }
}

/// As many requests as are answered over these connections, each sent when the one before it is answered.
pub fn closed(daemon: &Daemon, source: &mut Source, connections: usize, seconds: f64) -> Row {
    let mut generator = Generator::connect(&daemon.address, connections);
    generator.closed(source, WARM_UP_SECONDS.min(seconds));
    let meter = Meter::start(daemon);
    let load = generator.closed(source, seconds);
    meter.row(daemon, &load)
}

fn start(flags: &[&str]) -> (Daemon, String) {
    let daemon = Daemon::start(&[flags, &["--log-level", "warn"]].concat());
    let code = daemon.register("example.com");
    (daemon, code)
}

fn start_with_websites() -> (Daemon, Vec<String>) {
    let daemon = Daemon::start(&["--log-level", "warn"]);
    let codes = (0..WEBSITES).map(|number| daemon.register(&format!("site-{number}.example"))).collect();
    (daemon, codes)
}

/// Sends so many events as fast as they are answered, and looks at hitlog's counters meanwhile.
fn ingest(daemon: &Daemon, codes: &[String], events: usize) -> (Row, Vec<Moment>) {
    const LOOK: Duration = Duration::from_millis(250);
    let mut source = Source::real(codes, BATCH);
    let mut generator = Generator::connect(&daemon.address, 16);
    let (stop, meter) = (AtomicBool::new(false), Meter::start(daemon));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (started, mut timeline) = (Instant::now(), Vec::new());
            let mut before = (0.0, 0.0, 0.0, 0.0);
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
                let metrics = daemon.metrics();
                let now = (
                    started.elapsed().as_secs_f64(),
                    metrics["hitlog_events_committed_total"],
                    metrics["hitlog_seal_duration_seconds_count"],
                    metrics["hitlog_segment_rolls_total"],
                );
                timeline.push(Moment {
                    seconds: now.0,
                    rate: (now.1 - before.1) / (now.0 - before.0),
                    seals: (now.2 - before.2) as u64,
                    rolls: (now.3 - before.3) as u64,
                    unsealed: metrics["hitlog_segments{state=\"unsealed\"}"] as u64,
                });
                before = now;
            }
            timeline
        });
        let load: Load = generator.closed_for(&mut source, (events / BATCH) as u64);
        stop.store(true, Ordering::Relaxed);
        (meter.row(daemon, &load), watcher.join().unwrap())
    })
}

/// A read every ten milliseconds. What is read is listed once, and then asked for again.
fn read_until(daemon: &Daemon, codes: &[String], stop: &AtomicBool) -> Row {
    const INTERVAL: Duration = Duration::from_millis(10);
    let list = |rank: usize| format!("/api/v1/events?trackingCode={}&limit=100", codes[rank]);
    let mut client = daemon.client();
    let page = client.get(&list(0)).json();
    let event = &page["events"][0];
    let questions = [
        list(0),
        list(20),
        format!("{}&offset=1000", list(0)),
        format!("{}&sessionId={}", list(0), event["sessionId"].as_str().unwrap()),
        format!("/api/v1/events/{}", event["id"].as_str().unwrap()),
    ];
    let (started, mut latencies) = (Instant::now(), Vec::new());
    for number in 0.. {
        let due = started + INTERVAL * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = client.get(&questions[number as usize % questions.len()]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        latencies.push(due.elapsed().as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
    Row { rate, p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), ..Row::default() }
}

/// As many as the limit on open files allows, which hitlog keeps some of for itself.
fn connections_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |limit| (limit as usize).saturating_sub(500))
}

fn remove_database(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(PathBuf::from(format!("{}{end}", path.display())));
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn cpu_of(row: &Row) -> f64 {
    row.cpu_us_per_event.unwrap_or(f64::NAN)
}

pub fn thousands(number: f64) -> String {
    format!("{:.0},000", number / 1e3)
}

/// The round whose value is the middle one.
fn middle<T: Clone>(rounds: &[T], value: impl Fn(&T) -> f64) -> T {
    let mut order: Vec<&T> = rounds.iter().collect();
    order.sort_by(|a, b| value(a).total_cmp(&value(b)));
    order[order.len() / 2].clone()
}

pub fn median<T: Clone>(rounds: &[T], value: impl Fn(&T) -> f64) -> f64 {
    value(&middle(rounds, &value))
}

//! What do numbers cost: totals and series over many sealed segments, the first time after a start and after that, and
//! what a seal takes for them in time and in bytes?
//!
//! `cargo bench --bench stats [-- EVENTS [EVENTS_PER_SEGMENT]]`: two segments of a million if not said. In process,
//! without HTTP, events of one website, a million a day. So that a hundred million fit on a small disk, sealed segments
//! lose their events once they are sealed: numbers are not answered from these.
//! With `HITLOG_STATS_DIR` the directory is kept there, and used again if it is there already.
//!
//! `cargo bench --bench stats -- EVENTS --sql`: how fast are they beside plain SQL? The same events in one indexed
//! SQLite table, the same questions as SQL, and the answers must be equal. The table takes 490 bytes an event; with
//! `HITLOG_STATS_DIR` it is kept beside the directory, under the same name with `.db`, where beside_duckdb.py, beside
//! this file, finds it.
//!
//! `cargo bench --bench stats -- EVENTS [EVENTS_PER_SEGMENT [SECONDS]] --ingest`: how long does a single event take
//! over HTTP, alone and beside eight clients that ask for numbers without pause? On a copy of the directory, SECONDS
//! of each.

mod beside;
mod ingest;
mod table;
mod traffic;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use harness::work_dir;
use hitlog::{
    app,
    config::{Config, RawSettings},
    event::{Arrival, Intake, parse_batch},
    metrics::{BuildInfo, Metrics},
    store::{
        DataDir, Dimension, Filter, ListOrder, ListPage, ListReply, ListRow, Listed, NumbersQuestion, NumbersReply,
        Own, Span, Store,
    },
};
use rusqlite::Connection;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::fmt::MakeWriter;

use traffic::{FIRST_TIME, Source};

const BATCH: usize = 500;
/// Events of a day, and of a segment.
const SEGMENT: usize = 1_000_000;
/// Segments that have their events at once.
const WHOLE: usize = 4;
const WEBSITE: &str = "web-0123456789ab";
const CODE: &str = "pm-abc123-1704067200000";
const DAY_MS: i64 = 86_400_000;
/// Askings of each question once it was asked.
const WARM: usize = 100;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let events = numbers.next().unwrap_or(2 * SEGMENT);
    let per_segment = numbers.next().unwrap_or(SEGMENT.min(events)).next_multiple_of(BATCH);
    let segments = events.div_ceil(per_segment);
    let days = events.div_ceil(SEGMENT) as i64;
    let lines = Lines::default();
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(lines.clone()).with_ansi(false).init();
    let given = std::env::var_os("HITLOG_STATS_DIR").map(PathBuf::from);
    let work = work_dir();
    let path = given.clone().unwrap_or_else(|| work.path().join("data"));
    if !path.exists() {
        fill(&path, (segments, per_segment), &lines);
    }
    let runtime = Builder::new_current_thread().build().unwrap();
    println!("\n{segments} segments of {per_segment} events\n");
    if std::env::args().any(|argument| argument == "--sql") {
        beside::compare(&path, &path.with_extension("db"), segments * per_segment, days, &runtime);
        return;
    }
    if std::env::args().any(|argument| argument == "--ingest") {
        ingest::measure(&path, numbers.next().map_or(10.0, |seconds| seconds as f64));
        return;
    }
    println!("{:<38}{:>12}{:>12}{:>12}{:>14}", "", "first", "again p50", "again p99", "resident MiB");
    let only = std::env::var("HITLOG_STATS_ONLY").unwrap_or_default();
    for question in Question::all(days).into_iter().filter(|question| question.name.contains(&only)) {
        let asked = Asked::open(&path);
        let begun = Instant::now();
        let reply = asked.answer(&runtime, &question);
        let first = begun.elapsed().as_secs_f64() * 1e3;
        let mut times: Vec<f64> = (0..WARM)
            .map(|_| {
                let begun = Instant::now();
                let again = asked.answer(&runtime, &question);
                assert_eq!((again.0.spans, again.1), (reply.0.spans.clone(), reply.1.clone()));
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (p50, p99) = (times[WARM / 2], times[WARM * 99 / 100]);
        println!("{:<38}{first:>9.1} ms{p50:>9.1} ms{p99:>9.1} ms{:>14}", question.name, resident_mib());
        println!("    {}", shown(&reply.0));
        if let Some(ListRow { value, visitors, visitors_error, .. }) = reply.1.first() {
            println!("    first of the list: {value:?}, {visitors} visitors (error {visitors_error:?})");
        }
        asked.store.close().unwrap();
    }
}

fn shown(reply: &NumbersReply) -> String {
    let visits: i64 = reply.spans.iter().map(|span| span.counts.visits).sum();
    let visitors: u64 = reply.spans.iter().map(|span| span.visitors).sum();
    format!("{visits} visits, {visitors} visitors (error {:?}), {} spans", reply.visitors_error, reply.spans.len())
}

/// What is asked.
struct Question<'a> {
    name: &'static str,
    filters: Vec<(Dimension, &'a str)>,
    spans: Vec<Span>,
    /// What is listed, of the first of them.
    listed: Option<Dimension>,
}

impl Question<'static> {
    fn all(days: i64) -> Vec<Self> {
        let end = FIRST_TIME + days * DAY_MS;
        let all = vec![Span { from: FIRST_TIME, to: end }];
        let week = end - 7.min(days) * DAY_MS;
        let daily = |from: i64, to: i64, step: i64| {
            (0..(to - from) / step).map(|at| Span { from: from + at * step, to: from + (at + 1) * step }).collect()
        };
        let of = |name, filters: &[(Dimension, &'static str)], spans| Self {
            name,
            filters: filters.to_vec(),
            spans,
            listed: None,
        };
        let list = |name, listed, filters: &[(Dimension, &'static str)]| Self {
            listed: Some(listed),
            ..of(name, filters, all.clone())
        };
        vec![
            of("totals of everything", &[], all.clone()),
            of("days of everything", &[], daily(FIRST_TIME, end, DAY_MS)),
            of("totals of a week", &[], vec![Span { from: week, to: end }]),
            of("hours of two days", &[], daily(end - 2.min(days) * DAY_MS, end, DAY_MS / 24)),
            of("totals to the millisecond", &[], vec![Span { from: week + 12_345, to: end - 54_321 }]),
            of("one page, everything", &[(Dimension::Page, "/blog/article-7")], all.clone()),
            of("one country, everything", &[(Dimension::Location, "DE")], all.clone()),
            of("one country, days of everything", &[(Dimension::Location, "DE")], daily(FIRST_TIME, end, DAY_MS)),
            list("list of pages", Dimension::Page, &[]),
            list("list of entry pages", Dimension::EntryPage, &[]),
            list("list of sources", Dimension::Source, &[]),
            list("list of countries", Dimension::Location, &[]),
            list("list of events", Dimension::Event, &[]),
            list("list of pages, one country", Dimension::Page, &[(Dimension::Location, "DE")]),
        ]
    }
}

/// A store that is asked.
struct Asked {
    store: Store,
}

impl Asked {
    fn open(path: &Path) -> Self {
        Self { store: open(path, SEGMENT).0 }
    }

    /// Numbers, and rows if the question is about a list.
    fn answer(&self, runtime: &Runtime, question: &Question<'_>) -> (NumbersReply, Vec<ListRow>) {
        let Some(dimension) = question.listed else {
            return (self.ask(runtime, question, false).remove(0), Vec::new());
        };
        let ListReply { rows, all, .. } = self.list(runtime, question, dimension, false);
        (all, rows)
    }

    /// The ten values with the most visitors.
    fn list(&self, runtime: &Runtime, question: &Question<'_>, dimension: Dimension, is_exact: bool) -> ListReply {
        let (numbers, asked, span) = (self.store.numbers.clone(), asked(question, is_exact), question.spans[0]);
        let page = ListPage { order: ListOrder::Visitors, offset: 0, limit: 10 };
        let listed = Listed::Dimension(dimension);
        let reply = self.store.readers.ask(move |snapshot| numbers.list(snapshot, &asked, &listed, (span, page)));
        runtime.block_on(reply).unwrap()
    }

    fn ask(&self, runtime: &Runtime, question: &Question<'_>, is_exact: bool) -> Vec<NumbersReply> {
        let asked = asked(question, is_exact);
        let (numbers, spans) = (self.store.numbers.clone(), vec![question.spans.clone()]);
        let reply = self.store.readers.ask(move |snapshot| numbers.ask(snapshot, &asked, &spans));
        runtime.block_on(reply).unwrap()
    }
}

fn asked(question: &Question<'_>, is_exact: bool) -> NumbersQuestion {
    let filters = question.filters.iter().map(|(dimension, text)| Filter::new(*dimension, text)).collect();
    let own = Own { hosts: ["example.com".to_owned()].into(), has_several: false };
    NumbersQuestion::new(WEBSITE.into(), own, filters).exactly(is_exact)
}

/// Fills a directory with sealed segments.
fn fill(path: &Path, (segments, per_segment): (usize, usize), lines: &Lines) {
    let mut source = Source::new();
    for first in (0..segments).step_by(WHOLE) {
        let count = WHOLE.min(segments - first);
        let begun = Instant::now();
        let (mut store, metrics) = open(path, per_segment);
        for _ in 0..count {
            append_segment(&mut store, &metrics, per_segment, &mut source);
        }
        let sealed = || fs::read_dir(path.join("segments")).unwrap().flatten().filter(is_sealed).count();
        while sealed() < first + count {
            thread::sleep(Duration::from_millis(50));
        }
        store.close().unwrap();
        if first == 0 {
            report_seal(path, lines);
        }
        let folder = fs::read_dir(path.join("segments")).unwrap().flatten().filter(is_sealed);
        folder.for_each(|entry| shrink(&entry.path()));
        eprintln!("{} of {segments} segments, {:.0} s", first + count, begun.elapsed().as_secs_f64());
    }
}

fn open(path: &Path, per_segment: usize) -> (Store, Metrics) {
    let metrics = Metrics::new(&BuildInfo { version: "", sqlite: "", sqlite_build: "", durability: "full" }).unwrap();
    let directory = DataDir::open(path).unwrap();
    let mut options = app::store_options(&Config::check(&RawSettings::default()).unwrap());
    options.log.segment_rows_max = per_segment as u64;
    options.log.segment_age_max = Duration::MAX;
    let store = Store::open(&directory, &options, &metrics.store, Arc::new(|reason| panic!("{reason}"))).unwrap();
    (store, metrics)
}

fn append_segment(store: &mut Store, metrics: &Metrics, per_segment: usize, source: &mut Source) {
    let rules = app::rules(&Config::check(&RawSettings::default()).unwrap());
    let website = Intake::of_anything(WEBSITE);
    let before = rolls(store, metrics);
    for _ in 0..per_segment / BATCH {
        let mut body = r#"{"events":["#.to_owned();
        for at in 0..BATCH {
            body.push_str(if at > 0 { "," } else { "" });
            source.next(CODE, &mut body);
        }
        body.push_str("]}");
        let parsed = parse_batch(body.into_bytes(), &rules, &Arrival::at(1_790_000_000_000), |_| Some(website.clone()));
        store.log.append(std::iter::once(&parsed.unwrap().events)).unwrap();
    }
    while rolls(store, metrics) == before {
        thread::sleep(Duration::from_millis(5));
    }
}

fn rolls(store: &mut Store, metrics: &Metrics) -> usize {
    store.log.maintain().unwrap();
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with("hitlog_segment_rolls_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as usize
}

fn is_sealed(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().ends_with(".g2.db")
}

/// What a seal takes, and the bytes of its parts.
fn report_seal(path: &Path, lines: &Lines) {
    let log = lines.0.lock().unwrap();
    let text = String::from_utf8_lossy(&log);
    let seconds = |what: &str| {
        let found = text.lines().filter(|line| line.contains(what));
        let seconds = found.filter_map(|line| line.split("seconds=").nth(1)?.split(' ').next()?.parse::<f64>().ok());
        let seconds: Vec<f64> = seconds.collect();
        seconds.iter().sum::<f64>() / seconds.len().max(1) as f64
    };
    let [seal, made, written] = ["a segment is sealed", "the rollups are made", "the rollups are written"].map(seconds);
    println!("a seal: {seal:.2} s; meanwhile its rollups are made in {made:.2} s, and then written in {written:.2} s");
    let file = path.join("segments/000000000001.g2.db");
    let connection = Connection::open(&file).unwrap();
    let bytes = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as f64;
    let all = bytes("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
    let parts = [
        ("quarters", "SELECT sum(length(quarters)) FROM Rollup"),
        ("dictionaries", "SELECT sum(length(dictionaries)) FROM Rollup"),
        ("lists", "SELECT sum(length(groups)) FROM RollupList"),
        ("keys", "SELECT sum(length(keys)) FROM RollupBlock"),
        ("hits", "SELECT sum(length(hits)) FROM RollupBlock"),
    ];
    let mut sum = 0.0;
    for (name, sql) in parts {
        let part = bytes(sql);
        sum += part;
        println!("{name:<14}{:>8.2} MB a million events", part / 1e6);
    }
    println!("{:<14}{:>8.2} MB of {:.0} MB: {:.2} % more", "all", sum / 1e6, all / 1e6, 100.0 * sum / (all - sum));
}

/// Takes the events out of a sealed segment.
fn shrink(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let is_whole: bool = connection.query_row("SELECT EXISTS(SELECT 1 FROM Event)", [], |row| row.get(0)).unwrap();
    if is_whole {
        connection
            .execute_batch(
                "PRAGMA journal_mode = OFF; DROP INDEX EventByType; DROP INDEX EventBySession; DROP INDEX EventByVisitor;
                 DROP INDEX EventByTime; DELETE FROM Event; VACUUM;",
            )
            .unwrap();
    }
}

/// The lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn resident_mib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

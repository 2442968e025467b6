//! What does a read cost, by number of segments, beside the same question put to one SQLite table with the same rows
//! and the same four indexes? The table answers as a plain server would: a page by LIMIT and OFFSET, and the exact
//! total, which the API promises, by counting.
//!
//! `cargo bench --bench read [-- EVENTS [QUESTIONS]]`: a million events and 200 askings of each question if not said. In
//! process, without HTTP. Both sides in turn.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use harness::{traffic, work_dir};
use hitlog::{
    app,
    config::{Config, RawSettings},
    event::{Arrival, EventType, Intake, ValidEvents, parse_batch},
    metrics::{BuildInfo, Metrics},
    store::{DataDir, EventFilter, Page, PageStart, Readers, Store},
};
use rusqlite::{Connection, params, types::Value};
use tokio::runtime::{Builder, Runtime};

const BATCH: usize = 500;
const LIMIT: u64 = 100;
const WEBSITE: &str = "web-0123456789ab";
/// The time of the first event; the next ones follow each other by a tenth of a second.
const FIRST_TIME: u64 = 1_700_000_000_000;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(1_000_000).next_multiple_of(100 * BATCH);
    let questions = numbers.get(1).copied().unwrap_or(200);
    let work = work_dir();
    let table = build_table(&work.path().join("table.db"), events);
    let runtime = Builder::new_current_thread().build().unwrap();
    println!("{events} events of one website, {questions} askings of each question\n");
    println!("{:<10}{:<26}{:>18}{:>22}{:>10}", "segments", "", "hitlog p50 / p99", "one table p50 / p99", "p50");
    for segments in [1, 10, 100] {
        let path = work.path().join(format!("data-{segments}"));
        let log = Log::fill(&path, events, events / segments);
        for question in Question::ALL {
            compare(&log.store.readers, &table, &runtime, (segments, events, questions), question);
        }
        println!("{:<10}{:<26}{:>15} MiB", segments, "resident", resident_mib());
        log.store.close().unwrap();
        fs::remove_dir_all(&path).unwrap();
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    Newest,
    Deep,
    DeepClicks,
    ById,
    Session,
    Visitor,
}

impl Question {
    const ALL: [Self; 6] = [Self::Newest, Self::Deep, Self::DeepClicks, Self::ById, Self::Session, Self::Visitor];

    fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest page",
            Self::Deep => "page in the middle",
            Self::DeepClicks => "clicks, in the middle",
            Self::ById => "one event by its sequence",
            Self::Session => "a session's events",
            Self::Visitor => "a visitor's events",
        }
    }

    /// The so-and-so-many-th asking: its filter and its offset.
    fn asking(self, events: usize, at: usize) -> (EventFilter, u64) {
        let number = at * 24_593 % events;
        let offset = match self {
            Self::Deep => events / 2 + at * 97,
            Self::DeepClicks => events / 20 + at * 7,
            _ => 0,
        };
        let filter = EventFilter {
            website_id: WEBSITE.into(),
            event_type: matches!(self, Self::DeepClicks).then_some(EventType::Click),
            session_id: matches!(self, Self::Session).then(|| traffic::session(number)),
            visitor_id: matches!(self, Self::Visitor).then(|| traffic::visitor(number)),
            from: i64::MIN,
            to: i64::MAX,
        };
        (filter, offset as u64)
    }
}

fn compare(
    readers: &Readers,
    table: &Connection,
    runtime: &Runtime,
    (segments, events, questions): (usize, usize, usize),
    question: Question,
) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for at in 0..questions {
        let asked = question.asking(events, at);
        let sequence = (at * 24_593 % events) as u64 + 1;
        let begun = Instant::now();
        let from_log = runtime.block_on(ask_log(readers, question, asked.clone(), sequence));
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        let from_table = ask_table(table, question, &asked, sequence);
        theirs.push(begun.elapsed().as_secs_f64() * 1e3);
        // Two different answers could not be compared.
        assert_eq!(from_log, from_table, "{question:?}");
    }
    let [ours, theirs] = [ours, theirs].map(|mut times| {
        times.sort_by(f64::total_cmp);
        [times[questions / 2], times[questions * 99 / 100]]
    });
    println!(
        "{segments:<10}{:<26}{:>8.3} / {:>7.3}{:>12.3} / {:>7.3}{:>9.2} ×",
        question.name(),
        ours[0],
        ours[1],
        theirs[0],
        theirs[1],
        ours[0] / theirs[0]
    );
}

/// How many there are, and the bytes of the texts of those on the page: what both sides must agree on.
type Found = (u64, usize);

async fn ask_log(readers: &Readers, question: Question, asked: (EventFilter, u64), sequence: u64) -> Found {
    let share = readers.share();
    let read = readers.ask(move |snapshot| {
        if matches!(question, Question::ById) {
            return Ok((1, snapshot.event(sequence, |row| Ok(row.url.len() + row.session_id.len()))?.unwrap_or(0)));
        }
        let (filter, offset) = asked;
        let mut bytes = 0;
        let page = Page { limit: LIMIT, start: PageStart::Offset(offset) };
        let (listed, _) = snapshot.list(&filter, page, share, |_, row| {
            bytes += row.url.len() + row.session_id.len();
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((listed.total, bytes))
    });
    read.await.unwrap_or_else(|error| panic!("{error}"))
}

fn ask_table(table: &Connection, question: Question, (filter, offset): &(EventFilter, u64), sequence: u64) -> Found {
    let mut condition = "websiteId = ?".to_owned();
    let mut values: Vec<Value> = vec![filter.website_id.to_string().into()];
    let mut add = |column: &str, value: Option<String>| {
        if let Some(value) = value {
            condition.push_str(&format!(" AND {column} = ?"));
            values.push(value.into());
        }
    };
    add("eventType", filter.event_type.map(|kind| kind.as_str().to_owned()));
    add("sessionId", filter.session_id.clone());
    add("visitorId", filter.visitor_id.clone());
    if matches!(question, Question::ById) {
        (condition, values) = ("id = ?".to_owned(), vec![Value::from(sequence as i64)]);
    }
    let total: u64 = if matches!(question, Question::ById) {
        1
    } else {
        let count = format!("SELECT count(*) FROM Event WHERE {condition}");
        let mut count = table.prepare_cached(&count).unwrap();
        let total: i64 = count.query_row(rusqlite::params_from_iter(&values), |row| row.get(0)).unwrap();
        total.unsigned_abs()
    };
    let page =
        format!("SELECT * FROM Event WHERE {condition} ORDER BY createdAt DESC, id DESC LIMIT {LIMIT} OFFSET {offset}");
    let mut page = table.prepare_cached(&page).unwrap();
    let mut rows = page.query(rusqlite::params_from_iter(&values)).unwrap();
    let mut bytes = 0;
    while let Some(row) = rows.next().unwrap() {
        bytes += row.get_ref(3).unwrap().as_str().unwrap().len() + row.get_ref(5).unwrap().as_str().unwrap().len();
    }
    (total, bytes)
}

/// hitlog's store with all events in sealed segments of one size.
struct Log {
    store: Store,
}

impl Log {
    fn fill(path: &Path, events: usize, segment_rows: usize) -> Self {
        let metrics =
            Metrics::new(&BuildInfo { version: "", sqlite: "", sqlite_build: "", durability: "full" }).unwrap();
        let directory = DataDir::open(path).unwrap();
        let mut options = app::store_options(&config());
        options.log.segment_rows_max = segment_rows as u64;
        options.log.segment_age_max = Duration::MAX;
        let mut store =
            Store::open(&directory, &options, &metrics.store, Arc::new(|reason| panic!("{reason}"))).unwrap();
        let segments = events / segment_rows;
        for_each_batch(events, |first, batch| {
            store.log.append(std::iter::once(batch)).unwrap();
            // Full segments hold exactly what they should: the next one is waited for.
            let end = first + BATCH;
            while end.is_multiple_of(segment_rows) && rolls(&mut store, &metrics) < end / segment_rows {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let sealed = || fs::read_dir(path.join("segments")).unwrap().flatten().filter(is_sealed).count();
        while sealed() < segments {
            thread::sleep(Duration::from_millis(10));
        }
        // The lock is held as long as the process lives; nobody else wants this folder.
        std::mem::forget(directory);
        Self { store }
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

fn for_each_batch(events: usize, mut take: impl FnMut(usize, &ValidEvents)) {
    let mut batches = traffic::Batches::timed("pm-abc123-1704067200000", BATCH);
    let rules = app::rules(&config());
    let website = Intake::of_anything(WEBSITE);
    for first in (0..events).step_by(BATCH) {
        let body = batches.batch_with(first, |number| FIRST_TIME + number as u64 * 100, |_| None).to_vec();
        let parsed =
            parse_batch(body, &rules, &Arrival::at(1_790_000_000_000), |_| Some(Arc::clone(&website))).unwrap();
        assert!(parsed.refused.is_empty(), "{:?}", parsed.refused.first());
        take(first, &parsed.events);
    }
}

/// The defaults.
fn config() -> Config {
    Config::check(&RawSettings::default()).unwrap()
}

fn build_table(path: &Path, events: usize) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
             CREATE TABLE Event(id INTEGER PRIMARY KEY, websiteId TEXT NOT NULL, eventType TEXT NOT NULL,
                 url TEXT NOT NULL, referrer TEXT, sessionId TEXT NOT NULL, visitorId TEXT NOT NULL, deviceType TEXT,
                 browser TEXT, os TEXT, location TEXT, properties TEXT, createdAt INTEGER NOT NULL,
                 receivedAt INTEGER NOT NULL)",
        )
        .unwrap();
    let mut insert =
        connection.prepare("INSERT INTO Event VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)").unwrap();
    for_each_batch(events, |first, batch| {
        connection.execute_batch("BEGIN").unwrap();
        for (id, row) in (first + 1..).zip(batch.rows()) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let optional = |bytes: Option<&[u8]>| bytes.map(text);
            insert
                .execute(params![
                    id as i64,
                    text(row.website_id),
                    text(row.event_type),
                    text(row.url),
                    optional(row.referrer),
                    text(row.session_id),
                    text(row.visitor_id),
                    optional(row.device_type),
                    optional(row.browser),
                    optional(row.os),
                    optional(row.location),
                    optional(row.properties),
                    row.created_at,
                    row.received_at
                ])
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
    });
    drop(insert);
    connection
        .execute_batch(
            "CREATE INDEX EventByType ON Event(websiteId, eventType, createdAt);
             CREATE INDEX EventBySession ON Event(sessionId);
             CREATE INDEX EventByVisitor ON Event(visitorId);
             CREATE INDEX EventByTime ON Event(createdAt);
             ANALYZE",
        )
        .unwrap();
    connection
}

fn resident_mib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

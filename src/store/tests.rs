//! The store against a model: a plain sorted list.

use std::{cmp::Reverse, collections::BTreeSet, path::Path, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    event::{EventType, Rules, ValidEvents, parse_batch},
    metrics::{BuildInfo, SegmentLabel},
};

const RULES: Rules = Rules {
    url_bytes_max: 4_096,
    id_bytes_max: 128,
    text_chars_max: 100,
    properties_bytes_max: 32 * 1024,
    properties_depth_max: 32,
    timestamp_ahead_max_ms: i64::MAX,
    batch_events_max: 100_000,
};

pub(super) fn options(segment_rows_max: u64) -> StoreOptions {
    StoreOptions {
        log: LogOptions {
            durability: Durability::Full,
            page_bytes: 4_096,
            cache_bytes: 1 << 20,
            wal_checkpoint_bytes: 1 << 20,
            wal_bytes_max: 64 << 20,
            segment_rows_max,
            segment_age_max: Duration::MAX,
        },
        read: ReadOptions { readers: 2, waiting_max: 16, deadline: Duration::from_secs(10), answer_bytes_max: 1 << 20 },
        segments: SegmentOptions { unsealed_rows_max: 100, filter_bytes_max: 300, connections_max: 3 },
        seal_cache_bytes: 1 << 20,
    }
}

/// An event as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    website: u8,
    event_type: EventType,
    session: u16,
    visitor: u8,
    created_at: i64,
}

impl Event {
    fn json(&self) -> String {
        format!(
            r#"{{"trackingCode":"pm-{}","eventType":"{}","url":"https://example.com/","sessionId":"s{}",
                "visitorId":"v{}","timestamp":{}}}"#,
            self.website,
            self.event_type.as_str(),
            self.session,
            self.visitor,
            self.created_at
        )
    }
}

fn group(events: &[Event]) -> ValidEvents {
    let body = format!(r#"{{"events":[{}]}}"#, events.iter().map(Event::json).collect::<Vec<_>>().join(","));
    let website = |code: &str| code.strip_prefix("pm-").map(|number| format!("web-{number}").into());
    let parsed = parse_batch(body.into_bytes(), &RULES, 1_000, website).unwrap();
    assert_eq!(parsed.events.len(), events.len());
    parsed.events
}

/// An open store and the model beside it.
struct Pair {
    store: Option<Store>,
    directory: DataDir,
    options: StoreOptions,
    metrics: Arc<Metrics>,
    /// In the order of their sequences, which begin at 1.
    model: Vec<Event>,
    runtime: tokio::runtime::Runtime,
}

impl Pair {
    fn new(path: &Path, options: StoreOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let metrics = metrics();
        let directory = DataDir::open(path).unwrap();
        let store = Some(open(&directory, &options, &metrics));
        Self { store, directory, options, metrics, model: Vec::new(), runtime }
    }

    fn append(&mut self, events: &[Event]) {
        let log = &mut self.store.as_mut().unwrap().log;
        assert_eq!(log.append(std::iter::once(&group(events))).unwrap(), self.model.len() as u64 + 1);
        log.maintain().unwrap();
        self.model.extend_from_slice(events);
    }

    /// Gives a roll that is due the time to happen.
    fn roll(&mut self) {
        let log = &mut self.store.as_mut().unwrap().log;
        while log.maintain().unwrap().is_some_and(|patience| patience < Duration::from_secs(1)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing is left to seal.
    fn seal(&mut self) {
        self.roll();
        while self.segments(SegmentLabel::Unsealed) > 0 || self.segments(SegmentLabel::Prepared) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn segments(&self, state: SegmentLabel) -> usize {
        let line = format!("hitlog_segments{{state=\"{}\"}} ", state.as_str());
        let text = self.metrics.render();
        text.lines().find_map(|rest| rest.strip_prefix(&line)).unwrap_or("0").parse().unwrap()
    }

    fn close(&mut self) {
        let Some(store) = self.store.take() else { return };
        let Store { log, readers, catalog, threads, .. } = store;
        drop((readers, catalog));
        log.close().unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn reopen(&mut self) {
        self.close();
        self.metrics = metrics();
        self.store = Some(open(&self.directory, &self.options, &self.metrics));
    }

    fn list(&self, filter: EventFilter, page: Page) -> (u64, Vec<u64>) {
        let question = move |snapshot: &Snapshot<'_>| {
            let mut found = Vec::new();
            let total = snapshot.list(&filter, page, |sequence, _| {
                found.push(sequence);
                Ok(())
            })?;
            Ok((total, found))
        };
        self.runtime.block_on(self.store.as_ref().unwrap().readers.ask(question)).unwrap()
    }

    fn event(&self, sequence: u64) -> Option<Event> {
        let question = move |snapshot: &Snapshot<'_>| {
            snapshot.event(sequence, |row| {
                let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
                Ok(Event {
                    website: text(row.website_id).strip_prefix("web-").unwrap().parse().unwrap(),
                    event_type: EventType::from_name(&text(row.event_type)).unwrap(),
                    session: text(row.session_id).strip_prefix('s').unwrap().parse().unwrap(),
                    visitor: text(row.visitor_id).strip_prefix('v').unwrap().parse().unwrap(),
                    created_at: row.created_at,
                })
            })
        };
        self.runtime.block_on(self.store.as_ref().unwrap().readers.ask(question)).unwrap()
    }

    /// Every kind of question with every kind of page.
    fn check(&self) {
        let types = [None, Some(EventType::Pageview), Some(EventType::Click), Some(EventType::Custom)];
        for website in 0..4_u8 {
            for event_type in types {
                for session in [None, Some(0_u16), Some(3), Some(999)] {
                    for visitor in [None, Some(0_u8), Some(1), Some(99)] {
                        self.check_filter(website, event_type, session, visitor);
                    }
                }
            }
        }
        for sequence in [0, 1, self.model.len() as u64 / 2, self.model.len() as u64, self.model.len() as u64 + 1] {
            let wanted = sequence.checked_sub(1).and_then(|at| self.model.get(at as usize).cloned());
            assert_eq!(self.event(sequence), wanted, "{sequence}");
        }
    }

    fn check_filter(&self, website: u8, event_type: Option<EventType>, session: Option<u16>, visitor: Option<u8>) {
        let mut wanted: Vec<(i64, u64)> = (1..)
            .zip(&self.model)
            .filter(|(_, event)| {
                event.website == website
                    && event_type.is_none_or(|kind| kind == event.event_type)
                    && session.is_none_or(|session| session == event.session)
                    && visitor.is_none_or(|visitor| visitor == event.visitor)
            })
            .map(|(sequence, event)| (event.created_at, sequence))
            .collect();
        wanted.sort_unstable_by_key(|key| Reverse(*key));
        let total = wanted.len() as u64;
        let filter = EventFilter {
            website_id: format!("web-{website}").into(),
            event_type,
            session_id: session.map(|session| format!("s{session}")),
            visitor_id: visitor.map(|visitor| format!("v{visitor}")),
        };
        let offsets = [0, 1, total / 3, total / 2, total.saturating_sub(3), total, total + 1, i64::MAX as u64];
        for offset in BTreeSet::from(offsets) {
            for limit in [1, 7, 1_000] {
                let page: Vec<u64> =
                    wanted.iter().skip(offset as usize).take(limit as usize).map(|(_, sequence)| *sequence).collect();
                let found = self.list(filter.clone(), Page { limit, offset });
                assert_eq!(found, (total, page), "{filter:?}, {limit} from {offset}");
            }
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.close();
        }
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&BuildInfo { version: "", sqlite: "", durability: "" }).unwrap())
}

fn open(directory: &DataDir, options: &StoreOptions, metrics: &Arc<Metrics>) -> Store {
    Store::open(directory, options, metrics, Arc::new(|reason| panic!("{reason}"))).unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    let time = prop_oneof![4 => 1_000..1_050_i64, 2 => 0..10_000_i64, 1 => 0..250_000_000_000_000_i64];
    (0..3_u8, 0..3_usize, 0..8_u16, 0..4_u8, time).prop_map(|(website, kind, session, visitor, created_at)| Event {
        website,
        event_type: EventType::ALL[kind],
        session,
        visitor,
        created_at,
    })
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Event>),
    Roll,
    Seal,
    Reopen,
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(event(), 1..40).prop_map(Step::Append),
        2 => Just(Step::Roll),
        1 => Just(Step::Seal),
        1 => Just(Step::Reopen),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_a_sorted_list_would(
        rows_max in 20..80_u64,
        steps in prop::collection::vec(step(), 1..25)
    ) {
        let work = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(work.path(), options(rows_max));
        for step in steps {
            match step {
                Step::Append(events) => pair.append(&events),
                Step::Roll => pair.roll(),
                Step::Seal => pair.seal(),
                Step::Reopen => pair.reopen(),
                Step::Check => pair.check(),
            }
        }
        pair.check();
        pair.seal();
        pair.check();
        pair.reopen();
        pair.check();
    }
}

/// The keys of unsealed rows are bounded; what is over it is read from the disk, with the same answers.
#[test]
fn more_unsealed_rows_than_are_kept_in_memory() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(50));
    // Where the sealer wants to build, something stands in the way.
    let in_the_way = |number: u64| work.path().join(format!("segments/{number:012}.building"));
    (1..=7).for_each(|number| std::fs::create_dir_all(in_the_way(number).join("x")).unwrap());
    for round in 0..12_i64 {
        let events = (0..25_u8).map(|at| Event {
            website: at % 3,
            event_type: EventType::ALL[usize::from(at % 2)],
            session: u16::from(at % 5),
            visitor: at % 2,
            created_at: 1_000 + round * 7 % 5 + i64::from(at),
        });
        pair.append(&events.collect::<Vec<_>>());
        pair.roll();
    }
    assert!(pair.segments(SegmentLabel::Unsealed) >= 5);
    pair.check();
    (1..=7).for_each(|number| std::fs::remove_dir_all(in_the_way(number)).unwrap());
    pair.reopen();
    pair.check();
    pair.seal();
    pair.check();
}

#[test]
fn a_walk_begins_at_its_key_however_many_share_its_time() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch(schema::SEGMENT_SQL).unwrap();
    connection.execute_batch(schema::SEGMENT_INDEXES[0].1).unwrap();
    for (sql, sign) in [(list::merge::FROM_KEY_UP, '>'), (list::merge::FROM_KEY_DOWN, '<')] {
        let plan: String = connection
            .query_row(&format!("EXPLAIN QUERY PLAN {sql}"), rusqlite::params!["", "", 0, 0, 0], |row| row.get(3))
            .unwrap();
        assert!(plan.ends_with(&format!("(websiteId=? AND eventType=? AND (createdAt,rowid){sign}(?,?))")), "{plan}");
    }
}

/// A seal that fails is passed by; the next start finds a sealed segment that is newer than an unsealed one.
#[test]
fn segments_sealed_out_of_turn() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(10));
    let in_the_way = work.path().join("segments/000000000002.building/x");
    std::fs::create_dir_all(&in_the_way).unwrap();
    for round in 0..3_i64 {
        let event = |at: i64| Event {
            website: 0,
            event_type: EventType::Click,
            session: 0,
            visitor: 0,
            created_at: at % 3 + round % 2,
        };
        pair.append(&(0..10).map(event).collect::<Vec<_>>());
        pair.roll();
    }
    while pair.segments(SegmentLabel::Sealed) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    pair.check();
    std::fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    pair.reopen();
    pair.check();
}

/// Large enough for several fence posts and chunks, with as many ties as there may be.
#[test]
fn deep_pages_over_fence_posts_and_ties() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(9_000));
    let mut next = 1_u64;
    let mut random = || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        next >> 33
    };
    for round in 0..9 {
        let events: Vec<Event> = (0..3_000)
            .map(|_| Event {
                website: 0,
                event_type: EventType::ALL[(random() % 10 / 8) as usize],
                session: (random() % 5_000) as u16,
                visitor: (random() % 50) as u8,
                // A third of a round's rows share one millisecond, which the next round's rows overlap.
                created_at: 1_000_000 + round * 500 + if random() % 3 == 0 { 0 } else { (random() % 1_000) as i64 },
            })
            .collect();
        pair.append(&events);
        if round % 3 == 2 && round < 8 {
            pair.seal();
        }
    }
    assert_eq!((pair.segments(SegmentLabel::Sealed), pair.segments(SegmentLabel::Active)), (2, 1));
    let check = |pair: &Pair| {
        for event_type in [None, Some(EventType::Pageview), Some(EventType::Click)] {
            pair.check_filter(0, event_type, None, None);
        }
        pair.check_filter(0, None, None, Some(7));
        pair.check_filter(0, None, Some(77), None);
    };
    check(&pair);
    pair.seal();
    assert_eq!(pair.segments(SegmentLabel::Sealed), 3);
    check(&pair);
}

//! The store against a model: a plain sorted list.

use std::{cmp::Reverse, collections::BTreeSet, ops::Range, path::Path, time::Duration};

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
    timestamp_age_max_ms: i64::MAX,
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
        read: ReadOptions {
            readers: 2,
            waiting_max: 16,
            deadline: Duration::from_secs(10),
            answer_bytes_max: 1 << 20,
            retention: None,
        },
        erasures: ErasureOptions { erasures_max: 1_000, hidden_events_max: 1_000_000 },
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

fn group(events: &[Event], websites: &[Option<Arc<str>>]) -> ValidEvents {
    let body = format!(r#"{{"events":[{}]}}"#, events.iter().map(Event::json).collect::<Vec<_>>().join(","));
    let website = |code: &str| websites[code.strip_prefix("pm-")?.parse::<usize>().ok()?].clone();
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
    /// The ids of the websites; `None` for one that is deleted.
    websites: Vec<Option<Arc<str>>>,
    /// In the order of their sequences, which begin at 1; `None` for one that is erased.
    model: Vec<Option<Event>>,
    /// What is older has expired.
    expired_before: i64,
    runtime: tokio::runtime::Runtime,
}

impl Pair {
    fn new(path: &Path, options: StoreOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let metrics = metrics();
        let directory = DataDir::open(path).unwrap();
        let store = Some(open(&directory, &options, &metrics));
        let mut pair = Self {
            store,
            directory,
            options,
            metrics,
            websites: Vec::new(),
            model: Vec::new(),
            expired_before: i64::MIN,
            runtime,
        };
        for number in 0..3 {
            let (name, domain) = (format!("Website {number}"), format!("website-{number}.example"));
            let new = NewWebsite { name, domain, description: None };
            let website = pair.runtime.block_on(pair.store().catalog.create_website(new)).unwrap();
            pair.websites.push(Some(Arc::clone(&website.id)));
        }
        pair
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn append(&mut self, events: &[Event]) {
        let mut events = events.to_vec();
        events.retain(|event| self.websites[usize::from(event.website)].is_some());
        if events.is_empty() {
            return;
        }
        let log = &mut self.store.as_mut().unwrap().log;
        let first = log.append(std::iter::once(&group(&events, &self.websites))).unwrap();
        assert_eq!(first, self.model.len() as u64 + 1);
        log.maintain().unwrap();
        self.model.extend(events.into_iter().map(Some));
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
        let Store { log, readers, catalog, eraser, threads, .. } = store;
        drop((readers, catalog, eraser));
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

    /// Keeps only what is not older than this from now on, and begins anew.
    fn retain(&mut self, from: i64) {
        // What has expired once may be gone from the disk.
        self.expired_before = self.expired_before.max(from);
        self.options.read.retention = Some(Duration::from_millis(now_ms().abs_diff(self.expired_before)));
        self.reopen();
    }

    /// Erases a visitor's events; returns the erasure's id.
    fn erase(&mut self, website: u8, visitor: u8) -> Option<Arc<str>> {
        let website_id = self.websites[usize::from(website)].clone()?;
        let erasure = self.store().eraser.erase_visitor(website_id, format!("v{visitor}"));
        let erasure = self.runtime.block_on(erasure).unwrap();
        for event in &mut self.model {
            event.take_if(|event| event.website == website && event.visitor == visitor);
        }
        Some(erasure.id)
    }

    /// Deletes a website, and waits until its events are gone: until then it is the edge that does not show them.
    fn delete_website(&mut self, website: u8) {
        let Some(id) = self.websites[usize::from(website)].take() else { return };
        let (deleted, erasure) = self.runtime.block_on(self.store().catalog.delete_website(id.to_string())).unwrap();
        for event in &mut self.model {
            event.take_if(|event| event.website == website);
        }
        self.roll();
        assert!(self.store().eraser.get(&erasure).unwrap().done_at.is_none(), "somebody still has the website's id");
        drop((id, deleted));
        self.finish(&erasure);
    }

    /// Waits until an erasure is done.
    fn finish(&mut self, erasure: &str) {
        while self.store().eraser.get(erasure).unwrap().done_at.is_none() {
            self.store.as_mut().unwrap().log.maintain().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn list(&self, filter: EventFilter, page: Page) -> (Listed, Vec<u64>) {
        let question = move |snapshot: &Snapshot<'_>| {
            let mut found = Vec::new();
            let listed = snapshot.list(&filter, page, |sequence, _| {
                found.push(sequence);
                Ok(())
            })?;
            Ok((listed, found))
        };
        self.runtime.block_on(self.store().readers.ask(question)).unwrap()
    }

    fn event(&self, sequence: u64) -> Option<Event> {
        let number_of = |id: &str| self.websites.iter().position(|known| known.as_deref() == Some(id)).unwrap() as u8;
        let question = move |snapshot: &Snapshot<'_>| {
            snapshot.event(sequence, |row| {
                let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
                let event = Event {
                    website: 0,
                    event_type: EventType::from_name(&text(row.event_type)).unwrap(),
                    session: text(row.session_id).strip_prefix('s').unwrap().parse().unwrap(),
                    visitor: text(row.visitor_id).strip_prefix('v').unwrap().parse().unwrap(),
                    created_at: row.created_at,
                };
                Ok((text(row.website_id), event))
            })
        };
        let found = self.runtime.block_on(self.store().readers.ask(question)).unwrap();
        found.map(|(website, event)| Event { website: number_of(&website), ..event })
    }

    /// The events that are in answers, with their sequences.
    fn visible(&self) -> impl Iterator<Item = (u64, &Event)> {
        let events = (1..).zip(&self.model).filter_map(|(sequence, event)| Some((sequence, event.as_ref()?)));
        events.filter(|(_, event)| event.created_at >= self.expired_before)
    }

    /// Every kind of question with every kind of page.
    fn check(&self) {
        let types = [None, Some(EventType::Pageview), Some(EventType::Click), Some(EventType::Custom)];
        for website in 0..3_u8 {
            for event_type in types {
                for session in [None, Some(0_u16), Some(3), Some(999)] {
                    for visitor in [None, Some(0_u8), Some(1), Some(99)] {
                        self.check_filter(Asked { website, event_type, session, visitor, ..ANYTHING });
                    }
                }
                for times in [unit(1_020)..unit(1_030), unit(1_025)..i64::MAX, 0..unit(1_025), unit(7)..unit(7)] {
                    self.check_filter(Asked { website, event_type, times: times.clone(), ..ANYTHING });
                    self.check_filter(Asked { website, event_type, visitor: Some(1), times, ..ANYTHING });
                }
            }
        }
        for sequence in [0, 1, self.model.len() as u64 / 2, self.model.len() as u64, self.model.len() as u64 + 1] {
            let wanted = self.visible().find(|(of, _)| *of == sequence).map(|(_, event)| event.clone());
            assert_eq!(self.event(sequence), wanted, "{sequence}");
        }
    }

    /// The keys that a question has for an answer, the newest first.
    fn keys(&self, asked: &Asked) -> Vec<(i64, u64)> {
        let mut wanted: Vec<(i64, u64)> = self
            .visible()
            .filter(|(_, event)| {
                event.website == asked.website
                    && asked.event_type.is_none_or(|kind| kind == event.event_type)
                    && asked.session.is_none_or(|session| session == event.session)
                    && asked.visitor.is_none_or(|visitor| visitor == event.visitor)
                    && asked.times.contains(&event.created_at)
            })
            .map(|(sequence, event)| (event.created_at, sequence))
            .collect();
        wanted.sort_unstable_by_key(|key| Reverse(*key));
        wanted
    }

    fn filter(&self, asked: &Asked) -> EventFilter {
        EventFilter {
            website_id: self.websites[usize::from(asked.website)].clone().unwrap_or_else(|| "web-gone".into()),
            event_type: asked.event_type,
            session_id: asked.session.map(|session| format!("s{session}")),
            visitor_id: asked.visitor.map(|visitor| format!("v{visitor}")),
            from: asked.times.start,
            to: asked.times.end,
        }
    }

    fn check_filter(&self, asked: Asked) {
        let (wanted, filter) = (self.keys(&asked), self.filter(&asked));
        let total = wanted.len() as u64;
        let offsets = [0, 1, total / 3, total / 2, total.saturating_sub(3), total, total + 1, i64::MAX as u64];
        for offset in BTreeSet::from(offsets) {
            for limit in [1, 7, 1_000] {
                let page: Vec<u64> =
                    wanted.iter().skip(offset as usize).take(limit as usize).map(|(_, sequence)| *sequence).collect();
                let (listed, found) = self.list(filter.clone(), Page { limit, start: PageStart::Offset(offset) });
                assert_eq!((listed.total, &found), (total, &page), "{filter:?}, {limit} from {offset}");
                let more = offset.saturating_add(limit) < total;
                assert_eq!(listed.next.map(|next| next.passed), more.then(|| offset + limit), "{filter:?}");
            }
        }
        let limit = 5.max(total / 7);
        let mut walk = Walk::begin(self, asked, limit);
        while walk.go_on(self, limit) {}
        assert_eq!(walk.seen, wanted.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), "{filter:?}");
    }
}

/// What a question asks for.
#[derive(Debug, Clone)]
struct Asked {
    website: u8,
    event_type: Option<EventType>,
    session: Option<u16>,
    visitor: Option<u8>,
    times: Range<i64>,
}

const ANYTHING: Asked = Asked { website: 0, event_type: None, session: None, visitor: None, times: i64::MIN..i64::MAX };

/// A walk from cursor to cursor, which anything may interrupt.
struct Walk {
    asked: Asked,
    /// What there was when it began.
    wanted: Vec<u64>,
    seen: Vec<u64>,
    /// `None` at the end.
    next: Option<PageStart>,
}

impl Walk {
    fn begin(pair: &Pair, asked: Asked, limit: u64) -> Self {
        let wanted = pair.keys(&asked).into_iter().map(|(_, sequence)| sequence).collect();
        let mut walk = Self { asked, wanted, seen: Vec::new(), next: Some(PageStart::Offset(0)) };
        walk.go_on(pair, limit);
        walk
    }

    /// Goes one page further; says whether there is another.
    fn go_on(&mut self, pair: &Pair, limit: u64) -> bool {
        let Some(start) = self.next else { return false };
        let (listed, mut found) = pair.list(pair.filter(&self.asked), Page { limit, start });
        assert_eq!(listed.total as usize, pair.keys(&self.asked).len());
        assert!(found.len() as u64 == limit || listed.next.is_none());
        self.seen.append(&mut found);
        self.next = listed.next.map(PageStart::Cursor);
        self.next.is_some()
    }

    /// Everything that there was is seen once and in order, but for what has been erased or has expired meanwhile.
    fn end(mut self, pair: &Pair) {
        while self.go_on(pair, 3) {}
        let mut seen = self.seen.iter().peekable();
        let visible: BTreeSet<u64> = pair.visible().map(|(sequence, _)| sequence).collect();
        for wanted in &self.wanted {
            let is_seen = seen.next_if_eq(&wanted).is_some();
            assert!(is_seen || !visible.contains(wanted), "{wanted} is missing: {:?}", self.asked);
        }
        assert_eq!(seen.next(), None, "{:?}", self.asked);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.close();
        }
    }
}

pub(super) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&BuildInfo { version: "", sqlite: "", durability: "" }).unwrap())
}

fn open(directory: &DataDir, options: &StoreOptions, metrics: &Arc<Metrics>) -> Store {
    Store::open(directory, options, metrics, Arc::new(|reason| panic!("{reason}"))).unwrap()
}

/// Times are so far apart that none expires while a test runs.
const fn unit(number: i64) -> i64 {
    number * 1_000_000
}

fn event() -> impl Strategy<Value = Event> {
    let near = prop_oneof![4 => 1_000..1_050_i64, 2 => 0..10_000_i64].prop_map(unit);
    let time = prop_oneof![6 => near, 1 => 2 * now_ms()..250_000_000_000_000_i64];
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
    Retain(i64),
    Erase(u8, u8),
    FinishErasures,
    DeleteWebsite(u8),
    BeginWalk(u8, Option<u8>),
    GoOn(u64),
    Check,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(event(), 1..40).prop_map(Step::Append),
        4 => Just(Step::Roll),
        2 => Just(Step::Seal),
        2 => Just(Step::Reopen),
        1 => (900..1_040_i64).prop_map(Step::Retain),
        3 => (0..3_u8, 0..4_u8).prop_map(|(website, visitor)| Step::Erase(website, visitor)),
        1 => Just(Step::FinishErasures),
        1 => (1..3_u8).prop_map(Step::DeleteWebsite),
        2 => (0..3_u8, prop::option::of(0..4_u8)).prop_map(|(website, visitor)| Step::BeginWalk(website, visitor)),
        4 => (1..9_u64).prop_map(Step::GoOn),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_a_sorted_list_would(
        rows_max in 20..80_u64,
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let work = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(work.path(), options(rows_max));
        let (mut walks, mut erasures) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Append(events) => pair.append(&events),
                Step::Roll => pair.roll(),
                Step::Seal => pair.seal(),
                Step::Reopen => pair.reopen(),
                Step::Retain(from) => pair.retain(unit(from) + unit(1) / 2),
                Step::Erase(website, visitor) => erasures.extend(pair.erase(website, visitor)),
                Step::FinishErasures => erasures.drain(..).for_each(|erasure| pair.finish(&erasure)),
                Step::DeleteWebsite(website) => {
                    walks.retain(|walk: &Walk| walk.asked.website != website);
                    pair.delete_website(website);
                }
                Step::BeginWalk(website, visitor) => {
                    walks.push(Walk::begin(&pair, Asked { website, visitor, ..ANYTHING }, 2));
                }
                Step::GoOn(limit) => {
                    walks.iter_mut().for_each(|walk| {
                        walk.go_on(&pair, limit);
                    });
                }
                Step::Check => pair.check(),
            }
        }
        walks.into_iter().for_each(|walk| walk.end(&pair));
        pair.check();
        pair.seal();
        pair.check();
        erasures.drain(..).for_each(|erasure| pair.finish(&erasure));
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
    // Hidden among the others, until the segments are rewritten.
    pair.erase(0, 11);
    pair.erase(0, 12);
    let check = |pair: &Pair| {
        for event_type in [None, Some(EventType::Pageview), Some(EventType::Click)] {
            pair.check_filter(Asked { event_type, ..ANYTHING });
            pair.check_filter(Asked { event_type, times: 1_000_700..1_003_000, ..ANYTHING });
        }
        pair.check_filter(Asked { visitor: Some(7), ..ANYTHING });
        pair.check_filter(Asked { session: Some(77), ..ANYTHING });
    };
    check(&pair);
    pair.seal();
    assert_eq!(pair.segments(SegmentLabel::Sealed), 3);
    check(&pair);
}

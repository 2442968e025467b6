//! A store and, beside it, what it should answer: a plain list.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::{ControlFlow, Range},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use crate::{
    event::{Arrival, EventRow, EventType, Intake, Original, Repeat, Rules, ValidEvents, parse_batch},
    metrics::{BuildInfo, Metrics, ReadRefused, SegmentLabel},
    store::*,
};

/// How many events a page has at most.
const LIMITS: [u64; 3] = [1, 7, 1_000];

/// Times are so far apart that none expires while a test runs.
pub(super) const fn unit(number: i64) -> i64 {
    number * 1_000_000
}

const RULES: Rules = Rules {
    url_bytes_max: 4_096,
    any_bare_scheme: false,
    id_bytes_max: 128,
    text_chars_max: 100,
    properties_bytes_max: 32 * 1024,
    properties_depth_max: 32,
    timestamp_ahead_max_ms: i64::MAX,
    timestamp_age_max_ms: i64::MAX,
    batch_events_max: 100_000,
    item_bytes_max: 256 * 1024,
    warnings_told_max: 100,
};

pub(crate) fn options(segment_rows_max: u64) -> StoreOptions {
    StoreOptions {
        is_shipping: false,
        ship_held_bytes_max: None,
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
        numbers: NumbersOptions { bytes_max: 16 << 20, exact_visits_max: 1_000_000 },
        tail: TailOptions { tails_max: 4, bytes_max: 1 << 20 },
        ids: IdOptions { window: Duration::from_secs(86_400), bytes_max: 64 << 20, table_bytes: 512 },
        erasures: ErasureOptions { erasures_max: 1_000, hidden_events_max: 40 },
        segments: SegmentOptions { unsealed_rows_max: 100, filter_bytes_max: 300, connections_max: 3 },
        seal_cache_bytes: 1 << 20,
        retention_grace: Duration::ZERO,
        is_restored: false,
        scratch_dir: None,
        reserve_bytes: 1 << 12,
    }
}

/// An event as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) website: u8,
    pub(super) event_type: EventType,
    pub(super) session: u16,
    pub(super) visitor: u8,
    pub(super) created_at: i64,
    /// What its client calls it.
    pub(super) id: Option<u8>,
}

impl Event {
    fn json(&self) -> String {
        format!(
            r#"{{"trackingCode":"pm-{}","eventType":"{}","url":"https://example.com/","sessionId":"s{}",
                "visitorId":"v{}","timestamp":{}{}}}"#,
            self.website,
            self.event_type.as_str(),
            self.session,
            self.visitor,
            self.created_at,
            self.id.map_or(String::new(), |id| format!(r#","eventId":"{id}""#))
        )
    }
}

fn group(events: &[Event], websites: &[Option<Arc<str>>], arrival: &Arrival) -> ValidEvents {
    let body = format!(r#"{{"events":[{}]}}"#, events.iter().map(Event::json).collect::<Vec<_>>().join(","));
    let website = |code: &str| {
        let id = websites[code.strip_prefix("pm-")?.parse::<usize>().ok()?].clone();
        id.map(Intake::of_anything)
    };
    let parsed = parse_batch(body.into_bytes(), &RULES, arrival, website).unwrap();
    assert_eq!(parsed.events.len(), events.len());
    parsed.events
}

/// An open store and the model beside it.
pub(super) struct Pair {
    store: Option<Store>,
    directory: DataDir,
    options: StoreOptions,
    metrics: Arc<Metrics>,
    /// The ids of the websites; `None` for one that is deleted.
    websites: Vec<Option<Arc<str>>>,
    /// In the order of their sequences, which begin at 1; `None` for one that is erased.
    model: Vec<Option<Event>>,
    /// The first event with each id of a website.
    ids: BTreeMap<(u8, u8), Original>,
    /// What is older has expired.
    expired_before: i64,
    /// By how much the clock is ahead by which events arrive.
    pub(super) clock_ahead_ms: i64,
    /// Which of [`LIMITS`] the next page has.
    next_limit: Cell<usize>,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl Pair {
    pub(super) fn new(path: &Path, options: StoreOptions) -> Self {
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
            ids: BTreeMap::new(),
            expired_before: i64::MIN,
            clock_ahead_ms: 0,
            next_limit: Cell::new(0),
            runtime,
        };
        for number in 0..3 {
            let new = NewWebsite::named(&format!("Website {number}"), &format!("website-{number}.example"));
            let website = pair.runtime.block_on(pair.store().catalog.create_website(new)).unwrap();
            pair.websites.push(Some(Arc::clone(&website.id)));
        }
        pair
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// The id of a website; `None` if it is deleted.
    pub(super) fn website_id(&self, website: u8) -> Option<Arc<str>> {
        self.websites[usize::from(website)].clone()
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.model.len() as u64 + 1
    }

    pub(super) fn expired_before(&self) -> i64 {
        self.expired_before
    }

    /// When an event was made; `None` if it is erased.
    pub(super) fn created_at(&self, sequence: u64) -> Option<i64> {
        self.model[sequence as usize - 1].as_ref().map(|event| event.created_at)
    }

    /// The events that an answer has which knows of no retention, by their sequences.
    pub(super) fn sequences(&self, asked: &Asked) -> impl Iterator<Item = u64> {
        let events = (1..).zip(&self.model).filter_map(|(sequence, event)| Some((sequence, event.as_ref()?)));
        events.filter(|(_, event)| asked.wants(event)).map(|(sequence, _)| sequence)
    }

    pub(super) fn append(&mut self, events: &[Event]) {
        if let Some(looked_up) = self.look_up(events) {
            assert!(self.append_looked_up(looked_up), "nothing has come between");
        }
    }

    /// Appends events that were looked for before others were appended.
    pub(super) fn append_late(&mut self, events: &[Event], before: &[Vec<Event>]) {
        let Some(looked_up) = self.look_up(events) else { return };
        before.iter().for_each(|events| self.append(events));
        if !self.append_looked_up(looked_up) {
            self.append(events);
        }
    }

    /// Of events that arrive now.
    fn arrival(&self) -> Arrival {
        let at = now_ms() + self.clock_ahead_ms;
        Arrival { ids: Some(self.store().known_ids.hasher()), ..Arrival::at(at) }
    }

    /// Looks for events among those that are stored.
    fn look_up(&self, events: &[Event]) -> Option<(Vec<Event>, ValidEvents)> {
        let mut events = events.to_vec();
        events.retain(|event| self.websites[usize::from(event.website)].is_some());
        let Store { known_ids, readers, .. } = self.store();
        let mut group = (!events.is_empty()).then(|| group(&events, &self.websites, &self.arrival()))?;
        group.note_looked_up(self.runtime.block_on(known_ids.look_up(readers, &group)).unwrap());
        Some((events, group))
    }

    /// Appends events; returns whether they need not be looked for again.
    fn append_looked_up(&mut self, (events, group): (Vec<Event>, ValidEvents)) -> bool {
        let log = &mut self.store.as_mut().unwrap().log;
        let appended = log.append(std::iter::once(&group)).unwrap();
        log.maintain().unwrap();
        let Appended::Stored { first_sequence, repeats: found } = &appended[0] else { return false };
        assert_eq!(*first_sequence, self.model.len() as u64 + 1);
        let mut repeats = Vec::new();
        for (index, event) in events.into_iter().enumerate() {
            let new = Original { sequence: self.model.len() as u64 + 1, created_at: event.created_at };
            let original = event.id.map_or(new, |id| *self.ids.entry((event.website, id)).or_insert(new));
            if original == new {
                // It is in no answer.
                self.model.push(Some(Event { id: None, ..event }));
            } else {
                repeats.push(Repeat { index, original });
            }
        }
        assert_eq!(*found, repeats);
        true
    }

    /// The directory is known to be lost: from now on nothing is stored, changed or closed.
    pub(super) fn refuse_all(&mut self, events: &[Event]) {
        while self.directory.lost().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let group = group(events, &self.websites, &self.arrival());
        let mut store = self.store.take().unwrap();
        assert!(matches!(store.log.append(std::iter::once(&group)), Err(AppendError::Lost(_))));
        assert!(matches!(store.log.maintain(), Err(AppendError::Lost(_))));
        let new = NewWebsite::named("New", "new.example");
        assert_eq!(self.runtime.block_on(store.catalog.create_website(new)), Err(CatalogError::Unknown));
        assert!(matches!(store.close(), Err(AppendError::Lost(_))));
    }

    /// Gives a roll that is due the time to happen.
    pub(super) fn roll(&mut self) {
        let log = &mut self.store.as_mut().unwrap().log;
        while log.maintain().unwrap().is_some_and(|timeout| timeout < Duration::from_millis(50)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until nothing is left to seal.
    pub(super) fn seal(&mut self) {
        self.roll();
        while self.segments(SegmentLabel::Unsealed) > 0 || self.segments(SegmentLabel::Prepared) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn segments(&self, state: SegmentLabel) -> usize {
        let line = format!("hitlog_segments{{state=\"{}\"}} ", state.as_str());
        let text = self.metrics.render();
        text.lines().find_map(|rest| rest.strip_prefix(&line)).unwrap_or("0").parse().unwrap()
    }

    fn close(&mut self) {
        let Some(store) = self.store.take() else { return };
        store.close().unwrap();
    }

    pub(super) fn reopen(&mut self) {
        self.close();
        self.metrics = metrics();
        self.store = Some(open(&self.directory, &self.options, &self.metrics));
    }

    /// Keeps only what is not older than this from now on, and begins anew.
    pub(super) fn retain(&mut self, from: i64) {
        // What has expired once may be gone from the disk.
        self.expired_before = self.expired_before.max(from);
        self.options.read.retention = Some(Duration::from_millis(now_ms().abs_diff(self.expired_before)));
        self.reopen();
    }

    /// Erases a visitor's events; returns the erasure's id.
    pub(super) fn erase(&mut self, website: u8, visitor: u8) -> Option<Arc<str>> {
        let website_id = self.websites[usize::from(website)].clone()?;
        let erasure = self.store().eraser.erase_visitor(website_id, format!("v{visitor}"));
        let erasure = match self.runtime.block_on(erasure) {
            // As many events are hidden as may be.
            Err(EraseError::Read(ReadError::Refused(ReadRefused::Memory))) => return None,
            erasure => erasure.unwrap(),
        };
        for event in &mut self.model {
            event.take_if(|event| event.website == website && event.visitor == visitor);
        }
        Some(erasure.id)
    }

    /// Deletes a website, and waits until its events are gone: until then it is the edge that does not show them.
    pub(super) fn delete_website(&mut self, website: u8) {
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
    pub(super) fn finish(&mut self, erasure: &str) {
        while self.store().eraser.get(erasure).unwrap().done_at.is_none() {
            self.store.as_mut().unwrap().log.maintain().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn list(&self, filter: EventFilter, page: Page) -> (PageSummary, Vec<u64>) {
        let share = self.store().readers.share();
        let question = move |snapshot: &Snapshot<'_>| {
            let mut found = Vec::new();
            // In pieces of three, which must be the page as it would be at once.
            let mut piece = |sequence, _: &EventRow<'_>| {
                found.push(sequence);
                Ok(if found.len() % 3 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            let (listed, rest) = snapshot.list(&filter, page, share, &mut piece)?;
            if let Some(mut rest) = rest {
                while !snapshot.go_on(&mut rest, &mut piece)? {}
            }
            Ok((listed, found))
        };
        self.runtime.block_on(self.store().readers.ask(question)).unwrap()
    }

    /// Asks what takes for ever, and goes away. Returns what tells that the question has ended.
    pub(super) fn ask_and_go(&self) -> mpsc::Receiver<bool> {
        let (ended, told) = mpsc::channel();
        let (began, begun) = tokio::sync::oneshot::channel();
        let question = move |snapshot: &Snapshot<'_>| {
            let _ = began.send(());
            let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
            let answer = snapshot.on(&snapshot.segments()[0], |connection| {
                Ok(connection.query_row(endless, [], |row| row.get::<_, i64>(0))?)
            });
            let _ = ended.send(answer.is_ok());
            answer
        };
        let asked = self.store().readers.ask(question);
        // One that nobody waits for any more before it has begun is not asked at all.
        let go = async {
            begun.await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.runtime.block_on(async {
            tokio::select! {
                _ = asked => panic!("it takes for ever"),
                () = go => {}
            }
        });
        told
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
                    id: None,
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
    pub(super) fn check(&self) {
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
            .filter(|(_, event)| asked.wants(event))
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

    pub(super) fn check_filter(&self, asked: Asked) {
        let (wanted, filter) = (self.keys(&asked), self.filter(&asked));
        let total = wanted.len() as u64;
        let offsets = [0, 1, total / 3, total / 2, total.saturating_sub(3), total, total + 1, i64::MAX as u64];
        for offset in BTreeSet::from(offsets) {
            // In turn, so that every limit meets every offset soon; all at each would take three times as long.
            let limit = LIMITS[self.next_limit.get()];
            self.next_limit.set((self.next_limit.get() + 1) % LIMITS.len());
            let page: Vec<u64> =
                wanted.iter().skip(offset as usize).take(limit as usize).map(|(_, sequence)| *sequence).collect();
            let (listed, found) = self.list(filter.clone(), Page { limit, start: PageStart::Offset(offset) });
            assert_eq!((listed.total, &found), (total, &page), "{filter:?}, {limit} from {offset}");
            let more = offset.saturating_add(limit) < total;
            assert_eq!(listed.next.map(|next| next.passed), more.then(|| offset + limit), "{filter:?}");
        }
        let limit = 5.max(total / 7);
        let mut walk = Walk::begin(self, asked, limit);
        while walk.go_on(self, limit) {}
        assert_eq!(walk.seen, wanted.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), "{filter:?}");
    }
}

/// What a question asks for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) website: u8,
    pub(super) event_type: Option<EventType>,
    pub(super) session: Option<u16>,
    pub(super) visitor: Option<u8>,
    pub(super) times: Range<i64>,
}

impl Asked {
    fn wants(&self, event: &Event) -> bool {
        event.website == self.website
            && self.event_type.is_none_or(|kind| kind == event.event_type)
            && self.session.is_none_or(|session| session == event.session)
            && self.visitor.is_none_or(|visitor| visitor == event.visitor)
            && self.times.contains(&event.created_at)
    }
}

pub(super) const ANYTHING: Asked =
    Asked { website: 0, event_type: None, session: None, visitor: None, times: i64::MIN..i64::MAX };

/// A walk from cursor to cursor, which anything may interrupt.
pub(super) struct Walk {
    pub(super) asked: Asked,
    /// What there was when it began.
    wanted: Vec<u64>,
    seen: Vec<u64>,
    /// `None` at the end.
    next: Option<PageStart>,
}

impl Walk {
    pub(super) fn begin(pair: &Pair, asked: Asked, limit: u64) -> Self {
        let wanted = pair.keys(&asked).into_iter().map(|(_, sequence)| sequence).collect();
        let mut walk = Self { asked, wanted, seen: Vec::new(), next: Some(PageStart::Offset(0)) };
        walk.go_on(pair, limit);
        walk
    }

    /// Goes one page further; says whether there is another.
    pub(super) fn go_on(&mut self, pair: &Pair, limit: u64) -> bool {
        let Some(start) = self.next else { return false };
        let (listed, mut found) = pair.list(pair.filter(&self.asked), Page { limit, start });
        assert_eq!(listed.total as usize, pair.keys(&self.asked).len());
        assert!(found.len() as u64 == limit || listed.next.is_none());
        self.seen.append(&mut found);
        self.next = listed.next.map(PageStart::After);
        self.next.is_some()
    }

    /// Everything that there was is seen once and in order, but for what has been erased or has expired meanwhile.
    pub(super) fn end(mut self, pair: &Pair) {
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

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&BuildInfo { version: "", sqlite: "", sqlite_build: "", durability: "" }).unwrap())
}

fn open(directory: &DataDir, options: &StoreOptions, metrics: &Arc<Metrics>) -> Store {
    let told = directory.clone();
    let on_failure = move |reason: String| assert_eq!(told.lost().map(ToString::to_string), Some(reason));
    Store::open(directory, options, &metrics.store, Arc::new(on_failure)).unwrap()
}

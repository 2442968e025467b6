//! Events of several websites that are sent while hitlog is stopped, killed and started again, and what was answered of
//! each: behind the tests of those who follow them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{OnceLock, RwLock},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::{Client, Daemon, Response, checker::random_below, event_with, wait_until};

pub const TYPES: [&str; 3] = ["pageview", "click", "custom"];

/// Websites, and where the hitlog is that has them.
pub struct House {
    pub codes: Vec<String>,
    /// How often it has been started, and its address; nowhere while it is not to be asked.
    place: RwLock<(usize, Option<String>)>,
    /// Since when no more is to be sent.
    over_at: OnceLock<Instant>,
}

impl House {
    pub fn new(daemon: &Daemon, codes: Vec<String>) -> Self {
        Self { codes, place: RwLock::new((1, Some(daemon.address.clone()))), over_at: OnceLock::new() }
    }

    /// From now on whatever breaks may break.
    pub fn leave(&self) {
        self.place.write().unwrap().1 = None;
    }

    pub fn come(&self, daemon: &Daemon) {
        let mut place = self.place.write().unwrap();
        *place = (place.0 + 1, Some(daemon.address.clone()));
    }

    /// Which start it is, and its address; waits while it is nowhere.
    pub fn find(&self) -> (usize, String) {
        wait_until("hitlog has been started again", || {
            let place = self.place.read().unwrap();
            Some((place.0, place.1.clone()?))
        })
    }

    /// Whether it is still to be asked after this start.
    pub fn is_there(&self, start: usize) -> bool {
        let place = self.place.read().unwrap();
        place.0 == start && place.1.is_some()
    }

    /// No more is to be sent.
    pub fn end(&self) {
        self.over_at.get_or_init(Instant::now);
    }

    pub fn is_over(&self) -> bool {
        self.over_at.get().is_some()
    }

    /// For how long that has been so.
    pub fn over_for(&self) -> Duration {
        self.over_at.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}

/// Ends the sending when dropped, also if what it is to be ended by has failed.
pub struct Ends<'a>(pub &'a House);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A client that looks for hitlog where it is now.
pub struct Asker<'a> {
    house: &'a House,
    client: Option<(usize, Client)>,
}

impl<'a> Asker<'a> {
    pub fn new(house: &'a House) -> Self {
        Self { house, client: None }
    }

    /// Asks once; `None` if nobody knows what became of it, or it is to be asked again later.
    pub fn try_send(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Response> {
        let (start, mut client) = match self.client.take() {
            Some(kept) => kept,
            None => {
                let (start, address) = self.house.find();
                (start, Client::try_connect(&address)?)
            }
        };
        let response = client.try_send(method, path, &[], body)?;
        let is_there = self.house.is_there(start);
        if is_there && response.header("connection") != Some("close") {
            self.client = Some((start, client));
        }
        match response.status {
            200..300 => Some(response),
            503 => None,
            // By now its port may be another's.
            _ if !is_there => None,
            _ => panic!("{method} {path}: {}", response.text()),
        }
    }

    /// Asks until it is answered.
    pub fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Response {
        wait_until("it is answered", || self.try_send(method, path, body))
    }

    /// Sends events until they are stored. Returns their ids, and the position of the last one.
    pub fn store(&mut self, events: &[NamedEvent]) -> (Vec<String>, String) {
        let (path, body) = request(self.house, events);
        told(&self.send("POST", path, &body))
    }
}

/// An event that is told from others by its name, which is the path of its address and, unless it has none, its id.
#[derive(Debug, Clone)]
pub struct NamedEvent {
    pub name: String,
    /// Which website's.
    pub site: usize,
    /// Which type.
    pub of: usize,
    pub visitor: String,
    pub has_id: bool,
}

impl NamedEvent {
    pub fn new(name: String, site: usize, of: usize) -> Self {
        Self { name, site, of, visitor: "v".to_owned(), has_id: true }
    }

    fn json(&self, house: &House) -> Value {
        // Some are so large that few fit into a page.
        let text = if self.name.ends_with("00") { "x".repeat(3_000) } else { "y".to_owned() };
        event_with(
            &house.codes[self.site],
            json!({
                "eventType": TYPES[self.of],
                "url": format!("https://example.com/{}", self.name),
                "visitorId": self.visitor,
                "eventId": if self.has_id { json!(self.name) } else { Value::Null },
                "properties": {"text": text},
            }),
        )
    }
}

fn request(house: &House, events: &[NamedEvent]) -> (&'static str, Vec<u8>) {
    let events: Vec<Value> = events.iter().map(|event| event.json(house)).collect();
    match &events[..] {
        [event] => ("/api/v1/events", event.to_string().into()),
        events => ("/api/v1/events/batch", json!({ "events": events }).to_string().into()),
    }
}

fn told(response: &Response) -> (Vec<String>, String) {
    assert_eq!(response.status, 201, "{}", response.text());
    let answer = response.json();
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let ids = answer["events"].as_array().map_or_else(|| vec![id(&answer)], |all| all.iter().map(id).collect());
    (ids, response.header("hitlog-position").expect("a position").to_owned())
}

/// What was sent, by the names of events.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// The ids of what was answered as stored, and each one's website.
    pub stored: BTreeMap<String, (usize, String)>,
    /// What nobody knows of whether it is stored.
    pub in_doubt: BTreeSet<String>,
    pub repeats: usize,
    /// Those that were stored, and erased then.
    pub erased: Vec<Erased>,
}

/// An event that was stored, and whose visitor was erased.
#[derive(Debug, Clone)]
pub struct Erased {
    pub id: String,
    pub site: usize,
    pub of: usize,
    /// When it was first asked to be erased.
    pub asked_at: Instant,
    /// When that was answered: from then on nobody is shown it who asks.
    pub done_at: Instant,
}

impl Told {
    pub fn extend(&mut self, other: Self) {
        self.stored.extend(other.stored);
        self.in_doubt.extend(other.in_doubt);
        self.repeats += other.repeats;
        self.erased.extend(other.erased);
    }

    fn note(&mut self, events: &[NamedEvent], ids: Vec<String>) {
        assert_eq!(events.len(), ids.len());
        for (event, id) in events.iter().zip(ids) {
            if let Some((_, before)) = self.stored.insert(event.name.clone(), (event.site, id.clone())) {
                assert_eq!(id, before, "{} has another id than it was told first", event.name);
            }
        }
    }
}

/// One website has more than the other, and the third has one event in five hundred.
fn site(random: &mut SmallRng) -> usize {
    if random.random_range(0..500) == 0 { 2 } else { usize::from(random.random_range(0..3) == 0) }
}

/// A client that sends events, alone and in batches, until it is over. What it is in doubt of it sends again, if it has
/// an id, until it knows; some of what is stored, too.
pub fn write(house: &House, writer: usize) -> Told {
    let (mut asker, mut told) = (Asker::new(house), Told::default());
    let mut random = SmallRng::seed_from_u64(random_below(u64::MAX));
    let (mut next, mut recent) = (0, Vec::<NamedEvent>::new());
    while !house.is_over() {
        let has_id = random.random_range(0..8) > 0;
        let count = if random.random() { 1 } else { random.random_range(2..30) };
        let mut events: Vec<NamedEvent> = (next..next + count)
            .map(|number| NamedEvent {
                has_id,
                visitor: format!("v{}", number % 7),
                ..NamedEvent::new(format!("{writer}-{number}"), site(&mut random), number % 3)
            })
            .collect();
        next += count;
        if has_id {
            if !recent.is_empty() && random.random_range(0..4) == 0 {
                events.insert(events.len() / 2, recent[random.random_range(0..recent.len())].clone());
                told.repeats += 1;
            }
            let (ids, _) = asker.store(&events);
            told.note(&events, ids);
            recent.extend(events);
            recent.drain(..recent.len().saturating_sub(200));
        } else {
            let (path, body) = request(house, &events);
            match asker.try_send("POST", path, &body) {
                Some(response) => told.note(&events, self::told(&response).0),
                None => told.in_doubt.extend(events.into_iter().map(|event| event.name)),
            }
        }
        thread::sleep(Duration::from_millis(random.random_range(10..150)));
    }
    told
}

/// A client that stores events of a new visitor among those of others, and has the visitor erased, until it is over.
pub fn erase(house: &House) -> Told {
    let (mut asker, mut told) = (Asker::new(house), Told::default());
    let mut random = SmallRng::seed_from_u64(random_below(u64::MAX));
    for round in 0.. {
        if house.is_over() {
            break;
        }
        let site = if random.random_range(0..16) == 0 { 2 } else { random.random_range(0..2) };
        let visitor = format!("erased-{round}");
        let event = |at: usize| NamedEvent {
            visitor: if at.is_multiple_of(2) { visitor.clone() } else { "kept".to_owned() },
            ..NamedEvent::new(format!("e{round}-{at}"), site, (round + at) % 3)
        };
        let events: Vec<NamedEvent> = (0..5).map(event).collect();
        let (ids, _) = asker.store(&events);
        thread::sleep(Duration::from_millis(random.random_range(0..200)));
        let asked_at = Instant::now();
        let path = format!("/api/v1/visitors/{visitor}?trackingCode={}", house.codes[site]);
        assert_eq!(asker.send("DELETE", &path, b"").status, 202);
        let done_at = Instant::now();
        let (gone, kept): (Vec<_>, Vec<_>) =
            events.into_iter().zip(ids).partition(|(event, _)| event.visitor == visitor);
        let gone = gone.into_iter().map(|(event, id)| Erased { id, site, of: event.of, asked_at, done_at });
        told.erased.extend(gone);
        let (kept, ids): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        told.note(&kept, ids);
        thread::sleep(Duration::from_millis(random.random_range(50..400)));
    }
    told
}

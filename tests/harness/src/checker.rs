//! What was sent, what came back, and whether the store agrees: behind every test that kills, cuts or fails something.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use hitlog::event_id::{Epoch, Epochs, EventIds};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::{Client, Daemon, Response, event_with, wait_until};

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, under these ids in the order of the events.
    Stored(Vec<String>),
    /// Stored by [`send_again`], under these ids: regrouped, and so in no order.
    StoredAgain(Vec<String>),
    Refused,
    /// The connection broke, or the answer was COMMIT_UNKNOWN.
    Unknown,
}

/// A request that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Which client sent it; each waits for an answer before it sends the next.
    pub client: usize,
    pub outcome: Outcome,
}

/// Requests by their numbers.
pub type Sents = BTreeMap<usize, Sent>;

/// Clients that send requests without pause until told to stop, and keep what came back for each.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    sents: Arc<Mutex<Sents>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    pub fn start(address: &str, code: &str, clients: usize) -> Self {
        let (stop, answered, next) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let sents = Arc::<Mutex<Sents>>::default();
        // All before the first request, which may be the end of a hitlog whose disk fails.
        let clients: Vec<_> = (0..clients).map(|_| Client::connect(address)).collect();
        let threads = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                let code = code.to_owned();
                let (stop, answered, next, sents) = (stop.clone(), answered.clone(), next.clone(), Arc::clone(&sents));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let request = next.fetch_add(1, Ordering::Relaxed);
                        let response = send_request(&mut client, &code, request);
                        let (outcome, broken) = judge(response.as_ref());
                        sents.lock().unwrap().insert(request, Sent { client: number, outcome });
                        answered.fetch_add(1, Ordering::Relaxed);
                        if broken {
                            return;
                        }
                    }
                })
            })
            .collect();
        Self { stop, answered, sents, threads }
    }

    pub fn answers(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn wait_for_answers(&self, count: usize) {
        wait_until("the load is under way", || (self.answers() >= count).then_some(()));
    }

    /// Waits for the clients' ends and returns what came back.
    pub fn finish(self) -> Sents {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        Arc::into_inner(self.sents).unwrap().into_inner().unwrap()
    }
}

/// How many events the request with this number has, and which of them is faulty.
fn shape(request: usize) -> (usize, Option<usize>) {
    match request % 8 {
        2 => (7, None),
        3 => (40, None),
        // A single one that is refused, and a batch that is stored without one of its events.
        5 => (1, Some(0)),
        6 => (10, Some(3)),
        7 => (100, None),
        _ => (1, None),
    }
}

/// The places of the events of this request that are to be stored.
fn valid_places(request: usize) -> impl Iterator<Item = usize> {
    let (count, faulty) = shape(request);
    (0..count).filter(move |place| faulty != Some(*place))
}

/// The event at this place of this request. Its session and its visitor tell which it is.
pub fn event(code: &str, request: usize, place: usize) -> Value {
    let absent_or = |value: Value| if (request + place).is_multiple_of(3) { Value::Null } else { value };
    event_with(
        code,
        json!({
            "eventType": if shape(request).1 == Some(place) { "fault" } else { ["pageview", "click", "custom"][place % 3] },
            "url": format!("https://example.com/päge/{request}?place={place}"),
            "sessionId": request.to_string(),
            "visitorId": place.to_string(),
            "eventId": format!("{request}/{place}"),
            "referrer": absent_or(json!("https://example.org/")),
            "deviceType": absent_or(json!("tablet")),
            "browser": absent_or(json!("Firefox \u{1f98a}")),
            "timestamp": created_at(request, place),
            "properties": absent_or(json!({"n": request, "deep": [{"a\n\"": [place, 1.5, true, null]}]})),
        }),
    )
}

fn created_at(request: usize, place: usize) -> i64 {
    1_780_000_000_000 + (request * 1_000 + place) as i64
}

/// Sends the request with this number: a single event, or a batch.
fn send_request(client: &mut Client, code: &str, request: usize) -> Option<Response> {
    let (path, body) = match shape(request).0 {
        1 => ("/api/v1/events", event(code, request, 0)),
        count => {
            let events: Vec<Value> = (0..count).map(|place| event(code, request, place)).collect();
            ("/api/v1/events/batch", json!({ "events": events }))
        }
    };
    client.try_send("POST", path, &[], body.to_string().as_bytes())
}

/// What an answer means, and whether the connection is over.
fn judge(response: Option<&Response>) -> (Outcome, bool) {
    let Some(response) = response else { return (Outcome::Unknown, true) };
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let outcome = match response.status {
        201 | 207 => {
            let body = response.json();
            let ids = body["events"].as_array().map_or_else(|| vec![id(&body)], |all| all.iter().map(id).collect());
            Outcome::Stored(ids)
        }
        503 if response.error() == "COMMIT_UNKNOWN" => Outcome::Unknown,
        _ => Outcome::Refused,
    };
    (outcome, response.header("connection") == Some("close"))
}

/// What ids say to somebody who has the data directory.
pub fn event_ids(data: &Path) -> EventIds {
    let catalog = Connection::open_with_flags(data.join("catalog.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut select = catalog.prepare("SELECT firstSequence, node, idKey FROM Epoch").unwrap();
    let epochs = select.query_map([], |row| {
        Ok(Epoch { first_sequence: row.get::<_, i64>(0)?.unsigned_abs(), node: row.get(1)?, key: row.get(2)? })
    });
    EventIds::of(&Epochs::new(epochs.unwrap().map(Result::unwrap).collect()).unwrap())
}

/// Every event of a website, as a walk from the newest to the oldest finds it.
pub fn walk(daemon: &Daemon, code: &str) -> Result<Vec<Value>, String> {
    let mut client = daemon.client();
    let (mut found, mut place) = (Vec::new(), String::new());
    loop {
        let response = client.get(&format!("/api/v1/events?trackingCode={code}&limit=1000{place}"));
        let mut page = response.json();
        let Value::Array(events) = page["events"].take() else { return Err(response.text()) };
        found.extend(events);
        let Some(next) = page["pagination"]["next"].as_str() else {
            let total = page["pagination"]["total"].as_u64();
            let rows = found.len() as u64;
            return if total == Some(rows) { Ok(found) } else { Err(format!("total {total:?}, rows {rows}")) };
        };
        place = format!("&cursor={next}");
    }
}

/// Holds what a store has against what was answered. Acknowledged events are there exactly once and as sent, under the
/// ids that were told; refused ones are not there; no batch is torn; sequences are never given twice, grow along a
/// batch and from each answer to the client's next request, and are above `floor`. Returns the highest sequence.
pub fn hold(sents: &Sents, found: &[Value], ids: &EventIds, floor: u64) -> Result<u64, String> {
    // By request, then by place: what is stored, and its sequence.
    let mut stored: BTreeMap<usize, BTreeMap<usize, (u64, &Value)>> = BTreeMap::new();
    let mut sequences = BTreeMap::new();
    for event in found {
        let number = |name: &str| event[name].as_str().and_then(|text| text.parse::<usize>().ok());
        let (Some(request), Some(place)) = (number("sessionId"), number("visitorId")) else {
            return Err(format!("nobody sent {event}"));
        };
        let id = event["id"].as_str().unwrap_or_default();
        let sequence = ids.decode(id).ok_or_else(|| format!("{id} is no id"))?;
        if let Some(other) = sequences.insert(sequence, event) {
            return Err(format!("{other} and {event} have one sequence"));
        }
        if sequence <= floor {
            return Err(format!("sequence {sequence} of {event} has been passed before, at {floor}"));
        }
        if stored.entry(request).or_default().insert(place, (sequence, event)).is_some() {
            return Err(format!("twice: {event}"));
        }
    }
    let mut last_of_client = BTreeMap::new();
    for (&request, sent) in sents {
        let found = stored.remove(&request).unwrap_or_default();
        let is_whole = found.keys().copied().eq(valid_places(request));
        match &sent.outcome {
            Outcome::Stored(told) | Outcome::StoredAgain(told) => {
                if !is_whole {
                    return Err(format!("request {request} was acknowledged, stored is {:?}", found.keys()));
                }
                let stored_ids = found.values().map(|(_, event)| event["id"].as_str().unwrap_or_default());
                if !stored_ids.eq(told.iter()) {
                    return Err(format!("request {request} was told other ids than are stored"));
                }
            }
            Outcome::Refused if found.is_empty() => {}
            Outcome::Unknown if is_whole || found.is_empty() => {}
            outcome => return Err(format!("request {request} is {outcome:?}, stored is {:?}", found.keys())),
        }
        let last = last_of_client.entry(sent.client).or_insert(floor);
        let is_in_order = !matches!(sent.outcome, Outcome::StoredAgain(_));
        for (place, (sequence, event)) in found {
            if is_in_order {
                if sequence <= *last {
                    return Err(format!("sequence {sequence} of request {request} comes after {last}"));
                }
                *last = sequence;
            }
            let (is, expected) = (content(event), expected(request, place));
            if is != expected {
                return Err(format!("sent was {expected}, stored is {is}"));
            }
        }
    }
    if let Some(request) = stored.keys().next() {
        return Err(format!("nobody sent request {request}"));
    }
    Ok(sequences.last_key_value().map_or(floor, |(sequence, _)| *sequence))
}

/// Where a tail may be lost: takes acknowledged requests of which every sequence is above what was found for such that
/// nobody knows of, and returns how many there were.
pub fn forgive_lost_tail(sents: &mut Sents, found: &[Value], ids: &EventIds) -> usize {
    let sequence = |id: &str| ids.decode(id).unwrap_or(u64::MAX);
    let last = found.iter().filter_map(|event| event["id"].as_str().map(sequence)).max().unwrap_or(0);
    let mut lost = 0;
    for sent in sents.values_mut() {
        if matches!(&sent.outcome, Outcome::Stored(ids) if ids.iter().all(|id| sequence(id) > last)) {
            sent.outcome = Outcome::Unknown;
            lost += 1;
        }
    }
    lost
}

/// A stored event without what hitlog adds.
fn content(event: &Value) -> Value {
    let mut event = event.clone();
    let members = event.as_object_mut().unwrap();
    members.remove("id");
    members.remove("websiteId");
    event
}

/// What the event at this place of this request comes back as.
fn expected(request: usize, place: usize) -> Value {
    let mut event = event("", request, place);
    let members = event.as_object_mut().unwrap();
    members.remove("trackingCode");
    members.remove("timestamp");
    members.remove("eventId");
    for name in ["os", "location"] {
        members.insert(name.to_owned(), Value::Null);
    }
    let time = jiff::Timestamp::from_millisecond(created_at(request, place)).unwrap();
    members.insert("createdAt".to_owned(), time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into());
    event
}

/// Sends again what was acknowledged and what nobody knows of, regrouped and shuffled, as a client does that has lost
/// its answers: afterwards all of it is stored. What was acknowledged must be answered with the same ids.
pub fn send_again(daemon: &Daemon, code: &str, sents: &mut Sents) {
    let mut random = SmallRng::seed_from_u64(random_below(u64::MAX));
    let is_due = |sent: &Sent| sent.outcome != Outcome::Refused;
    let due = sents.iter().filter(|(_, sent)| is_due(sent)).map(|(request, _)| *request);
    let mut all: Vec<_> = due.flat_map(|request| valid_places(request).map(move |place| (request, place))).collect();
    all.shuffle(&mut random);
    let (mut client, mut rest, mut told) = (daemon.client(), &all[..], BTreeMap::new());
    while !rest.is_empty() {
        let (group, others) = rest.split_at(random.random_range(1..=200).min(rest.len()));
        rest = others;
        let events: Vec<Value> = group.iter().map(|(request, place)| event(code, *request, *place)).collect();
        let body = json!({ "events": events }).to_string();
        // It may be that they can't be looked up for a moment.
        let response = wait_until("they are answered", || {
            Some(client.post("/api/v1/events/batch", &body)).filter(|response| response.status != 503)
        });
        let Outcome::Stored(ids) = judge(Some(&response)).0 else { panic!("{}", response.text()) };
        told.extend(group.iter().copied().zip(ids));
    }
    for (request, sent) in sents.iter_mut().filter(|(_, sent)| is_due(sent)) {
        let ids: Vec<String> = valid_places(*request).map(|place| told[&(*request, place)].clone()).collect();
        match &sent.outcome {
            Outcome::Stored(before) | Outcome::StoredAgain(before) => {
                assert_eq!(ids, *before, "request {request} is told other ids than before");
            }
            _ => sent.outcome = Outcome::StoredAgain(ids),
        }
    }
}

/// Holds what a running daemon has of a website, all of whose events are among these, against what was answered.
pub fn check_store(daemon: &Daemon, code: &str, sents: &Sents) {
    check_store_above(daemon, code, sents, 0);
}

/// Checks what [`check_store`] checks, and that every sequence is above `floor`. Returns the highest.
pub fn check_store_above(daemon: &Daemon, code: &str, sents: &Sents, floor: u64) -> u64 {
    let ids = event_ids(daemon.data());
    walk(daemon, code).and_then(|found| hold(sents, &found, &ids, floor)).unwrap_or_else(|fault| panic!("{fault}"))
}

/// How many rounds an environment variable asks for, which the script beside a test sets.
pub fn rounds(variable: &str, default: usize) -> usize {
    let number = |text: String| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}"));
    std::env::var(variable).map_or(default, number)
}

/// A number that differs from run to run, for moments at random.
pub fn random_below(bound: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(SystemTime::now().duration_since(UNIX_EPOCH).ok()) % bound
}

//! A hitlog with a few events that are known one by one, and a connection to ask it over.

use std::{cell::RefCell, time::Instant};

use serde_json::{Value, json};

use harness::{Client, Daemon, Response, event_with};

/// `2023-11-14T22:13:20Z`
pub const FIRST_AT: i64 = 1_700_000_000_000;
pub const SESSIONS: [&str; 4] = ["s", "a b+c", "%41&é=", "x"];
pub const VISITORS: [&str; 2] = ["v", "vis/1?"];
const TYPES: [&str; 3] = ["pageview", "click", "custom"];
/// Events of each website.
const EVENTS: [usize; 2] = [47, 5];

/// An event that is stored.
pub struct Known {
    id: String,
    website: usize,
    event_type: &'static str,
    session: &'static str,
    visitor: &'static str,
    at: i64,
}

/// What a listing is narrowed to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub website: usize,
    pub event_type: Option<String>,
    pub session: Option<String>,
    pub visitor: Option<String>,
    pub from: Option<i64>,
    pub to: Option<i64>,
}

pub struct Listing {
    daemon: Daemon,
    pub codes: [String; 2],
    /// As a listing shows them.
    events: Vec<Known>,
    connection: RefCell<Option<Client>>,
}

impl Listing {
    pub fn start() -> Self {
        // A test that runs at low priority may leave its connection alone for long.
        let daemon = Daemon::start(&["--durability", "normal", "--idle-timeout-seconds", "3600"]);
        let codes = [daemon.register("one.example"), daemon.register("two.example")];
        let mut events = Vec::new();
        for (website, (code, count)) in codes.iter().zip(EVENTS).enumerate() {
            let mut new: Vec<Known> = (0..count)
                .map(|number| Known {
                    id: String::new(),
                    website,
                    event_type: TYPES[number % TYPES.len()],
                    session: SESSIONS[number % SESSIONS.len()],
                    visitor: VISITORS[number / 7 % VISITORS.len()],
                    // Two at once, so that ties are decided, and half seconds, so that fractions matter.
                    at: FIRST_AT + (number / 2) as i64 * 500,
                })
                .collect();
            let bodies: Vec<Value> = new.iter().map(|known| known.body(code)).collect();
            let response = daemon.client().post("/api/v1/events/batch", json!({"events": bodies}).to_string());
            assert_eq!(response.status, 201, "{}", response.text());
            for (known, stored) in new.iter_mut().zip(response.json()["events"].as_array().unwrap()) {
                known.id = stored["id"].as_str().unwrap().to_owned();
            }
            events.extend(new);
        }
        // The newest first; of those at the same time, the one that came last.
        events.reverse();
        events.sort_by_key(|known| -known.at);
        Self { daemon, codes, events, connection: RefCell::new(None) }
    }

    /// The answer to `GET` of this target, sent as it is.
    pub fn get(&self, target: &[u8]) -> Result<Response, String> {
        let mut kept = self.connection.borrow_mut();
        let mut client = kept.take().unwrap_or_else(|| self.daemon.client());
        let request = [b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat();
        let asked_at = Instant::now();
        let response = client.write(&request).and_then(|()| client.read_response(false));
        let response =
            response.ok_or_else(|| format!("no answer in {:?} to {}", asked_at.elapsed(), target.escape_ascii()))?;
        if response.header("connection") != Some("close") {
            *kept = Some(client);
        }
        Ok(response)
    }

    /// Whether `answer` is the page that begins after `passed` events of this listing.
    pub fn check_page(&self, response: &Response, filter: &Filter, passed: u64, limit: u64) -> Result<(), String> {
        let listed: Vec<&Known> = self.events.iter().filter(|known| known.is_in(filter)).collect();
        let begin = usize::try_from(passed).map_or(listed.len(), |passed| passed.min(listed.len()));
        let end = usize::try_from(limit).map_or(listed.len(), |limit| (begin + limit).min(listed.len()));
        let body = response.json();
        let found: Vec<&str> =
            body["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
        let wanted: Vec<&str> = listed[begin..end].iter().map(|known| known.id.as_str()).collect();
        let pagination = &body["pagination"];
        let echoed = json!({"total": listed.len(), "limit": limit, "offset": passed, "next": pagination["next"]});
        if response.status != 200 || found != wanted || *pagination != echoed {
            return Err(format!("{} {filter:?}: {found:?}, not {wanted:?}; {pagination}", response.status));
        }
        if pagination["next"].is_null() != (end == listed.len()) {
            return Err(format!("{filter:?} after {passed} of {}: {pagination}", listed.len()));
        }
        Ok(())
    }

    pub fn stop(self) {
        drop(self.connection);
        assert!(!self.daemon.log().contains("panicked"), "{}", self.daemon.log());
        self.daemon.stop();
    }
}

impl Known {
    fn body(&self, code: &str) -> Value {
        let changes = json!({
            "eventType": self.event_type, "sessionId": self.session, "visitorId": self.visitor, "timestamp": self.at
        });
        event_with(code, changes)
    }

    fn is_in(&self, filter: &Filter) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        self.website == filter.website
            && is(&filter.event_type, self.event_type)
            && is(&filter.session, self.session)
            && is(&filter.visitor, self.visitor)
            && filter.from.is_none_or(|from| self.at >= from)
            && filter.to.is_none_or(|to| self.at < to)
    }
}

/// Whether this is a 400 whose faults are those of exactly these fields.
pub fn check_invalid<'a>(response: &Response, fields: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut wanted: Vec<&str> = fields.into_iter().collect();
    wanted.sort_unstable();
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let found: Vec<&String> =
        body["details"]["fieldErrors"].as_object().into_iter().flat_map(|all| all.keys()).collect();
    if response.status == 400 && body["error"] == "VALIDATION_ERROR" && found == wanted {
        return Ok(());
    }
    Err(format!("{} {}, not 400 for {wanted:?}", response.status, response.text()))
}

//! Events with names, what their clients were told of each, and whether sending them again stores any of them twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::{Value, json};

use crate::{
    Client, Daemon,
    checker::{random_below, walk},
    event_with, wait_until,
};

/// Events by their numbers, which are in their names and their sessions. What was sent to a website.
#[derive(Debug, Default, Clone)]
pub struct NamedEvents {
    /// The tracking code of the website.
    pub code: String,
    /// The id that was told; `None` of what nobody knows of whether it is stored.
    pub told: BTreeMap<usize, Option<String>>,
}

/// The events of a website that are stored: the number of each, and its id.
pub type Found = BTreeMap<usize, String>;

impl NamedEvents {
    pub fn new(code: &str) -> Self {
        Self { code: code.to_owned(), told: BTreeMap::new() }
    }

    /// The event with this number.
    pub fn event(&self, number: usize) -> Value {
        let session = number.to_string();
        let name = format!("event {number}");
        event_with(&self.code, json!({"sessionId": session, "visitorId": format!("v{}", number % 7), "eventId": name}))
    }

    /// Sends these events in one request. Returns the answer's status; none is in doubt any more if it is 201, and all
    /// are that were not told of before if there is no answer, or one that says so.
    pub fn send(&mut self, client: &mut Client, numbers: &[usize]) -> Option<u16> {
        let events: Vec<Value> = numbers.iter().map(|number| self.event(*number)).collect();
        let (path, body) = match &events[..] {
            [event] => ("/api/v1/events", event.to_string()),
            events => ("/api/v1/events/batch", json!({ "events": events }).to_string()),
        };
        let response = client.try_send("POST", path, &[], body.as_bytes());
        let Some(response) = response.filter(|response| response.status != 503 || response.error() != "COMMIT_UNKNOWN")
        else {
            for number in numbers {
                self.told.entry(*number).or_default();
            }
            return None;
        };
        if response.status != 201 {
            return Some(response.status);
        }
        let answer = response.json();
        let items = if numbers.len() == 1 { vec![answer] } else { answer["events"].as_array().unwrap().clone() };
        assert_eq!(items.len(), numbers.len());
        let is_stored = |number: &usize| matches!(self.told.get(number), Some(Some(_)));
        let is_new = |number: &usize| !self.told.contains_key(number);
        match response.header("idempotency-replayed") {
            Some("true") => assert!(!numbers.iter().any(is_new), "some of these were never sent: {numbers:?}"),
            None => assert!(!numbers.iter().all(is_stored), "all of these are stored: {numbers:?}"),
            other => panic!("Idempotency-Replayed: {other:?}"),
        }
        for (number, item) in numbers.iter().zip(items) {
            let id = item["id"].as_str().unwrap().to_owned();
            if let Some(before) = self.told.insert(*number, Some(id.clone())).flatten() {
                assert_eq!(id, before, "event {number} has another id than it was told first");
            }
        }
        Some(201)
    }

    /// What a running hitlog has of these events. Each is there once at the most.
    pub fn find(&self, daemon: &Daemon) -> Found {
        let mut found = Found::new();
        for event in walk(daemon, &self.code).unwrap_or_else(|fault| panic!("{fault}")) {
            let number: usize = event["sessionId"].as_str().unwrap().parse().unwrap();
            assert!(self.told.contains_key(&number), "nobody sent {event}");
            let other = found.insert(number, event["id"].as_str().unwrap().to_owned());
            assert_eq!(other, None, "event {number} is stored twice");
        }
        found
    }

    /// Each event that was told of is stored, with the id that was told.
    pub fn check_told(&self, found: &Found) {
        for (number, told) in &self.told {
            assert!(
                told.is_none() || found.get(number) == told.as_ref(),
                "event {number} was acknowledged, and is lost"
            );
        }
    }

    /// Sends all events again in requests of other sizes and in another order: after that each is stored once. Whether
    /// an event is answered as stored already is whether it was.
    pub fn send_again(&mut self, daemon: &Daemon) {
        let before = self.find(daemon);
        self.check_told(&before);
        // Those of which nobody knew, as the listing tells: the answers must tell the same.
        for (number, told) in &mut self.told {
            *told = before.get(number).cloned();
        }
        let missing: BTreeSet<usize> = self.told.iter().filter(|(_, id)| id.is_none()).map(|(of, _)| *of).collect();
        missing.iter().for_each(|number| drop(self.told.remove(number)));
        let (mut client, mut random) = (daemon.client(), SmallRng::seed_from_u64(random_below(u64::MAX)));
        let mut numbers: Vec<usize> = before.keys().chain(&missing).copied().collect();
        numbers.shuffle(&mut random);
        let mut rest = &numbers[..];
        while !rest.is_empty() {
            let largest = [1, 5, 150][random.random_range(0..3)];
            let (group, others) = rest.split_at(random.random_range(1..=largest).min(rest.len()));
            rest = others;
            let mut group = group.to_vec();
            // A client may have lost count of what it has sent.
            if group.len() % 3 == 2 {
                group.push(group[0]);
            }
            // It may be that they can't be looked up for a moment.
            let status =
                wait_until("they are answered", || Some(self.send(&mut client, &group)?).filter(|is| *is != 503));
            assert_eq!(status, 201, "{group:?}");
        }
        let after = self.find(daemon);
        self.check_told(&after);
        assert_eq!(after.len(), self.told.len(), "each event is stored once");
    }
}

/// The names of the runs of ids in a data directory, the oldest first.
pub fn id_runs(data: &Path) -> Vec<String> {
    // The folder is there from the first run on.
    let entries = fs::read_dir(data.join("ids")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".ids")).collect();
    names.sort();
    names
}

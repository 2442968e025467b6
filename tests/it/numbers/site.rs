//! A hitlog that is asked, and the oracle beside it.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use harness::{Client, Daemon, wait_until, work_dir};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    compare::{Moment, differences},
    dice::Dice,
    goals::Goal,
    oracle::{Event, Oracle, Website, expired_before},
    questions::{Asked, Kind, Question, encoded, question},
    traffic::ON_ARRIVAL,
};

/// How long the newest events may be missing.
const COMPLETE_WITHIN: Duration = Duration::from_secs(20);

pub struct Site {
    daemon: Option<Daemon>,
    client: Client,
    data: PathBuf,
    _work: TempDir,
    flags: Vec<String>,
    codes: Vec<String>,
    pub retention_ms: Option<i64>,
    /// A segment is full at the end of the batch that fills it.
    pub batch_events_max: usize,
    pub oracle: Oracle,
    pub dice: Dice,
    seed: u64,
    arrivals: usize,
    /// What was asked already, and may be asked again when the answer is another.
    asked: Vec<Question>,
}

/// The seed that the environment says, or another one each time.
pub fn seed() -> u64 {
    seed_or(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

/// The seed that the environment says, or this one.
pub fn seed_or(other: u64) -> u64 {
    let said = std::env::var("HITLOG_NUMBERS_SEED").ok();
    said.map_or(other, |seed| seed.parse().unwrap())
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Site {
    pub fn start(seed: u64, websites: Vec<Website>, flags: &[&str]) -> Self {
        // Shown when the test fails, whatever it fails by.
        println!("HITLOG_NUMBERS_SEED={seed}");
        let work = work_dir();
        let data = work.path().join("data");
        let daemon = Daemon::start_in(&data, flags);
        let codes = websites.iter().map(|website| daemon.register(&website.domain)).collect();
        let mut site = Self {
            client: daemon.client(),
            daemon: Some(daemon),
            data,
            _work: work,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            codes,
            retention_ms: None,
            batch_events_max: 60,
            oracle: Oracle { websites, ..Oracle::default() },
            dice: Dice(seed),
            seed,
            arrivals: 0,
            asked: Vec::new(),
        };
        for website in 0..site.codes.len() {
            site.set_goals(website);
        }
        site
    }

    /// Tells hitlog of the goals that the website has.
    fn set_goals(&mut self, website: usize) {
        let goal = |goal: &Goal| json!({"name": goal.name, "event": goal.event, "page": goal.page});
        let goals: Vec<Value> = self.oracle.websites[website].goals.iter().map(goal).collect();
        if !goals.is_empty() {
            self.change(website, json!({ "goals": goals }));
        }
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Sends events in batches of some size, and adds them to the oracle's list.
    pub fn send(&mut self, events: &[Event]) {
        let mut rest = events;
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(1 + self.dice.below(rest.len().min(self.batch_events_max)));
            self.send_batch(batch);
            rest = others;
        }
    }

    fn send_batch(&mut self, events: &[Event]) {
        let bodies: Vec<_> = events.iter().map(|event| self.body(event)).collect();
        let mut body = json!({ "events": bodies }).to_string();
        if self.dice.once_in(2) {
            // The same in other letters: all of these stand in texts only.
            body = body.replace('\u{e4}', "\\u00e4").replace('\u{fc}', "\\u00FC").replace('/', "\\/");
        }
        let response = self.client.post("/api/v1/events/batch", body);
        assert_eq!(response.status, 201, "seed {}: {}", self.seed, response.text());
        let stored = response.json();
        let stored = stored["events"].as_array().unwrap();
        assert_eq!(stored.len(), events.len());
        for (event, stored) in events.iter().zip(stored) {
            let created_at: Timestamp = stored["createdAt"].as_str().unwrap().parse().unwrap();
            let created_at = created_at.as_millisecond();
            assert!(event.created_at == ON_ARRIVAL || event.created_at == created_at, "{stored}");
            self.oracle.events.push(Event { created_at, arrival: self.arrivals, ..event.clone() });
            self.arrivals += 1;
        }
    }

    fn body(&self, event: &Event) -> Value {
        let mut body = json!({
            "trackingCode": self.codes[event.website], "eventType": event.kind, "url": event.url,
            "referrer": event.referrer, "sessionId": event.session, "visitorId": event.visitor,
            "deviceType": event.device_type, "browser": event.browser, "os": event.os, "location": event.location,
            "properties": event.properties
        });
        if event.created_at != ON_ARRIVAL {
            body["timestamp"] = event.created_at.into();
        }
        body
    }

    /// Tells hitlog what the hosts of a website are from now on.
    pub fn set_hosts(&mut self, website: usize, hosts: &[&str]) {
        self.change(website, json!({ "hosts": hosts }));
        self.oracle.websites[website].hosts = hosts.iter().map(|&host| host.to_owned()).collect();
    }

    fn change(&mut self, website: usize, change: Value) {
        let listed = self.client.get("/api/v1/websites").json();
        let mut listed = listed["websites"].as_array().unwrap().iter();
        let id = listed.find(|one| one["trackingCode"] == *self.codes[website]).unwrap()["id"].as_str().unwrap();
        let response = self.client.put(&format!("/api/v1/websites/{id}"), change.to_string());
        assert_eq!(response.status, 200, "seed {}: {}", self.seed, response.text());
    }

    /// Erases a visitor; returns the erasure's id.
    pub fn erase(&mut self, website: usize, visitor: &str) -> String {
        // A `+` is one in a path, so spaces are not written so there.
        let visitor_text = encoded(visitor).replace('+', "%20");
        let path = format!("/api/v1/visitors/{visitor_text}?trackingCode={}", self.codes[website]);
        let response = self.client.send("DELETE", &path, &[], b"");
        assert_eq!(response.status, 202, "seed {}: {}", self.seed, response.text());
        self.oracle.erase(website, visitor);
        response.json()["id"].as_str().unwrap().to_owned()
    }

    pub fn wait_until_erased(&self, erasure: &str) {
        wait_until("the erasure is done", || {
            let told = self.daemon().client().get(&format!("/api/v1/erasures/{erasure}"));
            assert_eq!(told.status, 200, "{}", told.text());
            (told.json()["state"] == "done").then_some(())
        });
    }

    /// Stops hitlog in order.
    pub fn stop(&mut self) {
        self.daemon.take().unwrap().stop();
    }

    /// Starts it again on its data, after it was stopped; or kills it for that.
    pub fn start_again(&mut self, more_flags: &[&str]) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.crash();
        }
        self.flags.extend(more_flags.iter().map(|&flag| flag.to_owned()));
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let daemon = Daemon::start_in(&self.data, &flags);
        self.client = daemon.client();
        self.daemon = Some(daemon);
    }

    /// Asks random questions, and some that were asked before.
    pub fn ask_some(&mut self, count: usize) {
        for at in 0..count {
            let question = match at % 4 == 3 && !self.asked.is_empty() {
                true => self.dice.pick(&self.asked).clone(),
                false => question(&mut self.dice, &self.oracle, now_ms()),
            };
            let is_all = matches!(question.range, Asked::Period("all"));
            // The range of a website without events is not said.
            if is_all && self.oracle.first_at(question.website, self.expired_before(now_ms())).is_none() {
                continue;
            }
            self.ask(&question);
            self.asked.push(question);
        }
    }

    fn expired_before(&self, now: i64) -> Option<i64> {
        self.retention_ms.map(|retention| expired_before(now, retention))
    }

    /// Asks, and holds the answer to what the oracle says. Time goes on meanwhile: what is right before or after is.
    pub fn ask(&mut self, question: &Question) -> Value {
        let (before, answer, after) = self.answer(question);
        let mut found = Vec::new();
        for now in [before, after] {
            for at in [before, after] {
                let moment = Moment { now, expired_before: self.expired_before(at) };
                found = differences(&self.oracle, question, &answer, moment);
                if found.is_empty() {
                    return answer;
                }
            }
        }
        let path = question.path(&self.codes[question.website]);
        panic!("seed {}: {path}\n{question:?}\n{}\n{answer}", self.seed, found.join("\n"));
    }

    /// An answer that has counted everything, and when it was asked for and was there.
    pub fn answer(&mut self, question: &Question) -> (i64, Value, i64) {
        let path = question.path(&self.codes[question.website]);
        let answer = self.complete_answer(&path);
        if matches!(question.kind, Kind::Totals) {
            let website = &answer.1["website"];
            assert_eq!(website["trackingCode"], *self.codes[question.website], "{path}");
            assert_eq!(website["domain"], *self.oracle.websites[question.website].domain, "{path}");
        }
        answer
    }

    /// The same of any path.
    pub fn complete_answer(&mut self, path: &str) -> (i64, Value, i64) {
        let started = Instant::now();
        loop {
            let before = now_ms();
            let response = self.client.get(path);
            assert_eq!(response.status, 200, "seed {}: {path}: {}", self.seed, response.text());
            let answer = response.json();
            if answer["meta"]["complete"] == true {
                return (before, answer, now_ms());
            }
            assert!(started.elapsed() < COMPLETE_WITHIN, "seed {}: {path} is never complete: {answer}", self.seed);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The tracking code of a website.
    pub fn code(&self, website: usize) -> &str {
        &self.codes[website]
    }
}

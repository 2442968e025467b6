//! Who is there now, and what they look at: events of the last hour, and some that are to come.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    compare::instant,
    fault::Fault,
    oracle::{Oracle, Question},
    planted::websites,
    questions::{encoded, filters, text_of},
    site::{Site, now_ms, seed},
    traffic::{self, Shape, VISITORS},
};

const MINUTE_MS: i64 = 60_000;
const MINUTES: i64 = 30;
/// Lists that are shown, and the names that they are of.
const LISTS: [(&str, &str); 3] = [("pages", "page"), ("sources", "source"), ("locations", "location")];
const ROWS: usize = 10;

/// What was asked of a website.
#[derive(Debug, Clone)]
pub struct Live {
    pub website: usize,
    pub filters: Vec<(String, String)>,
    pub expired_before: Option<i64>,
}

impl Live {
    /// The members of the answer that the moment decides.
    pub fn expected(&self, oracle: &Oracle, now: i64) -> Value {
        let left = oracle.left(self.website, &self.filters, self.expired_before);
        let lacks = |fault| oracle.rules.lack(fault);
        let end = if lacks(Fault::WhatIsToComeIsLive) { i64::MAX - 1 } else { now + 1 };
        let this_minute = now - now.rem_euclid(MINUTE_MS);
        let since = |minutes: i64| match lacks(Fault::LiveIsOfWholeMinutes) {
            true => this_minute - minutes * MINUTE_MS,
            false => now - minutes * MINUTE_MS,
        };
        let visitors = |minutes: i64| left.totals(since(minutes), end).visitors;
        let first = if lacks(Fault::LastMinuteIsOver) { MINUTES } else { MINUTES - 1 };
        let minutes = (0..MINUTES).map(|minute| this_minute - (first - minute) * MINUTE_MS).map(|at| {
            let totals = left.totals(at, at + MINUTE_MS);
            json!({"at": text_of(at), "visitors": totals.visitors, "pageviews": totals.pageviews})
        });
        let mut expected = json!({
            "visitors": {"last5Minutes": visitors(5), "last30Minutes": visitors(30)},
            "minutes": minutes.collect::<Vec<_>>()
        });
        let asked = Question {
            website: self.website,
            from: since(MINUTES),
            to: end,
            filters: &self.filters,
            expired_before: self.expired_before,
        };
        for (member, name) in LISTS {
            let mut rows = oracle.list(&asked, name, "visitors");
            rows.retain(|row| row.totals.visitors > 0 || lacks(Fault::NobodyIsLive));
            let row = |row: super::lists::Row| json!({"value": row.value, "visitors": row.totals.visitors});
            expected[member] = rows.into_iter().take(ROWS).map(row).collect();
        }
        expected
    }

    /// All moments between two that the answer may be another in.
    fn moments(&self, oracle: &Oracle, before: i64, after: i64) -> BTreeSet<i64> {
        let events = oracle.events.iter().filter(|event| event.website == self.website).map(|event| event.created_at);
        let edges = events.flat_map(|at| [0, 5, MINUTES].map(|minutes| at + minutes * MINUTE_MS));
        let edges = edges.flat_map(|at| [at, at + 1]).chain([after - after.rem_euclid(MINUTE_MS)]);
        edges.filter(|at| (before..=after).contains(at)).chain([before, after]).collect()
    }
}

/// The members of an answer that are not what they should be.
pub fn differences(answer: &Value, expected: &Value) -> Vec<String> {
    let members = expected.as_object().unwrap().iter();
    let other = members.filter(|(name, value)| answer[name.as_str()] != **value);
    other.map(|(name, value)| format!("{name} is {}, and should be {value}", answer[name.as_str()])).collect()
}

fn ask_some(site: &mut Site, count: usize) {
    for _ in 0..count {
        let website = site.dice.below(2);
        let filters = filters(&mut site.dice, &site.oracle, website);
        ask(site, &Live { website, filters, expired_before: None });
    }
}

fn ask(site: &mut Site, live: &Live) {
    let parameters: String =
        live.filters.iter().map(|(name, text)| format!("&{name}={}", encoded(text))).collect::<String>();
    let path = format!("/api/v1/stats/live?trackingCode={}{parameters}", site.code(live.website));
    let (before, answer, after) = site.complete_answer(&path);
    let meta = &answer["meta"];
    assert!(meta["visitors"] == "exact" && meta["visitorsError"] == 0.0, "{path}: {answer}");
    let as_of = instant(&answer["asOf"]);
    assert!(as_of.is_some_and(|as_of| (before..=after).contains(&as_of)), "{path}: {before} to {after}: {answer}");
    let mut found = Vec::new();
    for now in live.moments(&site.oracle, before, after) {
        found = differences(&answer, &live.expected(&site.oracle, now));
        if found.is_empty() {
            return;
        }
    }
    panic!("{path}\nfrom {before} to {after}\n{live:?}\n{}\n{answer}", found.join("\n"));
}

#[test]
fn who_is_live_is_counted_up_to_now() {
    let mut site = Site::start(seed(), websites(), &["--segment-rows-max", "40"]);
    let now = now_ms();
    let shape =
        Shape { websites: 2, events: 360, from: now - 75 * MINUTE_MS, to: now + 8 * MINUTE_MS, some_on_arrival: true };
    let mut events = traffic::events(&mut site.dice, shape);
    // One that would be seen in the minute that goes on is either sooner or later than this test.
    events.retain(|event| !(now - 1..now + 2 * MINUTE_MS).contains(&event.created_at));
    for (at, chunk) in events.chunks(events.len().div_ceil(4)).enumerate() {
        site.send(chunk);
        match at {
            0 => {}
            1 => site.daemon().wait_until_sealed(),
            2 => drop(site.erase(0, VISITORS[0])),
            _ => site.start_again(&[]),
        }
        ask_some(&mut site, 8);
    }
    site.stop();
}

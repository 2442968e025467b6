//! What docs/numbers.md defines, counted by brute force over one plain list of events.
//!
//! Written from that page alone, and knows nothing of hitlog's crate: what hitlog gets wrong must not be able to get it
//! wrong here, too. So everything is done again for each question, and rounding is integers' arithmetic.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    fault::{Fault, Rules},
    filed,
    filters::Filters,
    goals::Goal,
};

/// The longest pause within a visit.
pub const PAUSE_MS: i64 = 30 * 60 * 1_000;
/// What time is cut into where retention ends.
pub const QUARTER_MS: i64 = 15 * 60 * 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const ENGAGED_MS_MAX: u64 = 86_400_000;

/// A website, as far as its numbers depend on it.
#[derive(Debug, Clone, Default)]
pub struct Website {
    pub domain: String,
    /// Empty if it was given none.
    pub hosts: Vec<String>,
    pub goals: Vec<Goal>,
}

/// An event as it was sent.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which of the websites it is of.
    pub website: usize,
    pub kind: &'static str,
    pub url: String,
    pub referrer: Option<String>,
    pub session: String,
    pub visitor: String,
    pub device_type: Option<String>,
    pub browser: Option<String>,
    pub os: Option<String>,
    pub location: Option<String>,
    pub properties: Value,
    pub created_at: i64,
    /// Its place in the order of arrival, over all websites.
    pub arrival: usize,
}

impl Event {
    pub fn is_view(&self) -> bool {
        self.kind == "pageview"
    }

    fn is_engagement(&self) -> bool {
        filed::event_name(self).is_some_and(|name| name == "$engagement")
    }

    fn interacts(&self, rules: Rules) -> bool {
        let is_silent = self.properties["interactive"] == Value::Bool(false);
        !self.is_view()
            && (!self.is_engagement() || rules.lack(Fault::EngagementInteracts))
            && (!is_silent || rules.lack(Fault::SilentOnesInteract))
    }

    /// The engagement that it tells of and that counts.
    fn engaged_ms(&self, rules: Rules) -> Option<u64> {
        let Value::Number(number) = &self.properties["engagedMs"] else { return None };
        if !self.is_engagement() {
            return None;
        }
        if rules.lack(Fault::EngagementHasNoBound) {
            return number.as_f64().map(|ms| ms as u64);
        }
        match number.as_u64() {
            Some(ms) => Some(ms).filter(|&ms| ms <= ENGAGED_MS_MAX),
            None => number.as_f64().filter(|ms| (0.0..=ENGAGED_MS_MAX as f64).contains(ms)).map(|ms| ms as u64),
        }
    }
}

/// All events that are not erased, and the rules that they are counted by.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    pub websites: Vec<Website>,
    pub events: Vec<Event>,
    pub rules: Rules,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub website: usize,
    pub from: i64,
    pub to: i64,
    pub filters: &'a [(String, String)],
    /// Where retention ends, a full quarter of an hour.
    pub expired_before: Option<i64>,
}

impl Oracle {
    /// Takes out what the website has of a visitor so far.
    pub fn erase(&mut self, website: usize, visitor: &str) {
        if !self.rules.lack(Fault::ErasedOnesStay) {
            self.events.retain(|event| event.website != website || event.visitor != visitor);
        }
    }

    /// When the first event was that counts.
    pub fn first_at(&self, website: usize, expired_before: Option<i64>) -> Option<i64> {
        self.counted(website, expired_before).map(|event| event.created_at).min()
    }

    #[cfg(test)]
    pub fn totals(&self, question: &Question) -> Totals {
        self.left(question.website, question.filters, question.expired_before).totals(question.from, question.to)
    }

    /// What the filters leave, at all times.
    pub fn left(&self, website: usize, filters: &[(String, String)], expired_before: Option<i64>) -> Left {
        let by_entry = filters.iter().any(|(name, _)| filed::OF_PAGES.contains(&&**name));
        self.left_of(&self.kept(website, filters, expired_before), by_entry)
    }

    /// What is to be counted of these runs; `by_entry`, if bounces are those of visits that began where filters say.
    pub fn left_of(&self, kept: &[Kept], by_entry: bool) -> Left {
        let mut left = Left { by_entry, ..Left::new(self.rules) };
        for Kept { run, hits, began_there } in kept {
            left.hits.extend(hits.iter().map(|event| Hit {
                at: event.created_at,
                visitor: event.visitor.clone(),
                is_view: event.is_view(),
                interacts: event.interacts(self.rules),
            }));
            if let Some(first_view) = first_view(run) {
                left.visits.push(Visit { began_there: *began_there, ..self.visit(run, first_view) });
            }
        }
        left
    }

    /// The runs of events that the filters leave something of.
    pub fn kept(&self, website: usize, filters: &[(String, String)], expired_before: Option<i64>) -> Vec<Kept<'_>> {
        let (filters, site) = (Filters::new(filters, self.rules), &self.websites[website]);
        let leave =
            |event: &Event, names: &[&str]| filters.leave(names, |name| filed::of_event(site, event, name, self.rules));
        let mut kept = Vec::new();
        for run in self.runs(website, expired_before) {
            if !filters.leave(&filed::OF_VISIT, |name| filed::of_visit(site, &run, name, self.rules)) {
                continue;
            }
            let hits: Vec<_> = run.iter().copied().filter(|event| leave(event, &filed::OF_EVENT)).collect();
            let began_there = first_view(&run).is_some_and(|view| leave(view, &filed::OF_PAGES));
            if !hits.is_empty() {
                kept.push(Kept { run, hits, began_there });
            }
        }
        kept
    }

    fn visit(&self, run: &[&Event], first_view: &Event) -> Visit {
        let (first, last) = (run[0].created_at, run[run.len() - 1].created_at);
        let last_view = run.iter().rfind(|event| event.is_view()).map_or(last, |event| event.created_at);
        let lacks = |fault| self.rules.lack(fault);
        let began = if lacks(Fault::VisitsBeginWithAView) { first_view.created_at } else { first };
        let end = if lacks(Fault::DurationOfViews) { last_view.max(first) } else { last };
        let engaged: Vec<u64> = run.iter().filter_map(|event| event.engaged_ms(self.rules)).collect();
        Visit {
            began,
            // Negative only where a rule is taken away.
            duration: (end - first).max(0) as u64,
            views: run.iter().filter(|event| event.is_view()).count() as u64,
            interactions: run.iter().filter(|event| event.interacts(self.rules)).count() as u64,
            engaged: (!engaged.is_empty()).then(|| engaged.iter().sum()),
            began_there: true,
        }
    }

    fn counted(&self, website: usize, expired_before: Option<i64>) -> impl Iterator<Item = &Event> {
        let kept_from = expired_before.map(|cut| match self.rules.0 {
            Some(Fault::QuarterOfTheCutCounts) => cut - QUARTER_MS,
            _ => cut,
        });
        let of_site = move |event: &&Event| event.website == website || self.rules.lack(Fault::WebsitesMix);
        self.events.iter().filter(of_site).filter(move |event| kept_from.is_none_or(|from| event.created_at >= from))
    }

    /// Longest runs of events of one session and visitor with no pause between them.
    fn runs(&self, website: usize, expired_before: Option<i64>) -> Vec<Vec<&Event>> {
        let mut keyed: BTreeMap<(&str, &str), Vec<&Event>> = BTreeMap::new();
        for event in self.counted(website, expired_before) {
            let (mut session, mut visitor) = (&*event.session, &*event.visitor);
            match self.rules.0 {
                Some(Fault::SessionsJoinVisitors) => visitor = "",
                Some(Fault::VisitorsJoinSessions) => session = "",
                _ => {}
            }
            keyed.entry((session, visitor)).or_default().push(event);
        }
        let mut runs = Vec::new();
        for mut events in keyed.into_values() {
            match self.rules.0 {
                Some(Fault::TiesBackwards) => {
                    events.sort_by_key(|event| (event.created_at, usize::MAX - event.arrival));
                }
                Some(Fault::InOrderOfArrival) => events.sort_by_key(|event| event.arrival),
                _ => events.sort_by_key(|event| (event.created_at, event.arrival)),
            }
            runs.extend(events.chunk_by(|one, next| self.are_together(one, next)).map(<[&Event]>::to_vec));
        }
        runs
    }

    fn are_together(&self, one: &Event, next: &Event) -> bool {
        let pause = next.created_at - one.created_at;
        match self.rules.0 {
            Some(Fault::PauseOfAMillisecondLess) => pause < PAUSE_MS,
            Some(Fault::PauseOfAMillisecondMore) => pause <= PAUSE_MS + 1,
            Some(Fault::SessionsJoinOverPauses) => true,
            Some(Fault::MidnightEndsVisits) => {
                pause <= PAUSE_MS && one.created_at.div_euclid(DAY_MS) == next.created_at.div_euclid(DAY_MS)
            }
            Some(Fault::SegmentsEndVisits(rows)) => pause <= PAUSE_MS && one.arrival / rows == next.arrival / rows,
            _ => pause <= PAUSE_MS,
        }
    }
}

/// A run of events, and what filters leave of it.
#[derive(Debug, Clone)]
pub struct Kept<'a> {
    pub run: Vec<&'a Event>,
    /// The events that are left.
    pub hits: Vec<&'a Event>,
    /// Whether filters by page and hostname leave its first page view.
    pub began_there: bool,
}

/// The first page view of a run, if it is a visit.
pub fn first_view<'a>(run: &[&'a Event]) -> Option<&'a Event> {
    run.iter().copied().find(|event| event.is_view())
}

/// An event that is left, as far as it is counted.
#[derive(Debug, Clone)]
struct Hit {
    at: i64,
    visitor: String,
    is_view: bool,
    interacts: bool,
}

/// A visit that is left.
#[derive(Debug, Clone)]
struct Visit {
    began: i64,
    duration: u64,
    views: u64,
    interactions: u64,
    engaged: Option<u64>,
    /// Whether the filters by page and hostname leave its first page view.
    began_there: bool,
}

/// What filters leave of a website.
#[derive(Debug, Clone)]
pub struct Left {
    hits: Vec<Hit>,
    visits: Vec<Visit>,
    /// Whether the bounce rate is that of those who began where the filters say.
    by_entry: bool,
    rules: Rules,
}

impl Left {
    fn new(rules: Rules) -> Self {
        Self { hits: Vec::new(), visits: Vec::new(), by_entry: false, rules }
    }

    /// How many events of any kind there are from one instant up to, not including, another.
    pub fn events(&self, from: i64, to: i64) -> u64 {
        self.hits_in(from, to).len() as u64
    }

    fn hits_in(&self, from: i64, to: i64) -> Vec<&Hit> {
        self.hits.iter().filter(|hit| (from..to).contains(&hit.at)).collect()
    }

    /// What is counted from one instant up to, not including, another.
    pub fn totals(&self, from: i64, to: i64) -> Totals {
        let to = to + i64::from(self.rules.lack(Fault::RangeHasItsEnd));
        let hits = self.hits_in(from, to);
        let visits: Vec<&Visit> = self.visits.iter().filter(|visit| (from..to).contains(&visit.began)).collect();
        let by_entry = self.by_entry && !self.rules.lack(Fault::RateOfAllVisits);
        let rated: Vec<_> = visits.iter().filter(|visit| visit.began_there || !by_entry).collect();
        let bounces = rated.iter().filter(|visit| visit.views == 1 && visit.interactions == 0).count() as u64;
        let count = visits.len() as u64;
        let sum = |of: fn(&Visit) -> u64| visits.iter().map(|visit| of(visit)).sum::<u64>();
        let rounded = |sum, count| match self.rules.lack(Fault::HalvesDown) {
            true => rounded_half_down(sum, count),
            false => rounded(sum, count),
        };
        Totals {
            visitors: hits.iter().map(|hit| &hit.visitor).collect::<BTreeSet<_>>().len() as u64,
            visits: count,
            pageviews: hits.iter().filter(|hit| hit.is_view).count() as u64,
            interactions: hits.iter().filter(|hit| hit.interacts).count() as u64,
            views_per_visit: rounded(sum(|visit| visit.views) * 100, count),
            bounce_rate: rounded(bounces * 1_000, rated.len() as u64),
            visit_duration: rounded(sum(|visit| visit.duration), count * 100),
            engaged_seconds: visits
                .iter()
                .any(|visit| visit.engaged.is_some())
                .then(|| rounded(sum(|visit| visit.engaged.unwrap_or_default()), count * 100)),
        }
    }
}

/// Halves are rounded up; the mean of nothing is 0.
pub fn rounded(sum: u64, count: u64) -> u64 {
    if count == 0 { 0 } else { (2 * sum + count) / (2 * count) }
}

fn rounded_half_down(sum: u64, count: u64) -> u64 {
    if count == 0 { 0 } else { (2 * sum + count - 1) / (2 * count) }
}

/// The answer: what has decimals in units of its last one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    pub visitors: u64,
    pub visits: u64,
    pub pageviews: u64,
    pub interactions: u64,
    /// In hundredths.
    pub views_per_visit: u64,
    /// In tenths of a percent.
    pub bounce_rate: u64,
    /// In tenths of a second.
    pub visit_duration: u64,
    /// In tenths of a second.
    pub engaged_seconds: Option<u64>,
}

impl Totals {
    /// Every metric by its name: in units of its last decimal, and how many of these make one.
    pub fn named(&self) -> [(&'static str, Option<u64>, u64); 8] {
        [
            ("visitors", Some(self.visitors), 1),
            ("visits", Some(self.visits), 1),
            ("pageviews", Some(self.pageviews), 1),
            ("interactions", Some(self.interactions), 1),
            ("viewsPerVisit", Some(self.views_per_visit), 100),
            ("bounceRate", Some(self.bounce_rate), 10),
            ("visitDuration", Some(self.visit_duration), 10),
            ("engagedSeconds", self.engaged_seconds, 10),
        ]
    }
}

/// The change between two shown numbers of one unit, in tenths of a percent.
pub fn change(now: Option<u64>, then: Option<u64>) -> Option<i64> {
    let (now, then) = (now? as i64, then? as i64);
    if then == 0 {
        return None;
    }
    let difference = now - then;
    Some(difference.signum() * rounded(difference.unsigned_abs() * 1_000, then as u64) as i64)
}

/// The first full quarter of an hour that a retention still covers.
pub fn expired_before(now: i64, retention_ms: i64) -> i64 {
    let cut = now - retention_ms;
    cut + (-cut).rem_euclid(QUARTER_MS)
}

//! Events of a busy website, as its visitors make them: some pages are seen far more often than others, most visits are
//! short, and half of what comes in is of a minute ago.

use std::{cmp::Reverse, collections::BinaryHeap, fmt::Write};

use rand::{
    RngExt, SeedableRng,
    distr::{Distribution, weighted::WeightedIndex},
    rngs::SmallRng,
};

/// The time of the first event.
pub const FIRST_TIME: i64 = 1_767_225_600_000;
/// A million events a day.
const EVENT_MS: f64 = 86.4;
const PAGES: usize = 5_000;
/// Events of a visit, on average: 617,000 page views and 383,000 others in 247,000 visits.
const VISITS_PER_EVENT: f64 = 0.247;
const PAGEVIEWS: f64 = 0.617;
/// Visitors who come again on the same day.
const RETURNING: f64 = 0.17;
const COUNTRIES: [&str; 12] = ["US", "DE", "GB", "FR", "IN", "BR", "NL", "ES", "IT", "PL", "JP", "SE"];

/// An event that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: i64,
    visit: u64,
    visitor: u64,
    left: u32,
}

pub struct Source {
    random: SmallRng,
    pages: WeightedIndex<f64>,
    due: BinaryHeap<Reverse<Due>>,
    visits: u64,
    next_visit_at: f64,
}

impl Source {
    pub fn new() -> Self {
        let pages = WeightedIndex::new((1..=PAGES).map(|rank| 1.0 / rank as f64)).unwrap();
        Self {
            random: SmallRng::seed_from_u64(7),
            pages,
            due: BinaryHeap::new(),
            visits: 0,
            next_visit_at: FIRST_TIME as f64,
        }
    }

    /// The next event, as JSON.
    pub fn next(&mut self, code: &str, out: &mut String) {
        while self.due.peek().is_none_or(|Reverse(due)| due.at as f64 >= self.next_visit_at) {
            self.begin_visit();
        }
        let Some(Reverse(due)) = self.due.pop() else { return };
        self.write(due, code, out);
        if due.left > 0 {
            let pause = -self.random.random::<f64>().ln() * 45_000.0;
            self.due.push(Reverse(Due { at: due.at + pause as i64, left: due.left - 1, ..due }));
        }
    }

    fn begin_visit(&mut self) {
        self.visits += 1;
        let visit = self.visits;
        let old = self.random.random::<f64>() < RETURNING && visit > 1_000;
        let visitor = if old { visit - self.random.random_range(1..1_000_u64) } else { visit };
        // Of a geometric distribution.
        let more = self.random.random::<f64>().ln() / (1.0 - VISITS_PER_EVENT).ln();
        self.due.push(Reverse(Due { at: self.next_visit_at as i64, visit, visitor, left: (more as u32).min(500) }));
        self.next_visit_at += EVENT_MS / VISITS_PER_EVENT;
    }

    fn write(&mut self, due: Due, code: &str, out: &mut String) {
        let page = self.pages.sample(&mut self.random);
        let kind = self.random.random::<f64>();
        let visitor = due.visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let country = COUNTRIES[(visitor >> 8) as usize % 144 / 12 * ((visitor >> 20) as usize % 12) / 12];
        let browser = ["Chrome", "Safari", "Firefox", "Edge"][(visitor >> 30) as usize % 4];
        let (os, device) = [("Windows", "desktop"), ("iOS", "mobile"), ("Android", "mobile"), ("macOS", "desktop")]
            [(visitor >> 33) as usize % 4];
        let (event_type, properties) = match kind {
            kind if kind < PAGEVIEWS => ("pageview", ""),
            kind if kind < PAGEVIEWS + 0.2 => {
                ("custom", r#","properties":{"name":"$engagement","engagedMs":15300,"scrollPct":70}"#)
            }
            _ => ("click", r#","properties":{"buttonId":"cta-button","position":3}"#),
        };
        let campaign =
            if due.visit.is_multiple_of(9) { "?utm_source=news&utm_medium=mail&utm_campaign=w7" } else { "" };
        let referrer = match due.visit % 5 {
            0 => r#""referrer":"https://www.google.com/","#,
            1 => r#""referrer":"https://news.example.org/a/b","#,
            2 => r#""referrer":"https://example.com/blog","#,
            _ => "",
        };
        let session = due.visit.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let _ = write!(
            out,
            r#"{{"trackingCode":"{code}","eventType":"{event_type}","url":"https://example.com/blog/article-{page}{campaign}",{referrer}"timestamp":{},"sessionId":"sess-{session:016x}","visitorId":"vis-{visitor:016x}","deviceType":"{device}","browser":"{browser}","os":"{os}","location":"{country}"{properties}}}"#,
            due.at
        );
    }
}

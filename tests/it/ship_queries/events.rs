//! Events at random, as the table of ClickHouse holds them, made so that whoever counts them wrongly gets another
//! number: pauses of exactly 30 minutes and a millisecond more, visits across every end of a range, equal times on two
//! nodes, sessions that two visitors share, bots, and properties that only look like a name.

use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};
use serde_json::{Value, json};

pub(super) const SECOND: i64 = 1_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;

/// 2026-10-24 22:00 UTC: where 25 October begins in Berlin, which has 25 hours there.
pub(super) const BERLIN_DAY: i64 = 1_792_879_200 * SECOND;
const DAYS: i64 = 3;
/// Times that are asked about: a day, three, an hour, what is no hour.
pub(super) const RANGES: [(i64, i64); 4] = [
    (BERLIN_DAY, BERLIN_DAY + 25 * HOUR),
    (BERLIN_DAY, BERLIN_DAY + DAYS * 24 * HOUR),
    (BERLIN_DAY + 30 * HOUR, BERLIN_DAY + 31 * HOUR),
    (BERLIN_DAY + 7 * HOUR + 20 * MINUTE, BERLIN_DAY + 16 * HOUR + 5 * MINUTE + 30 * SECOND + 500),
];
/// A time without any event.
pub(super) const EMPTY: (i64, i64) = (BERLIN_DAY + 30 * 24 * HOUR, BERLIN_DAY + 30 * 24 * HOUR + 5 * HOUR);
pub(super) const SITES: [&str; 3] = ["web-a", "web-b", "web-c"];

/// Pauses between two events of a session.
const PAUSES: [i64; 13] = [
    0,
    0,
    1,
    3 * SECOND,
    40 * SECOND,
    5 * MINUTE,
    29 * MINUTE + 59 * SECOND,
    29 * MINUTE + 30 * SECOND,
    30 * MINUTE - 1,
    30 * MINUTE,
    30 * MINUTE + 1,
    31 * MINUTE,
    2 * HOUR,
];
const URLS: [&str; 13] = [
    "https://example.com",
    "https://example.com/",
    "https://example.com?next=/pricing",
    "https://example.com#/settings",
    "https://example.com/app?tab=1#!/inbox?x=1",
    "https://example.com/pricing",
    "https://example.com/pricing?utm_source=news&to=/x#faq",
    "https://example.com/pricing#faq/1",
    "https://www.example.com/docs/a%20b/",
    "https://example.com/docs/é?q=a#b",
    "http://localhost:3000/docs//x",
    "android-app://com.example.app/pricing",
    "https://example.com/thanks",
];
const REFERRERS: [&str; 9] = [
    "",
    "",
    "https://www.google.com/search?q=a",
    "https://WWW.Google.com/",
    "https://news.example.org:8443/x",
    "https://user@News.example.org/y",
    "https://example.com/pricing",
    "https://www.example.com",
    "android-app://com.google.android.gm/",
];
const OF_CUSTOM: [&str; 13] = [
    "",
    "{}",
    r#"{"name":"signup","plan":"pro"}"#,
    r#"{"name":"signup","plan":"a \"quoted\" é"}"#,
    r#"{"name":"signup","plan":3}"#,
    r#"{"name":"signup","plan":true}"#,
    r#"{"plan":"free","name":"signup","interactive":true}"#,
    r#"{"name":7,"event":"signup","plan":"free"}"#,
    r#"{"name":"","event":"signup"}"#,
    r#"{"name":null,"event":{"name":"x"},"eventName":"scroll","interactive":false}"#,
    r#"{"event_name":"scroll","interactive":"false"}"#,
    r#"{"name":"$engagement","engagedMs":1200}"#,
    r#"{"action":"$engagement","interactive":null}"#,
];
const OF_CLICKS: [&str; 5] =
    ["", r#"{"buttonId":"buy"}"#, r#"{"action":"signup"}"#, r#"{"buttonId":1}"#, r#"{"interactive":false}"#];

/// A row of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) site: &'static str,
    pub(super) kind: &'static str,
    /// In milliseconds since 1970.
    pub(super) created_at: i64,
    pub(super) node: u32,
    pub(super) seq: u64,
    pub(super) visitor: String,
    pub(super) session: String,
    pub(super) url: &'static str,
    pub(super) properties: &'static str,
    pub(super) referrer: &'static str,
    pub(super) device: &'static str,
    pub(super) browser: &'static str,
    pub(super) flags: u8,
}

impl Row {
    /// As ClickHouse takes it in, in `JSONEachRow`.
    pub(super) fn to_json(&self) -> Value {
        let time = |of: i64| format!("{}.{:03}", of.div_euclid(SECOND), of.rem_euclid(SECOND));
        // Two rows of a hundred arrive in the next month, and so in another partition.
        let received_at = if self.seq.is_multiple_of(50) { self.created_at + 30 * 24 * HOUR } else { self.created_at };
        json!({
            "site": self.site, "type": self.kind, "created_at": time(self.created_at),
            "received_at": time(received_at), "node": self.node, "seq": self.seq, "visitor": self.visitor,
            "session": self.session, "url": self.url, "properties": self.properties, "referrer": self.referrer,
            "device": self.device, "browser": self.browser, "os": "", "location": "", "flags": self.flags,
        })
    }
}

/// What is in the table, in the order in which it came.
pub(super) fn random_events(random: &mut SmallRng, sessions: usize) -> Vec<Row> {
    let (mut rows, mut begun) = (Vec::new(), Vec::<(&str, i64)>::new());
    for number in 0..sessions {
        begun.push((pick(random, &SITES), begin(random)));
        // One of ten has the id of another, and mostly another visitor, at about the same time.
        let session = if random.random_ratio(1, 10) { random.random_range(0..=number) } else { number };
        let (site, mut at) = begun[session];
        let visitor = format!("v{}", random.random_range(0..sessions / 3));
        for _ in 0..random.random_range(1..12) {
            rows.push(row(random, site, at, &visitor, format!("s{session}")));
            at += pick(random, &PAUSES);
        }
    }
    // Each node has numbered what it took in as it came, which need not be the order of `created_at`.
    let mut seqs = [0; 3];
    for row in &mut rows {
        row.node = random.random_range(1..=3);
        let seq = &mut seqs[row.node as usize - 1];
        *seq += 1;
        row.seq = *seq;
    }
    rows
}

/// When a session begins: at any moment from half a day before the days that are asked about to half a day after, but
/// often at the end of a range or shortly before.
fn begin(random: &mut SmallRng) -> i64 {
    let end = pick(random, &RANGES.map(|(from, to)| [from, to]).concat());
    match random.random_range(0..8) {
        0 => end,
        1 => end - random.random_range(1..30 * MINUTE),
        _ => BERLIN_DAY + random.random_range(-12 * HOUR..DAYS * 24 * HOUR + 12 * HOUR),
    }
}

fn row(random: &mut SmallRng, site: &'static str, created_at: i64, visitor: &str, session: String) -> Row {
    let (kind, properties) = match random.random_range(0..10) {
        0..6 => ("pageview", pick(random, &["", "", r#"{"name":"/pricing"}"#])),
        6..8 => ("click", pick(random, &OF_CLICKS)),
        _ => ("custom", pick(random, &OF_CUSTOM)),
    };
    Row {
        site,
        kind,
        created_at,
        node: 0,
        seq: 0,
        visitor: visitor.to_owned(),
        session,
        url: pick(random, &URLS),
        properties,
        referrer: pick(random, &REFERRERS),
        device: pick(random, &["", "mobile", "desktop", "tablet"]),
        browser: pick(random, &["", "Chrome", "Firefox", "Safari"]),
        flags: pick(random, &[0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 3, 5]),
    }
}

fn pick<T: Copy>(random: &mut SmallRng, of: &[T]) -> T {
    *of.choose(random).unwrap()
}

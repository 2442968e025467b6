//! What the load looks like: requests made beforehand, of which only the ids of sessions and visitors are written anew,
//! so that no two rounds have the same keys and who sends them takes little time.

use rand::{
    RngExt, SeedableRng,
    distr::{Distribution, weighted::WeightedIndex},
    rngs::SmallRng,
};

use harness::traffic;

/// Events made beforehand. Each time round they have other sessions and visitors.
const POOL_EVENTS: usize = 20_000;
pub const WEBSITES: usize = 300;
const PAGES: usize = 2_000;
const REFERRERS: usize = 100;
/// Events of a session, on average.
const SESSION_EVENTS: f64 = 4.0;
/// Digits of the part of a session's or visitor's id that is written anew.
const ID_DIGITS: usize = 12;
/// Digits of an event's own id: so many that no two events have the same.
const EVENT_ID_DIGITS: usize = 16;

/// An event without its tracking code's place to look for: text, and which session and visitor it is of.
struct Event {
    text: String,
    session: u64,
    visitor: u64,
}

/// Requests, one after the other, without end.
pub struct Source {
    requests: Vec<Request>,
    next: usize,
    round: u64,
    /// Sessions, and visitors, of one round.
    keys: u64,
}

struct Request {
    bytes: Vec<u8>,
    /// Where the digits of an id stand, how many there are, and the number that they are made of.
    ids: Vec<(usize, usize, u64)>,
}

impl Source {
    /// One kind of event over and over, of one website: for ratios.
    pub fn uniform(code: &str, events_per_request: usize) -> Self {
        let events = (0..POOL_EVENTS).map(|number| Event {
            text: traffic::event(code, number),
            session: number as u64 / 5,
            visitor: number as u64 / 20,
        });
        Self::new(&events.collect::<Vec<_>>(), events_per_request)
    }

    /// The same, each with an `eventId` of its own.
    pub fn named(code: &str, events_per_request: usize) -> Self {
        let name = format!(r#""eventId":"{:0EVENT_ID_DIGITS$}","sessionId""#, 0);
        let events = (0..POOL_EVENTS).map(|number| Event {
            text: traffic::event(code, number).replace(r#""sessionId""#, &name),
            session: number as u64 / 5,
            visitor: number as u64 / 20,
        });
        Self::new(&events.collect::<Vec<_>>(), events_per_request)
    }

    /// Sessions of several views over many websites; pages, referrers and websites by Zipf's law; a tenth with
    /// properties, some clicks.
    pub fn real(codes: &[String], events_per_request: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(1);
        let zipf = |count: usize| WeightedIndex::new((1..=count).map(|rank| 1.0 / rank as f64)).unwrap();
        let (websites, pages, referrers) = (zipf(codes.len()), zipf(PAGES), zipf(REFERRERS));
        let mut events = Vec::with_capacity(POOL_EVENTS);
        let mut session = 0;
        while events.len() < POOL_EVENTS {
            session += 1;
            let (code, referrer) = (&codes[websites.sample(&mut random)], referrers.sample(&mut random));
            let device = ["desktop", "desktop", "mobile", "mobile", "tablet"][random.random_range(0..5)];
            for view in 0.. {
                let page = pages.sample(&mut random);
                let text = real_event(code, &mut random, page, (view == 0).then_some(referrer), device);
                // Every third session is of a visitor who has been here before.
                events.push(Event { text, session, visitor: session - session % 3 / 2 });
                if random.random_bool(1.0 / SESSION_EVENTS) {
                    break;
                }
            }
        }
        events.truncate(POOL_EVENTS);
        Self::new(&events, events_per_request)
    }

    fn new(events: &[Event], events_per_request: usize) -> Self {
        let requests = events.chunks_exact(events_per_request).enumerate();
        let requests = requests.map(|(at, events)| Request::new(events, at * events_per_request)).collect();
        Self { requests, next: 0, round: 0, keys: POOL_EVENTS as u64 }
    }

    /// Appends the next request.
    pub fn write_next(&mut self, out: &mut Vec<u8>) {
        let request = &self.requests[self.next];
        let start = out.len();
        out.extend_from_slice(&request.bytes);
        for &(at, digits, number) in &request.ids {
            let id = scatter(number.wrapping_add(self.round * self.keys)) >> (64 - 4 * digits);
            for (digit, place) in out[start + at..][..digits].iter_mut().enumerate() {
                *place = b"0123456789abcdef"[(id >> (4 * digit)) as usize & 15];
            }
        }
        self.next += 1;
        if self.next == self.requests.len() {
            (self.next, self.round) = (0, self.round + 1);
        }
    }
}

impl Request {
    /// A request with the events from the first on.
    fn new(events: &[Event], first: usize) -> Self {
        let texts: Vec<&str> = events.iter().map(|event| event.text.as_str()).collect();
        let (path, body) = match texts[..] {
            [text] => ("/api/v1/events", text.to_owned()),
            _ => ("/api/v1/events/batch", format!(r#"{{"events":[{}]}}"#, texts.join(","))),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let text = head + &body;
        let places =
            |name: &str| -> Vec<usize> { text.match_indices(name).map(|(at, name)| at + name.len()).collect() };
        let (sessions, visitors) = (places(r#""sessionId":"sess-"#), places(r#""visitorId":"vis-"#));
        let sessions = sessions.into_iter().zip(events.iter().map(|event| event.session));
        // Visitors are numbered apart from sessions.
        let visitors = visitors.into_iter().zip(events.iter().map(|event| !event.visitor));
        let of_session_or_visitor = sessions.chain(visitors).map(|(at, number)| (at, ID_DIGITS, number));
        let names = places(r#""eventId":""#).into_iter().zip(first as u64..);
        let ids = of_session_or_visitor.chain(names.map(|(at, number)| (at, EVENT_ID_DIGITS, number))).collect();
        Self { bytes: text.into_bytes(), ids }
    }
}

fn real_event(code: &str, random: &mut SmallRng, page: usize, referrer: Option<usize>, device: &str) -> String {
    let kind = match random.random_range(0..100) {
        0..12 => "click",
        12..17 => "custom",
        _ => "pageview",
    };
    let referrer = match referrer {
        Some(0) => r#""referrer":"https://www.google.com/","#.to_owned(),
        Some(number) => format!(r#""referrer":"https://site-{number}.example/links/{}","#, number * 7),
        None => String::new(),
    };
    let properties = if random.random_bool(0.1) {
        format!(r#","properties":{{"section":"section-{}","position":{},"signedIn":true}}"#, page % 12, page % 5)
    } else {
        String::new()
    };
    let browser = ["Chrome", "Safari", "Firefox", "Edge"][page % 4];
    let country = ["US", "DE", "IN", "BR", "JP", "FR"][page % 6];
    format!(
        r#"{{"trackingCode":"{code}","eventType":"{kind}","url":"https://example.com/articles/{page}/how-to-number-{page}",{referrer}"sessionId":"sess-{:012}","visitorId":"vis-{:012}","deviceType":"{device}","browser":"{browser}","os":"Windows","location":"{country}"{properties}}}"#,
        0, 0
    )
}

/// splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

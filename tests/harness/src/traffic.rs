//! Events as real trackers send them: the same ones for tests and benches.

/// One event of a visitor, numbered so that keys differ from event to event.
pub fn event(code: &str, number: usize) -> String {
    let kind = if number % 10 == 7 { "click" } else { "pageview" };
    let properties = if number % 10 == 7 { r#","properties":{"buttonId":"cta-button","position":3}"# } else { "" };
    let (session, visitor, page) = (session(number), visitor(number), number % 97);
    format!(
        r#"{{"trackingCode":"{code}","eventType":"{kind}","url":"https://example.com/blog/article-{page}?utm_source=news",{}"sessionId":"{session}","visitorId":"{visitor}","deviceType":"desktop","browser":"Chrome","os":"Windows","location":"US"{properties}}}"#,
        r#""referrer":"https://www.google.com/search?q=analytics","#
    )
}

/// The session of an event: five events each, under ids in no order, as trackers draw them.
pub fn session(number: usize) -> String {
    format!("sess-{:012x}", scatter(number / 5) >> 16)
}

/// The visitor of an event: twenty events each.
pub fn visitor(number: usize) -> String {
    format!("vis-{:012x}", scatter(!(number / 20)) >> 16)
}

/// splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
fn scatter(number: usize) -> u64 {
    let mut mixed = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A batch of the first events.
pub fn batch(code: &str, events: usize) -> String {
    let events: Vec<String> = (0..events).map(|number| event(code, number)).collect();
    format!(r#"{{"events":[{}]}}"#, events.join(","))
}

/// Batches at the price of a copy, so that who sends them leaves the processor to who takes them: a batch of the first
/// events, with the ids of later ones written over theirs.
pub struct Batches {
    body: Vec<u8>,
    ids: Vec<(usize, usize)>,
    times: Vec<usize>,
}

impl Batches {
    pub fn new(code: &str, events: usize) -> Self {
        let body = batch(code, events);
        let places = |name: &str| body.match_indices(name).map(|(at, name)| at + name.len()).collect::<Vec<_>>();
        let ids = places(r#""sessionId":""#).into_iter().zip(places(r#""visitorId":""#)).collect();
        Self { body: body.into_bytes(), ids, times: Vec::new() }
    }

    /// Batches with a timestamp in each event.
    pub fn timed(code: &str, events: usize) -> Self {
        let mut batches = Self::new(code, events);
        let body = String::from_utf8(batches.body).unwrap();
        let body = body.replace(r#""sessionId""#, r#""timestamp":1000000000000,"sessionId""#);
        let places = |name: &str| body.match_indices(name).map(|(at, name)| at + name.len()).collect::<Vec<_>>();
        batches.ids = places(r#""sessionId":""#).into_iter().zip(places(r#""visitorId":""#)).collect();
        batches.times = places(r#""timestamp":"#);
        batches.body = body.into_bytes();
        batches
    }

    /// The events from `first` on, each with its time in milliseconds, of 13 digits; and with another visitor, under a
    /// name of as many bytes, where there is one.
    pub fn batch_with(
        &mut self,
        first: usize,
        time: impl Fn(usize) -> u64,
        visitor: impl Fn(usize) -> Option<String>,
    ) -> &[u8] {
        self.from(first);
        for (number, (&time_at, &(_, visitor_at))) in (first..).zip(self.times.iter().zip(&self.ids)) {
            self.body[time_at..time_at + 13].copy_from_slice(time(number).to_string().as_bytes());
            if let Some(id) = visitor(number) {
                self.body[visitor_at..visitor_at + id.len()].copy_from_slice(id.as_bytes());
            }
        }
        &self.body
    }

    /// The events from `first` on.
    pub fn from(&mut self, first: usize) -> &[u8] {
        let (mut session_id, mut visitor_id) = (String::new(), String::new());
        for (number, &(session_at, visitor_at)) in (first..).zip(&self.ids) {
            // Five events have a session and twenty a visitor, as `event` has it.
            if number % 5 == 0 || number == first {
                session_id = session(number);
                visitor_id = visitor(number);
            }
            for (at, id) in [(session_at, &session_id), (visitor_at, &visitor_id)] {
                self.body[at..at + id.len()].copy_from_slice(id.as_bytes());
            }
        }
        &self.body
    }
}

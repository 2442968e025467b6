//! Random events, such that every rule of docs/numbers.md has something to decide.

use serde_json::{Value, json};

use super::{
    dice::Dice,
    filed::{NAME_KEYS, SOURCES},
    oracle::{Event, PAUSE_MS},
};

/// Where an event is sent without a time of its own, until hitlog says when it arrived.
pub const ON_ARRIVAL: i64 = i64::MIN;
const MINUTE_MS: i64 = 60_000;

pub const VISITORS: [&str; 9] = ["v0", "v1", "v2", "v3", "v4", "v5", "v6", "v/7 %25", "v8\u{fc}"];
const SESSIONS: [&str; 6] = ["s0", "s1", "s2", "s3", "constant", "v0"];
const HOSTS: [&str; 5] =
    ["example.com", "www.example.com", "EXAMPLE.com:8443", "blog.example.com", "user:pw@shop.example"];
const PATHS: [&str; 10] =
    ["", "/", "/blog", "/blog/", "/blog/a", "/blog/b*c", "/!x", "/caf%C3%A9", "/a%20b+c", "/preis/gr\u{f6}\u{df}e"];
const FRAGMENTS: [&str; 8] = ["", "", "", "#section", "#/users/7", "#/users/7?tab=2", "#!/x", "#"];
const QUERIES: [&str; 11] = [
    "",
    "",
    "?q=1",
    "?utm_source=news&utm_medium=e+mail&utm_campaign=50%25*off!&utm_content=a%20b&utm_term=%C3%BC",
    "?utm_source=news%2Bmore&source=other",
    "?utm_source=&source=list&ref=friend",
    "?utm_source=first&utm_source=second&utm_medium=&utm_medium=late",
    "?ref=friend",
    "?source=&ref=a%20friend",
    "?UTM_SOURCE=upper&utm_term=A%26B&utm_content=\u{e4}",
    "?utm_campaign&utm_source=News",
];
const NAMES: [&str; 7] = ["signup", "$engagement", "buy*now!", "a\\b", "Sign up", "click", ""];
/// Members of `properties` that lists are asked for: some that mean something to hitlog, some that do not, one that no
/// event has.
pub const PROPERTIES: [&str; 10] = [
    "plan",
    "gr\u{f6}\u{df}e/\u{fc}",
    "a \"b\" \\ +c",
    "%41",
    "name",
    "buttonId",
    "engagedMs",
    "interactive",
    "eventName",
    "nobody's",
];
const BROWSERS: [Option<&str>; 5] = [None, Some("Firefox"), Some("Chrome"), Some("Chrome*"), Some("")];
const OS: [Option<&str>; 4] = [None, Some("Linux"), Some("Windows 11"), Some("!os")];
const DEVICES: [Option<&str>; 4] = [None, Some("mobile"), Some("tablet"), Some("desktop")];
const LOCATIONS: [Option<&str>; 4] = [None, Some("DE"), Some("K\u{f6}ln, DE"), Some("US")];

/// What events to make.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub websites: usize,
    pub events: usize,
    pub from: i64,
    pub to: i64,
    /// Whether some come without a time of their own.
    pub some_on_arrival: bool,
}

/// Events in the order in which they are to be sent; `arrival` is not set yet.
pub fn events(dice: &mut Dice, shape: Shape) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < shape.events {
        let website = dice.below(shape.websites);
        let (session, visitor) = (session(dice), (*dice.pick(&VISITORS)).to_owned());
        let mut at = begin(dice, shape);
        let most = *dice.pick(&[1, 2, 4, 9]);
        let count = 1 + dice.below(most);
        let are_quiet = dice.once_in(6);
        for _ in 0..count {
            let mut event = event(dice, website, &session, &visitor, at);
            if are_quiet && event.is_view() {
                event.kind = "custom";
            }
            events.push(event);
            at += pause(dice);
        }
    }
    events.retain(|event| (shape.from..shape.to).contains(&event.created_at));
    events.truncate(shape.events);
    in_some_order(dice, &mut events);
    if shape.some_on_arrival {
        for event in &mut events {
            if dice.once_in(40) {
                event.created_at = ON_ARRIVAL;
            }
        }
    }
    events
}

/// As time goes, with some late by a little, or in no order at all.
fn in_some_order(dice: &mut Dice, events: &mut [Event]) {
    match dice.below(3) {
        0 => events.sort_by_key(|event| event.created_at),
        1 => {
            events.sort_by_key(|event| event.created_at);
            for window in events.chunks_mut(20) {
                dice.shuffle(window);
            }
        }
        _ => dice.shuffle(events),
    }
}

fn session(dice: &mut Dice) -> String {
    if dice.once_in(4) { format!("s-{:x}", dice.below(1 << 30)) } else { (*dice.pick(&SESSIONS)).to_owned() }
}

/// When a run of events begins: at any time, or beside a midnight, an hour or a quarter of one.
fn begin(dice: &mut Dice, shape: Shape) -> i64 {
    let at = dice.between(shape.from, shape.to - 1);
    let unit = *dice.pick(&[1, 15 * MINUTE_MS, 60 * MINUTE_MS, 24 * 60 * MINUTE_MS]);
    let beside = *dice.pick(&[-PAUSE_MS, -MINUTE_MS, -1, 0, 0, 1, MINUTE_MS]);
    at - at.rem_euclid(unit) + if unit == 1 { 0 } else { beside }
}

fn pause(dice: &mut Dice) -> i64 {
    match dice.below(12) {
        0 => PAUSE_MS,
        1 => PAUSE_MS + 1,
        2 => PAUSE_MS - 1,
        3 => 0,
        4 => 1,
        5 => 45 * MINUTE_MS,
        6 => 17 * 60 * MINUTE_MS,
        7 => dice.between(0, 2 * PAUSE_MS),
        _ => dice.between(1, 5 * MINUTE_MS),
    }
}

fn event(dice: &mut Dice, website: usize, session: &str, visitor: &str, created_at: i64) -> Event {
    let kind = *dice.pick(&["pageview", "pageview", "pageview", "click", "custom", "custom"]);
    let text = |text: &Option<&str>| text.map(str::to_owned);
    Event {
        website,
        kind,
        url: url(dice),
        referrer: referrer(dice),
        session: session.to_owned(),
        visitor: visitor.to_owned(),
        device_type: text(dice.pick(&DEVICES)),
        browser: text(dice.pick(&BROWSERS)),
        os: text(dice.pick(&OS)),
        location: text(dice.pick(&LOCATIONS)),
        properties: properties(dice),
        created_at,
        arrival: 0,
    }
}

fn url(dice: &mut Dice) -> String {
    let host = if dice.once_in(2) { HOSTS[0] } else { dice.pick(&HOSTS) };
    let path = match dice.below(16) {
        // Longer than a value may be, with a letter of two bytes across the end, or with one that ends there.
        0 => format!("/{}\u{fc}end", "x".repeat(1_022)),
        1 => format!("/{}\u{fc}end", "x".repeat(1_021)),
        _ => (*dice.pick(&PATHS)).to_owned(),
    };
    format!("https://{host}{path}{}{}", dice.pick(&QUERIES), dice.pick(&FRAGMENTS))
}

fn referrer(dice: &mut Dice) -> Option<String> {
    let own = ["example.com", "www.example.com", "shop.example", "WWW.Example.com:8443"];
    let host = match dice.below(5) {
        0 => return None,
        1 => *dice.pick(&own),
        _ => dice.pick(&SOURCES).0,
    };
    let www = if dice.once_in(3) && !host.to_lowercase().starts_with("www.") { "www." } else { "" };
    let host = if dice.once_in(5) { host.to_uppercase() } else { host.to_owned() };
    let port = if dice.once_in(8) && !host.contains(':') { ":8080" } else { "" };
    Some(format!("https://{www}{host}{port}{}", dice.pick(&["", "/", "/page?q=1", "?x#y"])))
}

fn properties(dice: &mut Dice) -> Value {
    let mut properties = named_properties(dice);
    while dice.once_in(2) {
        if properties.is_null() {
            properties = json!({});
        }
        properties[PROPERTIES[dice.below(4)]] = property(dice);
    }
    properties
}

/// A value that a list shows, or one that it does not.
fn property(dice: &mut Dice) -> Value {
    match dice.below(12) {
        0 => json!(dice.between(-3, 3)),
        1 => json!(*dice.pick(&[0.5, -2.25, 12_345.678, 1e-7, 1e300])),
        2 => json!(*dice.pick(&[u64::MAX, u64::MAX - 1, 1 << 53])),
        3 => json!(dice.once_in(2)),
        4 => dice.pick(&[Value::Null, json!([]), json!(["gold"]), json!({"plan": "gold"}), json!({})]).clone(),
        // Longer than a value may be, with a letter across the end.
        5 => json!(format!("{}\u{fc}end", "x".repeat(1_023))),
        _ => {
            json!(*dice.pick(&["gold", "Gold", "silver", "", " ", "say \"hi\"\n", "a\\b/\u{e4}", "true", "1", "null"]))
        }
    }
}

/// Those by which an event has a name, engages, interacts.
fn named_properties(dice: &mut Dice) -> Value {
    let mut properties = json!({});
    match dice.below(5) {
        0 => return Value::Null,
        1 => return properties,
        2 => {
            properties[*dice.pick(&NAME_KEYS)] = json!("$engagement");
            let ms = [json!(1_000), json!(86_400_000), json!(86_400_001), json!(-1), json!("500"), json!(12_345.678)];
            let more = [json!(0), json!(50), json!(149), json!(150), json!(true), Value::Null, json!(86_400_000.5)];
            properties["engagedMs"] = dice.pick(&[&ms[..], &more[..]].concat()).clone();
        }
        _ => {
            for _ in 0..1 + dice.below(3) {
                let name = match dice.below(6) {
                    0 => json!(7),
                    1 => json!(["signup"]),
                    _ => json!(*dice.pick(&NAMES)),
                };
                properties[*dice.pick(&NAME_KEYS)] = name;
            }
            if dice.once_in(3) {
                properties["engagedMs"] = json!(7_000);
            }
        }
    }
    if dice.once_in(4) {
        properties["interactive"] =
            dice.pick(&[json!(false), json!(false), json!(true), json!("false"), json!(0)]).clone();
    }
    properties
}

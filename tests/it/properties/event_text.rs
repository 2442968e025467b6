//! Texts of events and batches: most of them valid, each rule broken now and then, every limit met on both sides.

use proptest::{prelude::*, sample::select};

use super::json_text::{deep_text, number_text, object_text, quoted, string_text, value_text};

/// Tracking codes that are known; a target with other ones puts them in their places, as long as these are.
pub const CODES: [&str; 2] = ["pm-abc123-1704067200000", "pm-xyz789-1704067200001"];
/// The moment at which events arrive.
pub const NOW: i64 = 1_769_630_400_000;
pub const DAY_MS: i64 = 86_400_000;
/// How old events may be where they expire.
pub const AGE_MAX_MS: i64 = 400 * DAY_MS;

type Texts = BoxedStrategy<String>;

fn one_of(texts: &'static [&'static str]) -> Texts {
    select(texts).prop_map(quoted).boxed()
}

/// So many letters as lie about a limit, of one, two or four bytes.
fn about(limit: usize) -> Texts {
    (limit - 2..=limit + 2, select(&["x", "é", "🦀"][..]), any::<bool>())
        .prop_map(|(limit, letter, count_bytes)| {
            let count = if count_bytes { limit / letter.len() } else { limit };
            quoted(&format!("{}{}", letter.repeat(count), if count_bytes { "y" } else { "" }))
        })
        .boxed()
}

fn text_with_control() -> Texts {
    select(&[r#""a\u0000""#, r#""\n""#, r#""a\u001fb""#, r#""a\u007f""#, "\"\u{7f}\""][..])
        .prop_map(str::to_owned)
        .boxed()
}

/// A member's value: nearly always `valid`, sometimes `edge`, seldom anything.
fn mostly(valid: Texts, edge: Texts) -> Texts {
    prop_oneof![60 => valid, 4 => edge, 1 => value_text()].boxed()
}

fn code() -> Texts {
    let malformed = one_of(&["", "pm-", "pm-a b", "PM-abc", "abc", "pm-é", "pm-a\n", " pm-a", "pm-nobody", "pm_a"]);
    let long = (60..=63_usize).prop_map(|count| quoted(&format!("pm-{}", "a".repeat(count)))).boxed();
    let known = prop_oneof![4 => Just(quoted(CODES[0])), 1 => Just(quoted(CODES[1]))].boxed();
    mostly(known, prop_oneof![3 => malformed, 1 => long].boxed())
}

fn url() -> Texts {
    let valid = prop_oneof![
        "https?://[a-z]{1,8}\\.(com|example)(:[0-9]{1,4})?(/[a-z0-9/._-]{0,12})?(\\?[a-z=&%20]{0,12})?(#[a-z]?)?",
        select(&["https://example.com/", "https://bücher.example/é?ü", "http://[::1]:3000/", "android-app://a.b/"][..])
            .prop_map(str::to_owned),
    ];
    let odd = prop_oneof![
        "https?://([a-zA-Z0-9.:@%xn-]|[é/?#\\\\ ]){0,24}",
        "[a-zA-Z][a-z+.-]{0,9}:[ -~]{0,16}",
        "[hH]ttps?:/{0,3}[0-9a-fx.]{1,12}(:[0-9]{0,6})?",
        "(javascript|JavaScript|data|blob|DATA|about|mailto|ftp|file|ws):[a-z/:.]{0,12}",
        "(xn--[a-z0-9]{0,8}|[a-z]-{1,3}[a-z]|[a-z]{1,64})\\.com".prop_map(|host| format!("https://{host}/")),
        select(
            &["", "/", "//a/", "page", "https://", "http:a", " https://a/", "https://a/ ", "https:\\\\a", "?", "a:"][..]
        )
        .prop_map(str::to_owned),
        (4_074..=4_080_usize).prop_map(|count| format!("https://example.com/{}", "a".repeat(count))),
        (2_037..=2_040_usize).prop_map(|count| format!("https://example.com/{}", "é".repeat(count))),
    ];
    let control = select(&[r#""https://a.b/\u0009""#, r#""https://a.b/\n""#, r#""https://a.b/\u007f""#][..])
        .prop_map(str::to_owned);
    mostly(
        valid.prop_map(|url| quoted(&url)).boxed(),
        prop_oneof![6 => odd.prop_map(|url| quoted(&url)), 1 => control].boxed(),
    )
}

fn id() -> Texts {
    let edge = prop_oneof![1 => one_of(&["", " ", "é"]), 2 => about(128), 1 => text_with_control(), 2 => string_text()];
    mostly("[a-zA-Z0-9-]{1,20}".prop_map(|id| quoted(&id)).boxed(), edge.boxed())
}

fn label() -> Texts {
    let valid = prop_oneof![one_of(&["Chrome", "Größe", "", "US"]), Just("null".to_owned())].boxed();
    let edge = prop_oneof![2 => about(100), 1 => text_with_control(), 2 => string_text()];
    mostly(valid, edge.boxed())
}

fn timestamp() -> Texts {
    let around = |at: i64| (at - 2..=at + 2, select(&["", ".0", ".25", ".999", "e0"][..]));
    let text = |(at, fraction): (i64, &str)| format!("{at}{fraction}");
    let valid = (NOW - 30 * DAY_MS..=NOW).prop_map(|at| at.to_string()).boxed();
    let edge = prop_oneof![
        around(NOW + DAY_MS).prop_map(text),
        around(NOW - AGE_MAX_MS).prop_map(text),
        around(0).prop_map(text),
        around(946_684_800_000).prop_map(text),
        around(946_684_800).prop_map(text),
        around((NOW + DAY_MS) / 1_000).prop_map(text),
        around(253_402_300_799_999).prop_map(text),
        select(
            &["1.7e12", "17000000000000e-1", "-0", "-0.0", "-0.5", "0.5", "1e-400", "1e300", "9223372036854775808"][..]
        )
        .prop_map(str::to_owned),
        number_text(),
        Just("null".to_owned()),
        Just("\"1769630400000\"".to_owned()),
    ];
    mostly(valid, edge.boxed())
}

fn properties() -> Texts {
    let members = || prop::collection::vec((string_text(), value_text()), 0..5);
    let deep = deep_text().prop_map(|inner| format!("{{\"deep\":{inner}}}"));
    // Near the limit of 32 KiB as stored: some members, and a text that fills up what is left.
    let large = (0..5_usize, select(&[("x", 1), ("é", 2), (r"\n", 2), (r"\b", 6), (r"\u0041", 1), (r"\/", 1)][..]))
        .prop_map(|(over, (piece, bytes))| {
            let room = 32 * 1024 + over - 2 - r#"{"p":"","q":""}"#.len();
            format!(r#"{{"p":"{}", "q":"{}"}}"#, piece.repeat(room / bytes), "z".repeat(room % bytes))
        });
    let edge = prop_oneof![8 => Just("null".to_owned()), 8 => deep, 1 => large, 4 => value_text()];
    mostly(object_text(members()), edge.boxed())
}

/// A member as its texts; with its name escaped now and then, which changes nothing.
fn member(name: &'static str, value: Texts, presence: f64) -> BoxedStrategy<Option<(String, String)>> {
    let key = prop_oneof![
        60 => Just(quoted(name)),
        1 => Just(format!("\"\\u{:04x}{}\"", name.as_bytes()[0], &name[1..])),
        1 => Just(quoted(&name.to_lowercase())),
    ];
    prop::option::weighted(presence, (key, value)).boxed()
}

fn members() -> impl Strategy<Value = Vec<(String, String)>> {
    let known = vec![
        member("trackingCode", code(), 0.98),
        member(
            "eventType",
            mostly(one_of(&["pageview", "click", "custom"]), one_of(&["", "Click", "view", "click "])),
            0.98,
        ),
        member("url", url(), 0.98),
        member("referrer", prop_oneof![4 => url(), 1 => Just("\"\"".into()), 1 => Just("null".into())].boxed(), 0.5),
        member("sessionId", id(), 0.98),
        member("visitorId", id(), 0.98),
        member("deviceType", mostly(one_of(&["mobile", "tablet", "desktop"]), one_of(&["", "Mobile", "watch"])), 0.4),
        member("browser", label(), 0.4),
        member("os", label(), 0.3),
        member("location", label(), 0.3),
        member("timestamp", timestamp(), 0.5),
        member("properties", properties(), 0.5),
        member("eventId", prop_oneof![6 => id(), 1 => Just("null".into())].boxed(), 0.4),
    ];
    let unknown = prop_oneof![
        6 => Just(Vec::new()),
        1 => prop::collection::vec((string_text(), value_text()), 1..3),
    ];
    let doubled = prop::option::weighted(0.05, any::<prop::sample::Index>());
    (known, unknown, doubled)
        .prop_map(|(known, unknown, doubled)| {
            let mut members: Vec<_> = known.into_iter().flatten().chain(unknown).collect();
            if let Some(index) = doubled.filter(|_| !members.is_empty()) {
                members.push(index.get(&members).clone());
            }
            members
        })
        .prop_shuffle()
}

/// The text of one event.
pub fn event() -> BoxedStrategy<String> {
    prop_oneof![40 => object_text(members()), 1 => value_text()].boxed()
}

/// The body of one event; sometimes with something around it, which also moves it about in the parser's blocks.
pub fn event_body() -> BoxedStrategy<String> {
    let around = |texts: &'static [&'static str]| {
        prop_oneof![
            10 => Just(String::new()),
            3 => (0..70_usize).prop_map(|count| " ".repeat(count)),
            1 => select(texts).prop_map(str::to_owned),
        ]
    };
    let (before, after) =
        (around(&["\n", "\t", "\u{feff}", ",", "\u{c}"]), around(&["\r\n", "x", "{}", ",", "\0", "\u{c}"]));
    (before, event(), after).prop_map(|(before, event, after)| before + &event + &after).boxed()
}

/// The body of a batch.
pub fn batch_body() -> BoxedStrategy<String> {
    let events = prop::collection::vec(event(), 0..6).prop_map(|events| format!("[{}]", events.join(",")));
    let events = prop_oneof![40 => events, 1 => value_text()];
    let other = (string_text(), value_text()).prop_map(|(key, value)| format!("{key}:{value}"));
    prop_oneof![
        30 => events.clone().prop_map(|events| format!("{{\"events\":{events}}}")),
        2 => (events.clone(), other.clone()).prop_map(|(events, other)| format!("{{\"events\":{events},{other}}}")),
        2 => (events.clone(), other.clone())
            .prop_map(|(events, other)| format!("{{{other}, \"\\u0065vents\" : {events}}}")),
        1 => (events.clone(), events.clone()).prop_map(|(one, two)| format!("{{\"events\":{one},\"events\":{two}}}")),
        1 => other.prop_map(|other| format!("{{{other}}}")),
        1 => value_text(),
    ]
    .boxed()
}

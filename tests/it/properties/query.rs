//! Target: the query string of a listing, over a socket, against the model.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use proptest::{prelude::*, sample::select};

use super::{
    corpus::Corpus,
    listing::{FIRST_AT, Listing, SESSIONS, VISITORS, check_invalid},
    mutation::{Mutation, QUERY_TOKENS, Token, damaged, mutations},
    query_model::{QueryModel, Rule, Wanted},
    runner::{assert_found, assert_holds},
};

/// How a parameter's text is written in the query string.
#[derive(Debug, Clone, Copy)]
enum Style {
    AsIs,
    Escaped,
    EscapedLower,
    Plus,
}

/// A parameter: its name, its value, how they are written. `{0}` and `{1}` stand for the codes.
type Parameter = (String, String, Style);

/// A query string before the damage.
#[derive(Debug, Clone)]
enum Base {
    Made(Vec<Parameter>),
    /// `{0}` and `{1}` stand for the codes here, too.
    Kept(Token),
}

type Input = (Base, Vec<Mutation>);

const RULES: &[Rule] = &[
    Rule::Plus,
    Rule::Percent,
    Rule::Twice,
    Rule::CodeRequired,
    Rule::CodeKnown,
    Rule::EventType,
    Rule::Empty,
    Rule::IdBytes,
    Rule::LimitZero,
    Rule::LimitMax,
    Rule::Digits,
    Rule::Range,
    Rule::Order,
    Rule::CursorOrOffset,
    Rule::CursorChecked,
    Rule::TimeOffset,
    Rule::TimeCeiling,
    Rule::TimeDate,
];

fn owned(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    select(texts).prop_map(str::to_owned).boxed()
}

fn number() -> BoxedStrategy<String> {
    prop_oneof![
        8 => (0..60_u32).prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        4 => owned(&[
            "0", "1", "00", "007", "000000000000000000000000000000000000000005", "999", "1000", "1001", "", "-1", "-0",
            "+5", " 5", "5 ", "1.0", "1e3", "0x10", "٥", "9223372036854775807", "9223372036854775808",
            "18446744073709551616", "99999999999999999999999999999999999999999999",
        ]),
    ]
    .boxed()
}

fn time() -> BoxedStrategy<String> {
    let near = (18..38_u32).prop_map(|second| format!("2023-11-14T22:13:{second}"));
    let far = (0..10_000_u32, 0..14_u32, 0..33_u32, 0..25_u32, 0..61_u32, 0..61_u32).prop_map(
        |(year, month, day, hour, minute, second)| {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
        },
    );
    let month_end = (select(&[1900, 2000, 2023, 2024][..]), 1..13_u32, 28..32_u32)
        .prop_map(|(year, month, day)| format!("{year}-{month:02}-{day:02}t00:00:00"));
    let fraction = owned(&["", "", "", ".5", ".500", ".4991", ".999999999", ".0000001", ".", ".5x"]);
    let zone = prop_oneof![
        4 => owned(&["Z", "z", "+00:00", "-00:00"]),
        2 => owned(&["+00:01", "-00:01", "+23:59", "-23:59", "+01:30"]),
        1 => owned(&["", "+24:00", "+00:60", "+01", "+0130", "+1:30", "+01:30:15", "Z[UTC]", " Z", "UTC", "+01:30Z"]),
    ];
    prop_oneof![
        3 => (FIRST_AT - 2_000..FIRST_AT + 14_000).prop_map(|at| at.to_string()),
        1 => number(),
        6 => (prop_oneof![6 => near, 1 => far, 1 => month_end], fraction, zone)
            .prop_map(|(time, fraction, zone)| time + &fraction + &zone),
        1 => owned(&["now", "2023-11-14", "2023-11-14T22:13Z", "+2023-11-14T22:13:20Z", "2023-W46-2T22:13:20Z",
            "20231114T221320Z0000", "2023-318T22:13:20.000Z", "2023-11-14T22:13:20", "2023-11-14T221320.0000Z",
            "2023-11-14T22:13:20,5Z", "-023-11-14T22:13:20Z", "２023-11-14T22:13:20Z"]),
    ]
    .boxed()
}

fn id(known: &'static [&'static str]) -> BoxedStrategy<String> {
    let long =
        (126..131_usize, select(&["x", "é"][..])).prop_map(|(bytes, letter)| letter.repeat(bytes / letter.len()));
    prop_oneof![6 => owned(known), 1 => owned(&["", " ", "none", "\0", "é"]), 1 => long].boxed()
}

fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    let style = prop_oneof![
        5 => Just(Style::AsIs),
        2 => Just(Style::Escaped),
        1 => Just(Style::EscapedLower),
        1 => Just(Style::Plus)
    ];
    let parameter = |name: &'static str, value: BoxedStrategy<String>, presence: f64| {
        let parameter = (value, style.clone()).prop_map(move |(value, style)| (name.to_owned(), value, style));
        prop::option::weighted(presence, parameter).boxed()
    };
    let code = prop_oneof![30 => owned(&["{0}"]), 4 => owned(&["{1}"]), 1 => owned(&["", "pm-nobody", "x", "{0} "])];
    let known = vec![
        parameter("trackingCode", code.boxed(), 0.97),
        parameter(
            "eventType",
            prop_oneof![6 => owned(&["pageview", "click", "custom"]), 1 => owned(&["", "Click"])].boxed(),
            0.3,
        ),
        parameter("sessionId", id(&SESSIONS), 0.3),
        parameter("visitorId", id(&VISITORS), 0.2),
        parameter("from", time(), 0.3),
        parameter("to", time(), 0.3),
        parameter("limit", number(), 0.5),
        parameter("offset", number(), 0.4),
        parameter("cursor", prop_oneof!["[A-Za-z0-9_-]{0,8}", "[A-Za-z0-9_-]{64}"].boxed(), 0.05),
    ];
    let unknown = ("[a-zA-Z]{0,6}|limit |Limit|limit\\[\\]", "[a-z0-9]{0,6}", style)
        .prop_map(|(name, value, style)| (name, value, style));
    let unknown = prop_oneof![6 => Just(Vec::new()), 1 => prop::collection::vec(unknown, 1..3)];
    (known, unknown, prop::option::weighted(0.06, any::<prop::sample::Index>()))
        .prop_map(|(known, unknown, doubled)| {
            let mut parameters: Vec<Parameter> = known.into_iter().flatten().chain(unknown).collect();
            if let Some(index) = doubled.filter(|_| !parameters.is_empty()) {
                parameters.push(index.get(&parameters).clone());
            }
            parameters
        })
        .prop_shuffle()
}

fn inputs(corpus: &Corpus) -> impl Strategy<Value = Input> {
    let made = parameters().prop_map(Base::Made);
    let base = if corpus.inputs().is_empty() {
        made.boxed()
    } else {
        let kept = select(corpus.inputs().to_vec()).prop_map(|query| Base::Kept(Token(query)));
        prop_oneof![4 => made, 1 => kept].boxed()
    };
    (base, mutations(QUERY_TOKENS))
}

fn written(text: &str, style: Style) -> Vec<u8> {
    let escaped = percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
    match style {
        // What would end the head's line or has a meaning of its own is escaped in any case.
        Style::AsIs => text
            .bytes()
            .flat_map(|byte| match byte {
                b'!'..=b'~' if !b"&=+%#".contains(&byte) => vec![byte],
                _ => format!("%{byte:02X}").into_bytes(),
            })
            .collect(),
        Style::Escaped => escaped.into_bytes(),
        Style::EscapedLower => escaped.split('%').enumerate().fold(Vec::new(), |mut out, (at, part)| {
            if at > 0 {
                out.push(b'%');
                out.extend(part[..2].to_lowercase().bytes());
            }
            out.extend(part[if at > 0 { 2 } else { 0 }..].bytes());
            out
        }),
        Style::Plus => escaped.replace("%20", "+").into_bytes(),
    }
}

/// The query string, which never ends the line that it stands in.
fn query_of((base, mutations): &Input, codes: &[String]) -> Vec<u8> {
    let undamaged = match base {
        Base::Made(parameters) => parameters
            .iter()
            .map(|(name, value, style)| {
                let value = value.replace("{0}", &codes[0]).replace("{1}", &codes[1]);
                [written(name, *style), b"=".to_vec(), written(&value, *style)].concat()
            })
            .collect::<Vec<_>>()
            .join(&b'&'),
        Base::Kept(query) => with_codes(&query.0, codes),
    };
    let mut query = damaged(&undamaged, mutations);
    query.iter_mut().filter(|byte| matches!(**byte, b'\r' | b'\n')).for_each(|byte| *byte = b'x');
    query
}

fn with_codes(query: &[u8], codes: &[String]) -> Vec<u8> {
    replaced(&replaced(query, b"{0}", codes[0].as_bytes()), b"{1}", codes[1].as_bytes())
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(old.len()).position(|window| window == old) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    [out, rest.to_vec()].concat()
}

/// Whether a rule makes a difference to a kept query, whatever the codes are.
fn is_reached(rule: Rule, query: &[u8]) -> bool {
    let codes = ["pm-a1".to_owned(), "pm-b2".to_owned()];
    let query = with_codes(query, &codes);
    let wanted = |off| QueryModel { codes: &codes, off }.wanted(&query);
    wanted(Some(rule)) != wanted(None)
}

/// Keeps a query for each of the rules that make a difference to it.
fn keep(input: &Input, codes: &[String], corpus: &Corpus) {
    let query = query_of(input, codes);
    let query = query.split(|byte| *byte == b'#').next().unwrap();
    let query = replaced(&replaced(query, codes[0].as_bytes(), b"{0}"), codes[1].as_bytes(), b"{1}");
    for rule in RULES.iter().filter(|rule| is_reached(**rule, &query)) {
        corpus.keep(&format!("{rule:?}"), &query);
    }
}

/// Holds the answer against the model, less the rule that is off.
fn check(input: &Input, listing: &Listing, off: Option<Rule>) -> Result<(), String> {
    let query = query_of(input, &listing.codes);
    let response = listing.get(&[b"/api/v1/events?", &query[..]].concat())?;
    // A fragment is no part of the query. What is no part of a URI may be refused as no HTTP at all.
    let query = query.split(|byte| *byte == b'#').next().unwrap();
    let is_of_uri = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte);
    if response.status == 400 && response.text().contains("The head is not that of an HTTP/1.1 request") {
        let all = query_of(input, &listing.codes);
        return if all.iter().all(is_of_uri) { Err(format!("refused unread: {}", all.escape_ascii())) } else { Ok(()) };
    }
    let wanted = QueryModel { codes: &listing.codes, off }.wanted(query);
    let verdict = match &wanted {
        Wanted::Invalid(fields) => check_invalid(&response, fields.iter().copied()),
        Wanted::NotFound if response.status == 404 && response.error() == "NOT_FOUND" => Ok(()),
        Wanted::NotFound => Err(format!("{} {}", response.status, response.text())),
        Wanted::Page { .. } if response.status != 200 => Err(format!("{} {}", response.status, response.text())),
        Wanted::Page { filter, passed, limit } => listing.check_page(&response, filter, *passed, *limit),
    };
    verdict.map_err(|fault| format!("the query {}\nmodel:  {wanted:?}\nhitlog: {fault}", query.escape_ascii()))
}

#[test]
fn queries_are_answered_as_the_model_says() {
    let (listing, corpus) = (Listing::start(), Corpus::open("query"));
    for query in corpus.inputs() {
        let input = (Base::Kept(Token(query.clone())), Vec::new());
        check(&input, &listing, None).unwrap_or_else(|fault| panic!("{fault}"));
    }
    assert_holds("query string", &inputs(&corpus), |input| {
        check(input, &listing, None)?;
        if corpus.grows {
            keep(input, &listing.codes, &corpus);
        }
        Ok(())
    });
    listing.stop();
}

#[test]
fn control_every_rule_of_a_query_is_reached() {
    let listing = Listing::start();
    for rule in RULES {
        assert_found(&format!("{rule:?} off"), &inputs(&Corpus::none()), |input| check(input, &listing, Some(*rule)));
    }
    listing.stop();
}

#[test]
fn what_is_kept_reaches_every_rule() {
    let corpus = Corpus::open("query");
    for rule in RULES {
        let is_reached = corpus.inputs().iter().any(|query| is_reached(*rule, query));
        assert!(is_reached, "no kept query reaches {rule:?}: run scripts/properties 60 grow");
    }
}

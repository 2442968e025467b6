//! Target: cursors, over a socket. Where one is what hitlog gave for this listing, its page follows; anything else is
//! refused, but for an empty one, which is none.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use proptest::{prelude::*, sample::Index};

use super::{
    listing::{FIRST_AT, Filter, Listing, check_invalid},
    mutation::{Mutation, damaged, mutations},
    runner::{assert_found, assert_holds},
};

/// What a cursor's text likes to be confused with.
const TOKENS: &[&[u8]] = &[
    b"=",
    b"==",
    b"A",
    b"AAAA",
    b"-",
    b"_",
    b"+",
    b"/",
    b" ",
    b"%",
    b"%41",
    b"\0",
    b"\n",
    b"\xff",
    b"\xc3\xa9",
    b"a",
    b"Q",
];
/// Events of a page while the cursors are gathered.
const PAGE: u64 = 3;

/// A cursor that hitlog gave.
struct Given {
    listing: usize,
    text: String,
    /// How many events stand before it.
    passed: u64,
}

/// The queries of some listings, the same listing in other words among them, and what they are narrowed to.
fn listings(codes: &[String; 2]) -> Vec<(String, Filter)> {
    let [one, two] = codes;
    let narrowed = |website, change: fn(&mut Filter)| {
        let mut filter = Filter { website, ..Filter::default() };
        change(&mut filter);
        filter
    };
    vec![
        (format!("trackingCode={one}"), narrowed(0, |_| {})),
        (format!("trackingCode={two}"), narrowed(1, |_| {})),
        (format!("trackingCode={one}&eventType=click"), narrowed(0, |filter| filter.event_type = Some("click".into()))),
        (format!("trackingCode={one}&sessionId=s"), narrowed(0, |filter| filter.session = Some("s".into()))),
        (format!("trackingCode={one}&visitorId=v"), narrowed(0, |filter| filter.visitor = Some("v".into()))),
        (format!("trackingCode={one}&visitorId=s"), narrowed(0, |filter| filter.visitor = Some("s".into()))),
        (format!("trackingCode={one}&from={FIRST_AT}"), narrowed(0, |filter| filter.from = Some(FIRST_AT))),
        (format!("from=2023-11-14T22:13:20Z&trackingCode={one}"), narrowed(0, |filter| filter.from = Some(FIRST_AT))),
        (format!("trackingCode={one}&to={FIRST_AT}9"), narrowed(0, |filter| filter.to = Some(FIRST_AT * 10 + 9))),
    ]
}

/// Which cursor, for which listing, with what damage, for how many events.
type Input = (Index, Index, bool, Vec<Mutation>, u64);

fn inputs() -> impl Strategy<Value = Input> {
    (any::<Index>(), any::<Index>(), any::<bool>(), mutations(TOKENS), 1..60_u64)
}

struct World {
    hitlog: Listing,
    listings: Vec<(String, Filter)>,
    given: Vec<Given>,
}

impl World {
    /// Walks through each listing and keeps its cursors.
    fn start() -> Self {
        let hitlog = Listing::start();
        let listings = listings(&hitlog.codes);
        let mut given = Vec::new();
        for (listing, (query, filter)) in listings.iter().enumerate() {
            let (mut passed, mut cursor) = (0, String::new());
            loop {
                let response = hitlog.get(format!("/api/v1/events?{query}&limit={PAGE}{cursor}").as_bytes()).unwrap();
                hitlog.check_page(&response, filter, passed, PAGE).unwrap();
                let Some(next) = response.json()["pagination"]["next"].as_str().map(str::to_owned) else { break };
                passed += PAGE;
                cursor = format!("&cursor={next}");
                given.push(Given { listing, text: next, passed });
            }
        }
        assert!(given.len() > 20, "{} cursors", given.len());
        Self { hitlog, listings, given }
    }
}

/// A belief about cursors that is wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// A cursor is good for any listing.
    Unbound,
    /// Upper and lower case are the same.
    AnyCase,
    /// What follows is not looked at.
    Prefix,
    /// The page is the one before it.
    PageBefore,
}

fn check((given, other, same, mutations, limit): &Input, world: &World, fault: Option<Fault>) -> Result<(), String> {
    let given = given.get(&world.given);
    let listing = if *same { given.listing } else { other.index(world.listings.len()) };
    let (query, filter) = &world.listings[listing];
    let text = damaged(given.text.as_bytes(), mutations);
    let escaped = percent_encode(&text, NON_ALPHANUMERIC);
    let target = format!("/api/v1/events?{query}&limit={limit}&cursor={escaped}");
    let response = world.hitlog.get(target.as_bytes())?;
    let is_given = match fault {
        Some(Fault::AnyCase) => text.eq_ignore_ascii_case(given.text.as_bytes()),
        Some(Fault::Prefix) => text.starts_with(given.text.as_bytes()),
        _ => text == given.text.as_bytes(),
    };
    let is_bound = fault != Some(Fault::Unbound);
    let passed = if fault == Some(Fault::PageBefore) { given.passed - 1 } else { given.passed };
    if text.is_empty() {
        // As if there were none.
        return world.hitlog.check_page(&response, filter, 0, *limit).map_err(|fault| format!("{target}: {fault}"));
    }
    let verdict = if is_given && (*filter == world.listings[given.listing].1 || !is_bound) {
        if response.status == 200 {
            world.hitlog.check_page(&response, filter, passed, *limit)
        } else {
            Err(format!("{} {}", response.status, response.text()))
        }
    } else {
        check_invalid(&response, ["cursor"])
    };
    verdict.map_err(|fault| format!("{target}: {fault}"))
}

#[test]
fn cursors_lead_to_their_page_or_nowhere() {
    let world = World::start();
    assert_holds("cursor", &inputs(), |input| check(input, &world, None));
    world.hitlog.stop();
}

#[test]
fn control_wrong_beliefs_about_cursors_are_found() {
    let world = World::start();
    for fault in [Fault::Unbound, Fault::AnyCase, Fault::Prefix, Fault::PageBefore] {
        assert_found(&format!("{fault:?}"), &inputs(), |input| check(input, &world, Some(fault)));
    }
    world.hitlog.stop();
}

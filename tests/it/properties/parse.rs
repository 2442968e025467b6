//! Target: bytes of a body to events, against the model.

use std::sync::Arc;

use hitlog::event::{
    Arrival, EventRow, Faults, IdHash, IdHasher, Intake, Rejection, Rules, ValidEvents, Warnings, parse_batch,
    parse_event,
};
use proptest::prelude::*;

use super::{
    corpus::Corpus,
    event_text::{AGE_MAX_MS, CODES, DAY_MS, NOW, batch_body, event_body},
    json::{self, Reading},
    model::{Model, NAME_KEY, Oddity, Refusal, Rule, Stored, Verdict},
    mutation::{JSON_TOKENS, Mutation, Token, damaged, mutations},
    runner::{assert_found, assert_holds},
};

/// hitlog's defaults, but for batches that are soon too large.
pub const KEEPS_FOR_EVER: Rules = Rules {
    url_bytes_max: 4_096,
    any_bare_scheme: false,
    id_bytes_max: 128,
    text_chars_max: 100,
    properties_bytes_max: 32 * 1024,
    properties_depth_max: 32,
    timestamp_ahead_max_ms: DAY_MS,
    timestamp_age_max_ms: i64::MAX,
    batch_events_max: 4,
    item_bytes_max: 256 * 1024,
    warnings_told_max: 1_000,
};
const EXPIRES: Rules = Rules { timestamp_age_max_ms: AGE_MAX_MS, ..KEEPS_FOR_EVER };
/// So small an item that batches are read item by item as often as at once.
const BATCH_ITEM_BYTES_MAX: usize = 1_000;
const WEBSITES: [(&str, &str); 2] = [(CODES[0], "web-1"), (CODES[1], "web-2")];

/// The key that batches come with.
const KEY: &str = "key";

/// A body, the damage to it, and whether events expire.
type Input = (Token, Vec<Mutation>, bool);

fn inputs(bodies: BoxedStrategy<String>, corpus: &Corpus) -> impl Strategy<Value = Input> {
    (corpus.or(bodies.prop_map(String::into_bytes)), mutations(JSON_TOKENS), any::<bool>())
}

/// The rules of one event, and those of a batch.
const EVENT_RULES: &[Rule] = &[
    Rule::Read(Reading::Utf8),
    Rule::Read(Reading::Trailing),
    Rule::Read(Reading::Depth),
    Rule::Read(Reading::Whole),
    Rule::Read(Reading::Finite),
    Rule::Read(Reading::Surrogates),
    Rule::Read(Reading::RawControl),
    Rule::Read(Reading::ByteOrderMark),
    Rule::Object,
    Rule::Twice,
    Rule::Required,
    Rule::Code,
    Rule::CodeLength,
    Rule::EventType,
    Rule::DeviceType,
    Rule::Control,
    Rule::UrlBytes,
    Rule::UrlAbsolute,
    Rule::UrlScheme,
    Rule::UrlSlashes,
    Rule::EmptyReferrer,
    Rule::ReferrerDropped,
    Rule::IdEmpty,
    Rule::IdBytes,
    Rule::LabelChars,
    Rule::TimeNumber,
    Rule::TimeFrom,
    Rule::TimeTo,
    Rule::TimeAhead,
    Rule::TimeAge,
    Rule::TimeNull,
    Rule::TimeSeconds,
    Rule::TimeBefore2000,
    Rule::PropertiesObject,
    Rule::PropertiesBytes,
    Rule::OwnName,
    Rule::NameWhole,
    Rule::NameOfWebsite,
];
const BATCH_RULES: &[Rule] = &[
    Rule::UnknownCodeFirst,
    Rule::EventsTwice,
    Rule::EventsMax,
    Rule::EventsEmpty,
    Rule::Required,
    Rule::ItemExcess,
    Rule::ItemBytes,
    Rule::OwnName,
    Rule::KeyName,
    Rule::KeyIndex,
    Rule::Read(Reading::Surrogates),
];

fn intake(code: &str) -> Option<Arc<Intake>> {
    WEBSITES.iter().find(|(known, _)| *known == code).map(|(_, website)| Intake::of_anything(*website))
}

fn stored(row: &EventRow<'_>, id_hash: Option<IdHash>) -> Stored {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("texts are UTF-8").to_owned();
    let texts = [
        ("eventType", Some(row.event_type)),
        ("url", Some(row.url)),
        ("referrer", row.referrer),
        ("sessionId", Some(row.session_id)),
        ("visitorId", Some(row.visitor_id)),
        ("deviceType", row.device_type),
        ("browser", row.browser),
        ("os", row.os),
        ("location", row.location),
    ];
    Stored {
        website: text(row.website_id),
        texts: texts.into_iter().filter_map(|(name, bytes)| Some((name, text(bytes?)))).collect(),
        properties: row.properties.map(|bytes| json::read(bytes, 32, None).expect("properties are JSON")),
        properties_bytes: row.properties.map_or(0, <[u8]>::len),
        created_at: row.created_at,
        id_hash: id_hash.map(|IdHash(hash)| hash),
    }
}

fn rows(events: &ValidEvents) -> Vec<Stored> {
    assert!(events.rows().all(|row| row.received_at == NOW));
    let id_hashes = events.id_hashes();
    assert!(id_hashes.is_empty() || id_hashes.len() == events.len());
    let id_hash = |index| id_hashes.get(index).copied().flatten();
    events.rows().enumerate().map(|(index, row)| stored(&row, id_hash(index))).collect()
}

/// The refusal in the model's words.
fn refusal(rejection: &Rejection) -> Refusal {
    match rejection {
        Rejection::Malformed(_) => Refusal::Malformed,
        Rejection::Invalid(Faults { form, fields, places }) => {
            assert!(places.is_empty(), "an event has no lists: {places:?}");
            Refusal::Invalid(!form.is_empty(), fields.iter().map(|(name, _)| (*name).to_owned()).collect())
        }
        Rejection::UnknownWebsite(_) => Refusal::Unknown,
        Rejection::OtherHost(_) | Rejection::Gpc => panic!("websites that take anything refuse nothing: {rejection:?}"),
    }
}

fn oddities(warnings: &Warnings) -> Vec<Oddity> {
    assert_eq!(warnings.counts().map(|(_, count)| count).sum::<u64>(), warnings.told().len() as u64);
    warnings.told().iter().map(|warning| (warning.index, warning.field, warning.code)).collect()
}

/// Whether what is malformed is told with its place, but for what has none.
fn is_placed(rejection: &Rejection, body: &[u8]) -> bool {
    let Rejection::Malformed(text) = rejection else { return true };
    let place = text.split_once(" at byte ").and_then(|(_, rest)| rest.split(':').next()?.parse::<usize>().ok());
    place.is_some_and(|place| place <= body.len()) || text.contains("is empty")
}

fn arrival(is_batch: bool) -> Arrival {
    let idempotency_key = is_batch.then(|| KEY.into());
    Arrival { received_at: NOW, idempotency_key, gpc: None, ids: Some(IdHasher::new(NAME_KEY)) }
}

fn hitlogs_event(body: &[u8], rules: &Rules) -> Result<Verdict, Rejection> {
    let (events, warnings) = parse_event(body.to_vec(), rules, &arrival(false), intake)?;
    Ok(Ok((rows(&events), Vec::new(), oddities(&warnings))))
}

fn hitlogs_batch(body: &[u8], rules: &Rules) -> Result<Verdict, Rejection> {
    let batch = parse_batch(body.to_vec(), rules, &arrival(true), intake)?;
    let refused = batch.refused.iter().map(|(index, rejection)| (*index, refusal(rejection))).collect();
    Ok(Ok((rows(&batch.events), refused, oddities(&batch.warnings))))
}

fn rules(expires: bool, is_batch: bool) -> Rules {
    let rules = if expires { EXPIRES } else { KEEPS_FOR_EVER };
    if is_batch { Rules { item_bytes_max: BATCH_ITEM_BYTES_MAX, ..rules } } else { rules }
}

/// What the model says, less the rule that is off.
fn wanted(body: &[u8], expires: bool, is_batch: bool, off: Option<Rule>) -> Verdict {
    let key = is_batch.then_some(KEY);
    let model = Model { rules: &rules(expires, is_batch), now: NOW, websites: &WEBSITES, key, off };
    if is_batch { model.batch(body) } else { model.event(body) }
}

/// Holds hitlog against the model, less the rule that is off.
fn check(input: &Input, is_batch: bool, off: Option<Rule>) -> Result<(), String> {
    let (base, mutations, expires) = input;
    let body = damaged(&base.0, mutations);
    let wanted = wanted(&body, *expires, is_batch, off);
    let rules = rules(*expires, is_batch);
    let found = if is_batch { hitlogs_batch(&body, &rules) } else { hitlogs_event(&body, &rules) };
    let fault = match found {
        Err(rejection) if !is_placed(&rejection, &body) => format!("told without a place: {rejection:?}"),
        Err(rejection) if wanted == Err(refusal(&rejection)) => return Ok(()),
        Ok(found) if wanted == found => return Ok(()),
        found => format!("model:  {wanted:?}\nhitlog: {found:?}"),
    };
    Err(format!("the body {}\n{fault}", body.escape_ascii()))
}

/// Keeps an input for each of the rules that make a difference to it.
fn keep(input: &Input, is_batch: bool, rules: &[Rule], corpus: &Corpus) {
    let (base, mutations, expires) = input;
    let body = damaged(&base.0, mutations);
    let verdict = wanted(&body, *expires, is_batch, None);
    for rule in rules.iter().filter(|rule| wanted(&body, *expires, is_batch, Some(**rule)) != verdict) {
        corpus.keep(&format!("{rule:?}"), &body);
    }
}

fn hold(target: &str, bodies: BoxedStrategy<String>, is_batch: bool, rules: &[Rule], corpus: &Corpus) {
    for (input, expires) in corpus.inputs().iter().flat_map(|input| [(input, false), (input, true)]) {
        check(&(Token(input.clone()), Vec::new(), expires), is_batch, None).unwrap_or_else(|fault| panic!("{fault}"));
    }
    assert_holds(target, &inputs(bodies, corpus), |input| {
        check(input, is_batch, None)?;
        if corpus.grows {
            keep(input, is_batch, rules, corpus);
        }
        Ok(())
    });
}

#[test]
fn events_are_parsed_as_the_model_says() {
    hold("parse one event", event_body(), false, EVENT_RULES, &Corpus::open("event"));
}

#[test]
fn batches_are_parsed_as_the_model_says() {
    hold("parse a batch", batch_body(), true, BATCH_RULES, &Corpus::open("batch"));
}

#[test]
fn control_every_rule_of_an_event_is_reached() {
    let none = Corpus::none();
    for rule in EVENT_RULES {
        let inputs = inputs(event_body(), &none);
        assert_found(&format!("{rule:?} off"), &inputs, |input| check(input, false, Some(*rule)));
    }
}

#[test]
fn control_every_rule_of_a_batch_is_reached() {
    let none = Corpus::none();
    for rule in BATCH_RULES {
        let inputs = inputs(batch_body(), &none);
        assert_found(&format!("{rule:?} off"), &inputs, |input| check(input, true, Some(*rule)));
    }
}

#[test]
fn what_is_kept_reaches_every_rule() {
    for (target, is_batch, rules) in [("event", false, EVENT_RULES), ("batch", true, BATCH_RULES)] {
        let corpus = Corpus::open(target);
        for rule in rules {
            let differs = |body: &Vec<u8>, expires| {
                wanted(body, expires, is_batch, Some(*rule)) != wanted(body, expires, is_batch, None)
            };
            let is_reached = corpus.inputs().iter().any(|body| differs(body, false) || differs(body, true));
            assert!(is_reached, "no kept {target} reaches {rule:?}: run scripts/properties 60 grow");
        }
    }
}

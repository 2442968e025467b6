//! Parsing against serde_json as a model, and the two ways of a batch against each other.

use super::*;
use crate::event::{
    IdHasher,
    body::Body,
    fields::Output,
    tape::{BODY_PADDING, entries_max},
};

/// Any JSON value, objects and arrays up to six deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\x00-\\x7f\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// What a client says about an event in `properties` comes back as the same JSON.
    #[test]
    fn properties_come_back_equal(members in prop::collection::btree_map(".{0,6}", any_json(), 0..8)) {
        let properties = Value::Object(members.into_iter().collect());
        let body = event_with(json!({"properties": properties})).to_string();
        let (events, _) = parse(body.as_bytes()).unwrap();
        let back: Value = serde_json::from_slice(events.rows().next().unwrap().properties.unwrap()).unwrap();
        prop_assert_eq!(back, properties);
    }

    /// Whatever JSON is put in for a member: it is refused by name, or comes back equal.
    #[test]
    fn any_value_is_refused_or_kept(
        field in prop::sample::select(vec!["url", "referrer", "sessionId", "visitorId", "browser", "os", "location"]),
        value in any_json(),
    ) {
        let body = event_with(json!({field: value})).to_string();
        match parse(body.as_bytes()) {
            Ok((events, warnings)) => {
                let row = events.rows().next().unwrap();
                let kept = match field {
                    "url" => Some(row.url),
                    "referrer" => row.referrer,
                    "sessionId" => Some(row.session_id),
                    "visitorId" => Some(row.visitor_id),
                    "browser" => row.browser,
                    "os" => row.os,
                    _ => row.location,
                };
                let wanted = value.as_str().filter(|text| field != "referrer" || !text.is_empty()).map(str::as_bytes);
                // A referrer that is none is dropped, and told.
                let is_dropped = codes(&warnings) == [("referrer", WarningCode::ReferrerDropped)];
                prop_assert_eq!(kept, wanted.filter(|_| !is_dropped));
            }
            Err(Rejection::Invalid(faults)) => prop_assert_eq!(faults.fields[0].0, field),
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }

    /// Damage a valid body anywhere: we take it exactly when serde_json does (which has our limits on numbers and,
    /// at this size, on depth), and never panic.
    #[test]
    fn damaged_bodies_are_judged_as_serde_json_judges(
        value in any_json(),
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0123456789eE+-.tfn \x01\x7f\xc3\xed".to_vec())],
        insert: bool,
    ) {
        let mut body = format!(r#"{{"unknown":{value},"url":"x"}}"#).into_bytes();
        let at = at.index(body.len());
        if insert { body.insert(at, byte) } else { body[at] = byte }
        let model = serde_json::from_slice::<Value>(&body);
        let ours = parse(&body);
        let malformed = matches!(ours, Err(Rejection::Malformed(_)));
        // Half a surrogate pair is stored as U+FFFD, and a byte-order mark is passed over.
        let repaired = String::from_utf8_lossy(&body).contains("\\u");
        // serde_json reads whole numbers beyond 64 bits as doubles; the contract refuses them.
        let wide = String::from_utf8_lossy(&body).split(|letter: char| !letter.is_ascii_digit()).any(|run| run.len() > 18);
        if !wide && !repaired {
            prop_assert_eq!(malformed, model.is_err(), "{}: {:?}", String::from_utf8_lossy(&body), ours);
        }
    }
}

/// With names for some events and without, by what their batch says.
fn arrival() -> Arrival {
    let ids = Some(IdHasher::new(b"0123456789abcdef"));
    Arrival { idempotency_key: Some("key".into()), ids, ..Arrival::at(NOW) }
}

/// Reads a batch by one way only: at once, or item by item. `None` if that way leaves it to the other one.
fn by_one_way(body: &[u8], rules: &Rules, is_whole: bool) -> Option<Result<ParsedBatch, Rejection>> {
    let Body { mut bytes, len, has_escapes, repairs } = match Body::prepare(body.to_vec()) {
        Ok(body) => body,
        Err(empty) => return Some(Err(empty)),
    };
    let sent = bytes.clone();
    let arrival = arrival();
    let mut batch = Batch::new(Output::new(Naming::Own, &arrival, &bytes, repairs), rules, intake);
    if is_whole {
        match batch.read_whole(&mut bytes, len, has_escapes) {
            Ok(true) => {}
            Ok(false) => {
                assert_eq!(bytes, sent, "changed, and left to the other way");
                return None;
            }
            Err(refusal) => return Some(Err(refusal)),
        }
    } else if let Err(refusal) = batch.read_by_items(&mut bytes, len, has_escapes) {
        return Some(Err(refusal));
    }
    Some(Ok(batch.finish(bytes)))
}

/// All that a client sees of a batch.
fn seen(batch: &Result<ParsedBatch, Rejection>) -> String {
    let Ok(batch) = batch else { return format!("{batch:?}") };
    let (rows, ids) = (batch.events.rows().collect::<Vec<_>>(), batch.events.id_hashes());
    format!("{rows:?}\n{ids:?}\n{:?}\n{:?}", batch.refused, batch.warnings)
}

/// The text of an item, with something odd in it now and then.
fn item_text() -> impl Strategy<Value = String> {
    let oddity = prop::sample::select(vec![
        r#""x":18446744073709551616"#,
        r#""timestamp":1e999"#,
        r#""timestamp":1795627235"#,
        r#""os":"\ud83d""#,
        r#""os":"\n""#,
        r#""os":"a","os":"b""#,
        r#""properties":{"\ud800":[1,{"a":"\udc00\\"}]}"#,
        r#""properties":{"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
        r#""properties":{"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
        r#""referrer":"google.com""#,
        r#""referrer":-1e999"#,
        r#""eventId":"a\u00e9""#,
        r#""eventId":"""#,
        r#""browser":"x\"\\\/\u00e9""#,
        r#""trackingCode":"pm-nobody""#,
        r#""b":   "              long              ","c":[ 1 , 2 , 3 ]"#,
    ]);
    let event = event_with(json!({})).to_string();
    let odd = (oddity, any::<bool>()).prop_map(move |(oddity, is_first)| {
        if is_first {
            event.replacen('{', &format!("{{{oddity},"), 1)
        } else {
            format!("{},{oddity}}}", event.strip_suffix('}').unwrap())
        }
    });
    prop_oneof![
        4 => Just(event_with(json!({})).to_string()),
        4 => odd,
        1 => any_json().prop_map(|value| value.to_string()),
        1 => prop::sample::select(vec!["[]", "{}", " 1", "1e999", "tru", "", r#""\ud800""#]).prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Whichever way a batch is read, and whether it is large or small: the client sees the same.
    #[test]
    fn both_ways_of_a_batch_see_the_same(
        items in prop::collection::vec(item_text(), 0..6),
        beside in prop::sample::select(vec!["", r#","a":"\ud800""#, r#","a":1e999"#, r#","events":[1]"#]),
        name in prop::sample::select(vec!["events", "\\u0065vents"]),
        item_bytes_max in prop_oneof![Just(256 * 1024_usize), 100..2_000_usize],
        damage in prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut body = format!(r#"{{"{name}":[{}]{beside}}}"#, items.join(", ")).into_bytes();
        if let Some((at, byte)) = damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let rules = Rules { item_bytes_max, warnings_told_max: 3, ..RULES };
        let by_items = by_one_way(&body, &rules, false).map(|batch| seen(&batch));
        if let Some(whole) = by_one_way(&body, &rules, true) {
            prop_assert_eq!(Some(seen(&whole)), by_items.clone(), "{}", body.escape_ascii());
        }
        prop_assert_eq!(Some(seen(&parse_batch(body.clone(), &rules, &arrival(), intake))), by_items);
    }

    /// The bound on the parser's entries is one, and of usual events not far from the truth.
    #[test]
    fn entries_are_bounded(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "1", "x", " ", "\n", "\"a\":", "\"\"", "\\\"", "\u{1}", "é",
    ]), 1..600)) {
        let text = pieces.concat();
        let mut padded = text.clone().into_bytes();
        padded.resize(text.len() + BODY_PADDING, 0);
        let mut buffers = simd_json::Buffers::with_max_depth(text.len(), 9);
        let mut tape = simd_json::Tape(Vec::new());
        let _ = simd_json::fill_tape_padded(&mut padded, text.len(), &mut buffers, &mut tape);
        let entries = buffers.structural_indexes().len();
        prop_assert!(entries <= entries_max(text.as_bytes()), "{} of {}", entries_max(text.as_bytes()), entries);
    }
}

#[test]
fn a_large_batch_of_usual_events_is_read_at_once() {
    let event =
        event_with(json!({"url": "https://example.com/a?b=c,d:e", "properties": {"a": [1, 2.5], "b": "c d e"}}));
    let body = json!({"events": vec![event; 1_000]}).to_string();
    let rules = Rules { item_bytes_max: 64 * 1024, ..RULES };
    assert!(body.len() > 2 * rules.item_bytes_max);
    let batch = by_one_way(body.as_bytes(), &rules, true).unwrap().unwrap();
    assert_eq!(batch.events.len(), 1_000);
    // What would need more of the parser's memory than a small body may, or what may have a large item, is not.
    for dense in ["1,".repeat(100_000), format!("\"{}\",", "x".repeat(70_000))] {
        let body = format!(r#"{{"events":[{dense}1]}}"#);
        let rules = Rules { batch_events_max: usize::MAX, ..rules.clone() };
        assert!(by_one_way(body.as_bytes(), &rules, true).is_none());
    }
}

#[test]
fn strings_that_are_far_apart_do_not_hide_a_small_item() {
    let item = event_with(json!({})).to_string();
    let numbers = vec!["1000000000"; 8_000].join(",");
    let body = format!(r#"{{"events":[{numbers},{item},{numbers},"a",{item},{numbers}]}}"#);
    let rules = Rules { batch_events_max: usize::MAX, ..RULES };
    for (item_bytes_max, is_at_once) in [(180_000, true), (170_000, false)] {
        let rules = Rules { item_bytes_max, ..rules.clone() };
        assert!(body.len() > item_bytes_max);
        let at_once = by_one_way(body.as_bytes(), &rules, true).map(|batch| seen(&batch));
        let by_items = by_one_way(body.as_bytes(), &rules, false).map(|batch| seen(&batch));
        assert!(at_once.is_some() == is_at_once && (at_once.is_none() || at_once == by_items));
    }
}

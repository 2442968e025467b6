//! The byte that is named, and whose fault it is.

use super::*;

/// Faulty bodies: `!` stands before the byte that a reader would name, and is not part of them.
const MARKED: &[&str] = &[
    // The end comes too early: the byte behind the last one.
    "{!",
    "[!",
    r#"{"a"!"#,
    r#"{"a":!"#,
    r#"{"a":1!"#,
    r#"{"a":1,!"#,
    r#"{"a":[1!"#,
    r#"{"a":[1,!"#,
    r#"{"a":[1] !"#,
    r#"{"a":"b!"#,
    r#"{"a":"b\"!"#,
    r#"{"a!"#,
    // Something that belongs elsewhere.
    "!]",
    "!}",
    "!,",
    "!:1",
    "!x",
    "{!1:2}",
    "{!a:2}",
    "{!'a':2}",
    "{!,}",
    r#"{"a"!}"#,
    r#"{"a" !1}"#,
    r#"{"a":!}"#,
    r#"{"a"::}"#,
    r#"{"a":1!]"#,
    r#"{"a":1 !"b":2}"#,
    r#"{"a":1,!}"#,
    r#"{"a":1,!"#,
    r#"{"a":{"b":1!]}"#,
    "[1,!]",
    "[1 !2]",
    "[1!}",
    "[1!:2]",
    r#"{"a":!/**/1}"#,
    "{}!x",
    "{} !{}",
    r#"{"a":1}!}"#,
    // Words and numbers that are none: where they begin.
    r#"{"a": !tru}"#,
    r#"{"a": !True}"#,
    r#"{"a": !nullx}"#,
    r#"{"a": !NaN}"#,
    r#"{"a": !undefined}"#,
    r#"{"a": !-}"#,
    r#"{"a": !01}"#,
    r#"{"a": !1.}"#,
    r#"{"a": !.5}"#,
    r#"{"a": !+1}"#,
    r#"{"a": !1e}"#,
    r#"{"a": !1e+}"#,
    r#"{"a": !0x10}"#,
    r#"{"a": !12abc}"#,
    r#"{"a": !--1}"#,
    // Within strings: the backslash, or the byte itself.
    r#"{"a": "!\x41"}"#,
    r#"{"a": "aaaaa!\x41"}"#,
    r#"{"aaaaa!\x41": 1}"#,
    r#"{"a": "\"\n!\u12"}"#,
    r#"{"a": "\u0041!\u12g4"}"#,
    r#"{"b\tc": "d\u00e9\ud83d\ude00", "e": "!\'"}"#,
    r#"{"\u0061": "\n\n\n\n\n\n\n\n", "c": !tru}"#,
    r#"{"\ud800": "\ud800", "c": !tru}"#,
    "{\"a\": \"\\n!\u{1}\"}",
    "{\"a\": \"!\n\"}",
    "{\"a\": \"b!\t\"}",
    "{\"a\": \"é!\u{0}\"}",
    // A byte-order mark is passed over once, and counted.
    "\u{feff}{\"a\":!x}",
    "\u{feff}!\u{feff}{}",
    "{!\u{feff}}",
    "\r\n\t {\r\n\"a\" !1}",
];

fn place_in(rejection: &Rejection) -> Option<usize> {
    let Rejection::Malformed(text) = rejection else { return None };
    text.split_once(" at byte ")?.1.split(':').next()?.parse().ok()
}

#[test]
fn the_true_byte_is_named() {
    for marked in MARKED {
        // A colon too much stands behind one that is right.
        let marked = marked.replace("::", ":!:");
        let place = marked.find('!').unwrap();
        let body = marked.replacen('!', "", 1);
        for refusal in [
            parse(body.as_bytes()).unwrap_err(),
            parse_batch(body.clone().into_bytes(), &RULES, &Arrival::at(NOW), intake).unwrap_err(),
        ] {
            assert_eq!(place_in(&refusal), Some(place), "{body:?}: {refusal:?}");
        }
    }
}

#[test]
fn the_place_of_what_is_no_utf_8_is_named_unless_something_comes_before() {
    for (body, place) in [
        (&b"{\"url\": \"\xff\"}"[..], 9),
        (b"\xff\xfe", 0),
        (b"{\"a\": \"\xed\xa0\x80\"}", 7),
        (b"{\"a\": \"\\n\xc3\"}", 9),
        (b"{\"a\": tru, \"b\": \"\xff\"}", 6),
        (b"{\"a\": 1} \xff", 9),
        (b"\xef\xbb\xbf{\"a\": \"\xff", 10),
    ] {
        assert_eq!(place_in(&parse(body).unwrap_err()), Some(place), "{}", body.escape_ascii());
    }
}

#[test]
fn the_body_of_one_event_with_an_excess_is_refused_at_its_byte() {
    let valid = event_with(json!({})).to_string();
    let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for (member, at) in [
        (format!(r#""properties":{}"#, nested(33)), 14 + 5 * 32),
        (format!(r#""properties":{}"#, nested(60)), 14 + 5 * 32),
        (format!(r#""os":"\n","properties":{}"#, nested(33)), 24 + 5 * 32),
        (r#""properties":{"a":18446744073709551616}"#.into(), 19),
        (r#""x":[-9223372036854775809]"#.into(), 6),
        (r#""timestamp":1e999"#.into(), 13),
    ] {
        let refusal = parse(valid.replacen('{', &format!("{{{member},"), 1).as_bytes()).unwrap_err();
        assert_eq!(place_in(&refusal), Some(at), "{member}: {refusal:?}");
    }
    let taken = valid.replacen('{', &format!(r#"{{"properties":{},"#, nested(32)), 1);
    assert!(parse(taken.as_bytes()).is_ok());
    assert_eq!(place_in(&parse(b"1e999").unwrap_err()), Some(0));
    assert_eq!(place_in(&parse("[".repeat(100_000).as_bytes()).unwrap_err()), Some(100_000));
    for empty in ["", " \n", "\u{feff}"] {
        assert!(matches!(parse(empty.as_bytes()), Err(Rejection::Malformed(text)) if text.contains("is empty")));
    }
}

/// What becomes of a batch of a good item, this one and another good one: its refusal, or nothing if it is stored.
fn refusal_of_item(item: &str) -> Option<Rejection> {
    let good = event_with(json!({}));
    let body = format!(r#"{{"before":[1e999],"events":[{good},{item},{good}],"after":"\ud800"}}"#);
    let batch = parse_batch(body.into_bytes(), &RULES, &Arrival::at(NOW), intake).unwrap();
    assert_eq!(batch.events.len() + batch.refused.len(), 3);
    let mut refused = batch.refused.into_iter();
    let refusal = refused.next().map(|(index, refusal)| {
        assert_eq!(index, 1);
        refusal
    });
    assert_eq!(refused.next(), None);
    refusal
}

#[test]
fn an_odd_item_is_refused_alone_and_told_everything() {
    let event = event_with(json!({})).to_string();
    let with = |member: &str| event.replacen('{', &format!("{{{member},"), 1);
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let wide = "18446744073709551616";
    for (item, form, fields) in [
        (with(r#""x":[]"#), None, None),
        (with(r#""os":"\ud83d""#), None, None),
        (with(&format!(r#""referrer":{wide}"#)), None, None),
        (with(&format!(r#""referrer":{deep}"#)), None, None),
        (with(&format!(r#""properties":{{"a":{wide}}}"#)), Some(0), Some(&["properties"][..])),
        (with(&format!(r#""properties":{{"a":{deep}}}"#)), Some(0), Some(&["properties"])),
        (with(&format!(r#""properties":{deep},"os":1"#)), Some(0), Some(&["os", "properties"])),
        (with(r#""timestamp":-1e999"#), Some(0), Some(&["timestamp"])),
        (with(&format!(r#""os":"\n\"","browser":{wide}"#)), Some(0), Some(&["browser", "os"])),
        (with(&format!(r#""x":{wide},"y":1e999,"z":{deep},"a":{deep},"b":{deep}"#)), Some(3), Some(&[])),
        (with(&format!(r#""os":null,"os":{wide}"#)), Some(0), Some(&["os"])),
        (with(&format!(r#""os":{wide},"os":null"#)), Some(0), Some(&["os"])),
        (with(&format!(r#""trackingCode":{wide}"#)), Some(0), Some(&["trackingCode"])),
        (event.replacen(r#""s""#, wide, 1), Some(0), Some(&["sessionId"])),
        (event.replacen(&format!("{CODE:?}"), wide, 1), Some(0), Some(&["trackingCode"])),
        (wide.to_owned(), Some(1), Some(&[])),
        (deep.clone(), Some(1), Some(&[])),
        (r#""\ud800""#.to_owned(), Some(1), Some(&[])),
        (with(&format!(r#""x":"{}""#, "x".repeat(256 * 1024))), Some(1), Some(&[])),
    ] {
        let told = match refusal_of_item(&item) {
            None => (None, None),
            Some(Rejection::Invalid(faults)) => {
                let mut fields: Vec<_> = faults.fields.iter().map(|(field, _)| *field).collect();
                fields.sort_unstable();
                (Some(faults.form.len()), Some(fields))
            }
            Some(other) => panic!("{item:.200}: {other:?}"),
        };
        assert_eq!(told, (form, fields.map(<[_]>::to_vec)), "{item:.200}");
    }
}

#[test]
fn an_unknown_code_comes_before_every_other_fault() {
    let event = event_with(json!({"trackingCode": "pm-nobody"})).to_string();
    let padding = "x".repeat(256 * 1024);
    let second = r#""trackingCode":"pm-nobody","trackingCode":1e999"#;
    for member in [r#""x":1e999"#, second, r#""properties":{"a":1e999}"#, &format!(r#""x":"{padding}""#)] {
        let refusal = refusal_of_item(&event.replacen('{', &format!("{{{member},"), 1));
        assert_eq!(refusal, Some(Rejection::UnknownWebsite("pm-nobody".into())), "{member:.30}");
    }
}

#[test]
fn the_place_in_a_batch_is_one_in_its_body() {
    let body = r#"{"events":[{"x":"\ud800","properties":{"a":1e999}}]}"#;
    let batch = parse_batch(body.into(), &RULES, &Arrival::at(NOW), intake).unwrap();
    let text = format!("{:?}", batch.refused);
    assert!(text.contains(&format!("At byte {} of the body", body.find("1e999").unwrap())), "{text}");
}

#[test]
fn what_leaves_the_borders_of_items_unclear_refuses_the_whole() {
    let good = event_with(json!({}));
    for between in ["1e999 2", "tru", "\"", r#""\x""#, "\"\u{1}\"", "{", "1,,2", "01"] {
        let body = format!(r#"{{"events":[{good},{between},{good}]}}"#);
        let refusal = parse_batch(body.into_bytes(), &RULES, &Arrival::at(NOW), intake).unwrap_err();
        assert!(place_in(&refusal).is_some(), "{between}: {refusal:?}");
    }
}

#[test]
fn repetitions_take_no_memory() {
    let body = format!("{{{}\"os\":null}}", r#""os":1,"#.repeat(10_000));
    let Err(Rejection::Invalid(Faults { fields, .. })) = parse(body.as_bytes()) else { panic!("taken") };
    let texts: Vec<usize> = fields.iter().map(|(_, texts)| texts.len()).collect();
    assert_eq!(texts, [2, 1, 1, 1, 1, 1], "{fields:?}");
}

//! The grammar against serde_json, which has it from elsewhere.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn read(body: &[u8], depth_max: usize) -> Result<Option<(usize, Excess)>, Fault> {
    scan(body, depth_max, |scanner| {
        scanner.value()?;
        Ok(scanner.take_excess())
    })
}

#[test]
fn excess_is_found_at_its_first_byte() {
    for (body, wanted) in [
        ("[1, -9223372036854775808, 18446744073709551615, 1e308, 1e-999, -0, 123456789012345678]", None),
        ("[1, 18446744073709551616, 1e999]", Some((4, Excess::Number))),
        ("[-9223372036854775809]", Some((1, Excess::Number))),
        (r#"{"a": -1.5E+400}"#, Some((6, Excess::Number))),
        ("[[[]], [{}], [[[{}]]]]", Some((15, Excess::Depth))),
        (r#"{"a":{"b":{"c":[]}}}"#, Some((15, Excess::Depth))),
        ("[[{}], [1], {}, [[1]]]", None),
    ] {
        assert_eq!(read(body.as_bytes(), 3), Ok(wanted), "{body}");
    }
}

#[test]
fn nesting_has_no_end() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let body = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(read(body.as_bytes(), usize::MAX), Ok(None));
        let fault = read(&body.as_bytes()[..body.len() - 1], usize::MAX).unwrap_err();
        assert_eq!((fault.at, fault.what), (body.len() - 1, ENDS_EARLY));
    }
}

#[test]
fn members_and_items_are_where_they_stand() {
    let body = br#" { "a" : [ 1 , {"b":2} ] , "\u0063" :"x"} "#;
    let mut found = Vec::new();
    scan(body, 9, |scanner| {
        scanner.members(|scanner, name| {
            found.push(text_of(name).into_owned());
            if scanner.peek() == Some(b'[') {
                return scanner.items(|scanner| {
                    let item = scanner.value()?;
                    found.push(String::from_utf8_lossy(scanner.bytes_of(item)).into_owned());
                    Ok(())
                });
            }
            scanner.value().map(drop)
        })
    })
    .unwrap();
    assert_eq!(found, ["a", "1", r#"{"b":2}"#, "c"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// JSON is what serde_json says it is, but that serde_json passes over what it ignores without a look at half
    /// surrogate pairs, and so does the grammar.
    #[test]
    fn the_grammar_is_serde_jsons(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "1", "-", "0", "1.5", "e5", "E-", ".", "true", "fals",
        "null", "99999999999999999999",
        "\\", "\\u00", "\\ud800", "\\n", "\\x", " ", "\n", "\t", "\u{c}", "\u{1}", "\u{7f}", "\u{feff}", "é",
        "{}", "[]", "[1,2]", "{\"a\":1}", "[[[[[[[[", "]]]]]]]]", "\"x", "x\"",
    ]), 0..12), bytes in prop::collection::vec(any::<u8>(), 0..2), place: prop::sample::Index) {
        let mut body = pieces.concat().into_bytes();
        let place = place.index(body.len() + 1);
        body.splice(place..place, bytes);
        let ours = read(&body, usize::MAX);
        let theirs = serde_json::from_slice::<IgnoredAny>(&body).is_ok() && std::str::from_utf8(&body).is_ok();
        prop_assert_eq!(ours.is_ok(), theirs, "{}: {:?}", body.escape_ascii(), ours);
        if let Err(fault) = ours {
            prop_assert!(fault.at <= body.len());
        }
    }
}

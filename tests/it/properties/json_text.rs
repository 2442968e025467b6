//! Texts of JSON values, valid but for a few: what the parser of a tracker's events may meet inside them.

use proptest::{prelude::*, sample::select};

/// The text of a string with this content.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn string_piece() -> impl Strategy<Value = String> + Clone {
    let owned = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    prop_oneof![
        40 => "[a-z0-9 _-]{1,8}",
        // Blocks of 64 bytes begin and end anywhere in a long string.
        6 => (1..140_usize).prop_map(|count| "x".repeat(count)),
        8 => owned(&["é", "€", "🦀", "\u{7f}", "\u{80}", "\u{2028}", "\u{ffff}", "\u{10ffff}", "/", "'"]),
        8 => owned(&[r"\n", r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\r", r"\t", r"\u0041", r"\u00E9", r"\u20ac"]),
        4 => owned(&[r"\ud83d\ude00", r"\uDBFF\uDFFF", r"\u0000", r"\u001f", r"\u007f", r"\uffff"]),
        1 => owned(&[r"\ud800", r"\udc00", r"\ud83d\u0041", r"\ud83dx", r"\ude00\ud83d", r"\x", r"\u12", r"\U0041"]),
        1 => owned(&["\n", "\t", "\0", "\u{1}", "\u{1f}", "\""]),
    ]
}

pub fn string_text() -> impl Strategy<Value = String> + Clone {
    prop::collection::vec(string_piece(), 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

pub fn number_text() -> impl Strategy<Value = String> + Clone {
    let double = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |number| number.is_finite());
    prop_oneof![
        6 => (-100..100_i32).prop_map(|number| number.to_string()),
        3 => any::<i64>().prop_map(|number| number.to_string()),
        3 => any::<u64>().prop_map(|number| number.to_string()),
        3 => double.clone().prop_map(|number| format!("{number:e}")),
        3 => double.prop_map(|number| format!("{number:?}")),
        3 => "-?(0|[1-9][0-9]{0,22})\\.[0-9]{1,24}([eE][+-]?[0-9]{1,2})?",
        3 => "-?(0|[1-9][0-9]{0,2})([eE][+-]?[0-9]{1,3})",
        6 => select(&[
            "-0", "0.0", "-0.0", "1E5", "1e+5", "9007199254740993", "1.7976931348623157e308", "4.9e-324", "2e-324",
            "2.2250738585072011e-308", "0e99999999999", "1e-99999999999", "9223372036854775807", "9223372036854775808",
            "-9223372036854775808", "18446744073709551615", "0.1000000000000000055511151231257827021181583404541015625",
            "123456789012345678", "-123456789012345678", "1234567890123456789", "1844674407370955161.5",
        ][..]).prop_map(str::to_owned),
        1 => select(&[
            "18446744073709551616", "-9223372036854775809", "1e309", "-1e309", "1.7976931348623159e308", "01", "-01",
            "1.", ".5", "+1", "-", "1e", "1e+", "--1", "0x1", "1_0", "184467440737095516150", "99999999999999999999e1",
        ][..]).prop_map(str::to_owned),
    ]
}

/// Objects and arrays in each other, about as deep as is allowed.
pub fn deep_text() -> impl Strategy<Value = String> + Clone {
    prop::collection::vec(any::<bool>(), 28..38).prop_map(|kinds| {
        let open: String = kinds.iter().map(|is_object| if *is_object { "{\"a\":" } else { "[" }).collect();
        let close: String = kinds.iter().rev().map(|is_object| if *is_object { '}' } else { ']' }).collect();
        format!("{open}1{close}")
    })
}

pub fn value_text() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        20 => select(&["null", "true", "false"][..]).prop_map(str::to_owned),
        40 => string_text(),
        40 => number_text(),
        1 => deep_text(),
        1 => select(&["nul", "True", "undefined", "", "'a'", "[1,]", "[,]", "{,}", "{\"a\"}", "{1:2}"][..])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},{space}")))),
            object_text(prop::collection::vec((string_text(), inner), 0..4)),
        ]
    })
    .boxed()
}

/// An object of these members, keys and values as texts.
pub fn object_text(members: impl Strategy<Value = Vec<(String, String)>> + 'static) -> BoxedStrategy<String> {
    (members, space())
        .prop_map(|(members, space)| {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{key}{space}:{space}{value}")).collect();
            format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
        })
        .boxed()
}

fn space() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![
        6 => Just(""),
        2 => Just(" "),
        1 => Just("\n\t\r "),
        1 => Just("                                 "),
    ]
}

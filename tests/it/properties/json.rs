//! Reading JSON by the contract's rules, with serde_json as the grammar.
//!
//! serde_json by itself reads whole numbers beyond 64 bits as doubles, keeps one of two members of the same name and
//! refuses half surrogate pairs, so each value is taken as its raw text, and what is in it is looked at here.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A value, members in their order and with their doubles.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Whole(i128),
    Double(f64),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// Stands where half a surrogate pair stood. Not a character, so that none who writes texts sends it, and as long as
/// the replacement character that is stored.
pub const HALF_PAIR: char = '\u{fdd0}';

/// A rule of reading that a control can take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Utf8,
    Trailing,
    Depth,
    Whole,
    Finite,
    Surrogates,
    RawControl,
    ByteOrderMark,
}

/// The value in a body, nested `depth_max` deep at most; nothing if it is not JSON that is taken.
pub fn read(body: &[u8], depth_max: usize, off: Option<Reading>) -> Option<Json> {
    value(&whole(body, off)?, depth_max, off)
}

/// The text of the value in a body; nothing if it is not JSON, whatever its numbers and its depth.
pub fn whole(body: &[u8], off: Option<Reading>) -> Option<String> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) if off == Some(Reading::Utf8) => String::from_utf8_lossy(body).into_owned(),
        Err(_) => return None,
    };
    let text = match off {
        Some(Reading::RawControl) => text.replace(|letter| letter < ' ', " "),
        // Off, half of a pair is refused as serde_json refuses it.
        Some(Reading::Surrogates) if text.contains("\\ud800") => return None,
        _ => text,
    };
    let text = text.strip_prefix('\u{feff}').filter(|_| off != Some(Reading::ByteOrderMark)).unwrap_or(&text);
    let raw = if off == Some(Reading::Trailing) {
        serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().next()?.ok()?
    } else {
        serde_json::from_str::<&RawValue>(text).ok()?
    };
    Some(raw.get().to_owned())
}

/// The items of an array, as their texts.
pub fn items(text: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// The members of an object, all of them, with the texts of their values.
pub fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let Members(members) = serde_json::from_str(text).ok()?;
    members.into_iter().map(|(key, raw)| Some((string(key.get())?, raw.get()))).collect()
}

pub fn value(text: &str, depth_left: usize, off: Option<Reading>) -> Option<Json> {
    let first = text.bytes().next()?;
    if matches!(first, b'{' | b'[') && depth_left == 0 && off != Some(Reading::Depth) {
        return None;
    }
    let inner = |text: &str| value(text, depth_left.saturating_sub(1), off);
    Some(match first {
        b'n' => Json::Null,
        b't' => Json::Bool(true),
        b'f' => Json::Bool(false),
        b'"' => Json::Text(string(text)?),
        b'[' => Json::Array(items(text)?.into_iter().map(inner).collect::<Option<_>>()?),
        b'{' => {
            let member = |(key, text)| Some((key, inner(text)?));
            Json::Object(members(text)?.into_iter().map(member).collect::<Option<_>>()?)
        }
        _ => number(text, off)?,
    })
}

/// The content of a string that serde_json has passed over as raw text. It is taken apart into UTF-16, in which half a
/// pair can be written.
fn string(text: &str) -> Option<String> {
    let mut letters = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut units = Vec::new();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            units.extend_from_slice(letter.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match letters.next()? {
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'u' => u16::from_str_radix(&letters.by_ref().take(4).collect::<String>(), 16).ok()?,
            itself => itself as u16,
        });
    }
    Some(char::decode_utf16(units).map(|letter| letter.unwrap_or(HALF_PAIR)).collect())
}

fn number(text: &str, off: Option<Reading>) -> Option<Json> {
    if text.contains(['.', 'e', 'E']) {
        let number: f64 = text.parse().ok()?;
        return (number.is_finite() || off == Some(Reading::Finite)).then_some(Json::Double(number));
    }
    match text.parse::<i128>() {
        Ok(number) if (i64::MIN.into()..=u64::MAX.into()).contains(&number) => Some(Json::Whole(number)),
        _ if off == Some(Reading::Whole) => Some(Json::Double(text.parse().ok()?)),
        _ => None,
    }
}

/// The members of an object, all of them.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Every;
        impl<'de> Visitor<'de> for Every {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Every)
    }
}

impl Json {
    /// Puts the replacement character where half pairs stood; tells whether there were any.
    pub fn repair(&mut self) -> bool {
        match self {
            Self::Text(text) => repair(text),
            Self::Array(items) => items.iter_mut().fold(false, |found, item| item.repair() | found),
            Self::Object(members) => {
                members.iter_mut().fold(false, |found, (key, value)| repair(key) | value.repair() | found)
            }
            _ => false,
        }
    }

    /// Bytes of it as compact JSON, in which only what JSON demands is escaped.
    pub fn compact_bytes(&self) -> usize {
        let text = |text: &str| 2 + text.bytes().map(escaped_bytes).sum::<usize>();
        // Braces, and a comma between each two.
        let list = |lens: Vec<usize>| 2 + lens.len().saturating_sub(1) + lens.iter().sum::<usize>();
        match self {
            Self::Null | Self::Bool(true) => 4,
            Self::Bool(false) => 5,
            Self::Whole(number) => number.to_string().len(),
            Self::Double(number) => serde_json::to_string(number).unwrap().len(),
            Self::Text(content) => text(content),
            Self::Array(items) => list(items.iter().map(Self::compact_bytes).collect()),
            Self::Object(members) => {
                list(members.iter().map(|(key, value)| text(key) + 1 + value.compact_bytes()).collect())
            }
        }
    }
}

fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Puts the replacement character where half pairs stood; tells whether there were any.
pub fn repair(text: &mut String) -> bool {
    let is_repaired = text.contains(HALF_PAIR);
    if is_repaired {
        *text = text.replace(HALF_PAIR, "\u{fffd}");
    }
    is_repaired
}

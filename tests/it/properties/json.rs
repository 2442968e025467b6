//! Reading JSON by the contract's rules, with serde_json as the grammar.
//!
//! serde_json by itself reads whole numbers beyond 64 bits as doubles and keeps one of two members of the same name, so
//! each value is taken as its raw text, and what is in it is looked at here.

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
}

/// The value in a body, nested `depth_max` deep at most; nothing if it is not JSON that is taken.
pub fn read(body: &[u8], depth_max: usize, off: Option<Reading>) -> Option<Json> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) if off == Some(Reading::Utf8) => String::from_utf8_lossy(body).into_owned(),
        Err(_) => return None,
    };
    let text = match off {
        Some(Reading::RawControl) => text.replace(|letter| letter < ' ', " "),
        Some(Reading::Surrogates) => text.replace("\\ud800", "?"),
        _ => text,
    };
    let raw = if off == Some(Reading::Trailing) {
        serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>().next()?.ok()?
    } else {
        serde_json::from_str::<&RawValue>(&text).ok()?
    };
    value(raw.get(), depth_max, off)
}

fn value(text: &str, depth_left: usize, off: Option<Reading>) -> Option<Json> {
    let first = text.bytes().next()?;
    if matches!(first, b'{' | b'[') && depth_left == 0 && off != Some(Reading::Depth) {
        return None;
    }
    let inner = |raw: &RawValue| value(raw.get(), depth_left.saturating_sub(1), off);
    Some(match first {
        b'n' => Json::Null,
        b't' => Json::Bool(true),
        b'f' => Json::Bool(false),
        b'"' => Json::Text(serde_json::from_str(text).ok()?),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Json::Array(items.into_iter().map(inner).collect::<Option<_>>()?)
        }
        b'{' => {
            let Members(members) = serde_json::from_str(text).ok()?;
            let member = |(key, raw)| Some((key, inner(raw)?));
            Json::Object(members.into_iter().map(member).collect::<Option<_>>()?)
        }
        _ => number(text, off)?,
    })
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
struct Members<'a>(Vec<(String, &'a RawValue)>);

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
    /// How deep it is, its own braces counted.
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
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

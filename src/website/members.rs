//! Members of an object and elements of a list, as they stand in the JSON. Nothing is made of what nobody asks for:
//! whatever else somebody sends takes no memory but its own bytes.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer as Json, value::RawValue};

/// The members of a website that somebody may set, in the order of [`Members`].
pub const WEBSITE_MEMBERS: [&str; 8] =
    ["name", "domain", "description", "timezone", "hosts", "goals", "hostsPolicy", "gpc"];

/// What is sent of each of [`WEBSITE_MEMBERS`]; `None` if it is absent.
pub type Members<'a> = [Option<&'a RawValue>; WEBSITE_MEMBERS.len()];

/// What is no text.
const HALF_A_PAIR: &str = "Half a surrogate pair is not taken";

/// The members of an object that have these names, or why there are none. Of one that is given twice the last counts,
/// and all others are passed over.
pub fn members_of<'a, const N: usize>(
    object: &'a RawValue,
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], &'static str> {
    struct Wanted<const N: usize>([&'static str; N]);
    impl<'a, const N: usize> Visitor<'a> for Wanted<N> {
        type Value = [Option<&'a RawValue>; N];

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(name) = members.next_key::<String>()? {
                match self.0.iter().position(|wanted| *wanted == name) {
                    Some(at) => found[at] = Some(members.next_value()?),
                    None => {
                        members.next_value::<IgnoredAny>()?;
                    }
                }
            }
            Ok(found)
        }
    }
    if !object.get().starts_with('{') {
        return Err("Expected an object");
    }
    // Its form has been checked, but for what its texts say.
    Json::from_str(object.get()).deserialize_map(Wanted(names)).map_err(|_| HALF_A_PAIR)
}

/// The elements of an array; or what to say of something else, or of more than so many.
pub(super) fn elements(array: &RawValue, elements_max: usize) -> Result<Vec<&RawValue>, Cow<'static, str>> {
    struct AtMost(usize);
    impl<'a> Visitor<'a> for AtMost {
        type Value = Option<Vec<&'a RawValue>>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while found.len() < self.0 {
                let Some(element) = array.next_element()? else { return Ok(Some(found)) };
                found.push(element);
            }
            let mut has_more = false;
            while array.next_element::<IgnoredAny>()?.is_some() {
                has_more = true;
            }
            Ok((!has_more).then_some(found))
        }
    }
    match Json::from_str(array.get()).deserialize_seq(AtMost(elements_max)) {
        Ok(Some(elements)) => Ok(elements),
        Ok(None) => Err(format!("Expected at most {elements_max}").into()),
        Err(_) => Err("Expected an array or null".into()),
    }
}

/// The text of a string; or why there is none in it.
pub fn text(raw: &RawValue) -> Result<String, &'static str> {
    if !raw.get().starts_with('"') {
        return Err("Expected a string");
    }
    serde_json::from_str(raw.get()).map_err(|_| HALF_A_PAIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn members_are_found_by_their_names() {
        let found = |json| members_of(raw(json), ["a", "b"]).map(|found| found.map(|member| member.map(RawValue::get)));
        for (json, wanted) in [
            ("{}", Ok([None, None])),
            (r#"{"b": null, "c": {"a": 1}}"#, Ok([None, Some("null")])),
            (r#"{"\u0061": [1, 2], "A": 3}"#, Ok([Some("[1, 2]"), None])),
            (r#"{"a": 1, "b": 2, "a": "3"}"#, Ok([Some("\"3\""), Some("2")])),
            (r#"{"\ud800": 1}"#, Err(HALF_A_PAIR)),
            ("[]", Err("Expected an object")),
            ("null", Err("Expected an object")),
        ] {
            assert_eq!(found(json), wanted, "{json}");
        }
    }

    #[test]
    fn elements_are_counted() {
        let found =
            |json| elements(raw(json), 2).map(|elements| elements.into_iter().map(RawValue::get).collect::<Vec<_>>());
        for (json, wanted) in [
            ("[]", Ok(vec![])),
            ("[null, [1, 2]]", Ok(vec!["null", "[1, 2]"])),
            ("[1, 2, 3]", Err("Expected at most 2")),
            ("{}", Err("Expected an array or null")),
            ("\"ab\"", Err("Expected an array or null")),
        ] {
            assert_eq!(found(json), wanted.map_err(Cow::from), "{json}");
        }
    }

    #[test]
    fn what_is_a_text() {
        for (json, wanted) in [
            (r#""a\u00e9\ud83d\ude00\n""#, Ok("a\u{e9}\u{1f600}\n")),
            ("\"\"", Ok("")),
            (r#""\ud800""#, Err(HALF_A_PAIR)),
            ("1", Err("Expected a string")),
            ("null", Err("Expected a string")),
        ] {
            assert_eq!(text(raw(json)).as_deref().map_err(|fault| *fault), wanted, "{json}");
        }
    }
}

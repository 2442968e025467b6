//! The parameters of a query string, as every route reads them. Pure.

use crate::event::{EventType, Faults};

/// The values of the parameters with these names. Others are passed over, an empty one is as if absent, and one that is
/// given twice is a fault.
pub(super) fn parameters<const COUNT: usize>(
    query: &str,
    names: [&'static str; COUNT],
    faults: &mut Faults,
) -> [Option<String>; COUNT] {
    let mut values = [const { None }; COUNT];
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
        let Some(at) = names.iter().position(|known| *known == name) else { continue };
        if values[at].replace(value.into_owned()).is_some() {
            faults.add(names[at], "Given more than once");
        }
    }
    values
}

/// What is wrong with a time in which the `+` of a zone such as `+01:30` was read as a space.
pub(super) fn lost_plus(text: &str) -> Option<&'static str> {
    let (_, [b' ', zone @ ..]) = text.as_bytes().split_last_chunk::<6>()? else { return None };
    let is_zone = zone
        .iter()
        .zip(b"00:00")
        .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape });
    is_zone.then_some(
        "Expected RFC 3339 such as 2026-01-28T20:00:00%2B01:00: in a query a + stands for a space, so write %2B",
    )
}

/// The type of the events that are asked for, if there is one.
pub(super) fn event_type_of(name: Option<String>, faults: &mut Faults) -> Option<EventType> {
    let name = name?;
    let kind = EventType::from_name(&name);
    if kind.is_none() {
        faults.add("eventType", "Expected one of: pageview, click, custom");
    }
    kind
}

/// The tracking code, without which nothing is found.
pub(super) fn tracking_code_of(text: Option<String>, faults: &mut Faults) -> String {
    text.unwrap_or_else(|| {
        faults.add("trackingCode", "Required");
        String::new()
    })
}

/// A whole number that fits SQLite's: digits only, so neither a sign nor a space.
pub(super) fn number(field: &'static str, text: Option<String>, min: u64, faults: &mut Faults) -> Option<u64> {
    let text = text?;
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
    let number = number.map(i64::unsigned_abs).filter(|number| *number >= min);
    if number.is_none() {
        faults.add(field, format!("Expected a whole number from {min} to 2^63-1"));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_once_or_is_absent() {
        for (query, a, b, doubled) in [
            ("", None, None, &[][..]),
            ("a=1&b=2&c=3", Some("1"), Some("2"), &[]),
            ("b=%32+x&A=1", None, Some("2 x"), &[]),
            ("a=&b", None, None, &[]),
            ("a=&a=1&a=", Some("1"), None, &[]),
            ("a=1&b=1&a=1", Some("1"), Some("1"), &["a"]),
        ] {
            let mut faults = Faults::default();
            let found = parameters(query, ["a", "b"], &mut faults);
            assert_eq!(found.each_ref().map(Option::as_deref), [a, b], "{query}");
            assert_eq!(faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>(), doubled, "{query}");
        }
    }
}

//! What is left of an event that must not tell who its visitor is. Pure.

use std::ops::Range;

use super::scan::{Scanner, scan, text_of};

/// Where trackers write what an event is, among its properties: the first one that is there and says something counts.
pub const NAME_KEYS: [&str; 6] = ["name", "event", "eventName", "event_name", "action", "buttonId"];

/// The event's name alone, as an object under the key that it has among these properties, which are compact JSON;
/// `None` if they name nothing.
pub(super) fn name_alone(properties: &[u8]) -> Option<Vec<u8>> {
    let mut found: Option<(usize, Range<usize>)> = None;
    let read = |scanner: &mut Scanner<'_>| {
        scanner.members(|scanner, name| {
            let value = scanner.value()?;
            let key = text_of(name);
            let rank = NAME_KEYS.iter().position(|wanted| *wanted == key);
            let is_better = |rank: &usize| found.as_ref().is_none_or(|(best, _)| rank < best);
            // A text, and not the empty one.
            let is_name = scanner.bytes_of(value.clone()).starts_with(b"\"") && value.len() > 2;
            if let Some(rank) = rank.filter(is_better).filter(|_| is_name) {
                found = Some((rank, value));
            }
            Ok(())
        })
    };
    // They have been written by hitlog, so that there is nothing to refuse.
    scan(properties, usize::MAX, read).ok()?;
    let (rank, value) = found?;
    let (key, value) = (NAME_KEYS.get(rank)?, properties.get(value)?);
    Some([b"{\"", key.as_bytes(), b"\":", value, b"}"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stays_under_its_own_key() {
        for (properties, wanted) in [
            ("{}", None),
            (r#"{"plan":"pro","user":{"name":"Ann"}}"#, None),
            (r#"{"name":"signup","email":"a@b.example"}"#, Some(r#"{"name":"signup"}"#)),
            (r#"{"buttonId":"buy","action":"click \"it\"","x":[{"event":"y"}]}"#, Some(r#"{"action":"click \"it\""}"#)),
            (
                r#"{"name":"","event":7,"eventName":null,"event_name":["a"],"action":{},"buttonId":"b"}"#,
                Some(r#"{"buttonId":"b"}"#),
            ),
            (r#"{"name":"","event":false}"#, None),
            (r#"{"event":"second","name":"first","name":"again"}"#, Some(r#"{"name":"first"}"#)),
            (r#"{"event":"é🦀"}"#, Some(r#"{"event":"é🦀"}"#)),
            (r#"{"Name":"x"}"#, None),
        ] {
            let found = name_alone(properties.as_bytes()).map(|found| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), wanted, "{properties}");
        }
    }
}

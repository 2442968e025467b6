//! A body made ready for the parser: what trackers are known to get wrong in it is put right in place.
//!
//! A byte-order mark becomes white space, and an escape of half a surrogate pair that of U+FFFD. Both keep their
//! length, so every byte stays where it was sent, and a fault's place is true. Nothing else about the body is judged
//! here.

use std::ops::Range;

use super::{rejection::Rejection, tape::BODY_PADDING};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// An escape of one UTF-16 unit: `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

/// A body with the parser's padding behind it.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// How many of the bytes were sent.
    pub(super) len: usize,
    /// Without any escape the parser changes no byte.
    pub(super) has_escapes: bool,
    pub(super) repairs: Repairs,
}

/// Where half surrogate pairs stood, in order. At most one place is kept of each string.
#[derive(Default)]
pub(super) struct Repairs(Vec<u32>);

impl Body {
    /// Fails if there is nothing in the body.
    pub(super) fn prepare(mut bytes: Vec<u8>) -> Result<Self, Rejection> {
        if bytes.starts_with(BYTE_ORDER_MARK) {
            bytes[..BYTE_ORDER_MARK.len()].fill(b' ');
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Rejection::Malformed("The body is empty; send a JSON object".into()));
        }
        let len = bytes.len();
        let has_escapes = has_backslash(&bytes);
        let repairs = if has_escapes { repair_half_pairs(&mut bytes) } else { Repairs::default() };
        bytes.resize(len + BODY_PADDING, 0);
        Ok(Self { bytes, len, has_escapes, repairs })
    }
}

impl Repairs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something was repaired within this range of the body.
    pub(super) fn any_in(&self, range: Range<usize>) -> bool {
        let next = self.0.partition_point(|place| (*place as usize) < range.start);
        self.0.get(next).is_some_and(|place| (*place as usize) < range.end)
    }
}

pub(super) fn has_backslash(bytes: &[u8]) -> bool {
    // The compiler vectorises a loop that never ends early.
    bytes.iter().fold(false, |found, &byte| found | (byte == b'\\'))
}

/// Makes U+FFFD of each half pair. Outside of strings there are no escapes in JSON: what is changed there is refused
/// all the same.
fn repair_half_pairs(bytes: &mut [u8]) -> Repairs {
    let mut places: Vec<u32> = Vec::new();
    let mut before: Option<usize> = None;
    let mut at = 0;
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        at += match unit_at(bytes, at) {
            // Not a UTF-16 unit: two bytes belong together, so that the second of `\\` begins no escape.
            None => 2,
            Some(0xd800..=0xdbff) if matches!(unit_at(bytes, at + ESCAPE_BYTES), Some(0xdc00..=0xdfff)) => {
                2 * ESCAPE_BYTES
            }
            Some(0xd800..=0xdfff) => {
                bytes[at + 2..at + ESCAPE_BYTES].copy_from_slice(b"fffd");
                // Looked for behind the one before, kept or not: a long string of nothing else is looked over once.
                if before.is_none_or(|before| bytes[before..at].contains(&b'"')) {
                    places.push(at as u32);
                }
                before = Some(at);
                ESCAPE_BYTES
            }
            Some(_) => ESCAPE_BYTES,
        };
        if at >= bytes.len() {
            break;
        }
    }
    Repairs(places)
}

/// The UTF-16 unit whose escape stands here.
fn unit_at(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_pairs_are_repaired_and_nothing_else() {
        for (sent, wanted) in [
            (r"\ud83d\ude00", None),
            (r"\uD83D\uDE00", None),
            (r"\ud800\udc00\udbff\udfff", None),
            (r"\ud800\ue000", Some(r"\ufffd\ue000")),
            (r"\ud7ff\udc00\udc00", Some(r"\ud7ff\ufffd\ufffd")),
            (r"\\ud83d", None),
            (r#"\"\/\b\u0041\x\u12"#, None),
            (r"\ud83", None),
            ("\\", None),
            (r"\ud83d", Some(r"\ufffd")),
            (r"\uDFFFx", Some(r"\ufffdx")),
            (r"\\\ud83d", Some(r"\\\ufffd")),
            (r"\ud83d\u0041", Some(r"\ufffd\u0041")),
            (r"\ud83d\ud83d\ude00", Some(r"\ufffd\ud83d\ude00")),
            (r"\ude00\ud83d", Some(r"\ufffd\ufffd")),
            (r"\ud83d\\ude00", Some(r"\ufffd\\ude00")),
            (r"\ud83d\", Some(r"\ufffd\")),
        ] {
            let body = Body::prepare(sent.as_bytes().to_vec()).unwrap();
            let text = std::str::from_utf8(&body.bytes[..body.len]).unwrap();
            assert_eq!((text, body.repairs.is_empty()), (wanted.unwrap_or(sent), wanted.is_none()), "{sent}");
        }
    }

    #[test]
    fn places_are_those_of_the_strings() {
        let sent = br#"["\ud800\ud800","","a\udc00",1]"#;
        let repairs = Body::prepare(sent.to_vec()).unwrap().repairs;
        assert_eq!(repairs.0, [2, 21]);
        assert!(repairs.any_in(0..3) && repairs.any_in(3..22) && repairs.any_in(21..22));
        assert!(!repairs.any_in(0..2) && !repairs.any_in(3..21) && !repairs.any_in(22..99));
    }

    #[test]
    fn a_long_string_of_half_pairs_is_one_place() {
        let sent = format!(r#"{{"a":"{}","b":"\ud800"}}"#, r"\ud800".repeat(700_000));
        let body = Body::prepare(sent.clone().into_bytes()).unwrap();
        assert_eq!(body.repairs.0, [6, sent.len() as u32 - 8]);
    }

    #[test]
    fn a_byte_order_mark_is_white_space_and_keeps_its_place() {
        let body = Body::prepare("\u{feff}{}".into()).unwrap();
        assert_eq!(&body.bytes[..body.len], b"   {}");
        assert!(Body::prepare("\u{feff} ".into()).is_err());
        let twice = Body::prepare("\u{feff}\u{feff}{}".into()).unwrap();
        assert_eq!(&twice.bytes[3..6], BYTE_ORDER_MARK);
    }
}

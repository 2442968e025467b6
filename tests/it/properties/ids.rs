//! Target: public ids. Decoding undoes encoding, and takes nothing else.

use hitlog::event_id::EventIds;
use proptest::prelude::*;

use super::{
    mutation::{Mutation, damaged, mutations},
    runner::{assert_found, assert_holds},
};

const TOKENS: &[&[u8]] = &[b"c", b"C", b"0", b"z", b"Z", b"A", b"-", b"+", b" ", b"\0", b"\xc3\xa9", b"\xef\xbc\x91"];
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Node, key, sequence.
type Made = (u32, [u8; 16], u64);

#[derive(Debug, Clone)]
enum Input {
    Id(Made, Vec<Mutation>),
    /// The same number and so many times 2^128: what a decoder that overflows takes for the same.
    Overflowing(Made, u8),
    Text(Made, String),
}

fn inputs() -> impl Strategy<Value = Input> {
    let sequence = prop_oneof![1 => 0..1_000_u64, 1 => any::<u64>(), 1 => u64::MAX - 10..=u64::MAX];
    let made = (any::<u32>(), any::<[u8; 16]>(), sequence);
    prop_oneof![
        6 => (made.clone(), mutations(TOKENS)).prop_map(|(made, mutations)| Input::Id(made, mutations)),
        2 => (made.clone(), 1..4_u8).prop_map(|(made, times)| Input::Overflowing(made, times)),
        1 => (made.clone(), "c[0-9a-z]{25}").prop_map(|(made, text)| Input::Text(made, text)),
        1 => (made, "c?[0-9a-zA-Z]{20,30}|.{0,30}").prop_map(|(made, text)| Input::Text(made, text)),
    ]
}

/// The id plus `times` 2^128 in base 36; nothing if that has more digits.
fn overflowing(id: &str, times: u8) -> Option<String> {
    let digits = id[1..].bytes().map(|digit| char::from(digit).to_digit(36).unwrap());
    let mut digits: Vec<u32> = digits.collect();
    for _ in 0..times {
        // 2^128 - 1 fits a number, so it is that and 1.
        let (mut rest, mut carry) = (u128::MAX, 1);
        for digit in digits.iter_mut().rev() {
            carry += *digit + (rest % 36) as u32;
            rest /= 36;
            *digit = carry % 36;
            carry /= 36;
        }
        if carry > 0 {
            return None;
        }
    }
    let digits = digits.iter().map(|digit| char::from(DIGITS[*digit as usize]));
    Some(std::iter::once('c').chain(digits).collect())
}

/// Holds a decoder to the encoder.
fn check(input: &Input, decode: impl Fn(&EventIds, &str) -> Option<u64>) -> Result<(), String> {
    let (Input::Id(made, _) | Input::Overflowing(made, _) | Input::Text(made, _)) = input;
    let (node, key, sequence) = *made;
    let ids = EventIds::new(node, key);
    let encode = |sequence: u64| String::from_utf8(ids.encode(sequence).to_vec()).unwrap();
    let id = encode(sequence);
    if decode(&ids, &id) != Some(sequence) {
        return Err(format!("{id} does not lead back to {sequence}"));
    }
    let text = match input {
        Input::Id(_, mutations) => String::from_utf8_lossy(&damaged(id.as_bytes(), mutations)).into_owned(),
        Input::Overflowing(_, times) => match overflowing(&id, *times) {
            Some(text) => text,
            None => return Ok(()),
        },
        Input::Text(_, text) => text.clone(),
    };
    match decode(&ids, &text) {
        Some(found) if encode(found) != text => {
            Err(format!("{text:?} leads to {found}, whose id is {}", encode(found)))
        }
        _ => Ok(()),
    }
}

#[test]
fn ids_lead_to_their_event_or_nowhere() {
    assert_holds("event id", &inputs(), |input| check(input, EventIds::decode));
}

/// The id that a decoder without its check for overflow would see.
fn wrapped(text: &str) -> Option<String> {
    let digits = text.strip_prefix('c').filter(|digits| digits.len() == 25)?;
    let mut number = 0_u128;
    for digit in digits.chars() {
        number = number.wrapping_mul(36).wrapping_add(digit.to_digit(36)?.into());
    }
    let mut id = vec![b'0'; 25];
    for digit in id.iter_mut().rev() {
        *digit = DIGITS[(number % 36) as usize];
        number /= 36;
    }
    String::from_utf8([b"c".to_vec(), id].concat()).ok()
}

#[test]
fn control_careless_decoders_are_found() {
    type Decoder = fn(&EventIds, &str) -> Option<u64>;
    let careless: [(&str, Decoder); 5] = [
        ("any case", |ids, text| ids.decode(&text.to_ascii_lowercase())),
        ("spaces around", |ids, text| ids.decode(text.trim())),
        ("more behind", |ids, text| ids.decode(text.get(..26)?)),
        ("overflow", |ids, text| ids.decode(&wrapped(text)?)),
        ("anything", |ids, text| Some(ids.decode(text).unwrap_or(0))),
    ];
    for (fault, decode) in careless {
        assert_found(fault, &inputs(), |input| check(input, decode));
    }
}

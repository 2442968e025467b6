//! Cursors and positions as clients see them: a place in a walk, or in the events that somebody follows, sealed so that
//! nobody can read it, change it, or use it for another listing or website than the one it came from.
//!
//! Encrypted and authenticated at once by AES-SIV (RFC 5297), with what the listing asks for as associated data. The
//! same place always gives the same text. The key is that of the newest epoch of ids; a cursor of an older one is good
//! if its walk began before the next one did, and a position if its event came before: later, its sequences were those
//! of other events. Pure.

use std::sync::Arc;

use aes_siv::{KeyInit, siv::Aes128Siv};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    event::EventType,
    event_id::Epochs,
    store::{EventFilter, TailPlace, WalkPlace, WebsiteAge},
};

/// Four numbers of 8 bytes.
const CURSOR_BYTES: usize = 32;

/// A sequence and a time.
const POSITION_BYTES: usize = 16;
/// What encrypting adds, in bytes.
const TAG_BYTES: usize = 16;
/// How long a position is as a text.
const POSITION_CHARS: usize = ((POSITION_BYTES + TAG_BYTES) * 8).div_ceil(6);

/// Turns places into texts and back.
#[derive(Clone)]
pub struct Cursors {
    /// The newest epoch's.
    key: [u8; 32],
    /// Those of the older epochs, the newest first, and the first sequence of the epoch that came after each.
    older: Arc<[([u8; 32], u64)]>,
}

impl Cursors {
    /// Derives keys from those for public ids, so that a cursor outlives a restart.
    pub fn new(epochs: &Epochs) -> Self {
        let derive =
            |id_key: [u8; 16]| Sha256::new().chain_update("hitlog cursor").chain_update(id_key).finalize().into();
        let mut keys = epochs.with_ends().rev().map(|(epoch, end)| (derive(epoch.key), end));
        let (key, _) = keys.next().unwrap_or_default();
        Self { key, older: keys.collect() }
    }

    /// The place as a text of letters, digits, `-` and `_`.
    pub(super) fn encode(&self, place: &WalkPlace, filter: &EventFilter) -> String {
        let mut plain = [0; CURSOR_BYTES];
        let numbers = [place.created_at.cast_unsigned(), place.sequence, place.high_water_mark, place.passed];
        for (bytes, number) in plain.as_chunks_mut().0.iter_mut().zip(numbers) {
            *bytes = number.to_be_bytes();
        }
        self.seal(listing(filter), &plain)
    }

    /// The place in a text, if it was made here and for this listing.
    pub(super) fn decode(&self, text: &str, filter: &EventFilter) -> Option<WalkPlace> {
        let (plain, end) = self.open(&listing(filter), text)?;
        let &[created_at, sequence, high_water_mark, passed] = plain.as_chunks().0 else { return None };
        let place = WalkPlace {
            created_at: i64::from_be_bytes(created_at),
            sequence: u64::from_be_bytes(sequence),
            high_water_mark: u64::from_be_bytes(high_water_mark),
            passed: u64::from_be_bytes(passed),
        };
        end.is_none_or(|end| place.high_water_mark < end).then_some(place)
    }

    /// The place behind a website as a text of letters, digits, `-` and `_`.
    pub(super) fn encode_website(&self, place: &WebsiteAge) -> String {
        let (created_at, id) = place;
        self.seal([WEBSITES], &[&created_at.to_be_bytes(), id.as_bytes()].concat())
    }

    /// The place in a text, if it was made here and for the listing of websites.
    pub(super) fn decode_website(&self, text: &str) -> Option<WebsiteAge> {
        let (plain, _) = self.open(&[WEBSITES], text)?;
        let (created_at, id) = plain.split_first_chunk()?;
        Some((i64::from_be_bytes(*created_at), std::str::from_utf8(id).ok()?.into()))
    }

    /// What makes positions.
    pub(super) fn positions(&self) -> Positions {
        Positions(Aes128Siv::new(&self.key.into()))
    }

    /// The place in a text, if it was made here and for this website.
    pub(super) fn decode_position(&self, website_id: &str, text: &str) -> Option<TailPlace> {
        let (plain, end) = self.open(&[website_id.as_bytes(), POSITION], text)?;
        let &[sequence, time] = plain.as_chunks().0 else { return None };
        let (sequence, time) = (u64::from_be_bytes(sequence), i64::from_be_bytes(time));
        end.is_none_or(|end| sequence < end).then(|| TailPlace::told(sequence, time))
    }

    fn seal(&self, listing: impl IntoIterator<Item = impl AsRef<[u8]>>, plain: &[u8]) -> String {
        // Fails only on texts of 2^36 bytes and more.
        let sealed = Aes128Siv::new(&self.key.into()).encrypt(listing, plain).unwrap_or_default();
        BASE64_URL_SAFE_NO_PAD.encode(sealed)
    }

    /// What a text holds, and the first sequence of the epoch after its own, if there is one.
    fn open<const N: usize>(&self, listing: &[impl AsRef<[u8]>; N], text: &str) -> Option<(Vec<u8>, Option<u64>)> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let with = |key: &[u8; 32]| Aes128Siv::new(&(*key).into()).decrypt(listing, &sealed).ok();
        let of_older = || self.older.iter().find_map(|(key, end)| Some((with(key)?, Some(*end))));
        with(&self.key).map(|plain| (plain, None)).or_else(of_older)
    }
}

/// Makes positions.
pub(super) struct Positions(Aes128Siv);

/// A position as clients see it: letters, digits, `-` and `_`.
pub(super) type PositionText = [u8; POSITION_CHARS];

impl Positions {
    /// The place in the events of a website as a text. Made for every event that is followed, so it takes no memory.
    pub(super) fn encode(&mut self, website_id: &[u8], place: &TailPlace) -> PositionText {
        let mut sealed = [0; TAG_BYTES + POSITION_BYTES];
        let (tag, plain) = sealed.split_at_mut(TAG_BYTES);
        plain[..8].copy_from_slice(&place.sequence().to_be_bytes());
        plain[8..].copy_from_slice(&place.time().to_be_bytes());
        // Fails only on texts of 2^36 bytes and more.
        let sealing = self.0.encrypt_inout_detached([website_id, POSITION], plain.into());
        tag.copy_from_slice(&sealing.unwrap_or_default());
        let mut text = [0; POSITION_CHARS];
        let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(sealed, &mut text);
        text
    }
}

/// What tells positions from cursors, which come with one value or with six.
const POSITION: &[u8] = b"position";

/// What tells the listing of websites from those of events, which are told apart by more than one value.
const WEBSITES: &[u8] = b"websites";

/// What tells one listing of events from another; an id is never empty.
fn listing(filter: &EventFilter) -> [Vec<u8>; 6] {
    let id = |id: &Option<String>| id.as_ref().map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    [
        filter.website_id.as_bytes().to_vec(),
        filter.event_type.map_or("", EventType::as_str).into(),
        id(&filter.session_id),
        id(&filter.visitor_id),
        filter.from.to_be_bytes().into(),
        filter.to.to_be_bytes().into(),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event_id::Epoch;

    fn filter() -> EventFilter {
        EventFilter {
            website_id: "web-1".into(),
            event_type: Some(EventType::Click),
            session_id: None,
            visitor_id: Some("v".into()),
            from: 5,
            to: i64::MAX,
        }
    }

    fn cursors() -> Cursors {
        cursors_of(&[(0, b"0123456789abcdef")])
    }

    /// Those of the epochs with these first sequences and keys.
    fn cursors_of(epochs: &[(u64, &[u8; 16])]) -> Cursors {
        let epoch =
            |(first_sequence, key): &(u64, &[u8; 16])| Epoch { first_sequence: *first_sequence, node: 0, key: **key };
        Cursors::new(&Epochs::new(epochs.iter().map(epoch).collect()).unwrap())
    }

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_place(
            created_at: i64, sequence: u64, high_water_mark: u64, passed: u64, flipped in 0..384_usize
        ) {
            let place = WalkPlace { created_at, sequence, high_water_mark, passed };
            let text = cursors().encode(&place, &filter());
            prop_assert_eq!(cursors().decode(&text, &filter()), Some(place));
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).unwrap();
            bytes[flipped / 8] ^= 1 << (flipped % 8);
            prop_assert_eq!(cursors().decode(&BASE64_URL_SAFE_NO_PAD.encode(bytes), &filter()), None);
        }

        #[test]
        fn anything_else_leads_nowhere(text in "[A-Za-z0-9_-]{0,80}|.{0,80}") {
            prop_assert_eq!(cursors().decode(&text, &filter()), None);
        }
    }

    #[test]
    fn a_cursor_of_websites_is_for_them_alone() {
        for place in [(0, "web-a".into()), (i64::MAX, "web-".to_owned() + &"x".repeat(60))] {
            let place = (place.0, place.1.into());
            let text = cursors().encode_website(&place);
            assert_eq!(cursors().decode_website(&text), Some(place));
            assert_eq!(cursors().decode(&text, &filter()), None);
            assert_eq!(cursors_of(&[(0, b"fedcba9876543210")]).decode_website(&text), None);
        }
        let of_events =
            cursors().encode(&WalkPlace { created_at: 1, sequence: 2, high_water_mark: 3, passed: 4 }, &filter());
        for text in ["", "x", &of_events] {
            assert_eq!(cursors().decode_website(text), None, "{text}");
        }
    }

    #[test]
    fn a_position_is_for_one_website_of_one_hitlog() {
        for (sequence, time) in [(0, 0), (1, i64::MAX), (u64::MAX, -1)] {
            let text = cursors().positions().encode(b"web-1", &TailPlace::at(sequence, time));
            let text = str::from_utf8(&text).unwrap();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            let decoded = |cursors: &Cursors, website: &str, text: &str| {
                cursors.decode_position(website, text).map(|place| (place.sequence(), place.time()))
            };
            assert_eq!(decoded(&cursors(), "web-1", text), Some((sequence, time)));
            assert_eq!(decoded(&cursors(), "web-2", text), None);
            assert_eq!(decoded(&cursors_of(&[(0, b"fedcba9876543210")]), "web-1", text), None);
            assert_eq!(cursors().decode(text, &filter()), None);
            assert_eq!(cursors().decode_website(text), None);
            for at in 0..(TAG_BYTES + POSITION_BYTES) * 8 {
                let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
                bytes[at / 8] ^= 1 << (at % 8);
                assert_eq!(decoded(&cursors(), "web-1", &BASE64_URL_SAFE_NO_PAD.encode(bytes)), None, "{at}");
            }
        }
        let of_events =
            cursors().encode(&WalkPlace { created_at: 1, sequence: 2, high_water_mark: 3, passed: 4 }, &filter());
        let of_websites = cursors().encode_website(&(1, "web-a".into()));
        for text in ["", "x", "start", &of_events, &of_websites] {
            assert!(cursors().decode_position("web-1", text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_position_of_an_older_epoch_is_for_what_came_before_the_next() {
        let newer = cursors_of(&[(0, b"0123456789abcdef"), (10, b"fedcba9876543210")]);
        for (sequence, is_good) in [(0, true), (9, true), (10, false), (u64::MAX, false)] {
            let place = TailPlace::at(sequence, 1);
            let decoded = |by: &Cursors, text: &[u8]| {
                by.decode_position("web-1", str::from_utf8(text).unwrap()).map(|place| place.sequence())
            };
            let text = cursors().positions().encode(b"web-1", &place);
            assert_eq!(decoded(&newer, &text), is_good.then_some(sequence), "{sequence}");
            let text = newer.positions().encode(b"web-1", &place);
            assert_eq!(decoded(&newer, &text), Some(sequence), "{sequence}");
            assert_eq!(decoded(&cursors(), &text), None, "the older knows nothing of the newer");
        }
    }

    #[test]
    fn a_cursor_is_for_one_listing_of_one_hitlog() {
        let place = WalkPlace { created_at: 1, sequence: 2, high_water_mark: 3, passed: 4 };
        let text = cursors().encode(&place, &filter());
        for other in [
            EventFilter { website_id: "web-2".into(), ..filter() },
            EventFilter { event_type: None, ..filter() },
            EventFilter { session_id: Some("v".into()), visitor_id: None, ..filter() },
            EventFilter { from: 6, ..filter() },
            EventFilter { to: 6, ..filter() },
        ] {
            assert_eq!(cursors().decode(&text, &other), None, "{other:?}");
        }
        assert_eq!(cursors_of(&[(0, b"fedcba9876543210")]).decode(&text, &filter()), None);
    }
    #[test]
    fn a_cursor_of_an_older_epoch_is_for_what_came_before_the_next() {
        let newer = cursors_of(&[(0, b"0123456789abcdef"), (10, b"fedcba9876543210")]);
        for (high_water_mark, is_good) in [(3, true), (9, true), (10, false), (u64::MAX, false)] {
            let place = WalkPlace { created_at: 1, sequence: 2, high_water_mark, passed: 4 };
            let text = cursors().encode(&place, &filter());
            assert_eq!(newer.decode(&text, &filter()), is_good.then_some(place), "{high_water_mark}");
            let text = newer.encode(&place, &filter());
            assert_eq!(newer.decode(&text, &filter()), Some(place), "{high_water_mark}");
            assert_eq!(cursors().decode(&text, &filter()), None, "the older knows nothing of the newer");
        }
        let text = cursors().encode_website(&(1, "web-a".into()));
        assert!(newer.decode_website(&text).is_some());
    }
}

//! Sequence to public id and back.
//!
//! An id is `c` and 25 digits of base 36: one AES-128 block over (node, sequence, zeros) under a key that the
//! catalog keeps. It tells nobody how much traffic a site has, cannot be guessed (a made-up id decrypts to the right
//! node and zeros once in 2^64), and leads straight to its row without an index.
//!
//! A start from a backup gives sequences a second time that the original gave to other events, so it begins an
//! [`Epoch`], with a key of its own. An id is made with the key of its sequence's epoch, and leads to a sequence of
//! that epoch only: so the id of an event that came after the backup, and was lost, leads nowhere. Pure.

use std::sync::Arc;

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};

/// Base-36 digits of 128 bits: 36^24 < 2^128 < 36^25.
const DIGITS: usize = 25;
/// `c` and the digits.
const ID_LEN: usize = 1 + DIGITS;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The sequences whose ids are made with one key: from the first on, up to the next epoch's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// The lowest sequence.
    pub first_sequence: u64,
    /// The number of this hitlog among several.
    pub node: u32,
    /// The key under which a sequence is encrypted.
    pub key: [u8; 16],
}

/// All epochs of a data directory, the oldest first; there is at least one. Sequences below the first one's are its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epochs(Vec<Epoch>);

impl Epochs {
    /// Takes them in any order; `None` if there is none.
    pub fn new(mut epochs: Vec<Epoch>) -> Option<Self> {
        epochs.sort_by_key(|epoch| epoch.first_sequence);
        (!epochs.is_empty()).then_some(Self(epochs))
    }

    /// Each epoch, the oldest first, and the first sequence that is not its any more.
    pub fn with_ends(&self) -> impl DoubleEndedIterator<Item = (Epoch, u64)> + ExactSizeIterator {
        let end = |at: usize| self.0.get(at + 1).map_or(u64::MAX, |next| next.first_sequence);
        self.0.iter().enumerate().map(move |(at, epoch)| (*epoch, end(at)))
    }
}

/// One epoch's part in making and reading ids.
struct Keyed {
    first_sequence: u64,
    node: u32,
    cipher: Aes128,
}

/// Turns sequences into ids and back, each with the key of its epoch.
#[derive(Clone)]
pub struct EventIds {
    /// The oldest first; never empty.
    epochs: Arc<[Keyed]>,
}

impl EventIds {
    /// Makes ids with one node and one key.
    pub fn new(node: u32, key: [u8; 16]) -> Self {
        Self::of(&Epochs(vec![Epoch { first_sequence: 0, node, key }]))
    }

    /// Makes ids with the epochs that the catalog keeps.
    pub fn of(epochs: &Epochs) -> Self {
        let keyed = |epoch: &Epoch| Keyed {
            first_sequence: epoch.first_sequence,
            node: epoch.node,
            cipher: Aes128::new(&epoch.key.into()),
        };
        Self { epochs: epochs.0.iter().map(keyed).collect() }
    }

    /// The place of a sequence's epoch.
    fn epoch_of(&self, sequence: u64) -> usize {
        // Nearly always it is the newest.
        let begun = self.epochs.iter().rposition(|epoch| epoch.first_sequence <= sequence);
        begun.unwrap_or(0)
    }

    /// The id of the event with this sequence, in ASCII.
    pub fn encode(&self, sequence: u64) -> [u8; ID_LEN] {
        let epoch = &self.epochs[self.epoch_of(sequence)];
        let mut block = [0; 16];
        block[..4].copy_from_slice(&epoch.node.to_be_bytes());
        block[4..12].copy_from_slice(&sequence.to_be_bytes());
        let mut block = block.into();
        epoch.cipher.encrypt_block(&mut block);
        let mut number = u128::from_be_bytes(block.into());
        let mut id = [b'c'; ID_LEN];
        // Twelve digits at a time fit 64 bits, where dividing is cheap.
        const CHUNK_DIGITS: usize = 12;
        const CHUNK: u128 = 36_u128.pow(CHUNK_DIGITS as u32);
        let mut end = ID_LEN;
        while end > 1 {
            let rest = number / CHUNK;
            let mut chunk = (number - rest * CHUNK) as u64;
            number = rest;
            let start = end.saturating_sub(CHUNK_DIGITS).max(1);
            for digit in id[start..end].iter_mut().rev() {
                *digit = ALPHABET[(chunk % 36) as usize];
                chunk /= 36;
            }
            end = start;
        }
        id
    }

    /// The sequence in an id, if the id can be one of ours.
    pub fn decode(&self, id: &str) -> Option<u64> {
        let digits = id.strip_prefix('c').filter(|digits| digits.len() == DIGITS)?;
        let mut number: u128 = 0;
        for digit in digits.bytes() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'z' => digit - b'a' + 10,
                _ => return None,
            };
            number = number.checked_mul(36)?.checked_add(value.into())?;
        }
        let block = number.to_be_bytes();
        let found = self.epochs.iter().enumerate().rev().find_map(|(at, epoch)| Some((at, epoch.decrypt(block)?)));
        found.filter(|(at, sequence)| *at == self.epoch_of(*sequence)).map(|(_, sequence)| sequence)
    }
}

impl Keyed {
    /// The sequence in a block, if it was encrypted with this key.
    fn decrypt(&self, block: [u8; 16]) -> Option<u64> {
        let mut block = block.into();
        self.cipher.decrypt_block(&mut block);
        let block: [u8; 16] = block.into();
        let (node, rest) = block.split_first_chunk::<4>()?;
        let (sequence, zeros) = rest.split_first_chunk::<8>()?;
        (*node == self.node.to_be_bytes() && zeros == [0; 4]).then(|| u64::from_be_bytes(*sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> EventIds {
        EventIds::new(7, *b"0123456789abcdef")
    }

    /// Epochs that begin at these sequences.
    fn epochs(firsts: &[u64]) -> Epochs {
        let epoch = |(number, first): (usize, &u64)| Epoch { first_sequence: *first, node: 0, key: [number as u8; 16] };
        Epochs::new(firsts.iter().enumerate().map(epoch).collect()).unwrap()
    }

    proptest! {
        #[test]
        fn an_id_leads_back_to_its_sequence(sequence: u64) {
            let id = ids().encode(sequence);
            let id = std::str::from_utf8(&id).unwrap();
            prop_assert!(id.starts_with('c'));
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
            prop_assert_eq!(ids().decode(id), Some(sequence));
        }

        #[test]
        fn an_id_is_of_its_epoch(
            sequence in 0..1_000_u64,
            firsts in proptest::collection::btree_set(1..1_000_u64, 0..5),
            lost in 0..1_000_u64,
        ) {
            let firsts: Vec<_> = std::iter::once(0).chain(firsts).collect();
            let now = EventIds::of(&epochs(&firsts));
            let id_of = |ids: &EventIds, sequence| String::from_utf8(ids.encode(sequence).to_vec()).unwrap();
            prop_assert_eq!(now.decode(&id_of(&now, sequence)), Some(sequence));
            // What the run before the newest epoch gave out: ids below the newest epoch's first stay, the others are of
            // events that were lost.
            if let Some((newest, before)) = firsts.split_last().filter(|(_, before)| !before.is_empty()) {
                let id = id_of(&EventIds::of(&epochs(before)), lost);
                prop_assert_eq!(now.decode(&id), (lost < *newest).then_some(lost));
            }
        }

        #[test]
        fn anything_else_leads_nowhere(id in "c?[0-9a-z]{20,27}|.{0,30}") {
            prop_assert_eq!(ids().decode(&id), None);
        }
    }

    #[test]
    fn the_edges() {
        let top = format!("c{}", "z".repeat(DIGITS));
        for id in ["", "c", "clv1234567890", &top, "c0000000000000000000000000"] {
            assert_eq!(ids().decode(id), None, "{id}");
        }
        let other_key = EventIds::new(7, *b"fedcba9876543210").encode(1);
        let other_node = EventIds::new(8, *b"0123456789abcdef").encode(1);
        for id in [other_key, other_node] {
            assert_eq!(ids().decode(std::str::from_utf8(&id).unwrap()), None);
        }
        assert_ne!(ids().encode(1)[..20], ids().encode(2)[..20], "neighbours do not look alike");
    }
}

//! Sequence to public id and back.
//!
//! An id is `c` and 25 digits of base 36: one AES-128 block over (node, sequence, zeros) under a key that the
//! catalog keeps. It tells nobody how much traffic a site has, cannot be guessed (a made-up id decrypts to the right
//! node and zeros once in 2^64), and leads straight to its row without an index. Pure.

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};

/// Base-36 digits of 128 bits: 36^24 < 2^128 < 36^25.
const DIGITS: usize = 25;
/// `c` and the digits.
const ID_LEN: usize = 1 + DIGITS;
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Turns sequences into ids and back, for one node and one key.
#[derive(Clone)]
pub struct EventIds {
    node: u32,
    cipher: Aes128,
}

impl EventIds {
    /// Makes ids with the node and the key that the catalog keeps.
    pub fn new(node: u32, key: [u8; 16]) -> Self {
        Self { node, cipher: Aes128::new(&key.into()) }
    }

    /// The id of the event with this sequence, in ASCII.
    pub fn encode(&self, sequence: u64) -> [u8; ID_LEN] {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&self.node.to_be_bytes());
        block[4..12].copy_from_slice(&sequence.to_be_bytes());
        let mut block = block.into();
        self.cipher.encrypt_block(&mut block);
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
        let mut block = number.to_be_bytes().into();
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

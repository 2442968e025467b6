//! The client's own names of events, as hashes: what an event is known by when it is sent again.
//!
//! A name (`eventId`, or one made of a request's `Idempotency-Key`) is hashed together with the id of its website under
//! a key that only the data directory knows: 128 bits, so that no two names of a store have the same, whoever makes
//! them up. The name itself is kept nowhere. Pure.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

/// The hash of a client's name for an event of a website.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdHash(pub u128);

/// Makes hashes: SipHash-2-4 with 128 bits, <https://www.aumasson.jp/siphash/siphash.pdf>.
#[derive(Clone, Copy)]
pub struct IdHasher {
    empty: SipHasher24,
}

impl IdHasher {
    /// Hashes under this key; another one gives other hashes.
    pub fn new(key: &[u8; 16]) -> Self {
        Self { empty: SipHasher24::new_with_key(key) }
    }

    /// The hash of a name that its client gave.
    pub(super) fn of_id(&self, website_id: &str, id: &str) -> IdHash {
        self.finish(website_id, |hasher| hasher.write(id.as_bytes()))
    }

    /// The hash of the name that a request's key gives to its event at `index`: KEY/0, KEY/1 and so on.
    pub(super) fn of_key(&self, website_id: &str, key: &str, index: usize) -> IdHash {
        self.finish(website_id, |hasher| {
            hasher.write(key.as_bytes());
            hasher.write(b"/");
            hasher.write(itoa::Buffer::new().format(index).as_bytes());
        })
    }

    fn finish(&self, website_id: &str, write: impl FnOnce(&mut SipHasher24)) -> IdHash {
        let mut hasher = self.empty;
        hasher.write(website_id.as_bytes());
        // Neither part has a control character, so the border between them is always told.
        hasher.write(b"\n");
        write(&mut hasher);
        IdHash(hasher.finish128().as_u128())
    }
}

/// The stored event that a repeat is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Its sequence.
    pub sequence: u64,
    /// Its `createdAt`, in milliseconds since 1970, UTC.
    pub created_at: i64,
}

/// An event of a request that is stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Its place among the request's valid events.
    pub index: usize,
    /// The event that is stored.
    pub original: Original,
}

/// What was found when a request's events were looked for among those that are stored.
#[derive(Debug, Default)]
pub struct LookedUp {
    /// How far the store had come when it was looked at, in the store's own count: what came later is looked at by the
    /// writer.
    pub seen: u64,
    /// The events that are stored already, in the order of the request.
    pub repeats: Vec<Repeat>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_its_website_and_key() {
        let hasher = IdHasher::new(b"0123456789abcdef");
        let of = |website: &str, id: &str| hasher.of_id(website, id);
        assert_eq!(of("web-a", "one"), of("web-a", "one"));
        // Files on people's disks hold these hashes: another way to make them would forget all of them.
        assert_eq!(of("web-a", "one"), IdHash(53_283_059_640_954_972_787_819_651_248_672_869_731));
        assert_ne!(of("web-a", "one"), of("web-b", "one"));
        assert_ne!(of("web-a", "one"), of("web-ao", "ne"));
        assert_ne!(of("web-a", "one"), IdHasher::new(b"fedcba9876543210").of_id("web-a", "one"));
        assert_eq!(of("web-a", "key/10"), hasher.of_key("web-a", "key", 10));
    }
}

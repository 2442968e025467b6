//! Who was seen lately, around the change of the salts: a visit that goes on over it keeps its id.
//!
//! Bounded: past the bound nobody is added, and a visit that goes on over midnight is two. Ids are known by their first
//! 64 bits.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::salts::PAUSE_MS;

/// Who was seen, and when last.
pub(super) struct Seen {
    visitors_max: usize,
    /// In milliseconds since 1970, UTC.
    last: Mutex<HashMap<u64, i64>>,
}

impl Seen {
    pub(super) fn new(visitors_max: usize) -> Self {
        Self { visitors_max, last: Mutex::default() }
    }

    /// Notes that a visitor was seen now.
    pub(super) fn note(&self, id: u64, now_ms: i64) {
        let mut last = self.last.lock();
        if last.len() < self.visitors_max || last.contains_key(&id) {
            last.insert(id, now_ms);
        }
    }

    /// Notes that a visitor was seen now, if that is no longer after the last time than a visit may pause; else says
    /// `false`, and the visitor is as if never seen.
    pub(super) fn note_again(&self, id: u64, now_ms: i64) -> bool {
        let mut last = self.last.lock();
        let Some(at) = last.get_mut(&id) else { return false };
        let goes_on = now_ms - *at <= PAUSE_MS;
        if goes_on {
            *at = now_ms;
        } else {
            last.remove(&id);
        }
        goes_on
    }

    /// Forgets everybody, and gives the memory back.
    pub(super) fn clear(&self) {
        *self.last.lock() = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_seen_again_within_a_pause_goes_on() {
        let seen = Seen::new(2);
        assert!(!seen.note_again(1, 0));
        seen.note(1, 0);
        assert!(seen.note_again(1, PAUSE_MS));
        assert!(seen.note_again(1, 2 * PAUSE_MS));
        assert!(!seen.note_again(1, 3 * PAUSE_MS + 1));
        assert!(!seen.note_again(1, 3 * PAUSE_MS + 1), "it began anew, under another id");
        for id in [2, 3, 4] {
            seen.note(id, 0);
        }
        assert_eq!([2, 3, 4].map(|id| seen.note_again(id, 1)), [true, true, false]);
        seen.note(2, 2);
        assert!(seen.note_again(2, PAUSE_MS + 2), "one that is there is no more than there was");
        seen.clear();
        assert!(!seen.note_again(2, 3));
    }
}

//! When a salt begins and ends. Pure: the time is given, and so is what is random.
//!
//! A salt is of one day, in UTC. The one before is used for half an hour more, for visits that go on over midnight; so
//! none is older than 24 h 30 min.

use zeroize::Zeroizing;

use crate::store::Salt;

/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// How long a salt is used after its day, and how long a visit may pause, in milliseconds.
pub(super) const PAUSE_MS: i64 = 30 * 60 * 1_000;

/// The salts of a moment.
#[derive(Clone)]
pub(super) struct Salts {
    pub(super) current: Salt,
    /// That of the day before, in the first half hour of a day.
    pub(super) previous: Option<Salt>,
    /// How often they have changed.
    pub(super) changes: u64,
}

impl Salts {
    /// Those to go on with, of what was kept.
    pub(super) fn begin(mut kept: Vec<Salt>, now_ms: i64, make: impl FnOnce() -> Zeroizing<[u8; 32]>) -> Self {
        kept.sort_unstable_by_key(|salt| std::cmp::Reverse(salt.day));
        let current = kept.iter().find(|salt| is_current(salt.day, now_ms)).cloned();
        let current = current.unwrap_or_else(|| Salt { day: day_of(now_ms), secret: make() });
        let previous = kept.into_iter().find(|salt| salt.day < current.day);
        let mut salts = Self { current, previous, changes: 0 };
        salts.forget(now_ms);
        salts
    }

    /// Whether they are those of this moment.
    pub(super) fn hold(&self, now_ms: i64) -> bool {
        is_current(self.current.day, now_ms)
            && self.previous.as_ref().is_none_or(|previous| is_used_still(previous.day, now_ms))
    }

    /// Makes them those of this moment.
    pub(super) fn turn(&mut self, now_ms: i64, make: impl FnOnce() -> Zeroizing<[u8; 32]>) {
        if !is_current(self.current.day, now_ms) {
            let new = Salt { day: day_of(now_ms), secret: make() };
            self.previous = Some(std::mem::replace(&mut self.current, new));
            self.changes += 1;
        }
        self.forget(now_ms);
    }

    fn forget(&mut self, now_ms: i64) {
        let over = self.previous.take_if(|previous| !is_used_still(previous.day, now_ms));
        self.changes += u64::from(over.is_some());
    }

    /// Whether a visit of now may go on when the salt has changed.
    pub(super) fn end_soon(&self, now_ms: i64) -> bool {
        now_ms >= (self.current.day + 1) * DAY_MS - PAUSE_MS
    }

    /// All of them, the current one first.
    pub(super) fn all(&self) -> Vec<Salt> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().cloned().collect()
    }
}

fn day_of(now_ms: i64) -> i64 {
    now_ms.div_euclid(DAY_MS)
}

/// Whether the salt of a day is that of this moment. A clock that is set back over midnight by a little does not bring
/// the day before back, and one that is set back by more makes no salt live longer.
fn is_current(day: i64, now_ms: i64) -> bool {
    (day * DAY_MS - PAUSE_MS..(day + 1) * DAY_MS).contains(&now_ms)
}

/// Whether the salt of a day before is used still: from when it was the day's to the end of a visit's pause after it.
fn is_used_still(day: i64, now_ms: i64) -> bool {
    (day * DAY_MS..(day + 1) * DAY_MS + PAUSE_MS).contains(&now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn made(byte: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([byte; 32])
    }

    fn bytes(salts: &Salts) -> (u8, Option<u8>) {
        (salts.current.secret[0], salts.previous.as_ref().map(|previous| previous.secret[0]))
    }

    #[test]
    fn a_salt_is_of_a_day_and_half_an_hour() {
        let mut salts = Salts::begin(Vec::new(), 10 * DAY_MS + 5 * MINUTE, || made(1));
        for (at, wanted, ends_soon) in [
            (10 * DAY_MS + 6 * MINUTE, (1, None), false),
            (11 * DAY_MS - 30 * MINUTE - 1, (1, None), false),
            (11 * DAY_MS - 30 * MINUTE, (1, None), true),
            (11 * DAY_MS - 1, (1, None), true),
            (11 * DAY_MS, (2, Some(1)), false),
            // The clock is set back by a second: no third salt.
            (11 * DAY_MS - 1, (2, Some(1)), false),
            (11 * DAY_MS + 30 * MINUTE - 1, (2, Some(1)), false),
            (11 * DAY_MS + 30 * MINUTE, (2, None), false),
            (12 * DAY_MS - 1, (2, None), true),
        ] {
            salts.turn(at, || made(2));
            assert_eq!(bytes(&salts), wanted, "{at}");
            assert!(salts.hold(at));
            assert_eq!(salts.end_soon(at), ends_soon, "{at}");
        }
        assert!(!salts.hold(12 * DAY_MS));
        // Nobody came for days.
        salts.turn(15 * DAY_MS + 10 * MINUTE, || made(3));
        assert_eq!(bytes(&salts), (3, None));
        // The clock was wrong by years.
        salts.turn(3 * DAY_MS, || made(4));
        assert_eq!(bytes(&salts), (4, None));
    }

    #[test]
    fn what_was_kept_is_gone_on_with_as_long_as_it_lasts() {
        const NEW: u8 = 99;
        for (days, now, wanted) in [
            (&[][..], 10 * DAY_MS, (NEW, None)),
            (&[10, 9], 10 * DAY_MS + MINUTE, (10, Some(9))),
            (&[9, 10], 10 * DAY_MS + MINUTE, (10, Some(9))),
            (&[9], 10 * DAY_MS + MINUTE, (NEW, Some(9))),
            (&[10, 9], 10 * DAY_MS + 30 * MINUTE, (10, None)),
            (&[10, 9], 11 * DAY_MS + MINUTE, (NEW, Some(10))),
            (&[10, 9], 12 * DAY_MS, (NEW, None)),
            // The clock was set back meanwhile: by a little, and by more.
            (&[10, 9], 10 * DAY_MS - 1, (10, Some(9))),
            (&[10, 9], 10 * DAY_MS - 31 * MINUTE, (9, None)),
            (&[10], 10 * DAY_MS - 31 * MINUTE, (NEW, None)),
            (&[10, 9], 8 * DAY_MS, (NEW, None)),
        ] {
            let kept = days.iter().map(|day| Salt { day: *day, secret: made(*day as u8) }).collect();
            let salts = Salts::begin(kept, now, || made(NEW));
            assert_eq!(bytes(&salts), wanted, "{days:?} {now}");
            assert!(salts.hold(now), "{days:?} {now}");
        }
    }
}

//! When an expired segment may leave the disk.
//!
//! What has expired is in no answer at once, which a clock that is set right takes back. Unlinking can't be taken
//! back: it waits until all events of a segment have been expired for a grace of hitlog's own running time, restarts
//! included, and while the machine's clock is in doubt nothing is unlinked. Pure: times in, choices out.

use std::{collections::BTreeMap, time::Duration};

use crate::store::catalog::ExpiryNotes;

/// How much further than the time since the machine's start the clock may go between two looks.
const JUMP_MS: i64 = 60 * 60 * 1_000;
/// How far behind the newest `receivedAt` the clock may stand at a start: a server that sets it does so in small steps.
const BEHIND_MS: i64 = 60 * 1_000;
/// The longest pause between two looks.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The shortest.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(250);

/// The time by every clock that counts, at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The machine's clock, which somebody may set: milliseconds since 1970, UTC.
    pub(super) now_ms: i64,
    /// Since the machine's start; nobody can set it, and it goes on while the machine sleeps.
    pub(super) since_boot: Duration,
    /// Since hitlog's start; stands still while the machine sleeps.
    pub(super) running: Duration,
}

/// Why the clock came into doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It went ahead by so many milliseconds more than time did.
    JumpedAhead(i64),
    /// At the start it stood so many milliseconds behind the newest event.
    Behind(i64),
    /// An earlier run had come into doubt, and it has not passed yet.
    Before,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The segments to unlink now, by number.
    pub(super) due: Vec<i64>,
    /// Those that were not expired at the look before.
    pub(super) new: Vec<i64>,
    /// The clock came into doubt.
    pub(super) doubt: Option<Doubt>,
    /// It is believed again.
    pub(super) is_settled: bool,
}

/// For how long each segment has been expired, and what is thought of the clock.
pub(super) struct Expiry {
    grace: Duration,
    held: BTreeMap<i64, Duration>,
    /// For how long the clock has agreed since it came into doubt.
    agreed: Option<Duration>,
    settled_received_at: i64,
    /// The newest `receivedAt` at the start.
    newest_received_at: i64,
    /// The times of the look before.
    seen: Option<Times>,
}

impl Expiry {
    /// Goes on with what an earlier run noted. `newest_received_at` is in milliseconds since 1970, UTC.
    pub(super) fn new(grace: Duration, notes: &ExpiryNotes, newest_received_at: i64) -> Self {
        Self {
            grace,
            held: notes.held.iter().copied().collect(),
            agreed: notes.agreed,
            settled_received_at: notes.settled_received_at,
            newest_received_at,
            seen: None,
        }
    }

    /// What is to be noted.
    pub(super) fn notes(&self) -> ExpiryNotes {
        ExpiryNotes {
            held: self.held.iter().map(|(number, held)| (*number, *held)).collect(),
            agreed: self.agreed,
            settled_received_at: self.settled_received_at,
        }
    }

    /// Takes the time, and which segments hold nothing but expired events.
    pub(super) fn look(&mut self, times: Times, expired: &[i64]) -> Look {
        let seen = self.seen.replace(times);
        let ran = seen.map_or(Duration::ZERO, |seen| times.running.saturating_sub(seen.running));
        let mut look = Look { doubt: self.doubt(seen, times), ..Look::default() };
        match (look.doubt, self.agreed) {
            // A restart does not begin the wait anew.
            (Some(Doubt::JumpedAhead(_)), _) | (Some(_), None) => self.agreed = Some(Duration::ZERO),
            (None, Some(agreed)) if agreed + ran >= self.grace => {
                // A clock that has stood behind the newest event for so long is right, and the event's time was not.
                if self.newest_received_at > times.now_ms {
                    self.settled_received_at = self.newest_received_at;
                }
                self.agreed = None;
                look.is_settled = true;
            }
            (_, Some(agreed)) => self.agreed = Some(agreed + ran),
            (None, None) => {}
        }
        let before = std::mem::take(&mut self.held);
        for number in expired {
            let held = before.get(number).map(|held| (*held + ran).min(self.grace));
            if held.is_none() || seen.is_none() {
                look.new.push(*number);
            }
            self.held.insert(*number, held.unwrap_or_default());
        }
        if self.agreed.is_none() {
            look.due = self.held.iter().filter(|(_, held)| **held >= self.grace).map(|(number, _)| *number).collect();
        }
        look
    }

    fn doubt(&self, seen: Option<Times>, times: Times) -> Option<Doubt> {
        let Some(seen) = seen else {
            let behind = self.newest_received_at.saturating_sub(times.now_ms);
            if behind > BEHIND_MS && self.newest_received_at > self.settled_received_at {
                return Some(Doubt::Behind(behind));
            }
            return self.agreed.map(|_| Doubt::Before);
        };
        let passed = times.since_boot.saturating_sub(seen.since_boot).as_millis();
        let went = times.now_ms.saturating_sub(seen.now_ms);
        let ahead = went.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX));
        (ahead > JUMP_MS).then_some(Doubt::JumpedAhead(ahead))
    }

    /// Notes that a segment is gone.
    pub(super) fn forget(&mut self, number: i64) {
        self.held.remove(&number);
    }

    /// Whether the clock is in doubt, so that nothing is unlinked.
    pub(super) fn is_suspended(&self) -> bool {
        self.agreed.is_some()
    }

    /// The running time until the next segment is unlinked; `None` if none is expired.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let left = |held: Duration| self.grace.saturating_sub(held);
        let longest = self.held.values().copied().max()?;
        Some(left(longest).max(self.agreed.map_or(Duration::ZERO, left)))
    }

    /// The pause until the next look: short enough for what is noted to be true to a tenth of the grace.
    pub(super) fn pause(&self) -> Duration {
        // What is due and still there could not be removed.
        let due_in = self.due_in().filter(|due_in| !due_in.is_zero()).unwrap_or(Duration::MAX);
        (self.grace / 10).max(LOOK_PAUSE_MIN).min(due_in).clamp(LOOK_PAUSE_MIN, LOOK_PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    const GRACE: Duration = Duration::from_secs(86_400);

    /// A machine with clocks that go on together until somebody sets one.
    struct Machine {
        times: Times,
        expiry: Expiry,
    }

    impl Machine {
        fn start(notes: &ExpiryNotes, now_ms: i64, newest_received_at: i64) -> Self {
            let times = Times { now_ms, since_boot: Duration::from_secs(5), running: Duration::ZERO };
            Self { times, expiry: Expiry::new(GRACE, notes, newest_received_at) }
        }

        /// Runs for so many minutes with a look after each; what the last one found.
        fn run(&mut self, minutes: u64, expired: &[i64]) -> Look {
            let mut last = self.expiry.look(self.times, expired);
            for _ in 0..minutes {
                self.pass(60);
                last = self.expiry.look(self.times, expired);
            }
            last
        }

        fn pass(&mut self, seconds: u64) {
            self.times.now_ms += seconds as i64 * 1_000;
            self.times.since_boot += Duration::from_secs(seconds);
            self.times.running += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn a_segment_goes_after_the_grace_of_running_time_over_restarts() {
        let mut machine = Machine::start(&ExpiryNotes::default(), 400 * DAY_MS, 0);
        assert_eq!(machine.expiry.look(machine.times, &[1, 2]).new, [1, 2]);
        assert!(machine.run(1_000, &[1, 2]).due.is_empty());
        // The second is not expired any more, the third is newly.
        assert_eq!(machine.run(1, &[1, 3]).new, [3; 0], "told at the look before");
        let notes = machine.expiry.notes();
        assert_eq!(notes.held.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
        // hitlog was stopped for weeks, which is no jump and no running time.
        let mut machine = Machine::start(&notes, 430 * DAY_MS, 399 * DAY_MS);
        assert!(machine.run(438, &[1, 3]).due.is_empty());
        assert_eq!(machine.expiry.due_in(), Some(Duration::from_secs(60)));
        assert_eq!(machine.run(1, &[1, 3]).due, [1]);
        machine.expiry.forget(1);
        assert!(machine.run(999, &[3]).due.is_empty());
        assert!(!machine.expiry.is_suspended());
    }

    #[test]
    fn a_clock_that_jumps_ahead_suspends_until_it_has_agreed() {
        let mut machine = Machine::start(&ExpiryNotes::default(), 400 * DAY_MS, 0);
        machine.run(1_439, &[1]);
        // Within an hour of what the machine itself says nothing is odd.
        machine.times.now_ms += JUMP_MS;
        assert_eq!(machine.run(0, &[1]).doubt, None);
        machine.times.now_ms += JUMP_MS + 1;
        let look = machine.run(0, &[1, 2]);
        assert_eq!((look.doubt, look.due), (Some(Doubt::JumpedAhead(JUMP_MS + 1)), vec![]));
        assert!(machine.run(1_000, &[1, 2]).due.is_empty());
        // A restart neither forgets the doubt nor begins it anew.
        let mut machine = Machine::start(&machine.expiry.notes(), 500 * DAY_MS, 0);
        assert_eq!(machine.run(0, &[1, 2]).doubt, Some(Doubt::Before));
        assert!(machine.run(439, &[1, 2]).due.is_empty());
        assert_eq!(machine.expiry.due_in(), Some(Duration::from_secs(60)));
        let look = machine.run(1, &[1, 2]);
        assert_eq!((look.is_settled, look.due), (true, vec![1, 2]));
        let (notes, newest) = (machine.expiry.notes(), 502 * DAY_MS);
        assert_eq!(Machine::start(&notes, newest - DAY_MS, newest).run(0, &[]).doubt, Some(Doubt::Behind(DAY_MS)));
    }

    #[test]
    fn a_machine_that_sleeps_is_no_jump_and_its_sleep_no_running_time() {
        let mut machine = Machine::start(&ExpiryNotes::default(), 400 * DAY_MS, 0);
        machine.run(10, &[1]);
        machine.times.now_ms += 3 * DAY_MS;
        machine.times.since_boot += Duration::from_secs(3 * 86_400);
        let look = machine.run(1, &[1]);
        assert_eq!((look.doubt, look.due), (None, vec![]));
        assert_eq!(machine.expiry.due_in(), Some(GRACE - Duration::from_secs(11 * 60)));
    }

    #[test]
    fn a_clock_behind_the_newest_event_suspends_once() {
        let newest = 400 * DAY_MS;
        let mut machine = Machine::start(&ExpiryNotes::default(), newest - BEHIND_MS, newest);
        assert_eq!(machine.run(0, &[]).doubt, None);
        let mut machine = Machine::start(&ExpiryNotes::default(), newest - 3 * DAY_MS, newest);
        assert_eq!(machine.run(0, &[1]).doubt, Some(Doubt::Behind(3 * DAY_MS)));
        assert!(machine.run(700, &[1]).due.is_empty());
        let mut machine = Machine::start(&machine.expiry.notes(), newest - 2 * DAY_MS, newest);
        assert_eq!(machine.run(0, &[1]).doubt, Some(Doubt::Behind(2 * DAY_MS)));
        assert!(machine.run(739, &[1]).due.is_empty());
        assert_eq!(machine.run(1, &[1]).due, [1]);
        // The newest event had a wrong time, then: it is not asked again.
        let mut machine = Machine::start(&machine.expiry.notes(), newest - DAY_MS, newest);
        assert_eq!(machine.run(0, &[]).doubt, None);
        let mut machine = Machine::start(&machine.expiry.notes(), newest - DAY_MS, newest + 1);
        assert_eq!(machine.run(0, &[]).doubt, Some(Doubt::Behind(DAY_MS + 1)));
    }
}

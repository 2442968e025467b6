//! How long a client is asked to wait before it tries again.
//!
//! What drains by itself is computed from how it drains. What does not (a full disk, a full list of erasures) may last
//! for hours, and its clients would come back once a second all the while: they are asked for as long as it has lasted
//! already, which for each of them doubles the wait from one try to the next. The decisions are pure.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The shortest wait that is asked for, in seconds.
const WAIT_SECONDS_MIN: f64 = 1.0;
/// The longest wait that is asked for, in seconds.
const WAIT_SECONDS_MAX: f64 = 60.0;
/// By which part a wait is lengthened or shortened, so that those who were refused together do not come back together.
const JITTER: f64 = 0.25;
/// An obstacle that nobody has met for this long is taken for gone: twice the longest wait, so that a single client
/// that does as it is asked still finds it lasting.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// The wait to ask for in whole seconds: `wait`, moved by chance, of which `chance` from 0 to 1 is one draw. At the
/// longest it is moved down only, so that there, too, it differs from client to client.
pub(super) fn seconds_to_wait(wait: Duration, chance: f64) -> u64 {
    let seconds = wait.as_secs_f64().clamp(WAIT_SECONDS_MIN, WAIT_SECONDS_MAX / (1.0 + JITTER));
    let moved = seconds * (1.0 - JITTER + 2.0 * JITTER * chance);
    moved.round().clamp(WAIT_SECONDS_MIN, WAIT_SECONDS_MAX) as u64
}

/// Something that keeps changes from being made and does not go away by itself.
#[derive(Debug, Default)]
pub(super) struct Obstacle(Mutex<Option<Met>>);

/// When an obstacle was met.
#[derive(Debug, Clone, Copy)]
struct Met {
    first: Instant,
    last: Instant,
}

impl Obstacle {
    /// Notes that somebody has met it now, and says for how long it has lasted.
    pub(super) fn meet(&self) -> Duration {
        let mut met = self.0.lock();
        let (now_met, lasted) = meet(*met, Instant::now());
        *met = Some(now_met);
        lasted
    }

    /// Notes that it is gone.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }
}

fn meet(before: Option<Met>, now: Instant) -> (Met, Duration) {
    let lasting = before.filter(|met| now.saturating_duration_since(met.last) < FORGOTTEN_AFTER);
    let first = lasting.map_or(now, |met| met.first);
    (Met { first, last: now }, now.saturating_duration_since(first))
}

/// The obstacles to changes of the catalog, and to following events.
#[derive(Debug, Default)]
pub struct Obstacles {
    /// The disk is full.
    pub(super) storage_full: Obstacle,
    /// As many erasures are remembered as may be.
    pub(super) erasures_full: Obstacle,
    /// As many events are hidden as may be.
    pub(super) hidden_events_full: Obstacle,
    /// As many clients follow events as may.
    pub(super) tails_full: Obstacle,
}

impl Obstacles {
    /// Notes that a website was registered or changed.
    pub(super) fn changed(&self) {
        self.storage_full.clear();
    }

    /// Notes that an erasure was taken in.
    pub(super) fn erased(&self) {
        self.storage_full.clear();
        self.erasures_full.clear();
        self.hidden_events_full.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_seconds_apart_and_within_bounds() {
        for (wait, chance, seconds) in [
            (0.0, 0.0, 1),
            (0.0, 0.99, 1),
            (1.0, 0.99, 1),
            (2.0, 0.0, 2),
            (2.0, 0.99, 2),
            (4.0, 0.0, 3),
            (4.0, 0.5, 4),
            (4.0, 0.99, 5),
            (16.0, 0.0, 12),
            (16.0, 0.99, 20),
            (48.0, 0.99, 60),
            (60.0, 0.0, 36),
            (60.0, 0.5, 48),
            (86_400.0, 0.0, 36),
            (86_400.0, 0.99, 60),
        ] {
            let found = seconds_to_wait(Duration::from_secs_f64(wait), chance);
            assert_eq!(found, seconds, "{wait} s, {chance}");
        }
    }

    #[test]
    fn an_obstacle_lasts_until_nobody_has_met_it_for_a_while() {
        let start = Instant::now();
        let mut met = None;
        for (at, lasted) in [(0, 0), (1, 1), (3, 3), (90, 90), (209, 209), (329, 0), (330, 1)] {
            let (now_met, found) = meet(met, start + Duration::from_secs(at));
            assert_eq!(found.as_secs(), lasted, "at {at} s");
            met = Some(now_met);
        }
        let obstacle = Obstacle::default();
        obstacle.meet();
        std::thread::sleep(Duration::from_millis(2));
        assert!(obstacle.meet() >= Duration::from_millis(2));
        obstacle.clear();
        assert_eq!(obstacle.meet(), Duration::ZERO);
    }
}

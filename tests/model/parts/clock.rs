//! `std::time`, with a clock that moves by a millisecond whenever somebody looks: the same in every run of a schedule.

use core::cell::Cell;
pub use real::time::Duration;

real::thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

pub fn reset() {
    NOW.set(Duration::ZERO);
}

/// Time passes while somebody sleeps.
pub fn pass(time: Duration) {
    NOW.set(NOW.get() + time);
}

#[derive(Debug, Clone, Copy)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        NOW.set(NOW.get() + Duration::from_millis(1));
        Self(NOW.get())
    }

    pub fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// Stricter than the real one: the protocol never has the two the wrong way round.
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.checked_sub(earlier.0).expect("a request is older than the queue")
    }
}

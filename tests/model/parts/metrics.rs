//! The metrics that the queue and the writer count with.

use real::sync::atomic::Ordering::Relaxed;

pub use hitlog::metrics::Shed;

use super::{Steps, looks};

/// The newest count is seen by everybody. Where somebody looks, counting is a step among the others; elsewhere it is
/// one with the step before it, which spares schedules.
pub struct Counter(Steps<u64>);

impl Default for Counter {
    fn default() -> Self {
        Self(Steps::new(0))
    }
}

impl Counter {
    pub fn increment(&self, more: u64) {
        self.see(|count| *count += more);
    }

    pub fn value(&self) -> u64 {
        self.see(|count| *count)
    }

    fn see<R>(&self, change: impl FnOnce(&mut u64) -> R) -> R {
        if looks() { self.0.step(Relaxed, change) } else { self.0.change(change) }
    }
}

#[derive(Default)]
pub struct Histogram;

impl Histogram {
    pub fn record(&self, value: f64) {
        assert!(value.is_finite() && value >= 0.0, "recorded {value}");
    }
}

#[derive(Default)]
pub struct WriterMetrics {
    pub commit_seconds: Histogram,
    pub group_events: Histogram,
    pub group_bytes: Histogram,
}

#[derive(Default)]
pub struct EventMetrics {
    pub events_committed: Counter,
    pub events_replayed: Counter,
    pub events_unknown: Counter,
    events_shed: [Counter; Shed::ALL.len()],
}

impl EventMetrics {
    pub fn events_shed(&self, reason: Shed) -> &Counter {
        &self.events_shed[reason as usize]
    }

    /// Everything that the law of conservation counts as settled.
    pub fn settled(&self) -> u64 {
        let shed: u64 = self.events_shed.iter().map(Counter::value).sum();
        self.events_committed.value() + self.events_replayed.value() + self.events_unknown.value() + shed
    }
}

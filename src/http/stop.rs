//! Whether hitlog is stopping, for whoever looks and for whoever waits.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Begins once and lasts.
pub(super) struct Stop {
    /// Looked at with every request, which the channel's lock would be too dear for.
    begun: AtomicBool,
    sender: watch::Sender<bool>,
}

impl Stop {
    pub(super) fn new() -> Self {
        Self { begun: AtomicBool::new(false), sender: watch::Sender::new(false) }
    }

    /// From now on connections close after the response that they are at.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Wakes whoever waits for the stop: whatever was to be taken in has been.
    pub(super) fn tell(&self) {
        self.sender.send_replace(true);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// What a connection waits with.
    pub(super) fn told(&self) -> watch::Receiver<bool> {
        self.sender.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_seen_by_whoever_looks_and_told_to_whoever_waits() {
        let stop = Stop::new();
        let (mut early, is_told) = (stop.told(), |told: &watch::Receiver<bool>| *told.borrow());
        assert!(!stop.has_begun() && !is_told(&early));
        stop.begin();
        assert!(stop.has_begun() && !is_told(&early), "what waits in the kernel is taken in first");
        stop.tell();
        early.wait_for(|told| *told).await.unwrap();
        stop.told().wait_for(|told| *told).await.unwrap();
    }
}

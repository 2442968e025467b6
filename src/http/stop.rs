//! Whether hitlog is stopping, for whoever looks and for whoever waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;

use super::activity::Left;

/// How many connections were cut off when the time of a stop was over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutOff {
    /// Those whose request had been taken in and was not answered.
    pub unanswered: usize,
    /// Those whose clients had not sent a body, or not read an answer.
    pub slow: usize,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not begun, or nobody who waits has been told so.
    Serving,
    /// What was taken in is answered, and connections without a request end.
    Draining,
    /// Its time is up: every connection ends.
    Over,
}

/// Begins once and lasts.
pub(super) struct Stop {
    /// Looked at with every request, which the channel's lock would be too dear for.
    begun: AtomicBool,
    stage: watch::Sender<Stage>,
    unanswered: AtomicUsize,
    slow: AtomicUsize,
}

impl Stop {
    pub(super) fn new() -> Self {
        Self {
            begun: AtomicBool::new(false),
            stage: watch::Sender::new(Stage::Serving),
            unanswered: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
        }
    }

    /// From now on connections close after the response that they are at.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Tells whoever waits for it that the stop has come so far.
    pub(super) fn tell(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Counts a connection that is cut off.
    pub(super) fn cuts_off(&self, left: Option<Left>) {
        match left {
            Some(Left::Unanswered) => self.unanswered.fetch_add(1, Ordering::Relaxed),
            Some(Left::Slow) => self.slow.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// Those that were.
    pub(super) fn cut_off(&self) -> CutOff {
        CutOff { unanswered: self.unanswered.load(Ordering::Relaxed), slow: self.slow.load(Ordering::Relaxed) }
    }

    /// What a connection waits with: it sees the stage that is now as a change.
    pub(super) fn told(&self) -> watch::Receiver<Stage> {
        let mut told = self.stage.subscribe();
        told.mark_changed();
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_seen_by_whoever_looks_and_told_to_whoever_waits() {
        let stop = Stop::new();
        let mut early = stop.told();
        assert!(!stop.has_begun() && *early.borrow() == Stage::Serving);
        stop.begin();
        assert!(stop.has_begun() && *early.borrow() == Stage::Serving, "what waits in the kernel is taken in first");
        stop.tell(Stage::Draining);
        for mut told in [early.clone(), stop.told()] {
            told.changed().await.unwrap();
            assert_eq!(*told.borrow_and_update(), Stage::Draining);
        }
        stop.tell(Stage::Over);
        early.wait_for(|stage| *stage == Stage::Over).await.unwrap();
        [Some(Left::Slow), None, Some(Left::Unanswered), Some(Left::Slow)]
            .into_iter()
            .for_each(|left| stop.cuts_off(left));
        assert_eq!(stop.cut_off(), CutOff { unanswered: 1, slow: 2 });
    }
}

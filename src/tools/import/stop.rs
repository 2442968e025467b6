//! How somebody asks an import to end.

use std::sync::atomic::{AtomicBool, Ordering};

/// Asks an import to end in order, which it does between two groups.
#[derive(Debug, Default)]
pub struct Stop {
    is_asked: AtomicBool,
    is_nothing_done: AtomicBool,
}

impl Stop {
    /// Asks for the end. True: there is nothing to end in order, because a pipe is waited for, or because the store is
    /// still recovering, which may take long and which any crash may cut short; so the process may end at once.
    pub fn ask(&self) -> bool {
        self.is_asked.store(true, Ordering::SeqCst);
        self.is_nothing_done.load(Ordering::SeqCst)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Runs what the end of the process may cut short, unless somebody has asked for the end. Each side says what it
    /// does before it looks at what the other has said, so one of them sees it.
    pub(super) fn while_nothing_is_done<T>(&self, run: impl FnOnce() -> T) -> Option<T> {
        self.is_nothing_done.store(true, Ordering::SeqCst);
        let ran = (!self.is_asked()).then(run);
        self.is_nothing_done.store(false, Ordering::SeqCst);
        ran
    }
}

//! How somebody asks an import to end.

use std::sync::atomic::{AtomicBool, Ordering};

/// Asks an import to end in order, which it does between two groups.
#[derive(Debug, Default)]
pub struct Stop {
    is_asked: AtomicBool,
    is_recovering: AtomicBool,
}

impl Stop {
    /// Asks for the end. True: there is nothing to end in order, because the store is still recovering, which may take
    /// long and which any crash may cut short; so the process may end at once.
    pub fn ask(&self) -> bool {
        self.is_asked.store(true, Ordering::SeqCst);
        self.is_recovering.load(Ordering::SeqCst)
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::SeqCst)
    }

    /// Runs the recovery, unless somebody has asked for the end. Each side says what it does before it looks at what
    /// the other has said, so one of them sees it.
    pub(super) fn recover<T>(&self, recover: impl FnOnce() -> T) -> Option<T> {
        self.is_recovering.store(true, Ordering::SeqCst);
        let recovered = (!self.is_asked()).then(recover);
        self.is_recovering.store(false, Ordering::SeqCst);
        recovered
    }
}

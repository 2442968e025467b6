//! `std::sync::atomic` as the queue uses it, over loom's.

use loom::sync::atomic as seen;
pub use real::sync::atomic::Ordering;

use super::{Fault, panic::is_lost, planted};

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        pub struct $name(seen::$name);

        impl $name {
            pub fn new(value: $value) -> Self {
                Self(seen::$name::new(value))
            }

            pub fn load(&self, ordering: Ordering) -> $value {
                self.0.load(ordering)
            }

            pub fn store(&self, value: $value, ordering: Ordering) {
                self.0.store(value, ordering);
            }
        }
    };
}

atomic!(AtomicU8, u8);
atomic!(AtomicU64, u64);

/// A counter of the room that is taken: the queue uses it for nothing else. So it never falls below nothing, and
/// when the last of the queue goes it is at nothing.
pub struct AtomicUsize(seen::AtomicUsize);

impl AtomicUsize {
    pub fn new(value: usize) -> Self {
        Self(seen::AtomicUsize::new(value))
    }

    pub fn load(&self, ordering: Ordering) -> usize {
        self.0.load(ordering)
    }

    pub fn fetch_add(&self, more: usize, ordering: Ordering) -> usize {
        if planted(Fault::AdditionIsTorn) {
            let before = self.0.load(ordering);
            self.0.store(before + more, ordering);
            return before;
        }
        let before = self.0.fetch_add(more, ordering);
        if planted(Fault::RoomLooksFree) { 0 } else { before }
    }

    pub fn fetch_sub(&self, less: usize, ordering: Ordering) -> usize {
        // To give back nothing, as a request does that is answered, is no step that anybody could see.
        if less == 0 || is_lost() {
            return 0;
        }
        let before = self.0.fetch_sub(less, ordering);
        assert!(before >= less, "more room is given back than is taken");
        before
    }
}

impl Drop for AtomicUsize {
    fn drop(&mut self) {
        if !is_lost() {
            // Adding nothing reads the newest value, where a load may be shown an older one.
            assert_eq!(self.0.fetch_add(0, Ordering::Relaxed), 0, "room is taken and never given back");
        }
    }
}

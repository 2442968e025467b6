//! A bound on bytes that many holders share. Knows nobody.
//!
//! Each holder has a [`Share`]: it counts what it is about to take, hears when all of them together would hold too
//! much, and gives everything back when it is dropped.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many bytes all shares together may hold. A clone is the same budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    used: AtomicUsize,
    bytes_max: usize,
}

/// All shares together hold more than their budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget;

impl Budget {
    /// A budget of `bytes_max` bytes, none of them taken.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Counter { used: AtomicUsize::new(0), bytes_max }))
    }

    /// The bytes that all shares hold at the moment.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Counts `bytes` more as held, unless that is too much. Whoever has taken them gives them back, once.
    pub fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        if self.0.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.0.bytes_max {
            self.give_back(bytes);
            return Err(OverBudget);
        }
        Ok(())
    }

    /// Counts `bytes` that were taken as held no longer.
    pub fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A share that holds nothing yet.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// What one holder has taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// Counts `bytes` as held, unless as many are counted already. Refused, it holds what it held before: so whoever
    /// asks takes the memory afterwards.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.budget.take(more)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.budget.give_back(less);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_one_bound_together() {
        let budget = Budget::new(100);
        let mut shares = [budget.share(), budget.share()];
        for (at, bytes, outcome, used) in [
            (0, 60, Ok(()), 60),
            (1, 40, Ok(()), 100),
            (0, 60, Ok(()), 100),
            (0, 10, Ok(()), 100),
            (1, 41, Err(OverBudget), 100),
            (0, 61, Err(OverBudget), 100),
        ] {
            assert_eq!((shares[at].grow_to(bytes), budget.used()), (outcome, used), "{at} to {bytes}");
        }
        let [mut first, mut second] = shares;
        second.shrink_to(50);
        assert_eq!(budget.used(), 100, "more than it holds");
        second.shrink_to(10);
        assert_eq!(budget.used(), 70);
        drop(second);
        assert_eq!(budget.used(), 60);
        assert_eq!((first.grow_to(100), budget.used()), (Ok(()), 100));
        drop(first);
        assert_eq!((budget.used(), budget.bytes_max()), (0, 100));
    }

    #[test]
    fn what_threads_take_they_give_back() {
        let budget = Budget::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for bytes in 0..1_000 {
                        let mut share = budget.share();
                        let _ = share.grow_to(bytes / 2);
                        let _ = share.grow_to(bytes);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}

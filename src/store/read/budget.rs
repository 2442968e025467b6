//! The memory of the answers that are being built and sent.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{metrics::ReadRefused, store::error::ReadError};

/// A bound on bytes that all answers share.
pub(super) struct Budget {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max }
    }

    pub(super) fn taken(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The bytes of an answer. Counts against the budget until it is dropped, that is, until it has been sent.
pub struct PageBuffer {
    bytes: Vec<u8>,
    counted: usize,
    budget: Arc<Budget>,
}

impl PageBuffer {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), counted: 0, budget }
    }

    /// Appends to the answer; an error says that all answers together hold too much.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ReadError> {
        write(&mut self.bytes);
        let grown = self.bytes.capacity() - self.counted;
        if grown > 0 {
            self.counted += grown;
            if self.budget.bytes.fetch_add(grown, Ordering::Relaxed) + grown > self.budget.bytes_max {
                return Err(ReadError::Refused(ReadRefused::Memory));
            }
        }
        Ok(())
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_share_one_budget() {
        let budget = Arc::new(Budget::new(100));
        let buffer = || PageBuffer::new(Arc::clone(&budget));
        let (mut first, mut second) = (buffer(), buffer());
        assert!(first.write(|out| out.extend_from_slice(&[0; 60])).is_ok());
        assert!(matches!(
            second.write(|out| out.extend_from_slice(&[0; 60])),
            Err(ReadError::Refused(ReadRefused::Memory))
        ));
        drop((first, second));
        assert_eq!(budget.taken(), 0);
    }
}

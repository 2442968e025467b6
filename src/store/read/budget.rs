//! The memory of the answers that are being built and sent.

use crate::{
    budget::{Budget, OverBudget, Share},
    metrics::ReadRefused,
    store::error::ReadError,
};

/// The largest event as JSON: properties of 32 KiB, two addresses and six texts whose every character is escaped.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// The most that a buffer grows at once: doubling would take twice what an answer needs.
const GROWTH_BYTES_MAX: usize = 1024 * 1024;

/// The bytes of an answer. Counts against the budget until it is dropped, that is, until it has been sent.
pub struct PageBuffer {
    bytes: Vec<u8>,
    share: Share,
}

impl PageBuffer {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { bytes: Vec::new(), share: budget.share() }
    }

    /// Appends to the answer; an error says that all answers together would hold too much.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ReadError> {
        if self.bytes.capacity() - self.bytes.len() < WRITE_BYTES_MAX {
            let more = (self.bytes.len() / 4).clamp(WRITE_BYTES_MAX, GROWTH_BYTES_MAX);
            self.grow_to(self.bytes.len() + more)?;
            self.bytes.reserve_exact(more);
        }
        write(&mut self.bytes);
        // What one write appends fits, so that this counts nothing new.
        self.grow_to(self.bytes.capacity())
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives back the room that was made for more.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        self.bytes.shrink_to_fit();
        self.share.shrink_to(self.bytes.capacity());
        self
    }

    fn grow_to(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.share.grow_to(bytes).map_err(|OverBudget| ReadError::Refused(ReadRefused::Memory))
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_share_one_budget() {
        let budget = Budget::new(3 * WRITE_BYTES_MAX);
        let buffer = || PageBuffer::new(&budget);
        let (mut first, mut second) = (buffer(), buffer());
        for _ in 0..2 {
            assert!(first.write(|out| out.extend_from_slice(&[0; WRITE_BYTES_MAX / 2])).is_ok());
            assert!(budget.used() >= first.bytes.capacity(), "counted before it is taken");
        }
        assert!(second.write(|out| out.extend_from_slice(&[0; WRITE_BYTES_MAX / 2])).is_ok());
        assert!(first.write(|out| out.push(0)).is_ok());
        assert!(matches!(second.write(|out| out.push(0)), Err(ReadError::Refused(ReadRefused::Memory))));
        let second = second.trimmed();
        assert_eq!(budget.used(), first.bytes.capacity() + WRITE_BYTES_MAX / 2);
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}

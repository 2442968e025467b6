//! The memory of the answers that are being built and sent.

use crate::{
    budget::{Budget, OverBudget, Share},
    metrics::ReadRefused,
    store::error::ReadError,
};

/// The bytes of an answer. Counts against the budget until it is dropped, that is, until it has been sent.
pub struct PageBuffer {
    bytes: Vec<u8>,
    share: Share,
}

impl PageBuffer {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { bytes: Vec::new(), share: budget.share() }
    }

    /// Appends to the answer; an error says that all answers together hold too much.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ReadError> {
        write(&mut self.bytes);
        let counted = self.share.grow_to(self.bytes.capacity());
        counted.map_err(|OverBudget| ReadError::Refused(ReadRefused::Memory))
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
        let budget = Budget::new(100);
        let buffer = || PageBuffer::new(&budget);
        let (mut first, mut second) = (buffer(), buffer());
        assert!(first.write(|out| out.extend_from_slice(&[0; 60])).is_ok());
        assert!(matches!(
            second.write(|out| out.extend_from_slice(&[0; 60])),
            Err(ReadError::Refused(ReadRefused::Memory))
        ));
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }
}

//! A body in memory, counted.

use std::cmp::Ordering;

use crate::{
    budget::OverBudget,
    http::memory::{Holding, SharedMemory},
};

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Larger than this many bytes, as sent or unpacked.
    TooLarge(usize),
    /// The body came too slowly.
    Timeout,
    /// In an encoding that is not taken.
    Encoding,
    /// Not what its `Content-Encoding` says, or its chunks are malformed; with what went wrong.
    Damaged(String),
    /// Its client went away, or sent no more, before its end.
    BrokenOff,
    /// All bodies together hold too much memory, or this one had to give way to others.
    Memory,
}

/// A body in memory, counted against what all bodies may take.
pub(crate) struct BodyBytes {
    bytes: Vec<u8>,
    /// The size that it is said to have in the end; 0 if nobody says.
    declared: usize,
    /// How many bytes were sent for it, if it was packed.
    packed: Option<usize>,
    holding: Holding,
}

/// Nothing is taken on a client's word alone; whoever has sent so much is believed that it will send twice as much, if
/// it has said so.
const TRUST_GROWTH: usize = 2;

/// Of so much, and so many times of what was sent, a body counts as inflated. Events pack to a tenth as a rule.
const INFLATED_BYTES_MIN: usize = 32 * 1024;
const INFLATED_RATIO: usize = 40;

impl BodyBytes {
    /// An empty one, which is said to have this size in the end.
    pub(super) fn new(memory: &SharedMemory, declared: usize) -> Self {
        Self { bytes: Vec::new(), declared, packed: None, holding: memory.hold() }
    }

    /// The capacity that it has to have for `more` bytes; `None` if it has it.
    fn capacity_for(&self, more: usize) -> Option<usize> {
        let (needed, capacity) = (self.bytes.len() + more, self.bytes.capacity());
        let trusted = match needed.cmp(&self.declared) {
            _ if needed <= capacity => return None,
            Ordering::Greater => capacity * 2,
            Ordering::Less | Ordering::Equal => self.declared.min(needed * TRUST_GROWTH),
        };
        Some(needed.max(trusted))
    }

    /// Makes room for `more` bytes, counting it before it is taken.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), BodyError> {
        let Some(capacity) = self.capacity_for(more) else { return Ok(()) };
        self.holding.grow_to(capacity).map_err(|OverBudget| BodyError::Memory)?;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    /// The same, but others may have to give way first.
    pub(super) async fn reserve_in_time(&mut self, more: usize) -> Result<(), BodyError> {
        let Some(capacity) = self.capacity_for(more) else { return Ok(()) };
        self.holding.grow_in_time(capacity).await.map_err(|OverBudget| BodyError::Memory)?;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    /// Appends what there is room for.
    pub(super) fn append(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.reserve(data.len())?;
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Notes that it was unpacked from so many bytes.
    pub(super) fn was_packed(&mut self, bytes: usize) {
        self.packed = Some(bytes);
    }

    /// Whether far more came out of it than was sent: work that costs its sender nothing.
    pub(crate) fn is_inflated(&self) -> bool {
        self.packed
            .is_some_and(|packed| self.bytes.len() > INFLATED_BYTES_MIN.max(packed.saturating_mul(INFLATED_RATIO)))
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn holding_mut(&mut self) -> &mut Holding {
        &mut self.holding
    }

    /// The bytes, and what counts them here, to be dropped once they are counted elsewhere or gone.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Holding) {
        (self.bytes, self.holding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{connections::Connections, options::ConnectionLimits};

    #[test]
    fn a_declared_length_is_believed_little_by_little() {
        let connections = Connections::new(ConnectionLimits::OF_TESTS, Vec::new());
        let memory = SharedMemory::of_bodies(8 << 20, 1 << 20, &connections);
        let mut body = BodyBytes::new(&memory, 4 << 20);
        assert_eq!(memory.used(), 0, "on the word alone");
        for sent in 1..=(4 << 20) / 1024 {
            body.append(&[b'x'; 1024]).unwrap();
            assert!(memory.used() <= sent * 1024 * TRUST_GROWTH, "{sent} KiB sent, {} B held", memory.used());
        }
        assert_eq!(memory.used(), 4 << 20);
        let (bytes, holding) = body.into_parts();
        assert_eq!(bytes.len(), 4 << 20);
        drop(holding);
        assert_eq!(memory.used(), 0);
        // Nobody says how long it is, or it is longer than that.
        let mut body = BodyBytes::new(&memory, 0);
        body.append(&[b'x'; 100_000]).unwrap();
        assert_eq!(memory.used(), 100_000);
        assert_eq!(body.append(&vec![b'x'; 8 << 20]), Err(BodyError::Memory));
        assert_eq!(memory.used(), 100_000);
    }
}

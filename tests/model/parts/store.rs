//! A log that does as it is told, and remembers what it stored; and the events that it stores.

use core::fmt;
use real::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
    vec::Vec,
};

use super::{Fault, panic::panic_as_planned, planted};
use crate::queue::{Limits, Request};

/// The events of a request. Nothing on their way looks inside.
#[derive(Debug, Default)]
pub struct ValidEvents {
    /// Which request.
    pub name: (usize, usize),
    pub count: usize,
}

/// The memory of a request, wherever it has as many events.
pub const EVENT_BYTES: usize = 100;

impl ValidEvents {
    #[expect(clippy::len_without_is_empty, reason = "it has what the queue and the writer use of hitlog's")]
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn bytes(&self) -> usize {
        self.count * EVENT_BYTES
    }
}

#[derive(Debug)]
pub enum AppendError {
    StorageFull(&'static str),
    Fatal(&'static str),
}

impl fmt::Display for AppendError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::StorageFull(reason) | Self::Fatal(reason)) = self;
        formatter.write_str(reason)
    }
}

/// What comes of an append.
#[derive(Debug, Clone, Copy)]
pub enum Append {
    Commits,
    Full,
    Fails,
    Panics,
}

/// What a request was given when it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub name: (usize, usize),
    pub first_sequence: u64,
    pub count: usize,
}

pub struct Log {
    pub limits: Limits,
    /// What comes of the first appends; those after them commit.
    pub appends: VecDeque<Append>,
    /// What the first probes find; those after them find room.
    pub probes: VecDeque<Append>,
    pub next_sequence: u64,
    pub stored: Arc<Mutex<Vec<Stored>>>,
}

impl Log {
    pub fn append<'a>(&mut self, group: impl Iterator<Item = &'a ValidEvents>) -> Result<u64, AppendError> {
        let group: Vec<_> = group.collect();
        assert!(!group.is_empty(), "a group of nothing");
        let events: usize = group.iter().map(|events| events.len()).sum();
        let bytes: usize = group.iter().map(|events| events.bytes() + size_of::<Request>()).sum();
        assert!(
            events <= self.limits.events_max && bytes <= self.limits.bytes_max,
            "more is let in than there is room"
        );
        outcome(self.appends.pop_front())?;
        let first = self.next_sequence;
        for events in group {
            let given = Stored { name: events.name, first_sequence: self.next_sequence, count: events.len() };
            self.next_sequence += events.len() as u64;
            self.stored.lock().unwrap().push(given);
        }
        Ok(first + u64::from(planted(Fault::LogMiscounts)))
    }

    /// A disk that is full from the start on is met by the first append as well.
    pub fn is_full(&self) -> bool {
        false
    }

    pub fn maintain(&mut self) -> Result<Option<Duration>, AppendError> {
        Ok(None)
    }

    pub fn probe(&mut self) -> Result<bool, AppendError> {
        match outcome(self.probes.pop_front()) {
            Ok(()) => Ok(true),
            Err(AppendError::StorageFull(_)) => Ok(false),
            Err(fatal) => Err(fatal),
        }
    }

    pub fn abandon(self) {}

    pub fn close(self) -> Result<(), AppendError> {
        Ok(())
    }
}

fn outcome(told: Option<Append>) -> Result<(), AppendError> {
    match told.unwrap_or(Append::Commits) {
        Append::Commits => Ok(()),
        Append::Full => Err(AppendError::StorageFull("full as planned")),
        Append::Fails => Err(AppendError::Fatal("failed as planned")),
        Append::Panics => panic_as_planned(),
    }
}

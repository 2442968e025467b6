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
    /// Its first event has a name, which is that of every other first event that has one.
    pub is_named: bool,
}

/// The event that is stored, which a repeat is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    pub index: usize,
    pub sequence: u64,
}

/// What became of a request's events.
pub enum Appended {
    Stored {
        first_sequence: u64,
        repeats: Vec<Repeat>,
    },
    /// The log of the model looks for repeats itself, and is never too late for that.
    Outdated,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub name: (usize, usize),
    pub first_sequence: u64,
    pub count: usize,
    pub repeats: Vec<Repeat>,
}

impl Stored {
    /// How many of its events were not stored already.
    pub fn new_events(&self) -> usize {
        self.count - self.repeats.len()
    }

    /// The sequence that its first event is answered with.
    pub fn sequence_of_first(&self) -> u64 {
        self.repeats.first().map_or(self.first_sequence, |repeat| repeat.sequence)
    }
}

pub struct Log {
    pub limits: Limits,
    /// What comes of the first appends; those after them commit.
    pub appends: VecDeque<Append>,
    /// What the first probes find; those after them find room.
    pub probes: VecDeque<Append>,
    pub next_sequence: u64,
    /// The sequence of the event that has a name.
    pub named: Option<u64>,
    pub stored: Arc<Mutex<Vec<Stored>>>,
}

impl Log {
    pub fn append<'a>(&mut self, group: impl Iterator<Item = &'a ValidEvents>) -> Result<Vec<Appended>, AppendError> {
        let group: Vec<_> = group.collect();
        assert!(!group.is_empty(), "a group of nothing");
        let events: usize = group.iter().map(|events| events.len()).sum();
        let bytes: usize = group.iter().map(|events| events.bytes() + size_of::<Request>()).sum();
        assert!(
            events <= self.limits.events_max && bytes <= self.limits.bytes_max,
            "more is let in than there is room"
        );
        if planted(Fault::LogKnowsBeforeCommit) && group.iter().any(|events| events.is_named) {
            self.named.get_or_insert(self.next_sequence);
        }
        outcome(self.appends.pop_front())?;
        let known_before = self.named;
        let stored: Vec<_> = group.into_iter().map(|events| self.store(events, known_before)).collect();
        let off = u64::from(planted(Fault::LogMiscounts));
        let answer = |given: &Stored| Appended::Stored {
            first_sequence: given.first_sequence + off,
            repeats: given.repeats.clone(),
        };
        let answers = stored.iter().map(answer).collect();
        self.stored.lock().unwrap().extend(stored);
        Ok(answers)
    }

    fn store(&mut self, events: &ValidEvents, known_before: Option<u64>) -> Stored {
        let known = if planted(Fault::LogForgetsItsGroup) { known_before } else { self.named };
        let repeats = known.filter(|_| events.is_named).map(|sequence| Repeat { index: 0, sequence });
        let given = Stored {
            name: events.name,
            first_sequence: self.next_sequence,
            count: events.len(),
            repeats: repeats.into_iter().collect(),
        };
        if events.is_named {
            self.named.get_or_insert(given.first_sequence);
        }
        self.next_sequence += given.new_events() as u64;
        given
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

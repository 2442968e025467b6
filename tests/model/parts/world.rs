//! One execution as its threads see it: what they hand in, what they are told, and what must be true of it.

use real::{
    sync::{Arc, Mutex},
    vec::Vec,
};

use super::{
    metrics::{Counter, EventMetrics, Shed},
    scenario::{Manner, Scenario},
    store::Stored,
};
use crate::{
    event::ValidEvents,
    queue::{self, Ack, CommitError, Overloaded, Queue, State},
    time::Duration,
};

/// What the threads of one execution share, beside the queue.
pub struct World {
    scenario: &'static Scenario,
    pub metrics: Arc<EventMetrics>,
    /// What the log has stored.
    pub stored: Arc<Mutex<Vec<Stored>>>,
    /// Every answer and every refusal that somebody was there for.
    told: Mutex<Vec<Told>>,
}

#[derive(Clone, Copy)]
struct Told {
    name: (usize, usize),
    count: usize,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The sequence of its first new event, if it has one, and how many are repeats.
    Stored {
        first_sequence: Option<u64>,
        repeats: usize,
    },
    Failed(CommitError),
    Refused(Shed),
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored { first_sequence: None, .. } => "stored already",
            Self::Stored { .. } => "stored",
            Self::Failed(CommitError::StorageFull) => "failed: storage full",
            Self::Failed(CommitError::Unknown) => "failed: unknown",
            Self::Refused(Shed::QueueFull) => "refused: queue full",
            Self::Refused(Shed::StorageFull) => "refused: storage full",
            Self::Refused(Shed::Stopping) => "refused: stopping",
            Self::Failed(CommitError::Outdated) => panic!("the log of the model never says so"),
            Self::Refused(Shed::BodyMemory | Shed::AnswerMemory | Shed::LookUp) => {
                panic!("the queue knows nothing of these")
            }
        }
    }

    /// The metric that counts this outcome, if there is one.
    fn counter(self, metrics: &EventMetrics) -> &Counter {
        match self {
            Self::Stored { first_sequence: None, .. } => &metrics.events_replayed,
            Self::Stored { .. } => &metrics.events_committed,
            Self::Failed(CommitError::Unknown) => &metrics.events_unknown,
            Self::Failed(CommitError::StorageFull) => metrics.events_shed(Shed::StorageFull),
            Self::Failed(CommitError::Outdated) => metrics.events_shed(Shed::LookUp),
            Self::Refused(reason) => metrics.events_shed(reason),
        }
    }
}

impl What {
    /// How many of the events are counted by another metric.
    fn counted_elsewhere(self) -> usize {
        match self {
            Self::Stored { first_sequence: Some(_), repeats } => repeats,
            _ => 0,
        }
    }
}

impl Stored {
    fn what(&self) -> What {
        let first_sequence = (self.new_events() > 0).then_some(self.first_sequence);
        What::Stored { first_sequence, repeats: self.repeats.len() }
    }
}

impl World {
    pub fn new(scenario: &'static Scenario) -> Self {
        Self { scenario, metrics: Arc::default(), stored: Arc::default(), told: Mutex::default() }
    }

    pub fn edge(&self, at: usize, queue: Queue) {
        let (manner, requests) = self.scenario.edges[at];
        let mut acks = Vec::new();
        for (which, &count) in requests.iter().enumerate() {
            let name = (at, which);
            match queue.try_append(ValidEvents { name, count, is_named: self.scenario.repeats }) {
                Ok(_) if manner == Manner::GoesAway => {}
                Ok(ack) if manner == Manner::OneByOne => self.await_answer(name, count, ack, Some(&queue)),
                Ok(ack) => acks.push((name, count, ack)),
                Err(Overloaded { reason, retry_after }) => {
                    let seconds = Duration::from_secs(1)..=Duration::from_secs(60);
                    assert!(seconds.contains(&retry_after), "again after {retry_after:?}");
                    self.tell(name, count, What::Refused(reason));
                }
            }
        }
        let queue = (manner != Manner::Closes).then_some(queue);
        for (name, count, ack) in acks {
            self.await_answer(name, count, ack, queue.as_ref());
        }
        if let Some(queue) = queue.filter(|_| self.scenario.looks) {
            let others = self.scenario.edges.iter().enumerate().filter(|(other, _)| *other != at);
            let others: usize = others.flat_map(|(_, (_, requests))| requests.iter()).sum();
            let depth = queue.depth();
            assert!(depth.events <= others, "a request is answered, and still counted as in the queue");
            assert!(depth.oldest < Duration::from_secs(1), "the oldest is {:?} old", depth.oldest);
        }
    }

    fn await_answer(&self, name: (usize, usize), count: usize, ack: Ack, queue: Option<&Queue>) {
        let what = match super::wait_for(ack) {
            Ok(queue::Stored { receipt, events, .. }) => {
                let queue::Receipt { first_sequence, count: counted, repeats } = receipt;
                let given = Stored { name: events.name, first_sequence, count: counted, repeats };
                assert!(self.stored.lock().unwrap().contains(&given), "a receipt that the log knows nothing of");
                assert_eq!((given.name, given.count), (name, count), "the answer of another request");
                given.what()
            }
            Err(error) => {
                let stored = self.stored.lock().unwrap().iter().any(|stored| stored.name == name);
                assert!(!stored, "told that it failed, and it is stored");
                if let Some(queue) = queue.filter(|_| self.scenario.stays_down) {
                    assert_ne!(queue.state(), State::Accepting, "told that it failed, and the queue takes requests");
                }
                What::Failed(error)
            }
        };
        self.tell(name, count, what);
    }

    fn tell(&self, name: (usize, usize), count: usize, what: What) {
        super::meet(what.as_str());
        let mut told = self.told.lock().unwrap();
        for earlier in told.iter().filter(|earlier| earlier.name.0 == name.0) {
            assert_ne!(earlier.name, name, "two answers");
            if let (
                What::Stored { first_sequence: Some(before), .. },
                What::Stored { first_sequence: Some(after), .. },
            ) = (earlier.what, what)
            {
                assert_eq!(earlier.name < name, before < after, "the sequences are not in the order of the requests");
            }
        }
        told.push(Told { name, count, what });
        let counter = what.counter(&self.metrics);
        let counted_there = told.iter().filter(|told| core::ptr::eq(told.what.counter(&self.metrics), counter));
        let events: usize = counted_there.map(|told| told.count - told.what.counted_elsewhere()).sum();
        assert!(events as u64 <= counter.value(), "told before it was counted: {what:?}");
    }

    /// When all have gone: nothing is lost, nothing is counted twice.
    pub fn settle(&self) {
        let (told, stored) = (self.told.lock().unwrap(), self.stored.lock().unwrap());
        let (mut events, mut awaited) = (0, 0);
        for (manner, requests) in self.scenario.edges {
            events += requests.iter().sum::<usize>();
            awaited += if *manner == Manner::GoesAway { 0 } else { requests.len() };
        }
        let waits = |name: (usize, usize)| self.scenario.edges[name.0].0 != Manner::GoesAway;
        assert_eq!(told.iter().filter(|told| waits(told.name)).count(), awaited, "requests with an answer");
        for stored in stored.iter().filter(|stored| waits(stored.name)) {
            let what = told.iter().find(|told| told.name == stored.name).map(|told| told.what);
            assert_eq!(what, Some(stored.what()));
        }
        let committed: usize = stored.iter().map(Stored::new_events).sum();
        assert_eq!(self.metrics.events_committed.value(), committed as u64, "events committed");
        let repeats: usize = stored.iter().map(|stored| stored.repeats.len()).sum();
        assert_eq!(self.metrics.events_replayed.value(), repeats as u64, "events replayed");
        if self.scenario.repeats && !stored.is_empty() {
            let originals: Vec<_> = stored.iter().filter(|stored| stored.repeats.is_empty()).collect();
            assert!(originals.len() <= 1, "one event is stored twice");
            assert_eq!(originals.len(), 1, "a repeat of what is not stored");
            let sequence = originals[0].first_sequence;
            assert!(stored.iter().all(|stored| stored.sequence_of_first() == sequence), "two answers for one event");
        }
        assert_eq!(self.metrics.settled(), events as u64, "the law of conservation");
    }
}

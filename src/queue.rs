//! The bounded queue between the edge and the writer, and the way back.
//!
//! Owns the promise that every request taken in gets exactly one answer: a [`Request`] is resolved by the writer
//! as committed or failed, and one that is dropped unresolved (a panic, a writer that is gone) counts as unknown
//! and wakes its waiter all the same. So the law of conservation has one home. Volatile: it promises nothing.
//!
//! Bounded by events and by bytes, from [`Queue::try_append`] until the answer, so that a group in commit still
//! counts. Knows nothing of HTTP or SQLite. `tests/model` compiles this file over modelled parts and runs its
//! schedules.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, SendError, Sender, TryRecvError};
use crossbeam_utils::sync::{Parker, Unparker};
use tokio::sync::oneshot;

use crate::{
    event::{Repeat, ValidEvents},
    metrics::{EventMetrics, Shed},
};

/// The queue's bounds; their values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most events, those being committed included.
    pub events_max: usize,
    /// Most memory of the requests, in bytes, their places in the queue included.
    pub bytes_max: usize,
}

/// What the writer hands back for a request: its events have the sequences from `first_sequence` on, but for those that
/// were stored already.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The sequence of the request's first event that was not stored already.
    pub first_sequence: u64,
    /// How many events the request had.
    pub count: usize,
    /// Those that were stored already, in the order of the request.
    pub repeats: Vec<Repeat>,
}

/// A committed request: the receipt, and the events with their buffer. Its memory counts until it is dropped.
pub struct Stored {
    /// The sequences given.
    pub receipt: Receipt,
    /// The request's events, for the answer.
    pub events: ValidEvents,
    _room: Permit,
}

/// Why a request that was queued is not answered with a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitError {
    /// The disk was full; nothing of the request is stored.
    StorageFull,
    /// The storage failed in the middle; the request may or may not be stored.
    Unknown,
    /// Its events must be looked for anew among those that are stored; nothing of the request is stored.
    Outdated,
}

/// The queue took nothing of the request: try again after `retry_after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded {
    /// What is in the way.
    pub reason: Shed,
    /// How long to wait before trying again.
    pub retry_after: Duration,
}

/// Whether the writer takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The writer takes requests.
    Accepting,
    /// The disk is full; the writer probes until it is not.
    StorageFull,
    /// The writer has failed or stopped; the process is about to end.
    Stopped,
}

impl State {
    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Accepting,
            1 => Self::StorageFull,
            _ => Self::Stopped,
        }
    }
}

/// How full the queue is.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Events, those being committed included.
    pub events: usize,
    /// The memory of the requests, in bytes.
    pub bytes: usize,
    /// Age of the oldest request without an answer.
    pub oldest: Duration,
}

/// The shortest wait that a refused client is asked for.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The longest wait that a refused client is asked for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The share of the newest group in the moving average of the drain rate.
const DRAIN_RATE_WEIGHT: f64 = 0.1;

struct Shared {
    limits: Limits,
    events: AtomicUsize,
    bytes: AtomicUsize,
    state: AtomicU8,
    /// Events a second, as the bits of an `f64`; 0 before the first group.
    drain_rate: AtomicU64,
    started_at: Instant,
    /// Since when the disk has been full, in nanoseconds after `started_at`, plus one; 0 while it is not. It counts as
    /// full until a group is committed: there may be room for the writer's probe and none for a group.
    full_since: AtomicU64,
    /// When the oldest request of the group in hand was queued, in nanoseconds after `started_at`, plus one; 0
    /// while the writer has nothing in hand. It takes requests in order, so no request is older.
    oldest_queued_at: AtomicU64,
    metrics: Arc<EventMetrics>,
}

/// Makes a queue: the edge's end and the writer's end. Closing the first is the signal to finish and stop.
pub fn bounded(limits: Limits, metrics: Arc<EventMetrics>) -> (Queue, Requests) {
    // The bounds are the permits'. crossbeam's own bounded channel would keep the requests in it, and their waiters
    // waiting, when its receiver is dropped; this one drops them at once, whoever is sending at that moment.
    let (sender, receiver) = crossbeam_channel::unbounded();
    let shared = Arc::new(Shared {
        limits,
        events: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        state: AtomicU8::new(State::Accepting as u8),
        drain_rate: AtomicU64::new(0),
        started_at: Instant::now(),
        full_since: AtomicU64::new(0),
        oldest_queued_at: AtomicU64::new(0),
        metrics,
    });
    let parker = Parker::new();
    let alarm = Alarm(parker.unparker().clone());
    (Queue { sender, alarm, shared: Arc::clone(&shared) }, Requests { receiver, parker, shared })
}

/// The edge's end.
#[derive(Clone)]
pub struct Queue {
    sender: Sender<Request>,
    /// Dropped after the sender, so that whoever it wakes finds that one gone.
    alarm: Alarm,
    shared: Arc<Shared>,
}

/// Wakes the writer, and when dropped, too: nothing may come any more then.
#[derive(Clone)]
struct Alarm(Unparker);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

impl Queue {
    /// Takes the request in, or refuses it at once; never waits.
    ///
    /// Once taken in, the events will be committed (or fail) even if nobody awaits the [`Ack`].
    pub fn try_append(&self, events: ValidEvents) -> Result<Ack, Overloaded> {
        let shared = &self.shared;
        match self.state() {
            State::Accepting => {}
            State::StorageFull => return Err(self.refuse(&events, Shed::StorageFull)),
            State::Stopped => return Err(self.refuse(&events, Shed::Stopping)),
        }
        let Some(permit) = Permit::take(shared, events.len(), events.bytes() + size_of::<Request>()) else {
            return Err(self.refuse(&events, Shed::QueueFull));
        };
        let (answer, ack) = oneshot::channel();
        let request = Request { inner: Some((events, answer)), permit, queued_at: Instant::now() };
        match self.sender.send(request) {
            Ok(()) => {
                // After the sending: whoever is woken, or finds on the way to sleep that it was, looks once more.
                self.alarm.0.unpark();
                Ok(Ack(ack))
            }
            Err(SendError(request)) => Err(self.refuse(&request.withdraw(), Shed::Stopping)),
        }
    }

    fn refuse(&self, events: &ValidEvents, reason: Shed) -> Overloaded {
        self.shared.metrics.events_shed(reason).increment(events.len() as u64);
        Overloaded { reason, retry_after: self.retry_after() }
    }

    /// When to try again: after the time that the queue takes to drain at its recent rate; or, because a full disk does
    /// not drain, after as long as it has been full already.
    pub fn retry_after(&self) -> Duration {
        let shared = &self.shared;
        let full_for = match (self.state(), shared.full_since.load(Ordering::Relaxed)) {
            (State::StorageFull, since) if since > 0 => {
                Some(shared.started_at.elapsed().saturating_sub(Duration::from_nanos(since - 1)))
            }
            _ => None,
        };
        let rate = f64::from_bits(shared.drain_rate.load(Ordering::Relaxed));
        retry_after(full_for, shared.events.load(Ordering::Relaxed) as f64, rate)
    }

    /// Whether the writer takes requests.
    pub fn state(&self) -> State {
        State::from_code(self.shared.state.load(Ordering::Acquire))
    }

    /// How full the queue is.
    pub fn depth(&self) -> Depth {
        let oldest = match self.shared.oldest_queued_at.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            queued_at => self.shared.started_at.elapsed().saturating_sub(Duration::from_nanos(queued_at - 1)),
        };
        Depth {
            events: self.shared.events.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            oldest,
        }
    }

    /// The bounds that the queue was made with.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }
}

fn retry_after(full_for: Option<Duration>, queued_events: f64, events_per_second: f64) -> Duration {
    let wait = match full_for {
        Some(full_for) => full_for,
        None if events_per_second > 0.0 => Duration::from_secs((queued_events / events_per_second).ceil() as u64),
        None => RETRY_AFTER_MIN,
    };
    wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

/// Resolves to the answer to a request. Dropping it changes nothing for the events.
pub struct Ack(oneshot::Receiver<Result<Stored, CommitError>>);

impl Future for Ack {
    type Output = Result<Stored, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // A request that was dropped unresolved has been counted as unknown, and is answered so.
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(CommitError::Unknown)))
    }
}

/// Room in the queue, given back when dropped.
struct Permit {
    shared: Arc<Shared>,
    events: usize,
    bytes: usize,
}

impl Permit {
    fn take(shared: &Arc<Shared>, events: usize, bytes: usize) -> Option<Self> {
        let limits = shared.limits;
        if shared.events.fetch_add(events, Ordering::Relaxed) + events > limits.events_max {
            shared.events.fetch_sub(events, Ordering::Relaxed);
            return None;
        }
        if shared.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > limits.bytes_max {
            shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.events.fetch_sub(events, Ordering::Relaxed);
            return None;
        }
        Some(Self { shared: Arc::clone(shared), events, bytes })
    }
}

impl Permit {
    /// Gives the room back; a second call does nothing.
    fn release(&mut self) {
        self.release_events();
        self.shared.bytes.fetch_sub(mem::take(&mut self.bytes), Ordering::Relaxed);
    }

    /// Counts the events no longer, but still the memory that they are in.
    fn release_events(&mut self) {
        self.shared.events.fetch_sub(mem::take(&mut self.events), Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

/// A request in the writer's hands: its events, and somebody waiting for the answer.
pub struct Request {
    /// Emptied by whoever resolves the request.
    inner: Option<(ValidEvents, oneshot::Sender<Result<Stored, CommitError>>)>,
    permit: Permit,
    queued_at: Instant,
}

impl Request {
    /// The events to commit.
    pub fn events(&self) -> Option<&ValidEvents> {
        self.inner.as_ref().map(|(events, _)| events)
    }

    /// How many events the request has.
    pub fn len(&self) -> usize {
        self.permit.events
    }

    /// Whether the request has no events. It always has some.
    pub fn is_empty(&self) -> bool {
        self.permit.events == 0
    }

    /// The memory that the request holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.permit.bytes
    }

    /// Answers that the events are durable, from `first_sequence` on but for the repeats. Only to be called after
    /// COMMIT has returned.
    pub fn acknowledge(mut self, first_sequence: u64, repeats: Vec<Repeat>) {
        let metrics = &self.permit.shared.metrics;
        metrics.events_committed.increment((self.len() - repeats.len()) as u64);
        metrics.events_replayed.increment(repeats.len() as u64);
        if let Some((events, answer)) = self.inner.take() {
            let receipt = Receipt { first_sequence, count: events.len(), repeats };
            // Before the answer: whoever reads the metrics after it must not find the request in flight.
            self.permit.release_events();
            let room =
                Permit { shared: Arc::clone(&self.permit.shared), events: 0, bytes: mem::take(&mut self.permit.bytes) };
            // Nobody may be waiting any more; the events are stored all the same.
            let _ = answer.send(Ok(Stored { receipt, events, _room: room }));
        }
    }

    /// Answers that the request failed.
    pub fn fail(mut self, error: CommitError) {
        let count = self.len() as u64;
        let metrics = &self.permit.shared.metrics;
        match error {
            CommitError::StorageFull => metrics.events_shed(Shed::StorageFull).increment(count),
            CommitError::Unknown => metrics.events_unknown.increment(count),
            CommitError::Outdated => metrics.events_shed(Shed::LookUp).increment(count),
        }
        if let Some((_, answer)) = self.inner.take() {
            self.permit.release();
            let _ = answer.send(Err(error));
        }
    }

    /// Takes the events back from a request that never entered the queue.
    fn withdraw(mut self) -> ValidEvents {
        self.inner.take().map(|(events, _)| events).unwrap_or_default()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.permit.shared.metrics.events_unknown.increment(self.len() as u64);
            // Before the answer: the sender is dropped after this, with the other fields, and that wakes whoever waits.
            self.permit.release();
        }
    }
}

/// What [`Requests::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// One request or more.
    Group,
    /// Nothing came in time.
    Nothing,
    /// Nothing will come any more.
    Closed,
}

/// The writer's end.
pub struct Requests {
    receiver: Receiver<Request>,
    parker: Parker,
    shared: Arc<Shared>,
}

impl Requests {
    /// Waits for a request, for `timeout` at most (for ever if `None`), then takes whatever already waits for as
    /// long as `more` says so. Never waits for a group to fill: while one commits, the next one forms.
    pub fn take(
        &self,
        group: &mut Vec<Request>,
        timeout: Option<Duration>,
        mut more: impl FnMut(&Request) -> bool,
    ) -> Taken {
        let mut request = match self.wait(timeout) {
            Ok(request) => request,
            Err(TryRecvError::Empty) => return Taken::Nothing,
            Err(TryRecvError::Disconnected) => return Taken::Closed,
        };
        let queued_at = request.queued_at.saturating_duration_since(self.shared.started_at);
        self.shared.oldest_queued_at.store(queued_at.as_nanos() as u64 + 1, Ordering::Relaxed);
        while more(&request) {
            group.push(request);
            request = match self.receiver.try_recv() {
                Ok(request) => request,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Taken::Group,
            };
        }
        group.push(request);
        Taken::Group
    }

    /// Waits for a request, for `timeout` at most.
    ///
    /// Not by the channel's own waiting, which takes milliseconds where all processors are busy: it gives the
    /// processor up some times before it sleeps, which the scheduler takes to mean that anybody else may have it, and
    /// it wakes a sleeper while it holds a lock that the sleeper wants next.
    fn wait(&self, timeout: Option<Duration>) -> Result<Request, TryRecvError> {
        let begun_at = Instant::now();
        loop {
            match self.receiver.try_recv() {
                Err(TryRecvError::Empty) => {}
                found => return found,
            }
            match timeout.map(|timeout| timeout.saturating_sub(begun_at.elapsed())) {
                None => self.parker.park(),
                Some(Duration::ZERO) => return Err(TryRecvError::Empty),
                Some(left) => self.parker.park_timeout(left),
            }
        }
    }

    /// Notes that the group in hand is answered: `events` events, `elapsed` after they were taken.
    pub fn group_answered(&self, events: usize, elapsed: Duration) {
        self.shared.oldest_queued_at.store(0, Ordering::Relaxed);
        if events > 0 {
            self.shared.full_since.store(0, Ordering::Relaxed);
        }
        let rate = events as f64 / elapsed.as_secs_f64().max(1e-6);
        let before = f64::from_bits(self.shared.drain_rate.load(Ordering::Relaxed));
        let after = if before > 0.0 { before + DRAIN_RATE_WEIGHT * (rate - before) } else { rate };
        self.shared.drain_rate.store(after.to_bits(), Ordering::Relaxed);
    }

    /// Says whether requests are taken from now on.
    pub fn set_state(&self, state: State) {
        if state == State::StorageFull && self.shared.full_since.load(Ordering::Relaxed) == 0 {
            let since = self.shared.started_at.elapsed().as_nanos() as u64 + 1;
            self.shared.full_since.store(since, Ordering::Relaxed);
        }
        self.shared.state.store(state as u8, Ordering::Release);
    }

    /// Fails everything that waits, and everything that still slips in before the edge sees the state.
    pub fn fail_waiting(&self, error: CommitError) {
        while let Ok(request) = self.receiver.try_recv() {
            request.fail(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_try_again() {
        for (full_for, queued, rate, seconds) in [
            (None, 0.0, 0.0, 1),
            (None, 100.0, 0.0, 1),
            (None, 100.0, 1_000.0, 1),
            (None, 5_001.0, 1_000.0, 6),
            (None, 1e12, 1.0, 60),
            (Some(0), 1e12, 1.0, 1),
            (Some(1), 0.0, 1_000.0, 1),
            (Some(2), 0.0, 1_000.0, 2),
            (Some(17), 0.0, 0.0, 17),
            (Some(59), 0.0, 0.0, 59),
            (Some(86_400), 0.0, 0.0, 60),
        ] {
            let found = retry_after(full_for.map(Duration::from_secs), queued, rate);
            assert_eq!(found, Duration::from_secs(seconds), "{full_for:?} {queued} {rate}");
        }
    }
}

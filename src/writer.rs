//! The writer: one thread that collects what waits, commits it as a group, and answers everybody in it.
//!
//! Owns the log, and with it the only connection that writes events. Constraints: no answer before COMMIT; a group
//! is stored whole or not at all, and all who wait for it hear the same; after a fatal error nothing is tried again.
//! Must not know HTTP: requests come from the queue, and the queue carries the answers back.

mod group;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub use group::GroupLimits;

use crate::{
    metrics::WriterMetrics,
    queue::{CommitError, Request, Requests, State, Taken},
    store::{AppendError, Appended, Log},
};

/// How often room is looked for while the disk is full.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Starts the writer. It ends when the queue is closed and empty, or on the first error that leaves the disk in
/// doubt; either way `ended` is called with the outcome, after every waiter has its answer.
pub fn spawn(
    log: Log,
    requests: Requests,
    limits: GroupLimits,
    metrics: Arc<WriterMetrics>,
    ended: impl FnOnce(Result<(), String>) + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name("writer".into()).spawn(move || {
        // The log may have work that is due at the start, whether anybody sends something or not.
        let timeout = Some(Duration::ZERO);
        // The queue's end stays outside of what may panic: the waiters must be answered whatever happens.
        let run = || Writer { log, requests: &requests, limits, metrics, timeout, full: false }.run();
        let outcome = catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|panic| Err(format!("the writer panicked: {}", panic_message(&*panic))));
        requests.set_state(State::Stopped);
        if outcome.is_err() {
            requests.fail_waiting(CommitError::Unknown);
        }
        drop(requests);
        ended(outcome);
    })
}

struct Writer<'a> {
    log: Log,
    requests: &'a Requests,
    limits: GroupLimits,
    metrics: Arc<WriterMetrics>,
    /// How long to wait for a request until the log is due for maintenance; for ever if `None`.
    timeout: Option<Duration>,
    /// Whether the disk was full when last tried.
    full: bool,
}

impl Writer<'_> {
    fn run(mut self) -> Result<(), String> {
        if let Err(reason) = self.write() {
            self.log.abandon();
            return Err(reason);
        }
        self.log.close().map_err(|error| format!("could not close the store: {error}"))
    }

    /// Writes until the queue is closed and empty.
    fn write(&mut self) -> Result<(), String> {
        let mut group = Vec::new();
        self.set_full(self.log.is_full());
        loop {
            let mut size = self.limits.empty();
            let taken =
                self.requests.take(&mut group, self.timeout, |request| size.add(request.len(), request.bytes()));
            match taken {
                Taken::Group => self.commit(&mut group)?,
                Taken::Nothing if self.full => self.probe()?,
                Taken::Nothing => {}
                Taken::Closed => return Ok(()),
            }
            let maintained = self.log.maintain().map_err(|error| self.fence(&error))?;
            self.timeout = if self.full { Some(PROBE_INTERVAL) } else { maintained };
        }
    }

    fn commit(&mut self, group: &mut Vec<Request>) -> Result<(), String> {
        let started = Instant::now();
        let events: usize = group.iter().map(Request::len).sum();
        let bytes: usize = group.iter().map(Request::bytes).sum();
        let appended = self.log.append(group.iter().filter_map(Request::events));
        let elapsed = started.elapsed();
        self.metrics.commit_seconds.record(elapsed.as_secs_f64());
        match appended {
            Ok(appended) => {
                self.metrics.group_events.record(events as f64);
                self.metrics.group_bytes.record(bytes as f64);
                self.set_full(false);
                for (request, appended) in group.drain(..).zip(appended) {
                    match appended {
                        Appended::Stored { first_sequence, repeats } => request.acknowledge(first_sequence, repeats),
                        Appended::Outdated => request.fail(CommitError::Outdated),
                    }
                }
                self.requests.group_answered(events, elapsed);
                Ok(())
            }
            Err(error @ AppendError::StorageFull(_)) => {
                // Before the answers: whoever hears that the disk is full must find /readyz saying so.
                self.set_full(true);
                tracing::error!(%error, events, "a group was refused; ingest resumes when there is room again");
                group.drain(..).for_each(|request| request.fail(CommitError::StorageFull));
                self.requests.fail_waiting(CommitError::StorageFull);
                self.requests.group_answered(0, elapsed);
                Ok(())
            }
            Err(error) => {
                let reason = self.fence(&error);
                group.drain(..).for_each(|request| request.fail(CommitError::Unknown));
                Err(reason)
            }
        }
    }

    /// From here on nothing is taken and nothing is written: what the disk holds is in doubt until a restart.
    fn fence(&self, error: &AppendError) -> String {
        self.requests.set_state(State::Stopped);
        error.to_string()
    }

    fn probe(&mut self) -> Result<(), String> {
        let has_room = self.log.probe().map_err(|error| self.fence(&error))?;
        if has_room {
            tracing::info!("there is room on the disk again; ingest resumes");
            self.set_full(false);
        }
        Ok(())
    }

    fn set_full(&mut self, full: bool) {
        if self.full != full {
            self.full = full;
            self.requests.set_state(if full { State::StorageFull } else { State::Accepting });
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

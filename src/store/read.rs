//! Reads: a pool of threads that answer questions, off the tokio workers.
//!
//! Bounded in every direction: threads, questions that wait, time per question, and the memory of the answers
//! being built and sent. Rows are turned into the answer's bytes while the statement runs, before anything goes to a
//! socket, so that no slow client keeps a snapshot open and the write-ahead log from being reset.

pub(super) mod budget;
pub(super) mod known;
pub(super) mod list;
pub(super) mod snapshot;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use self::{budget::PageBuffer, snapshot::Snapshot};
use super::{
    error::{OpenError, ReadError, lacks_room},
    options::ReadOptions,
    priority::lower_priority,
    segments::{Key, ReaderInterrupt, Segments, WatchState, retention},
};
use crate::{
    budget::{Budget, Share},
    clock::now_ms,
    metrics::{ReadOutcome, ReadRefused, StoreMetrics},
};

/// Keys that a question may hold in memory in any case: some pages of the largest size.
const READER_KEYS_MIN: usize = 16 * 1024;
/// Events that come in go before questions about them, where both want the last of the processor.
const READER_NICENESS: i32 = 10;

type Question = Box<dyn FnOnce(&Reader) + Send>;

/// The pool. Dropping the last clone ends its threads.
#[derive(Clone)]
pub struct Readers {
    questions: Sender<Question>,
    budget: Budget,
    options: ReadOptions,
    metrics: Arc<StoreMetrics>,
}

impl Readers {
    /// Starts the threads.
    pub(super) fn spawn(
        segments: &Arc<Segments>,
        options: ReadOptions,
        interrupt: &ReaderInterrupt,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let (questions, receiver) = crossbeam_channel::bounded::<Question>(options.waiting_max);
        let mut threads = Vec::with_capacity(options.readers);
        for number in 0..options.readers {
            let reader = Reader {
                segments: Arc::clone(segments),
                interrupt: interrupt.clone(),
                keys_max: (options.answer_bytes_max / options.readers / size_of::<Key>()).max(READER_KEYS_MIN),
                retention: options.retention,
                metrics: Arc::clone(&metrics),
            };
            let receiver: Receiver<Question> = receiver.clone();
            let thread = thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                lower_priority(READER_NICENESS);
                for question in receiver {
                    // Whoever asked hears that the reader failed; the thread goes on with the next question.
                    reader.metrics.readers_busy.increment(1);
                    if catch_unwind(AssertUnwindSafe(|| question(&reader))).is_err() {
                        tracing::error!("a read panicked");
                    }
                    reader.metrics.readers_busy.decrement(1);
                }
            });
            threads.push(thread.map_err(OpenError::Thread)?);
        }
        metrics.readers.set(options.readers as f64);
        metrics.read_bytes_max.set(options.answer_bytes_max as f64);
        let budget = Budget::new(options.answer_bytes_max);
        Ok((Self { questions, budget, options, metrics }, threads))
    }

    /// Puts a question to the store as it is at one moment.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.ask_within(self.options.deadline, question).await
    }

    /// Puts a question that may take longer than others.
    pub(super) async fn ask_within<T: Send + 'static>(
        &self,
        timeout: Duration,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let asked_at = Instant::now();
        let deadline = asked_at + timeout;
        let (sender, answer) = oneshot::channel();
        let asker = Asker::default();
        let is_gone = Arc::clone(&asker.is_gone);
        let job: Question = Box::new(move |reader| {
            // Whoever asked may have gone away while the question waited.
            if !sender.is_closed() {
                let _ = sender.send(reader.answer(asked_at, deadline, &is_gone, question));
            }
        });
        match self.questions.try_send(job) {
            Ok(()) => {}
            Err(crossbeam_channel::TrySendError::Full(_)) => {
                self.metrics.reads(ReadOutcome::PoolFull).increment(1);
                return Err(ReadError::Refused(ReadRefused::PoolFull));
            }
            Err(crossbeam_channel::TrySendError::Disconnected(_)) => return Err(ReadError::Stopped),
        }
        answer.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// An empty buffer for an answer, counted against the budget that all answers share.
    pub fn page_buffer(&self) -> PageBuffer {
        PageBuffer::new(&self.budget)
    }

    /// What counts something else that an answer needs against the same budget.
    pub fn share(&self) -> Share {
        self.budget.share()
    }

    /// The memory that answers hold at the moment.
    pub fn answer_bytes(&self) -> usize {
        self.budget.used()
    }
}

/// Whoever waits for an answer. Dropped, it does so no longer, and the question ends.
#[derive(Default)]
struct Asker {
    is_gone: Arc<AtomicBool>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

/// One thread of the pool.
struct Reader {
    segments: Arc<Segments>,
    interrupt: ReaderInterrupt,
    keys_max: usize,
    retention: Option<Duration>,
    metrics: Arc<StoreMetrics>,
}

impl Reader {
    fn answer<T>(
        &self,
        asked_at: Instant,
        deadline: Instant,
        is_gone: &Arc<AtomicBool>,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let began_at = Instant::now();
        self.metrics.reader_wait_seconds.record((began_at - asked_at).as_secs_f64());
        let limits = WatchState { deadline, interrupts: self.interrupt.count(), is_gone: Arc::clone(is_gone) };
        let expired_before = retention::expired_before(self.retention, now_ms());
        let snapshot =
            Snapshot::new(&self.segments, self.interrupt.clone(), limits.clone(), expired_before, self.keys_max);
        let answer = question(&snapshot);
        drop(snapshot);
        let answer = answer.map_err(|error| match error {
            ReadError::Storage(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                ReadError::Refused(if limits.is_gone() {
                    ReadRefused::Gone
                } else if self.interrupt.count() != limits.interrupts {
                    ReadRefused::WalCap
                } else {
                    ReadRefused::Deadline
                })
            }
            ReadError::Storage(error) if lacks_room(&error) => ReadError::Refused(ReadRefused::NoRoom),
            other => other,
        });
        let outcome = match &answer {
            Ok(_) => ReadOutcome::Answered,
            Err(ReadError::Refused(reason)) => (*reason).into(),
            Err(_) => ReadOutcome::Failed,
        };
        self.metrics.reads(outcome).increment(1);
        self.metrics.read_seconds.record(began_at.elapsed().as_secs_f64());
        answer
    }
}

//! Reads: a pool of threads that answer questions, off the tokio workers.
//!
//! Bounded in every direction: threads, questions that wait, time per question, and the memory of the answers
//! being built and sent. Rows are turned into the answer's bytes while the statement runs, before anything goes to a
//! socket, so that no slow client keeps a snapshot open and the write-ahead log from being reset.

pub(super) mod budget;
pub(super) mod known;
pub(super) mod list;
pub(super) mod numbers;
pub(super) mod run;
pub(super) mod snapshot;
pub(super) mod tail;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rusqlite::ErrorCode;
use tokio::sync::oneshot;

use self::{budget::PageBuffer, snapshot::Snapshot};
use super::{
    error::{OpenError, ReadError, lacks_room},
    options::ReadOptions,
    priority::{Aside, lower_priority},
    segments::{Key, ReaderInterrupt, Segments, WatchState, Woken, retention},
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
/// What is shipped goes after both: it is on the disk, and waits there.
const SHIPPING_NICENESS: i32 = 15;

/// What a pool of readers is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    /// What is asked once.
    Questions,
    /// What is followed: it may wait long, and nobody's question stands behind it.
    Tails,
    /// What is shipped: one reader, which goes after everything else.
    Shipping,
}

impl Pool {
    fn thread_name(self, number: usize) -> String {
        match self {
            Self::Questions => format!("reader-{number}"),
            Self::Tails => format!("tail-{number}"),
            Self::Shipping => "ship reader".into(),
        }
    }

    fn note_wait(self, metrics: &StoreMetrics, waited: Duration) {
        let seconds = waited.as_secs_f64();
        match self {
            Self::Questions => metrics.reader_wait_seconds.record(seconds),
            Self::Tails => metrics.tail_wait_seconds.record(seconds),
            Self::Shipping => {}
        }
    }

    fn note_read(self, metrics: &StoreMetrics, outcome: ReadOutcome, took: Option<Duration>) {
        let (reads, seconds) = match self {
            Self::Questions => (metrics.reads(outcome), &metrics.read_seconds),
            Self::Tails => (metrics.tail_reads(outcome), &metrics.tail_read_seconds),
            // Whoever ships counts what became of it.
            Self::Shipping => return,
        };
        reads.increment(1);
        took.into_iter().for_each(|took| seconds.record(took.as_secs_f64()));
    }

    fn niceness(self) -> i32 {
        match self {
            Self::Questions | Self::Tails => READER_NICENESS,
            Self::Shipping => SHIPPING_NICENESS,
        }
    }

    fn note_busy(self, metrics: &StoreMetrics, more: f64) {
        if self == Self::Questions {
            metrics.readers_busy.increment(more);
        }
    }
}

type Question = Box<dyn FnOnce(&Reader) + Send>;

/// What a thread of a pool does.
enum Work {
    Answer(Question),
    /// Wakes those who follow events: it takes too long for the thread that it would else be done on.
    Wake(Woken),
}

/// The pool. Dropping the last clone ends its threads.
#[derive(Clone)]
pub struct Readers {
    work: Sender<Work>,
    budget: Budget,
    options: ReadOptions,
    pool: Pool,
    metrics: Arc<StoreMetrics>,
}

impl Readers {
    /// Starts the threads.
    pub(super) fn spawn(
        pool: Pool,
        segments: &Arc<Segments>,
        options: ReadOptions,
        interrupt: &ReaderInterrupt,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let (work, receiver) = crossbeam_channel::bounded::<Work>(options.waiting_max);
        let mut threads = Vec::with_capacity(options.readers);
        for number in 0..options.readers {
            let reader = Reader {
                segments: Arc::clone(segments),
                interrupt: interrupt.clone(),
                keys_max: (options.answer_bytes_max / options.readers / size_of::<Key>()).max(READER_KEYS_MIN),
                retention: options.retention,
                pool,
                metrics: Arc::clone(&metrics),
            };
            let receiver: Receiver<Work> = receiver.clone();
            let thread = thread::Builder::new().name(pool.thread_name(number)).spawn(move || {
                lower_priority(pool.niceness());
                let mut aside = Aside::default();
                for work in receiver {
                    let question = match work {
                        Work::Answer(question) => question,
                        Work::Wake(woken) => {
                            woken.wake();
                            continue;
                        }
                    };
                    aside.look(reader.segments.newest_arrival());
                    // Whoever asked hears that the reader failed; the thread goes on with the next question.
                    pool.note_busy(&reader.metrics, 1.0);
                    if catch_unwind(AssertUnwindSafe(|| question(&reader))).is_err() {
                        tracing::error!("a read panicked");
                    }
                    pool.note_busy(&reader.metrics, -1.0);
                }
            });
            threads.push(thread.map_err(OpenError::Thread)?);
        }
        if pool == Pool::Questions {
            metrics.readers.set(options.readers as f64);
            metrics.read_bytes_max.set(options.answer_bytes_max as f64);
        }
        let budget = Budget::new(options.answer_bytes_max);
        Ok((Self { work, budget, options, pool, metrics }, threads))
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
        match self.work.try_send(Work::Answer(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.pool.note_read(&self.metrics, ReadOutcome::PoolFull, None);
                return Err(ReadError::Refused(ReadRefused::PoolFull));
            }
            Err(TrySendError::Disconnected(_)) => return Err(ReadError::Stopped),
        }
        answer.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// Wakes those who follow events, on a thread of the pool if one can take it.
    fn wake(&self, woken: Woken) {
        let (TrySendError::Full(work) | TrySendError::Disconnected(work)) = match self.work.try_send(Work::Wake(woken))
        {
            Ok(()) => return,
            Err(error) => error,
        };
        if let Work::Wake(woken) = work {
            woken.wake();
        }
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
    pool: Pool,
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
        self.pool.note_wait(&self.metrics, began_at - asked_at);
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
        self.pool.note_read(&self.metrics, outcome, Some(began_at.elapsed()));
        answer
    }
}

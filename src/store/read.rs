//! Reads: a pool of read-only connections on threads of their own, off the tokio workers.
//!
//! Bounded in every direction: connections, questions that wait, time per question, and the memory of the answers
//! being built and sent. Rows are turned into the answer's bytes while the statement runs, before anything goes to a
//! socket, so that no slow client keeps a snapshot open and the write-ahead log from being reset.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, params_from_iter};
use tokio::sync::oneshot;

use super::{
    directory::DataDir,
    error::OpenError,
    schema::{self, EVENT_COLUMNS},
};
use crate::{
    event::{EventRow, EventType},
    metrics::{Metrics, ReadRefused},
};

/// The pool's settings; their values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Connections, each with a thread.
    pub connections: usize,
    /// Questions that may wait for a connection.
    pub waiting_max: usize,
    /// The longest that a question may take, its wait included.
    pub deadline: Duration,
    /// The memory of all answers that are being built or sent, in bytes.
    pub answer_bytes_max: usize,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Refused or given up for now.
    #[error("the read was given up: {}", .0.as_str())]
    Refused(ReadRefused),
    /// SQLite could not read.
    #[error("the storage could not be read: {0}")]
    Storage(#[from] rusqlite::Error),
    /// The reader failed, or hitlog is stopping.
    #[error("the readers have stopped")]
    Stopped,
}

/// Which events a listing holds.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// Of this website.
    pub website_id: Arc<str>,
    /// Of this type only.
    pub event_type: Option<EventType>,
}

/// Which part of a listing: `limit` events after the first `offset`, the newest first.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Most events.
    pub limit: u64,
    /// Events to pass over.
    pub offset: u64,
}

/// Stops all reads that are under way: they keep the write-ahead log from being reset.
#[derive(Debug, Clone, Default)]
pub struct ReaderInterrupt(Arc<AtomicU64>);

impl ReaderInterrupt {
    pub(super) fn all(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Question = Box<dyn FnOnce(&mut Reader) + Send>;

/// The pool. Dropping the last clone ends its threads.
#[derive(Clone)]
pub struct Readers {
    questions: Sender<Question>,
    budget: Arc<Budget>,
    options: ReadOptions,
    metrics: Arc<Metrics>,
}

impl Readers {
    /// Opens the connections and starts their threads.
    pub fn open(
        directory: &DataDir,
        options: ReadOptions,
        interrupt: &ReaderInterrupt,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let (questions, receiver) = crossbeam_channel::bounded::<Question>(options.waiting_max);
        let path = directory.segment(1);
        let mut threads = Vec::with_capacity(options.connections);
        for number in 0..options.connections {
            let mut reader = Reader::open(&path, interrupt.clone(), Arc::clone(&metrics))?;
            let receiver: Receiver<Question> = receiver.clone();
            let thread = thread::Builder::new().name(format!("reader-{number}")).spawn(move || {
                for question in receiver {
                    // Whoever asked is told that nothing came; the thread stays for the next question.
                    if catch_unwind(AssertUnwindSafe(|| question(&mut reader))).is_err() {
                        tracing::error!("a read panicked");
                    }
                }
            });
            threads.push(thread.map_err(OpenError::Thread)?);
        }
        metrics.readers.set(options.connections as f64);
        metrics.read_bytes_max.set(options.answer_bytes_max as f64);
        let budget = Arc::new(Budget { bytes: AtomicUsize::new(0), bytes_max: options.answer_bytes_max });
        Ok((Self { questions, budget, options, metrics }, threads))
    }

    /// Puts a question to the store as it is at one moment.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let asked_at = Instant::now();
        let deadline = asked_at + self.options.deadline;
        let (sender, answer) = oneshot::channel();
        let job: Question = Box::new(move |reader| {
            // Whoever asked may have gone away while the question waited.
            if !sender.is_closed() {
                let _ = sender.send(reader.answer(asked_at, deadline, question));
            }
        });
        match self.questions.try_send(job) {
            Ok(()) => {}
            Err(crossbeam_channel::TrySendError::Full(_)) => {
                self.metrics.reads_refused(ReadRefused::PoolFull).increment(1);
                return Err(ReadError::Refused(ReadRefused::PoolFull));
            }
            Err(crossbeam_channel::TrySendError::Disconnected(_)) => return Err(ReadError::Stopped),
        }
        answer.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// An empty buffer for an answer, counted against the budget that all answers share.
    pub fn page_buffer(&self) -> PageBuffer {
        PageBuffer {
            bytes: Vec::new(),
            counted: 0,
            budget: Arc::clone(&self.budget),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// The memory that answers hold at the moment.
    pub fn answer_bytes(&self) -> usize {
        self.budget.bytes.load(Ordering::Relaxed)
    }
}

struct Budget {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// The bytes of an answer. Counts against the budget until it is dropped, that is, until it has been sent.
pub struct PageBuffer {
    bytes: Vec<u8>,
    counted: usize,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl PageBuffer {
    /// Appends to the answer; an error says that all answers together hold too much.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ReadError> {
        write(&mut self.bytes);
        let grown = self.bytes.capacity() - self.counted;
        if grown > 0 {
            self.counted += grown;
            if self.budget.bytes.fetch_add(grown, Ordering::Relaxed) + grown > self.budget.bytes_max {
                self.metrics.reads_refused(ReadRefused::Memory).increment(1);
                return Err(ReadError::Refused(ReadRefused::Memory));
            }
        }
        Ok(())
    }
}

impl AsRef<[u8]> for PageBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// One connection of the pool, on its own thread.
struct Reader {
    connection: Connection,
    watch: Arc<Watch>,
    interrupt: ReaderInterrupt,
    metrics: Arc<Metrics>,
}

/// What SQLite's progress handler looks at while a statement runs.
struct Watch {
    started_at: Instant,
    /// In nanoseconds after `started_at`.
    deadline: AtomicU64,
    /// The count of [`ReaderInterrupt`] when the question began.
    interrupt: AtomicU64,
}

/// Virtual machine instructions between two looks at the clock: some tens of microseconds.
const INSTRUCTIONS_PER_LOOK: i32 = 4_000;
/// A reader's page cache, in KiB: a page of a listing at most, the file system caches the rest.
const READER_CACHE_KIB: u32 = 1_024;

impl Reader {
    fn open(path: &Path, interrupt: ReaderInterrupt, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let watch = Arc::new(Watch {
            started_at: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            interrupt: AtomicU64::new(0),
        });
        let connection = Connection::open_with_flags(path, flags).map_err(OpenError::sqlite(path))?;
        let (watched, interrupts) = (Arc::clone(&watch), interrupt.clone());
        let handler = move || {
            watched.started_at.elapsed().as_nanos() as u64 > watched.deadline.load(Ordering::Relaxed)
                || interrupts.count() != watched.interrupt.load(Ordering::Relaxed)
        };
        connection
            .execute_batch(&format!(
                "PRAGMA query_only = ON; PRAGMA mmap_size = 0; PRAGMA cache_size = -{READER_CACHE_KIB};"
            ))
            .and_then(|()| connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(handler)))
            .map_err(OpenError::sqlite(path))?;
        schema::check_application_id(&connection, path)?;
        Ok(Self { connection, watch, interrupt, metrics })
    }

    fn answer<T>(
        &mut self,
        asked_at: Instant,
        deadline: Instant,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let began_at = Instant::now();
        self.metrics.reader_wait_seconds.record((began_at - asked_at).as_secs_f64());
        let after_start = deadline.saturating_duration_since(self.watch.started_at).as_nanos() as u64;
        self.watch.deadline.store(after_start, Ordering::Relaxed);
        let interrupts = self.interrupt.count();
        self.watch.interrupt.store(interrupts, Ordering::Relaxed);
        self.metrics.readers_busy.increment(1);
        let answer = self.in_snapshot(question).map_err(|error| match error {
            ReadError::Storage(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                let capped = self.interrupt.count() != interrupts;
                let reason = if capped { ReadRefused::WalCap } else { ReadRefused::Deadline };
                self.metrics.reads_refused(reason).increment(1);
                ReadError::Refused(reason)
            }
            other => other,
        });
        self.metrics.readers_busy.decrement(1);
        self.metrics.read_seconds.record(began_at.elapsed().as_secs_f64());
        answer
    }

    fn in_snapshot<T>(&mut self, question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError>) -> Result<T, ReadError> {
        // The transaction makes the statements of one question see the same moment; dropped, it ends.
        let transaction = self.connection.transaction()?;
        question(&Snapshot { connection: &transaction })
    }
}

/// The store at one moment.
pub struct Snapshot<'a> {
    connection: &'a Connection,
}

impl Snapshot<'_> {
    /// Shows `visit` the event with this sequence, if there is one.
    pub fn event<T>(
        &self,
        sequence: u64,
        visit: impl FnOnce(&EventRow<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let sql = format!("SELECT {EVENT_COLUMNS} FROM Event WHERE id = ?1");
        let mut statement = self.connection.prepare(&sql)?;
        let Ok(id) = i64::try_from(sequence) else { return Ok(None) };
        statement.query_row([id], |row| Ok(visit(&event_row(row)?))).optional()?.transpose()
    }

    /// How many events the filter lets through.
    pub fn count(&self, filter: &EventFilter) -> Result<u64, ReadError> {
        let sql = format!("SELECT count(*) FROM Event WHERE {}", condition(filter));
        let count: i64 = self.connection.query_row(&sql, params_of(filter), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Shows `visit` a page of the events that the filter lets through: the newest `createdAt` first, ties by the
    /// newest arrival.
    pub fn page(
        &self,
        filter: &EventFilter,
        page: Page,
        mut visit: impl FnMut(u64, &EventRow<'_>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        // Whole rows are read for the page only; what is sorted is small.
        let sql = format!(
            "SELECT {EVENT_COLUMNS} FROM Event WHERE id IN (
                 SELECT id FROM Event WHERE {} ORDER BY createdAt DESC, id DESC LIMIT {} OFFSET {}
             ) ORDER BY createdAt DESC, id DESC",
            condition(filter),
            page.limit,
            page.offset
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_of(filter))?;
        while let Some(row) = rows.next()? {
            let sequence: i64 = row.get(0)?;
            visit(sequence.unsigned_abs(), &event_row(row)?)?;
        }
        Ok(())
    }
}

fn condition(filter: &EventFilter) -> &'static str {
    if filter.event_type.is_some() { "websiteId = ?1 AND eventType = ?2" } else { "websiteId = ?1" }
}

fn params_of(filter: &EventFilter) -> impl Params {
    params_from_iter([&*filter.website_id].into_iter().chain(filter.event_type.map(EventType::as_str)))
}

fn event_row<'a>(row: &'a Row<'_>) -> rusqlite::Result<EventRow<'a>> {
    let text = |column: usize| -> rusqlite::Result<&'a [u8]> { Ok(row.get_ref(column)?.as_bytes()?) };
    let maybe = |column: usize| -> rusqlite::Result<Option<&'a [u8]>> { Ok(row.get_ref(column)?.as_bytes_or_null()?) };
    Ok(EventRow {
        website_id: text(1)?,
        event_type: text(2)?,
        url: text(3)?,
        referrer: maybe(4)?,
        session_id: text(5)?,
        visitor_id: text(6)?,
        device_type: maybe(7)?,
        browser: maybe(8)?,
        os: maybe(9)?,
        location: maybe(10)?,
        properties: maybe(11)?,
        created_at: row.get(12)?,
        received_at: row.get(13)?,
    })
}

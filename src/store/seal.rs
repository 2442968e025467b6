//! Sealing: a full segment gets its indexes, in a new generation of it.
//!
//! A thread of its own copies the segment under another name, builds the indexes and the summary there, syncs the
//! file and its folder, has the catalog switch to it in one transaction, and only then shows it to the readers. A crash
//! at any instruction leaves the old generation listed and at most a file that the next start removes, or the new one
//! listed and complete. Low priority: the machine belongs to the events that are coming in, unless segments pile up.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use rusqlite::{
    Connection, ErrorCode,
    backup::{Backup, StepResult},
};

use super::{
    catalog::{Catalog, CatalogError, SegmentChange},
    directory::{SegmentPaths, sync_directory},
    error::OpenError,
    file, lower_priority, schema,
    segments::{Content, Segment, Segments},
    summary::{Summary, SummaryError},
};
use crate::metrics::Metrics;

/// After a failure the next try of that segment waits this long.
const SEAL_RETRY: Duration = Duration::from_secs(30);
/// While replaced generations are still being read, they are looked at this often.
const UNLINK_POLL: Duration = Duration::from_millis(500);
/// Pages copied between two looks at whether hitlog is stopping.
const PAGES_PER_LOOK: i32 = 256;
/// How long the pages of a segment that is built may gather before they are written out.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// Instructions of SQLite's between two such looks.
const INSTRUCTIONS_PER_LOOK: i32 = 100_000;

/// Why a segment was not sealed.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("hitlog is stopping")]
    Stopping,
    #[error(transparent)]
    Sqlite(rusqlite::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the summary: {0}")]
    Summary(SummaryError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the catalog: {0}")]
    Catalog(#[from] CatalogError),
}

impl From<rusqlite::Error> for SealError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Stopping,
            _ => Self::Sqlite(error),
        }
    }
}

impl From<SummaryError> for SealError {
    fn from(error: SummaryError) -> Self {
        match error {
            SummaryError::Sqlite(error) => error.into(),
            damaged @ SummaryError::Damaged(_) => Self::Summary(damaged),
        }
    }
}

/// Where full segments are handed in.
#[derive(Clone)]
pub(super) struct SealOrders(Sender<Arc<Segment>>);

impl SealOrders {
    /// Has the segment sealed when those that were handed in before it are.
    pub(super) fn order(&self, segment: Arc<Segment>) {
        // The thread is gone only when hitlog stops; then the next start hands the segment in.
        let _ = self.0.send(segment);
    }
}

/// The sealer's thread.
pub(super) struct Sealer {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
pub(super) struct Sealing {
    pub(super) paths: SegmentPaths,
    pub(super) catalog: Catalog,
    pub(super) segments: Arc<Segments>,
    /// Memory for sorting, in bytes.
    pub(super) cache_bytes: u64,
    pub(super) metrics: Arc<Metrics>,
}

impl Sealer {
    pub(super) fn spawn(sealing: Sealing) -> Result<(Self, SealOrders), OpenError> {
        // As many as there are unsealed segments: bounded by the disk.
        let (orders, receiver) = crossbeam_channel::unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let stopping = Arc::clone(&stopping);
            thread::Builder::new().name("sealer".into()).spawn(move || sealing.run(&receiver, &stopping))
        };
        Ok((Self { stopping, thread: thread.map_err(OpenError::Thread)? }, SealOrders(orders)))
    }

    /// Ends the thread; a seal under way is given up, and begun anew at the next start. Every [`SealOrders`] must be
    /// gone by now.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the sealer panicked");
        }
    }
}

impl Sealing {
    fn run(&self, orders: &Receiver<Arc<Segment>>, stopping: &Arc<AtomicBool>) {
        let mut waiting = VecDeque::new();
        let mut failed: VecDeque<(Instant, Arc<Segment>)> = VecDeque::new();
        loop {
            let all_unlinked = self.segments.unlink_replaced();
            let now = Instant::now();
            while failed.front().is_some_and(|(retry_at, _)| *retry_at <= now) {
                waiting.extend(failed.pop_front().map(|(_, segment)| segment));
            }
            let until_retry = failed.front().map_or(Duration::MAX, |(retry_at, _)| *retry_at - now);
            let patience = match (waiting.is_empty(), all_unlinked) {
                (false, _) => Duration::ZERO,
                (true, false) => UNLINK_POLL.min(until_retry),
                (true, true) => until_retry,
            };
            match orders.recv_timeout(patience) {
                Ok(segment) => {
                    waiting.push_back(segment);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let Some(segment) = waiting.pop_front() else { continue };
            match self.seal_beside(&segment, waiting.len(), stopping) {
                Ok(()) => {}
                Err(SealError::Stopping) => return,
                Err(error) => {
                    self.clear_away(&segment, &error);
                    tracing::error!(
                        segment = segment.number, %error, retry_seconds = SEAL_RETRY.as_secs(),
                        "a segment could not be sealed; it serves as it is, and will be tried again"
                    );
                    self.metrics.seals_failed.increment(1);
                    failed.push_back((Instant::now() + SEAL_RETRY, segment));
                }
            }
        }
    }

    /// Gives the room of a seal that failed back at once: on a full disk the events that come in need it.
    fn clear_away(&self, segment: &Segment, error: &SealError) {
        let mut leftovers = vec![self.paths.unfinished(segment.number)];
        // When the catalog's commit is in doubt, the new generation may be the one that is listed.
        if !matches!(error, SealError::Catalog(CatalogError::Unknown)) {
            leftovers.push(self.paths.of(segment.number, segment.generation + 1));
        }
        for path in leftovers {
            if let Err(error) = file::remove(&path) {
                tracing::warn!(file = %path.display(), %error, "could not remove what a failed seal has left");
            }
        }
    }

    /// Seals on a thread that lives for this seal: a priority once lowered can't be raised again without privileges.
    fn seal_beside(&self, segment: &Segment, behind: usize, stopping: &Arc<AtomicBool>) -> Result<(), SealError> {
        thread::scope(|scope| {
            let seal = thread::Builder::new().name("seal".into()).spawn_scoped(scope, || {
                lower_priority(niceness(behind));
                self.seal(segment, stopping)
            })?;
            seal.join().unwrap_or_else(|_| Err(io::Error::other("the seal panicked").into()))
        })
    }

    fn seal(&self, segment: &Segment, stopping: &Arc<AtomicBool>) -> Result<(), SealError> {
        let started = Instant::now();
        let (number, generation) = (segment.number, segment.generation + 1);
        let (unfinished, path) = (self.paths.unfinished(number), self.paths.of(number, generation));
        file::remove(&unfinished)?;
        {
            let source = file::open_read_only(&segment.path, segment.is_sealed())?;
            let mut built = Connection::open(&unfinished)?;
            // Nobody else has this file, so there are no locks that closing it could drop.
            let file = Arc::new(File::open(&unfinished)?);
            copy(&source, &mut built, &file, stopping)?;
            drop(source);
            let sync_error = Arc::new(Mutex::new(None));
            let mut pace = Pace {
                file: Arc::clone(&file),
                stopping: Arc::clone(stopping),
                synced_at: Instant::now(),
                sync_error: Arc::clone(&sync_error),
            };
            built.progress_handler(INSTRUCTIONS_PER_LOOK, Some(move || pace.must_stop()))?;
            let result = build(&built, self.cache_bytes);
            if let Some(error) = sync_error.lock().take() {
                return Err(SealError::Io(error));
            }
            result?;
            built.close().map_err(|(_, error)| error)?;
            file.sync_all()?;
        }
        fs::rename(&unfinished, &path)?;
        sync_directory(self.paths.folder())?;
        let sealed = self.read_sealed(number, generation)?;
        let sequence_floor = sealed.0.sequences().map_or(0, |(_, last)| last + 1);
        self.catalog.change_segments(SegmentChange::Sealed { number, generation, sequence_floor })?;
        let (rows, seconds) = (sealed.1, started.elapsed().as_secs_f64());
        self.segments.replace(Arc::new(sealed.0));
        self.metrics.seal_seconds.record(seconds);
        self.metrics.seal_rows.increment(rows);
        tracing::info!(segment = number, generation, rows, seconds, "a segment is sealed");
        Ok(())
    }

    fn read_sealed(&self, number: i64, generation: i64) -> Result<(Segment, u64), SealError> {
        let path = self.paths.of(number, generation);
        let summary = Summary::read(&file::open_read_only(&path, true)?, &self.segments.sites)?;
        let rows = summary.count;
        Ok((Segment { number, generation, path, content: Content::Sealed(summary) }, rows))
    }
}

/// Low while the sealer keeps up or lags a little, so that events cost the same whether segments are being sealed or
/// not; as good as the writer's when so many wait that their keys in memory grow large.
fn niceness(waiting: usize) -> i32 {
    const WAITING_MAX: usize = 4;
    if waiting < WAITING_MAX { 15 } else { 0 }
}

/// Looked at while SQLite works.
struct Pace {
    file: Arc<File>,
    stopping: Arc<AtomicBool>,
    synced_at: Instant,
    /// The kernel tells a failure once: the sync at the end would know nothing of it.
    sync_error: Arc<Mutex<Option<io::Error>>>,
}

impl Pace {
    /// Writes out what has come together, so that no commit ever waits behind a segment's worth of it; then says
    /// whether hitlog is stopping.
    fn must_stop(&mut self) -> bool {
        if self.synced_at.elapsed() > SYNC_INTERVAL {
            if let Err(error) = self.file.sync_data() {
                *self.sync_error.lock() = Some(error);
                return true;
            }
            self.synced_at = Instant::now();
        }
        self.stopping.load(Ordering::Relaxed)
    }
}

fn copy(source: &Connection, built: &mut Connection, file: &File, stopping: &AtomicBool) -> Result<(), SealError> {
    // Nothing of this is worth a sync or a journal before it is complete.
    built.execute_batch("PRAGMA synchronous = OFF;")?;
    let copy = Backup::new(source, built)?;
    loop {
        if stopping.load(Ordering::Relaxed) {
            return Err(SealError::Stopping);
        }
        match copy.step(PAGES_PER_LOOK)? {
            StepResult::Done => return Ok(()),
            StepResult::More => file.sync_data()?,
            // Nobody writes here, so whoever has a lock gives it back soon.
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Builds the indexes and the summary over a copy of a segment, and leaves one plain file.
fn build(built: &Connection, cache_bytes: u64) -> Result<(), SealError> {
    built.execute_batch(&format!(
        "PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF; PRAGMA cache_size = -{};",
        cache_bytes / 1024
    ))?;
    for (name, sql) in schema::SEGMENT_INDEXES {
        let started = Instant::now();
        built.execute_batch(sql)?;
        tracing::debug!(index = name, seconds = started.elapsed().as_secs_f64(), "an index is built");
    }
    let started = Instant::now();
    Summary::write(built)?;
    tracing::debug!(seconds = started.elapsed().as_secs_f64(), "the summary is written");
    Ok(())
}

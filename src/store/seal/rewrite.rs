//! A new generation of one segment: with its indexes (sealing), without some of its events (erasure), or both.
//!
//! Built under another name, synced with its folder, switched to by the catalog in one transaction, and only then shown
//! to the readers. A crash at any instruction leaves the old generation listed and at most a file that the next start
//! removes, or the new one listed and complete.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{copy, error::RewriteError};
use crate::{
    metrics::{Outcome, StoreMetrics},
    store::{
        catalog::{Catalog, ErasedRows, SegmentChange, Target},
        error::CatalogError,
        format::{SegmentPaths, file, make_file, room::free_bytes, schema, sync_directory},
        ids::Ids,
        rollup,
        segments::{Content, Facts, Identity, Segment, Segments, Summary},
    },
};

/// What segments are rewritten with.
pub(crate) struct Rewriter {
    pub(crate) paths: SegmentPaths,
    pub(crate) catalog: Catalog,
    pub(crate) segments: Arc<Segments>,
    pub(crate) ids: Arc<Ids>,
    /// Memory for sorting, in bytes.
    pub(crate) cache_bytes: u64,
    pub(crate) metrics: Arc<StoreMetrics>,
}

impl Rewriter {
    /// Rewrites a full segment with its indexes and without the targets' events, and has everybody switch to it. When
    /// no event is left, the segment is dropped.
    pub(crate) fn rewrite(
        &self,
        segment: &Segment,
        targets: &[Target],
        stopping: &Arc<AtomicBool>,
    ) -> Result<(), RewriteError> {
        self.look_for_room(segment)?;
        let started = Instant::now();
        self.segments.directory.check()?;
        if !targets.is_empty() {
            self.wait_for_ids(segment, stopping)?;
        }
        let (number, generation) = (segment.number, segment.generation + 1);
        let path = self.paths.of(number, generation);
        // The next start puts it into quarantine.
        if path.exists() {
            return Err(RewriteError::InTheWay(path));
        }
        let Built { is_empty, erased } = self.build(segment, targets, stopping)?;
        let erased_rows = erased.iter().sum::<u64>();
        let of_target = |(target, rows): (&Target, u64)| ErasedRows { erasure: Arc::clone(&target.erasure), rows };
        let erased = targets.iter().zip(erased).map(of_target).collect();
        let sequence_floor = segment.sequence_floor();
        let mut rows = 0;
        let change = if is_empty {
            // First, so that nobody who follows events takes it for missing.
            self.segments.note_emptied(number);
            SegmentChange::Dropped { number, sequence_floor, erased, expired_from: None }
        } else {
            // Noted first: a start removes no generation that the catalog does not know.
            self.catalog.change_segments(SegmentChange::Built(Identity { number, generation }))?;
            fs::rename(self.paths.unfinished(number), &path)?;
            sync_directory(self.paths.folder())?;
            let (segment, facts) = self.read_sealed(number, generation)?;
            rows = facts.rows;
            SegmentChange::Sealed { segment: Arc::new(segment), facts, sequence_floor, erased }
        };
        // Returns once it is committed and readers see it.
        self.catalog.change_segments(change)?;
        let seconds = started.elapsed().as_secs_f64();
        if segment.is_sealed() && targets.is_empty() {
            tracing::info!(
                segment = number,
                generation,
                rows,
                seconds,
                "a segment of an older hitlog is brought up to date"
            );
        } else if segment.is_sealed() {
            self.metrics.erase_seconds.record(seconds);
            tracing::info!(segment = number, generation, rows, erased_rows, seconds, "a segment is rewritten");
        } else {
            self.metrics.seal_seconds.record(seconds);
            self.metrics.events_sealed.increment(rows);
            tracing::info!(segment = number, generation, rows, erased_rows, seconds, "a segment is sealed");
        }
        Ok(())
    }

    /// Counts a try to rewrite a segment.
    pub(crate) fn count(&self, segment: &Segment, outcome: Outcome) {
        let tries = if segment.is_sealed() { self.metrics.erases(outcome) } else { self.metrics.seals(outcome) };
        tries.increment(1);
    }

    /// No event goes before its id is in a run: the next start reads the other ids from the events.
    fn wait_for_ids(&self, segment: &Segment, stopping: &AtomicBool) -> Result<(), RewriteError> {
        /// Laying down what a roll has handed on takes some milliseconds, or fails.
        const WAIT_MAX: Duration = Duration::from_secs(2);
        const POLL: Duration = Duration::from_millis(5);
        let Some((_, last)) = segment.sequences() else { return Ok(()) };
        let asked_at = Instant::now();
        while !self.ids.are_laid_down(last) {
            if stopping.load(Ordering::Relaxed) {
                return Err(RewriteError::Stopping);
            }
            if asked_at.elapsed() > WAIT_MAX {
                return Err(RewriteError::IdsInMemory);
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether there is so much room for a new generation that nobody else will miss it.
    pub(crate) fn has_room(&self, segment: &Segment) -> bool {
        free_bytes(self.paths.folder()).is_none_or(|free| free / 2 > segment.rewriting_bytes())
    }

    /// Does not begin what cannot end: a rewriting that runs out of room has taken it from everybody else.
    fn look_for_room(&self, segment: &Segment) -> Result<(), RewriteError> {
        let wanted = segment.rewriting_bytes();
        match free_bytes(self.paths.folder()) {
            Some(free) if free < wanted => Err(RewriteError::NoRoom { wanted, free }),
            _ => Ok(()),
        }
    }

    /// Builds the new generation under its unfinished name.
    fn build(&self, segment: &Segment, targets: &[Target], stopping: &Arc<AtomicBool>) -> Result<Built, RewriteError> {
        let unfinished = self.paths.unfinished(segment.number);
        if unfinished.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(RewriteError::Blocked(unfinished));
        }
        file::remove(&unfinished)?;
        make_file(&unfinished)?;
        let mut built = Connection::open(&unfinished)?;
        // A crash throws the unfinished file away, so it needs no journal, and no sync before it is complete.
        built.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;")?;
        // Only an erasure rests: segments that wait for their indexes must not pile up for that.
        let pace = copy::Pace::new(&unfinished, segment.is_sealed())?;
        let (is_empty, erased) = if targets.is_empty() {
            (self.build_copy(segment, &mut built, &pace, stopping)?, Vec::new())
        } else {
            self.build_without(segment, targets, &built, (&pace, stopping))?
        };
        if is_empty {
            drop(built);
            file::remove(&unfinished)?;
        } else {
            Identity { number: segment.number, generation: segment.generation + 1 }.write(&built)?;
            built.close().map_err(|(_, error)| error)?;
            pace.sync()?;
        }
        Ok(Built { is_empty, erased })
    }

    /// Builds a generation without the targets' events. Returns whether nothing is left, and how many events each had.
    fn build_without(
        &self,
        segment: &Segment,
        targets: &[Target],
        built: &Connection,
        (pace, stopping): (&copy::Pace, &Arc<AtomicBool>),
    ) -> Result<(bool, Vec<u64>), RewriteError> {
        pace.set(built, stopping)?;
        let erased = pace.check(copy::rows_without(&segment.path, segment.is_sealed(), targets, built))?;
        let is_empty = is_empty(built)?;
        if !is_empty {
            pace.check(add_indexes(built, self.cache_bytes))?;
            pace.check(add_rollups(built, None))?;
        }
        Ok((is_empty, erased))
    }

    /// Builds a generation with all rows of the one before. Returns whether there are none.
    fn build_copy(
        &self,
        segment: &Segment,
        built: &mut Connection,
        pace: &copy::Pace,
        stopping: &Arc<AtomicBool>,
    ) -> Result<bool, RewriteError> {
        thread::scope(|scope| {
            // A segment that was sealed already has its indexes, and nothing to do meanwhile.
            let ahead = if segment.is_sealed() { None } else { RollupsAhead::begin(scope, segment, stopping) };
            let has_rows = self.copy_and_index(segment, built, pace, stopping);
            if !matches!(has_rows, Ok(true)) {
                ahead.iter().for_each(RollupsAhead::give_up);
                return Ok(!has_rows?);
            }
            let made = ahead.and_then(RollupsAhead::end);
            pace.check(add_rollups(built, made))?;
            Ok(false)
        })
    }

    /// Copies all rows and gives them their indexes. Returns whether there are any.
    fn copy_and_index(
        &self,
        segment: &Segment,
        built: &mut Connection,
        pace: &copy::Pace,
        stopping: &Arc<AtomicBool>,
    ) -> Result<bool, RewriteError> {
        copy::pages(&segment.path, segment.is_sealed(), built, pace, stopping)?;
        // The copied header says that the file has a write-ahead log.
        built.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF;")?;
        copy::upgrade(built)?;
        pace.set(built, stopping)?;
        if is_empty(built)? {
            return Ok(false);
        }
        pace.check(if segment.is_sealed() { Ok(()) } else { add_indexes(built, self.cache_bytes) })?;
        Ok(true)
    }

    fn read_sealed(&self, number: i64, generation: i64) -> Result<(Segment, Facts), RewriteError> {
        let path = self.paths.of(number, generation);
        let summary = Summary::read(&file::open_read_only(&path, true)?, &self.segments.sites)?;
        let facts = summary.facts;
        Ok((Segment { number, generation, path, content: Content::Sealed(summary) }, facts))
    }

    /// Gives the room of a rewriting that failed back at once: on a full disk the events that come in need it.
    pub(crate) fn clear_away(&self, segment: &Segment, error: &RewriteError) {
        if self.segments.directory.check().is_err() {
            return;
        }
        // What is no file of hitlog's stays.
        let mut leftovers = match error {
            RewriteError::Blocked(_) => Vec::new(),
            _ => vec![self.paths.unfinished(segment.number)],
        };
        // When the catalog's commit is in doubt, the new generation may be the one that is listed. What was there
        // before is not ours to remove.
        if !matches!(
            error,
            RewriteError::Catalog(CatalogError::Unknown) | RewriteError::InTheWay(_) | RewriteError::Blocked(_)
        ) {
            leftovers.push(self.paths.of(segment.number, segment.generation + 1));
        }
        for path in leftovers {
            if let Err(error) = file::remove(&path) {
                tracing::warn!(file = %path.display(), %error, "could not remove what a failed rewriting has left");
            }
        }
    }
}

/// What was built.
struct Built {
    /// No event is left, and no file.
    is_empty: bool,
    /// How many events each target had.
    erased: Vec<u64>,
}

fn is_empty(built: &Connection) -> rusqlite::Result<bool> {
    built.query_row("SELECT NOT EXISTS (SELECT 1 FROM Event)", [], |row| row.get(0))
}

/// Builds the indexes and the summary over the rows of a segment.
fn add_indexes(built: &Connection, cache_bytes: u64) -> Result<(), RewriteError> {
    built.execute_batch(&format!("PRAGMA cache_size = -{};", cache_bytes / 1024))?;
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

/// Adds what numbers are answered from, as it was made ahead, or made of its rows.
fn add_rollups(built: &Connection, made: Option<rollup::Made>) -> Result<(), RewriteError> {
    let started = Instant::now();
    match made {
        Some(made) => made.write(built)?,
        None => rollup::write(built)?,
    }
    tracing::debug!(seconds = started.elapsed().as_secs_f64(), "the rollups are written");
    Ok(())
}

/// Rollups that are made of a segment's rows while its next generation gets its indexes.
struct RollupsAhead<'scope> {
    thread: ScopedJoinHandle<'scope, Result<Option<rollup::Made>, RewriteError>>,
    /// Whether nobody waits for them any more.
    is_given_up: Arc<AtomicBool>,
}

impl<'scope> RollupsAhead<'scope> {
    /// Begins; `None` where there is no thread for it: then they are made afterwards.
    fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        segment: &'env Segment,
        stopping: &'env Arc<AtomicBool>,
    ) -> Option<Self> {
        let is_given_up = Arc::new(AtomicBool::new(false));
        let must_end = [Arc::clone(stopping), Arc::clone(&is_given_up)];
        let make = move || {
            let source = file::open_read_only(&segment.path, segment.is_sealed())?;
            let must_end = move || must_end.iter().any(|must_end| must_end.load(Ordering::Relaxed));
            source.progress_handler(copy::INSTRUCTIONS_PER_LOOK, Some(must_end))?;
            let started = Instant::now();
            let made = rollup::make(&source)?;
            tracing::debug!(seconds = started.elapsed().as_secs_f64(), "the rollups are made");
            Ok(made)
        };
        let thread = thread::Builder::new().name("rollup".into()).spawn_scoped(scope, make).ok()?;
        Some(Self { thread, is_given_up })
    }

    /// What was made; `None` if that could not be done ahead.
    fn end(self) -> Option<rollup::Made> {
        let made = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        made.unwrap_or_else(|error| {
            tracing::debug!(%error, "the rollups could not be made ahead; they are made of the copy");
            None
        })
    }

    /// Has the thread end as soon as it can.
    fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

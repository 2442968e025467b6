//! A new generation of one segment: with its indexes (sealing), without some of its events (erasure), or both.
//!
//! Built under another name, synced with its folder, switched to by the catalog in one transaction, and only then shown
//! to the readers. A crash at any instruction leaves the old generation listed and at most a file that the next start
//! removes, or the new one listed and complete.

mod copy;

use std::{
    fs, io,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use rusqlite::{Connection, ErrorCode};

use super::{
    catalog::{Catalog, CatalogError, SegmentChange},
    directory::{SegmentPaths, sync_directory},
    erasures::Subject,
    error::OpenError,
    file, schema,
    segments::{Content, Segment, Segments},
    summary::{Summary, SummaryError},
};
use crate::metrics::StoreMetrics;

/// An erasure, and whose events it removes.
pub(super) type Target = (Arc<str>, Subject);

/// Why a segment was not rewritten.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
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

impl From<rusqlite::Error> for RewriteError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::Stopping,
            _ => Self::Sqlite(error),
        }
    }
}

impl From<SummaryError> for RewriteError {
    fn from(error: SummaryError) -> Self {
        match error {
            SummaryError::Sqlite(error) => error.into(),
            damaged @ SummaryError::Damaged(_) => Self::Summary(damaged),
        }
    }
}

/// What segments are rewritten with.
pub(super) struct Rewriter {
    pub(super) paths: SegmentPaths,
    pub(super) catalog: Catalog,
    pub(super) segments: Arc<Segments>,
    /// Memory for sorting, in bytes.
    pub(super) cache_bytes: u64,
    pub(super) metrics: Arc<StoreMetrics>,
}

impl Rewriter {
    /// Rewrites a full segment with its indexes and without the targets' events, and has everybody switch to it. When
    /// no event is left, the segment is dropped.
    pub(super) fn rewrite(
        &self,
        segment: &Segment,
        targets: &[Target],
        stopping: &Arc<AtomicBool>,
    ) -> Result<(), RewriteError> {
        let started = Instant::now();
        let (number, generation) = (segment.number, segment.generation + 1);
        let Built { is_empty, erased } = self.build(segment, targets, stopping)?;
        let erased: Vec<_> = targets.iter().map(|(erasure, _)| Arc::clone(erasure)).zip(erased).collect();
        let erased_rows: u64 = erased.iter().map(|(_, rows)| rows).sum();
        let sequence_floor = segment.sequences().map_or(0, |(_, last)| last + 1);
        let mut rows = 0;
        let change = if is_empty {
            SegmentChange::Dropped { number, sequence_floor, erased }
        } else {
            fs::rename(self.paths.unfinished(number), self.paths.of(number, generation))?;
            sync_directory(self.paths.folder())?;
            let sealed = self.read_sealed(number, generation)?;
            rows = sealed.1;
            SegmentChange::Sealed { segment: Arc::new(sealed.0), sequence_floor, erased }
        };
        self.catalog.change_segments(change)?;
        let seconds = started.elapsed().as_secs_f64();
        if segment.is_sealed() {
            self.metrics.erase_seconds.record(seconds);
            tracing::info!(segment = number, generation, rows, erased_rows, seconds, "a segment is rewritten");
        } else {
            self.metrics.seal_seconds.record(seconds);
            self.metrics.seal_rows.increment(rows);
            tracing::info!(segment = number, generation, rows, erased_rows, seconds, "a segment is sealed");
        }
        Ok(())
    }

    /// Builds the new generation under its unfinished name.
    fn build(&self, segment: &Segment, targets: &[Target], stopping: &Arc<AtomicBool>) -> Result<Built, RewriteError> {
        let unfinished = self.paths.unfinished(segment.number);
        file::remove(&unfinished)?;
        let mut built = Connection::open(&unfinished)?;
        // Nothing of this is worth a sync or a journal before it is complete.
        built.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF;")?;
        // A segment without indexes costs memory until it has them.
        let pace = copy::Pace::new(&unfinished, segment.is_sealed())?;
        let erased = if targets.is_empty() {
            copy::pages(&segment.path, segment.is_sealed(), &mut built, &pace, stopping)?;
            // The pages say that they belong to a file with a write-ahead log.
            built.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA journal_mode = OFF;")?;
            pace.set(&built, stopping)?;
            Vec::new()
        } else {
            pace.set(&built, stopping)?;
            pace.check(copy::rows_without(&segment.path, segment.is_sealed(), targets, &built))?
        };
        let is_empty = built.query_row("SELECT NOT EXISTS (SELECT 1 FROM Event)", [], |row| row.get(0))?;
        if is_empty {
            drop(built);
            file::remove(&unfinished)?;
        } else {
            pace.check(add_indexes(&built, self.cache_bytes))?;
            built.close().map_err(|(_, error)| error)?;
            pace.sync()?;
        }
        Ok(Built { is_empty, erased })
    }

    fn read_sealed(&self, number: i64, generation: i64) -> Result<(Segment, u64), RewriteError> {
        let path = self.paths.of(number, generation);
        let summary = Summary::read(&file::open_read_only(&path, true)?, &self.segments.sites)?;
        let rows = summary.count;
        Ok((Segment { number, generation, path, content: Content::Sealed(summary) }, rows))
    }

    /// Gives the room of a rewriting that failed back at once: on a full disk the events that come in need it.
    pub(super) fn clear_away(&self, segment: &Segment, error: &RewriteError) {
        let mut leftovers = vec![self.paths.unfinished(segment.number)];
        // When the catalog's commit is in doubt, the new generation may be the one that is listed.
        if !matches!(error, RewriteError::Catalog(CatalogError::Unknown)) {
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

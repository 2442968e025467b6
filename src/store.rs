//! The store: a log of segments in SQLite files, and a catalog beside them.
//!
//! The only room that knows SQLite. Owns the data directory, every connection and every thread behind the writer's:
//! rows are appended to the active segment ([`Log`]); a full one is followed by the next and gets its indexes in
//! the background (`seal`); `recover` brings everything back at the start. Readers take a [`Snapshot`] of the segments
//! and ask for a listing or one event. Each database file has one connection that writes rows, owned by one thread.
//!
//! The modules are layers, each of which knows only those before it: `error`, `options`, `priority` < `format` (what
//! is on the disk) < `segments` (what is kept of it in memory) < `catalog`, `read` < `seal`, `erase`, `offline` (what
//! tools read) < `log` < `recover`.
//!
//! Must not know HTTP, the queue or the configuration: it is given options and events, and returns sequences.

mod catalog;
mod erase;
mod error;
mod format;
mod log;
pub mod offline;
mod options;
mod priority;
mod read;
mod recover;
mod seal;
mod segments;

use std::{sync::Arc, thread::JoinHandle, time::Duration};

pub use catalog::{Catalog, Erasure, IdKey, NewWebsite, Website, WebsiteAge, WebsiteChange, WebsitePage, Websites};
use catalog::{CatalogFile, Erasures};
pub use erase::{EraseError, Eraser};
pub use error::{AppendError, CatalogError, OnFailure, OpenError, ReadError};
pub use format::DataDir;
use format::{SCRATCH, room::open_with_room, scratch};
pub use log::Log;
use log::roll::{Roller, Rolling};
pub use options::{Durability, ErasureOptions, LogOptions, ReadOptions, SegmentOptions, StoreOptions};
pub use read::{
    Readers,
    budget::PageBuffer,
    list::page::{EventFilter, Page, PageStart, PageSummary, WalkPlace},
    snapshot::Snapshot,
};
use seal::{Sealer, Sealing, rewrite::Rewriter};
use segments::{ReaderInterrupt, Segments, retention};

use crate::{clock::now_ms, metrics::StoreMetrics};

/// The open store: one handle for each of those who use it.
pub struct Store {
    /// For the writer.
    pub log: Log,
    /// For questions about events.
    pub readers: Readers,
    /// For changes of websites.
    pub catalog: Catalog,
    /// For erasures.
    pub eraser: Eraser,
    /// The websites in memory.
    pub websites: Arc<Websites>,
    /// What public ids are made with.
    pub id_key: IdKey,
    /// The threads of catalog and readers; each ends when the last handle to it is dropped.
    pub threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Recovers what is in the directory and starts the threads.
    pub fn open(
        directory: &DataDir,
        options: &StoreOptions,
        metrics: &Arc<StoreMetrics>,
        on_failure: OnFailure,
    ) -> Result<Self, OpenError> {
        let paths = directory.segment_paths();
        scratch::sort_in(&options.scratch_dir.clone().unwrap_or_else(|| directory.path().join(SCRATCH)))?;
        // A start may be cut short anywhere, so it may be begun anew as well.
        let recover = |room| {
            let mut catalog = CatalogFile::open(directory)?;
            let segments = Arc::new(Segments::new(options.segments, Arc::clone(metrics)));
            let recovered = recover::recover_segments(&paths, &mut catalog, &segments, &options.log, metrics, room)?;
            Ok((catalog, segments, recovered))
        };
        let ((catalog, segments, recovered), reserve) = open_with_room(directory, options.reserve_bytes, recover)?;
        let (websites, id_key) = (catalog.websites(), catalog.id_key());
        let (wake, woken) = crossbeam_channel::bounded(1);
        let erasures = Arc::new(Erasures::new(wake, Arc::clone(metrics)));
        recover::recover_erasures(catalog.erasures()?, &segments, &erasures)?;
        let memory = catalog::InMemory {
            segments: Arc::clone(&segments),
            erasures: Arc::clone(&erasures),
            erasures_max: options.erasures.erasures_max,
        };
        let (catalog, catalog_thread) = catalog.spawn(memory, Arc::clone(&on_failure))?;
        let rewriter = Rewriter {
            paths: paths.clone(),
            catalog: catalog.clone(),
            segments: Arc::clone(&segments),
            cache_bytes: options.seal_cache_bytes,
            metrics: Arc::clone(metrics),
        };
        let retention = options.read.retention;
        let sealing = Sealing { rewriter, erasures: Arc::clone(&erasures), wake: woken, retention };
        let (sealer, sealer_orders) = Sealer::spawn(sealing)?;
        recovered.unsealed.into_iter().for_each(|segment| sealer_orders.order(segment));
        let rolling = Rolling {
            paths,
            catalog: catalog.clone(),
            segments: Arc::clone(&segments),
            sealer: sealer_orders,
            options: options.log,
            metrics: Arc::clone(metrics),
            on_failure,
            next_number: recovered.next_number,
            listed_number: None,
            unretired: Vec::new(),
        };
        let roller = Roller::spawn(rolling, recovered.prepared)?;
        let interrupt = ReaderInterrupt::default();
        let (readers, mut threads) = Readers::spawn(&segments, options.read, &interrupt, Arc::clone(metrics))?;
        threads.push(catalog_thread);
        let eraser = Eraser {
            catalog: catalog.clone(),
            readers: readers.clone(),
            segments: Arc::clone(&segments),
            erasures,
            options: options.erasures,
        };
        let behind = (roller, sealer);
        let (active, next) = (recovered.active, recovered.next_sequence);
        let held = (interrupt, reserve);
        let log = Log::new(active, next, behind, segments, options.log, held, Arc::clone(metrics));
        Ok(Self { log, readers, catalog, eraser, websites, id_key, threads })
    }

    /// Closes everything; no clone of a handle may be left, or a thread would wait for it for ever.
    pub fn close(self) -> Result<(), AppendError> {
        let Self { log, readers, catalog, eraser, threads, .. } = self;
        drop((readers, catalog, eraser));
        let closed = log.close();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked while it stopped");
            }
        }
        closed
    }
}

/// The version of the SQLite that is linked in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// Refuses a SQLite that can lose commits: 3.7.0 to 3.51.2 do when a checkpoint races a reset of the write-ahead log
/// (<https://sqlite.org/wal.html#walresetbug>), and hitlog checkpoints beside its writer.
pub fn check_sqlite_version() -> Result<(), OpenError> {
    const SQLITE_VERSION_MIN: i32 = 3_051_003;
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(OpenError::SqliteTooOld(sqlite_version()));
    }
    Ok(())
}

/// The earliest `createdAt` that has not expired by now, in milliseconds since 1970, UTC.
pub fn expired_before(retention: Option<Duration>) -> i64 {
    retention::expired_before(retention, now_ms())
}

#[cfg(test)]
mod tests;

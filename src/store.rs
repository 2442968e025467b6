//! The store: a log of segments in SQLite files, and a catalog beside them.
//!
//! The only room that knows SQLite. Owns the data directory, every connection and every thread behind the writer's:
//! rows are appended to the active segment ([`Log`]), which is checkpointed beside (`checkpoint`); a full one is
//! followed by the next (`roll`) and gets its indexes in the background (`seal`); `recover` brings everything
//! back at the start. Readers take a [`Snapshot`] of the segments and ask for a listing (`list`) or one event. Each
//! database file has one connection that writes rows, owned by one thread.
//!
//! Must not know HTTP, the queue or the configuration: it is given options and events, and returns sequences.

mod catalog;
mod checkpoint;
mod columns;
mod directory;
mod eraser;
mod erasures;
mod error;
mod file;
mod insert;
mod keys;
mod list;
mod log;
pub mod offline;
mod read;
mod recover;
mod retention;
mod rewrite;
mod roll;
mod schema;
mod sealer;
mod segments;
mod snapshot;
mod summary;
mod sync_timer;
mod view;
mod websites;

use std::{sync::Arc, thread::JoinHandle};

use catalog::CatalogFile;
pub use catalog::{Catalog, CatalogError, NewWebsite, WebsiteChange};
pub use directory::DataDir;
pub use eraser::{EraseError, Eraser};
pub use erasures::{Erasure, ErasureOptions};
pub use error::{AppendError, OpenError};
pub use list::{Cursor, EventFilter, Listed, Page, PageStart};
pub use log::{Durability, Log, LogOptions};
pub use read::{PageBuffer, ReadError, ReadOptions, Readers};
pub use segments::SegmentOptions;
pub use snapshot::Snapshot;
pub use websites::{Website, Websites};

use crate::metrics::StoreMetrics;

/// How the store works; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Appending, and when a segment is full.
    pub log: LogOptions,
    /// Reading.
    pub read: ReadOptions,
    /// What is kept in memory of the segments.
    pub segments: SegmentOptions,
    /// What may be erased at once.
    pub erasures: ErasureOptions,
    /// Memory for sorting when a segment is sealed, in bytes.
    pub seal_cache_bytes: u64,
}

/// Called with the reason when a thread of the store finds that the storage can't be trusted any more.
pub type Failed = Arc<dyn Fn(String) + Send + Sync>;

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
    /// The node and the key of the public ids.
    pub id_key: (u32, [u8; 16]),
    /// They end when the handles above are gone.
    pub threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Recovers what is in the directory and starts the threads.
    pub fn open(
        directory: &DataDir,
        options: &StoreOptions,
        metrics: &Arc<StoreMetrics>,
        failed: Failed,
    ) -> Result<Self, OpenError> {
        let mut catalog = CatalogFile::open(directory)?;
        let paths = directory.segments();
        let segments = Arc::new(segments::Segments::new(options.segments, Arc::clone(metrics)));
        let recovered = recover::recover(&paths, &mut catalog, &segments, &options.log, metrics)?;
        let (websites, id_key) = (catalog.websites(), catalog.id_key());
        let (wake, woken) = crossbeam_channel::bounded(1);
        let erasures = erasures::recover(catalog.erasures()?, &segments, wake, metrics)?;
        let memory = catalog::InMemory {
            segments: Arc::clone(&segments),
            erasures: Arc::clone(&erasures),
            erasures_max: options.erasures.erasures_max,
        };
        let (catalog, catalog_thread) = catalog.spawn(memory, {
            let failed = Arc::clone(&failed);
            move |reason| failed(reason)
        })?;
        let rewriter = rewrite::Rewriter {
            paths: paths.clone(),
            catalog: catalog.clone(),
            segments: Arc::clone(&segments),
            cache_bytes: options.seal_cache_bytes,
            metrics: Arc::clone(metrics),
        };
        let retention = options.read.retention;
        let sealing = sealer::Sealing { rewriter, erasures: Arc::clone(&erasures), wake: woken, retention };
        let (sealer, sealer_orders) = sealer::Sealer::spawn(sealing)?;
        recovered.unsealed.into_iter().for_each(|segment| sealer_orders.order(segment));
        let rolling = roll::Rolling {
            paths,
            catalog: catalog.clone(),
            segments: Arc::clone(&segments),
            sealer: sealer_orders,
            options: options.log,
            metrics: Arc::clone(metrics),
            failed,
            next_number: recovered.next_number,
            listed_number: None,
        };
        let roller = roll::Roller::spawn(rolling, recovered.prepared)?;
        let interrupt = read::ReaderInterrupt::default();
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
        let log = Log::new(active, next, behind, segments, options.log, interrupt, Arc::clone(metrics));
        Ok(Self { log, readers, catalog, eraser, websites, id_key, threads })
    }

    /// Closes everything, for who has all handles; nobody may hold a clone of one.
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

/// SQLite 3.7.0 to 3.51.2 can lose commits when a checkpoint races a reset of the write-ahead log
/// (<https://sqlite.org/wal.html#walresetbug>), and hitlog checkpoints beside its writer.
pub fn check_sqlite_version() -> Result<(), OpenError> {
    const SQLITE_VERSION_MIN: i32 = 3_051_003;
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(OpenError::SqliteTooOld(sqlite_version()));
    }
    Ok(())
}

/// The earliest `createdAt` that has not expired by now, in milliseconds since 1970, UTC.
pub fn expired_before(retention: Option<std::time::Duration>) -> i64 {
    retention::expired_before(retention, now_ms())
}

/// Has the calling thread give way to others, as `nice` does. Once lowered, a priority cannot be raised again without
/// privileges.
fn lower_priority(niceness: i32) {
    // Linux takes the calling thread for "process 0".
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Milliseconds since 1970, UTC.
fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

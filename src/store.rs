//! The store: a log of segments in SQLite files, and a catalog beside them.
//!
//! The only room that knows SQLite. Owns the data directory, every connection and every thread behind the writer's:
//! rows are appended to the active segment ([`Log`]); a full one is followed by the next and gets its indexes in
//! the background (`seal`); `recover` brings everything back at the start. Readers take a [`Snapshot`] of the segments
//! and ask for a listing or one event. Each database file has one connection that writes rows, owned by one thread.
//!
//! The modules are layers, each of which knows only those before it: `error`, `options`, `priority` < `format` (what
//! is on the disk) < `segments` (what is kept of it in memory) < `catalog`, `read` < `seal`, `erase`,
//! `shipping`, `offline` (what tools read) < `log`, `repair` (what tools change) < `recover`.
//!
//! Must not know HTTP, the queue or the configuration: it is given options and events, and returns sequences.

mod catalog;
mod erase;
mod error;
mod format;
mod ids;
mod log;
pub mod offline;
mod options;
mod priority;
mod read;
mod recover;
pub mod repair;
mod rollup;
mod seal;
mod segments;
mod shipping;

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use catalog::{
    Aim, Catalog, CodeRenewal, Erasure, Goal, NewWebsite, Pause, RangeEnd, Renewed, Resume, ShipChange, ShipErasure,
    ShipErasureState, ShipNode, ShipNow, ShipRange, ShipState, ShipTarget, Verify, VerifyDifference, VerifyWork,
    Website, WebsiteAge, WebsiteChange, WebsitePage, Websites,
};
use catalog::{CatalogFile, Erasures, Shipped};
use crossbeam_channel::Receiver;
pub use erase::{EraseError, Eraser};
pub use error::{AppendError, CatalogError, DirectoryLost, OnFailure, OpenError, ReadError};
pub use format::{
    DataDir, FileAccess, SqliteBuild,
    salts::{Salt, SaltFile},
    scratch::SpoolError,
    set_file_access,
};
use format::{
    SCRATCH,
    room::{Room, open_with_room},
    scratch,
};
use ids::{IdKeeper, Ids, Remake};
pub use log::{Appended, Log};
use log::{
    newest::NewestIds,
    roll::{Roller, Rolling},
    storage::Storage,
    watch::Watch,
};
pub use options::{
    Durability, ErasureOptions, IdOptions, LogOptions, NumbersOptions, ReadOptions, SegmentOptions, StoreOptions,
    TailOptions,
};
use read::Pool;
pub use read::{
    Readers,
    budget::PageBuffer,
    known::KnownIds,
    list::{
        RestOfPage,
        page::{EventFilter, Page, PageStart, PageSummary, WalkPlace},
    },
    numbers::{
        GoalCounts, ListOrder, ListPage, ListReply, ListRow, Listed, Numbers, NumbersQuestion, NumbersReply, Span,
        SpanNumbers,
    },
    run::{Next, OfHidden, Run},
    snapshot::Snapshot,
    tail::{
        Tail, Tails, TooManyTails,
        place::{Gap, GapReason, Shown, TailFilter, TailPlace, TailRead},
    },
};
use recover::{Recovered, Start, ids::UnlaidIds};
pub use rollup::{Counts, Dimension, Filter, Own};
use seal::{Retention, Sealer, Sealing, rewrite::Rewriter};
use segments::{ReaderInterrupt, Segments, retention};
pub use shipping::Shipping;

use crate::{clock::now_ms, event_id::Epochs, metrics::StoreMetrics};

/// The open store: one handle for each of those who use it.
pub struct Store {
    /// For the writer.
    pub log: Log,
    /// For questions about events.
    pub readers: Readers,
    /// For numbers of a website.
    pub numbers: Numbers,
    /// For who follows events.
    pub tails: Tails,
    /// For what is sent again.
    pub known_ids: KnownIds,
    /// For changes of websites.
    pub catalog: Catalog,
    /// For erasures.
    pub eraser: Eraser,
    /// For what is shipped elsewhere.
    pub shipping: Shipping,
    /// The websites in memory.
    pub websites: Arc<Websites>,
    /// What public ids are made with.
    pub epochs: Epochs,
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
        scratch::sort_in(&options.scratch_dir.clone().unwrap_or_else(|| directory.path().join(SCRATCH)))?;
        // A start may be cut short anywhere, so it may be begun anew as well.
        let recover = |room| recover(directory, options, metrics, room);
        let ((catalog, segments, recovered), reserve) = open_with_room(directory, options.reserve_bytes, recover)?;
        let retention = retention_of(options, &catalog, &segments)?;
        let (websites, epochs, id_key) = (catalog.websites(), catalog.epochs().clone(), catalog.id_hash_key());
        // Before anything is done to the segments.
        let below = (&segments, recovered.next_sequence);
        let (ids, newest_ids) = open_ids(directory, options.ids, below, metrics, &on_failure)?;
        let moved = move_catalog(catalog, &segments, options, metrics, &on_failure)?;
        let MovedCatalog { catalog, thread: catalog_thread, erasures, shipped, woken } = moved;
        let rewriter = rewriter(directory, options, (&catalog, &segments, &ids), metrics);
        let sealing = Sealing {
            rewriter,
            erasures: Arc::clone(&erasures),
            shipped: Arc::clone(&shipped),
            wake: woken,
            retention,
            reserve: reserve.clone(),
        };
        let (sealer, sealer_orders) = Sealer::spawn(sealing)?;
        recovered.unsealed.into_iter().for_each(|segment| sealer_orders.order(segment));
        for segment in recovered.prepared.iter().chain([&recovered.active]) {
            directory.watch(&segment.segment.path)?;
        }
        let watch = watch_over(directory, &segments, metrics, &on_failure)?;
        let rolling = Rolling {
            paths: directory.segment_paths(),
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
        let ((readers, numbers, tails), mut threads) = spawn_readers(&segments, options, &interrupt, metrics)?;
        threads.push(catalog_thread);
        let (shipping, ship_threads) = Shipping::spawn(
            (catalog.clone(), &segments, Arc::clone(&erasures), Arc::clone(&shipped), reserve.clone()),
            options,
            &interrupt,
            Arc::clone(metrics),
        )?;
        threads.extend(ship_threads);
        let eraser = Eraser {
            catalog: catalog.clone(),
            readers: readers.clone(),
            segments: Arc::clone(&segments),
            erasures,
            shipped,
            options: options.erasures,
            looking: Arc::default(),
        };
        let (behind, held) = ((roller, sealer, watch, catalog.clone()), (interrupt, reserve));
        let next = (recovered.next_sequence, newest_ids);
        let (shown, known_ids) = ((segments, tails.clone()), KnownIds::new(&id_key, ids));
        let log = Log::new(recovered.active, next, behind, shown, options.log, held, Arc::clone(metrics));
        Ok(Self { log, readers, numbers, tails, known_ids, catalog, eraser, shipping, websites, epochs, threads })
    }

    /// Closes everything; no clone of a handle may be left, or a thread would wait for it for ever.
    pub fn close(self) -> Result<(), AppendError> {
        let Self { log, readers, numbers, tails, catalog, eraser, shipping, threads, .. } = self;
        drop((readers, numbers, tails, catalog, eraser, shipping));
        let closed = log.close();
        if let Err(AppendError::Lost(_)) = closed {
            // Threads that wait for the log to end would be waited for; the process is about to end.
            return closed;
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked while it stopped");
            }
        }
        closed
    }
}

/// Moves the catalog to its thread, and begins with what it says of erasures and of what is shipped.
fn move_catalog(
    catalog: CatalogFile,
    segments: &Arc<Segments>,
    options: &StoreOptions,
    metrics: &Arc<StoreMetrics>,
    on_failure: &OnFailure,
) -> Result<MovedCatalog, OpenError> {
    let (wake, woken) = crossbeam_channel::bounded(1);
    segments.wake_on_damage(wake.clone());
    let erasures = Arc::new(Erasures::new(wake, Arc::clone(metrics)));
    let shipped = Arc::new(catalog.shipped()?);
    shipped.change(|state| state.now.is_on = options.is_shipping);
    recover::recover_erasures(catalog.erasures()?, segments, &erasures, options.erasures)?;
    let memory = catalog::InMemory {
        segments: Arc::clone(segments),
        erasures: Arc::clone(&erasures),
        shipped: Arc::clone(&shipped),
        erasures_max: options.erasures.erasures_max,
    };
    let (catalog, thread) = catalog.spawn(memory, Arc::clone(on_failure))?;
    Ok(MovedCatalog { catalog, thread, erasures, shipped, woken })
}

/// The catalog on its thread, and what it has in memory.
struct MovedCatalog {
    catalog: Catalog,
    thread: JoinHandle<()>,
    erasures: Arc<Erasures>,
    shipped: Arc<Shipped>,
    /// Has a message when there is something to erase.
    woken: Receiver<()>,
}

fn rewriter(
    directory: &DataDir,
    options: &StoreOptions,
    (catalog, segments, ids): (&Catalog, &Arc<Segments>, &Arc<Ids>),
    metrics: &Arc<StoreMetrics>,
) -> Rewriter {
    Rewriter {
        paths: directory.segment_paths(),
        catalog: catalog.clone(),
        segments: Arc::clone(segments),
        ids: Arc::clone(ids),
        cache_bytes: options.seal_cache_bytes,
        metrics: Arc::clone(metrics),
    }
}

/// Who answers questions, and who follows events.
type Pools = (Readers, Numbers, Tails);

/// Starts the threads that answer questions, and those that read ahead for numbers and for who follows events.
fn spawn_readers(
    segments: &Arc<Segments>,
    options: &StoreOptions,
    interrupt: &ReaderInterrupt,
    metrics: &Arc<StoreMetrics>,
) -> Result<(Pools, Vec<JoinHandle<()>>), OpenError> {
    let (readers, mut threads) =
        Readers::spawn(Pool::Questions, segments, options.read, interrupt, Arc::clone(metrics))?;
    let (tails, tail_threads) = Tails::spawn(segments, options.read, options.tail, interrupt, Arc::clone(metrics))?;
    threads.extend(tail_threads);
    let (numbers, thread) = Numbers::spawn(segments, options.numbers, interrupt, Arc::clone(metrics))?;
    threads.push(thread);
    Ok(((readers, numbers, tails), threads))
}

/// Starts the thread that looks whether the directory is where it was, and how large it is.
fn watch_over(
    directory: &DataDir,
    segments: &Arc<Segments>,
    metrics: &Arc<StoreMetrics>,
    on_failure: &OnFailure,
) -> Result<Watch, OpenError> {
    let storage = Storage::new(directory.clone(), Arc::clone(segments), Arc::clone(metrics));
    Watch::spawn(directory.clone(), storage, Arc::clone(on_failure))
}

/// Finds the ids of the events with a sequence below the next one, and starts the thread that keeps them.
fn open_ids(
    directory: &DataDir,
    options: IdOptions,
    (segments, next_sequence): (&Arc<Segments>, u64),
    metrics: &Arc<StoreMetrics>,
    on_failure: &OnFailure,
) -> Result<(Arc<Ids>, NewestIds), OpenError> {
    let new_table = || ids::new_table(options, 0);
    let begun = Instant::now();
    let found = recover::ids::find_ids(directory, &segments.view().segments, options, &new_table, next_sequence)?;
    let ids = found.runs.iter().map(|run| run.count).sum::<u64>();
    tracing::debug!(ids, runs = found.runs.len(), seconds = begun.elapsed().as_secs_f64(), "ids of events are found");
    let (wake, woken) = crossbeam_channel::bounded(1);
    let ids =
        Arc::new(Ids::new((found.runs, found.forgotten), directory.clone(), options, (wake, Arc::clone(metrics))));
    let of_events = Arc::clone(segments);
    let remake: Remake = Box::new(move |ids, damaged| recover::ids::remake(ids, &of_events, damaged));
    let keeper = IdKeeper::spawn(Arc::clone(&ids), woken, remake, Arc::clone(on_failure))?;
    for UnlaidIds { table, sequences, newest_received_at } in found.unlaid {
        ids.add(table, sequences, newest_received_at);
    }
    let UnlaidIds { table, sequences: (newest_from, _), newest_received_at } = found.newest;
    let mut newest = NewestIds::new(Arc::clone(&ids), keeper, table, (newest_from, newest_received_at));
    // The table is to have only ids of the segment that is written to: what is handed on is in a run before anything
    // of the others is erased.
    let view = segments.view();
    let mut older = view.segments.iter().rev().skip(1).filter_map(|segment| segment.sequences());
    if older.next().is_some_and(|(_, last)| last >= newest_from) {
        newest.hand_on(next_sequence);
    }
    Ok((ids, newest))
}

/// What decides when an expired segment leaves the disk.
fn retention_of(options: &StoreOptions, catalog: &CatalogFile, segments: &Segments) -> Result<Retention, OpenError> {
    Ok(Retention {
        kept: options.read.retention,
        grace: options.retention_grace,
        held_bytes_max: options.ship_held_bytes_max,
        notes: catalog.expiry_notes()?,
        newest_received_at: segments.newest_arrival().max(0),
    })
}

/// Opens the catalog and brings the segments together with it.
fn recover(
    directory: &DataDir,
    options: &StoreOptions,
    metrics: &Arc<StoreMetrics>,
    room: Room,
) -> Result<(CatalogFile, Arc<Segments>, Recovered), OpenError> {
    let unmade = recover::copies::check(directory, options.is_restored, room)?;
    let mut catalog = CatalogFile::open(directory, room)?;
    directory.watch(&directory.catalog_path())?;
    let segments = Arc::new(Segments::new(directory.clone(), options.segments, Arc::clone(metrics)));
    let start = Start { directory, options: &options.log, metrics, room, unmade };
    let recovered = recover::recover_segments(&start, &mut catalog, &segments)?;
    segments.note_arrival(recover::newest_received_at(&segments).unwrap_or(i64::MIN));
    // What is in a log that was set aside had sequences that may be given again.
    let is_copy = options.is_restored || directory.ties().is_copy();
    catalog.begin_epoch_of_copy(is_copy, recovered.next_sequence)?;
    directory.ties().settle(room == Room::Enough)?;
    Ok((catalog, segments, recovered))
}

/// The version of the SQLite that is linked in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// How the SQLite that is linked in was compiled.
pub fn sqlite_build() -> Result<SqliteBuild, OpenError> {
    SqliteBuild::of_library().map_err(OpenError::sqlite(Path::new(":memory:")))
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

/// Keeps all that comes from a pipe in a file without a name, so that it can be read more than once: where SQLite
/// sorts, or beside a data directory that is not there yet. `on_bytes` is called with the bytes that were read.
pub fn spool(
    pipe: &mut impl Read,
    data_dir: &Path,
    options: &StoreOptions,
    on_bytes: impl FnMut(u64),
) -> Result<File, SpoolError> {
    let own = options.scratch_dir.clone().or_else(|| data_dir.exists().then(|| data_dir.join(SCRATCH)));
    let folder = match own {
        Some(folder) => {
            scratch::make(&folder).map_err(SpoolError::File)?;
            folder
        }
        // The parent of a relative path of one part is the empty path.
        None => data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).into(),
    };
    scratch::spool(pipe, &folder, options.reserve_bytes, on_bytes)
}

/// The earliest `createdAt` that has not expired by now, in milliseconds since 1970, UTC.
pub fn expired_before(retention: Option<Duration>) -> i64 {
    retention::expired_before(retention, now_ms())
}

#[cfg(test)]
mod tests;

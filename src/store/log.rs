//! The log: events appended to the active segment, one transaction a group.
//!
//! Owned by value by the writer's thread. There is one segment, number 1, and it stays active; rolling to the next
//! and sealing the old belong here.

use std::{
    cell::Cell,
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use super::{
    catalog::CatalogFile,
    checkpoint::{Checkpointer, Decision, Outcome, Policy, run_passive},
    directory::{DataDir, sync_directory},
    error::{AppendError, OpenError, is_full},
    insert::EventWriter,
    read::ReaderInterrupt,
    schema, sync_timer,
};
use crate::{
    event::ValidEvents,
    metrics::{CheckpointBy, Metrics},
};

/// What a returned COMMIT survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: the write-ahead log is synced before COMMIT returns.
    Full,
    /// A kill of the process. A loss of power may take the last moments with it, never part of a group.
    Normal,
}

/// The log's settings; their values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// What a returned COMMIT survives.
    pub durability: Durability,
    /// The size of a page of a segment made from now on, in bytes.
    pub page_bytes: u32,
    /// The writer's page cache, in bytes.
    pub cache_bytes: u64,
    /// The size of the write-ahead log at which a checkpoint is due, in bytes.
    pub wal_checkpoint_bytes: u64,
    /// The size past which readers are interrupted and the writer waits for the checkpoint, in bytes.
    pub wal_bytes_max: u64,
}

/// While a checkpoint runs beside the writer, its end is looked for this often even if no group comes.
const CHECKPOINT_POLL: Duration = Duration::from_millis(10);

const ACTIVE_SEGMENT: i64 = 1;

/// The active segment and its one connection that writes rows.
pub struct Log {
    writer: EventWriter,
    next_sequence: u64,
    checkpointer: Checkpointer,
    policy: Policy,
    page_bytes: u64,
    interrupt: ReaderInterrupt,
    metrics: Arc<Metrics>,
}

thread_local! {
    /// The frames in the write-ahead log as the last commit of this thread left them. SQLite hands them to a bare
    /// function, so they need a place that such a function can reach; each log lives on a thread of its own.
    static WAL_FRAMES: Cell<u64> = const { Cell::new(0) };
}

impl Log {
    /// Opens the active segment, or makes the first one; recovers its write-ahead log and leaves it empty.
    pub fn open(
        directory: &DataDir,
        catalog: &mut CatalogFile,
        options: LogOptions,
        interrupt: ReaderInterrupt,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let path = directory.segment(ACTIVE_SEGMENT);
        if !catalog.has_active_segment(ACTIVE_SEGMENT)? {
            create_segment(&path, &options, &metrics)?;
            catalog.add_active_segment(ACTIVE_SEGMENT)?;
        }
        let connection = open_segment(&path, &options, &metrics)?;
        let sqlite = || OpenError::sqlite(&path);
        let (busy, _, _) = truncate_wal(&connection).map_err(sqlite())?;
        if busy != 0 {
            let reason = "another program has it open".into();
            return Err(OpenError::NotOurs { path, reason });
        }
        let last: Option<i64> =
            connection.query_row("SELECT max(id) FROM Event", [], |row| row.get(0)).map_err(sqlite())?;
        let next_sequence = catalog.sequence_floor().max(last.unwrap_or(0).unsigned_abs() + 1);
        let page_bytes: i64 = schema::pragma(&connection, &path, "page_size")?;
        connection.wal_hook(Some(|_, frames| {
            WAL_FRAMES.set(frames.unsigned_abs().into());
            Ok(())
        }));
        let writer = EventWriter::new(connection, schema::EVENT_COLUMNS).map_err(sqlite())?;
        let beside = open_segment(&path, &options, &metrics)?;
        let checkpointer = Checkpointer::spawn(beside).map_err(OpenError::Thread)?;
        metrics.wal_bytes_max.set(options.wal_bytes_max as f64);
        metrics.high_water_mark.set((next_sequence - 1) as f64);
        Ok(Self {
            writer,
            next_sequence,
            checkpointer,
            policy: Policy::new(options.wal_checkpoint_bytes, options.wal_bytes_max),
            page_bytes: page_bytes.unsigned_abs(),
            interrupt,
            metrics,
        })
    }

    /// Commits the events of a group in one transaction and returns the sequence of the first; the others follow
    /// without a gap. On an error none of them is in any answer, and [`AppendError`] says what may be on the disk.
    pub fn append<'a>(&mut self, group: impl Iterator<Item = &'a ValidEvents>) -> Result<u64, AppendError> {
        let first = self.next_sequence;
        match self.commit(first, group) {
            Ok(next) => {
                self.next_sequence = next;
                self.metrics.high_water_mark.set((next - 1) as f64);
                Ok(first)
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    fn commit<'a>(&mut self, first: u64, group: impl Iterator<Item = &'a ValidEvents>) -> rusqlite::Result<u64> {
        self.writer.begin()?;
        let mut sequence = first;
        for row in group.flat_map(ValidEvents::rows) {
            // A sequence is below 2^63 for the next 292,000 years at a million events a second.
            self.writer.insert(sequence as i64, &row)?;
            sequence += 1;
        }
        self.writer.commit()?;
        Ok(sequence)
    }

    /// Leaves the failed transaction, if SQLite has not already done so, and says what the failure means.
    fn give_up(&self, error: rusqlite::Error) -> AppendError {
        let connection = self.writer.connection();
        if !connection.is_autocommit()
            && let Err(rollback) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%rollback, "the failed transaction could not be rolled back");
        }
        AppendError::classify(error, connection.is_autocommit())
    }

    /// Whether there is room again after [`AppendError::StorageFull`]: commits one page that changes nothing.
    pub fn probe(&mut self) -> Result<bool, AppendError> {
        match self.writer.connection().pragma_update(None, "user_version", schema::SEGMENT_VERSION) {
            Ok(()) => Ok(true),
            Err(error) => match self.give_up(error) {
                AppendError::StorageFull(_) => Ok(false),
                fatal @ AppendError::Fatal(_) => Err(fatal),
            },
        }
    }

    /// Does what is due for the write-ahead log between two groups. Returns how soon it wants to be called again
    /// if no group comes; `None` if only a group can change anything.
    pub fn maintain(&mut self) -> Result<Option<Duration>, AppendError> {
        if let Some(finished) = self.checkpointer.finished() {
            self.note_checkpoint(CheckpointBy::Background, finished)?;
        }
        let bytes = self.wal_bytes(WAL_FRAMES.get());
        self.metrics.wal_bytes.set(bytes as f64);
        match self.policy.decide(bytes, self.checkpointer.is_running()) {
            Decision::Nothing => {}
            Decision::Begin => self.checkpointer.begin(),
            Decision::Finish => self.checkpoint()?,
            Decision::Force => {
                self.interrupt.all();
                if let Some(finished) = self.checkpointer.wait() {
                    self.note_checkpoint(CheckpointBy::Background, finished)?;
                }
                self.checkpoint()?;
            }
        }
        Ok(self.checkpointer.is_running().then_some(CHECKPOINT_POLL))
    }

    /// A checkpoint on the writer's own connection: short, because the one beside it has done most.
    fn checkpoint(&mut self) -> Result<(), AppendError> {
        let started = Instant::now();
        let outcome = run_passive(self.writer.connection());
        self.note_checkpoint(CheckpointBy::Writer, (started.elapsed(), outcome))
    }

    fn note_checkpoint(
        &mut self,
        by: CheckpointBy,
        (elapsed, outcome): (Duration, rusqlite::Result<Outcome>),
    ) -> Result<(), AppendError> {
        self.metrics.checkpoint_seconds(by).record(elapsed.as_secs_f64());
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // No room to copy into: the log just stays as long as it is, and groups say when there is no room at all.
            Err(error) if is_full(&error) => {
                Outcome { busy: true, log_frames: WAL_FRAMES.get(), checkpointed_frames: 0 }
            }
            Err(error) => return Err(AppendError::Fatal(error)),
        };
        if outcome.busy {
            self.metrics.checkpoints_busy.increment(1);
        }
        let (log, checkpointed) = (self.wal_bytes(outcome.log_frames), self.wal_bytes(outcome.checkpointed_frames));
        self.metrics.checkpoint_log_bytes.set(log as f64);
        self.metrics.checkpoint_checkpointed_bytes.set(checkpointed as f64);
        self.policy.checkpointed(by, self.wal_bytes(WAL_FRAMES.get()), checkpointed);
        Ok(())
    }

    fn wal_bytes(&self, frames: u64) -> u64 {
        // The format: a header of 32 bytes, then frames with 24 bytes before each page.
        if frames == 0 { 0 } else { 32 + frames * (self.page_bytes + 24) }
    }

    /// Copies everything into the segment and removes the write-ahead log; readers must be closed by now.
    pub fn close(self) -> Result<(), AppendError> {
        self.checkpointer.stop();
        truncate_wal(self.writer.connection()).map(|_| ()).map_err(|error| AppendError::classify(error, true))
    }
}

/// Makes a segment's file, complete and durable, before anybody hears of it.
fn create_segment(path: &Path, options: &LogOptions, metrics: &Arc<Metrics>) -> Result<(), OpenError> {
    remove_leftover(path)?;
    let flags = schema::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connect(path, flags, metrics)?;
    let sql = format!(
        "PRAGMA page_size = {}; PRAGMA journal_mode = WAL;
         BEGIN; PRAGMA application_id = {}; PRAGMA user_version = {}; {} COMMIT;",
        options.page_bytes,
        schema::APPLICATION_ID,
        schema::SEGMENT_VERSION,
        schema::SEGMENT_SQL
    );
    // Out of the log and into the file: SQLite deletes the write-ahead log of a database that has no pages.
    connection.execute_batch(&sql).and_then(|()| truncate_wal(&connection)).map_err(OpenError::sqlite(path))?;
    drop(connection);
    File::open(path).and_then(|file| file.sync_all()).map_err(OpenError::io("sync", path))?;
    sync_directory(path.parent().unwrap_or(path))
}

/// Removes what a start that was cut short left under this name. The catalog does not know the file, so it has no
/// events; if it has, then it is the catalog that is lost, and nothing may be touched.
fn remove_leftover(path: &Path) -> Result<(), OpenError> {
    if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        let connection = Connection::open_with_flags(path, schema::write_flags()).map_err(OpenError::sqlite(path))?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'Event'", [], |row| row.get(0))
            .map_err(OpenError::sqlite(path))?;
        let last: Option<i64> = match tables {
            0 => None,
            _ => connection
                .query_row("SELECT max(id) FROM Event", [], |row| row.get(0))
                .map_err(OpenError::sqlite(path))?,
        };
        if last.is_some() {
            let reason = "it holds events, but catalog.db does not list it: was catalog.db replaced?".into();
            return Err(OpenError::NotOurs { path: path.into(), reason });
        }
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut leftover = path.as_os_str().to_owned();
        leftover.push(suffix);
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(OpenError::io("remove the leftover", leftover)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens a segment that the catalog lists, after a look at whether it is one that this hitlog knows.
fn open_segment(path: &Path, options: &LogOptions, metrics: &Arc<Metrics>) -> Result<Connection, OpenError> {
    // SQLite would take an empty file for a new database and delete its write-ahead log.
    let file = fs::metadata(path).map_err(OpenError::io("find the segment", path))?;
    if file.len() == 0 {
        return Err(OpenError::NotOurs { path: path.into(), reason: "it is empty".into() });
    }
    let connection = connect(path, schema::write_flags(), metrics)?;
    schema::check_application_id(&connection, path)?;
    let found: i64 = schema::pragma(&connection, path, "user_version")?;
    if found > schema::SEGMENT_VERSION {
        return Err(OpenError::Newer { path: path.into(), found, known: schema::SEGMENT_VERSION });
    }
    let synchronous = match options.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {synchronous};
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA mmap_size = 0;
             PRAGMA journal_size_limit = {};
             PRAGMA cache_size = -{};",
            options.wal_bytes_max,
            options.cache_bytes / 1024,
        ))
        .map_err(OpenError::sqlite(path))?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags, metrics: &Arc<Metrics>) -> Result<Connection, OpenError> {
    if sync_timer::register(metrics) {
        Connection::open_with_flags_and_vfs(path, flags, sync_timer::NAME)
    } else {
        tracing::warn!("the times of syncs cannot be measured: SQLite did not take the timing layer");
        Connection::open_with_flags(path, flags)
    }
    .map_err(OpenError::sqlite(path))
}

fn truncate_wal(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

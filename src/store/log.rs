//! The log: events appended to the active segment, one transaction a group.
//!
//! Owned by value by the writer's thread. A row counts once its COMMIT has returned: only then are its keys in memory,
//! where readers find it. When the segment is full, the log rolls to the next one, which stands ready.

pub(super) mod active;
mod checkpoint;
mod insert;
pub(super) mod newest;
pub(super) mod roll;
pub(super) mod storage;
pub(super) mod watch;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    active::{ActiveSegment, Unretired},
    checkpoint::{CheckpointReport, Decision, run_passive},
    newest::NewestIds,
    roll::Roller,
    watch::{WATCH_PAUSE, Watch},
};
use super::{
    catalog::Catalog,
    error::{AppendError, is_disk_full},
    format::{file, room::Reserve, schema},
    ids::Entry,
    options::{Durability, LogOptions},
    read::tail::Tails,
    seal::Sealer,
    segments::{ReaderInterrupt, RowKeys, Segments},
};
use crate::{
    clock::now_ms,
    event::{Repeat, ValidEvents},
    metrics::{CheckpointOutcome, CheckpointRunner, StoreMetrics},
};

/// While a checkpoint runs beside the writer, or the next segment is being made, the log checks for its end this often
/// even if no group comes.
const MAINTAIN_POLL: Duration = Duration::from_millis(10);

/// The longest time between two checks whether the active segment is too old, or somebody wants a roll.
const ROLL_POLL: Duration = Duration::from_millis(250);

/// What became of a request's events.
#[derive(Debug, PartialEq, Eq)]
pub enum Appended {
    /// They are durable. Those that are no repeats have the sequences from the first on.
    Stored {
        /// The sequence of the first that is no repeat.
        first_sequence: u64,
        /// Those that were stored already, in the order of the request.
        repeats: Vec<Repeat>,
    },
    /// None is stored: they were looked for among those that were stored a while ago, and one may be among those that
    /// came since.
    Outdated,
}

/// The active segment, the store's threads behind it, and the next sequence.
pub struct Log {
    active: ActiveSegment,
    next_sequence: u64,
    /// Keys of the rows of the transaction under way.
    keys: Vec<RowKeys>,
    /// What the clients of the newest events call them.
    newest_ids: NewestIds,
    roller: Roller,
    sealer: Sealer,
    watch: Watch,
    segments: Arc<Segments>,
    /// Hear of what comes in.
    tails: Tails,
    options: LogOptions,
    interrupt: ReaderInterrupt,
    /// While it does not stand, nothing is written: what room there is belongs to reads and to the next start.
    reserve: Reserve,
    /// Hears what the segments hold when the log is closed.
    catalog: Catalog,
    metrics: Arc<StoreMetrics>,
}

impl Log {
    /// Goes on where the last run ended.
    pub(super) fn new(
        active: ActiveSegment,
        (next_sequence, newest_ids): (u64, NewestIds),
        (roller, sealer, watch, catalog): (Roller, Sealer, Watch, Catalog),
        (segments, tails): (Arc<Segments>, Tails),
        options: LogOptions,
        (interrupt, reserve): (ReaderInterrupt, Reserve),
        metrics: Arc<StoreMetrics>,
    ) -> Self {
        metrics.wal_bytes_max.set(options.wal_bytes_max as f64);
        metrics.durable_sequence.set((next_sequence - 1) as f64);
        let log = Self {
            active,
            next_sequence,
            keys: Vec::new(),
            newest_ids,
            roller,
            sealer,
            watch,
            segments,
            tails,
            options,
            interrupt,
            reserve,
            catalog,
            metrics,
        };
        if !log.restore_reserve() {
            tracing::warn!("there is no room for the reserve of the next start: events are refused until there is");
        }
        log
    }

    /// Whether the disk is known to be full before anything is tried: the room that a start needs is used up.
    pub fn is_full(&self) -> bool {
        !self.reserve.stands()
    }

    /// Makes the reserve again, if there is room. Returns whether it stands.
    fn restore_reserve(&self) -> bool {
        let stands = self.reserve.restore();
        self.metrics.reserve_standing.set(if stands { 1.0 } else { 0.0 });
        stands
    }

    /// Commits the events of a group in one transaction and says of each request what became of it. On an error none of
    /// them is in any answer, and [`AppendError`] says what may be on the disk.
    pub fn append<'a>(
        &mut self,
        group: impl Iterator<Item = &'a ValidEvents> + Clone,
    ) -> Result<Vec<Appended>, AppendError> {
        if self.is_full() {
            return Err(AppendError::StorageFull("the reserve for the next start is used up".into()));
        }
        if self.segments.has_too_many_keys() {
            let message =
                "the keys of full segments cannot be laid down in segments/, and unsealed_rows_max is reached";
            return Err(AppendError::StorageFull(message.into()));
        }
        let first = self.next_sequence;
        self.check_directory()?;
        // Before the transaction: others know what is in a table that was handed on.
        self.newest_ids.make_room(group.clone().map(|events| events.id_hashes().len()).sum(), first);
        let mut appended = Vec::new();
        match self.commit(first, group, &mut appended) {
            Ok(next) => {
                // Whoever looks for the events will not look in a directory that is gone.
                self.check_directory()?;
                // Readers find the rows from here on; before COMMIT returned nobody may.
                self.active.columns.add(first, &self.keys);
                self.segments.note_durable(next - 1);
                self.tails.tell(&self.keys);
                self.active.rows += next - first;
                self.next_sequence = next;
                self.metrics.durable_sequence.set((next - 1) as f64);
                Ok(appended)
            }
            Err(error) => {
                self.newest_ids.failed();
                Err(self.give_up(error))
            }
        }
    }

    /// Fails from the moment that the directory is known to be lost.
    fn check_directory(&self) -> Result<(), AppendError> {
        self.segments.directory.lost().map_or(Ok(()), |lost| Err(AppendError::Lost(lost.clone())))
    }

    fn commit<'a>(
        &mut self,
        first: u64,
        group: impl Iterator<Item = &'a ValidEvents>,
        appended: &mut Vec<Appended>,
    ) -> rusqlite::Result<u64> {
        let Self { newest_ids, keys, segments, active, .. } = self;
        keys.clear();
        let mut sequence = first;
        let (mut received_at, mut first_received_at) = (None, active.first_received_at);
        for events in group {
            let hashes = events.id_hashes();
            let Some(repeats_before) = newest_ids.repeats_before(events) else {
                appended.push(Appended::Outdated);
                continue;
            };
            let (first_sequence, mut repeats) = (sequence, Vec::new());
            let mut repeats_before = repeats_before.into_iter().peekable();
            for (index, (row, flags)) in events.rows().zip(events.flags()).enumerate() {
                let hash = hashes.get(index).copied().flatten();
                let repeat = repeats_before.next_if(|repeat| repeat.index == index).or_else(|| {
                    let entry = Entry { hash: hash?, sequence, created_at: row.created_at };
                    newest_ids.find_or_add(entry).map(|original| Repeat { index, original })
                });
                if let Some(repeat) = repeat {
                    repeats.push(repeat);
                    continue;
                }
                if received_at.is_none() {
                    active.writer.begin()?;
                }
                // A sequence is below 2^63 for the next 292,000 years at a million events a second.
                active.writer.insert(sequence as i64, &row, hash, flags)?;
                keys.push(segments.row_keys(&row));
                received_at = Some(row.received_at);
                first_received_at.get_or_insert(row.received_at);
                sequence += 1;
            }
            appended.push(Appended::Stored { first_sequence, repeats });
        }
        if let Some(received_at) = received_at {
            active.writer.commit()?;
            newest_ids.committed(received_at);
            segments.note_arrival(received_at);
            active.first_received_at = first_received_at;
        }
        Ok(sequence)
    }

    /// Leaves the failed transaction, if SQLite has not already done so, and says what the failure means.
    fn give_up(&self, error: rusqlite::Error) -> AppendError {
        let connection = self.active.writer.connection();
        if !connection.is_autocommit()
            && let Err(rollback) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%rollback, "the failed transaction could not be rolled back");
        }
        AppendError::classify(error, connection.is_autocommit())
    }

    /// Whether there is room again after [`AppendError::StorageFull`]: makes the reserve, if it was given up, and
    /// commits one page that changes nothing.
    pub fn probe(&mut self) -> Result<bool, AppendError> {
        if !self.restore_reserve() || (self.segments.has_too_many_keys() && self.segments.lay_down_keys().is_err()) {
            return Ok(false);
        }
        match self.active.writer.connection().pragma_update(None, "user_version", schema::SEGMENT_VERSION) {
            Ok(()) => Ok(true),
            Err(error) => match self.give_up(error) {
                AppendError::StorageFull(_) => Ok(false),
                fatal => Err(fatal),
            },
        }
    }

    /// Does what is due between two groups, for the write-ahead log and for the segment. Returns how soon it wants to
    /// be called again if no group comes: soon enough to hear that the directory is lost.
    pub fn maintain(&mut self) -> Result<Option<Duration>, AppendError> {
        self.check_directory()?;
        self.newest_ids.hand_on_if_due(self.next_sequence);
        let roll_wanted = self.roll_if_due()?;
        if let Some(finished) = self.active.checkpointer.finished() {
            self.note_checkpoint(CheckpointRunner::Background, finished)?;
        }
        let bytes = self.active.wal_bytes();
        self.metrics.wal_bytes.set(bytes as f64);
        match self.active.policy.decide(bytes, self.active.checkpointer.is_running()) {
            Decision::Nothing => {}
            Decision::Begin => self.active.checkpointer.begin(),
            Decision::Finish => self.checkpoint()?,
            Decision::Force => {
                self.interrupt.all();
                if let Some(finished) = self.active.checkpointer.wait() {
                    self.note_checkpoint(CheckpointRunner::Background, finished)?;
                }
                self.checkpoint()?;
            }
        }
        if roll_wanted || self.active.checkpointer.is_running() {
            return Ok(Some(MAINTAIN_POLL));
        }
        let age_left = roll::age_left(self.active.first_received_at, now_ms(), &self.options);
        Ok(Some(age_left.map_or(WATCH_PAUSE, |left| left.clamp(MAINTAIN_POLL, ROLL_POLL))))
    }

    /// Rolls to the next segment if this one is full and the next stands ready. Returns whether one is waited for.
    fn roll_if_due(&mut self) -> Result<bool, AppendError> {
        let is_due = roll::is_due(self.active.rows, self.active.first_received_at, now_ms(), &self.options);
        if !is_due && !self.segments.is_roll_requested(self.active.segment.number) {
            return Ok(false);
        }
        if !self.roller.has_prepared() {
            return Ok(true);
        }
        self.segments.directory.check()?;
        if self.options.durability == Durability::Normal {
            // A loss of power must not take events of this segment and leave later ones, in the next.
            let synced = self.active.writer.connection().pragma_update(None, "synchronous", "FULL");
            synced.map_err(AppendError::Fatal)?;
            if !self.probe()? {
                return Ok(true);
            }
        }
        let Some(next) = self.roller.take_prepared() else { return Ok(true) };
        self.segments.report_prepared(None);
        let full = std::mem::replace(&mut self.active, next);
        self.active.begin();
        tracing::info!(segment = self.active.segment.number, rows_before = full.rows, "rolled to the next segment");
        self.metrics.rolls.increment(1);
        self.segments.push(Arc::clone(&self.active.segment));
        self.newest_ids.hand_on(self.next_sequence);
        self.roller.hand_on(full);
        Ok(false)
    }

    /// A checkpoint on the writer's own connection: short, because the one beside it has done most.
    fn checkpoint(&mut self) -> Result<(), AppendError> {
        let started = Instant::now();
        let report = run_passive(self.active.writer.connection());
        self.note_checkpoint(CheckpointRunner::Writer, (started.elapsed(), report))
    }

    fn note_checkpoint(
        &mut self,
        runner: CheckpointRunner,
        (elapsed, report): (Duration, rusqlite::Result<CheckpointReport>),
    ) -> Result<(), AppendError> {
        self.metrics.checkpoint_seconds(runner).record(elapsed.as_secs_f64());
        let (report, outcome) = match report {
            Ok(report) => (report, report.outcome()),
            // No room to copy into: the write-ahead log stays as long as it is, and a group will be refused when there
            // is no room at all.
            Err(error) if is_disk_full(&error) => {
                let log_frames = self.active.wal_frames();
                (CheckpointReport { busy: true, log_frames, checkpointed_frames: 0 }, CheckpointOutcome::NoRoom)
            }
            Err(error) => {
                self.metrics.checkpoints(CheckpointOutcome::Failed).increment(1);
                return Err(AppendError::Fatal(error));
            }
        };
        self.metrics.checkpoints(outcome).increment(1);
        let log = self.active.wal_bytes_of(report.log_frames);
        let checkpointed = self.active.wal_bytes_of(report.checkpointed_frames);
        self.metrics.last_checkpoint_log_bytes.set(log as f64);
        self.metrics.last_checkpoint_copied_bytes.set(checkpointed as f64);
        self.metrics.last_checkpoint_timestamp.set(now_ms() as f64 / 1_000.0);
        let bytes = self.active.wal_bytes();
        self.active.policy.checkpointed(runner, bytes, checkpointed);
        Ok(())
    }

    /// Leaves everything as it is, for a process that is about to end: after a failure nothing more is written. To
    /// close a file would copy its write-ahead log into it, and remove what has the log's name by now.
    pub fn abandon(self) {
        std::mem::forget(self);
    }

    /// Ends the threads behind the log, copies everything into the segment and removes the write-ahead log; readers
    /// must be closed by now.
    pub fn close(self) -> Result<(), AppendError> {
        if let Err(lost) = self.segments.directory.check() {
            self.abandon();
            return Err(lost.into());
        }
        let is_full = self.is_full();
        let mut newest_ids = self.newest_ids;
        if !is_full {
            newest_ids.hand_on(self.next_sequence);
        }
        newest_ids.stop();
        self.watch.stop();
        let prepared = self.roller.stop();
        self.sealer.stop();
        self.segments.connections.close_all();
        if is_full {
            // What there is of room is not for copies: the write-ahead log stays, and is as durable.
            return prepared
                .into_iter()
                .chain([self.active])
                .try_for_each(ActiveSegment::leave)
                .map_err(AppendError::Fatal);
        }
        let open: Vec<_> = prepared.into_iter().chain([self.active]).collect();
        let mut closed = self.segments.view().segments.clone();
        closed.extend(open.iter().map(|segment| Arc::clone(&segment.segment)));
        for segment in open {
            // The threads may have taken a while to end.
            if let Err(lost) = self.segments.directory.check() {
                std::mem::forget(segment);
                return Err(lost.into());
            }
            self.segments.directory.unwatch(&segment.segment.path);
            match segment.retire() {
                // What could not be copied stays in the write-ahead log, where it is as durable.
                Err(Unretired { error, .. }) if !is_disk_full(&error) => return Err(AppendError::Fatal(error)),
                _ => {}
            }
        }
        // Of what is still in a log nothing is promised.
        let emptied = closed.iter().filter(|segment| !segment.is_sealed() && !file::has_wal(&segment.path));
        let last = emptied.map(|segment| (segment.number, segment.sequence_floor().saturating_sub(1))).collect();
        if let Err(error) = self.catalog.note_end(last, self.next_sequence) {
            tracing::warn!(%error, "the catalog did not take note of what the segments hold; the next start does");
        }
        Ok(())
    }
}

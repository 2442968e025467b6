//! Checkpoints: when, and by whom.
//!
//! A checkpoint copies the write-ahead log's pages into the segment and syncs it; on the writer's thread that is a
//! stall which the tail latency shows. So a second connection does it on a thread beside the writer, while groups go on
//! committing, and the writer ends it between two groups with a short one of its own over the few pages that came
//! meanwhile. Only then is everything copied, and the next commit starts the log from its beginning.

use std::{
    io,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use crate::metrics::{CheckpointOutcome, CheckpointRunner};

/// What `PRAGMA wal_checkpoint` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointReport {
    pub(super) busy: bool,
    pub(super) log_frames: u64,
    pub(super) checkpointed_frames: u64,
}

impl CheckpointReport {
    /// How it ended.
    pub(super) fn outcome(self) -> CheckpointOutcome {
        match self {
            Self { busy: true, .. } => CheckpointOutcome::Busy,
            Self { log_frames, checkpointed_frames, .. } if checkpointed_frames < log_frames => {
                CheckpointOutcome::Partial
            }
            _ => CheckpointOutcome::Complete,
        }
    }
}

/// Runs a checkpoint that waits for nobody.
pub(super) fn run_passive(connection: &Connection) -> rusqlite::Result<CheckpointReport> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let count = |index| row.get::<_, i64>(index).map(|frames| u64::try_from(frames).unwrap_or(0));
        Ok(CheckpointReport { busy: row.get::<_, i64>(0)? != 0, log_frames: count(1)?, checkpointed_frames: count(2)? })
    })
}

/// What is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing, or what is under way will do.
    Nothing,
    /// Begin a checkpoint beside the writer.
    Begin,
    /// End it on the writer.
    Finish,
    /// The log is over its cap: stop the readers, wait for the checkpoint and end it, whatever that costs.
    Force,
}

/// Decides from numbers alone.
#[derive(Debug)]
pub(super) struct Policy {
    due_bytes: u64,
    bytes_max: u64,
    /// The size at which the next checkpoint begins. Raised after each, so that one which a reader kept from
    /// finishing is not repeated after every group.
    begin_at: u64,
    /// What the checkpoint beside the writer left to copy, when it has just ended.
    left_over: Option<u64>,
    rounds: u32,
    bytes_before: u64,
}

/// What the checkpoint beside the writer may leave for the writer to end, as a share of what made it due.
const FINISH_SHARE: u64 = 4;
/// How often in a row the checkpoint beside the writer may fall behind before the writer ends it in any case.
const ROUNDS_MAX: u32 = 3;

impl Policy {
    pub(super) fn new(due_bytes: u64, bytes_max: u64) -> Self {
        Self { due_bytes, bytes_max, begin_at: due_bytes, left_over: None, rounds: 0, bytes_before: 0 }
    }

    /// What to do with a log of `bytes`, with or without a checkpoint under way beside the writer.
    pub(super) fn decide(&mut self, bytes: u64, running: bool) -> Decision {
        if bytes < self.bytes_before {
            // The log has begun anew.
            self.begin_at = self.due_bytes;
        }
        self.bytes_before = bytes;
        if bytes >= self.bytes_max && bytes >= self.begin_at {
            return Decision::Force;
        }
        if running {
            return Decision::Nothing;
        }
        match self.left_over.take() {
            Some(left) if left <= self.due_bytes / FINISH_SHARE || self.rounds >= ROUNDS_MAX => Decision::Finish,
            Some(_) => {
                self.rounds += 1;
                Decision::Begin
            }
            None if bytes >= self.begin_at => {
                self.rounds = 1;
                Decision::Begin
            }
            None => Decision::Nothing,
        }
    }

    /// Takes note of a checkpoint that left `checkpointed` of the log's `bytes` copied.
    pub(super) fn checkpointed(&mut self, runner: CheckpointRunner, bytes: u64, checkpointed: u64) {
        match runner {
            CheckpointRunner::Background => self.left_over = Some(bytes.saturating_sub(checkpointed)),
            CheckpointRunner::Writer => {
                self.left_over = None;
                self.begin_at = bytes + self.due_bytes / FINISH_SHARE;
            }
        }
    }
}

/// The thread beside the writer, with its own connection. At most one checkpoint is under way.
pub(super) struct Checkpointer {
    orders: Sender<()>,
    results: Receiver<(Duration, rusqlite::Result<CheckpointReport>)>,
    thread: JoinHandle<()>,
    running: bool,
}

impl Checkpointer {
    pub(super) fn spawn(connection: Connection) -> io::Result<Self> {
        let (orders, to_do) = crossbeam_channel::bounded::<()>(1);
        let (done, results) = crossbeam_channel::bounded(1);
        let thread = thread::Builder::new().name("checkpointer".into()).spawn(move || {
            for () in to_do {
                let started = Instant::now();
                let report = run_passive(&connection);
                if done.send((started.elapsed(), report)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders, results, thread, running: false })
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    pub(super) fn begin(&mut self) {
        self.running = self.orders.try_send(()).is_ok();
    }

    /// The result of a checkpoint that has ended since the last call.
    pub(super) fn finished(&mut self) -> Option<(Duration, rusqlite::Result<CheckpointReport>)> {
        let result = self.results.try_recv().ok()?;
        self.running = false;
        Some(result)
    }

    /// Waits for the checkpoint under way, if one is.
    pub(super) fn wait(&mut self) -> Option<(Duration, rusqlite::Result<CheckpointReport>)> {
        if !self.running {
            return None;
        }
        self.running = false;
        self.results.recv().ok()
    }

    /// Ends the thread and closes its connection.
    pub(super) fn stop(self) {
        drop((self.orders, self.results));
        if self.thread.join().is_err() {
            tracing::error!("the checkpointer panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn one_cycle_without_readers() {
        let mut policy = Policy::new(4 * MIB, 64 * MIB);
        assert_eq!(policy.decide(MIB, false), Decision::Nothing);
        assert_eq!(policy.decide(4 * MIB, false), Decision::Begin);
        assert_eq!(policy.decide(5 * MIB, true), Decision::Nothing, "one is under way");
        policy.checkpointed(CheckpointRunner::Background, 5 * MIB, 4 * MIB);
        assert_eq!(policy.decide(5 * MIB, false), Decision::Finish, "little is left");
        policy.checkpointed(CheckpointRunner::Writer, 5 * MIB, 5 * MIB);
        assert_eq!(policy.decide(5 * MIB, false), Decision::Nothing, "the next commit begins the log anew");
        assert_eq!(policy.decide(MIB, false), Decision::Nothing);
        assert_eq!(policy.decide(4 * MIB, false), Decision::Begin);
    }

    #[test]
    fn a_writer_that_outruns_the_checkpoint_ends_it_itself() {
        let mut policy = Policy::new(4 * MIB, 64 * MIB);
        assert_eq!(policy.decide(4 * MIB, false), Decision::Begin);
        for round in 1..ROUNDS_MAX {
            policy.checkpointed(CheckpointRunner::Background, 8 * MIB, 4 * MIB);
            assert_eq!(policy.decide(8 * MIB, false), Decision::Begin, "after round {round}");
        }
        policy.checkpointed(CheckpointRunner::Background, 8 * MIB, 4 * MIB);
        assert_eq!(policy.decide(8 * MIB, false), Decision::Finish);
    }

    #[test]
    fn a_reader_in_the_way_is_not_run_against_after_every_group() {
        let mut policy = Policy::new(4 * MIB, 64 * MIB);
        policy.checkpointed(CheckpointRunner::Writer, 6 * MIB, 2 * MIB);
        assert_eq!(policy.decide(6 * MIB + 1, false), Decision::Nothing);
        assert_eq!(policy.decide(7 * MIB, false), Decision::Begin);
    }

    #[test]
    fn over_the_cap_it_is_forced_even_while_one_runs() {
        let mut policy = Policy::new(4 * MIB, 64 * MIB);
        assert_eq!(policy.decide(64 * MIB, true), Decision::Force);
        policy.checkpointed(CheckpointRunner::Writer, 64 * MIB, 64 * MIB);
        assert_eq!(policy.decide(64 * MIB, false), Decision::Nothing, "the next commit begins the log anew");
    }

    #[test]
    fn outcomes() {
        for (busy, log_frames, checkpointed_frames, wanted) in [
            (false, 10, 10, CheckpointOutcome::Complete),
            (false, 0, 0, CheckpointOutcome::Complete),
            (false, 10, 9, CheckpointOutcome::Partial),
            (true, 10, 10, CheckpointOutcome::Busy),
        ] {
            let report = CheckpointReport { busy, log_frames, checkpointed_frames };
            assert_eq!(report.outcome(), wanted, "{report:?}");
        }
    }
}

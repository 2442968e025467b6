//! The thread that keeps ids: it lays full tables down as runs, merges runs, and removes what is known no more.
//!
//! The newest go first: a table that waits takes fifteen times the memory of a run, so merging pauses for it.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{
    known::Ids,
    merge::{MergeError, merge},
    run::{IdRun, lay_down, open_new},
};
use crate::{
    metrics::Outcome,
    store::{
        error::{OnFailure, OpenError},
        format::blocks::BlockError,
        priority::lower_priority,
    },
};

/// Events that come in go before their ids' way to the disk, but not by much: a table that waits takes memory.
const NICENESS: i32 = 5;
/// The pause after a failure (a full disk, say) before the same thing is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the newest full table stays in memory: requests that looked in it before it was full are through by then,
/// and need not look on the disk.
const NEW_FOR: Duration = Duration::from_millis(500);
/// The time between two looks while there is one.
const TABLE_PAUSE: Duration = Duration::from_millis(100);
/// The longest time between two looks at what has left the window.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The thread.
pub(crate) struct IdKeeper {
    stopping: Arc<AtomicBool>,
    ids: Arc<Ids>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
struct Keeping {
    ids: Arc<Ids>,
    stopping: Arc<AtomicBool>,
    retry_at: Option<Instant>,
    merge_retry_at: Option<Instant>,
    remake: Remake,
    on_failure: OnFailure,
}

/// Makes a run that is damaged anew from the events: as several, or none, if nothing is left of them.
pub(crate) type Remake = Box<dyn Fn(&Ids, &IdRun) -> Result<Vec<Arc<IdRun>>, OpenError> + Send>;

impl IdKeeper {
    /// Starts the thread; `woken` has a message when there is something to do.
    pub(crate) fn spawn(
        ids: Arc<Ids>,
        woken: Receiver<()>,
        remake: Remake,
        on_failure: OnFailure,
    ) -> Result<Self, OpenError> {
        let stopping = Arc::new(AtomicBool::new(false));
        let keeping = Keeping {
            ids: Arc::clone(&ids),
            stopping: Arc::clone(&stopping),
            retry_at: None,
            merge_retry_at: None,
            remake,
            on_failure,
        };
        let run = move || {
            lower_priority(NICENESS);
            keeping.run(&woken);
        };
        let thread = thread::Builder::new().name("ids".into()).spawn(run).map_err(OpenError::Thread)?;
        Ok(Self { stopping, ids, thread })
    }

    /// Ends the thread, when the full tables are laid down. A merging under way is given up.
    pub(crate) fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.ids.wake();
        if self.thread.join().is_err() {
            tracing::error!("the keeper of ids panicked");
        }
    }
}

impl Keeping {
    fn run(mut self, woken: &Receiver<()>) {
        loop {
            let is_stopping = self.stopping.load(Ordering::Relaxed);
            if let Err(lost) = self.ids.directory.check() {
                return (self.on_failure)(lost.to_string());
            }
            self.lay_down();
            self.remake();
            self.ids.forget_expired();
            self.remove_gone();
            if is_stopping {
                return;
            }
            if self.merge() {
                continue;
            }
            let _ = woken.recv_timeout(if self.ids.has_tables() { TABLE_PAUSE } else { LOOK_PAUSE });
        }
    }

    /// Lays down every full table but a new one, unless that has failed a moment ago.
    fn lay_down(&mut self) {
        let new_for = if self.stopping.load(Ordering::Relaxed) { Duration::ZERO } else { NEW_FOR };
        while !is_delayed(self.retry_at)
            && let Some(full) = self.ids.table_to_lay_down(new_for)
        {
            match lay_down(&self.ids.folder(), &full.table, full.span, full.age) {
                Ok(run) => {
                    self.ids.laid_down(&full, run);
                    self.ids.metrics.dedup_writes(Outcome::Ok).increment(1);
                }
                Err(error) => {
                    self.failed("ids of events stay in memory: they could not be laid down", &error.into());
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    /// Makes damaged runs anew.
    fn remake(&mut self) {
        while !is_delayed(self.retry_at)
            && let Some(damaged) = self.ids.damaged_run()
        {
            match (self.remake)(&self.ids, &damaged) {
                Ok(remade) => {
                    let ids = remade.iter().map(|run| run.count).sum::<u64>();
                    tracing::error!(
                        file = %damaged.path.display(), ids_before = damaged.count, ids,
                        "ids of events were damaged, and are made anew from the events; those of events that were \
                         erased since are lost. Look at the disk"
                    );
                    self.ids.remade(&damaged, remade);
                }
                Err(error) => {
                    tracing::error!(%error, "damaged ids of events could not be made anew; it will be tried again");
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    /// Merges runs, if there are too many. Returns whether it did.
    fn merge(&mut self) -> bool {
        if is_delayed(self.merge_retry_at) {
            return false;
        }
        let runs = self.ids.runs_to_merge();
        let Some(newest) = runs.last() else { return false };
        let age = newest.age;
        let stopping = Arc::clone(&self.stopping);
        let mut pause = || {
            self.lay_down();
            !stopping.load(Ordering::Relaxed) && self.ids.directory.check().is_ok()
        };
        let merged = merge(&runs, u64::MAX, &mut pause);
        match merged.and_then(|path| Ok(open_new(&path, age)?)) {
            Ok(merged) => {
                tracing::debug!(runs = runs.len(), ids = merged.count, "runs of ids are merged");
                self.ids.merged(&runs, merged);
                self.ids.metrics.dedup_writes(Outcome::Ok).increment(1);
                true
            }
            Err(MergeError::Stopping) => false,
            Err(error) => {
                if let MergeError::Read(error @ BlockError::Damaged(path)) = &error
                    && let Some(damaged) = runs.iter().find(|run| run.path == *path)
                {
                    self.ids.note_damage(damaged, error);
                }
                self.failed("runs of ids could not be merged", &error);
                self.merge_retry_at = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    fn failed(&self, what: &str, error: &MergeError) {
        self.ids.metrics.dedup_writes(Outcome::Failed).increment(1);
        tracing::warn!(%error, retry_seconds = RETRY.as_secs(), "{what}; it will be tried again");
    }

    fn remove_gone(&self) {
        for path in self.ids.take_gone() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // The next start removes it.
                    tracing::warn!(file = %path.display(), %error, "could not remove ids that are known no more");
                }
                _ => {}
            }
        }
    }
}

/// Whether this time, if there is one, is still to come.
fn is_delayed(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until > Instant::now())
}

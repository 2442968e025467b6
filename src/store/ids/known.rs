//! The ids that are known: those of full tables that are about to be laid down, and those of runs.
//!
//! Whoever looks for an id takes the set of one moment, which never changes. Tables and runs are numbered by when they
//! became full, so that whoever looks later looks only at what has come since.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};

use super::{
    merge::runs_to_merge,
    run::{Age, Forgotten, IdRun, Span},
    table::IdTable,
};
use crate::{
    clock::now_ms,
    event::{IdHash, Original, Repeat},
    metrics::StoreMetrics,
    store::{
        format::{DataDir, IDS, blocks::BlockError},
        options::IdOptions,
    },
};

/// What laying down and merging takes at once, besides a tenth of the memory for ids, in bytes: building a filter.
const BUILDING_BYTES: usize = 3 << 20;
/// A run that was merged has as many ids at the most as the memory for ids has bytes, divided by this: at 2.4 bytes an
/// id a tenth of that memory, as it is there twice for a moment.
const MERGED_SHARE: u64 = 24;
/// Only ids of one such part of the window are merged: what is in one run leaves the window together.
const WINDOW_PARTS: i64 = 8;

/// An empty table, with room for so many ids at the least.
pub(crate) fn new_table(options: IdOptions, ids: usize) -> IdTable {
    IdTable::new(options.table_bytes, ids)
}

/// A table that takes no more ids.
#[derive(Debug)]
pub(crate) struct FullTable {
    pub(crate) table: IdTable,
    pub(crate) span: Span,
    pub(crate) age: Age,
}

/// What is known at one moment, but for the newest table, which is the writer's.
#[derive(Debug, Default, Clone)]
pub(crate) struct IdSet {
    /// How many tables have become full.
    pub(crate) number: u64,
    /// The oldest first.
    pub(super) tables: Vec<Arc<FullTable>>,
    /// The oldest first; all are older than the tables, but where a start could not lay one down.
    pub(super) runs: Vec<Arc<IdRun>>,
}

/// What memory tells of an id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This event has it.
    Known(Original),
    /// It may be in a run.
    Perhaps,
    /// No event has it.
    No,
}

impl IdSet {
    /// Looks for many ids in memory, each with its number. Returns the events that have some of them, and the ids that
    /// may be in a run.
    pub(crate) fn look_for(&self, mut ids: Vec<(usize, IdHash)>) -> (Vec<Repeat>, Vec<(usize, IdHash)>) {
        let mut repeats = Vec::new();
        for full in self.tables.iter().rev() {
            ids.retain(|&(index, hash)| match full.table.find(hash) {
                Some(original) => {
                    repeats.push(Repeat { index, original });
                    false
                }
                None => true,
            });
        }
        let mut marks = vec![false; ids.len()];
        self.runs.iter().for_each(|run| run.mark(&ids, &mut marks));
        let mut marks = marks.into_iter();
        ids.retain(|_| marks.next().unwrap_or(true));
        (repeats, ids)
    }

    /// Looks for an id in what has come since there were so many full tables.
    pub(crate) fn look_since(&self, hash: IdHash, number: u64) -> Found {
        let is_new = |age: Age| age.number > number;
        let mut tables = self.tables.iter().rev().take_while(|full| is_new(full.age));
        if let Some(original) = tables.find_map(|full| full.table.find(hash)) {
            return Found::Known(original);
        }
        let mut runs = self.runs.iter().rev().take_while(|run| is_new(run.age));
        if runs.any(|run| run.may_hold(hash)) { Found::Perhaps } else { Found::No }
    }

    /// The runs in which an id may be, the newest first.
    fn runs_of(&self, hash: IdHash) -> impl Iterator<Item = &Arc<IdRun>> {
        self.runs.iter().rev().filter(move |run| run.may_hold(hash))
    }

    fn bytes(&self) -> usize {
        let tables = self.tables.iter().map(|full| full.table.bytes()).sum::<usize>();
        tables + self.runs.iter().map(|run| run.bytes()).sum::<usize>()
    }
}

/// The set that is known now, shared by all who look and by the two who change it: the writer, which adds full tables,
/// and the keeper, which makes runs of them.
pub(crate) struct Ids {
    set: RwLock<Arc<IdSet>>,
    /// Runs that are in the set no more; their files go when nobody looks in them.
    gone: Mutex<Vec<Arc<IdRun>>>,
    /// Runs that turned out to be damaged; few, as each is in it once.
    damaged: Mutex<Vec<Arc<IdRun>>>,
    forgotten: Mutex<Forgotten>,
    wake: Sender<()>,
    pub(crate) directory: DataDir,
    options: IdOptions,
    pub(super) metrics: Arc<StoreMetrics>,
}

impl Ids {
    /// Knows these runs, the oldest first. `wake` is told when there is a table to be laid down.
    pub(crate) fn new(
        (runs, forgotten): (Vec<Arc<IdRun>>, Forgotten),
        directory: DataDir,
        options: IdOptions,
        (wake, metrics): (Sender<()>, Arc<StoreMetrics>),
    ) -> Self {
        metrics.dedup_bytes_max.set(options.bytes_max as f64);
        let ids = Self {
            set: RwLock::default(),
            gone: Mutex::default(),
            damaged: Mutex::default(),
            forgotten: Mutex::new(forgotten),
            wake,
            directory,
            options,
            metrics,
        };
        ids.change(|set| set.runs = runs);
        ids
    }

    /// What is known now.
    pub(crate) fn set(&self) -> Arc<IdSet> {
        Arc::clone(&self.set.read())
    }

    /// Looks for an id on the disk. A run that is damaged is made anew before long; until then it is not known whether
    /// the id is in it.
    pub(crate) fn find_in_runs(&self, set: &IdSet, hash: IdHash) -> Result<Option<Original>, BlockError> {
        for run in set.runs_of(hash) {
            match run.find(hash) {
                Ok(None) => {}
                Err(error) => {
                    self.note_damage(run, &error);
                    return Err(error);
                }
                found => return found,
            }
        }
        Ok(None)
    }

    /// Has a run that turned out to be damaged be made anew.
    pub(super) fn note_damage(&self, run: &Arc<IdRun>, error: &BlockError) {
        if !matches!(error, BlockError::Damaged(_)) {
            return;
        }
        let mut damaged = self.damaged.lock();
        // One that nobody knows any more is of no interest.
        let is_known = self.set.read().runs.iter().any(|known| Arc::ptr_eq(known, run));
        if is_known && !damaged.iter().any(|known| Arc::ptr_eq(known, run)) {
            damaged.push(Arc::clone(run));
            drop(damaged);
            self.wake();
        }
    }

    /// A run that turned out to be damaged.
    pub(super) fn damaged_run(&self) -> Option<Arc<IdRun>> {
        self.damaged.lock().first().map(Arc::clone)
    }

    /// Knows the ids of a damaged run from others from now on.
    pub(super) fn remade(&self, damaged: &Arc<IdRun>, remade: Vec<Arc<IdRun>>) {
        self.change(|set| {
            let at = set.runs.iter().position(|run| Arc::ptr_eq(run, damaged));
            match at {
                Some(at) => {
                    // One of the new files may have the name of the damaged one.
                    if !remade.iter().any(|run| run.path == damaged.path) {
                        self.gone.lock().push(Arc::clone(damaged));
                    }
                    set.runs.splice(at..=at, remade);
                }
                // It was merged or forgotten meanwhile.
                None => self.gone.lock().extend(remade),
            }
        });
        self.damaged.lock().retain(|run| !Arc::ptr_eq(run, damaged));
    }

    /// An empty table, with room for so many ids at the least.
    pub(crate) fn new_table(&self, ids: usize) -> IdTable {
        new_table(self.options, ids)
    }

    /// How much is known.
    pub(crate) fn options(&self) -> IdOptions {
        self.options
    }

    /// How long ids are known, if there is memory for them.
    pub(crate) fn window(&self) -> Duration {
        self.options.window
    }

    /// Takes a full table: all events with a sequence from `first` to `last` whose ids are known are in it.
    pub(crate) fn add(&self, table: IdTable, (first, last): (u64, u64), newest_received_at: i64) {
        let forgotten = *self.forgotten.lock();
        self.change(|set| {
            set.number += 1;
            let age = Age { number: set.number, newest_at: Instant::now() };
            let span = Span { first, last, newest_received_at, forgotten };
            set.tables.push(Arc::new(FullTable { table, span, age }));
        });
        self.wake();
    }

    /// Has the keeper look.
    pub(super) fn wake(&self) {
        // When a message waits already, it is about to.
        let _ = self.wake.try_send(());
    }

    /// Whether all ids that were handed on are in runs, of the events up to a sequence.
    pub(crate) fn are_laid_down(&self, last: u64) -> bool {
        self.set.read().tables.first().is_none_or(|oldest| oldest.span.first > last)
    }

    /// The table that is to be laid down next, if there is one that is no longer new, or a newer one behind it.
    pub(super) fn table_to_lay_down(&self, new_for: Duration) -> Option<Arc<FullTable>> {
        let set = self.set.read();
        let oldest = set.tables.first()?;
        (set.tables.len() > 1 || oldest.age.newest_at.elapsed() >= new_for).then(|| Arc::clone(oldest))
    }

    /// Whether there is a table that is not laid down.
    pub(super) fn has_tables(&self) -> bool {
        !self.set.read().tables.is_empty()
    }

    /// Knows a table's ids from a run from now on.
    pub(super) fn laid_down(&self, table: &Arc<FullTable>, run: IdRun) {
        let run = Arc::new(run);
        self.change(|set| match set.tables.first() {
            Some(first) if Arc::ptr_eq(first, table) => {
                set.tables.remove(0);
                // One that a start could not lay down may be older than some runs.
                let at = set.runs.partition_point(|known| known.span.first < run.span.first);
                set.runs.insert(at, run);
            }
            // It was forgotten meanwhile.
            _ => self.gone.lock().push(run),
        });
    }

    /// Knows the ids of some runs from one that has all of them from now on.
    pub(super) fn merged(&self, runs: &[Arc<IdRun>], merged: IdRun) {
        let merged = Arc::new(merged);
        self.change(|set| {
            let at = set.runs.iter().position(|run| runs.first().is_some_and(|first| Arc::ptr_eq(run, first)));
            match at {
                Some(at) => self.gone.lock().extend(set.runs.splice(at..at + runs.len(), [merged])),
                // The oldest of them was forgotten meanwhile.
                None => self.gone.lock().push(merged),
            }
        });
    }

    /// Forgets what came before the window.
    pub(super) fn forget_expired(&self) {
        let Some(expired) = Instant::now().checked_sub(self.options.window) else { return };
        let is_expired = |age: Age| age.newest_at < expired;
        if self.set.read().runs.first().is_some_and(|run| is_expired(run.age)) {
            self.change(|set| {
                let count = set.runs.iter().take_while(|run| is_expired(run.age)).count();
                let expired: Vec<_> = set.runs.drain(..count).collect();
                expired.iter().for_each(|run| self.note_forgotten(run.span));
                self.gone.lock().extend(expired);
            });
        }
        self.report(&self.set());
    }

    /// The runs that are to become one, the oldest first; none if there are few enough.
    pub(super) fn runs_to_merge(&self) -> Vec<Arc<IdRun>> {
        let part_ms = i64::try_from(self.options.window.as_millis()).unwrap_or(i64::MAX) / WINDOW_PARTS + 1;
        let set = self.set();
        let of_run =
            |run: &Arc<IdRun>| (run.span.newest_received_at / part_ms, run.span.first, run.span.last, run.count);
        let sizes: Vec<_> = set.runs.iter().map(of_run).collect();
        set.runs[runs_to_merge(&sizes, self.options.bytes_max as u64 / MERGED_SHARE)].to_vec()
    }

    /// The files of runs that nobody looks in any more.
    pub(super) fn take_gone(&self) -> Vec<PathBuf> {
        let mut gone = self.gone.lock();
        let (unused, used) = gone.drain(..).partition(|run| Arc::strong_count(run) == 1);
        *gone = used;
        Vec::into_iter(unused).map(|run: Arc<IdRun>| run.path.clone()).collect()
    }

    /// Where the runs are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.directory.path().join(IDS)
    }

    fn change(&self, change: impl FnOnce(&mut IdSet)) {
        let mut current = self.set.write();
        let mut set = IdSet::clone(&current);
        change(&mut set);
        self.bound(&mut set);
        self.report(&set);
        *current = Arc::new(set);
    }

    /// Forgets the oldest where there is too little memory. Each id takes the same, whoever sent it and whatever it
    /// is: nobody pushes others' out faster than events come in.
    fn bound(&self, set: &mut IdSet) {
        let bytes_max = self.options.bytes_max;
        let held = self.options.table_bytes + bytes_max / 10 + BUILDING_BYTES;
        while set.bytes() + held > bytes_max {
            let span = if set.runs.is_empty() {
                if set.tables.is_empty() {
                    return;
                }
                set.tables.remove(0).span
            } else {
                let run = set.runs.remove(0);
                let span = run.span;
                self.gone.lock().push(run);
                span
            };
            self.note_forgotten(span);
        }
    }

    fn note_forgotten(&self, span: Span) {
        let mut forgotten = self.forgotten.lock();
        *forgotten = (*forgotten).max(span.as_forgotten());
    }

    fn report(&self, set: &IdSet) {
        let mut window = self.options.window;
        let forgotten = *self.forgotten.lock();
        if forgotten.sequence > 0 {
            window = window.min(Duration::from_millis(u64::try_from(now_ms() - forgotten.received_at).unwrap_or(0)));
        }
        self.metrics.dedup_window_seconds.set(window.as_secs_f64());
        let ids = set.runs.iter().map(|run| run.count).sum::<u64>()
            + set.tables.iter().map(|full| full.table.len() as u64).sum::<u64>();
        self.metrics.dedup_ids.set(ids as f64);
        self.metrics.dedup_bytes.set(set.bytes() as f64);
    }
}

//! The segments in memory, shared by everybody: the writer adds, the sealer replaces, readers look.
//!
//! A generation that was replaced is unlinked when nobody keeps a [`View`] of it any more.

mod columns;
mod connections;
mod facts;
mod fence;
mod followers;
mod hidden;
mod keys;
mod laid;
mod lay_down;
pub(crate) mod retention;
mod sample;
mod segment;
mod summary;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt::Display,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};

use self::connections::IdleConnections;
pub(crate) use self::{
    columns::{Chunk, Columns, NextRows, RowKeys},
    connections::{ReadConnection, ReaderInterrupt, WatchState},
    facts::{FACTS_COLUMNS, Facts, Identity},
    fence::{FENCE_ENTRIES, RankBounds},
    followers::{Followers, Following, Woken},
    hidden::{FoundEvents, FoundIn, Hidden, HiddenKeys, HiddenOf, HiddenVisitor, LaidEvents, UnreadableList},
    keys::{Key, Sites, Stream, fingerprint},
    laid::{LaidKeys, LaidRun},
    sample::sample_of_rows,
    segment::{Content, KeysSnapshot, OpenKeys, RemakeError, Segment},
    summary::{StreamSummary, Summary, SummaryError},
    view::View,
};
use super::{
    format::{DataDir, blocks::BlockError, file},
    options::SegmentOptions,
};
use crate::{
    clock::now_ms,
    command::write_off,
    event::EventRow,
    metrics::{SegmentLabel, StoreMetrics},
};

/// The current view, and what readers share.
pub(crate) struct Segments {
    view: RwLock<Arc<View>>,
    /// Replaced generations that somebody may still read.
    replaced: Mutex<Vec<Arc<Segment>>>,
    pub(crate) connections: IdleConnections,
    /// Sealed segments that are in no answer, and their files.
    damaged: Mutex<BTreeMap<i64, PathBuf>>,
    /// The file of the segment that stands ready.
    prepared: Mutex<Option<PathBuf>>,
    /// When each segment that waits for its indexes became full, in milliseconds since 1970, UTC.
    full_since: Mutex<BTreeMap<i64, i64>>,
    /// Where they are, as long as that is so.
    pub(crate) directory: DataDir,
    /// What of it reads have found, for the catalog to note; no more entries than segments.
    found_by_reads: Mutex<Vec<(i64, String)>>,
    on_damage: OnceLock<Sender<()>>,
    /// The segments that could not be rewritten when that was last tried, and whether their files were found to be
    /// damaged by it.
    unrewritten: Mutex<BTreeMap<i64, bool>>,
    /// Files in quarantine; they come and go only while hitlog does not serve.
    quarantined: AtomicUsize,
    written_off: OnceLock<BTreeSet<i64>>,
    begun_at: AtomicU64,
    /// The highest sequence that is durable, whether it is still there or not: it never falls.
    durable: AtomicU64,
    /// When an event that is durable arrived at the latest, in milliseconds since 1970, UTC.
    newest_arrival: AtomicI64,
    /// The numbers of the segments that an erasure has left nothing of, since the start.
    emptied: Mutex<BTreeSet<i64>>,
    /// The number of the segment that is to be followed by the next, full or not.
    roll_requested: AtomicI64,
    /// Rows of full segments whose keys are in memory because the disk did not take them.
    refused_rows: AtomicU64,
    /// Lists of hidden events that were laid down since the start.
    hidden_lists: AtomicU64,
    /// Held while a list of hidden events is made anew: it may take a while, and whoever else needs it comes back.
    pub(crate) remaking_list: Mutex<()>,
    /// Held while keys are made anew: not more of them than may be must stay in memory.
    remaking_keys: Mutex<()>,
    pub(crate) sites: Sites,
    /// Who is told of what comes in.
    pub(crate) followers: Arc<Followers>,
    options: SegmentOptions,
    metrics: Arc<StoreMetrics>,
}

impl Segments {
    pub(crate) fn new(directory: DataDir, options: SegmentOptions, metrics: Arc<StoreMetrics>) -> Self {
        Self {
            view: RwLock::default(),
            replaced: Mutex::default(),
            connections: IdleConnections::new(options.connections_max),
            damaged: Mutex::default(),
            prepared: Mutex::default(),
            full_since: Mutex::default(),
            directory,
            found_by_reads: Mutex::default(),
            on_damage: OnceLock::new(),
            unrewritten: Mutex::default(),
            quarantined: AtomicUsize::new(0),
            written_off: OnceLock::new(),
            begun_at: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            newest_arrival: AtomicI64::new(i64::MIN),
            emptied: Mutex::default(),
            roll_requested: AtomicI64::new(0),
            refused_rows: AtomicU64::new(0),
            hidden_lists: AtomicU64::new(0),
            remaking_list: Mutex::default(),
            remaking_keys: Mutex::default(),
            sites: Sites::default(),
            followers: Arc::default(),
            options,
            metrics,
        }
    }

    /// The segments as they are now, by number.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// The highest sequence that is durable; 0 if there was none ever. Whoever looks at the view after it finds
    /// everything up to there, unless it is gone.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Notes that everything up to this sequence is durable, and can be found.
    pub(crate) fn note_durable(&self, sequence: u64) {
        self.durable.fetch_max(sequence, Ordering::Release);
    }

    /// When an event that is durable arrived at the latest, as far as that was noted: later than now, where the clock
    /// was set back. Asked after [`durable`](Self::durable), it counts all of those.
    pub(crate) fn newest_arrival(&self) -> i64 {
        self.newest_arrival.load(Ordering::Relaxed)
    }

    /// Notes when an event arrived that is about to be noted as durable.
    pub(crate) fn note_arrival(&self, received_at: i64) {
        self.newest_arrival.fetch_max(received_at, Ordering::Relaxed);
    }

    /// Shows another segment.
    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.change(|view| {
            view.segments.push(segment);
            // At the start the sealed ones come first, and one of them may be newer than an unsealed one.
            view.segments.sort_unstable_by_key(|segment| segment.number);
        });
    }

    /// Shows another generation of a segment, in which nothing is left of these erasures.
    pub(crate) fn replace(&self, new: Arc<Segment>, erasures: &[Arc<str>]) {
        self.change(|view| {
            view.erased(new.number, erasures);
            if let Some(place) = view.segments.iter_mut().find(|segment| segment.number == new.number) {
                let old = std::mem::replace(place, new);
                self.connections.close_of(&old);
                self.replaced.lock().push(old);
            }
        });
    }

    /// Notes that an erasure has left nothing of a segment.
    pub(crate) fn note_emptied(&self, number: i64) {
        self.emptied.lock().insert(number);
    }

    /// Whether an erasure has left nothing of the segment with this number, since the start.
    pub(crate) fn is_emptied(&self, number: i64) -> bool {
        self.emptied.lock().contains(&number)
    }

    /// Shows a segment no more.
    pub(crate) fn drop_segment(&self, number: i64) {
        self.change(|view| {
            if let Some(old) = view.remove(number) {
                self.connections.close_of(&old);
                self.replaced.lock().push(old);
            }
        });
    }

    /// Hides the events that were found from every question that is asked from now on.
    pub(crate) fn hide(&self, erasure: &Arc<str>, visitor: &HiddenVisitor, found: Vec<FoundIn>) {
        self.change(|view| {
            for found in found {
                view.hide(erasure, visitor, found);
            }
        });
    }

    /// Lays a visitor's events that are to be hidden in the segment with this number down.
    pub(crate) fn lay_hidden_down(
        &self,
        number: i64,
        events: &mut [(Stream, Key)],
        visitor: HiddenVisitor,
    ) -> Result<LaidEvents, BlockError> {
        self.directory.check().map_err(std::io::Error::other)?;
        let paths = self.directory.segment_paths();
        // What is not hitlog's may have one of the names.
        let path = loop {
            let path = paths.hidden(number, self.hidden_lists.fetch_add(1, Ordering::Relaxed));
            if path.symlink_metadata().is_err() {
                break path;
            }
        };
        LaidEvents::write(events, visitor, (number, &self.sites), (&self.directory, &path))
    }

    /// Puts a list of hidden events that was made anew into the place of the one that it is of.
    pub(crate) fn replace_list(&self, number: i64, list: &Arc<LaidEvents>, new: LaidEvents) {
        let new = Arc::new(new);
        self.change(|view| view.replace_list(number, list, &new));
    }

    /// A sealed segment that is not what was written: the others serve without it.
    pub(crate) fn note_damage(&self, number: i64, path: &Path, reason: &dyn Display) {
        // What is missing, or is another's, in a directory that was moved is not damaged.
        if self.directory.check().is_err() {
            return;
        }
        // Nor is a generation that has taken the place of the one that is.
        if self.view().segment(number).is_some_and(|shown| shown.path != path) {
            return;
        }
        match self.damaged.lock().entry(number) {
            Entry::Occupied(_) => return,
            Entry::Vacant(entry) => drop(entry.insert(path.to_owned())),
        }
        if let Some(wake) = self.on_damage.get() {
            self.found_by_reads.lock().push((number, reason.to_string()));
            // When a message waits already, the sealer is about to look anyway.
            let _ = wake.try_send(());
        }
        tracing::error!(
            segment = %path.display(), %reason,
            "a sealed segment is damaged: its events are in no answer. Restore the file from a backup and start again; \
             `{}` tells what it would mean to give it up",
            write_off(number)
        );
        self.change(|view| drop(view.remove(number)));
    }

    /// Notes how the last rewriting of a segment has ended: well, or with an error, which may have shown damage.
    pub(crate) fn note_rewriting(&self, number: i64, failed: Option<bool>) {
        match failed {
            Some(is_damaged) => self.unrewritten.lock().insert(number, is_damaged),
            None => self.unrewritten.lock().remove(&number),
        };
    }

    /// Whether the last rewriting of a segment has failed, and has shown damage.
    pub(crate) fn failed_rewriting(&self, number: i64) -> Option<bool> {
        self.unrewritten.lock().get(&number).copied()
    }

    /// Has damage that is found from now on told of by a message here.
    pub(crate) fn wake_on_damage(&self, wake: Sender<()>) {
        // Set once, when the store opens.
        let _ = self.on_damage.set(wake);
    }

    /// Takes the damage that reads have found since this was last asked for: numbers and reasons.
    pub(crate) fn take_found_damage(&self) -> Vec<(i64, String)> {
        std::mem::take(&mut *self.found_by_reads.lock())
    }

    /// How many segments are damaged.
    pub(crate) fn damaged(&self) -> usize {
        self.damaged.lock().len()
    }

    /// The numbers of the segments that are damaged.
    pub(crate) fn damaged_numbers(&self) -> Vec<i64> {
        self.damaged.lock().keys().copied().collect()
    }

    /// Their files.
    pub(crate) fn damaged_files(&self) -> Vec<PathBuf> {
        self.damaged.lock().values().cloned().collect()
    }

    /// Notes how many files the start has found in quarantine, or would have put there.
    pub(crate) fn count_quarantined(&self, files: usize) {
        self.quarantined.store(files, Ordering::Relaxed);
        self.metrics.quarantined_files.set(files as f64);
    }

    /// How many files are in quarantine.
    pub(crate) fn quarantined(&self) -> usize {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Notes the segments that were given up: tools do that while hitlog does not serve.
    pub(crate) fn note_written_off(&self, numbers: BTreeSet<i64>) {
        // Set once, when the store opens.
        let _ = self.written_off.set(numbers);
    }

    /// Whether any segment with one of these numbers is damaged, or was given up.
    pub(crate) fn has_lost_any(&self, numbers: Range<i64>) -> bool {
        let written_off = self.written_off.get().is_some_and(|lost| lost.range(numbers.clone()).next().is_some());
        written_off || self.damaged.lock().range(numbers).next().is_some()
    }

    /// Notes the first sequence that this run gives.
    pub(crate) fn begin_at(&self, sequence: u64) {
        self.begun_at.store(sequence, Ordering::Relaxed);
        self.note_durable(sequence.saturating_sub(1));
    }

    /// The first sequence that this run gives.
    pub(crate) fn begun_at(&self) -> u64 {
        self.begun_at.load(Ordering::Relaxed)
    }

    /// Has the writer go on to the next segment when it looks next, if it still writes to this one.
    pub(crate) fn request_roll(&self, number: i64) {
        self.roll_requested.store(number, Ordering::Relaxed);
    }

    /// Whether this segment is to be followed by the next, full or not.
    pub(crate) fn is_roll_requested(&self, number: i64) -> bool {
        self.roll_requested.load(Ordering::Relaxed) == number
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut current = self.view.write();
        let mut view = View::clone(&current);
        change(&mut view);
        self.bound_filters(&view.segments);
        self.report(&view);
        *current = Arc::new(view);
    }

    /// Keeps the newest filters that fit.
    fn bound_filters(&self, view: &[Arc<Segment>]) {
        let mut filter_bytes = 0;
        for summary in view.iter().rev().filter_map(|segment| segment.summary()) {
            filter_bytes += summary.filter_bytes();
            if filter_bytes > self.options.filter_bytes_max {
                summary.drop_filter();
            }
        }
    }

    /// Lays the keys of full segments that are still in memory down; an error leaves the rest there.
    pub(crate) fn lay_down_keys(&self) -> Result<(), BlockError> {
        self.directory.check().map_err(std::io::Error::other)?;
        let view = self.view();
        let laid = full(&view).try_for_each(|segment| segment.lay_down_keys(&self.sites));
        self.refused_rows.store(if laid.is_ok() { 0 } else { rows_in_memory(&view) }, Ordering::Relaxed);
        laid
    }

    /// Makes the keys of a full segment, which turned out to be damaged, anew from its rows. They stay in memory where
    /// they cannot be laid down, and why is returned, as long as no more keys than may be are there for that.
    pub(crate) fn remake_keys(
        &self,
        segment: &Segment,
        damaged: &Arc<LaidKeys>,
    ) -> Result<Option<BlockError>, RemakeError> {
        self.directory.check().map_err(|lost| BlockError::from(std::io::Error::other(lost)))?;
        let _nobody_else = self.remaking_keys.lock();
        let view = self.view();
        let may_stay = rows_in_memory(&view) + segment.span() <= self.options.unsealed_rows_max;
        let refused = segment.remake_keys(damaged, &self.sites, may_stay)?;
        if refused.is_some() {
            self.refused_rows.store(rows_in_memory(&view), Ordering::Relaxed);
        }
        Ok(refused)
    }

    /// Whether more keys of full segments are in memory than may be, because the disk did not take them.
    pub(crate) fn has_too_many_keys(&self) -> bool {
        self.refused_rows.load(Ordering::Relaxed) > self.options.unsealed_rows_max
    }

    /// Tells since when the oldest segment waits for its indexes.
    fn report_unsealed(&self, view: &View) {
        let mut open: Vec<_> = view.segments.iter().filter(|segment| !segment.is_sealed()).collect();
        // Rows go to this one.
        open.pop();
        let mut full_since = self.full_since.lock();
        let mut before = std::mem::take(&mut *full_since);
        for segment in open {
            full_since.insert(segment.number, before.remove(&segment.number).unwrap_or_else(now_ms));
        }
        let oldest = full_since.values().min().copied().unwrap_or(0);
        self.metrics.oldest_unsealed.set(oldest as f64 / 1_000.0);
    }

    /// Notes since when a segment that a start has found waits for its indexes, in milliseconds since 1970, UTC.
    pub(crate) fn found_full(&self, number: i64, since: i64) {
        self.full_since.lock().insert(number, since);
        self.report_unsealed(&self.view());
    }

    fn report(&self, view: &View) {
        self.report_unsealed(view);
        self.metrics.events_hidden.set(view.hidden_events().0 as f64);
        let sealed = view.segments.iter().filter(|segment| segment.is_sealed()).count();
        let open = view.segments.len() - sealed;
        self.metrics.segments(SegmentLabel::Sealed).set(sealed as f64);
        self.metrics.segments(SegmentLabel::Active).set(open.min(1) as f64);
        self.metrics.segments(SegmentLabel::Unsealed).set(open.saturating_sub(1) as f64);
        self.metrics.segments(SegmentLabel::Damaged).set(self.damaged.lock().len() as f64);
    }

    /// Says in the metrics whether the next segment stands ready; `prepared` is its file.
    pub(crate) fn report_prepared(&self, prepared: Option<PathBuf>) {
        self.metrics.segments(SegmentLabel::Prepared).set(f64::from(u8::from(prepared.is_some())));
        *self.prepared.lock() = prepared;
    }

    /// The file of the segment that stands ready.
    pub(crate) fn prepared(&self) -> Option<PathBuf> {
        self.prepared.lock().clone()
    }

    /// Unlinks the replaced generations that nobody reads any more. Returns those that are gone, and whether one that
    /// should be is not.
    pub(crate) fn unlink_replaced(&self) -> (Vec<Identity>, bool) {
        let (mut gone, mut failed) = (Vec::new(), false);
        if self.directory.check().is_err() {
            return (gone, true);
        }
        self.replaced.lock().retain(|segment| {
            if Arc::strong_count(segment) > 1 {
                return true;
            }
            match file::remove(&segment.path) {
                Ok(()) => gone.push(Identity { number: segment.number, generation: segment.generation }),
                Err(error) => {
                    let path = segment.path.display();
                    tracing::warn!(segment = %path, %error, "could not remove a replaced segment; trying again later");
                    failed = true;
                    return true;
                }
            }
            false
        });
        (gone, failed)
    }

    /// The numbers of the segments of which a replaced generation is still on the disk.
    pub(crate) fn replaced(&self) -> Vec<i64> {
        self.replaced.lock().iter().map(|segment| segment.number).collect()
    }

    /// Keeps the connection for the next question.
    pub(crate) fn give_back(&self, connection: ReadConnection) {
        // A segment that is replaced meanwhile has its connections closed, and that must not miss this one.
        let current = self.view.read();
        let is_current = current.segments.iter().any(|segment| Arc::ptr_eq(segment, &connection.segment));
        let to_close = self.connections.give_back(connection, is_current);
        drop(current);
        drop(to_close);
    }

    /// What is kept of a row.
    pub(crate) fn row_keys(&self, row: &EventRow<'_>) -> RowKeys {
        let (website_id, event_type) = (row.website_id, row.event_type);
        RowKeys::new(&self.sites, (website_id, event_type), row.created_at, (row.session_id, row.visitor_id))
    }
}

/// All but the newest, which rows go to.
fn full(view: &View) -> impl Iterator<Item = &Arc<Segment>> {
    view.segments.iter().rev().skip(1)
}

/// The rows of full segments whose keys are in memory.
fn rows_in_memory(view: &View) -> u64 {
    full(view).filter(|segment| segment.has_keys_in_memory()).map(|segment| segment.span()).sum()
}

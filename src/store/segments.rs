//! The segments that there are, shared by everybody: the writer adds, the sealer replaces, readers look.
//!
//! A generation that was replaced is unlinked when nobody keeps a [`View`] of it any more.

use std::{
    collections::BTreeSet,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;

use super::{
    columns::{Columns, RowKeys},
    directory::SegmentPaths,
    file,
    keys::{Sites, Stream, fingerprint, session_hash, visitor_hash},
    list::FoundIn,
    summary::Summary,
    view::View,
};
use crate::{
    event::EventRow,
    metrics::{SegmentLabel, StoreMetrics},
};

/// How much of the segments is kept in memory; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct SegmentOptions {
    /// Rows of unsealed segments whose keys are kept in memory; those of older ones are read when asked for.
    pub unsealed_rows_max: u64,
    /// Memory of the filters of sealed segments, in bytes; older ones go without.
    pub filter_bytes_max: usize,
    /// Idle read connections that are kept.
    pub connections_max: usize,
}

/// One generation of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: i64,
    pub(super) generation: i64,
    pub(super) path: PathBuf,
    pub(super) content: Content,
}

/// What is known of a segment without looking at the disk.
#[derive(Debug)]
pub(super) enum Content {
    /// Active or unsealed: no index on the disk, but the keys of its rows in memory.
    Open(OpenContent),
    /// Sealed.
    Sealed(Summary),
}

/// The rows of a segment without an index.
#[derive(Debug)]
pub(super) struct OpenContent {
    /// `None` when too many unsealed rows wait; then each question reads through the segment on the disk.
    columns: RwLock<Option<Arc<Columns>>>,
    /// From first to last, when the columns were given up.
    sequences: RwLock<Option<(u64, u64)>>,
}

impl Segment {
    pub(super) fn open(paths: &SegmentPaths, number: i64, columns: Columns) -> Self {
        let columns = RwLock::new(Some(Arc::new(columns)));
        let content = Content::Open(OpenContent { columns, sequences: RwLock::new(None) });
        Self { number, generation: 1, path: paths.of(number, 1), content }
    }

    /// The first and the last sequence in it; `None` if it is empty.
    pub(super) fn sequences(&self) -> Option<(u64, u64)> {
        match &self.content {
            Content::Sealed(summary) => Some((summary.first_sequence, summary.last_sequence)),
            Content::Open(open) => {
                open.columns.read().as_ref().map_or_else(|| *open.sequences.read(), |columns| columns.sequences())
            }
        }
    }

    fn rows(&self) -> u64 {
        self.sequences().map_or(0, |(first, last)| last - first + 1)
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.summary().is_some()
    }

    /// What a sealed segment says of itself.
    pub(super) fn summary(&self) -> Option<&Summary> {
        match &self.content {
            Content::Sealed(summary) => Some(summary),
            Content::Open(_) => None,
        }
    }
}

impl OpenContent {
    /// The columns in memory, if they are.
    pub(super) fn columns(&self) -> Option<Arc<Columns>> {
        self.columns.read().clone()
    }

    /// Whether any of its events may be of the website with this number.
    pub(super) fn holds_site(&self, site: u32) -> bool {
        self.columns().is_none_or(|columns| columns.snapshot().holds_site(site))
    }

    /// Gives the memory up. The segment must be full.
    fn forget_columns(&self) {
        let mut columns = self.columns.write();
        if let Some(columns) = &*columns {
            *self.sequences.write() = columns.sequences();
        }
        *columns = None;
    }
}

/// The current view, and what readers share.
pub(super) struct Segments {
    view: RwLock<Arc<View>>,
    /// Replaced generations that somebody may still read.
    replaced: Mutex<Vec<Arc<Segment>>>,
    connections: Mutex<Vec<ReadConnection>>,
    damaged: Mutex<BTreeSet<i64>>,
    /// The number of the segment that is to be followed by the next, full or not.
    roll_requested: AtomicI64,
    pub(super) sites: Sites,
    options: SegmentOptions,
    metrics: Arc<StoreMetrics>,
}

/// A connection to one segment, and how it is stopped.
pub(super) struct ReadConnection {
    pub(super) segment: Arc<Segment>,
    pub(super) connection: Connection,
    pub(super) watch: Arc<Watch>,
}

/// What SQLite's progress handler looks at while a statement runs.
pub(super) struct Watch(pub(super) Mutex<WatchState>);

/// Until when a statement may run.
#[derive(Clone, Copy)]
pub(super) struct WatchState {
    pub(super) deadline: Instant,
    /// The count of [`super::read::ReaderInterrupt`] when the question began.
    pub(super) interrupts: u64,
}

impl Segments {
    pub(super) fn new(options: SegmentOptions, metrics: Arc<StoreMetrics>) -> Self {
        Self {
            view: RwLock::default(),
            replaced: Mutex::default(),
            connections: Mutex::default(),
            damaged: Mutex::default(),
            roll_requested: AtomicI64::new(0),
            sites: Sites::default(),
            options,
            metrics,
        }
    }

    /// The segments as they are now, by number.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Shows another segment.
    pub(super) fn push(&self, segment: Arc<Segment>) {
        self.change(|view| {
            view.segments.push(segment);
            // At the start the sealed ones come first, and one of them may be newer than an unsealed one.
            view.segments.sort_unstable_by_key(|segment| segment.number);
        });
    }

    /// Shows another generation of a segment, in which nothing is left of these erasures.
    pub(super) fn replace(&self, new: Arc<Segment>, erasures: &[Arc<str>]) {
        self.change(|view| {
            view.erased(new.number, erasures);
            if let Some(place) = view.segments.iter_mut().find(|segment| segment.number == new.number) {
                let old = std::mem::replace(place, new);
                self.connections.lock().retain(|connection| !Arc::ptr_eq(&connection.segment, &old));
                self.replaced.lock().push(old);
            }
        });
    }

    /// Shows a segment no more.
    pub(super) fn drop_segment(&self, number: i64) {
        self.change(|view| {
            if let Some(old) = view.remove(number) {
                self.connections.lock().retain(|connection| !Arc::ptr_eq(&connection.segment, &old));
                self.replaced.lock().push(old);
            }
        });
    }

    /// Hides the events that were found from every question that is asked from now on.
    pub(super) fn hide(&self, erasure: &Arc<str>, found: Vec<FoundIn>) {
        self.change(|view| {
            for (number, _, events) in found {
                view.hide(number, erasure, events);
            }
        });
    }

    /// A sealed segment that is not what was written: the others serve without it.
    pub(super) fn set_aside(&self, number: i64, path: &Path, reason: &dyn Display) {
        if !self.damaged.lock().insert(number) {
            return;
        }
        tracing::error!(
            segment = %path.display(), %reason,
            "a sealed segment is damaged and set aside: its events are in no answer. Restore the file from a backup \
             and start again"
        );
        self.change(|view| drop(view.remove(number)));
    }

    /// How many segments are set aside.
    pub(super) fn damaged(&self) -> usize {
        self.damaged.lock().len()
    }

    /// Has the writer go on to the next segment when it looks next, if it still writes to this one.
    pub(super) fn request_roll(&self, number: i64) {
        self.roll_requested.store(number, Ordering::Relaxed);
    }

    /// Whether this segment is to be followed by the next, full or not.
    pub(super) fn is_roll_requested(&self, number: i64) -> bool {
        self.roll_requested.load(Ordering::Relaxed) == number
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut current = self.view.write();
        let mut view = View::clone(&current);
        change(&mut view);
        self.bound_memory(&view.segments);
        self.report(&view);
        *current = Arc::new(view);
    }

    /// Keeps the newest filters and columns that fit; the active segment's columns stay in any case.
    fn bound_memory(&self, view: &[Arc<Segment>]) {
        let (mut filter_bytes, mut rows) = (0, 0);
        for (age, segment) in view.iter().rev().enumerate() {
            match &segment.content {
                Content::Sealed(summary) => {
                    filter_bytes += summary.filter_bytes();
                    if filter_bytes > self.options.filter_bytes_max {
                        summary.forget_filter();
                    }
                }
                Content::Open(open) => {
                    rows += segment.rows();
                    if age > 0 && rows > self.options.unsealed_rows_max {
                        open.forget_columns();
                    }
                }
            }
        }
    }

    fn report(&self, view: &View) {
        self.metrics.hidden_events.set(view.hidden_events() as f64);
        let sealed = view.segments.iter().filter(|segment| segment.is_sealed()).count();
        let open = view.segments.len() - sealed;
        self.metrics.segments(SegmentLabel::Sealed).set(sealed as f64);
        self.metrics.segments(SegmentLabel::Active).set(open.min(1) as f64);
        self.metrics.segments(SegmentLabel::Unsealed).set(open.saturating_sub(1) as f64);
        self.metrics.segments(SegmentLabel::Damaged).set(self.damaged.lock().len() as f64);
    }

    /// Says in the metrics whether the next segment stands ready.
    pub(super) fn report_prepared(&self, prepared: bool) {
        self.metrics.segments(SegmentLabel::Prepared).set(f64::from(u8::from(prepared)));
    }

    /// Unlinks the replaced generations that nobody reads any more. Returns the numbers of those that are gone, and
    /// whether one that should be is not.
    pub(super) fn unlink_replaced(&self) -> (Vec<i64>, bool) {
        let (mut gone, mut failed) = (Vec::new(), false);
        self.replaced.lock().retain(|segment| {
            if Arc::strong_count(segment) > 1 {
                return true;
            }
            match file::remove(&segment.path) {
                Ok(()) => gone.push(segment.number),
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
    pub(super) fn replaced(&self) -> Vec<i64> {
        self.replaced.lock().iter().map(|segment| segment.number).collect()
    }

    /// A connection to the segment, from those that are kept or a new one.
    pub(super) fn take_connection(
        &self,
        segment: &Arc<Segment>,
        open: impl FnOnce() -> rusqlite::Result<ReadConnection>,
    ) -> rusqlite::Result<ReadConnection> {
        let mut kept = self.connections.lock();
        if let Some(at) = kept.iter().rposition(|connection| Arc::ptr_eq(&connection.segment, segment)) {
            return Ok(kept.remove(at));
        }
        drop(kept);
        open()
    }

    /// Keeps the connection for the next question; the one that was used longest ago goes when there are too many.
    pub(super) fn give_back(&self, connection: ReadConnection) {
        let current = self.view.read();
        let is_current = current.segments.iter().any(|segment| Arc::ptr_eq(segment, &connection.segment));
        let mut kept = self.connections.lock();
        if is_current {
            kept.push(connection);
        }
        let closed = (kept.len() > self.options.connections_max).then(|| kept.remove(0));
        drop((kept, current));
        drop(closed);
    }

    /// Closes all connections that are kept.
    pub(super) fn close_connections(&self) {
        self.connections.lock().clear();
    }

    /// What is kept in memory of a row.
    pub(super) fn row_keys(&self, row: &EventRow<'_>) -> RowKeys {
        RowKeys {
            stream: Stream::new(self.sites.number(row.website_id), row.event_type),
            created_at: row.created_at,
            session: fingerprint(session_hash(row.session_id)),
            visitor: fingerprint(visitor_hash(row.visitor_id)),
        }
    }
}

//! Rolling: the next segment is made ahead, the full one is handed on, and the writer waits for neither.
//!
//! A thread of its own makes the next segment's file and opens it, so that a roll is an exchange of two values on the
//! writer's thread. Afterwards it tells the catalog, empties the full segment's write-ahead log and hands it to the
//! sealer. A crash in between is mended at the start: a prepared segment that has rows was rolled to.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::active::{ActiveSegment, Unretired};
use crate::{
    metrics::{Outcome, StoreMetrics},
    store::{
        catalog::{Catalog, SegmentChange},
        error::{OnFailure, OpenError, is_disk_full},
        format::{SegmentPaths, file, room::Room},
        options::LogOptions,
        seal::SealOrders,
        segments::{OpenKeys, Segment, Segments},
    },
};

/// After a failure to prepare (a full disk, say), the next try waits this long; the writer goes on meanwhile.
const PREPARE_RETRY: Duration = Duration::from_secs(1);
/// The pause between two tries to empty write-ahead logs for which there was no room: each copies all of them anew.
const RETIRE_RETRY: Duration = Duration::from_secs(5);

/// Whether a segment with so many rows, the first of which arrived then, is to be followed by another now.
pub(crate) fn is_due(rows: u64, first_received_at: Option<i64>, now_ms: i64, options: &LogOptions) -> bool {
    let Some(first) = first_received_at else { return false };
    rows >= options.segment_rows_max || u128::from(now_ms.abs_diff(first)) >= options.segment_age_max.as_millis()
}

/// How long until a segment is too old; `None` if it holds nothing.
pub(crate) fn age_left(first_received_at: Option<i64>, now_ms: i64, options: &LogOptions) -> Option<Duration> {
    let age = Duration::from_millis(now_ms.abs_diff(first_received_at?));
    Some(options.segment_age_max.saturating_sub(age))
}

/// The thread that prepares and hands on.
pub(crate) struct Roller {
    full: Sender<ActiveSegment>,
    prepared: Receiver<ActiveSegment>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
pub(crate) struct Rolling {
    pub(crate) paths: SegmentPaths,
    pub(crate) catalog: Catalog,
    pub(crate) segments: Arc<Segments>,
    pub(crate) sealer: SealOrders,
    pub(crate) options: LogOptions,
    pub(crate) metrics: Arc<StoreMetrics>,
    /// Called when the storage can't be trusted any more.
    pub(crate) on_failure: OnFailure,
    /// The number of the next segment to make.
    pub(crate) next_number: i64,
    /// The number of the last segment that was made and listed.
    pub(crate) listed_number: Option<i64>,
    /// Full segments whose write-ahead logs wait for room, few as nothing rolls on a full disk for long.
    pub(crate) unretired: Vec<Unretired>,
}

impl Roller {
    /// Starts the thread; `prepared` is a segment that stands ready from an earlier run.
    pub(crate) fn spawn(rolling: Rolling, prepared: Option<ActiveSegment>) -> Result<Self, OpenError> {
        let (full, to_hand_on) = crossbeam_channel::bounded(1);
        let (ready, prepared_receiver) = crossbeam_channel::bounded(1);
        let thread = thread::Builder::new()
            .name("roller".into())
            .spawn(move || rolling.run(prepared, &ready, &to_hand_on))
            .map_err(OpenError::Thread)?;
        Ok(Self { full, prepared: prepared_receiver, thread })
    }

    /// Whether the next segment stands ready.
    pub(crate) fn has_prepared(&self) -> bool {
        !self.prepared.is_empty()
    }

    /// The next segment, if it stands ready.
    pub(crate) fn take_prepared(&self) -> Option<ActiveSegment> {
        self.prepared.try_recv().ok()
    }

    /// Hands the full segment on, after [`Roller::take_prepared`] has given the next.
    pub(crate) fn hand_on(&self, full: ActiveSegment) {
        // The thread takes one segment for each that it prepared, so there is room; it ends only with the log.
        let _ = self.full.send(full);
    }

    /// Ends the thread, when what was handed on is done; returns the next segment if it stands ready.
    pub(crate) fn stop(self) -> Option<ActiveSegment> {
        drop(self.full);
        if self.thread.join().is_err() {
            tracing::error!("the roller panicked");
        }
        self.prepared.try_recv().ok()
    }
}

impl Drop for Rolling {
    fn drop(&mut self) {
        // To close a file removes what has the name of its write-ahead log, be it another's by now.
        if self.segments.directory.check().is_err() {
            std::mem::forget(std::mem::take(&mut self.unretired));
        }
    }
}

impl Rolling {
    fn run(
        mut self,
        mut prepared: Option<ActiveSegment>,
        ready: &Sender<ActiveSegment>,
        full: &Receiver<ActiveSegment>,
    ) {
        loop {
            let Some(next) = prepared.take().or_else(|| self.prepare_until_done(full)) else { return };
            let number = next.segment.number;
            self.next_number = number + 1;
            // The log takes it back when it rolls.
            self.segments.report_prepared(Some(next.segment.path.clone()));
            if ready.send(next).is_err() {
                return;
            }
            let Some(segment) = self.next_full(full) else { return };
            self.hand_on(segment, number);
        }
    }

    /// The next full segment; `None` if the log is closed.
    fn next_full(&mut self, full: &Receiver<ActiveSegment>) -> Option<ActiveSegment> {
        while !self.unretired.is_empty() {
            match full.recv_timeout(RETIRE_RETRY) {
                Ok(segment) => return Some(segment),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.retry_retiring(),
            }
        }
        full.recv().ok()
    }

    /// Tries once more to empty the write-ahead logs for which there was no room; a sealed segment needs its no more.
    fn retry_retiring(&mut self) {
        if let Err(lost) = self.segments.directory.check() {
            return (self.on_failure)(lost.to_string());
        }
        let Self { unretired, segments, on_failure, .. } = self;
        let view = segments.view();
        unretired.retain(|Unretired { segment, writer, .. }| {
            if view.segment(segment.number).is_none_or(|now| now.is_sealed()) {
                return false;
            }
            match file::truncate_wal(writer.connection()) {
                Ok(is_busy) => is_busy,
                Err(error) if is_disk_full(&error) => true,
                Err(error) => {
                    on_failure(format!("the end of a segment: {error}"));
                    false
                }
            }
        });
    }

    /// Makes the next segment, however often it takes; `None` if the log is closed meanwhile.
    fn prepare_until_done(&mut self, full: &Receiver<ActiveSegment>) -> Option<ActiveSegment> {
        loop {
            match self.prepare() {
                Ok(segment) => return Some(segment),
                Err(error) => tracing::warn!(%error, "the next segment could not be made yet; the active one grows on"),
            }
            if let Err(RecvTimeoutError::Disconnected) = full.recv_timeout(PREPARE_RETRY) {
                return None;
            }
        }
    }

    fn prepare(&mut self) -> Result<ActiveSegment, OpenError> {
        let segment = Segment::open(&self.paths, self.next_number, OpenKeys::InMemory(Arc::default()));
        // What is listed must not be made again: a crash half-way would leave a listed segment without a usable file.
        self.segments.directory.check()?;
        if self.listed_number != Some(self.next_number) {
            let ties = self.segments.directory.ties();
            file::create(&segment.path, ties, &self.options, &self.metrics)?;
            self.catalog.change_segments(SegmentChange::Prepared(self.next_number))?;
            self.listed_number = Some(self.next_number);
        }
        let with_room = (&self.segments.directory, Room::Enough);
        let active = ActiveSegment::open(Arc::new(segment), &self.options, &self.metrics, with_room)?;
        self.segments.directory.watch(&active.segment.path)?;
        Ok(active)
    }

    fn hand_on(&mut self, full: ActiveSegment, next: i64) {
        let sequence_floor = full.segment.sequence_floor();
        if let Err(error) = self.catalog.change_segments(SegmentChange::Activated { number: next, sequence_floor }) {
            // The next start finds rows in it, and knows from them that the log had rolled.
            tracing::warn!(%error, segment = next, "the catalog did not take note of a roll");
        }
        let segment = Arc::clone(&full.segment);
        if let Err(lost) = self.segments.directory.check() {
            std::mem::forget(full);
            return (self.on_failure)(lost.to_string());
        }
        self.segments.directory.unwatch(&segment.path);
        match full.retire() {
            Err(Unretired { error, .. }) if !is_disk_full(&error) => {
                return (self.on_failure)(format!("the end of a segment: {error}"));
            }
            // What could not be copied stays in the write-ahead log, where it is as durable.
            Err(unretired) => self.unretired.push(unretired),
            Ok(()) => self.note_full(&segment),
        }
        self.lay_down_keys();
        self.sealer.order(segment);
    }

    /// Has the catalog note how far a full segment goes, if all of it is in its file.
    fn note_full(&self, segment: &Segment) {
        let sequence_floor = segment.sequence_floor();
        if file::has_wal(&segment.path) || sequence_floor == 0 {
            return;
        }
        let noted = SegmentChange::OpenNoted { last: vec![(segment.number, sequence_floor - 1)], sequence_floor };
        if let Err(error) = self.catalog.change_segments(noted) {
            tracing::warn!(%error, segment = segment.number, "the catalog did not take note of how far it goes");
        }
    }

    /// Gives the memory of full segments' keys back. What the disk does not take now stays in memory until it is tried
    /// again: at the next roll, or when there is too much of it.
    fn lay_down_keys(&self) {
        let started = Instant::now();
        match self.segments.lay_down_keys() {
            Ok(()) => {
                self.metrics.lay_downs(Outcome::Ok).increment(1);
                self.metrics.lay_down_seconds.record(started.elapsed().as_secs_f64());
            }
            Err(error) => {
                self.metrics.lay_downs(Outcome::Failed).increment(1);
                tracing::warn!(%error, "keys of full segments stay in memory: they could not be laid down");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::options::Durability;

    #[test]
    fn when_a_roll_is_due() {
        let options = LogOptions {
            durability: Durability::Full,
            page_bytes: 4_096,
            cache_bytes: 1 << 20,
            wal_checkpoint_bytes: 1 << 20,
            wal_bytes_max: 1 << 20,
            segment_rows_max: 100,
            segment_age_max: Duration::from_secs(60),
        };
        for (rows, first, now, due, left) in [
            (0, None, 1_000_000, false, None),
            (1, Some(1_000), 1_000, false, Some(60)),
            (99, Some(1_000), 60_999, false, Some(0)),
            (100, Some(1_000), 1_000, true, Some(60)),
            (1, Some(1_000), 61_000, true, Some(0)),
            // After the clock was set back, age counts by the distance either way.
            (1, Some(61_000), 31_000, false, Some(30)),
        ] {
            assert_eq!(is_due(rows, first, now, &options), due, "{rows} {first:?} {now}");
            assert_eq!(age_left(first, now, &options).map(|left| left.as_secs()), left, "{rows} {first:?} {now}");
        }
    }
}

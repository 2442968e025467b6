//! What the disk holds and what is left of it, for the metrics.
//!
//! Looked at every few seconds on a thread that may wait for a disk, and not when somebody asks for the metrics: a disk
//! that does not answer must keep no scrape waiting. A sealed file never changes, so each is looked at once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    metrics::{SegmentLabel, StoreMetrics},
    store::{
        format::{DataDir, file, last_backup, room},
        segments::Segments,
    },
};

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// Who looks.
pub(crate) struct Storage {
    directory: DataDir,
    segments: Arc<Segments>,
    metrics: Arc<StoreMetrics>,
    /// Of sealed segments, by number and generation.
    sealed_bytes: HashMap<(i64, i64), u64>,
    next_look: Instant,
}

impl Storage {
    pub(crate) fn new(directory: DataDir, segments: Arc<Segments>, metrics: Arc<StoreMetrics>) -> Self {
        Self { directory, segments, metrics, sealed_bytes: HashMap::new(), next_look: Instant::now() }
    }

    /// Looks again, if it is time to.
    pub(crate) fn look_if_due(&mut self) {
        if self.next_look <= Instant::now() {
            self.look();
            self.next_look = Instant::now() + LOOK_PAUSE;
        }
    }

    fn look(&mut self) {
        let path = self.directory.path();
        if let Some(room) = room::of_file_system(path) {
            self.metrics.storage_free_bytes.set(room.free_bytes as f64);
            self.metrics.storage_size_bytes.set(room.size_bytes as f64);
        }
        self.metrics.last_backup.set(last_backup::read(path).unwrap_or(0) as f64 / 1_000.0);
        let (mut active, mut unsealed, mut sealed, mut seal_needed) = (0, 0, 0, 0);
        let mut sealed_bytes = HashMap::new();
        let view = self.segments.view();
        // The newest of those without indexes is the one that is written to.
        for segment in view.segments.iter().rev() {
            if segment.is_sealed() {
                let key = (segment.number, segment.generation);
                let bytes = self.sealed_bytes.get(&key).copied().unwrap_or_else(|| file::bytes(&segment.path));
                sealed_bytes.insert(key, bytes);
                sealed += bytes;
                continue;
            }
            seal_needed = seal_needed.max(segment.rewriting_bytes());
            let bytes = file::bytes_in_all(&segment.path);
            if active == 0 {
                active = bytes;
            } else {
                unsealed += bytes;
            }
        }
        self.metrics.seal_needed_bytes.set(seal_needed as f64);
        drop(view);
        self.sealed_bytes = sealed_bytes;
        let prepared = self.segments.prepared().map_or(0, |path| file::bytes_in_all(&path));
        let damaged = self.segments.damaged_files().iter().map(|path| file::bytes_in_all(path)).sum();
        for (state, bytes) in [
            (SegmentLabel::Prepared, prepared),
            (SegmentLabel::Active, active),
            (SegmentLabel::Unsealed, unsealed),
            (SegmentLabel::Sealed, sealed),
            (SegmentLabel::Damaged, damaged),
        ] {
            self.metrics.segment_bytes(state).set(bytes as f64);
        }
    }
}

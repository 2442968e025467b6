//! One generation of a segment, and what is known of it without a look at the disk.

use std::{path::PathBuf, sync::Arc};

use parking_lot::RwLock;

use super::{columns::Columns, summary::Summary};
use crate::store::format::SegmentPaths;

/// One generation of a segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: i64,
    pub(crate) generation: i64,
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// What is known of a segment without looking at the disk.
#[derive(Debug)]
pub(crate) enum Content {
    /// Active or unsealed: no index on the disk, but the keys of its rows in memory.
    Open(OpenContent),
    /// Sealed.
    Sealed(Summary),
}

/// The rows of a segment without an index.
#[derive(Debug)]
pub(crate) struct OpenContent {
    /// `None` when too many unsealed rows wait; then each question reads through the segment on the disk.
    columns: RwLock<Option<Arc<Columns>>>,
    /// From first to last, when the columns were given up.
    sequences: RwLock<Option<(u64, u64)>>,
}

impl Segment {
    /// The first generation, without an index.
    pub(crate) fn open(paths: &SegmentPaths, number: i64, columns: Columns) -> Self {
        let columns = RwLock::new(Some(Arc::new(columns)));
        let content = Content::Open(OpenContent { columns, sequences: RwLock::new(None) });
        Self { number, generation: 1, path: paths.of(number, 1), content }
    }

    /// The first and the last sequence in it; `None` if it is empty.
    pub(crate) fn sequences(&self) -> Option<(u64, u64)> {
        match &self.content {
            Content::Sealed(summary) => Some((summary.facts.first_sequence, summary.facts.last_sequence)),
            Content::Open(open) => {
                open.columns.read().as_ref().map_or_else(|| *open.sequences.read(), |columns| columns.sequences())
            }
        }
    }

    /// The lowest sequence that may still be given once this segment's are: one more than its last; 0 if it is empty.
    pub(crate) fn sequence_floor(&self) -> u64 {
        self.sequences().map_or(0, |(_, last)| last + 1)
    }

    /// How many sequences it spans; erased events count.
    pub(crate) fn span(&self) -> u64 {
        self.sequences().map_or(0, |(first, last)| last - first + 1)
    }

    /// Whether it has its indexes.
    pub(crate) fn is_sealed(&self) -> bool {
        self.summary().is_some()
    }

    /// What a sealed segment says of itself.
    pub(crate) fn summary(&self) -> Option<&Summary> {
        match &self.content {
            Content::Sealed(summary) => Some(summary),
            Content::Open(_) => None,
        }
    }
}

impl OpenContent {
    /// The columns in memory, if they are.
    pub(crate) fn columns(&self) -> Option<Arc<Columns>> {
        self.columns.read().clone()
    }

    /// Whether any of its events may be of the website with this number.
    pub(crate) fn holds_site(&self, site: u32) -> bool {
        self.columns().is_none_or(|columns| columns.snapshot().holds_site(site))
    }

    /// Gives the memory up. The segment must be full.
    pub(crate) fn drop_columns(&self) {
        let mut columns = self.columns.write();
        if let Some(columns) = &*columns {
            *self.sequences.write() = columns.sequences();
        }
        *columns = None;
    }
}

//! One generation of a segment, and what is known of it without a look at its rows.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{
    columns::{Columns, ColumnsSnapshot},
    keys::Sites,
    laid::LaidKeys,
    lay_down::{lay_down, look_for_room},
    summary::Summary,
};
use crate::store::{
    error::is_no_room,
    format::{
        SegmentPaths,
        blocks::BlockError,
        file::{self, keys_path},
    },
};

/// One generation of a segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: i64,
    pub(crate) generation: i64,
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// What is known of a segment without looking at its rows.
#[derive(Debug)]
pub(crate) enum Content {
    /// Active or unsealed: no index in it, but the keys of its rows beside it.
    Open(OpenContent),
    /// Sealed.
    Sealed(Summary),
}

/// The rows of a segment without an index.
#[derive(Debug)]
pub(crate) struct OpenContent {
    keys: RwLock<OpenKeys>,
    /// Held while keys are laid down, so that nobody does it twice at once.
    laying: Mutex<()>,
}

/// The keys of the rows of a segment without an index.
#[derive(Debug, Clone)]
pub(crate) enum OpenKeys {
    /// In memory: of the active segment, and of a full one until they are laid down.
    InMemory(Arc<Columns>),
    /// In a file beside the segment, which is full.
    Laid(Arc<LaidKeys>),
}

/// The keys as they were at one moment.
#[derive(Debug)]
pub(crate) enum KeysSnapshot {
    InMemory(ColumnsSnapshot),
    Laid(Arc<LaidKeys>),
}

/// Why keys could not be made anew from the rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemakeError {
    #[error(transparent)]
    Rows(#[from] rusqlite::Error),
    #[error(transparent)]
    File(#[from] BlockError),
}

impl RemakeError {
    /// Whether the disk had no room for them.
    pub(crate) fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::File(BlockError::Io(error)) if is_no_room(error))
    }
}

impl Segment {
    /// The first generation, without an index.
    pub(crate) fn open(paths: &SegmentPaths, number: i64, keys: OpenKeys) -> Self {
        let content = Content::Open(OpenContent { keys: RwLock::new(keys), laying: Mutex::default() });
        Self { number, generation: 1, path: paths.of(number, 1), content }
    }

    /// The first and the last sequence in it; `None` if it is empty.
    pub(crate) fn sequences(&self) -> Option<(u64, u64)> {
        match &self.content {
            Content::Sealed(summary) => Some((summary.facts.first_sequence, summary.facts.last_sequence)),
            Content::Open(open) => match &*open.keys.read() {
                OpenKeys::InMemory(columns) => columns.sequences(),
                OpenKeys::Laid(keys) => Some((keys.first_sequence, keys.last_sequence)),
            },
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

    /// The room that must be free before it is rewritten, in bytes.
    pub(crate) fn rewriting_bytes(&self) -> u64 {
        let bytes = file::bytes(&self.path) + file::bytes(&file::with_suffix(&self.path, "-wal"));
        // Indexes take as much again at the most, with what is sorted for them; in a segment that has them they count.
        if self.is_sealed() { bytes } else { 2 * bytes }
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

    /// Whether it has no index and its keys are in memory.
    pub(crate) fn has_keys_in_memory(&self) -> bool {
        matches!(&self.content, Content::Open(open) if open.columns().is_some())
    }

    /// Lays the keys that are in memory down beside the segment, which must be full, and gives their memory back.
    pub(crate) fn lay_down_keys(&self, sites: &Sites) -> Result<(), BlockError> {
        let Content::Open(open) = &self.content else { return Ok(()) };
        let _nobody_else = open.laying.lock();
        match open.columns() {
            Some(columns) => self.write_keys(open, &columns.snapshot(), sites),
            None => Ok(()),
        }
    }

    /// Makes keys that turned out to be damaged anew from the rows; nothing if somebody else has by now. Where they
    /// cannot be laid down they stay in memory, if that may be, and why is returned.
    pub(crate) fn remake_keys(
        &self,
        damaged: &Arc<LaidKeys>,
        sites: &Sites,
        may_stay: bool,
    ) -> Result<Option<BlockError>, RemakeError> {
        let Content::Open(open) = &self.content else { return Ok(None) };
        let _nobody_else = open.laying.lock();
        if !matches!(&*open.keys.read(), OpenKeys::Laid(keys) if Arc::ptr_eq(keys, damaged)) {
            return Ok(None);
        }
        if !may_stay {
            // Before all rows are read in vain.
            look_for_room(&self.path, self.span() as usize).map_err(BlockError::from)?;
        }
        // Nobody writes to a full segment.
        let rows = file::open_unwritten(&self.path)?;
        let columns = Arc::new(Columns::read(&rows, sites)?);
        match self.write_keys(open, &columns.snapshot(), sites) {
            Ok(()) => Ok(None),
            Err(error) if may_stay => {
                *open.keys.write() = OpenKeys::InMemory(columns);
                Ok(Some(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_keys(&self, open: &OpenContent, columns: &ColumnsSnapshot, sites: &Sites) -> Result<(), BlockError> {
        if columns.rows() == 0 {
            return Ok(());
        }
        let path = keys_path(&self.path);
        lay_down(columns, self.number, sites, &unfinished_keys_path(&self.path), &path)?;
        *open.keys.write() = OpenKeys::Laid(Arc::new(LaidKeys::open(&path, self.number, sites)?));
        Ok(())
    }
}

impl OpenContent {
    /// The keys in memory, if they are.
    pub(crate) fn columns(&self) -> Option<Arc<Columns>> {
        match &*self.keys.read() {
            OpenKeys::InMemory(columns) => Some(Arc::clone(columns)),
            OpenKeys::Laid(_) => None,
        }
    }

    /// The keys as they are now.
    pub(crate) fn keys(&self) -> KeysSnapshot {
        match &*self.keys.read() {
            OpenKeys::InMemory(columns) => KeysSnapshot::InMemory(columns.snapshot()),
            OpenKeys::Laid(keys) => KeysSnapshot::Laid(Arc::clone(keys)),
        }
    }

    /// Whether any of its events is of the website with this number.
    pub(crate) fn holds_site(&self, site: u32) -> bool {
        match self.keys() {
            KeysSnapshot::InMemory(columns) => columns.holds_site(site),
            KeysSnapshot::Laid(keys) => keys.holds_site(site),
        }
    }
}

/// Where keys are until they are complete; a start removes what an interrupted laying down has left there.
fn unfinished_keys_path(segment: &Path) -> PathBuf {
    segment.with_extension("laying")
}

//! The segment that rows go to: its one connection that writes, the one that checkpoints beside it, and how long its
//! write-ahead log is.

use std::{cell::Cell, sync::Arc};

use super::{
    checkpoint::{Checkpointer, Policy},
    insert::EventWriter,
};
use crate::{
    metrics::StoreMetrics,
    store::{
        error::OpenError,
        format::{DataDir, file, room::Room, schema},
        options::LogOptions,
        segments::{Columns, Content, Segment},
    },
};

thread_local! {
    /// The frames in the write-ahead log as the last commit of this thread left them. SQLite hands them to a bare
    /// function, so they need a place that such a function can reach; each log lives on a thread of its own.
    static WAL_FRAMES: Cell<u64> = const { Cell::new(0) };
}

/// A segment that rows go to, or are about to.
pub(crate) struct ActiveSegment {
    pub(crate) segment: Arc<Segment>,
    pub(super) columns: Arc<Columns>,
    pub(super) writer: EventWriter,
    pub(super) checkpointer: Checkpointer,
    pub(super) policy: Policy,
    page_bytes: u64,
    pub(super) rows: u64,
    /// When the first row arrived, in milliseconds since 1970, UTC.
    pub(super) first_received_at: Option<i64>,
}

/// A segment whose write-ahead log could not be copied into it.
pub(crate) struct Unretired {
    pub(super) error: rusqlite::Error,
    pub(super) segment: Arc<Segment>,
    /// As long as it is open the log has its index, so that reading takes no new one.
    pub(super) writer: Box<EventWriter>,
}

impl ActiveSegment {
    /// Opens a segment that is listed, and whose write-ahead log is empty unless there is no room to copy it.
    pub(crate) fn open(
        segment: Arc<Segment>,
        options: &LogOptions,
        metrics: &Arc<StoreMetrics>,
        (directory, room): (&DataDir, Room),
    ) -> Result<Self, OpenError> {
        let path = &segment.path;
        let sqlite = || OpenError::sqlite(path);
        let connection = file::open(path, options, metrics)?;
        let page_bytes: i64 = schema::pragma(&connection, path, "page_size")?;
        let first_received_at = connection
            .query_row("SELECT (SELECT receivedAt FROM Event ORDER BY id LIMIT 1)", [], |row| row.get(0))
            .map_err(sqlite())?;
        if room == Room::Enough {
            // Makes the file of the write-ahead log, too, so that the first group need not wait for that.
            file::tie(&connection, path, directory.ties()).map_err(sqlite())?;
        }
        connection.wal_hook(Some(|_, frames| {
            WAL_FRAMES.set(frames.unsigned_abs().into());
            Ok(())
        }));
        let Content::Open(content) = &segment.content else {
            return Err(OpenError::NotOurs { path: path.clone(), reason: "it is sealed".into() });
        };
        let Some(columns) = content.columns() else {
            return Err(OpenError::NotOurs { path: path.clone(), reason: "it is full".into() });
        };
        Ok(Self {
            columns,
            writer: EventWriter::new(connection).map_err(sqlite())?,
            checkpointer: Checkpointer::spawn(file::open(path, options, metrics)?).map_err(OpenError::Thread)?,
            policy: Policy::new(options.wal_checkpoint_bytes, options.wal_bytes_max),
            page_bytes: page_bytes.unsigned_abs(),
            rows: segment.span(),
            first_received_at,
            segment,
        })
    }

    /// Notes, on the thread that commits, that the next commit is the first to this segment.
    pub(super) fn begin(&self) {
        WAL_FRAMES.set(0);
    }

    /// The frames that the last commit left in the write-ahead log.
    pub(super) fn wal_frames(&self) -> u64 {
        WAL_FRAMES.get()
    }

    /// The size of a write-ahead log with so many frames.
    pub(super) fn wal_bytes_of(&self, frames: u64) -> u64 {
        // The format: a header of 32 bytes, then frames with 24 bytes before each page.
        if frames == 0 { 0 } else { 32 + frames * (self.page_bytes + 24) }
    }

    /// The size of the write-ahead log after the last commit.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.wal_bytes_of(self.wal_frames())
    }

    /// Copies everything into the segment's file, as far as readers let it, and closes it. If that fails, the
    /// connection comes back with the reason.
    pub(crate) fn retire(self) -> Result<(), Unretired> {
        self.checkpointer.stop();
        match file::truncate_wal(self.writer.connection()) {
            Ok(_) => Ok(()),
            Err(error) => Err(Unretired { error, segment: self.segment, writer: Box::new(self.writer) }),
        }
    }

    /// Closes it as it is.
    pub(crate) fn leave(self) -> rusqlite::Result<()> {
        self.checkpointer.stop();
        file::leave_wal(self.writer.connection())
    }
}

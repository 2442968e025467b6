//! Connections that read a segment, kept for the next question, and what stops their statements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::segment::Segment;

/// A connection to one segment, and how it is stopped.
pub(crate) struct ReadConnection {
    pub(crate) segment: Arc<Segment>,
    pub(crate) connection: Connection,
    /// What SQLite's progress handler looks at while a statement runs.
    pub(crate) watch: Arc<Mutex<WatchState>>,
}

/// Until when a statement may run.
#[derive(Clone)]
pub(crate) struct WatchState {
    pub(crate) deadline: Instant,
    /// The count of [`ReaderInterrupt`] when the question began.
    pub(crate) interrupts: u64,
    /// Whoever asked has gone away.
    pub(crate) is_gone: Arc<AtomicBool>,
}

impl WatchState {
    /// Of a question that somebody waits for in any case.
    pub(crate) fn new(deadline: Instant, interrupts: u64) -> Self {
        Self { deadline, interrupts, is_gone: Arc::default() }
    }

    /// Whether the asker has gone away.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// Stops all reads that are under way: they keep the write-ahead log from being reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReaderInterrupt(Arc<AtomicU64>);

impl ReaderInterrupt {
    /// Stops all reads that are under way.
    pub(crate) fn all(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often reads have been stopped.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Idle connections, the one that was used longest ago first.
pub(crate) struct IdleConnections {
    kept: Mutex<Vec<ReadConnection>>,
    connections_max: usize,
}

impl IdleConnections {
    /// An empty pool that keeps at most `connections_max`.
    pub(crate) fn new(connections_max: usize) -> Self {
        Self { kept: Mutex::default(), connections_max }
    }

    /// Takes an idle connection to this segment, if there is one.
    pub(crate) fn take(&self, segment: &Arc<Segment>) -> Option<ReadConnection> {
        let mut kept = self.kept.lock();
        let at = kept.iter().rposition(|connection| Arc::ptr_eq(&connection.segment, segment))?;
        Some(kept.remove(at))
    }

    /// Keeps the connection for the next question if its segment is current. Returns one that is to be closed, which
    /// takes a moment and had better not be done under a lock: this one, or the oldest when there are too many.
    pub(crate) fn give_back(&self, connection: ReadConnection, is_current: bool) -> Option<ReadConnection> {
        if !is_current {
            return Some(connection);
        }
        let mut kept = self.kept.lock();
        kept.push(connection);
        (kept.len() > self.connections_max).then(|| kept.remove(0))
    }

    /// Closes those to a segment that is no longer current.
    pub(crate) fn close_of(&self, segment: &Arc<Segment>) {
        self.kept.lock().retain(|connection| !Arc::ptr_eq(&connection.segment, segment));
    }

    /// Closes all idle connections.
    pub(crate) fn close_all(&self) {
        self.kept.lock().clear();
    }
}

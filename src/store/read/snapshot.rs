//! One question's look at the segments: the same ones from its beginning to its end.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::{
    event::EventRow,
    metrics::ReadRefused,
    store::{
        error::{ReadError, is_transient},
        format::{file, row},
        segments::{
            ColumnsSnapshot, Content, Hidden, Key, ReadConnection, ReaderInterrupt, Segment, Segments, View, WatchState,
        },
    },
};

/// Virtual machine instructions between two looks at the clock: some tens of microseconds.
const INSTRUCTIONS_PER_LOOK: i32 = 4_000;
/// A connection's page cache, in KiB: the pages on the way to a row; the file system caches the rest.
const READER_CACHE_KIB: u32 = 256;

/// The store as it is at one moment.
pub struct Snapshot<'a> {
    segments: &'a Segments,
    view: Arc<View>,
    /// The rows in memory, by the number of their segment.
    columns: Vec<(i64, ColumnsSnapshot)>,
    /// The connection used last: questions tend to stay with a segment for a while.
    connection: RefCell<Option<ReadConnection>>,
    interrupt: ReaderInterrupt,
    limits: WatchState,
    /// Events with an earlier `createdAt` are older than the retention: in no answer.
    pub(crate) expired_before: i64,
    /// Most keys that the question may hold in memory.
    pub(crate) keys_max: usize,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(
        segments: &'a Segments,
        interrupt: ReaderInterrupt,
        limits: WatchState,
        expired_before: i64,
        keys_max: usize,
    ) -> Self {
        let view = segments.view();
        let in_memory = |segment: &Arc<Segment>| match &segment.content {
            Content::Open(open) => Some((segment.number, open.columns()?.snapshot())),
            Content::Sealed(_) => None,
        };
        let columns = view.segments.iter().filter_map(in_memory).collect();
        Self { segments, view, columns, connection: RefCell::default(), interrupt, limits, expired_before, keys_max }
    }

    /// A snapshot for the start: nobody waits for it, so time and memory are not limited.
    pub(crate) fn at_start(segments: &'a Segments) -> Self {
        let deadline = Instant::now() + Duration::from_secs(24 * 60 * 60);
        let limits = WatchState { deadline, interrupts: 0 };
        Self::new(segments, ReaderInterrupt::default(), limits, i64::MIN, usize::MAX)
    }

    /// One event, mapped while its row is at hand.
    pub fn event<T>(
        &self,
        sequence: u64,
        map: impl FnOnce(&EventRow<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let Some(segment) = self.segment_with(sequence) else { return Ok(None) };
        let hidden = self.hidden(segment);
        let is_gone = |row: &EventRow<'_>| {
            let key = Key { created_at: row.created_at, sequence };
            row.created_at < self.expired_before || hidden.is_some_and(|hidden| hidden.holds(key))
        };
        let event = self.on(segment, |connection| {
            row::fetch(connection, sequence, |row| if is_gone(row) { Ok(None) } else { map(row).map(Some) })
        })?;
        Ok(event.flatten())
    }

    /// The segments, by number.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.view.segments
    }

    /// The keys in memory of the rows of a segment that has no index.
    pub(crate) fn columns(&self, segment: &Segment) -> Option<&ColumnsSnapshot> {
        self.columns.iter().find(|(number, _)| *number == segment.number).map(|(_, columns)| columns)
    }

    /// What is hidden in a segment.
    pub(crate) fn hidden(&self, segment: &Segment) -> Option<&Hidden> {
        self.view.hidden(segment.number)
    }

    /// The highest sequence of all that there is to see.
    pub(crate) fn high_water_mark(&self) -> u64 {
        let last = |segment: &Arc<Segment>| match self.columns(segment) {
            Some(columns) => Some(columns.last_sequence()).filter(|last| *last > 0),
            None => segment.sequences().map(|(_, last)| last),
        };
        self.segments().iter().rev().find_map(last).unwrap_or(0)
    }

    /// The number of a website in the streams; `None` if it has no events.
    pub(crate) fn site(&self, website_id: &str) -> Option<u32> {
        self.segments.sites.find(website_id.as_bytes())
    }

    /// The segment that a sequence would be in.
    pub(crate) fn segment_with(&self, sequence: u64) -> Option<&Arc<Segment>> {
        let holds = |segment: &&Arc<Segment>| segment.sequences().is_some_and(|(first, _)| first <= sequence);
        // Sequences rise with the segments' numbers: only the newest segment that begins at or below it can hold it.
        self.segments()
            .iter()
            .rev()
            .find(holds)
            .filter(|segment| segment.sequences().is_some_and(|(_, last)| sequence <= last))
    }

    /// Puts a question to one segment.
    pub(crate) fn on<T>(
        &self,
        segment: &Arc<Segment>,
        question: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        // SQLite's progress handler sees to long statements; between many short ones the clock is looked at here.
        if Instant::now() > self.limits.deadline {
            return Err(ReadError::Refused(ReadRefused::Deadline));
        }
        let last = self.connection.take();
        let at_hand = match last {
            Some(last) if Arc::ptr_eq(&last.segment, segment) => last,
            last => {
                last.into_iter().for_each(|last| self.segments.give_back(last));
                self.connect(segment).inspect_err(|error| self.note_damage(segment, error))?
            }
        };
        let answer = question(&at_hand.connection);
        if let Err(ReadError::Storage(error)) = &answer {
            self.note_damage(segment, error);
        }
        self.connection.replace(Some(at_hand));
        answer
    }

    fn connect(&self, segment: &Arc<Segment>) -> rusqlite::Result<ReadConnection> {
        let connection = match self.segments.connections.take(segment) {
            Some(connection) => connection,
            None => self.open(segment)?,
        };
        *connection.watch.lock() = self.limits;
        Ok(connection)
    }

    fn open(&self, segment: &Arc<Segment>) -> rusqlite::Result<ReadConnection> {
        let connection = file::open_read_only(&segment.path, segment.is_sealed())?;
        connection.execute_batch(&format!("PRAGMA cache_size = -{READER_CACHE_KIB};"))?;
        let watch = Arc::new(Mutex::new(self.limits));
        let (watched, interrupt) = (Arc::clone(&watch), self.interrupt.clone());
        let is_sealed = segment.is_sealed();
        let stop = move || {
            let limits = *watched.lock();
            Instant::now() > limits.deadline || (!is_sealed && interrupt.count() != limits.interrupts)
        };
        connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(stop))?;
        Ok(ReadConnection { segment: Arc::clone(segment), connection, watch })
    }

    /// A sealed segment that SQLite cannot read is damaged: the next question does without it.
    fn note_damage(&self, segment: &Segment, error: &rusqlite::Error) {
        if segment.is_sealed() && !is_transient(error, &segment.path) {
            self.segments.note_damage(segment.number, &segment.path, error);
        }
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.segments.give_back(connection);
        }
    }
}

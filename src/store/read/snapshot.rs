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
        format::{blocks::BlockError, file, row},
        segments::{
            Content, Hidden, Key, KeysSnapshot, LaidKeys, ReadConnection, ReaderInterrupt, Segment, Segments, Stream,
            View, WatchState,
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
    durable: u64,
    view: Arc<View>,
    /// The keys of rows without an index, by the number of their segment.
    keys: Vec<(i64, KeysSnapshot)>,
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
        // Before the view: what was durable by then is in it.
        let durable = segments.durable();
        let view = segments.view();
        let of_open = |segment: &Arc<Segment>| match &segment.content {
            Content::Open(open) => Some((segment.number, open.keys())),
            Content::Sealed(_) => None,
        };
        let keys = view.segments.iter().filter_map(of_open).collect();
        Self {
            segments,
            durable,
            view,
            keys,
            connection: RefCell::default(),
            interrupt,
            limits,
            expired_before,
            keys_max,
        }
    }

    /// A snapshot for the start: nobody waits for it, so time and memory are not limited.
    pub(crate) fn at_start(segments: &'a Segments) -> Self {
        let deadline = Instant::now() + Duration::from_secs(24 * 60 * 60);
        let limits = WatchState::new(deadline, 0);
        Self::new(segments, ReaderInterrupt::default(), limits, i64::MIN, usize::MAX)
    }

    /// Another, of the present moment, for what must not end with the question.
    pub(crate) fn without_limits(&self, deadline: Instant) -> Self {
        let limits = WatchState::new(deadline, self.interrupt.count());
        Self::new(self.segments, self.interrupt.clone(), limits, i64::MIN, usize::MAX)
    }

    /// Another of the same moment and for the same question, for a thread that reads beside this one. It has no keys of
    /// rows without an index.
    pub(crate) fn beside(&self) -> Self {
        Self {
            segments: self.segments,
            durable: self.durable,
            view: Arc::clone(&self.view),
            keys: Vec::new(),
            connection: RefCell::default(),
            interrupt: self.interrupt.clone(),
            limits: self.limits.clone(),
            expired_before: self.expired_before,
            keys_max: self.keys_max,
        }
    }

    /// Whether the question may go on, for what takes long without a statement.
    pub(crate) fn check_limits(&self) -> Result<(), ReadError> {
        if self.limits.is_gone() {
            return Err(ReadError::Refused(ReadRefused::Gone));
        }
        if Instant::now() > self.limits.deadline {
            return Err(ReadError::Refused(ReadRefused::Deadline));
        }
        Ok(())
    }

    /// For how long the question may go on.
    pub(crate) fn time_left(&self) -> Duration {
        self.limits.deadline.saturating_duration_since(Instant::now())
    }

    /// What the segments share.
    pub(crate) fn shared(&self) -> &'a Segments {
        self.segments
    }

    /// One event, mapped while its row is at hand.
    pub fn event<T>(
        &self,
        sequence: u64,
        map: impl FnOnce(&EventRow<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let Some(segment) = self.segment_with(sequence) else { return Ok(None) };
        let hidden = self.hidden(segment.number);
        let is_gone = |row: &EventRow<'_>| {
            let Some(hidden) = hidden.filter(|_| row.created_at >= self.expired_before) else {
                return Ok(row.created_at < self.expired_before);
            };
            let stream = Stream::new(self.segments.sites.number(row.website_id), row.event_type);
            let is_hidden = hidden.of(stream).holds(Key { created_at: row.created_at, sequence });
            is_hidden.map_err(|unreadable| self.remake_list(segment.number, &unreadable))
        };
        let event = self.on(segment, |connection| {
            row::fetch(connection, sequence, |row| if is_gone(row)? { Ok(None) } else { map(row).map(Some) })
        })?;
        Ok(event.flatten())
    }

    /// The segments, by number.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.view.segments
    }

    /// The keys of the rows of a segment that has no index.
    pub(crate) fn keys(&self, segment: &Segment) -> Option<&KeysSnapshot> {
        let at = self.keys.binary_search_by_key(&segment.number, |(number, _)| *number).ok()?;
        Some(&self.keys[at].1)
    }

    /// What was read of keys that were laid down. Those that cannot be read are made anew from the rows; as the
    /// question looks at the segments of one moment, it must be asked again.
    pub(crate) fn read_laid<T>(
        &self,
        segment: &Segment,
        keys: &Arc<LaidKeys>,
        read: Result<T, BlockError>,
    ) -> Result<T, ReadError> {
        let error = match read {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        let number = segment.number;
        tracing::warn!(segment = number, %error, "the keys of a segment are made anew from its rows");
        match self.segments.remake_keys(segment, keys) {
            Ok(None) => {}
            Ok(Some(error)) => tracing::warn!(
                segment = number, %error,
                "the keys of a segment are made anew, and stay in memory: they could not be laid down"
            ),
            Err(error) if error.is_for_want_of_room() => {
                tracing::error!(
                    segment = number, %error,
                    "the keys of a segment can't be made anew: there is no room to lay them down, and with them \
                     more than unsealed_rows_max would be in memory. What is asked of it is refused until there is \
                     room: make some on the file system of the data directory"
                );
                return Err(ReadError::Refused(ReadRefused::NoRoom));
            }
            Err(error) => tracing::error!(
                segment = number, %error,
                "the keys of a segment could not be made anew: what is asked of it is refused until they are"
            ),
        }
        Err(ReadError::Refused(ReadRefused::Keys))
    }

    /// What is hidden in the segment with this number.
    pub(crate) fn hidden(&self, number: i64) -> Option<&Hidden> {
        self.view.hidden(number)
    }

    /// The highest sequence that was durable by then, whether it is still there or not.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.max(self.high_water_mark())
    }

    /// The highest sequence of all that there is to see.
    pub(crate) fn high_water_mark(&self) -> u64 {
        let last = |segment: &Arc<Segment>| match self.keys(segment) {
            Some(KeysSnapshot::InMemory(columns)) => Some(columns.last_sequence()).filter(|last| *last > 0),
            _ => segment.sequences().map(|(_, last)| last),
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
        if self.limits.is_gone() {
            return Err(ReadError::Refused(ReadRefused::Gone));
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
        *connection.watch.lock() = self.limits.clone();
        Ok(connection)
    }

    fn open(&self, segment: &Arc<Segment>) -> rusqlite::Result<ReadConnection> {
        let connection = file::open_read_only(&segment.path, segment.is_sealed() || self.is_at_rest(segment))?;
        connection.execute_batch(&format!("PRAGMA cache_size = -{READER_CACHE_KIB};"))?;
        // By now the file is open: if the directory is where it was, the file is one of its own.
        if let Err(lost) = self.segments.directory.check() {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
            return Err(rusqlite::Error::SqliteFailure(code, Some(lost.to_string())));
        }
        let watch = Arc::new(Mutex::new(self.limits.clone()));
        let (watched, interrupt) = (Arc::clone(&watch), self.interrupt.clone());
        let is_sealed = segment.is_sealed();
        let stop = move || {
            let limits = watched.lock();
            let is_in_the_way = !is_sealed && interrupt.count() != limits.interrupts;
            Instant::now() > limits.deadline || limits.is_gone() || is_in_the_way
        };
        connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(stop))?;
        Ok(ReadConnection { segment: Arc::clone(segment), connection, watch })
    }

    /// Whether a segment without indexes is full and its write-ahead log empty: nobody writes to it any more, and
    /// reading it as what never changes takes no file beside it, for which a full disk has no room.
    fn is_at_rest(&self, segment: &Segment) -> bool {
        let newest = self.segments().last().map(|newest| newest.number);
        newest.is_some_and(|newest| segment.number < newest) && !file::has_wal(&segment.path)
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

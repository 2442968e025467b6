//! The ids of events at the start: those of the runs on the disk, and those of the events that no run is of.
//!
//! A run may say more than the events do, or less. It was written of what was committed; but where a loss of power took
//! the last moments, or the directory is a copy, there are fewer events by now, and their sequences are about to be
//! given to others: such ids are taken out. And where a run is lost or damaged, its ids are read from the events again.

use std::{
    cmp::Reverse,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clock::now_ms,
    event::IdHash,
    store::{
        error::OpenError,
        format::{DataDir, IDS, blocks::BlockError, file, schema, sync_directory},
        ids::{Age, Entry, IdRun, IdTable, Ids, Span, UNFINISHED, is_run, lay_down, merge},
        options::IdOptions,
        segments::{Segment, Segments},
    },
};

/// What a start has found.
pub(crate) struct FoundIds {
    /// The oldest first.
    pub(crate) runs: Vec<Arc<IdRun>>,
    /// Those of all events from this sequence on.
    pub(crate) newest: IdTable,
    pub(crate) newest_from: u64,
    /// When the newest of these arrived, in milliseconds since 1970, UTC.
    pub(crate) newest_received_at: i64,
}

/// Where ids are looked for.
struct Finding<'a> {
    folder: PathBuf,
    segments: &'a [Arc<Segment>],
    options: IdOptions,
    /// An empty table, with as much room as any gets.
    new_table: &'a dyn Fn() -> IdTable,
    now_ms: i64,
    /// Of what is made anew while hitlog runs.
    age: Option<Age>,
    runs: Vec<Arc<IdRun>>,
}

/// Finds the ids of the events with a sequence below `next_sequence`.
pub(crate) fn find_ids(
    directory: &DataDir,
    segments: &[Arc<Segment>],
    options: IdOptions,
    new_table: &dyn Fn() -> IdTable,
    next_sequence: u64,
) -> Result<FoundIds, OpenError> {
    let (folder, now_ms) = (directory.path().join(IDS), now_ms());
    let mut finding = Finding { folder, segments, options, new_table, now_ms, age: None, runs: Vec::new() };
    finding.open_runs(next_sequence)?;
    let runs = std::mem::take(&mut finding.runs);
    // What had been forgotten on purpose is not looked for.
    let mut from = runs.iter().map(|run| run.span.forgotten).max().unwrap_or(0) + 1;
    for run in runs {
        if from < run.span.first {
            let (rest, rest_from, newest_received_at) = finding.read(from, run.span.first - 1)?;
            let span = (rest_from, run.span.first - 1);
            finding.lay_down_if_possible(&rest, span, newest_received_at);
        }
        from = from.max(run.span.last + 1);
        finding.runs.push(run);
    }
    let (newest, newest_from, newest_received_at) = finding.read(from, next_sequence - 1)?;
    Ok(FoundIds { runs: finding.runs, newest, newest_from, newest_received_at })
}

/// Makes a damaged run anew from the events.
pub(crate) fn remake(ids: &Ids, segments: &Segments, damaged: &IdRun) -> Result<Vec<Arc<IdRun>>, OpenError> {
    let (view, options) = (segments.view(), ids.options());
    let mut finding = Finding {
        folder: ids.folder(),
        segments: &view.segments,
        options,
        new_table: &|| ids.new_table(0),
        now_ms: now_ms(),
        age: Some(damaged.age),
        runs: Vec::new(),
    };
    let Span { first, last, .. } = damaged.span;
    let (rest, rest_from, newest_received_at) = finding.read(first, last)?;
    let laid_down = finding.lay_down(&rest, (rest_from, last), newest_received_at);
    laid_down.map_err(|error| OpenError::io("lay down ids of events in", &finding.folder)(io::Error::other(error)))?;
    Ok(finding.runs)
}

impl Finding<'_> {
    /// Opens the runs that are on the disk, and removes what is of no use.
    fn open_runs(&mut self, next_sequence: u64) -> Result<(), OpenError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(OpenError::io("read the directory", &self.folder))?,
        };
        let mut opened = Vec::new();
        for entry in entries {
            let path = entry.map_err(OpenError::io("read the directory", &self.folder))?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some(UNFINISHED) => remove(&path)?,
                Some(name) if is_run(name) => opened.extend(self.open(&path, next_sequence)?),
                // Not hitlog's.
                _ => {}
            }
        }
        opened.sort_by_key(|run| (run.span.first, Reverse(run.span.last)));
        let mut last = 0;
        for run in opened {
            // A merged run has all that is in those that it was made of, of which a crash may have left some.
            if run.span.last <= last {
                remove(&run.path)?;
                continue;
            }
            last = run.span.last;
            self.runs.push(Arc::new(run));
        }
        // What a loss of power brought back later would claim the sequences of other events.
        sync_directory(&self.folder)
    }

    /// Opens one run; `None` if it is of no use, and by now gone.
    fn open(&self, path: &Path, next_sequence: u64) -> Result<Option<IdRun>, OpenError> {
        let mut run = match IdRun::open(path, self.age(0)) {
            Ok(run) => run,
            Err(BlockError::Io(error)) => return Err(OpenError::io("read the ids of events", path)(error)),
            Err(error @ BlockError::Damaged(_)) => {
                tracing::warn!(%error, "ids of events are made anew from the events");
                return remove(path).map(|()| None);
            }
        };
        let age = self.age(run.span.newest_received_at);
        if age.newest_at.elapsed() > self.options.window || run.span.first >= next_sequence {
            return remove(path).map(|()| None);
        }
        if run.span.last < next_sequence {
            run.age = age;
            return Ok(Some(run));
        }
        let trimmed = merge(&[Arc::new(run)], next_sequence, &mut || true);
        remove(path)?;
        let trimmed = trimmed.map_err(|error| error.to_string());
        let reopened = trimmed.and_then(|path| IdRun::open(&path, age).map_err(|error| error.to_string()));
        match reopened {
            Ok(run) => Ok(Some(run)),
            Err(error) => {
                tracing::warn!(%error, "ids of events that are not there could not be taken out of the others");
                Ok(None)
            }
        }
    }

    /// The age of ids the newest of which came then.
    fn age(&self, newest_received_at: i64) -> Age {
        if let Some(age) = self.age {
            return age;
        }
        let milliseconds = u64::try_from(self.now_ms.saturating_sub(newest_received_at)).unwrap_or(0);
        // No machine has run for as long as what came before it.
        let newest_at = Instant::now().checked_sub(Duration::from_millis(milliseconds));
        let long_ago = || Instant::now().checked_sub(self.options.window + Duration::from_secs(1));
        Age { number: 0, newest_at: newest_at.or_else(long_ago).unwrap_or_else(Instant::now) }
    }

    /// Reads the ids of the events with sequences from one to another, and lays down what fills tables. Returns the
    /// rest, from which sequence on it is, and when the newest of all arrived.
    fn read(&mut self, from: u64, to: u64) -> Result<(IdTable, u64, i64), OpenError> {
        let (mut table, mut table_from, mut newest_received_at) = ((self.new_table)(), from, 0);
        for segment in self.in_window(from, to)? {
            let connection = open(&segment)?;
            let sqlite = || OpenError::sqlite(&segment.path);
            let mut select = connection.prepare(schema::SELECT_IDS).map_err(sqlite())?;
            let mut rows = select.query([from.cast_signed(), to.cast_signed()]).map_err(sqlite())?;
            while let Some(row) = rows.next().map_err(sqlite())? {
                let read =
                    || Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?, row.get(2)?, row.get::<_, i64>(3)?));
                let (sequence, hash, created_at, received_at) = read().map_err(sqlite())?;
                if table.room() == 0 {
                    let full = std::mem::replace(&mut table, (self.new_table)());
                    self.lay_down_if_possible(&full, (table_from, sequence - 1), newest_received_at);
                    table_from = sequence;
                }
                let hash = IdHash(u128::from_be_bytes(hash));
                table.find_or_add(Entry { hash, sequence, created_at });
                newest_received_at = newest_received_at.max(received_at);
            }
        }
        Ok((table, table_from, newest_received_at))
    }

    /// The segments with events of these sequences that may have ids, without those that are too old.
    fn in_window(&self, from: u64, to: u64) -> Result<Vec<Arc<Segment>>, OpenError> {
        let window_ms = i64::try_from(self.options.window.as_millis()).unwrap_or(i64::MAX);
        let mut found = Vec::new();
        for segment in self.segments.iter().rev() {
            let Some((first, last)) = segment.sequences() else { continue };
            if last < from {
                break;
            }
            if first > to {
                continue;
            }
            let connection = open(segment)?;
            let newest = file::newest_received_at(&connection).map_err(OpenError::sqlite(&segment.path))?;
            if newest.is_some_and(|newest| newest < self.now_ms.saturating_sub(window_ms)) {
                break;
            }
            let version: i64 = schema::pragma(&connection, &segment.path, "user_version")?;
            if version >= schema::SEGMENT_VERSION_OF_IDS {
                found.push(Arc::clone(segment));
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Lays a table down, if there is room for that.
    fn lay_down_if_possible(&mut self, table: &IdTable, span: (u64, u64), newest_received_at: i64) {
        if let Err(error) = self.lay_down(table, span, newest_received_at) {
            let ids = table.len();
            tracing::warn!(%error, ids, "ids of events are not known in this run: they could not be laid down");
        }
    }

    fn lay_down(
        &mut self,
        table: &IdTable,
        (first, last): (u64, u64),
        newest_received_at: i64,
    ) -> Result<(), BlockError> {
        if first <= last {
            // Of none, when that was known.
            let newest_received_at = if table.len() == 0 { self.now_ms } else { newest_received_at };
            let span = Span { first, last, newest_received_at, forgotten: 0 };
            self.runs.push(Arc::new(lay_down(&self.folder, table, span, self.age(newest_received_at))?));
        }
        Ok(())
    }
}

fn open(segment: &Segment) -> Result<rusqlite::Connection, OpenError> {
    let opened = if segment.is_sealed() {
        file::open_read_only(&segment.path, true)
    } else {
        file::open_unwritten(&segment.path)
    };
    opened.map_err(OpenError::sqlite(&segment.path))
}

fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

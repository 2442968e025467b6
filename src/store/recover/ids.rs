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
        error::{OpenError, is_damage},
        format::{DataDir, IDS, blocks::BlockError, file, schema, sync_directory},
        ids::{Age, Entry, Forgotten, IdRun, IdTable, Ids, Span, UNFINISHED, lay_down, merge, open_new, runs},
        options::IdOptions,
        segments::{Segment, Segments},
    },
};

/// What a start has found.
pub(crate) struct FoundIds {
    /// The oldest first.
    pub(crate) runs: Vec<Arc<IdRun>>,
    /// What could not be laid down.
    pub(crate) unlaid: Vec<UnlaidIds>,
    /// Those of the newest events.
    pub(crate) newest: UnlaidIds,
    /// What is known no more.
    pub(crate) forgotten: Forgotten,
}

/// Ids that are not laid down yet.
pub(crate) struct UnlaidIds {
    pub(crate) table: IdTable,
    /// They are of all events from this sequence to this one.
    pub(crate) sequences: (u64, u64),
    /// When the newest of these arrived, in milliseconds since 1970, UTC.
    pub(crate) newest_received_at: i64,
}

/// Segments older than the window that are looked at before it is believed that all before them are.
const OLD_SEGMENTS: usize = 8;

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
    unlaid: Vec<UnlaidIds>,
    forgotten: Forgotten,
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
    let mut finding = Finding {
        folder,
        segments,
        options,
        new_table,
        now_ms,
        age: None,
        runs: Vec::new(),
        unlaid: Vec::new(),
        forgotten: Forgotten::default(),
    };
    finding.open_runs(next_sequence)?;
    let runs = std::mem::take(&mut finding.runs);
    // What had been forgotten on purpose is not looked for.
    let mut from = (finding.forgotten.sequence + 1).min(next_sequence);
    for run in runs {
        if from < run.span.first {
            let rest = finding.read(from, run.span.first - 1)?;
            finding.lay_down_if_possible(rest);
        }
        from = from.max(run.span.last + 1);
        finding.runs.push(run);
    }
    let newest = finding.read(from, next_sequence - 1)?;
    Ok(FoundIds { runs: finding.runs, unlaid: finding.unlaid, newest, forgotten: finding.forgotten })
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
        unlaid: Vec::new(),
        forgotten: damaged.span.forgotten,
    };
    let Span { first, last, .. } = damaged.span;
    let rest = finding.read(first, last)?;
    let laid_down = finding.lay_down(&rest);
    let io = |error| OpenError::io("lay down ids of events in", &finding.folder)(io::Error::other(error));
    laid_down.map_err(io)?;
    if finding.unlaid.is_empty() {
        Ok(finding.runs)
    } else {
        Err(io(BlockError::Io(io::ErrorKind::StorageFull.into())))
    }
}

impl Finding<'_> {
    /// Opens the runs that are on the disk, and removes what is of no use.
    fn open_runs(&mut self, next_sequence: u64) -> Result<(), OpenError> {
        // What is no folder is in the way of the keeper, which says so.
        if !self.folder.is_dir() {
            return Ok(());
        }
        // What has the name and is no file was never hitlog's.
        UNFINISHED
            .map(|name| self.folder.join(name))
            .iter()
            .filter(|path| path.is_file())
            .try_for_each(|path| remove(path))?;
        let mut opened = Vec::new();
        for path in runs(&self.folder)? {
            opened.extend(self.open(&path, next_sequence)?);
        }
        opened.sort_by_key(|run| (run.span.first, Reverse(run.span.last)));
        let (mut last, mut kept) = (0, Vec::new());
        for run in opened {
            // A merged run has all that is in those that it was made of, of which a crash may have left some.
            if run.span.last <= last {
                remove(&run.path)?;
                continue;
            }
            last = run.span.last;
            kept.push(run);
        }
        // Afterwards: what is cut off may get the name of one that was removed.
        for run in kept {
            self.runs.extend(self.trim(run, next_sequence)?.map(Arc::new));
        }
        // What a loss of power brought back later would claim the sequences of other events.
        sync_directory(&self.folder)
    }

    /// Opens one run; `None` if it is of no use, and by now gone.
    fn open(&mut self, path: &Path, next_sequence: u64) -> Result<Option<IdRun>, OpenError> {
        let mut run = match IdRun::open(path, self.age(0)) {
            Ok(run) => run,
            Err(BlockError::Io(error)) => return Err(OpenError::io("read the ids of events", path)(error)),
            Err(error @ BlockError::Damaged(_)) => {
                tracing::warn!(%error, "ids of events are made anew from the events");
                return remove(path).map(|()| None);
            }
        };
        if run.span.first >= next_sequence {
            return remove(path).map(|()| None);
        }
        self.forgotten = self.forgotten.max(run.span.forgotten);
        run.age = self.age(run.span.newest_received_at);
        if run.age.newest_at.elapsed() > self.options.window {
            self.forgotten = self.forgotten.max(run.span.as_forgotten());
            return remove(path).map(|()| None);
        }
        Ok(Some(run))
    }

    /// Cuts off what no event has; `None` if that could not be, and the run is gone.
    fn trim(&self, run: IdRun, next_sequence: u64) -> Result<Option<IdRun>, OpenError> {
        if run.span.last < next_sequence {
            return Ok(Some(run));
        }
        let (path, age) = (run.path.clone(), run.age);
        let trimmed = merge(&[Arc::new(run)], next_sequence, &mut || true);
        remove(&path)?;
        let trimmed = trimmed.map_err(|error| error.to_string());
        match trimmed.and_then(|path| open_new(&path, age).map_err(|error| error.to_string())) {
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
    /// rest.
    fn read(&mut self, from: u64, to: u64) -> Result<UnlaidIds, OpenError> {
        let mut ids = UnlaidIds { table: (self.new_table)(), sequences: (from, to), newest_received_at: 0 };
        for segment in self.in_window(from, to)? {
            match self.read_segment(&segment, (from, to), &mut ids) {
                // Its events are in no answer either.
                Err(error) if segment.is_sealed() && is_damage(&error) => {
                    tracing::warn!(
                        segment = %segment.path.display(), %error,
                        "ids of events cannot be read: those events are stored again if they are sent again"
                    );
                }
                read => read.map_err(OpenError::sqlite(&segment.path))?,
            }
        }
        Ok(ids)
    }

    fn read_segment(&mut self, segment: &Segment, (from, to): (u64, u64), ids: &mut UnlaidIds) -> rusqlite::Result<()> {
        let connection = open(segment)?;
        let mut select = connection.prepare(schema::SELECT_IDS)?;
        let mut rows = select.query([from.cast_signed(), to.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let sequence = row.get::<_, i64>(0)?.unsigned_abs();
            if ids.table.room() == 0 {
                let rest = UnlaidIds { table: (self.new_table)(), sequences: (sequence, to), newest_received_at: 0 };
                let mut full = std::mem::replace(ids, rest);
                full.sequences.1 = sequence - 1;
                self.lay_down_if_possible(full);
            }
            let hash = IdHash(u128::from_be_bytes(row.get(1)?));
            ids.table.find_or_add(Entry { hash, sequence, created_at: row.get(2)? });
            ids.newest_received_at = ids.newest_received_at.max(row.get(3)?);
        }
        Ok(())
    }

    /// The segments with events of these sequences that may have ids, without those that are too old.
    fn in_window(&mut self, from: u64, to: u64) -> Result<Vec<Arc<Segment>>, OpenError> {
        let window_ms = i64::try_from(self.options.window.as_millis()).unwrap_or(i64::MAX);
        let (mut found, mut old) = (Vec::new(), 0);
        for segment in self.segments.iter().rev() {
            let Some((first, last)) = segment.sequences() else { continue };
            if last < from {
                break;
            }
            if first > to {
                continue;
            }
            let look = |connection: rusqlite::Connection| {
                let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
                Ok((version, file::newest_received_at(&connection)?))
            };
            let (version, newest) = match open(segment).and_then(look) {
                Err(error) if segment.is_sealed() && is_damage(&error) => continue,
                looked => looked.map_err(OpenError::sqlite(&segment.path))?,
            };
            if let Some(received_at) = newest.filter(|newest| *newest < self.now_ms.saturating_sub(window_ms)) {
                self.forgotten = self.forgotten.max(Forgotten { sequence: last, received_at });
                old += 1;
                // Times do not always rise: a clock may have been wrong for a while.
                if old == OLD_SEGMENTS {
                    break;
                }
                continue;
            }
            if version >= schema::SEGMENT_VERSION_OF_IDS {
                found.push(Arc::clone(segment));
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Lays a table down, or notes that it could not be.
    fn lay_down_if_possible(&mut self, ids: UnlaidIds) {
        let Err(error) = self.lay_down(&ids) else { return };
        tracing::warn!(%error, ids = ids.table.len(), "ids of events stay in memory: they could not be laid down");
        self.unlaid.push(ids);
        // What may be in memory at all is decided where the rest of it is known; until then half must do.
        let tables_max = (self.options.bytes_max / 2 / self.options.table_bytes.max(1)).max(1);
        if self.unlaid.len() > tables_max {
            self.unlaid.remove(0);
        }
    }

    fn lay_down(&mut self, ids: &UnlaidIds) -> Result<(), BlockError> {
        let (first, last) = ids.sequences;
        if first <= last {
            // Of none, when that was known.
            let newest_received_at = if ids.table.len() == 0 { self.now_ms } else { ids.newest_received_at };
            let span = Span { first, last, newest_received_at, forgotten: self.forgotten };
            self.runs.push(Arc::new(lay_down(&self.folder, &ids.table, span, self.age(newest_received_at))?));
        }
        Ok(())
    }
}

fn open(segment: &Segment) -> rusqlite::Result<rusqlite::Connection> {
    if segment.is_sealed() { file::open_read_only(&segment.path, true) } else { file::open_unwritten(&segment.path) }
}

fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

//! Older ids, in a file: sorted by their hashes, with a filter in memory, so that an id which is not in it is not
//! looked for on the disk. Written once; a merge writes another that takes the place of several.
//!
//! What is in memory is a filter (`filter`), and an eighth of a bit of fence posts an id.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::io::Errno;

use super::{
    filter::{FuseFilter, FuseWriter, IdFilter, TAGGED_IDS_MAX, Tags},
    paths::run_path,
    table::{Entry, IdTable, halves},
};
use crate::{
    event::{IdHash, Original},
    store::format::{
        blocks::{BlockError, BlockFile, BlockWriter},
        make_directory,
        room::free_bytes,
        sync_directory,
    },
};

/// The version of the header.
const VERSION: u64 = 1;
/// An entry: the higher and the lower half of the hash, the sequence, `createdAt`; 8 bytes each, little-endian.
const ENTRY_BYTES: usize = 32;
/// Entries between two fence posts: as many as a block of the file has.
const POST_ENTRIES: usize = 512;
/// Entries that are read at once when a run is read through.
const READ_ENTRIES: u64 = 4_096;

/// What a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Every id of an event with a sequence from this one ...
    pub(crate) first: u64,
    /// ... to this one is in it.
    pub(crate) last: u64,
    /// When the newest of them arrived, in milliseconds since 1970, UTC; of none, when that was known.
    pub(crate) newest_received_at: i64,
    /// What had been forgotten, on purpose, when it was written.
    pub(crate) forgotten: Forgotten,
}

/// What is known no more: it is older than the window, or there was no memory for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Forgotten {
    /// Ids of events up to this sequence.
    pub(crate) sequence: u64,
    /// When the newest of these had arrived, in milliseconds since 1970, UTC.
    pub(crate) received_at: i64,
}

impl Span {
    /// What is forgotten when this is.
    pub(crate) fn as_forgotten(&self) -> Forgotten {
        Forgotten { sequence: self.last, received_at: self.newest_received_at }
    }
}

/// How new the ids of a run are, for this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age {
    /// The number of the newest table that is in it; 0 of one from before the start.
    pub(crate) number: u64,
    /// When the newest id came.
    pub(crate) newest_at: Instant,
}

/// The ids of a run of sequences.
#[derive(Debug)]
pub(crate) struct IdRun {
    pub(crate) path: PathBuf,
    pub(crate) span: Span,
    pub(crate) count: u64,
    pub(crate) age: Age,
    file: BlockFile,
    /// The higher half of the hash of every 512th entry.
    posts: Box<[u64]>,
    filter: IdFilter,
}

impl IdRun {
    /// Opens a run. One of another version counts as damaged.
    pub(crate) fn open(path: &Path, age: Age) -> Result<Self, BlockError> {
        Self::read_whole(path, age).map_err(|error| as_damage(error, path))
    }

    fn read_whole(path: &Path, age: Age) -> Result<Self, BlockError> {
        let (file, header) = BlockFile::open(path)?;
        let damaged = || BlockError::Damaged(path.into());
        let Header { span, count, posts, filters } = Header::read(&header).ok_or_else(damaged)?;
        let filters: Option<Box<[FuseFilter]>> =
            filters.into_iter().map(|at| Ok(FuseFilter::read(&file.read(at)?))).collect::<Result<_, BlockError>>()?;
        let filter = IdFilter::Fuse(filters.ok_or_else(damaged)?);
        let run = Self { path: path.into(), span, count, age, file, posts, filter };
        if count > TAGGED_IDS_MAX { Ok(run) } else { run.with_tags() }
    }

    /// Reads a run through: whether it is what was written.
    pub(crate) fn check(path: &Path) -> Result<(), BlockError> {
        let run = Self::open(path, Age { number: 0, newest_at: Instant::now() })?;
        let mut entries = run.entries();
        while entries.next()?.is_some() {}
        Ok(())
    }

    /// With what a small run has in memory.
    fn with_tags(mut self) -> Result<Self, BlockError> {
        let mut tags = Tags::of(self.count);
        let mut entries = self.entries();
        while let Some(entry) = entries.next()? {
            tags.add(&entry);
        }
        self.filter = IdFilter::Tags(tags.finish());
        Ok(self)
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.filter.bytes() + 2 * size_of_val(&*self.posts)
    }

    /// Whether the id may be in it; no means no.
    pub(crate) fn may_hold(&self, hash: IdHash) -> bool {
        self.filter.may_hold(hash)
    }

    /// Marks those of many ids that may be in it. One run after the other: a filter that was just looked in is at hand,
    /// and while one look waits for memory the next ones begin.
    pub(crate) fn mark(&self, ids: &[(usize, IdHash)], marks: &mut [bool]) {
        self.filter.mark(ids, marks);
    }

    /// Looks for an id on the disk.
    pub(crate) fn find(&self, hash: IdHash) -> Result<Option<Original>, BlockError> {
        let (high, _) = halves(hash);
        let mut block = self.posts.partition_point(|post| *post < high).saturating_sub(1);
        // The entries whose first half is that of a post may begin in the block before it.
        while self.posts.get(block).is_some_and(|post| *post <= high) {
            let entries = self.read(block as u64 * POST_ENTRIES as u64, POST_ENTRIES as u64)?;
            if let Ok(at) = entries.binary_search_by_key(&hash, |entry| entry.hash) {
                return Ok(Some(entries[at].original()));
            }
            block += 1;
        }
        Ok(None)
    }

    /// All entries from the first on, by their hashes.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { run: self, read: Vec::new().into_iter(), next: 0 }
    }

    fn read(&self, from: u64, count: u64) -> Result<Vec<Entry>, BlockError> {
        let bytes = ENTRY_BYTES as u64;
        let read = self.file.read(from * bytes..(from + count).min(self.count) * bytes);
        let read = read.map_err(|error| as_damage(error, &self.path))?;
        Ok(read.chunks_exact(ENTRY_BYTES).map(entry_of).collect())
    }
}

/// What the disk does not give back, and what is not there any more, is damaged: it can be made anew.
fn as_damage(error: BlockError, path: &Path) -> BlockError {
    match error {
        BlockError::Io(error)
            if error.raw_os_error() == Some(Errno::IO.raw_os_error()) || error.kind() == io::ErrorKind::NotFound =>
        {
            BlockError::Damaged(path.into())
        }
        error => error,
    }
}

/// What reads a run through.
pub(super) struct Entries<'a> {
    run: &'a IdRun,
    read: std::vec::IntoIter<Entry>,
    next: u64,
}

impl Entries<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Entry>, BlockError> {
        if self.read.len() == 0 && self.next < self.run.count {
            self.read = self.run.read(self.next, READ_ENTRIES)?.into_iter();
            self.next += READ_ENTRIES;
        }
        Ok(self.read.next())
    }
}

/// A run that is being written.
pub(crate) struct RunWriter {
    file: BlockWriter,
    folder: PathBuf,
    span: Span,
    count: u64,
    posts: Vec<u64>,
    /// A small run has none.
    filters: Option<FuseWriter>,
}

impl RunWriter {
    /// Begins a run of up to so many entries, which has one of the names of [`UNFINISHED`] until it is complete.
    pub(crate) fn begin(folder: &Path, unfinished: &str, span: Span, entries_max: u64) -> io::Result<Self> {
        // On a disk that is about to be full, events and what is asked of them go first.
        if free_bytes(folder).is_some_and(|free| free / 2 < entries_max * (ENTRY_BYTES as u64 + 3)) {
            return Err(Errno::NOSPC.into());
        }
        let file = BlockWriter::create(&folder.join(unfinished))?;
        let filters = (entries_max > TAGGED_IDS_MAX).then(|| FuseWriter::new(entries_max));
        Ok(Self { file, folder: folder.into(), span, count: 0, posts: Vec::new(), filters })
    }

    /// Adds the entry with the next higher hash.
    pub(crate) fn add(&mut self, entry: Entry) -> io::Result<()> {
        let (high, low) = halves(entry.hash);
        if self.count.is_multiple_of(POST_ENTRIES as u64) {
            self.posts.push(high);
        }
        self.count += 1;
        if let Some(filters) = &mut self.filters {
            filters.add(&entry)?;
        }
        let mut bytes = [0; ENTRY_BYTES];
        for (place, number) in
            bytes.chunks_exact_mut(8).zip([high, low, entry.sequence, entry.created_at.cast_unsigned()])
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.file.write(&bytes)
    }

    /// Makes the run durable and gives it its name.
    pub(crate) fn finish(mut self) -> io::Result<PathBuf> {
        let Span { first, last, newest_received_at, forgotten } = self.span;
        // What was thought to be more may be less: the ids that a merge leaves out.
        let filters = self.filters.filter(|_| self.count > TAGGED_IDS_MAX);
        let filters = filters.map_or(Ok(Vec::new()), FuseWriter::finish)?;
        let mut header = Vec::new();
        let mut note = |number: u64| header.extend_from_slice(&number.to_le_bytes());
        let Forgotten { sequence, received_at } = forgotten;
        let times = [newest_received_at, received_at].map(i64::cast_unsigned);
        [VERSION, first, last, times[0], sequence, times[1], self.count].into_iter().for_each(&mut note);
        note(self.posts.len() as u64);
        self.posts.iter().for_each(|post| note(*post));
        note(filters.len() as u64);
        for filter in filters {
            note(self.file.position());
            self.file.write(&filter)?;
            note(self.file.position());
        }
        let path = run_path(&self.folder, first, last);
        self.file.finish(&header, &path)?;
        // Its events may be erased before the next start, which could not make it anew then.
        sync_directory(&self.folder).map_err(io::Error::other)?;
        Ok(path)
    }
}

/// Writes a table as a run, and opens that.
pub(crate) fn lay_down(folder: &Path, table: &IdTable, span: Span, age: Age) -> Result<IdRun, BlockError> {
    match make_directory(folder) {
        Ok(()) => sync_directory(folder.parent().unwrap_or(folder)).map_err(io::Error::other)?,
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        Err(_) => {}
    }
    let mut writer = RunWriter::begin(folder, LAYING, span, table.len() as u64)?;
    table.sorted().into_iter().try_for_each(|entry| writer.add(entry))?;
    open_new(&writer.finish()?, age)
}

/// Opens a run that was just written. One that cannot be must not be found by a start.
pub(crate) fn open_new(path: &Path, age: Age) -> Result<IdRun, BlockError> {
    IdRun::open(path, age).inspect_err(|_| drop(fs::remove_file(path)))
}

/// What a run is called until it is complete, when it is laid down and when it is merged: a table is laid down while
/// runs are being merged.
pub(crate) const UNFINISHED: [&str; 2] = [LAYING, MERGING];
const LAYING: &str = "laying";
pub(super) const MERGING: &str = "merging";
fn entry_of(bytes: &[u8]) -> Entry {
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
        u64::from_le_bytes(number)
    };
    let hash = IdHash(u128::from(number(0)) << 64 | u128::from(number(1)));
    Entry { hash, sequence: number(2), created_at: number(3).cast_signed() }
}

/// What stands behind the entries.
struct Header {
    span: Span,
    count: u64,
    posts: Box<[u64]>,
    filters: Vec<Range<u64>>,
}

impl Header {
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut number = || {
            let (first, rest) = bytes.split_first_chunk()?;
            bytes = rest;
            Some(u64::from_le_bytes(*first))
        };
        if number()? != VERSION {
            return None;
        }
        let (first, last, newest_received_at) = (number()?, number()?, number()?.cast_signed());
        let forgotten = Forgotten { sequence: number()?, received_at: number()?.cast_signed() };
        let (count, posts) = (number()?, number()?);
        let posts: Option<Box<[u64]>> = (0..posts).map(|_| number()).collect();
        let posts = posts?;
        let filters = number()?;
        let filters: Option<Vec<_>> = (0..filters).map(|_| Some(number()?..number()?)).collect();
        let filters = filters?;
        let is_whole = posts.len() as u64 == count.div_ceil(POST_ENTRIES as u64)
            && (count <= TAGGED_IDS_MAX || filters.len().is_power_of_two());
        let span = Span { first, last, newest_received_at, forgotten };
        (is_whole && first <= last && bytes.is_empty()).then_some(Self { span, count, posts, filters })
    }
}

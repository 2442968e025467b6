//! What can go wrong with the storage, by operation, and how SQLite's codes are read.

mod cause;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) use self::cause::{
    WAL_INDEX_FULL, io_advice, is_damage, is_disk_full, is_errno_of_full_disk, is_no_room, is_transient, lacks_room,
    sqlite_advice,
};
use crate::{
    command::{hitlog, write_off},
    metrics::{ReadOutcome, ReadRefused},
};

/// Why a data directory can't be used any more: its paths lead elsewhere, so that what is written would be lost, or
/// would be in somebody else's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DirectoryLost(Arc<str>);

impl DirectoryLost {
    pub(super) fn new(reason: impl Into<Arc<str>>) -> Self {
        Self(reason.into())
    }
}

/// Why a data directory cannot be opened. [`Self::InUse`], [`Self::Foreign`], [`Self::NoCatalog`], [`Self::Newer`],
/// [`Self::NotOurs`], [`Self::OlderCopy`] and [`Self::Overlap`] are found before anything that is stored is changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error(
        "the data directory {0} is in use by another hitlog; stop that one, or choose another directory with --data-dir"
    )]
    InUse(PathBuf),
    /// The directory holds something else.
    #[error(
        "the data directory {0} is not empty and has no catalog.db of hitlog's; choose an empty one with --data-dir"
    )]
    Foreign(PathBuf),
    /// There are segments, but the catalog that lists them is lost.
    #[error(
        "the data directory {0} has events but no catalog.db, or an empty one; put the one that was there back, with \
         its -wal, or restore a backup of both into another directory"
    )]
    NoCatalog(PathBuf),
    /// A file was written by a newer hitlog.
    #[error(
        "{path} has format version {found}, and this hitlog knows up to {known}; start the newer hitlog that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        found: i64,
        /// The newest version that this hitlog knows.
        known: i64,
    },
    /// A file is not what its name says.
    #[error(
        "{path} is not a file of hitlog's ({reason}); leave it as it is until you know where it comes from, and put \
         back the file that was there, or restore a backup into another directory"
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another program goes on reading a segment that the start must empty the write-ahead log of.
    #[error("{0} is being read by another program, such as a backup; wait for its end, or end it, and start again")]
    BeingRead(PathBuf),
    /// The linked SQLite has a bug that loses data.
    #[error(
        "SQLite {0} can lose commits in WAL mode; build hitlog with SQLite 3.51.3 or later (the default build does)"
    )]
    SqliteTooOld(&'static str),
    /// The events of an unfinished erasure, named by its id, could not be looked for.
    #[error("cannot look for what the erasure {0} removes: {1}; see whether the segments can be read")]
    Erasure(Arc<str>, ReadError),
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}; {}", io_advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot open {path}: {source}; {}", sqlite_advice(source, path))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// There is no room for what a start must write to read what is stored.
    #[error("there is too little room in {path}: a start needs {bytes} bytes there to read what is stored: {source}")]
    NoRoom {
        /// The data directory.
        path: PathBuf,
        /// The bytes that it needs.
        bytes: u64,
        /// What found no room.
        source: Box<OpenError>,
    },
    /// A segment is not what SQLite wrote.
    #[error(
        "{path} is damaged ({reason}); look at the disk and the memory of this machine, leave the directory as it is, \
         and restore a backup into another one{}",
        or_write_off(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        reason: String,
    },
    /// A segment that has no indexes yet is listed and has no file.
    #[error(
        "{path} is listed in catalog.db and is not there; put that very file back, with its -wal: an older copy lacks \
         what came after it. If catalog.db was replaced by an older one, put that back; if that is lost, start once \
         with `{}`. Then `{}` tells of files that may take its place, and `{}` what it would mean to go on without it",
        hitlog(["serve", "--restored"]), hitlog(["quarantine", "list"]), write_off(*number)
    )]
    LostSegment {
        /// The file.
        path: PathBuf,
        /// The segment's number.
        number: i64,
    },
    /// A segment without indexes holds less than it is known to have held.
    #[error(
        "{path} holds {}, and catalog.db knows that it held events up to sequence {noted}: it is an older copy. Put \
         the very file back that was there, with its -wal. If that is lost, `{}`, said once, goes on with what this \
         one holds", held(*.found), hitlog(["serve", "--restored"])
    )]
    OlderCopy {
        /// The file.
        path: PathBuf,
        /// The last sequence in it.
        found: Option<u64>,
        /// The last sequence that the catalog knows of.
        noted: u64,
    },
    /// A segment has sequences that belong to another, or to one after it.
    #[error(
        "{path} holds sequences {} to {}, and {other}, which comes before it, {} to {}: one was put into the place of \
         another file. Put the file that was there back{}{}",
        .sequences.0, .sequences.1, .other_sequences.0, .other_sequences.1, or_write_off(path), or_write_off(other)
    )]
    Overlap {
        /// The file.
        path: PathBuf,
        /// The first and the last sequence in it.
        sequences: (u64, u64),
        /// The file of the segment before it.
        other: PathBuf,
        /// The first and the last sequence in that one.
        other_sequences: (u64, u64),
    },
    /// The list of segments could not be changed.
    #[error("cannot change the list of segments: {0}")]
    Catalog(#[from] CatalogError),
    /// The directory was moved or replaced meanwhile.
    #[error("{0}; start hitlog again when it is where it should be")]
    Lost(#[from] DirectoryLost),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}; raise the limit on processes and threads (ulimit -u)")]
    Thread(std::io::Error),
}

impl OpenError {
    /// What is wrong, without the file's name and without advice.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Newer { found, known, .. } => format!("its format version is {found}, and {known} is known"),
            Self::NotOurs { reason, .. } | Self::Damaged { reason, .. } => reason.clone(),
            Self::Io { source, .. } => source.to_string(),
            Self::Sqlite { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn sqlite(path: impl Into<PathBuf>) -> impl FnOnce(rusqlite::Error) -> Self {
        let path = path.into();
        move |source| Self::Sqlite { path, source }
    }

    /// Whether there was no room for what was to be done.
    pub(super) fn is_for_want_of_room(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_no_room(source),
            Self::Sqlite { source, .. } => lacks_room(source),
            Self::Catalog(error) => *error == CatalogError::StorageFull,
            _ => false,
        }
    }
}

/// The words for what a segment holds that is an older copy.
fn held(found: Option<u64>) -> String {
    found.map_or_else(|| "no events".into(), |last| format!("events up to sequence {last}"))
}

/// More words for whoever cannot put a file back, where its name is that of a segment.
fn or_write_off(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.split_once('.').and_then(|(digits, _)| digits.parse().ok());
    let command = number.map(write_off);
    command.map_or_else(String::new, |command| format!("; `{command}` tells what it would mean to go on without it"))
}

/// Why a group was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room, and the whole transaction is rolled back: nothing of the group is stored.
    #[error("the disk is full: {0}")]
    StorageFull(String),
    /// The storage failed in another way. The group may or may not be found after a restart, so nothing may be tried
    /// again.
    #[error("the storage failed: {0}")]
    Fatal(rusqlite::Error),
    /// The data directory was moved or replaced. What was committed is in it, wherever it is now; nothing may be tried
    /// again.
    #[error(transparent)]
    Lost(#[from] DirectoryLost),
}

impl AppendError {
    /// Reads an error of a transaction; `rolled_back` says whether SQLite is out of the transaction again.
    pub(super) fn classify(error: rusqlite::Error, rolled_back: bool) -> Self {
        if is_disk_full(&error) && rolled_back { Self::StorageFull(error.to_string()) } else { Self::Fatal(error) }
    }
}

/// Why the catalog did not do as it was asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// There is no such website.
    #[error("no such website")]
    NotFound,
    /// Another website has that domain.
    #[error("another website has that domain")]
    DomainTaken,
    /// As many earlier tracking codes of the website are valid as may be; nothing was changed. The next one ends at
    /// this time, in milliseconds since 1970, UTC.
    #[error("as many earlier tracking codes of the website are valid as may be")]
    CodesFull(i64),
    /// The disk is full; nothing was changed.
    #[error("the disk is full")]
    StorageFull,
    /// Segments were rewritten since the events to erase were looked for; nothing was changed.
    #[error("segments were rewritten meanwhile")]
    Stale,
    /// Too many changes wait; nothing was changed.
    #[error("too many changes wait")]
    Busy,
    /// As many erasures are remembered as may be; nothing was changed.
    #[error("as many erasures are remembered as may be")]
    ErasuresFull,
    /// The storage failed; the change may or may not be found after a restart.
    #[error("the storage failed")]
    Unknown,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Refused or given up for now.
    #[error("the read was given up: {}", ReadOutcome::from(*.0).as_str())]
    Refused(ReadRefused),
    /// SQLite could not read.
    #[error("the storage could not be read: {0}")]
    Storage(#[from] rusqlite::Error),
    /// What is laid down beside the events, keys or ids, could not be read.
    #[error("what is laid down beside the events could not be read: {0}")]
    Keys(Box<dyn std::error::Error + Send + Sync>),
    /// There is no room for what was found and must be laid down.
    #[error("the disk is full: {0}")]
    StorageFull(std::io::Error),
    /// The reader failed, or hitlog is stopping.
    #[error("the readers have stopped")]
    Stopped,
}

/// Called with the reason when a thread of the store finds that the storage can't be trusted any more.
pub type OnFailure = Arc<dyn Fn(String) + Send + Sync>;

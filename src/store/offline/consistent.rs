//! Reading one file so that what was read is what the file held.
//!
//! Three kinds of file, three ways. A sealed one never changes. One with a write-ahead log is read as SQLite reads it
//! beside a writer, and must still have its name afterwards: had the daemon unlinked its log before it was opened, rows
//! would be missing. One without a log (hitlog has stopped, or it is a backup, perhaps on a disk that cannot be written
//! to) is read as though it never changed, because SQLite would otherwise leave a log of its own beside it, and must be
//! found unchanged afterwards; so is one beside which the log of another is left, which the next start sets aside.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, ErrorCode};

use crate::store::format::{file, ties::has_own_wal};

/// What came of a look at a file.
pub(super) enum Observed<T> {
    /// What was read is what the file held.
    Consistent(T),
    /// The file was replaced, written to or removed meanwhile: look again.
    Changed,
}

/// Opens a file, puts a question to it, and sees whether the file stayed the same meanwhile.
pub(super) fn read_consistent<T>(
    path: &Path,
    sealed: bool,
    question: impl FnOnce(&Connection) -> T,
) -> rusqlite::Result<Observed<T>> {
    let Some(guard) = Guard::of(path, sealed) else { return Ok(Observed::Changed) };
    let connection = match file::open_read_only(path, guard.is_immutable()) {
        Ok(connection) => connection,
        // With too few file descriptors the file is there, and asking again would not help.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !path.exists() => {
            return Ok(Observed::Changed);
        }
        Err(error) => return Err(error),
    };
    // A tool leaves no file anywhere, and what it sorts is small.
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    let answer = question(&connection);
    Ok(if guard.holds(path) { Observed::Consistent(answer) } else { Observed::Changed })
}

/// Two writes within one tick of the kernel's clock leave a file with one and the same time. A file that was written to
/// this recently is given the time to show the next write.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// What must still be true when a file has been read.
pub(super) enum Guard {
    /// Nothing: it never changes, and an open file stays readable when its name is gone.
    Sealed,
    /// The file still has its name.
    Live,
    /// The file is the same, and still has no write-ahead log of its own.
    Still(Stamp),
}

impl Guard {
    /// `None` if there is no such file.
    pub(super) fn of(path: &Path, sealed: bool) -> Option<Self> {
        let mut stamp = Stamp::of(path).ok()?;
        if sealed {
            return Some(Self::Sealed);
        }
        if stamp.is_fresh() {
            thread::sleep(CLOCK_TICK);
            stamp = Stamp::of(path).ok()?;
        }
        Some(if has_own_wal(path) { Self::Live } else { Self::Still(stamp) })
    }

    /// Whether SQLite may take the file for one that never changes.
    pub(super) fn is_immutable(&self) -> bool {
        !matches!(self, Self::Live)
    }

    /// Whether all that was read since is good.
    pub(super) fn holds(&self, path: &Path) -> bool {
        match self {
            Self::Sealed => true,
            Self::Live => path.exists(),
            // A daemon that has started writes to the log first, and into the file only from there.
            Self::Still(stamp) => !has_own_wal(path) && Stamp::of(path).is_ok_and(|now| now == *stamp),
        }
    }
}

/// What changes when a file is written to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    len: u64,
    modified: SystemTime,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let of = fs::metadata(path)?;
        Ok(Self { file: (of.dev(), of.ino()), len: of.len(), modified: of.modified()? })
    }

    fn is_fresh(&self) -> bool {
        // A time ahead of the clock does not tell how long ago it was.
        self.modified.elapsed().is_ok_and(|age| age < CLOCK_TICK)
    }
}

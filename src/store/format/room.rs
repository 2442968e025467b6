//! Room for a start: what a start must write so that reads are answered, and a file that keeps that much free.
//!
//! A full disk has no room for the indexes of write-ahead logs, without which nobody reads what is in those. So a file
//! of a few MiB is kept for that moment: a start that finds too little room gives it up, and it is made again when
//! there is room. Until then no event is taken, as events would use up what reads need.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::Rng;
use rustix::{fs::OFlags, io::Errno, process::geteuid};

use super::{
    access::make_file,
    directory::{DataDir, RESERVE, SegmentName, SegmentPaths, is_file},
    file,
};
use crate::store::error::{OpenError, is_no_room};

/// How much room there is while the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough for everything.
    Enough,
    /// For nothing but what reads need: what can wait stays where it is, in the write-ahead logs.
    Scarce,
}

/// Opens the store with the room that there is: with little the store is opened as it is, and the reserve is given up
/// for that.
pub(crate) fn open_with_room<T>(
    directory: &DataDir,
    reserve_bytes: u64,
    mut open: impl FnMut(Room) -> Result<T, OpenError>,
) -> Result<(T, Reserve), OpenError> {
    let paths = directory.segment_paths();
    remove_unfinished(&paths)?;
    let reserve = Reserve::find(directory, reserve_bytes);
    let (least, all) = bytes_of_start(directory, &paths);
    let free = free_bytes(directory.path());
    // What is free by the system's word may be less to hitlog: by a quota, by a limit, by what file systems keep for
    // themselves. So what fails for want of room is tried with less.
    let mut failed = None;
    for (room, keeps_reserve, bytes) in
        [(Room::Enough, true, all), (Room::Scarce, true, least), (Room::Scarce, false, 0)]
    {
        if free.is_some_and(|free| free < bytes) {
            continue;
        }
        if room == Room::Scarce {
            tracing::warn!(
                data_dir = %directory.path().display(), free_bytes = free, wanted_bytes = all,
                "there is too little room to copy the write-ahead logs: what is in them is served from there"
            );
        }
        if !keeps_reserve {
            reserve.give_up("reads are answered")?;
        }
        match open(room) {
            Err(error) if error.is_for_want_of_room() => failed = Some(error),
            other => return other.map(|opened| (opened, reserve)),
        }
    }
    let nothing = || OpenError::io("find room in", directory.path())(Errno::NOSPC.into());
    let source = Box::new(failed.unwrap_or_else(nothing));
    Err(OpenError::NoRoom { path: directory.path().into(), bytes: least, source })
}

/// Removes what an interrupted rewriting was building: nobody lists it, and it takes much of the room.
fn remove_unfinished(paths: &SegmentPaths) -> Result<(), OpenError> {
    for entry in fs::read_dir(paths.folder()).map_err(OpenError::io("read the directory", paths.folder()))? {
        let entry = entry.map_err(OpenError::io("read the directory", paths.folder()))?;
        if entry.file_name().to_str().map(SegmentPaths::parse) == Some(SegmentName::Unfinished) {
            if !is_file(&entry)? {
                continue;
            }
            tracing::info!(file = %entry.path().display(), "removing what an interrupted rewriting has left");
            fs::remove_file(entry.path()).map_err(OpenError::io("remove the leftover", entry.path()))?;
        }
    }
    Ok(())
}

/// What a start writes at the least, and what it writes when it also copies the write-ahead logs into their files.
fn bytes_of_start(directory: &DataDir, paths: &SegmentPaths) -> (u64, u64) {
    /// Of the index of a write-ahead log, for so many frames; and one is asked for ahead.
    const INDEX_BYTES: u64 = 32 << 10;
    const FRAMES: u64 = 4_062;
    /// The least that a frame takes, with a page of the least size that hitlog makes.
    const FRAME_BYTES_MIN: u64 = 512 + 24;
    /// For names, the lock, and changes of the catalog.
    const BESIDE: u64 = 256 << 10;
    let open = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        let is_open = matches!(SegmentPaths::parse(name), SegmentName::Generation(_, 1)) && name.ends_with(".db");
        is_open.then_some(path)
    };
    let segments = fs::read_dir(paths.folder()).into_iter().flatten().filter_map(open);
    // The catalog, the active segment and the prepared one are opened for writing, whatever is in their logs.
    let begin = BESIDE + 3 * 2 * INDEX_BYTES;
    let (mut least, mut all) = (begin, begin);
    for path in segments.chain([directory.catalog_path()]) {
        let wal = file::bytes(&file::with_suffix(&path, "-wal"));
        if wal == 0 {
            continue;
        }
        let index = INDEX_BYTES * (2 + wal / FRAME_BYTES_MIN / FRAMES);
        least += index;
        all += index + wal;
    }
    (least, all)
}

/// A file system, in bytes.
pub(crate) struct FileSystem {
    /// What this process may still take.
    pub(crate) free_bytes: u64,
    pub(crate) size_bytes: u64,
}

/// The file system that this folder is in, if the system tells of it.
pub(crate) fn of_file_system(folder: &Path) -> Option<FileSystem> {
    let of = rustix::fs::statvfs(folder).ok()?;
    let free = if geteuid().is_root() { of.f_bfree } else { of.f_bavail };
    let bytes = |blocks: u64| blocks.saturating_mul(of.f_frsize);
    Some(FileSystem { free_bytes: bytes(free), size_bytes: bytes(of.f_blocks) })
}

/// The room that is left where this folder is, if the system tells.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    of_file_system(folder).map(|of| of.free_bytes)
}

/// The file that keeps room, shared by those who make it and those who need the room.
#[derive(Debug, Clone)]
pub(crate) struct Reserve(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    bytes: u64,
    stands: bool,
    /// When it is tried again after a try in vain, and how long that was waited for.
    next_try: Option<(Instant, Duration)>,
}

/// The first and the longest wait for another try. Where only a try tells, as under a quota, each takes the room of
/// everybody else for a moment.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

impl Reserve {
    fn find(directory: &DataDir, bytes: u64) -> Self {
        let path = directory.path().join(RESERVE);
        let stands = file::bytes(&path) == bytes;
        Self(Arc::new(Mutex::new(Kept { path, bytes, stands, next_try: None })))
    }

    /// Whether it keeps the room that it is to keep.
    pub(crate) fn stands(&self) -> bool {
        self.0.lock().stands
    }

    /// Gives the room to something that cannot go on without: no event is taken until there is as much again.
    pub(crate) fn give_up(&self, wherefore: &str) -> Result<(), OpenError> {
        let mut kept = self.0.lock();
        kept.stands = false;
        match fs::remove_file(&kept.path) {
            Ok(()) => tracing::warn!(file = %kept.path.display(), "the reserve is given up so that {wherefore}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpenError::io("give up the reserve", &kept.path)(error)),
        }
        Ok(())
    }

    /// Makes it, if it does not stand and there is room. Returns whether it stands.
    pub(crate) fn restore(&self) -> bool {
        self.0.lock().restore()
    }
}

impl Kept {
    fn restore(&mut self) -> bool {
        if self.stands {
            return true;
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        let is_in_vain = self.bytes > 0 && free_bytes(folder).is_some_and(|free| free <= self.bytes);
        if is_in_vain || self.next_try.is_some_and(|(at, _)| at > Instant::now()) {
            return false;
        }
        match self.write() {
            Ok(()) => self.stands = true,
            Err(error) if is_no_room(&error) => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!(file = %self.path.display(), %error, "what there is of the reserve stays");
                }
                let wait = self.next_try.map_or(WAITS.0, |(_, wait)| WAITS.1.min(2 * wait));
                self.next_try = Some((Instant::now() + wait, wait));
            }
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the reserve cannot be made: going on without one");
                self.stands = true;
            }
        }
        self.stands
    }

    fn write(&self) -> io::Result<()> {
        if self.bytes == 0 {
            // An older run's.
            return fs::remove_file(&self.path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            });
        }
        make_file(&self.path)?;
        // Where a link leads is not hitlog's.
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().truncate(true).write(true).custom_flags(no_link).open(&self.path)?;
        let (mut written, mut part) = (0, vec![0; 64 << 10]);
        while written < self.bytes {
            // What could be compressed or shared would keep no room.
            rand::rng().fill_bytes(&mut part);
            let count = part.len().min(usize::try_from(self.bytes - written).unwrap_or(usize::MAX));
            match file.write_all(&part[..count]) {
                // Larger than a file may be here, whatever room there is: it is what it can be.
                Err(error) if error.raw_os_error() == Some(Errno::FBIG.raw_os_error()) => break,
                written => written?,
            }
            written += count as u64;
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite_full(path: &Path) -> OpenError {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        OpenError::sqlite(path)(rusqlite::Error::SqliteFailure(full, None))
    }

    #[test]
    fn the_reserve_is_given_up_for_a_start_and_made_again() {
        let work = tempfile::tempdir().unwrap();
        let directory = DataDir::open(work.path()).unwrap();
        let path = work.path().join(RESERVE);
        let ((), reserve) = open_with_room(&directory, 100_000, |_| Ok(())).unwrap();
        assert!(!reserve.stands() && reserve.restore() && reserve.stands());
        assert_eq!(file::bytes(&path), 100_000);

        let mut tried = Vec::new();
        let (opened, reserve) = open_with_room(&directory, 100_000, |room| {
            tried.push((room, path.exists()));
            if room == Room::Enough { Err(sqlite_full(&path)) } else { Ok(7) }
        })
        .unwrap();
        assert_eq!((opened, tried), (7, vec![(Room::Enough, true), (Room::Scarce, true)]));
        assert!(reserve.restore(), "it stands");
        tried = Vec::new();
        let (opened, reserve) = open_with_room(&directory, 100_000, |room| {
            tried.push((room, path.exists()));
            if path.exists() { Err(sqlite_full(&path)) } else { Ok(8) }
        })
        .unwrap();
        assert_eq!((opened, tried), (8, vec![(Room::Enough, true), (Room::Scarce, true), (Room::Scarce, false)]));
        assert!(!reserve.stands() && reserve.restore());
        assert_eq!(file::bytes(&path), 100_000);

        let refused = open_with_room(&directory, 100_000, |_| Err::<(), _>(sqlite_full(&path))).unwrap_err();
        assert!(matches!(refused, OpenError::NoRoom { bytes: 300_000.., .. }), "{refused}");
        assert!(refused.to_string().contains("bytes"), "{refused}");
        let mut tries = 0;
        let failed = open_with_room(&directory, 100_000, |_| {
            tries += 1;
            Err::<(), _>(OpenError::BeingRead(path.clone()))
        });
        assert!(matches!(failed, Err(OpenError::BeingRead(_))) && tries == 1, "nothing but room is made up for");
    }

    #[test]
    fn without_a_reserve_none_is_kept() {
        let work = tempfile::tempdir().unwrap();
        let directory = DataDir::open(work.path()).unwrap();
        fs::write(work.path().join(RESERVE), "an older run's").unwrap();
        let ((), reserve) = open_with_room(&directory, 0, |_| Ok(())).unwrap();
        assert!(reserve.restore() && !work.path().join(RESERVE).exists());
    }

    #[test]
    fn what_was_being_built_goes_first() {
        let work = tempfile::tempdir().unwrap();
        let directory = DataDir::open(work.path()).unwrap();
        let paths = directory.segment_paths();
        fs::write(paths.unfinished(3), "half").unwrap();
        fs::write(paths.of(3, 1), "whole").unwrap();
        let no_files = [paths.unfinished(4), paths.of(4, 1).with_extension("making"), paths.hidden(4, 3)];
        no_files.iter().for_each(|path| fs::create_dir(path).unwrap());
        open_with_room(&directory, 0, |_| {
            assert!(!paths.unfinished(3).exists() && paths.of(3, 1).exists());
            assert!(no_files.iter().all(|path| path.is_dir()), "what is no file is left alone");
            Ok(())
        })
        .unwrap();
    }
}

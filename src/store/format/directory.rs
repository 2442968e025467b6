//! The data directory: who may be in it, whether it is where it was, and where its files are.
//!
//! SQLite opens files by their paths. When the directory is moved, deleted or replaced beneath a running hitlog, its
//! paths lead to nothing, or to what belongs to somebody else; so what they lead to is compared with what was opened,
//! before a file is opened, made or removed, and twice a second.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    access,
    identity::{FileId, leads_to},
    last_backup::{LAST_BACKUP, UNFINISHED_LAST_BACKUP},
    lock::{LOCK, is_lock_file, lock_directory, lock_file},
    names::{CATALOG, IDS, SEGMENTS, bytes, has_wal, with_suffix},
    salts::SALTS,
    sync::sync_directory,
    ties::{TIES, Ties, UNFINISHED_TIES},
    vfs,
};
use crate::{
    command::{absolute, quote},
    store::error::{DirectoryLost, OpenError},
};

/// What is kept from others beside the catalog, as far as it is there.
const RESTRICTED: [&str; 9] = [LOCK, SEGMENTS, IDS, SCRATCH, RESERVE, TIES, LAST_BACKUP, SALTS, "quarantine"];
/// Where SQLite sorts what does not fit into memory, unless a setting names another folder.
pub(crate) const SCRATCH: &str = "scratch";
/// The file that keeps room for a start.
pub(crate) const RESERVE: &str = "reserve";
/// What an interrupted first start, or `mkfs`, may have left in a directory that is otherwise new.
const NEW_DIRECTORY_MAY_HOLD: [&str; 11] = [
    LOCK,
    SEGMENTS,
    IDS,
    SCRATCH,
    RESERVE,
    TIES,
    UNFINISHED_TIES,
    // Not of a new one; but where the catalog is lost, what it says must not depend on whether there were backups.
    LAST_BACKUP,
    UNFINISHED_LAST_BACKUP,
    SALTS,
    "lost+found",
];

/// A data directory, locked for this process until the last clone of the value is gone.
#[derive(Debug, Clone)]
pub struct DataDir(Arc<Opened>);

/// The directory as it was opened.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    /// Locked.
    directory: File,
    segments: File,
    /// The file `lock`, locked as well; made anew when it is deleted.
    lock: Mutex<File>,
    /// The files of databases that are open, by their paths.
    files: Mutex<BTreeMap<PathBuf, FileId>>,
    /// Why the directory can't be used any more, once it can't.
    lost: OnceLock<DirectoryLost>,
    /// Whether somebody was told that the lock could not be made anew.
    lock_failed: AtomicBool,
    ties: Ties,
}

impl DataDir {
    /// Opens the directory, making it if only its last part is missing (a missing parent is more likely a disk
    /// that is not mounted), and locks it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        vfs::install();
        match access::make_directory(path) {
            Ok(()) => sync_directory(path.parent().unwrap_or(path))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_foreign(path)?,
            Err(error) => return Err(OpenError::io("make the directory", path)(error)),
        }
        let locked = lock_directory(path).map_err(OpenError::io("lock the directory", path))?;
        let directory = locked.ok_or_else(|| OpenError::InUse(path.into()))?;
        let lock = lock_file(&directory).map_err(OpenError::io("lock", path.join(LOCK)))?;
        let lock = lock.ok_or_else(|| OpenError::InUse(path.into()))?;
        let segments = path.join(SEGMENTS);
        match access::make_directory(&segments) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(OpenError::io("make the directory", segments)(error));
            }
            _ => sync_directory(path)?,
        }
        let opened = Opened {
            path: path.into(),
            directory,
            segments: File::open(&segments).map_err(OpenError::io("open the directory", segments))?,
            lock: Mutex::new(lock),
            files: Mutex::default(),
            lost: OnceLock::new(),
            lock_failed: AtomicBool::new(false),
            ties: Ties::of_directory(path),
        };
        let directory = Self(Arc::new(opened));
        directory.check()?;
        directory.restrict_access();
        Ok(directory)
    }

    /// Takes what is in the directory from those who may not read it, and lets in who may: the group, where the
    /// settings say so. Of the directory itself nothing is taken, as it may have been made for more.
    fn restrict_access(&self) {
        let opened = &*self.0;
        let catalog = ["", "-wal", "-shm", "-journal"].map(|suffix| with_suffix(&self.catalog_path(), suffix));
        let others = RESTRICTED.map(|name| opened.path.join(name));
        if let Err(error) = access::restrict(catalog.iter().chain(&others)) {
            tracing::warn!(
                %error, directory = %opened.path.display(),
                "the files of the data directory can't be kept from other users of this machine"
            );
        }
        let path = opened.path.display();
        match access::let_group_in(&opened.directory) {
            Ok(None) => {}
            Ok(Some(mode)) => tracing::info!("the group of {path} may read it from now on: its mode is {mode:o}"),
            Err(mode) => tracing::warn!(
                "file_access lets the group of {path} read what is in it, and its mode keeps the group out. Let its \
                 owner do: chmod {mode:o} {}",
                quote(absolute(&opened.path))
            ),
        }
        if let Some(mode) = access::wider_than(&opened.directory) {
            tracing::warn!(
                "other users of this machine may look into the data directory, though not into its files; to keep them \
                 out: chmod {mode:o} {}",
                quote(absolute(&opened.path))
            );
        }
    }

    /// Why nothing may be written any more: set when a look found that paths do not lead to what was opened.
    pub fn lost(&self) -> Option<&DirectoryLost> {
        self.0.lost.get()
    }

    /// Looks whether every path leads to what was opened. Once one did not, nothing is believed any more.
    pub(crate) fn check(&self) -> Result<(), DirectoryLost> {
        let Err(lost) = self.lost().map_or_else(|| self.0.look(), |lost| Err(lost.clone())) else { return Ok(()) };
        Err(self.0.lost.get_or_init(|| lost).clone())
    }

    /// From now on the paths of an open database, and of what SQLite keeps beside it, are looked at as well.
    pub(crate) fn watch(&self, database: &Path) -> Result<(), OpenError> {
        {
            let mut files = self.0.files.lock();
            for path in [database.to_owned(), with_suffix(database, "-wal"), with_suffix(database, "-shm")] {
                match FileId::of_path(&path) {
                    Ok(id) => drop(files.insert(path, id)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound && path != database => {}
                    Err(error) => return Err(OpenError::io("find", path)(error)),
                }
            }
        }
        // Afterwards: so the files are those of this directory.
        Ok(self.check()?)
    }

    /// The database is about to be closed, when SQLite removes what is beside it.
    pub(crate) fn unwatch(&self, database: &Path) {
        let mut files = self.0.files.lock();
        for suffix in ["", "-wal", "-shm"] {
            files.remove(&with_suffix(database, suffix));
        }
    }

    /// Makes the file `lock` anew if it is gone. Nobody has to end for that, as the directory itself is locked; but an
    /// older hitlog, which knows the file only, may have taken it.
    pub(crate) fn mend_lock(&self) -> Result<(), DirectoryLost> {
        self.check()?;
        let opened = &*self.0;
        let mut lock = opened.lock.lock();
        if is_lock_file(&opened.directory, &lock) {
            return Ok(());
        }
        match lock_file(&opened.directory) {
            Ok(Some(file)) => {
                *lock = file;
                tracing::info!(file = %opened.path.join(LOCK).display(), "the lock was gone, and is made anew");
            }
            Ok(None) => {
                let path = opened.path.join(LOCK);
                let reason = format!("{} was replaced, and another program has locked it", path.display());
                return Err(opened.lost.get_or_init(|| DirectoryLost::new(reason)).clone());
            }
            Err(error) if !opened.lock_failed.swap(true, Ordering::Relaxed) => {
                let file = opened.path.join(LOCK);
                tracing::warn!(
                    file = %file.display(), %error,
                    "the lock is gone and can't be made anew yet; no hitlog of this version or later can start here \
                     all the same"
                );
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether hitlog has ever started here.
    pub fn has_catalog(&self) -> bool {
        self.catalog_path().exists()
    }

    pub(crate) fn catalog_path(&self) -> PathBuf {
        self.0.path.join(CATALOG)
    }

    pub(crate) fn segment_paths(&self) -> SegmentPaths {
        SegmentPaths::of_directory(&self.0.path)
    }

    /// What says which write-ahead log belongs to which file.
    pub(crate) fn ties(&self) -> &Ties {
        &self.0.ties
    }

    /// Every file that hitlog writes to through a write-ahead log, or has written to: the catalog, whether it is there
    /// or not, and the first generations of segments.
    pub(crate) fn logged_files(&self) -> Result<Vec<PathBuf>, OpenError> {
        let (mut files, folder) = (vec![self.catalog_path()], self.0.path.join(SEGMENTS));
        for entry in fs::read_dir(&folder).map_err(OpenError::io("read the directory", &folder))? {
            let path = entry.map_err(OpenError::io("read the directory", &folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".db"));
            if matches!(name.map(SegmentPaths::parse), Some(SegmentName::Generation(_, 1)))
                && path.is_file()
                && bytes(&path) > 0
            {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Nothing is written to any file from now on, and whatever had one open has closed it.
    pub(crate) fn end_ties(&self) {
        if let Err(error) = self.logged_files().and_then(|files| self.0.ties.end(&files)) {
            tracing::warn!(%error, "the list of write-ahead logs stays, which does no harm");
        }
    }

    /// The kind of file system, for people to see: durability is only as good as what it does with a sync.
    pub fn file_system(&self) -> String {
        // Magic numbers from statfs(2).
        match rustix::fs::statfs(&self.0.path).map(|stat| stat.f_type as u64 & 0xffff_ffff) {
            Ok(0xef53) => "ext4".into(),
            Ok(0x5846_5342) => "xfs".into(),
            Ok(0x9123_683e) => "btrfs".into(),
            Ok(0x2fc1_2fc1) => "zfs".into(),
            Ok(0xf2f5_2010) => "f2fs".into(),
            Ok(0x794c_7630) => "overlayfs".into(),
            Ok(0x0102_1994) => "tmpfs (in memory: nothing survives a loss of power)".into(),
            Ok(0x6969) => "nfs (SQLite's WAL mode does not work over a network)".into(),
            Ok(0xfe53_4d42 | 0xff53_4d42) => "smb (SQLite's WAL mode does not work over a network)".into(),
            Ok(magic) => format!("unknown ({magic:#x})"),
            Err(error) => format!("unknown ({error})"),
        }
    }
}

impl Opened {
    fn look(&self) -> Result<(), DirectoryLost> {
        let (path, segments) = (&self.path, self.path.join(SEGMENTS));
        for (path, file) in [(path, &self.directory), (&segments, &self.segments)] {
            let Ok(id) = FileId::of_file(file) else { continue };
            if leads_to(path, id) == Some(false) {
                let what = "is not the directory any more that hitlog has opened: that one was moved, deleted or \
                            replaced, or something was mounted over it";
                return Err(DirectoryLost::new(format!("{} {what}", path.display())));
            }
        }
        for (path, id) in &*self.files.lock() {
            if leads_to(path, *id) == Some(false) {
                let what = "is not the file any more that hitlog has open: that one was moved, deleted or replaced";
                return Err(DirectoryLost::new(format!("{} {what}", path.display())));
            }
        }
        Ok(())
    }
}

/// Where the files of segments are, and what they are called.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPaths(PathBuf);

/// What a file's name says it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SegmentName {
    /// The number and generation of a segment; or of what is kept beside it.
    Generation(i64, i64),
    /// What was being built or made, or is of use only while a process runs.
    Unfinished,
    /// Nothing that hitlog wrote.
    Foreign,
}

impl SegmentPaths {
    /// The highest number that a segment can have got: a name has twelve digits, and a segment a second lasts for
    /// three thousand years. A file with a higher one was never hitlog's.
    pub(crate) const NUMBER_MAX: i64 = 99_999_999_999;

    /// The paths in a data directory.
    pub(crate) fn of_directory(path: &Path) -> Self {
        Self(path.join(SEGMENTS))
    }

    /// The folder that holds them.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// The file of a generation of a segment.
    pub(crate) fn of(&self, number: i64, generation: i64) -> PathBuf {
        match generation {
            1 => self.0.join(format!("{number:012}.db")),
            _ => self.0.join(format!("{number:012}.g{generation}.db")),
        }
    }

    /// Where a new generation is built before it gets its name.
    pub(crate) fn unfinished(&self, number: i64) -> PathBuf {
        self.0.join(format!("{number:012}.building"))
    }

    /// Where a list of a segment's events that are to be erased is while hitlog runs.
    pub(crate) fn hidden(&self, number: i64, list: u64) -> PathBuf {
        self.0.join(format!("{number:012}.hidden-{list}"))
    }

    /// Reads a file's name. Only one that hitlog gives means a segment, or one could mean the file of another name.
    pub(crate) fn parse(name: &str) -> SegmentName {
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let Some((digits, rest)) = name.split_once('.') else { return SegmentName::Foreign };
        let number = digits.parse().ok().filter(|_| digits.len() == 12 && is_digits(digits));
        let Some(number) = number else { return SegmentName::Foreign };
        if ["building", "making", "laying", "hidden-"].iter().any(|begin| rest.starts_with(begin)) {
            return SegmentName::Unfinished;
        }
        let (generation, rest) = match rest.split_once('.') {
            None => (Some(1), rest),
            Some((generation, rest)) => {
                let digits =
                    generation.strip_prefix('g').filter(|digits| is_digits(digits) && !digits.starts_with('0'));
                // The first one's name has no generation.
                (digits.and_then(|digits| digits.parse().ok()).filter(|generation| *generation > 1), rest)
            }
        };
        match (generation, rest) {
            (Some(generation), "db" | "db-wal" | "db-shm" | "db-journal" | "db-keys") => {
                SegmentName::Generation(number, generation)
            }
            _ => SegmentName::Foreign,
        }
    }
}

/// Whether an entry of a folder that has the name of a file of hitlog's is a file. What else it may be was never
/// hitlog's: it is told of and left alone.
pub(crate) fn is_file(entry: &fs::DirEntry) -> Result<bool, OpenError> {
    let path = entry.path();
    let kind = entry.file_type().map_err(OpenError::io("look at", &path))?;
    if !kind.is_file() {
        tracing::warn!(
            path = %path.display(),
            "it has the name of a file of hitlog's and is none: it is left alone; give it another name"
        );
    }
    Ok(kind.is_file())
}

fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let catalog = path.join(CATALOG);
    if catalog.exists() {
        // A first start that was cut short leaves it empty, before there is anything else. So does a copy for which
        // there was no room; SQLite would take it for a new one, and delete its log.
        return match bytes(&catalog) {
            0 if has_wal(&catalog) => Err(OpenError::NoCatalog(path.into())),
            0 => refuse_orphans(path),
            _ => Ok(()),
        };
    }
    for entry in fs::read_dir(path).map_err(OpenError::io("read the directory", path))? {
        let name = entry.map_err(OpenError::io("read the directory", path))?.file_name();
        if !NEW_DIRECTORY_MAY_HOLD.iter().any(|known| name == *known) {
            return Err(OpenError::Foreign(path.into()));
        }
    }
    refuse_orphans(path)
}

/// A first start makes the catalog before any segment: where there are only segments, the catalog is lost, and a new
/// one would stand in the way of restoring it.
fn refuse_orphans(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path.join(SEGMENTS)).into_iter().flatten() {
        let name = entry.map_err(OpenError::io("read the directory", path))?.file_name();
        if matches!(name.to_str().map(SegmentPaths::parse), Some(SegmentName::Generation(..))) {
            return Err(OpenError::NoCatalog(path.into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(OpenError::InUse(_))));
        drop(first);
        assert!(DataDir::open(&path).is_ok(), "the lock ends with its owner");
    }

    #[test]
    fn a_directory_that_is_not_where_it_was_is_lost() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("data"), parent.path().join("away"));
        let first = DataDir::open(&path).unwrap();
        assert_eq!(first.check(), Ok(()));
        fs::rename(&path, &away).unwrap();
        let second = DataDir::open(&path).unwrap();
        assert!(first.check().is_err());
        assert!(matches!(DataDir::open(&away), Err(OpenError::InUse(_))), "it is locked wherever it is");
        fs::rename(&path, parent.path().join("elsewhere")).unwrap();
        fs::rename(&away, &path).unwrap();
        assert!(first.check().is_err() && first.lost().is_some(), "once lost it stays so");
        drop((first, second));
        let third = DataDir::open(&path).unwrap();
        fs::rename(path.join(SEGMENTS), &away).unwrap();
        fs::create_dir(path.join(SEGMENTS)).unwrap();
        assert!(third.check().unwrap_err().to_string().contains(SEGMENTS));
    }

    #[test]
    fn open_files_are_looked_at_until_they_are_closed() {
        for suffix in ["", "-wal", "-shm"] {
            let parent = tempfile::tempdir().unwrap();
            let directory = DataDir::open(&parent.path().join("data")).unwrap();
            let database = directory.path().join("segments/x.db");
            for suffix in ["", "-wal", "-shm"] {
                fs::write(with_suffix(&database, suffix), "").unwrap();
            }
            assert!(directory.watch(&directory.path().join("missing.db")).is_err());
            directory.watch(&database).unwrap();
            assert_eq!(directory.check(), Ok(()));
            directory.unwatch(&database);
            let file = with_suffix(&database, suffix);
            fs::write(file.with_extension("new"), "").unwrap();
            fs::rename(file.with_extension("new"), &file).unwrap();
            assert_eq!(directory.check(), Ok(()));
            directory.watch(&database).unwrap();
            fs::remove_file(&file).unwrap();
            assert!(directory.check().unwrap_err().to_string().contains(file.to_str().unwrap()));
        }
    }

    #[test]
    fn a_lock_that_is_gone_is_made_anew_and_lets_nobody_in() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let directory = DataDir::open(&path).unwrap();
        let lock = path.join(LOCK);
        fs::remove_file(&lock).unwrap();
        assert!(matches!(DataDir::open(&path), Err(OpenError::InUse(_))));
        assert_eq!(directory.mend_lock(), Ok(()));
        assert_eq!(fs::read_to_string(&lock).unwrap().trim(), std::process::id().to_string());
        // An older hitlog looks at the file alone, and the other way round.
        let older = File::options().write(true).open(&lock).unwrap();
        assert!(older.try_lock().is_err());
        fs::remove_file(&lock).unwrap();
        let older = File::create(&lock).unwrap();
        older.try_lock().unwrap();
        assert!(directory.mend_lock().unwrap_err().to_string().contains("another program has locked it"));
        drop(directory);
        assert!(matches!(DataDir::open(&path), Err(OpenError::InUse(_))));
        drop(older);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_foreign_directory_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("holiday.jpg"), "x").unwrap();
        assert!(matches!(DataDir::open(parent.path()), Err(OpenError::Foreign(_))));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "nothing was written");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let paths = SegmentPaths("segments".into());
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        for (name, wanted) in [
            (name(paths.of(7, 1)), SegmentName::Generation(7, 1)),
            (name(paths.of(7, 12)), SegmentName::Generation(7, 12)),
            (name(paths.unfinished(7)), SegmentName::Unfinished),
            ("000000000007.building-journal".into(), SegmentName::Unfinished),
            ("000000000007.laying".into(), SegmentName::Unfinished),
            (name(paths.hidden(7, 3)), SegmentName::Unfinished),
            ("000000000007.db-keys".into(), SegmentName::Generation(7, 1)),
            ("000000000007.making-wal".into(), SegmentName::Unfinished),
            ("000000000007.db-wal".into(), SegmentName::Generation(7, 1)),
            ("7.db".into(), SegmentName::Foreign),
            ("000000000007.gx.db".into(), SegmentName::Foreign),
            ("000000000007.g1.db".into(), SegmentName::Foreign),
            ("000000000007.g0.db".into(), SegmentName::Foreign),
            ("000000000007.g02.db".into(), SegmentName::Foreign),
            ("000000000007.g+2.db".into(), SegmentName::Foreign),
            ("000000000007.g-2.db".into(), SegmentName::Foreign),
            ("+00000000007.db".into(), SegmentName::Foreign),
            ("notes.db".into(), SegmentName::Foreign),
        ] {
            assert_eq!(SegmentPaths::parse(&name), wanted, "{name}");
        }
    }

    #[test]
    fn a_missing_parent_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let error = DataDir::open(&parent.path().join("not-mounted/data")).unwrap_err();
        assert!(error.to_string().contains("not-mounted"), "{error}");
    }
}

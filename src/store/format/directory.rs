//! The data directory: who may be in it, and where its files are.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::store::error::OpenError;

pub(crate) const CATALOG: &str = "catalog.db";
const LOCK: &str = "lock";
pub(crate) const SEGMENTS: &str = "segments";
/// What an interrupted first start, or `mkfs`, may have left in a directory that is otherwise new.
const NEW_DIRECTORY_MAY_HOLD: [&str; 3] = [LOCK, SEGMENTS, "lost+found"];

/// A data directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, making it if only its last part is missing (a missing parent is more likely a disk
    /// that is not mounted), and locks it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_directory(path.parent().unwrap_or(path))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_foreign(path)?,
            Err(error) => return Err(OpenError::io("make the directory", path)(error)),
        }
        let lock = lock(path)?;
        let segments = path.join(SEGMENTS);
        match DirBuilder::new().mode(0o700).create(&segments) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(OpenError::io("make the directory", segments)(error));
            }
            _ => sync_directory(path)?,
        }
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether hitlog has ever started here.
    pub fn has_catalog(&self) -> bool {
        self.catalog_path().exists()
    }

    pub(crate) fn catalog_path(&self) -> PathBuf {
        self.path.join(CATALOG)
    }

    pub(crate) fn segment_paths(&self) -> SegmentPaths {
        SegmentPaths::of_directory(&self.path)
    }

    /// The kind of file system, for people to see: durability is only as good as what it does with a sync.
    pub fn file_system(&self) -> String {
        // Magic numbers from statfs(2).
        match rustix::fs::statfs(&self.path).map(|stat| stat.f_type as u64 & 0xffff_ffff) {
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

/// Where the files of segments are, and what they are called.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPaths(PathBuf);

/// What a file's name says it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SegmentName {
    /// The number and generation of a segment; or a file that SQLite keeps beside it.
    Generation(i64, i64),
    /// A generation that was being built, or a first one that was being made.
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

    /// Reads a file's name.
    pub(crate) fn parse(name: &str) -> SegmentName {
        let Some((digits, rest)) = name.split_once('.') else { return SegmentName::Foreign };
        let Some(number) = digits.parse().ok().filter(|_| digits.len() == 12) else { return SegmentName::Foreign };
        if rest.starts_with("building") || rest.starts_with("making") {
            return SegmentName::Unfinished;
        }
        let (generation, rest) = match rest.split_once('.') {
            None => (Some(1), rest),
            Some((generation, rest)) => (generation.strip_prefix('g').and_then(|digits| digits.parse().ok()), rest),
        };
        match (generation, rest) {
            (Some(generation), "db" | "db-wal" | "db-shm" | "db-journal") => {
                SegmentName::Generation(number, generation)
            }
            _ => SegmentName::Foreign,
        }
    }
}

fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    if path.join(CATALOG).exists() {
        return Ok(());
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

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(OpenError::io("open the lock", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(directory.into())),
        Err(TryLockError::Error(error)) => return Err(OpenError::io("lock", path)(error)),
    }
    // For a person who wonders who holds it; the lock itself is the kernel's and ends with the process.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(OpenError::io("write the lock", path))?;
    Ok(file)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    // The parent of a relative path of one part is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|directory| directory.sync_all()).map_err(OpenError::io("sync the directory", path))
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
            ("000000000007.making-wal".into(), SegmentName::Unfinished),
            ("000000000007.db-wal".into(), SegmentName::Generation(7, 1)),
            ("7.db".into(), SegmentName::Foreign),
            ("000000000007.gx.db".into(), SegmentName::Foreign),
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

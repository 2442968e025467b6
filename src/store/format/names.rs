//! What the files of a data directory are called, those that SQLite keeps beside a database included, and what can be
//! seen of them without opening any.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The catalog, in the data directory.
pub(crate) const CATALOG: &str = "catalog.db";
/// The folder of the segments, in the data directory.
pub(crate) const SEGMENTS: &str = "segments";

/// The folder of the ids that clients gave their events, in the data directory.
pub(crate) const IDS: &str = "ids";

/// The name of a file that SQLite keeps beside another.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The size of a file; 0 if there is none.
pub(crate) fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// Whether a database was left without an orderly end: there is something in its write-ahead log.
pub(crate) fn has_wal(path: &Path) -> bool {
    bytes(&with_suffix(path, "-wal")) > 0
}

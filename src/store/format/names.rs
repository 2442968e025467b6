//! The names of the files that SQLite keeps beside a database.

use std::path::{Path, PathBuf};

/// The name of a file that SQLite keeps beside another.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

//! Where runs of ids are, and what they are called.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::store::{error::OpenError, format::sync_directory};

/// The file of the ids of the events between two sequences, both included.
pub(crate) fn run_path(folder: &Path, first: u64, last: u64) -> PathBuf {
    folder.join(format!("{first:020}-{last:020}.ids"))
}

/// Whether a name is that of a run of ids.
fn is_run(name: &str) -> bool {
    let Some((first, last)) = name.strip_suffix(".ids").and_then(|sequences| sequences.split_once('-')) else {
        return false;
    };
    [first, last].iter().all(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The runs that are there.
pub(crate) fn runs(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(OpenError::io("read the directory", folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(OpenError::io("read the directory", folder))?.path();
        // What has the name and is no file was never hitlog's.
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_run) && path.is_file() {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes all runs; the next start makes them anew from the events that are there.
pub(crate) fn remove_runs(folder: &Path) -> Result<(), OpenError> {
    let found = runs(folder)?;
    if found.is_empty() {
        return Ok(());
    }
    found.iter().try_for_each(|path| fs::remove_file(path).map_err(OpenError::io("remove", path)))?;
    sync_directory(folder)
}

//! Where runs of ids are, and what they are called.

use std::path::{Path, PathBuf};

/// The file of the ids of the events between two sequences, both included.
pub(crate) fn run_path(folder: &Path, first: u64, last: u64) -> PathBuf {
    folder.join(format!("{first:020}-{last:020}.ids"))
}

/// Whether a name is that of a run of ids.
pub(crate) fn is_run(name: &str) -> bool {
    let Some((first, last)) = name.strip_suffix(".ids").and_then(|sequences| sequences.split_once('-')) else {
        return false;
    };
    [first, last].iter().all(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

//! The ids of events in a backup: links to the runs that there are, or copies of them.
//!
//! No run has to be in it: a start reads what is missing from the events, and takes out of a run what the backup has no
//! events of. Only the ids of events that were erased or have expired are nowhere else.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{directory::TRIES_MAX, error::OfflineError};
use crate::store::{
    format::{IDS, Owner, sync_directory},
    ids::runs,
};

/// Takes the runs of ids into a backup, and makes them durable.
pub(super) fn take_ids(from: &Path, to: &Path, owner: Owner) -> Result<(), OfflineError> {
    let (from, to) = (from.join(IDS), to.join(IDS));
    if !from.is_dir() {
        return Ok(());
    }
    match owner.make_directory(&to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(OfflineError::io("make the directory", to)(error));
        }
        _ => {}
    }
    // A run that is gone was merged into another meanwhile, which is there by now.
    for _ in 0..TRIES_MAX {
        if take_all(&from, &to, owner)? {
            break;
        }
    }
    sync_directory(&to).map_err(Into::into)
}

/// Takes what is there now; returns whether nothing of it went away meanwhile.
fn take_all(from: &Path, to: &Path, owner: Owner) -> Result<bool, OfflineError> {
    let mut is_whole = true;
    for path in runs(from)? {
        let Some(copy) = path.file_name().map(|name| to.join(name)).filter(|copy| !copy.exists()) else { continue };
        match fs::hard_link(&path, &copy).or_else(|_| copy_synced(&path, &copy, owner)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => is_whole = false,
            taken => taken.map_err(OfflineError::io("copy ids of events to", copy))?,
        }
    }
    Ok(is_whole)
}

fn copy_synced(path: &Path, copy: &Path, owner: Owner) -> io::Result<()> {
    fs::copy(path, copy)?;
    let file = File::open(copy)?;
    owner.give(&file)?;
    file.sync_all()
}

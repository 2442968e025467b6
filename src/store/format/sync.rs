//! Names made durable.

use std::{fs::File, path::Path};

use crate::store::error::OpenError;

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    // The parent of a relative path of one part is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|directory| directory.sync_all()).map_err(OpenError::io("sync the directory", path))
}

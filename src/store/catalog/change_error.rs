//! Why a change of the catalog fails.

use rusqlite::ErrorCode;

use crate::store::error::{CatalogError, is_disk_full};

/// Why a change failed: refused, with the disk as it was, or broken off, with the disk in doubt.
pub(super) enum ChangeError {
    Refused(CatalogError),
    Fatal(rusqlite::Error),
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // Ids are random and codes hold the time: only domains can collide.
            Some(ErrorCode::ConstraintViolation) => Self::Refused(CatalogError::DomainTaken),
            _ if is_disk_full(&error) => Self::Refused(CatalogError::StorageFull),
            _ => Self::Fatal(error),
        }
    }
}

//! The store: a log of segments in SQLite files, and a catalog beside them.
//!
//! The only room that knows SQLite. Owns the data directory and every connection: the writer's to the active
//! segment ([`Log`]), one beside it for checkpoints, the catalog's, and the readers'. Each database file has one
//! connection that writes rows, owned by one thread.
//!
//! Must not know HTTP, the queue or the configuration: it is given options and events, and returns sequences.

mod catalog;
mod checkpoint;
mod directory;
mod error;
mod insert;
mod log;
mod read;
mod schema;
mod sync_timer;
mod websites;

pub use catalog::{Catalog, CatalogError, CatalogFile, NewWebsite, WebsiteChange};
pub use directory::DataDir;
pub use error::{AppendError, OpenError};
pub use log::{Durability, Log, LogOptions};
pub use read::{EventFilter, Page, PageBuffer, ReadError, ReadOptions, ReaderInterrupt, Readers, Snapshot};
pub use websites::{Website, Websites};

/// The version of the SQLite that is linked in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

/// SQLite 3.7.0 to 3.51.2 can lose commits when a checkpoint races a reset of the write-ahead log
/// (<https://sqlite.org/wal.html#walresetbug>), and hitlog checkpoints beside its writer.
pub fn check_sqlite_version() -> Result<(), OpenError> {
    const SQLITE_VERSION_MIN: i32 = 3_051_003;
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(OpenError::SqliteTooOld(sqlite_version()));
    }
    Ok(())
}

/// Milliseconds since 1970, UTC.
fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

//! What is on the disk: the data directory, the files in it, their tables, and a row.
//!
//! Knows how a file is made, opened, synced and removed, and nothing of what is kept of it in memory.

mod access;
pub(super) mod blocks;
mod compiled;
mod directory;
pub(super) mod file;
pub(super) mod hash;
pub(super) mod header;
mod identity;
pub(super) mod last_backup;
mod lock;
mod names;
pub(super) mod quarantine;
pub(super) mod rollup_schema;
pub(super) mod room;
pub(super) mod row;
pub(super) mod salts;
pub(super) mod schema;
pub(super) mod scratch;
mod sync;
pub(super) mod ties;
pub(super) mod vfs;

pub use access::{FileAccess, set_file_access};
pub(super) use access::{Owner, make_directory, make_file};
pub use compiled::SqliteBuild;
pub use directory::DataDir;
pub(super) use directory::{SCRATCH, SegmentName, SegmentPaths, is_file};
pub(super) use names::{CATALOG, IDS};
pub(super) use sync::sync_directory;

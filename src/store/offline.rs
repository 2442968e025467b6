//! A data directory as the command-line tools see it: listed, checked, counted, exported and copied, whether hitlog
//! serves from it at the same time or not.
//!
//! Owns no lock and no thread, and writes to no file of the daemon's. What it reads may be replaced while it reads: a
//! seal or an erasure writes the next generation of a segment, switches the catalog and unlinks the one before. So
//! whoever finds a file gone asks the catalog again (`directory`), and statements are short, because a
//! long one would keep the daemon's write-ahead log from beginning anew. Must not know how anything is shown to people.

mod backup;
mod backup_ids;
mod catalog;
mod check;
mod consistent;
mod count;
mod directory;
mod error;
mod export;
mod holdings;
mod numbers;
mod segment_lines;

pub use backup::{Backup, BackupReport, FileCount, Progress};
pub use catalog::CatalogContents;
pub(super) use check::check_file;
pub use check::{Check, CheckReport, Fault};
pub use count::{Counts, Days, SiteCounts, count};
pub use directory::OfflineDir;
pub use error::OfflineError;
pub use export::{EventChoice, Export};
pub(super) use holdings::Holdings;
pub use holdings::QuarantineLine;
pub use numbers::{CountNumbers, NumbersFound, count_numbers, first_event};
pub use segment_lines::{SegmentLine, segment_lines};

#[cfg(test)]
mod tests;

//! Which segments were written off, in the catalog's table of what is in quarantine.
//!
//! A file of one may turn up again, when hitlog has long forgotten whose events were erased. So it is known of each
//! whether any erasure has ended since. No file in quarantine is called as these rows are.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::clock::now_ms;

const WRITTEN_OFF: &str = "it was written off";
const ERASED_SINCE: &str = "it was written off, and an erasure has ended since";

fn name(number: i64) -> String {
    format!("segment {number}")
}

/// Notes that a segment is written off.
pub(super) fn insert(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO Quarantine(file, reason, since) VALUES(?1, ?2, ?3)";
    connection.execute(insert, params![name(number), WRITTEN_OFF, now_ms()]).map(drop)
}

/// Forgets that a segment was written off: it is listed again.
pub(super) fn remove(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM Quarantine WHERE file = ?1", [name(number)]).map(drop)
}

/// Notes that the erasure of a visitor's events is about to end: each of these segments may have had some.
pub(super) fn note_erased(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE Quarantine SET reason = ?1 WHERE file LIKE 'segment %'", [ERASED_SINCE]).map(drop)
}

/// Whether the segment with this number was written off and may have had events that were erased since; asked of the
/// reasons for what is in quarantine.
pub(crate) fn is_erased_since(reasons: &HashMap<String, String>, number: i64) -> bool {
    reasons.get(&name(number)).is_some_and(|reason| reason == ERASED_SINCE)
}

/// Forgets the files in quarantine, but not what was written off: for the copy of a catalog.
pub(crate) fn forget_files(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM Quarantine WHERE file NOT LIKE 'segment %'", []).map(drop)
}

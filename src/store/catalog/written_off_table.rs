//! Which segments were written off.
//!
//! A file of one may turn up again, when hitlog has long forgotten whose events were erased. So it is known of each
//! whether any erasure has ended since.

use std::collections::BTreeSet;

use rusqlite::Connection;

/// Notes that a segment is written off.
pub(super) fn insert(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.execute("INSERT OR IGNORE INTO WrittenOff(number) VALUES(?1)", [number]).map(drop)
}

/// Forgets that a segment was written off: it is listed again.
pub(super) fn remove(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM WrittenOff WHERE number = ?1", [number]).map(drop)
}

/// Notes that the erasure of a visitor's events is about to end: each of these segments may have had some.
pub(super) fn note_erased(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE WrittenOff SET erasedSince = 1 WHERE erasedSince = 0", []).map(drop)
}

/// The numbers of all segments that were written off.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    let mut select = connection.prepare("SELECT number FROM WrittenOff")?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// The numbers of the segments that were written off and may have had events that were erased since.
pub(crate) fn read_erased_since(connection: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    if !connection.table_exists(None, "WrittenOff")? {
        return Ok(BTreeSet::new());
    }
    let mut select = connection.prepare("SELECT number FROM WrittenOff WHERE erasedSince = 1")?;
    select.query_map([], |row| row.get(0))?.collect()
}

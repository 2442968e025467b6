//! The catalog's table of epochs: whose keys public ids are made with, from which sequence on; and the mark of a
//! backup, from which a start begins another.

use rand::RngExt;
use rusqlite::{Connection, Row, params};

use super::ship_table;
use crate::event_id::{Epoch, Epochs};

const NODE: u32 = 0;

/// Every epoch. A catalog of an older version knows one, and says so elsewhere.
pub(crate) fn read_epochs(connection: &Connection) -> rusqlite::Result<Epochs> {
    let sql = if connection.table_exists(None, "Epoch")? {
        "SELECT firstSequence, node, idKey FROM Epoch ORDER BY firstSequence, number"
    } else {
        "SELECT 0, node, idKey FROM Log"
    };
    let read = |row: &Row<'_>| {
        Ok(Epoch { first_sequence: row.get::<_, i64>(0)?.unsigned_abs(), node: row.get(1)?, key: row.get(2)? })
    };
    let epochs: rusqlite::Result<Vec<_>> = connection.prepare(sql)?.query_map([], read)?.collect();
    // The first start makes the first one: where there is none, it was cut short.
    Epochs::new(epochs?).ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Begins the first epoch, if there is none.
pub(super) fn begin_first(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    let key: [u8; 16] = rand::rng().random();
    let sql = "INSERT INTO Epoch(firstSequence, node, idKey, begunAt)
               SELECT 0, ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM Epoch)";
    connection.execute(sql, params![NODE, key, now_ms]).map(drop)
}

/// Begins another epoch with this sequence, and takes the mark of a backup away, within a transaction.
pub(super) fn begin(connection: &Connection, first_sequence: u64, now_ms: i64) -> rusqlite::Result<()> {
    let key: [u8; 16] = rand::rng().random();
    // An epoch without a sequence is none; so those that a start begins at each restart do not pile up.
    connection.execute("DELETE FROM Epoch WHERE firstSequence >= ?1", [first_sequence.cast_signed()])?;
    let sql = "INSERT INTO Epoch(firstSequence, node, idKey, begunAt) VALUES(?1, ?2, ?3, ?4)";
    connection.execute(sql, params![first_sequence.cast_signed(), NODE, key, now_ms])?;
    ship_table::begin_node(connection, first_sequence)?;
    connection.execute("DELETE FROM Backup", []).map(drop)
}

/// Whether the catalog is a backup's, and nothing has started from it yet.
pub(super) fn is_backup(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM Backup)", [], |row| row.get(0))
}

/// Marks the copy of a catalog, which may be of an older version, as a backup's.
pub(crate) fn mark_backup(copy: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    copy.execute_batch("CREATE TABLE IF NOT EXISTS Backup(madeAt INTEGER NOT NULL) STRICT; DELETE FROM Backup;")?;
    copy.execute("INSERT INTO Backup(madeAt) VALUES(?1)", [now_ms]).map(drop)
}

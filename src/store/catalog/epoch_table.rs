//! The catalog's table of epochs: whose keys public ids are made with, from which sequence on; and the mark of a
//! backup, from which a start begins another.

use rand::RngExt;
use rusqlite::{Connection, Row, params};

use crate::{
    clock::now_ms,
    event_id::{Epoch, Epochs},
};

const NODE: u32 = 0;
/// Starts from copies past which somebody is told that there are many: each costs 400 bytes, and 50 ns for each id.
const EPOCHS_EXPECTED: i64 = 100;

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

/// Begins another epoch with the next sequence if this is the catalog of a backup from which nothing has started yet,
/// or `is_restored` says that it is another kind of copy.
pub(super) fn begin_of_copy(
    connection: &mut Connection,
    is_restored: bool,
    next_sequence: u64,
) -> rusqlite::Result<()> {
    let is_backup: bool = connection.query_row("SELECT EXISTS (SELECT 1 FROM Backup)", [], |row| row.get(0))?;
    if !is_backup && !is_restored {
        return Ok(());
    }
    let first = next_sequence.cast_signed();
    let key: [u8; 16] = rand::rng().random();
    let transaction = connection.transaction()?;
    // An epoch without a sequence is none; so those that a start begins at each restart do not pile up.
    transaction.execute("DELETE FROM Epoch WHERE firstSequence >= ?1", [first])?;
    let sql = "INSERT INTO Epoch(firstSequence, node, idKey, begunAt) VALUES(?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![first, NODE, key, now_ms()])?;
    transaction.execute("DELETE FROM Backup", [])?;
    let epochs: i64 = transaction.query_row("SELECT count(*) FROM Epoch", [], |row| row.get(0))?;
    transaction.commit()?;
    tracing::info!(
        is_backup,
        next_sequence,
        epochs,
        "hitlog starts from a copy: the ids of events from now on are made with a new key, so that no id of an event \
         that came after the copy was made leads to another"
    );
    if epochs > EPOCHS_EXPECTED {
        tracing::warn!(
            epochs,
            "each id is tried with the key of each start from a copy: is --restored given at every start?"
        );
    }
    Ok(())
}

/// Marks the copy of a catalog, which may be of an older version, as a backup's.
pub(crate) fn mark_backup(copy: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    copy.execute_batch("CREATE TABLE IF NOT EXISTS Backup(madeAt INTEGER NOT NULL) STRICT; DELETE FROM Backup;")?;
    copy.execute("INSERT INTO Backup(madeAt) VALUES(?1)", [now_ms]).map(drop)
}

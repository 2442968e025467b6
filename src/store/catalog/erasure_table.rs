//! The catalog's table of erasures.

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{Connection, Row, params};

use super::{
    erasure::{ErasedRows, Erasure, NewErasure, Subject, VisitorSubject},
    written_off_table,
};
use crate::store::format::file;

/// Every erasure; which segments still hold its events is not in the table.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Vec<Erasure>> {
    let mut select = connection
        .prepare("SELECT id, websiteId, visitorId, upTo, requestedAt, doneAt, segmentsDone, rows FROM Erasure")?;
    let unsigned = |row: &Row<'_>, column: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.unsigned_abs());
    let erasures = select.query_map([], |row| {
        let visitor = match (row.get(2)?, row.get::<_, Option<i64>>(3)?) {
            (Some(visitor_id), up_to) => {
                Some(VisitorSubject { visitor_id, up_to: up_to.unwrap_or(i64::MAX).unsigned_abs() })
            }
            (None, _) => None,
        };
        let website_id: Option<Arc<str>> = row.get(1)?;
        Ok(Erasure {
            id: row.get(0)?,
            subject: website_id.map(|website_id| Subject { website_id, visitor }),
            requested_at: row.get(4)?,
            done_at: row.get(5)?,
            segments_done: unsigned(row, 6)?,
            remaining: BTreeSet::new(),
            rows: unsigned(row, 7)?,
        })
    })?;
    erasures.collect()
}

/// Adds the erasure of a visitor's events.
pub(super) fn insert_visitor(
    connection: &Connection,
    id: &str,
    new: &NewErasure,
    requested_at: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO Erasure(id, websiteId, visitorId, upTo, requestedAt, segmentsDone, rows)
         VALUES(?1, ?2, ?3, ?4, ?5, 0, 0)",
        params![id, new.website_id, new.visitor_id, new.up_to.cast_signed(), requested_at],
    )?;
    Ok(())
}

/// Adds the erasure of all events of a deleted website.
pub(super) fn insert_website(
    connection: &Connection,
    id: &str,
    website_id: &str,
    requested_at: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO Erasure(id, websiteId, requestedAt, segmentsDone, rows) VALUES(?1, ?2, ?3, 0, 0)",
        params![id, website_id, requested_at],
    )?;
    Ok(())
}

/// Notes that a segment was rewritten without these events.
pub(super) fn segment_done(connection: &Connection, erased: &[ErasedRows]) -> rusqlite::Result<()> {
    for ErasedRows { erasure, rows } in erased {
        connection.execute(
            "UPDATE Erasure SET segmentsDone = segmentsDone + 1, rows = rows + ?2 WHERE id = ?1",
            params![&**erasure, rows.cast_signed()],
        )?;
    }
    Ok(())
}

/// Forgets whose events an erasure removed, in the write-ahead log too, and notes that it is done. Returns whether it
/// is: a program that reads the catalog can keep the write-ahead log from being emptied.
pub(super) fn finish(connection: &Connection, id: &str, done_at: i64) -> rusqlite::Result<bool> {
    let is_of_visitor = "SELECT EXISTS (SELECT 1 FROM Erasure WHERE id = ?1 AND visitorId IS NOT NULL)";
    // A website's events are in no answer, wherever they turn up.
    if connection.query_row(is_of_visitor, [id], |row| row.get(0))? {
        written_off_table::note_erased(connection)?;
    }
    connection.execute("UPDATE Erasure SET websiteId = NULL, visitorId = NULL, upTo = NULL WHERE id = ?1", [id])?;
    if file::truncate_wal(connection)? {
        return Ok(false);
    }
    connection.execute("UPDATE Erasure SET doneAt = ?2 WHERE id = ?1", params![id, done_at])?;
    Ok(true)
}

/// Adds an erasure that found nothing, and tells of nobody.
pub(super) fn insert_done(connection: &Connection, id: &str, done_at: i64) -> rusqlite::Result<()> {
    written_off_table::note_erased(connection)?;
    let sql = "INSERT INTO Erasure(id, requestedAt, doneAt, segmentsDone, rows) VALUES(?1, ?2, ?2, 0, 0)";
    connection.execute(sql, params![id, done_at]).map(|_| ())
}

/// Forgets erasures that are done.
pub(super) fn remove(connection: &Connection, ids: &[Arc<str>]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM Erasure WHERE id = ?1")?;
    ids.iter().try_for_each(|id| delete.execute([&**id]).map(|_| ()))
}

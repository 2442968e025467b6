//! The catalog's tables for what time decides over restarts: for how long segments have been expired, and whether the
//! machine's clock is believed.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

/// What is noted, and replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ExpiryNotes {
    /// For how long hitlog has run since all events of a segment had expired, by the segment's number.
    pub(crate) held: Vec<(i64, Duration)>,
    /// For how long hitlog has run without a jump since the clock came into doubt; `None`: it is in none.
    pub(crate) agreed: Option<Duration>,
    /// The newest `receivedAt`, in milliseconds since 1970, UTC, that the clock stood behind, and was believed.
    pub(crate) settled_received_at: i64,
}

/// What is noted.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<ExpiryNotes> {
    let time = |milliseconds: i64| Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    let mut select = connection.prepare("SELECT number, expiredMs FROM Expiry ORDER BY number")?;
    let held = select.query_map([], |row| Ok((row.get(0)?, time(row.get(1)?))))?;
    let clock: Option<(Option<i64>, i64)> = connection
        .query_row("SELECT agreedMs, settledReceivedAt FROM Clock", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (agreed, settled_received_at) = clock.unwrap_or_default();
    Ok(ExpiryNotes { held: held.collect::<Result<_, _>>()?, agreed: agreed.map(time), settled_received_at })
}

/// Notes this in one transaction.
pub(super) fn replace(connection: &mut Connection, notes: &ExpiryNotes) -> rusqlite::Result<()> {
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let transaction = connection.transaction()?;
    transaction.execute("DELETE FROM Expiry", [])?;
    let mut insert = transaction.prepare("INSERT INTO Expiry(number, expiredMs) VALUES(?1, ?2)")?;
    for (number, held) in &notes.held {
        insert.execute(params![number, milliseconds(*held)])?;
    }
    drop(insert);
    transaction.execute(
        "INSERT OR REPLACE INTO Clock(id, agreedMs, settledReceivedAt) VALUES(1, ?1, ?2)",
        params![notes.agreed.map(milliseconds), notes.settled_received_at],
    )?;
    transaction.commit()
}

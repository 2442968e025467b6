//! A row of table `Event`, read back.

use rusqlite::{Connection, Row};

use super::schema;
use crate::{event::EventRow, store::error::ReadError};

/// The column of an event's visitor.
pub(crate) const VISITOR_ID: usize = 6;
/// The column of an event's flags, where they are read.
pub(crate) const FLAGS: usize = 14;

/// One row of a segment, by its sequence.
pub(crate) fn fetch<T>(
    connection: &Connection,
    sequence: u64,
    map: impl FnOnce(&EventRow<'_>) -> Result<T, ReadError>,
) -> Result<Option<T>, ReadError> {
    let mut select = connection.prepare_cached(schema::SELECT_EVENT)?;
    let mut rows = select.query([sequence.cast_signed()])?;
    rows.next()?.map(|row| map(&event_row(row)?)).transpose()
}

/// The event in a row with the columns of [`schema::EVENT_COLUMNS`].
pub(crate) fn event_row<'a>(row: &'a Row<'_>) -> rusqlite::Result<EventRow<'a>> {
    let text = |column: usize| -> rusqlite::Result<&'a [u8]> { Ok(row.get_ref(column)?.as_bytes()?) };
    let maybe = |column: usize| -> rusqlite::Result<Option<&'a [u8]>> { Ok(row.get_ref(column)?.as_bytes_or_null()?) };
    Ok(EventRow {
        website_id: text(1)?,
        event_type: text(2)?,
        url: text(3)?,
        referrer: maybe(4)?,
        session_id: text(5)?,
        visitor_id: text(6)?,
        device_type: maybe(7)?,
        browser: maybe(8)?,
        os: maybe(9)?,
        location: maybe(10)?,
        properties: maybe(11)?,
        created_at: row.get(12)?,
        received_at: row.get(13)?,
    })
}

//! Rows into the active segment without copying their text.
//!
//! rusqlite binds text with `SQLITE_TRANSIENT`: SQLite copies each of a row's twelve texts before it copies them
//! into the page. Bound with `SQLITE_STATIC` they are copied once; `benches/commit` measures what that is worth
//! on this machine. The price is a promise that rusqlite cannot check, so it is kept here, in one small module:
//! **no pointer to a row's text outlives [`EventWriter::insert`]**, which clears the bindings before it returns.
#![allow(unsafe_code)]

use std::{ffi::c_int, ptr::NonNull};

use rusqlite::{Connection, ffi};

use crate::{
    event::{EventFlags, EventRow, IdHash},
    store::format::schema,
};

/// The connection that writes the active segment, with the statements of its one transaction.
pub(super) struct EventWriter {
    begin: Statement,
    insert: Statement,
    commit: Statement,
    // Last: fields drop in order, and the statements must be finalized before their connection closes.
    connection: Connection,
}

/// A prepared statement of the connection beside it.
struct Statement(NonNull<ffi::sqlite3_stmt>);

// SAFETY: an `EventWriter` owns its connection and all of that connection's raw statements, none of which is ever
// handed out; they move between threads together. SQLite in multi-thread mode (`SQLITE_OPEN_NO_MUTEX`) asks only
// that no two threads use a connection at once, and using the statements takes `&mut self`.
unsafe impl Send for EventWriter {}

impl EventWriter {
    /// Prepares the statements on a connection whose schema is in place.
    pub(super) fn new(connection: Connection) -> rusqlite::Result<Self> {
        let begin = Statement::prepare(&connection, "BEGIN IMMEDIATE")?;
        let insert = Statement::prepare(&connection, schema::INSERT_EVENT)?;
        let commit = Statement::prepare(&connection, "COMMIT")?;
        Ok(Self { begin, insert, commit, connection })
    }

    /// The connection, for everything that is not a row.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Opens the transaction.
    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.begin.run(&self.connection)
    }

    /// Commits the transaction: when it returns, the rows are as durable as `synchronous` makes them.
    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        self.commit.run(&self.connection)
    }

    /// Inserts one row under the given sequence.
    pub(super) fn insert(
        &mut self,
        sequence: i64,
        row: &EventRow<'_>,
        id_hash: Option<IdHash>,
        flags: EventFlags,
    ) -> rusqlite::Result<()> {
        let hash_bytes = id_hash.map(|hash| hash.0.to_be_bytes());
        let statement = self.insert.0.as_ptr();
        let text = |column: c_int, text: Option<&[u8]>| match text {
            // SAFETY: the statement is alive as long as `self`. `SQLITE_STATIC` (no destructor) promises that the
            // text stays as it is while bound; `row` borrows it until this function returns, and
            // `sqlite3_clear_bindings` below, which every path reaches, ends the binding before that. The length
            // fits: every text was limited when it was parsed.
            Some(text) => unsafe {
                ffi::sqlite3_bind_text(statement, column, text.as_ptr().cast(), text.len() as c_int, None)
            },
            // SAFETY: the statement is alive as long as `self`.
            None => unsafe { ffi::sqlite3_bind_null(statement, column) },
        };
        // SAFETY: the statement is alive as long as `self`; integers are bound by value.
        let integer = |column: c_int, value: i64| unsafe { ffi::sqlite3_bind_int64(statement, column, value) };
        let bound = [
            integer(1, sequence),
            text(2, Some(row.website_id)),
            text(3, Some(row.event_type)),
            text(4, Some(row.url)),
            text(5, row.referrer),
            text(6, Some(row.session_id)),
            text(7, Some(row.visitor_id)),
            text(8, row.device_type),
            text(9, row.browser),
            text(10, row.os),
            text(11, row.location),
            text(12, row.properties),
            integer(13, row.created_at),
            integer(14, row.received_at),
            match &hash_bytes {
                // SAFETY: as for the texts; `hash_bytes` lives until this function returns.
                Some(hash) => unsafe {
                    ffi::sqlite3_bind_blob(statement, 15, hash.as_ptr().cast(), hash.len() as c_int, None)
                },
                // A binding that was cleared is NULL.
                None => ffi::SQLITE_OK,
            },
            integer(16, if flags.ids_by_server { schema::IDS_BY_SERVER } else { 0 }),
        ];
        let result = match bound.into_iter().find(|code| *code != ffi::SQLITE_OK) {
            Some(code) => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
            None => self.insert.run(&self.connection),
        };
        // SAFETY: the statement is alive as long as `self`, and `run` has reset it.
        unsafe { ffi::sqlite3_clear_bindings(statement) };
        result
    }
}

impl Statement {
    fn prepare(connection: &Connection, sql: &str) -> rusqlite::Result<Self> {
        let mut statement = std::ptr::null_mut();
        // SAFETY: the handle belongs to an open connection, the text is given with its length, and SQLite writes
        // either a statement or null to `statement`.
        let code = unsafe {
            ffi::sqlite3_prepare_v3(
                connection.handle(),
                sql.as_ptr().cast(),
                sql.len() as c_int,
                ffi::SQLITE_PREPARE_PERSISTENT,
                &raw mut statement,
                std::ptr::null_mut(),
            )
        };
        match NonNull::new(statement) {
            Some(statement) if code == ffi::SQLITE_OK => Ok(Self(statement)),
            _ => Err(last_error(connection, code)),
        }
    }

    /// Runs the statement, which returns no rows, to its end, and leaves it reset.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        // SAFETY: the statement is alive as long as `self`, and `&mut self` keeps any other use of it away.
        let code = unsafe { ffi::sqlite3_step(self.0.as_ptr()) };
        let result = if code == ffi::SQLITE_DONE { Ok(()) } else { Err(last_error(connection, code)) };
        // SAFETY: as above. The code repeats the error that `step` returned.
        unsafe { ffi::sqlite3_reset(self.0.as_ptr()) };
        result
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: finalized once, here, and before the connection closes, which `EventWriter` drops last.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

/// The error that the connection's last call left, with SQLite's own words.
fn last_error(connection: &Connection, code: c_int) -> rusqlite::Error {
    // SAFETY: the handle belongs to an open connection; the message is copied before another call can change it.
    let message = unsafe {
        let message = ffi::sqlite3_errmsg(connection.handle());
        std::ffi::CStr::from_ptr(message).to_string_lossy().into_owned()
    };
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message))
}

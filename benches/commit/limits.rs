//! The two limits of the writer's path: an append that copies no text, and a table that keeps its indexes up.
#![allow(unsafe_code)]

use std::{ffi::c_int, path::Path, ptr, time::Instant};

use rusqlite::{Connection, ffi, params};

use harness::raw_append::{INSERT, TIME, Texts, WEBSITE, open, rows};

/// Rows that the table with indexes has before it is measured: the first ones cost it less.
const ROWS_BEFORE: usize = 200_000;
/// How many rows are made at once, outside of what is timed.
const CHUNK: usize = 5_000;

/// Appends for `seconds` by SQLite's own functions, each text bound where it stands; rows a second.
pub fn append_static(path: &Path, group: usize, synchronous: &str, page_bytes: usize, seconds: f64) -> f64 {
    let connection = open(path, synchronous, page_bytes);
    let rows = rows(0, group);
    let mut insert: *mut ffi::sqlite3_stmt = ptr::null_mut();
    // SAFETY: the connection is open, the SQL is a text of the given length, and `insert` outlives the call.
    let prepared = unsafe {
        ffi::sqlite3_prepare_v2(
            connection.handle(),
            INSERT.as_ptr().cast(),
            INSERT.len() as c_int,
            &mut insert,
            ptr::null_mut(),
        )
    };
    assert_eq!(prepared, ffi::SQLITE_OK);
    let (started, mut id) = (Instant::now(), 0);
    while started.elapsed().as_secs_f64() < seconds {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for row in &rows {
            id += 1;
            insert_static(insert, id, row);
        }
        connection.execute_batch("COMMIT").unwrap();
    }
    let rate = id as f64 / started.elapsed().as_secs_f64();
    // SAFETY: the statement is not used after this, and its connection is still open.
    unsafe { ffi::sqlite3_finalize(insert) };
    rate
}

fn insert_static(insert: *mut ffi::sqlite3_stmt, id: i64, row: &Texts) {
    let text = |at: c_int, text: &str| {
        // SAFETY: the statement is alive; the text outlives this row's step, and is bound anew before the next one.
        unsafe { ffi::sqlite3_bind_text(insert, at, text.as_ptr().cast(), text.len() as c_int, ffi::SQLITE_STATIC()) };
    };
    text(2, WEBSITE);
    for (at, value) in (3..).zip(row) {
        match value {
            Some(value) => text(at, value),
            // SAFETY: the statement is alive.
            None => drop(unsafe { ffi::sqlite3_bind_null(insert, at) }),
        }
    }
    // SAFETY: the statement is alive and on its connection's one thread; no text that it holds is gone.
    unsafe {
        ffi::sqlite3_bind_int64(insert, 1, id);
        ffi::sqlite3_bind_int64(insert, 13, TIME);
        ffi::sqlite3_bind_int64(insert, 14, TIME);
        assert_eq!(ffi::sqlite3_step(insert), ffi::SQLITE_DONE);
        ffi::sqlite3_reset(insert);
    }
}

/// Appends for `seconds` to a table with four indexes, every row with keys of its own, as visits have; rows a second.
pub fn append_indexed(path: &Path, group: usize, seconds: f64) -> f64 {
    let connection = open(path, "FULL", 16 * 1024);
    connection
        .execute_batch(
            "CREATE INDEX EventByType ON Event(websiteId, eventType, createdAt);
             CREATE INDEX EventBySession ON Event(sessionId);
             CREATE INDEX EventByVisitor ON Event(visitorId);
             CREATE INDEX EventByTime ON Event(createdAt)",
        )
        .unwrap();
    let mut id = 0;
    // Quick runs, which only try whether this works, are not worth the wait.
    let before = if seconds < 1.0 { CHUNK } else { ROWS_BEFORE };
    while id < before {
        let chunk = rows(id, CHUNK);
        append_group(&connection, &mut id, &chunk);
    }
    let (mut elapsed, mut count) = (0.0, 0);
    while elapsed < seconds {
        for chunk in rows(id, CHUNK.next_multiple_of(group)).chunks(group) {
            let begun = Instant::now();
            append_group(&connection, &mut id, chunk);
            elapsed += begun.elapsed().as_secs_f64();
            count += chunk.len();
            if elapsed >= seconds {
                break;
            }
        }
    }
    count as f64 / elapsed
}

fn append_group(connection: &Connection, id: &mut usize, rows: &[Texts]) {
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut insert = connection.prepare_cached(INSERT).unwrap();
    for [kind, url, referrer, session, visitor, device, browser, os, location, properties] in rows {
        *id += 1;
        let time = TIME + *id as i64;
        insert
            .execute(params![
                *id as i64, WEBSITE, kind, url, referrer, session, visitor, device, browser, os, location, properties,
                time, time
            ])
            .unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

//! What hitlog spares its users: one SQLite table that keeps its four indexes up row by row.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use crate::{measure::BATCH, traffic};

pub const INDEXES: [&str; 4] = [
    "CREATE INDEX EventByType ON Event(websiteId, eventType, createdAt)",
    "CREATE INDEX EventBySession ON Event(sessionId)",
    "CREATE INDEX EventByVisitor ON Event(visitorId)",
    "CREATE INDEX EventByTime ON Event(createdAt)",
];

/// What it took.
#[derive(Debug, Clone)]
pub struct Table {
    /// Rows a second, over all.
    pub rate: f64,
    /// Of the file, a row.
    pub bytes: f64,
    /// Rows so far, and their rate, a few times on the way.
    pub rates: Vec<(usize, f64)>,
}

/// Puts the rows of the first `events` events into one table that keeps its four indexes up row by row, with what SQLite
/// is given in hitlog.
pub fn indexed_table(path: &Path, events: usize) -> Table {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 512;
             CREATE TABLE Event(id INTEGER PRIMARY KEY, websiteId TEXT NOT NULL, eventType TEXT NOT NULL,
                 url TEXT NOT NULL, referrer TEXT, sessionId TEXT NOT NULL, visitorId TEXT NOT NULL, deviceType TEXT,
                 browser TEXT, os TEXT, location TEXT, properties TEXT, createdAt INTEGER NOT NULL,
                 receivedAt INTEGER NOT NULL);
             {};",
            INDEXES.join(";")
        ))
        .unwrap();
    let mut insert =
        connection.prepare("INSERT INTO Event VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)").unwrap();
    let (mut elapsed, mut rates) = (Duration::ZERO, Vec::new());
    for first in (0..events).step_by(BATCH) {
        let rows: Vec<serde_json::Value> = (first..(first + BATCH).min(events))
            .map(|number| serde_json::from_str(&traffic::event("pm-x", number)).unwrap())
            .collect();
        let begun = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for (number, event) in (first..).zip(&rows) {
            let text = |name: &str| event[name].as_str();
            let properties = event.get("properties").map(ToString::to_string);
            let time = 1_769_630_400_000_i64 + (number / 100) as i64;
            insert
                .execute(params![
                    number as i64 + 1,
                    "web-0123456789ab",
                    text("eventType"),
                    text("url"),
                    text("referrer"),
                    text("sessionId"),
                    text("visitorId"),
                    text("deviceType"),
                    text("browser"),
                    text("os"),
                    text("location"),
                    properties,
                    time,
                    time
                ])
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        elapsed += begun.elapsed();
        if (first + BATCH).is_multiple_of((events / 4).max(BATCH)) {
            rates.push((first + BATCH, (first + BATCH) as f64 / elapsed.as_secs_f64()));
        }
    }
    let rate = events as f64 / elapsed.as_secs_f64();
    drop(insert);
    connection.close().unwrap();
    Table { rates, rate, bytes: fs::metadata(path).unwrap().len() as f64 / events as f64 }
}

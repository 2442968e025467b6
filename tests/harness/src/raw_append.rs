//! The limit that groups are measured against: rows appended to a bare table, one synced transaction a group, in the
//! same page size and with the same syncs as hitlog's. The same rows over and over, which an append does not notice.

use std::{path::Path, time::Instant};

use rusqlite::{Connection, params};
use serde_json::Value;

use crate::traffic;

const TEXTS: [&str; 10] =
    ["eventType", "url", "referrer", "sessionId", "visitorId", "deviceType", "browser", "os", "location", "properties"];
pub const WEBSITE: &str = "web-0123456789ab";
pub const TIME: i64 = 1_769_630_400_000;
pub const INSERT: &str = "INSERT INTO Event VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)";

/// A row's texts, in the order of the columns after the website's.
pub type Texts = [Option<String>; 10];

/// Appends for `seconds` through rusqlite, which copies each text; rows a second.
pub fn run(path: &Path, group: usize, seconds: f64) -> f64 {
    let connection = open(path, "FULL", 16 * 1024);
    let rows = rows(0, group);
    let mut insert = connection.prepare(INSERT).unwrap();
    let (started, mut id) = (Instant::now(), 0_i64);
    while started.elapsed().as_secs_f64() < seconds {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for [kind, url, referrer, session, visitor, device, browser, os, location, properties] in &rows {
            id += 1;
            insert
                .execute(params![
                    id, WEBSITE, kind, url, referrer, session, visitor, device, browser, os, location, properties,
                    TIME, TIME
                ])
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
    }
    id as f64 / started.elapsed().as_secs_f64()
}

/// An empty table under the pragmas that hitlog's active segment has.
pub fn open(path: &Path, synchronous: &str, page_bytes: usize) -> Connection {
    let connection = Connection::open(path).unwrap();
    // A checkpoint each eight megabytes, as hitlog has it.
    let checkpoint = 8 * 1024 * 1024 / page_bytes;
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = {page_bytes}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = {checkpoint};
             CREATE TABLE Event(id INTEGER PRIMARY KEY, websiteId TEXT NOT NULL, eventType TEXT NOT NULL,
                 url TEXT NOT NULL, referrer TEXT, sessionId TEXT NOT NULL, visitorId TEXT NOT NULL, deviceType TEXT,
                 browser TEXT, os TEXT, location TEXT, properties TEXT, createdAt INTEGER NOT NULL,
                 receivedAt INTEGER NOT NULL)"
        ))
        .unwrap();
    connection
}

/// The rows of the events from `first` on.
pub fn rows(first: usize, count: usize) -> Vec<Texts> {
    let row = |number| {
        let event: Value = serde_json::from_str(&traffic::event("pm-x", number)).unwrap();
        TEXTS.map(|name| {
            let value = event.get(name)?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
    };
    (first..first + count).map(row).collect()
}

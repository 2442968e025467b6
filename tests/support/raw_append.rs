//! The limit that batches are measured against: rows appended to a bare table through rusqlite, one synced
//! transaction a group, in the same page size and with the same syncs as hitlog's.

use std::{path::Path, time::Instant};

use rusqlite::params;
use serde_json::Value;

use super::traffic;

const TEXTS: [&str; 10] =
    ["eventType", "url", "referrer", "sessionId", "visitorId", "deviceType", "browser", "os", "location", "properties"];

/// Appends for `seconds`; rows a second.
pub fn run(path: &Path, group: usize, seconds: f64) -> f64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 512;
             CREATE TABLE Event(id INTEGER PRIMARY KEY, websiteId TEXT NOT NULL, eventType TEXT NOT NULL,
                 url TEXT NOT NULL, referrer TEXT, sessionId TEXT NOT NULL, visitorId TEXT NOT NULL, deviceType TEXT,
                 browser TEXT, os TEXT, location TEXT, properties TEXT, createdAt INTEGER NOT NULL,
                 receivedAt INTEGER NOT NULL)",
        )
        .unwrap();
    let batch: Value = serde_json::from_str(&traffic::batch("pm-x", group)).unwrap();
    let text = |row: &Value, name: &str| {
        row.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let rows: Vec<[Option<String>; 10]> =
        batch["events"].as_array().unwrap().iter().map(|row| TEXTS.map(|name| text(row, name))).collect();
    let mut insert =
        connection.prepare("INSERT INTO Event VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)").unwrap();
    let (website, time) = ("web-0123456789ab", 1_769_630_400_000_i64);
    let (started, mut id) = (Instant::now(), 0_i64);
    while started.elapsed().as_secs_f64() < seconds {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for [kind, url, referrer, session, visitor, device, browser, os, location, properties] in &rows {
            id += 1;
            insert
                .execute(params![
                    id, website, kind, url, referrer, session, visitor, device, browser, os, location, properties,
                    time, time
                ])
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
    }
    id as f64 / started.elapsed().as_secs_f64()
}

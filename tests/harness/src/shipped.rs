//! What was shipped, field by field: the events of data directories beside the rows of a table in ClickHouse.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{ClickHouse, Daemon, wait_until};

/// The fields of an event but its sequence, as texts; what is absent is empty.
pub type Fields = Vec<String>;

/// Every event of a data directory, by its sequence.
pub fn here(data: &Path) -> BTreeMap<u64, Fields> {
    let open = |path: &Path| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let catalog = open(&data.join("catalog.db"));
    let sql = "SELECT number, generation FROM Segment WHERE state NOT IN ('prepared', 'dropped')";
    let mut select = catalog.prepare(sql).unwrap();
    let segments: Vec<(i64, i64)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let mut events = BTreeMap::new();
    for (number, generation) in segments {
        let suffix = if generation == 1 { String::new() } else { format!(".g{generation}") };
        let segment = open(&data.join(format!("segments/{number:012}{suffix}.db")));
        let mut select = segment
            .prepare(
                "SELECT id, websiteId, eventType, createdAt, receivedAt, visitorId, sessionId, url,
                        ifnull(properties, ''), ifnull(referrer, ''), ifnull(deviceType, ''), ifnull(browser, ''),
                        ifnull(os, ''), ifnull(location, '') FROM Event",
            )
            .unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let text = |column| match row.get_ref(column).unwrap() {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                value => value.as_str().unwrap().to_owned(),
            };
            events.insert(row.get::<_, i64>(0).unwrap().unsigned_abs(), (1..14).map(text).collect());
        }
    }
    events
}

/// Every row of a table, by node and sequence; more than one where it is there more than once.
pub fn there(clickhouse: &ClickHouse, table: &str) -> BTreeMap<(u32, u64), Vec<Fields>> {
    let answer = clickhouse.query(&format!(
        "SELECT toString(node), toString(seq), site, toString(type), toString(toUnixTimestamp64Milli(created_at)),
                toString(toUnixTimestamp64Milli(received_at)), visitor, session, url, properties, referrer, device,
                browser, os, location
         FROM {table} FORMAT JSONCompactEachRow"
    ));
    let mut rows: BTreeMap<(u32, u64), Vec<Fields>> = BTreeMap::new();
    for line in answer.lines() {
        let fields: Vec<Value> = serde_json::from_str(line).unwrap();
        let mut fields: Fields = fields.iter().map(|field| field.as_str().unwrap().to_owned()).collect();
        let rest = fields.split_off(2);
        rows.entry((fields[0].parse().unwrap(), fields[1].parse().unwrap())).or_default().push(rest);
    }
    rows
}

/// What is wrong with what was shipped: lost, twice, changed, or never taken in. `nodes` are data directories by the
/// number of the node.
pub fn differences(clickhouse: &ClickHouse, table: &str, nodes: &[(u32, &Path)]) -> Vec<String> {
    let mut there = there(clickhouse, table);
    let mut found = Vec::new();
    for (node, data) in nodes {
        for (sequence, fields) in here(data) {
            match there.remove(&(*node, sequence)).as_deref() {
                None => found.push(format!("lost: {node}/{sequence}")),
                Some([one]) if *one == fields => {}
                Some([one]) => found.push(format!("changed: {node}/{sequence}: {fields:?} became {one:?}")),
                Some(more) => found.push(format!("{} times: {node}/{sequence}", more.len())),
            }
        }
    }
    found.extend(there.keys().map(|(node, sequence)| format!("never taken in: {node}/{sequence}")));
    found
}

/// Waits until a daemon has shipped all that it has.
pub fn wait_until_shipped(daemon: &Daemon) {
    wait_until("all is shipped", || {
        let metrics = daemon.try_metrics()?;
        let is_none = |name: &str| metrics.get(name) == Some(&0.0);
        (is_none("hitlog_ship_lag_events") && is_none("hitlog_ship_open_ranges")).then_some(())
    });
}

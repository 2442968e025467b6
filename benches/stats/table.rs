//! The same events in one SQLite table, as somebody who knows SQLite and these questions would keep them: what is asked
//! for stands in columns of its own that are filled when the event is stored (the page, the day, what counts as what),
//! and each question finds all that it needs in one index, in the order that it needs.
//!
//! The questions are kept in the file as SQL with the answers, so that another database can be asked the same
//! (beside_duckdb.py).

use std::{fs, path::Path};

use hitlog::store::Span;
use rusqlite::{Connection, OpenFlags, params, types::ValueRef};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{CODE, DAY_MS, WEBSITE, traffic::Source};

/// Neighbours of a visit are at most so far apart.
const PAUSE_MS: i64 = 30 * 60_000;
/// No visit of the traffic lasts so long.
const VISIT_MS: i64 = DAY_MS;
/// Pages in the list of the most seen.
pub const PAGES: usize = 10;
const SCHEMA: &str = "
    CREATE TABLE Event(id INTEGER PRIMARY KEY, websiteId TEXT NOT NULL, eventType TEXT NOT NULL, url TEXT NOT NULL,
        referrer TEXT, sessionId TEXT NOT NULL, visitorId TEXT NOT NULL, deviceType TEXT, browser TEXT, os TEXT,
        location TEXT, properties TEXT, createdAt INTEGER NOT NULL,
        page TEXT NOT NULL, day INTEGER NOT NULL, pageview INTEGER NOT NULL, interaction INTEGER NOT NULL);
    CREATE TABLE Question(name TEXT PRIMARY KEY, sql TEXT NOT NULL, answer TEXT NOT NULL);";
const INDEXES: &str = "
    CREATE INDEX EventByVisitor ON Event(websiteId, visitorId, createdAt, pageview, interaction);
    CREATE INDEX EventByDay ON Event(websiteId, day, visitorId, createdAt, pageview, interaction);
    CREATE INDEX EventByPage ON Event(websiteId, page, visitorId, createdAt, pageview);
    CREATE INDEX EventByVisit ON Event(websiteId, sessionId, visitorId, createdAt, pageview, interaction, page);
    ANALYZE;";
/// What a connection is given: the most of a file that SQLite maps unless it is compiled otherwise, a gibibyte of
/// pages, no temporary files, and a thread that helps to sort.
const SETTINGS: &str = "PRAGMA mmap_size = 2147418112; PRAGMA cache_size = -1048576; PRAGMA temp_store = MEMORY;
    PRAGMA threads = 1;";

/// What a question is answered with, as rows of columns.
pub type Rows = Vec<Vec<Value>>;

/// One connection to the table.
pub struct Table(Connection);

impl Table {
    /// Puts so many events into a table, unless it is there already.
    pub fn make(path: &Path, events: usize) {
        if path.exists() {
            return;
        }
        let making = path.with_extension("making");
        // What a making that was cut short has left.
        let _ = fs::remove_file(&making);
        let mut connection = Connection::open(&making).unwrap();
        connection
            .execute_batch("PRAGMA page_size = 16384; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            .unwrap();
        connection.execute_batch(SETTINGS).unwrap();
        let transaction = connection.transaction().unwrap();
        transaction.execute_batch(SCHEMA).unwrap();
        fill(&transaction, events);
        transaction.execute_batch(INDEXES).unwrap();
        transaction.commit().unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL;").unwrap();
        connection.close().unwrap();
        fs::rename(&making, path).unwrap();
    }

    /// Connects to a table of so many events.
    pub fn open(path: &Path, events: usize) -> Self {
        let table = Self(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap());
        table.0.execute_batch(SETTINGS).unwrap();
        let last: i64 = table.0.query_row("SELECT max(id) FROM Event", [], |row| row.get(0)).unwrap();
        assert_eq!(last, events as i64, "{} is of another run: name another directory", path.display());
        table
    }

    pub fn ask(&self, question: &Sql) -> Rows {
        let mut statement = self.0.prepare(&question.0).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns)
                .map(|column| {
                    Ok(match row.get_ref(column)? {
                        ValueRef::Integer(number) => number.into(),
                        value => value.as_str()?.into(),
                    })
                })
                .collect()
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Keeps a question and its answer for another database.
    pub fn note(&self, name: &str, question: &Sql, answer: &Rows) {
        let answer = serde_json::to_string(answer).unwrap();
        let note = "INSERT OR REPLACE INTO Question VALUES(?1, ?2, ?3)";
        self.0.execute(note, params![name, question.portable(), answer]).unwrap();
    }
}

/// A question as SQL.
pub struct Sql(String);

impl Sql {
    /// Of the range, a row: when it begins, visitors, page views, interactions, visits, bounces and the sum of the
    /// visits' durations.
    pub fn totals(span: Span) -> Self {
        let Span { from, to } = span;
        let visits = visits(span);
        Self(format!(
            "WITH {visits},
             seen AS (SELECT count(DISTINCT visitorId) AS visitors, sum(pageview) AS pageviews,
                     sum(interaction) AS interactions
                 FROM Event INDEXED BY EventByVisitor
                 WHERE websiteId = '{WEBSITE}' AND createdAt >= {from} AND createdAt < {to}),
             begun AS (SELECT {COUNTED} FROM visit)
             SELECT {from}, visitors, pageviews, interactions, visits, bounces, duration FROM seen, begun"
        ))
    }

    /// Of each day of the range, such a row.
    pub fn days(span: Span) -> Self {
        let (first, end) = (span.from / DAY_MS, span.to / DAY_MS);
        let visits = visits(span);
        Self(format!(
            "WITH {visits},
             seen AS (SELECT day, count(DISTINCT visitorId) AS visitors, sum(pageview) AS pageviews,
                     sum(interaction) AS interactions
                 FROM Event INDEXED BY EventByDay
                 WHERE websiteId = '{WEBSITE}' AND day >= {first} AND day < {end} GROUP BY day),
             begun AS (SELECT began - began % {DAY_MS} AS midnight, {COUNTED} FROM visit GROUP BY midnight)
             SELECT midnight, visitors, pageviews, interactions, visits, bounces, duration
             FROM seen JOIN begun ON day * {DAY_MS} = midnight ORDER BY midnight"
        ))
    }

    /// Of each page that most visitors have seen, a row: its visitors, its page views, and visits that saw it.
    pub fn pages(span: Span) -> Self {
        let Span { from, to } = span;
        let visits = visits(span);
        Self(format!(
            "WITH {visits},
             top AS (SELECT page, count(DISTINCT visitorId) AS visitors, sum(pageview) AS pageviews
                 FROM Event INDEXED BY EventByPage
                 WHERE websiteId = '{WEBSITE}' AND createdAt >= {from} AND createdAt < {to}
                 GROUP BY page ORDER BY visitors DESC, page LIMIT {PAGES}),
             saw AS (SELECT DISTINCT sessionId, visitorId, began, page
                 FROM visit JOIN Event INDEXED BY EventByVisit USING (sessionId, visitorId)
                 WHERE websiteId = '{WEBSITE}' AND createdAt >= began AND createdAt <= ended
                     AND page IN (SELECT page FROM top)),
             counted AS (SELECT page, count(*) AS visits FROM saw GROUP BY page)
             SELECT page, visitors, pageviews, visits FROM top JOIN counted USING (page)
             ORDER BY visitors DESC, page"
        ))
    }

    /// Without what only SQLite takes.
    fn portable(&self) -> String {
        let hints = INDEXES.split_whitespace().filter(|word| word.starts_with("EventBy"));
        hints.fold(self.0.clone(), |sql, index| sql.replace(&format!("INDEXED BY {index}"), ""))
    }
}

/// What is said of visits.
const COUNTED: &str = "count(*) AS visits,
    sum(CASE WHEN views = 1 AND acts = 0 THEN 1 ELSE 0 END) AS bounces, sum(ended - began) AS duration";

/// The visits that began in a range. Whether one began earlier shows in the half hour before.
///
/// What a visitor did in a session is one run of events if it took no longer than the pause that would end it: seen so,
/// windows are needed for the few that took longer. With windows over everything SQLite takes several times as long.
fn visits(Span { from, to }: Span) -> String {
    let of_range =
        format!("websiteId = '{WEBSITE}' AND createdAt >= {} AND createdAt < {}", from - PAUSE_MS, to + VISIT_MS);
    format!(
        "whole AS (SELECT sessionId, visitorId, {SUMMED} FROM Event INDEXED BY EventByVisit
             WHERE {of_range} GROUP BY sessionId, visitorId),
         long AS (SELECT sessionId, visitorId FROM whole WHERE ended - began > {PAUSE_MS}),
         apart AS (SELECT sessionId, visitorId, createdAt, pageview, interaction,
                 CASE WHEN createdAt - lag(createdAt) OVER (PARTITION BY sessionId, visitorId ORDER BY createdAt)
                     <= {PAUSE_MS} THEN 0 ELSE 1 END AS begins
             FROM long JOIN Event INDEXED BY EventByVisit USING (sessionId, visitorId) WHERE {of_range}),
         numbered AS (SELECT *, sum(begins) OVER (PARTITION BY sessionId, visitorId ORDER BY createdAt
                 ROWS UNBOUNDED PRECEDING) AS number
             FROM apart),
         run AS (SELECT sessionId, visitorId, began, ended, views, acts FROM whole WHERE ended - began <= {PAUSE_MS}
             UNION ALL
             SELECT sessionId, visitorId, {SUMMED} FROM numbered GROUP BY sessionId, visitorId, number),
         visit AS (SELECT * FROM run WHERE views > 0 AND began >= {from} AND began < {to})"
    )
}

/// What is said of a run of events.
const SUMMED: &str =
    "min(createdAt) AS began, max(createdAt) AS ended, sum(pageview) AS views, sum(interaction) AS acts";

/// An event as the traffic has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    event_type: &'a str,
    url: &'a str,
    referrer: Option<&'a str>,
    session_id: &'a str,
    visitor_id: &'a str,
    device_type: &'a str,
    browser: &'a str,
    os: &'a str,
    location: &'a str,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    timestamp: i64,
}

/// Properties that say whether an event is an interaction.
#[derive(Default, Deserialize)]
struct Properties<'a> {
    #[serde(borrow)]
    name: Option<&'a str>,
    interactive: Option<bool>,
}

impl Sent<'_> {
    fn page(&self) -> &str {
        let path = self.url.strip_prefix("https://example.com").unwrap();
        path.split(['?', '#']).next().unwrap()
    }

    fn is_interaction(&self) -> bool {
        let properties = self.properties.map(|text| serde_json::from_str::<Properties<'_>>(text.get()).unwrap());
        let Properties { name, interactive } = properties.unwrap_or_default();
        self.event_type != "pageview" && name != Some("$engagement") && interactive != Some(false)
    }
}

fn fill(connection: &Connection, events: usize) {
    let insert = "INSERT INTO Event VALUES(NULL,?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)";
    let mut insert = connection.prepare(insert).unwrap();
    let (mut source, mut text) = (Source::new(), String::new());
    for _ in 0..events {
        text.clear();
        source.next(CODE, &mut text);
        let sent: Sent<'_> = serde_json::from_str(&text).unwrap();
        insert
            .execute(params![
                WEBSITE,
                sent.event_type,
                sent.url,
                sent.referrer,
                sent.session_id,
                sent.visitor_id,
                sent.device_type,
                sent.browser,
                sent.os,
                sent.location,
                sent.properties.map(RawValue::get),
                sent.timestamp,
                sent.page(),
                sent.timestamp / DAY_MS,
                sent.event_type == "pageview",
                sent.is_interaction()
            ])
            .unwrap();
    }
}

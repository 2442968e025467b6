//! What is asked of the target: each question a statement, its answer a value.
//!
//! Knows the statements and nothing of when they are sent.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use super::{
    client::{Answer, Client, Query, Summary},
    target::{About, Distributed, column_names, create_events, create_nodes},
    trouble::Trouble,
};
use crate::store::{ShipErasure, ShipNode};

/// The longest that the server may take to erase something: its tables may be large.
const ERASE_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// The longest answer to a question, in bytes, but for lists of sequences.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The bytes of a sequence and how often it is there.
const PAIR_BYTES: usize = 16;

/// The server, with the names of the tables there.
pub(super) struct Server {
    client: Client,
    database: String,
    table: String,
    /// The longest that the server may take for an answer.
    timeout: Duration,
}

/// What is sent in one insert.
pub(super) struct Insert<'a> {
    /// What the server knows it again by.
    pub(super) token: String,
    /// The name of this attempt, which no other running one has.
    pub(super) query_id: String,
    pub(super) body: Vec<Bytes>,
    pub(super) is_zstd: bool,
    pub(super) about: &'a About,
    /// What has to be written.
    pub(super) rows: u64,
    pub(super) range: &'a str,
}

/// A table that rows are stored in.
pub(super) struct Place {
    pub(super) database: String,
    pub(super) table: String,
    /// The cluster on each of whose servers it is.
    pub(super) cluster: Option<String>,
}

impl Place {
    /// As a statement that changes it names it.
    fn named(&self) -> String {
        let quoted = |name: &str| format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
        let on_cluster = self.cluster.as_ref().map(|cluster| format!(" ON CLUSTER {}", quoted(cluster)));
        format!("{}.{}{}", quoted(&self.database), quoted(&self.table), on_cluster.unwrap_or_default())
    }
}

/// The sequences of a range that are at the target.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Each once, rising.
    pub(super) sequences: Vec<u64>,
    /// How many rows there are more than that.
    pub(super) doubled: u64,
}

/// What a node's number is registered under: the name of a data directory, and whether it still holds the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) node: u32,
    pub(super) instance: String,
    pub(super) holds: bool,
    /// When that was said last, as the server writes it.
    pub(super) at: String,
}

impl Server {
    pub(super) fn new(client: Client, database: &str, table: &str, timeout: Duration) -> Self {
        Self { client, database: database.into(), table: table.into(), timeout }
    }

    /// The table of events, as statements name it.
    pub(super) fn events(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }

    /// The table of nodes, as statements name it.
    pub(super) fn nodes(&self) -> String {
        format!("{}.{}_nodes", self.database, self.table)
    }

    /// The names of the database and of the table of events.
    pub(super) fn names(&self) -> (&str, &str) {
        (&self.database, &self.table)
    }

    /// Asks, and believes whoever answers.
    async fn ask_anybody(&self, sql: &str, bytes_max: usize, time_max: Duration) -> Result<Answer, Trouble> {
        // Only when all is done, so that no error comes behind a 200; and of every shard, whatever the user's profile
        // says: what one has that is away is not missing.
        // Whole, whatever bounds the profile has; and as it is now.
        const SETTINGS: &[(&str, &str)] = &[
            ("wait_end_of_query", "1"),
            ("skip_unavailable_shards", "0"),
            ("limit", "0"),
            ("offset", "0"),
            ("extremes", "0"),
            ("use_query_cache", "0"),
            ("read_overflow_mode", "throw"),
            ("result_overflow_mode", "throw"),
            ("group_by_overflow_mode", "throw"),
            ("timeout_overflow_mode", "throw"),
        ];
        let query = Query { parameters: SETTINGS, answer_bytes_max: bytes_max, time_max, ..Query::new(sql) };
        Ok(self.client.request(query, Vec::new()).await?)
    }

    /// Asks. A 200 of something on the way that has not asked ClickHouse would say that nothing is there, and what is
    /// there would be sent once more: only an answer with ClickHouse's summary is one.
    async fn ask(&self, sql: &str, bytes_max: usize) -> Result<(Bytes, Summary), Trouble> {
        let answer = self.ask_anybody(sql, bytes_max, self.timeout).await?;
        Ok((answer.body, answer.summary.ok_or_else(no_summary)?))
    }

    async fn text(&self, sql: &str) -> Result<String, Trouble> {
        self.text_within(sql, ANSWER_BYTES_MAX).await
    }

    /// Answers a statement with a text of so many bytes at the most.
    pub(super) async fn text_within(&self, sql: &str, bytes_max: usize) -> Result<String, Trouble> {
        text_of(&self.ask(sql, bytes_max).await?.0)
    }

    async fn number(&self, sql: &str) -> Result<u64, Trouble> {
        let text = self.text(sql).await?;
        text.trim().parse().map_err(|_| Trouble::Wait(format!("the server's answer is no number: {}", first(&text))))
    }

    /// The version, and what the table of events is.
    pub(super) async fn about(&self) -> Result<About, Trouble> {
        let sql = format!(
            "SELECT version(), (SELECT any(engine_full) FROM system.tables WHERE database = '{}' AND name = '{}') \
             FORMAT TSVRaw",
            self.database, self.table
        );
        // Old servers, which are refused by their version, write no summary.
        let text = text_of(&self.ask_anybody(&sql, ANSWER_BYTES_MAX, self.timeout).await?.body)?;
        let parts = text.trim_end_matches('\n').split_once('\t');
        let Some((version, engine_full)) = parts.filter(|(version, _)| version.starts_with(|of: char| of.is_numeric()))
        else {
            return Err(Trouble::Wait(format!(
                "an answer came that is not ClickHouse's (\"{}\"): is something between hitlog and the server that \
                 answers in its place?",
                first(&text)
            )));
        };
        let engine_full = if engine_full == "\\N" { "" } else { engine_full };
        Ok(About { version: version.into(), engine_full: engine_full.into() })
    }

    /// The same of the tables that a distributed one leads to: one of each kind that there is.
    pub(super) async fn about_shards(&self, to: &Distributed, version: &str) -> Result<Vec<About>, Trouble> {
        let sql = format!(
            "SELECT DISTINCT engine_full FROM clusterAllReplicas('{}', system.tables) WHERE database = '{}' AND name = \
             '{}' FORMAT TSVRaw",
            to.cluster, to.database, to.table
        );
        let text = self.text(&sql).await?;
        let about = |line: &str| About { version: version.into(), engine_full: line.into() };
        Ok(text.lines().map(about).collect())
    }

    /// The columns of the table of events, each with its type; behind that of one that is not stored as it is sent
    /// stands of what kind it is.
    pub(super) async fn columns(&self) -> Result<Vec<(String, String)>, Trouble> {
        let sql = format!(
            "SELECT name, concat(type, if(default_kind IN ('', 'DEFAULT'), '', concat(' ', default_kind))) FROM \
             system.columns WHERE database = '{}' AND table = '{}' FORMAT TSVRaw",
            self.database, self.table
        );
        let text = self.text(&sql).await?;
        Ok(text.lines().filter_map(|line| line.split_once('\t')).map(|(a, b)| (a.into(), b.into())).collect())
    }

    /// Whether the database is there, and the user has any rights in it.
    pub(super) async fn has_database(&self) -> Result<bool, Trouble> {
        let sql = format!("SELECT count() FROM system.databases WHERE name = '{}'", self.database);
        Ok(self.number(&sql).await? > 0)
    }

    /// Makes the table of events, if there is none.
    pub(super) async fn create_events(&self) -> Result<(), Trouble> {
        self.text(&create_events(&self.events())).await.map(drop)
    }

    /// Whether the table of events has any of a node after a sequence.
    pub(super) async fn has_any(&self, node: u32, after: u64) -> Result<bool, Trouble> {
        let sql = format!(
            "SELECT count() FROM (SELECT 1 FROM {} WHERE node = {node} AND seq > {after} LIMIT 1)",
            self.events()
        );
        Ok(self.number(&sql).await? > 0)
    }

    /// Whether there is a table of nodes.
    pub(super) async fn has_nodes(&self) -> Result<bool, Trouble> {
        let sql = format!(
            "SELECT count() FROM system.tables WHERE database = '{}' AND name = '{}_nodes'",
            self.database, self.table
        );
        Ok(self.number(&sql).await? > 0)
    }

    /// Makes the table of nodes, if there is none.
    pub(super) async fn create_nodes(&self) -> Result<(), Trouble> {
        self.text(&create_nodes(&self.nodes())).await.map(drop)
    }

    /// Who holds, or has held, a number of a node.
    pub(super) async fn claims(&self) -> Result<Vec<Claim>, Trouble> {
        let sql = format!(
            "SELECT node, instance, argMax(state, at) = 'holds', max(at) FROM {} GROUP BY node, instance ORDER BY \
             node, instance SETTINGS select_sequential_consistency = 1 FORMAT TSV",
            self.nodes()
        );
        let claim = |line: &str| {
            let mut parts = line.split('\t');
            let node = parts.next()?.parse().ok()?;
            let instance = parts.next()?.into();
            Some(Claim { node, instance, holds: parts.next()? == "1", at: parts.next()?.into() })
        };
        Ok(self.text(&sql).await?.lines().filter_map(claim).collect())
    }

    /// Registers that a data directory holds a node's number, or holds it no more. It is the last word, whatever the
    /// server's clock says.
    pub(super) async fn claim(&self, (node, instance): (u32, &str), holds: bool) -> Result<(), Trouble> {
        let nodes = self.nodes();
        let sql = format!(
            "INSERT INTO {nodes} SETTINGS async_insert = 0 SELECT {node}, '{instance}', '{}', greatest(now64(6), \
             (SELECT max(at) FROM {nodes}) + toIntervalMicrosecond(1))",
            if holds { "holds" } else { "left" }
        );
        self.text(&sql).await.map(drop)
    }

    /// Sends a block. When this returns the server has stored it, and said so.
    pub(super) async fn insert(&self, insert: Insert<'_>) -> Result<(), Trouble> {
        let sql = format!("INSERT INTO {} ({}) FORMAT Native", self.events(), column_names());
        let mut parameters = vec![
            ("query_id", insert.query_id.as_str()),
            ("insert_deduplication_token", insert.token.as_str()),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            ("async_insert", "0"),
            ("skip_unavailable_shards", "0"),
            ("wait_end_of_query", "1"),
        ];
        parameters.extend(insert.about.insert_settings());
        let query =
            Query { parameters: &parameters, is_zstd: insert.is_zstd, time_max: self.timeout, ..Query::new(&sql) };
        let answer = self.client.request(query, insert.body).await?;
        let written = answer.summary.map(|summary| summary.written_rows);
        // What is derived from the table is counted with it.
        match written {
            Some(written) if written >= insert.rows => Ok(()),
            Some(written) => Err(Trouble::Wait(format!(
                "the server has taken {}, and says that it has written {written} of {} rows",
                insert.range, insert.rows
            ))),
            None => Err(no_summary()),
        }
    }

    /// How many attempts run whose names begin so.
    pub(super) async fn running(&self, prefix: &str, cluster: Option<&str>) -> Result<u64, Trouble> {
        let of = everywhere("system.processes", cluster);
        self.number(&format!("SELECT count() FROM {of} WHERE startsWith(initial_query_id, '{prefix}')")).await
    }

    /// When the events arrived that are there, of those of a node from the first sequence to the last: by sequence, in
    /// milliseconds since 1970, UTC. The table is partitioned by it, so that nobody can have changed it there.
    pub(super) async fn arrivals(
        &self,
        node: u32,
        (first, last): (u64, u64),
        about: &About,
    ) -> Result<BTreeMap<u64, i64>, Trouble> {
        let sql = format!(
            "SELECT seq, any(toUnixTimestamp64Milli(received_at)) FROM {} WHERE node = {node} AND seq BETWEEN {first} \
             AND {last} GROUP BY seq{} FORMAT RowBinary",
            self.events(),
            consistency(about)
        );
        let rows = self.pairs(&sql, last - first + 1).await?;
        Ok(rows.into_iter().map(|(sequence, at)| (sequence, at.cast_signed())).collect())
    }

    /// The answer to a question for two numbers of 64 bits a row, of which there are at most so many.
    async fn pairs(&self, sql: &str, rows_max: u64) -> Result<Vec<(u64, u64)>, Trouble> {
        let most = usize::try_from(rows_max).unwrap_or(usize::MAX).saturating_mul(PAIR_BYTES);
        let (body, summary) = self.ask(sql, most.saturating_add(PAIR_BYTES)).await?;
        if body.len() as u64 != summary.result_rows.saturating_mul(PAIR_BYTES as u64) {
            return Err(Trouble::Wait(format!(
                "an answer came with {} bytes, and the server says that it has {} rows",
                body.len(),
                summary.result_rows
            )));
        }
        let (numbers, _) = body.as_chunks::<8>();
        let numbers: Vec<_> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    /// Which sequences of a node are there, of those from the first to the last; there are at most `rows` of them.
    pub(super) async fn present(
        &self,
        node: u32,
        (first, last): (u64, u64),
        rows: u64,
        about: &About,
    ) -> Result<Present, Trouble> {
        let consistency = consistency(about);
        let sql = format!(
            "SELECT seq, count() FROM {} WHERE node = {node} AND seq BETWEEN {first} AND {last} GROUP BY seq ORDER BY \
             seq{consistency} FORMAT RowBinary",
            self.events()
        );
        let mut present = Present::default();
        for (sequence, count) in self.pairs(&sql, rows.max(last - first + 1)).await? {
            present.sequences.push(sequence);
            present.doubled += count.saturating_sub(1);
        }
        Ok(present)
    }

    /// How many of the changes of a table have not ended that take rows out of answers (`is_mask`) or out of files, and
    /// why one of them fails.
    pub(super) async fn mutations(&self, place: &Place, is_mask: bool) -> Result<(u64, String), Trouble> {
        let Place { database, table, cluster } = place;
        let of = everywhere("system.mutations", cluster.as_deref());
        let kind = if is_mask { ">" } else { "= 0 AND position(command, 'DELETE') >" };
        let text = self
            .text(&format!(
                "SELECT count(), substring(any(nullIf(latest_fail_reason, '')), 1, 500) FROM {of} WHERE database = {} \
                 AND table = {} AND NOT is_done AND position(command, '_row_exists') {kind} 0 FORMAT TSV",
                text(database),
                text(table)
            ))
            .await?;
        let (count, why) = text.trim_end_matches('\n').split_once('\t').unwrap_or_default();
        let count =
            count.parse().map_err(|_| Trouble::Wait(format!("no count of mutations came: {}", first(&text))))?;
        Ok((count, if why == "\\N" { String::new() } else { why.to_owned() }))
    }

    /// Has rows be in no answer any more, and waits until that is so everywhere.
    pub(super) async fn mask(&self, place: &Place, condition: &str, about: &About) -> Result<(), Trouble> {
        let settings = about.delete_settings();
        self.erase(&format!("DELETE FROM {} WHERE {condition} SETTINGS {settings}", place.named())).await
    }

    /// Has rows that are in no answer be taken out of the files, and waits until that is done.
    pub(super) async fn take_out(&self, place: &Place, condition: &str) -> Result<(), Trouble> {
        self.erase(&format!("ALTER TABLE {} DELETE WHERE {condition} SETTINGS mutations_sync = 2", place.named())).await
    }

    async fn erase(&self, sql: &str) -> Result<(), Trouble> {
        let answer = self.ask_anybody(sql, ANSWER_BYTES_MAX, self.timeout.max(ERASE_TIME_MAX)).await?;
        answer.summary.ok_or_else(no_summary).map(drop)
    }

    /// The latest time of the servers' clocks, in seconds since 1970.
    pub(super) async fn now(&self, cluster: Option<&str>) -> Result<u64, Trouble> {
        let of = everywhere("system.one", cluster);
        self.number(&format!("SELECT max(toUnixTimestamp(now())) FROM {of}")).await
    }

    /// How many files of a table were replaced by this time, in seconds since 1970, and are there still.
    pub(super) async fn old_parts(&self, place: &Place, replaced_by: u64) -> Result<u64, Trouble> {
        let Place { database, table, cluster } = place;
        let of = everywhere("system.parts", cluster.as_deref());
        self.number(&format!(
            "SELECT count() FROM {of} WHERE database = {} AND table = {} AND NOT active AND \
             toUnixTimestamp(remove_time) <= {replaced_by}",
            text(database),
            text(table)
        ))
        .await
    }
}

/// Has a replica answer only when it has all that was confirmed.
fn consistency(about: &About) -> &'static str {
    if about.is_replicated() { " SETTINGS select_sequential_consistency = 1" } else { "" }
}

/// A system's table, of all servers of a cluster if there is one.
fn everywhere(table: &str, cluster: Option<&str>) -> String {
    cluster.map_or_else(|| table.to_owned(), |cluster| format!("clusterAllReplicas('{cluster}', {table})"))
}

fn text_of(body: &[u8]) -> Result<String, Trouble> {
    String::from_utf8(body.to_vec()).map_err(|_| Trouble::Wait("the server's answer is no text".into()))
}

fn no_summary() -> Trouble {
    let why = "an answer came without X-ClickHouse-Summary: what is between hitlog and the server must ask it, and \
               pass its headers on";
    Trouble::Wait(why.into())
}

/// Which rows an erasure is of, of the nodes that this directory has had, in their order. A visitor's go up to a
/// sequence of the node that was the newest then; of those before it all do: the original of a copy may have shipped
/// more than the copy knows of. A website's all go.
pub(super) fn condition(erasure: &ShipErasure, nodes: &[ShipNode]) -> String {
    let bound = erasure.visitor_id.as_ref().and(erasure.up_to);
    let is_of = |node: &&ShipNode| bound.is_none_or(|up_to| node.first_sequence <= up_to + 1);
    let mut numbers: Vec<_> = nodes.iter().filter(is_of).map(|node| node.node).collect();
    let mut rows = Vec::new();
    if let Some((up_to, newest)) = bound.zip(numbers.last().copied()) {
        numbers.retain(|node| *node != newest);
        rows.push(format!("node = {newest} AND seq <= {up_to}"));
    }
    if !numbers.is_empty() {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        rows.push(format!("node IN ({})", numbers.join(", ")));
    }
    let visitor = erasure.visitor_id.as_ref().map(|visitor| format!(" AND visitor = {}", text(visitor)));
    format!("(site = {}{} AND ({}))", text(&erasure.website_id), visitor.unwrap_or_default(), rows.join(" OR "))
}

/// A text as a statement takes it, whatever is in it.
fn text(text: &str) -> String {
    let mut hex = String::with_capacity(2 * text.len() + 9);
    hex.push_str("unhex('");
    text.bytes().for_each(|byte| {
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
        hex.extend([digit(byte >> 4), digit(byte & 15)]);
    });
    hex.push_str("')");
    hex
}

/// The beginning of a text that should have been another.
fn first(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::ShipErasureState;

    #[test]
    fn an_erasures_rows_are_those_of_its_own_nodes_whatever_the_visitor_is_called() {
        let erasure = ShipErasure {
            id: Arc::from("era-1"),
            website_id: "web-1".into(),
            visitor_id: Some("a'; --".into()),
            up_to: Some(7),
            state: ShipErasureState::Waiting,
            changed_at: 0,
        };
        let node = |first_sequence, node| ShipNode { first_sequence, node, instance: String::new() };
        let of_visitor = "(site = unhex('7765622d31') AND visitor = unhex('61273b202d2d') AND ";
        assert_eq!(condition(&erasure, &[node(0, 1)]), format!("{of_visitor}(node = 1 AND seq <= 7))"));
        // Started from a copy before it was asked for: what the original has shipped since goes as well.
        let copied = [node(0, 1), node(8, 65_537)];
        assert_eq!(condition(&erasure, &copied), format!("{of_visitor}(node = 65537 AND seq <= 7 OR node IN (1)))"));
        // And after that.
        let later = [node(0, 1), node(9, 65_537)];
        assert_eq!(condition(&erasure, &later), format!("{of_visitor}(node = 1 AND seq <= 7))"));
        let of_website = ShipErasure { visitor_id: None, ..erasure };
        assert_eq!(condition(&of_website, &copied), "(site = unhex('7765622d31') AND (node IN (1, 65537)))");
    }
}

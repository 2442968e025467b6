//! The table at the target: how it is made, and what has to be true of one that is there.
//!
//! Pure: texts of SQL, and what they answer. Who asks stands in `server`.

/// The oldest ClickHouse that is shipped to: since 23.8 (August 2023) tokens hold for what is derived from a table,
/// too.
const VERSION_MIN: (u64, u64) = (23, 8);
/// Since then this setting decides whether a token counts, and no longer `insert_deduplicate`.
const DEDUPLICATE_INSERT_SINCE: (u64, u64) = (26, 2);
/// Since then these settings have the names that they are sent under, and others before. All three came between 23.8
/// and this one.
const NEW_NAMES_SINCE: (u64, u64) = (24, 4);
/// What hitlog asks of the window of tokens, in inserts.
const WINDOW: u64 = 10_000;

/// Columns, their types, and how they are stored.
const COLUMNS: [(&str, &str, &str); 16] = [
    ("site", "LowCardinality(String)", ""),
    ("type", "Enum8('pageview' = 1, 'click' = 2, 'custom' = 3)", ""),
    ("created_at", "DateTime64(3, 'UTC')", " CODEC(Delta, ZSTD(1))"),
    ("received_at", "DateTime64(3, 'UTC')", " CODEC(Delta, ZSTD(1))"),
    ("node", "UInt32", " CODEC(ZSTD(1))"),
    ("seq", "UInt64", " CODEC(Delta, ZSTD(1))"),
    ("visitor", "String", " CODEC(ZSTD(1))"),
    ("session", "String", " CODEC(ZSTD(1))"),
    ("url", "String", " CODEC(ZSTD(1))"),
    ("properties", "String", " CODEC(ZSTD(1))"),
    ("referrer", "LowCardinality(String)", ""),
    ("device", "LowCardinality(String)", ""),
    ("browser", "LowCardinality(String)", ""),
    ("os", "LowCardinality(String)", ""),
    ("location", "LowCardinality(String)", ""),
    ("flags", "UInt8", ""),
];

/// The names of the columns, as an insert lists them.
pub(super) fn column_names() -> String {
    COLUMNS.map(|(name, _, _)| name).join(", ")
}

/// What makes the table of events.
pub(super) fn create_events(table: &str) -> String {
    let columns = COLUMNS.map(|(name, kind, codec)| format!("{name} {kind}{codec}")).join(", ");
    format!(
        "CREATE TABLE IF NOT EXISTS {table} ({columns}, INDEX seq seq TYPE minmax GRANULARITY 1) ENGINE = \
         ReplacingMergeTree PARTITION BY toYYYYMM(received_at) PRIMARY KEY (site, created_at) ORDER BY (site, \
         created_at, node, seq) SETTINGS non_replicated_deduplication_window = {WINDOW}, fsync_after_insert = 1, \
         fsync_part_directory = 1"
    )
}

/// What makes the table in which nodes are registered.
pub(super) fn create_nodes(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (node UInt32, instance String, state Enum8('holds' = 1, 'left' = 2), at \
         DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY (node, at) SETTINGS fsync_after_insert = 1, \
         fsync_part_directory = 1"
    )
}

/// What is said of a table that was there once.
pub(super) fn gone(table: &str) -> String {
    format!(
        "the table {table} is gone from the target, with what was shipped to it, or the user has no rights on it any \
         more. Grant those again, or restore the table there, and hitlog goes on where it was; or have everything that \
         is kept shipped to a new table: `hitlog ship resume --from-start`"
    )
}

/// What is said of a database that is not to be seen.
pub(super) fn no_database(database: &str) -> String {
    format!(
        "there is no database {database} at the target: CREATE DATABASE {database}; or, where there is one, grant the \
         user what docs/clickhouse.md lists: it has no rights on anything there"
    )
}

/// What is known of the table of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct About {
    /// The server's version.
    pub(super) version: String,
    /// The engine and its arguments and settings, as the server tells them; empty where there is no table.
    pub(super) engine_full: String,
}

/// What a table of the engine Distributed leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distributed {
    pub(super) cluster: String,
    pub(super) database: String,
    pub(super) table: String,
}

impl About {
    pub(super) fn has_table(&self) -> bool {
        !self.engine_full.is_empty()
    }

    /// The name of the engine.
    pub(super) fn engine(&self) -> &str {
        let end = self.engine_full.find(|letter: char| !letter.is_ascii_alphanumeric());
        &self.engine_full[..end.unwrap_or(self.engine_full.len())]
    }

    pub(super) fn is_replicated(&self) -> bool {
        self.engine().starts_with("Replicated") || self.engine().starts_with("Shared")
    }

    /// Where it leads, if it is one of the engine Distributed.
    pub(super) fn distributed(&self) -> Option<Distributed> {
        let arguments = self.engine_full.strip_prefix("Distributed(")?;
        let mut names = arguments.split('\'').skip(1).step_by(2).map(str::to_owned);
        Some(Distributed { cluster: names.next()?, database: names.next()?, table: names.next()? })
    }

    /// How many tokens the table remembers.
    pub(super) fn window(&self) -> u64 {
        let name = if self.is_replicated() { "replicated_deduplication_window" } else { NON_REPLICATED_WINDOW };
        // Without the setting a replicated table has the server's, 100 at the least by version.
        self.setting(name).unwrap_or(if self.is_replicated() { 100 } else { 0 })
    }

    /// Whether a column is one of those by which the table is sorted.
    fn sorts_by(&self, column: &str) -> bool {
        let Some((_, key)) = self.engine_full.split_once(" ORDER BY ") else { return false };
        let end = [" SAMPLE BY ", " TTL ", " SETTINGS "].iter().filter_map(|next| key.find(next)).min();
        let key = key[..end.unwrap_or(key.len())].trim_matches(['(', ')']);
        key.split(',').any(|part| part.trim() == column)
    }

    fn setting(&self, name: &str) -> Option<u64> {
        let (_, settings) = self.engine_full.split_once(" SETTINGS ")?;
        let value = |setting: &str| {
            let (key, value) = setting.trim().split_once(" = ")?;
            (key == name).then(|| value.trim().parse().ok()).flatten()
        };
        settings.split(',').find_map(value)
    }

    /// The first two numbers of the version.
    fn release(&self) -> (u64, u64) {
        let mut parts = self.version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Settings of an insert by which the target knows it again, whatever the user's profile says. A server refuses
    /// settings that it does not know.
    pub(super) fn insert_settings(&self) -> Vec<(&'static str, &'static str)> {
        let mut settings = vec![("insert_deduplicate", "1")];
        if self.release() >= DEDUPLICATE_INSERT_SINCE {
            settings.push(("deduplicate_insert", "enable"));
        }
        let has_new_names = self.release() >= NEW_NAMES_SINCE;
        if has_new_names {
            settings.push(("http_write_exception_in_output_format", "0"));
        }
        if self.distributed().is_some() {
            let name = if has_new_names { "distributed_foreground_insert" } else { "insert_distributed_sync" };
            settings.push((name, "1"));
        }
        settings
    }

    /// Settings with which a DELETE ends when it is done everywhere.
    pub(super) fn delete_settings(&self) -> &'static str {
        if self.release() >= NEW_NAMES_SINCE {
            "lightweight_deletes_sync = 2, mutations_sync = 2"
        } else {
            "mutations_sync = 2"
        }
    }

    /// Why hitlog does not ship to this server.
    pub(super) fn refusal(&self) -> Option<String> {
        (self.release() < VERSION_MIN).then(|| {
            format!(
                "the server is ClickHouse {}, and hitlog ships to 23.8 and later: older ones store parts of an insert \
                 that is cut off. Take a newer one",
                self.version
            )
        })
    }

    /// What is wrong with the engine and its settings, each with what mends it; `table` is the one that rows are
    /// stored in.
    pub(super) fn engine_faults(&self, table: &str) -> Vec<String> {
        let engine = self.engine();
        let kind = ["Replicated", "Shared"].iter().find_map(|kind| engine.strip_prefix(kind)).unwrap_or(engine);
        if !["MergeTree", "ReplacingMergeTree"].contains(&kind) {
            return vec![format!(
                "the engine of {table} is {engine}: it must be MergeTree or ReplacingMergeTree, replicated or not, or \
                 Distributed over such tables; others join events that are not the same"
            )];
        }
        let mut faults = Vec::new();
        if kind == "ReplacingMergeTree" && !["node", "seq"].iter().all(|column| self.sorts_by(column)) {
            faults.push(format!(
                "{table} is sorted by columns that do not tell two events apart, so its merges would keep one of them: \
                 make it anew with ORDER BY (site, created_at, node, seq)"
            ));
        }
        if self.window() < WINDOW && !(self.is_replicated() && self.setting(REPLICATED_WINDOW).is_none()) {
            let name = if self.is_replicated() { REPLICATED_WINDOW } else { NON_REPLICATED_WINDOW };
            faults.push(format!(
                "{table} remembers too few inserts to know one again that is sent twice: ALTER TABLE {table} MODIFY \
                 SETTING {name} = {WINDOW}"
            ));
        }
        if self.is_replicated() && self.setting(REPLICATED_WINDOW_SECONDS).is_none_or(|seconds| seconds < 86_400) {
            faults.push(format!(
                "{table} remembers inserts for too short a time: ALTER TABLE {table} MODIFY SETTING \
                 {REPLICATED_WINDOW_SECONDS} = 2592000"
            ));
        }
        faults
    }

    /// What is not as safe as it could be, with what mends it.
    pub(super) fn engine_warnings(&self, table: &str) -> Vec<String> {
        let is_unsynced = !self.is_replicated() && self.setting("fsync_after_insert") != Some(1);
        let warning = || {
            format!(
                "{table} does not sync what is inserted: a loss of power there may lose what hitlog counts as shipped. \
                 ALTER TABLE {table} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1"
            )
        };
        is_unsynced.then(warning).into_iter().collect()
    }
}

const NON_REPLICATED_WINDOW: &str = "non_replicated_deduplication_window";
const REPLICATED_WINDOW: &str = "replicated_deduplication_window";
const REPLICATED_WINDOW_SECONDS: &str = "replicated_deduplication_window_seconds";

/// What is wrong with the columns, each with what mends it. A table may have others besides, if they have defaults.
pub(super) fn column_faults(table: &str, there: &[(String, String)]) -> Vec<String> {
    let of_column = |(name, kind, codec): (&str, &str, &str)| {
        let found = there.iter().find(|(there, _)| there == name);
        match found {
            None => Some(format!("the column {name} is missing: ALTER TABLE {table} ADD COLUMN {name} {kind}{codec}")),
            Some((_, found)) if is_fit(name, kind, found) => None,
            Some((_, found)) => Some(format!(
                "the column {name} is {found}: ALTER TABLE {table} MODIFY COLUMN {name} {kind}{codec} (make the table \
                 anew where it is part of the key)"
            )),
        }
    };
    COLUMNS.into_iter().filter_map(of_column).collect()
}

/// Whether a column may have another type than the table that hitlog makes: a text is one in either way.
fn is_fit(name: &str, wanted: &str, found: &str) -> bool {
    let is_text = |kind: &str| ["String", "LowCardinality(String)"].contains(&kind);
    wanted == found || (is_text(wanted) && is_text(found)) || (name == "type" && is_text(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(version: &str, engine_full: &str) -> About {
        About { version: version.into(), engine_full: engine_full.into() }
    }

    fn made() -> Vec<(String, String)> {
        COLUMNS.map(|(name, kind, _)| (name.to_owned(), kind.to_owned())).to_vec()
    }

    #[test]
    fn old_servers_are_refused() {
        for (version, is_taken) in [
            ("26.7.2.1", true),
            ("23.8.1.2992", true),
            ("24.1", true),
            ("23.7.9", false),
            ("18.16.1", false),
            ("", false),
        ] {
            assert_eq!(about(version, "").refusal().is_none(), is_taken, "{version}");
        }
    }

    #[test]
    fn a_server_is_told_that_tokens_count_as_it_understands() {
        let has = |version, engine, name| about(version, engine).insert_settings().iter().any(|(of, _)| *of == name);
        for (version, knows) in [("26.1.9", false), ("26.2.1.106", true), ("27.1", true), ("23.8", false)] {
            assert_eq!(has(version, "MergeTree", "deduplicate_insert"), knows, "{version}");
            assert!(has(version, "MergeTree", "insert_deduplicate"));
        }
        assert!(has("26.7", "Distributed('a', 'b', 'c')", "distributed_foreground_insert"));
        assert!(!has("26.7", "MergeTree", "distributed_foreground_insert"));
    }

    #[test]
    fn windows_that_are_too_small_are_said_with_what_mends_them() {
        let check = |engine: &str, window: u64, faults: &[&str]| {
            let about = about("26.7", engine);
            assert_eq!(about.window(), window, "{engine}");
            let found = about.engine_faults("d.t").join("\n");
            assert_eq!(found.is_empty(), faults.is_empty(), "{engine}: {found}");
            faults.iter().for_each(|fault| assert!(found.contains(fault), "{engine}: {found}"));
        };
        let plain = "ReplacingMergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (site, node, seq) SETTINGS ";
        check(&format!("{plain}non_replicated_deduplication_window = 10000, index_granularity = 8192"), 10_000, &[]);
        check(
            &format!("{plain}index_granularity = 8192"),
            0,
            &["ALTER TABLE d.t MODIFY SETTING non_replicated_deduplication_window = 10000"],
        );
        check(&format!("{plain}non_replicated_deduplication_window = 3"), 3, &["window = 10000"]);
        let replicated = "ReplicatedReplacingMergeTree('/x', '{replica}') ORDER BY (seq, node) TTL a SETTINGS ";
        let whole = "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 2592000";
        check(&format!("{replicated}{whole}"), 10_000, &[]);
        check(&format!("{replicated}replicated_deduplication_window = 100"), 100, &["window = 10000", "= 2592000"]);
        check("Memory", 0, &["must be MergeTree"]);
        check("SummingMergeTree ORDER BY (node, seq)", 0, &["must be MergeTree"]);
        let unsorted = "SETTINGS non_replicated_deduplication_window = 10000";
        check(&format!("MergeTree ORDER BY site {unsorted}"), 10_000, &[]);
        check(&format!("ReplacingMergeTree ORDER BY (site, node) {unsorted}"), 10_000, &["ORDER BY (site, created_at"]);
        check(&format!("ReplacingMergeTree ORDER BY sequence {unsorted}"), 10_000, &["ORDER BY (site, created_at"]);
    }

    #[test]
    fn a_distributed_table_tells_where_it_leads() {
        let distributed = about("26.7", "Distributed('all', 'web', 'events_local', sipHash64(site, visitor))");
        let leads = Distributed { cluster: "all".into(), database: "web".into(), table: "events_local".into() };
        assert_eq!(distributed.distributed(), Some(leads));
        assert_eq!(distributed.engine(), "Distributed");
        assert_eq!(about("26.7", "MergeTree ORDER BY a").distributed(), None);
    }

    #[test]
    fn columns_that_are_not_as_they_must_be_are_said_with_what_mends_them() {
        type Columns = Vec<(String, String)>;
        let faults = |change: &dyn Fn(&mut Columns)| {
            let mut there = made();
            change(&mut there);
            column_faults("d.t", &there).join("\n")
        };
        assert_eq!(faults(&|_| {}), "");
        assert_eq!(faults(&|there| there.push(("own".into(), "String".into()))), "");
        assert_eq!(faults(&|there| there[10].1 = "String".into()), "");
        assert!(faults(&|there| drop(there.remove(5))).contains("ADD COLUMN seq UInt64 CODEC(Delta, ZSTD(1))"));
        assert!(faults(&|there| there[5].1 = "Int32".into()).contains("MODIFY COLUMN seq UInt64"));
    }
}

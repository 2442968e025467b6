//! What docs/clickhouse.md says beside its ten questions, statement by statement, on a real ClickHouse: the rights that
//! suffice and are needed, views of one's own, duplicates, and a table over two servers of which one is killed.

use std::collections::BTreeMap;

use harness::{ClickHouse, Client};
use hitlog::config::SETTINGS;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{papers::Paper, ship_queries::answers_are_as_by_hand};

const PAGE: &str = "docs/clickhouse.md";
/// What hitlog's user is refused.
const ACCESS_DENIED: u32 = 497;
/// Of all users but `default`.
const PASSWORD: &str = "a long password";
/// As the configuration has it that ClickHouse is installed with.
const STRICT: &str = "<access_control_improvements>\
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>\
    <table_engines_require_grant>true</table_engines_require_grant>\
    </access_control_improvements>";
/// All settings of shipping.
fn settings() -> Vec<&'static str> {
    let names = SETTINGS.iter().map(|setting| setting.name);
    names.filter(|name| name.starts_with("ship_") || *name == "node").collect()
}

/// The statements of the page by the names that stand behind `sql`.
pub(crate) fn statements() -> BTreeMap<String, String> {
    let blocks = Paper::of(PAGE).blocks.into_iter();
    blocks.filter_map(|(info, text)| Some((info.strip_prefix("sql ")?.to_owned(), text))).collect()
}

/// The statements of a block that has several.
fn block(name: &str) -> Vec<String> {
    let text = &statements()[name];
    text.trim_end().trim_end_matches(';').split(";\n").map(str::to_owned).collect()
}

/// The database of the page, on a server that has no table yet.
fn create_database(clickhouse: &ClickHouse) {
    clickhouse.query("CREATE DATABASE hitlog");
}

/// Runs a statement in that database, as it stands on the page. Times of the answer are in seconds since 1970. Fails
/// with the exception's code and its text.
pub(crate) fn try_run(
    clickhouse: &ClickHouse,
    user: &str,
    statement: &str,
    parameters: &[(&str, &str)],
) -> Result<String, (u32, String)> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let parameters = parameters.iter().map(|(name, value)| format!("&param_{name}={}", encoded(value)));
    let path =
        format!("/?wait_end_of_query=1&date_time_output_format=unix_timestamp{}", parameters.collect::<String>());
    let password = if user == "default" { "" } else { PASSWORD };
    let headers = [("x-clickhouse-database", "hitlog"), ("x-clickhouse-user", user), ("x-clickhouse-key", password)];
    let response = Client::connect(&clickhouse.address()).send("POST", &path, &headers, statement.as_bytes());
    let text = response.text();
    match response.header("x-clickhouse-exception-code") {
        Some(code) => Err((code.parse().unwrap(), format!("{statement}\n{text}"))),
        None => Ok(text),
    }
}

/// Runs a statement that has no parameters, as `default`, and returns what it answers without the last line's end.
pub(crate) fn run(clickhouse: &ClickHouse, statement: &str) -> String {
    let answer = try_run(clickhouse, "default", statement, &[]);
    answer.unwrap_or_else(|(_, text)| panic!("{text}")).trim_end().to_owned()
}

/// Inserts two events of a number and the next under a token, as hitlog does.
fn insert(clickhouse: &ClickHouse, token: &str, seq: u64) -> Result<String, u32> {
    let row =
        |seq| format!("('web-a', 'pageview', '2026-12-02 00:00:0{seq}', '2026-12-02 00:00:0{seq}', 1, {seq}, 'v')");
    let statement = format!(
        "INSERT INTO events (site, type, created_at, received_at, node, seq, visitor) SETTINGS async_insert = 0, \
         insert_deduplication_token = '{token}', deduplicate_blocks_in_dependent_materialized_views = 1 \
         VALUES {}, {}",
        row(seq),
        row(seq + 1)
    );
    try_run(clickhouse, "default", &statement, &[]).map_err(|(code, _)| code)
}

/// One with the database and the table.
pub(crate) fn with_table() -> Option<ClickHouse> {
    let clickhouse = ClickHouse::start()?;
    create_database(&clickhouse);
    run(&clickhouse, &statements()["table"]);
    Some(clickhouse)
}

#[test]
fn every_setting_stands_on_the_page() {
    let page = Paper::of(PAGE);
    let named = |setting: &&str| page.spans.iter().any(|span| span == setting);
    assert_eq!(settings().into_iter().filter(|setting| !named(setting)).collect::<Vec<_>>(), Vec::<&str>::new());
}

/// What hitlog asks of ClickHouse once the tables are there.
fn asked_by_hitlog() -> [&'static str; 11] {
    [
        "INSERT INTO events (site, type, created_at, received_at, node, seq) VALUES ('web-a', 1, 0, 0, 1, 1)",
        "SELECT count(), uniqExact(seq), sum(seq) FROM events WHERE node = 1 AND seq BETWEEN 1 AND 9",
        "SELECT throwIf(count() != 16) FROM system.columns WHERE database = 'hitlog' AND table = 'events'",
        "SELECT throwIf(count() != 2) FROM system.tables WHERE database = 'hitlog'",
        "SELECT throwIf(count() = 0) FROM system.processes WHERE user = currentUser()",
        "INSERT INTO events_nodes VALUES (1, 'instance')",
        "SELECT * FROM events_nodes",
        "DELETE FROM events WHERE site = 'web-a' AND visitor = 'v'",
        "ALTER TABLE events DELETE WHERE site = 'web-a' AND visitor = 'v'",
        "SELECT throwIf(count() < 2) FROM system.mutations WHERE database = 'hitlog' AND table = 'events'",
        "SELECT throwIf(count() = 0) FROM system.parts WHERE database = 'hitlog' AND table = 'events'",
    ]
}

#[test]
fn the_rights_suffice_and_each_is_needed() {
    let granted = |name| -> Vec<String> {
        let statements = block(name);
        statements.iter().map(|statement| statement.rsplit_once(" TO ").unwrap().0.to_owned()).collect()
    };
    let (rights, of_first, of_analyst) =
        (granted("rights"), granted("rights-of-the-first-start"), granted("rights-of-who-asks"));
    let without = |rights: &[String], left_out: usize| {
        let kept = rights.iter().enumerate().filter(|(at, _)| *at != left_out);
        kept.map(|(_, right)| right.clone()).collect::<Vec<_>>()
    };
    let all = rights.len();
    let Some(clickhouse) = ClickHouse::with(|options| {
        let mut user = |name: &str, rights: &[String]| {
            options.user(name, PASSWORD, &rights.iter().map(String::as_str).collect::<Vec<_>>());
        };
        user("first", &[&rights[..], &of_first].concat());
        user("analyst", &of_analyst);
        (0..=all).for_each(|left_out| user(&format!("lacks_{left_out}"), &without(&rights, left_out)));
        options.config(STRICT);
    }) else {
        return;
    };
    let ask = |user: &str, statement: &str| try_run(&clickhouse, user, statement, &[]);
    let hitlog = format!("lacks_{all}");
    clickhouse.query("CREATE DATABASE hitlog");
    let tables = [
        statements()["table"].clone(),
        "CREATE TABLE events_nodes (node UInt32, instance String) ENGINE = MergeTree ORDER BY node".to_owned(),
    ];
    for table in tables {
        assert_eq!(ask(&hitlog, &table).unwrap_err().0, ACCESS_DENIED);
        ask("first", &table).unwrap();
    }
    for statement in asked_by_hitlog() {
        ask(&hitlog, statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    for (left_out, right) in rights.iter().enumerate() {
        let user = format!("lacks_{left_out}");
        let is_denied = |statement| ask(&user, statement).is_err_and(|(code, _)| code == ACCESS_DENIED);
        assert!(asked_by_hitlog().into_iter().any(is_denied), "nothing needs {right}");
    }
    for statement in [
        "DROP TABLE events",
        "TRUNCATE TABLE events",
        "ALTER TABLE events ADD COLUMN more String",
        "CREATE TABLE more (x UInt8) ENGINE = MergeTree ORDER BY x",
    ] {
        assert_eq!(ask(&hitlog, statement).unwrap_err().0, ACCESS_DENIED, "{statement}");
    }
    run(&clickhouse, &statements()["visits"]);
    let visits = "SELECT count() FROM visits(site = 'web-a', from = '2026-11-01', to = '2026-12-01')";
    assert_eq!(ask("analyst", visits), Ok("0\n".to_owned()));
    assert_eq!(ask("analyst", asked_by_hitlog()[0]).unwrap_err().0, ACCESS_DENIED);
}

#[test]
fn a_view_with_a_window_counts_a_repeat_once() {
    let Some(clickhouse) = with_table() else { return };
    for statement in block("own-view") {
        run(&clickhouse, &statement);
    }
    // The same without its window, to see that it is the window that does it.
    for statement in block("own-view") {
        let careless = statement.replace("pageviews_by_day", "careless");
        run(&clickhouse, careless.split("SETTINGS").next().unwrap());
    }
    let counts = || {
        run(
            &clickhouse,
            "SELECT (SELECT count() FROM events), (SELECT sum(pageviews) FROM pageviews_by_day), \
             (SELECT sum(pageviews) FROM careless)",
        )
    };
    insert(&clickhouse, "a", 1).unwrap();
    insert(&clickhouse, "a", 1).unwrap();
    insert(&clickhouse, "b", 3).unwrap();
    insert(&clickhouse, "a", 1).unwrap();
    assert_eq!(counts(), "4\t4\t8");
    // A view that fails has the insert fail, and the repeat fills it.
    run(
        &clickhouse,
        "CREATE MATERIALIZED VIEW broken TO pageviews_by_day AS \
         SELECT site, toDate(created_at) AS day, throwIf(seq > 4) AS pageviews FROM events",
    );
    assert!(insert(&clickhouse, "c", 5).is_err());
    run(&clickhouse, "DROP VIEW broken");
    insert(&clickhouse, "c", 5).unwrap();
    assert!(counts().starts_with("6\t6\t"), "{}", counts());
}

#[test]
fn duplicates_are_found_and_final_leaves_them_out() {
    let Some(clickhouse) = with_table() else { return };
    block("ttl").iter().for_each(|statement| drop(run(&clickhouse, statement)));
    run(&clickhouse, "SYSTEM STOP MERGES events");
    let ask = |name: &str| run(&clickhouse, &statements()[name]);
    insert(&clickhouse, "a", 1).unwrap();
    assert_eq!((ask("duplicates"), ask("final")), (String::new(), "2".to_owned()));
    // Under another token, as after what a token is no help against.
    insert(&clickhouse, "b", 2).unwrap();
    assert_eq!(run(&clickhouse, "SELECT count() FROM events"), "4");
    assert_eq!((ask("duplicates"), ask("final")), ("1\t1".to_owned(), "3".to_owned()));
    // Behind the view of visits as well: one row for each event.
    run(&clickhouse, &statements()["visits"]);
    let views = "SELECT sum(pageviews) FROM visits(site = 'web-a', from = '2026-12-02', to = '2026-12-03')";
    assert_eq!(run(&clickhouse, views), "4");
    assert_eq!(run(&clickhouse, &format!("{views} SETTINGS final = 1")), "3");
}

/// Two servers, the first with a table over both.
fn two_servers() -> Option<[ClickHouse; 2]> {
    let second = ClickHouse::start()?;
    let first = ClickHouse::with(|options| _ = options.cluster("hits", &[second.tcp_port()]))?;
    for server in [&first, &second] {
        create_database(server);
        run(server, &statements()["table"].replace("TABLE events", "TABLE events_local"));
    }
    block("distributed").iter().for_each(|statement| drop(run(&first, statement)));
    Some([first, second])
}

#[test]
fn ten_questions_are_answered_over_two_servers() {
    let Some([first, second]) = two_servers() else { return };
    answers_are_as_by_hand(&first);
    // Nobody is on both.
    let visitors = |server: &ClickHouse, table| -> u64 {
        run(server, &format!("SELECT uniqExact(site, visitor) FROM {table}")).parse().unwrap()
    };
    let of_each = [&first, &second].map(|server| visitors(server, "events_local"));
    assert!(of_each.iter().all(|visitors| *visitors > 50), "{of_each:?}");
    assert_eq!(of_each.iter().sum::<u64>(), visitors(&first, "events"));
}

#[test]
fn a_server_that_was_away_gets_what_it_lacks() {
    const NETWORK_ERROR: u32 = 210;
    const BAD_ARGUMENTS: u32 = 36;
    const NOT_IMPLEMENTED: u32 = 48;
    let Some([first, mut second]) = two_servers() else { return };
    let count = |server: &ClickHouse| run(server, "SELECT count(), uniqExact(seq) FROM events_local");
    // The visitors 0 to 99 are spread over both.
    let insert = |foreground: u8| {
        let statement = format!(
            "INSERT INTO events (site, type, created_at, received_at, node, seq, visitor) \
             SETTINGS async_insert = 0, insert_deduplication_token = 'a', distributed_foreground_insert = {foreground} \
             SELECT 'web-a', 'pageview', '2026-12-02', '2026-12-02', 1, number, toString(number) FROM numbers(100)"
        );
        try_run(&first, "default", &statement, &[]).map_err(|(code, _)| code)
    };
    second.kill();
    assert_eq!(insert(1), Err(NETWORK_ERROR));
    second.start_again();
    assert_eq!(count(&second), "0\t0");
    for _ in 0..2 {
        insert(1).unwrap();
        assert_eq!(run(&first, "SELECT count(), uniqExact(seq) FROM events"), "100\t100");
    }
    let parts = [count(&first), count(&second)];
    assert!(!parts.contains(&"0\t0".to_owned()), "{parts:?}");
    // Without that setting it is answered when the part of the one that is away is in no table.
    second.kill();
    run(&first, "TRUNCATE TABLE events_local");
    insert(0).unwrap();
    assert_eq!(count(&first), parts[0]);

    let visitor = run(&first, "SELECT any(visitor) FROM events_local");
    let erase = |statement: &str| {
        let answer = try_run(&first, "default", statement, &[("site", "web-a"), ("visitor", &visitor)]);
        answer.map_err(|(code, _)| code)
    };
    let of_page = &statements()["distributed-erasure"];
    let through = of_page.replace("events_local", "events");
    assert_eq!(erase(&through), Err(BAD_ARGUMENTS));
    let rewrite = through.replace("DELETE FROM", "ALTER TABLE").replace("WHERE", "DELETE WHERE");
    assert_eq!(erase(&rewrite), Err(NOT_IMPLEMENTED));
    erase(of_page).unwrap();
    assert_ne!(count(&first), parts[0]);
}

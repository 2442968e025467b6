//! Killed at random and at chosen moments, on both sides, what was shipped is there once: every field of every event.
//!
//! The tables are plain MergeTree, so that no merge hides what is stored twice. `HITLOG_SHIP_ROUNDS` says how many
//! rounds of kills; `scripts/ship ROUNDS` sets it.

mod feed;
mod fleet;

use std::time::Duration;

use harness::{
    ClickHouse, Tampering,
    checker::rounds,
    clickhouse::Options,
    proxy::{
        Fault::{DelayAnswer, SwallowAnswer},
        Proxy,
    },
    shipped, side_by_side, work_dir,
};

use self::fleet::{FLAGS, Fleet, serve};
use super::ship::send;

/// The settings of every table: it knows a repeat again.
const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 10000";

fn create_events(table: &str) -> String {
    format!(
        "CREATE TABLE {table} (site LowCardinality(String), type Enum8('pageview' = 1, 'click' = 2, 'custom' = 3),
             created_at DateTime64(3, 'UTC'), received_at DateTime64(3, 'UTC'), node UInt32, seq UInt64,
             visitor String, session String, url String, properties String, referrer LowCardinality(String),
             device LowCardinality(String), browser LowCardinality(String), os LowCardinality(String),
             location LowCardinality(String), flags UInt8)
         ENGINE = MergeTree PARTITION BY toYYYYMM(received_at) ORDER BY (site, created_at, node, seq) {WINDOW}"
    )
}

const CREATE_NODES: &str = "CREATE TABLE events_nodes (node UInt32, instance String,
    state Enum8('holds' = 1, 'left' = 2), at DateTime64(6, 'UTC')) ENGINE = MergeTree ORDER BY (node, at)";

/// A server whose profile says what would have events be stored twice, if hitlog did not say the contrary.
fn start(more: impl FnOnce(&mut Options)) -> Option<ClickHouse> {
    ClickHouse::with(|options| {
        let settings = [
            ("deduplicate_insert", "disable"),
            ("insert_deduplicate", "0"),
            ("deduplicate_blocks_in_dependent_materialized_views", "0"),
            ("async_insert", "1"),
            ("distributed_foreground_insert", "0"),
            ("skip_unavailable_shards", "1"),
        ];
        let settings = settings.map(|(name, value)| format!("<{name}>{value}</{name}>")).concat();
        options.users_config(&format!("<profiles><default>{settings}</default></profiles>"));
        more(options);
    })
}

#[test]
fn whoever_is_killed_every_event_is_there_once() {
    let Some(server) = start(|_| {}) else { return };
    server.query(&create_events("events"));
    let mut fleet = Fleet::start(vec![server]);
    (0..rounds("HITLOG_SHIP_ROUNDS", 10)).for_each(|_| fleet.kill_some());
    fleet.check();
}

#[test]
fn whoever_is_killed_what_is_derived_is_there_once() {
    let Some(server) = start(|_| {}) else { return };
    server.query(&create_events("events"));
    server.query(&format!(
        "CREATE TABLE derived (node UInt32, seq UInt64, url String) ENGINE = MergeTree ORDER BY (node, seq) {WINDOW}"
    ));
    server.query("CREATE MATERIALIZED VIEW deriving TO derived AS SELECT node, seq, url FROM events");
    let mut fleet = Fleet::start(vec![server]);
    // Nobody counts what is derived, so nobody finds a token that is known there without its rows.
    fleet.spares_tokens = true;
    (0..rounds("HITLOG_SHIP_ROUNDS", 10)).for_each(|_| fleet.kill_some());
    fleet.check();
    let rows = |table: &str| {
        let query = format!("SELECT node, seq, sipHash64(url) FROM {table} ORDER BY 1, 2, 3");
        fleet.servers[0].query(&query)
    };
    let (derived, events) = (rows("derived"), rows("events"));
    let count = |text: &str| text.lines().count();
    let differs = derived.lines().zip(events.lines()).find(|(derived, event)| derived != event);
    assert!(derived == events, "{} of {} events, at {differs:?}", count(&derived), count(&events));
}

#[test]
fn whichever_of_two_servers_is_killed_every_event_is_there_once() {
    let Some(second) = ClickHouse::start() else { return };
    let two = |options: &mut Options| {
        options.cluster("two", &[second.tcp_port()]);
    };
    let Some(first) = start(two) else { return };
    for server in [&first, &second] {
        server.query(&create_events("events_local"));
    }
    let sharded = "Distributed(two, default, events_local, sipHash64(site, visitor))";
    first.query(&format!("CREATE TABLE events AS events_local ENGINE = {sharded}"));
    first.query(CREATE_NODES);
    let mut fleet = Fleet::start(vec![first, second]);
    (0..rounds("HITLOG_SHIP_ROUNDS", 10)).for_each(|_| fleet.kill_some());
    fleet.check();
    for server in &fleet.servers {
        assert_ne!(server.query("SELECT count() FROM events_local"), "0");
    }
}

/// ClickHouse notes a token before the rows have their place. Killed in between, it takes a repeat for one that it has,
/// and has nothing: hitlog counts, and sends it under another token.
#[test]
fn a_token_that_is_known_without_its_rows_is_found() {
    let Some(mut server) = start(|_| {}) else { return };
    let work = work_dir();
    let (data, flags) = (work.path().join("data"), [format!("--ship-url={}", server.url())]);
    server.query(&create_events("events"));
    let daemon = serve(&data, &flags);
    let code = daemon.register("ship.example");
    send(&daemon, &code, 0, 100);
    shipped::wait_until_shipped(&daemon);
    let tampering = Tampering::of_process(server.pid(), "rename:signal=KILL:when=1", &[]);
    send(&daemon, &code, 100, 100);
    server.wait();
    drop(tampering);
    server.start_again();
    daemon.wait_for_log("a range that was in doubt is sent again");
    shipped::wait_until_shipped(&daemon);
    let found = shipped::differences(&server, "events", &[(0, &data)]);
    assert!(found.is_empty(), "{found:?}");
}

/// Each answer that the first session waits for is lost once, and then hitlog may be killed as well.
#[test]
fn whatever_is_lost_when_shipping_begins_it_begins() {
    const ANSWERS: usize = 9;
    let Some(server) = ClickHouse::start() else { return };
    let work = work_dir();
    let parts = (0..2 * ANSWERS).map(|part| (part, part % ANSWERS, part < ANSWERS));
    side_by_side(parts, |(part, answer, is_killed)| {
        let (proxy, data) = (Proxy::start(&server.address()), work.path().join(part.to_string()));
        let own = [format!("--ship-url={}", proxy.url()), format!("--ship-table=t{part}"), format!("--node={part}")];
        let flags: Vec<String> = FLAGS.map(String::from).into_iter().chain(own).collect();
        proxy.next(answer, DelayAnswer(Duration::ZERO));
        proxy.next(1, SwallowAnswer);
        let mut daemon = serve(&data, &flags);
        let code = daemon.register("ship.example");
        send(&daemon, &code, 0, 100);
        proxy.wait_for_faults(answer + 1);
        if is_killed {
            daemon.crash();
            daemon = serve(&data, &flags);
        }
        shipped::wait_until_shipped(&daemon);
        let found = shipped::differences(&server, &format!("t{part}"), &[(part as u32, &data)]);
        assert!(found.is_empty(), "{answer} {is_killed}: {found:?}");
        let holders = server.query(&format!("SELECT count(DISTINCT instance) FROM t{part}_nodes"));
        assert_eq!(holders, "1", "{answer} {is_killed}");
    });
}

//! Each event is stored once by ClickHouse, whatever is done to requests on their way: cut anywhere, answered by
//! somebody else, their answers lost, sent twice, late, or never.
//!
//! The table is a plain MergeTree: what is there twice stays there twice, and nothing hides it.

use std::{fmt::Write, iter, net::Shutdown, thread, time::Duration};

use harness::{
    ClickHouse, Client, Daemon,
    proxy::{
        Fault::{self, *},
        Proxy,
    },
    shipped, side_by_side, wait_until, work_dir,
};
use hitlog::{
    event::EventRow,
    ship::{block::BlockBuilder, client::compress},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::ship::{plain_table, send, serve, ship};

/// What hitlog calls its requests by, as their heads have it: every statement but the rows of an insert is a body.
const OF_ROWS: &str = "INSERT%20INTO";
const OF_ANY: &str = "POST";
/// Events of one round, which are three ranges and more.
const ROUND: usize = 250;

fn count(clickhouse: &ClickHouse) -> usize {
    clickhouse.query("SELECT count() FROM plain.events").parse().unwrap()
}

/// An insert's path.
fn insert(token: &str) -> String {
    let statement = utf8_percent_encode("INSERT INTO plain.events FORMAT Native", NON_ALPHANUMERIC);
    format!("/?async_insert=0&wait_end_of_query=1&insert_deduplication_token={token}&query={statement}")
}

/// Blocks of events that differ, one behind the other.
fn blocks(count: u64) -> Vec<u8> {
    let mut builder = BlockBuilder::new();
    let mut bytes = Vec::new();
    for number in 0..count {
        for row in 0..3 {
            let text = format!("{number}-{row}").repeat(3);
            let text = text.as_bytes();
            let event = EventRow {
                website_id: text,
                event_type: b"click",
                url: text,
                referrer: Some(text),
                session_id: text,
                visitor_id: text,
                device_type: None,
                browser: Some(text),
                os: None,
                location: None,
                properties: Some(b"{}"),
                created_at: 1_780_000_000_000,
                received_at: 1_780_000_000_000,
            };
            builder.push(1, number * 3 + row, &event);
        }
        bytes.extend(builder.finish().chunks().concat());
    }
    bytes
}

/// Sends the first bytes of a body, whose length is told as it is or as that of the whole. Returns the status, if any.
fn send_part(
    clickhouse: &ClickHouse,
    path: &str,
    is_zstd: bool,
    whole: &[u8],
    sent: usize,
    told: usize,
) -> Option<u16> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {told}\r\n");
    head.push_str(if is_zstd { "content-encoding: zstd\r\n\r\n" } else { "\r\n" });
    let mut client = Client::connect(&clickhouse.address());
    client.write(&[head.as_bytes(), &whole[..sent]].concat())?;
    if sent < told {
        client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }
    client.read_response(false).map(|response| response.status)
}

#[test]
fn of_a_body_that_is_cut_anywhere_nothing_is_stored() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    plain_table(&clickhouse, "plain");
    let plain = blocks(1);
    let packed = compress(&[plain.clone().into()]).unwrap().to_vec();
    for (name, whole, is_zstd) in [("plain", &plain, false), ("packed", &packed, true)] {
        let path = insert(name);
        // Every byte, so every border of a column and of a row within a column is among them.
        let lengths: Vec<usize> = (0..whole.len()).collect();
        let is_believed = side_by_side(lengths.chunks(whole.len().div_ceil(4)), |lengths| {
            let mut is_believed = Vec::new();
            for &sent in lengths {
                for told in [sent, whole.len()] {
                    let status = send_part(&clickhouse, &path, is_zstd, whole, sent, told);
                    if status == Some(200) {
                        is_believed.push((sent, told));
                    }
                }
            }
            is_believed
        });
        assert_eq!(count(&clickhouse), 0, "{name}: {is_believed:?}");
        // Nor does it keep the whole from being stored.
        assert_eq!(send_part(&clickhouse, &path, is_zstd, whole, whole.len(), whole.len()), Some(200));
        assert_eq!(count(&clickhouse), 3, "{name}");
        clickhouse.query("TRUNCATE TABLE plain.events");
    }
    // It would be seen: of two blocks the first is stored.
    let (one, two) = (plain.len(), blocks(2));
    send_part(&clickhouse, &insert("two"), false, &two, one, two.len());
    send_part(&clickhouse, &insert("three"), false, &two, one, one);
    assert_eq!(count(&clickhouse), 3);
}

/// A daemon that ships over a proxy to a plain table of its own.
struct Lane<'a> {
    clickhouse: &'a ClickHouse,
    database: String,
    proxy: Proxy,
    daemon: Daemon,
    code: String,
    sent: usize,
    /// Goes last.
    _work: TempDir,
}

impl<'a> Lane<'a> {
    /// What `fail` asks of the proxy is done to the first requests that hitlog makes.
    fn start(clickhouse: &'a ClickHouse, database: &str, flags: &[&str], fail: impl FnOnce(&Proxy)) -> Self {
        plain_table(clickhouse, database);
        let proxy = Proxy::start(&clickhouse.address());
        fail(&proxy);
        let own = format!("--ship-database={database}");
        let common = ["--ship-rows-max=100", "--ship-timeout-seconds=1", "--segment-rows-max=600", &own];
        let work = work_dir();
        let daemon = serve(&work.path().join("data"), &proxy.url(), &[&common, flags].concat());
        let code = daemon.register("ship.example");
        Self { clickhouse, database: database.to_owned(), proxy, daemon, code, sent: 0, _work: work }
    }

    fn send(&mut self) {
        send(&self.daemon, &self.code, self.sent, ROUND);
        self.sent += ROUND;
    }

    /// All that was sent is there, once and as it was, before what is held comes late, and after it.
    fn assert_once(&self, what: &str) {
        shipped::wait_until_shipped(&self.daemon);
        for _ in 0..2 {
            let table = format!("{}.events", self.database);
            let found = shipped::differences(self.clickhouse, &table, &[(0, self.daemon.data())]);
            assert!(found.is_empty(), "{what}: {} differences, such as {:?}", found.len(), found.first());
            self.proxy.release();
        }
    }

    fn end(self, what: &str) {
        // They are counted a moment after the catalog has them.
        wait_until(&format!("all are counted, and none twice: {what}"), || {
            (self.daemon.metrics()["hitlog_ship_events_total"] == self.sent as f64).then_some(())
        });
        let metrics = self.daemon.metrics();
        for name in ["doubled_rows_total", "dead_events", "lost_ranges", "paused"] {
            assert_eq!(metrics[&format!("hitlog_ship_{name}")], 0.0, "{what}: {name}");
        }
        let (exit, said) = ship(&self.daemon, &["verify", "--deep"]);
        assert!(exit == 0 && said.contains("all are there, once"), "{what}: {said}");
        self.daemon.stop();
    }
}

const FAULTS: [Fault; 18] = [
    CutRequest(0),
    CutRequest(1),
    CutRequest(3_000),
    SwallowAnswer,
    TruncateAnswer(0),
    TruncateAnswer(12),
    TruncateAnswer(300),
    // As long as it is, but the connection ends with it.
    TruncateAnswer(100_000),
    AnswerItself,
    AnswerItselfAfter(0),
    AnswerItselfAfter(3_000),
    Twice,
    DelayRequest(Duration::from_millis(200)),
    // Longer than hitlog waits: it comes while the repeat does, or after it.
    DelayRequest(Duration::from_millis(1_500)),
    DelayAnswer(Duration::from_millis(200)),
    DelayAnswer(Duration::from_millis(1_500)),
    Hold,
    HoldInSilence,
];

#[test]
fn every_fault_at_the_first_insert_and_at_later_ones() {
    let Some(clickhouse) = ClickHouse::start() else { return };
    let of_lane = |lane: usize| FAULTS.into_iter().enumerate().skip(lane).step_by(3);
    side_by_side(0..3, |lane| {
        for (number, fault) in of_lane(lane) {
            let what = format!("{fault:?}");
            let compression = if number % 2 == 0 { "--ship-compression=zstd" } else { "--ship-compression=none" };
            let fail = |proxy: &Proxy| proxy.next_with(OF_ROWS, 1, fault);
            let mut lane = Lane::start(&clickhouse, &format!("first{number}"), &[compression], fail);
            lane.send();
            lane.assert_once(&what);
            // Of two that are on their way at once.
            lane.proxy.next_with(OF_ROWS, 2, fault);
            lane.send();
            lane.assert_once(&what);
            lane.proxy.wait_for_faults(3);
            lane.end(&what);
        }
    });
}

/// A fault with numbers of its own.
fn any_fault(random: &mut StdRng) -> Fault {
    match FAULTS[random.random_range(0..FAULTS.len())] {
        CutRequest(_) => CutRequest(random.random_range(0..5_000)),
        TruncateAnswer(_) => TruncateAnswer(random.random_range(0..1_000)),
        AnswerItselfAfter(_) => AnswerItselfAfter(random.random_range(0..5_000)),
        fault => fault,
    }
}

#[test]
fn faults_in_any_order_at_any_request() {
    const LANES: u64 = 3;
    const ROUNDS: usize = 7;
    let Some(clickhouse) = ClickHouse::start() else { return };
    let seed: u64 = rand::random();
    side_by_side(0..LANES, |number| {
        let mut random = StdRng::seed_from_u64(seed + number);
        let mut told = format!("seed {seed}, lane {number}:");
        // Those at the look at the target, before anything is sent, are among them.
        let first = any_fault(&mut random);
        let fail = |proxy: &Proxy| proxy.next_with(OF_ANY, 1, first);
        let mut lane = Lane::start(&clickhouse, &format!("any{number}"), &[], fail);
        for round in 0..ROUNDS {
            let faults: Vec<Fault> = iter::repeat_with(|| any_fault(&mut random)).take(3).collect();
            let of = if round % 2 == 0 { OF_ANY } else { OF_ROWS };
            faults.iter().for_each(|fault| lane.proxy.next_with(of, 1, *fault));
            write!(told, " {of} {faults:?}").unwrap();
            lane.send();
            if random.random() {
                thread::sleep(Duration::from_millis(random.random_range(0..700)));
                lane.proxy.release();
            }
            lane.assert_once(&told);
        }
        lane.proxy.heal();
        lane.end(&told);
    });
}

/// Of the statements with which hitlog begins, each is carried out and its answer lost; or hitlog is killed then, or its
/// connection is cut before.
#[test]
fn a_first_start_that_is_cut_off_anywhere_goes_on_at_the_next() {
    const STATEMENTS: usize = 9;
    const NOTHING: Fault = DelayAnswer(Duration::ZERO);
    let Some(clickhouse) = ClickHouse::start() else { return };
    let faults = [CutRequest(0), SwallowAnswer, DelayAnswer(Duration::from_secs(60))];
    side_by_side(faults.into_iter().enumerate(), |(lane, fault)| {
        for at in 0..STATEMENTS {
            let what = format!("{fault:?} of statement {at}");
            let database = format!("start{lane}_{at}");
            clickhouse.query(&format!("CREATE DATABASE {database}"));
            let proxy = Proxy::start(&clickhouse.address());
            proxy.next(at, NOTHING);
            proxy.next(1, fault);
            let work = work_dir();
            let data = work.path().join("data");
            let flags = [format!("--ship-database={database}"), "--ship-timeout-seconds=20".into()];
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let mut daemon = serve(&data, &proxy.url(), &flags);
            let code = daemon.register("ship.example");
            send(&daemon, &code, 0, 10);
            if matches!(fault, DelayAnswer(_)) {
                wait_until("it is carried out", || (proxy.answers() > at).then_some(()));
                daemon.crash();
                proxy.heal();
                daemon = serve(&data, &proxy.url(), &flags);
            }
            shipped::wait_until_shipped(&daemon);
            let found = shipped::differences(&clickhouse, &format!("{database}.events"), &[(0, &data)]);
            assert!(found.is_empty() && proxy.answers() > at, "{what}: {found:?}");
            daemon.stop();
        }
    });
}

//! Killed at random and at chosen moments, on both sides, what was shipped is there once: every field of every event.
//!
//! The tables are plain MergeTree, so that no merge hides what is stored twice. `HITLOG_SHIP_ROUNDS` says how many
//! rounds of kills; `scripts/ship ROUNDS` sets it.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use harness::{
    ClickHouse, Client, Daemon, Tampering,
    checker::{random_below, rounds},
    clickhouse::Options,
    proxy::{
        Fault::{DelayAnswer, DelayRequest, SwallowAnswer},
        Proxy,
    },
    shipped::{self, there},
    side_by_side, work_dir,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ship::{event, send, ship};

/// Small segments and ranges, so that kills also fall into rolls and seals, and ranges are many.
const FLAGS: [&str; 3] = ["--segment-rows-max=1500", "--ship-rows-max=300", "--ship-interval-seconds=0.1"];
/// Most events of a batch that comes in, and the longest that is waited before the next.
const BATCH_MAX: u64 = 80;
const BATCH_PAUSE_MS: u64 = 60;
/// The batches of a round, for each hitlog.
const BATCHES: usize = 30;
/// Where the url stands among the fields of an event.
const URL: usize = 6;

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
        let settings = "<deduplicate_insert>disable</deduplicate_insert><insert_deduplicate>0</insert_deduplicate>
                        <async_insert>1</async_insert><skip_unavailable_shards>1</skip_unavailable_shards>
                        <distributed_foreground_insert>0</distributed_foreground_insert>";
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
    (0..rounds("HITLOG_SHIP_ROUNDS", 10)).for_each(|_| fleet.kill_some());
    fleet.check();
    let rows = |table: &str| {
        let query = format!("SELECT node, seq, url FROM {table} ORDER BY node, seq, url");
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

/// Several hitlogs that ship to one table, and the servers that it is on.
struct Fleet {
    /// The first is the one that they ship to.
    servers: Vec<ClickHouse>,
    nodes: Vec<Node>,
    /// Before the server of the last node, to know when a block is under way and to have it come late.
    proxy: Proxy,
    /// The moments that the next rounds are of: each has its turn, in any order.
    moments: Vec<Moment>,
    told: Told,
    _work: TempDir,
}

/// What happened, for whoever reads the test's output.
#[derive(Debug, Default)]
struct Told {
    hitlogs_killed: usize,
    servers_killed: usize,
    servers_ended: usize,
    /// Ranges of which something was sent again under another token.
    epochs: usize,
}

/// One hitlog, with whoever sends events to it.
struct Node {
    number: u32,
    data: PathBuf,
    flags: Vec<String>,
    /// `None` while it does not run.
    daemon: Option<Daemon>,
    feed: Feed,
}

/// When somebody is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Any,
    /// A block has come to the server a moment ago.
    Arrived,
    /// It is stored, and only the server knows.
    Stored,
    /// It comes to the server when whoever has sent it is gone, and perhaps has begun anew.
    Late,
    /// The server stands still with it, and goes on when the next hitlog asks what has become of it.
    Still,
    /// hitlog opens a range in its catalog, or confirms one.
    InCatalog,
}

impl Moment {
    const ALL: [Self; 8] =
        [Self::Any, Self::Any, Self::Arrived, Self::Arrived, Self::Stored, Self::Late, Self::Still, Self::InCatalog];
}

/// Whom the kill of a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Server(usize),
    Node(usize),
}

impl Fleet {
    fn start(servers: Vec<ClickHouse>) -> Self {
        let (work, proxy) = (work_dir(), Proxy::start(&servers[0].address()));
        let nodes = [(1, servers[0].url()), (2, servers[0].url()), (3, proxy.url())];
        let start = |(number, url): (u32, String)| {
            let own = [format!("--ship-url={url}"), format!("--node={number}")];
            Node::start(number, work.path().join(number.to_string()), FLAGS.map(String::from).into_iter().chain(own))
        };
        let nodes = nodes.map(start).into();
        Self { servers, nodes, proxy, moments: Vec::new(), told: Told::default(), _work: work }
    }

    /// One round: whoever it is, at whatever moment.
    fn kill_some(&mut self) {
        if self.moments.is_empty() {
            self.moments = Moment::ALL.into();
        }
        let moment = self.moments.swap_remove(random_below(self.moments.len() as u64) as usize);
        let behind_proxy = Victim::Node(self.nodes.len() - 1);
        let any = random_below(self.nodes.len() as u64) as usize;
        self.start_those_that_ended();
        self.feed();
        match moment {
            Moment::Any => {
                thread::sleep(Duration::from_millis(random_below(500)));
                self.kill(self.some(Victim::Node(any)));
            }
            Moment::Arrived => {
                self.wait_for_block();
                thread::sleep(Duration::from_micros(random_below(12_000)));
                self.kill(self.some(behind_proxy));
            }
            Moment::Stored => {
                let before = self.proxy.faults();
                self.proxy.next_with("INSERT", 1, SwallowAnswer);
                self.proxy.wait_for_faults(before + 1);
                self.kill([behind_proxy].into());
            }
            Moment::Late => {
                self.proxy.next_with("INSERT", 1, DelayRequest(Duration::from_millis(random_below(1_500))));
                self.wait_for_block();
                self.kill([behind_proxy].into());
            }
            Moment::Still => {
                let server = random_below(self.servers.len() as u64) as usize;
                self.wait_for_block();
                thread::sleep(Duration::from_micros(random_below(6_000)));
                self.servers[server].signal("STOP");
                self.kill([behind_proxy].into());
                thread::sleep(Duration::from_millis(random_below(300)));
                self.servers[server].signal("CONT");
            }
            Moment::InCatalog => self.kill_in_the_catalog(any),
        }
    }

    /// Has events come in to every hitlog, in the next second or so.
    fn feed(&self) {
        self.nodes.iter().for_each(|node| node.feed.send(BATCHES));
    }

    fn wait_for_block(&self) {
        let before = self.proxy.requests_with("INSERT");
        harness::wait_until("a block is sent", || (self.proxy.requests_with("INSERT") > before).then_some(()));
    }

    /// One of the hitlogs, one of the servers, both, or everybody.
    fn some(&self, node: Victim) -> BTreeSet<Victim> {
        let server = Victim::Server(random_below(self.servers.len() as u64) as usize);
        match random_below(6) {
            0 => [node].into(),
            1..=3 => [server].into(),
            4 => [node, server].into(),
            _ => {
                let servers = (0..self.servers.len()).map(Victim::Server);
                servers.chain((0..self.nodes.len()).map(Victim::Node)).collect()
            }
        }
    }

    /// Kills these, at once, and has them come back in any order.
    fn kill(&mut self, victims: BTreeSet<Victim>) {
        for victim in &victims {
            match *victim {
                Victim::Server(server) => {
                    self.servers[server].kill();
                    self.told.servers_killed += 1;
                }
                Victim::Node(node) => {
                    self.nodes[node].daemon.as_mut().unwrap().crash();
                    self.note_end(node);
                }
            }
        }
        let mut rest: Vec<_> = victims.into_iter().collect();
        while !rest.is_empty() {
            thread::sleep(Duration::from_millis(random_below(150)));
            match rest.swap_remove(random_below(rest.len() as u64) as usize) {
                Victim::Server(server) => self.servers[server].start_again(),
                Victim::Node(node) => self.nodes[node].start_again(),
            }
        }
    }

    /// A server of the tests ends by itself, now and then, when another that has asked it something is killed.
    fn start_those_that_ended(&mut self) {
        for server in self.servers.iter_mut().filter(|server| server.try_query("SELECT 1").is_err()) {
            server.kill();
            server.start_again();
            self.told.servers_ended += 1;
        }
    }

    /// Kills a hitlog within what it writes to its catalog: where ranges are opened and confirmed.
    fn kill_in_the_catalog(&mut self, node: usize) {
        let (call, count) = (["pwrite64", "fdatasync"][random_below(2) as usize], 1 + random_below(12));
        let files = ["catalog.db-wal", "catalog.db"].map(|name| self.nodes[node].data.join(name));
        let daemon = self.nodes[node].daemon.as_ref().unwrap();
        let tampering = Tampering::with_files(daemon, &format!("{call}:signal=KILL:when={count}"), &files);
        self.nodes[node].feed.send(2 * BATCHES);
        self.nodes[node].daemon.as_mut().unwrap().wait();
        drop(tampering);
        self.note_end(node);
        thread::sleep(Duration::from_millis(random_below(150)));
        self.nodes[node].start_again();
    }

    fn note_end(&mut self, node: usize) {
        self.told.hitlogs_killed += 1;
        self.told.epochs += self.nodes[node].epochs_begun();
        self.nodes[node].daemon = None;
    }

    /// Holds what is there against what is here, and that against what was answered.
    fn check(&mut self) {
        let acknowledged: Vec<_> = self.nodes.iter_mut().map(|node| node.feed.finish()).collect();
        self.start_those_that_ended();
        for daemon in self.nodes.iter().filter_map(|node| node.daemon.as_ref()) {
            // A pause after many tries that have failed is as long as this test waits for anything.
            let (exit, said) = ship(daemon, &["resume"]);
            assert_eq!(exit, 0, "{said}");
            shipped::wait_until_shipped(daemon);
        }
        let nodes: Vec<_> = self.nodes.iter().map(|node| (node.number, node.data.as_path())).collect();
        let found = shipped::differences(&self.servers[0], "default.events", &nodes);
        self.told.epochs += self.nodes.iter().map(Node::epochs_begun).sum::<usize>();
        println!("{:?}, {} events", self.told, acknowledged.iter().map(BTreeSet::len).sum::<usize>());
        assert!(found.is_empty(), "{} differences, such as {:?}", found.len(), &found[..found.len().min(5)]);
        let there = there(&self.servers[0], "default.events");
        for (node, acknowledged) in self.nodes.iter().zip(acknowledged) {
            let of_node = there.range((node.number, 0)..=(node.number, u64::MAX));
            let mut sent: Vec<_> = of_node.clone().map(|(_, rows)| number_of(&rows[0][URL])).collect();
            sent.sort_unstable();
            let missing: Vec<_> = acknowledged.iter().filter(|number| sent.binary_search(number).is_err()).collect();
            assert!(missing.is_empty(), "of node {} were acknowledged, and are not there: {missing:?}", node.number);
            // A kill takes nothing that has a sequence, so there is no gap.
            assert!(of_node.map(|((_, sequence), _)| *sequence).eq(1..=sent.len() as u64), "node {}", node.number);
            let (exit, said) = ship(node.daemon.as_ref().unwrap(), &["verify", "--deep"]);
            assert_eq!(exit, 0, "{said}");
        }
    }
}

/// The number of the event with this url.
fn number_of(url: &str) -> usize {
    url.rsplit_once("n=").unwrap().1.parse().unwrap()
}

impl Node {
    fn start(number: u32, data: PathBuf, flags: impl Iterator<Item = String>) -> Self {
        let flags: Vec<String> = flags.collect();
        let daemon = serve(&data, &flags);
        let feed = Feed::start(daemon.register("ship.example"));
        feed.send_to(&daemon);
        Self { number, data, flags, daemon: Some(daemon), feed }
    }

    fn start_again(&mut self) {
        let daemon = serve(&self.data, &self.flags);
        self.feed.send_to(&daemon);
        self.daemon = Some(daemon);
    }

    fn epochs_begun(&self) -> usize {
        let log = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        log.matches("a range that was in doubt is sent again").count()
    }
}

fn serve(data: &std::path::Path, flags: &[String]) -> Daemon {
    Daemon::start_in(data, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A client that sends events now and then, to a hitlog that dies and comes back elsewhere, and knows what was answered.
struct Feed {
    orders: Arc<Mutex<Orders>>,
    thread: Option<thread::JoinHandle<BTreeSet<usize>>>,
}

/// What a feed is to do.
#[derive(Debug, Default)]
struct Orders {
    /// Where the hitlog listens.
    address: String,
    /// How many batches are to be sent still: so many a round, however long that takes.
    batches: usize,
    is_ended: bool,
}

impl Feed {
    fn start(code: String) -> Self {
        let orders = Arc::<Mutex<Orders>>::default();
        let of_thread = Arc::clone(&orders);
        Self { orders, thread: Some(thread::spawn(move || feed(&of_thread, &code))) }
    }

    fn send_to(&self, daemon: &Daemon) {
        self.orders.lock().unwrap().address.clone_from(&daemon.address);
    }

    /// Has so many batches be sent in the next time.
    fn send(&self, batches: usize) {
        self.orders.lock().unwrap().batches = batches;
    }

    /// Ends, and returns the numbers of the events that were acknowledged.
    fn finish(&mut self) -> BTreeSet<usize> {
        self.orders.lock().unwrap().is_ended = true;
        self.thread.take().unwrap().join().unwrap()
    }
}

fn feed(orders: &Mutex<Orders>, code: &str) -> BTreeSet<usize> {
    let (mut acknowledged, mut next, mut client) = (BTreeSet::new(), 0, None);
    loop {
        thread::sleep(Duration::from_millis(random_below(BATCH_PAUSE_MS)));
        let address = {
            let mut orders = orders.lock().unwrap();
            if orders.is_ended {
                return acknowledged;
            }
            let Some(left) = orders.batches.checked_sub(1) else { continue };
            orders.batches = left;
            orders.address.clone()
        };
        // Each number is sent once: what is not answered may be stored or not.
        let numbers = next..next + 1 + random_below(BATCH_MAX) as usize;
        next = numbers.end;
        let events: Vec<Value> = numbers.clone().map(|number| event(code, number)).collect();
        let body = json!({ "events": events }).to_string();
        client = client.or_else(|| Client::try_connect(&address));
        let post = |client: &mut Client| client.try_send("POST", "/api/v1/events/batch", &[], body.as_bytes());
        match client.as_mut().and_then(post) {
            Some(answer) if answer.status == 201 => acknowledged.extend(numbers),
            _ => client = None,
        }
    }
}

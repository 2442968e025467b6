//! Several hitlogs that ship to one table, the servers that it is on, and the moments at which they are killed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use harness::{
    ClickHouse, Daemon, Tampering,
    checker::random_below,
    proxy::{
        Fault::{DelayRequest, SwallowAnswer},
        Proxy,
    },
    shipped::{self, there},
    wait_until, work_dir,
};
use tempfile::TempDir;

use super::feed::Feed;
use crate::ship::ship;

/// Small segments and ranges, so that kills also fall into rolls and seals, and ranges are many.
pub(super) const FLAGS: [&str; 3] = ["--segment-rows-max=1500", "--ship-rows-max=300", "--ship-interval-seconds=0.1"];
/// The batches of a round, for each hitlog.
const BATCHES: usize = 30;
/// Where the url stands among the fields of an event.
const URL: usize = 6;

/// Several hitlogs that ship to one table, and the servers that it is on.
pub(super) struct Fleet {
    /// The first is the one that they ship to.
    pub(super) servers: Vec<ClickHouse>,
    nodes: Vec<Node>,
    /// Before the server of the last node, to know when a block is under way and to have it come late.
    proxy: Proxy,
    /// The moments that the next rounds are of: each has its turn, in any order.
    moments: Vec<Moment>,
    /// Whether no server is killed that has noted a token whose rows have no place yet.
    pub(super) spares_tokens: bool,
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
    pub(super) fn start(servers: Vec<ClickHouse>) -> Self {
        let (work, proxy) = (work_dir(), Proxy::start(&servers[0].address()));
        let nodes = [(1, servers[0].url()), (2, servers[0].url()), (3, proxy.url())];
        let start = |(number, url): (u32, String)| {
            let own = [format!("--ship-url={url}"), format!("--node={number}")];
            Node::start(number, work.path().join(number.to_string()), FLAGS.map(String::from).into_iter().chain(own))
        };
        let nodes = nodes.map(start).into();
        let told = Told::default();
        Self { servers, nodes, proxy, moments: Vec::new(), spares_tokens: false, told, _work: work }
    }

    /// One round: whoever it is, at whatever moment.
    pub(super) fn kill_some(&mut self) {
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
        wait_until("a block is sent", || (self.proxy.requests_with("INSERT") > before).then_some(()));
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
                    if self.spares_tokens {
                        stop_between_tokens(&self.servers[server]);
                    }
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
    pub(super) fn check(&mut self) {
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

/// Has a server stand still where every token that it has noted is of rows that have their place.
fn stop_between_tokens(server: &ClickHouse) {
    let mut before = BTreeSet::new();
    loop {
        server.signal("STOP");
        let owed = owed_parts(server);
        // What is owed for longer is of a part that is gone since, by a merge.
        if owed.is_subset(&before) {
            return;
        }
        server.signal("CONT");
        thread::sleep(Duration::from_millis(20));
        before = owed;
    }
}

/// The parts that the last token of each table is of, and that are not there.
fn owed_parts(server: &ClickHouse) -> BTreeSet<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let tables = entries(&server.data().join("data/store")).flat_map(|some| entries(&some).collect::<Vec<_>>());
    let last_parts = |table: PathBuf| {
        let logs: Vec<_> = entries(&table.join("deduplication_logs")).collect();
        let last = |log: PathBuf| fs::read_to_string(log).ok()?.lines().last()?.split('\t').nth(1).map(str::to_owned);
        logs.into_iter().filter_map(last).map(|part| table.join(part)).collect::<Vec<_>>()
    };
    tables.flat_map(last_parts).filter(|part| !part.exists()).collect()
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

pub(super) fn serve(data: &Path, flags: &[String]) -> Daemon {
    Daemon::start_in(data, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

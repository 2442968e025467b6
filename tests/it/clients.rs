//! Hostile clients: slow, silent, deaf and broken ones, by the thousand, beside one that behaves and must not notice.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{Client, Daemon, Tampering, checker, event_with, raise_descriptors, traffic, turn, wait_until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// Hostile clients of each kind.
const EACH: usize = 1_000;
/// Clients that behave, each with one connection that it keeps.
const NEIGHBOURS: usize = 4;
/// The tail is taken over a window, and of the windows the median: one moment in which the machine does something else
/// does not count, a crowd that is felt throughout does.
const WINDOW: Duration = Duration::from_millis(800);
const WINDOWS: usize = 5;
/// Two threads that share a processor with whatever else runs make a tail of some milliseconds by themselves, and the
/// double of less than that is noise. A crowd that is scanned, locked or waited for costs far more.
const NOISE: Duration = Duration::from_millis(5);

/// Requests that were answered 201: when, and after how long.
type Answered = Vec<(Instant, Duration)>;

/// Clients that send one event after another until told to stop.
struct Neighbours {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<Answered>>,
}

impl Neighbours {
    fn start(address: &str, code: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = (0..NEIGHBOURS)
            .map(|first| {
                let (stop, address, code) = (Arc::clone(&stop), address.to_owned(), code.to_owned());
                thread::spawn(move || {
                    let (mut client, mut answered) = (Client::connect(&address), Vec::new());
                    for number in (first..).step_by(NEIGHBOURS) {
                        let (event, started) = (traffic::event(&code, number), Instant::now());
                        let response = client.post("/api/v1/events", event);
                        assert_eq!(response.status, 201, "{}", response.text());
                        answered.push((started, started.elapsed()));
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    answered
                })
            })
            .collect();
        Self { stop, threads }
    }

    fn finish(self) -> Answered {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// The median of the windows' 99th percentiles, from this moment on.
fn tail(answered: &Answered, from: Instant) -> Duration {
    let tail_of_window = |window: usize| {
        let (begin, end) = (from + WINDOW * window as u32, from + WINDOW * (window as u32 + 1));
        let within = answered.iter().filter(|(started, _)| (begin..end).contains(started));
        let mut times: Vec<Duration> = within.map(|(_, took)| *took).collect();
        assert!(times.len() >= NEIGHBOURS, "only {} requests in a window", times.len());
        times.sort_unstable();
        times[times.len() * 99 / 100]
    };
    let mut tails: Vec<Duration> = (0..WINDOWS).map(tail_of_window).collect();
    tails.sort_unstable();
    tails[WINDOWS / 2]
}

fn is_noticed(alone: Duration, beside: Duration) -> bool {
    beside > (alone * 2).max(alone + NOISE)
}

/// Sleeps through the windows: time itself is what is tested.
fn pass_windows() -> Instant {
    let from = Instant::now();
    thread::sleep(WINDOW * WINDOWS as u32);
    from
}

/// A connection whose client takes almost nothing before it reads: the kernel would take megabytes otherwise.
pub(crate) fn connect_narrow(address: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&address.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.into()
}

/// Opens a crowd of which each client has said this, and no more.
fn crowd(address: &str, said: &str) -> Vec<TcpStream> {
    let connect = |_| {
        let mut stream = connect_narrow(address);
        stream.write_all(said.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    (0..EACH).map(connect).collect()
}

/// The statuses that a crowd was answered first, and how often each; none is 0.
fn first_statuses(crowd: &mut [TcpStream]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for stream in crowd {
        let mut line = [0; 12];
        let status = stream.read_exact(&mut line).ok().and_then(|()| str::from_utf8(&line[9..]).ok()?.parse().ok());
        *statuses.entry(status.unwrap_or_default()).or_default() += 1;
    }
    statuses
}

/// Sends a byte a second to each of a crowd until told to stop.
fn drip(mut crowd: Vec<TcpStream>, bytes: &'static [u8], over: Arc<AtomicBool>) -> thread::JoinHandle<Vec<TcpStream>> {
    thread::spawn(move || {
        for byte in bytes {
            if over.load(Ordering::Relaxed) {
                break;
            }
            // One that hitlog has closed takes no more.
            crowd.iter_mut().for_each(|stream| drop(stream.write(&[*byte])));
            thread::sleep(Duration::from_secs(1));
        }
        crowd
    })
}

#[test]
fn idle_connections_leave_buffers_to_others() {
    let long = ["idle", "head", "body-stall"].map(|what| format!("--{what}-timeout-seconds=300"));
    let few = ["--active-connections-max=4", "--warm-connections-max=4"];
    let daemon = Daemon::start(&[&long.each_ref().map(String::as_str)[..], &few].concat());
    // One after the other: the first are idle before there are many.
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut client = daemon.client();
        assert_eq!(client.get("/livez").status, 200);
        idle.push(client);
    }
    for client in &mut idle {
        assert_eq!(client.get("/livez").status, 200);
    }
    daemon.stop();
}

#[test]
fn a_crowd_of_hostile_clients_is_not_noticed() {
    let _alone = turn::alone();
    if let Err(why) = raise_descriptors(5 * EACH as u64 + 500) {
        println!("skipped: {why}");
        return;
    }
    // Long enough for the windows, short enough to wait for.
    let daemon = Daemon::start(&[
        "--head-timeout-seconds=8",
        "--body-stall-timeout-seconds=8",
        "--idle-timeout-seconds=8",
        "--log-level=error",
    ]);
    let (code, pages) = (daemon.register("example.com"), daemon.register("pages.example"));
    let large = event_with(&pages, json!({"properties": {"p": "x".repeat(30_000)}}));
    // One each, so that there is memory for the pages of all: else those who do not read would give way.
    assert_eq!(daemon.client().post("/api/v1/events", large.to_string()).status, 201);
    let neighbours = Neighbours::start(&daemon.address, &code);
    // The first moments are about files that grow.
    thread::sleep(WINDOW);
    let alone_from = pass_windows();

    let body = "POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{";
    let description = "GET /openapi.yaml HTTP/1.1\r\nhost: a\r\n\r\n".repeat(20);
    let responses = format!("GET /api/v1/events?trackingCode={pages} HTTP/1.1\r\nhost: localhost\r\n\r\n{description}");
    let [drips, mut heads, mut bodies, mut silents, _deafs] =
        ["G", "GET /livez HTTP/1.1\r\nhost: a\r\nx: ", body, "", &responses].map(|said| crowd(&daemon.address, said));
    let full = wait_until("all are there", || {
        Some(daemon.metrics()).filter(|metrics| metrics["hitlog_connections"] >= (5 * EACH) as f64)
    });
    let over = Arc::<AtomicBool>::default();
    let dripping = drip(drips, b"ET /livez HTTP/1.1\r\nhost: a\r\nx: yyyyyyyyyyyy", Arc::clone(&over));
    let beside_from = pass_windows();
    let metrics = daemon.metrics();
    let still_there = metrics["hitlog_connections"];
    let closed: Vec<_> = metrics.iter().filter(|(name, _)| name.contains("closed")).collect();
    assert!(
        still_there >= (5 * EACH) as f64,
        "{still_there} are left: some went before the tail was taken: {closed:?}"
    );

    let gone = wait_until("all are gone", || {
        Some(daemon.metrics()).filter(|metrics| metrics["hitlog_connections"] <= (NEIGHBOURS + 1) as f64)
    });
    over.store(true, Ordering::Relaxed);
    let slow_disk = Tampering::with(&daemon, "fdatasync:delay_enter=100000");
    let delayed_from = pass_windows();
    drop(slow_disk);
    let answered = neighbours.finish();

    let [alone, beside, delayed] = [alone_from, beside_from, delayed_from].map(|from| tail(&answered, from));
    println!("p99 {alone:?} alone, {beside:?} beside the crowd, {delayed:?} with a slow disk");
    println!("resident {} B, answers {} B", full["process_resident_memory_bytes"], full["hitlog_read_bytes"]);
    assert!(is_noticed(alone, delayed), "p99 {alone:?} alone, {delayed:?} with a slow disk, and nobody notices");
    assert!(!is_noticed(alone, beside), "p99 {alone:?} alone, {beside:?} beside the crowd");
    // A buffer of 16 KiB for each, the memory that answers may take, and as much again for everything else.
    assert!(full["process_resident_memory_bytes"] < 256e6, "{} B", full["process_resident_memory_bytes"]);
    assert!(full["hitlog_read_bytes"] <= full["hitlog_read_limit_bytes"]);
    let closed = |reason: &str| gone[&format!("hitlog_connections_closed_total{{reason=\"{reason}\"}}")];
    let (each, told) = (EACH as f64, BTreeMap::from([(408, EACH)]));
    assert_eq!((closed("head_timeout"), closed("idle"), closed("write_stalled")), (2.0 * each, each, each));
    assert_eq!(gone["hitlog_events_rejected_total{reason=\"timeout\"}"], each);
    for crowd in [&mut dripping.join().unwrap(), &mut heads, &mut bodies] {
        assert_eq!(first_statuses(crowd), told);
    }
    assert_eq!(first_statuses(&mut silents), BTreeMap::from([(0, EACH)]));
    let total =
        daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1")).json()["pagination"].clone();
    assert_eq!(total["total"], json!(answered.len()), "every event of those who behave is stored");
    daemon.stop();
}

/// The part of one processor that a process takes for a while.
fn processor_share(pid: u32, window: Duration) -> f64 {
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name in brackets, time as a user and as the system are the 12th and the 13th.
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
        fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let (before, started) = (ticks(), Instant::now());
    thread::sleep(window);
    (ticks() - before) as f64 / rustix::param::clock_ticks_per_second() as f64 / started.elapsed().as_secs_f64()
}

#[test]
fn more_connections_than_descriptors_spin_no_processor() {
    let _alone = turn::alone();
    let work = harness::work_dir();
    let data = work.path().join("data");
    let mut command = Command::new("bash");
    // 256 are kept for files, so 44 connections are taken at once, and the others wait.
    command
        .args(["-c", "ulimit -n 300 && exec \"$@\"", "bash"])
        .arg(harness::binary())
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let daemon = Daemon::spawn(&mut command, &data);
    // One that has begun a request goes after those that have not.
    let mut kept = daemon.client();
    let begin = |kept: &mut Client| kept.write(b"GET /metrics HTTP/1.1\r\nhost: local").unwrap();
    begin(&mut kept);
    let mut crowd: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&daemon.address).unwrap()).collect();
    let share = processor_share(daemon.pid(), Duration::from_millis(1_500));
    assert!(share < 0.2, "{share} of a processor while connections wait");

    // Now that no descriptor at all is to be had, more connections come, and cannot be taken.
    let pid = Pid::from_raw(daemon.pid() as i32);
    let limit =
        |current| prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum: Some(300) }).unwrap();
    limit(8);
    crowd.extend((0..20).map(|_| TcpStream::connect(&daemon.address).unwrap()));
    let mut accept_errors = || {
        kept.write(b"host\r\n\r\n").unwrap();
        let text = kept.read_response(false).unwrap().text();
        begin(&mut kept);
        let line = text.lines().find_map(|line| line.strip_prefix("hitlog_accepts_total{outcome=\"failed\"} "));
        line.unwrap().parse::<f64>().unwrap()
    };
    wait_until("there are no descriptors", || (accept_errors() > 0.0).then_some(()));
    let share = processor_share(daemon.pid(), Duration::from_millis(1_500));
    assert!(share < 0.2, "{share} of a processor without descriptors");
    let errors = accept_errors();
    assert!(errors < 30.0, "{errors} tries to accept");
    limit(300);
    // A stop waits for a head that has begun.
    drop((crowd, kept));
    assert_eq!(daemon.client().get("/livez").status, 200);
    daemon.stop();

    // The measure sees a process that spins.
    let mut spinning = Command::new("bash").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let share = processor_share(spinning.id(), Duration::from_millis(500));
    spinning.kill().unwrap();
    spinning.wait().unwrap();
    assert!(share > 0.2, "{share}");
}

/// A request that stores events of this session, as many as said.
fn requests(code: &str, session: &str) -> [(&'static str, usize, Vec<u8>); 3] {
    let event = event_with(code, json!({"sessionId": session})).to_string();
    let batch = json!({"events": vec![event_with(code, json!({"sessionId": session})); 3]}).to_string();
    let post = |path: &str, rest: &str| format!("POST /api/v1/events{path} HTTP/1.1\r\nhost: a\r\n{rest}").into_bytes();
    let with_length = |body: &str| format!("content-length: {}\r\n\r\n{body}", body.len());
    let (first, rest) = event.split_at(17);
    let chunks = format!("11;a=b\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len());
    [
        ("single", 1, post("", &with_length(&event))),
        ("batch", 3, post("/batch", &with_length(&batch))),
        ("chunked", 1, post("", &format!("transfer-encoding: chunked\r\n\r\n{chunks}"))),
    ]
}

/// Events of a website by session.
fn stored(daemon: &Daemon, code: &str) -> BTreeMap<String, usize> {
    let mut stored = BTreeMap::new();
    for event in checker::walk(daemon, code).unwrap() {
        *stored.entry(event["sessionId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    stored
}

#[test]
fn a_request_that_ends_early_is_stored_whole_or_not_at_all() {
    let daemon = Daemon::start(&["--log-level=error"]);
    let code = daemon.register("example.com");
    let mut whole = BTreeMap::new();
    for reset in [false, true] {
        for kind in 0..3 {
            let mut sent = 0;
            for end in 0.. {
                let session = format!("{kind}-{reset:5}-{end:04}");
                let (_, count, request) = &requests(&code, &session)[kind];
                let Some(prefix) = request.get(..end) else { break };
                let stream = TcpStream::connect(&daemon.address).unwrap();
                (&stream).write_all(prefix).unwrap();
                if reset {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
                if end == request.len() {
                    whole.insert(session, (reset, *count));
                }
                sent += 1;
            }
            assert!(sent > 100, "{sent}");
        }
    }
    wait_until("they are gone", || (daemon.metrics()["hitlog_connections"] == 1.0).then_some(()));
    let (received, committed) = daemon.assert_conserved();
    let check = || {
        let mut stored = stored(&daemon, &code);
        for (session, (reset, count)) in &whole {
            let found = stored.remove(session).unwrap_or_default();
            // A reset may reach hitlog before it has read what came first.
            if found != *count && !(*reset && found == 0) {
                return Err(format!("of {session} {found} are stored, not {count}"));
            }
        }
        stored.into_keys().next().map_or(Ok(()), |session| Err(format!("{session} is stored, and never ended")))
    };
    check().unwrap();
    assert!(received > committed, "bodies that ended early are counted, too");
    // The check sees a prefix that is stored, and a batch that is torn.
    for (session, fault) in [("0-false-0300", "is stored, and never ended"), ("0-false", "2 are stored")] {
        let session = whole.keys().find(|known| known.starts_with(session)).map_or(session, |known| known);
        let event = event_with(&code, json!({"sessionId": session})).to_string();
        assert_eq!(daemon.client().post("/api/v1/events", event).status, 201);
        let found = check().unwrap_err();
        assert!(found.contains(fault), "{found}");
    }
    daemon.stop();
}

/// Reads the answers to a request of each kind with events of this session, and to one more.
fn own_answers(client: &mut Client, session: &str) -> Result<(), Vec<String>> {
    let responses: Vec<_> = (0..4).map_while(|_| client.read_response(false)).collect();
    let is_own = |at: usize| responses[at].json()["sessionId"] == json!(session);
    let is_right = responses.iter().map(|response| response.status).eq([201, 201, 201, 200]) && is_own(0) && is_own(2);
    if is_right { Ok(()) } else { Err(responses.iter().map(harness::Response::text).collect()) }
}

#[test]
fn a_request_may_come_in_two_pieces_wherever_it_is_split() {
    for flags in [&["--worker-threads=1"][..], &["--worker-threads=1", "--warm-connections-max=0"]] {
        let daemon = Daemon::start(flags);
        let code = daemon.register("example.com");
        let pipelined = |number: usize| {
            let mut all = requests(&code, &format!("s{number:04}")).map(|(_, _, request)| request).concat();
            all.extend_from_slice(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n");
            all
        };
        let length = pipelined(0).len();
        let mut halves: Vec<(Client, Vec<u8>)> = (1..length)
            .map(|at| {
                let (mut client, mut first) = (daemon.client(), pipelined(at));
                let second = first.split_off(at);
                client.write(&first).unwrap();
                (client, second)
            })
            .collect();
        // While this one is answered, the first halves are read.
        assert_eq!(daemon.client().get("/livez").status, 200);
        for (client, second) in &mut halves {
            client.write(second).unwrap();
        }
        for (at, (client, _)) in (1..).zip(&mut halves) {
            assert_eq!(own_answers(client, &format!("s{at:04}")), Ok(()), "split at {at}");
        }
        let stored = stored(&daemon, &code);
        assert!(stored.len() == length - 1 && stored.values().all(|count| *count == 5), "{stored:?}");
        // The check sees a request of which a byte was lost, and one that was answered in another's place.
        let mut client = daemon.client();
        client.write(&pipelined(0)[1..]).unwrap();
        assert!(own_answers(&mut client, "s0000").is_err());
        let mut client = daemon.client();
        client.write(&pipelined(0)).unwrap();
        assert!(own_answers(&mut client, "s0001").is_err());
        daemon.stop();
    }
}

#[test]
fn a_client_that_is_told_to_continue_and_does_not_is_ended() {
    let daemon = Daemon::start(&["--body-stall-timeout-seconds=0.5"]);
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n";
    let mut clients: Vec<Client> = (0..100)
        .map(|number| {
            let length = ["content-length: 100", "transfer-encoding: chunked"][number % 2];
            let mut client = daemon.client();
            client.write(format!("{head}{length}\r\n\r\n").as_bytes()).unwrap();
            let mut interim = [0; 25];
            client.stream.read_exact(&mut interim).unwrap();
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
            client
        })
        .collect();
    // One half leaves, the other waits for ever.
    clients.truncate(50);
    let told_from = Instant::now();
    for client in &mut clients {
        let response = client.read_response(false).unwrap();
        assert_eq!((response.status, response.error().as_str()), (408, "REQUEST_TIMEOUT"));
        assert!(client.is_closed());
    }
    assert!(told_from.elapsed() < Duration::from_secs(5), "told after {:?}", told_from.elapsed());
    drop(clients);
    let metrics =
        wait_until("they are gone", || Some(daemon.metrics()).filter(|metrics| metrics["hitlog_connections"] == 1.0));
    assert_eq!(metrics["hitlog_events_rejected_total{reason=\"timeout\"}"], 50.0);
    assert_eq!(metrics["hitlog_events_rejected_total{reason=\"broken_off\"}"], 50.0);
    assert_eq!(metrics["hitlog_body_bytes"], 0.0);
    assert_eq!(daemon.assert_conserved(), (100.0, 0.0));
    daemon.stop();
}

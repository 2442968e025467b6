//! What a client can make hitlog do and hold: work, memory, connections. Each attack goes against a daemon with its
//! default limits, beside a client that behaves.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{Client, Daemon, event_with, raise_descriptors, traffic, turn, wait_until};
use serde_json::json;

use crate::clients::connect_narrow;

/// The most that an attack may add to the tail of a client that behaves.
const DELAY_MAX: Duration = Duration::from_millis(20);
/// The largest batch, by default.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Sends one event after the other for a while; how long each took, sorted.
fn good_client(address: &str, code: &str, lasting: Duration) -> Vec<Duration> {
    let (mut client, until, mut times) = (Client::connect(address), Instant::now() + lasting, Vec::new());
    for number in 0.. {
        let started = Instant::now();
        let response = client.post("/api/v1/events", traffic::event(code, number));
        assert_eq!(response.status, 201, "{}", response.text());
        times.push(started.elapsed());
        if Instant::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    times.sort_unstable();
    times
}

fn tail(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

fn batch_request(body: &[u8], headers: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /api/v1/events/batch HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Bodies of the largest size that make the most work for the least, with the encoding that they claim.
fn costly_bodies() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let fill = |piece: &[u8]| piece.repeat(BATCH_BYTES_MAX / piece.len());
    let empty_member = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Four blocks of the fixed kind that are empty, of ten bits each.
    let mut fixed_blocks = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    fixed_blocks.extend(fill(&[0x02, 0x08, 0x20, 0x80, 0x00]));
    let filled = |item: &str| {
        let items = vec![item; (BATCH_BYTES_MAX - 64) / (item.len() + 1)];
        format!("{{\"events\":[{{\"x\":[{}]}}]}}", items.join(",")).into_bytes()
    };
    let text = vec![b' '; BATCH_BYTES_MAX];
    vec![
        ("empty members", "gzip", fill(&empty_member)),
        ("empty blocks", "gzip", fixed_blocks.clone()),
        ("empty blocks", "deflate", fixed_blocks[10..].to_vec()),
        ("empty frames", "zstd", fill(&zstd::encode_all(&b""[..], 1).unwrap())),
        ("much from little", "zstd", zstd::encode_all(&text[..], 19).unwrap()),
        ("values", "identity", filled("1")),
        ("texts", "identity", filled("\"\\u00e9\"")),
        ("members", "identity", filled("{\"os\":1}")),
        ("events", "identity", format!("{{\"events\":[{}]}}", vec!["{}"; 1_000].join(",")).into_bytes()),
    ]
}

#[test]
fn no_body_delays_others() {
    let _alone = turn::alone();
    let daemon = Daemon::start(&["--log-level=error"]);
    let code = daemon.register("example.com");
    good_client(&daemon.address, &code, Duration::from_millis(500));
    for (name, encoding, body) in costly_bodies() {
        let request = batch_request(&body, &format!("content-encoding: {encoding}\r\n"));
        // What else the machine does may delay a client, too, but not every time.
        let is_noticed = || {
            let alone = tail(&good_client(&daemon.address, &code, Duration::from_millis(600)));
            let (beside, answered) = beside_attack(&daemon.address, &code, &request);
            println!("{name} as {encoding}: p99 {alone:?} alone, {beside:?} beside {answered} of them");
            assert!(answered > 0, "{name} as {encoding} was never answered");
            beside > alone + DELAY_MAX
        };
        assert!((0..4).any(|_| !is_noticed()), "{name} as {encoding} delays others by more than {DELAY_MAX:?}");
    }
    daemon.stop();
}

/// The tail of a client that behaves, beside one that sends a request again and again, and how often that was answered.
fn beside_attack(address: &str, code: &str, request: &[u8]) -> (Duration, usize) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let mut answered = 0;
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::connect(address);
                // It may be refused before it has been read.
                let _ = client.write(request);
                answered += usize::from(client.read_response(false).is_some());
            }
            answered
        });
        let beside = good_client(address, code, Duration::from_millis(1_200));
        over.store(true, Ordering::Relaxed);
        (tail(&beside), attack.join().unwrap())
    })
}

/// Clients that take as much memory as they can and give nothing, some of each kind in turn.
fn worst_clients(address: &str, pages: &str, count: usize) -> Vec<TcpStream> {
    let empties = batch_request(format!("{{\"events\":[{}]}}", vec!["{}"; 1_000].join(",")).as_bytes(), "");
    let doubled = batch_request(format!("{{\"events\":[{{{}}}]}}", vec!["\"os\":1"; 20_000].join(",")).as_bytes(), "");
    let page = format!("GET /api/v1/events?trackingCode={pages} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes();
    let head = [b"GET /livez HTTP/1.1\r\nhost: a\r\nx: ".to_vec(), vec![b'y'; 12_000]].concat();
    let unfinished = |size: usize| {
        let mut request = batch_request(&vec![b' '; size], "");
        request.pop();
        request
    };
    let metrics = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
    let kinds = [empties, doubled, page, head, unfinished(15_000), unfinished(1 << 20), metrics, Vec::new()];
    let connect = |number: usize| {
        let mut stream = connect_narrow(address);
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // Whatever goes goes: some are refused before they have said everything.
        let _ = stream.write_all(&kinds[number % kinds.len()]);
        stream
    };
    (0..count).map(connect).collect()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

#[test]
fn the_worst_clients_take_no_more_memory_than_the_sum_of_the_limits() {
    let _alone = turn::alone();
    if let Err(why) = raise_descriptors(5_000) {
        println!("skipped: {why}");
        return;
    }
    // Nobody asks for numbers here, so there is little room for them in the sum.
    let daemon = Daemon::start(&["--log-format=json", "--rollup-bytes-max=8MiB"]);
    let (code, pages) = (daemon.register("example.com"), daemon.register("pages.example"));
    let large = event_with(&pages, json!({"properties": {"p": "x".repeat(30_000)}}));
    let batch = json!({"events": vec![large; 60]}).to_string();
    assert_eq!(daemon.client().post("/api/v1/events/batch", batch).status, 201);
    let log = daemon.log();
    let stated = log.split("\"memory_bytes_max\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    let sum: u64 = stated.parse().unwrap();
    let (over, pid) = (Arc::<AtomicBool>::default(), daemon.pid());
    let watch = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let mut peak = 0;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(resident_bytes(pid));
                thread::sleep(Duration::from_millis(20));
            }
            peak
        })
    };
    let crowd = worst_clients(&daemon.address, &pages, 4_000);
    let beside = good_client(&daemon.address, &code, Duration::from_secs(2));
    assert_eq!(daemon.client().get("/livez").status, 200);
    daemon.metrics();
    drop(crowd);
    over.store(true, Ordering::Relaxed);
    let peak = watch.join().unwrap();
    println!("{} MiB of {} at the peak, {} events beside them", peak >> 20, sum >> 20, beside.len());
    assert!(peak < sum, "{peak} B resident, {sum} B said at the start");
    wait_until("the crowd is gone", || (daemon.metrics()["hitlog_connections"] < 10.0).then_some(()));
    let metrics = daemon.metrics();
    for gauge in ["hitlog_body_bytes", "hitlog_answer_bytes", "hitlog_read_bytes", "hitlog_queue_bytes"] {
        assert_eq!(metrics[gauge], 0.0, "{gauge}: everything is given back");
    }
    daemon.stop();
}

#[test]
fn unfinished_bodies_take_no_room_from_events() {
    let daemon = Daemon::start(&["--log-level=error"]);
    let code = daemon.register("example.com");
    let limit = daemon.metrics()["hitlog_body_limit_bytes"] as usize;
    let unfinished = |size: usize| {
        let mut stream = TcpStream::connect(&daemon.address).unwrap();
        let mut request = batch_request(&vec![b' '; size], "");
        request.truncate(request.len() - 10);
        stream.write_all(&request).unwrap();
        stream
    };
    let (large, small) = (limit / BATCH_BYTES_MAX + 1, (limit / 4) / 15_000);
    let mut crowd: Vec<_> = (0..large).map(|_| unfinished(BATCH_BYTES_MAX)).collect();
    crowd.extend((0..small).map(|_| unfinished(15_000)));
    good_client(&daemon.address, &code, Duration::from_millis(500));
    // Whoever sends a large batch at once gets in before those that only began to.
    let batch = json!({"events": vec![event_with(&code, json!({"properties": {"p": "x".repeat(20_000)}})); 100]});
    let stored = wait_until("a batch gets in", || {
        let response = daemon.client().post("/api/v1/events/batch", batch.to_string());
        (response.status == 201).then_some(response)
    });
    assert_eq!(stored.json()["eventsCreated"], 100);
    assert!(daemon.metrics()["hitlog_events_shed_total{reason=\"body_memory\"}"] > 0.0);
    drop(crowd);
    daemon.stop();
}

#[test]
fn a_body_or_an_answer_that_trickles_ends() {
    let daemon = Daemon::start(&["--log-level=error", "--body-stall-timeout-seconds=1"]);
    let pages = daemon.register("pages.example");
    let large = event_with(&pages, json!({"properties": {"p": "x".repeat(30_000)}}));
    let batch = json!({"events": vec![large; 100]}).to_string();
    assert_eq!(daemon.client().post("/api/v1/events/batch", batch).status, 201);

    let mut body = daemon.client();
    body.write(b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{").unwrap();
    let writer = body.stream.get_ref().try_clone().unwrap();
    let over = Arc::<AtomicBool>::default();
    let dripping = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) && (&writer).write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    assert_eq!(body.read_response(false).unwrap().status, 408, "ten bytes a second are too few");
    over.store(true, Ordering::Relaxed);
    dripping.join().unwrap();

    let mut reader = connect_narrow(&daemon.address);
    let page = format!("GET /api/v1/events?trackingCode={pages} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    reader.write_all(page.as_bytes()).unwrap();
    wait_until("the answer that trickles out is given up", || {
        let _ = reader.read(&mut [0; 40]);
        (daemon.metrics()["hitlog_connections_closed_total{reason=\"write_stalled\"}"] == 1.0).then_some(())
    });
    assert_eq!(daemon.metrics()["hitlog_read_bytes"], 0.0);
    daemon.stop();
}

#[test]
fn a_flood_of_idle_connections_lets_others_in() {
    let daemon = Daemon::start(&["--log-level=error", "--connections-max=300", "--address-share-percent=50"]);
    let code = daemon.register("example.com");
    let mut kept = daemon.client();
    assert_eq!(kept.get("/livez").status, 200);
    let crowd: Vec<_> = (0..1_000).map(|_| TcpStream::connect(&daemon.address).unwrap()).collect();
    // Its client waits no longer than for its turn.
    assert_eq!(daemon.client().get("/livez").status, 200);
    good_client(&daemon.address, &code, Duration::from_millis(300));
    let metrics = daemon.metrics();
    assert!(metrics["hitlog_connections"] <= 300.0);
    assert!(metrics["hitlog_connections_closed_total{reason=\"gave_way\"}"] > 600.0, "{metrics:?}");
    drop(crowd);
    daemon.stop();
}

#[test]
fn more_requests_than_buffers_are_answered_in_turn() {
    let post = "POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n";
    // A head that never ends, one that hardly begins, a body that never begins and one that hardly does.
    for said in ["GET /livez HTTP/1.1\r\nhost: a\r\nx: ", "G", post, &format!("{post}{{")] {
        let flags = ["--log-level=error", "--active-connections-max=20", "--warm-connections-max=10"];
        let daemon = Daemon::start(&flags);
        let code = daemon.register("example.com");
        let crowd: Vec<_> = (0..200)
            .map(|_| {
                let mut stream = TcpStream::connect(&daemon.address).unwrap();
                stream.write_all(said.as_bytes()).unwrap();
                stream
            })
            .collect();
        assert_eq!(daemon.client().get("/livez").status, 200);
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let (address, code) = (daemon.address.clone(), code.clone());
                thread::spawn(move || good_client(&address, &code, Duration::from_millis(300)).len())
            })
            .collect();
        let stored: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        let metrics = daemon.metrics();
        assert_eq!(metrics["hitlog_events_committed_total"], stored as f64);
        // None of them had its time limit before others were let in.
        assert_eq!(metrics["hitlog_connections_closed_total{reason=\"head_timeout\"}"], 0.0, "{said}");
        assert_eq!(metrics["hitlog_events_rejected_total{reason=\"timeout\"}"], 0.0, "{said}");
        drop(crowd);
        daemon.stop();
    }
}

#[test]
fn small_answers_that_nobody_reads_take_no_room_from_events() {
    let flags = ["--log-level=error", "--answer-bytes-max=2MiB", "--small-answer-bytes=64KiB"];
    let daemon = Daemon::start(&flags);
    let code = daemon.register("example.com");
    let refused = batch_request(format!("{{\"events\":[{}]}}", ["{}"; 18].join(",")).as_bytes(), "").repeat(400);
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect_narrow(&daemon.address);
            stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            let _ = stream.write_all(&refused);
            stream
        })
        .collect();
    // Whoever reads is not kept waiting by those who do not.
    good_client(&daemon.address, &code, Duration::from_secs(1));
    assert!(daemon.metrics()["hitlog_connections_closed_total{reason=\"gave_way\"}"] > 0.0);
    drop(crowd);
    daemon.stop();
}

#[test]
fn a_request_that_came_while_the_process_was_stopped_is_answered() {
    let flags = ["--idle-timeout-seconds=1", "--head-timeout-seconds=1", "--body-stall-timeout-seconds=1"];
    let daemon = Daemon::start(&[&flags[..], &["--log-level=error"]].concat());
    let code = daemon.register("example.com");
    let event = traffic::event(&code, 1);
    let request = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{event}", event.len());
    let (whole, head, body) = (0, 20, request.len() - 10);
    let mut clients: Vec<_> = [whole, head, body].into_iter().map(|begun| (daemon.client(), begun)).collect();
    for (client, begun) in &mut clients {
        assert_eq!(client.get("/livez").status, 200);
        client.write(&request.as_bytes()[..*begun]).unwrap();
    }
    wait_until("the beginnings have come", || (daemon.metrics()["hitlog_body_bytes"] > 0.0).then_some(()));
    daemon.freeze();
    for (client, begun) in &mut clients {
        client.write(&request.as_bytes()[*begun..]).unwrap();
    }
    // Time itself is what is tested: it is up for all of them when the process goes on.
    thread::sleep(Duration::from_millis(1_500));
    daemon.signal("CONT");
    for (client, begun) in &mut clients {
        assert_eq!(client.read_response(false).map(|response| response.status), Some(201), "after {begun} bytes");
    }
    daemon.stop();
}

#[test]
fn a_head_that_is_refused_hears_why() {
    let daemon = Daemon::start(&["--log-level=error"]);
    let large = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: a\r\norigin: https://shop.example\r\ncookie: {}\r\n\r\n",
        "c".repeat(20_000)
    );
    for (sent, status, code, words) in [
        (large.as_bytes(), 431, "HEADERS_TOO_LARGE", "too large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "VALIDATION_ERROR", "plain HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "VALIDATION_ERROR", "HTTP/2"),
        (b"GET  /livez HTTP/1.1\r\nhost: a\r\n\r\n", 400, "VALIDATION_ERROR", "HTTP/1.1"),
        (b"GET /livez HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n", 400, "VALIDATION_ERROR", "HTTP/1.1"),
    ] {
        // A request before it, or none: the fault is found in another moment then, and answered as the one before was.
        let before_it: [&[u8]; 3] = [
            b"",
            b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"GET /livez HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n",
        ];
        for before in before_it {
            let mut client = daemon.client();
            client.write(&[before, sent].concat()).unwrap();
            if !before.is_empty() {
                assert_eq!(client.read_response(false).unwrap().status, 200);
            }
            let response = client.read_response(false).unwrap_or_else(|| panic!("{words}: no answer"));
            assert_eq!((response.status, response.error().as_str()), (status, code), "{}", response.text());
            assert!(response.text().contains(words), "{}", response.text());
            assert_eq!(response.header("connection"), Some("close"));
            let origin = response.header("access-control-allow-origin");
            assert_eq!(origin, (status == 431).then_some("https://shop.example"));
            assert!(client.is_closed());
        }
    }
    daemon.stop();
}

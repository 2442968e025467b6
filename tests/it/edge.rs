//! Connections and limits, over raw sockets.

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use harness::{Client, Daemon, event_with, wait_until};
use serde_json::json;

use crate::{clients::connect_narrow, streaming::closed};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let mut requests = String::new();
    for number in 0..50 {
        let body = event_with(&code, json!({"sessionId": format!("s{number}")})).to_string();
        requests += &format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        requests += "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    }
    let mut client = daemon.client();
    client.write(requests.as_bytes()).unwrap();
    for number in 0..50 {
        let response = client.read_response(false).unwrap();
        assert_eq!((response.status, &response.json()["sessionId"]), (201, &json!(format!("s{number}"))));
        assert_eq!(client.read_response(false).unwrap().status, 200);
    }
    daemon.stop();
}

#[test]
fn connections_that_give_their_buffers_back_lose_nothing() {
    // Every connection is one too many, so each rests between its requests.
    let daemon = Daemon::start(&["--warm-connections-max", "0", "--head-timeout-seconds", "1"]);
    let code = daemon.register("example.com");
    let request = |number: usize| {
        let body = event_with(&code, json!({"sessionId": format!("s{number}")})).to_string();
        format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let mut client = daemon.client();
    let next_answer = |client: &mut Client, number: usize| {
        let response = client.read_response(false).unwrap();
        assert_eq!((response.status, &response.json()["sessionId"]), (201, &json!(format!("s{number}"))));
    };
    for number in 0..20 {
        client.write(request(number).as_bytes()).unwrap();
        next_answer(&mut client, number);
    }
    // Two requests and part of the head of a third at once; its rest when the first two are answered.
    let third = request(22);
    let (begin, end) = third.split_at(20);
    client.write((request(20) + &request(21) + begin).as_bytes()).unwrap();
    next_answer(&mut client, 20);
    next_answer(&mut client, 21);
    client.write(end.as_bytes()).unwrap();
    next_answer(&mut client, 22);
    // A head that does not go on is told so.
    client.write((request(23) + begin).as_bytes()).unwrap();
    next_answer(&mut client, 23);
    assert_eq!(client.read_response(false).unwrap().status, 408);
    // Neither those that have been served nor those that have said nothing keep a stop from ending.
    let mut resting: Vec<Client> = (0..50).map(|_| daemon.client()).collect();
    for client in resting.iter_mut().take(25) {
        client.write(request(24).as_bytes()).unwrap();
        next_answer(client, 24);
    }
    let asked_at = Instant::now();
    daemon.stop();
    assert!(asked_at.elapsed() < Duration::from_secs(10));
    assert!(resting.iter_mut().all(Client::is_closed));
}

/// hyper pauses after some requests in a row, with others read already: resting there, too, a connection keeps them.
#[test]
fn a_long_pipeline_on_a_resting_connection_loses_nothing() {
    const REQUESTS: usize = 400;
    let daemon = Daemon::start(&["--warm-connections-max", "0"]);
    let code = daemon.register("example.com");
    let large = event_with(&code, json!({"properties": {"p": "x".repeat(8_000)}})).to_string();
    let mut sent = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{large}", large.len());
    sent += &"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n".repeat(REQUESTS);
    let mut client = daemon.client();
    client.write(sent.as_bytes()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 201);
    for number in 0..REQUESTS {
        let response = client.read_response(false).unwrap_or_else(|| panic!("no answer to request {number}"));
        assert_eq!(response.status, 200, "request {number}: {}", response.text());
    }
    daemon.stop();
}

#[test]
fn bodies_are_counted_whatever_the_head_says() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let body = event_with(&code, json!({})).to_string();
    // In chunks, a byte each.
    let mut chunked = "POST /api/v1/events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for letter in body.chars() {
        chunked += &format!("1\r\n{letter}\r\n");
    }
    let mut client = daemon.client();
    client.write(format!("{chunked}0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 201);
    assert_eq!(client.get("/livez").status, 200, "the connection stays usable");
    // Too large in chunks, without a length: refused at the limit, long before the end.
    let mut client = daemon.client();
    client.write(b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 16 * 1024, "x".repeat(16 * 1024));
    for _ in 0..5 {
        client.write(chunk.as_bytes()).unwrap();
    }
    assert_eq!(client.read_response(false).unwrap().status, 413);
    daemon.stop();
}

#[test]
fn a_client_that_sends_too_much_sees_the_answer() {
    let daemon = Daemon::start(&[]);
    for _ in 0..30 {
        let mut client = daemon.client();
        let body = vec![b'x'; 600 * 1024];
        let response = client.send("POST", "/api/v1/events", &[], &body);
        assert_eq!((response.status, response.error().as_str()), (413, "PAYLOAD_TOO_LARGE"));
        assert_eq!(client.get("/livez").status, 200, "the rest was read, and the connection stays usable");
    }
    for (method, path, status) in [("POST", "/nowhere", 404), ("DELETE", "/api/v1/events", 405)] {
        let mut client = daemon.client();
        assert_eq!(client.send(method, path, &[], &vec![b'x'; 600 * 1024]).status, status);
        assert_eq!(client.get("/livez").status, 200);
    }
    // Who asks before sending is told before sending.
    let mut client = daemon.client();
    let head = "POST /api/v1/events HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n";
    client.write(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    client.stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    let (received, _) = daemon.assert_conserved();
    assert_eq!(received, 31.0, "each counts as one");
    daemon.stop();
}

#[test]
fn expect_continue() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let body = event_with(&code, json!({})).to_string();
    let mut client = daemon.client();
    let length = body.len();
    let head =
        format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n");
    client.write(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    client.stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write(body.as_bytes()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 201);
    daemon.stop();
}

/// Short times, so that the test need not wait for the real ones.
const SHORT: [&str; 9] = [
    "--head-timeout-seconds=0.5",
    "--body-stall-timeout-seconds=0.5",
    "--body-timeout-seconds=1.5",
    "--bytes-per-second-min=1",
    "--idle-timeout-seconds=1.0",
    "--read-timeout-seconds=5",
    "--log-level=debug",
    "--readers=1",
    "--worker-threads=2",
];

fn ends_within(what: &str, from: f64, to: f64, mut wait: impl FnMut()) {
    let started = Instant::now();
    wait();
    let took = started.elapsed().as_secs_f64();
    assert!((from..to).contains(&took), "{what} took {took} s, not {from} to {to}");
}

#[test]
fn slow_clients_are_ended_in_time() {
    let daemon = Daemon::start(&SHORT);
    let connect = || daemon.client();

    let mut silent = connect();
    ends_within("a connection without a request", 0.9, 3.0, || assert!(silent.is_closed()));

    let mut slow_head = connect();
    slow_head.write(b"GET /livez HTT").unwrap();
    ends_within("half a head", 0.4, 2.0, || assert_eq!(slow_head.read_response(false).unwrap().status, 408));
    assert!(slow_head.is_closed());

    let mut kept = connect();
    assert_eq!(kept.get("/livez").status, 200);
    kept.write(b"GET /livez HTT").unwrap();
    ends_within("half a head after a request", 0.4, 2.0, || assert_eq!(kept.read_response(false).unwrap().status, 408));

    let mut behind = connect();
    behind.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\nGET /livez HTT").unwrap();
    assert_eq!(behind.read_response(false).unwrap().status, 200);
    ends_within("half a head behind one", 0.4, 2.0, || assert_eq!(behind.read_response(false).unwrap().status, 408));

    let mut refused = connect();
    assert_eq!(refused.send("POST", "/nowhere", &[], b"unwanted").status, 404);
    refused.write(b"GET /livez HTT").unwrap();
    ends_within("half a head after a refused body", 0.4, 2.0, || {
        assert_eq!(refused.read_response(false).unwrap().status, 408);
    });

    let mut idle = connect();
    assert_eq!(idle.get("/livez").status, 200);
    ends_within("an idle connection", 0.9, 3.0, || assert!(idle.is_closed()));

    let post = b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{";
    let mut stalled = connect();
    stalled.write(post).unwrap();
    ends_within("a body that stalls", 0.4, 2.0, || {
        let response = stalled.read_response(false).unwrap();
        assert_eq!((response.status, response.error().as_str()), (408, "REQUEST_TIMEOUT"));
    });

    let mut dripping = connect();
    dripping.write(post).unwrap();
    let mut drip = dripping.stream.get_ref().try_clone().unwrap();
    let dripper = std::thread::spawn(move || {
        while drip.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    ends_within("a body that drips", 1.3, 4.0, || assert_eq!(dripping.read_response(false).unwrap().status, 408));
    drop(dripping);
    dripper.join().unwrap();

    let metrics = wait_until("all are closed", || Some(daemon.metrics()).filter(|m| m["hitlog_connections"] == 1.0));
    assert_eq!(metrics["hitlog_connections_closed_total{reason=\"head_timeout\"}"], 4.0);
    assert_eq!(metrics["hitlog_events_rejected_total{reason=\"timeout\"}"], 2.0);
    daemon.stop();
}

#[test]
fn a_client_that_does_not_read_is_ended() {
    let daemon = Daemon::start(&SHORT);
    let code = daemon.register("example.com");
    let properties = json!({"p": "x".repeat(30_000)});
    let batch = json!({"events": vec![event_with(&code, json!({"properties": properties})); 100]}).to_string();
    for _ in 0..4 {
        assert_eq!(daemon.client().post("/api/v1/events/batch", &batch).status, 201);
    }
    let mut client = daemon.client();
    let request = format!("GET /api/v1/events?trackingCode={code}&limit=400 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    client.write(request.as_bytes()).unwrap();
    let metrics = wait_until("the write has stalled", || {
        Some(daemon.metrics()).filter(|m| m["hitlog_connections_closed_total{reason=\"write_stalled\"}"] == 1.0)
    });
    assert_eq!(metrics["hitlog_read_bytes"], 0.0, "its memory is given back");
    daemon.stop();
}

#[test]
fn connections_are_bounded_and_the_longest_idle_one_goes() {
    let daemon = Daemon::start(&["--connections-max", "4", "--idle-timeout-seconds", "60"]);
    let mut open: Vec<Client> = (0..4).map(|_| daemon.client()).collect();
    for client in &mut open {
        assert_eq!(client.get("/livez").status, 200);
    }
    assert_eq!(daemon.client().get("/livez").status, 200, "a fifth does not wait");
    let mut closed: Vec<bool> = Vec::new();
    for client in &mut open {
        client.stream.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        closed.push(matches!(client.stream.read(&mut [0]), Ok(0)));
    }
    assert_eq!(closed, [true, false, false, false]);
    drop(open);
    daemon.stop();
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let work = harness::work_dir();
    let data = work.path().join("data");
    let mut command = std::process::Command::new("bash");
    // More connections than the limit on open files leaves: 256 are reserved, so the limit must lie above.
    command
        .args(["-c", "ulimit -n 300 && exec \"$@\"", "bash"])
        .arg(harness::binary())
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let daemon = Daemon::spawn(&mut command, &data);
    assert!(daemon.log().contains("fewer connections than configured"), "{}", daemon.log());
    let mut open: Vec<Client> = (0..200).map(|_| daemon.client()).collect();
    open.truncate(2);
    assert_eq!(daemon.client().get("/livez").status, 200);
    drop(open);
    daemon.stop();
}

#[test]
fn a_client_that_goes_away_loses_nothing() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let body = event_with(&code, json!({})).to_string();
    for _ in 0..100 {
        let mut client = daemon.client();
        let length = body.len();
        client
            .write(
                format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes(),
            )
            .unwrap();
        client.stream.get_ref().shutdown(Shutdown::Both).unwrap();
    }
    wait_until("they are gone", || (daemon.metrics()["hitlog_connections"] == 1.0).then_some(()));
    let (received, committed) = daemon.assert_conserved();
    assert_eq!(received, committed, "what was taken in was committed");
    let total =
        daemon.client().get(&format!("/api/v1/events?trackingCode={code}")).json()["pagination"]["total"].clone();
    assert_eq!(total, json!(committed as u64));
    daemon.stop();
}

#[test]
fn pages_share_a_memory() {
    let daemon = Daemon::start(&["--read-bytes-max=1MiB"]);
    let code = daemon.register("example.com");
    let properties = json!({"p": "x".repeat(30_000)});
    let batch = json!({"events": vec![event_with(&code, json!({"properties": properties})); 100]}).to_string();
    assert_eq!(daemon.client().post("/api/v1/events/batch", &batch).status, 201);
    // It is made in chunks, of which there is room for one.
    let path = format!("/api/v1/events?trackingCode={code}");
    assert_eq!(daemon.client().get(&path).json()["events"].as_array().unwrap().len(), 100);
    let mut reader = connect_narrow(&daemon.address);
    write!(reader, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    reader.peek(&mut [0; 1]).unwrap();
    // What is small has room beside it; for another chunk it gives way, since it reads nothing.
    assert_eq!(daemon.client().get(&format!("{path}&limit=10")).status, 200);
    assert_eq!(closed(&daemon, "gave_way"), 0.0);
    assert_eq!(daemon.client().get(&path).json()["events"].as_array().unwrap().len(), 100);
    assert_eq!(closed(&daemon, "gave_way"), 1.0);
    daemon.stop();
}

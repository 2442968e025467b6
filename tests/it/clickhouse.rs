//! The ClickHouse of the tests, the proxy that fails before it and the TLS before it do what tests of shipping rely on.

use std::{
    io::BufRead,
    process::Command,
    time::{Duration, Instant},
};

use harness::{
    Certificate, ClickHouse, Client, TlsFront,
    clickhouse::NO_ANSWER,
    proxy::{
        Fault::{self, *},
        Proxy,
    },
    wait_until,
};

const TABLE: &str = "CREATE TABLE a.t (n UInt64) ENGINE = MergeTree ORDER BY n";
const INSERT: &str = "/?wait_end_of_query=1&query=INSERT+INTO+a.t+FORMAT+TSV";
const ROWS: usize = 1_000;

#[test]
fn rows_stay_over_kills_and_users_have_the_rights_they_were_given() {
    let grants = ["GRANT SELECT, INSERT ON a.t"];
    let Some(mut server) = ClickHouse::with(|options| {
        options.user("shipper", "p<&>w", &grants).user("nobody", "x", &[]);
        options.config("<max_table_size_to_drop>12345</max_table_size_to_drop>");
    }) else {
        return;
    };
    let setting = "SELECT value FROM system.server_settings WHERE name = 'max_table_size_to_drop'";
    assert_eq!(server.query(setting), "12345");
    server.query("CREATE DATABASE a");
    server.query(TABLE);
    let count = "SELECT count() FROM a.t";
    for (round, is_kill) in [(1, true), (2, false)] {
        server.query(&format!("INSERT INTO a.t SELECT number FROM numbers({ROWS})"));
        if is_kill {
            server.kill();
        } else {
            server.stop();
        }
        assert_eq!(server.try_query(count).unwrap_err().0, NO_ANSWER);
        server.start_again();
        assert_eq!(server.query(count), (round * ROWS).to_string());
    }

    let ask = |server: &ClickHouse, user, password, query| {
        server.try_query_as(user, password, query).map_err(|(code, text)| {
            assert!(text.contains(&format!("Code: {code}.")), "{text}");
            code
        })
    };
    assert_eq!(ask(&server, "shipper", "p<&>w", count), Ok("2000".to_owned()));
    assert_eq!(ask(&server, "shipper", "p<&>w", "INSERT INTO a.t VALUES (1)"), Ok(String::new()));
    assert_eq!(ask(&server, "shipper", "p<&>w", "DROP TABLE a.t"), Err(497));
    assert_eq!(ask(&server, "shipper", "other", count), Err(516));
    assert_eq!(ask(&server, "nobody", "x", count), Err(497));
    assert_eq!(server.try_query("SELECT * FROM a.missing").unwrap_err().0, 60);
    // Rights that were taken away.
    server.choose(|options| {
        options.user("shipper", "other", &["GRANT SELECT ON a.t"]);
    });
    server.stop();
    server.start_again();
    assert_eq!(ask(&server, "shipper", "other", "INSERT INTO a.t VALUES (1)"), Err(497));
    assert_eq!(ask(&server, "shipper", "other", count), Ok("2001".to_owned()));
}

#[test]
fn a_distributed_table_over_two_servers() {
    let (Some(first), Some(second)) = (ClickHouse::start(), ClickHouse::start()) else { return };
    let mut first = first;
    first.stop();
    first.choose(|options| {
        options.cluster("two", &[second.tcp_port()]);
    });
    first.start_again();
    for server in [&first, &second] {
        server.query("CREATE DATABASE a");
        server.query(TABLE);
    }
    first.query("CREATE TABLE a.all AS a.t ENGINE = Distributed(two, a, t, sipHash64(n))");
    first.query("INSERT INTO a.all SELECT number FROM numbers(1000) SETTINGS distributed_foreground_insert = 1");
    let counts = [&first, &second].map(|server| server.query("SELECT count() FROM a.t").parse::<usize>().unwrap());
    assert_eq!(counts.iter().sum::<usize>(), 1_000);
    assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
    assert_eq!(first.query("SELECT count() FROM a.all"), "1000");
}

/// Rows of a body that a proxy may fail.
fn body() -> Vec<u8> {
    (0..ROWS).flat_map(|row| format!("{row}\n").into_bytes()).collect()
}

/// A server with a table that nothing is in.
fn empty_table() -> Option<ClickHouse> {
    let server = ClickHouse::start()?;
    server.query("CREATE DATABASE a");
    server.query(TABLE);
    Some(server)
}

/// How many rows there are, once no insert runs.
fn rows(server: &ClickHouse) -> usize {
    let running = "SELECT count() FROM system.processes WHERE startsWith(query, 'INSERT')";
    wait_until("no insert runs", || (server.query(running) == "0").then_some(()));
    server.query("SELECT count() FROM a.t").parse().unwrap()
}

#[test]
fn a_proxy_does_to_a_request_what_it_was_asked_to() {
    const DELAY: Duration = Duration::from_millis(300);
    let Some(server) = empty_table() else { return };
    let proxy = Proxy::start(&server.address());
    // The status that the client is told, if any; how many times the rows came; how many answers the server gave.
    let table: [(Option<Fault>, Option<u16>, usize, usize); 11] = [
        (None, Some(200), 1, 1),
        (Some(CutRequest(100)), None, 0, 0),
        (Some(CutRequest(0)), None, 0, 0),
        (Some(SwallowAnswer), None, 1, 1),
        (Some(TruncateAnswer(40)), None, 1, 1),
        (Some(AnswerItself), Some(200), 0, 0),
        (Some(AnswerItselfAfter(100)), Some(200), 0, 0),
        (Some(Twice), Some(200), 2, 2),
        (Some(DelayRequest(DELAY)), Some(200), 1, 1),
        (Some(DelayAnswer(DELAY)), Some(200), 1, 1),
        (None, Some(200), 1, 1),
    ];
    let mut client = Client::connect(&proxy.address());
    for (number, (fault, status, times, answers)) in table.into_iter().enumerate() {
        let (rows_before, answers_before, faults_before) = (rows(&server), proxy.answers(), proxy.faults());
        if let Some(fault) = fault {
            // The second of two requests: the first has no such text.
            proxy.next_with("INSERT", 1, fault);
            assert_eq!(client.get("/ping").text(), "Ok.\n", "{fault:?}");
        }
        let pings = usize::from(fault.is_some());
        let began = Instant::now();
        let answer = client.try_send("POST", INSERT, &[], &body());
        assert_eq!(answer.as_ref().map(|answer| answer.status), status, "{fault:?}");
        assert!(!matches!(fault, Some(DelayRequest(_) | DelayAnswer(_))) || began.elapsed() >= DELAY, "{fault:?}");
        proxy.wait_for_faults(faults_before + pings);
        assert_eq!(rows(&server) - rows_before, times * ROWS, "{fault:?}");
        assert_eq!(proxy.answers() - answers_before, answers + pings, "{fault:?}");
        assert_eq!(proxy.requests_with("INSERT"), number + 1);
        if status.is_none() {
            assert!(client.is_closed(), "{fault:?}");
            client = Client::connect(&proxy.address());
        }
    }
}

#[test]
fn a_proxy_delays_the_request_or_its_answer() {
    let Some(server) = empty_table() else { return };
    let proxy = Proxy::start(&server.address());
    for (fault, rows_meanwhile) in
        [(DelayRequest(Duration::from_secs(20)), 0), (DelayAnswer(Duration::from_secs(20)), ROWS)]
    {
        proxy.next(1, fault);
        let mut client = Client::connect(&proxy.address());
        let answers = proxy.answers();
        assert!(client.write(&request()).is_some());
        if rows_meanwhile > 0 {
            wait_until("the server has answered", || (proxy.answers() > answers).then_some(()));
        } else {
            proxy.wait_for_requests(1);
        }
        assert_eq!(rows(&server), rows_meanwhile, "{fault:?}");
    }
    // Nobody waits for what is left of these times.
    let began = Instant::now();
    drop(proxy);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// An insert as its bytes.
fn request() -> Vec<u8> {
    let body = body();
    let head = format!("POST {INSERT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}

#[test]
fn a_proxy_holds_requests_until_their_clients_have_gone() {
    let Some(server) = empty_table() else { return };
    let proxy = Proxy::start(&server.address());
    proxy.next(1, Hold);
    proxy.next(1, HoldInSilence);
    let mut told = Client::connect(&proxy.address());
    assert!(told.try_send("POST", INSERT, &[], &body()).is_none());
    let mut silent = Client::connect(&proxy.address());
    assert!(silent.write(&request()).is_some());
    proxy.wait_for_held(2);
    drop(silent);
    // The repeat comes before what it repeats.
    assert_eq!(Client::connect(&proxy.address()).send("POST", INSERT, &[], &body()).status, 200);
    assert_eq!((rows(&server), proxy.faults()), (ROWS, 0));
    proxy.release();
    assert_eq!((rows(&server), proxy.faults(), proxy.answers()), (3 * ROWS, 2, 3));
}

#[test]
fn a_proxy_refuses_and_heals_and_takes_chunks() {
    let Some(server) = empty_table() else { return };
    let proxy = Proxy::start(&server.address());
    let mut client = Client::connect(&proxy.address());
    assert_eq!(client.get("/ping").status, 200);
    proxy.refuse(true);
    assert!(client.is_closed());
    assert!(Client::try_connect(&proxy.address()).is_none());
    proxy.refuse(false);
    proxy.next(1_000, SwallowAnswer);
    assert!(Client::connect(&proxy.address()).try_send("GET", "/ping", &[], b"").is_none());
    proxy.heal();
    let mut client = Client::connect(&proxy.address());
    let chunked = format!(
        "POST {INSERT} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n1\n\r\n4;x\r\n22\n3\r\n0\r\n\r\n"
    );
    assert!(client.write(chunked.as_bytes()).is_some());
    assert_eq!(client.read_response(false).map(|response| response.status), Some(200));
    assert_eq!(client.get("/?query=SELECT+sum(n)+FROM+a.t").text(), "26\n");
    // One that sends a body only when it is asked to.
    let expecting = format!("POST {INSERT} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert!(client.write(expecting.as_bytes()).is_some());
    let mut lines = String::new();
    while !lines.ends_with("\r\n\r\n") {
        assert!(client.stream.read_line(&mut lines).unwrap() > 0, "{lines}");
    }
    assert_eq!(lines, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(client.write(b"4\n").is_some());
    assert_eq!(client.read_response(false).map(|response| response.status), Some(200));
    assert_eq!(rows(&server), 4);
    drop(proxy);
    assert!(client.is_closed());
}

#[test]
fn tls_before_a_server_with_certificates_good_and_bad() {
    const REFUSED_BY_CURL: i32 = 60;
    let Some(server) = empty_table() else { return };
    for (certificate, code) in
        [(Certificate::Valid, 0), (Certificate::Expired, REFUSED_BY_CURL), (Certificate::OtherName, REFUSED_BY_CURL)]
    {
        let front = TlsFront::start(&server, certificate);
        let curl = |options: &[&str]| {
            let url = format!("{}{INSERT}", front.url());
            let output = Command::new("curl").args(["-sS", "--data-binary", "1", &url]).args(options).output().unwrap();
            (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let trusting = curl(&["--cacert", front.ca_file.to_str().unwrap()]);
        assert_eq!(trusting.0, code, "{certificate:?}: {trusting:?}");
        assert_eq!(trusting.1.contains("expired"), certificate == Certificate::Expired, "{trusting:?}");
        assert_eq!(curl(&[]).0, REFUSED_BY_CURL, "a stranger's CA");
        assert_eq!(curl(&["--insecure"]).0, 0);
    }
    assert_eq!(rows(&server), 4);
}

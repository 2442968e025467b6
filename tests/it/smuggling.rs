//! Where one request ends and the next begins: malformed and ambiguous HTTP over raw sockets, alone and behind nginx.
//!
//! Whoever sees the end of a request elsewhere than the proxy before it answers a request that was hidden in another
//! (RFC 9112, section 11.2). So every ambiguous row has an event hidden where somebody could look for a next request.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use End::{Closed, Cut, Kept};
use harness::{Client, Daemon, Response, checker, event_with, nginx::Nginx, port::HeldPort};
use serde_json::json;

/// What becomes of the connection after the last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The next request on it gets its own answer.
    Kept,
    /// hitlog closes it, whatever else has been sent.
    Closed,
    /// The client says that no more will come, and then hitlog closes it.
    Cut,
}

/// What is sent, the statuses of its answers in order, and the end. In what is sent, each character is one byte, ⏎ is
/// CR LF, and a name in braces is what [`fill`] makes of it.
struct Row {
    sent: String,
    statuses: &'static [u16],
    end: End,
}

const ROWS: &[(&str, &[u16], End)] = &[
    // Exactly one Host, but for HTTP/1.0, which has none.
    ("{get}⏎", &[200], Kept),
    ("{get}connection: close⏎⏎{hidden}", &[200], Closed),
    ("{get}connection: close⏎connection: keep-alive⏎⏎{hidden}", &[200], Closed),
    ("GET /livez HTTP/1.1⏎⏎{hidden}", &[400], Closed),
    ("{get}host: a⏎⏎{hidden}", &[400], Closed),
    ("{get}Host: b⏎⏎{hidden}", &[400], Closed),
    ("{get}host: b⏎expect: 100-continue⏎content-length: {hidden-length}⏎⏎{hidden}", &[400], Closed),
    ("GET /livez HTTP/1.0⏎⏎{hidden}", &[200], Closed),
    ("GET /livez HTTP/1.0⏎host: a⏎host: b⏎connection: keep-alive⏎⏎{hidden}", &[400], Closed),
    ("GET /livez HTTP/1.0⏎connection: keep-alive⏎⏎", &[200], Kept),
    // One length, said once or twice over.
    ("{post}content-length: {length}⏎⏎{event}", &[201], Kept),
    ("{post}Content-Length: 000{length}⏎⏎{event}", &[201], Kept),
    ("{post}content-length: {length}⏎content-length: {length}⏎⏎{event}", &[201], Kept),
    ("{post}content-length: {length}⏎content-length: 0⏎⏎{event}{hidden}", &[400], Closed),
    ("{post}content-length: 0⏎content-length: {length}⏎⏎{event}{hidden}", &[400], Closed),
    ("{post}content-length: 18446744073709551615⏎⏎{event}{hidden}", &[431], Closed),
    ("{post}content-length: 9223372036854775807⏎⏎{event}{hidden}", &[413], Closed),
    // Without a length there is no body, and an event is no head.
    ("{post}⏎{event}{hidden}", &[400, 400], Closed),
    ("{post}transfer_encoding: chunked⏎content-length: {length}⏎⏎{event}", &[201], Kept),
    // Chunks, and everything that may stand around them.
    ("{post}transfer-encoding: chunked⏎⏎{chunks}", &[201], Kept),
    ("{post}Transfer-Encoding:\tCHUNKED ⏎⏎{chunks}", &[201], Kept),
    ("{post}transfer-encoding: chunked⏎⏎000{size};a=b;c=\"d\"⏎{event}⏎0;e⏎⏎", &[201], Kept),
    ("{post}transfer-encoding: chunked⏎⏎{size} \t⏎{event}⏎0⏎⏎", &[201], Kept),
    // To somebody who counts in 32 bits, this is the right size.
    ("{post}transfer-encoding: chunked⏎⏎1000000{size}⏎{event}⏎0⏎⏎{hidden}", &[400], Cut),
    // Chunks go before a length (RFC 9112, section 6.3), but whoever sends both is not listened to any longer.
    ("{post}content-length: 4⏎transfer-encoding: chunked⏎⏎0⏎⏎{hidden}", &[400], Closed),
    ("{post}content-length: {length}⏎transfer-encoding: chunked⏎⏎{chunks}{hidden}", &[201], Closed),
    ("{post}transfer-encoding: chunked⏎content-length: {length}⏎⏎{chunks}{hidden}", &[201], Closed),
    ("{post}transfer-encoding: chunked⏎content-length: x⏎⏎{chunks}{hidden}", &[201], Closed),
    ("{post}transfer-encoding: chunked⏎content-length: 4⏎⏎{hidden-size}⏎{hidden}⏎0⏎⏎", &[400], Closed),
    ("{get}content-length: 0⏎transfer-encoding: chunked⏎⏎{hidden-size}⏎{hidden}⏎0⏎⏎{hidden}", &[200], Closed),
    ("POST /api/v1/events HTTP/1.0⏎host: a⏎transfer-encoding: chunked⏎⏎{chunks}{hidden}", &[400], Closed),
    // Ends of lines: LF alone is one in a head, and none around a chunk.
    ("GET /livez HTTP/1.1\nhost: a\n\n", &[200], Kept),
    ("{post}x: a\ncontent-length: {length}\n\n{event}", &[201], Kept),
    ("⏎⏎{get}⏎", &[200], Kept),
    ("{post}transfer-encoding: chunked⏎⏎{size}\n{event}⏎0⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size};\n{event}⏎0⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size};\rx{event}⏎0⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}\n0⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}0⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0\n\n{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎{hidden}", &[400], Closed),
    (
        "{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎\n{get}content-length: {hidden-length}⏎⏎{hidden}",
        &[201],
        Closed,
    ),
    (
        "{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎x: y⏎\n{get}content-length: {hidden-length}⏎⏎{hidden}",
        &[201],
        Closed,
    ),
    // Trailers change nothing about the body.
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎host: b⏎content-length: 5⏎⏎{hidden}", &[201], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎a name: b⏎⏎{hidden}", &[400], Closed),
    // A body that nobody asked for, and one that nobody wants.
    ("{get}content-length: {hidden-length}⏎⏎{hidden}", &[200], Kept),
    ("{get}transfer-encoding: chunked⏎⏎{hidden-size}⏎{hidden}⏎0⏎⏎{hidden}", &[200], Closed),
    ("DELETE /api/v1/events HTTP/1.1⏎host: a⏎content-length: {hidden-length}⏎⏎{hidden}", &[405], Kept),
    ("OPTIONS /api/v1/events HTTP/1.1⏎host: a⏎content-length: {hidden-length}⏎⏎{hidden}", &[204], Kept),
    ("{nowhere}content-length: {hidden-length}⏎⏎{hidden}", &[404], Kept),
    ("{nowhere}expect: 100-continue⏎content-length: {hidden-length}⏎⏎{hidden}", &[404], Kept),
    ("{nowhere}transfer-encoding: chunked⏎⏎{hidden-size}⏎{hidden}⏎0⏎⏎{hidden}", &[404], Closed),
    ("{nowhere}transfer-encoding: chunked⏎⏎0⏎\n{get}content-length: {hidden-length}⏎⏎{hidden}", &[404], Closed),
    ("{nowhere}expect: 100-continue⏎transfer-encoding: chunked⏎⏎0⏎\n{get}⏎{hidden}", &[404], Closed),
    ("CONNECT a:80 HTTP/1.1⏎host: a⏎content-length: {hidden-length}⏎⏎{hidden}", &[404], Kept),
    ("{get}connection: upgrade⏎upgrade: h2c⏎content-length: {hidden-length}⏎⏎{hidden}", &[200], Kept),
    // Less than was said.
    ("{get}x", &[], Cut),
    ("{post}content-length: 9999⏎⏎{event}{hidden}", &[400], Cut),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎", &[400], Cut),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}", &[400], Cut),
    // Other versions than 1.1 and 1.0.
    ("GET /livez⏎{hidden}", &[400], Closed),
    ("GET /livez HTTP/3.0⏎host: a⏎⏎{hidden}", &[400], Closed),
    ("GET /livez http/1.1⏎host: a⏎⏎{hidden}", &[400], Closed),
    ("PRI * HTTP/2.0⏎⏎SM⏎⏎{hidden}", &[400], Closed),
    // Targets in their other forms are paths like any other, or none that there is anything at.
    ("GET http://a/livez HTTP/1.1⏎host: a⏎⏎", &[200], Kept),
    ("GET http://b/livez HTTP/1.1⏎host: a⏎⏎", &[200], Kept),
    ("GET http://a HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("GET /livez?a#b HTTP/1.1⏎host: a⏎⏎", &[200], Kept),
    ("GET /livez%00 HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("GET /%6civez HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("GET //livez HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("GET /a/../livez HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("GET a:80 HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("GET livez HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    ("OPTIONS * HTTP/1.1⏎host: a⏎⏎", &[404], Kept),
    // What is too large is told so, although far more of it comes than anybody reads.
    ("GET /livez HTTP/1.1⏎host: a⏎x: {900 KiB}⏎⏎{hidden}", &[431], Closed),
    ("GET /{900 KiB} HTTP/1.1⏎host: a⏎⏎{hidden}", &[431], Closed),
    ("{get}{200 headers}⏎{hidden}", &[431], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size};{900 KiB}⏎{event}⏎0⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎x: {900 KiB}⏎⏎{hidden}", &[400], Closed),
    ("{post}transfer-encoding: chunked⏎⏎{size}⏎{event}⏎0⏎{200 headers}⏎{hidden}", &[400], Closed),
];

/// Lengths that are none; bars stand between them, as below.
const LENGTHS: &str = "|x|-{length}|+{length}|0x{size}|{length}.0|1e2|{length};|{length}, {length}|{length},|\
    {length} {length}|\u{b}{length}|{length}\0|{length}\u{a0}|\"{length}\"|18446744073709551616";

/// Transfer codings that are not one `chunked`.
const CODINGS: &str = "|identity|gzip|xchunked|chunkedx|chunk|\"chunked\"|chunked;a=b|chunked,|,chunked|\
    chunked, identity|identity, chunked|gzip, chunked|chunked, chunked|\u{b}chunked|chunked\u{b}|\0chunked|\
    \u{a0}chunked|chunked⏎transfer-encoding: chunked|identity⏎transfer-encoding: chunked";

/// Sizes of a chunk that are none. The last but one is the right one to somebody whose counting wraps at 64 bits.
const SIZES: &str = "|-{size}|+{size}|0x{size}| {size}|{size}g|{size} 1|\u{b}{size}|{size}\0|\
    10000000000000000{size}|fffffffffffffffff";

/// Lines that are no header.
const HEADERS: &str = "content-length : {length}|content-length\t: {length}|content-length\0: {length}|\
    content length: {length}|content-length\r: {length}|transfer-encoding : chunked| transfer-encoding: chunked|\
    x: a⏎ content-length: {length}|x: a⏎\ttransfer-encoding: chunked|transfer-encoding:⏎ chunked|transfer-encoding|\
    : x|x: a\rtransfer-encoding: chunked|x: a\0|\u{e9}: x";

/// Targets and their surroundings that are none.
const TARGETS: &str = "| /livez|/livez |\t/livez|/li vez|/livez\0|/livez\u{b}|/livez\u{7f}|/livez\r|http://|/livez \
    HTTP/1.1";

fn rows() -> Vec<Row> {
    let row = |&(sent, statuses, end): &(&str, _, _)| Row { sent: sent.to_owned(), statuses, end };
    let mut rows: Vec<Row> = ROWS.iter().map(row).collect();
    let mut refused = |sent: String| rows.push(Row { sent, statuses: &[400], end: Closed });
    for length in LENGTHS.split('|') {
        refused(format!("{{post}}content-length: {length}⏎⏎{{event}}{{hidden}}"));
    }
    for coding in CODINGS.split('|') {
        refused(format!("{{post}}transfer-encoding: {coding}⏎⏎{{chunks}}{{hidden}}"));
        refused(format!("{{post}}content-length: {{length}}⏎transfer-encoding: {coding}⏎⏎{{event}}{{hidden}}"));
    }
    for size in SIZES.split('|') {
        refused(format!("{{post}}transfer-encoding: chunked⏎⏎{size}⏎{{event}}⏎0⏎⏎{{hidden}}"));
    }
    for header in HEADERS.split('|') {
        refused(format!("POST /api/v1/events HTTP/1.1⏎{header}⏎host: a⏎⏎{{hidden}}"));
        refused(format!("{{post}}{header}⏎⏎{{hidden}}"));
    }
    for target in TARGETS.split('|') {
        refused(format!("GET {target} HTTP/1.1⏎host: a⏎⏎{{hidden}}"));
    }
    rows
}

/// A request that stores an event of this session.
fn post(code: &str, session: &str) -> String {
    let event = event_with(code, json!({ "sessionId": session })).to_string();
    format!("POST /api/v1/events HTTP/1.1⏎host: a⏎content-length: {}⏎⏎{event}", event.len())
}

/// The bytes of a row: its event has the session `open-NUMBER`, the hidden one `hidden-NUMBER`.
fn fill(row: &Row, code: &str, number: usize) -> Vec<u8> {
    let event = event_with(code, json!({ "sessionId": format!("open-{number}") })).to_string();
    let hidden = post(code, &format!("hidden-{number}")).replace('⏎', "\r\n");
    let (size, headers) = (format!("{:x}", event.len()), (0..200).map(|number| format!("x{number}: y⏎")).collect());
    let text = [
        ("{get}", "GET /livez HTTP/1.1⏎host: a⏎".to_owned()),
        ("{post}", "POST /api/v1/events HTTP/1.1⏎host: a⏎".to_owned()),
        ("{nowhere}", "POST /nowhere HTTP/1.1⏎host: a⏎".to_owned()),
        ("{chunks}", "{size}⏎{event}⏎0⏎⏎".to_owned()),
        ("{length}", event.len().to_string()),
        ("{size}", size),
        ("{event}", event),
        ("{hidden-length}", hidden.len().to_string()),
        ("{hidden-size}", format!("{:x}", hidden.len())),
        ("{hidden}", hidden),
        ("{900 KiB}", "x".repeat(900 * 1024)),
        ("{200 headers}", headers),
        ("⏎", "\r\n".to_owned()),
    ]
    .iter()
    .fold(row.sent.clone(), |text, (name, value)| if text.contains(name) { text.replace(name, value) } else { text });
    text.chars().map(|letter| u8::try_from(letter).unwrap()).collect()
}

/// The request that follows where a connection is kept; its answer is the only one that says so.
const LAST: &str = "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// How long hitlog may take for an answer, or to close a connection: it throws the rest of a body away for 2 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Sends bytes as they are; the answers, and whether the other side closes the connection after them.
fn exchange(address: &str, bytes: &[u8], end: End) -> (Vec<Response>, bool) {
    let mut client = Client::connect(address);
    let stream = client.stream.get_ref().try_clone().unwrap();
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
    // The other side may have closed it before the last of many bytes.
    let _ = client.write(bytes);
    if end == Cut {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let responses = std::iter::from_fn(|| client.read_response(false)).collect();
    // After the end there is nothing to wait for, and without one the time is up.
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let closed = match client.stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    (responses, closed)
}

/// Sends a row and holds what comes back against it.
fn check(address: &str, row: &Row, bytes: &[u8]) -> Result<(), String> {
    let (mut bytes, mut expected) = (bytes.to_owned(), row.statuses.to_owned());
    if row.end == Kept {
        bytes.extend_from_slice(LAST.as_bytes());
        expected.push(200);
    }
    let (responses, closed) = exchange(address, &bytes, row.end);
    let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    let texts = || responses.iter().map(Response::text).collect::<Vec<_>>();
    if statuses != expected {
        return Err(format!("{:?}: answered {statuses:?}, not {expected:?}: {:?}", row.sent, texts()));
    }
    if row.end == Kept && !responses.last().is_some_and(|last| last.text().contains("ready")) {
        return Err(format!("{:?}: the next request got another's answer: {:?}", row.sent, texts()));
    }
    if closed { Ok(()) } else { Err(format!("{:?}: the connection is left open", row.sent)) }
}

/// Events by their sessions.
type Sessions = BTreeMap<String, usize>;

/// Holds what is stored against what somebody was told is.
fn check_stored(daemon: &Daemon, code: &str, told: &Sessions) -> Result<(), String> {
    let mut stored = Sessions::new();
    for event in checker::walk(daemon, code)? {
        *stored.entry(event["sessionId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let of_both = told.keys().chain(stored.keys());
    let mut differing = of_both.filter(|session| told.get(*session) != stored.get(*session));
    differing.next().map_or(Ok(()), |session| {
        Err(format!("{session}: told {:?}, stored {:?}", told.get(session), stored.get(session)))
    })
}

#[test]
fn each_request_has_one_answer_and_hides_none() {
    // The second lets every connection rest, and so be read anew, after each request.
    for flags in [&[][..], &["--warm-connections-max", "0"]] {
        let daemon = Daemon::start(flags);
        let code = daemon.register("example.com");
        let rows = rows();
        let check_row = |(number, row)| check(&daemon.address, row, &fill(row, &code, number));
        let checked = rows.iter().enumerate().map(check_row);
        let faults: Vec<String> = checked.filter_map(Result::err).collect();
        assert!(faults.is_empty(), "{flags:?}: {faults:#?}");
        let told = (0..).zip(&rows).filter(|(_, row)| row.statuses.contains(&201));
        check_stored(&daemon, &code, &told.map(|(number, _)| (format!("open-{number}"), 1)).collect()).unwrap();
        daemon.stop();
    }
}

/// Requests that hitlog has taken for such, those for its metrics aside.
fn taken_in(metrics: &mut Client) -> usize {
    let is_counted = |line: &&str| {
        line.starts_with("hitlog_http_request_duration_seconds_count") && !line.contains("route=\"/metrics\"")
            || line.starts_with("hitlog_connections_closed_total{reason=\"malformed\"}")
    };
    let text = metrics.get("/metrics").text();
    text.lines().filter(is_counted).map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

/// A proxy on this machine.
struct Proxy {
    address: String,
    /// How many requests it has passed on.
    passed_on: Box<dyn Fn() -> usize>,
}

/// How long a proxy and hitlog may differ about how many requests there have been: nginx writes its line after the
/// answer, and hitlog may still be at a request that the proxy has given up.
const AGREED_WITHIN: Duration = Duration::from_secs(2);

/// Sends rows through a proxy, each followed by another client's event over the same connection to hitlog, and returns
/// how many requests there were. Both sides must count the same, and what the clients were told is what is stored.
fn check_through(proxy: &Proxy, daemon: &Daemon, rows: &[Row], code: &str) -> Result<usize, String> {
    let (mut metrics, mut neighbour) = (daemon.client(), Client::connect(&proxy.address));
    let (before, passed_before) = (taken_in(&mut metrics), (proxy.passed_on)());
    let mut told = Sessions::new();
    let mut passed_on = 0;
    for (number, row) in rows.iter().enumerate() {
        let last: &[u8] = if row.end == Cut { b"" } else { LAST.as_bytes() };
        let (mut responses, _) = exchange(&proxy.address, &[&fill(row, code, number), last].concat(), row.end);
        let event = event_with(code, json!({ "sessionId": format!("neighbour-{number}") })).to_string();
        responses.push(neighbour.post("/api/v1/events", &event));
        let stored = responses.iter().filter(|response| response.status == 201).map(Response::json);
        let sessions: Vec<String> = stored.map(|event| event["sessionId"].as_str().unwrap().to_owned()).collect();
        if sessions.last() != Some(&format!("neighbour-{number}")) {
            return Err(format!("{:?}: the neighbour got {:?}", row.sent, responses.last().map(Response::text)));
        }
        sessions.into_iter().for_each(|session| *told.entry(session).or_default() += 1);
        let until = Instant::now() + AGREED_WITHIN;
        loop {
            passed_on = (proxy.passed_on)() - passed_before;
            let taken_in = taken_in(&mut metrics) - before;
            if passed_on == taken_in {
                break;
            }
            if Instant::now() > until {
                return Err(format!("{:?}: passed on {passed_on}, taken in {taken_in}", row.sent));
            }
        }
    }
    check_stored(daemon, code, &told)?;
    Ok(passed_on)
}

/// nginx before a hitlog.
pub(crate) struct Front {
    nginx: Nginx,
    /// The first reads a body before it passes the request on, the second does both at once.
    pub(crate) addresses: [String; 2],
    _ports: [HeldPort; 2],
}

impl Front {
    pub(crate) fn start(hitlog: &str) -> Self {
        let ports = [HeldPort::take(), HeldPort::take()];
        let addresses = [&ports[0], &ports[1]].map(HeldPort::address);
        let [first, second] = &addresses;
        let config = NGINX_CONFIG.replace("HITLOG", hitlog).replace("FIRST", first).replace("SECOND", second);
        Self { nginx: Nginx::start(&config, &addresses), addresses, _ports: ports }
    }
}

/// Times short, so that a body that does not come ends the test's wait.
const NGINX_CONFIG: &str = "
        client_header_timeout 1s; client_body_timeout 1s;
        upstream hitlog { server HITLOG; keepalive 1; }
        proxy_set_header Connection ''; proxy_set_header X-Forwarded-For $remote_addr; proxy_next_upstream off;
        server { listen FIRST; location / { proxy_pass http://hitlog; } }
        server { listen SECOND; location / { proxy_pass http://hitlog; proxy_request_buffering off; } }
";

#[test]
fn nginx_and_hitlog_agree_on_where_a_request_ends() {
    let daemon = Daemon::start(&[]);
    let front = Front::start(&daemon.address);
    for (address, domain) in front.addresses.iter().zip(["first.example", "second.example"]) {
        let code = daemon.register(domain);
        let log = front.nginx.folder().join("access.log");
        let passed_on = move || {
            let lines = fs::read_to_string(&log).unwrap();
            lines.lines().filter(|line| !line.starts_with("- ")).count()
        };
        let proxy = Proxy { address: address.clone(), passed_on: Box::new(passed_on) };
        let accepted = || daemon.metrics()["hitlog_accepts_total{outcome=\"ok\"}"];
        let accepted_before = accepted();
        let requests =
            check_through(&proxy, &daemon, &rows(), &code).unwrap_or_else(|fault| panic!("{domain}: {fault}"));
        let opened = accepted() - accepted_before;
        assert!(opened * 10.0 < requests as f64, "{requests} requests came over {opened} connections");
    }
    daemon.stop();
}

/// A proxy that takes the end of a request from its length, and drops the headers that `Connection` names: the length,
/// too, if a client says so.
fn naive_proxy(hitlog: &str) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passed_on = Arc::<AtomicUsize>::default();
    let (hitlog, counter) = (hitlog.to_owned(), Arc::clone(&passed_on));
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (hitlog, counter) = (hitlog.clone(), Arc::clone(&counter));
            thread::spawn(move || pass_on(&client, &hitlog, &counter));
        }
    });
    Proxy { address, passed_on: Box::new(move || passed_on.load(Ordering::Relaxed)) }
}

fn pass_on(mut client: &TcpStream, hitlog: &str, counter: &AtomicUsize) {
    let mut upstream = TcpStream::connect(hitlog).unwrap();
    let mut requests = BufReader::new(client.try_clone().unwrap());
    let mut responses = upstream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = std::io::copy(&mut responses, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        });
        loop {
            let mut head = Vec::new();
            while head.last().is_none_or(|line| line != "\r\n") {
                let mut line = String::new();
                match requests.read_line(&mut line) {
                    Ok(count) if count > 0 => head.push(line),
                    _ => return drop(upstream.shutdown(Shutdown::Both)),
                }
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            requests.read_exact(&mut body).unwrap();
            if head.iter().any(|line| line == "connection: content-length\r\n") {
                head.retain(|line| !line.contains("content-length"));
            }
            counter.fetch_add(1, Ordering::Relaxed);
            let _ = upstream.write_all(&[head.concat().as_bytes(), &body].concat());
        }
    });
}

#[test]
fn a_stowaway_is_seen() {
    let daemon = Daemon::start(&[]);
    let code = daemon.register("example.com");
    let proxy = naive_proxy(&daemon.address);
    let row = |sent: &str| Row { sent: sent.to_owned(), statuses: &[400], end: Kept };
    let plain = row("{post}content-length: {hidden-length}⏎⏎{hidden}");
    let hiding = row("{post}connection: content-length⏎content-length: {hidden-length}⏎⏎{hidden}");
    check(&proxy.address, &plain, &fill(&plain, &code, 0)).unwrap();
    check(&daemon.address, &hiding, &fill(&hiding, &code, 0)).unwrap();
    check_through(&proxy, &daemon, &[plain], &code).unwrap();
    // Each of the three tells: what is answered, what is stored, and what is counted.
    let answered = check(&proxy.address, &hiding, &fill(&hiding, &code, 0)).unwrap_err();
    assert!(answered.contains("answered [400, 201, 200], not [400, 200]"), "{answered}");
    let stored = check_stored(&daemon, &code, &[("neighbour-0".to_owned(), 1)].into()).unwrap_err();
    assert_eq!(stored, "hidden-0: told None, stored Some(1)");
    let counted = check_through(&proxy, &daemon, &[hiding], &code).unwrap_err();
    assert!(counted.contains("passed on 3, taken in 4"), "{counted}");
    daemon.stop();
}

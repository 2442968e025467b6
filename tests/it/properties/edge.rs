//! Target: whole connections, requests in a row with damage to their bytes, over raw sockets. Whatever is sent, what
//! comes back is HTTP and the contract's errors, never more answers than requests, never a 500; and what is sent in
//! order is answered as the model says.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use harness::{Daemon, TIMEOUT};
use hitlog::event::Rules;

use super::{
    answers::{self, Reply},
    event_text::NOW,
    model::{Model, Refusal, Verdict},
    parse::KEEPS_FOR_EVER,
    requests::{Request, Sent, sent},
    runner::{assert_found, assert_holds},
};

/// hitlog's defaults.
const RULES: Rules = Rules { batch_events_max: 1_000, ..KEEPS_FOR_EVER };
const EVENT_BYTES_MAX: usize = 64 * 1024;

struct Edge {
    daemon: Daemon,
    codes: [String; 2],
}

impl Edge {
    fn start() -> Self {
        // A test that runs at low priority is no slow client.
        let daemon = Daemon::start(&[
            "--durability=normal",
            "--head-timeout-seconds=600",
            "--body-stall-timeout-seconds=600",
            "--body-timeout-seconds=600",
        ]);
        let codes = [daemon.register("one.example"), daemon.register("two.example")];
        Self { daemon, codes }
    }

    /// Sends the bytes over a connection of its own, says that this is all, and reads until hitlog closes.
    fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut stream =
            TcpStream::connect(&self.daemon.address).map_err(|error| format!("hitlog is gone: {error}"))?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        // hitlog may have closed before the end, and what it has said before that is what counts.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut received = Vec::new();
        stream.read_to_end(&mut received).map_err(|error| format!("the connection broke: {error}"))?;
        Ok(received)
    }

    /// What the contract says to a request that is in order, with what a batch's answer counts; nothing where it
    /// says several things, or where this model does not know.
    fn wanted(&self, request: &Request) -> Option<(u16, Option<(usize, usize)>)> {
        let websites = [(self.codes[0].as_str(), "one"), (self.codes[1].as_str(), "two")];
        let model = Model { rules: &RULES, now: NOW, websites: &websites, key: None, off: None };
        let refused = |verdict: Verdict| match verdict.unwrap_err() {
            Refusal::Unknown => 404,
            Refusal::Malformed | Refusal::Invalid(..) => 400,
        };
        let body = &request.body.0;
        // A slash at the end is as none.
        let target = request.target.strip_suffix('/').unwrap_or(&request.target);
        Some(match (request.method, target) {
            ("POST", "/api/v1/events") if body.len().max(request.packed().len()) > EVENT_BYTES_MAX => (413, None),
            ("POST", "/api/v1/events") => match model.event(body) {
                Ok(_) => (201, None),
                refusal => (refused(refusal), None),
            },
            ("POST", "/api/v1/events/batch") => match model.batch(body) {
                Ok((stored, errors, _)) if errors.is_empty() => (201, Some((stored.len(), 0))),
                Ok((stored, errors, _)) => (207, Some((stored.len(), errors.len()))),
                refusal => (refused(refusal), None),
            },
            ("OPTIONS", "/api/v1/events" | "/api/v1/events/batch") => (204, None),
            ("GET" | "HEAD", "/livez" | "/readyz" | "/health") => (200, None),
            // What needs a token takes JSON only, and these requests do not say that they have any.
            ("GET" | "HEAD", "/metrics" | "/api/v1/websites") => (if request.has_body() { 415 } else { 200 }, None),
            (_, "/livez" | "/readyz" | "/health" | "/metrics") => (405, None),
            ("GET" | "HEAD", "/api/v1/events/c0000000000000000000000000" | "/api/v1/websites/web-1") => {
                (if request.has_body() { 415 } else { 404 }, None)
            }
            (_, "" | "/nowhere" | "/API/v1/events" | "/api/v1/events/a/b") => (404, None),
            _ => return None,
        })
    }

    fn check(&self, sent: &Sent, plant: Option<Plant>) -> Result<(), String> {
        let bytes = sent.bytes();
        let received = self.exchange(&bytes).map(|received| plant.map_or(received.clone(), |plant| plant(received)));
        let verdict = received.and_then(|received| {
            self.judge(sent, &bytes, &received)
                .map_err(|fault| format!("{fault}\nanswered {}", received.escape_ascii()))
        });
        verdict.map_err(|fault| format!("{fault}\nsent {}", bytes.escape_ascii()))
    }

    fn judge(&self, sent: &Sent, bytes: &[u8], received: &[u8]) -> Result<(), String> {
        let count =
            |needle: &[u8]| bytes.windows(needle.len()).filter(|part| part.eq_ignore_ascii_case(needle)).count();
        let found = answers::read(received, count(b"HEAD") > 0)?;
        // Whatever is no request at all is told so once, and the connection ends.
        let mut most = count(b"HTTP/1.") + 1;
        let is_framed = |request: &Request| request.twists.is_empty();
        if sent.damage.is_empty() && sent.requests.iter().all(is_framed) {
            most = sent.requests.len();
        }
        if found.replies.len() > most || found.interim > count(b"100-continue") {
            return Err(format!("{} answers, {} interim", found.replies.len(), found.interim));
        }
        if !sent.damage.is_empty() {
            return Ok(());
        }
        let in_order = sent.requests.iter().take_while(|request| request.twists.is_empty() && is_uri(&request.target));
        for (at, request) in in_order.enumerate() {
            let reply = found.replies.get(at).ok_or_else(|| format!("no answer to request {at}"))?;
            self.check_reply(request, reply).map_err(|fault| format!("request {at}: {fault}"))?;
            if reply.closes() {
                break;
            }
        }
        Ok(())
    }

    fn check_reply(&self, request: &Request, reply: &Reply) -> Result<(), String> {
        let Some((status, counted)) = self.wanted(request) else { return Ok(()) };
        if reply.status != status {
            return Err(format!("{}, not {status}", reply.status));
        }
        let Some((stored, refused)) = counted else { return Ok(()) };
        let body = reply.json();
        let items = |name: &str| body[name].as_array().map_or(0, Vec::len);
        if (items("events"), items("errors")) != (stored, refused) || body["eventsCreated"] != stored {
            return Err(format!("not {stored} stored and {refused} refused"));
        }
        Ok(())
    }

    fn stop(self) {
        assert_eq!(self.daemon.client().get("/livez").status, 200);
        assert!(!self.daemon.log().contains("panicked"), "{}", self.daemon.log());
        self.daemon.stop();
    }
}

/// Whether hyper is sure to take it as the target of a request.
fn is_uri(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/?=&%".contains(&byte))
}

#[test]
fn connections_are_answered_in_order_and_in_form() {
    let edge = Edge::start();
    assert_holds("connection", &sent(&edge.codes), |sent| edge.check(sent, None));
    let (received, committed) = edge.daemon.assert_conserved();
    println!("connection: {received} events received, {committed} stored");
    edge.stop();
}

/// Changes what came back.
type Plant = fn(Vec<u8>) -> Vec<u8>;

fn replaced(received: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "lengths stay right");
    match received.windows(from.len()).position(|part| part == from.as_bytes()) {
        Some(at) => [&received[..at], to.as_bytes(), &received[at + from.len()..]].concat(),
        None => received,
    }
}

#[test]
fn control_faults_in_answers_are_found() {
    let edge = Edge::start();
    let plants: [(&str, Plant); 14] = [
        ("a byte less", |mut received| {
            received.pop();
            received
        }),
        ("a byte more", |received| [&received[..], b"x"].concat()),
        ("nothing", |_| Vec::new()),
        ("everything twice", |received| received.repeat(2)),
        ("only the first answer", |received| {
            let second = received.windows(9).skip(1).position(|part| part == b"HTTP/1.1 ");
            second.map_or(received.clone(), |at| received[..=at].to_vec())
        }),
        ("500", |received| replaced(received, "HTTP/1.1 201", "HTTP/1.1 500")),
        ("refused instead of stored", |received| replaced(received, "HTTP/1.1 201", "HTTP/1.1 400")),
        ("stored instead of refused", |received| replaced(received, "HTTP/1.1 400", "HTTP/1.1 201")),
        ("a batch that stored one more", |received| replaced(received, "\"eventsCreated\":0", "\"eventsCreated\":1")),
        ("an error without a message", |received| replaced(received, "\"message\"", "\"massage\"")),
        ("an unknown code", |received| replaced(received, "\"NOT_FOUND\"", "\"NOT_FOUMD\"")),
        ("details of another kind", |received| replaced(received, "\"fieldErrors\":{", "\"feildErrors\":{")),
        ("no length", |received| replaced(received, "content-length", "content-lenght")),
        ("a bare answer that does not close", |received| replaced(received, "connection: close", "connection: clsoe")),
    ];
    for (fault, plant) in plants {
        assert_found(fault, &sent(&edge.codes), |sent| edge.check(sent, Some(plant)));
    }
    edge.stop();
}

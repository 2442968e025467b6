//! A client that follows events.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    time::Instant,
};

use serde_json::Value;

use crate::{Client, Response, TIMEOUT};

/// An answer that goes on.
pub struct Tail {
    pub headers: BTreeMap<String, String>,
    body: BufReader<Body>,
    is_lines: bool,
}

/// What it tells: an event, or something else.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// `event`, `gap`, `bye` or `heartbeat`; `head` is what Server-Sent Events begin with.
    pub kind: String,
    /// The position after it, where it tells one.
    pub position: Option<String>,
    /// The event, or what else it tells; null where that is nothing.
    pub data: Value,
}

impl Tail {
    /// Asks for one over a connection of its own. What is not 200 is an error.
    pub fn open(address: &str, query: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self::ask(stream, "1.1", query, headers)
    }

    /// Asks for one over this connection, in a version of HTTP.
    pub fn ask(stream: TcpStream, version: &str, query: &str, headers: &[(&str, &str)]) -> Result<Self, Response> {
        Self::try_ask(stream, version, query, headers).expect("an answer")
    }

    /// The same; `None` if the connection ended without an answer.
    pub fn try_ask(
        mut stream: TcpStream,
        version: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Option<Result<Self, Response>> {
        let mut head = format!("GET /api/v1/events/tail?{query} HTTP/{version}\r\nhost: localhost\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        let mut client = Client { stream: BufReader::with_capacity(16 * 1024, stream) };
        let response = client.read_head()?;
        if response.status != 200 {
            return client.read_body(response, false).map(Err);
        }
        let is_lines = response.header("content-type") == Some("application/x-ndjson");
        let is_chunked = response.header("transfer-encoding") == Some("chunked");
        let body = Body { stream: client.stream, is_chunked, chunk_left: 0, is_first: true, has_ended: false };
        // Small, so that little is read ahead.
        Some(Ok(Self { headers: response.headers, body: BufReader::with_capacity(256, body), is_lines }))
    }

    /// Its connection.
    pub fn stream(&self) -> &TcpStream {
        self.body.get_ref().stream.get_ref()
    }

    /// The position that it begins after.
    pub fn begins_after(&self) -> &str {
        &self.headers["hitlog-position"]
    }

    /// What comes next, as it comes: a line, or lines and the empty one behind them. `None` at the end; an error if that
    /// is missing.
    pub fn piece(&mut self) -> io::Result<Option<String>> {
        let mut piece = Vec::new();
        loop {
            let begin = piece.len();
            if self.body.read_until(b'\n', &mut piece)? == 0 {
                return if piece.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            if self.is_lines || piece[begin..] == *b"\n" {
                return Ok(Some(String::from_utf8(piece).unwrap()));
            }
        }
    }

    /// What comes next; `None` at the end.
    pub fn try_told(&mut self) -> io::Result<Option<Told>> {
        Ok(self.piece()?.map(|piece| if self.is_lines { of_line(&piece) } else { of_lines(&piece) }))
    }

    /// What comes next; `None` at the end, which must not be missing.
    pub fn told(&mut self) -> Option<Told> {
        self.try_told().expect("the tail goes on or ends in order")
    }

    /// What comes next but for the head and heartbeats, which must not be all that there is for long.
    pub fn news(&mut self) -> Option<Told> {
        let asked_at = Instant::now();
        loop {
            assert!(asked_at.elapsed() < TIMEOUT, "waited too long for what comes next");
            match self.told() {
                Some(told) if ["head", "heartbeat"].contains(&told.kind.as_str()) => {}
                told => return told,
            }
        }
    }

    /// The next events, each of which has to be one.
    pub fn events(&mut self, count: usize) -> Vec<Told> {
        let event = |_| {
            let told = self.news().expect("an event and not the end");
            assert_eq!(told.kind, "event", "{told:?}");
            told
        };
        (0..count).map(event).collect()
    }
}

fn of_line(line: &str) -> Told {
    if line == "\n" {
        return Told { kind: "heartbeat".into(), position: None, data: Value::Null };
    }
    let mut object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let members = object.as_object_mut().unwrap();
    let position = members.remove("position").map(|position| position.as_str().unwrap().to_owned());
    for kind in ["gap", "bye"] {
        if let Some(data) = members.remove(kind) {
            return Told { kind: kind.into(), position, data };
        }
    }
    Told { kind: "event".into(), position, data: object }
}

fn of_lines(piece: &str) -> Told {
    let (mut kind, mut position, mut data) = ("message", None, Value::Null);
    for line in piece.lines().take_while(|line| !line.is_empty()) {
        match line.split_once(':').unwrap() {
            ("id", id) => position = Some(id[1..].to_owned()),
            ("event", name) => kind = &name[1..],
            ("data", json) => data = serde_json::from_str(json).unwrap(),
            ("retry", _) => kind = "head",
            ("", comment) => kind = comment.trim(),
            _ => panic!("{piece}"),
        }
    }
    Told { kind: kind.into(), position, data }
}

/// The bytes of an answer, without the frames of its chunks.
struct Body {
    stream: BufReader<TcpStream>,
    is_chunked: bool,
    chunk_left: usize,
    is_first: bool,
    has_ended: bool,
}

impl Body {
    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if line.ends_with('\n') { Ok(line.trim_end().to_owned()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.is_chunked {
            return self.stream.read(out);
        }
        if self.has_ended {
            return Ok(0);
        }
        if self.chunk_left == 0 {
            if !std::mem::take(&mut self.is_first) {
                self.read_line()?;
            }
            let length = self.read_line()?;
            self.chunk_left = usize::from_str_radix(&length, 16).map_err(|_| ErrorKind::InvalidData)?;
            if self.chunk_left == 0 {
                self.read_line()?;
                self.has_ended = true;
                return Ok(0);
            }
        }
        let most = out.len().min(self.chunk_left);
        let count = self.stream.read(&mut out[..most])?;
        self.chunk_left -= count;
        if count == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

//! A client that says exactly what it is told to.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::TIMEOUT;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The code of an error.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// One connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address).expect("hitlog listens")
    }

    /// `None` if nobody listens.
    pub fn try_connect(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Some(Self { stream: BufReader::new(stream) })
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], body.as_ref())
    }

    pub fn put(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("PUT", path, &[("content-type", "application/json")], body.as_ref())
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_send(method, path, headers, body).unwrap()
    }

    /// `None` if the connection ended without an answer.
    pub fn try_send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.write(&request)?;
        self.read_response(method == "HEAD")
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(bytes).ok()
    }

    /// Reads one answer; `None` if the connection ended before it.
    pub fn read_response(&mut self, is_head: bool) -> Option<Response> {
        loop {
            let response = self.read_any_response(is_head)?;
            if response.status != 100 {
                return Some(response);
            }
        }
    }

    fn read_any_response(&mut self, is_head: bool) -> Option<Response> {
        let head = self.read_head()?;
        self.read_body(head, is_head)
    }

    /// Reads the head of an answer.
    pub(crate) fn read_head(&mut self) -> Option<Response> {
        let line = self.read_line()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Some(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':')?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    /// Reads the rest of it.
    pub(crate) fn read_body(&mut self, head: Response, is_head: bool) -> Option<Response> {
        let is_chunked = head.header("transfer-encoding") == Some("chunked");
        let body = if is_chunked && !is_head {
            self.read_chunks()?
        } else {
            let length = head.header("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; if is_head { 0 } else { length }];
            self.stream.read_exact(&mut body).ok()?;
            body
        };
        Some(Response { body, ..head })
    }

    /// Reads a body in chunks; `None` if its end is missing.
    fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.read_line()?, 16).ok()?;
            let begin = body.len();
            body.resize(begin + length, 0);
            self.stream.read_exact(&mut body[begin..]).ok()?;
            if !self.read_line()?.is_empty() {
                return None;
            }
            if length == 0 {
                return Some(body);
            }
        }
    }

    fn read_line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(count) if count > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    /// Whether the other side closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        !matches!(self.stream.read_to_end(&mut rest), Ok(count) if count > 0)
    }
}

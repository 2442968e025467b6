//! Requests as they are sent: most of them orderly, some bent on purpose, some with damage to their bytes.

use std::io::{Read, Write};

use proptest::{prelude::*, sample::select};

use crate::routes::{Described, described};

use super::{
    event_text::{CODES, batch_body, event_body},
    json_text::value_text,
    mutation::{HTTP_TOKENS, JSON_TOKENS, Mutation, Token, damaged, mutations},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Packing {
    None,
    Gzip,
    Brotli,
    Zstd,
}

/// What is bent in a request.
#[derive(Debug, Clone)]
pub enum Twist {
    Version(&'static str),
    Hosts(usize),
    /// A header more.
    Header(&'static str, &'static str),
    /// The length said is this much off.
    LengthOff(i64),
    /// Both a length and chunks.
    LengthAndChunks,
    /// Another `Content-Encoding` than the body has.
    WrongEncoding(&'static str),
    /// An extension of each chunk, and a trailer.
    Chunks(&'static str, &'static str),
    /// Damage to the packed body.
    Packed(Vec<Mutation>),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub body: Token,
    pub packing: Packing,
    /// Sent in chunks of so many bytes.
    chunk: Option<usize>,
    pub twists: Vec<Twist>,
}

/// What is sent over one connection.
#[derive(Debug, Clone)]
pub struct Sent {
    pub requests: Vec<Request>,
    pub damage: Vec<Mutation>,
}

impl Request {
    /// The body as it is sent.
    pub fn packed(&self) -> Vec<u8> {
        let body = &self.body.0[..];
        let mut packed = match self.packing {
            Packing::None => body.to_vec(),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Packing::Brotli => {
                let mut packed = Vec::new();
                brotli::CompressorReader::new(body, 4_096, 1, 18).read_to_end(&mut packed).unwrap();
                packed
            }
            Packing::Zstd => zstd::encode_all(body, 1).unwrap(),
        };
        for twist in &self.twists {
            if let Twist::Packed(mutations) = twist {
                packed = damaged(&packed, mutations);
            }
        }
        packed
    }

    /// Whether it says that it has a body, if only an empty one in chunks.
    pub fn has_body(&self) -> bool {
        self.chunk.is_some() || !self.packed().is_empty()
    }

    fn bytes(&self) -> Vec<u8> {
        let body = self.packed();
        let (mut version, mut hosts, mut length, mut headers) = ("HTTP/1.1", 1, body.len() as i64, String::new());
        let mut encoding = match self.packing {
            Packing::None => "",
            Packing::Gzip => "gzip",
            Packing::Brotli => "br",
            Packing::Zstd => "zstd",
        };
        let mut has_length = self.chunk.is_none();
        let (mut extension, mut trailer) = ("", "");
        for twist in &self.twists {
            match twist {
                Twist::Version(other) => version = other,
                Twist::Hosts(count) => hosts = *count,
                Twist::Header(name, value) => headers += &format!("{name}: {value}\r\n"),
                Twist::LengthOff(off) => length += off,
                Twist::LengthAndChunks => has_length = true,
                Twist::WrongEncoding(other) => encoding = other,
                Twist::Chunks(other, last) => (extension, trailer) = (other, last),
                Twist::Packed(_) => {}
            }
        }
        let mut head = format!("{} {} {version}\r\n", self.method, self.target) + &"host: localhost\r\n".repeat(hosts);
        if !encoding.is_empty() {
            head += &format!("content-encoding: {encoding}\r\n");
        }
        if has_length {
            head += &format!("content-length: {length}\r\n");
        }
        if self.chunk.is_some() {
            head += "transfer-encoding: chunked\r\n";
        }
        // What is no event says that it is JSON.
        if self.method == "POST" && self.target.starts_with("/api/v1/websites") {
            head += "content-type: application/json\r\n";
        }
        let mut bytes = (head + &headers + "\r\n").into_bytes();
        match self.chunk {
            None => bytes.extend(body),
            Some(size) => {
                for chunk in body.chunks(size) {
                    bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
                    bytes.extend([chunk, b"\r\n"].concat());
                }
                bytes.extend(format!("0{extension}\r\n{trailer}\r\n").into_bytes());
            }
        }
        bytes
    }
}

impl Sent {
    pub fn bytes(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self.requests.iter().flat_map(Request::bytes).collect();
        damaged(&bytes, &self.damage)
    }
}

/// Puts these codes where the grammar of events has its own, which are as long.
fn with_codes(bytes: &[u8], codes: &[String; 2]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (from, to) in CODES.iter().zip(codes) {
        let places = bytes.windows(from.len()).enumerate().filter(|(_, part)| *part == from.as_bytes());
        for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "X"];

fn targets() -> BoxedStrategy<String> {
    let routes = select(described().iter().map(Described::example).collect::<Vec<_>>());
    let odd = select(
        &[
            "/api/v1/events/",
            "/api/v1/events/c0000000000000000000000000",
            "/api/v1/events/a/b",
            "/api/v1/websites/web-1",
            "/api/v1/visitors/v%C3%A9",
            "/api/v1/erasures/era-1",
            "/",
            "*",
            "//",
            "/nowhere",
            "http://a/livez",
            "/livez?x#y",
            "/api/v1/events?limit=5&trackingCode=",
            "/API/v1/events",
            "/%6Civez",
            "/livez/",
            "a:1",
            "/\u{e9}",
        ][..],
    )
    .prop_map(str::to_owned);
    prop_oneof![4 => routes, 4 => odd, 2 => "/[!-~]{0,20}", 1 => "/api/v1/(events|websites|visitors|erasures)/[!-~]{1,30}"].boxed()
}

/// A request's method, target and body.
type Asked = (&'static str, String, Vec<u8>);

fn asked() -> BoxedStrategy<Asked> {
    let line = |method: &'static str, target: &'static str| Just((method, target.to_owned()));
    let website = ("[a-z]{1,4}", 0..10_u32, value_text()).prop_map(|(name, one, other)| {
        format!(r#"{{"name":"{name}","domain":"d{one}.example","description":{other}}}"#)
    });
    let page = (0..20_u32).prop_map(|limit| ("GET", format!("/api/v1/events?trackingCode={}&limit={limit}", CODES[0])));
    let erasure = (0..50_u32).prop_map(|one| ("DELETE", format!("/api/v1/visitors/n{one}?trackingCode={}", CODES[1])));
    let other = prop_oneof![
        2 => line("GET", "/livez"),
        1 => line("HEAD", "/readyz"),
        1 => line("OPTIONS", "/api/v1/events"),
        1 => page,
        1 => erasure,
        8 => (select(METHODS), targets()),
    ];
    let with = |line: BoxedStrategy<(&'static str, String)>, body: BoxedStrategy<Vec<u8>>| {
        (line, body).prop_map(|((method, target), body)| (method, target, body))
    };
    let some = prop_oneof![6 => Just(String::new()), 1 => event_body()];
    prop_oneof![
        12 => with(line("POST", "/api/v1/events").boxed(), bodies(event_body())),
        8 => with(line("POST", "/api/v1/events/batch").boxed(), bodies(batch_body())),
        1 => with(line("POST", "/api/v1/websites").boxed(), bodies(website.boxed())),
        14 => with(other.boxed(), bodies(some.boxed())),
    ]
    .boxed()
}

fn bodies(texts: BoxedStrategy<String>) -> BoxedStrategy<Vec<u8>> {
    let json = (texts, mutations(JSON_TOKENS)).prop_map(|(text, mutations)| damaged(text.as_bytes(), &mutations));
    // What a server that loses count of a body would take for a request.
    let request = Just(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n".to_vec());
    let about_the_limit = (65_530..65_545_usize).prop_map(|count| [&vec![b' '; count - 2], &b"{}"[..]].concat());
    prop_oneof![40 => json, 2 => request, 1 => about_the_limit, 1 => Just(Vec::new())].boxed()
}

fn twists() -> impl Strategy<Value = Vec<Twist>> {
    let headers = [
        ("expect", "100-continue"),
        ("expect", "x"),
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("content-length", "0"),
        ("content-length", "+5"),
        ("content-length", "18446744073709551616"),
        ("transfer-encoding", "gzip, chunked"),
        ("x", ""),
        ("transfer-encoding", "identity"),
        ("content-encoding", "br"),
        ("x-forwarded-for", "192.0.2.1"),
        ("via", "a"),
        ("authorization", "Bearer \u{ff}"),
        ("origin", "https://a.example"),
        ("origin", "null"),
        ("trailer", "x"),
        ("content-type", "text/plain;charset=UTF-8"),
        ("accept-encoding", "gzip"),
        (" x", "y"),
        ("x y", "z"),
        ("", ""),
    ];
    let one = prop_oneof![
        2 => select(&["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", ""][..]).prop_map(Twist::Version),
        1 => prop_oneof![Just(0_usize), Just(2)].prop_map(Twist::Hosts),
        8 => select(headers.to_vec()).prop_map(|(name, value)| Twist::Header(name, value)),
        2 => prop_oneof![-3..4_i64, Just(100_000), Just(10_000_000)].prop_map(Twist::LengthOff),
        1 => Just(Twist::LengthAndChunks),
        2 => select(&["gzip", "br", "zstd", "deflate", "gzip, br", "identity", "GZIP"][..])
            .prop_map(Twist::WrongEncoding),
        2 => select(&[(";a=b", ""), (" ", ""), ("g", ""), ("", "x: y\r\n"), ("", "content-length: 9\r\n")][..])
            .prop_map(|(extension, trailer)| Twist::Chunks(extension, trailer)),
        3 => mutations(&[b"\0", b"\xff", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"]).prop_map(Twist::Packed),
    ];
    prop_oneof![
        6 => Just(Vec::new()),
        2 => one.clone().prop_map(|twist| vec![twist]),
        1 => prop::collection::vec(one, 2..4),
    ]
}

/// What is sent over a connection to the hitlog that has these codes.
pub fn sent(codes: &[String; 2]) -> BoxedStrategy<Sent> {
    let codes = codes.clone();
    let packing = prop_oneof![
        6 => Just(Packing::None),
        1 => Just(Packing::Gzip),
        1 => Just(Packing::Brotli),
        1 => Just(Packing::Zstd),
    ];
    let chunk = prop::option::weighted(0.2, prop_oneof![1..20_usize, 1_000..20_000_usize]);
    let request = (asked(), packing, chunk, twists()).prop_map(move |(asked, packing, chunk, twists)| {
        let (method, target, body) = asked;
        let (target, body) = (with_codes(target.as_bytes(), &codes), with_codes(&body, &codes));
        Request { method, target: String::from_utf8(target).unwrap(), body: Token(body), packing, chunk, twists }
    });
    (prop::collection::vec(request, 1..4), mutations(HTTP_TOKENS))
        .prop_map(|(requests, damage)| Sent { requests, damage })
        .boxed()
}

//! Where a request or an answer of HTTP/1.1 ends. Bytes are kept as they came.

use std::io::{self, BufRead, Error, ErrorKind, Read};

pub(super) const BODY_BYTES_MAX: usize = 256 << 20;
const HEAD_BYTES_MAX: usize = 64 << 10;
const LINE_BYTES_MAX: usize = 4096;

/// How many bytes a body has, or how to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Exact(usize),
    Chunked,
    UntilClosed,
}

/// A head with the empty line that ends it. `None` where the connection was closed before its first byte.
pub(super) fn read_head(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let begin = head.len();
        read_line(from, &mut head, HEAD_BYTES_MAX)?;
        if head.len() == begin {
            return if begin == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
    }
    String::from_utf8(head).map(Some).map_err(Error::other)
}

/// The body of a request.
pub(super) fn read_request_body(from: &mut impl BufRead, head: &str) -> io::Result<Vec<u8>> {
    let length = match length(head)? {
        Length::UntilClosed => Length::Exact(0),
        length => length,
    };
    read_body(from, length)
}

/// An answer to a request, whole: its head and its body. Answers in between, as 100 is one, are left out.
pub(super) fn read_answer(from: &mut impl BufRead, request_head: &str) -> io::Result<Vec<u8>> {
    loop {
        let head = read_head(from)?.ok_or(ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if status.starts_with('1') {
            continue;
        }
        let is_bare = request_head.starts_with("HEAD ") || status == "204" || status == "304";
        let body = if is_bare { Vec::new() } else { read_body(from, length(&head)?)? };
        return Ok([head.into_bytes(), body].concat());
    }
}

/// Whether a head says this of a header, whatever the case of both.
pub(super) fn says(head: &str, name: &str, value: &str) -> bool {
    header(head, name).is_some_and(|found| found.eq_ignore_ascii_case(value))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    headers.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn length(head: &str) -> io::Result<Length> {
    if says(head, "transfer-encoding", "chunked") {
        return Ok(Length::Chunked);
    }
    let exact = header(head, "content-length").map(|length| length.parse().map(Length::Exact));
    exact.unwrap_or(Ok(Length::UntilClosed)).map_err(Error::other)
}

fn read_body(from: &mut impl BufRead, length: Length) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match length {
        Length::Exact(bytes) => read_exactly(from, &mut body, bytes)?,
        Length::Chunked => read_chunks(from, &mut body)?,
        Length::UntilClosed => {
            from.take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut body)?;
            check_size(body.len())?;
        }
    }
    Ok(body)
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let begin = body.len();
        read_line(from, body, begin + LINE_BYTES_MAX)?;
        let line = String::from_utf8_lossy(&body[begin..]).into_owned();
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(Error::other)?;
        if size == 0 {
            break;
        }
        // With the end of its line.
        read_exactly(from, body, size.saturating_add(2))?;
    }
    // Trailers, of which the last is an empty line.
    loop {
        let begin = body.len();
        read_line(from, body, begin + LINE_BYTES_MAX)?;
        match &body[begin..] {
            b"\r\n" => return Ok(()),
            b"" => return Err(ErrorKind::UnexpectedEof.into()),
            _ => check_size(body.len())?,
        }
    }
}

fn read_exactly(from: &mut impl BufRead, to: &mut Vec<u8>, bytes: usize) -> io::Result<()> {
    check_size(to.len().saturating_add(bytes))?;
    let read = from.take(bytes as u64).read_to_end(to)?;
    if read < bytes { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Adds a line with its end; nothing where there is no more.
fn read_line(from: &mut impl BufRead, to: &mut Vec<u8>, bytes_max: usize) -> io::Result<()> {
    let read = from.take((bytes_max - to.len()) as u64).read_until(b'\n', to)?;
    let is_whole = read == 0 && to.len() < bytes_max || to.ends_with(b"\n");
    if is_whole { Ok(()) } else { Err(Error::other("a line is cut, or longer than a proxy of a test takes")) }
}

fn check_size(bytes: usize) -> io::Result<()> {
    let is_within = bytes <= BODY_BYTES_MAX;
    if is_within { Ok(()) } else { Err(Error::other("a body is larger than a proxy of a test takes")) }
}

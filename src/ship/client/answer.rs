//! What an answer of ClickHouse's says: whether it is one, and whether an error is in it.
//!
//! A status of 200 alone says little: an error that comes after the answer has begun stands in its body, or only in a
//! header of an answer without a body.

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, header::LOCATION};
use serde_json::Value;

use super::failure::{Failure, one_line};

const CODE: &str = "x-clickhouse-exception-code";
const TAG: &str = "x-clickhouse-exception-tag";
const SUMMARY: &str = "x-clickhouse-summary";
const SERVER: &str = "x-clickhouse-server-display-name";

/// An answer without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was asked for.
    pub body: Bytes,
    /// What was done; `None` where the server does not say.
    pub summary: Option<Summary>,
    /// What the server calls itself, which is its machine's name unless it is set.
    pub server: Option<String>,
}

/// What ClickHouse says that it has done. Whole only where it is told when all is done: `wait_end_of_query=1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Rows that were read.
    pub read_rows: u64,
    /// Rows that were written: of an insert those of its body and, with them, those that views make of them. So it is
    /// never less than what was stored of the body, and with views it is more.
    pub written_rows: u64,
    /// What these take.
    pub written_bytes: u64,
    /// Rows that were answered.
    pub result_rows: u64,
}

impl Summary {
    /// Reads what the header has: an object of numbers, in quotes so far. What is not there is 0.
    fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let members = json.as_object()?;
        let number = |name: &str| match members.get(name) {
            None => Some(0),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64(),
        };
        Some(Self {
            read_rows: number("read_rows")?,
            written_rows: number("written_rows")?,
            written_bytes: number("written_bytes")?,
            result_rows: number("result_rows")?,
        })
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl Head {
    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn code(&self) -> Option<i32> {
        self.text(CODE)?.trim().parse().ok()
    }

    /// Whether the answer is already known to be none.
    pub(super) fn is_failure(&self) -> bool {
        self.status != StatusCode::OK || self.headers.contains_key(CODE)
    }

    /// What the answer with this body is.
    pub(super) fn judge(&self, body: Bytes) -> Result<Answer, Failure> {
        if let Some(failure) = self.failure_in(&body) {
            return Err(failure);
        }
        let summary = self.text(SUMMARY).and_then(Summary::parse);
        Ok(Answer { body, summary, server: self.text(SERVER).map(|server| one_line(server.as_bytes())) })
    }

    /// The error that this answer has, in its head or in what there is of its body.
    pub(super) fn failure_in(&self, body: &[u8]) -> Option<Failure> {
        let status = self.status.as_u16();
        let said = exception_in(body, self.text(TAG).filter(|_| !self.is_failure()));
        if let Some(code) = self.code().or(said.as_ref().map(|(code, _)| *code)) {
            let message = said.map_or_else(|| one_line(body), |(_, message)| message);
            return Some(Failure::Server { code, message, status });
        }
        if !self.is_failure() {
            return None;
        }
        let place = self.headers.get(LOCATION).filter(|_| self.status.is_redirection());
        let message = place.map_or_else(|| one_line(body), |place| one_line(place.as_bytes()));
        let message = if message.is_empty() { "nothing more is said".into() } else { message };
        Some(Failure::Status { status, message })
    }
}

/// The error that stands in a body. A server that marks its errors says with which tag; of others every text counts
/// that looks like an error, even where it is part of what was asked for.
fn exception_in(body: &[u8], tag: Option<&str>) -> Option<(i32, String)> {
    let text = match tag {
        Some(tag) => {
            let mark = format!("__exception__\r\n{tag}\r\n");
            &body[find_last(body, mark.as_bytes())? + mark.len()..]
        }
        None => body,
    };
    // Old ones write `Code: 395, e.displayText() = DB::Exception: ...`.
    const NAME: &[u8] = b"DB::Exception: ";
    let mut from = 0;
    while let Some(at) = find(&text[from..], NAME).map(|at| from + at) {
        let said = &text[at + NAME.len()..];
        if let Some(code) = code_before(&text[..at]) {
            return Some((code, one_line(without_mark(said))));
        }
        from = at + NAME.len();
    }
    None
}

/// The number in `Code: 395. ` at the end of this.
fn code_before(text: &[u8]) -> Option<i32> {
    let text = text.strip_suffix(b". ").or_else(|| text.strip_suffix(b", e.displayText() = "))?;
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = text.split_at(text.len() - digits);
    if !before.ends_with(b"Code: ") {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// An error without what marks its end.
fn without_mark(said: &[u8]) -> &[u8] {
    let Some(end) = find(said, b"\r\n__exception__\r\n") else { return said };
    let said = &said[..end];
    // Before the mark stands a line with the length and the tag.
    let last = said.iter().rposition(|&byte| byte == b'\n').unwrap_or(end);
    &said[..last]
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn find_last(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).rposition(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&'static str, &str)]) -> Head {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Head { status: StatusCode::from_u16(status).unwrap(), headers }
    }

    #[test]
    fn what_an_answer_is() {
        let marked = "0\n1\n\r\n__exception__\r\nabcdefgh\r\nCode: 395. DB::Exception: too\nbad. (X)\n31 abcdefgh\r\n\
                      __exception__\r\n";
        let unmarked = "0\n1\nCode: 395. DB::Exception: too bad. (X) (version 23.8.1.1)\n";
        let old = "Code: 47, e.displayText() = DB::Exception: Unknown identifier: x, e.what() = DB::Exception";
        let tag: &[_] = &[(TAG, "abcdefgh")];
        let code: &[_] = &[(CODE, "60")];
        let server = |code, status, message: &str| Some(Failure::Server { code, status, message: message.into() });
        let other = |status, message: &str| Some(Failure::Status { status, message: message.into() });
        for (status, headers, body, failure) in [
            (200, tag, "Code: 60. DB::Exception: is what was asked for", None),
            (200, tag, marked, server(395, 200, "too bad. (X)")),
            (200, &[], marked, server(395, 200, "too bad. (X)")),
            (200, &[], unmarked, server(395, 200, "too bad. (X) (version 23.8.1.1)")),
            (200, &[], "DB::Exception: and Code: . DB::Exception: x1. DB::Exception: ", None),
            (200, code, "", server(60, 200, "")),
            (200, code, "1\n", server(60, 200, "1")),
            (404, code, "Code: 60. DB::Exception: No table", server(60, 404, "No table")),
            (500, &[], old, server(47, 500, "Unknown identifier: x, e.what() = DB::Exception")),
            (500, tag, unmarked, server(395, 500, "too bad. (X) (version 23.8.1.1)")),
            (500, &[(CODE, "many")], "x", other(500, "x")),
            (502, &[], "<html>\n<b>", other(502, "<html> <b>")),
            (503, &[], "", other(503, "nothing more is said")),
            (301, &[("location", "https://a/")], "moved", other(301, "https://a/")),
            (204, &[], "", other(204, "nothing more is said")),
            (206, &[], "1\n", other(206, "1")),
        ] {
            let judged = head(status, headers).judge(body.into());
            assert_eq!(judged.as_ref().err(), failure.as_ref(), "{status} {headers:?} {body:?}");
            assert!(judged.is_err() || judged.unwrap().body == body);
        }
    }

    #[test]
    fn what_was_done() {
        let all = r#"{"read_rows":"1","read_bytes":"2","written_rows":"3","written_bytes":"4","total_rows_to_read":"0",
            "result_rows":"5","result_bytes":"6","elapsed_ns":"7","memory_usage":"8"}"#;
        let old = r#"{"read_rows":"1","read_bytes":"2","written_rows":"3"}"#;
        let summary = |read_rows, written_rows, written_bytes, result_rows| {
            Some(Summary { read_rows, written_rows, written_bytes, result_rows })
        };
        for (text, parsed) in [
            (all, summary(1, 3, 4, 5)),
            (old, summary(1, 3, 0, 0)),
            (r#"{"written_rows":3}"#, summary(0, 3, 0, 0)),
            ("{}", summary(0, 0, 0, 0)),
            (r#"{"written_rows":"-1"}"#, None),
            (r#"{"written_rows":"many"}"#, None),
            ("", None),
        ] {
            assert_eq!(Summary::parse(text), parsed, "{text}");
        }
        let headers = [(SUMMARY, old), (SERVER, "click")];
        let answer = head(200, &headers).judge(Bytes::new()).unwrap();
        assert_eq!((answer.summary, answer.server.as_deref()), (summary(1, 3, 0, 0), Some("click")));
    }
}

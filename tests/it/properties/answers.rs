//! A strict reader of what comes back over a connection, and what each answer has to be.

use serde_json::Value;

/// A response of hitlog, read strictly.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    is_http_1_0: bool,
    headers: Vec<(String, String)>,
    /// None where the request was HEAD.
    body: Option<Vec<u8>>,
}

/// Everything that came back.
#[derive(Debug, Default)]
pub struct Replies {
    /// How often "100 Continue" was said.
    pub interim: usize,
    pub replies: Vec<Reply>,
}

/// The contract's table of errors, as far as bytes from a client can bring one about.
const ERRORS: [(&str, u16); 13] = [
    ("VALIDATION_ERROR", 400),
    ("MALFORMED_JSON", 400),
    ("UNAUTHORIZED", 401),
    ("FORBIDDEN_ORIGIN", 403),
    ("NOT_FOUND", 404),
    ("METHOD_NOT_ALLOWED", 405),
    ("REQUEST_TIMEOUT", 408),
    ("CONFLICT", 409),
    ("PAYLOAD_TOO_LARGE", 413),
    ("UNSUPPORTED_ENCODING", 415),
    ("HEADERS_TOO_LARGE", 431),
    ("OVERLOADED", 503),
    ("STORAGE_FULL", 503),
];

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is the last of its connection; what HTTP/1.0 asks is, unless it says otherwise.
    pub fn closes(&self) -> bool {
        self.header("connection").map_or(self.is_http_1_0, |value| value == "close")
    }

    pub fn json(&self) -> Value {
        self.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    /// What is wrong with it by itself.
    fn fault(&self) -> Option<&'static str> {
        let is_json = self.header("content-type") == Some("application/json");
        let needs = match self.status {
            202 => Some("location"),
            401 => Some("www-authenticate"),
            405 => Some("allow"),
            503 => Some("retry-after"),
            _ => None,
        };
        if needs.is_some_and(|name| self.header(name).is_none()) {
            return Some("a header is missing");
        }
        match self.status {
            200 | 201 | 202 | 207 if is_json && self.body.is_some() && !self.json().is_object() => Some("no object"),
            200 | 201 | 202 | 204 | 207 => None,
            400..500 | 503 => self.error_fault().filter(|_| self.body.is_some() || !is_json),
            _ => Some("a status that must not be"),
        }
    }

    /// What is wrong with it as the contract's error.
    fn error_fault(&self) -> Option<&'static str> {
        if self.header("content-type") != Some("application/json") {
            return Some("an error that is not JSON");
        }
        let error = self.json();
        let code = error["error"].as_str().unwrap_or_default();
        if !ERRORS.contains(&(code, self.status)) {
            return Some("the code is not one of this status");
        }
        if error["message"].as_str().is_none_or(str::is_empty) {
            return Some("no message");
        }
        let details = &error["details"];
        let has_details = details["formErrors"].is_array() && details["fieldErrors"].is_object();
        (has_details != (code == "VALIDATION_ERROR")).then_some("details where they do not belong, or none")
    }
}

/// Reads what came back; `may_be_head` says whether any request could be HEAD, whose answer is as long as it says
/// without being there.
pub fn read(received: &[u8], may_be_head: bool) -> Result<Replies, String> {
    let mut found = Replies::default();
    let mut rest = received;
    while !rest.is_empty() {
        if found.replies.last().is_some_and(Reply::closes) {
            return Err("an answer after the last".into());
        }
        let is_http_1_0 = rest.starts_with(b"HTTP/1.0");
        let (status, headers, behind) = head(rest)?;
        rest = behind;
        if status == 100 {
            if !headers.is_empty() {
                return Err("100 with headers".into());
            }
            found.interim += 1;
            continue;
        }
        let mut lengths = headers.iter().filter(|(name, _)| name == "content-length").map(|(_, value)| value);
        let length: usize = match (status, lengths.next(), lengths.next()) {
            (204, None, _) => 0,
            (_, Some(length), None) => length.parse().map_err(|_| "a length that is no number")?,
            _ => return Err(format!("{status} without one length")),
        };
        let is_head = may_be_head && length > 0 && (rest.is_empty() || rest.starts_with(b"HTTP/1."));
        let body = if is_head {
            None
        } else {
            let (body, behind) = rest.split_at_checked(length).ok_or("an answer that ends early")?;
            rest = behind;
            Some(body.to_vec())
        };
        let reply = Reply { status, is_http_1_0, headers, body };
        if let Some(fault) = reply.fault() {
            return Err(format!("{fault}: {reply:?}"));
        }
        found.replies.push(reply);
    }
    Ok(found)
}

/// Status, headers, and what stands behind the head.
type Head<'a> = (u16, Vec<(String, String)>, &'a [u8]);

fn head(stream: &[u8]) -> Result<Head<'_>, String> {
    let malformed = |what: &str| format!("{what} in {:.200}", stream.escape_ascii().to_string());
    let end = stream.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| malformed("a head without end"))?;
    // A value may have bytes above ASCII: an Origin that has comes back as it was sent.
    let text = String::from_utf8_lossy(&stream[..end]);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let (status, reason) = status.and_then(|line| line.split_once(' ')).ok_or_else(|| malformed("no status line"))?;
    let is_three_digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    if !is_three_digits || reason.is_empty() || !reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(malformed("a bad status line"));
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| malformed("no header"))?;
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        if !is_name || value.chars().any(|letter| letter.is_control() && letter != '\t') || name == "transfer-encoding"
        {
            return Err(malformed("a bad header"));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok((status.parse().unwrap(), headers, &stream[end + 4..]))
}

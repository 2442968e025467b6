//! The file, line by line, and what the rules of an event say of it.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::websites::Destinations;
use crate::{
    clock::now_ms,
    event::{Rejection, Rules, ValidEvents, json, parse_batch, time::parse_time},
};

/// Events of a group, which are committed together.
pub(super) const GROUP_EVENTS: usize = 4_096;
/// Bytes of a group, if so many are reached with fewer events.
const GROUP_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 1 << 20;

/// A line as it was exported. Strings stay as they are written: they are parsed with the event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow, default)]
    website_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tracking_code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    domain: Option<&'a RawValue>,
    #[serde(borrow, default)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    referrer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    session_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    visitor_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    device_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    browser: Option<&'a RawValue>,
    #[serde(borrow, default)]
    os: Option<&'a RawValue>,
    #[serde(borrow, default)]
    location: Option<&'a RawValue>,
    #[serde(borrow, default)]
    properties: Option<&'a RawValue>,
}

/// A line that cannot be imported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) what: String,
}

/// What some thousand lines hold.
pub(super) struct ParsedLines {
    pub(super) events: ValidEvents,
    pub(super) bad: Vec<BadLine>,
    /// Its last line, counted from 1.
    pub(super) last_line: u64,
}

/// The file, read from its beginning.
pub(super) struct LineReader<'a> {
    file: BufReader<File>,
    rules: &'a Rules,
    line_bytes_max: usize,
    bar: ProgressBar,
    /// The line read last, and its number.
    line: Vec<u8>,
    number: u64,
}

impl<'a> LineReader<'a> {
    pub(super) fn new(file: File, rules: &'a Rules, line_bytes_max: usize, bar: ProgressBar) -> Self {
        let file = BufReader::with_capacity(READ_BYTES, file);
        Self { file, rules, line_bytes_max, bar, line: Vec::new(), number: 0 }
    }

    /// Passes over all lines up to this one, counted from 1.
    pub(super) fn skip(&mut self, lines: u64) -> io::Result<()> {
        while self.number < lines {
            self.bar.inc(self.file.skip_until(b'\n')? as u64);
            self.number += 1;
        }
        Ok(())
    }

    /// The next group; `None` at the end of the file.
    pub(super) fn next_group(&mut self, targets: &mut Destinations<'_>) -> io::Result<Option<ParsedLines>> {
        let first = self.number;
        let (mut body, mut places, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        while places.len() < GROUP_EVENTS && body.len() < GROUP_BYTES && self.next_line()? {
            let begin = body.len();
            match self.write_event(&mut body, targets) {
                Ok(true) => places.push(Place { line: self.number, begin }),
                Ok(false) => {}
                Err(what) => {
                    body.truncate(begin);
                    bad.push(BadLine { number: self.number, what });
                }
            }
        }
        if self.number == first {
            return Ok(None);
        }
        let events =
            if places.is_empty() { ValidEvents::default() } else { self.parse(&body, &places, targets, &mut bad) };
        bad.sort_by_key(|bad| bad.number);
        Ok(Some(ParsedLines { events, bad, last_line: self.number }))
    }

    /// Reads the next line, as far as a line may go; `false` at the end of the file.
    fn next_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let limit = self.line_bytes_max as u64 + 1;
        let mut read = (&mut self.file).take(limit).read_until(b'\n', &mut self.line)? as u64;
        if read == limit && self.line.last() != Some(&b'\n') {
            read += self.file.skip_until(b'\n')? as u64;
        }
        self.bar.inc(read);
        self.number += u64::from(read > 0);
        Ok(read > 0)
    }

    /// Appends the line's event in the form that trackers send; `false` if the line is empty.
    fn write_event(&self, out: &mut Vec<u8>, targets: &mut Destinations<'_>) -> Result<bool, String> {
        let text = self.line.trim_ascii();
        if text.is_empty() {
            return Ok(false);
        }
        if text.len() > self.line_bytes_max {
            return Err(format!("longer than {} bytes", self.line_bytes_max));
        }
        // serde would take an array for an event without names.
        if text[0] != b'{' {
            return Err("not an event as JSON: expected an object".into());
        }
        let line: Line<'_> = serde_json::from_slice(text).map_err(|error| at_column(&error))?;
        let created_at = line.created_at.ok_or("createdAt: Required")?;
        let created_at = text_of(created_at).as_deref().and_then(parse_time);
        let created_at = created_at.ok_or("createdAt: Expected a time such as 2026-01-28T20:00:00.000Z")?;
        let target = targets.of_line(
            name_of(line.website_id, "websiteId")?.as_deref(),
            name_of(line.tracking_code, "trackingCode")?.as_deref(),
            name_of(line.domain, "domain")?.as_deref(),
        )?;
        if !out.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"trackingCode\":\"pm-");
        json::write_integer(out, target);
        out.extend_from_slice(b"\",\"timestamp\":");
        json::write_integer(out, created_at);
        for (member, raw) in [
            ("eventType", line.event_type),
            ("url", line.url),
            ("referrer", line.referrer),
            ("sessionId", line.session_id),
            ("visitorId", line.visitor_id),
            ("deviceType", line.device_type),
            ("browser", line.browser),
            ("os", line.os),
            ("location", line.location),
            ("properties", line.properties),
        ] {
            let Some(raw) = raw else { continue };
            out.extend_from_slice(b",\"");
            out.extend_from_slice(member.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(raw.get().as_bytes());
        }
        out.push(b'}');
        Ok(true)
    }

    /// Parses a group as a batch. Its events stand in the body at these places.
    fn parse(&self, body: &[u8], places: &[Place], targets: &Destinations<'_>, bad: &mut Vec<BadLine>) -> ValidEvents {
        let parse = |events: &[u8]| {
            let body = [b"{\"events\":[", events, b"]}"].concat();
            parse_batch(body, self.rules, now_ms(), |code| targets.id(code.strip_prefix("pm-")?.parse().ok()?))
        };
        if let Ok(parsed) = parse(body) {
            for (index, rejection) in parsed.refused {
                bad.push(BadLine { number: places[index].line, what: told(&rejection) });
            }
            return parsed.events;
        }
        // Some faults refuse a body as a whole: so each event is parsed alone.
        let ends = places.iter().skip(1).map(|next| next.begin).chain([body.len()]);
        for (place, end) in places.iter().zip(ends) {
            let event = body[place.begin..end].strip_prefix(b",").unwrap_or(&body[place.begin..end]);
            let rejection = match parse(event) {
                Ok(parsed) => parsed.refused.into_iter().next().map(|(_, rejection)| rejection),
                Err(rejection) => Some(rejection),
            };
            bad.extend(rejection.map(|rejection| BadLine { number: place.line, what: told(&rejection) }));
        }
        ValidEvents::default()
    }
}

/// Where the event of a line begins in the body of its group.
struct Place {
    line: u64,
    begin: usize,
}

/// The text of a JSON string; `None` if the value is not a string.
fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let plain = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if plain.contains('\\') { serde_json::from_str(raw.get()).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(plain)) }
}

/// The text of a member that may be absent.
fn name_of<'a>(raw: Option<&'a RawValue>, member: &str) -> Result<Option<Cow<'a, str>>, String> {
    let Some(raw) = raw else { return Ok(None) };
    text_of(raw).map(Some).ok_or_else(|| format!("{member}: Expected a string"))
}

/// What serde says of a line, which is always line 1 to it.
fn at_column(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let text = text.split(" at line ").next().unwrap_or_default();
    format!("not an event as JSON: {text}, column {column}")
}

/// A rejection in words that fit a line.
fn told(rejection: &Rejection) -> String {
    match rejection {
        Rejection::Malformed(text) => text.clone(),
        Rejection::UnknownWebsite(code) => format!("no website has the tracking code {code}"),
        Rejection::Invalid(faults) => {
            // A place is one in the group's body, which the reader of the file has never seen.
            let text = |text: &Cow<'static, str>| match text.strip_prefix("At byte ").and_then(|at| at.split_once(": "))
            {
                Some((_, text)) => text.to_owned(),
                None => text.to_string(),
            };
            let form = faults.form.iter().map(text);
            let fields = faults.fields.iter().map(|(field, texts)| {
                let field = if *field == "timestamp" { "createdAt" } else { field };
                format!("{field}: {}", texts.iter().map(text).collect::<Vec<_>>().join(", "))
            });
            form.chain(fields).collect::<Vec<_>>().join("; ")
        }
    }
}

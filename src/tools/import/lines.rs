//! The lines, one by one, and what the rules of events and of websites say of them.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, Read},
};

use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3Default;

use super::{source::Reading, websites::Destinations};
use crate::{
    clock::now_ms,
    event::{Arrival, Faults, GPC_REFUSED, Rejection, Rules, ValidEvents, json, parse_batch, time::parse_time},
    store::Website,
    website::{WebsiteLimits, check_change},
};

/// Lines of a group, whose events are committed together.
pub(super) const GROUP_LINES: u64 = 4_096;
/// Bytes of a group's events, if so many are reached with fewer lines.
const GROUP_BYTES: usize = 4 << 20;
/// How many bad lines are told of; a file that has more is the wrong one.
pub(super) const BAD_LINES_TOLD: usize = 10;
const READ_BYTES: usize = 1 << 20;
/// A byte-order mark, which some editors write before the first line.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// What ends a line where it is longest.
const LINE_END: &[u8] = b"\r\n";

const EXPECTED_TIME: &str = "Expected a time such as 2026-01-28T20:00:00.000Z";

/// A line as it was exported, of an event or of a website. Strings stay as they are written: those of an event are
/// parsed with it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timezone: Option<&'a RawValue>,
    #[serde(borrow, default)]
    hosts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    hosts_policy: Option<&'a RawValue>,
    #[serde(borrow, default)]
    gpc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    goals: Option<&'a RawValue>,
    #[serde(borrow, default)]
    updated_at: Option<&'a RawValue>,
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

impl Line<'_> {
    /// Whether it is of a website, and not of an event, which has no name.
    fn is_website(&self) -> bool {
        let of_event = [self.event_type, self.url, self.session_id, self.visitor_id];
        self.name.is_some() && of_event.iter().all(Option::is_none)
    }
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
    /// Of the bytes of its lines.
    pub(super) digest: u64,
}

/// What a line may hold.
#[derive(Debug)]
pub(super) struct LineRules<'a> {
    pub(super) event: &'a Rules,
    /// Longest line, in bytes.
    pub(super) line_bytes_max: usize,
    pub(super) website: WebsiteRules,
}

/// What a website may be like.
#[derive(Debug, Clone, Copy)]
pub struct WebsiteRules {
    /// What is said of it.
    pub limits: WebsiteLimits,
    /// How far ahead of this machine's clock it may have been registered, in milliseconds: new websites are later than
    /// all others, and one far in the future would take them along.
    pub ahead_max_ms: i64,
}

/// The lines, read from the first one on.
pub(super) struct LineReader<'a> {
    file: BufReader<Reading<'a>>,
    rules: LineRules<'a>,
    bar: ProgressBar,
    /// The line read last, and its number.
    line: Vec<u8>,
    number: u64,
}

/// What a line is.
enum LineKind {
    Blank,
    Website,
    Event,
}

impl<'a> LineReader<'a> {
    pub(super) fn new(file: Reading<'a>, rules: LineRules<'a>, bar: ProgressBar) -> Self {
        let file = BufReader::with_capacity(READ_BYTES, file);
        Self { file, rules, bar, line: Vec::new(), number: 0 }
    }

    /// Passes over all lines up to this one, counted from 1, and returns how many there were.
    pub(super) fn skip(&mut self, lines: u64) -> io::Result<u64> {
        while self.number < lines {
            let bytes = self.file.skip_until(b'\n')? as u64;
            if bytes == 0 {
                break;
            }
            self.bar.inc(bytes);
            self.number += 1;
        }
        Ok(self.number)
    }

    /// The next group; `None` at the end of the lines.
    pub(super) fn next_group(&mut self, targets: &mut Destinations<'_>) -> io::Result<Option<ParsedLines>> {
        let first = self.number;
        let (mut body, mut places, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        let mut digest = Xxh3Default::new();
        let is_enough = |body: &[u8], bad: &[BadLine]| body.len() >= GROUP_BYTES || bad.len() >= BAD_LINES_TOLD;
        while self.number < first + GROUP_LINES && !is_enough(&body, &bad) && self.next_line()? {
            digest.update(&self.line);
            let begin = body.len();
            match self.read_line(&mut body, targets) {
                Ok(LineKind::Event) => places.push(Place { line: self.number, begin }),
                Ok(LineKind::Website | LineKind::Blank) => {}
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
        Ok(Some(ParsedLines { events, bad, last_line: self.number, digest: digest.digest() }))
    }

    /// Reads the next line; `false` at the end of the file. Of one that is too long only so much is kept that
    /// `read_line` sees that, whatever stands in the rest: no group with such a line is appended.
    fn next_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        // One byte beyond the longest line is the first that its line end leaves over.
        let limit = (MARK.len() + self.rules.line_bytes_max + LINE_END.len()) as u64;
        let mut read = (&mut self.file).take(limit).read_until(b'\n', &mut self.line)? as u64;
        if read == limit && self.line.last() != Some(&b'\n') {
            read += self.file.skip_until(b'\n')? as u64;
        }
        self.bar.inc(read);
        self.number += u64::from(read > 0);
        Ok(read > 0)
    }

    /// Notes the line's website, or appends its event in the form that trackers send.
    fn read_line(&self, out: &mut Vec<u8>, targets: &mut Destinations<'_>) -> Result<LineKind, String> {
        let line = match self.line.strip_prefix(MARK) {
            Some(line) if self.number == 1 => line,
            _ => &self.line[..],
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Blanks count: a line that was cut may look blank, or whole, as far as it was read.
        if line.len() > self.rules.line_bytes_max {
            return Err(format!("longer than {} bytes", self.rules.line_bytes_max));
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            return Ok(LineKind::Blank);
        }
        // serde would take an array for an event without names.
        if text[0] != b'{' {
            return Err("not a line of an export: expected an object of JSON".into());
        }
        let line: Line<'_> = serde_json::from_slice(text).map_err(|error| at_column(&error))?;
        if line.is_website() {
            targets.add(self.website_of(&line)?)?;
            return Ok(LineKind::Website);
        }
        self.write_event(&line, out, targets)?;
        Ok(LineKind::Event)
    }

    /// The website of a line, by the rules of the HTTP interface.
    fn website_of(&self, line: &Line<'_>) -> Result<Website, String> {
        let WebsiteRules { limits, ahead_max_ms } = &self.rules.website;
        let required = |raw, member| name_of(raw, member)?.ok_or_else(|| format!("{member}: Required"));
        let mut faults = Faults::default();
        // Its domain may be one of an older hitlog.
        let Line { name, description, timezone, hosts, goals, hosts_policy, gpc, .. } = *line;
        let sent = [name, None, description, timezone, hosts, goals, hosts_policy, gpc];
        let said = check_change(&sent, limits, &mut faults);
        if !faults.is_empty() {
            return Err(told(&Rejection::Invalid(faults)));
        }
        let time = |raw, member| {
            let latest = now_ms().saturating_add(*ahead_max_ms);
            match parse_time(&required(raw, member)?) {
                Some(time) if time > latest => Err(format!("{member}: It is too far ahead of this machine's clock")),
                Some(time) if time >= 0 => Ok(time),
                _ => Err(format!("{member}: {EXPECTED_TIME}")),
            }
        };
        let created_at = time(line.created_at, "createdAt")?;
        let updated_at = line.updated_at.map_or(Ok(created_at), |raw| time(Some(raw), "updatedAt"))?;
        Ok(Website {
            id: required(line.id, "id")?.into(),
            tracking_code: required(line.tracking_code, "trackingCode")?.into(),
            name: said.name.ok_or("name: Required")?,
            domain: required(line.domain, "domain")?.into_owned(),
            description: said.description.flatten(),
            timezone: said.timezone.flatten(),
            hosts: said.hosts.unwrap_or_default(),
            hosts_policy: said.hosts_policy.unwrap_or_default(),
            gpc: said.gpc.unwrap_or_default(),
            goals: said.goals.unwrap_or_default(),
            created_at,
            updated_at,
        })
    }

    /// Appends the line's event in the form that trackers send.
    fn write_event(&self, line: &Line<'_>, out: &mut Vec<u8>, targets: &mut Destinations<'_>) -> Result<(), String> {
        let created_at = line.created_at.ok_or("createdAt: Required")?;
        let created_at = text_of(created_at).as_deref().and_then(parse_time);
        let created_at = created_at.ok_or_else(|| format!("createdAt: {EXPECTED_TIME}"))?;
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
        Ok(())
    }

    /// Parses a group as a batch. Its events stand in the body at these places.
    fn parse(&self, body: &[u8], places: &[Place], targets: &Destinations<'_>, bad: &mut Vec<BadLine>) -> ValidEvents {
        let parse = |events: &[u8]| {
            let body = [b"{\"events\":[", events, b"]}"].concat();
            parse_batch(body, self.rules.event, &Arrival::at(now_ms()), |code| {
                targets.intake(code.strip_prefix("pm-")?.parse().ok()?)
            })
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
    format!("not a line of an export: {text}, column {column}")
}

/// A rejection in words that fit a line.
fn told(rejection: &Rejection) -> String {
    match rejection {
        Rejection::Malformed(text) => text.clone(),
        Rejection::UnknownWebsite(code) => format!("no website has the tracking code {code}"),
        // Whoever takes anything refuses neither.
        Rejection::Gpc => GPC_REFUSED.to_owned(),
        Rejection::Invalid(faults) | Rejection::OtherHost(faults) => {
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
            let places = faults.places.iter().map(|(place, texts)| format!("{place}: {}", texts.join(", ")));
            form.chain(fields).chain(places).collect::<Vec<_>>().join("; ")
        }
    }
}

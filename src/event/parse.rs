//! Parsing: one pass of simd-json over the body, one walk over its tape, no allocation per field.
//!
//! The tape is walked by hand instead of through serde, because a derived struct stops at the first wrong type,
//! while a tracker's author wants all faults of an event at once. simd-json unescapes strings in place, so every
//! text of the tape is a range of the body; properties alone are written out anew (their raw text is gone by then).

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use simd_json::{Buffers, ErrorType, Node, StaticNode, Tape};

use super::{
    DeviceType, EventType, Faults, Rejection, ValidEvents, json,
    record::{Record, Span},
    web_url,
};

/// The limits of one event; their values and reasons stand in the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Longest `url` and `referrer`, in bytes.
    pub url_bytes_max: usize,
    /// Longest `sessionId` and `visitorId`, in bytes.
    pub id_bytes_max: usize,
    /// Longest `browser`, `os` and `location`, in characters.
    pub text_chars_max: usize,
    /// Largest `properties`, in bytes of compact JSON.
    pub properties_bytes_max: usize,
    /// Deepest nesting of `properties`, its own braces counted.
    pub properties_depth_max: usize,
    /// How far ahead of the server a timestamp may be before the arrival takes its place, in milliseconds.
    pub timestamp_ahead_max_ms: i64,
    /// Most events in one batch.
    pub batch_events_max: usize,
}

/// A batch whose body could be read: what is valid, and what is wrong with the rest.
#[derive(Debug)]
pub struct ParsedBatch {
    /// The valid events, in the order of the request; may be empty.
    pub events: ValidEvents,
    /// Index and fault of each refused item, in order.
    pub refused: Vec<(usize, Rejection)>,
    /// How many timestamps were too far ahead and were set to the arrival.
    pub clocks_corrected: u64,
}

/// Room that the parser wants behind a body. A body whose buffer has it is parsed where it is.
pub const BODY_PADDING: usize = simd_json::INPUT_PADDING;

/// `9999-12-31T23:59:59.999Z`, the last moment that RFC 3339 can write.
const TIMESTAMP_MAX_MS: i64 = 253_402_300_799_999;
/// Nesting above an event's properties in a batch: the body, its array, the event.
const DEPTH_ABOVE_PROPERTIES: usize = 3;
/// Bodies above this size give their parser's memory back at once: 4 MiB of `[[[…` need a tape of 100 MB.
const WORKSPACE_BODY_BYTES_MAX: usize = 256 * 1024;
/// How much of an unknown tracking code is repeated to the client.
const ECHO_CHARS_MAX: usize = 64;

/// Parses the body of one event that arrived at `received_at` (milliseconds since 1970).
///
/// `website_id` finds the website of a well-formed tracking code. The second value tells how many timestamps
/// (none or one) were set to the arrival.
pub fn parse_event(
    body: Vec<u8>,
    rules: &Rules,
    received_at: i64,
    website_id: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<(ValidEvents, u64), Rejection> {
    let mut out = Output::new(received_at, 1);
    let body = with_tape(body, rules, |nodes, body_start| {
        out.body_start = body_start;
        let mut cursor = Cursor { nodes };
        let event = out.read_event(&mut cursor, rules)?;
        if !event.faults.is_empty() {
            return Err(Rejection::Invalid(event.faults));
        }
        // Without a fault there is a code, and it is well formed.
        let code = event.tracking_code.unwrap_or_default();
        let website = website_id(code).ok_or_else(|| Rejection::UnknownWebsite(shorten(code)))?;
        out.accept(event.record, website);
        Ok(())
    })?;
    Ok(out.finish(body))
}

/// Parses the body of a batch that arrived at `received_at` (milliseconds since 1970).
///
/// An error refuses the whole body; faults of single items are in [`ParsedBatch::refused`].
pub fn parse_batch(
    body: Vec<u8>,
    rules: &Rules,
    received_at: i64,
    website_id: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<ParsedBatch, Rejection> {
    let mut out = Output::new(received_at, 0);
    let mut refused = Vec::new();
    let body = with_tape(body, rules, |nodes, body_start| {
        out.body_start = body_start;
        let (count, mut items) = find_items(nodes, rules.batch_events_max)?;
        out.events.records.reserve_exact(count);
        let mut last: Option<(&str, Arc<str>)> = None;
        for index in 0..count {
            let event = out.read_event(&mut items, rules)?;
            let website = match event.tracking_code {
                // The contract puts an unknown code before every other fault of its item.
                Some(code) => match &last {
                    Some((known, website)) if *known == code => Some(Arc::clone(website)),
                    _ if !is_tracking_code(code) => None,
                    _ => website_id(code).inspect(|website| last = Some((code, Arc::clone(website)))),
                }
                .ok_or_else(|| Rejection::UnknownWebsite(shorten(code))),
                None => Err(Rejection::Invalid(event.faults.clone())),
            };
            match website {
                Err(rejection) => refused.push((index, rejection)),
                Ok(_) if !event.faults.is_empty() => refused.push((index, Rejection::Invalid(event.faults))),
                Ok(website) => out.accept(event.record, website),
            }
        }
        Ok(())
    })?;
    let (events, clocks_corrected) = out.finish(body);
    Ok(ParsedBatch { events, refused, clocks_corrected })
}

/// Finds `events` in a batch's body: how many items, and a cursor that stands on the first.
fn find_items<'t, 'b>(nodes: &'t [Node<'b>], events_max: usize) -> Result<(usize, Cursor<'t, 'b>), Rejection> {
    let invalid = |text: String| Err(Rejection::Invalid(Faults::of_field("events", text)));
    let mut cursor = Cursor { nodes };
    let Some(members) = cursor.enter_object() else {
        return Err(Rejection::Invalid(Faults::of_form(format!(
            "Expected an object with \"events\", received {}",
            kind_of(cursor.peek())
        ))));
    };
    let mut found = None;
    for _ in 0..members {
        if cursor.next_key() != "events" {
            cursor.skip();
            continue;
        }
        if found.is_some() {
            return invalid("Given more than once".into());
        }
        found = Some(Cursor { nodes: cursor.nodes });
        cursor.skip();
    }
    let Some(mut items) = found else { return invalid("Required".into()) };
    let Some(count) = items.enter_array() else {
        return invalid(format!("Expected an array, received {}", kind_of(items.peek())));
    };
    match count {
        0 => invalid("Expected at least 1 event".into()),
        count if count > events_max => {
            invalid(format!("Expected at most {events_max} events, received {count}; send them in several batches"))
        }
        count => Ok((count, items)),
    }
}

// ---- the tape ------------------------------------------------------------------------------------------------

/// simd-json's memory, kept by each thread from one body to the next.
struct Workspace {
    buffers: Buffers,
    tape: Tape<'static>,
    depth_max: usize,
}

thread_local! {
    static WORKSPACE: RefCell<Option<Workspace>> = const { RefCell::new(None) };
}

/// Runs `walk` over the tape of `body`, with the address at which the body stands, and gives the body back, its
/// strings unescaped in place.
fn with_tape(
    mut body: Vec<u8>,
    rules: &Rules,
    walk: impl FnOnce(&[Node<'_>], usize) -> Result<(), Rejection>,
) -> Result<Vec<u8>, Rejection> {
    let depth_max = DEPTH_ABOVE_PROPERTIES + rules.properties_depth_max;
    let len = body.len();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Rejection::Malformed("The body is empty; send a JSON object".into()));
    }
    let kept = WORKSPACE.take().filter(|workspace| workspace.depth_max == depth_max);
    let Workspace { mut buffers, tape, .. } = kept.unwrap_or_else(|| Workspace {
        buffers: Buffers::with_max_depth(len, depth_max),
        tape: Tape(Vec::new()),
        depth_max,
    });
    body.resize(len + BODY_PADDING, 0);
    let body_start = body.as_ptr() as usize;
    let mut tape = tape.reset();
    let walked = simd_json::fill_tape_padded(&mut body, len, &mut buffers, &mut tape)
        .map(|()| walk(&tape.0, body_start))
        .map_err(|error| (error, Reached::on(&tape.0, body_start)));
    let tape = tape.reset();
    let result = match walked {
        Ok(result) => result.map(|()| body),
        Err((error, reached)) => {
            let place = place_of(&error, &reached, buffers.structural_indexes(), &body[..len]);
            Err(malformed(&error, &reached, place, depth_max))
        }
    };
    if len <= WORKSPACE_BODY_BYTES_MAX {
        WORKSPACE.set(Some(Workspace { buffers, tape, depth_max }));
    }
    result
}

/// Says in words, and with the byte, why the parser refused a body.
fn malformed(error: &simd_json::Error, reached: &Reached, place: Option<usize>, depth_max: usize) -> Rejection {
    let what: Cow<'static, str> = match error.error() {
        ErrorType::InvalidUtf8 => "the body is not valid UTF-8 (or escapes half a surrogate pair)".into(),
        ErrorType::InvalidUnicodeEscape | ErrorType::InvalidUnicodeCodepoint => {
            "an escape \\uXXXX is invalid, or half a surrogate pair".into()
        }
        ErrorType::InvalidEscape => "an escape in a string is invalid".into(),
        ErrorType::InvalidNumber | ErrorType::InvalidExponent | ErrorType::Overflow => {
            "a number is invalid, or outside -2^63 to 2^64-1 (whole) or the finite doubles".into()
        }
        ErrorType::DepthLimitExceeded => format!("nested more than {depth_max} deep").into(),
        ErrorType::UnterminatedString => "a string does not end".into(),
        ErrorType::TrailingData => "something follows the JSON value".into(),
        // Of its first pass, which looks at strings only, and of its second, which looks at what they are part of.
        ErrorType::Syntax if matches!(reached, Reached::Nothing) => {
            "a string does not end, or holds a control character".into()
        }
        ErrorType::Eof | ErrorType::Syntax => "the body ends too early".into(),
        ErrorType::ExpectedObjectColon => "expected ':' after a member's name".into(),
        ErrorType::ExpectedMapComma => "expected ',' or '}' after a member".into(),
        ErrorType::ExpectedArrayComma => "expected ',' or ']' after an item".into(),
        ErrorType::KeyMustBeAString | ErrorType::ExpectedObjectKey | ErrorType::BadKeyType => {
            "expected a member's name in quotes".into()
        }
        _ => "expected a JSON value".into(),
    };
    match place {
        Some(index) => Rejection::Malformed(format!("Invalid JSON at byte {index}: {what}")),
        None => Rejection::Malformed(format!("Invalid JSON: {what}")),
    }
}

/// How far the parser came before it failed.
enum Reached {
    /// Its first pass failed, over the whole body at once; the body is as it was sent.
    Nothing,
    /// The tape was begun; its last string, if any, stands at this byte.
    Tape(Option<usize>),
}

impl Reached {
    fn on(tape: &[Node<'_>], body_start: usize) -> Self {
        if tape.is_empty() {
            return Self::Nothing;
        }
        Self::Tape(tape.iter().rev().find_map(|node| match node {
            Node::String(text) => Some(text.as_ptr() as usize - body_start),
            _ => None,
        }))
    }
}

/// The byte of a fault. simd-json finds some without saying where; then a slower look is taken.
fn place_of(error: &simd_json::Error, reached: &Reached, structurals: &[u32], body: &[u8]) -> Option<usize> {
    if error.index() > 0 {
        return Some(error.index());
    }
    if let Reached::Tape(last_string) = reached {
        // A string with a bad escape: the one that follows the last good one.
        let quote = structurals
            .iter()
            .map(|index| *index as usize)
            .find(|index| body.get(*index) == Some(&b'"') && last_string.is_none_or(|start| *index >= start));
        if quote.is_some() {
            return quote;
        }
    }
    // Bad encoding, an unclosed string, a control character, an early end.
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(fault) => return Some(fault.valid_up_to()),
    };
    let fault = serde_json::from_str::<serde::de::IgnoredAny>(text).err()?;
    let lines_before: usize = text.split_inclusive('\n').take(fault.line() - 1).map(str::len).sum();
    Some(lines_before + fault.column())
}

/// A place on the tape. Every value knows how many nodes it spans, so anything can be stepped over.
struct Cursor<'t, 'b> {
    nodes: &'t [Node<'b>],
}

impl<'t, 'b> Cursor<'t, 'b> {
    fn peek(&self) -> Node<'b> {
        self.nodes.first().copied().unwrap_or(Node::Static(StaticNode::Null))
    }

    fn advance(&mut self, nodes: usize) {
        self.nodes = self.nodes.get(nodes..).unwrap_or_default();
    }

    fn enter_object(&mut self) -> Option<usize> {
        let Node::Object { len, .. } = self.peek() else { return None };
        self.advance(1);
        Some(len)
    }

    fn enter_array(&mut self) -> Option<usize> {
        let Node::Array { len, .. } = self.peek() else { return None };
        self.advance(1);
        Some(len)
    }

    fn next_key(&mut self) -> &'b str {
        let key = match self.peek() {
            Node::String(key) => key,
            _ => "",
        };
        self.advance(1);
        key
    }

    fn skip(&mut self) {
        match self.peek() {
            Node::Object { count, .. } | Node::Array { count, .. } => self.advance(1 + count),
            Node::String(_) | Node::Static(_) => self.advance(1),
        }
    }
}

fn kind_of(node: Node<'_>) -> &'static str {
    match node {
        Node::String(_) => "a string",
        Node::Object { .. } => "an object",
        Node::Array { .. } => "an array",
        Node::Static(StaticNode::Null) => "null",
        Node::Static(StaticNode::Bool(_)) => "a boolean",
        Node::Static(_) => "a number",
    }
}

// ---- one event -----------------------------------------------------------------------------------------------

/// What is being built of one request.
struct Output {
    events: ValidEvents,
    /// The address of the body, by which a text of the tape becomes a range of it.
    body_start: usize,
    clocks_corrected: u64,
}

/// One event as read: complete only if there are no faults.
struct ReadEvent<'b> {
    /// The tracking code, if it is there and a string, well formed or not.
    tracking_code: Option<&'b str>,
    record: Record,
    faults: Faults,
}

/// The members that an event may have, in the order of the guide. The discriminant is the bit that says "seen".
#[derive(Clone, Copy)]
enum Field {
    TrackingCode,
    EventType,
    Url,
    Referrer,
    SessionId,
    VisitorId,
    DeviceType,
    Browser,
    Os,
    Location,
    Timestamp,
    Properties,
}

impl Field {
    const REQUIRED: [Self; 5] = [Self::TrackingCode, Self::EventType, Self::Url, Self::SessionId, Self::VisitorId];

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "trackingCode" => Self::TrackingCode,
            "eventType" => Self::EventType,
            "url" => Self::Url,
            "referrer" => Self::Referrer,
            "sessionId" => Self::SessionId,
            "visitorId" => Self::VisitorId,
            "deviceType" => Self::DeviceType,
            "browser" => Self::Browser,
            "os" => Self::Os,
            "location" => Self::Location,
            "timestamp" => Self::Timestamp,
            "properties" => Self::Properties,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::TrackingCode => "trackingCode",
            Self::EventType => "eventType",
            Self::Url => "url",
            Self::Referrer => "referrer",
            Self::SessionId => "sessionId",
            Self::VisitorId => "visitorId",
            Self::DeviceType => "deviceType",
            Self::Browser => "browser",
            Self::Os => "os",
            Self::Location => "location",
            Self::Timestamp => "timestamp",
            Self::Properties => "properties",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl Output {
    fn new(received_at: i64, events: usize) -> Self {
        let events = ValidEvents {
            records: Vec::with_capacity(events),
            websites: Vec::with_capacity(1),
            received_at,
            ..ValidEvents::default()
        };
        Self { events, body_start: 0, clocks_corrected: 0 }
    }

    fn accept(&mut self, mut record: Record, website: Arc<str>) {
        let websites = &mut self.events.websites;
        if websites.last().is_none_or(|last| !Arc::ptr_eq(last, &website)) {
            websites.push(website);
        }
        record.website = (websites.len() - 1) as u32;
        self.events.records.push(record);
    }

    fn finish(mut self, body: Vec<u8>) -> (ValidEvents, u64) {
        debug_assert!(self.events.is_empty() || body.as_ptr() as usize == self.body_start);
        self.events.body = body;
        (self.events, self.clocks_corrected)
    }

    /// Reads the event on which `cursor` stands and leaves the cursor behind it. Fails only for what is a fault
    /// of the body as a whole.
    fn read_event<'b>(&mut self, cursor: &mut Cursor<'_, 'b>, rules: &Rules) -> Result<ReadEvent<'b>, Rejection> {
        let mut event = ReadEvent { tracking_code: None, record: empty_record(self), faults: Faults::default() };
        let Some(members) = cursor.enter_object() else {
            event.faults = Faults::of_form(format!("Expected an object, received {}", kind_of(cursor.peek())));
            cursor.skip();
            return Ok(event);
        };
        let mut seen = 0_u16;
        for _ in 0..members {
            let Some(field) = Field::from_name(cursor.next_key()) else {
                cursor.skip();
                continue;
            };
            if seen & field.bit() != 0 {
                event.faults.add(field.name(), "Given more than once");
                cursor.skip();
                continue;
            }
            seen |= field.bit();
            self.read_field(field, cursor, rules, &mut event)?;
        }
        for field in Field::REQUIRED {
            if seen & field.bit() == 0 {
                event.faults.add(field.name(), "Required");
            }
        }
        Ok(event)
    }

    fn read_field<'b>(
        &mut self,
        field: Field,
        cursor: &mut Cursor<'_, 'b>,
        rules: &Rules,
        event: &mut ReadEvent<'b>,
    ) -> Result<(), Rejection> {
        let node = cursor.peek();
        if matches!(field, Field::Properties) {
            match node {
                Node::Object { .. } => return self.read_properties(cursor, rules, event),
                Node::Static(StaticNode::Null) => {}
                other => event.faults.add(field.name(), expected("an object or null", other)),
            }
            cursor.skip();
            return Ok(());
        }
        cursor.skip();
        let value = match field {
            Field::Timestamp => self.read_timestamp(node, rules, &mut event.record),
            Field::TrackingCode | Field::EventType | Field::Url | Field::SessionId | Field::VisitorId => match node {
                Node::String(text) => self.read_text(field, text, rules, event),
                other => Err(expected("a string", other)),
            },
            _ => match node {
                Node::String(text) => self.read_text(field, text, rules, event),
                Node::Static(StaticNode::Null) => Ok(()),
                other => Err(expected("a string or null", other)),
            },
        };
        if let Err(fault) = value {
            event.faults.add(field.name(), fault);
        }
        Ok(())
    }

    fn read_text<'b>(
        &self,
        field: Field,
        text: &'b str,
        rules: &Rules,
        event: &mut ReadEvent<'b>,
    ) -> Result<(), Cow<'static, str>> {
        if matches!(field, Field::TrackingCode) {
            event.tracking_code = Some(text);
            return if is_tracking_code(text) { Ok(()) } else { Err("Invalid tracking code format".into()) };
        }
        if text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f)) {
            return Err("Control characters are not taken".into());
        }
        let record = &mut event.record;
        let span = Span { start: (text.as_ptr() as usize - self.body_start) as u32, len: text.len() as u32 };
        match field {
            Field::EventType => {
                record.event_type = EventType::from_name(text).ok_or("Expected one of: pageview, click, custom")?;
            }
            Field::DeviceType => {
                record.device_type =
                    Some(DeviceType::from_name(text).ok_or("Expected one of: mobile, tablet, desktop, or null")?);
            }
            Field::Url => record.url = check_url(text, rules).map(|()| span)?,
            // `document.referrer` is the empty string when there is none.
            Field::Referrer if text.is_empty() => {}
            Field::Referrer => record.referrer = Some(check_url(text, rules).map(|()| span)?),
            Field::SessionId => record.session_id = check_id(text, rules).map(|()| span)?,
            Field::VisitorId => record.visitor_id = check_id(text, rules).map(|()| span)?,
            Field::Browser => record.browser = Some(check_label(text, rules).map(|()| span)?),
            Field::Os => record.os = Some(check_label(text, rules).map(|()| span)?),
            Field::Location => record.location = Some(check_label(text, rules).map(|()| span)?),
            Field::TrackingCode | Field::Timestamp | Field::Properties => {}
        }
        Ok(())
    }

    fn read_timestamp(&mut self, node: Node<'_>, rules: &Rules, record: &mut Record) -> Result<(), Cow<'static, str>> {
        let milliseconds = match node {
            Node::Static(StaticNode::I64(number)) => Some(number),
            Node::Static(StaticNode::U64(number)) => i64::try_from(number).ok(),
            // A cast from a double saturates; what saturates is out of range anyway. -0.5 is not "from 0".
            Node::Static(StaticNode::F64(number)) => (number >= 0.0).then_some(number as i64),
            other => return Err(expected("a number of milliseconds since 1970", other)),
        };
        let Some(timestamp) = milliseconds.filter(|at| (0..=TIMESTAMP_MAX_MS).contains(at)) else {
            return Err("Expected milliseconds since 1970, from 0 to the end of the year 9999".into());
        };
        if timestamp - self.events.received_at > rules.timestamp_ahead_max_ms {
            self.clocks_corrected += 1;
        } else {
            record.created_at = timestamp;
        }
        Ok(())
    }

    fn read_properties(
        &mut self,
        cursor: &mut Cursor<'_, '_>,
        rules: &Rules,
        event: &mut ReadEvent<'_>,
    ) -> Result<(), Rejection> {
        let out = &mut self.events.properties;
        let start = out.len();
        write_value(cursor, out, rules.properties_depth_max)?;
        let len = out.len() - start;
        if len > rules.properties_bytes_max {
            out.truncate(start);
            let fault = format!("At most {} bytes as compact JSON, received {len}", rules.properties_bytes_max);
            event.faults.add(Field::Properties.name(), fault);
        } else {
            event.record.properties = Some(Span { start: start as u32, len: len as u32 });
        }
        Ok(())
    }
}

fn empty_record(out: &Output) -> Record {
    Record {
        website: 0,
        event_type: EventType::Pageview,
        device_type: None,
        url: Span::default(),
        referrer: None,
        session_id: Span::default(),
        visitor_id: Span::default(),
        browser: None,
        os: None,
        location: None,
        properties: None,
        created_at: out.events.received_at,
    }
}

/// Writes the value under `cursor` as compact JSON and leaves the cursor behind it. Recursion is as deep as the
/// value, at most `depth_left`.
fn write_value(cursor: &mut Cursor<'_, '_>, out: &mut Vec<u8>, depth_left: usize) -> Result<(), Rejection> {
    let node = cursor.peek();
    if matches!(node, Node::Object { .. } | Node::Array { .. }) && depth_left == 0 {
        return Err(Rejection::Malformed("Invalid JSON: \"properties\" is nested too deep".into()));
    }
    cursor.advance(1);
    match node {
        Node::String(text) => json::write_string(out, text.as_bytes()),
        Node::Static(StaticNode::Null) => out.extend_from_slice(b"null"),
        Node::Static(StaticNode::Bool(true)) => out.extend_from_slice(b"true"),
        Node::Static(StaticNode::Bool(false)) => out.extend_from_slice(b"false"),
        Node::Static(StaticNode::I64(number)) => json::write_integer(out, number),
        Node::Static(StaticNode::U64(number)) => json::write_integer(out, number),
        Node::Static(StaticNode::F64(number)) => json::write_double(out, number),
        Node::Array { len, .. } => {
            out.push(b'[');
            for at in 0..len {
                if at > 0 {
                    out.push(b',');
                }
                write_value(cursor, out, depth_left - 1)?;
            }
            out.push(b']');
        }
        Node::Object { len, .. } => {
            out.push(b'{');
            for at in 0..len {
                if at > 0 {
                    out.push(b',');
                }
                json::write_string(out, cursor.next_key().as_bytes());
                out.push(b':');
                write_value(cursor, out, depth_left - 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

// ---- the rules of single values ------------------------------------------------------------------------------

/// `pm-` followed by letters, digits and `-`, 4 to 64 characters in all.
fn is_tracking_code(text: &str) -> bool {
    text.strip_prefix("pm-").is_some_and(|rest| {
        (1..=61).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn check_url(text: &str, rules: &Rules) -> Result<(), Cow<'static, str>> {
    if text.len() > rules.url_bytes_max {
        return Err(format!("At most {} bytes, received {}", rules.url_bytes_max, text.len()).into());
    }
    web_url::fault(text).map_or(Ok(()), Err)
}

fn check_id(text: &str, rules: &Rules) -> Result<(), Cow<'static, str>> {
    match text.len() {
        0 => Err("Must not be empty".into()),
        len if len > rules.id_bytes_max => Err(format!("At most {} bytes, received {len}", rules.id_bytes_max).into()),
        _ => Ok(()),
    }
}

fn check_label(text: &str, rules: &Rules) -> Result<(), Cow<'static, str>> {
    // A text has at most as many characters as bytes, so the count is needed for long ones only.
    if text.len() > rules.text_chars_max && text.chars().count() > rules.text_chars_max {
        return Err(format!("At most {} characters", rules.text_chars_max).into());
    }
    Ok(())
}

fn expected(what: &str, node: Node<'_>) -> Cow<'static, str> {
    format!("Expected {what}, received {}", kind_of(node)).into()
}

fn shorten(code: &str) -> String {
    match code.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &code[..at]),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests;

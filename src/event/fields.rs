//! The members of one event: which there are, what values they take, all faults at once.
//!
//! A derived struct would stop at the first wrong type, while a tracker's author wants to hear everything at once; so
//! the tape is walked by hand. Every text of it is a range of the body, and properties alone are written out anew
//! (their raw text is gone once the parser has unescaped it in place).

use std::{borrow::Cow, sync::Arc};

use simd_json::{Node, StaticNode};

use super::{
    record::{DeviceType, EventType, Record, Span, ValidEvents},
    rejection::{Faults, Rejection},
    rules::Rules,
    tape::{TapeCursor, kind_of, write_value},
    web_url,
};

/// `9999-12-31T23:59:59.999Z`, the last moment that RFC 3339 can write.
pub(super) const TIMESTAMP_MAX_MS: i64 = 253_402_300_799_999;

/// What is built from one request.
pub(super) struct Output {
    pub(super) events: ValidEvents,
    /// The address of the body, by which a text of the tape becomes a range of it.
    pub(super) body_start: usize,
    clocks_corrected: u64,
}

/// One event as read: complete only if there are no faults.
pub(super) struct ReadEvent<'b> {
    /// The tracking code, if it is there and a string, well formed or not.
    pub(super) tracking_code: Option<&'b str>,
    pub(super) record: Record,
    /// The timestamp was too far ahead, and the arrival took its place.
    clock_corrected: bool,
    pub(super) faults: Faults,
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
    pub(super) fn new(received_at: i64, events: usize) -> Self {
        let events = ValidEvents {
            records: Vec::with_capacity(events),
            websites: Vec::with_capacity(1),
            received_at,
            ..ValidEvents::default()
        };
        Self { events, body_start: 0, clocks_corrected: 0 }
    }

    pub(super) fn accept(&mut self, event: ReadEvent<'_>, website: Arc<str>) {
        self.clocks_corrected += u64::from(event.clock_corrected);
        let mut record = event.record;
        let websites = &mut self.events.websites;
        if websites.last().is_none_or(|last| !Arc::ptr_eq(last, &website)) {
            websites.push(website);
        }
        record.website = (websites.len() - 1) as u32;
        self.events.records.push(record);
    }

    pub(super) fn finish(mut self, body: Vec<u8>) -> (ValidEvents, u64) {
        debug_assert!(self.events.is_empty() || body.as_ptr() as usize == self.body_start);
        self.events.body = body;
        (self.events, self.clocks_corrected)
    }

    /// Reads the event at `cursor` and moves the cursor past it. Fails only for a fault of the body as a whole.
    pub(super) fn read_event<'b>(
        &mut self,
        cursor: &mut TapeCursor<'_, 'b>,
        rules: &Rules,
    ) -> Result<ReadEvent<'b>, Rejection> {
        let mut event = ReadEvent {
            tracking_code: None,
            record: empty_record(self),
            clock_corrected: false,
            faults: Faults::default(),
        };
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
        cursor: &mut TapeCursor<'_, 'b>,
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
            Field::Timestamp => self.read_timestamp(node, rules, event),
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

    fn read_timestamp(
        &self,
        node: Node<'_>,
        rules: &Rules,
        event: &mut ReadEvent<'_>,
    ) -> Result<(), Cow<'static, str>> {
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
        if self.events.received_at - timestamp > rules.timestamp_age_max_ms {
            let days = rules.timestamp_age_max_ms as f64 / (24.0 * 60.0 * 60.0 * 1_000.0);
            return Err(format!("Older than events are kept here, which is {days} days").into());
        }
        if timestamp - self.events.received_at > rules.timestamp_ahead_max_ms {
            event.clock_corrected = true;
        } else {
            event.record.created_at = timestamp;
        }
        Ok(())
    }

    fn read_properties(
        &mut self,
        cursor: &mut TapeCursor<'_, '_>,
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

/// `pm-` followed by letters, digits and `-`, 4 to 64 characters in all.
pub fn is_tracking_code(text: &str) -> bool {
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

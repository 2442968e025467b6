//! One event read from the tape: all its members, all faults and oddities at once.
//!
//! A derived struct would stop at the first wrong type, while a tracker's author wants to hear everything at once; so
//! the tape is walked by hand. Every text of it is a range of the body, and properties alone are written out anew
//! (their raw text is gone once the parser has unescaped it in place).

use std::sync::Arc;

use simd_json::{Node, StaticNode};

use super::{
    anonymous::name_alone,
    arrival::Arrival,
    body::Repairs,
    field::{Field, FieldSet},
    id_hash::IdHash,
    intake::{Gpc, Intake},
    naming::Naming,
    record::{DeviceType, EventType, LeftToServer, Record, Span, ValidEvents},
    rejection::{Faults, Rejection},
    rules::Rules,
    tape::{TapeCursor, kind_of, write_value},
    values::{self, Fault, expected, is_tracking_code},
    warning::{Warning, WarningCode, Warnings},
};

/// What is built from one request.
pub(super) struct Output<'r> {
    pub(super) events: ValidEvents,
    /// The address of the body, by which a text of the tape becomes a range of it.
    pub(super) body_start: usize,
    naming: Naming,
    /// The most that the properties of all events may take together.
    properties_bytes_max: usize,
    arrival: &'r Arrival,
    repairs: Repairs,
    warnings: Warnings,
}

/// Where an event stands in its request, and what is known of it already.
pub(super) struct Place<'a> {
    pub(super) rules: &'a Rules,
    /// Where the text that the tape was made of ends in the body.
    pub(super) end: usize,
    /// What was taken out of the text because the parser refuses it.
    pub(super) cut: Option<&'a Cut>,
}

/// Members whose values are not taken, cut out so that the rest of their event can be read.
#[derive(Default)]
pub(super) struct Cut {
    pub(super) fields: FieldSet,
    pub(super) faults: Faults,
}

/// One event as read: complete only if there are no faults.
pub(super) struct ReadEvent<'b> {
    /// The tracking code, if it is there and a string, well formed or not.
    pub(super) tracking_code: Option<&'b str>,
    /// What its client calls it.
    event_id: Option<&'b str>,
    /// The page, if it is one that is taken.
    url: &'b str,
    pub(super) record: Record,
    pub(super) faults: Faults,
    oddities: Oddities,
}

/// By how much the properties of a request may be longer than it. Compact JSON is shorter as a rule, but a number such
/// as 1e15 is written in full: a batch of nothing else would take four times what was counted for it.
const PROPERTIES_GROWTH_BYTES_MAX: usize = 64 * 1024;

/// What is odd about an event, in a form that takes no memory as long as nothing is.
#[derive(Default)]
struct Oddities {
    timestamp: Option<WarningCode>,
    /// Why the referrer was dropped.
    referrer: Option<Fault>,
    repaired: FieldSet,
    /// Of the host of the page.
    host: Option<Fault>,
}

impl<'r> Output<'r> {
    pub(super) fn new(naming: Naming, arrival: &'r Arrival, body: &[u8], repairs: Repairs) -> Self {
        let received_at = arrival.received_at;
        let events = ValidEvents { websites: Vec::with_capacity(1), received_at, ..ValidEvents::default() };
        let properties_bytes_max = body.len() + PROPERTIES_GROWTH_BYTES_MAX;
        let body_start = body.as_ptr() as usize;
        Self { events, body_start, naming, properties_bytes_max, arrival, repairs, warnings: Warnings::default() }
    }

    /// Takes in an event without faults, or says why its website does not take it.
    pub(super) fn accept(
        &mut self,
        index: usize,
        mut event: ReadEvent<'_>,
        website: Arc<Intake>,
        rules: &Rules,
    ) -> Result<(), Rejection> {
        let has_gpc = self.arrival.gpc.is_some();
        if has_gpc && website.gpc() == Gpc::Drop {
            return Err(Rejection::Gpc);
        }
        event.oddities.host = website.check_host(event.url, self.naming.name(Field::Url))?;
        if has_gpc && website.gpc() == Gpc::Anonymous {
            self.anonymize(&mut event.record);
            self.events.gpc.anonymized += 1;
        } else if has_gpc {
            self.events.gpc.ignored += 1;
        }
        self.warn(index, event.oddities, rules);
        let id_hash = self.id_hash(index, event.event_id, &website.website_id);
        let mut record = event.record;
        let websites = &mut self.events.websites;
        if websites.last().is_none_or(|last| !Arc::ptr_eq(last, &website)) {
            websites.push(website);
        }
        record.website = (websites.len() - 1) as u32;
        self.events.push_id_hash(id_hash);
        self.events.records.push(record);
        Ok(())
    }

    /// Takes out of an event what would tell who its visitor is. The ids are replaced at the end: what takes their
    /// place stands in no body.
    fn anonymize(&mut self, record: &mut Record) {
        record.is_anonymous = true;
        let Some(Span { start, .. }) = record.properties.take() else { return };
        // Nothing has been read since.
        let properties = &mut self.events.properties;
        let alone = properties.get(start as usize..).and_then(name_alone);
        properties.truncate(start as usize);
        if let Some(alone) = alone {
            properties.extend_from_slice(&alone);
            record.properties = Some(Span { start, len: alone.len() as u32 });
        }
    }

    /// Has one id, which is no visitor's, stand for those of all events that must not tell whose they are.
    fn replace_ids(&mut self) {
        let Some(id) = self.arrival.gpc.as_deref().filter(|_| self.events.gpc.anonymized > 0) else { return };
        let span = self.events.append_text(id.as_bytes());
        for record in self.events.records.iter_mut().filter(|record| record.is_anonymous) {
            (record.session_id, record.visitor_id) = (span, span);
        }
    }

    /// What the event at `index` is known by when it is sent again: the name that it has, or else the one that the key
    /// of its request gives it.
    fn id_hash(&self, index: usize, event_id: Option<&str>, website_id: &str) -> Option<IdHash> {
        let hasher = self.arrival.ids.as_ref()?;
        match (event_id, &self.arrival.idempotency_key) {
            (Some(id), _) => Some(hasher.of_id(website_id, id)),
            (None, Some(key)) => Some(hasher.of_key(website_id, key, index)),
            (None, None) => None,
        }
    }

    pub(super) fn finish(mut self, body: Vec<u8>) -> (ValidEvents, Warnings) {
        debug_assert!(self.events.is_empty() || body.as_ptr() as usize == self.body_start);
        self.events.body = body;
        self.replace_ids();
        let properties = &mut self.events.properties;
        if properties.capacity() - properties.len() > PROPERTIES_GROWTH_BYTES_MAX {
            properties.shrink_to_fit();
        }
        (self.events, self.warnings)
    }

    /// Reads the event at `cursor` and moves the cursor past it.
    pub(super) fn read_event<'b>(&mut self, cursor: &mut TapeCursor<'_, 'b>, place: &Place<'_>) -> ReadEvent<'b> {
        let mut event = ReadEvent {
            tracking_code: None,
            event_id: None,
            url: "",
            record: empty_record(self.events.received_at),
            faults: Faults::default(),
            oddities: Oddities::default(),
        };
        let Some(members) = cursor.enter_object() else {
            event.faults = Faults::of_form(values::expected_object(kind_of(cursor.peek())));
            cursor.skip();
            return event;
        };
        let mut seen = FieldSet::default();
        for _ in 0..members {
            let name = cursor.next_key();
            let Some(field) = self.naming.field(name) else {
                cursor.skip();
                continue;
            };
            if !seen.insert(field) {
                event.faults.add(self.naming.name(field), "Given more than once");
                cursor.skip();
                continue;
            }
            if place.cut.is_some_and(|cut| cut.fields.contains(field)) {
                cursor.skip();
                continue;
            }
            if let Err(fault) = self.read_field(field, cursor, place.rules, &mut event) {
                event.faults.add(self.naming.name(field), fault);
            }
            if !self.repairs.is_empty() {
                // Whatever was repaired between the member's name and the next string was repaired in its value.
                let begin = name.as_ptr() as usize - self.body_start;
                let end = cursor.next_string(self.body_start).map_or(place.end, |(at, _)| at);
                if self.repairs.any_in(begin..end) {
                    if field == Field::EventId {
                        // Repaired, two ids could be one, and an event would be taken for another.
                        event.faults.add(self.naming.name(field), "Half a surrogate pair is not taken in an id");
                    }
                    event.oddities.repaired.insert(field);
                }
            }
        }
        for field in self.naming.required() {
            if !seen.contains(*field) {
                event.faults.add(self.naming.name(*field), "Required");
            }
        }
        if let Some(cut) = place.cut {
            event.faults.append(&cut.faults);
        }
        event
    }

    fn read_field<'b>(
        &mut self,
        field: Field,
        cursor: &mut TapeCursor<'_, 'b>,
        rules: &Rules,
        event: &mut ReadEvent<'b>,
    ) -> Result<(), Fault> {
        let node = cursor.peek();
        if let (Field::Properties, Node::Object { .. }) = (field, node) {
            return self.read_properties(cursor, rules, event);
        }
        cursor.skip();
        match (field, node) {
            (Field::Timestamp, _) => {
                (event.record.created_at, event.oddities.timestamp) =
                    values::read_timestamp(self.naming, node, self.events.received_at, rules)?;
                Ok(())
            }
            (Field::Referrer, _) => {
                self.read_referrer(node, rules, event);
                Ok(())
            }
            (Field::Properties, Node::Static(StaticNode::Null)) => Ok(()),
            (Field::Properties, _) => Err(expected("an object or null", node)),
            (_, Node::String(text)) => self.read_text(field, text, rules, event),
            _ if Field::REQUIRED.contains(&field) => Err(expected("a string", node)),
            (_, Node::Static(StaticNode::Null)) => Ok(()),
            _ => Err(expected("a string or null", node)),
        }
    }

    fn read_text<'b>(
        &self,
        field: Field,
        text: &'b str,
        rules: &Rules,
        event: &mut ReadEvent<'b>,
    ) -> Result<(), Fault> {
        if matches!(field, Field::TrackingCode) {
            event.tracking_code = Some(text);
            return if is_tracking_code(text) { Ok(()) } else { Err("Invalid tracking code format".into()) };
        }
        values::check_controls(text)?;
        let record = &mut event.record;
        let span = self.span_of(text);
        match field {
            Field::EventType => {
                record.event_type = EventType::from_name(text).ok_or("Expected one of: pageview, click, custom")?;
            }
            Field::DeviceType => {
                record.device_type =
                    Some(DeviceType::from_name(text).ok_or("Expected one of: mobile, tablet, desktop, or null")?);
            }
            Field::Url => {
                record.url = values::check_url(text, rules).map(|()| span)?;
                event.url = text;
            }
            Field::SessionId => {
                record.session_id = values::check_id(text, rules).map(|()| span)?;
                record.left.session = text == LeftToServer::WORD;
            }
            Field::VisitorId => {
                record.visitor_id = values::check_id(text, rules).map(|()| span)?;
                record.left.visitor = text == LeftToServer::WORD;
            }
            Field::Browser => record.browser = Some(values::check_label(text, rules).map(|()| span)?),
            Field::Os => record.os = Some(values::check_label(text, rules).map(|()| span)?),
            Field::Location => record.location = Some(values::check_label(text, rules).map(|()| span)?),
            Field::EventId => event.event_id = values::check_id(text, rules).map(|()| Some(text))?,
            Field::TrackingCode | Field::Referrer | Field::Timestamp | Field::Properties => {}
        }
        Ok(())
    }

    /// What browsers and trackers put here is not worth an event: what is not taken is dropped, and told.
    fn read_referrer(&self, node: Node<'_>, rules: &Rules, event: &mut ReadEvent<'_>) {
        let text = match node {
            // `document.referrer` is the empty string when there is none.
            Node::Static(StaticNode::Null) | Node::String("") => return,
            Node::String(text) => text,
            other => {
                event.oddities.referrer = Some(expected("a string or null", other));
                return;
            }
        };
        match values::check_controls(text).and_then(|()| values::check_url(text, rules)) {
            Ok(()) => event.record.referrer = Some(self.span_of(text)),
            Err(fault) => event.oddities.referrer = Some(fault),
        }
    }

    fn read_properties(
        &mut self,
        cursor: &mut TapeCursor<'_, '_>,
        rules: &Rules,
        event: &mut ReadEvent<'_>,
    ) -> Result<(), Fault> {
        let out = &mut self.events.properties;
        let start = out.len();
        write_value(cursor, out);
        let len = out.len() - start;
        if len > rules.properties_bytes_max {
            out.truncate(start);
            return Err(format!("At most {} bytes as compact JSON, received {len}", rules.properties_bytes_max).into());
        }
        if out.len() > self.properties_bytes_max {
            out.truncate(start);
            return Err("The properties of this batch take more room than the batch; send fewer events at once".into());
        }
        event.record.properties = Some(Span { start: start as u32, len: len as u32 });
        Ok(())
    }

    fn span_of(&self, text: &str) -> Span {
        Span { start: (text.as_ptr() as usize - self.body_start) as u32, len: text.len() as u32 }
    }

    fn warn(&mut self, index: usize, oddities: Oddities, rules: &Rules) {
        let Oddities { timestamp, referrer, repaired, host } = oddities;
        if timestamp.is_none() && referrer.is_none() && repaired.is_empty() && host.is_none() {
            return;
        }
        let naming = self.naming;
        let mut warn = |field: Field, code, message| {
            let warning = Warning { index, field: naming.name(field), code, message };
            self.warnings.add(warning, rules.warnings_told_max);
        };
        for field in Field::ALL {
            // Of a referrer that is not there nothing is repaired.
            if repaired.contains(field) && (field != Field::Referrer || referrer.is_none()) {
                let message = "Half a surrogate pair, such as an emoji cut in two leaves, is stored as U+FFFD";
                warn(field, WarningCode::TextRepaired, message.into());
            }
        }
        if let Some(text) = host {
            warn(Field::Url, WarningCode::HostNotListed, text);
        }
        if let Some(fault) = referrer {
            warn(Field::Referrer, WarningCode::ReferrerDropped, format!("Stored as null: {fault}").into());
        }
        if let Some(code) = timestamp {
            let message = match code {
                WarningCode::TimestampLooksLikeSeconds => {
                    "Stored as milliseconds since 1970, which is before 2000; it looks like seconds"
                }
                WarningCode::TimestampAhead => "Too far ahead of the server; the time of arrival is stored",
                _ => "Stored as milliseconds since 1970, which is before 2000",
            };
            warn(Field::Timestamp, code, message.into());
        }
    }
}

fn empty_record(created_at: i64) -> Record {
    Record {
        website: 0,
        event_type: EventType::Pageview,
        left: LeftToServer::default(),
        device_type: None,
        url: Span::default(),
        referrer: None,
        session_id: Span::default(),
        visitor_id: Span::default(),
        browser: None,
        os: None,
        location: None,
        properties: None,
        created_at,
        is_anonymous: false,
    }
}

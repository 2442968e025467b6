//! The valid event: what parsing leaves behind and everything later reads.

use std::sync::Arc;

use super::{
    id_hash::{IdHash, LookedUp, Repeat},
    intake::Intake,
};

/// What a visitor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A page was shown.
    Pageview,
    /// Something was clicked.
    Click,
    /// Anything a tracker wants to count.
    Custom,
}

impl EventType {
    /// Every type, for tables and messages.
    pub const ALL: [Self; 3] = [Self::Pageview, Self::Click, Self::Custom];

    /// The name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pageview => "pageview",
            Self::Click => "click",
            Self::Custom => "custom",
        }
    }

    /// The type with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The kind of device a tracker reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// A telephone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A desktop or laptop computer.
    Desktop,
}

impl DeviceType {
    /// The name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Desktop => "desktop",
        }
    }

    /// The kind with this name, if there is one.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Mobile, Self::Tablet, Self::Desktop].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A range of the request's body (or, for properties, of the request's properties).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Span {
    fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }
}

/// One valid event as ranges of its request's buffers. A few machine words, no allocation of its own.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Index into [`ValidEvents::websites`].
    pub(super) website: u32,
    pub(super) event_type: EventType,
    /// What the client leaves to the server, and whether the server has said it.
    pub(super) left: LeftToServer,
    pub(super) device_type: Option<DeviceType>,
    pub(super) url: Span,
    pub(super) referrer: Option<Span>,
    pub(super) session_id: Span,
    pub(super) visitor_id: Span,
    pub(super) browser: Option<Span>,
    pub(super) os: Option<Span>,
    pub(super) location: Option<Span>,
    pub(super) properties: Option<Span>,
    pub(super) created_at: i64,
    /// Whether what would tell who the visitor is has been taken out.
    pub(super) is_anonymous: bool,
}

/// How many events of a request were stored for visitors who send `Sec-GPC: 1`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpcCounts {
    /// As they are.
    pub ignored: u32,
    /// Without what would tell who the visitor is.
    pub anonymized: u32,
}

/// How long an id is that the server makes, in bytes: 128 bits in hexadecimal digits.
pub const SERVER_ID_BYTES: usize = 32;

/// Which ids an event leaves to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeftToServer {
    pub(super) session: bool,
    pub(super) visitor: bool,
}

impl LeftToServer {
    /// What a client writes in the place of an id that the server is to make.
    pub(super) const WORD: &str = "server";

    fn any(self) -> bool {
        self.session || self.visitor
    }
}

/// What the server says of whoever sent a request, where its events leave that to the server and do not say it
/// themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderFacts<'a> {
    /// The kind of device.
    pub device_type: Option<DeviceType>,
    /// The browser's name.
    pub browser: Option<&'a str>,
    /// The operating system's name.
    pub os: Option<&'a str>,
    /// Where it is.
    pub location: Option<&'a str>,
}

/// The valid events of one request, with the buffers they point into. Only [`super::parse_event`] and
/// [`super::parse_batch`] make one, so whoever holds it need not check anything again.
#[derive(Debug, Default)]
pub struct ValidEvents {
    pub(super) body: Vec<u8>,
    pub(super) properties: Vec<u8>,
    pub(super) websites: Vec<Arc<Intake>>,
    pub(super) records: Vec<Record>,
    /// What the client calls each event; empty if it calls none anything.
    pub(super) id_hashes: Vec<Option<IdHash>>,
    pub(super) received_at: i64,
    pub(super) looked_up: LookedUp,
    pub(super) gpc: GpcCounts,
}

impl ValidEvents {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The memory held, in bytes: what a queue that is bounded by bytes has to count.
    pub fn bytes(&self) -> usize {
        self.body.capacity()
            + self.properties.capacity()
            + self.records.capacity() * size_of::<Record>()
            + self.id_hashes.capacity() * size_of::<Option<IdHash>>()
            + self.looked_up.repeats.capacity() * size_of::<Repeat>()
    }

    /// Notes what the client calls the next event. Takes no memory before one has a name.
    pub(super) fn push_id_hash(&mut self, id_hash: Option<IdHash>) {
        if id_hash.is_none() && self.id_hashes.is_empty() {
            return;
        }
        if self.id_hashes.is_empty() {
            self.id_hashes.reserve_exact(self.records.capacity());
            self.id_hashes.resize(self.records.len(), None);
        }
        self.id_hashes.push(id_hash);
    }

    /// Puts a text that was not sent behind the body, and tells where it is. To be called when nothing borrows from the
    /// body any more: it may move.
    pub(super) fn append_text(&mut self, text: &[u8]) -> Span {
        let start = self.body.len() as u32;
        // It is all that is added to a body that may be large.
        self.body.reserve_exact(text.len());
        self.body.extend_from_slice(text);
        Span { start, len: text.len() as u32 }
    }

    /// What became of those whose visitors send `Sec-GPC: 1`.
    pub fn gpc(&self) -> GpcCounts {
        self.gpc
    }

    /// What the client calls each event, in the order of the request; empty if it calls none anything.
    pub fn id_hashes(&self) -> &[Option<IdHash>] {
        &self.id_hashes
    }

    /// Whether an event leaves an id to the server.
    pub fn are_left_to_server(&self) -> bool {
        self.records.iter().any(|record| record.left.any())
    }

    /// How many events have an id that the server made of who sent them.
    pub fn identified(&self) -> usize {
        self.records.iter().filter(|record| record.left.any() && !record.is_anonymous).count()
    }

    /// Says what the events leave to the server: their ids, which `id_of` makes for a website, and what they do not say
    /// themselves of who sent them. Both ids of an event are the same, as the visits are told apart by their pauses. Of
    /// those whose visitors want to be anonymous nothing is said.
    pub fn fill_in(&mut self, facts: &SenderFacts<'_>, mut id_of: impl FnMut(&str) -> [u8; SERVER_ID_BYTES]) {
        let texts = [facts.browser, facts.os, facts.location];
        let bytes = texts.into_iter().flatten().map(str::len).sum::<usize>();
        // No more than that: a large body would be doubled.
        self.body.reserve_exact(bytes + self.websites.len() * SERVER_ID_BYTES);
        // Written once, whatever the number of events.
        let [browser, os, location] = texts.map(|text| text.map(|text| self.append_text(text.as_bytes())));
        let mut ids: Vec<Option<Span>> = vec![None; self.websites.len()];
        for at in 0..self.records.len() {
            let Record { website, left, is_anonymous, .. } = self.records[at];
            if !left.any() || is_anonymous {
                continue;
            }
            let website = website as usize;
            let id = ids[website].unwrap_or_else(|| {
                let id = id_of(&self.websites[website].website_id);
                self.append_text(&id)
            });
            ids[website] = Some(id);
            let record = &mut self.records[at];
            if left.session {
                record.session_id = id;
            }
            if left.visitor {
                record.visitor_id = id;
            }
            record.device_type = record.device_type.or(facts.device_type);
            record.browser = record.browser.or(browser);
            record.os = record.os.or(os);
            record.location = record.location.or(location);
        }
    }

    /// What is found out about each event, in the order of the request, as its row in the store has it.
    pub fn flags(&self) -> impl Iterator<Item = EventFlags> {
        let ids_by_server = |record: &Record| record.left.any() || record.is_anonymous;
        self.records.iter().map(move |record| EventFlags { ids_by_server: ids_by_server(record) })
    }

    /// What was found of these events among those that are stored.
    pub fn looked_up(&self) -> &LookedUp {
        &self.looked_up
    }

    /// Notes what was found of these events among those that are stored.
    pub fn note_looked_up(&mut self, looked_up: LookedUp) {
        self.looked_up = looked_up;
    }

    /// The events in the order of the request.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = EventRow<'_>> + ExactSizeIterator {
        self.records.iter().map(|record| self.row(record))
    }

    /// The same as those who sent them may see them: what was left to the server stays what it was. An id that pages of
    /// many sites can ask for would tell them that they have the same visitor.
    pub fn rows_without_ids(&self) -> impl DoubleEndedIterator<Item = EventRow<'_>> + ExactSizeIterator {
        self.records.iter().map(|record| {
            let (row, word) = (self.row(record), LeftToServer::WORD.as_bytes());
            let left = if record.is_anonymous { LeftToServer::default() } else { record.left };
            EventRow {
                session_id: if left.session { word } else { row.session_id },
                visitor_id: if left.visitor { word } else { row.visitor_id },
                ..row
            }
        })
    }

    fn row<'a>(&'a self, record: &Record) -> EventRow<'a> {
        let text = |span: Option<Span>| span.map(|span| span.of(&self.body));
        EventRow {
            website_id: self.websites[record.website as usize].website_id.as_bytes(),
            event_type: record.event_type.as_str().as_bytes(),
            url: record.url.of(&self.body),
            referrer: text(record.referrer),
            session_id: record.session_id.of(&self.body),
            visitor_id: record.visitor_id.of(&self.body),
            device_type: record.device_type.map(|device| device.as_str().as_bytes()),
            browser: text(record.browser),
            os: text(record.os),
            location: text(record.location),
            properties: record.properties.map(|span| span.of(&self.properties)),
            created_at: record.created_at,
            received_at: self.received_at,
        }
    }
}

/// What is found out about an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventFlags {
    /// An id of it was made by the server.
    pub ids_by_server: bool,
}

/// One event, borrowed from wherever it stands: a request's buffers on the way in, a row of the store on the way
/// out. Texts are UTF-8, checked when they came in, and held as bytes because both SQLite and the socket take bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRow<'a> {
    /// The website's id.
    pub website_id: &'a [u8],
    /// One of [`EventType`]'s names.
    pub event_type: &'a [u8],
    /// The page, as sent.
    pub url: &'a [u8],
    /// Where the visitor came from.
    pub referrer: Option<&'a [u8]>,
    /// The visit.
    pub session_id: &'a [u8],
    /// The visitor.
    pub visitor_id: &'a [u8],
    /// One of [`DeviceType`]'s names.
    pub device_type: Option<&'a [u8]>,
    /// The browser's name.
    pub browser: Option<&'a [u8]>,
    /// The operating system's name.
    pub os: Option<&'a [u8]>,
    /// Where the visitor is.
    pub location: Option<&'a [u8]>,
    /// Compact JSON of an object.
    pub properties: Option<&'a [u8]>,
    /// When it happened, in milliseconds since 1970 UTC: the client's timestamp, or the arrival.
    pub created_at: i64,
    /// When it arrived, in milliseconds since 1970 UTC.
    pub received_at: i64,
}

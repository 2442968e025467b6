//! Reading events back: a listing with filter and page, or one event by its id.

mod pages;

use std::sync::Arc;

use hyper::StatusCode;

use self::pages::{EventPage, What};
use super::{
    asked::Asked,
    connections::Connections,
    cursor::Cursors,
    errors::{ErrorCode, WarningJson, error, invalid, read_error, warning_members},
    options::RequestLimits,
    parameters::{event_type_of, lost_plus, number, parameters, tracking_code_of},
    parts::EdgeParts,
    response::{Response, chunked_json, json},
};
use crate::{
    clock::now_ms,
    event::{EventType, Faults, json as json_text, time::parse_time},
    event_id::EventIds,
    metrics::{HttpMetrics, QueryWarning},
    store::{EventFilter, Page, PageStart, Readers, Websites},
};

/// Reads events back.
pub(super) struct Query {
    limits: RequestLimits,
    readers: Readers,
    connections: Arc<Connections>,
    websites: Arc<Websites>,
    ids: EventIds,
    cursors: Cursors,
    metrics: Arc<HttpMetrics>,
}

/// What a listing's query string asks for.
#[derive(Debug, PartialEq, Eq)]
struct ListQuery {
    tracking_code: String,
    event_type: Option<EventType>,
    session_id: Option<String>,
    visitor_id: Option<String>,
    /// Milliseconds since 1970, UTC.
    from: Option<i64>,
    to: Option<i64>,
    limit: u64,
    offset: u64,
    /// As sent, not decrypted yet.
    cursor: Option<String>,
    /// Which of `from` and `to` look like seconds.
    in_seconds: Vec<&'static str>,
}

impl ListQuery {
    fn parse(query: &str, limits: &RequestLimits) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let names = ["trackingCode", "eventType", "sessionId", "visitorId", "from", "to", "limit", "offset", "cursor"];
        let [tracking_code, event_type, session_id, visitor_id, from, to, limit, offset, cursor] =
            parameters(query, names, &mut faults);
        if cursor.is_some() && offset.is_some() {
            faults.add("offset", "A cursor says where the page begins; leave one of the two out");
        }
        let limit = number("limit", limit, 1, &mut faults).unwrap_or(limits.page_events_default);
        let offset = number("offset", offset, 0, &mut faults).unwrap_or(0);
        let (from, to) = (time("from", from, &mut faults), time("to", to, &mut faults));
        let in_seconds = [("from", from), ("to", to)].into_iter().filter(|(_, time)| time.is_some_and(|(_, odd)| odd));
        let in_seconds = in_seconds.map(|(field, _)| field).collect();
        let (from, to) = (from.map(|(time, _)| time), to.map(|(time, _)| time));
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            faults.add("to", "Expected a time that is not before from");
        }
        let event_type = event_type_of(event_type, &mut faults);
        let tracking_code = tracking_code_of(tracking_code, &mut faults);
        for (field, id) in [("sessionId", &session_id), ("visitorId", &visitor_id)] {
            if id.as_ref().is_some_and(|id| id.len() > limits.id_bytes_max) {
                faults.add(field, format!("Expected 1 to {} bytes", limits.id_bytes_max));
            }
        }
        if faults.is_empty() {
            let limit = limit.min(limits.page_events_max);
            Ok(Self { tracking_code, event_type, session_id, visitor_id, from, to, limit, offset, cursor, in_seconds })
        } else {
            Err(faults)
        }
    }
}

/// A time, and whether it looks like seconds where milliseconds are meant.
fn time(field: &'static str, text: Option<String>, faults: &mut Faults) -> Option<(i64, bool)> {
    let text = text?;
    let time = parse_time(&text);
    if time.is_none() {
        let expected = "Expected RFC 3339 such as 2026-01-28T20:00:00Z, or milliseconds since 1970";
        faults.add(field, lost_plus(&text).unwrap_or(expected));
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    time.map(|time| (time, is_number && SECONDS_OF_OUR_TIME.contains(&time)))
}

/// Seconds since 1970 from the year 2000 to the year 2100. As milliseconds all of them lie in the first weeks of 1970.
const SECONDS_OF_OUR_TIME: std::ops::Range<i64> = 946_684_800..4_102_444_800;

impl Query {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self {
            limits: parts.limits,
            readers: parts.readers.clone(),
            connections: Arc::clone(&parts.connections),
            websites: Arc::clone(&parts.websites),
            ids: parts.ids.clone(),
            cursors: parts.cursors.clone(),
            metrics: Arc::clone(&parts.metrics.http),
        }
    }

    /// `GET /api/v1/events`
    pub(super) async fn list(&self, asked: Asked<'_>) -> Response {
        let query = match ListQuery::parse(asked.query(), &self.limits) {
            Ok(query) => query,
            Err(faults) => return invalid("Invalid query", &faults),
        };
        let Some(website_id) = self.websites.id_of_code(&query.tracking_code, now_ms()) else {
            return error(ErrorCode::NotFound, "Website with this tracking code not found");
        };
        let filter = EventFilter {
            website_id,
            event_type: query.event_type,
            session_id: query.session_id,
            visitor_id: query.visitor_id,
            from: query.from.unwrap_or(i64::MIN),
            to: query.to.unwrap_or(i64::MAX),
        };
        let start = match &query.cursor {
            None => PageStart::Offset(query.offset),
            Some(text) => match self.cursors.decode(text, &filter) {
                Some(place) => PageStart::After(place),
                None => return invalid("Invalid query", &unknown_cursor()),
            },
        };
        let page = Page { limit: query.limit, start };
        let (in_seconds, warned) = (query.in_seconds.len() as u64, warnings(&query.in_seconds));
        self.metrics.query_warnings(QueryWarning::TimestampLooksLikeSeconds).increment(in_seconds);
        let (websites, ids, cursors) = (Arc::clone(&self.websites), self.ids.clone(), self.cursors.clone());
        let page = EventPage {
            readers: self.readers.clone(),
            connections: Arc::clone(&self.connections),
            activity: Arc::clone(asked.body.activity()),
            what: Arc::new(What { websites, ids, cursors, filter, page, warnings: warned }),
        };
        match page.begin().await {
            Ok(chunk) => chunked_json(StatusCode::OK, chunk),
            Err(failure) => read_error(&failure),
        }
    }

    /// `GET /api/v1/events/:id`
    pub(super) async fn event(&self, asked: Asked<'_>) -> Response {
        let not_found = || error(ErrorCode::NotFound, "Event not found");
        let Some(sequence) = self.ids.decode(asked.id) else { return not_found() };
        let id = self.ids.encode(sequence);
        let websites = self.websites.clone();
        let read = self.readers.ask(move |snapshot| {
            let event = snapshot.event(sequence, |row| {
                // The events of a deleted website are gone at once, even while they are still on the disk.
                if !std::str::from_utf8(row.website_id).is_ok_and(|website| websites.get(website).is_some()) {
                    return Ok(None);
                }
                let mut out = Vec::with_capacity(768);
                json_text::write_event(&mut out, &id, row);
                Ok(Some(out))
            })?;
            Ok(event.flatten())
        });
        match read.await {
            Ok(Some(event)) => json(StatusCode::OK, event),
            Ok(None) => not_found(),
            Err(failure) => read_error(&failure),
        }
    }
}

/// What is odd about a listing's parameters, as members of its answer.
fn warnings(in_seconds: &[&str]) -> Vec<u8> {
    let warning = |field| WarningJson {
        index: None,
        field,
        code: QueryWarning::TimestampLooksLikeSeconds.as_str(),
        message: "Read as milliseconds since 1970, so as a time in early 1970; if these are seconds, multiply by 1,000",
    };
    warning_members(in_seconds.iter().copied().map(warning), 0)
}

fn unknown_cursor() -> Faults {
    let mut faults = Faults::default();
    faults.add("cursor", "Expected pagination.next of a page of this listing, with the same trackingCode and filters");
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_plus_is_told() {
        for (text, is_told) in [
            ("2026-01-28T21:30:00+01:30", true),
            ("2026-01-28+21:30:00+01:30", true),
            ("2026-01-28T21:30:00.5+01:30", true),
            ("2026-01-28+21:30:00", false),
            ("2026-01-28T21:30:00+0130", false),
            ("yesterday", false),
        ] {
            let faults = ListQuery::parse(&format!("trackingCode=pm-x&to={text}"), &RequestLimits::OF_TESTS);
            let faults = faults.map(|_| ()).unwrap_err();
            assert_eq!(faults.fields[0].1[0].contains("%2B"), is_told, "{text}: {faults:?}");
        }
    }

    #[test]
    fn what_a_listing_may_ask() {
        let query = |code: &str, event_type, limit, offset| ListQuery {
            tracking_code: code.into(),
            event_type,
            session_id: None,
            visitor_id: None,
            from: None,
            to: None,
            limit,
            offset,
            cursor: None,
            in_seconds: Vec::new(),
        };
        for (text, wanted) in [
            ("trackingCode=pm-x", Ok(query("pm-x", None, 100, 0))),
            ("trackingCode=pm%2Dx&eventType=click&other=1", Ok(query("pm-x", Some(EventType::Click), 100, 0))),
            ("limit=1000&offset=9223372036854775807&trackingCode=pm-x", Ok(query("pm-x", None, 1000, i64::MAX as u64))),
            ("limit=1001&trackingCode=pm-x", Ok(query("pm-x", None, 1000, 0))),
            (
                "trackingCode=pm-x&sessionId=a%20b&visitorId=v",
                Ok(ListQuery {
                    session_id: Some("a b".into()),
                    visitor_id: Some("v".into()),
                    ..query("pm-x", None, 100, 0)
                }),
            ),
            (
                "trackingCode=pm-x&from=1970-01-01T00:00:01Z&to=2000&cursor=x",
                Ok(ListQuery {
                    from: Some(1_000),
                    to: Some(2_000),
                    cursor: Some("x".into()),
                    ..query("pm-x", None, 100, 0)
                }),
            ),
            ("trackingCode=pm-x&from=yesterday&to=-5", Err(&["from", "to"][..])),
            ("trackingCode=pm-x&from=2&to=1", Err(&["to"])),
            ("trackingCode=pm-x&cursor=x&offset=0", Err(&["offset"])),
            (
                "trackingCode=pm-x&limit=&offset=&cursor=&eventType=&sessionId=&visitorId=&from=&to=",
                Ok(query("pm-x", None, 100, 0)),
            ),
            (
                "trackingCode=pm-x&from=1769630400&to=1769630400000",
                Ok(ListQuery {
                    from: Some(1_769_630_400),
                    to: Some(1_769_630_400_000),
                    in_seconds: vec!["from"],
                    ..query("pm-x", None, 100, 0)
                }),
            ),
            (
                "trackingCode=pm-x&from=946684799&to=4102444800",
                Ok(ListQuery { from: Some(946_684_799), to: Some(4_102_444_800), ..query("pm-x", None, 100, 0) }),
            ),
            (
                "trackingCode=pm-x&from=1970-01-12T00:00:00Z&to=1970-01-13T00:00:00Z",
                Ok(ListQuery { from: Some(950_400_000), to: Some(1_036_800_000), ..query("pm-x", None, 100, 0) }),
            ),
            ("trackingCode=pm-x&sessionId=&visitorId=v&visitorId=w", Err(&["visitorId"][..])),
            ("", Err(&["trackingCode"][..])),
            ("trackingCode=", Err(&["trackingCode"])),
            ("trackingCode=a&trackingCode=b", Err(&["trackingCode"])),
            ("trackingCode=pm-x&limit=0", Err(&["limit"])),
            ("trackingCode=pm-x&limit=-1&offset=-1", Err(&["limit", "offset"])),
            ("trackingCode=pm-x&limit=1.5&offset=%2B1", Err(&["limit", "offset"])),
            ("trackingCode=pm-x&offset=9223372036854775808", Err(&["offset"])),
            ("trackingCode=pm-x&limit=99999999999999999999", Err(&["limit"])),
            ("eventType=view&limit=x", Err(&["limit", "eventType", "trackingCode"])),
        ] {
            let found = ListQuery::parse(text, &RequestLimits::OF_TESTS);
            let found = found.map_err(|faults| faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>());
            assert_eq!(found, wanted.map_err(<[&str]>::to_vec), "{text}");
        }
    }
}

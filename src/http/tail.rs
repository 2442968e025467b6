//! Following events: an answer that goes on for as long as its client wants, with every event of a website that comes
//! after a position.
//!
//! Nothing is kept for a client but its place: a page is read when the one before it has nearly left, so one that reads
//! slowly holds next to nothing, and one that is gone goes on where it was.

mod follower;
mod form;
mod page;

use std::sync::Arc;

use hyper::{
    HeaderMap,
    header::{CACHE_CONTROL, HeaderName, HeaderValue},
};

use self::{
    follower::Follower,
    form::{FORMS, Form},
    page::What,
};
use super::{
    accept::preferred,
    asked::Asked,
    auth::{Holder, Role, Tokens},
    connections::Connections,
    cursor::Cursors,
    errors::{ErrorCode, error, invalid, retry_later},
    obstacles::Obstacles,
    parameters::{event_type_of, parameters, tracking_code_of},
    parts::EdgeParts,
    response::{Response, endless, tell_position},
    stop::Stop,
};
use crate::{
    clock::now_ms,
    event::{EventType, Faults},
    event_id::EventIds,
    store::{TailFilter, TailPlace, Tails, TooManyTails, Websites},
};

/// Lets clients follow events.
pub(super) struct TailRoute {
    tails: Tails,
    websites: Arc<Websites>,
    connections: Arc<Connections>,
    ids: EventIds,
    cursors: Cursors,
    obstacles: Arc<Obstacles>,
    stop: Arc<Stop>,
    tokens: Arc<Tokens>,
}

/// What a browser sends that goes on where it was: the last `id` that it was sent.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to keep back what belongs to an answer that does not end.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a request for a tail asks for.
#[derive(Debug, PartialEq, Eq)]
struct TailQuery {
    tracking_code: String,
    event_type: Option<EventType>,
    from: From,
}

/// Where it begins.
#[derive(Debug, PartialEq, Eq)]
enum From {
    /// With what comes from now on.
    Now,
    /// With the first event that is kept.
    Start,
    /// After this position, as sent and not decrypted yet, which stood in this field.
    Position(&'static str, String),
}

impl TailQuery {
    fn parse(query: &str, headers: &HeaderMap) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let [tracking_code, event_type, after] = parameters(query, ["trackingCode", "eventType", "after"], &mut faults);
        let event_type = event_type_of(event_type, &mut faults);
        let tracking_code = tracking_code_of(tracking_code, &mut faults);
        let from = match (last_event_id(headers, &mut faults), after) {
            // A browser asks for the address that it was given first again, and says how far it has come since.
            (Some(last), _) => From::Position("Last-Event-ID", last),
            (None, Some(after)) if after == "start" => From::Start,
            (None, Some(after)) => From::Position("after", after),
            (None, None) => From::Now,
        };
        if faults.is_empty() { Ok(Self { tracking_code, event_type, from }) } else { Err(faults) }
    }
}

/// The header, unless it is absent or empty. What is no UTF-8 is no position either.
fn last_event_id(headers: &HeaderMap, faults: &mut Faults) -> Option<String> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter().filter(|value| !value.is_empty());
    let value = values.next()?;
    if values.next().is_some() {
        faults.add("Last-Event-ID", "Given more than once");
    }
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

impl TailRoute {
    pub(super) fn new(parts: &EdgeParts, stop: &Arc<Stop>) -> Self {
        Self {
            tails: parts.tails.clone(),
            websites: Arc::clone(&parts.websites),
            connections: Arc::clone(&parts.connections),
            ids: parts.ids.clone(),
            cursors: parts.cursors.clone(),
            obstacles: Arc::clone(&parts.obstacles),
            stop: Arc::clone(stop),
            tokens: Arc::clone(&parts.tokens),
        }
    }

    /// `GET /api/v1/events/tail`
    pub(super) async fn follow(&self, asked: Asked<'_>) -> Response {
        let query = match TailQuery::parse(asked.query(), &asked.head.headers) {
            Ok(query) => query,
            Err(faults) => return invalid("Invalid query", &faults),
        };
        let Some(website_id) = self.websites.id_of_code(&query.tracking_code, now_ms()) else {
            return error(ErrorCode::NotFound, "Website with this tracking code not found");
        };
        let place = match &query.from {
            From::Now => None,
            From::Start => Some(TailPlace::start()),
            From::Position(field, text) => match self.cursors.decode_position(&website_id, text) {
                Some(place) => Some(place),
                None => return invalid("Invalid query", &unknown_position(field)),
            },
        };
        let Some(form) = preferred(&asked.head.headers, &FORMS.map(Form::media_types)).map(|at| FORMS[at]) else {
            let message = "Events are followed as text/event-stream or application/x-ndjson; Accept names neither";
            return error(ErrorCode::NotAcceptable, message);
        };
        let filter = TailFilter { website_id: Arc::clone(&website_id), event_type: query.event_type };
        let tail = match self.tails.follow(filter) {
            Ok(tail) => tail,
            Err(TooManyTails::Off) => return error(ErrorCode::Forbidden, "tails_max is 0: nobody may follow events"),
            Err(TooManyTails::Taken) => {
                let message = "As many clients follow events as may (tails_max, and half of active_connections_max); \
                               try again later";
                return retry_later(ErrorCode::Overloaded, message, self.obstacles.tails_full.meet());
            }
        };
        self.obstacles.tails_full.clear();
        // Only now: what becomes durable from now on is told to it.
        let place = place.unwrap_or_else(|| tail.now());
        let position = self.cursors.positions().encode(website_id.as_bytes(), &place);
        let (websites, ids, cursors) = (Arc::clone(&self.websites), self.ids.clone(), self.cursors.clone());
        let what = What { form, website_id, websites, ids, cursors };
        let connections = Arc::clone(&self.connections);
        let holder = Holder::new(&self.tokens, &asked.head.headers, Role::Read);
        let ends = (self.stop.told(), holder);
        let follower = Follower::new(what, tail, place, connections, asked.body.activity(), ends);
        let mut response = endless(HeaderValue::from_static(form.content_type()), follower.begin(form.head(&position)));
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        tell_position(headers, &position);
        response
    }
}

fn unknown_position(field: &'static str) -> Faults {
    let mut faults = Faults::default();
    faults.add(field, "Expected a position that this hitlog has given for this website, or in after the word start");
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tail_may_ask() {
        let query = |from| TailQuery { tracking_code: "pm-x".into(), event_type: Some(EventType::Click), from };
        let position = |field, text: &str| From::Position(field, text.into());
        for (text, last, wanted) in [
            ("trackingCode=pm-x&eventType=click", &[][..], Ok(query(From::Now))),
            ("trackingCode=pm-x&eventType=click&after=&other=1", &[""], Ok(query(From::Now))),
            ("trackingCode=pm-x&eventType=click&after=start", &[], Ok(query(From::Start))),
            ("trackingCode=pm-x&eventType=click&after=a", &[], Ok(query(position("after", "a")))),
            ("trackingCode=pm-x&eventType=click&after=a", &[""], Ok(query(position("after", "a")))),
            ("trackingCode=pm-x&eventType=click&after=a", &["b"], Ok(query(position("Last-Event-ID", "b")))),
            ("trackingCode=pm-x&eventType=click", &["start"], Ok(query(position("Last-Event-ID", "start")))),
            ("trackingCode=pm-x", &["a", "b"], Err(&["Last-Event-ID"][..])),
            ("trackingCode=pm-x&after=a&after=b", &[], Err(&["after"])),
            ("eventType=view", &[], Err(&["eventType", "trackingCode"])),
        ] {
            let mut headers = HeaderMap::new();
            for value in last {
                headers.append(LAST_EVENT_ID, value.parse().unwrap());
            }
            let found = TailQuery::parse(text, &headers);
            let found = found.map_err(|faults| faults.fields.iter().map(|(field, _)| *field).collect::<Vec<_>>());
            assert_eq!(found, wanted.map_err(<[&str]>::to_vec), "{text} {last:?}");
        }
    }
}

//! Numbers of a website, for those who look at it. What they mean is in `docs/numbers.md`.

mod answer;
mod goals;
mod live;
mod plan;
mod question;
mod series;
mod top;
mod totals;

use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH},
};

pub(super) use self::{answer::Meta, plan::shown, question::bounded};
use self::{
    plan::{Asking, Plan, Planner, Question, hash_of},
    question::{Kind, StatsQuery},
};
use super::{
    asked::Asked,
    errors::{ErrorCode, error, invalid, read_error},
    parts::EdgeParts,
    response::{Response, empty, json},
    tags::is_among,
};
use crate::{
    calendar::{Range, comparison},
    clock::now_ms,
    event::Faults,
    store::{Numbers, NumbersQuestion, ReadError, Readers, Snapshot, Websites},
    website,
};

/// Answers questions about numbers.
pub(super) struct StatsRoutes {
    readers: Readers,
    numbers: Numbers,
    websites: Arc<Websites>,
}

/// What became of it.
enum Outcome {
    /// The answer as JSON, and its tag; one that is not complete has none.
    Answer(Vec<u8>, Option<HeaderValue>),
    /// The client has it already.
    Known(HeaderValue),
    Invalid(Faults),
}

impl StatsRoutes {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self { readers: parts.readers.clone(), numbers: parts.numbers.clone(), websites: Arc::clone(&parts.websites) }
    }

    /// `GET /api/v1/stats`
    pub(super) async fn totals(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, Kind::Totals, totals::plan).await
    }

    /// `GET /api/v1/stats/series`
    pub(super) async fn series(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, Kind::Series, series::plan).await
    }

    /// `GET /api/v1/stats/top/:dimension`
    pub(super) async fn top(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, Kind::Top(asked.id), top::plan).await
    }

    /// `GET /api/v1/stats/live`
    pub(super) async fn live(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, Kind::Live, live::plan).await
    }

    /// `GET /api/v1/stats/goals`
    pub(super) async fn goals(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, Kind::Goals, goals::plan).await
    }

    async fn answer(&self, asked: &Asked<'_>, kind: Kind<'_>, planner: Planner) -> Response {
        let query = match StatsQuery::parse(asked.query(), kind) {
            Ok(query) => query,
            Err(faults) => return invalid("Invalid query", &faults),
        };
        let website = self.websites.id_of_code(&query.tracking_code, now_ms()).and_then(|id| self.websites.get(&id));
        let Some(website) = website else {
            return error(ErrorCode::NotFound, "Website with this tracking code not found");
        };
        let known_tag = asked.head.headers.get(IF_NONE_MATCH).cloned();
        let zone = query.zone.clone().unwrap_or_else(|| website::zone(&website));
        let question = Question { query, website, zone, known_tag, now_ms: now_ms() };
        let numbers = self.numbers.clone();
        let outcome = self.readers.ask(move |snapshot| question.answer(&numbers, snapshot, planner));
        match outcome.await {
            Ok(Outcome::Answer(body, tag)) => with_tag(json(StatusCode::OK, body), tag),
            Ok(Outcome::Known(tag)) => with_tag(empty(StatusCode::NOT_MODIFIED), Some(tag)),
            Ok(Outcome::Invalid(faults)) => invalid("Invalid query", &faults),
            Err(failure) => read_error(&failure),
        }
    }
}

impl Question {
    fn answer(&self, numbers: &Numbers, snapshot: &Snapshot<'_>, planner: Planner) -> Result<Outcome, ReadError> {
        let StatsQuery { when, compare, filters, with_bots, is_exact, .. } = &self.query;
        let (id, zone) = (&self.website.id, &self.zone);
        let first_event = if when.needs_first_event() { numbers.first_event(snapshot, id)? } else { None };
        let range = match when.range(zone, self.now_ms, first_event) {
            Ok(range) => range,
            Err(faults) => return Ok(Outcome::Invalid(faults)),
        };
        let earlier = comparison(&range, *compare, zone, self.now_ms).map(since_1970);
        let Plan { lists, rest, work } = match planner(self, range, earlier) {
            Ok(plan) => plan,
            Err(faults) => return Ok(Outcome::Invalid(faults)),
        };
        let question = NumbersQuestion::new(Arc::clone(id), website::own(&self.website), filters.clone());
        let question = question.with_bots(*with_bots).exactly(*is_exact);
        // What is shown of the website, too, and how its days are named.
        let shown = (self.website.updated_at, &self.website.domain, zone.name());
        let version = hash_of(&(numbers.version(snapshot, &question, &lists), rest, self.query.kind, shown));
        let tag = tag(version, self.now_ms, &range);
        if self.known_tag.as_ref().is_some_and(|known| is_among(known, &tag)) {
            return Ok(Outcome::Known(tag));
        }
        let (body, has_tag) = work(&Asking { numbers, snapshot, question }, &lists)?;
        Ok(Outcome::Answer(body, has_tag.then_some(tag)))
    }
}

/// An earlier range may begin before there are any times; nothing is before 1970 in any zone.
fn since_1970(mut earlier: Range) -> Range {
    const FIRST_MS: i64 = -24 * 60 * MINUTE_MS;
    (earlier.from, earlier.to) = (earlier.from.max(FIRST_MS), earlier.to.max(FIRST_MS));
    earlier
}

/// What an answer is known by: the events that it is of, what was asked, and what has begun or ended by now.
fn tag(version: u64, now_ms: i64, range: &Range) -> HeaderValue {
    // Until the end of the range the current bucket is partial, and the earlier range is cut at the same point.
    let minute = if now_ms < range.to { now_ms / MINUTE_MS } else { 0 };
    let text = format!("\"{version:016x}-{minute:x}\"");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// For how long an answer about a range that goes on may be taken for the same, in milliseconds.
const MINUTE_MS: i64 = 60_000;

pub(super) fn with_tag(mut response: Response, tag: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    // Of one website, for one who may see it; and never shown without being asked whether it is still so.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
    response
}

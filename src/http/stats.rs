//! Numbers of a website, for those who look at it. What they mean is in `docs/numbers.md`.

mod answer;
mod question;

use std::sync::Arc;

use self::{
    answer::{BucketNumbers, Change, Comparison, Meta, Metrics, OfRange, Series, Totals},
    question::StatsQuery,
};
use super::{
    asked::Asked,
    errors::{ErrorCode, error, invalid, read_error},
    parts::EdgeParts,
    response::{Response, empty, json},
};
use crate::{
    calendar::{Bucket, Range, buckets, buckets_like, comparison},
    clock::now_ms,
    event::Faults,
    store::{
        Numbers, NumbersQuestion, NumbersReply, Own, ReadError, Readers, Snapshot, Span, SpanNumbers, Website, Websites,
    },
};
use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH},
};

/// Most buckets of a series.
const BUCKETS_MAX: usize = 2_000;

/// Answers questions about numbers.
pub(super) struct StatsRoutes {
    readers: Readers,
    numbers: Numbers,
    websites: Arc<Websites>,
}

/// A question that can be asked.
struct Question {
    query: StatsQuery,
    website: Arc<Website>,
    /// What the client has already.
    known_tag: Option<HeaderValue>,
    now_ms: i64,
}

/// What became of it.
enum Outcome {
    /// The answer as JSON, and its tag; one that is not complete has none.
    Answer(Vec<u8>, Option<HeaderValue>),
    /// The client has it already.
    Known(HeaderValue),
    Invalid(Faults),
}

/// Makes an answer of numbers.
type Shape = Box<dyn FnOnce(&[NumbersReply]) -> serde_json::Result<Vec<u8>>>;
/// What is to be counted for a question about a range and an earlier one, and how that is shown.
type Plan = fn(&Question, Range, Option<Range>) -> Result<(Vec<Vec<Span>>, Shape), Faults>;

impl StatsRoutes {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self { readers: parts.readers.clone(), numbers: parts.numbers.clone(), websites: Arc::clone(&parts.websites) }
    }

    /// `GET /api/v1/stats`
    pub(super) async fn totals(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, false, plan_totals).await
    }

    /// `GET /api/v1/stats/series`
    pub(super) async fn series(&self, asked: Asked<'_>) -> Response {
        self.answer(&asked, true, plan_series).await
    }

    async fn answer(&self, asked: &Asked<'_>, has_interval: bool, plan: Plan) -> Response {
        let query = match StatsQuery::parse(asked.query(), has_interval) {
            Ok(query) => query,
            Err(faults) => return invalid("Invalid query", &faults),
        };
        let website = self.websites.id_of_code(&query.tracking_code).and_then(|id| self.websites.get(&id));
        let Some(website) = website else {
            return error(ErrorCode::NotFound, "Website with this tracking code not found");
        };
        let known_tag = asked.head.headers.get(IF_NONE_MATCH).cloned();
        let question = Question { query, website, known_tag, now_ms: now_ms() };
        let numbers = self.numbers.clone();
        let outcome = self.readers.ask(move |snapshot| question.answer(&numbers, snapshot, plan));
        match outcome.await {
            Ok(Outcome::Answer(body, tag)) => with_tag(json(StatusCode::OK, body), tag),
            Ok(Outcome::Known(tag)) => with_tag(empty(StatusCode::NOT_MODIFIED), Some(tag)),
            Ok(Outcome::Invalid(faults)) => invalid("Invalid query", &faults),
            Err(failure) => read_error(&failure),
        }
    }
}

impl Question {
    fn answer(&self, numbers: &Numbers, snapshot: &Snapshot<'_>, plan: Plan) -> Result<Outcome, ReadError> {
        let StatsQuery { zone, when, compare, filters, with_bots, is_exact, .. } = &self.query;
        let id = &self.website.id;
        let first_event = if when.needs_first_event() { numbers.first_event(snapshot, id)? } else { None };
        let range = when.range(zone, self.now_ms, first_event);
        let earlier = comparison(&range, *compare, zone, self.now_ms).map(since_1970);
        let (lists, shape) = match plan(self, range, earlier) {
            Ok(plan) => plan,
            Err(faults) => return Ok(Outcome::Invalid(faults)),
        };
        let asked = NumbersQuestion::new(Arc::clone(id), own(&self.website), filters.clone());
        let asked = asked.with_bots(*with_bots).exactly(*is_exact);
        let tag = tag(numbers.version(snapshot, &asked, &lists), self.now_ms, &range);
        if self.known_tag.as_ref().is_some_and(|known| is_among(known, &tag)) {
            return Ok(Outcome::Known(tag));
        }
        let replies = numbers.ask(snapshot, &asked, &lists)?;
        let is_complete = replies.iter().all(|reply| reply.is_complete);
        let body = shape(&replies).map_err(|failure| ReadError::Keys(Box::new(failure)))?;
        Ok(Outcome::Answer(body, is_complete.then_some(tag)))
    }
}

/// An earlier range may begin before there are any times; nothing is before 1970 in any zone.
fn since_1970(mut earlier: Range) -> Range {
    const FIRST_MS: i64 = -24 * 60 * MINUTE_MS;
    (earlier.from, earlier.to) = (earlier.from.max(FIRST_MS), earlier.to.max(FIRST_MS));
    earlier
}

/// What the website is to referrers and pages.
fn own(website: &Website) -> Own {
    let domain = website.domain.strip_prefix("www.").unwrap_or(&website.domain);
    Own { hosts: [domain.to_owned()].into(), has_several: false }
}

fn plan_totals(question: &Question, range: Range, earlier: Option<Range>) -> Result<(Vec<Vec<Span>>, Shape), Faults> {
    let span = |range: &Range| Span { from: range.from, to: range.to };
    let lists = vec![vec![span(&range)], earlier.iter().map(span).collect()];
    let (zone, website) = (question.query.zone.clone(), Arc::clone(&question.website));
    let shape = move |replies: &[NumbersReply]| {
        let meta = Meta::of(replies.iter());
        let mut metrics = replies.iter().flat_map(|reply| &reply.spans).map(Metrics::from);
        let metrics_now = metrics.next().unwrap_or_else(|| Metrics::from(&SpanNumbers::default()));
        let comparison = earlier.zip(metrics.next()).map(|(range, then)| Comparison {
            range: OfRange::new(&range, &zone),
            metrics: then,
            change: Change::between(&metrics_now, &then),
        });
        let range = OfRange::new(&range, &zone);
        let website = website.as_ref().into();
        serde_json::to_vec(&Totals { website, range, metrics: metrics_now, comparison, meta })
    };
    Ok((lists, Box::new(shape)))
}

fn plan_series(question: &Question, range: Range, earlier: Option<Range>) -> Result<(Vec<Vec<Span>>, Shape), Faults> {
    let (zone, now_ms) = (question.query.zone.clone(), question.now_ms);
    let interval = question.query.interval.of(&range);
    let Ok(series) = buckets(&range, interval, &zone, now_ms, BUCKETS_MAX) else {
        let mut faults = Faults::default();
        let too_many =
            format!("The range has more than {BUCKETS_MAX} of them; ask for longer ones, or a shorter range");
        faults.add("interval", too_many);
        return Err(faults);
    };
    let earlier = earlier.map(|earlier| buckets_like(&series, &earlier, interval, &zone, now_ms));
    let span = |bucket: &Bucket| Span { from: bucket.from, to: bucket.to };
    let of_earlier = earlier.iter().flatten().flatten().map(span).collect();
    let lists = vec![series.iter().map(span).collect(), of_earlier];
    let shape = move |replies: &[NumbersReply]| {
        let meta = Meta::of(replies.iter());
        let mut numbers = replies.iter().map(|reply| reply.spans.iter());
        let (mut now, mut then) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let series = series.into_iter().zip(now.by_ref()).map(|(bucket, of)| BucketNumbers::new(bucket, of)).collect();
        let comparison = earlier.map(|buckets| {
            let shown = |bucket: Option<Bucket>| {
                bucket.and_then(|bucket| then.next().map(|numbers| BucketNumbers::new(bucket, numbers)))
            };
            buckets.into_iter().map(shown).collect()
        });
        let range = OfRange::new(&range, &zone);
        serde_json::to_vec(&Series { range, interval: interval.as_str(), series, comparison, meta })
    };
    Ok((lists, Box::new(shape)))
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

/// Whether a tag is one of those that a client has.
fn is_among(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn with_tag(mut response: Response, tag: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    // Of one website, for one who may see it; and never shown without being asked whether it is still so.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
    response
}

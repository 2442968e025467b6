//! Taking events in: body, parse, queue, receipt, response.
//!
//! Counts what is received and what is refused before the queue; from the queue on, the queue counts. Together they
//! keep the law of conservation.

mod counted;

use std::sync::Arc;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{HeaderName, HeaderValue},
};

use super::{
    access,
    activity::Activity,
    asked::Asked,
    auth::{Role, Tokens},
    body::{Bodies, BodyBytes, BodyError},
    cursor::{Cursors, PositionText},
    errors::{ErrorCode, body_error, commit_error, error, event_warnings, item_errors, overloaded, rejection},
    heavy::Turn,
    idempotency_key::idempotency_key,
    memory::{Holding, SharedMemory},
    parts::EdgeParts,
    pixel,
    response::{self, Response, held_json, overloaded_by_answers, tell_position},
    senders::{Senders, anonymous_id},
};
use crate::{
    budget::OverBudget,
    clock::now_ms,
    event::{self, Arrival, Naming, ParsedBatch, Rejection, Repeat, Rules, ValidEvents, Warnings, json as json_text},
    event_id::EventIds,
    metrics::{EventMetrics, Rejected, Shed},
    queue::{Overloaded, Queue, Stored},
    store::{KnownIds, ReadError, Readers, TailPlace, Websites},
};

/// Takes events in.
pub(super) struct Ingest {
    rules: Rules,
    errors_detailed_max: usize,
    bodies: Arc<Bodies>,
    answers: SharedMemory,
    queue: Queue,
    websites: Arc<Websites>,
    readers: Readers,
    known_ids: KnownIds,
    senders: Senders,
    ids: EventIds,
    cursors: Cursors,
    tokens: Arc<Tokens>,
    metrics: Arc<EventMetrics>,
}

impl Ingest {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self {
            rules: parts.rules.clone(),
            errors_detailed_max: parts.limits.errors_detailed_max,
            bodies: Arc::clone(&parts.bodies),
            answers: parts.answers.clone(),
            queue: parts.queue.clone(),
            websites: Arc::clone(&parts.websites),
            readers: parts.readers.clone(),
            known_ids: parts.known_ids.clone(),
            senders: Senders::new(parts),
            ids: parts.ids.clone(),
            cursors: parts.cursors.clone(),
            tokens: Arc::clone(&parts.tokens),
            metrics: Arc::clone(&parts.metrics.events),
        }
    }

    /// `POST /api/v1/events`
    pub(super) fn event(&self, asked: Asked<'_>) -> impl Future<Output = Response> {
        self.one(Form::Event, asked)
    }

    /// `POST /api/v1/track`
    pub(super) fn beacon(&self, asked: Asked<'_>) -> impl Future<Output = Response> {
        self.one(Form::Beacon, asked)
    }

    /// `GET /pixel.gif`. Who asks for the head alone does not show it.
    pub(super) async fn pixel(&self, asked: Asked<'_>) -> Response {
        if asked.head.method == Method::HEAD { pixel::picture() } else { self.one(Form::Pixel, asked).await }
    }

    async fn one(&self, form: Form, mut asked: Asked<'_>) -> Response {
        let (bytes, mut reading) = match self.read_one(form, &mut asked).await {
            Ok(read) => read.into_parts(),
            Err(refusal) => return refusal,
        };
        // Not named before it is taken apart: what has a name stays in the future, which every request takes room for.
        let (mut events, warnings) = match self.parse_event(form.naming(), bytes, &asked.head.headers) {
            Ok(parsed) => parsed,
            Err(fault) => return self.reject_whole("event", &fault),
        };
        self.senders.fill_in(&mut events, asked.body.activity().peer, &asked.head.headers);
        let warned = event_warnings(&warnings, false);
        // A beacon is answered without a body, but refused with one.
        let bytes_max = events.rows().map(|row| json_text::event_bytes_max(&row)).sum::<usize>() + warned.len();
        let put_aside = self.put_aside(&mut events, bytes_max, &mut reading, asked.body.activity()).await;
        // Counted only when nothing is waited for before it is counted on: who leaves earlier was never received.
        self.metrics.events_received.increment(1);
        let held = match put_aside {
            Ok(held) => held,
            Err(refusal) => return self.refuse(&events, refusal),
        };
        match self.commit(events, reading).await {
            Ok(stored) => {
                counted::stored(&self.metrics, &stored, &warnings);
                let may_read = access::may_get(&self.tokens, asked.head, Role::Read);
                let response = match form {
                    Form::Event => {
                        self.event_response(&stored, may_read, &warned, (Vec::with_capacity(bytes_max), held))
                    }
                    Form::Beacon => response::empty(StatusCode::NO_CONTENT),
                    Form::Pixel => pixel::picture(),
                };
                self.tell_stored(response, &stored, may_read)
            }
            Err(refusal) => response::held(refusal, held),
        }
    }

    /// `POST /api/v1/events/batch`
    pub(super) async fn batch(&self, mut asked: Asked<'_>) -> Response {
        let read = match self.read_body(&mut asked).await {
            Ok(read) => read,
            Err(refusal) => return refusal,
        };
        let turn = if read.is_inflated() { Turn::Last } else { Turn::First };
        let (bytes, mut reading) = read.into_parts();
        let arrival = match self.arrival(&asked.head.headers) {
            Ok(arrival) => arrival,
            Err(fault) => return self.reject_whole("batch", &fault),
        };
        let batch = match self.parse_batch(bytes, arrival, turn).await {
            Some(Ok(batch)) => batch,
            Some(Err(fault)) => return self.reject_whole("batch", &fault),
            None => return error(ErrorCode::InternalError, "The batch could not be read; see hitlog's log"),
        };
        let ParsedBatch { mut events, refused, warnings } = batch;
        // Everything that can be written before the commit is, so that the memory of the answer is known, and the
        // faults themselves are gone: they take more.
        let errors = item_errors(&refused, self.errors_detailed_max);
        let reasons: Vec<Rejected> = refused.iter().map(|(_, fault)| counted::reason_of(fault)).collect();
        drop(refused);
        self.senders.fill_in(&mut events, asked.body.activity().peer, &asked.head.headers);
        let warned = event_warnings(&warnings, true);
        let summaries: usize = events.rows().map(|row| json_text::event_summary_bytes_max(&row)).sum();
        let bytes_max = BATCH_FRAME_BYTES + summaries + errors.len() + warned.len();
        let answer_bytes = bytes_max + errors.capacity() + warned.capacity();
        let put_aside = self.put_aside(&mut events, answer_bytes, &mut reading, asked.body.activity()).await;
        self.metrics.events_received.increment((events.len() + reasons.len()) as u64);
        for reason in &reasons {
            counted::rejected(&self.metrics, *reason);
        }
        let held = match put_aside {
            Ok(held) => held,
            Err(refusal) => return self.refuse(&events, refusal),
        };
        let stored = if events.is_empty() {
            None
        } else {
            match self.commit(events, reading).await {
                Ok(stored) => Some(stored),
                Err(refusal) => return response::held(refusal, held),
            }
        };
        if let Some(stored) = &stored {
            counted::stored(&self.metrics, stored, &warnings);
        }
        let faults = Faults { count: reasons.len(), errors: &errors, warnings: &warned };
        let response = self.batch_response(stored.as_ref(), &faults, (Vec::with_capacity(bytes_max), held));
        match stored {
            Some(stored) => self.tell_stored(response, &stored, access::may_get(&self.tokens, asked.head, Role::Read)),
            None => response,
        }
    }

    async fn read_body(&self, asked: &mut Asked<'_>) -> Result<BodyBytes, Response> {
        asked.read_body(event::BODY_PADDING, &self.bodies).await.map_err(|failure| self.refuse_unread(&failure))
    }

    async fn read_one(&self, form: Form, asked: &mut Asked<'_>) -> Result<BodyBytes, Response> {
        match form {
            Form::Event | Form::Beacon => self.read_body(asked).await,
            // In a box, so that events in bodies take no room for it.
            Form::Pixel => Box::pin(self.read_query(asked)).await,
        }
    }

    /// The event that stands in a query.
    async fn read_query(&self, asked: &Asked<'_>) -> Result<BodyBytes, Response> {
        let beacon = pixel::beacon(asked.query(), &asked.head.headers);
        if beacon.len() > asked.body_bytes_max {
            return Err(self.refuse_unread(&BodyError::TooLarge(asked.body_bytes_max)));
        }
        let read = self.bodies.of_head(&beacon, event::BODY_PADDING).await;
        read.map_err(|failure| self.refuse_unread(&failure))
    }

    /// Refuses a body that was not read.
    fn refuse_unread(&self, failure: &BodyError) -> Response {
        // Nobody knows how many events a body held that was not read: it counts as one.
        let metrics = &self.metrics;
        metrics.events_received.increment(1);
        match failure {
            BodyError::TooLarge(_) => metrics.events_rejected(Rejected::TooLarge),
            BodyError::Timeout => metrics.events_rejected(Rejected::Timeout),
            BodyError::Encoding => metrics.events_rejected(Rejected::Encoding),
            BodyError::BrokenOff => metrics.events_rejected(Rejected::BrokenOff),
            BodyError::Damaged(_) => metrics.events_rejected(Rejected::Malformed),
            BodyError::Memory => metrics.events_shed(Shed::BodyMemory),
        }
        .increment(1);
        body_error(failure, self.queue.retry_after())
    }

    /// Counts a body that was read and refused as a whole as one event, received and rejected.
    fn reject_whole(&self, what: &str, fault: &Rejection) -> Response {
        self.metrics.events_received.increment(1);
        counted::rejected(&self.metrics, counted::reason_of(fault));
        rejection(what, fault)
    }

    /// What is known of a request that is here, beside its body.
    fn arrival(&self, headers: &HeaderMap) -> Result<Arrival, Rejection> {
        let idempotency_key = idempotency_key(headers).map_err(Rejection::Invalid)?;
        let (gpc, ids) = (anonymous_id(headers), Some(self.known_ids.hasher()));
        Ok(Arrival { received_at: now_ms(), idempotency_key, gpc, ids })
    }

    fn parse_event(
        &self,
        naming: Naming,
        bytes: Vec<u8>,
        headers: &HeaderMap,
    ) -> Result<(ValidEvents, Warnings), Rejection> {
        let arrival = self.arrival(headers)?;
        let intake = |code: &str| self.websites.intake_of_code(code, arrival.received_at);
        event::parse_named_event(naming, bytes, &self.rules, &arrival, intake)
    }

    /// Parses a batch, a large one on another thread. `None` if that panicked.
    async fn parse_batch(
        &self,
        bytes: Vec<u8>,
        arrival: Arrival,
        turn: Turn,
    ) -> Option<Result<ParsedBatch, Rejection>> {
        if bytes.len() <= HEAVY_BATCH_BYTES && turn == Turn::First {
            let intake = |code: &str| self.websites.intake_of_code(code, arrival.received_at);
            return Some(event::parse_batch(bytes, &self.rules, &arrival, intake));
        }
        let (rules, websites, mut bytes) = (self.rules.clone(), Arc::clone(&self.websites), Some(bytes));
        let parse = move || {
            let intake = |code: &str| websites.intake_of_code(code, arrival.received_at);
            Some(event::parse_batch(bytes.take()?, &rules, &arrival, intake))
        };
        self.bodies.heavy.run(turn, parse).await
    }

    /// Counts what `events` hold beside the body that they were read from, puts the memory of their answer aside, and
    /// looks for them among those that are stored, before they are queued: afterwards nothing is refused.
    async fn put_aside(
        &self,
        events: &mut ValidEvents,
        answer_bytes_max: usize,
        reading: &mut Holding,
        activity: &Arc<Activity>,
    ) -> Result<Holding, Shed> {
        let mut held = self.answers.hold();
        held.is_held_by(activity);
        // It is there already, so that it is not kept while others are waited for.
        if reading.grow_to(events.bytes()).is_err() {
            return Err(Shed::BodyMemory);
        }
        held.grow_in_time(answer_bytes_max).await.map_err(|OverBudget| Shed::AnswerMemory)?;
        if !events.id_hashes().is_empty() {
            // In a box, so that events without a name take no room for it.
            Box::pin(self.look_up(events)).await?;
            reading.grow_to(events.bytes()).map_err(|_| Shed::BodyMemory)?;
        }
        Ok(held)
    }

    /// Looks for `events` among those that are stored.
    async fn look_up(&self, events: &mut ValidEvents) -> Result<(), Shed> {
        let looked_up = self.known_ids.look_up(&self.readers, events).await;
        events.note_looked_up(looked_up.map_err(|failure| {
            if !matches!(failure, ReadError::Refused(_) | ReadError::Stopped) {
                tracing::error!(error = %failure, "it could not be looked up whether events are stored already");
            }
            Shed::LookUp
        })?);
        Ok(())
    }

    /// Refuses events for which there is no memory, or which could not be looked up.
    fn refuse(&self, events: &ValidEvents, reason: Shed) -> Response {
        self.metrics.events_shed(reason).increment(events.len() as u64);
        match reason {
            Shed::AnswerMemory => overloaded_by_answers(),
            reason => overloaded(Overloaded { reason, retry_after: self.queue.retry_after() }),
        }
    }

    /// Commits events whose memory has counted as a body's until the queue counts it.
    fn commit(&self, events: ValidEvents, reading: Holding) -> impl Future<Output = Result<Stored, Response>> {
        let queued = self.queue.try_append(events).map_err(overloaded);
        drop(reading);
        // While the commit is waited for nothing else is held.
        async move { queued?.await.map_err(|failure| commit_error(failure, self.queue.retry_after())) }
    }

    /// The event as it is stored, to who may read it; else without the ids that hitlog has made.
    fn event_response(
        &self,
        stored: &Stored,
        may_read: bool,
        warned: &[u8],
        (mut out, held): (Vec<u8>, Holding),
    ) -> Response {
        let write = |id: &[u8], row: &event::EventRow<'_>| json_text::write_event(&mut out, id, row);
        if may_read {
            self.for_each_stored(stored, stored.events.rows(), write);
        } else {
            self.for_each_stored(stored, stored.events.rows_without_ids(), write);
        }
        if !warned.is_empty() {
            // Within the braces of the event.
            out.pop();
            out.extend_from_slice(warned);
            out.push(b'}');
        }
        held_json(StatusCode::CREATED, out, held)
    }

    fn batch_response(
        &self,
        stored: Option<&Stored>,
        faults: &Faults<'_>,
        (mut out, held): (Vec<u8>, Holding),
    ) -> Response {
        let created = stored.map_or(0, |stored| stored.receipt.count);
        out.extend_from_slice(if faults.count == 0 { b"{\"success\":true" } else { b"{\"success\":false" });
        out.extend_from_slice(b",\"eventsCreated\":");
        json_text::write_integer(&mut out, created);
        out.extend_from_slice(b",\"events\":[");
        if let Some(stored) = stored {
            let mut first = true;
            self.for_each_stored(stored, stored.events.rows(), |id, row| {
                separate(&mut out, &mut first);
                json_text::write_event_summary(&mut out, id, row);
            });
        }
        out.push(b']');
        let message = if faults.count == 0 {
            format!("Successfully created {created} events")
        } else {
            out.extend_from_slice(faults.errors);
            format!("Created {created} events with {} errors", faults.count)
        };
        out.extend_from_slice(faults.warnings);
        out.extend_from_slice(b",\"message\":");
        json_text::write_string(&mut out, message.as_bytes());
        out.push(b'}');
        let status = if faults.count == 0 { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
        held_json(status, out, held)
    }

    /// Says in the head of an answer what was stored: whether all of it was already, and the position of its last
    /// event. That only to who could follow events: a tracker must not learn how much arrives.
    fn tell_stored(&self, mut response: Response, stored: &Stored, may_read: bool) -> Response {
        let headers = response.headers_mut();
        if stored.receipt.repeats.len() == stored.receipt.count {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        if may_read && let Some(position) = self.position_of_last(stored) {
            tell_position(headers, &position);
        }
        response
    }

    /// The position of the last event of a request.
    fn position_of_last(&self, Stored { receipt, events, .. }: &Stored) -> Option<PositionText> {
        let last = events.rows().next_back()?;
        let place = match receipt.repeats.last() {
            // When it arrived is not known any more, but that it had by now.
            Some(Repeat { index, original }) if index + 1 == receipt.count => {
                TailPlace::at(original.sequence, last.received_at)
            }
            _ => {
                let new = (receipt.count - receipt.repeats.len()) as u64;
                TailPlace::at((receipt.first_sequence + new).saturating_sub(1), last.received_at)
            }
        };
        Some(self.cursors.positions().encode(last.website_id, &place))
    }

    /// Goes through the events of a request as they are stored: with the id and the time of the first one, where one
    /// was stored already.
    fn for_each_stored<'e>(
        &self,
        stored: &Stored,
        rows: impl Iterator<Item = event::EventRow<'e>>,
        mut write: impl FnMut(&[u8], &event::EventRow<'_>),
    ) {
        let mut repeats = stored.receipt.repeats.iter().peekable();
        let mut sequences = stored.receipt.first_sequence..;
        for (index, row) in rows.enumerate() {
            if let Some(Repeat { original, .. }) = repeats.next_if(|repeat| repeat.index == index) {
                let row = event::EventRow { created_at: original.created_at, ..row };
                write(&self.ids.encode(original.sequence), &row);
            } else if let Some(sequence) = sequences.next() {
                write(&self.ids.encode(sequence), &row);
            }
        }
    }
}

/// How a single event comes, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Answered with the event.
    Event,
    /// Answered with nothing.
    Beacon,
    /// Answered with a picture.
    Pixel,
}

impl Form {
    fn naming(self) -> Naming {
        match self {
            Self::Event => Naming::Own,
            Self::Beacon | Self::Pixel => Naming::Beacon,
        }
    }
}

/// What a request is answered with all of whose stored events were stored already.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a batch's answer has beside the events and the errors, at most, in bytes.
const BATCH_FRAME_BYTES: usize = 256;

/// A batch above this size is parsed on another thread: up to it that takes some milliseconds, however odd it is. One
/// that was sent for next to nothing is parsed there in any case, after all others.
const HEAVY_BATCH_BYTES: usize = 256 * 1024;

/// What is wrong or odd about a batch, as its answer says it.
struct Faults<'a> {
    /// How many items were refused.
    count: usize,
    /// The member `errors`, written, or nothing.
    errors: &'a [u8],
    /// The member `warnings`, written, or nothing.
    warnings: &'a [u8],
}

fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that mimalloc finds without a search, in bytes (`MI_SMALL_SIZE_MAX` of `mimalloc.h`).
    const AT_HAND_BYTES_MAX: usize = 1_024;

    #[test]
    fn an_event_takes_no_more_room_than_there_is_at_hand() {
        fn bytes_of<'a, F: Future>(_: impl FnOnce(&'a Ingest, Asked<'a>) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = bytes_of(Ingest::event);
        assert!(bytes <= AT_HAND_BYTES_MAX, "{bytes} bytes: put what is rarely waited for in a box");
    }
}

//! Taking events in: body, parse, queue, receipt, response.
//!
//! Counts what is received and what is refused before the queue; from the queue on, the queue counts. Together they
//! keep the law of conservation.

use std::sync::Arc;

use hyper::{HeaderMap, StatusCode};

use super::{
    activity::Activity,
    body::{BodyBytes, BodyError, InboundBody},
    context::Context,
    heavy::Turn,
    memory::Holding,
    response::{
        self, ErrorCode, Response, commit_error, error, held_json, overloaded, overloaded_by_answers, rejection,
        write_item_error, write_warnings,
    },
};
use crate::{
    budget::OverBudget,
    clock::now_ms,
    event::{self, ParsedBatch, Rejection, ValidEvents, WarningCode, Warnings, json as json_text},
    metrics::{Rejected, Shed, Warned},
    queue::{Overloaded, Stored},
};

/// `POST /api/v1/events`
pub(super) async fn event(context: &Context, headers: &HeaderMap, body: &mut InboundBody) -> Response {
    let (bytes, mut reading) = match read_body(context, headers, body, context.limits.event_bytes_max).await {
        Ok(read) => read.into_parts(),
        Err(refusal) => return refusal,
    };
    let parsed = event::parse_event(bytes, &context.rules, now_ms(), |code| context.websites.id_of_code(code));
    let (events, warnings) = match parsed {
        Ok(parsed) => parsed,
        Err(fault) => return reject_whole(context, "event", &fault),
    };
    let mut warned = Vec::new();
    write_warnings(&mut warned, &warnings, false);
    let bytes_max = events.rows().map(|row| json_text::event_bytes_max(&row)).sum::<usize>() + warned.len();
    let put_aside = put_aside(context, &events, bytes_max, &mut reading, body.activity()).await;
    // Counted only when nothing is waited for before it is counted on: who leaves earlier was never received.
    context.metrics.events.events_received.increment(1);
    let held = match put_aside {
        Ok(held) => held,
        Err(refusal) => return refuse(context, &events, refusal),
    };
    match commit(context, events, reading).await {
        Ok(stored) => {
            count_warnings(context, &warnings);
            let mut out = Vec::with_capacity(bytes_max);
            for_each_stored(context, &stored, |id, row| json_text::write_event(&mut out, id, row));
            if !warned.is_empty() {
                // Within the braces of the event.
                out.pop();
                out.extend_from_slice(&warned);
                out.push(b'}');
            }
            held_json(StatusCode::CREATED, out, held)
        }
        Err(refusal) => response::held(refusal, held),
    }
}

/// `POST /api/v1/events/batch`
pub(super) async fn batch(context: &Context, headers: &HeaderMap, body: &mut InboundBody) -> Response {
    let read = match read_body(context, headers, body, context.limits.batch_bytes_max).await {
        Ok(read) => read,
        Err(refusal) => return refusal,
    };
    let turn = if read.is_inflated() { Turn::Last } else { Turn::First };
    let (bytes, mut reading) = read.into_parts();
    let batch = match parse_batch(context, bytes, turn).await {
        Some(Ok(batch)) => batch,
        Some(Err(fault)) => return reject_whole(context, "batch", &fault),
        None => return error(ErrorCode::InternalError, "The batch could not be read; see hitlog's log"),
    };
    let ParsedBatch { events, refused, warnings } = batch;
    // Everything that can be written before the commit is, so that the memory of the answer is known, and the faults
    // themselves are gone: they take more.
    let errors = write_refused(&refused, context.limits.errors_detailed_max);
    let reasons: Vec<Rejected> = refused.iter().map(|(_, fault)| reason_of(fault)).collect();
    drop(refused);
    let mut warned = Vec::new();
    write_warnings(&mut warned, &warnings, true);
    let summaries: usize = events.rows().map(|row| json_text::event_summary_bytes_max(&row)).sum();
    let bytes_max = BATCH_FRAME_BYTES + summaries + errors.len() + warned.len();
    let answer_bytes = bytes_max + errors.capacity() + warned.capacity();
    let put_aside = put_aside(context, &events, answer_bytes, &mut reading, body.activity()).await;
    context.metrics.events.events_received.increment((events.len() + reasons.len()) as u64);
    for reason in &reasons {
        context.metrics.events.events_rejected(*reason).increment(1);
    }
    let held = match put_aside {
        Ok(held) => held,
        Err(refusal) => return refuse(context, &events, refusal),
    };
    let stored = if events.is_empty() {
        None
    } else {
        match commit(context, events, reading).await {
            Ok(stored) => Some(stored),
            Err(refusal) => return response::held(refusal, held),
        }
    };
    count_warnings(context, &warnings);
    let faults = Faults { count: reasons.len(), errors: &errors, warnings: &warned };
    batch_response(context, stored.as_ref(), &faults, (Vec::with_capacity(bytes_max), held))
}

/// What a batch's answer has beside the events and the errors, at most, in bytes.
const BATCH_FRAME_BYTES: usize = 256;

/// Parses a batch, a large one on another thread. `None` if that panicked.
async fn parse_batch(context: &Context, bytes: Vec<u8>, turn: Turn) -> Option<Result<ParsedBatch, Rejection>> {
    let received_at = now_ms();
    if bytes.len() <= HEAVY_BATCH_BYTES && turn == Turn::First {
        let id_of_code = |code: &str| context.websites.id_of_code(code);
        return Some(event::parse_batch(bytes, &context.rules, received_at, id_of_code));
    }
    let (rules, websites, mut bytes) = (context.rules.clone(), Arc::clone(&context.websites), Some(bytes));
    let parse = move || Some(event::parse_batch(bytes.take()?, &rules, received_at, |code| websites.id_of_code(code)));
    context.bodies.heavy.run(turn, parse).await
}

/// A batch above this size is parsed on another thread: up to it that takes some milliseconds, however odd it is. One
/// that was sent for next to nothing is parsed there in any case, after all others.
const HEAVY_BATCH_BYTES: usize = 256 * 1024;

/// Counts what `events` hold beside the body that they were read from, and puts the memory of their answer aside,
/// before they are queued: afterwards nothing is refused.
async fn put_aside(
    context: &Context,
    events: &ValidEvents,
    answer_bytes_max: usize,
    reading: &mut Holding,
    activity: &Arc<Activity>,
) -> Result<Holding, Shed> {
    let mut held = context.answers.hold();
    held.is_held_by(activity);
    // It is there already, so that it is not kept while others are waited for.
    if reading.grow_to(events.bytes()).is_err() {
        return Err(Shed::BodyMemory);
    }
    held.grow_in_time(answer_bytes_max).await.map_err(|OverBudget| Shed::AnswerMemory)?;
    Ok(held)
}

/// Refuses events for which there is no memory.
fn refuse(context: &Context, events: &ValidEvents, reason: Shed) -> Response {
    context.metrics.events.events_shed(reason).increment(events.len() as u64);
    match reason {
        Shed::AnswerMemory => overloaded_by_answers(),
        _ => body_error(context, &BodyError::Memory),
    }
}

/// What is wrong or odd about a batch, as its answer says it.
struct Faults<'a> {
    /// How many items were refused.
    count: usize,
    /// The items of `errors`, written.
    errors: &'a [u8],
    /// The member `warnings`, written, or nothing.
    warnings: &'a [u8],
}

fn write_refused(refused: &[(usize, Rejection)], detailed_max: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first = true;
    for (at, (index, fault)) in refused.iter().enumerate() {
        separate(&mut out, &mut first);
        write_item_error(&mut out, *index, fault, at < detailed_max);
    }
    out
}

fn batch_response(
    context: &Context,
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
        for_each_stored(context, stored, |id, row| {
            separate(&mut out, &mut first);
            json_text::write_event_summary(&mut out, id, row);
        });
    }
    out.push(b']');
    let message = if faults.count == 0 {
        format!("Successfully created {created} events")
    } else {
        out.extend_from_slice(b",\"errors\":[");
        out.extend_from_slice(faults.errors);
        out.push(b']');
        format!("Created {created} events with {} errors", faults.count)
    };
    out.extend_from_slice(faults.warnings);
    out.extend_from_slice(b",\"message\":");
    json_text::write_string(&mut out, message.as_bytes());
    out.push(b'}');
    held_json(if faults.count == 0 { StatusCode::CREATED } else { StatusCode::MULTI_STATUS }, out, held)
}

fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

async fn read_body(
    context: &Context,
    headers: &HeaderMap,
    body: &mut InboundBody,
    bytes_max: usize,
) -> Result<BodyBytes, Response> {
    let failure = match body.read(headers, bytes_max, event::BODY_PADDING, &context.bodies).await {
        Ok(body) => return Ok(body),
        Err(failure) => failure,
    };
    // Nobody knows how many events a body held that was not read: it counts as one.
    let metrics = &context.metrics.events;
    metrics.events_received.increment(1);
    match &failure {
        BodyError::TooLarge(_) => metrics.events_rejected(Rejected::TooLarge),
        BodyError::Timeout => metrics.events_rejected(Rejected::Timeout),
        BodyError::Encoding => metrics.events_rejected(Rejected::Encoding),
        BodyError::Damaged(_) => metrics.events_rejected(Rejected::Malformed),
        BodyError::Memory => metrics.events_shed(Shed::BodyMemory),
    }
    .increment(1);
    Err(body_error(context, &failure))
}

/// The response for a body that was not read, on any route.
pub(super) fn body_error(context: &Context, failure: &BodyError) -> Response {
    match failure {
        BodyError::TooLarge(bytes_max) => error(
            ErrorCode::PayloadTooLarge,
            &format!("The body is larger than {bytes_max} bytes (after decompression); send less at once"),
        ),
        BodyError::Timeout => error(ErrorCode::RequestTimeout, "The body came too slowly; nothing of it is stored"),
        BodyError::Encoding => {
            error(ErrorCode::UnsupportedEncoding, "Content-Encoding may be gzip, deflate, br or zstd, one at most")
        }
        BodyError::Damaged(what) => error(ErrorCode::MalformedJson, &format!("The body cannot be read: {what}")),
        BodyError::Memory => {
            overloaded(Overloaded { reason: Shed::BodyMemory, retry_after: context.queue.retry_after() })
        }
    }
}

/// Counts a body that was read and refused as a whole as one event, received and rejected.
fn reject_whole(context: &Context, what: &str, fault: &Rejection) -> Response {
    context.metrics.events.events_received.increment(1);
    context.metrics.events.events_rejected(reason_of(fault)).increment(1);
    rejection(what, fault)
}

fn reason_of(fault: &Rejection) -> Rejected {
    match fault {
        Rejection::Malformed(_) => Rejected::Malformed,
        Rejection::Invalid(_) => Rejected::Invalid,
        Rejection::UnknownWebsite(_) => Rejected::UnknownWebsite,
    }
}

/// Counts what is odd about events that are stored.
fn count_warnings(context: &Context, warnings: &Warnings) {
    let metrics = &context.metrics.events;
    for (code, count) in warnings.counts() {
        let label = match code {
            WarningCode::TimestampLooksLikeSeconds => Warned::TimestampLooksLikeSeconds,
            WarningCode::TimestampBefore2000 => Warned::TimestampBefore2000,
            WarningCode::TimestampAhead => Warned::TimestampAhead,
            WarningCode::ReferrerDropped => Warned::ReferrerDropped,
            WarningCode::TextRepaired => Warned::TextRepaired,
        };
        metrics.event_warnings(label).increment(count);
        if code == WarningCode::TimestampAhead {
            metrics.clocks_corrected.increment(count);
        }
    }
}

/// Commits events whose memory has counted as a body's until the queue counts it.
async fn commit(context: &Context, events: ValidEvents, reading: Holding) -> Result<Stored, Response> {
    let ack = context.queue.try_append(events).map_err(overloaded)?;
    drop(reading);
    ack.await.map_err(|failure| commit_error(failure, context.queue.retry_after()))
}

fn for_each_stored(context: &Context, stored: &Stored, mut write: impl FnMut(&[u8], &event::EventRow<'_>)) {
    for (sequence, row) in (stored.receipt.first_sequence..).zip(stored.events.rows()) {
        write(&context.ids.encode(sequence), &row);
    }
}

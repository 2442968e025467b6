//! Taking events in: body, parse, queue, receipt, response.
//!
//! Counts what is received and what is refused before the queue; from the queue on, the queue counts. Together they
//! keep the law of conservation.

use hyper::{HeaderMap, StatusCode};

use super::{
    body::{BodyError, InboundBody},
    context::Context,
    response::{
        ErrorCode, Response, commit_error, error, json, overloaded, rejection, write_item_error, write_warnings,
    },
};
use crate::{
    clock::now_ms,
    event::{self, Rejection, ValidEvents, WarningCode, Warnings, json as json_text},
    metrics::{Rejected, Shed, Warned},
    queue::{Overloaded, Stored},
};

/// `POST /api/v1/events`
pub(super) async fn event(context: &Context, headers: &HeaderMap, body: &mut InboundBody) -> Response {
    let bytes = match read_body(context, headers, body, context.limits.event_bytes_max).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let parsed = event::parse_event(bytes, &context.rules, now_ms(), |code| context.websites.id_of_code(code));
    let (events, warnings) = match parsed {
        Ok(parsed) => parsed,
        Err(fault) => return reject_whole(context, "event", &fault),
    };
    context.metrics.events.events_received.increment(1);
    match commit(context, events).await {
        Ok(stored) => {
            count_warnings(context, &warnings);
            let mut out = Vec::with_capacity(768);
            for_each_stored(context, &stored, |id, row| json_text::write_event(&mut out, id, row));
            if !warnings.told().is_empty() {
                // Within the braces of the event.
                out.pop();
                write_warnings(&mut out, &warnings, false);
                out.push(b'}');
            }
            json(StatusCode::CREATED, out)
        }
        Err(refusal) => refusal,
    }
}

/// `POST /api/v1/events/batch`
pub(super) async fn batch(context: &Context, headers: &HeaderMap, body: &mut InboundBody) -> Response {
    let bytes = match read_body(context, headers, body, context.limits.batch_bytes_max).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let parsed = event::parse_batch(bytes, &context.rules, now_ms(), |code| context.websites.id_of_code(code));
    let batch = match parsed {
        Ok(batch) => batch,
        Err(fault) => return reject_whole(context, "batch", &fault),
    };
    context.metrics.events.events_received.increment((batch.events.len() + batch.refused.len()) as u64);
    for (_, fault) in &batch.refused {
        context.metrics.events.events_rejected(reason_of(fault)).increment(1);
    }
    let stored = if batch.events.is_empty() {
        None
    } else {
        match commit(context, batch.events).await {
            Ok(stored) => Some(stored),
            Err(refusal) => return refusal,
        }
    };
    count_warnings(context, &batch.warnings);
    batch_response(context, stored.as_ref(), &batch.refused, &batch.warnings)
}

fn batch_response(
    context: &Context,
    stored: Option<&Stored>,
    refused: &[(usize, Rejection)],
    warnings: &Warnings,
) -> Response {
    let created = stored.map_or(0, |stored| stored.receipt.count);
    let mut out = Vec::with_capacity(128 + created * 224 + refused.len() * 192);
    out.extend_from_slice(if refused.is_empty() { b"{\"success\":true" } else { b"{\"success\":false" });
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
    let message = if refused.is_empty() {
        format!("Successfully created {created} events")
    } else {
        out.extend_from_slice(b",\"errors\":[");
        let mut first = true;
        for (at, (index, fault)) in refused.iter().enumerate() {
            separate(&mut out, &mut first);
            write_item_error(&mut out, *index, fault, at < context.limits.errors_detailed_max);
        }
        out.push(b']');
        format!("Created {created} events with {} errors", refused.len())
    };
    write_warnings(&mut out, warnings, true);
    out.extend_from_slice(b",\"message\":");
    json_text::write_string(&mut out, message.as_bytes());
    out.push(b'}');
    json(if refused.is_empty() { StatusCode::CREATED } else { StatusCode::MULTI_STATUS }, out)
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
) -> Result<Vec<u8>, Response> {
    let read = body.read(headers, bytes_max, event::BODY_PADDING, &context.body_limits, &context.body_memory).await;
    let failure = match read {
        Ok(body) => return Ok(body.into_bytes()),
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
            error(ErrorCode::UnsupportedEncoding, "Content-Encoding may be gzip, br or zstd, one at most")
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

async fn commit(context: &Context, events: ValidEvents) -> Result<Stored, Response> {
    let ack = context.queue.try_append(events).map_err(overloaded)?;
    ack.await.map_err(|failure| commit_error(failure, context.queue.retry_after()))
}

fn for_each_stored(context: &Context, stored: &Stored, mut write: impl FnMut(&[u8], &event::EventRow<'_>)) {
    for (sequence, row) in (stored.receipt.first_sequence..).zip(stored.events.rows()) {
        write(&context.ids.encode(sequence), &row);
    }
}

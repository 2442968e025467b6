//! Routes for operators: liveness, readiness, metrics and the description of the interface.

use std::{
    io::{self, Write},
    sync::atomic::Ordering,
};

use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY},
};

use super::{
    accept_encoding::takes_gzip,
    context::Context,
    response::{ErrorCode, Response, counted_json, json, retry_later},
};
use crate::queue::State;

/// `GET /livez`: that the process answers.
pub(super) fn live() -> Response {
    json(StatusCode::OK, &b"{\"status\":\"live\"}"[..])
}

/// `GET /readyz`: whether events would be taken in now.
pub(super) fn ready(context: &Context) -> Response {
    match obstacle(context) {
        Some((code, reason)) => retry_later(code, reason, context.queue.retry_after()),
        None => json(StatusCode::OK, &b"{\"status\":\"ready\"}"[..]),
    }
}

/// Why no events would be taken in now.
fn obstacle(context: &Context) -> Option<(ErrorCode, &'static str)> {
    let (depth, limits) = (context.queue.depth(), context.queue.limits());
    if context.directory.lost().is_some() {
        // Its path is nobody's business who may only ask this.
        let reason = "The data directory was moved, deleted or replaced; hitlog is stopping, see its log";
        return Some((ErrorCode::Overloaded, reason));
    }
    if context.stopping.load(Ordering::Acquire) {
        return Some((ErrorCode::Overloaded, "hitlog is stopping"));
    }
    match context.queue.state() {
        State::Stopped => Some((ErrorCode::Overloaded, "The writer has stopped; see hitlog's log")),
        State::StorageFull => Some((ErrorCode::StorageFull, "The disk is full")),
        State::Accepting if depth.events >= limits.events_max || depth.bytes >= limits.bytes_max => {
            Some((ErrorCode::Overloaded, "The queue is full"))
        }
        State::Accepting => None,
    }
}

/// Every request that hitlog takes and its responses, in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../config/openapi.yaml");

/// `GET /openapi.yaml`
pub(super) fn description() -> Response {
    let mut response = counted_json(StatusCode::OK, DESCRIPTION);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    response
}

/// `GET /metrics`, packed for whoever asks for that.
pub(super) fn metrics(context: &Context, asked: &HeaderMap) -> Response {
    let metrics = &context.metrics;
    let (depth, limits) = (context.queue.depth(), context.queue.limits());
    for (gauge, value) in [
        (&metrics.events.events_in_flight, depth.events),
        (&metrics.queue.queue_events_max, limits.events_max),
        (&metrics.queue.queue_bytes, depth.bytes),
        (&metrics.queue.queue_bytes_max, limits.bytes_max),
        (&metrics.http.body_bytes, context.bodies.memory.used()),
        (&metrics.http.body_bytes_max, context.bodies.memory.bytes_max()),
        (&metrics.http.answer_bytes, context.answers.used()),
        (&metrics.http.answer_bytes_max, context.answers.bytes_max()),
        (&metrics.store.read_bytes, context.readers.answer_bytes()),
        (&metrics.store.websites, context.websites.len()),
    ] {
        gauge.set(value as f64);
    }
    metrics.queue.queue_oldest_seconds.set(depth.oldest.as_secs_f64());
    metrics.http.ready.set(if obstacle(context).is_none() { 1.0 } else { 0.0 });
    let text = metrics.render();
    let packed = if takes_gzip(asked) { gzip(&text).ok() } else { None };
    let is_packed = packed.is_some();
    let mut response = json(StatusCode::OK, packed.unwrap_or_else(|| text.into_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// At the level that costs least: it leaves a tenth as it is, and a scrape comes every few seconds.
fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    packer.write_all(text.as_bytes())?;
    let mut packed = packer.finish()?;
    packed.shrink_to_fit();
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::DESCRIPTION;

    #[test]
    fn the_description_is_of_this_version() {
        assert!(DESCRIPTION.contains(concat!("\n  version: ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}

//! Routes for operators: liveness, readiness, metrics and the description of the interface.

use std::sync::atomic::Ordering;

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{
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
    let (depth, limits) = (context.queue.depth(), context.queue.limits());
    let (code, reason) = if context.directory.lost().is_some() {
        // Its path is nobody's business who may only ask this.
        (ErrorCode::Overloaded, "The data directory was moved, deleted or replaced; hitlog is stopping, see its log")
    } else if context.stopping.load(Ordering::Acquire) {
        (ErrorCode::Overloaded, "hitlog is stopping")
    } else {
        match context.queue.state() {
            State::Stopped => (ErrorCode::Overloaded, "The writer has stopped; see hitlog's log"),
            State::StorageFull => (ErrorCode::StorageFull, "The disk is full"),
            State::Accepting if depth.events >= limits.events_max || depth.bytes >= limits.bytes_max => {
                (ErrorCode::Overloaded, "The queue is full")
            }
            State::Accepting => return json(StatusCode::OK, &b"{\"status\":\"ready\"}"[..]),
        }
    };
    retry_later(code, reason, context.queue.retry_after())
}

/// Every request that hitlog takes and its responses, in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../config/openapi.yaml");

/// `GET /openapi.yaml`
pub(super) fn description() -> Response {
    let mut response = counted_json(StatusCode::OK, DESCRIPTION);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    response
}

/// `GET /metrics`
pub(super) fn metrics(context: &Context) -> Response {
    let metrics = &context.metrics;
    let (depth, limits) = (context.queue.depth(), context.queue.limits());
    for (gauge, value) in [
        (&metrics.events.events_in_flight, depth.events),
        (&metrics.queue.queue_events, depth.events),
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
    let mut response = json(StatusCode::OK, metrics.render());
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::DESCRIPTION;

    #[test]
    fn the_description_is_of_this_version() {
        assert!(DESCRIPTION.contains(concat!("\n  version: ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}

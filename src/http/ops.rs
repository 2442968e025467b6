//! Routes for operators: liveness, readiness, metrics and the description of the interface.

use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{
    body::Bodies,
    errors::{ErrorCode, retry_later},
    memory::SharedMemory,
    parts::EdgeParts,
    response::{Response, counted_json, json},
    stop::Stop,
};
use crate::{
    metrics::Metrics,
    queue::{Queue, State},
    store::{DataDir, Readers, Websites},
};

/// Tells how hitlog is.
pub(super) struct Ops {
    bodies: Arc<Bodies>,
    answers: SharedMemory,
    queue: Queue,
    readers: Readers,
    websites: Arc<Websites>,
    directory: DataDir,
    metrics: Arc<Metrics>,
    stop: Arc<Stop>,
}

impl Ops {
    pub(super) fn new(parts: &EdgeParts, stop: &Arc<Stop>) -> Self {
        Self {
            bodies: Arc::clone(&parts.bodies),
            answers: parts.answers.clone(),
            queue: parts.queue.clone(),
            readers: parts.readers.clone(),
            websites: Arc::clone(&parts.websites),
            directory: parts.directory.clone(),
            metrics: Arc::clone(&parts.metrics),
            stop: Arc::clone(stop),
        }
    }

    /// `GET /livez`: that the process answers.
    pub(super) async fn live(&self) -> Response {
        json(StatusCode::OK, &b"{\"status\":\"live\"}"[..])
    }

    /// `GET /readyz`: whether events would be taken in now.
    pub(super) async fn ready(&self) -> Response {
        let (depth, limits) = (self.queue.depth(), self.queue.limits());
        let (code, reason) = if self.directory.lost().is_some() {
            // Its path is nobody's business who may only ask this.
            (
                ErrorCode::Overloaded,
                "The data directory was moved, deleted or replaced; hitlog is stopping, see its log",
            )
        } else if self.stop.has_begun() {
            (ErrorCode::Overloaded, "hitlog is stopping")
        } else {
            match self.queue.state() {
                State::Stopped => (ErrorCode::Overloaded, "The writer has stopped; see hitlog's log"),
                State::StorageFull => (ErrorCode::StorageFull, "The disk is full"),
                State::Accepting if depth.events >= limits.events_max || depth.bytes >= limits.bytes_max => {
                    (ErrorCode::Overloaded, "The queue is full")
                }
                State::Accepting => return json(StatusCode::OK, &b"{\"status\":\"ready\"}"[..]),
            }
        };
        retry_later(code, reason, self.queue.retry_after())
    }

    /// `GET /openapi.yaml`
    pub(super) async fn description(&self) -> Response {
        let mut response = counted_json(StatusCode::OK, DESCRIPTION);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        response
    }

    /// `GET /metrics`
    pub(super) async fn metrics(&self) -> Response {
        let metrics = &self.metrics;
        let (depth, limits) = (self.queue.depth(), self.queue.limits());
        for (gauge, value) in [
            (&metrics.events.events_in_flight, depth.events),
            (&metrics.queue.queue_events, depth.events),
            (&metrics.queue.queue_events_max, limits.events_max),
            (&metrics.queue.queue_bytes, depth.bytes),
            (&metrics.queue.queue_bytes_max, limits.bytes_max),
            (&metrics.http.body_bytes, self.bodies.memory.used()),
            (&metrics.http.body_bytes_max, self.bodies.memory.bytes_max()),
            (&metrics.http.answer_bytes, self.answers.used()),
            (&metrics.http.answer_bytes_max, self.answers.bytes_max()),
            (&metrics.store.read_bytes, self.readers.answer_bytes()),
            (&metrics.store.websites, self.websites.len()),
        ] {
            gauge.set(value as f64);
        }
        metrics.queue.queue_oldest_seconds.set(depth.oldest.as_secs_f64());
        let mut response = json(StatusCode::OK, metrics.render());
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response
    }
}

/// Every request that hitlog takes and its responses, in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../config/openapi.yaml");

#[cfg(test)]
mod tests {
    use super::DESCRIPTION;

    #[test]
    fn the_description_is_of_this_version() {
        assert!(DESCRIPTION.contains(concat!("\n  version: ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}

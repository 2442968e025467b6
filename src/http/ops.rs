//! Routes for operators: liveness, readiness, metrics and the description of the interface.

use std::{
    io::{self, Write},
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY},
};

use super::{
    accept_encoding::takes_gzip,
    asked::Asked,
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
    store::{DataDir, Readers, Shipping, Tails, Websites},
};

/// Tells how hitlog is.
pub(super) struct Ops {
    bodies: Arc<Bodies>,
    answers: SharedMemory,
    queue: Queue,
    readers: Readers,
    tails: Tails,
    websites: Arc<Websites>,
    directory: DataDir,
    metrics: Arc<Metrics>,
    shipping: Shipping,
    stop: Arc<Stop>,
}

impl Ops {
    pub(super) fn new(parts: &EdgeParts, stop: &Arc<Stop>) -> Self {
        Self {
            bodies: Arc::clone(&parts.bodies),
            answers: parts.answers.clone(),
            queue: parts.queue.clone(),
            readers: parts.readers.clone(),
            tails: parts.tails.clone(),
            websites: Arc::clone(&parts.websites),
            directory: parts.directory.clone(),
            metrics: Arc::clone(&parts.metrics),
            shipping: parts.shipping.clone(),
            stop: Arc::clone(stop),
        }
    }

    /// `GET /livez`: that the process answers.
    pub(super) async fn live(&self) -> Response {
        json(StatusCode::OK, &b"{\"status\":\"live\"}"[..])
    }

    /// `GET /readyz`: whether events would be taken in now.
    pub(super) async fn ready(&self) -> Response {
        match self.obstacle() {
            Some((code, reason)) => retry_later(code, reason, self.queue.retry_after()),
            None => json(StatusCode::OK, &b"{\"status\":\"ready\"}"[..]),
        }
    }

    /// Why no events would be taken in now.
    fn obstacle(&self) -> Option<(ErrorCode, &'static str)> {
        let (depth, limits) = (self.queue.depth(), self.queue.limits());
        if self.directory.lost().is_some() {
            // Its path is nobody's business who may only ask this.
            let reason = "The data directory was moved, deleted or replaced; hitlog is stopping, see its log";
            return Some((ErrorCode::Overloaded, reason));
        }
        if self.stop.has_begun() {
            return Some((ErrorCode::Overloaded, "hitlog is stopping"));
        }
        match self.queue.state() {
            State::Stopped => Some((ErrorCode::Overloaded, "The writer has stopped; see hitlog's log")),
            State::StorageFull => Some((ErrorCode::StorageFull, "The disk is full")),
            State::Accepting if depth.events >= limits.events_max || depth.bytes >= limits.bytes_max => {
                Some((ErrorCode::Overloaded, "The queue is full"))
            }
            State::Accepting => None,
        }
    }

    /// `GET /openapi.yaml`
    pub(super) async fn description(&self) -> Response {
        let mut response = counted_json(StatusCode::OK, DESCRIPTION);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        response
    }

    /// `GET /.well-known/gpc.json`: that hitlog knows of Global Privacy Control, <https://www.w3.org/TR/gpc/>.
    pub(super) async fn gpc(&self) -> Response {
        let mut response = counted_json(StatusCode::OK, GPC);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
        response
    }

    /// `GET /metrics`, packed for whoever asks for that.
    pub(super) async fn metrics(&self, asked: Asked<'_>) -> Response {
        let metrics = &self.metrics;
        let (depth, limits) = (self.queue.depth(), self.queue.limits());
        for (gauge, value) in [
            (&metrics.events.events_in_flight, depth.events),
            (&metrics.queue.queue_events_max, limits.events_max),
            (&metrics.queue.queue_bytes, depth.bytes),
            (&metrics.queue.queue_bytes_max, limits.bytes_max),
            (&metrics.http.body_bytes, self.bodies.memory.used()),
            (&metrics.http.body_bytes_max, self.bodies.memory.bytes_max()),
            (&metrics.http.answer_bytes, self.answers.used()),
            (&metrics.http.answer_bytes_max, self.answers.bytes_max()),
            (&metrics.store.read_bytes, self.readers.answer_bytes()),
            (&metrics.store.tail_bytes, self.tails.bytes()),
            (&metrics.store.websites, self.websites.len()),
        ] {
            gauge.set(value as f64);
        }
        metrics.queue.queue_oldest_seconds.set(depth.oldest.as_secs_f64());
        metrics.http.ready.set(if self.obstacle().is_none() { 1.0 } else { 0.0 });
        self.shipping.report(&metrics.ship);
        let text = metrics.render();
        let packed = if takes_gzip(&asked.head.headers) { gzip(&text).ok() } else { None };
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
}

/// What browsers and people look for to learn whether `Sec-GPC` is heeded, and since when as it is now.
const GPC: &str = r#"{"gpc":true,"lastUpdate":"2026-11-28"}"#;

/// Every request that hitlog takes and its responses, in OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../config/openapi.yaml");

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

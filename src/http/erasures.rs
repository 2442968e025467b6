//! Erasing a visitor's events, and telling how far an erasure is.

use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{HeaderValue, LOCATION},
};
use serde::Serialize;

use super::{
    asked::Asked,
    errors::{ErrorCode, catalog_error, error, invalid, read_error, retry_later},
    obstacles::Obstacles,
    parameters::parameters,
    parts::EdgeParts,
    response::{Response, json_of},
};
use crate::{
    clock::now_ms,
    event::{Faults, time::time_text},
    metrics::ReadRefused,
    store::{CatalogError, EraseError, Eraser, Erasure, ReadError, Websites},
};

/// An erasure as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErasureJson<'a> {
    id: &'a str,
    state: &'static str,
    segments: u64,
    segments_done: u64,
    rows: u64,
    requested_at: String,
    done_at: Option<String>,
    /// What keeps it from being done, in words for people.
    waits_for: Vec<String>,
    /// How far it is where events are shipped to; without that, `None`.
    target: Option<TargetJson>,
}

/// An erasure where events are shipped to.
#[derive(Serialize)]
struct TargetJson {
    state: &'static str,
    since: String,
}

impl<'a> ErasureJson<'a> {
    fn new(erasure: &'a Erasure, eraser: &Eraser) -> Self {
        Self {
            id: &erasure.id,
            state: if erasure.done_at.is_some() { "done" } else { "running" },
            segments: erasure.segments_total(),
            segments_done: erasure.segments_done,
            rows: erasure.rows,
            requested_at: time_text(erasure.requested_at),
            done_at: erasure.done_at.map(time_text),
            waits_for: eraser.waits_for(erasure),
            target: eraser
                .at_target(erasure)
                .map(|(state, since)| TargetJson { state: state.as_str(), since: time_text(since) }),
        }
    }
}

/// Erases, and tells how far it is.
pub(super) struct ErasureRoutes {
    id_bytes_max: usize,
    websites: Arc<Websites>,
    eraser: Eraser,
    obstacles: Arc<Obstacles>,
}

impl ErasureRoutes {
    pub(super) fn new(parts: &EdgeParts) -> Self {
        Self {
            id_bytes_max: parts.limits.id_bytes_max,
            websites: Arc::clone(&parts.websites),
            eraser: parts.eraser.clone(),
            obstacles: Arc::clone(&parts.obstacles),
        }
    }

    /// `DELETE /api/v1/visitors/:visitorId?trackingCode=…`
    pub(super) async fn erase_visitor(&self, asked: Asked<'_>) -> Response {
        let (visitor_id, mut faults) = (asked.id, Faults::default());
        // Empty where it was no UTF-8.
        if visitor_id.is_empty() || visitor_id.len() > self.id_bytes_max {
            faults.add("visitorId", format!("Expected 1 to {} bytes of UTF-8", self.id_bytes_max));
        }
        let [code] = parameters(asked.query(), ["trackingCode"], &mut faults);
        let code = code.unwrap_or_else(|| {
            faults.add("trackingCode", "Required");
            String::new()
        });
        if !faults.is_empty() {
            return invalid("Invalid query", &faults);
        }
        let Some(website_id) = self.websites.id_of_code(&code, now_ms()) else {
            return error(ErrorCode::NotFound, "Website with this tracking code not found");
        };
        match self.eraser.erase_visitor(website_id, visitor_id.to_owned()).await {
            Ok(erasure) => {
                self.obstacles.erased();
                let mut response = json_of(StatusCode::ACCEPTED, &ErasureJson::new(&erasure, &self.eraser));
                if let Ok(location) = HeaderValue::try_from(format!("/api/v1/erasures/{}", erasure.id)) {
                    response.headers_mut().insert(LOCATION, location);
                }
                response
            }
            Err(failure) => self.failed(failure),
        }
    }

    /// `GET /api/v1/erasures/:id`
    pub(super) async fn get(&self, asked: Asked<'_>) -> Response {
        match self.eraser.get(asked.id) {
            Some(erasure) => json_of(StatusCode::OK, &ErasureJson::new(&erasure, &self.eraser)),
            None => error(ErrorCode::NotFound, "Erasure not found"),
        }
    }

    fn failed(&self, failure: EraseError) -> Response {
        match failure {
            EraseError::Catalog(failure) => catalog_error(&failure, &self.obstacles),
            EraseError::Read(ReadError::Refused(ReadRefused::Memory)) => retry_later(
                ErrorCode::Overloaded,
                "Too many events would be hidden at once; wait for erasures that are running, or raise \
                 hidden_events_max",
                self.obstacles.hidden_events_full.meet(),
            ),
            EraseError::Read(ReadError::StorageFull(_)) => catalog_error(&CatalogError::StorageFull, &self.obstacles),
            EraseError::Read(failure) => read_error(&failure),
        }
    }
}

//! Responses: bytes, and what counts them until their client has them.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;

use super::{
    activity::Activity,
    memory::{Holding, SharedMemory},
};

/// The body of a response as hyper sends it, complete in memory.
pub(super) type Body = Full<Bytes>;

/// A response as the routes make it.
pub(super) type Response = hyper::Response<Content>;

/// The body of a response, and whether its memory is counted.
#[derive(Debug)]
pub(super) struct Content {
    bytes: Bytes,
    is_counted: bool,
}

impl Content {
    /// Whether it needs no counting any more.
    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// The bytes alone.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// The bytes of an answer, with what counts them until they are sent.
struct HeldBytes<B> {
    bytes: B,
    _holding: Holding,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for HeldBytes<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

fn held_bytes(bytes: impl AsRef<[u8]> + Send + 'static, holding: Holding) -> Bytes {
    Bytes::from_owner(HeldBytes { bytes, _holding: holding })
}

/// How long a client waits before it tries again, where nothing better is known.
pub(super) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response of JSON. Its memory is counted when it is sent.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    of_json(status, Content { bytes: body.into(), is_counted: false })
}

/// A response of JSON that takes no memory of its own, or whose memory is counted already.
pub(super) fn counted_json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    of_json(status, Content { bytes: body.into(), is_counted: true })
}

/// A response of JSON in memory that was counted before it was taken.
pub(super) fn held_json(status: StatusCode, body: Vec<u8>, mut holding: Holding) -> Response {
    holding.shrink_to(body.capacity());
    counted_json(status, held_bytes(body, holding))
}

/// The same, written from a value that takes so many bytes.
pub(super) fn held_json_of(status: StatusCode, value: &impl Serialize, bytes: usize, holding: Holding) -> Response {
    let mut body = Vec::with_capacity(bytes);
    match serde_json::to_writer(&mut body, value) {
        Ok(()) => held_json(status, body, holding),
        Err(failure) => unwritable(&failure),
    }
}

/// How many bytes a value takes as JSON.
pub(super) fn json_bytes(value: &impl Serialize) -> usize {
    struct Counted(usize);
    impl io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // What cannot be written is told when it is.
    let _ = serde_json::to_writer(&mut counted, value);
    counted.0
}

/// A response in the memory that was put aside for another.
pub(super) fn held(response: Response, holding: Holding) -> Response {
    response.map(|content| Content { bytes: held_bytes(content.bytes, holding), is_counted: true })
}

fn of_json(status: StatusCode, body: Content) -> Response {
    let mut response = hyper::Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Counts a response that nobody has counted yet in `memory` until it is sent to the client of `activity`. If there is
/// no room, the client is told so instead. `holding` is what was put aside for it, so that a change that has been
/// made is answered in any case.
pub(super) async fn count(
    response: Response,
    holding: Option<Holding>,
    memory: &SharedMemory,
    activity: &Arc<Activity>,
) -> Response {
    let bytes = response.body().bytes.len();
    let is_owed = holding.is_some();
    let mut holding = holding.unwrap_or_else(|| memory.hold());
    if holding.grow_in_time(bytes).await.is_err() && !is_owed {
        return overloaded_by_answers();
    }
    holding.shrink_to(bytes);
    holding.is_held_by(activity);
    held(response, holding)
}

/// A response of JSON, written from a value.
pub(super) fn json_of(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => json(status, body),
        Err(failure) => unwritable(&failure),
    }
}

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = hyper::Response::new(Content { bytes: Bytes::new(), is_counted: true });
    *response.status_mut() = status;
    response
}

fn unwritable(failure: &serde_json::Error) -> Response {
    const BODY: &[u8] =
        b"{\"error\":\"INTERNAL_ERROR\",\"message\":\"The answer could not be written; see hitlog's log\"}";
    tracing::error!(%failure, "a response could not be written as JSON");
    counted_json(StatusCode::INTERNAL_SERVER_ERROR, BODY)
}

/// Tells that the answers that wait for their clients take all the memory they may. Takes none itself.
pub(super) fn overloaded_by_answers() -> Response {
    const BODY: &[u8] =
        b"{\"error\":\"OVERLOADED\",\"message\":\"Too many answers wait for their clients to read them; \
        nothing of this request is stored or changed\"}";
    let mut response = counted_json(StatusCode::SERVICE_UNAVAILABLE, BODY);
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_DEFAULT.as_secs().into());
    response
}

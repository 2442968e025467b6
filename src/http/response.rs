//! Responses: the one table from error to status, and the JSON of errors.

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
    obstacles::{Obstacles, seconds_to_wait},
};
use crate::{
    event::{Faults, Rejection, Warnings, json},
    queue::{CommitError, Overloaded},
    store::{CatalogError, ReadError},
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

/// The contract's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    ValidationError,
    MalformedJson,
    Unauthorized,
    Forbidden,
    ForbiddenOrigin,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PayloadTooLarge,
    UnsupportedEncoding,
    #[allow(dead_code, reason = "clients are written against the whole table")]
    TooManyRequests,
    HeadersTooLarge,
    InternalError,
    Overloaded,
    StorageFull,
    CommitUnknown,
}

impl ErrorCode {
    /// The table: the code on the wire, and its status.
    fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::ValidationError => ("VALIDATION_ERROR", StatusCode::BAD_REQUEST),
            Self::MalformedJson => ("MALFORMED_JSON", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("FORBIDDEN", StatusCode::FORBIDDEN),
            Self::ForbiddenOrigin => ("FORBIDDEN_ORIGIN", StatusCode::FORBIDDEN),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED),
            Self::RequestTimeout => ("REQUEST_TIMEOUT", StatusCode::REQUEST_TIMEOUT),
            Self::Conflict => ("CONFLICT", StatusCode::CONFLICT),
            Self::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedEncoding => ("UNSUPPORTED_ENCODING", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", StatusCode::TOO_MANY_REQUESTS),
            Self::HeadersTooLarge => ("HEADERS_TOO_LARGE", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::InternalError => ("INTERNAL_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Overloaded => ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE),
            Self::StorageFull => ("STORAGE_FULL", StatusCode::SERVICE_UNAVAILABLE),
            Self::CommitUnknown => ("COMMIT_UNKNOWN", StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The code on the wire.
    pub(super) fn as_str(self) -> &'static str {
        self.row().0
    }
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

fn unwritable(failure: &serde_json::Error) -> Response {
    tracing::error!(%failure, "a response could not be written as JSON");
    error(ErrorCode::InternalError, "The answer could not be written; see hitlog's log")
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

/// Tells that the answers that wait for their clients take all the memory they may. Takes none itself.
pub(super) fn overloaded_by_answers() -> Response {
    const BODY: &[u8] =
        b"{\"error\":\"OVERLOADED\",\"message\":\"Too many answers wait for their clients to read them; \
        nothing of this request is stored or changed\"}";
    let mut response = counted_json(ErrorCode::Overloaded.row().1, BODY);
    response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_DEFAULT.as_secs().into());
    response
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

/// `{"error", "message"}` with the code's status.
pub(super) fn error(code: ErrorCode, message: &str) -> Response {
    let mut body = Vec::with_capacity(64 + message.len());
    write_error(&mut body, code, message, None);
    body.push(b'}');
    json(code.row().1, body)
}

/// An error with `Retry-After`: for everything that is worth trying again, after about this long.
pub(super) fn retry_later(code: ErrorCode, message: &str, after: Duration) -> Response {
    let mut response = error(code, message);
    response.headers_mut().insert(RETRY_AFTER, seconds_to_wait(after, rand::random()).into());
    response
}

/// VALIDATION_ERROR with every fault.
pub(super) fn invalid(message: &str, faults: &Faults) -> Response {
    let mut body = Vec::with_capacity(256);
    write_error(&mut body, ErrorCode::ValidationError, message, Some(faults));
    body.push(b'}');
    json(StatusCode::BAD_REQUEST, body)
}

/// Tells why a body as a whole, or a single event, was rejected.
pub(super) fn rejection(what: &str, rejection: &Rejection) -> Response {
    match rejection {
        Rejection::Malformed(message) => error(ErrorCode::MalformedJson, message),
        Rejection::Invalid(faults) => invalid(&format!("Invalid {what} data"), faults),
        Rejection::UnknownWebsite(_) => error(ErrorCode::NotFound, "Website with this tracking code not found"),
    }
}

/// Writes why an item of a batch was rejected, as a member of `errors`.
pub(super) fn write_item_error(out: &mut Vec<u8>, index: usize, rejection: &Rejection, with_details: bool) {
    out.extend_from_slice(b"{\"index\":");
    json::write_integer(out, index);
    out.push(b',');
    let start = out.len();
    match rejection {
        Rejection::Malformed(message) => write_error(out, ErrorCode::MalformedJson, message, None),
        Rejection::Invalid(faults) => {
            let details = with_details.then_some(faults);
            write_error(out, ErrorCode::ValidationError, "Invalid event data", details);
        }
        Rejection::UnknownWebsite(code) => {
            let message = format!("Website with tracking code \"{code}\" not found");
            write_error(out, ErrorCode::NotFound, &message, None);
        }
    }
    // `write_error` opens an object of its own.
    out.remove(start);
    out.push(b'}');
}

/// Writes what is odd about stored events as members of an answer, if there is anything; of a batch with the index.
pub(super) fn write_warnings(out: &mut Vec<u8>, warnings: &Warnings, in_batch: bool) {
    for (at, warning) in warnings.told().iter().enumerate() {
        out.extend_from_slice(if at == 0 { b",\"warnings\":[{" } else { b",{" });
        if in_batch {
            out.extend_from_slice(b"\"index\":");
            json::write_integer(out, warning.index);
            out.push(b',');
        }
        out.extend_from_slice(b"\"field\":");
        json::write_string(out, warning.field.as_bytes());
        out.extend_from_slice(b",\"code\":");
        json::write_string(out, warning.code.as_str().as_bytes());
        out.extend_from_slice(b",\"message\":");
        json::write_string(out, warning.message.as_bytes());
        out.push(b'}');
    }
    if !warnings.told().is_empty() {
        out.push(b']');
    }
    if warnings.untold() > 0 {
        out.extend_from_slice(b",\"warningsOmitted\":");
        json::write_integer(out, warnings.untold());
    }
}

/// Writes an error without its closing brace.
fn write_error(out: &mut Vec<u8>, code: ErrorCode, message: &str, details: Option<&Faults>) {
    out.extend_from_slice(b"{\"error\":");
    json::write_string(out, code.as_str().as_bytes());
    out.extend_from_slice(b",\"message\":");
    json::write_string(out, message.as_bytes());
    let Some(faults) = details else { return };
    let texts = |out: &mut Vec<u8>, texts: &[std::borrow::Cow<'static, str>]| {
        out.push(b'[');
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::write_string(out, text.as_bytes());
        }
        out.push(b']');
    };
    out.extend_from_slice(b",\"details\":{\"formErrors\":");
    texts(out, &faults.form);
    out.extend_from_slice(b",\"fieldErrors\":{");
    for (at, (field, faults)) in faults.fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::write_string(out, field.as_bytes());
        out.push(b':');
        texts(out, faults);
    }
    out.extend_from_slice(b"}}");
}

/// Tells that the queue took nothing of a request.
pub(super) fn overloaded(refusal: Overloaded) -> Response {
    use crate::metrics::Shed;
    let (code, message) = match refusal.reason {
        Shed::StorageFull => (ErrorCode::StorageFull, "The disk is full; nothing of this request is stored"),
        Shed::Stopping => (ErrorCode::Overloaded, "hitlog is stopping; nothing of this request is stored"),
        Shed::QueueFull | Shed::BodyMemory | Shed::AnswerMemory => {
            (ErrorCode::Overloaded, "More events are coming in than can be stored; nothing of this request is stored")
        }
    };
    retry_later(code, message, refusal.retry_after)
}

/// Tells that a queued request failed.
pub(super) fn commit_error(failure: CommitError, retry_after: Duration) -> Response {
    match failure {
        CommitError::StorageFull => {
            retry_later(ErrorCode::StorageFull, "The disk is full; nothing of this request is stored", retry_after)
        }
        CommitError::Unknown => retry_later(
            ErrorCode::CommitUnknown,
            "The storage failed while this request was being committed; it may or may not be stored",
            retry_after,
        ),
    }
}

/// Tells that a read failed or was refused.
pub(super) fn read_error(failure: &ReadError) -> Response {
    use crate::metrics::ReadRefused;
    let message = match failure {
        ReadError::Refused(ReadRefused::PoolFull) => "Too many reads are waiting; try again later",
        ReadError::Refused(ReadRefused::Deadline) => "The read took too long; ask for less, or try again later",
        ReadError::Refused(ReadRefused::Memory) => "The answers being sent take too much memory; ask for less",
        ReadError::Refused(ReadRefused::WalCap) => "The read was interrupted so that writing could go on; try again",
        ReadError::Refused(ReadRefused::Keys) => "The keys of some events were damaged and are made anew; try again",
        ReadError::Refused(ReadRefused::NoRoom) => {
            "The disk is full, and some of what is stored waits for room; try again"
        }
        ReadError::Stopped => "hitlog is stopping",
        ReadError::Storage(_) | ReadError::Keys(_) | ReadError::StorageFull(_) => {
            tracing::error!(error = %failure, "a read failed");
            return error(ErrorCode::InternalError, "The storage could not be read; see hitlog's log");
        }
    };
    retry_later(ErrorCode::Overloaded, message, RETRY_AFTER_DEFAULT)
}

/// Tells that a website could not be changed.
pub(super) fn catalog_error(failure: &CatalogError, obstacles: &Obstacles) -> Response {
    match failure {
        CatalogError::NotFound => error(ErrorCode::NotFound, "Website not found"),
        CatalogError::DomainTaken => error(ErrorCode::Conflict, "A website with this domain exists already"),
        CatalogError::Busy | CatalogError::Stale => {
            retry_later(ErrorCode::Overloaded, "Too many changes are waiting; nothing was changed", RETRY_AFTER_DEFAULT)
        }
        CatalogError::ErasuresFull => retry_later(
            ErrorCode::Overloaded,
            "As many erasures are under way as may be; nothing was changed. Wait for some, or raise erasures_max",
            obstacles.erasures_full.meet(),
        ),
        CatalogError::StorageFull => {
            retry_later(ErrorCode::StorageFull, "The disk is full; nothing was changed", obstacles.storage_full.meet())
        }
        CatalogError::Unknown => retry_later(
            ErrorCode::CommitUnknown,
            "The storage failed while the change was being committed; it may or may not be stored",
            RETRY_AFTER_DEFAULT,
        ),
    }
}

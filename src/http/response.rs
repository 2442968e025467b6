//! Responses: bytes, and what counts them until their client has them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, StatusCode,
    body::{Frame, SizeHint},
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;

use super::{
    activity::Activity,
    chunks::{Chunk, Chunks, Cut},
    cursor::PositionText,
    memory::{Holding, SharedMemory},
};

/// The body of a response as hyper sends it.
pub(super) enum Body {
    /// Complete in memory.
    Whole(Full<Bytes>),
    /// Made while it is sent.
    Chunks(Chunks),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Pin::new(bytes).poll_frame(task).map_err(|never| match never {}),
            Self::Chunks(chunks) => Pin::new(chunks).poll_frame(task),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_end_stream(),
            Self::Chunks(chunks) => chunks.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => bytes.size_hint(),
            Self::Chunks(chunks) => chunks.size_hint(),
        }
    }
}

/// A response as the routes make it.
pub(super) type Response = hyper::Response<Content>;

/// The body of a response, and whether its memory is counted.
pub(super) enum Content {
    Whole {
        bytes: Bytes,
        is_counted: bool,
    },
    /// Each of them is counted by whoever makes it.
    Chunks(Chunks),
}

impl Content {
    /// How many bytes are still to be counted.
    pub(super) fn uncounted(&self) -> Option<usize> {
        match self {
            Self::Whole { bytes, is_counted: false } => Some(bytes.len()),
            _ => None,
        }
    }

    pub(super) fn into_body(self) -> Body {
        match self {
            Self::Whole { bytes, .. } => Body::Whole(Full::new(bytes)),
            Self::Chunks(chunks) => Body::Chunks(chunks),
        }
    }

    /// The bytes alone, of what is complete.
    pub(super) fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Whole { bytes, .. } => Some(bytes),
            Self::Chunks(_) => None,
        }
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

/// Bytes that are counted until they are sent.
pub(super) fn held_bytes(bytes: impl AsRef<[u8]> + Send + 'static, holding: Holding) -> Bytes {
    Bytes::from_owner(HeldBytes { bytes, _holding: holding })
}

/// How long a client waits before it tries again, where nothing better is known.
pub(super) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response of JSON. Its memory is counted when it is sent.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    of_json(status, Content::Whole { bytes: body.into(), is_counted: false })
}

/// A response of JSON that takes no memory of its own, or whose memory is counted already.
pub(super) fn counted_json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    of_json(status, Content::Whole { bytes: body.into(), is_counted: true })
}

/// A response of JSON in memory that was counted before it was taken.
pub(super) fn held_json(status: StatusCode, body: Vec<u8>, mut holding: Holding) -> Response {
    holding.shrink_to(body.capacity());
    counted_json(status, held_bytes(body, holding))
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
    response.map(|content| match content {
        Content::Whole { bytes, .. } => Content::Whole { bytes: held_bytes(bytes, holding), is_counted: true },
        chunks @ Content::Chunks(_) => chunks,
    })
}

/// A response of bytes that are in the program itself, and so take no memory of their own.
pub(super) fn of_static(content_type: &'static str, bytes: Bytes) -> Response {
    let mut response = hyper::Response::new(Content::Whole { bytes, is_counted: true });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn of_json(status: StatusCode, body: Content) -> Response {
    let mut response = hyper::Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A response of JSON that begins with this chunk. One that is the whole of it is sent with its length.
pub(super) fn chunked_json(status: StatusCode, first: Chunk) -> Response {
    if first.more.is_none() {
        counted_json(status, first.bytes)
    } else {
        of_json(status, Content::Chunks(Chunks::new(first)))
    }
}

/// A response that goes on for as long as its client wants.
pub(super) fn endless(content_type: HeaderValue, first: Chunk) -> Response {
    let mut response = hyper::Response::new(Content::Chunks(Chunks::endless(first)));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Counts the `bytes` of a response that nobody has counted yet in `memory`, until it is sent to the client of
/// `activity`. If there is no room, the client is told so instead. `holding` is what was put aside for it, so that a
/// change that has been made is answered in any case.
pub(super) async fn count(
    response: Response,
    bytes: usize,
    holding: Option<Holding>,
    memory: &SharedMemory,
    activity: &Arc<Activity>,
) -> Response {
    let is_owed = holding.is_some();
    let mut holding = holding.unwrap_or_else(|| memory.hold());
    if holding.grow_in_time(bytes).await.is_err() && !is_owed {
        return overloaded_by_answers();
    }
    holding.shrink_to(bytes);
    holding.is_held_by(activity);
    held(response, holding)
}

/// The position that an answer begins after, or that of the last event that a request has stored.
const POSITION: HeaderName = HeaderName::from_static("hitlog-position");

/// Adds a position to the head of an answer.
pub(super) fn tell_position(headers: &mut HeaderMap, position: &PositionText) {
    // It is letters, digits, `-` and `_`, so it always is a value.
    if let Ok(value) = HeaderValue::from_bytes(position) {
        headers.insert(POSITION, value);
    }
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
    let mut response = hyper::Response::new(Content::Whole { bytes: Bytes::new(), is_counted: true });
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

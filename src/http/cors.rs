//! Cross-origin requests: trackers run on other people's sites, so what sends events answers preflights and echoes the
//! origin. `*` would not do: a beacon with a JSON Blob is sent with credentials, and browsers then refuse it.
//!
//! Nothing that reads is echoed, whoever asks. But whatever goes wrong while a page tries to send an event is: without
//! these headers its script sees a broken network where a status and a reason stand, and tries for ever.

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderValue, ORIGIN, VARY,
    },
};

use super::response::{Response, empty};

/// How long a browser may remember a preflight, in seconds: the most that any browser allows.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("86400");
/// The headers that a sender of events may use in any case.
const HEADERS: &str = "authorization, content-encoding, content-type, idempotency-key";
/// What pages may read of an answer beside its body and its type.
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after, idempotency-replayed");
/// Most names that a preflight may ask for, and the bytes of all of them. Tracing libraries add some three; one that
/// asks for more gets what is allowed in any case.
const ASKED_NAMES_MAX: usize = 64;
const ASKED_BYTES_MAX: usize = 1_024;
/// What the paths of events begin with, and what their commonest misspellings begin with as well.
const EVENT_PATHS: [&str; 2] = ["/api/v1/event", "/api/v1/track"];

/// Whether a page may be on its way with an event: the path is one for events, or nearly one.
pub(super) fn is_event_path(path: &str) -> bool {
    EVENT_PATHS.iter().any(|begin| path.starts_with(begin))
}

/// Whether a browser asks what other sites may send.
pub(super) fn is_preflight(method: &Method, request: &HeaderMap) -> bool {
    *method == Method::OPTIONS && request.contains_key(ORIGIN) && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers `OPTIONS` on a path of events that takes `methods`, if there is anything at it, and lets pages send those
/// `of_pages`. [`allow_page`] adds the origin.
pub(super) fn preflight(methods: &str, of_pages: &str, request: &HeaderMap) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    if let Ok(methods) = HeaderValue::try_from(methods)
        && !methods.is_empty()
    {
        headers.insert(ALLOW, methods);
    }
    if let Ok(of_pages) = HeaderValue::try_from(of_pages) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, of_pages);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(request));
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// Lets the page that sent this `Origin`, if one did, read the response.
pub(super) fn allow_page(origin: Option<&HeaderValue>, response: &mut HeaderMap) {
    let is_preflight = response.contains_key(ACCESS_CONTROL_ALLOW_METHODS);
    let vary = if is_preflight { "origin, access-control-request-headers" } else { "origin" };
    response.insert(VARY, HeaderValue::from_static(vary));
    let Some(origin) = origin else { return };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// The headers that may be sent: those of every sender, and those that this one asks for. Tracing libraries put theirs
/// on every request of a page, and a browser sends nothing if one of them is missing here.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let lists = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS);
    let bytes: usize = lists.iter().map(HeaderValue::len).sum();
    let names = || lists.iter().flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if bytes > ASKED_BYTES_MAX || names().count() > ASKED_NAMES_MAX {
        return HeaderValue::from_static(HEADERS);
    }
    let mut allowed: Vec<String> = HEADERS.split(", ").map(str::to_owned).collect();
    for name in names().filter(|name| is_token(name)) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if !allowed.contains(&name) {
            allowed.push(name);
        }
    }
    // Tokens are visible ASCII, so it is always a value.
    HeaderValue::try_from(allowed.join(", ")).unwrap_or(HeaderValue::from_static(HEADERS))
}

/// Whether this is a token by RFC 9110, section 5.6.2, as the name of a header is.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_may_be_sent() {
        let many = (0..65).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(",");
        let as_many = (0..64).map(|number| format!("x-{number}")).collect::<Vec<_>>().join(",");
        let (long, as_long) = ("x".repeat(1_025), "x".repeat(1_024));
        for (asked, more) in [
            (&[][..], ""),
            (&["content-type"], ""),
            (&["sentry-trace, baggage,traceparent"], ", sentry-trace, baggage, traceparent"),
            (&["X-A , x-a", "x-b"], ", x-a, x-b"),
            (&["x-a, a b, c:d, \u{e9}, , e\"f, g"], ", x-a, g"),
            (&[&many], ""),
            (&[&as_many], &format!(", {}", as_many.replace(',', ", "))),
            (&[&long], ""),
            (&[&as_long], &format!(", {as_long}")),
            (&[&as_long, "x"], ""),
        ] {
            let mut request = HeaderMap::new();
            for list in asked {
                request.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_bytes(list.as_bytes()).unwrap());
            }
            assert_eq!(allowed_headers(&request), format!("{HEADERS}{more}"), "{asked:?}");
        }
    }

    #[test]
    fn paths_of_events_and_their_misspellings() {
        for (path, is_one) in [
            ("/api/v1/events", true),
            ("/api/v1/events/", true),
            ("/api/v1/events/batchx", true),
            ("/api/v1/events/a/b", true),
            ("/api/v1/event", true),
            ("/api/v1/track", true),
            ("/api/v1/tracks/", true),
            ("/api/v1/websites", false),
            ("/metrics", false),
        ] {
            assert_eq!(is_event_path(path), is_one, "{path}");
        }
    }
}

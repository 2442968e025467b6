//! Answers to heads that never become a request: too large, too slow, or no HTTP at all. Written without hyper, in the
//! contract's words. Scripts of other pages may read them on the routes for events: a tracker that could not would take
//! them for a failure of the network, and send the same again for ever.

use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};

use super::{
    cors,
    errors::{ErrorCode, error, invalid},
    response::Response,
};
use crate::event::Faults;

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Larger than `head_bytes_max`.
    TooLarge,
    /// It took longer than `head_timeout`.
    Slow,
    /// Not the head of a request of HTTP/1.
    Malformed,
}

/// The byte that a TLS client begins with: that of a handshake. No method begins so.
const TLS_HELLO: &[u8] = &[0x16];
/// Where a client of HTTP/2 begins that expects no upgrade.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The whole answer to a head of which `head` has been read. The connection ends after it.
pub(super) fn answer(refused: Refused, head: &[u8]) -> Vec<u8> {
    let mut response = match refused {
        Refused::TooLarge => error(
            ErrorCode::HeadersTooLarge,
            "The head of the request (its first line and its headers) is too large, or has more than 100 headers; send \
             fewer cookies or headers, or raise head_bytes_max if it is about bytes",
        ),
        Refused::Slow => error(ErrorCode::RequestTimeout, "The head of the request came too slowly"),
        Refused::Malformed => malformed(head),
    };
    let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if str::from_utf8(path).is_ok_and(cors::is_event_path) {
        cors::allow_page(origin_of(head).as_ref(), response.headers_mut());
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    written(response)
}

fn malformed(head: &[u8]) -> Response {
    let message = if head.starts_with(TLS_HELLO) {
        "This is plain HTTP, and the client speaks TLS: use http://, or put a proxy in front that ends TLS"
    } else if head.starts_with(HTTP2_PREFACE) {
        "This is HTTP/1.1, and the client speaks HTTP/2"
    } else {
        "The head is not that of an HTTP/1.1 request"
    };
    invalid(message, &Faults::of_form(message))
}

/// The value of the header `Origin`, wherever it stands.
fn origin_of(head: &[u8]) -> Option<HeaderValue> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let value =
        lines.filter_map(|line| line.split_at_checked(7)).find(|(name, _)| name.eq_ignore_ascii_case(b"origin:"));
    HeaderValue::from_bytes(value?.1.trim_ascii()).ok()
}

fn written(response: Response) -> Vec<u8> {
    let (mut parts, body) = response.into_parts();
    let body = body.into_bytes().unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut out = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refused_head_hears() {
        let large = b"POST /api/v1/events HTTP/1.1\r\nhost: a\r\nOrigin: https://shop.example\r\nx: yyy";
        for (refused, head, status, words, cors) in [
            (Refused::TooLarge, &large[..], "431 Request Header Fields Too Large", "HEADERS_TOO_LARGE", true),
            (Refused::Slow, b"GET /livez", "408 Request Timeout", "REQUEST_TIMEOUT", false),
            (Refused::Malformed, b"\x16\x03\x01\x02\x00", "400 Bad Request", "plain HTTP", false),
            (Refused::Malformed, b"PRI * HTTP/2.0\r\n\r\nSM", "400 Bad Request", "HTTP/2", false),
            (Refused::Malformed, b"", "400 Bad Request", "VALIDATION_ERROR", false),
        ] {
            let text = String::from_utf8(answer(refused, head)).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert!(head.contains("connection: close"), "{head}");
            assert_eq!(head.contains("access-control-allow-origin: https://shop.example"), cors, "{head}");
            assert!(body.contains(words), "{body}");
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
        }
    }
}

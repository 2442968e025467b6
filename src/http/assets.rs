//! What browsers are given: the tracker. Open to everybody, and the same for all.

use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
        VARY, X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{
    accept_encoding::{Coding, best_coding},
    asked::Asked,
    response::{Response, empty, of_static},
    tags::is_among,
};
use crate::web::Asset;

/// Whose pages may use what is answered, <https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header>.
pub(super) const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
pub(super) const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");

/// A day; and a week for which the old one does while a new one is fetched.
const FOR_A_DAY: HeaderValue = HeaderValue::from_static("public, max-age=86400, stale-while-revalidate=604800");
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Answers with a file, in the coding that the client likes best.
pub(super) fn answer(asset: &'static Asset, asked: &Asked<'_>) -> Response {
    let headers = &asked.head.headers;
    let (bytes, coding) = choose(asset, headers);
    let suffix = coding.map_or(String::new(), |coding| format!("-{coding}"));
    let tag = HeaderValue::try_from(format!("\"{}{suffix}\"", asset.tag())).ok();
    let is_known = match (headers.get(IF_NONE_MATCH), &tag) {
        (Some(known), Some(tag)) => is_among(known, tag),
        _ => false,
    };
    let mut response = if is_known {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = of_static(asset.content_type, Bytes::from_static(bytes));
        if let Some(coding) = coding {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, if asset.is_frozen { FOR_EVER } else { FOR_A_DAY });
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    // Without it a page could not have its integrity checked, nor import it as a module.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(RESOURCE_POLICY, CROSS_ORIGIN);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(tag.map(|tag| (ETAG, tag)));
    response
}

/// The bytes to send, and the name of their coding.
fn choose(asset: &'static Asset, headers: &HeaderMap) -> (&'static [u8], Option<&'static str>) {
    match (best_coding(headers), asset.brotli, asset.gzip) {
        (Coding::Brotli, Some(brotli), _) => (brotli, Some("br")),
        (Coding::Gzip, _, Some(gzip)) => (gzip, Some("gzip")),
        _ => (asset.plain, None),
    }
}

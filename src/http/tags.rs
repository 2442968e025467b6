//! Tags of answers, RFC 9110, section 8.8.3.

use hyper::header::HeaderValue;

/// Whether a tag is one of those that a client has.
pub(super) fn is_among(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

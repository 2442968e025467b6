//! Who may do what: bearer tokens, or protected mode when there are none.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::response::{ErrorCode, Response, error};

/// The tokens, hashed: comparing hashes takes the same time wherever a guess goes wrong and however long it is.
pub struct Tokens(Vec<[u8; 32]>);

/// Headers by which a proxy says that somebody else is behind it.
const PROXY_HEADERS: [&str; 3] = ["forwarded", "x-real-ip", "via"];
const PROXY_HEADER_PREFIX: &str = "x-forwarded-";

impl Tokens {
    /// Hashes the tokens; none means protected mode.
    pub fn new<'a>(tokens: impl Iterator<Item = &'a str>) -> Self {
        Self(tokens.map(|token| Sha256::digest(token).into()).collect())
    }

    /// Whether there are none: requests are taken without a token, from this machine only.
    pub(super) fn is_protected_mode(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a request pass on a route that needs a token, or says why not.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Response> {
        if self.is_protected_mode() {
            // A proxy on this machine makes the whole world look local.
            return match proxy_header(headers) {
                None => Ok(()),
                Some(name) => Err(refuse(&format!(
                    "hitlog has no token and so serves this machine only, but the header \"{name}\" says that a proxy \
                     speaks for somebody else; set a token (--token, HITLOG_TOKEN or token_file)"
                ))),
            };
        }
        match bearer(headers) {
            None => Err(refuse("This needs a token: send the header \"Authorization: Bearer TOKEN\"")),
            Some(token) if self.knows(token) => Ok(()),
            Some(_) => Err(refuse("The token is not valid")),
        }
    }

    fn knows(&self, token: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(token).into();
        // Every token is compared, so that the time does not tell which one came close.
        self.0.iter().fold(false, |known, stored| known | bool::from(stored.ct_eq(&hash)))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn proxy_header(headers: &HeaderMap) -> Option<&str> {
    headers
        .keys()
        .map(hyper::header::HeaderName::as_str)
        .find(|name| PROXY_HEADERS.contains(name) || name.starts_with(PROXY_HEADER_PREFIX))
}

/// 401, with the reason.
pub(super) fn refuse(message: &str) -> Response {
    let mut response = error(ErrorCode::Unauthorized, message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    fn check(tokens: &[&str], header: Option<(&str, &str)>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        Tokens::new(tokens.iter().copied()).check(&headers).is_ok()
    }

    #[test]
    fn who_passes() {
        let tokens = &["0123456789abcdef", "fedcba9876543210"][..];
        for (tokens, header, passes) in [
            (&[][..], None, true),
            (&[], Some(("authorization", "Bearer YOUR_ACCESS_TOKEN")), true),
            (&[], Some(("forwarded", "for=192.0.2.1")), false),
            (&[], Some(("x-forwarded-for", "192.0.2.1")), false),
            (&[], Some(("x-forwarded-anything", "x")), false),
            (&[], Some(("x-real-ip", "192.0.2.1")), false),
            (&[], Some(("via", "1.1 proxy")), false),
            (tokens, None, false),
            (tokens, Some(("authorization", "Bearer 0123456789abcdef")), true),
            (tokens, Some(("authorization", "bearer  fedcba9876543210")), true),
            (tokens, Some(("authorization", "Bearer 0123456789abcdeg")), false),
            (tokens, Some(("authorization", "Bearer 0123456789abcde")), false),
            (tokens, Some(("authorization", "Basic 0123456789abcdef")), false),
            (tokens, Some(("authorization", "Bearer")), false),
        ] {
            assert_eq!(check(tokens, header), passes, "{tokens:?} {header:?}");
        }
        let mut behind_proxy = HeaderMap::new();
        behind_proxy.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789abcdef"));
        behind_proxy.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        assert!(Tokens::new(tokens.iter().copied()).check(&behind_proxy).is_ok(), "with a token a proxy is welcome");
    }
}

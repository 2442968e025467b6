//! Is this an absolute URL as the WHATWG URL Standard reads it?
//!
//! The `url` crate decides. Nearly every URL that a tracker sends has one plain shape, though, and parsing it in
//! full costs an allocation and more time than the rest of the event: [`is_plain_web_url`] recognises that shape,
//! and a property test holds it to "whatever it accepts, the crate accepts too".

use std::borrow::Cow;

/// Schemes that carry code or data rather than name a page.
const REFUSED_SCHEMES: [&str; 3] = ["javascript", "data", "blob"];

/// Says what is wrong with `text` as the URL of a page, if anything is.
pub(super) fn fault(text: &str) -> Option<Cow<'static, str>> {
    if is_plain_web_url(text.as_bytes()) {
        return None;
    }
    match url::Url::parse(text) {
        Ok(url) if REFUSED_SCHEMES.contains(&url.scheme()) => {
            Some(format!("The scheme \"{}:\" is not taken; send the address of the page", url.scheme()).into())
        }
        Ok(_) => None,
        Err(error) => {
            Some(format!("Invalid URL: {error}; expected an absolute URL such as https://example.com/page").into())
        }
    }
}

/// `http(s)://`, a host of plain ASCII labels whose last one begins with a letter, an optional port, and then
/// anything after `/`, `?` or `#`. Past the authority the Standard has no way to fail; before it, everything this
/// function does not know (user info, IP addresses, punycode, escapes, other schemes) is left to the crate.
fn is_plain_web_url(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"https://").or_else(|| text.strip_prefix(b"http://")) else {
        return false;
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = &rest[..end];
    let (host, port) = match authority.iter().position(|&byte| byte == b':') {
        Some(colon) => (&authority[..colon], &authority[colon + 1..]),
        None => (authority, &b""[..]),
    };
    is_plain_host(host) && port.len() <= 4 && port.iter().all(u8::is_ascii_digit)
}

fn is_plain_host(host: &[u8]) -> bool {
    // A last label that begins with a digit may be read as an IPv4 address. A hyphen at the edge of a label or beside
    // another hyphen is where IDNA's rules begin.
    let mut previous = b'.';
    let mut last_label_starts_with_letter = false;
    for &byte in host {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                if previous == b'.' {
                    last_label_starts_with_letter = byte.is_ascii_alphabetic();
                }
            }
            b'-' | b'.' if previous != b'.' && previous != b'-' => {}
            _ => return false,
        }
        previous = byte;
    }
    last_label_starts_with_letter && previous.is_ascii_alphanumeric() && host.len() <= 253
}

#[cfg(test)]
mod tests {
    use super::{fault, is_plain_web_url};
    use proptest::prelude::*;

    #[test]
    fn what_is_taken_and_what_is_not() {
        for taken in [
            "https://example.com/page",
            "http://example.com",
            "https://example.com:8443/?q=1#top",
            "https://user:secret@example.com/",
            "http://192.168.0.1/",
            "http://[::1]:3000/",
            "https://bücher.example/",
            "file:///home/page.html",
            "android-app://com.example.app/",
            "about:blank",
            "https://example.com/a b",
        ] {
            assert_eq!(fault(taken), None, "{taken}");
        }
        for refused in [
            "",
            "page",
            "/page",
            "//example.com/",
            "https://",
            "http://[::1",
            "https://exa mple.com/",
            "http://1.2.3.4.5/",
            "https://example.com:70000/",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "blob:https://example.com/1",
            " javascript:alert(1)",
        ] {
            assert!(fault(refused).is_some(), "{refused}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn the_short_cut_accepts_nothing_that_the_standard_refuses(
            text in "https?://([a-zA-Z0-9.:@%xn-]|[é/?#\\\\ ]){0,24}"
        ) {
            if is_plain_web_url(text.as_bytes()) {
                prop_assert!(url::Url::parse(&text).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn the_common_shape_takes_the_short_cut() {
        for text in ["https://example.com/page?id=1", "http://www.shop-2.example.co.uk:8080/", "https://localhost/x"] {
            assert!(is_plain_web_url(text.as_bytes()), "{text}");
        }
    }
}

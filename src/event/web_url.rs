//! Is this an absolute URL as the WHATWG URL Standard reads it?
//!
//! The `url` crate decides. Nearly every URL that a tracker sends has one plain shape, though, and parsing it in
//! full costs an allocation and more time than the rest of the event: [`is_plain_web_url`] recognises that shape,
//! and a property test holds it to "whatever it accepts, the crate accepts too".

use std::borrow::Cow;

/// Schemes that carry code or data rather than name a page.
const REFUSED_SCHEMES: [&str; 3] = ["javascript", "data", "blob"];
/// Schemes that name something without `//`. Behind any other, what stands before the colon is no scheme but a host or
/// a disk, as a rule.
const BARE_SCHEMES: [&str; 6] = ["about", "android-app", "file", "ios-app", "mailto", "tel"];
/// How much of a text is repeated in a suggestion.
const ECHO_CHARS_MAX: usize = 64;

/// Says what is wrong with `text` as the URL of a page, if anything is. With `any_bare_scheme` none needs a `//`.
pub(super) fn fault(text: &str, any_bare_scheme: bool) -> Option<Cow<'static, str>> {
    if is_plain_web_url(text.as_bytes()) {
        return None;
    }
    // The Standard strips these off before it looks.
    let text = text.trim_matches(|letter| letter <= ' ');
    let url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => return Some(what_lacks(text)),
        Err(error) => {
            return Some(
                format!("Invalid URL: {error}; expected an absolute URL such as https://example.com/page").into(),
            );
        }
    };
    let scheme = url.scheme();
    if REFUSED_SCHEMES.contains(&scheme) {
        return Some(format!("The scheme \"{scheme}:\" is not taken; send the address of the page").into());
    }
    let rest = text.split_once(':').map_or("", |(_, rest)| rest);
    if any_bare_scheme || rest.starts_with("//") || BARE_SCHEMES.contains(&scheme) {
        return None;
    }
    Some(what_is_meant(text, scheme, rest))
}

/// The host of a URL that is taken, in any case of its letters and otherwise as the Standard writes it, without a dot
/// at its end; `None` if it has none.
pub(super) fn host(text: &str) -> Option<Cow<'_, str>> {
    // What is plain has neither a dot there nor anything else to be written otherwise.
    if let Some(host) = plain_host(text.as_bytes()).and_then(|host| std::str::from_utf8(host).ok()) {
        return Some(host.into());
    }
    let url = url::Url::parse(text.trim_matches(|letter| letter <= ' ')).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(normal_host(host).into())
}

/// The host of a website as pages' hosts are compared with it: as the Standard writes it, `www.` and a dot at its end
/// aside.
pub(super) fn comparable_host(host: &str) -> Box<str> {
    without_www(&normal_host(host)).into()
}

/// A host, of a URL of any scheme, as the Standard writes those of the web: of others it leaves the letters as they
/// are.
fn normal_host(host: &str) -> String {
    let mut host = url::Host::parse(host).map_or_else(|_| host.to_ascii_lowercase(), |host| host.to_string());
    if host.ends_with('.') {
        host.pop();
    }
    host
}

/// A host without the label that says no more than that it is one of the web.
pub(super) fn without_www(host: &str) -> &str {
    const WWW: &str = "www.";
    let is_www = host.get(..WWW.len()).is_some_and(|label| label.eq_ignore_ascii_case(WWW));
    if is_www { &host[WWW.len()..] } else { host }
}

/// Of a text whose scheme is none: what its sender has left out.
fn what_is_meant(text: &str, scheme: &str, rest: &str) -> Cow<'static, str> {
    if scheme.len() == 1 {
        return "Looks like a path on a disk; expected an absolute URL such as https://example.com/page".into();
    }
    if scheme == "localhost" || scheme.contains('.') || rest.starts_with(|letter: char| letter.is_ascii_digit()) {
        let example = format!("http://{}", echo(text));
        return format!("Looks like a host without its scheme; write {example}").into();
    }
    format!("Expected \"//\" after the scheme \"{}:\", as in https://example.com/page", echo(scheme)).into()
}

/// Of a text without a scheme: what its sender has left out.
fn what_lacks(text: &str) -> Cow<'static, str> {
    let host = text.trim_start_matches("//").split(['/', '?', '#', ':']).next().unwrap_or_default();
    let is_host = host.split_once('.').is_some_and(|(label, _)| !label.is_empty()) && !host.contains([' ', '\\']);
    if is_host || host == "localhost" || host.starts_with('[') {
        let example = format!("https://{}", echo(text.trim_start_matches("//")));
        return format!("Looks like a host without its scheme; write {example}").into();
    }
    if text.starts_with('/') {
        return "A path alone, without scheme and host; expected an absolute URL such as https://example.com/page"
            .into();
    }
    "Expected an absolute URL such as https://example.com/page".into()
}

/// As much of a text as is repeated.
pub(super) fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// `http(s)://`, a host of plain ASCII labels whose last one begins with a letter, an optional port, and then
/// anything after `/`, `?` or `#`. Past the authority the Standard has no way to fail; before it, everything this
/// function does not know (user info, IP addresses, punycode, escapes, other schemes) is left to the crate.
fn is_plain_web_url(text: &[u8]) -> bool {
    plain_host(text).is_some()
}

/// The host of a URL of the plain shape.
fn plain_host(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"https://").or_else(|| text.strip_prefix(b"http://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = &rest[..end];
    let (host, port) = match authority.iter().position(|&byte| byte == b':') {
        Some(colon) => (&authority[..colon], &authority[colon + 1..]),
        None => (authority, &b""[..]),
    };
    let is_plain = is_plain_host(host) && port.len() <= 4 && port.iter().all(u8::is_ascii_digit);
    is_plain.then_some(host)
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
            " https://example.com/ ",
            "HTTPS://EXAMPLE.COM",
            "capacitor://localhost/x",
            "chrome-extension://abc/page.html",
            "app:///index",
            "about:srcdoc",
            "android-app:x",
            "ios-app:1/x",
            "mailto:a@example.com",
            "tel:+4912345",
            "FILE:/home/page.html",
        ] {
            assert_eq!(fault(taken, false), None, "{taken}");
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
            "https:/example.com/",
            "https:example.com",
            "https:\\\\example.com",
            "urn:isbn:1",
            "view-source:https://example.com/",
            "a:",
        ] {
            assert!(fault(refused, false).is_some(), "{refused}");
        }
    }

    #[test]
    fn what_lacks_is_named() {
        for (refused, words) in [
            ("localhost:3000/page", "host without its scheme; write http://localhost:3000/page"),
            ("LOCALHOST:3000", "write http://LOCALHOST:3000"),
            ("example.com:8080/page", "write http://example.com:8080/page"),
            ("shop:8080/page", "write http://shop:8080/page"),
            ("google.com", "write https://google.com"),
            ("www.example.com/a?b", "write https://www.example.com/a?b"),
            ("//example.com/a", "write https://example.com/a"),
            ("127.0.0.1:3000/a", "write https://127.0.0.1:3000/a"),
            ("[::1]:3000", "write https://[::1]:3000"),
            ("localhost", "write https://localhost"),
            (r"C:\x", "path on a disk"),
            ("c:/x", "path on a disk"),
            ("/page", "A path alone"),
            ("page", "Expected an absolute URL"),
            ("(direct)", "Expected an absolute URL"),
            ("undefined", "Expected an absolute URL"),
            ("./page", "Expected an absolute URL"),
            ("https:/example.com", "Expected \"//\" after the scheme \"https:\""),
            ("javascript:x", "\"javascript:\" is not taken"),
        ] {
            let told = fault(refused, false).unwrap_or_default();
            assert!(told.contains(words), "{refused}: {told}");
        }
        let long = fault(&format!("example.com:{}", "é".repeat(4_000)), false).unwrap();
        assert!(long.chars().count() < 150, "{long}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn the_short_cut_accepts_nothing_that_the_standard_refuses(
            text in "https?://([a-zA-Z0-9.:@%xn-]|[é/?#\\\\ ]){0,24}"
        ) {
            if is_plain_web_url(text.as_bytes()) {
                let url = url::Url::parse(&text);
                prop_assert!(url.is_ok(), "{text}");
                let host = super::host(&text).map(|host| host.to_ascii_lowercase());
                prop_assert_eq!(host.as_deref(), url.as_ref().ok().and_then(url::Url::host_str), "{}", text);
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

//! What a request must show where a token would be needed: that it was meant for this hitlog. Pure.
//!
//! "From this machine" is not "from its owner": the browser on it runs pages of strangers. One whose own name was made
//! to lead to 127.0.0.1 is of the same origin as hitlog as far as the browser knows, so `Host` has to be a name of this
//! machine. Another may send what needs no preflight, so the browser's own words about where a request comes from
//! count (`Sec-Fetch-Site`, or `Origin` where a browser is too old for that), and a body has to be of a type that no
//! form has.
//!
//! A bearer token shows more than any of this: no page can make a browser send one that it does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING},
    http::request::Parts,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request that needs a token is refused without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distrust {
    /// It names another host than this machine.
    Host,
    /// A page of another site sent it.
    Page,
}

/// Whether a request without a token may do what needs one, while no token is set.
pub(super) fn check(head: &Parts) -> Result<(), Distrust> {
    // RFC 9112 has the target's host count where there is one; a proxy may think otherwise, so both have to be right.
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let hosts = || target.into_iter().chain(head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes));
    let mut places = hosts().map(Place::parse).peekable();
    if places.peek().is_none() || !places.all(|place| place.is_some_and(Place::is_this_machine)) {
        return Err(Distrust::Host);
    }
    if is_of_other_site(&head.headers, hosts) { Err(Distrust::Page) } else { Ok(()) }
}

/// Whether the body, if there is one, is of a type that a form or a beacon of another site could send. One without a
/// type is.
pub(super) fn has_foreign_body(headers: &HeaderMap) -> bool {
    let is_empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    if is_empty && !headers.contains_key(TRANSFER_ENCODING) {
        return false;
    }
    let is_json = |value: &[u8]| {
        let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
        value[..end].trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    !matches!((types.next(), types.next()), (Some(only), None) if is_json(only.as_bytes()))
}

fn is_of_other_site<'a, H: Iterator<Item = &'a [u8]>>(headers: &HeaderMap, hosts: impl Fn() -> H) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return !sites.all(|site| [&b"same-origin"[..], b"none"].contains(&site.as_bytes()));
    }
    let is_here = |origin: &[u8]| {
        let Some((place, default_port)) = origin_place(origin) else { return false };
        let port = place.port.or(default_port);
        hosts().all(|host| {
            let host = Place::parse(host);
            host.is_some_and(|host| host.name.eq_ignore_ascii_case(place.name) && host.port.or(default_port) == port)
        })
    };
    !headers.get_all(ORIGIN).iter().all(|origin| is_here(origin.as_bytes()))
}

/// Where an `Origin` says that its page is from, and the port that its scheme leaves out. `null` is nowhere.
fn origin_place(origin: &[u8]) -> Option<(Place<'_>, Option<u16>)> {
    let (scheme, place) = std::str::from_utf8(origin).ok()?.split_once("://")?;
    let default_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Some((Place::parse(place.as_bytes())?, default_port))
}

/// A host and a port, as `Host` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place<'a> {
    /// Of an IPv6 address with its brackets.
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Place<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let end = match text.strip_prefix('[') {
            Some(address) => address.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (name, rest) = text.split_at(end);
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return None,
            // An empty port is none, by the grammar of a URI.
            Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            Some(_) => return None,
        };
        (!name.is_empty()).then_some(Self { name, port })
    }

    /// Whether this can only be the machine itself. Nobody's name server is asked for any of these: `localhost` with
    /// something before it may be.
    fn is_this_machine(self) -> bool {
        if let Some(address) = self.name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            return address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback());
        }
        let name = self.name.strip_suffix('.').unwrap_or(self.name);
        name.eq_ignore_ascii_case("localhost") || self.name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut head = Request::builder().uri(target).body(()).unwrap().into_parts().0;
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            head.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        head
    }

    #[test]
    fn hosts_that_are_this_machine() {
        for (host, passes) in [
            ("localhost", true),
            ("LocalHost:3000", true),
            ("localhost.", true),
            ("localhost.:3000", true),
            ("localhost:", true),
            ("127.0.0.1", true),
            ("127.0.0.1:65535", true),
            ("127.255.1.2", true),
            ("[::1]", true),
            ("[::1]:3000", true),
            ("[0:0:0:0:0:0:0:1]", true),
            ("evil.example", false),
            ("evil.example:3000", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("evil.localhost", false),
            ("localhost..", false),
            ("127.1", false),
            ("0177.0.0.1", false),
            ("2130706433", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("[::]", false),
            ("[::ffff:127.0.0.1]", false),
            ("[::1", false),
            ("[::1]x", false),
            ("::1", false),
            ("localhost@evil.example", false),
            ("evil.example@localhost", false),
            ("localhost:80:80", false),
            ("localhost:x", false),
            ("localhost:65536", false),
            ("localhost, evil.example", false),
            (" localhost", false),
            ("localhost/", false),
            ("", false),
            (":3000", false),
            ("\u{e9}", false),
        ] {
            assert_eq!(check(&head("/", &[("host", host)])).is_ok(), passes, "{host}");
        }
        for (target, headers, passes) in [
            ("/", &[][..], false),
            ("/", &[("host", "localhost"), ("host", "evil.example")], false),
            ("http://localhost:3000/", &[("host", "localhost:3000")], true),
            ("http://localhost:3000/", &[], true),
            ("http://evil.example/", &[("host", "localhost")], false),
            ("http://localhost/", &[("host", "evil.example")], false),
        ] {
            let wanted = if passes { Ok(()) } else { Err(Distrust::Host) };
            assert_eq!(check(&head(target, headers)), wanted, "{target} {headers:?}");
        }
    }

    #[test]
    fn pages_that_are_this_sites() {
        let (site, origin) = ("sec-fetch-site", "origin");
        for (headers, passes) in [
            (&[][..], true),
            (&[(site, "same-origin")], true),
            (&[(site, "none")], true),
            (&[(site, "cross-site")], false),
            (&[(site, "same-site")], false),
            (&[(site, "Same-Origin")], false),
            (&[(site, "")], false),
            (&[(site, "none"), (site, "cross-site")], false),
            (&[(site, "same-origin"), (origin, "http://evil.example")], true),
            (&[(site, "cross-site"), (origin, "http://localhost:3000")], false),
            (&[(origin, "http://localhost:3000")], true),
            (&[(origin, "https://localhost:3000")], true),
            (&[(origin, "http://LOCALHOST:3000")], true),
            (&[(origin, "http://localhost:8080")], false),
            (&[(origin, "http://localhost")], false),
            (&[(origin, "http://127.0.0.1:3000")], false),
            (&[(origin, "http://localhost:3000.evil.example")], false),
            (&[(origin, "http://evil.example")], false),
            (&[(origin, "http://evil.example:3000")], false),
            (&[(origin, "null")], false),
            (&[(origin, "")], false),
            (&[(origin, "\u{ff}")], false),
            (&[(origin, "chrome-extension://abcdef")], false),
            (&[(origin, "http://localhost:3000"), (origin, "http://evil.example")], false),
        ] {
            let of = [&[("host", "localhost:3000")], headers].concat();
            let wanted = if passes { Ok(()) } else { Err(Distrust::Page) };
            assert_eq!(check(&head("/", &of)), wanted, "{headers:?}");
        }
        for (host, from, passes) in [
            ("localhost", "http://localhost", true),
            ("localhost", "https://localhost", true),
            ("localhost:80", "http://localhost", true),
            ("localhost:443", "https://localhost", true),
            ("localhost:443", "http://localhost", false),
            ("localhost", "http://localhost:80", true),
            ("[::1]:3000", "http://[::1]:3000", true),
        ] {
            assert_eq!(check(&head("/", &[("host", host), (origin, from)])).is_ok(), passes, "{host} {from}");
        }
        let absolute = [("host", "localhost:3000"), (origin, "http://localhost:3000")];
        assert_eq!(check(&head("http://127.0.0.1:3000/", &absolute)), Err(Distrust::Page), "the two differ");
    }

    #[test]
    fn bodies_that_other_sites_could_send() {
        for (headers, is_foreign) in [
            (&[][..], false),
            (&[("content-length", "0")], false),
            (&[("content-length", "0"), ("content-type", "text/plain")], false),
            (&[("content-length", "2")], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("content-length", "2"), ("content-type", "application/json")], false),
            (&[("content-length", "2"), ("content-type", "Application/JSON ; charset=utf-8")], false),
            (&[("transfer-encoding", "chunked"), ("content-type", "application/json")], false),
            (&[("content-length", "2"), ("content-type", "text/plain;charset=UTF-8")], true),
            (&[("content-length", "2"), ("content-type", "application/x-www-form-urlencoded")], true),
            (&[("content-length", "2"), ("content-type", "text/plain; application/json")], true),
            (&[("content-length", "2"), ("content-type", "application/jsonx")], true),
            (&[("content-length", "2"), ("content-type", "text/plain, application/json")], true),
            (&[("content-length", "2"), ("content-type", "application/json"), ("content-type", "text/plain")], true),
        ] {
            assert_eq!(has_foreign_body(&head("/", headers).headers), is_foreign, "{headers:?}");
        }
    }
}

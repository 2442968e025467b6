//! The address of whoever sent a request: the peer's, or, where that is a proxy that is trusted, the one that it names.
//!
//! Of the addresses in `X-Forwarded-For`, or in `Forwarded` (RFC 7239) where there is none, the rightmost counts that
//! is not a trusted proxy's: each proxy adds the one that it was asked from at the right, and what stands further left
//! its sender may have made up.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName, HeaderValue},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of whoever sent a request to this peer of ours, or is it.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut nearest = peer.to_canonical();
    if !trusts(nearest) {
        return nearest;
    }
    let is_plain = headers.contains_key(X_FORWARDED_FOR);
    let lists = headers.get_all(if is_plain { X_FORWARDED_FOR } else { FORWARDED });
    // A list may go on in the next header of its name.
    let lists: Vec<&str> = lists.iter().map(|list| HeaderValue::to_str(list).unwrap_or_default()).collect();
    for list in lists.into_iter().rev() {
        let hops: Vec<&str> = split_unquoted(list, ',').collect();
        for hop in hops.into_iter().rev() {
            let node = if is_plain { Some(hop) } else { forwarded_for(hop) };
            // What lies behind somebody who does not say for whom it asks is not known.
            let Some(address) = node.and_then(address_of) else { return nearest };
            nearest = address;
            if !trusts(nearest) {
                return nearest;
            }
        }
    }
    nearest
}

/// The parts of a text between these marks, except those within quotes.
fn split_unquoted(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |letter| {
        let counts = letter == mark && !is_quoted;
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        counts
    })
}

/// The node that a hop of a `Forwarded` names after `for`.
fn forwarded_for(hop: &str) -> Option<&str> {
    split_unquoted(hop, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// The address of a node; its port, if it has one, tells nothing.
fn address_of(node: &str) -> Option<IpAddr> {
    let node = node.trim().trim_matches('"');
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().or_else(|_| node.parse().map(|whole: SocketAddr| whole.ip())).ok();
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, sent: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let trusts = |address: IpAddr| ["10.0.0.1", "10.0.0.2", "2001:db8::1"].contains(&address.to_string().as_str());
        client_address(peer.parse().unwrap(), &headers, trusts).to_string()
    }

    #[test]
    fn the_rightmost_that_is_not_trusted() {
        const FOR: &str = "x-forwarded-for";
        for (peer, sent, wanted) in [
            ("192.0.2.9", &[][..], "192.0.2.9"),
            ("::ffff:192.0.2.9", &[], "192.0.2.9"),
            ("192.0.2.9", &[(FOR, "198.51.100.1")], "192.0.2.9"),
            ("192.0.2.9", &[("forwarded", "for=198.51.100.1")], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &[(FOR, "198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "203.0.113.5, 198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "203.0.113.5, 198.51.100.1, 10.0.0.2")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "203.0.113.5"), (FOR, "198.51.100.1,10.0.0.2")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "198.51.100.1:4711")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "[2001:db8::7]:4711")], "2001:db8::7"),
            ("10.0.0.1", &[(FOR, "2001:db8::7")], "2001:db8::7"),
            ("10.0.0.1", &[(FOR, "[2001:db8::7]")], "2001:db8::7"),
            // Everybody is trusted: the first of all asked.
            ("10.0.0.1", &[(FOR, "10.0.0.2")], "10.0.0.2"),
            // Somebody does not say whom it asks for.
            ("10.0.0.1", &[(FOR, "198.51.100.1, unknown")], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "198.51.100.1, unknown, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[(FOR, "")], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "198.51.100.1,")], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "\u{e9}")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1;proto=https;by=203.0.113.43")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "for=203.0.113.5, For=\"[2001:db8::7]:4711\"")], "2001:db8::7"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, proto=http; for = \"[2001:db8::1]\"")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, proto=http")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1;host=\"a,for=203.0.113.5;\\\"x\"")], "198.51.100.1"),
            // A proxy that sets one may pass the other on as it came.
            ("10.0.0.1", &[(FOR, "198.51.100.1"), ("forwarded", "for=203.0.113.5")], "198.51.100.1"),
        ] {
            assert_eq!(found(peer, sent), wanted, "{peer} {sent:?}");
        }
    }
}

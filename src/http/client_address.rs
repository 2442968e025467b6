//! The address of whoever sent a request: the peer's, or, where that is a proxy that is trusted, the one that it names.
//!
//! Of the addresses in `X-Forwarded-For`, or in `Forwarded` (RFC 7239), the rightmost counts that is not a trusted
//! proxy's: each proxy adds the one that it was asked from at the right, and what stands further left its sender may
//! have made up. A proxy that sets one of the two may pass the other on as it came: where they name different
//! addresses, neither counts.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName, HeaderValue},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of whoever sent a request to this peer of ours, or is it.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusts(peer) {
        return peer;
    }
    let by_list = headers.contains_key(X_FORWARDED_FOR).then(|| {
        // A list may go on in the next header of its name. Each hop is read for itself: whatever stands left of it.
        let lists = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
        let hops = lists.flat_map(|list| list.rsplit(|byte| *byte == b',')).filter(|hop| !hop.trim_ascii().is_empty());
        farthest(peer, hops.map(|hop| address_of(str::from_utf8(hop).ok()?)), &trusts)
    });
    let by_standard = headers.contains_key(FORWARDED).then(|| {
        let lists = headers.get_all(FORWARDED).iter().rev().map(hops_of);
        farthest(peer, lists.flatten().map(|hop| address_of(forwarded_for(hop?)?)), &trusts)
    });
    match (by_list, by_standard) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(address), _) | (None, Some(address)) => address,
        (None, None) => peer,
    }
}

/// Goes from hop to hop, the nearest first, to the first one that is not trusted. What lies behind somebody who does
/// not say for whom it asks is not known.
fn farthest(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut nearest = peer;
    for hop in hops {
        let Some(address) = hop else { return nearest };
        nearest = address;
        if !trusts(nearest) {
            return nearest;
        }
    }
    nearest
}

/// The hops of a `Forwarded`, the nearest first. Of a list that ends within quotes none is known: somebody may have
/// opened them for whatever a proxy adds.
fn hops_of(list: &HeaderValue) -> Vec<Option<&str>> {
    let text = list.to_str().unwrap_or("\"");
    let mut hops: Vec<_> = split_unquoted(text, ',').map(Some).collect();
    let is_open = hops.last().is_some_and(|last| last.is_some_and(|last| !is_closed(last)));
    if is_open {
        return vec![None];
    }
    hops.reverse();
    hops
}

/// Whether every quote of a text is closed in it.
fn is_closed(text: &str) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for letter in text.chars() {
        step(letter, &mut is_quoted, &mut is_escaped);
    }
    !is_quoted
}

/// Goes over a letter of a text that may have quotes, RFC 9110, section 5.6.4.
fn step(letter: char, is_quoted: &mut bool, is_escaped: &mut bool) {
    match letter {
        _ if *is_escaped => *is_escaped = false,
        '\\' if *is_quoted => *is_escaped = true,
        '"' => *is_quoted = !*is_quoted,
        _ => {}
    }
}

/// The parts of a text between these marks, except those within quotes.
fn split_unquoted(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |letter| {
        let counts = letter == mark && !is_quoted;
        step(letter, &mut is_quoted, &mut is_escaped);
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
            ("10.0.0.1", &[(FOR, "198.51.100.1,\t10.0.0.2 , ")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "198.51.100.1,")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "\u{e9}")], "10.0.0.1"),
            // What its sender has made up costs nobody what a proxy has added.
            ("10.0.0.1", &[(FOR, "\u{e9}, 198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "\", 198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[(FOR, "\"a"), (FOR, "198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "for=1.2.3.4;x=\", for=198.51.100.1")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=1.2.3.4;x=\""), ("forwarded", "for=198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1"), ("forwarded", "\u{e9}")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1;proto=https;by=203.0.113.43")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "for=203.0.113.5, For=\"[2001:db8::7]:4711\"")], "2001:db8::7"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, proto=http; for = \"[2001:db8::1]\"")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, proto=http")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1;host=\"a,for=203.0.113.5;\\\"x\"")], "198.51.100.1"),
            // A proxy that sets one may pass the other on as it came.
            ("10.0.0.1", &[(FOR, "198.51.100.1"), ("forwarded", "for=203.0.113.5")], "10.0.0.1"),
            ("10.0.0.1", &[(FOR, "203.0.113.5, 198.51.100.1"), ("forwarded", "for=198.51.100.1")], "198.51.100.1"),
        ] {
            assert_eq!(found(peer, sent), wanted, "{peer} {sent:?}");
        }
    }
}

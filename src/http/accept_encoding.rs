//! Whether a client wants its answer packed, RFC 9110, section 12.5.3.

use hyper::{
    HeaderMap,
    header::{ACCEPT_ENCODING, HeaderValue},
};

/// How an answer may be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Gzip,
    /// It is sent as it is.
    Identity,
}

/// Whether the client takes gzip, and does not like the answer as it is better.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let Weights { gzip, identity, .. } = weights(headers);
    gzip > 0 && gzip >= identity
}

/// The coding that the client likes best, and of those that it likes as well the one that packs best.
pub(super) fn best_coding(headers: &HeaderMap) -> Coding {
    let Weights { brotli, gzip, identity } = weights(headers);
    match () {
        () if brotli > 0 && brotli >= gzip.max(identity) => Coding::Brotli,
        () if gzip > 0 && gzip >= identity => Coding::Gzip,
        () => Coding::Identity,
    }
}

/// What weight each coding has, in thousandths.
struct Weights {
    brotli: u16,
    gzip: u16,
    identity: u16,
}

/// What in the header is not of its grammar is passed over, and the rest of it counts.
fn weights(headers: &HeaderMap) -> Weights {
    let (mut brotli, mut gzip, mut any, mut identity) = (None, None, None, None);
    let lists = headers.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
    for item in lists.flat_map(|list| list.split(|byte| *byte == b',')) {
        let Some((name, thousandths)) = str::from_utf8(item).ok().and_then(coding) else { continue };
        match name.to_ascii_lowercase().as_str() {
            "br" => brotli = Some(thousandths),
            "gzip" | "x-gzip" => gzip = Some(thousandths),
            "identity" => identity = Some(thousandths),
            "*" => any = Some(thousandths),
            _ => {}
        }
    }
    // Without a word on it the answer as it is will do, if nothing better is there.
    let [brotli, gzip] = [brotli, gzip].map(|weight| weight.or(any).unwrap_or(0));
    Weights { brotli, gzip, identity: identity.unwrap_or(0) }
}

/// A coding and its weight in thousandths; `None` where an item is none.
fn coding(item: &str) -> Option<(&str, u16)> {
    let (name, parameter) = item.split_once(';').unwrap_or((item, ""));
    let parameter = parameter.trim();
    let thousandths = match parameter.split_once('=') {
        Some((q, value)) if q.trim().eq_ignore_ascii_case("q") => weight(value.trim())?,
        // A semicolon with nothing behind it says nothing.
        None if parameter.is_empty() => 1_000,
        _ => return None,
    };
    Some((name.trim(), thousandths))
}

/// A weight in thousandths, RFC 9110, section 12.4.2: `0` or `1`, and behind a point up to three digits; `None` if it
/// is none.
pub(super) fn weight(value: &str) -> Option<u16> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = decimals.bytes().zip([100, 10, 1]).map(|(digit, place)| u16::from(digit - b'0') * place).sum();
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip() {
        for (lists, wanted) in [
            (&[][..], false),
            (&[""], false),
            (&["gzip"], true),
            (&["GZIP"], true),
            (&["x-gzip"], true),
            (&["deflate, br"], false),
            (&["deflate, gzip;q=1.0, *;q=0.5"], true),
            (&["br", "gzip"], true),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000, *"], false),
            (&["gzip ; Q = 0.001"], true),
            (&["identity"], false),
            (&["identity, gzip"], true),
            (&["identity;q=1, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip;q=0.5"], true),
            (&["gzip;q=2"], false),
            (&["gzip;q=nan"], false),
            (&["gzip;level=9"], false),
            (&["gzip;"], true),
            (&["gzip ; , br"], true),
            (&["gzip;q=0."], false),
            (&["gzip;q=0.5"], true),
            (&["gzip;q=0.999, identity;q=1"], false),
            (&["gzip;q=1.000, identity;q=1."], true),
            (&["gzip;q=0.001, identity;q=0.01"], false),
            // No weights, so these items say nothing.
            (&["gzip;q="], false),
            (&["gzip;q"], false),
            (&["gzip;q=1e-1"], false),
            (&["gzip;q=+0.5"], false),
            (&["gzip;q=-0"], false),
            (&["gzip;q=.5"], false),
            (&["gzip;q=1.001"], false),
            (&["gzip;q=0.0001"], false),
            (&["gzip;q=0.5;q=1"], false),
            (&["gzip;q=01"], false),
            (&["gzip, identity;q=1e0"], true),
            (&["gzip;q=0.5, identity;q=1.0000"], true),
            (&["gzip;q=x, *"], true),
            // Bytes that are no ASCII take no more with them than their item.
            (&["gr\u{fc}n, gzip"], true),
            (&["gzip, gr\u{fc}n;q=0.5"], true),
            (&["gzip\u{fc}"], false),
        ] {
            // What a header holds is bytes, of no encoding that is known.
            let latin = |list: &&str| list.chars().map(|char| u8::try_from(char).unwrap()).collect();
            let utf8 = |list: &&str| list.as_bytes().to_vec();
            for lists in [lists.iter().map(latin).collect::<Vec<Vec<u8>>>(), lists.iter().map(utf8).collect()] {
                let mut headers = HeaderMap::new();
                for list in &lists {
                    headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(list).unwrap());
                }
                let shown: Vec<_> = lists.iter().map(|list| String::from_utf8_lossy(list)).collect();
                assert_eq!(takes_gzip(&headers), wanted, "{shown:?}");
            }
        }
    }
}

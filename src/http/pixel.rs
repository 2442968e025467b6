//! The picture that counts: for pages without JavaScript, a page view in the query of a picture of one pixel.

use bytes::Bytes;
use hyper::{
    HeaderMap,
    header::{CACHE_CONTROL, HeaderValue, REFERER},
};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{
    assets::{CROSS_ORIGIN, RESOURCE_POLICY},
    response::{Response, of_static},
};

/// A transparent picture of one pixel, GIF89a.
const PIXEL: &[u8; 43] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// The parameters: the members of a beacon, by its names.
const NAMES: [&str; 7] = ["code", "url", "ref", "sid", "vid", "t", "eventId"];

/// The picture. Nobody keeps it: each time that it is shown is a page view.
pub(super) fn picture() -> Response {
    let mut response = of_static("image/gif", Bytes::from_static(PIXEL));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(RESOURCE_POLICY, CROSS_ORIGIN);
    response
}

/// The beacon that a query is: what it does not say of the visitor is left to hitlog, and the page is the one that the
/// picture is on, as far as its browser tells. What is given twice is in it twice, and what is no UTF-8 as it is: both
/// are faults of a beacon's, which are told where it is read.
pub(super) fn beacon(query: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut members: Vec<(&str, Vec<u8>)> = Vec::new();
    for part in query.split('&') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (decoded(name), decoded(value));
        let Some(name) = NAMES.into_iter().find(|known| known.as_bytes() == name) else { continue };
        match str::from_utf8(&value) {
            Ok("") => {}
            Ok(text) if name == "t" && text.parse::<u64>().is_ok() => members.push((name, value)),
            Ok(text) => members.push((name, quoted(text))),
            Err(_) => members.push((name, [b"\"", &*value, b"\""].concat())),
        }
    }
    let is_said = |name: &str| members.iter().any(|(said, _)| *said == name);
    let page = headers.get(REFERER).and_then(|page| page.to_str().ok()).filter(|_| !is_said("url"));
    let unsaid = ["sid", "vid"].into_iter().filter(|name| !is_said(name));
    let added: Vec<_> =
        unsaid.map(|name| (name, quoted("server"))).chain(page.map(|page| ("url", quoted(page)))).collect();
    members.extend(added);
    let members: Vec<_> =
        members.into_iter().map(|(name, value)| [b"\"", name.as_bytes(), b"\":", &*value].concat()).collect();
    [b"{", &*members.join(&b','), b"}"].concat()
}

/// A text of a query as it was meant, <https://url.spec.whatwg.org/#urlencoded-parsing>.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

fn quoted(text: &str) -> Vec<u8> {
    Value::from(text).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_a_beacon() {
        for (query, page, wanted) in [
            ("", None, r#"{"sid":"server","vid":"server"}"#),
            (
                "code=pm-1",
                Some("https://a.example/"),
                r#"{"code":"pm-1","sid":"server","vid":"server","url":"https://a.example/"}"#,
            ),
            (
                "code=pm-1&url=https%3A%2F%2Fa.example%2Fx%3Fy%3D%C3%A9&ref=&t=1764000000123&other=1",
                Some("https://a.example/"),
                r#"{"code":"pm-1","url":"https://a.example/x?y=é","t":1764000000123,"sid":"server","vid":"server"}"#,
            ),
            (
                "sid=s&vid=v&t=2026-01-28T20:00:00Z&eventId=e%22&ref=https://b.example/",
                None,
                r#"{"sid":"s","vid":"v","t":"2026-01-28T20:00:00Z","eventId":"e\"","ref":"https://b.example/"}"#,
            ),
            ("code=a&code=b&sid=s&vid=v", None, r#"{"code":"a","code":"b","sid":"s","vid":"v"}"#),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(page) = page {
                headers.insert(REFERER, HeaderValue::from_static(page));
            }
            assert_eq!(String::from_utf8(beacon(query, &headers)).unwrap(), wanted, "{query}");
        }
        let torn = beacon("code=a&sid=s&vid=v&eventId=%ff", &HeaderMap::new());
        assert_eq!(torn, b"{\"code\":\"a\",\"sid\":\"s\",\"vid\":\"v\",\"eventId\":\"\xff\"}");
    }
}

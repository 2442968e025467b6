//! The picture that counts: for pages without JavaScript, a page view in the query of a picture of one pixel.

use bytes::Bytes;
use hyper::{
    HeaderMap,
    header::{CACHE_CONTROL, HeaderValue, REFERER},
};
use serde_json::{Map, Value};

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
/// picture is on, as far as its browser tells. What is given twice is a fault of the beacon, so both are in it.
pub(super) fn beacon(query: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut members: Vec<(&str, Value)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
        let Some(name) = NAMES.into_iter().find(|known| *known == name) else { continue };
        let number = value.parse::<u64>().ok().filter(|_| name == "t");
        members.push((name, number.map_or_else(|| Value::from(&*value), Value::from)));
    }
    let is_said = |name: &str| members.iter().any(|(said, _)| *said == name);
    let page = headers.get(REFERER).and_then(|page| page.to_str().ok()).filter(|_| !is_said("url"));
    let unsaid = ["sid", "vid"].into_iter().filter(|name| !is_said(name));
    let added: Vec<_> =
        unsaid.map(|name| (name, "server".into())).chain(page.map(|page| ("url", page.into()))).collect();
    members.extend(added);
    write(&members)
}

/// The members as JSON, a name that is there twice as well.
fn write(members: &[(&str, Value)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let member = Map::from_iter([((*name).to_owned(), value.clone())]);
        // What is between the braces of an object of one member.
        let text = Value::Object(member).to_string();
        out.extend_from_slice(&text.as_bytes()[1..text.len() - 1]);
    }
    out.push(b'}');
    out
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
    }
}

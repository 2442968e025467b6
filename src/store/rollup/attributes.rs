//! What an event is filed under: what is taken from its URL, its referrer and its properties.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::hit::Kind;
use crate::event::{EventRow, NAME_KEYS};

/// Bytes of a value that count; more are cut off.
pub(crate) const VALUE_BYTES_MAX: usize = 1_024;
/// The name of the events that report visible time.
const ENGAGEMENT: &str = "$engagement";
/// The longest visible time that one event can report, in milliseconds: a day.
const ENGAGED_MS_MAX: f64 = 86_400_000.0;

/// Host and path of a URL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<'a> {
    /// In lower case, without port; empty if it has none.
    pub(crate) host: Cow<'a, [u8]>,
    /// With the fragment that is part of it, if there is one.
    pub(crate) path: Cow<'a, [u8]>,
}

/// What a URL's query says of where a visitor comes from; empty is nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Campaign<'a> {
    /// `utm_source`, `utm_medium`, `utm_campaign`, `utm_content`, `utm_term`.
    pub(crate) utm: [Cow<'a, [u8]>; 5],
    /// `source`, else `ref`.
    pub(crate) source: Cow<'a, [u8]>,
}

const CAMPAIGN_KEYS: [&[u8]; 7] =
    [b"utm_source", b"utm_medium", b"utm_campaign", b"utm_content", b"utm_term", b"source", b"ref"];

/// The parts of a URL: what stands between `//` and the path, the path, the query, the fragment.
struct Parts<'a> {
    authority: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    fragment: &'a [u8],
}

fn split_at(text: &[u8], is_end: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| is_end(*byte)).unwrap_or(text.len()))
}

fn parts(url: &[u8]) -> Parts<'_> {
    let url = url.trim_ascii();
    let (before, fragment) = split_at(url, |byte| byte == b'#');
    let (before, query) = split_at(before, |byte| byte == b'?');
    let (_, rest) = split_at(before, |byte| matches!(byte, b':' | b'/'));
    let (authority, path) = match rest.strip_prefix(b"://") {
        Some(rest) => split_at(rest, |byte| byte == b'/'),
        // A scheme without a host, as of about:blank, or none at all.
        None => (&b""[..], if rest.first() == Some(&b':') { &rest[1..] } else { before }),
    };
    let behind = |text: &'_ [u8]| -> usize { usize::from(!text.is_empty()) };
    Parts { authority, path, query: &query[behind(query)..], fragment: &fragment[behind(fragment)..] }
}

/// The host of what stands between `//` and the path, in lower case.
fn host(authority: &[u8]) -> Cow<'_, [u8]> {
    let authority = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    let host = match authority.iter().position(|byte| *byte == b']') {
        Some(end) if authority.first() == Some(&b'[') => &authority[..=end],
        _ => split_at(authority, |byte| byte == b':').0,
    };
    let host = cut(host);
    if host.iter().any(u8::is_ascii_uppercase) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// The first bytes of a value, as many as count, without half a letter at the end.
pub(crate) fn cut(value: &[u8]) -> &[u8] {
    if value.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let mut end = VALUE_BYTES_MAX;
    while end > 0 && value[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &value[..end]
}

/// The page of a URL.
pub(crate) fn page(url: &[u8]) -> Page<'_> {
    let Parts { authority, path, fragment, .. } = parts(url);
    let path = if path.is_empty() { &b"/"[..] } else { path };
    let is_route = fragment.first() == Some(&b'/') || fragment.starts_with(b"!/");
    let path: Cow<'_, [u8]> = if is_route {
        let route = split_at(fragment, |byte| byte == b'?').0;
        let whole = [path, b"#", route].concat();
        cut(&whole).to_vec().into()
    } else {
        cut(path).into()
    };
    Page { host: host(authority), path }
}

/// The host of a referrer, in lower case, without `www.`; empty if it has none.
pub(crate) fn referrer_host(referrer: &[u8]) -> Cow<'_, [u8]> {
    let host = host(parts(referrer).authority);
    match host {
        Cow::Borrowed(host) => host.strip_prefix(b"www.").unwrap_or(host).into(),
        Cow::Owned(host) => host.strip_prefix(b"www.").map_or(host.clone(), <[u8]>::to_vec).into(),
    }
}

/// What the query of a URL says.
pub(crate) fn campaign(url: &[u8]) -> Campaign<'_> {
    if !url.contains(&b'?') {
        return Campaign::default();
    }
    let query = parts(url).query;
    let mut found: [Option<Cow<'_, [u8]>>; 7] = Default::default();
    for pair in query.split(|byte| *byte == b'&') {
        let (name, value) = split_at(pair, |byte| byte == b'=');
        if let Some(at) = CAMPAIGN_KEYS.iter().position(|key| *key == &*decoded(name))
            && found[at].is_none()
        {
            found[at] = Some(decoded(value.get(1..).unwrap_or_default()));
        }
    }
    let [utm_source, medium, campaign, content, term, source, reference] = found.map(Option::unwrap_or_default);
    let source = if source.is_empty() { reference } else { source };
    Campaign { utm: [utm_source, medium, campaign, content, term], source }
}

/// A value of a query.
fn decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.iter().any(|byte| matches!(byte, b'+' | b'%')) {
        return cut(value).into();
    }
    let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let bytes: Vec<u8> = percent_decode(&spaced).collect();
    // What comes out need not be text any more, and only text can be shown.
    let text = String::from_utf8_lossy(&bytes);
    cut(text.as_bytes()).to_vec().into()
}

/// What a click or custom event is.
#[derive(Debug, PartialEq)]
pub(crate) struct Action<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: Cow<'a, [u8]>,
    pub(crate) engaged_ms: u32,
}

/// What kind of event it is, its name, and the visible time that it reports.
pub(crate) fn action<'a>(row: &EventRow<'a>) -> Action<'a> {
    let named = |kind, name: Cow<'a, [u8]>, engaged_ms| Action { kind: Kind(kind), name, engaged_ms };
    match row.event_type {
        b"pageview" => named(Kind::PAGEVIEW, Cow::default(), 0),
        b"click" | b"custom" => {
            let Some(properties) = row.properties.and_then(|json| serde_json::from_slice::<Properties>(json).ok())
            else {
                return named(Kind::INTERACTION, row.event_type.into(), 0);
            };
            let is_engagement = properties.name.as_deref() == Some(ENGAGEMENT);
            let name = match properties.name {
                Some(name) => cut(name.as_bytes()).to_vec().into(),
                None => row.event_type.into(),
            };
            match properties.engaged_ms.filter(|_| is_engagement) {
                Some(engaged_ms) => named(Kind::ENGAGEMENT, name, engaged_ms),
                None if is_engagement || properties.is_passive => named(0, name, 0),
                None => named(Kind::INTERACTION, name, 0),
            }
        }
        // Of a hitlog to come.
        _ => named(0, row.event_type.into(), 0),
    }
}

/// What counts of an event's properties.
#[derive(Debug, Default)]
struct Properties {
    name: Option<String>,
    is_passive: bool,
    engaged_ms: Option<u32>,
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PropertiesVisitor)
    }
}

struct PropertiesVisitor;

impl<'de> Visitor<'de> for PropertiesVisitor {
    type Value = Properties;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the properties of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
        let mut found = Properties::default();
        let mut name_rank = NAME_KEYS.len();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if let Some(rank) = NAME_KEYS.iter().position(|name| *name == key) {
                if let Scalar::Text(text) = map.next_value()?
                    && rank < name_rank
                    && !text.is_empty()
                {
                    (found.name, name_rank) = (Some(text), rank);
                }
            } else if key == "interactive" {
                found.is_passive = map.next_value::<Scalar>()? == Scalar::Bool(false);
            } else if key == "engagedMs" {
                found.engaged_ms = match map.next_value()? {
                    Scalar::Number(number) if (0.0..=ENGAGED_MS_MAX).contains(&number) => Some(number as u32),
                    _ => None,
                };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A value of JSON, if it is one of those that count.
#[derive(Debug, PartialEq)]
enum Scalar {
    Text(String),
    Bool(bool),
    Number(f64),
    Other,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// The value of one property as text, and no value if it is empty or neither a text, a number nor true or false. Of a
/// name that comes twice the first one counts.
pub(crate) fn property(properties: &[u8], name: &str) -> Option<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(properties);
    let found = PropertyVisitor { name }.visit(&mut deserializer).ok()??;
    let text = String::from_utf8_lossy(cut(found.as_bytes())).into_owned();
    (!text.is_empty()).then_some(text)
}

struct PropertyVisitor<'n> {
    name: &'n str,
}

impl PropertyVisitor<'_> {
    fn visit<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PropertyVisitor<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the properties of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if found.is_none() && key == self.name {
                found = Some(match map.next_value()? {
                    serde_json::Value::String(text) => text,
                    value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => value.to_string(),
                    _ => String::new(),
                });
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(url: &str) -> (String, String) {
        let Page { host, path } = page(url.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&host), text(&path))
    }

    #[test]
    fn a_page_is_host_and_path() {
        for (url, host, path) in [
            ("https://Example.com/blog?x=1#top", "example.com", "/blog"),
            ("https://example.com", "example.com", "/"),
            ("https://example.com?x=/y", "example.com", "/"),
            ("https://example.com#/users/7?tab=1", "example.com", "/#/users/7"),
            ("https://example.com/app#!/users", "example.com", "/app#!/users"),
            ("https://user:word@example.com:8443/a:b//c", "example.com", "/a:b//c"),
            ("http://[::1]:3000/x", "[::1]", "/x"),
            ("about:blank", "", "blank"),
            (" https://example.com/a ", "example.com", "/a"),
            ("android-app://com.example/path", "com.example", "/path"),
        ] {
            assert_eq!(page_of(url), (host.into(), path.into()), "{url}");
        }
        let long = format!("https://example.com/{}", "ä".repeat(600));
        assert_eq!(page_of(&long).1.len(), 1_023);
    }

    #[test]
    fn a_referrer_is_its_host() {
        for (url, host) in [
            ("https://www.Example.com/a", "example.com"),
            ("https://WWW.example.com", "example.com"),
            ("https://news.example.com/", "news.example.com"),
            ("about:blank", ""),
            ("", ""),
        ] {
            assert_eq!(referrer_host(url.as_bytes()), host.as_bytes(), "{url}");
        }
    }

    #[test]
    fn a_query_says_where_somebody_comes_from() {
        let of = |url: &'static str| campaign(url.as_bytes());
        let found =
            of("https://e.com/?utm_source=a%20b+c&utm_source=z&utm_term=%E4&ref=r&x=1&utm_medium=&utm_campaign");
        assert_eq!(found.utm[0], "a b c".as_bytes());
        assert!(found.utm[1..4].iter().all(|value| value.is_empty()));
        assert_eq!((found.utm[4].as_ref(), found.source.as_ref()), ("\u{fffd}".as_bytes(), &b"r"[..]));
        assert_eq!(of("https://e.com/?ref=r&source=s").source, &b"s"[..]);
        assert_eq!(of("https://e.com/#?utm_source=a"), Campaign::default());
        assert_eq!(of("https://e.com/utm_source=a"), Campaign::default());
    }

    #[test]
    fn an_action_is_named_by_what_trackers_write() {
        let of = |event_type: &str, properties: Option<&str>| {
            let row = EventRow {
                website_id: b"w",
                event_type: event_type.as_bytes(),
                url: b"",
                referrer: None,
                session_id: b"s",
                visitor_id: b"v",
                device_type: None,
                browser: None,
                os: None,
                location: None,
                properties: properties.map(str::as_bytes),
                created_at: 0,
                received_at: 0,
            };
            let Action { kind, name, engaged_ms } = action(&row);
            (kind.0, String::from_utf8(name.to_vec()).unwrap(), engaged_ms)
        };
        assert_eq!(of("pageview", Some(r#"{"name":"x"}"#)), (1, String::new(), 0));
        assert_eq!(of("click", None), (2, "click".into(), 0));
        assert_eq!(of("custom", Some(r#"{"action":"c","event":"b","name":7}"#)), (2, "b".into(), 0));
        assert_eq!(of("custom", Some(r#"{"name":"","buttonId":"c"}"#)), (2, "c".into(), 0));
        assert_eq!(of("click", Some(r#"{"interactive":false,"a":{"name":"no"},"b":[1,{}]}"#)), (0, "click".into(), 0));
        assert_eq!(of("click", Some(r#"{"interactive":"false"}"#)).0, 2);
        assert_eq!(
            of("custom", Some(r#"{"name":"$engagement","engagedMs":1500.9}"#)),
            (4, "$engagement".into(), 1_500)
        );
        for bad in ["-1", "\"5\"", "86400001", "1e300", "null"] {
            let properties = format!(r#"{{"name":"$engagement","engagedMs":{bad}}}"#);
            assert_eq!(of("custom", Some(&properties)), (0, "$engagement".into(), 0), "{bad}");
        }
        assert_eq!(of("custom", Some(r#"{"engagedMs":5}"#)), (2, "custom".into(), 0));
    }
}

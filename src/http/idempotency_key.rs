//! `Idempotency-Key`: what its client calls a request, for those of its events that have no name of their own.
//!
//! A string by RFC 8941, section 3.3.3, as draft-ietf-httpapi-idempotency-key-header has it; or, as most clients send
//! it, the same without quotes.

use std::{borrow::Cow, sync::Arc};

use hyper::{HeaderMap, header::HeaderName};

use crate::event::Faults;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// How the header is called in an answer.
const FIELD: &str = "Idempotency-Key";
/// The longest key, in bytes: without its quotes.
const BYTES_MAX: usize = 255;

/// The key that a request gives its events, if it gives one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Faults> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = if values.next().is_some() { Err("Given more than once".into()) } else { read(value.as_bytes()) };
    key.map(|key| Some(key.into())).map_err(|fault| Faults::of_field(FIELD, fault))
}

fn read(value: &[u8]) -> Result<String, Cow<'static, str>> {
    let key = match value.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted).ok_or(
            "Begins with a quote: expected a string by RFC 8941, which ends in a quote and has a backslash before each \
             quote and backslash within",
        )?,
        None => value.to_vec(),
    };
    if key.is_empty() {
        return Err("Must not be empty".into());
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err("Expected visible ASCII characters, without spaces".into());
    }
    if key.len() > BYTES_MAX {
        return Err(format!("At most {BYTES_MAX} bytes, received {}", key.len()).into());
    }
    // ASCII is UTF-8.
    String::from_utf8(key).map_err(|_| "Expected visible ASCII characters, without spaces".into())
}

/// What stands between the quotes, of which the first one is gone already. `None` if they are not where they belong.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter().copied();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(key),
            b'\\' => key.push(bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte => key.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// The key, or what of its fault is looked for.
    fn key_of(values: &[&[u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        idempotency_key(&headers).map(|key| key.as_deref().map(str::to_owned)).map_err(|faults| {
            let [(field, texts)] = &faults.fields[..] else { panic!("{faults:?}") };
            assert_eq!((*field, texts.len(), faults.form.len()), ("Idempotency-Key", 1, 0));
            texts[0].clone().into_owned()
        })
    }

    #[test]
    fn keys() {
        let longest = "k".repeat(255);
        let quoted_longest = format!("\"{}\"", r#"\""#.repeat(255));
        for (value, key) in [
            ("a", "a"),
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            (r#""8e03978e""#, "8e03978e"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#""\\""#, r"\"),
            (r#"a"b"#, r#"a"b"#),
            (r#"a""#, r#"a""#),
            (r"a\b", r"a\b"),
            ("a,b;c=d", "a,b;c=d"),
            (r#""a,b;c=d""#, "a,b;c=d"),
            ("!~", "!~"),
            (&longest, &longest),
            (&quoted_longest, &"\"".repeat(255)),
        ] {
            assert_eq!(key_of(&[value.as_bytes()]), Ok(Some(key.to_owned())), "{value}");
        }
        assert_eq!(key_of(&[]), Ok(None));
    }

    #[test]
    fn what_is_no_key() {
        let (long, quoted_long) = ("k".repeat(256), format!("\"{}\"", "k".repeat(256)));
        let not_visible = "visible ASCII";
        for (values, words) in [
            (&[&b""[..]][..], "empty"),
            (&[br#""""#], "empty"),
            (&[long.as_bytes()], "At most 255 bytes, received 256"),
            (&[quoted_long.as_bytes()], "At most 255 bytes, received 256"),
            (&[b"a b"], not_visible),
            (&[b"a\tb"], not_visible),
            (&[br#""a b""#], not_visible),
            (&["é".as_bytes()], not_visible),
            (&[b"\"\xff\""], not_visible),
            (&[b"\""], "Begins with a quote"),
            (&[br#""a"#], "Begins with a quote"),
            (&[br#""a"b"#], "Begins with a quote"),
            (&[br#""a" "#], "Begins with a quote"),
            (&[br#""a";b=c"#], "Begins with a quote"),
            (&[br#""a", "b""#], "Begins with a quote"),
            (&[br#""a\b""#], "Begins with a quote"),
            (&[br#""a\"#], "Begins with a quote"),
            (&[b"a", b"a"], "more than once"),
            (&[b"a", b""], "more than once"),
        ] {
            let fault = key_of(values).expect_err(&format!("{values:?}"));
            assert!(fault.contains(words), "{values:?}: {fault}");
        }
    }
}

//! Writing JSON straight into bytes.
//!
//! Used where an event is written: its properties on the way in, the event itself on the way out. Everything
//! else that hitlog writes as JSON goes through serde.

use super::{record::EventRow, time::write_time};

/// Appends `text` as a JSON string. `text` is UTF-8; only what JSON demands is escaped.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    // Hardly any text has something to escape, and the compiler vectorises a loop that never ends early.
    if !text.iter().fold(false, |found, &byte| found | must_escape(byte)) {
        out.extend_from_slice(text);
        out.push(b'"');
        return;
    }
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !must_escape(byte) {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[plain..]);
    out.push(b'"');
}

fn must_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Appends a whole number.
pub fn write_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a finite double in the shortest form that reads back as the same double.
pub fn write_double(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
}

/// Writes an event with all its members, absent ones as null.
pub fn write_event(out: &mut Vec<u8>, id: &[u8], row: &EventRow<'_>) {
    write_event_head(out, id, row);
    let mut member = |name: &[u8], text: Option<&[u8]>| {
        out.extend_from_slice(name);
        match text {
            Some(text) => write_string(out, text),
            None => out.extend_from_slice(b"null"),
        }
    };
    member(b",\"referrer\":", row.referrer);
    member(b",\"sessionId\":", Some(row.session_id));
    member(b",\"visitorId\":", Some(row.visitor_id));
    member(b",\"deviceType\":", row.device_type);
    member(b",\"browser\":", row.browser);
    member(b",\"os\":", row.os);
    member(b",\"location\":", row.location);
    out.extend_from_slice(b",\"properties\":");
    out.extend_from_slice(row.properties.unwrap_or(b"null"));
    write_created_at(out, row);
}

/// Writes an event as a batch's answer lists it.
pub fn write_event_summary(out: &mut Vec<u8>, id: &[u8], row: &EventRow<'_>) {
    write_event_head(out, id, row);
    write_created_at(out, row);
}

/// What [`write_event`] writes beside texts and properties, at most, in bytes: the members' names, an id, a time.
const EVENT_FRAME_BYTES: usize = 320;
/// The same for [`write_event_summary`].
const SUMMARY_FRAME_BYTES: usize = 160;

/// The most that [`write_event`] writes for an event that has been checked, in bytes.
pub fn event_bytes_max(row: &EventRow<'_>) -> usize {
    let texts = [row.referrer, row.device_type, row.browser, row.os, row.location].into_iter().flatten();
    let texts = texts.map(<[u8]>::len).sum::<usize>()
        + [row.website_id, row.event_type, row.url, row.session_id, row.visitor_id]
            .map(<[u8]>::len)
            .iter()
            .sum::<usize>();
    // Texts have no control characters, so that escaping doubles them at most.
    EVENT_FRAME_BYTES + 2 * texts + row.properties.map_or(0, <[u8]>::len)
}

/// The most that [`write_event_summary`] writes for an event that has been checked, in bytes.
pub fn event_summary_bytes_max(row: &EventRow<'_>) -> usize {
    SUMMARY_FRAME_BYTES + 2 * (row.website_id.len() + row.url.len())
}

fn write_event_head(out: &mut Vec<u8>, id: &[u8], row: &EventRow<'_>) {
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\",\"websiteId\":");
    write_string(out, row.website_id);
    out.extend_from_slice(b",\"eventType\":");
    write_string(out, row.event_type);
    out.extend_from_slice(b",\"url\":");
    write_string(out, row.url);
}

fn write_created_at(out: &mut Vec<u8>, row: &EventRow<'_>) {
    out.extend_from_slice(b",\"createdAt\":\"");
    write_time(out, row.created_at);
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_large_as_foretold_at_most() {
        let (id, odd) = ([b'z'; 40], [b'"'; 500]);
        let mut row = EventRow {
            website_id: &odd,
            event_type: b"pageview",
            url: &odd,
            referrer: Some(&odd),
            session_id: &odd,
            visitor_id: &odd,
            device_type: Some(b"desktop"),
            browser: Some(&odd),
            os: Some(&odd),
            location: Some(&odd),
            properties: Some(&odd),
            created_at: 253_402_300_799_999,
            received_at: 0,
        };
        for _ in 0..2 {
            let (mut event, mut summary) = (Vec::new(), Vec::new());
            write_event(&mut event, &id, &row);
            write_event_summary(&mut summary, &id, &row);
            assert!(event.len() <= event_bytes_max(&row), "{} of {}", event.len(), event_bytes_max(&row));
            assert!(summary.len() <= event_summary_bytes_max(&row), "{}", summary.len());
            row = EventRow {
                website_id: b"w",
                url: b"u",
                referrer: None,
                device_type: None,
                browser: None,
                os: None,
                location: None,
                properties: None,
                ..row
            };
        }
    }

    #[test]
    fn strings_read_back_as_written() {
        let every_ascii: String = (0..128).map(char::from).collect();
        for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t", &every_ascii, "grüße 🦀 \u{2028}"] {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn an_event_has_all_its_members() {
        let row = EventRow {
            website_id: b"web-1",
            event_type: b"click",
            url: b"https://example.com/\"",
            referrer: None,
            session_id: b"s",
            visitor_id: b"v",
            device_type: None,
            browser: Some("Größe".as_bytes()),
            os: None,
            location: None,
            properties: Some(br#"{"a":1}"#),
            created_at: 0,
            received_at: 0,
        };
        let mut out = Vec::new();
        write_event(&mut out, b"c0", &row);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "id": "c0", "websiteId": "web-1", "eventType": "click", "url": "https://example.com/\"",
                "referrer": null, "sessionId": "s", "visitorId": "v", "deviceType": null, "browser": "Größe",
                "os": null, "location": null, "properties": {"a": 1}, "createdAt": "1970-01-01T00:00:00.000Z"
            })
        );
    }
}

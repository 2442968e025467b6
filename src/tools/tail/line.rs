//! The lines of a tail: put together from the pieces of a body, and what each of them is. Pure.

use std::borrow::Cow;

use serde::Deserialize;

use crate::tools::table::{printable, shorten};

/// Longest line, in bytes: an event with every field at its longest and escaped, and room to spare.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Longest position, in bytes. hitlog's have 43.
const POSITION_BYTES_MAX: usize = 256;
/// Most characters that are shown of a line that is none.
const SHOWN_CHARS_MAX: usize = 80;

/// What a tail cannot have sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineFault {
    #[error("a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a line that is no event of hitlog's ({why}): {shown}")]
    Foreign { why: String, shown: String },
}

/// Puts lines together. What stands behind the last line feed is none yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes a piece in, and gives each line that it ends, without its line feed, to `take`.
    pub(super) fn push<E: From<LineFault>>(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            self.check_room(line)?;
            if self.begun.is_empty() {
                take(line)?;
            } else {
                self.begun.extend_from_slice(line);
                take(&self.begun)?;
                self.begun.clear();
            }
            rest = after;
        }
        self.check_room(rest)?;
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    fn check_room(&self, more: &[u8]) -> Result<(), LineFault> {
        if self.begun.len() + more.len() > LINE_BYTES_MAX { Err(LineFault::TooLong) } else { Ok(()) }
    }
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing has happened, and the other side is there.
    Heartbeat,
    Event {
        position: Cow<'a, str>,
        event: EventLine<'a>,
    },
    /// Events are not there any more.
    Gap {
        position: Cow<'a, str>,
        gap: Gap<'a>,
    },
    /// The other side ends, and says why.
    Bye {
        position: Cow<'a, str>,
        reason: Cow<'a, str>,
    },
}

/// What is shown of an event.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct EventLine<'a> {
    pub(super) event_type: Cow<'a, str>,
    pub(super) created_at: Cow<'a, str>,
    pub(super) url: Cow<'a, str>,
    pub(super) session_id: Cow<'a, str>,
    pub(super) visitor_id: Cow<'a, str>,
    pub(super) referrer: Option<Cow<'a, str>>,
    pub(super) device_type: Option<Cow<'a, str>>,
    pub(super) browser: Option<Cow<'a, str>>,
    pub(super) os: Option<Cow<'a, str>>,
    pub(super) location: Option<Cow<'a, str>>,
}

/// From when to when events are not there any more, and why.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Gap<'a> {
    #[serde(borrow)]
    pub(super) from: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) to: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Bye<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

/// A line as it comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LineJson<'a> {
    #[serde(borrow)]
    position: Cow<'a, str>,
    #[serde(borrow, default)]
    gap: Option<Gap<'a>>,
    #[serde(borrow, default)]
    bye: Option<Bye<'a>>,
    #[serde(borrow, default)]
    event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    created_at: Cow<'a, str>,
    #[serde(borrow, default)]
    url: Cow<'a, str>,
    #[serde(borrow, default)]
    session_id: Cow<'a, str>,
    #[serde(borrow, default)]
    visitor_id: Cow<'a, str>,
    referrer: Option<Cow<'a, str>>,
    device_type: Option<Cow<'a, str>>,
    browser: Option<Cow<'a, str>>,
    os: Option<Cow<'a, str>>,
    location: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, LineFault> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::Heartbeat);
        }
        let foreign = |why: String| {
            let shown = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_CHARS_MAX)]);
            LineFault::Foreign { why, shown: shorten(&printable(&shown), SHOWN_CHARS_MAX) }
        };
        // serde would take an array, too, for the members in their order.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(foreign("it is no object".into()));
        }
        let line: LineJson<'a> = serde_json::from_slice(text).map_err(|error| foreign(error.to_string()))?;
        let position = line.position;
        // It is sent back in a URL, and shown in a command.
        let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if position.is_empty() || position.len() > POSITION_BYTES_MAX || !position.bytes().all(is_sound) {
            return Err(foreign("its position is none".into()));
        }
        match (line.gap, line.bye) {
            (Some(gap), _) => Ok(Self::Gap { position, gap }),
            (None, Some(bye)) => Ok(Self::Bye { position, reason: bye.reason }),
            (None, None) if line.event_type.is_empty() => Err(foreign("it has no eventType".into())),
            (None, None) => Ok(Self::Event {
                position,
                event: EventLine {
                    event_type: line.event_type,
                    created_at: line.created_at,
                    url: line.url,
                    session_id: line.session_id,
                    visitor_id: line.visitor_id,
                    referrer: line.referrer,
                    device_type: line.device_type,
                    browser: line.browser,
                    os: line.os,
                    location: line.location,
                },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that these pieces make.
    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, LineFault> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| {
                found.push(line.to_vec());
                Ok::<_, LineFault>(())
            })?;
        }
        Ok(found)
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\n\ntwo three\nfour\nnot yet";
        for size in 1..=text.len() {
            let found = lines(text.chunks(size)).unwrap();
            assert_eq!(found, [&b"one"[..], b"", b"two three", b"four"], "{size}");
        }
    }

    #[test]
    fn a_line_has_a_bound() {
        let (longest, end) = (vec![b'x'; LINE_BYTES_MAX], &b"\nlast\n"[..]);
        assert_eq!(lines([&longest[..], end]).unwrap().len(), 2);
        assert_eq!(lines([&longest[..], b"x"]), Err(LineFault::TooLong));
        assert_eq!(lines([&b"x"[..], &longest]), Err(LineFault::TooLong));
        let whole = [&longest[..], b"x\n"].concat();
        assert_eq!(lines([&whole[..]]), Err(LineFault::TooLong));
    }

    #[test]
    fn what_a_line_is() {
        let event = r#"{"id":"c1","websiteId":"w","eventType":"click","url":"https://a.example/","referrer":null,
            "sessionId":"s","visitorId":"v\u00fc","deviceType":"mobile","browser":null,"os":null,"location":null,
            "properties":{"gap":{},"position":7},"createdAt":"2026-01-28T20:00:00.000Z","position":"P-_1"}"#;
        let Ok(Line::Event { position, event }) = Line::parse(event.as_bytes()) else { panic!() };
        assert_eq!((&*position, &*event.event_type, &*event.visitor_id), ("P-_1", "click", "v\u{fc}"));
        assert_eq!((event.referrer, event.device_type.as_deref()), (None, Some("mobile")));
        let gap = Line::parse(br#"{"gap":{"from":"A","to":"B","reason":"retention"},"position":"P"}"#).unwrap();
        let wanted = Gap { from: "A".into(), to: "B".into(), reason: "retention".into() };
        assert_eq!(gap, Line::Gap { position: "P".into(), gap: wanted });
        let bye = Line::parse(br#"{"bye":{"reason":"stop"},"position":"P"}"#).unwrap();
        assert_eq!(bye, Line::Bye { position: "P".into(), reason: "stop".into() });
        for heartbeat in ["", " ", "\r"] {
            assert_eq!(Line::parse(heartbeat.as_bytes()), Ok(Line::Heartbeat));
        }
    }

    #[test]
    fn what_is_no_line_is_told_with_its_beginning() {
        let long = format!("<html>\u{1b}{}", "x".repeat(1_000));
        for (text, word) in [
            ("{", "EOF"),
            ("[]", "no object"),
            ("{}", "`position`"),
            (r#"{"position":"P"}"#, "no eventType"),
            (r#"{"position":"","eventType":"click"}"#, "position is none"),
            (r#"{"position":"a b","eventType":"click"}"#, "position is none"),
            (r#"{"position":7,"eventType":"click"}"#, "expected a"),
            (&long, "<html>\u{fffd}xx"),
        ] {
            let fault = Line::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(fault.contains(word) && fault.chars().count() < 250, "{text:.50}: {fault}");
        }
        assert!(Line::parse(b"\xff").is_err());
    }
}

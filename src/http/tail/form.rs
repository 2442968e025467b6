//! The two forms in which events are followed: Server-Sent Events, for browsers, and lines of JSON. Pure.

use crate::{
    event::{EventRow, json, time::write_time},
    http::cursor::PositionText,
    store::{Gap, GapReason},
};

/// How what is followed is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `text/event-stream`, as the HTML standard has it.
    ServerSentEvents,
    /// `application/x-ndjson`: a JSON object on each line.
    Lines,
}

/// The forms; of those that a client likes equally, the first one.
pub(super) const FORMS: [Form; 2] = [Form::ServerSentEvents, Form::Lines];

/// Why there is an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bye {
    /// hitlog stops.
    Stop,
    /// The website has been deleted.
    Deleted,
    /// Its token is not valid any more.
    Token,
}

/// After how many milliseconds a browser comes back that has lost its connection.
const HEAD: &[u8] = b"retry: 3000\n";

impl Form {
    /// The media types by which it is asked for.
    pub(super) fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::ServerSentEvents => &["text/event-stream"],
            Self::Lines => &["application/x-ndjson", "application/ndjson"],
        }
    }

    /// The media type that it is sent as.
    pub(super) fn content_type(self) -> &'static str {
        self.media_types()[0]
    }

    /// What stands before everything else. An id without data only tells a browser where it is.
    pub(super) fn head(self, position: &PositionText) -> Vec<u8> {
        let mut out = Vec::new();
        if self == Self::ServerSentEvents {
            out.extend_from_slice(HEAD);
            write_id(&mut out, position);
            out.push(b'\n');
        }
        out
    }

    /// An event with its public id, and the position after it.
    pub(super) fn event(self, out: &mut Vec<u8>, position: &PositionText, id: &[u8], row: &EventRow<'_>) {
        match self {
            Self::ServerSentEvents => {
                write_id(out, position);
                out.extend_from_slice(b"event: event\ndata: ");
                json::write_event(out, id, row);
                out.extend_from_slice(b"\n\n");
            }
            Self::Lines => {
                json::write_event(out, id, row);
                end_line(out, position);
            }
        }
    }

    /// That events may be missing after this position.
    pub(super) fn gap(self, out: &mut Vec<u8>, position: &PositionText, gap: Gap) {
        out.extend_from_slice(match self {
            Self::ServerSentEvents => b"event: gap\ndata: ",
            Self::Lines => b"{\"gap\":",
        });
        out.extend_from_slice(b"{\"from\":\"");
        write_time(out, gap.from);
        out.extend_from_slice(b"\",\"to\":\"");
        write_time(out, gap.to);
        out.extend_from_slice(match gap.reason {
            GapReason::Retention => b"\",\"reason\":\"retention\"}",
            GapReason::Damage => b"\",\"reason\":\"damage\"}",
        });
        match self {
            Self::ServerSentEvents => out.extend_from_slice(b"\n\n"),
            Self::Lines => {
                out.push(b'}');
                end_line(out, position);
            }
        }
    }

    /// That nothing else has come for a while, up to this position.
    pub(super) fn heartbeat(self, position: &PositionText) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        if self == Self::ServerSentEvents {
            out.extend_from_slice(b": heartbeat\n");
            write_id(&mut out, position);
        }
        out.push(b'\n');
        out
    }

    /// The end, after this position.
    pub(super) fn bye(self, position: &PositionText, bye: Bye) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let reason: &[u8] = match bye {
            Bye::Stop => b"{\"reason\":\"stop\"}",
            Bye::Deleted => b"{\"reason\":\"deleted\"}",
            Bye::Token => b"{\"reason\":\"token\"}",
        };
        match self {
            Self::ServerSentEvents => {
                out.extend_from_slice(b"event: bye\n");
                write_id(&mut out, position);
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(reason);
                out.extend_from_slice(b"\n\n");
            }
            Self::Lines => {
                out.extend_from_slice(b"{\"bye\":");
                out.extend_from_slice(reason);
                out.push(b'}');
                end_line(&mut out, position);
            }
        }
        out
    }
}

fn write_id(out: &mut Vec<u8>, position: &PositionText) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(position);
    out.push(b'\n');
}

/// Ends the object that is a line with its position.
fn end_line(out: &mut Vec<u8>, position: &PositionText) {
    out.pop();
    out.extend_from_slice(b",\"position\":\"");
    out.extend_from_slice(position);
    out.extend_from_slice(b"\"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_written_as_ever() {
        let position = [b'P'; size_of::<PositionText>()];
        let p = str::from_utf8(&position).unwrap();
        let row = EventRow {
            website_id: b"web-1",
            event_type: b"click",
            url: b"https://example.com/",
            referrer: None,
            session_id: b"s",
            visitor_id: b"v",
            device_type: None,
            browser: None,
            os: None,
            location: None,
            properties: Some(br#"{"a":"\n"}"#),
            created_at: 0,
            received_at: 1,
        };
        let mut json = Vec::new();
        json::write_event(&mut json, b"c0", &row);
        let json = String::from_utf8(json).unwrap();
        let open = json.strip_suffix('}').unwrap();
        let gap = Gap { reason: GapReason::Retention, from: 0, to: 1_500 };
        let damage = Gap { reason: GapReason::Damage, ..gap };
        let times = r#""from":"1970-01-01T00:00:00.000Z","to":"1970-01-01T00:00:01.500Z""#;
        let written = |form: Form| {
            let all = |write: &dyn Fn(&mut Vec<u8>)| {
                let mut out = Vec::new();
                write(&mut out);
                out
            };
            [
                form.head(&position),
                all(&|out| form.event(out, &position, b"c0", &row)),
                all(&|out| form.gap(out, &position, gap)),
                all(&|out| form.gap(out, &position, damage)),
                form.heartbeat(&position),
                form.bye(&position, Bye::Stop),
                form.bye(&position, Bye::Deleted),
            ]
            .map(|out| String::from_utf8(out).unwrap())
        };
        let bye = |reason: &str| format!(r#"{{"reason":"{reason}"}}"#);
        assert_eq!(
            written(Form::ServerSentEvents),
            [
                format!("retry: 3000\nid: {p}\n\n"),
                format!("id: {p}\nevent: event\ndata: {json}\n\n"),
                format!("event: gap\ndata: {{{times},\"reason\":\"retention\"}}\n\n"),
                format!("event: gap\ndata: {{{times},\"reason\":\"damage\"}}\n\n"),
                format!(": heartbeat\nid: {p}\n\n"),
                format!("event: bye\nid: {p}\ndata: {}\n\n", bye("stop")),
                format!("event: bye\nid: {p}\ndata: {}\n\n", bye("deleted")),
            ]
        );
        assert_eq!(
            written(Form::Lines),
            [
                String::new(),
                format!("{open},\"position\":\"{p}\"}}\n"),
                format!("{{\"gap\":{{{times},\"reason\":\"retention\"}},\"position\":\"{p}\"}}\n"),
                format!("{{\"gap\":{{{times},\"reason\":\"damage\"}},\"position\":\"{p}\"}}\n"),
                "\n".to_owned(),
                format!("{{\"bye\":{},\"position\":\"{p}\"}}\n", bye("stop")),
                format!("{{\"bye\":{},\"position\":\"{p}\"}}\n", bye("deleted")),
            ]
        );
    }
}

//! How an event looks to people: a line, with what tells events from each other at its beginning, in columns. Pure.

use url::Url;

use super::line::EventLine;
use crate::tools::table::{printable, shorten};

/// The longest name of a type of events, in characters.
const TYPE_CHARS: usize = "pageview".len();
/// Characters that are shown of a visitor's and of a session's id.
const ID_CHARS: usize = 8;
/// Characters that are shown of each other text but the URL.
const TEXT_CHARS: usize = 60;

/// An event as a line, with its line feed.
pub(super) fn line(event: &EventLine<'_>) -> Vec<u8> {
    let id = |text: &str| shorten(&printable(text), ID_CHARS);
    let short = |text: &str| shorten(&printable(text), TEXT_CHARS);
    let mut line = format!(
        "{}  {:TYPE_CHARS$}  v:{:ID_CHARS$}  s:{:ID_CHARS$}  {}",
        short(&event.created_at),
        short(&event.event_type),
        id(&event.visitor_id),
        id(&event.session_id),
        printable(&event.url)
    );
    if let Some(host) = event.referrer.as_deref().and_then(host) {
        line.push_str("  from ");
        line.push_str(&short(&host));
    }
    let about = [&event.device_type, &event.browser, &event.os, &event.location];
    let about: Vec<_> = about.into_iter().flatten().map(|text| short(text)).collect();
    if !about.is_empty() {
        line.push_str(&format!("  ({})", about.join(", ")));
    }
    line.push('\n');
    line.into_bytes()
}

/// The host of a page that somebody came from.
fn host(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_stand_in_columns() {
        let shown = |event: EventLine<'_>| {
            let event = EventLine { created_at: "2026-01-28T20:00:00.000Z".into(), ..event };
            String::from_utf8(line(&event)).unwrap()
        };
        let event = |event_type: &'static str, visitor: &'static str, session: &'static str| EventLine {
            event_type: event_type.into(),
            visitor_id: visitor.into(),
            session_id: session.into(),
            url: "https://a.example/p?q=1".into(),
            ..EventLine::default()
        };
        assert_eq!(
            shown(event("click", "v", "0123456789")),
            "2026-01-28T20:00:00.000Z  click     v:v         s:0123456…  https://a.example/p?q=1\n"
        );
        let full = EventLine {
            referrer: Some("https://news.example:8443/path?x".into()),
            device_type: Some("mobile".into()),
            location: Some("Z\u{fc}rich".into()),
            ..event("pageview", "gr\u{fc}\u{df}e-an", "\u{9b}31m")
        };
        assert_eq!(
            shown(full),
            "2026-01-28T20:00:00.000Z  pageview  v:gr\u{fc}\u{df}e-an  s:\u{fffd}31m      https://a.example/p?q=1  \
             from news.example  (mobile, Z\u{fc}rich)\n"
        );
        for odd in ["mailto:a@b.example", "about:blank", "\u{1b}[2J", ""] {
            let event = EventLine { referrer: Some(odd.into()), ..event("custom", "v", "s") };
            assert!(shown(event).ends_with("/p?q=1\n"), "{odd}");
        }
        let line = shown(EventLine { url: "https://a.example/\u{202e}\u{1b}]0;x".into(), ..EventLine::default() });
        assert!(line.ends_with("https://a.example/\u{fffd}\u{fffd}]0;x\n"), "{line:?}");
    }
}

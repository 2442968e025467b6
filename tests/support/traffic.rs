//! Events as real trackers send them: the same ones for tests and benches.

/// One event of a visitor, numbered so that keys differ from event to event.
pub fn event(code: &str, number: usize) -> String {
    let kind = if number % 10 == 7 { "click" } else { "pageview" };
    let properties = if number % 10 == 7 { r#","properties":{"buttonId":"cta-button","position":3}"# } else { "" };
    let (session, visitor, page) = (number / 5, number / 20, number % 97);
    format!(
        r#"{{"trackingCode":"{code}","eventType":"{kind}","url":"https://example.com/blog/article-{page}?utm_source=news","referrer":"https://www.google.com/search?q=analytics","sessionId":"sess-{session:012}","visitorId":"vis-{visitor:012}","deviceType":"desktop","browser":"Chrome","os":"Windows","location":"US"{properties}}}"#
    )
}

/// A batch of them.
pub fn batch(code: &str, events: usize) -> String {
    let events: Vec<String> = (0..events).map(|number| event(code, number)).collect();
    format!(r#"{{"events":[{}]}}"#, events.join(","))
}

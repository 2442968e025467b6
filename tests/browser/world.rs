//! What a test has: a browser, a site and a hitlog, with a website for every scenario, so that none sees another's.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::Daemon;
use serde_json::Value;

use crate::{
    driver::Browser,
    site::{Answer, Site},
};

/// Longer than the tracker keeps anything to itself, and than a second request would take to come.
pub const SETTLED: Duration = Duration::from_millis(2_500);

/// What comes must come in this time, unless a test says otherwise.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The name of the site whose pages are counted.
pub const HOST: &str = "shop.example";

pub struct World {
    pub browser: Browser,
    pub site: Site,
    pub daemon: Daemon,
    websites: AtomicUsize,
}

impl World {
    /// `None`, and it is said, where there is no Chromium.
    pub fn start() -> Option<Self> {
        Browser::start().map(Self::with)
    }

    pub fn with(browser: Browser) -> Self {
        Self { browser, site: Site::start(), daemon: Daemon::start(&[]), websites: AtomicUsize::new(0) }
    }

    /// A new website's tracking code.
    pub fn website(&self) -> String {
        let number = self.websites.fetch_add(1, Ordering::Relaxed);
        self.daemon.register(&format!("site-{number}.example"))
    }

    /// Where hitlog takes events, under a name that is not the site's.
    pub fn api(&self) -> String {
        format!("{}/api/v1/events", self.hitlog_at("stats.example"))
    }

    /// Where hitlog is reached under a name.
    pub fn hitlog_at(&self, host: &str) -> String {
        format!("http://{host}:{}", self.daemon.address.rsplit_once(':').unwrap().1)
    }

    /// Where the tracker is served.
    pub fn tracker(&self, file: &str) -> String {
        format!("{}/{file}", self.hitlog_at("stats.example"))
    }

    /// The tag that a site's owner puts in. How long a page is seen depends on the machine's load: so there are no
    /// events of it unless a test wants them.
    pub fn tag(&self, code: &str, attributes: &str) -> String {
        let engagement = if attributes.contains("data-engagement") { "" } else { r#"data-engagement="off""# };
        let attributes = &format!("{attributes} {engagement}");
        tag(&self.tracker("tracker.js"), code, attributes)
    }

    /// Puts a page with the tag and something more under a path, and returns its address.
    pub fn page(&self, path: &str, tag: &str, body: &str) -> String {
        self.site.put(path, Answer::page(&format!("{body}{tag}")));
        format!("{}{path}", self.site.url(HOST))
    }

    /// A website and its page; returns code and address.
    pub fn counted(&self, path: &str, attributes: &str, body: &str) -> (String, String) {
        let code = self.website();
        let url = self.page(path, &self.tag(&code, attributes), body);
        (code, url)
    }

    /// The events of a website in the order in which they happened.
    pub fn events(&self, code: &str) -> Vec<Value> {
        let listed = self.daemon.client().get(&format!("/api/v1/events?trackingCode={code}&limit=1000"));
        assert_eq!(listed.status, 200, "{}", listed.text());
        let mut events = listed.json()["events"].as_array().unwrap().clone();
        events.reverse();
        events
    }

    /// Waits until so many events have come, and returns them. More may come later: [`settled`](Self::settled).
    pub fn wait_for(&self, code: &str, count: usize) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let events = self.events(code);
            if events.len() >= count {
                return events;
            }
            assert!(
                started.elapsed() < WAIT_MAX,
                "waited for {count} events, there are {}: {}",
                events.len(),
                told(&events)
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for so many events, and then whether there come more.
    pub fn settled(&self, code: &str, count: usize) -> Vec<Value> {
        self.wait_for(code, count);
        thread::sleep(SETTLED);
        let events = self.events(code);
        assert_eq!(events.len(), count, "{}", told(&events));
        events
    }
}

pub fn tag(tracker: &str, code: &str, attributes: &str) -> String {
    format!(r#"<script defer src="{tracker}" data-code="{code}" {attributes}></script>"#)
}

/// Whether an id is one that hitlog makes where it is left to it. The tracker's own have dashes.
pub fn is_made_by_hitlog(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// What a failure shows of events.
fn told(events: &[Value]) -> String {
    let line = |event: &Value| format!("{} {} {}", event["eventType"], event["url"], event["properties"]);
    events.iter().map(line).map(|line| line.chars().take(200).collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// A member of every event, absent ones as "".
pub fn texts(events: &[Value], pointer: &str) -> Vec<String> {
    events
        .iter()
        .map(|event| match event.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        })
        .collect()
}

/// The paths of the addresses, with all that follows.
pub fn paths(events: &[Value]) -> Vec<String> {
    let path = |url: String| format!("/{}", url.splitn(4, '/').nth(3).unwrap_or_default());
    texts(events, "/url").into_iter().map(path).collect()
}

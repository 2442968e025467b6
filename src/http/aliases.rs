//! Paths of the operator's own choice: the tracker, and where it sends events, by other names.

/// The paths, as configured; each leads where the route of that name does.
#[derive(Debug, Clone, Default)]
pub struct Aliases {
    /// Another path of the tracker.
    pub tracker: Option<String>,
    /// Another path that events are sent to; batches are sent to it and `/batch`.
    pub events: Option<String>,
}

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";
const TRACKER: &str = "/tracker.js";

impl Aliases {
    /// The path of hitlog's own that a path leads to: itself, unless it is one of these.
    pub(super) fn resolve<'p>(&self, path: &'p str) -> &'p str {
        let bare = path.strip_suffix('/').unwrap_or(path);
        if self.tracker.as_deref() == Some(bare) {
            return TRACKER;
        }
        match self.events.as_deref().and_then(|events| bare.strip_prefix(events)) {
            Some("") => EVENTS,
            Some("/batch") => BATCH,
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_leads_to() {
        let aliases = Aliases { tracker: Some("/js/app.js".into()), events: Some("/hello".into()) };
        for (path, wanted) in [
            ("/js/app.js", TRACKER),
            ("/js/app.js/", TRACKER),
            ("/js/app", "/js/app"),
            ("/hello", EVENTS),
            ("/hello/", EVENTS),
            ("/hello/batch", BATCH),
            ("/hello/batch/", BATCH),
            ("/hello/tail", "/hello/tail"),
            ("/hellobatch", "/hellobatch"),
            ("/tracker.js", "/tracker.js"),
        ] {
            assert_eq!(aliases.resolve(path), wanted, "{path}");
            assert_eq!(Aliases::default().resolve(path), path);
        }
    }
}

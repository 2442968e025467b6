//! The limits of one event and of a batch.

/// The limits of one event; their values and reasons stand in the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Longest `url` and `referrer`, in bytes.
    pub url_bytes_max: usize,
    /// Whether any scheme may stand without `//`: for events that were stored when that was taken.
    pub any_bare_scheme: bool,
    /// Longest `sessionId` and `visitorId`, in bytes.
    pub id_bytes_max: usize,
    /// Longest `browser`, `os` and `location`, in characters.
    pub text_chars_max: usize,
    /// Largest `properties`, in bytes of compact JSON.
    pub properties_bytes_max: usize,
    /// Deepest nesting of `properties`, its own braces counted.
    pub properties_depth_max: usize,
    /// How far ahead of the server a timestamp may be before the arrival takes its place, in milliseconds.
    pub timestamp_ahead_max_ms: i64,
    /// How old a timestamp may be, in milliseconds: what has expired is not stored.
    pub timestamp_age_max_ms: i64,
    /// Most events in one batch.
    pub batch_events_max: usize,
    /// Largest item of a batch, in bytes as sent; what the parser needs for one text is bounded by it, too.
    pub item_bytes_max: usize,
    /// Most warnings that are told of one request; all are counted.
    pub warnings_told_max: usize,
}

impl Rules {
    /// Nesting that the parser takes: an event, and its `properties` with all that is in them.
    pub(super) fn depth_max(&self) -> usize {
        1 + self.properties_depth_max
    }
}

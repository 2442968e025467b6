//! The limits of requests and of connections.

use std::time::Duration;

use crate::website::WebsiteLimits;

/// Where events are shipped to, as configured.
#[derive(Debug, Clone)]
pub struct ShipTo {
    /// The server's URL.
    pub url: String,
    /// The database and the table there, with a dot between them.
    pub table: String,
}

/// The limits of what clients ask for and say of websites; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Largest body of one event, in bytes.
    pub event_bytes_max: usize,
    /// Largest body of a batch, in bytes.
    pub batch_bytes_max: usize,
    /// Most refused items of a batch that are told with their details.
    pub errors_detailed_max: usize,
    /// Longest session or visitor id, in bytes.
    pub id_bytes_max: usize,
    /// Largest body about a website, in bytes.
    pub website_bytes_max: usize,
    /// What a website may be like.
    pub website: WebsiteLimits,
    /// How long the code that a website had stays valid when it gets a new one, if nobody says, in seconds.
    pub code_valid_seconds_default: u64,
    /// The longest time that may be said, in seconds.
    pub code_valid_seconds_max: u64,
    /// Most earlier codes of a website that are valid at once.
    pub retired_codes_max: usize,
    /// Events of a page when the client names no limit.
    pub page_events_default: u64,
    /// Most events of a page; a larger limit becomes this.
    pub page_events_max: u64,
    /// Websites of a page when the client names no limit.
    pub page_websites_default: u64,
    /// Most websites of a page; a larger limit becomes this.
    pub page_websites_max: u64,
}

#[cfg(test)]
impl RequestLimits {
    /// Those that parsing looks at, with their defaults.
    pub(super) const OF_TESTS: Self = Self {
        event_bytes_max: 0,
        batch_bytes_max: 0,
        errors_detailed_max: 100,
        id_bytes_max: 128,
        website_bytes_max: 0,
        website: WebsiteLimits::OF_TESTS,
        code_valid_seconds_default: 2_592_000,
        code_valid_seconds_max: 31_622_400,
        retired_codes_max: 10,
        page_events_default: 100,
        page_events_max: 1_000,
        page_websites_default: 100,
        page_websites_max: 1_000,
    };
}

/// Limits of connections; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections at once.
    pub connections_max: usize,
    /// Most connections with a request under way: those have hyper's buffers.
    pub active_connections_max: usize,
    /// The most of all connections that one client address may hold when they run short, in percent.
    pub address_share_percent: usize,
    /// The rate, in bytes a second, below which a client that has had its time to read loses its connection.
    pub bytes_per_second_min: u64,
    /// Connections that keep their buffers from one request to the next.
    pub warm_connections_max: usize,
    /// Largest head of a request, in bytes.
    pub head_bytes_max: usize,
    /// Longest time for a head, from its first byte.
    pub head_timeout: Duration,
    /// Longest time that a connection stays open without a request.
    pub idle_timeout: Duration,
    /// Longest time that a client may leave its response unread.
    pub write_stall_timeout: Duration,
    /// Longest time for an answer that is sent in chunks.
    pub answer_timeout: Duration,
}

impl ConnectionLimits {
    /// The shortest of the times that may begin at any moment, and begin unseen by the timer of a connection.
    pub(super) fn soonest(&self) -> Duration {
        self.head_timeout.min(self.idle_timeout).min(self.write_stall_timeout).min(self.answer_timeout)
    }
}

#[cfg(test)]
impl ConnectionLimits {
    /// The defaults, but for a single connection.
    pub(super) const OF_TESTS: Self = Self {
        connections_max: 1,
        active_connections_max: 1,
        address_share_percent: 25,
        bytes_per_second_min: 1_024,
        warm_connections_max: 1,
        head_bytes_max: 16 * 1_024,
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        write_stall_timeout: Duration::from_secs(10),
        answer_timeout: Duration::from_secs(600),
    };
}

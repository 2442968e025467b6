//! Limits that are not settings: clients are written against most of them.

use std::time::Duration;

/// Longest `url` and `referrer`, in bytes.
pub const URL_BYTES_MAX: usize = 4_096;
/// Longest `sessionId` and `visitorId`, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Longest `browser`, `os` and `location`, in characters.
pub const TEXT_CHARS_MAX: usize = 100;
/// Largest `properties` as compact JSON, in bytes.
pub const PROPERTIES_BYTES_MAX: usize = 32 * 1024;
/// Deepest nesting of `properties`.
pub const PROPERTIES_DEPTH_MAX: usize = 32;
/// Largest item of a batch, in bytes, if one event may not be larger by itself. It bounds what the parser needs.
pub const ITEM_BYTES_MAX: usize = 256 * 1024;
/// Most warnings told of one request.
pub const WARNINGS_TOLD_MAX: usize = 100;
/// Most refused items of a batch that are told with their details.
pub const ERRORS_DETAILED_MAX: usize = 100;
/// Events of a page when the client names no limit.
pub const PAGE_EVENTS_DEFAULT: u64 = 100;
/// Most events of a page; a larger limit becomes this.
pub const PAGE_EVENTS_MAX: u64 = 1_000;
/// Websites of a page when the client names no limit.
pub const PAGE_WEBSITES_DEFAULT: u64 = 100;
/// Most websites of a page; a larger limit becomes this.
pub const PAGE_WEBSITES_MAX: u64 = 1_000;
/// Longest name of a website, in characters.
pub const WEBSITE_NAME_CHARS_MAX: usize = 255;
/// Longest description of a website, in characters.
pub const WEBSITE_DESCRIPTION_CHARS_MAX: usize = 1_000;
/// Most hosts of a website, beside its domain.
pub const WEBSITE_HOSTS_MAX: usize = 100;
/// Most goals of a website.
pub const WEBSITE_GOALS_MAX: usize = 100;
/// Longest event and longest page of a goal, in bytes: as much of them as is told apart.
pub const GOAL_BYTES_MAX: usize = 1_024;
/// How long the tracking code that a website had stays valid when it gets a new one, if nobody says, in seconds: pages
/// are cached for days, and forgotten ones are found by their traffic.
pub const CODE_VALID_SECONDS_DEFAULT: u64 = 30 * 24 * 60 * 60;
/// The longest time that may be said, in seconds: a year, whichever.
pub const CODE_VALID_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// Most earlier tracking codes of a website that are valid at once.
pub const RETIRED_CODES_MAX: usize = 10;
/// Largest body about a website, in bytes: all its fields at their longest take half of it, the rest is for escapes. A
/// packed one and what it unpacks to have room in the smallest `body_bytes_max`.
pub const WEBSITE_BODY_BYTES_MAX: usize = 512 * 1024;
/// How much of a refused body is still read, in bytes, so that the client sees the answer.
pub const DISCARD_BYTES_MAX: usize = 1024 * 1024;
/// How long a refused body is still read.
pub const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);
/// Longest line that an import takes, in bytes: an event or a website with every field at its longest and escaped, and
/// room to spare.
pub const IMPORT_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Shortest token, in bytes.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Most tokens: each is compared with the token of a request.
pub const TOKENS_MAX: usize = 1_000;
/// Largest file of tokens, in bytes.
pub const TOKEN_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Largest file of settings, in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// File descriptors kept for everything but client connections.
pub const DESCRIPTORS_RESERVED: u64 = 256;

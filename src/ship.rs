//! Sends the log's events to ClickHouse, each exactly once.
//!
//! Must not know `http` or `writer`.

pub mod block;
pub mod client;

//! The edge: bare hyper, HTTP/1.1.
//!
//! Owns the sockets and the contract with clients: routes, bodies, limits, responses. Constraints: never blocks a
//! tokio worker, holds bounded memory whatever clients do, and answers every request that it took in. Must not know
//! the writer: events go into the queue and come back as receipts.

mod activity;
mod auth;
mod body;
mod connection;
mod cors;
mod cursor;
mod erasures;
mod ingest;
mod ops;
mod query;
mod response;
mod route;
mod websites;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

pub use auth::Tokens;
pub use body::BodyLimits;
pub use connection::serve;
pub use cursor::Cursors;

use crate::{
    budget::Budget,
    event::Rules,
    event_id::EventIds,
    metrics::Metrics,
    queue::Queue,
    store::{Catalog, Eraser, Readers, Websites},
};

/// The limits of what clients ask for and say of websites; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Largest body of one event, in bytes.
    pub event_bytes_max: usize,
    /// Largest body of a batch, in bytes.
    pub batch_bytes_max: usize,
    /// Longest session or visitor id, in bytes.
    pub id_bytes_max: usize,
    /// Largest body about a website, in bytes.
    pub website_bytes_max: usize,
    /// Longest name of a website, in characters.
    pub website_name_chars_max: usize,
    /// Longest description of a website, in characters.
    pub website_description_chars_max: usize,
    /// Events of a page when the client names no limit.
    pub page_events_default: u64,
    /// Most events of a page; a larger limit becomes this.
    pub page_events_max: u64,
}

/// Limits of connections; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections at once.
    pub connections_max: usize,
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
}

/// What the routes work with. Dropping it closes the queue, the readers and the catalog, which is how they learn
/// that no more will come.
pub struct Context {
    /// The rules of an event.
    pub rules: Rules,
    /// The limits of what clients ask for.
    pub limits: RequestLimits,
    /// How bodies are read.
    pub body_limits: BodyLimits,
    /// The memory that bodies share.
    pub body_memory: Budget,
    /// Where events go.
    pub queue: Queue,
    /// The websites in memory.
    pub websites: Arc<Websites>,
    /// Where websites are changed.
    pub catalog: Catalog,
    /// Who erases events.
    pub eraser: Eraser,
    /// Who reads events back.
    pub readers: Readers,
    /// Public ids.
    pub ids: EventIds,
    /// Places in listings, as clients see them.
    pub cursors: Cursors,
    /// Who may do what.
    pub tokens: Tokens,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Set when a stop begins: connections close after the response that they are at.
    pub stopping: AtomicBool,
}

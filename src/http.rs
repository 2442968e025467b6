//! The edge: bare hyper, HTTP/1.1.
//!
//! Owns the sockets and the contract with clients: routes, bodies, limits, responses. Constraints: never blocks a
//! tokio worker, holds bounded memory whatever clients do, and answers every request that it took in. Must not know
//! the writer: events go into the queue and come back as receipts.
//!
//! On the way of a request: `connection`; `handle`, which is what all have in common (with `body`, `access` and
//! `cors`); `route`, which is THE table; then `ingest`, `query`, `tail`, `stats`, `dashboard`, `websites`, `erasures`,
//! `assets` or `ops`. Each of these takes the `parts` that it uses, is `asked`, and makes a `response`, whole or in
//! `chunks`, or tells `errors`. What bounds clients: `activity` (what a connection is doing), `stream` (its socket,
//! which tells that), `connections` (who gives way), `memory` (what is held for them), `heavy` (work that takes long).

mod accept;
mod accept_encoding;
mod access;
mod activity;
mod aliases;
mod asked;
mod assets;
mod auth;
mod body;
mod chunks;
mod client_address;
mod connection;
mod connections;
mod cors;
mod cursor;
mod dashboard;
mod erasures;
mod errors;
mod handle;
mod handlers;
mod heavy;
mod held_page;
mod idempotency_key;
mod ingest;
mod memory;
mod obstacles;
mod ops;
mod options;
mod parameters;
mod parts;
mod pixel;
mod protected;
mod query;
mod refused_head;
mod response;
mod route;
mod senders;
mod shipping;
mod stats;
mod stop;
mod stream;
mod tags;
mod tail;
mod websites;

pub use aliases::Aliases;
pub use auth::{Role, Tokens};
pub use body::{Bodies, BodyLimits};
pub use connection::serve;
pub use connections::Connections;
pub use cursor::Cursors;
pub use heavy::Heavy;
pub use memory::SharedMemory;
pub use obstacles::Obstacles;
pub use options::{ConnectionLimits, RequestLimits, ShipTo};
pub use parts::EdgeParts;
pub use route::{ingest_labels, route_labels};

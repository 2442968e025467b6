//! The edge: bare hyper, HTTP/1.1.
//!
//! Owns the sockets and the contract with clients: routes, bodies, limits, responses. Constraints: never blocks a
//! tokio worker, holds bounded memory whatever clients do, and answers every request that it took in. Must not know
//! the writer: events go into the queue and come back as receipts.
//!
//! On the way of a request: `connection`, `body`, `route` (with `auth`, `protected` and `cors`); then `ingest`,
//! `query`, `websites`, `erasures` or `ops`, which make a `response`. What bounds clients: `activity` (what a
//! connection is doing), `connections` (who gives way), `memory` (what is held for them), `heavy` (work that takes
//! long).

mod accept_encoding;
mod activity;
mod auth;
mod body;
mod connection;
mod connections;
mod context;
mod cors;
mod cursor;
mod erasures;
mod heavy;
mod ingest;
mod memory;
mod obstacles;
mod ops;
mod options;
mod parameters;
mod protected;
mod query;
mod refused_head;
mod response;
mod route;
mod socket;
mod websites;

pub use auth::{Role, Tokens};
pub use body::{Bodies, BodyLimits};
pub use connection::serve;
pub use connections::Connections;
pub use context::Context;
pub use cursor::Cursors;
pub use heavy::Heavy;
pub use memory::SharedMemory;
pub use obstacles::Obstacles;
pub use options::{ConnectionLimits, RequestLimits};

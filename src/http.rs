//! The edge: bare hyper, HTTP/1.1.
//!
//! Owns the sockets and the contract with clients: routes, bodies, limits, responses. Constraints: never blocks a
//! tokio worker, holds bounded memory whatever clients do, and answers every request that it took in. Must not know
//! the writer: events go into the queue and come back as receipts.
//!
//! On the way of a request: `connection`, `body`, `route`; then `ingest`, `query`, `websites`, `erasures` or `ops`,
//! which make a `response`.

mod activity;
mod auth;
mod body;
mod connection;
mod context;
mod cors;
mod cursor;
mod erasures;
mod ingest;
mod ops;
mod options;
mod query;
mod response;
mod route;
mod websites;

pub use auth::{Role, Tokens};
pub use body::BodyLimits;
pub use connection::serve;
pub use context::Context;
pub use cursor::Cursors;
pub use options::{ConnectionLimits, RequestLimits};

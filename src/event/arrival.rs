//! What is known of a request beside its body.

use std::sync::Arc;

use super::id_hash::IdHasher;

/// What is known of a request beside its body.
#[derive(Clone, Default)]
pub struct Arrival {
    /// When it came, in milliseconds since 1970, UTC.
    pub received_at: i64,
    /// The key that names those of its events which have no name of their own.
    pub idempotency_key: Option<Arc<str>>,
    /// What stands for whoever sent the request with `Sec-GPC: 1`, in the place of the session's and the visitor's ids,
    /// where a website wants that; `None` of a request without that header.
    pub gpc: Option<Arc<str>>,
    /// What hashes names; without it events have none.
    pub ids: Option<IdHasher>,
}

impl Arrival {
    /// At this time, in milliseconds since 1970, UTC, with events that have no names.
    pub fn at(received_at: i64) -> Self {
        Self { received_at, ..Self::default() }
    }
}

//! Retention: how long events are kept.
//!
//! An expired event is in no answer from the moment that it expires; its segment leaves the disk a while after the
//! newest event in it has expired. Pure, but for [`expired_segments`]' look at the summaries.

use std::{sync::Arc, time::Duration};

use super::segment::{Content, Segment};

/// The earliest `createdAt` that has not expired, in milliseconds since 1970, UTC.
pub(crate) fn expired_before(retention: Option<Duration>, now_ms: i64) -> i64 {
    let Some(retention) = retention else { return i64::MIN };
    now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX))
}

/// The sealed segments that hold nothing but expired events.
pub(crate) fn expired_segments(segments: &[Arc<Segment>], expired_before: i64) -> Vec<Arc<Segment>> {
    let has_expired = |segment: &&Arc<Segment>| match &segment.content {
        Content::Sealed(summary) => summary.last_created_at() < expired_before,
        Content::Open(_) => false,
    };
    segments.iter().filter(has_expired).map(Arc::clone).collect()
}

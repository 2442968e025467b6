//! What the edge counts of events beside that they were received: why they are refused, and what is told or done of
//! those that are stored.

use crate::{
    event::{GpcCounts, Rejection, WarningCode, Warnings},
    metrics::{EventMetrics, GpcAction, Rejected, Warned},
    queue::Stored,
};

pub(super) fn reason_of(fault: &Rejection) -> Rejected {
    match fault {
        Rejection::Malformed(_) => Rejected::Malformed,
        Rejection::Invalid(_) => Rejected::Invalid,
        Rejection::OtherHost(_) => Rejected::Host,
        Rejection::Gpc => Rejected::Gpc,
        Rejection::UnknownWebsite(_) => Rejected::UnknownWebsite,
    }
}

/// Counts an event that is refused.
pub(super) fn rejected(metrics: &EventMetrics, reason: Rejected) {
    metrics.events_rejected(reason).increment(1);
    if reason == Rejected::Gpc {
        metrics.gpc_events(GpcAction::Dropped).increment(1);
    }
}

/// Counts what is odd about events that are stored, how many of them have an id that hitlog made, and how many are of
/// visitors who send `Sec-GPC: 1`.
pub(super) fn stored(metrics: &EventMetrics, stored: &Stored, warnings: &Warnings) {
    metrics.events_identified.increment(stored.events.identified() as u64);
    let GpcCounts { ignored, anonymized } = stored.events.gpc();
    for (action, count) in [(GpcAction::Ignored, ignored), (GpcAction::Anonymized, anonymized)] {
        if count > 0 {
            metrics.gpc_events(action).increment(count.into());
        }
    }
    for (code, count) in warnings.counts() {
        let label = match code {
            WarningCode::TimestampLooksLikeSeconds => Warned::TimestampLooksLikeSeconds,
            WarningCode::TimestampBefore2000 => Warned::TimestampBefore2000,
            WarningCode::TimestampAhead => Warned::TimestampAhead,
            WarningCode::ReferrerDropped => Warned::ReferrerDropped,
            WarningCode::TextRepaired => Warned::TextRepaired,
            WarningCode::HostNotListed => Warned::HostNotListed,
        };
        metrics.event_warnings(label).increment(count);
        if code == WarningCode::TimestampAhead {
            metrics.clocks_corrected.increment(count);
        }
    }
}

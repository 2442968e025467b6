//! What becomes of events: the law of conservation.

use metrics::{Counter, Gauge};

use super::{
    labels::{Rejected, Shed, Warned},
    registry::metric_group,
};

metric_group! {
    /// What becomes of every event. The edge counts until the queue takes a request in, and the queue from then on.
    EventMetrics {
        events_received: Counter = "hitlog_events_received_total",
            "Events received. A body refused before its events can be counted is one. \
             received = committed + rejected + shed + unknown + in_flight.";
        events_committed: Counter = "hitlog_events_committed_total", "Events whose COMMIT returned.";
        events_unknown: Counter = "hitlog_events_unknown_total",
            "Events answered COMMIT_UNKNOWN: the storage failed, they may or may not be stored.";
        events_in_flight: Gauge = "hitlog_events_in_flight", "Events queued or being committed.";
        clocks_corrected: Counter = "hitlog_events_clock_corrected_total",
            "Events whose timestamp was too far ahead and was set to the arrival.";
    }
    labelled {
        events_rejected: Counter by reason(Rejected) = "hitlog_events_rejected_total",
            "Events rejected: the client's fault, not stored.";
        events_shed: Counter by reason(Shed) = "hitlog_events_shed_total",
            "Events refused with 503 for now: not stored, worth sending again.";
        event_warnings: Counter by code(Warned) = "hitlog_event_warnings_total",
            "Oddities of stored events, as their clients are told in warnings.";
    }
}

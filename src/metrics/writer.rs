//! The writer's groups.

use metrics::Histogram;

use super::registry::metric_group;

metric_group! {
    /// What one transaction takes, and how long.
    WriterMetrics {
        group_events: Histogram = "hitlog_group_events", "Events committed by one transaction.";
        group_bytes: Histogram = "hitlog_group_bytes", "Bytes of the requests of one transaction.";
        commit_seconds: Histogram = "hitlog_commit_seconds",
            "Time for one group, from BEGIN until COMMIT returned, its sync included.";
    }
}

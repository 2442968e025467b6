//! The writer's groups.

use metrics::Histogram;

use super::registry::metric_group;

metric_group! {
    /// What one transaction takes, and how long.
    WriterMetrics {
        group_events: Histogram = "hitlog_group_events", "Events committed by one transaction.",
            "Groups grow while syncs are slow or much comes in; that is how hitlog keeps up.";
        group_bytes: Histogram = "hitlog_group_bytes", "Bytes of the requests of one transaction.",
            "If most are near group_bytes_max of the settings, clients send large batches; their size, not the number \
             of events, is what commits take long for.";
        commit_seconds: Histogram = "hitlog_commit_duration_seconds",
            "Time for one group, from BEGIN until COMMIT returned, its sync included.",
            "Nearly all of it is the sync: if hitlog_sync_duration_seconds moved with it, look at the disk; if not, \
             at the processor, or for groups that have grown.";
    }
}

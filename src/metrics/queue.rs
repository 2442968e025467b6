//! How full the queue is; the number of events in it is `hitlog_events_in_flight`, of the law of conservation.

use metrics::Gauge;

use super::registry::metric_group;

metric_group! {
    /// The queue's depth and bounds.
    QueueMetrics {
        queue_events_max: Gauge = "hitlog_queue_limit_events",
            "Most events in the queue, those being committed included.",
            "It is queue_events_max of the settings.";
        queue_bytes: Gauge = "hitlog_queue_bytes", "Memory held by the queue.",
            "While it stays above half of the limit, more comes in than the disk takes: look at \
             hitlog_sync_duration_seconds.";
        queue_bytes_max: Gauge = "hitlog_queue_limit_bytes", "Most memory held by the queue.",
            "It is queue_bytes_max of the settings.";
        queue_oldest_seconds: Gauge = "hitlog_queue_oldest_request_seconds",
            "Age of the oldest request that was queued and is not answered yet, computed at the scrape; 0 if there is \
             none. An age and no timestamp, because no clock that may be set is to make a stall look long or short.",
            "Seconds mean that the disk stalls, whatever the averages say: look at the disk, and for what else writes \
             to it.";
    }
}

//! How full the queue is.

use metrics::Gauge;

use super::registry::metric_group;

metric_group! {
    /// The queue's depth and bounds.
    QueueMetrics {
        queue_events: Gauge = "hitlog_queue_events", "Events in the queue, those being committed included.";
        queue_events_max: Gauge = "hitlog_queue_limit_events", "Most events in the queue.";
        queue_bytes: Gauge = "hitlog_queue_bytes", "Memory held by the queue.";
        queue_bytes_max: Gauge = "hitlog_queue_limit_bytes", "Most memory held by the queue.";
        queue_oldest_seconds: Gauge = "hitlog_queue_oldest_request_seconds",
            "Age of the oldest request that was queued and is not answered yet; 0 if there is none.";
    }
}

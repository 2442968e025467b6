//! The log on standard error.

use metrics::Counter;

use super::registry::metric_group;

metric_group! {
    /// What becomes of log lines.
    LogMetrics {
        lines_dropped: Counter = "hitlog_log_lines_dropped_total",
            "Log lines that standard error did not take, or not in time. Nothing waits for them.";
    }
}

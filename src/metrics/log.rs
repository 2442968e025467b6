//! The log on standard error.

use metrics::Counter;

use super::{labels::LineOutcome, registry::metric_group};

metric_group! {
    /// What becomes of log lines.
    LogMetrics {}
    labelled {
        lines: Counter by outcome(LineOutcome) = "hitlog_log_lines_total",
            "Log lines, by whether standard error took them. Nothing waits for a line that it does not take in time.",
            "If dropped grows, whoever reads standard error is too slow or gone, or its disk is full.";
    }
}

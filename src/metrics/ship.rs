//! What is shipped elsewhere.

use metrics::{Counter, Gauge, Histogram};

use super::{labels::ShipOutcome, registry::metric_group};

metric_group! {
    /// How far shipping is, and what stands in its way.
    ShipMetrics {
        on: Gauge = "hitlog_ship_on", "1 where events are shipped (ship_url is set), else 0.",
            "The others of hitlog_ship_ say something only where it is 1.";
        lag_events: Gauge = "hitlog_ship_lag_events", "Events on the disk here that ClickHouse has not confirmed.",
            "It is what comes in for a few seconds. If it grows, look at hitlog_ship_paused, then at `hitlog ship \
             status`.";
        lag_seconds: Gauge = "hitlog_ship_lag_seconds",
            "Age of the oldest event that the target has not confirmed, by its arrival, in seconds; 0 if there is \
             none.",
            "A few seconds are usual. Alert from some minutes on: nothing is lost, but segments stay on the disk, \
             and numbers there are late.";
        shipped_up_to: Gauge = "hitlog_ship_confirmed_sequence",
            "The sequence up to which everything is confirmed, or is not shipped any more.",
            "It rises with what comes in. That it stands still while events come in is what hitlog_ship_lag_seconds \
             tells.";
        open_ranges: Gauge = "hitlog_ship_open_ranges", "Ranges that are on their way.",
            "Two at the most while all is well; more wait only after some were halved.";
        paused: Gauge = "hitlog_ship_paused", "1 while somebody has to do something before anything is shipped.",
            "Alert on 1: `hitlog ship status` says what to do, then `hitlog ship resume`.";
        events: Counter = "hitlog_ship_events_total", "Events that the target has confirmed, since the start.",
            "Its rate is that of what comes in.";
        bytes: Counter = "hitlog_ship_bytes_total", "Bytes of the blocks of those, before they are compressed.",
            "Its rate is what the network carries; a seventh of it with zstd.";
        dead: Gauge = "hitlog_ship_dead_events", "Events that the target refuses, each by itself.",
            "Alert on any: `hitlog ship dead` shows them and why. Past ship_dead_max shipping pauses.";
        lost: Gauge = "hitlog_ship_lost_ranges",
            "Ranges whose events are gone from here before they were shipped: damaged segments, or more than \
             ship_held_bytes_max.",
            "Alert on any: the log says which. Restore damaged segments from a backup, restart, then `hitlog ship \
             resume`.";
        doubled: Counter = "hitlog_ship_doubled_rows_total",
            "Rows that were found at the target more than once, when a range in doubt was looked for.",
            "Alert on any, and run `hitlog ship verify`: somebody has inserted them besides hitlog, or has made \
             the table's deduplication window smaller.";
        epochs: Counter = "hitlog_ship_epochs_total",
            "Times that a range was sent as another block, because the target could not know the first one again.",
            "Some after long outages of the target are usual.";
        insert_seconds: Histogram = "hitlog_ship_insert_duration_seconds", "Time of one insert, from its first byte.",
            "If it grows while lag does, the target is too slow: look there, at parts and merges.";
        erasures_waiting: Gauge = "hitlog_ship_erasures_waiting",
            "Erasures whose events are, or may be, in answers of the target's.",
            "They wait for what is shipped before them. If it stays, look at hitlog_ship_lag_seconds and at the log.";
        erasures_masked: Gauge = "hitlog_ship_erasures_masked",
            "Erasures whose events are in no answer of the target's, and still in its files.",
            "They are gathered for ship_erasure_seconds, and done when the target has removed its old files.";
        verified: Gauge = "hitlog_ship_last_verify_timestamp_seconds",
            "When the last `hitlog ship verify` of this data directory ended, in seconds since 1970, UTC; 0 if none \
             has.",
            "Run it daily, from a timer; alert if it is older than that.";
        differences: Gauge = "hitlog_ship_last_verify_differences", "Differences that it found.",
            "Alert on any: `hitlog ship verify` names the ranges.";
    }
    labelled {
        attempts: Counter by outcome(ShipOutcome) = "hitlog_ship_attempts_total",
            "Attempts to ship a range, by outcome. One whose outcome is unknown is looked for at the target.",
            "refused: `hitlog ship status` says why. unknown: look at the network and the target.";
    }
}

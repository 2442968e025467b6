//! What becomes of events: the law of conservation.

use metrics::{Counter, Gauge};

use super::{
    labels::{GpcAction, Rejected, Shed, Warned},
    registry::metric_group,
};

metric_group! {
    /// What becomes of every event. The edge counts until the queue takes a request in, and the queue from then on.
    EventMetrics {
        events_received: Counter = "hitlog_events_received_total",
            "Events received. A body refused before its events can be counted is one; a request refused for its Host \
             or Transfer-Encoding is none. received = committed + replayed + rejected + shed + unknown + in_flight.",
            "If it stops although the sites have visitors, look at what stands before hitlog: DNS, proxy, \
             certificate, tracker.";
        events_committed: Counter = "hitlog_events_committed_total", "Events whose COMMIT returned.",
            "Add what was replayed, and compare the rate of both with that of what was received less what was \
             rejected: the share is how well hitlog does what it is for.";
        events_replayed: Counter = "hitlog_events_replayed_total",
            "Events that were stored already, by their eventId or Idempotency-Key, and were answered as those.",
            "Some after a failure are as it should be. If it grows at all times, a tracker sends everything twice, or \
             gives many events one id: then those are lost.";
        events_identified: Counter = "hitlog_events_identified_total",
            "Events stored, repeats included, whose visitor or session was left to hitlog, which made an id of the \
             day.",
            "If all of them come from one address, hitlog sees the proxy's: name the proxy in trusted_proxies.";
        events_unknown: Counter = "hitlog_events_unknown_total",
            "Events answered COMMIT_UNKNOWN: the storage failed, they may or may not be stored.",
            "Any is a failed disk: hitlog has stopped. Look at its log and at the kernel's (dmesg), mend the disk, \
             then start hitlog again.";
        events_in_flight: Gauge = "hitlog_events_in_flight",
            "Events in the queue, those being committed included; at most hitlog_queue_limit_events.",
            "While it stays above half of the limit, more comes in than the disk takes: look at \
             hitlog_sync_duration_seconds.";
        clocks_corrected: Counter = "hitlog_events_clock_corrected_total",
            "Events whose timestamp was too far ahead and was set to the arrival.",
            "If it grows with most events, this machine's clock is behind; look at NTP here first.";
    }
    labelled {
        events_rejected: Counter by reason(Rejected) = "hitlog_events_rejected_total",
            "Events rejected: the client's fault, not stored.",
            "A step after a release of a site is that site's tracker; its answers (400, 404, 413) say what is wrong. \
             host: pages of hosts that the website does not name, or of somebody who has its code; gpc: what the \
             website's `gpc` asks for.";
        events_shed: Counter by reason(Shed) = "hitlog_events_shed_total",
            "Events refused with 503 for now: not stored, worth sending again.",
            "queue_full: the disk is too slow for what comes in. body_memory, answer_memory: many slow clients at \
             once. storage_full: make room on the disk; hitlog goes on by itself. look_up: a read of the ids was \
             refused, or a file of ids is damaged and is being made anew, as the log says; clients that try again are \
             served. stopping: a restart.";
        event_warnings: Counter by code(Warned) = "hitlog_event_warnings_total",
            "Oddities of stored events, as their clients are told in warnings.",
            "No event is lost by them. If one grows with most events, send one by hand and read `warnings` in the \
             answer.";
        gpc_events: Counter by action(GpcAction) = "hitlog_gpc_events_total",
            "Events whose visitors send Sec-GPC: 1, by what their websites' `gpc` made of them. Those that are dropped \
             are among the rejected, too.",
            "It tells how many visitors ask not to be tracked: compare it with hitlog_events_received_total.";
    }
}

//! The store: syncs and checkpoints, segments, erasures, retention, readers, websites.

use metrics::{Counter, Gauge, Histogram};

use super::{
    labels::{CheckpointBy, ReadRefused, SegmentLabel},
    registry::metric_group,
};

metric_group! {
    /// The log, the segments, the readers and the catalog.
    StoreMetrics {
        sync_seconds: Histogram = "hitlog_sync_seconds",
            "Time of one fdatasync of the active segment or its write-ahead log.";
        sync_errors: Counter = "hitlog_sync_errors_total", "Syncs that failed. Any is fatal.";
        checkpoints_busy: Counter = "hitlog_checkpoints_busy_total",
            "Checkpoints that a reader or the writer kept from finishing.";
        checkpoint_log_bytes: Gauge = "hitlog_checkpoint_log_bytes",
            "Bytes in the write-ahead log at the last checkpoint.";
        checkpoint_checkpointed_bytes: Gauge = "hitlog_checkpoint_checkpointed_bytes",
            "Bytes of the write-ahead log that the last checkpoint had copied into the segment.";
        wal_bytes: Gauge = "hitlog_wal_bytes", "Bytes in the active segment's write-ahead log.";
        wal_bytes_max: Gauge = "hitlog_wal_limit_bytes",
            "Bytes past which readers are interrupted so that the log can reset.";
        reserve_standing: Gauge = "hitlog_reserve_standing",
            "Whether the room that a start on a full disk needs is kept (1); while it is not (0), events are refused.";
        high_water_mark: Gauge = "hitlog_high_water_mark", "The highest durable sequence.";
        rolls: Counter = "hitlog_rolls_total", "Segments that were full and followed by the next.";
        lay_down_seconds: Histogram = "hitlog_lay_down_seconds",
            "Time to lay the keys of one full segment down, where it waits for its indexes.";
        lay_down_errors: Counter = "hitlog_lay_down_errors_total",
            "Times that the keys of a full segment could not be laid down and stayed in memory.";
        seal_seconds: Histogram = "hitlog_seal_seconds", "Time to build the indexes of one segment.";
        seal_rows: Counter = "hitlog_sealed_events_total", "Events in segments sealed since the start.";
        seals_failed: Counter = "hitlog_seals_failed_total",
            "Segments that could not be sealed or rewritten; they serve as they are meanwhile.";
        erasures_pending: Gauge = "hitlog_erasures_pending", "Erasures that are not done.";
        hidden_events: Gauge = "hitlog_hidden_events",
            "Events of visitors that are in no answer and still on the disk, to be erased.";
        erased_events: Counter = "hitlog_erased_events_total", "Events erased from the disk since the start.";
        erase_seconds: Histogram = "hitlog_erase_seconds",
            "Time to rewrite one sealed segment without the events that are erased.";
        retention_due_segments: Gauge = "hitlog_retention_due_segments",
            "Segments that hold nothing but expired events; each is removed when that has held for the grace.";
        retention_due_events: Gauge = "hitlog_retention_due_events",
            "Events in segments that are about to be removed because all of their events have expired.";
        retention_due_seconds: Gauge = "hitlog_retention_due_seconds",
            "Seconds that hitlog has yet to run until the next of those segments is removed; 0 if there is none.";
        retention_suspended: Gauge = "hitlog_retention_suspended",
            "1 while the machine's clock is in doubt, so that no expired segment is removed.";
        retention_removed_segments: Counter = "hitlog_retention_removed_segments_total",
            "Segments removed since the start because all of their events had expired.";
        retention_removed_events: Counter = "hitlog_retention_removed_events_total",
            "Events removed since the start with segments whose events had all expired.";
        quarantined_files: Gauge = "hitlog_quarantined_files",
            "Segment files in quarantine: in no answer, unknown to the catalog or given up. While there are any, no \
             erasure ends.";
        readers: Gauge = "hitlog_readers", "Connections of the reader pool.";
        readers_busy: Gauge = "hitlog_readers_busy", "Connections of the reader pool at work.";
        reader_wait_seconds: Histogram = "hitlog_reader_wait_seconds",
            "Time that a read waited for a connection of the pool.";
        read_seconds: Histogram = "hitlog_read_seconds", "Time that a read kept its connection.";
        read_bytes: Gauge = "hitlog_read_bytes", "Memory held by answers that are being built or sent.";
        read_bytes_max: Gauge = "hitlog_read_limit_bytes", "Most memory for answers of reads.";
        websites: Gauge = "hitlog_websites", "Registered websites.";
    }
    labelled {
        checkpoint_seconds: Histogram by by(CheckpointBy) = "hitlog_checkpoint_seconds",
            "Time of one checkpoint of the active segment.";
        segments: Gauge by state(SegmentLabel) = "hitlog_segments",
            "Segments by state. Unsealed ones wait for their indexes; damaged ones are in no answer.";
        reads_refused: Counter by reason(ReadRefused) = "hitlog_reads_refused_total",
            "Reads refused or given up, by reason.";
    }
}

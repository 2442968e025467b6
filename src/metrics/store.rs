//! The store: syncs and checkpoints, segments, erasures, retention, readers, websites, and the disk that holds them.

use metrics::{Counter, Gauge, Histogram};

use super::{
    labels::{CheckpointOutcome, CheckpointRunner, Outcome, ReadOutcome, SegmentLabel},
    registry::metric_group,
};

metric_group! {
    /// The log, the segments, the readers and the catalog.
    StoreMetrics {
        sync_seconds: Histogram = "hitlog_sync_duration_seconds",
            "Time of one sync of the active segment or its write-ahead log.",
            "This is the disk's own time: if it grows, look at the disk (SMART, iostat), and for what else writes to \
             it. If sqlite_build of hitlog_build_info is slower, build hitlog as the README says.";
        last_checkpoint_log_bytes: Gauge = "hitlog_last_checkpoint_log_bytes",
            "Bytes in the write-ahead log at the last checkpoint; 0 before the first.",
            "Beside hitlog_last_checkpoint_copied_bytes it tells what a reader kept from being copied.";
        last_checkpoint_copied_bytes: Gauge = "hitlog_last_checkpoint_copied_bytes",
            "Bytes of the write-ahead log that the last checkpoint had copied into the segment; 0 before the first.",
            "While it stays below hitlog_last_checkpoint_log_bytes, a long read stands in the way.";
        last_checkpoint_timestamp: Gauge = "hitlog_last_checkpoint_timestamp_seconds",
            "When the last checkpoint ended, in seconds since 1970, UTC; 0 before the first.",
            "Old is well while little comes in: a checkpoint is made when the write-ahead log has grown.";
        wal_bytes: Gauge = "hitlog_wal_bytes", "Bytes in the active segment's write-ahead log.",
            "Above half of the limit checkpoints do not keep up or cannot end: look for long reads, and at \
             hitlog_checkpoints_total.";
        wal_bytes_max: Gauge = "hitlog_wal_limit_bytes",
            "Bytes past which readers are interrupted so that the log can reset.",
            "It is wal_bytes_max of the settings.";
        reserve_standing: Gauge = "hitlog_reserve_standing",
            "0 while the room that a start on a full disk needs is not there to be kept, so that events are \
             refused; else 1, also where none is to be kept (reserve_bytes is 0) and where it cannot be made for \
             another reason than want of room, which the log says.",
            "If 0, the disk is full: make room on it; hitlog makes the reserve again by itself.";
        durable_sequence: Gauge = "hitlog_durable_sequence",
            "The highest sequence that is durable: the number of the newest event.",
            "It only grows. Less after a restart means other data: look at data_dir.";
        rolls: Counter = "hitlog_segment_rolls_total", "Segments that were full and followed by the next.",
            "Many an hour make many small files: raise segment_rows_max.";
        lay_down_seconds: Histogram = "hitlog_lay_down_duration_seconds",
            "Time to lay the keys of one full segment down, where it waits for its indexes.",
            "It grows with segment_rows_max and with a slow disk.";
        seal_seconds: Histogram = "hitlog_seal_duration_seconds", "Time to build the indexes of one segment.",
            "It works at a low priority and so grows while the machine is busy. That matters when segments pile up: \
             hitlog_segments{state=\"unsealed\"}.";
        events_sealed: Counter = "hitlog_events_sealed_total", "Events in segments sealed since the start.",
            "Its rate, over days, is that of what is committed; less means that sealing does not keep up.";
        oldest_unsealed: Gauge = "hitlog_oldest_unsealed_timestamp_seconds",
            "When the oldest segment that waits for its indexes became full (of one that a start found: when its \
             newest event arrived), in seconds since 1970, UTC. 0 if none waits, so that the series is always there: \
             ask for the age of values above 0 only.",
            "More than some minutes: sealing fails (hitlog_seals_total{outcome=\"failed\"} and the log say why) or \
             the machine is too busy. Reads get slower, nothing is lost.";
        erasures_pending: Gauge = "hitlog_erasures_pending", "Erasures that are not done.",
            "One that stays for a day waits for a damaged segment or a file in quarantine: the log names it.";
        events_hidden: Gauge = "hitlog_events_hidden",
            "Events of visitors that are in no answer and still on the disk, to be erased.",
            "It goes down as segments are rewritten; if not, look at hitlog_erases_total.";
        events_erased: Counter = "hitlog_events_erased_total", "Events erased from the disk since the start.",
            "It moves with what was asked for and with nothing else.";
        erase_seconds: Histogram = "hitlog_erase_duration_seconds",
            "Time to rewrite one sealed segment without the events that are erased.",
            "It grows with the size of segments; events that come in go first.";
        retention_due_segments: Gauge = "hitlog_retention_due_segments",
            "Segments that hold nothing but expired events; each is removed when that has held for the grace.",
            "If it is a surprise, raise retention_days before hitlog_retention_due_seconds is over.";
        retention_due_events: Gauge = "hitlog_retention_due_events",
            "Events in segments that are about to be removed because all of their events have expired.",
            "If it is a surprise, raise retention_days before hitlog_retention_due_seconds is over.";
        retention_due_seconds: Gauge = "hitlog_retention_due_seconds",
            "Seconds that hitlog has yet to run until the next of those segments is removed; 0 if there is none. Time \
             that hitlog runs, which no clock tells, so it is no timestamp.",
            "As long as it is above 0, a wrong retention or clock can be set right without a loss.";
        retention_suspended: Gauge = "hitlog_retention_suspended",
            "1 while the machine's clock is in doubt, so that no expired segment is removed; else 0.",
            "Set the clock right (NTP); removing goes on by itself once the clock has gone on without a jump for the \
             grace.";
        segments_removed: Counter = "hitlog_segments_removed_total",
            "Segments removed since the start because all of their events had expired.",
            "It moves with retention_days and with nothing else.";
        events_removed: Counter = "hitlog_events_removed_total",
            "Events removed since the start with segments whose events had all expired.",
            "It moves with retention_days and with nothing else.";
        quarantined_files: Gauge = "hitlog_quarantined_files",
            "Segment files in quarantine: in no answer, unknown to the catalog or given up. While there are any, no \
             erasure ends.",
            "`hitlog quarantine list` tells what they are; adopt or discard them.";
        readers: Gauge = "hitlog_readers", "Connections of the reader pool.",
            "It is readers of the settings.";
        readers_busy: Gauge = "hitlog_readers_busy", "Connections of the reader pool at work.",
            "While all are busy, reads wait: hitlog_reader_wait_duration_seconds.";
        reader_wait_seconds: Histogram = "hitlog_reader_wait_duration_seconds",
            "Time that a read waited for a connection of the pool.",
            "Raise readers if the machine has processors to spare; else ask for less at once.";
        read_seconds: Histogram = "hitlog_read_duration_seconds", "Time that a read kept its connection.",
            "Reads of segments without indexes are slower: look at hitlog_segments{state=\"unsealed\"}, then at the \
             disk.";
        read_bytes: Gauge = "hitlog_read_bytes", "Memory held by pages of events that are being read or sent.",
            "Near the limit the slowest readers lose their connections; then pages are refused: raise read_bytes_max.";
        read_bytes_max: Gauge = "hitlog_read_limit_bytes", "Most memory for pages of events.",
            "It is read_bytes_max of the settings.";
        numbers_bytes: Gauge = "hitlog_rollup_bytes", "Memory of what is kept for the next question about numbers.",
            "At its limit, rollup_bytes_max, questions are answered from the disk again and again: raise it.";
        tails: Gauge = "hitlog_tails", "Clients that follow events (GET /api/v1/events/tail).",
            "At the limit further ones get 503: raise tails_max, or look who follows and does not need to.";
        tails_max: Gauge = "hitlog_tails_limit", "Most clients that follow events at once.",
            "It is tails_max of the settings.";
        tail_events: Counter = "hitlog_tail_events_total", "Events that were read for clients that follow them.",
            "Its rate is that of what comes in, times the clients that follow it. Far more means that clients begin \
             anew again and again: have them go on from their last position.";
        tail_wait_seconds: Histogram = "hitlog_tail_wait_duration_seconds",
            "Time that a client that follows events waited for one of the threads that read for such clients.",
            "If it grows, events are seen later: raise readers (half as many threads read for tails) if the machine \
             has processors to spare; else have fewer clients follow.";
        tail_read_seconds: Histogram = "hitlog_tail_read_duration_seconds",
            "Time of one read for a client that follows events.",
            "It grows for clients that are far behind, and with a slow disk.";
        tail_bytes: Gauge = "hitlog_tail_bytes", "Memory held by what is on its way to clients that follow events.",
            "Near the limit the slowest of them lose their connections, and go on from their last position.";
        tail_bytes_max: Gauge = "hitlog_tail_limit_bytes",
            "Most memory for what is on its way to clients that follow events.",
            "It is tail_bytes_max of the settings.";
        dedup_window_seconds: Gauge = "hitlog_dedup_window_seconds",
            "How far back an event that is sent again is known by its eventId or Idempotency-Key, in seconds: \
             dedup_window_seconds of the settings, or less where dedup_bytes_max was too little for that.",
            "If it falls below the time for which your trackers try again, raise dedup_bytes_max.";
        dedup_ids: Gauge = "hitlog_dedup_ids",
            "Ids of events (eventId, or of an Idempotency-Key) that are known, but for the newest. Those are counted \
             as soon as the table that they are in is handed on: when it or its segment is full, after a sixteenth of \
             dedup_window_seconds, or at the stop.",
            "It moves with the share of events that have an id. At a small site it stays 0 until the first table is \
             handed on; repeats are known all the same.";
        dedup_bytes: Gauge = "hitlog_dedup_bytes", "Memory of the ids of hitlog_dedup_ids.",
            "Near hitlog_dedup_limit_bytes the oldest ids are forgotten: hitlog_dedup_window_seconds tells how early.";
        dedup_bytes_max: Gauge = "hitlog_dedup_limit_bytes", "Most memory for ids of events.",
            "It is dedup_bytes_max of the settings.";
        websites: Gauge = "hitlog_websites", "Registered websites.",
            "It moves when one is registered or deleted.";
        storage_free_bytes: Gauge = "hitlog_storage_free_bytes",
            "Bytes that hitlog may still take of the file system that holds the data directory, as it was looked at \
             in the last seconds. A seal begins only when hitlog_seal_needed_bytes are free.",
            "Predict when less is left than hitlog_seal_needed_bytes, and make room before: a larger disk, or fewer \
             files of others on it. On a full disk events are refused, and what was answered 201 is stored.";
        seal_needed_bytes: Gauge = "hitlog_seal_needed_bytes",
            "Bytes that must be free before the largest of the segments without indexes is sealed: twice its file and \
             its write-ahead log, as they were in the last seconds. The active one is among them, as it is now.",
            "While it is above hitlog_storage_free_bytes, full segments stay without their indexes: make room, with \
             what is not hitlog's or by a larger disk. Lower segment_rows_max makes it smaller for segments to come.";
        storage_size_bytes: Gauge = "hitlog_storage_size_bytes",
            "Size of the file system that holds the data directory, in bytes: what hitlog_storage_free_bytes is a \
             share of. What hitlog itself takes of it is hitlog_segment_bytes.",
            "It moves when the disk is made larger, or when another one is mounted: then look whether the data are \
             there.";
        ship_held_bytes: Gauge = "hitlog_ship_held_bytes",
            "Bytes of segments that have expired and stay on the disk because their events are not shipped yet.",
            "If it grows, nothing is shipped: `hitlog ship status` says why. Past ship_held_bytes_max, if that is not \
             0, the oldest leave the disk all the same.";
        last_backup: Gauge = "hitlog_last_backup_timestamp_seconds",
            "When the newest `hitlog backup` of this data directory that succeeded began, in seconds since 1970, UTC: \
             what was answered 201 before is in it. 0 if there has been none, so that its age is too large then, too. \
             Copies by other means are not seen.",
            "Older than the plan: run `hitlog backup` by hand and read what it says.";
    }
    labelled {
        syncs: Counter by outcome(Outcome) = "hitlog_syncs_total",
            "Syncs of the active segment or its write-ahead log, by outcome.",
            "Any failed one is fatal: hitlog has stopped. Look at its log and at the kernel's (dmesg), mend the disk, \
             then start hitlog again.";
        checkpoints: Counter by outcome(CheckpointOutcome) = "hitlog_checkpoints_total",
            "Checkpoints of the active segment, by outcome.",
            "partial is usual beside a busy writer. If busy or partial come without complete for minutes, a long read \
             stands in the way; no_room: make room on the disk; failed: hitlog has stopped, its log says why.";
        checkpoint_seconds: Histogram by runner(CheckpointRunner) = "hitlog_checkpoint_duration_seconds",
            "Time of one checkpoint of the active segment.",
            "Those of the writer are what clients wait for: if they take long, lower wal_checkpoint_bytes.";
        seals: Counter by outcome(Outcome) = "hitlog_seals_total",
            "Tries to seal a full segment, by outcome. One that failed serves as it is and is tried again.",
            "If failed grows, the log says why; most often there is too little room for a second copy of the segment.";
        erases: Counter by outcome(Outcome) = "hitlog_erases_total",
            "Tries to rewrite a sealed segment without the events that are erased, by outcome. One that failed is \
             tried again.",
            "If failed grows, the log says why; most often there is too little room for a second copy of the segment, \
             or its file is damaged.";
        lay_downs: Counter by outcome(Outcome) = "hitlog_lay_downs_total",
            "Times that the keys of full segments were to be laid down, by outcome. Where it failed they stay in \
             memory.",
            "If failed grows, make room on the disk: past unsealed_rows_max events are refused.";
        dedup_writes: Counter by outcome(Outcome) = "hitlog_dedup_writes_total",
            "Times that ids of events were written to the folder ids, by outcome. What failed is tried again, and its \
             ids stay in memory.",
            "If failed grows, make room on the disk: the oldest ids are forgotten for those that stay in memory.";
        segments: Gauge by state(SegmentLabel) = "hitlog_segments",
            "Segments by state. Unsealed ones wait for their indexes; damaged ones are in no answer.",
            "unsealed, three or more for half an hour: sealing does not keep up. damaged, any: restore that file from \
             a backup; the log and `hitlog check` name it. prepared 0 for long: the next segment cannot be made.";
        segment_bytes: Gauge by state(SegmentLabel) = "hitlog_segment_bytes",
            "Bytes of the files of segments, their write-ahead logs and keys included, by state, as they were in the \
             last seconds. Generations that were replaced and that somebody still reads are in none.",
            "sealed is what all events take; its growth over a day says how long the disk lasts.";
        reads: Counter by outcome(ReadOutcome) = "hitlog_reads_total",
            "Reads by outcome: answered, failed, or refused or given up for a reason.",
            "pool_full and deadline: too many or too large reads for the machine. memory: pages that are too large. \
             wal_cap: reads that stood in the way of a checkpoint. no_room: make room on the disk. keys: damaged keys \
             are made anew. failed: the log says why.";
        tail_reads: Counter by outcome(ReadOutcome) = "hitlog_tail_reads_total",
            "Reads for clients that follow events, by outcome. What was refused or given up is tried again.",
            "memory: its clients read too slowly; see hitlog_tail_bytes. failed: the log says why.";
    }
}

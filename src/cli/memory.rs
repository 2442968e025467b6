//! The most memory that hitlog takes, as a sum over its limits.
//!
//! What whoever has a token registers is beside it: a website takes as much as its texts and about 400 bytes.

use std::fs;

use crate::{
    app,
    config::{Config, contract},
};

/// The program, its threads, SQLite's caches, the metrics, and the expressions for user agents (12 MiB), in bytes;
/// measured, with a third to spare.
const PROGRAM_BYTES: usize = 44 << 20;
/// A connection without a request, in bytes; measured, with a tenth to spare.
const CONNECTION_BYTES: usize = 2 << 10;
/// What a connection with a request takes beside the buffer that its head is read into, in bytes; measured.
const ACTIVE_CONNECTION_BYTES: usize = 8 << 10;
/// The least size of that buffer, in bytes; a head may be larger.
const HEAD_BUFFER_BYTES: usize = 16 << 10;
/// What a parser takes beside the body, for each byte of what it parses at once: a tape of 24 bytes for each value, of
/// which two bytes make one, 4 for each mark, and both may be half empty; and the faults that it finds.
const PARSER_BYTES_EACH: usize = 40;
/// What it takes for each byte of a body that is too large for that: a buffer for texts, the places of what it repairs,
/// and properties that are longer as they are stored.
const LARGE_BODY_BYTES_EACH: f64 = 3.5;
/// What is kept for a client that follows events, in bytes: its place, and the next rows of it in their segment.
const TAIL_BYTES: usize = 4 << 10;
/// A sealed segment's connection with its cache, in bytes.
const SEGMENT_CONNECTION_BYTES: usize = 300 << 10;
/// What rollups take while they are made and until they are written, in bytes; measured, with the most that may wait.
const ROLLUP_BYTES: usize = 92 << 20;
/// What is kept of numbers takes five quarters of what is counted of it: the allocator's share; measured.
const NUMBERS_QUARTERS: usize = 5;
/// The keys of an event that has no index yet, in bytes.
const ROW_BYTES: usize = 14;
/// What laying the keys of a segment down takes beside them, for each event, in bytes.
const LAYING_DOWN_BYTES_EACH: usize = 24;
/// Blocks on their way to where events are shipped: two at once, each in buffers that may be half empty.
const SHIPPED_BLOCKS: usize = 4;
/// A visitor that is remembered around midnight, in bytes: 17 in a table that may be more than half empty, and in the
/// one before while it doubles.
const SEEN_VISITOR_BYTES: usize = 60;
/// A hidden event, in bytes.
const HIDDEN_EVENT_BYTES: usize = 16;
/// An event that was found and is about to be hidden, in bytes: those of a segment are in memory at once.
const FOUND_EVENT_BYTES: usize = 24;

/// One part of the memory: what it is for, the settings that bound it, and the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPart {
    /// What the memory is for.
    pub what: &'static str,
    /// The settings that bound it.
    pub settings: &'static str,
    /// How many bytes it is at most.
    pub bytes: usize,
}

/// The most memory that each part takes.
pub fn parts(config: &Config) -> Vec<MemoryPart> {
    let part = |what, settings, bytes| MemoryPart { what, settings, bytes };
    let parsed_at_once = contract::ITEM_BYTES_MAX.max(config.event_bytes_max);
    let parsers = config.worker_threads + config.body_threads;
    vec![
        part("the program", "", PROGRAM_BYTES),
        part("connections", "connections_max x 2 KiB", config.connections_max * CONNECTION_BYTES),
        part(
            "their buffers",
            "active_connections_max x (head_bytes_max + 8 KiB)",
            config.active_connections_max * (HEAD_BUFFER_BYTES.max(config.head_bytes_max) + ACTIVE_CONNECTION_BYTES),
        ),
        part("bodies", "body_bytes_max", config.body_bytes_max),
        part("unpacking them", "unpack_bytes_max", config.unpack_bytes_max),
        part(
            "parsing them",
            "(worker_threads + body_threads) x event_bytes_max x 40",
            parsers * parsed_at_once * PARSER_BYTES_EACH,
        ),
        part(
            "parsing the largest",
            "body_threads x batch_bytes_max x 3.5",
            (config.body_threads as f64 * config.batch_bytes_max as f64 * LARGE_BODY_BYTES_EACH) as usize,
        ),
        part("the queue", "queue_bytes_max", config.queue_bytes_max),
        part(
            "answers",
            "answer_bytes_max + ops_answer_bytes_max",
            config.answer_bytes_max + config.ops_answer_bytes_max,
        ),
        part("pages of events", "read_bytes_max", config.read_bytes_max),
        part("numbers", "rollup_bytes_max x 1.25", config.rollup_bytes_max / 4 * NUMBERS_QUARTERS),
        part("answering questions about them", "readers x rollup_bytes_max", config.readers * config.rollup_bytes_max),
        part(
            "events that are followed",
            "tail_bytes_max + tails_max x 4 KiB",
            config.tail_bytes_max + app::tails_max(config) * TAIL_BYTES,
        ),
        part("writing", "writer_cache_bytes", config.writer_cache_bytes as usize),
        part("sealing", "seal_cache_bytes + 92 MiB", config.seal_cache_bytes as usize + ROLLUP_BYTES),
        // While the keys of one segment are laid down, the next may fill.
        part(
            "keys without an index",
            "segment_rows_max x 52 B",
            config.segment_rows_max as usize * (2 * ROW_BYTES + LAYING_DOWN_BYTES_EACH),
        ),
        part("keys that the disk refuses", "unsealed_rows_max x 14 B", config.unsealed_rows_max as usize * ROW_BYTES),
        part("filters of sealed segments", "filter_bytes_max", config.filter_bytes_max),
        part(
            "open segments",
            "segment_connections_max x 300 KiB",
            config.segment_connections_max * SEGMENT_CONNECTION_BYTES,
        ),
        part("ids of events", "dedup_bytes_max", config.dedup_bytes_max),
        part(
            "shipping",
            "ship_bytes_max x 4, if ship_url is set",
            config.ship_url.as_ref().map_or(0, |_| config.ship_bytes_max * SHIPPED_BLOCKS),
        ),
        part("log lines", "log_bytes_max x 2", 2 * config.log_bytes_max),
        part("hidden events", "hidden_events_max x 16 B", config.hidden_events_max * HIDDEN_EVENT_BYTES),
        part("finding them", "segment_rows_max x 24 B", config.segment_rows_max as usize * FOUND_EVENT_BYTES),
        part("countries", "geoip_database, twice its size", countries_bytes(config)),
        part("visitors around midnight", "visitors_seen_max x 60 B", config.visitors_seen_max * SEEN_VISITOR_BYTES),
    ]
}

/// The database of countries, of which there are two while it is read anew.
fn countries_bytes(config: &Config) -> usize {
    let file = config.geoip_database.as_ref().and_then(|path| fs::metadata(path).ok());
    file.map_or(0, |file| 2 * file.len() as usize)
}

/// The parts in words, for the log.
pub(super) fn in_words(config: &Config) -> String {
    let words = parts(config).into_iter().map(|part| format!("{} {} MiB", part.what, part.bytes.div_ceil(1 << 20)));
    words.collect::<Vec<_>>().join(", ")
}

/// The most memory of all parts together, in bytes.
pub fn bytes_max(config: &Config) -> usize {
    parts(config).iter().map(|part| part.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawSettings;

    #[test]
    fn what_the_papers_say_is_enough_by_default() {
        let config = Config::check(&RawSettings::default()).unwrap();
        let config = Config { worker_threads: 1, ..config };
        let sum = bytes_max(&config);
        assert!(sum <= 1_440 << 20, "{} MiB: {:#?}", sum >> 20, parts(&config));
    }
}

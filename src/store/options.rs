//! How the store works. Values and reasons stand in the configuration.

use std::{path::PathBuf, time::Duration};

/// How the store works; values and reasons stand in the configuration.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How rows are appended, and when a segment is full.
    pub log: LogOptions,
    /// How questions are answered.
    pub read: ReadOptions,
    /// How numbers are answered.
    pub numbers: NumbersOptions,
    /// How events are followed.
    pub tail: TailOptions,
    /// What is kept in memory of the segments.
    pub segments: SegmentOptions,
    /// How long it is known what clients call their events.
    pub ids: IdOptions,
    /// What may be erased at once.
    pub erasures: ErasureOptions,
    /// Memory for sorting when a segment is sealed, in bytes.
    pub seal_cache_bytes: u64,
    /// The running time for which all events of a segment must have been expired before it is removed.
    pub retention_grace: Duration,
    /// Whether events are shipped elsewhere, and so kept until they are.
    pub is_shipping: bool,
    /// Expired segments that may stay because they are not shipped yet, in bytes; `None`: as many as there are.
    pub ship_held_bytes_max: Option<u64>,
    /// Whether the data directory is a copy that does not know it, such as the snapshot of a volume: the original may
    /// have gone on. What `hitlog backup` makes knows it.
    pub is_restored: bool,
    /// The folder for what does not fit into that; `None`: one in the data directory.
    pub scratch_dir: Option<PathBuf>,
    /// The size of the file that keeps room for a start on a full disk, in bytes.
    pub reserve_bytes: u64,
}

/// What a returned COMMIT survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power: the write-ahead log is synced before COMMIT returns.
    Full,
    /// A kill of the process. A loss of power may take the last moments with it, never part of a group.
    Normal,
}

/// The log's settings; their values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// What a returned COMMIT survives.
    pub durability: Durability,
    /// The size of a page of a segment made from now on, in bytes.
    pub page_bytes: u32,
    /// The writer's page cache, in bytes.
    pub cache_bytes: u64,
    /// The size of the write-ahead log at which a checkpoint is due, in bytes.
    pub wal_checkpoint_bytes: u64,
    /// The write-ahead log size, in bytes, past which readers are interrupted and the writer waits for a checkpoint.
    pub wal_bytes_max: u64,
    /// Rows after which a segment is full.
    pub segment_rows_max: u64,
    /// Time after the arrival of a segment's first event until it counts as full.
    pub segment_age_max: Duration,
}

/// The settings of the readers; their values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Threads that answer questions, each one at a time.
    pub readers: usize,
    /// Questions that may wait for a thread.
    pub waiting_max: usize,
    /// The longest that a question may take, its wait included.
    pub deadline: Duration,
    /// The memory of all answers that are being built or sent, in bytes.
    pub answer_bytes_max: usize,
    /// The age, by `createdAt`, past which no answer shows an event; `None` keeps events for ever.
    pub retention: Option<Duration>,
}

/// How numbers are answered; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct NumbersOptions {
    /// Memory of all that is kept for the next question, in bytes.
    pub bytes_max: usize,
    /// Visits up to which visitors are counted one by one.
    pub exact_visits_max: u64,
}

/// How many may follow events; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct TailOptions {
    /// Clients that follow events at once.
    pub tails_max: usize,
    /// Memory of what is on its way to them, in bytes.
    pub bytes_max: usize,
}

/// How much of the segments is kept in memory; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct SegmentOptions {
    /// Rows of full segments whose keys may stay in memory where the disk does not take them.
    pub unsealed_rows_max: u64,
    /// Memory of the filters of sealed segments, in bytes; older ones go without.
    pub filter_bytes_max: usize,
    /// Idle read connections that are kept.
    pub connections_max: usize,
}

/// How long it is known what clients call their events; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct IdOptions {
    /// The time for which an id is known at the least, if there is memory for it.
    pub window: Duration,
    /// Memory for all that are known, in bytes.
    pub bytes_max: usize,
    /// The part of it that is for the newest, in bytes.
    pub table_bytes: usize,
}

/// How many erasures may be under way; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ErasureOptions {
    /// Erasures that may be under way, of visitors and of websites each, and as many that are remembered.
    pub erasures_max: usize,
    /// Events that may be hidden in memory at once.
    pub hidden_events_max: usize,
}

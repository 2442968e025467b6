//! The one table of settings, and the layers that give them values.
//!
//! A setting `segment_rows_max` is the flag `--segment-rows-max`, the variable `HITLOG_SEGMENT_ROWS_MAX` and the
//! key `segment_rows_max` of the file: all three names come from the table.

use std::{collections::BTreeMap, fmt};

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// A number of bytes from the first to the second; KiB, MiB and GiB may follow.
    Bytes(u64, u64),
    /// A number of seconds, with fractions, from the first to the second.
    Seconds(f64, f64),
    /// A number of days, with fractions, from the first to the second.
    Days(f64, f64),
}

impl Kind {
    /// The least and the greatest value, and what kind of number lies between.
    pub(super) fn bounds(self) -> (f64, f64, &'static str) {
        match self {
            Self::Count(min, max) => (min as f64, max as f64, "a whole number"),
            Self::Bytes(min, max) => (min as f64, max as f64, "a number of bytes"),
            Self::Seconds(min, max) => (min, max, "a number of seconds"),
            Self::Days(min, max) => (min, max, "a number of days"),
            Self::Text | Self::Choice(_) => (0.0, 0.0, "a value"),
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file; flag and variable follow from it.
    pub name: &'static str,
    /// The value when nobody gives one.
    pub default: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What the flag's value is called in `--help`.
    pub value_name: &'static str,
    /// What it is, in which unit, and why the default is what it is.
    pub help: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
}

impl Setting {
    /// The flag, without the leading dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase())
    }
}

const fn setting(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    value_name: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, default, kind, value_name, help, secret: false }
}

const VARIABLE_PREFIX: &str = "HITLOG_";
/// Not a setting of the table, because it says where the table's values are.
const CONFIG_VARIABLE: &str = "HITLOG_CONFIG";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting(
        "listen",
        "127.0.0.1:3000",
        Kind::Text,
        "ADDRESS:PORT",
        "Where to listen. Port 0 takes a free port. Anything but loopback needs a token",
    ),
    setting(
        "data_dir",
        "data",
        Kind::Text,
        "DIRECTORY",
        "Where the events are kept. Created if only its last part is missing",
    ),
    setting(
        "durability",
        "full",
        Kind::Choice(&["full", "normal"]),
        "full|normal",
        "What a 201 survives: full, a loss of power (each group is synced); normal, a kill of the process",
    ),
    Setting {
        secret: true,
        ..setting(
            "token",
            "",
            Kind::Text,
            "TOKEN",
            "The bearer token for everything but sending events: 16 bytes or more. Other users of the machine can see \
         flags, so prefer token_file or the variable. Without any: protected mode, this machine only",
        )
    },
    setting(
        "token_file",
        "",
        Kind::Text,
        "FILE",
        "A file of bearer tokens, one a line; each is valid, so that they can be changed without a gap",
    ),
    setting(
        "log_format",
        "auto",
        Kind::Choice(&["auto", "text", "json"]),
        "auto|text|json",
        "How log lines look on standard error. auto: text on a terminal, JSON otherwise",
    ),
    setting(
        "log_level",
        "info",
        Kind::Choice(&["info", "error", "warn", "debug", "trace"]),
        "LEVEL",
        "The least important lines to log: error, warn, info, debug or trace",
    ),
    setting(
        "connections_max",
        "16384",
        Kind::Count(1, 1_000_000),
        "COUNT",
        "Client connections at once; further ones wait in the kernel. Never more than the file descriptors less 256",
    ),
    setting(
        "warm_connections_max",
        "1024",
        Kind::Count(0, 1_000_000),
        "COUNT",
        "Connections that keep their buffers (16 KiB each) while idle; past it idle ones give them back",
    ),
    setting(
        "head_bytes_max",
        "16KiB",
        Kind::Bytes(KIB, 256 * KIB),
        "BYTES",
        "Largest head of a request (request line and headers)",
    ),
    setting(
        "head_timeout_seconds",
        "10",
        Kind::Seconds(0.1, 3_600.0),
        "SECONDS",
        "Time from the first byte of a request to the end of its head; then 408. Slow heads hold connections",
    ),
    setting(
        "body_stall_timeout_seconds",
        "10",
        Kind::Seconds(0.1, 3_600.0),
        "SECONDS",
        "Longest pause within a body, and longest wait for a client to read its answer",
    ),
    setting(
        "body_timeout_seconds",
        "30",
        Kind::Seconds(0.1, 3_600.0),
        "SECONDS",
        "Time for a whole body; then 408. A client that sends a byte a second must not keep memory",
    ),
    setting(
        "idle_timeout_seconds",
        "30",
        Kind::Seconds(0.1, 86_400.0),
        "SECONDS",
        "How long a connection stays open without a request",
    ),
    setting(
        "body_bytes_max",
        "40MiB",
        Kind::Bytes(MIB, 64 * GIB),
        "BYTES",
        "Memory for all bodies that are being read, before they are queued; past it new ones get 503",
    ),
    setting(
        "drain_timeout_seconds",
        "30",
        Kind::Seconds(0.1, 3_600.0),
        "SECONDS",
        "How long a stop waits for requests that were taken in; then the process exits with an error",
    ),
    setting(
        "event_bytes_max",
        "64KiB",
        Kind::Bytes(KIB, 16 * MIB),
        "BYTES",
        "Largest body of one event, after decompression; over it 413",
    ),
    setting(
        "batch_bytes_max",
        "4MiB",
        Kind::Bytes(KIB, GIB),
        "BYTES",
        "Largest body of a batch, after decompression; over it 413",
    ),
    setting(
        "batch_events_max",
        "1000",
        Kind::Count(1, 100_000),
        "COUNT",
        "Most events of a batch. They are committed together, even if they are more than group_events_max",
    ),
    setting(
        "timestamp_ahead_max_seconds",
        "86400",
        Kind::Seconds(0.0, 3_153_600_000.0),
        "SECONDS",
        "How far ahead of the server's clock a timestamp may be before the arrival takes its place",
    ),
    setting(
        "queue_events_max",
        "262144",
        Kind::Count(1, 100_000_000),
        "COUNT",
        "Events taken in and not answered yet; past it 503. The default is some seconds of work for the writer",
    ),
    setting(
        "queue_bytes_max",
        "64MiB",
        Kind::Bytes(MIB, 64 * GIB),
        "BYTES",
        "Memory of the events taken in and not answered yet; past it 503",
    ),
    setting(
        "group_events_max",
        "10000",
        Kind::Count(1, 1_000_000),
        "COUNT",
        "Events after which a group takes no further request. Larger groups gain little and delay their first request",
    ),
    setting(
        "group_bytes_max",
        "8MiB",
        Kind::Bytes(KIB, GIB),
        "BYTES",
        "Bytes after which a group takes no further request",
    ),
    setting(
        "segment_page_bytes",
        "16KiB",
        Kind::Bytes(512, 64 * KIB),
        "BYTES",
        "Page size of segments made from now on, a power of two",
    ),
    setting(
        "writer_cache_bytes",
        "8MiB",
        Kind::Bytes(MIB, 64 * GIB),
        "BYTES",
        "The writer's page cache: a group that fits is written once, at its end",
    ),
    setting(
        "wal_checkpoint_bytes",
        "8MiB",
        Kind::Bytes(64 * KIB, 64 * GIB),
        "BYTES",
        "Size of the write-ahead log at which it is copied into the segment",
    ),
    setting(
        "wal_bytes_max",
        "256MiB",
        Kind::Bytes(MIB, 256 * GIB),
        "BYTES",
        "Size of the write-ahead log past which readers are interrupted, because they keep it from starting over",
    ),
    setting(
        "segment_rows_max",
        "1000000",
        Kind::Count(1, 100_000_000),
        "COUNT",
        "Events after which a segment is full: it gets its indexes, and another takes its place. Until it has them, 14 \
         bytes an event stay in memory",
    ),
    setting(
        "segment_age_max_seconds",
        "604800",
        Kind::Seconds(1.0, 3_153_600_000.0),
        "SECONDS",
        "Age of its first event at which a segment is full, however few it holds: quiet sites' events get indexes too",
    ),
    setting(
        "retention_days",
        "0",
        Kind::Days(0.0, 36_500.0),
        "DAYS",
        "How long events are kept, by their createdAt. Older ones are refused and in no answer, and leave the disk \
         segment by segment. 0 keeps them for ever",
    ),
    setting(
        "erasures_max",
        "10000",
        Kind::Count(1, 1_000_000),
        "COUNT",
        "Erasures that are remembered, those done in the last 30 days included; past it 503",
    ),
    setting(
        "hidden_events_max",
        "2000000",
        Kind::Count(1, 1_000_000_000),
        "COUNT",
        "Events that may be hidden at once, from the request to erase them until their segments are rewritten: 16 \
         bytes each. A visitor with more can't be erased",
    ),
    setting(
        "seal_cache_bytes",
        "8MiB",
        Kind::Bytes(MIB, 64 * GIB),
        "BYTES",
        "Memory for sorting while a segment gets its indexes; the rest goes to files in SQLITE_TMPDIR or /var/tmp",
    ),
    setting(
        "unsealed_rows_max",
        "8000000",
        Kind::Count(1, 1_000_000_000),
        "COUNT",
        "Events without indexes whose keys stay in memory, for when events come faster than they are sealed; older \
         ones are read from the disk when asked for, some 0.1 s a million",
    ),
    setting(
        "filter_bytes_max",
        "64MiB",
        Kind::Bytes(0, 64 * GIB),
        "BYTES",
        "Memory of the filters that say which sealed segments a session is not in, about 0.3 MB a million events; past \
         it the oldest segments have none and are searched",
    ),
    setting(
        "segment_connections_max",
        "64",
        Kind::Count(1, 100_000),
        "COUNT",
        "Connections to segments that stay open for the next read, each a file descriptor and up to 0.3 MB",
    ),
    setting("readers", "4", Kind::Count(1, 256), "COUNT", "Threads that answer reads, one each at a time"),
    setting("reads_waiting_max", "64", Kind::Count(1, 100_000), "COUNT", "Reads that wait for a thread; past it 503"),
    setting(
        "read_timeout_seconds",
        "10",
        Kind::Seconds(0.01, 3_600.0),
        "SECONDS",
        "Time for a read, its wait included; then 503. A long read keeps the write-ahead log growing",
    ),
    setting(
        "read_bytes_max",
        "64MiB",
        Kind::Bytes(MIB, 64 * GIB),
        "BYTES",
        "Memory for the answers to reads that are being built or sent; past it 503",
    ),
    setting(
        "worker_threads",
        "0",
        Kind::Count(0, 1_024),
        "COUNT",
        "Threads that serve connections; 0 takes one for each core but one, which the writer needs",
    ),
];

pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Where a value comes from. A later layer overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Nobody gave a value.
    Default,
    /// The TOML file.
    File,
    /// An environment variable.
    Environment,
    /// A flag.
    Flag,
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// A value as text, and the layer that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue {
    /// The value as it was given.
    pub text: String,
    /// Where it was given.
    pub layer: Layer,
}

/// The values that were given, unchecked.
#[derive(Debug, Clone, Default)]
pub struct RawSettings {
    values: BTreeMap<&'static str, RawValue>,
}

impl RawSettings {
    /// Sets a value, unless a later layer has one.
    pub fn set(&mut self, setting: &'static Setting, text: impl Into<String>, layer: Layer) {
        let value = RawValue { text: text.into(), layer };
        match self.values.get(setting.name) {
            Some(known) if known.layer > layer => {}
            _ => drop(self.values.insert(setting.name, value)),
        }
    }

    /// The value in force.
    pub fn get(&self, name: &str) -> RawValue {
        self.values.get(name).cloned().unwrap_or_else(|| RawValue {
            text: find(name).map_or("", |setting| setting.default).to_owned(),
            layer: Layer::Default,
        })
    }

    /// Takes the values of a TOML file, which is flat and has no key that is not a setting.
    pub fn read_file(&mut self, toml: &str) -> Result<(), Vec<String>> {
        let table: toml::Table = toml
            .parse()
            .map_err(|error: toml::de::Error| vec![format!("not TOML: {}", error.to_string().trim_end())])?;
        let mut problems = Vec::new();
        for (key, value) in &table {
            let Some(setting) = find(key) else {
                problems.push(format!("{key}: there is no such setting; `hitlog config show` lists them all"));
                continue;
            };
            match value {
                toml::Value::String(text) => self.set(setting, text, Layer::File),
                toml::Value::Integer(number) => self.set(setting, number.to_string(), Layer::File),
                toml::Value::Float(number) => self.set(setting, number.to_string(), Layer::File),
                _ => problems.push(format!("{key}: expected a text or a number")),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Takes the values of environment variables; returns the names that begin as ours do and belong to no setting.
    pub fn read_environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
        let mut unknown = Vec::new();
        for (name, value) in variables.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)) {
            match SETTINGS.iter().find(|setting| setting.variable() == name) {
                Some(setting) => self.set(setting, value, Layer::Environment),
                None if name == CONFIG_VARIABLE => {}
                None => unknown.push(name),
            }
        }
        unknown
    }

    /// All settings as a file that could be read back, with where each value comes from. Secrets stay hidden.
    pub fn show(&self) -> String {
        let line = |setting: &Setting| {
            let RawValue { text, layer } = self.get(setting.name);
            let value = match text.parse::<f64>() {
                Ok(_) if !matches!(setting.kind, Kind::Text | Kind::Choice(_)) => text,
                _ if setting.secret && !text.is_empty() => "\"(hidden)\"".into(),
                _ => toml::Value::String(text).to_string(),
            };
            format!("{} = {value} # {layer}\n", setting.name)
        };
        SETTINGS.iter().map(line).collect()
    }
}

/// Reads a whole number, which a unit of bytes may follow.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, factor) = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), factor)))
        .unwrap_or((text, 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

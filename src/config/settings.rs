//! The one table of settings, and the layers that give them values.
//!
//! A setting `segment_rows_max` is the flag `--segment-rows-max`, the variable `HITLOG_SEGMENT_ROWS_MAX` and the
//! key `segment_rows_max` of the file: all three names come from the table.

use std::{collections::BTreeMap, ffi::OsString, fmt};

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text; with what it is called in `--help`.
    Text(&'static str),
    /// A text that is never shown; with what it is called in `--help`.
    Secret(&'static str),
    /// One of these, with `|` between them.
    Choice(&'static str),
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
            Self::Text(_) | Self::Secret(_) | Self::Choice(_) => (0.0, 0.0, "a value"),
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
    /// What values the setting takes.
    pub kind: Kind,
    /// What the setting is for, in which unit, and why the default is what it is.
    pub help: &'static str,
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

    /// What the flag's value is called in `--help`.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Text(name) | Kind::Secret(name) | Kind::Choice(name) => name,
            Kind::Count(..) => "COUNT",
            Kind::Bytes(..) => "BYTES",
            Kind::Seconds(..) => "SECONDS",
            Kind::Days(..) => "DAYS",
        }
    }

    /// Whether its value is never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(_))
    }
}

/// The table as it is read: `name: Kind(bounds) = default, help;`
macro_rules! settings {
    ($($name:ident: $kind:ident($($bound:expr),+) = $default:literal, $help:literal;)+) => {
        &[$(Setting {
            name: stringify!($name),
            default: $default,
            kind: Kind::$kind($($bound),+),
            help: $help,
        }),+]
    };
}

const VARIABLE_PREFIX: &str = "HITLOG_";
/// Not a setting of the table, because it says where the table's values are.
const CONFIG_VARIABLE: &str = "HITLOG_CONFIG";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every setting.
pub const SETTINGS: &[Setting] = settings! {
    listen: Text("ADDRESS:PORT") = "127.0.0.1:3000",
        "Where to listen. Port 0 takes a free port. Anything but loopback needs a token";
    data_dir: Text("DIRECTORY") = "data", "Where the events are kept. Created if only its last part is missing";
    file_access: Choice("owner|group") = "owner",
        "Who may read the files of data_dir: owner, nobody else (modes 0600 and 0700); group, their group as well \
         (0640 and 0750), for backups by another user";
    durability: Choice("full|normal") = "full",
        "What a 201 survives: full, a loss of power (each group is synced); normal, a kill of the process";
    token: Secret("TOKEN") = "",
        "The bearer token for everything but sending events: 16 bytes or more. Other users of the machine can see \
         flags, so prefer token_file or the variable. Without any: protected mode, this machine only";
    metrics_token: Secret("TOKEN") = "", "A bearer token that reads /metrics and nothing else: for Prometheus";
    read_token: Secret("TOKEN") = "", "A bearer token that reads events and websites and changes nothing";
    token_file: Text("FILE") = "",
        "A file of bearer tokens, one a line, with metrics:, read: or admin: before it (admin where there is none). \
         Each is valid, so that they can be changed without a gap; SIGHUP reads the file anew";
    log_format: Choice("auto|text|json") = "auto",
        "How log lines look on standard error. auto: text on a terminal, JSON otherwise";
    log_level: Choice("error|warn|info|debug|trace") = "info",
        "The least important lines to log: error, warn, info, debug or trace";
    log_bytes_max: Bytes(4 * KIB, GIB) = "1MiB",
        "Memory for log lines that standard error has not taken yet; past it lines are dropped and counted, so that \
         nothing waits for the log";
    connections_max: Count(1, 1_000_000) = "16384",
        "Client connections at once; further ones wait in the kernel. Never more than the file descriptors less 256";
    active_connections_max: Count(1, 1_000_000) = "4096",
        "Connections with a request under way, each with buffers of up to 20 KiB; further ones wait for a moment, and \
         the slowest give way to them";
    warm_connections_max: Count(0, 1_000_000) = "1024",
        "Connections that keep their buffers while idle; past it idle ones give them back. At most \
         active_connections_max";
    address_share_percent: Count(1, 100) = "25",
        "When nine tenths of connections_max are taken, the most of all that one client address (in IPv6 a /64) may \
         hold, in percent; below that nobody is bounded";
    trusted_proxies: Text("CIDR,...") = "",
        "Networks, such as 10.0.0.0/8, of proxies that speak for many clients: their addresses have no share";
    head_bytes_max: Bytes(KIB, 256 * KIB) = "16KiB", "Largest head of a request (request line and headers)";
    head_timeout_seconds: Seconds(0.1, 3_600.0) = "10",
        "Time from the first byte of a request to the end of its head; then 408. Slow heads hold connections";
    body_stall_timeout_seconds: Seconds(0.1, 3_600.0) = "10",
        "Longest pause within a body, and longest wait for a client to read its answer";
    body_timeout_seconds: Seconds(0.1, 3_600.0) = "30",
        "Time for a whole body; then 408";
    bytes_per_second_min: Bytes(1, MIB) = "1KiB",
        "The least rate at which a body is sent, or an answer read, averaged over body_stall_timeout_seconds; a client \
         that sends a byte a second must not keep memory";
    idle_timeout_seconds: Seconds(0.1, 86_400.0) = "75",
        "How long a connection stays open without a request. Longer than proxies reuse theirs, most of them for 60";
    body_bytes_max: Bytes(2 * MIB, 64 * GIB) = "32MiB",
        "Memory for all bodies that are being read, before they are queued; past it the slowest give way, and then new \
         ones get 503";
    small_body_bytes: Bytes(64 * KIB, GIB) = "8MiB",
        "The part of body_bytes_max that is for bodies of up to 16 KiB only, so that events never wait for batches";
    unpack_bytes_max: Bytes(MIB, 64 * GIB) = "20MiB",
        "Memory for what unpacks compressed bodies, beside the bodies; further ones wait for their turn";
    body_threads: Count(1, 64) = "1",
        "Threads that unpack and parse large bodies, so that small ones are not delayed";
    answer_bytes_max: Bytes(2 * MIB, 64 * GIB) = "24MiB",
        "Memory for answers that are being made or read by their clients, but for pages of events; past it the slowest \
         give way, and then requests get 503";
    small_answer_bytes: Bytes(64 * KIB, GIB) = "8MiB",
        "The part of answer_bytes_max that is for answers of up to 16 KiB";
    ops_answer_bytes_max: Bytes(256 * KIB, GIB) = "4MiB", "Memory for the answers of /livez, /readyz and /metrics";
    drain_timeout_seconds: Seconds(0.1, 3_600.0) = "30",
        "How long a stop waits for requests that were taken in; then the process exits with an error";
    event_bytes_max: Bytes(KIB, 16 * MIB) = "64KiB", "Largest body of one event, after decompression; over it 413";
    batch_bytes_max: Bytes(KIB, GIB) = "4MiB", "Largest body of a batch, after decompression; over it 413";
    batch_events_max: Count(1, 100_000) = "1000",
        "Most events of a batch. They are committed together, even if they are more than group_events_max";
    timestamp_ahead_max_seconds: Seconds(0.0, 3_153_600_000.0) = "86400",
        "How far ahead of the server's clock a timestamp may be before the arrival takes its place";
    queue_events_max: Count(1, 100_000_000) = "262144",
        "Events taken in and not answered yet; past it 503. The default is some seconds of work for the writer";
    queue_bytes_max: Bytes(MIB, 64 * GIB) = "48MiB", "Memory of the events taken in and not answered yet; past it 503";
    group_events_max: Count(1, 1_000_000) = "10000",
        "Events after which a group takes no further request. Larger groups gain little and delay their first request";
    group_bytes_max: Bytes(KIB, GIB) = "8MiB", "Bytes after which a group takes no further request";
    segment_page_bytes: Bytes(512, 64 * KIB) = "16KiB", "Page size of segments made from now on, a power of two";
    writer_cache_bytes: Bytes(MIB, 64 * GIB) = "8MiB",
        "The writer's page cache: a group that fits is written once, at its end";
    wal_checkpoint_bytes: Bytes(64 * KIB, 64 * GIB) = "8MiB",
        "Size of the write-ahead log at which it is copied into the segment";
    wal_bytes_max: Bytes(MIB, 256 * GIB) = "256MiB",
        "Size of the write-ahead log past which readers are interrupted, because they keep it from starting over";
    segment_rows_max: Count(1, 100_000_000) = "1000000",
        "Events after which a segment is full: it gets its indexes, and another takes its place. Until it is full, 14 \
         bytes an event are in memory, and for a moment then 24 more";
    segment_age_max_seconds: Seconds(1.0, 3_153_600_000.0) = "604800",
        "Age of its first event at which a segment is full, however few it holds: quiet sites' events get indexes too";
    retention_days: Days(0.0, 36_500.0) = "0",
        "How long events are kept, by their createdAt. Older ones are refused and in no answer, and leave the disk \
         segment by segment. 0 keeps them for ever";
    retention_grace_seconds: Seconds(0.0, 315_360_000.0) = "86400",
        "How long hitlog must have run since all events of a segment expired, before the segment leaves the disk: a \
         wrong clock, or a wrong retention_days, can be set right meanwhile and nothing is lost";
    erasures_max: Count(1, 1_000_000) = "10000",
        "Erasures of visitors that may be under way, and as many of websites; past it 503. As many again that are done \
         are remembered, for 30 days";
    hidden_events_max: Count(1, 1_000_000_000) = "250000",
        "Events that may be hidden in memory at once, 16 bytes each, from the request to erase them until their \
         segments are rewritten; past it 503. Those of a visitor with more than half of it are listed on the disk";
    seal_cache_bytes: Bytes(MIB, 64 * GIB) = "8MiB",
        "Memory for sorting while a segment gets its indexes; the rest goes to files in scratch_dir";
    scratch_dir: Text("DIRECTORY") = "",
        "Where what does not fit into seal_cache_bytes is sorted, at most a segment in size. Created if only its last \
         part is missing; without one, the folder scratch in data_dir";
    reserve_bytes: Bytes(0, GIB) = "4MiB",
        "A file in data_dir that keeps room for a start on a full disk, which gives it up to answer reads. Until there \
         is room for it again, events are refused with STORAGE_FULL. 0 keeps none, and such a start fails";
    unsealed_rows_max: Count(1, 1_000_000_000) = "1000000",
        "Events of full segments whose keys stay in memory, 14 bytes each, where the disk does not take them; past it \
         no event is taken until it does";
    filter_bytes_max: Bytes(0, 64 * GIB) = "26MiB",
        "Memory of the filters that say which sealed segments a session is not in, about 0.3 MB a million events; \
         past it the oldest segments have none and are searched";
    segment_connections_max: Count(1, 100_000) = "64",
        "Connections to segments that stay open for the next read, each a file descriptor and up to 0.3 MB";
    readers: Count(1, 256) = "4", "Threads that answer reads, one each at a time";
    reads_waiting_max: Count(1, 100_000) = "64", "Reads that wait for a thread; past it 503";
    read_timeout_seconds: Seconds(0.01, 3_600.0) = "10",
        "Time for a read, its wait included; then 503. A long read keeps the write-ahead log growing";
    read_bytes_max: Bytes(MIB, 64 * GIB) = "36MiB",
        "Memory for the answers to reads that are being built or sent; past it 503";
    worker_threads: Count(0, 1_024) = "0",
        "Threads that serve connections; 0 takes one for each core but one, which the writer needs";
};

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

/// What was found in the environment beside the values of settings.
#[derive(Debug, Default)]
pub struct Environment {
    /// The file that `HITLOG_CONFIG` names.
    pub config: Option<String>,
    /// Names that begin as ours do and belong to no setting.
    pub unknown: Vec<String>,
    /// What cannot be read.
    pub problems: Vec<String>,
}

/// Whether Kubernetes makes such a variable, which it does for each service: of a service `hitlog` the names begin with
/// `HITLOG_PORT` and `HITLOG_SERVICE_`, and those of a service `hitlog-main` with `HITLOG_MAIN_PORT` and so on. What
/// looks only half like that, as `HITLOG_PORT=3000` does, somebody has written by hand.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_protocol = |text: &str| PROTOCOLS.iter().any(|protocol| protocol.eq_ignore_ascii_case(text));
    if name.starts_with("HITLOG_SERVICE_") || name.starts_with("HITLOG_PORT_") {
        return true;
    }
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    if name.ends_with("_PORT") && value.split_once("://").is_some_and(|(protocol, _)| is_protocol(protocol)) {
        return true;
    }
    // HITLOG_MAIN_PORT_3000_TCP, and with _PROTO, _PORT and _ADDR behind it.
    let Some((_, port)) = name.split_once("_PORT_") else { return false };
    let mut parts = port.split('_');
    let is_number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
    is_number && parts.next().is_some_and(is_protocol)
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

    /// Leaves a setting as though nobody had given a value.
    pub(super) fn set_aside(&mut self, name: &str) {
        self.values.remove(name);
    }

    /// The value in force.
    pub fn get(&self, name: &str) -> RawValue {
        self.values.get(name).cloned().unwrap_or_else(|| RawValue {
            text: find(name).map_or("", |setting| setting.default).to_owned(),
            layer: Layer::Default,
        })
    }

    /// Takes the values of a TOML file, which is flat and has no key that is not a setting; returns what is wrong with
    /// the others.
    pub fn read_file(&mut self, toml: &str) -> Vec<String> {
        let toml = toml.strip_prefix('\u{feff}').unwrap_or(toml);
        let table = match toml.parse::<toml::Table>() {
            Ok(table) => table,
            // The line itself may hold a token, so only its number is told.
            Err(error) => {
                let before = toml.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                return vec![format!("line {line}: not TOML: {}", error.message().replace('\n', ", "))];
            }
        };
        let mut problems = Vec::new();
        for (key, value) in &table {
            let Some(setting) = find(key) else {
                problems.push(format!("{key}: there is no such setting; `hitlog serve --help` lists them all"));
                continue;
            };
            match value {
                toml::Value::String(text) => self.set(setting, text, Layer::File),
                toml::Value::Integer(number) => self.set(setting, number.to_string(), Layer::File),
                toml::Value::Float(number) => self.set(setting, number.to_string(), Layer::File),
                _ => problems.push(format!("{key}: expected a text or a number")),
            }
        }
        problems
    }

    /// Takes the values of environment variables whose names begin as ours do.
    pub fn read_environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
        let mut found = Environment::default();
        let is_ours = |name: &OsString| name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes());
        for (name, value) in variables.filter(|(name, _)| is_ours(name)) {
            // Passed over, a token that is no text would leave everything open.
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                let name = name.to_string_lossy();
                found.problems.push(format!("{name} (environment): its name or its value is not text in UTF-8"));
                continue;
            };
            match SETTINGS.iter().find(|setting| setting.variable() == name) {
                Some(setting) => self.set(setting, value, Layer::Environment),
                None if name == CONFIG_VARIABLE => found.config = Some(value.to_owned()),
                None if is_of_kubernetes(name, value) => {}
                None => found.unknown.push(name.to_owned()),
            }
        }
        found
    }

    /// All settings as a file that could be read back, with where each value comes from. Secrets stay hidden.
    pub fn show(&self) -> String {
        let line = |setting: &Setting| {
            let RawValue { text, layer } = self.get(setting.name);
            // Read back, an empty value would be one that was given.
            let lead = if text.is_empty() { "#" } else { "" };
            let value = match text.parse::<f64>() {
                Ok(_) if !matches!(setting.kind, Kind::Text(_) | Kind::Secret(_) | Kind::Choice(_)) => text,
                _ if setting.is_secret() && !text.is_empty() => "\"(hidden)\"".into(),
                _ => toml::Value::String(text).to_string(),
            };
            format!("{lead}{} = {value} # {layer}\n", setting.name)
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

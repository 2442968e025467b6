//! Settings: from flags, environment and file to a checked [`Config`].
//!
//! Every limit of hitlog lives here or in the table of `settings.rs`, with its default, unit and reason. The whole
//! configuration is checked before a disk or a port is touched. Knows no other room: [`crate::app`] hands each room
//! its own few values.

pub mod contract;
mod settings;
mod tokens;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
pub use settings::{Environment, Kind, Layer, RawSettings, RawValue, SETTINGS, Setting};
pub use tokens::{Role, Secret, Token, TokenSources};

/// What a 201 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Committed and synced: survives a loss of power.
    Full,
    /// Committed: survives a kill of the process.
    Normal,
}

impl Durability {
    /// The value of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// Who may read the files of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Their owner.
    Owner,
    /// Their group as well.
    Group,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text, for people.
    Text,
    /// JSON, for programs.
    Json,
}

/// The checked configuration. Each field is the setting of the same name, described in the table of settings.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the table of settings describes each")]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub file_access: FileAccess,
    pub durability: Durability,
    /// The tokens of the settings and of `token_file` together; none means protected mode.
    pub tokens: Vec<Token>,
    /// Where the tokens come from, to read them anew.
    pub token_sources: TokenSources,
    pub log_format: LogFormat,
    pub log_level: tracing::Level,
    pub log_bytes_max: usize,
    pub connections_max: usize,
    pub active_connections_max: usize,
    pub warm_connections_max: usize,
    pub address_share_percent: usize,
    pub trusted_proxies: Vec<IpNet>,
    pub head_bytes_max: usize,
    pub head_timeout: Duration,
    pub body_stall_timeout: Duration,
    pub body_timeout: Duration,
    pub bytes_per_second_min: u64,
    pub idle_timeout: Duration,
    pub body_bytes_max: usize,
    pub small_body_bytes: usize,
    pub unpack_bytes_max: usize,
    pub body_threads: usize,
    pub answer_bytes_max: usize,
    pub small_answer_bytes: usize,
    pub ops_answer_bytes_max: usize,
    pub drain_timeout: Duration,
    pub event_bytes_max: usize,
    pub batch_bytes_max: usize,
    pub batch_events_max: usize,
    pub timestamp_ahead_max: Duration,
    pub queue_events_max: usize,
    pub queue_bytes_max: usize,
    pub group_events_max: usize,
    pub group_bytes_max: usize,
    pub segment_page_bytes: u32,
    pub writer_cache_bytes: u64,
    pub wal_checkpoint_bytes: u64,
    pub wal_bytes_max: u64,
    pub segment_rows_max: u64,
    pub segment_age_max: Duration,
    /// `retention_days`; `None`: for ever.
    pub retention: Option<Duration>,
    pub retention_grace: Duration,
    pub erasures_max: usize,
    pub hidden_events_max: usize,
    pub seal_cache_bytes: u64,
    /// `None`: a folder in the data directory.
    pub scratch_dir: Option<PathBuf>,
    pub reserve_bytes: u64,
    pub unsealed_rows_max: u64,
    pub filter_bytes_max: usize,
    pub segment_connections_max: usize,
    pub readers: usize,
    pub reads_waiting_max: usize,
    pub read_timeout: Duration,
    pub read_bytes_max: usize,
    pub worker_threads: usize,
}

/// All that is wrong with the configuration, each with the setting, its value and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Checks all settings at once.
    pub fn check(raw: &RawSettings) -> Result<Self, ConfigError> {
        let mut checker = Checker { raw: raw.clone(), problems: Vec::new() };
        checker.set_unreadable_aside();
        let config = checker.config();
        let mut problems = checker.problems;
        if problems.is_empty() {
            problems.extend(config.contradictions());
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// Whether requests that would need a token are taken without one, from this machine only.
    pub fn is_protected_mode(&self) -> bool {
        self.tokens.is_empty()
    }

    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.is_protected_mode() && !self.listen.ip().is_loopback() {
            found.push(format!(
                "listen = {}: without a token hitlog listens on this machine only (127.0.0.1 or [::1]), because \
                 anybody who reaches it could read every event. Set a token (16 bytes or more) with --token, \
                 HITLOG_TOKEN or token_file, or listen on 127.0.0.1",
                self.listen
            ));
        }
        let mut at_most = |small: &str, value: usize, large: &str, limit: usize| {
            if value > limit {
                found.push(format!(
                    "{small} = {value} is more than {large} = {limit}; lower the one or raise the other"
                ));
            }
        };
        // A batch that can never enter the queue would be answered "try again later" for ever.
        at_most("batch_events_max", self.batch_events_max, "queue_events_max", self.queue_events_max);
        at_most("small_body_bytes * 2", self.small_body_bytes * 2, "body_bytes_max", self.body_bytes_max);
        at_most("small_answer_bytes * 2", self.small_answer_bytes * 2, "answer_bytes_max", self.answer_bytes_max);
        let large_bytes = self.body_bytes_max.saturating_sub(self.small_body_bytes);
        at_most(
            "event_bytes_max * 2",
            self.event_bytes_max.saturating_mul(2),
            "body_bytes_max - small_body_bytes",
            large_bytes,
        );
        at_most(
            "batch_bytes_max * 3",
            self.batch_bytes_max.saturating_mul(3),
            "body_bytes_max - small_body_bytes",
            large_bytes,
        );
        at_most(
            "warm_connections_max",
            self.warm_connections_max,
            "active_connections_max",
            self.active_connections_max,
        );
        at_most("batch_bytes_max * 2", self.batch_bytes_max.saturating_mul(2), "queue_bytes_max", self.queue_bytes_max);
        at_most(
            "wal_checkpoint_bytes",
            self.wal_checkpoint_bytes as usize,
            "wal_bytes_max",
            self.wal_bytes_max as usize,
        );
        found
    }
}

/// Checks the raw values by name and collects what is wrong with them.
struct Checker {
    raw: RawSettings,
    problems: Vec<String>,
}

impl Checker {
    /// Tells which values are no values at all, and goes on without them. An empty one is not the same as none: where
    /// a token was meant, nobody would be asked for one.
    fn set_unreadable_aside(&mut self) {
        for Setting { name, .. } in SETTINGS {
            let RawValue { text, layer } = self.raw.get(name);
            if layer == Layer::Default {
                continue;
            }
            if let Some(what) = unreadable(&text) {
                self.problem(name, what);
                self.raw.set_aside(name);
            }
        }
    }

    fn config(&mut self) -> Config {
        let (tokens, token_sources) = self.tokens();
        Config {
            listen: self.listen(),
            data_dir: PathBuf::from(self.raw.get("data_dir").text),
            file_access: if self.choice("file_access") == "group" { FileAccess::Group } else { FileAccess::Owner },
            durability: if self.choice("durability") == "normal" { Durability::Normal } else { Durability::Full },
            tokens,
            token_sources,
            log_format: match self.choice("log_format") {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
            log_level: self.choice("log_level").parse().unwrap_or(tracing::Level::INFO),
            log_bytes_max: self.number("log_bytes_max"),
            connections_max: self.number("connections_max"),
            active_connections_max: self.number("active_connections_max"),
            warm_connections_max: self.number("warm_connections_max"),
            address_share_percent: self.number("address_share_percent"),
            trusted_proxies: self.networks("trusted_proxies"),
            head_bytes_max: self.number("head_bytes_max"),
            head_timeout: self.duration("head_timeout_seconds"),
            body_stall_timeout: self.duration("body_stall_timeout_seconds"),
            body_timeout: self.duration("body_timeout_seconds"),
            bytes_per_second_min: self.number("bytes_per_second_min") as u64,
            idle_timeout: self.duration("idle_timeout_seconds"),
            body_bytes_max: self.number("body_bytes_max"),
            small_body_bytes: self.number("small_body_bytes"),
            unpack_bytes_max: self.number("unpack_bytes_max"),
            body_threads: self.number("body_threads"),
            answer_bytes_max: self.number("answer_bytes_max"),
            small_answer_bytes: self.number("small_answer_bytes"),
            ops_answer_bytes_max: self.number("ops_answer_bytes_max"),
            drain_timeout: self.duration("drain_timeout_seconds"),
            event_bytes_max: self.number("event_bytes_max"),
            batch_bytes_max: self.number("batch_bytes_max"),
            batch_events_max: self.number("batch_events_max"),
            timestamp_ahead_max: self.duration("timestamp_ahead_max_seconds"),
            queue_events_max: self.number("queue_events_max"),
            queue_bytes_max: self.number("queue_bytes_max"),
            group_events_max: self.number("group_events_max"),
            group_bytes_max: self.number("group_bytes_max"),
            segment_page_bytes: self.page_bytes(),
            writer_cache_bytes: self.number("writer_cache_bytes") as u64,
            wal_checkpoint_bytes: self.number("wal_checkpoint_bytes") as u64,
            wal_bytes_max: self.number("wal_bytes_max") as u64,
            segment_rows_max: self.number("segment_rows_max") as u64,
            segment_age_max: self.duration("segment_age_max_seconds"),
            retention: self.retention(),
            retention_grace: self.duration("retention_grace_seconds"),
            erasures_max: self.number("erasures_max"),
            hidden_events_max: self.number("hidden_events_max"),
            seal_cache_bytes: self.number("seal_cache_bytes") as u64,
            scratch_dir: Some(self.raw.get("scratch_dir").text).filter(|text| !text.is_empty()).map(PathBuf::from),
            reserve_bytes: self.number("reserve_bytes") as u64,
            unsealed_rows_max: self.number("unsealed_rows_max") as u64,
            filter_bytes_max: self.number("filter_bytes_max"),
            segment_connections_max: self.number("segment_connections_max"),
            readers: self.number("readers"),
            reads_waiting_max: self.number("reads_waiting_max"),
            read_timeout: self.duration("read_timeout_seconds"),
            read_bytes_max: self.number("read_bytes_max"),
            worker_threads: self.worker_threads(),
        }
    }

    fn problem(&mut self, name: &str, what: &str) {
        let value = self.raw.get(name);
        let is_secret = settings::find(name).is_some_and(Setting::is_secret);
        // Its line ends would tear the message apart.
        let shown = if is_secret { "(hidden)".into() } else { value.text.replace(char::is_control, "\u{fffd}") };
        self.problems.push(format!("{name} = {shown} ({}): {what}", value.layer));
    }

    /// A number within the bounds that the table gives; bytes may carry a unit.
    fn bounded(&mut self, name: &str, parse: impl Fn(&str) -> Option<f64>) -> f64 {
        let (min, max, what) = settings::find(name).map_or((0.0, 0.0, "a value"), |setting| setting.kind.bounds());
        match parse(&self.raw.get(name).text) {
            Some(number) if (min..=max).contains(&number) => number,
            _ => {
                self.problem(name, &format!("expected {what} from {min} to {max}"));
                min
            }
        }
    }

    fn number(&mut self, name: &str) -> usize {
        self.bounded(name, |text| settings::parse_bytes(text).map(|number| number as f64)) as usize
    }

    fn duration(&mut self, name: &str) -> Duration {
        Duration::from_secs_f64(self.bounded(name, |text| text.trim().parse().ok()))
    }

    fn retention(&mut self) -> Option<Duration> {
        let days = self.bounded("retention_days", |text| text.trim().parse().ok());
        (days > 0.0).then(|| Duration::from_secs_f64(days * 24.0 * 60.0 * 60.0))
    }

    fn choice(&mut self, name: &'static str) -> &'static str {
        let Some(Setting { kind: Kind::Choice(choices), .. }) = settings::find(name) else { return "" };
        let text = self.raw.get(name).text;
        choices.split('|').find(|choice| *choice == text).unwrap_or_else(|| {
            self.problem(name, &format!("expected one of: {}", choices.replace('|', ", ")));
            ""
        })
    }

    fn listen(&mut self) -> SocketAddr {
        let text = self.raw.get("listen").text;
        let numeric = text.strip_prefix("localhost:").map_or_else(|| text.clone(), |port| format!("127.0.0.1:{port}"));
        numeric.parse().unwrap_or_else(|_| {
            self.problem("listen", "expected an IP address and a port, such as 127.0.0.1:3000 or [::1]:3000");
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
        })
    }

    fn tokens(&mut self) -> (Vec<Token>, TokenSources) {
        let file = self.raw.get("token_file").text;
        let mut sources = TokenSources::new((!file.is_empty()).then(|| PathBuf::from(file)));
        for (name, role) in tokens::TOKEN_SETTINGS {
            let text = self.raw.get(name).text;
            if text.is_empty() {
                continue;
            }
            if let Err(fault) = sources.give(role, &text) {
                self.problem(name, &fault);
            }
        }
        let tokens = sources.read().unwrap_or_else(|faults| {
            let name = if sources.file().is_some() { "token_file" } else { "token" };
            faults.iter().for_each(|fault| self.problem(name, fault));
            Vec::new()
        });
        (tokens, sources)
    }

    fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let text = self.raw.get(name).text;
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        // An address alone is the network of that address.
        let network = |part: &str| part.parse().ok().or_else(|| Some(IpNet::from(part.parse::<IpAddr>().ok()?)));
        let parsed: Option<Vec<_>> = parts.map(network).collect();
        parsed.unwrap_or_else(|| {
            self.problem(name, "expected networks such as 10.0.0.0/8 or addresses, with commas between them");
            Vec::new()
        })
    }

    fn page_bytes(&mut self) -> u32 {
        let bytes = self.number("segment_page_bytes");
        if !bytes.is_power_of_two() {
            self.problem("segment_page_bytes", "expected a power of two");
        }
        bytes as u32
    }

    fn worker_threads(&mut self) -> usize {
        match self.number("worker_threads") {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            threads => threads,
        }
    }
}

/// What makes a value one that nobody can have meant, whatever its setting.
fn unreadable(text: &str) -> Option<&'static str> {
    let inner = text.trim();
    let is_quoted = |quote: char| inner.len() > 1 && inner.starts_with(quote) && inner.ends_with(quote);
    if inner.is_empty() {
        Some("the value is empty; give one, or leave the setting out")
    } else if text.contains(char::is_control) {
        Some("there is a control character in the value, such as the line end of a file from Windows")
    } else if is_quoted('"') || is_quoted('\'') {
        Some("the quotes are part of the value, as `docker --env-file` keeps them; take them away")
    } else if inner.len() < text.len() {
        Some("there is a space before or after the value; take it away")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;

//! The one table of settings: its entry is all that a setting is.
//!
//! A setting `segment_rows_max` is the flag `--segment-rows-max`, the variable `HITLOG_SEGMENT_ROWS_MAX`, the key
//! `segment_rows_max` of the file and the field of that name in [`Config`], with the type that its entry gives.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use tracing::Level;

use super::{
    kinds::{
        Address, BearerToken, Bytes, Choice, CoresButOne, Count, DaysOrEver, GIB, Identifier, KIB, Kind, MIB, Name,
        Networks, OptionalPath, Path, PowerOfTwo, Seconds, ServerUrl, UrlPath, url_without_secrets,
    },
    tokens::{Role, Token, TokenSources},
};

/// What every name of an environment variable of hitlog begins with.
pub(super) const VARIABLE_PREFIX: &str = "HITLOG_";

/// One setting, for whoever shows it.
#[derive(Debug)]
pub struct Setting {
    /// Which setting it is.
    pub key: Key,
    /// The key in the file; flag and variable follow from it.
    pub name: &'static str,
    /// What the setting is about, as a heading.
    pub group: &'static str,
    /// What values the setting takes.
    pub kind: Kind,
    /// The value when nobody gives one; empty where there is none.
    pub default: &'static str,
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

    /// Whether the value is never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret(_))
    }

    /// Whether the value is a path.
    pub fn is_path(&self) -> bool {
        matches!(self.kind, Kind::Path(_))
    }

    /// A value as it may be shown: without a secret, of whatever is one.
    pub(super) fn shown(&self, text: &str) -> String {
        match self.key {
            _ if self.is_secret() => "(hidden)".into(),
            Key::ship_url => url_without_secrets(text),
            _ => text.to_owned(),
        }
    }

    /// The setting that a file calls by this name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

impl Key {
    /// The setting in the table.
    pub fn setting(self) -> &'static Setting {
        &SETTINGS[self as usize]
    }
}

/// The words of a setting, each a variant.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$of_one:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of_one])* $variant,)+
        }

        impl $name {
            const CHOICE: Choice<Self> = Choice { words: &[$($word),+], values: &[$(Self::$variant),+] };

            /// The value of the setting.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

/// What becomes of the table: `"group" { name: type of the field = kind(bounds), "default", "help"; }`
macro_rules! settings {
    ($($group:literal { $($name:ident: $type:ty = $kind:expr, $default:literal, $help:literal;)+ })+) => {
        /// Which setting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs, reason = "each is named as its setting, which the table describes")]
        pub enum Key {
            $($($name,)+)+
        }

        /// Every setting, in the order of the keys.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            key: Key::$name,
            name: stringify!($name),
            group: $group,
            kind: $kind.kind(),
            default: $default,
            help: $help,
        },)+)+];

        /// The checked configuration: each setting's value in the field of its name. A time is a duration, whatever
        /// the unit in its name.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(#[doc = $help] pub $name: $type,)+)+
            /// The tokens of the settings and of `token_file` together; none means protected mode.
            pub tokens: Vec<Token>,
            /// Where the tokens come from, to read them anew.
            pub token_sources: TokenSources,
        }

        /// What could be read of the values.
        pub(super) struct Readings {
            $($(pub(super) $name: Option<$type>,)+)+
        }

        impl Readings {
            /// Reads every value, and tells of each that is not what its kind expects.
            pub(super) fn of(value: impl Fn(Key) -> String, mut tell: impl FnMut(Key, &str)) -> Self {
                Self {
                    $($($name: $kind.read(&value(Key::$name)).map_err(|expected| tell(Key::$name, &expected)).ok(),)+)+
                }
            }

            /// The configuration, if every value could be read.
            pub(super) fn complete(self, tokens: Vec<Token>, token_sources: TokenSources) -> Option<Config> {
                Some(Config { $($($name: self.$name?,)+)+ tokens, token_sources })
            }
        }
    };
}

choices! {
    /// What a 201 means.
    Durability {
        /// Committed and synced: survives a loss of power.
        Full = "full",
        /// Committed: survives a kill of the process.
        Normal = "normal",
    }
}

choices! {
    /// Who may read the files of the data directory.
    FileAccess {
        /// Their owner.
        Owner = "owner",
        /// Their group as well.
        Group = "group",
    }
}

choices! {
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text, for people.
        Text = "text",
        /// JSON, for programs.
        Json = "json",
    }
}

choices! {
    /// How blocks are sent to the target.
    ShipCompression {
        /// As they are to this machine, compressed elsewhere.
        Auto = "auto",
        /// Compressed.
        Zstd = "zstd",
        /// As they are.
        None = "none",
    }
}

const LOG_LEVELS: Choice<Level> = Choice {
    words: &["error", "warn", "info", "debug", "trace"],
    values: &[Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE],
};

settings! {
    "Where it listens, and what it promises" {
        listen: SocketAddr = Address, "127.0.0.1:3000",
            "Where to listen. Port 0 takes a free port. Anything but loopback needs a token";
        data_dir: PathBuf = Path("DIRECTORY"), "data",
            "Where the events are kept. Created if only its last part is missing";
        file_access: FileAccess = FileAccess::CHOICE, "owner",
            "Who may read the files of data_dir: owner, nobody else (modes 0600 and 0700); group, their group as well \
             (0640 and 0750), for backups by another user";
        durability: Durability = Durability::CHOICE, "full",
            "What a 201 survives: full, a loss of power (each group is synced); normal, a kill of the process";
    }
    "Tokens" {
        token: Option<Token> = BearerToken(Role::Admin), "",
            "The bearer token for everything but sending events: 16 bytes or more. Other users of the machine can see \
             flags, so prefer token_file or the variable. Without any: protected mode, this machine only";
        metrics_token: Option<Token> = BearerToken(Role::Metrics), "",
            "A bearer token that reads /metrics and nothing else: for Prometheus";
        read_token: Option<Token> = BearerToken(Role::Read), "",
            "A bearer token that reads events and websites and changes nothing";
        token_file: Option<PathBuf> = OptionalPath("FILE"), "",
            "A file of bearer tokens, one a line, with metrics:, read: or admin: before it (admin where there is \
             none). Each is valid, so that they can be changed without a gap; SIGHUP reads the file anew";
    }
    "The log" {
        log_format: LogFormat = LogFormat::CHOICE, "auto",
            "How log lines look on standard error. auto: text on a terminal, JSON otherwise";
        log_level: Level = LOG_LEVELS, "info", "The least important lines to log: error, warn, info, debug or trace";
        log_bytes_max: usize = Bytes(4 * KIB, GIB), "1MiB",
            "Memory for log lines that standard error has not taken yet; past it lines are dropped and counted, so \
             that nothing waits for the log";
    }
    "Connections" {
        connections_max: usize = Count(1, 1_000_000), "16384",
            "Client connections at once; further ones wait in the kernel. Never more than the file descriptors less \
             256";
        active_connections_max: usize = Count(1, 1_000_000), "4096",
            "Connections with a request under way, each with buffers of up to 20 KiB; further ones wait for a moment, \
             and the slowest give way to them";
        warm_connections_max: usize = Count(0, 1_000_000), "1024",
            "Connections that keep their buffers while idle; past it, and past half of active_connections_max, idle \
             ones give them back. At most active_connections_max";
        address_share_percent: usize = Count(1, 100), "25",
            "When nine tenths of connections_max are taken, the most of all that one client address (in IPv6 a /64) \
             may hold, in percent; below that nobody is bounded";
        trusted_proxies: Vec<IpNet> = Networks, "",
            "Networks, such as 10.0.0.0/8, of proxies that speak for many clients: their addresses have no share, and \
             the client's address is the rightmost in X-Forwarded-For (or, without that, Forwarded) that is in none of \
             them";
        head_bytes_max: usize = Bytes(KIB, 256 * KIB), "16KiB", "Largest head of a request (request line and headers)";
        head_timeout_seconds: Duration = Seconds(0.1, 3_600.0), "10",
            "Time from the first byte of a request to the end of its head; then 408. Slow heads hold connections";
        body_stall_timeout_seconds: Duration = Seconds(0.1, 3_600.0), "10",
            "Longest pause within a body, and longest wait for a client to read its answer. The kernel tells of what \
             is read in steps of 100 KB, and of more where a client read fast before: who reads less than 100 KiB/s of \
             a large answer may seem to pause";
        body_timeout_seconds: Duration = Seconds(0.1, 3_600.0), "30", "Time for a whole body; then 408";
        bytes_per_second_min: u64 = Bytes(1, MIB), "1KiB",
            "The least rate at which a body is sent, averaged over body_stall_timeout_seconds, or an answer read, \
             averaged from when it was first left unread; a client that sends a byte a second must not keep memory";
        answer_timeout_seconds: Duration = Seconds(0.1, 86_400.0), "600",
            "Longest time that a client takes to read an answer that is made while it is sent, such as a page of more \
             than 512 KiB; then it is broken off. By default the largest page, some 50 MB, fits into it at 100 KiB/s";
        idle_timeout_seconds: Duration = Seconds(0.1, 86_400.0), "75",
            "How long a connection stays open without a request. Longer than proxies reuse theirs, most of them for \
             60";
    }
    "Bodies and answers in memory" {
        body_bytes_max: usize = Bytes(2 * MIB, 64 * GIB), "32MiB",
            "Memory for all bodies that are being read, before they are queued; past it the slowest give way, and then \
             new ones get 503";
        small_body_bytes: usize = Bytes(64 * KIB, GIB), "8MiB",
            "The part of body_bytes_max that is for bodies of up to 16 KiB only, so that events never wait for \
             batches";
        unpack_bytes_max: usize = Bytes(MIB, 64 * GIB), "20MiB",
            "Memory for what unpacks compressed bodies, beside the bodies; further ones wait for their turn";
        body_threads: usize = Count(1, 64), "1",
            "Threads that unpack and parse large bodies, so that small ones are not delayed";
        answer_bytes_max: usize = Bytes(2 * MIB, 64 * GIB), "24MiB",
            "Memory for answers that are being made or read by their clients, but for pages of events; past it the \
             slowest give way, and then requests get 503";
        small_answer_bytes: usize = Bytes(64 * KIB, GIB), "8MiB",
            "The part of answer_bytes_max that is for answers of up to 16 KiB";
        ops_answer_bytes_max: usize = Bytes(256 * KIB, GIB), "4MiB",
            "Memory for the answers of /livez, /readyz and /metrics";
    }
    "The stop" {
        drain_timeout_seconds: Duration = Seconds(0.1, 3_600.0), "30",
            "How long a stop waits for requests that were taken in, and for clients that are slow; then they are cut \
             off. A request without an answer is an error of the stop, a client that was slow is none";
    }
    "What a client may send" {
        event_bytes_max: usize = Bytes(KIB, 16 * MIB), "64KiB",
            "Largest body of one event, after decompression; over it 413";
        batch_bytes_max: usize = Bytes(KIB, GIB), "4MiB", "Largest body of a batch, after decompression; over it 413";
        batch_events_max: usize = Count(1, 100_000), "1000",
            "Most events of a batch. They are committed together, even if they are more than group_events_max";
        timestamp_ahead_max_seconds: Duration = Seconds(0.0, 3_153_600_000.0), "86400",
            "How far ahead of the server's clock a timestamp may be before the arrival takes its place";
    }
    "The tracker, and visitors whose ids are left to hitlog" {
        tracker_path: Option<String> = UrlPath, "",
            "Another path, such as /js/app.js, at which the tracker is served beside /tracker.js: lists of blockers \
             name common ones. A visitor's blocker is a visitor's choice";
        events_path_alias: Option<String> = UrlPath, "",
            "Another path that takes events as /api/v1/events does, and batches at PATH/batch; the tag names it in \
             data-api";
        geoip_database: Option<PathBuf> = OptionalPath("FILE"), "",
            "A database of countries in MaxMind's format, such as GeoLite2-Country.mmdb: events whose ids are left to \
             hitlog get the country of their address. It is in memory as a whole; SIGHUP reads it anew";
        visitors_seen_max: usize = Count(0, 100_000_000), "500000",
            "Visitors that are remembered around midnight (UTC), when ids change, so that visits go on: 60 bytes each, \
             from half an hour before to half an hour after. Of those past it a visit over midnight is two";
    }
    "Queue and groups" {
        queue_events_max: usize = Count(1, 100_000_000), "262144",
            "Events taken in and not answered yet; past it 503. The default is some seconds of work for the writer";
        queue_bytes_max: usize = Bytes(MIB, 64 * GIB), "48MiB",
            "Memory of the events taken in and not answered yet; past it 503";
        group_events_max: usize = Count(1, 1_000_000), "10000",
            "Events after which a group takes no further request. Larger groups gain little and delay their first \
             request";
        group_bytes_max: usize = Bytes(KIB, GIB), "8MiB", "Bytes after which a group takes no further request";
    }
    "Segments and the write-ahead log" {
        segment_page_bytes: u32 = PowerOfTwo(512, 64 * 1024), "16KiB",
            "Page size of segments made from now on, a power of two";
        writer_cache_bytes: u64 = Bytes(MIB, 64 * GIB), "8MiB",
            "The writer's page cache: a group that fits is written once, at its end";
        wal_checkpoint_bytes: u64 = Bytes(64 * KIB, 64 * GIB), "8MiB",
            "Size of the write-ahead log at which it is copied into the segment";
        wal_bytes_max: u64 = Bytes(MIB, 256 * GIB), "256MiB",
            "Size of the write-ahead log past which readers are interrupted, because they keep it from starting over";
        segment_rows_max: u64 = Count(1, 100_000_000), "1000000",
            "Events after which a segment is full: it gets its indexes, and another takes its place. Until it is full, \
             14 bytes an event are in memory, and for a moment then 24 more";
        segment_age_max_seconds: Duration = Seconds(1.0, 3_153_600_000.0), "604800",
            "Age of its first event at which a segment is full, however few it holds: quiet sites' events get indexes \
             too";
    }
    "Events that are sent again" {
        dedup_window_seconds: Duration = Seconds(1.0, 31_536_000.0), "86400",
            "How long an event with an eventId (or Idempotency-Key) that is sent again is known, and not stored again; \
             as far as dedup_bytes_max carries. A day: longer than clients try again";
        dedup_bytes_max: usize = Bytes(16 * MIB, 64 * GIB), "96MiB",
            "Memory for the ids of events: 2.4 bytes an id, so that 30 million are known. A fiftieth of it is taken \
             with the first id, the rest as ids come in. When all is taken the oldest are forgotten before their \
             time: hitlog_dedup_window_seconds tells the true window";
    }
    "Retention and erasure" {
        retention_days: Option<Duration> = DaysOrEver(36_500.0), "0",
            "How long events are kept, by their createdAt. Older ones are refused and in no answer, and leave the disk \
             segment by segment. 0 keeps them for ever";
        retention_grace_seconds: Duration = Seconds(0.0, 315_360_000.0), "86400",
            "How long hitlog must have run since all events of a segment expired, before the segment leaves the disk: \
             a wrong clock, or a wrong retention_days, can be set right meanwhile and nothing is lost";
        erasures_max: usize = Count(1, 1_000_000), "10000",
            "Erasures of visitors that may be under way, and as many of websites; past it 503. As many again that are \
             done are remembered, for 30 days";
        hidden_events_max: usize = Count(1, 1_000_000_000), "250000",
            "Events that may be hidden in memory at once, 16 bytes each, from the request to erase them until their \
             segments are rewritten; past it 503. Those of a visitor with more than half of it are listed on the disk";
    }
    "Shipping to ClickHouse" {
        ship_url: Option<String> = ServerUrl, "",
            "Where events are shipped to: the URL of a ClickHouse from version 23.8 on, with its port (8123, or 8443 \
             with https). Without it nothing is shipped. See docs/clickhouse.md";
        ship_user: String = Name("USER"), "default", "The ClickHouse user that hitlog ships as";
        ship_password_file: Option<PathBuf> = OptionalPath("FILE"), "",
            "A file whose first line is that user's password; it is read anew whenever hitlog connects. Without it, no \
             password";
        ship_database: String = Identifier("DATABASE"), "default", "The database there; it must exist";
        ship_table: String = Identifier("TABLE"), "events",
            "The table there. It is made if it is missing, and a second one beside it, with _nodes behind its name, in \
             which each hitlog registers its node";
        ship_ca_file: Option<PathBuf> = OptionalPath("FILE"), "",
            "Certificates (PEM) of who may vouch for the server, in the place of those that the system trusts";
        ship_compression: ShipCompression = ShipCompression::CHOICE, "auto",
            "How blocks are sent: zstd, a seventh of the bytes for some processor time; none; auto: none to this \
             machine, zstd elsewhere";
        node: u32 = Count(0, 65_535), "0",
            "The number of this hitlog among those that ship to one table: each has its own. ClickHouse \
             tells events apart by it and their sequence, so it can't be changed once something was shipped";
        ship_rows_max: u64 = Count(1, 1_000_000), "100000",
            "Most events of one insert. Larger ones spare the server work and take more memory";
        ship_bytes_max: usize = Bytes(64 * KIB, 256 * MIB), "24MiB",
            "Most bytes of one insert, before it is compressed. Shipping takes four times this of memory: two are on \
             their way at once, and buffers grow by doubling";
        ship_interval_seconds: Duration = Seconds(0.1, 3_600.0), "2",
            "How often what has come in is shipped. Each time is an insert, and a part that the server merges later";
        ship_timeout_seconds: Duration = Seconds(1.0, 3_600.0), "300",
            "The longest that the server may take for one insert; then it is in doubt, and looked for there";
        ship_dead_max: u64 = Count(0, 10_000), "100",
            "Events that the server refuses, each by itself, before shipping pauses: so many have one reason, which \
             somebody should look at";
        ship_held_bytes_max: u64 = Bytes(0, 1 << 50), "0",
            "Expired segments that may stay on the disk because they are not shipped yet; past it the oldest go, and \
             are noted as lost. 0: no bound, so that a target that is away for long fills the disk, and events are \
             then refused";
        ship_erasure_seconds: Duration = Seconds(0.0, 2_592_000.0), "3600",
            "How long erasures are gathered before their events are taken out of the server's files, which rewrites \
             them. Queries there stop showing them much earlier";
    }
    "Indexes, and room on the disk" {
        seal_cache_bytes: u64 = Bytes(MIB, 64 * GIB), "8MiB",
            "Memory for sorting while a segment gets its indexes; the rest goes to files in scratch_dir";
        scratch_dir: Option<PathBuf> = OptionalPath("DIRECTORY"), "",
            "Where what does not fit into seal_cache_bytes is sorted, at most a segment in size. Created if only its \
             last part is missing; without one, the folder scratch in data_dir";
        reserve_bytes: u64 = Bytes(0, GIB), "4MiB",
            "A file in data_dir that keeps room for a start on a full disk, which gives it up to answer reads. Until \
             there is room for it again, events are refused with STORAGE_FULL. 0 keeps none: such a start fails, and a \
             disk that is full of events that are not shipped yet needs room made by hand before they are";
        unsealed_rows_max: u64 = Count(1, 1_000_000_000), "1000000",
            "Events of full segments whose keys stay in memory, 14 bytes each, where the disk does not take them; past \
             it no event is taken until it does";
        filter_bytes_max: usize = Bytes(0, 64 * GIB), "26MiB",
            "Memory of the filters that say which sealed segments a session is not in, about 0.3 MB a million events; \
             past it the oldest segments have none and are searched";
    }
    "Reads" {
        segment_connections_max: usize = Count(1, 100_000), "64",
            "Connections to segments that stay open for the next read, each a file descriptor and up to 0.3 MB";
        readers: usize = Count(1, 256), "4", "Threads that answer reads, one each at a time";
        reads_waiting_max: usize = Count(1, 100_000), "64", "Reads that wait for a thread; past it 503";
        read_timeout_seconds: Duration = Seconds(0.01, 3_600.0), "10",
            "Time for a read, its wait included; then 503. A long read keeps the write-ahead log growing";
        read_bytes_max: usize = Bytes(MIB, 64 * GIB), "36MiB",
            "Memory for pages of events that are being read or sent; past it the slowest give way, and then new ones \
             get 503";
        rollup_bytes_max: usize = Bytes(8 * MIB, 64 * GIB), "128MiB",
            "Memory of what is kept for the next question about numbers: about 0.4 MB a million sealed events of a \
             website that is asked about, and 45 MB a million of those that wait to be sealed. Past it what was not \
             asked for lately goes, and the newest events of very large segments are not counted until they are \
             sealed. Each reader may take as much again while it answers; where half of it is too little for visitors \
             one by one, those of lists are estimated, and other questions refused";
        stats_exact_visits_max: u64 = Count(0, 1_000_000_000), "2000000",
            "Visits in a range up to which visitors are counted one by one; past it their number is estimated, and the \
             answer says how well. Counting takes some 0.05 s a million visits, and 16 MB";
        tails_max: usize = Count(0, 100_000), "1024",
            "Clients that follow events (GET /api/v1/events/tail) at once; past it 503. Each keeps a connection of \
             active_connections_max, so there are never more than half of those. Half as many threads as readers \
             read for them, beside those";
        tail_bytes_max: usize = Bytes(2 * MIB, 64 * GIB), "8MiB",
            "Memory for what is on its way to clients that follow events; past it the slowest lose their connections, \
             and go on from their last position";
    }
    "Threads" {
        worker_threads: usize = CoresButOne(1_024), "0",
            "Threads that serve connections; 0 takes one for each core but one, which the writer needs";
    }
}

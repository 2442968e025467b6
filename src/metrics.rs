//! Every metric: its name, unit and help text.
//!
//! Owns the Prometheus recorder of one daemon (none is global, so that tests can run several). Labels take values
//! of the enums below only, never a site, a path or a header, so the number of series is bounded. Counters and
//! histograms are written where things happen, per group where it can be; gauges that mirror somebody's state are
//! set when they are asked for, by whoever serves `/metrics`.

mod labels;

use std::{sync::OnceLock, time::Duration};

pub use labels::{CheckpointBy, Closed, Method, ReadRefused, Rejected, Route, SegmentLabel, Shed, StatusClass};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// How often [`Metrics::upkeep`] must run: histograms keep every sample until then.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds, from the fastest commit worth telling apart to the longest request that any limit allows.
const SECONDS_BUCKETS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];
/// Seconds of work in the background.
const SLOW_SECONDS_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Events of a group.
const EVENTS_BUCKETS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];
/// Bytes of a group, from 256 B to 16 MiB by fours.
const BYTES_BUCKETS: [f64; 9] =
    [256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// A family of counters, one for each value of a label.
pub struct Counters(Vec<Counter>);

/// The handles of every metric.
#[allow(missing_docs, reason = "the help text beside each name, below, is its documentation")]
pub struct Metrics {
    pub events_received: Counter,
    pub events_committed: Counter,
    pub events_unknown: Counter,
    pub events_in_flight: Gauge,
    pub clocks_corrected: Counter,
    events_rejected: Counters,
    events_shed: Counters,
    requests: Vec<OnceLock<Histogram>>,
    pub connections: Gauge,
    pub connections_max: Gauge,
    pub connections_accepted: Counter,
    connections_closed: Counters,
    pub accept_errors: Counter,
    pub body_bytes: Gauge,
    pub body_bytes_max: Gauge,
    pub queue_events: Gauge,
    pub queue_events_max: Gauge,
    pub queue_bytes: Gauge,
    pub queue_bytes_max: Gauge,
    pub queue_oldest_seconds: Gauge,
    pub group_events: Histogram,
    pub group_bytes: Histogram,
    pub commit_seconds: Histogram,
    pub sync_seconds: Histogram,
    pub sync_errors: Counter,
    checkpoint_seconds: Vec<Histogram>,
    pub checkpoints_busy: Counter,
    pub checkpoint_log_bytes: Gauge,
    pub checkpoint_checkpointed_bytes: Gauge,
    pub wal_bytes: Gauge,
    pub wal_bytes_max: Gauge,
    pub high_water_mark: Gauge,
    segments: Vec<Gauge>,
    pub rolls: Counter,
    pub seal_seconds: Histogram,
    pub seal_rows: Counter,
    pub seals_failed: Counter,
    pub erasures_pending: Gauge,
    pub hidden_events: Gauge,
    pub erased_events: Counter,
    pub erase_seconds: Histogram,
    pub retention_due_segments: Gauge,
    pub retention_due_events: Gauge,
    pub retention_removed_segments: Counter,
    pub retention_removed_events: Counter,
    pub readers: Gauge,
    pub readers_busy: Gauge,
    pub reader_wait_seconds: Histogram,
    pub read_seconds: Histogram,
    reads_refused: Counters,
    pub read_bytes: Gauge,
    pub read_bytes_max: Gauge,
    pub websites: Gauge,
    process: metrics_process::Collector,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// What the store counts.
pub type StoreMetrics = Metrics;

/// Facts about this build and its settings that `hitlog_build_info` carries as labels.
pub struct BuildInfo {
    /// hitlog's version.
    pub version: &'static str,
    /// SQLite's version.
    pub sqlite: &'static str,
    /// The durability in force.
    pub durability: &'static str,
}

impl Metrics {
    /// Registers everything. Fails only if a list of buckets is empty, which the test below rules out.
    pub fn new(build: &BuildInfo) -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full("hitlog_seal_seconds".into()), &SLOW_SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full("hitlog_erase_seconds".into()), &SLOW_SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("group_events".into()), &EVENTS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("group_bytes".into()), &BYTES_BUCKETS)?
            .build_recorder();
        let make = Maker(&recorder);
        make.gauge_with(
            "hitlog_build_info",
            "Always 1; the labels tell the versions and the durability in force.",
            vec![
                Label::new("version", build.version),
                Label::new("sqlite", build.sqlite),
                Label::new("durability", build.durability),
            ],
        )
        .set(1.0);
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        make.describe_histogram("hitlog_request_seconds", Unit::Seconds, "Time from a request's head to its answer.");
        Ok(Self {
            events_received: make.counter(
                "hitlog_events_received_total",
                "Events received. A body refused before its events can be counted is one. \
                 received = committed + rejected + shed + unknown + in_flight.",
            ),
            events_committed: make.counter("hitlog_events_committed_total", "Events whose COMMIT returned."),
            events_unknown: make.counter(
                "hitlog_events_unknown_total",
                "Events answered COMMIT_UNKNOWN: the storage failed, they may or may not be stored.",
            ),
            events_in_flight: make.gauge("hitlog_events_in_flight", "Events queued or being committed."),
            clocks_corrected: make.counter(
                "hitlog_events_clock_corrected_total",
                "Events whose timestamp was too far ahead and was set to the arrival.",
            ),
            events_rejected: make.counters(
                "hitlog_events_rejected_total",
                "Events rejected: the client's fault, not stored.",
                Rejected::ALL.iter().map(|reason| ("reason", reason.as_str())),
            ),
            events_shed: make.counters(
                "hitlog_events_shed_total",
                "Events refused with 503 for now: not stored, worth sending again.",
                Shed::ALL.iter().map(|reason| ("reason", reason.as_str())),
            ),
            requests: (0..Route::ALL.len() * Method::ALL.len() * StatusClass::ALL.len())
                .map(|_| OnceLock::new())
                .collect(),
            connections: make.gauge("hitlog_connections", "Open client connections."),
            connections_max: make.gauge("hitlog_connections_limit", "Most client connections at once."),
            connections_accepted: make.counter("hitlog_connections_accepted_total", "Client connections accepted."),
            connections_closed: make.counters(
                "hitlog_connections_closed_total",
                "Client connections closed, by reason.",
                Closed::ALL.iter().map(|reason| ("reason", reason.as_str())),
            ),
            accept_errors: make.counter(
                "hitlog_accept_errors_total",
                "Failures to accept a connection, such as running out of file descriptors.",
            ),
            body_bytes: make.gauge("hitlog_body_bytes", "Memory held by bodies that are being read."),
            body_bytes_max: make.gauge("hitlog_body_limit_bytes", "Most memory for bodies that are being read."),
            queue_events: make.gauge("hitlog_queue_events", "Events in the queue, those being committed included."),
            queue_events_max: make.gauge("hitlog_queue_limit_events", "Most events in the queue."),
            queue_bytes: make.gauge("hitlog_queue_bytes", "Memory held by the queue."),
            queue_bytes_max: make.gauge("hitlog_queue_limit_bytes", "Most memory held by the queue."),
            queue_oldest_seconds: make.gauge(
                "hitlog_queue_oldest_request_seconds",
                "Age of the oldest request that was queued and is not answered yet; 0 if there is none.",
            ),
            group_events: make.histogram("hitlog_group_events", Unit::Count, "Events committed by one transaction."),
            group_bytes: make.histogram("hitlog_group_bytes", Unit::Bytes, "Bytes of the requests of one transaction."),
            commit_seconds: make.histogram(
                "hitlog_commit_seconds",
                Unit::Seconds,
                "Time for one group, from BEGIN until COMMIT returned, its sync included.",
            ),
            sync_seconds: make.histogram(
                "hitlog_sync_seconds",
                Unit::Seconds,
                "Time of one fdatasync of the active segment or its write-ahead log.",
            ),
            sync_errors: make.counter("hitlog_sync_errors_total", "Syncs that failed. Any is fatal."),
            checkpoint_seconds: make.histograms(
                "hitlog_checkpoint_seconds",
                Unit::Seconds,
                "Time of one checkpoint of the active segment.",
                CheckpointBy::ALL.iter().map(|by| ("by", by.as_str())),
            ),
            checkpoints_busy: make.counter(
                "hitlog_checkpoints_busy_total",
                "Checkpoints that a reader or the writer kept from finishing.",
            ),
            checkpoint_log_bytes: make
                .gauge("hitlog_checkpoint_log_bytes", "Bytes in the write-ahead log at the last checkpoint."),
            checkpoint_checkpointed_bytes: make.gauge(
                "hitlog_checkpoint_checkpointed_bytes",
                "Of these, the bytes that the last checkpoint left copied to the segment.",
            ),
            wal_bytes: make.gauge("hitlog_wal_bytes", "Bytes in the active segment's write-ahead log."),
            wal_bytes_max: make
                .gauge("hitlog_wal_limit_bytes", "Bytes past which readers are interrupted so that the log can reset."),
            high_water_mark: make.gauge("hitlog_high_water_mark", "The highest durable sequence."),
            segments: make.gauges(
                "hitlog_segments",
                "Segments by state. Unsealed ones wait for their indexes; damaged ones are in no answer.",
                SegmentLabel::ALL.iter().map(|state| ("state", state.as_str())),
            ),
            rolls: make.counter("hitlog_rolls_total", "Segments that were full and followed by the next."),
            seal_seconds: make.histogram(
                "hitlog_seal_seconds",
                Unit::Seconds,
                "Time to build the indexes of one segment.",
            ),
            seal_rows: make.counter("hitlog_sealed_events_total", "Events in segments sealed since the start."),
            seals_failed: make.counter(
                "hitlog_seals_failed_total",
                "Segments that could not be sealed or rewritten; they serve as they are meanwhile.",
            ),
            erasures_pending: make.gauge("hitlog_erasures_pending", "Erasures that are not done."),
            hidden_events: make.gauge(
                "hitlog_hidden_events",
                "Events of visitors that are in no answer and still on the disk, to be erased.",
            ),
            erased_events: make.counter("hitlog_erased_events_total", "Events erased from the disk since the start."),
            erase_seconds: make.histogram(
                "hitlog_erase_seconds",
                Unit::Seconds,
                "Time to rewrite one sealed segment without the events that are erased.",
            ),
            retention_due_segments: make.gauge(
                "hitlog_retention_due_segments",
                "Segments that hold nothing but expired events and are about to be removed.",
            ),
            retention_due_events: make.gauge("hitlog_retention_due_events", "The events in these segments."),
            retention_removed_segments: make.counter(
                "hitlog_retention_removed_segments_total",
                "Segments removed since the start because all of their events had expired.",
            ),
            retention_removed_events: make
                .counter("hitlog_retention_removed_events_total", "Events removed with these segments."),
            readers: make.gauge("hitlog_readers", "Connections of the reader pool."),
            readers_busy: make.gauge("hitlog_readers_busy", "Connections of the reader pool at work."),
            reader_wait_seconds: make.histogram(
                "hitlog_reader_wait_seconds",
                Unit::Seconds,
                "Time that a read waited for a connection of the pool.",
            ),
            read_seconds: make.histogram("hitlog_read_seconds", Unit::Seconds, "Time that a read kept its connection."),
            reads_refused: make.counters(
                "hitlog_reads_refused_total",
                "Reads refused or given up, by reason.",
                ReadRefused::ALL.iter().map(|reason| ("reason", reason.as_str())),
            ),
            read_bytes: make.gauge("hitlog_read_bytes", "Memory held by answers that are being built or sent."),
            read_bytes_max: make.gauge("hitlog_read_limit_bytes", "Most memory for answers of reads."),
            websites: make.gauge("hitlog_websites", "Registered websites."),
            process,
            handle: recorder.handle(),
            recorder,
        })
    }

    /// Events rejected for this reason.
    pub fn events_rejected(&self, reason: Rejected) -> &Counter {
        &self.events_rejected.0[reason as usize]
    }

    /// Events shed for this reason.
    pub fn events_shed(&self, reason: Shed) -> &Counter {
        &self.events_shed.0[reason as usize]
    }

    /// Connections closed for this reason.
    pub fn connections_closed(&self, reason: Closed) -> &Counter {
        &self.connections_closed.0[reason as usize]
    }

    /// Reads refused for this reason.
    pub fn reads_refused(&self, reason: ReadRefused) -> &Counter {
        &self.reads_refused.0[reason as usize]
    }

    /// The number of segments in this state.
    pub fn segments(&self, state: SegmentLabel) -> &Gauge {
        &self.segments[state as usize]
    }

    /// The durations of checkpoints run by `by`.
    pub fn checkpoint_seconds(&self, by: CheckpointBy) -> &Histogram {
        &self.checkpoint_seconds[by as usize]
    }

    /// The durations of requests of this kind. A series exists from its first request on.
    pub fn request_seconds(&self, route: Route, method: Method, status: StatusClass) -> &Histogram {
        let at = (route as usize * Method::ALL.len() + method as usize) * StatusClass::ALL.len() + status as usize;
        self.requests[at].get_or_init(|| {
            let labels = [("route", route.as_str()), ("method", method.as_str()), ("status", status.as_str())];
            Maker(&self.recorder).register_histogram(
                "hitlog_request_seconds",
                labels.map(|(key, value)| Label::new(key, value)).to_vec(),
            )
        })
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        self.handle.render()
    }

    /// Folds the samples of histograms into their buckets; to be called every [`UPKEEP_INTERVAL`].
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Registers metrics together with their help.
struct Maker<'a>(&'a PrometheusRecorder);

const METADATA: Metadata<'static> = Metadata::new("hitlog", Level::INFO, None);

impl Maker<'_> {
    fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.0.describe_counter(KeyName::from_const_str(name), None, SharedString::const_str(help));
        let counter = self.0.register_counter(&Key::from_static_name(name), &METADATA);
        // A series that appears only with its first event makes rate() miss that event.
        counter.increment(0);
        counter
    }

    fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Counters {
        self.0.describe_counter(KeyName::from_const_str(name), None, SharedString::const_str(help));
        Counters(
            labels
                .map(|(key, value)| {
                    let key = Key::from_parts(name, vec![Label::new(key, value)]);
                    let counter = self.0.register_counter(&key, &METADATA);
                    counter.increment(0);
                    counter
                })
                .collect(),
        )
    }

    fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.gauge_with(name, help, Vec::new())
    }

    fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Vec<Gauge> {
        labels.map(|(key, value)| self.gauge_with(name, help, vec![Label::new(key, value)])).collect()
    }

    fn gauge_with(&self, name: &'static str, help: &'static str, labels: Vec<Label>) -> Gauge {
        self.0.describe_gauge(KeyName::from_const_str(name), None, SharedString::const_str(help));
        self.0.register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    fn describe_histogram(&self, name: &'static str, unit: Unit, help: &'static str) {
        self.0.describe_histogram(KeyName::from_const_str(name), Some(unit), SharedString::const_str(help));
    }

    fn register_histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
        self.0.register_histogram(&Key::from_parts(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, unit: Unit, help: &'static str) -> Histogram {
        self.describe_histogram(name, unit, help);
        self.register_histogram(name, Vec::new())
    }

    fn histograms(
        &self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        labels: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Vec<Histogram> {
        self.describe_histogram(name, unit, help);
        labels.map(|(key, value)| self.register_histogram(name, vec![Label::new(key, value)])).collect()
    }
}

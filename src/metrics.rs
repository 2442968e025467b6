//! Every metric, in a struct for each room that counts.
//!
//! Owns the Prometheus recorder of one daemon (none is global, so that tests can run several). Labels take values of
//! the enums of `labels` and of the table of routes, and what the start knows of the build, never a site, a path as it
//! was sent or a header, so the number of series is bounded. Counters and histograms are written where things happen,
//! per group where it can be; gauges that mirror somebody's state are set when they are asked for, by whoever serves
//! `/metrics`.

mod events;
mod http;
mod labels;
mod log;
mod process;
mod queue;
mod registry;
mod ship;
mod store;
mod writer;

use std::{sync::Arc, time::Duration};

pub use events::EventMetrics;
pub use http::{HttpMetrics, RequestMetrics};
pub use labels::{
    CheckpointOutcome, CheckpointRunner, Closed, GpcAction, LineOutcome, Method, Outcome, QueryWarning, ReadOutcome,
    ReadRefused, Rejected, SegmentLabel, Shed, ShipOutcome, StatusClass, Warned,
};
pub use log::LogMetrics;
use metrics_exporter_prometheus::BuildError;
pub use process::{BuildInfo, ProcessMetrics};
pub use queue::QueueMetrics;
use registry::Registry;
pub use registry::{Described, LabelValues};
pub use ship::ShipMetrics;
pub use store::StoreMetrics;
pub use writer::WriterMetrics;

/// How often [`Metrics::upkeep`] must run: histograms keep every sample until then.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Everything that one daemon counts. Each room is handed its own part.
pub struct Metrics {
    /// What becomes of events, counted by the edge and the queue.
    pub events: Arc<EventMetrics>,
    /// Connections and bodies.
    pub http: Arc<HttpMetrics>,
    /// How full the queue is.
    pub queue: Arc<QueueMetrics>,
    /// Groups.
    pub writer: Arc<WriterMetrics>,
    /// The log, the segments, the readers and the catalog.
    pub store: Arc<StoreMetrics>,
    /// What is shipped elsewhere.
    pub ship: Arc<ShipMetrics>,
    /// The lines that tell what happens.
    pub log: LogMetrics,
    process: ProcessMetrics,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Registers everything. Fails only if a list of buckets is empty, and none is.
    pub fn new(build: &BuildInfo) -> Result<Self, BuildError> {
        let registry = Arc::new(Registry::new()?);
        Ok(Self {
            events: Arc::new(EventMetrics::register(&registry)),
            http: Arc::new(HttpMetrics::register(&registry)),
            queue: Arc::new(QueueMetrics::register(&registry)),
            writer: Arc::new(WriterMetrics::register(&registry)),
            store: Arc::new(StoreMetrics::register(&registry)),
            ship: Arc::new(ShipMetrics::register(&registry)),
            log: LogMetrics::register(&registry),
            process: process::register(&registry, build),
            registry,
        })
    }

    /// How long requests take, for the routes with these labels, which only whoever serves them knows. To be called
    /// once. The series of POST on those `at_start`, places among the labels, are there from then on.
    pub fn of_requests(&self, routes: &[&'static str], at_start: &[usize]) -> RequestMetrics {
        RequestMetrics::register(&self.registry, routes, at_start)
    }

    /// Everything in the Prometheus text format.
    pub fn render(&self) -> String {
        process::collect(&self.process, &self.registry);
        let mut text = self.registry.render();
        process::write_fractions(&mut text);
        text
    }

    /// Folds the samples of histograms into their buckets; to be called every [`UPKEEP_INTERVAL`].
    pub fn upkeep(&self) {
        self.registry.upkeep();
    }
}

/// What people are told of every metric, in the order of the rooms that count.
pub fn described() -> Vec<(&'static str, Vec<Described>)> {
    let edge = [HttpMetrics::described(), RequestMetrics::described()].into_iter().flatten().collect();
    vec![
        ("Events", EventMetrics::described()),
        ("The edge", edge),
        ("The queue", QueueMetrics::described()),
        ("The writer", WriterMetrics::described()),
        ("The store", StoreMetrics::described()),
        ("Shipping", ShipMetrics::described()),
        ("The log on standard error", LogMetrics::described()),
        ("The process", process::described()),
    ]
}

//! The edge: connections, bodies, requests.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Label};

use super::{
    labels::{Closed, Method, QueryWarning, StatusClass},
    registry::{Registry, metric_group},
};

metric_group! {
    /// Connections and the memory of bodies.
    HttpMetrics {
        connections: Gauge = "hitlog_connections", "Open client connections.";
        connections_max: Gauge = "hitlog_connections_limit", "Most client connections at once.";
        connections_accepted: Counter = "hitlog_connections_accepted_total", "Client connections accepted.";
        accept_errors: Counter = "hitlog_accept_errors_total",
            "Failures to accept a connection, such as running out of file descriptors.";
        body_bytes: Gauge = "hitlog_body_bytes", "Memory held by bodies that are being read.";
        body_bytes_max: Gauge = "hitlog_body_limit_bytes", "Most memory for bodies that are being read.";
        answer_bytes: Gauge = "hitlog_answer_bytes", "Memory held by answers that wait for their clients.";
        answer_bytes_max: Gauge = "hitlog_answer_limit_bytes", "Most memory for answers that wait for their clients.";
    }
    labelled {
        connections_closed: Counter by reason(Closed) = "hitlog_connections_closed_total",
            "Client connections closed, by reason.";
        query_warnings: Counter by code(QueryWarning) = "hitlog_query_warnings_total",
            "Parameters of reads that were odd and were answered all the same, by the warning's code.";
    }
}

const REQUEST_SECONDS: &str = "hitlog_request_seconds";

/// How long requests take, by route, method and class of status.
pub struct RequestMetrics {
    routes: Vec<&'static str>,
    /// A series for each combination; most never come up, so one exists from its first request on.
    seconds: Vec<OnceLock<Histogram>>,
    registry: Arc<Registry>,
}

impl RequestMetrics {
    pub(super) fn register(registry: &Arc<Registry>, routes: &[&'static str]) -> Self {
        registry.describe::<Histogram>(REQUEST_SECONDS, "Time from a request's head to its answer.");
        let combinations = routes.len() * Method::ALL.len() * StatusClass::ALL.len();
        Self { routes: routes.to_vec(), seconds: vec![OnceLock::new(); combinations], registry: Arc::clone(registry) }
    }

    /// The durations of requests of this kind, in seconds. `route` is the place of its label among those that were
    /// registered.
    pub fn seconds(&self, route: usize, method: Method, status: StatusClass) -> &Histogram {
        let at = (route * Method::ALL.len() + method as usize) * StatusClass::ALL.len() + status as usize;
        self.seconds[at].get_or_init(|| {
            let labels = [("route", self.routes[route]), ("method", method.as_str()), ("status", status.as_str())];
            self.registry.series(REQUEST_SECONDS, labels.map(|(key, value)| Label::new(key, value)).to_vec())
        })
    }
}

//! The edge: connections, bodies, requests.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Histogram, Label};

use super::{
    labels::{Closed, Method, Outcome, QueryWarning, StatusClass},
    registry::{Described, LabelValues, Registry, metric_group},
};

metric_group! {
    /// Connections and the memory of bodies.
    HttpMetrics {
        ready: Gauge = "hitlog_ready",
            "1 if events would be taken in now, as /readyz says it; else 0. Set at the scrape.",
            "GET /readyz tells the reason.";
        connections: Gauge = "hitlog_connections", "Open client connections.",
            "Near the limit idle and slow connections are closed for new ones: raise connections_max, or have the \
             proxy keep fewer open.";
        connections_max: Gauge = "hitlog_connections_limit", "Most client connections at once.",
            "It is connections_max of the settings, or less where the limit on open files (ulimit -n) leaves less.";
        body_bytes: Gauge = "hitlog_body_bytes", "Memory held by bodies that are being read.",
            "Near the limit large bodies wait and are refused: many slow clients send at once.";
        body_bytes_max: Gauge = "hitlog_body_limit_bytes", "Most memory for bodies that are being read.",
            "It is body_bytes_max of the settings.";
        answer_bytes: Gauge = "hitlog_answer_bytes", "Memory held by answers that wait for their clients.",
            "Near the limit the slowest readers lose their connections.";
        answer_bytes_max: Gauge = "hitlog_answer_limit_bytes", "Most memory for answers that wait for their clients.",
            "It is answer_bytes_max of the settings.";
    }
    labelled {
        accepts: Counter by outcome(Outcome) = "hitlog_accepts_total",
            "Tries to accept a client connection, by outcome.",
            "If failed grows, file descriptors have run out: raise the limit on open files (ulimit -n, LimitNOFILE).";
        connections_closed: Counter by reason(Closed) = "hitlog_connections_closed_total",
            "Client connections closed, by reason.",
            "gave_way and over_share: connections are short. head_timeout and write_stalled: slow or hostile clients. \
             broken_off: a client took longer than answer_timeout_seconds for a large answer, or its rest could not be \
             read, which the log tells. error: the network.";
        query_warnings: Counter by code(QueryWarning) = "hitlog_query_warnings_total",
            "Parameters of reads that were odd and were answered all the same, by the warning's code.",
            "A program that reads sends seconds where milliseconds are meant; its answers carry the warning.";
    }
}

const REQUEST_SECONDS: &str = "hitlog_http_request_duration_seconds";
const REQUEST_SECONDS_HELP: &str = "Time from a request's head to its answer, by the class of the answer's status. The \
                                    series of other routes and methods than those of sending events begin with their \
                                    first request.";

/// How long requests take, by route, method and class of status.
pub struct RequestMetrics {
    routes: Vec<&'static str>,
    /// A series for each combination; most never come up, so one exists from its first request on.
    seconds: Vec<OnceLock<Histogram>>,
    registry: Arc<Registry>,
}

impl RequestMetrics {
    /// The series of POST on the routes `at_start` are there from now on.
    pub(super) fn register(registry: &Arc<Registry>, routes: &[&'static str], at_start: &[usize]) -> Self {
        registry.describe::<Histogram>(REQUEST_SECONDS, REQUEST_SECONDS_HELP);
        let combinations = routes.len() * Method::ALL.len() * StatusClass::ALL.len();
        let seconds = vec![OnceLock::new(); combinations];
        let metrics = Self { routes: routes.to_vec(), seconds, registry: Arc::clone(registry) };
        // Of what alerts are about: a ratio of series of which one is absent is no number.
        for route in at_start {
            for status in [StatusClass::Success, StatusClass::Client, StatusClass::Server] {
                metrics.seconds(*route, Method::Post, status);
            }
        }
        metrics
    }

    pub(super) fn described() -> Vec<Described> {
        vec![Described {
            name: REQUEST_SECONDS,
            kind: "histogram",
            labels: vec![
                (
                    "route",
                    LabelValues::Of(
                        "a path of openapi.yaml, its parameter by name, as `:id` or `:visitorId`; or `unknown`",
                    ),
                ),
                ("method", Method::ALL.iter().map(|method| method.as_str()).collect()),
                ("code", StatusClass::ALL.iter().map(|class| class.as_str()).collect()),
            ],
            help: REQUEST_SECONDS_HELP,
            action: "Of POST on the two routes of events, 5xx is what hitlog owes an answer for: \
                     hitlog_events_shed_total and hitlog_events_unknown_total say why. Slow 2xx: \
                     hitlog_commit_duration_seconds. Slow GET: hitlog_reader_wait_duration_seconds and \
                     hitlog_read_duration_seconds.",
        }]
    }

    /// The durations of requests of this kind, in seconds. `route` is the place of its label among those that were
    /// registered.
    pub fn seconds(&self, route: usize, method: Method, status: StatusClass) -> &Histogram {
        let at = (route * Method::ALL.len() + method as usize) * StatusClass::ALL.len() + status as usize;
        self.seconds[at].get_or_init(|| {
            let labels = [("route", self.routes[route]), ("method", method.as_str()), ("code", status.as_str())];
            self.registry.series(REQUEST_SECONDS, labels.map(|(key, value)| Label::new(key, value)).to_vec())
        })
    }
}

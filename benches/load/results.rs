//! What a run of the load bench found: plain numbers, for the table on the terminal and for the report.

use serde::Serialize;

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// Machine, date, command: name and text.
    pub facts: Vec<(String, String)>,
    pub verdicts: Vec<Verdict>,
    pub rows: Vec<Row>,
    /// Single events, closed loop.
    pub by_connections: Vec<ByConnections>,
    /// Single events, open loop.
    pub by_rate: Vec<ByRate>,
    /// The long run.
    pub timeline: Vec<Moment>,
}

/// A measure against what it has to reach.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub measure: String,
    pub against: String,
    pub figure: f64,
    /// Stands behind the figures: "×", "ms", "MiB".
    pub unit: String,
    pub bar: f64,
    pub aim: f64,
    /// Whether the figure is to be the bar or more; else the bar or less.
    pub at_least: bool,
}

impl Verdict {
    pub fn reaches(&self, target: f64) -> bool {
        if self.at_least { self.figure >= target } else { self.figure <= target }
    }

    /// In words: how far it got.
    pub fn outcome(&self) -> &'static str {
        match (self.reaches(self.aim), self.reaches(self.bar)) {
            (true, _) => "aim reached",
            (false, true) => "reached",
            (false, false) => "NOT REACHED",
        }
    }
}

/// A line of the table. Rates are events a second; `None` where a measure has no meaning.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Row {
    pub section: String,
    pub name: String,
    pub rate: f64,
    /// Of `limit`'s rate, in turn.
    pub ratio: Option<f64>,
    pub limit: String,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// Of the whole process.
    pub cpu_us_per_event: Option<f64>,
    pub peak_rss_mib: Option<f64>,
    pub disk_bytes_per_event: Option<f64>,
    pub syncs_per_second: Option<f64>,
    pub mean_group: Option<f64>,
    /// Requests that were refused, and events that they held.
    pub refused: u64,
}

#[derive(Debug, Serialize)]
pub struct ByConnections {
    pub connections: usize,
    pub hitlog: f64,
    pub bare: f64,
}

/// Latencies in milliseconds.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

#[derive(Debug, Serialize)]
pub struct ByRate {
    pub rate: f64,
    pub hitlog: Percentiles,
    pub bare: Percentiles,
}

/// A quarter of a second or so of the long run.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    pub seconds: f64,
    pub rate: f64,
    /// Segments that were sealed, and that rolled, since the moment before.
    pub seals: u64,
    pub rolls: u64,
    /// Segments that wait for their indexes.
    pub unsealed: u64,
}

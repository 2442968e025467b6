//! This process: its build, memory, processor time and file descriptors.

use std::fmt::Write;

use metrics::{Gauge, Label};
use metrics_process::collector;
use rustix::time::{ClockId, clock_gettime};

use super::registry::{Described, LabelValues, Metric, Registry, metric_group};

/// Facts about this build and its settings that `hitlog_build_info` carries as labels.
pub struct BuildInfo {
    /// hitlog's version.
    pub version: &'static str,
    /// SQLite's version.
    pub sqlite: &'static str,
    /// How SQLite was compiled.
    pub sqlite_build: &'static str,
    /// The durability in force.
    pub durability: &'static str,
}

metric_group! {
    /// What the operating system says of the process, as far as it always does.
    ProcessMetrics {
        open_fds: Gauge = "process_open_fds", "Open file descriptors.",
            "Near process_max_fds connections cannot be accepted: raise the limit on open files (ulimit -n, \
             LimitNOFILE).";
        max_fds: Gauge = "process_max_fds", "Most file descriptors at once; 0 if there is no limit.",
            "hitlog raises its soft limit to the hard one at the start.";
        virtual_memory_bytes: Gauge = "process_virtual_memory_bytes", "Virtual memory, in bytes.",
            "Address space is not memory: look at process_resident_memory_bytes.";
        resident_memory_bytes: Gauge = "process_resident_memory_bytes", "Resident memory, in bytes.",
            "It has a bound that the log tells at the start (memory_bytes_max), and what SQLite maps besides. Lower \
             the limits in the settings that it names.";
        start_time_seconds: Gauge = "process_start_time_seconds",
            "When the process started, in seconds since 1970, UTC.",
            "A change is a restart: the log says why the one before ended.";
        threads: Gauge = "process_threads", "Threads.",
            "It does not grow with load: their number follows from the settings.";
    }
}

const BUILD_INFO: &str = "hitlog_build_info";
const BUILD_INFO_HELP: &str = "Always 1; the labels tell the versions, how SQLite was compiled (as_wanted, or slower \
                               than it could be) and the durability in force.";
const CPU_SECONDS: &str = "process_cpu_seconds_total";
const CPU_SECONDS_HELP: &str = "Processor time of all threads, in user and system mode, in seconds.";
const MEMORY_MAX: &str = "process_virtual_memory_max_bytes";
const MEMORY_MAX_HELP: &str = "Most virtual memory, in bytes; absent while there is no limit.";

/// Registers all of it.
pub(super) fn register(registry: &Registry, build: &BuildInfo) -> ProcessMetrics {
    registry.describe::<Gauge>(BUILD_INFO, BUILD_INFO_HELP);
    let labels = [
        ("version", build.version),
        ("sqlite", build.sqlite),
        ("sqlite_build", build.sqlite_build),
        ("durability", build.durability),
    ];
    let info: Gauge = registry.series(BUILD_INFO, labels.map(|(key, value)| Label::new(key, value)).to_vec());
    info.set(1.0);
    registry.describe::<Gauge>(MEMORY_MAX, MEMORY_MAX_HELP);
    ProcessMetrics::register(registry)
}

/// What people are told of it.
pub(super) fn described() -> Vec<Described> {
    let mut all = ProcessMetrics::described();
    let one = |name, kind, help, action| Described { name, kind, labels: Vec::new(), help, action };
    all.extend([
        one(MEMORY_MAX, Gauge::KIND, MEMORY_MAX_HELP, "hitlog needs no such limit; ulimit -v sets it."),
        one(
            CPU_SECONDS,
            "counter",
            CPU_SECONDS_HELP,
            "Its rate is the number of processors in use: at as many as there are, everything waits. Look at \
             hitlog_segments{state=\"unsealed\"}, as sealing takes what is left, and at what comes in.",
        ),
        Described {
            labels: vec![
                ("version", LabelValues::Of("hitlog's version")),
                ("sqlite", LabelValues::Of("SQLite's version")),
                ("sqlite_build", LabelValues::Of("`as_wanted` or `slower`")),
                ("durability", LabelValues::Of("`full` or `normal`")),
            ],
            ..one(
                BUILD_INFO,
                Gauge::KIND,
                BUILD_INFO_HELP,
                "slower: the log tells at the start what that costs; build hitlog as the README says.",
            )
        },
    ]);
    all
}

/// Asks the operating system anew.
pub(super) fn collect(metrics: &ProcessMetrics, registry: &Registry) {
    let told = collector::collect();
    let set = |gauge: &Gauge, value: Option<u64>| value.into_iter().for_each(|value| gauge.set(value as f64));
    set(&metrics.open_fds, told.open_fds);
    set(&metrics.max_fds, told.max_fds);
    set(&metrics.virtual_memory_bytes, told.virtual_memory_bytes);
    set(&metrics.resident_memory_bytes, told.resident_memory_bytes);
    set(&metrics.start_time_seconds, told.start_time_seconds);
    set(&metrics.threads, told.threads);
    // 0 stands for no limit.
    if let Some(bytes) = told.virtual_memory_max_bytes.filter(|bytes| *bytes > 0) {
        registry.series::<Gauge>(MEMORY_MAX, Vec::new()).set(bytes as f64);
    }
}

/// Writes what is a counter and no whole number, which the recorder's counters are.
pub(super) fn write_fractions(out: &mut String) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    // A text takes every write.
    let _ = write!(
        out,
        "# HELP {CPU_SECONDS} {CPU_SECONDS_HELP}\n# TYPE {CPU_SECONDS} counter\n{CPU_SECONDS} {}.{:09}\n\n",
        used.tv_sec, used.tv_nsec
    );
}

//! This process: its build, memory, processor time and file descriptors.

use metrics::{Gauge, Label};
use metrics_process::Collector;

use super::registry::Registry;

/// Facts about this build and its settings that `hitlog_build_info` carries as labels.
pub struct BuildInfo {
    /// hitlog's version.
    pub version: &'static str,
    /// SQLite's version.
    pub sqlite: &'static str,
    /// The durability in force.
    pub durability: &'static str,
}

/// What the operating system says of the process.
pub(super) struct ProcessMetrics(Collector);

impl ProcessMetrics {
    pub(super) fn register(registry: &Registry, build: &BuildInfo) -> Self {
        const BUILD_INFO: &str = "hitlog_build_info";
        registry.describe::<Gauge>(BUILD_INFO, "Always 1; the labels tell the versions and the durability in force.");
        let labels = [("version", build.version), ("sqlite", build.sqlite), ("durability", build.durability)];
        let info: Gauge = registry.series(BUILD_INFO, labels.map(|(key, value)| Label::new(key, value)).to_vec());
        info.set(1.0);
        let collector = Collector::default();
        registry.within(|| collector.describe());
        Self(collector)
    }

    /// Asks the operating system anew.
    pub(super) fn collect(&self, registry: &Registry) {
        registry.within(|| self.0.collect());
    }
}

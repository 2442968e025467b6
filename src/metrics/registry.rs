//! The Prometheus recorder: how metrics are registered with their names and help texts, and what comes out.
//!
//! Names end in the unit, except for plain counts of things.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

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

const METADATA: Metadata<'static> = Metadata::new("hitlog", Level::INFO, None);

/// Where metrics are registered and read.
pub(super) struct Registry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Registry {
    pub(super) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full("hitlog_seal_duration_seconds".into()), &SLOW_SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full("hitlog_lay_down_duration_seconds".into()), &SLOW_SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Full("hitlog_erase_duration_seconds".into()), &SLOW_SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("group_events".into()), &EVENTS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("group_bytes".into()), &BYTES_BUCKETS)?
            .build_recorder();
        Ok(Self { handle: recorder.handle(), recorder })
    }

    /// Says what a metric is; a series of it appears when it is registered.
    pub(super) fn describe<M: Metric>(&self, name: &'static str, help: &'static str) {
        M::describe(&self.recorder, KeyName::from_const_str(name), SharedString::const_str(help));
    }

    /// A series of a metric that has been described.
    pub(super) fn series<M: Metric>(&self, name: &'static str, labels: Vec<Label>) -> M {
        M::register(&self.recorder, &Key::from_parts(name, labels))
    }

    /// A metric without labels.
    pub(super) fn one<M: Metric>(&self, name: &'static str, help: &'static str) -> M {
        self.describe::<M>(name, help);
        self.series(name, Vec::new())
    }

    /// A metric with a series for each value of a label, in their order.
    pub(super) fn family<M: Metric>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl Iterator<Item = &'static str>,
    ) -> Vec<M> {
        self.describe::<M>(name, help);
        values.map(|value| self.series(name, vec![Label::new(label, value)])).collect()
    }

    /// Everything in the Prometheus text format.
    pub(super) fn render(&self) -> String {
        self.handle.render()
    }

    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// What the recorder tells apart: counters, gauges and histograms.
pub(super) trait Metric {
    /// What it is called in the text format.
    const KIND: &'static str;

    fn describe(recorder: &PrometheusRecorder, name: KeyName, help: SharedString);
    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self;
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn describe(recorder: &PrometheusRecorder, name: KeyName, help: SharedString) {
        recorder.describe_counter(name, None, help);
    }

    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
        let counter = recorder.register_counter(key, &METADATA);
        // A series that appears only with its first event makes rate() miss that event.
        counter.increment(0);
        counter
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn describe(recorder: &PrometheusRecorder, name: KeyName, help: SharedString) {
        recorder.describe_gauge(name, None, help);
    }

    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
        recorder.register_gauge(key, &METADATA)
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    fn describe(recorder: &PrometheusRecorder, name: KeyName, help: SharedString) {
        recorder.describe_histogram(name, None, help);
    }

    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
        recorder.register_histogram(key, &METADATA)
    }
}

/// What people are told of a metric.
#[derive(Debug)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, and what they may be.
    pub labels: Vec<(&'static str, LabelValues)>,
    /// What it counts or measures.
    pub help: &'static str,
    /// What to do when it moves, or what its movement means.
    pub action: &'static str,
}

/// The values that a label may have.
#[derive(Debug)]
pub enum LabelValues {
    /// These and no others, each with a series from the start.
    These(Vec<&'static str>),
    /// What these words say.
    Of(&'static str),
}

impl FromIterator<&'static str> for LabelValues {
    fn from_iter<T: IntoIterator<Item = &'static str>>(values: T) -> Self {
        Self::These(values.into_iter().collect())
    }
}

/// Defines a struct of metrics, each with its name, its help text, which is its documentation, too, and what to do when
/// it moves. A metric with a label becomes a method: `by reason(Shed)` makes one that takes a `Shed`, for the label
/// `reason`.
macro_rules! metric_group {
    (
        $(#[$doc:meta])*
        $group:ident {
            $($field:ident: $kind:ident = $name:literal, $help:literal, $action:literal;)*
        }
        $(labelled {
            $(
                $method:ident: $series:ident by $label:ident($values:ident) = $family:literal, $family_help:literal,
                    $family_action:literal;
            )*
        })?
    ) => {
        $(#[$doc])*
        pub struct $group {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: $kind,)*
            $($($method: Vec<$series>,)*)?
        }

        impl $group {
            pub(super) fn register(registry: &$crate::metrics::registry::Registry) -> Self {
                Self {
                    $($field: registry.one($name, $help),)*
                    $($($method: registry.family(
                        $family,
                        $family_help,
                        stringify!($label),
                        $values::ALL.iter().map(|value| value.as_str()),
                    ),)*)?
                }
            }

            /// What people are told of each.
            pub(super) fn described() -> Vec<$crate::metrics::registry::Described> {
                use $crate::metrics::registry::{Described, Metric};
                vec![
                    $(Described {
                        name: $name,
                        kind: <$kind as Metric>::KIND,
                        labels: Vec::new(),
                        help: $help,
                        action: $action,
                    },)*
                    $($(Described {
                        name: $family,
                        kind: <$series as Metric>::KIND,
                        labels: vec![(
                            stringify!($label),
                            $values::ALL.iter().map(|value| value.as_str()).collect(),
                        )],
                        help: $family_help,
                        action: $family_action,
                    },)*)?
                ]
            }

            $($(
                #[doc = concat!("`", $family, "`: ", $family_help)]
                pub fn $method(&self, $label: $values) -> &$series {
                    &self.$method[$label as usize]
                }
            )*)?
        }
    };
}
pub(super) use metric_group;

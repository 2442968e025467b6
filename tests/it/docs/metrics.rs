//! Every metric, with what to do when it moves, as `docs/metrics.md` says it.

use std::collections::BTreeMap;

use harness::Daemon;
use hitlog::metrics::{Described, LabelValues, described};

use super::check;

/// Text in lines of at most 120 characters; every line but the first begins with `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + word.chars().count() < 120 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

/// The unit that a metric's name ends in, or what stands in its place.
fn unit(metric: &Described) -> &'static str {
    let quantity = metric.name.trim_end_matches("_total");
    if metric.help.starts_with("Always 1;") {
        "1"
    } else if metric.help.starts_with("1 ") || metric.help.starts_with("0 while ") {
        "1 or 0"
    } else if quantity.ends_with("_timestamp_seconds") || quantity.ends_with("_start_time_seconds") {
        "seconds since 1970, UTC"
    } else if quantity.ends_with("_seconds") {
        "seconds"
    } else if quantity.ends_with("_bytes") {
        "bytes"
    } else {
        "count"
    }
}

fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\nWhat `GET /metrics` tells, by the room of hitlog that counts it, with what to do when it moves. \
         Made from the code;\n`WRITE_DOCS=1 cargo test --test it docs::` makes it anew.\n\nSeries are there from the \
         start unless it is said otherwise. Counters begin at 0 with each start of hitlog.\n",
    );
    for (room, metrics) in described() {
        page.push_str(&format!("\n## {room}\n"));
        for metric in metrics {
            page.push_str(&format!("\n### `{}`\n\n{}, {}", metric.name, metric.kind, unit(&metric)));
            if !metric.labels.is_empty() {
                page.push('\n');
            }
            for (label, values) in &metric.labels {
                let values = match values {
                    LabelValues::These(values) => {
                        values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
                    }
                    LabelValues::Of(words) => (*words).to_owned(),
                };
                page.push('\n');
                page.push_str(&wrapped(&format!("- `{label}`: {values}"), "  "));
            }
            page.push_str(&format!("\n\n{}\n\n", wrapped(metric.help, "")));
            page.push_str(&wrapped(&format!("*When it moves:* {}", metric.action), ""));
            page.push('\n');
        }
    }
    page
}

#[test]
fn the_page_of_metrics() {
    check("docs/metrics.md", &metrics_page());
}

#[test]
fn a_new_daemon_shows_every_metric_that_is_described() {
    let daemon = Daemon::start(&[]);
    let text = daemon.client().get("/metrics").text();
    let kinds: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    let metrics: Vec<_> = described().into_iter().flat_map(|(_, metrics)| metrics).collect();
    // Absent where nothing is limited, and so in most places.
    let expected = metrics.iter().filter(|metric| metric.name != "process_virtual_memory_max_bytes");
    let expected: BTreeMap<_, _> = expected.map(|metric| (metric.name, metric.kind)).collect();
    assert_eq!(kinds, expected);
    for metric in metrics.iter().filter(|metric| expected.contains_key(metric.name)) {
        let sample = if metric.kind == "histogram" { format!("{}_count", metric.name) } else { metric.name.to_owned() };
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
        if let [(label, LabelValues::These(values))] = &*metric.labels {
            for value in values {
                let series = format!("\n{sample}{{{label}=\"{value}\"}} ");
                assert!(text.contains(&series), "{series} is not there from the start");
            }
        } else {
            let exists = text.lines().any(|line| {
                line.strip_prefix(&*sample).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
            });
            assert!(exists, "{sample} is not there from the start");
        }
    }
    for (route, code) in ["/api/v1/events", "/api/v1/events/batch"]
        .into_iter()
        .flat_map(|route| ["2xx", "4xx", "5xx"].map(|code| (route, code)))
    {
        let labels = format!("{{route=\"{route}\",method=\"POST\",code=\"{code}\"}} 0");
        assert!(text.contains(&format!("hitlog_http_request_duration_seconds_count{labels}")), "{labels}");
    }
    daemon.stop();
}

/// <https://prometheus.io/docs/practices/naming/>, as far as a name alone can break it.
#[test]
fn metrics_are_named_as_prometheus_has_it() {
    for metric in described().into_iter().flat_map(|(_, metrics)| metrics) {
        let Described { name, kind, labels, help, action } = &metric;
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
        if *kind == "histogram" && name.ends_with("_seconds") {
            assert!(name.ends_with("_duration_seconds"), "{name} names a unit and no quantity");
        }
        for failure in ["_errors_total", "_failed_total", "_refused_total", "_busy_total", "_dropped_total"] {
            assert!(!name.ends_with(failure), "{name} counts failures without the tries: label them by outcome");
        }
        for (label, _) in labels {
            assert!(!["by", "status", "kind"].contains(label), "{name}: {label} says nothing");
        }
        for text in [help, action] {
            assert!(text.ends_with('.') && !text.contains('\n'), "{name}: {text}");
        }
    }
}

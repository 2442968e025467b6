//! The calendar beside instants that were worked out by hand, and beside a plain model.

mod buckets;
mod properties;
mod ranges;
mod zones;

use crate::event::time::{parse_time, time_text};

use super::{Bucket, Moment, Range, Zone};

fn zone(name: &str) -> Zone {
    Zone::find(name).unwrap_or_else(|| panic!("no zone {name}"))
}

/// An instant as `2026-11-25T14:00Z`, or to the second, or to the millisecond.
fn at(text: &str) -> i64 {
    let padded = if text.len() == "2026-11-25T14:00Z".len() { text.replace('Z', ":00Z") } else { text.to_owned() };
    parse_time(&padded).unwrap_or_else(|| panic!("{text}"))
}

/// As short as `at` takes it.
fn text(instant: i64) -> String {
    let text = time_text(instant);
    text.strip_suffix(":00.000Z").map_or(text.clone(), |short| format!("{short}Z"))
}

fn between(from: &str, to: &str, zone: &Zone) -> Range {
    Range::between(Moment::parse(from).unwrap(), Moment::parse(to).unwrap(), zone).unwrap()
}

fn ends(range: &Range) -> [String; 2] {
    [range.from, range.to].map(text)
}

fn labels(buckets: &[Bucket]) -> Vec<&str> {
    buckets.iter().map(|bucket| &*bucket.label).collect()
}

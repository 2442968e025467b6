//! `hitlog segments`: what there is on the disk.

use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{
    Outcome, print, print_json,
    quarantine::QuarantineEntry,
    table::{Align, Table, pluralize},
};
use crate::{
    command::hitlog,
    event::time::time_text,
    store::offline::{OfflineDir, SegmentLine, segment_lines},
};

/// What to list, and how.
#[derive(Debug)]
pub struct SegmentsOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
    /// Prints JSON, for programs.
    pub json: bool,
}

#[derive(Serialize)]
struct SegmentsReport {
    segments: Vec<SegmentEntry>,
    total: Total,
    quarantined: Vec<QuarantineEntry>,
}

#[derive(Serialize)]
struct SegmentEntry {
    number: i64,
    state: &'static str,
    generation: i64,
    events: u64,
    bytes: u64,
    first: Option<String>,
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

#[derive(Serialize)]
struct Total {
    segments: usize,
    events: u64,
    bytes: u64,
    first: Option<String>,
    last: Option<String>,
}

/// Prints a line for each segment and one for all of them.
pub fn run(options: &SegmentsOptions) -> Outcome {
    let directory = OfflineDir::open(&options.data_dir)?;
    let catalog = directory.catalog()?;
    let segments = segment_lines(&directory, &catalog);
    let quarantined = directory.quarantined(&catalog)?;
    let times = || segments.iter().filter_map(|segment| segment.times);
    let total = Total {
        segments: segments.len(),
        events: segments.iter().map(|segment| segment.rows).sum(),
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        first: times().map(|(first, _)| first).min().map(time_text),
        last: times().map(|(_, last)| last).max().map(time_text),
    };
    let quarantined = quarantined.into_iter().map(QuarantineEntry::from).collect();
    let listing = SegmentsReport { segments: segments.into_iter().map(line).collect(), total, quarantined };
    if options.json {
        print_json(&listing)?;
    } else {
        print(table(&listing).as_bytes())?;
        if !listing.quarantined.is_empty() {
            let files = pluralize(listing.quarantined.len() as u64, "file");
            let list = hitlog(["quarantine", "list"]);
            print(format!("{files} in quarantine: `{list}` tells what they hold\n").as_bytes())?;
        }
    }
    Ok(true)
}

fn line(segment: SegmentLine) -> SegmentEntry {
    let SegmentLine { number, state, generation, rows, bytes, times, fault } = segment;
    let (first, last) = times.map(|(first, last)| (time_text(first), time_text(last))).unzip();
    SegmentEntry { number, state, generation, events: rows, bytes, first, last, fault }
}

fn table(listing: &SegmentsReport) -> String {
    let mut table = Table::new(&[
        ("segment", Align::Right),
        ("state", Align::Left),
        ("gen", Align::Right),
        ("events", Align::Right),
        ("bytes", Align::Right),
        ("first", Align::Left),
        ("last", Align::Left),
        ("", Align::Left),
    ]);
    // Without the milliseconds a line fits a terminal.
    let time = |time: &Option<String>| time.as_deref().map_or("-".into(), |time| format!("{}Z", &time[..19]));
    for line in &listing.segments {
        table.row([
            line.number.to_string(),
            line.state.into(),
            line.generation.to_string(),
            HumanCount(line.events).to_string(),
            HumanBytes(line.bytes).to_string(),
            time(&line.first),
            time(&line.last),
            line.fault.clone().unwrap_or_default(),
        ]);
    }
    let total = &listing.total;
    table.row([
        "total".into(),
        String::new(),
        String::new(),
        HumanCount(total.events).to_string(),
        HumanBytes(total.bytes).to_string(),
        time(&total.first),
        time(&total.last),
        String::new(),
    ]);
    table.render()
}

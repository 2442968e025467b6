//! The results as text: what is asked, then one line for each measurement.

use std::fmt::Write;

use super::results::{Results, Row};

pub fn text(results: &Results) -> String {
    let mut out = String::new();
    for (name, text) in &results.facts {
        let _ = writeln!(out, "{name:<12} {text}");
    }
    let _ = writeln!(out, "\n{:<62} {:>10} {:>8} {:>8}", "measure", "figure", "asked", "aim");
    for verdict in &results.verdicts {
        let unit = &verdict.unit;
        let _ = writeln!(
            out,
            "{:<62} {:>7.3} {unit:<3} {:>7} {:>8}  {} (against: {})",
            verdict.measure,
            verdict.figure,
            verdict.bar,
            verdict.aim,
            verdict.outcome(),
            verdict.against
        );
    }
    let columns =
        ["rate/s", "ratio", "p50 ms", "p99 ms", "p99.9", "CPU µs", "peak MiB", "disk B", "syncs/s", "group", "503"];
    let mut section = "";
    for row in &results.rows {
        if row.section != section {
            section = &row.section;
            let _ = write!(out, "\n{section:<62}");
            for (column, width) in columns.iter().zip(WIDTHS) {
                let _ = write!(out, " {column:>width$}");
            }
            out.push('\n');
        }
        write_row(&mut out, row);
    }
    out
}

const WIDTHS: [usize; 11] = [9, 6, 8, 8, 8, 7, 8, 7, 8, 8, 6];

fn write_row(out: &mut String, row: &Row) {
    let _ = write!(out, "{:<62}", row.name);
    let cells = [
        Some((row.rate, 0)),
        row.ratio.map(|ratio| (ratio, 2)),
        Some((row.p50_ms, 2)),
        Some((row.p99_ms, 2)),
        Some((row.p999_ms, 2)),
        row.cpu_us_per_event.map(|cpu| (cpu, 2)),
        row.peak_rss_mib.map(|mib| (mib, 0)),
        row.disk_bytes_per_event.map(|bytes| (bytes, 0)),
        row.syncs_per_second.map(|syncs| (syncs, 0)),
        row.mean_group.map(|group| (group, 1)),
        Some((row.refused as f64, 0)),
    ];
    for (cell, width) in cells.into_iter().zip(WIDTHS) {
        let text = cell.map_or_else(|| "–".to_owned(), |(number, digits)| format!("{number:.digits$}"));
        let _ = write!(out, " {text:>width$}");
    }
    let _ = writeln!(out, "  {}", row.limit);
}

//! `hitlog check`: whether the files hold what was written.

use std::path::PathBuf;

use super::{
    Outcome, print,
    progress::{Unit, bar},
    table::pluralize,
    unless_closed,
};
use crate::store::offline::{Check, Fault, OfflineDir};

/// What to check.
#[derive(Debug)]
pub struct CheckOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
}

/// Prints every fault, with what to do about it, and a last line; `Ok(false)` if there is a fault.
pub fn run(options: &CheckOptions) -> Outcome {
    let directory = OfflineDir::open(&options.data_dir)?;
    let check = Check::new(&directory)?;
    let bar = bar("checking", check.bytes(), Unit::Bytes);
    let mut printed = Ok(());
    let found = |Fault { path, what, advice }: &Fault| {
        let line = format!("{}: {what}; {advice}\n", path.display());
        printed = bar.suspend(|| unless_closed(print(line.as_bytes())));
    };
    let report = check.run(|bytes| bar.inc(bytes), found)?;
    bar.finish_and_clear();
    printed?;
    for path in &report.unlisted {
        unless_closed(print(
            format!(
                "{}: not one of the catalog's files; it does no harm, and the next start removes what hitlog left\n",
                path.display()
            )
            .as_bytes(),
        ))?;
    }
    let (segments, events) = (pluralize(report.segments, "segment"), pluralize(report.rows, "event"));
    let verdict = if report.faults == 0 { "nothing is wrong".into() } else { pluralize(report.faults, "fault") };
    unless_closed(print(format!("{segments}, {events}: {verdict}\n").as_bytes()))?;
    Ok(report.faults == 0)
}

//! `hitlog quarantine`: files that may hold events and that the catalog does not list.

use std::path::Path;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{
    Outcome, ToolError, announce, print, print_json,
    table::{Align, Table, pluralize},
    tell_done,
};
use crate::{
    command::hitlog,
    event::time::time_text,
    store::{
        offline::{OfflineDir, QuarantineLine},
        repair::Repair,
    },
};

/// What to do with what is in quarantine.
#[derive(Debug)]
pub enum QuarantineAction {
    /// Tell what is there.
    List {
        /// Prints JSON, for programs.
        json: bool,
    },
    /// List a file again, named by itself or by its segment's number.
    Adopt(String),
    /// Remove a file for good.
    Discard {
        /// Its name.
        file: String,
        /// Whether that is meant; otherwise it is only told what would go.
        yes: bool,
    },
}

#[derive(Serialize)]
struct QuarantineReport {
    files: Vec<QuarantineEntry>,
}

/// A file in quarantine, as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantineEntry {
    file: String,
    segment: i64,
    generation: i64,
    events: u64,
    bytes: u64,
    first_sequence: Option<u64>,
    last_sequence: Option<u64>,
    first: Option<String>,
    last: Option<String>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

impl From<QuarantineLine> for QuarantineEntry {
    fn from(line: QuarantineLine) -> Self {
        let (first_sequence, last_sequence) = line.sequences.unzip();
        let (first, last) = line.times.map(|(first, last)| (time_text(first), time_text(last))).unzip();
        Self {
            file: line.file,
            segment: line.segment,
            generation: line.generation,
            events: line.rows,
            bytes: line.bytes,
            first_sequence,
            last_sequence,
            first,
            last,
            reason: line.reason,
            fault: line.fault,
        }
    }
}

/// Does what is asked for. `Ok(false)` if a removal was not confirmed.
pub fn run(data_dir: &Path, action: &QuarantineAction) -> Outcome {
    match action {
        QuarantineAction::List { json } => list(data_dir, *json),
        QuarantineAction::Adopt(which) => adopt(data_dir, which),
        QuarantineAction::Discard { file, yes } => discard(data_dir, file, *yes),
    }
}

fn list(data_dir: &Path, json: bool) -> Outcome {
    let directory = OfflineDir::open(data_dir)?;
    let lines = directory.quarantined(&directory.catalog()?)?;
    if json {
        print_json(&QuarantineReport { files: lines.into_iter().map(QuarantineEntry::from).collect() })?;
    } else if lines.is_empty() {
        print(b"nothing is in quarantine\n")?;
    } else {
        print(table(&lines).as_bytes())?;
        print(advice(&lines[0].file).as_bytes())?;
    }
    Ok(true)
}

/// How to go on with a file, the first of those that are listed.
fn advice(file: &str) -> String {
    format!(
        "To list {file} again: {}\nTo see what would go for good with it: {}\nEither of them while hitlog is stopped, \
         and likewise for any other file.\n",
        hitlog(["quarantine", "adopt", file]),
        hitlog(["quarantine", "discard", file])
    )
}

fn table(lines: &[QuarantineLine]) -> String {
    let mut table = Table::new(&[
        ("file", Align::Left),
        ("segment", Align::Right),
        ("events", Align::Right),
        ("bytes", Align::Right),
        ("sequences", Align::Left),
        ("first", Align::Left),
        ("last", Align::Left),
        ("why", Align::Left),
    ]);
    for line in lines {
        let times = line.times.map(|(first, last)| [first, last].map(|time| format!("{}Z", &time_text(time)[..19])));
        let [first, last] = times.unwrap_or(["-".into(), "-".into()]);
        let fault = line.fault.as_ref().map(|fault| format!("; it cannot be read: {fault}")).unwrap_or_default();
        table.row([
            line.file.clone(),
            line.segment.to_string(),
            HumanCount(line.rows).to_string(),
            HumanBytes(line.bytes).to_string(),
            line.sequences.map_or("-".into(), |(first, last)| format!("{first}-{last}")),
            first,
            last,
            format!("{}{fault}", line.reason),
        ]);
    }
    table.render()
}

/// The file that is meant, where what was said means no other.
fn the_one<'a>(found: &'a [QuarantineLine], which: &str) -> Result<&'a QuarantineLine, ToolError> {
    let [line] = found else {
        let names: Vec<_> = found.iter().map(|line| line.file.as_str()).collect();
        return Err(ToolError::Arguments(format!(
            "several files were segment {which}: name one of {}",
            names.join(", ")
        )));
    };
    Ok(line)
}

fn adopt(data_dir: &Path, which: &str) -> Outcome {
    let repair = Repair::open(data_dir)?;
    let found = repair.find(which)?;
    let line = the_one(&found, which)?;
    let adoption = repair.adopt(line)?;
    let sealed = if adoption.is_sealed { "" } else { ", without indexes, which it gets after the next start" };
    let replaces = if adoption.replaces { ", in the place of the one that was listed" } else { "" };
    let text = format!(
        "{} is segment {} again, generation {}: {}{sealed}{replaces}.\nErasures that are under way apply to it; hitlog \
         has forgotten whose events those that are done removed, so ask for them again if it may hold such events.\n",
        line.file,
        adoption.segment,
        adoption.generation,
        pluralize(adoption.rows, "event")
    );
    let unknown = match adoption.rows_of_unknown {
        0 => String::new(),
        rows => format!("{} of websites that are not registered here are in no answer.\n", pluralize(rows, "event")),
    };
    tell_done(&format!("{text}{unknown}"), "")?;
    Ok(true)
}

fn discard(data_dir: &Path, file: &str, yes: bool) -> Outcome {
    let repair = Repair::open(data_dir)?;
    let found = repair.find(file)?;
    let line = the_one(&found, file)?;
    announce(&what_goes(line))?;
    if !yes {
        let discard = hitlog(["quarantine", "discard", &line.file, "--yes"]);
        print(format!("Nothing was removed: say --yes if that is meant.\nThat is: {discard}\n").as_bytes())?;
        return Ok(false);
    }
    repair.discard(line)?;
    tell_done("It is removed.\n", "")?;
    Ok(true)
}

fn what_goes(line: &QuarantineLine) -> String {
    let what = match (&line.fault, line.sequences) {
        (Some(fault), _) => format!("nobody can tell what it holds: {fault}"),
        (None, sequences) => {
            let sequences = sequences.map(|(first, last)| format!(", sequences {first} to {last}")).unwrap_or_default();
            let times = line.times.map(|(first, last)| format!(", from {} to {}", time_text(first), time_text(last)));
            format!("{}{sequences}{}", pluralize(line.rows, "event"), times.unwrap_or_default())
        }
    };
    format!("{}, of segment {}: {what}. Why it is in quarantine: {}.\n", line.file, line.segment, line.reason)
}

//! `hitlog segments write-off`: giving up a segment that is lost or damaged.

use std::path::PathBuf;

use super::{Outcome, announce, print, table::pluralize, tell_done};
use crate::{
    command::hitlog,
    event::time::time_text,
    store::repair::{Loss, Repair},
};

/// Which segment to give up.
#[derive(Debug)]
pub struct WriteOffOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
    /// The segment's number.
    pub number: i64,
    /// Whether that is meant; otherwise it is only told what would go.
    pub yes: bool,
    /// Whether a damaged file goes for good, and not to the quarantine.
    pub discard: bool,
}

/// Says what goes with the segment, and gives it up; `Ok(false)` if that was not confirmed.
pub fn run(options: &WriteOffOptions) -> Outcome {
    let repair = Repair::open(&options.data_dir)?;
    let loss = repair.loss(options.number)?;
    announce(&what_goes(&loss, options.discard))?;
    if !options.yes {
        let file = match loss.damage {
            Some(_) if options.discard => " Its file would be removed for good.",
            Some(_) => " Its file would go to the quarantine; --discard removes it for good.",
            None => "",
        };
        let number = options.number.to_string();
        let discard = options.discard.then_some("--discard");
        let give_up = hitlog(["segments", "write-off", &number, "--yes"].into_iter().chain(discard));
        print(
            format!("Nothing was changed: say --yes if it is to be given up.{file}\nThat is: {give_up}\n").as_bytes(),
        )?;
        return Ok(false);
    }
    let quarantined = repair.write_off(&loss, options.discard)?;
    let mut text = format!("Segment {} is written off; its sequences are not given again.\n", loss.number);
    if quarantined.is_empty() {
        text.push_str("Erasures that waited for it go on when hitlog starts.\n");
    }
    for name in quarantined {
        text.push_str(&format!(
            "What is left of it is in quarantine, and erasures wait until it leaves that. To see what would go for \
             good with it: {}\n",
            hitlog(["quarantine", "discard", &name])
        ));
    }
    tell_done(&text, "")?;
    Ok(true)
}

/// Most erasures that are named.
const ERASURES_TOLD: usize = 20;

/// The erasures that hitlog cannot bring to an end in this segment any more.
fn unproven(loss: &Loss, discard: bool) -> String {
    if loss.erasures.is_empty() {
        return String::new();
    }
    let mut named = loss.erasures[..loss.erasures.len().min(ERASURES_TOLD)].join(", ");
    if loss.erasures.len() > ERASURES_TOLD {
        named.push_str(&format!(" and {} more", loss.erasures.len() - ERASURES_TOLD));
    }
    let how = match loss.damage {
        Some(_) if discard => "They end when its file is removed",
        Some(_) => "They end when its file has left the quarantine",
        None => {
            "They end without proof that those are gone: see that its file is nowhere any more, in a backup or on \
             another disk"
        }
    };
    format!("Erasures that are under way may mean events in it: {named}. {how}.\n")
}

fn what_goes(loss: &Loss, discard: bool) -> String {
    let (number, state, path) = (loss.number, loss.state, loss.path.display());
    let what_is_wrong = match &loss.damage {
        Some(damage) => format!("is damaged: {path}: {damage}"),
        None => format!("is lost: {path} is listed and not there"),
    };
    let rows = loss.rows.map_or("events that nobody has counted".to_owned(), |rows| pluralize(rows, "event"));
    let sequences = loss.sequences.map(|(first, last)| format!(", sequences {first} to {last}")).unwrap_or_default();
    let times = loss.times.map(|(first, last)| format!(", from {} to {}", time_text(first), time_text(last)));
    let leftovers: Vec<_> = loss.leftovers.iter().map(|path| path.display().to_string()).collect();
    let leftovers = match leftovers.is_empty() {
        true => String::new(),
        false => format!("Other files of it would go to the quarantine: {}.\n", leftovers.join(", ")),
    };
    format!(
        "Segment {number} ({state}) {what_is_wrong}.\nWith it go {rows}{sequences}{}.\n{leftovers}{}",
        times.unwrap_or_default(),
        unproven(loss, discard)
    )
}

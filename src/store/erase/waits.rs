//! What an erasure waits for, in words for whoever asked for it.
//!
//! They go to whoever may read, who need not know where this machine keeps its files: commands stand here without
//! paths. The log has them whole.

use crate::store::{catalog::Erasure, segments::Segments};

/// Most segments that are named for each reason.
const DAMAGED_TOLD: usize = 10;

/// What an erasure waits for; empty when it is done.
pub(super) fn waits_for(segments: &Segments, erasure: &Erasure) -> Vec<String> {
    if erasure.done_at.is_some() {
        return Vec::new();
    }
    let mut waits = out_of_reach(&segments.damaged_numbers(), segments.quarantined());
    let view = segments.view();
    let newest = view.segments.last().map(|segment| segment.number);
    let (mut sealed, mut unsealed, mut failed) = (0, 0, Vec::new());
    for segment in erasure.remaining.iter().filter_map(|number| view.segment(*number)) {
        if let Some(is_damaged) = segments.failed_rewriting(segment.number) {
            failed.push((segment.number, is_damaged));
        } else if segment.is_sealed() {
            sealed += 1;
        } else if Some(segment.number) == newest {
            waits.push(format!("segment {}, which is written to, to be followed by the next", segment.number));
        } else {
            unsealed += 1;
        }
    }
    waits.extend(not_rewritten(&failed));
    for (count, what) in [(unsealed, "to get its indexes"), (sealed, "to be rewritten without its events")] {
        match count {
            0 => {}
            1 => waits.push(format!("1 segment {what}")),
            _ => waits.push(format!("{count} segments, each {what}")),
        }
    }
    if waits.is_empty() {
        let last = if segments.replaced().is_empty() {
            "the catalog to forget whose events they were, which it cannot while another program reads it"
        } else {
            "the last reader of a file that was replaced"
        };
        waits.push(last.into());
    }
    waits
}

/// The segments, still served, whose rewriting has failed, each with whether that has shown damage.
fn not_rewritten(failed: &[(i64, bool)]) -> Vec<String> {
    let told = failed.iter().take(DAMAGED_TOLD).map(|(number, is_damaged)| match is_damaged {
        true => format!(
            "segment {number}, whose file is damaged: stop hitlog, put the file back from a backup or give it up, and \
             start hitlog again; {}",
            what_giving_up_means(*number)
        ),
        false => format!("segment {number}, which could not be rewritten: hitlog's log says why, and tries it again"),
    });
    let mut waits: Vec<_> = told.collect();
    if failed.len() > DAMAGED_TOLD {
        waits.push(format!("{} more segments that could not be rewritten", failed.len() - DAMAGED_TOLD));
    }
    waits
}

/// The files that may hold its events and that hitlog does not serve from.
fn out_of_reach(damaged: &[i64], quarantined: usize) -> Vec<String> {
    let told = damaged.iter().take(DAMAGED_TOLD).map(|number| {
        format!(
            "segment {number}, which is damaged or lost: put its file back from a backup and start hitlog again, or \
             give it up; {}",
            what_giving_up_means(*number)
        )
    });
    let mut waits: Vec<_> = told.collect();
    if damaged.len() > DAMAGED_TOLD {
        waits.push(format!("{} more segments that are damaged or lost", damaged.len() - DAMAGED_TOLD));
    }
    if quarantined > 0 {
        let files = if quarantined == 1 { "1 file".to_owned() } else { format!("{quarantined} files") };
        waits.push(format!("{files} in quarantine: `hitlog quarantine list` tells of them; adopt or discard each"));
    }
    waits
}

fn what_giving_up_means(number: i64) -> String {
    format!("`hitlog segments write-off {number}`, on its data directory, tells what would go with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_reach_is_named_up_to_a_bound() {
        assert_eq!(out_of_reach(&[], 0), [""; 0]);
        let waits = out_of_reach(&[7], 2);
        assert!(
            waits[0].starts_with("segment 7, which is damaged") && waits[0].contains("`hitlog segments write-off 7`"),
            "{waits:?}"
        );
        assert!(waits[1].starts_with("2 files in quarantine: `hitlog quarantine list`"), "{waits:?}");
        let waits = out_of_reach(&(1..=1_000).collect::<Vec<_>>(), 1);
        assert_eq!((waits.len(), waits[10].as_str()), (12, "990 more segments that are damaged or lost"));
        assert!(waits[11].starts_with("1 file in quarantine"));
    }

    #[test]
    fn a_segment_that_cannot_be_rewritten_is_named_up_to_a_bound() {
        assert_eq!(not_rewritten(&[]), [""; 0]);
        let waits = not_rewritten(&[(7, true), (8, false)]);
        assert!(waits[0].contains("damaged") && waits[0].contains("write-off 7`"), "{waits:?}");
        assert!(waits[1].contains("segment 8") && !waits[1].contains("write-off"), "{waits:?}");
        let waits = not_rewritten(&(1..=1_000).map(|number| (number, true)).collect::<Vec<_>>());
        assert_eq!((waits.len(), waits[10].as_str()), (11, "990 more segments that could not be rewritten"));
    }
}

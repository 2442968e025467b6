//! Which runs become one, and how: few runs, so that few filters are asked for each id, and none so large that its
//! merging takes much memory or that much is forgotten with it.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    run::{IdRun, MERGING, RunWriter, Span},
    table::Entry,
};
use crate::store::format::blocks::BlockError;

/// What a run costs beside its ids, in ids: empty ones are merged, too.
const RUN_IDS: u64 = 512;

/// How many of the newest runs, whose sizes are given from the newest on, are to become one; none if that is less than
/// two. Each older run joins whose size is a seventh of all newer ones together or less: so a run grows eightfold each
/// time that it is written anew, and there are seven of about each size at the most. None gets more than `ids_max` ids;
/// one that gets more than three quarters of that is written anew no more, so it need not grow as much.
pub(super) fn runs_to_merge(sizes: impl Iterator<Item = u64>, ids_max: u64) -> usize {
    let (mut sum, mut chosen) = (0, 0);
    for (newer, size) in sizes.map(|size| size + RUN_IDS).enumerate() {
        if sum + size > ids_max {
            break;
        }
        let is_last = sum + size > ids_max / 4 * 3;
        if newer > 0 && size <= if is_last { sum } else { sum / 7 } {
            chosen = newer + 1;
        }
        sum += size;
    }
    chosen
}

/// Called now and then while runs are merged; `false` ends that.
pub(crate) type Pause<'a> = dyn FnMut() -> bool + 'a;

/// Why runs could not be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error(transparent)]
    Read(#[from] BlockError),
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error("hitlog is stopping")]
    Stopping,
}

/// Writes one run with all that is in these, which follow one another, but for what has a sequence from `below` on.
/// `pause` is called often, and may end it.
pub(crate) fn merge(runs: &[Arc<IdRun>], below: u64, pause: &mut Pause<'_>) -> Result<PathBuf, MergeError> {
    let (Some(oldest), Some(newest)) = (runs.first(), runs.last()) else { return Err(MergeError::Stopping) };
    let span = Span {
        first: oldest.span.first,
        last: newest.span.last.min(below - 1),
        newest_received_at: runs.iter().map(|run| run.span.newest_received_at).max().unwrap_or(0),
        forgotten: newest.span.forgotten,
    };
    let folder = oldest.path.parent().unwrap_or(&oldest.path);
    let mut writer = RunWriter::begin(folder, MERGING, span, runs.iter().map(|run| run.count).sum())?;
    let mut sources = Vec::with_capacity(runs.len());
    for run in runs {
        let mut entries = run.entries();
        sources.push((entries.next()?, entries));
    }
    let mut before: Option<Entry> = None;
    let mut steps = 0_u32;
    loop {
        // Of equal hashes the newest source's: the older event's id had left the window when it was stored again.
        let lowest = sources.iter_mut().rev().filter(|(head, _)| head.is_some());
        let Some((head, entries)) = lowest.min_by_key(|(head, _)| head.map(|entry| entry.hash)) else { break };
        let next = entries.next()?;
        let Some(entry) = std::mem::replace(head, next) else { break };
        if entry.sequence < below && before.is_none_or(|before| before.hash != entry.hash) {
            writer.add(entry)?;
            before = Some(entry);
        }
        steps += 1;
        if steps.is_multiple_of(STEPS_PER_PAUSE) && !pause() {
            return Err(MergeError::Stopping);
        }
    }
    Ok(writer.finish()?)
}

/// Entries between two pauses: some milliseconds.
const STEPS_PER_PAUSE: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_grow_eightfold() {
        for (newest_first, ids_max, chosen) in [
            (&[][..], 1_000_000, 0),
            (&[10_000], 1_000_000, 0),
            (&[10_000; 7], 1_000_000, 0),
            (&[10_000; 8], 1_000_000, 8),
            (&[10_000; 8], 80_000, 7),
            (&[10_000, 10_000], 25_000, 2),
            (&[10_000, 80_000, 80_000], 1_000_000, 0),
            (&[10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 8_000, 80_000], 1_000_000, 9),
            (&[0; 7], 1_000_000, 0),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 10_000], 1_000_000, 8),
            (&[10_000, 0, 500], 1_000_000, 3),
        ] {
            assert_eq!(runs_to_merge(newest_first.iter().copied(), ids_max), chosen, "{newest_first:?}");
        }
    }

    #[test]
    fn there_are_few_however_many_come() {
        let mut runs: Vec<u64> = Vec::new();
        let mut written = 0;
        for _ in 0..300 {
            runs.insert(0, 100_000);
            loop {
                let chosen = runs_to_merge(runs.iter().copied(), 4_000_000);
                if chosen == 0 {
                    break;
                }
                let merged: u64 = runs.drain(..chosen).sum();
                written += merged;
                runs.insert(0, merged);
            }
            assert!(runs.len() <= 19, "{runs:?}");
        }
        assert_eq!(runs.iter().sum::<u64>(), 30_000_000);
        assert!(written <= 4 * 30_000_000, "{written}");
    }
}

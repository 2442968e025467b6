//! Which runs become one, and how: few runs, so that few filters are asked for each id, and none so large that its
//! merging takes much memory or that much is forgotten with it.

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use super::{
    run::{IdRun, MERGING, RunWriter, Span},
    table::Entry,
};
use crate::store::format::blocks::BlockError;

/// What a run costs beside its ids, in ids: empty ones are merged, too.
const RUN_IDS: u64 = 512;

/// Of a run: the part of the window that it is of, the first and the last sequence, and how many ids it has.
pub(super) type OfRun = (i64, u64, u64, u64);

/// Which runs, whose facts are given from the oldest on, are to become one; an empty range if none. They follow one
/// another without a gap, and are of one part of the window. Those of the newest part grow as they are merged; those of
/// an older one get as few as may be. None gets more than `ids_max` ids.
pub(super) fn runs_to_merge(runs: &[OfRun], ids_max: u64) -> Range<usize> {
    let follows = |older: &OfRun, newer: &OfRun| older.0 == newer.0 && older.2 + 1 >= newer.1;
    let mut end = runs.len();
    let mut is_newest = true;
    for group in runs.chunk_by(follows).rev() {
        let newest_first = group.iter().rev().map(|run| run.3);
        let chosen = if is_newest { newest(newest_first, ids_max) } else { all_that_fit(newest_first, ids_max) };
        if chosen > 0 {
            return end - chosen..end;
        }
        end -= group.len();
        is_newest = false;
    }
    0..0
}

/// How many of these become one, from the newest on; 0 if that is less than two. Each older run joins whose size is a
/// seventh of all newer ones together or less: so a run grows eightfold each time that it is written anew, and there
/// are seven of about each size at the most. One that gets more than three quarters of the most is written anew no
/// more, so it need not grow as much.
fn newest(sizes: impl Iterator<Item = u64>, ids_max: u64) -> usize {
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

/// How many of these become one, from the newest on; 0 if that is less than two.
fn all_that_fit(sizes: impl Iterator<Item = u64>, ids_max: u64) -> usize {
    let mut sum = 0;
    let fit = sizes.take_while(|size| {
        sum += size;
        sum <= ids_max
    });
    Some(fit.count()).filter(|chosen| *chosen > 1).unwrap_or(0)
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
        forgotten: runs.iter().map(|run| run.span.forgotten).max().unwrap_or_default(),
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
            assert_eq!(newest(newest_first.iter().copied(), ids_max), chosen, "{newest_first:?}");
        }
    }

    #[test]
    fn there_are_few_however_many_come() {
        let mut runs: Vec<u64> = Vec::new();
        let mut written = 0;
        for _ in 0..300 {
            runs.insert(0, 100_000);
            loop {
                let chosen = newest(runs.iter().copied(), 4_000_000);
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

    #[test]
    fn what_is_merged_follows_one_another_and_leaves_the_window_together() {
        let many = |part: i64, first: u64, count: u64| {
            (0..count).map(move |at| (part, first + at * 10, first + at * 10 + 9, 10_000))
        };
        for (runs, chosen) in [
            (many(1, 1, 8).collect::<Vec<_>>(), 0..8),
            (many(1, 1, 7).collect(), 0..0),
            // With a gap before the last four, with a part of the window that is over, with both.
            (many(1, 1, 4).chain(many(1, 51, 4)).collect(), 0..4),
            (many(1, 1, 2).chain(many(2, 21, 8)).collect(), 2..10),
            (many(1, 1, 2).chain(many(2, 21, 7)).collect(), 0..2),
            (many(1, 1, 1).chain(many(2, 11, 7)).collect(), 0..0),
        ] {
            assert_eq!(runs_to_merge(&runs, 1_000_000), chosen, "{runs:?}");
        }
        let large = vec![(1, 1, 10, 900_000), (1, 11, 20, 200_000), (1, 21, 30, 100_000), (2, 31, 40, 10)];
        assert_eq!(runs_to_merge(&large, 1_000_000), 1..3);
    }
}

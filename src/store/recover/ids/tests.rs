//! What a start makes of the files of ids, where there are no segments to read any from.

use std::ops::RangeInclusive;

use super::*;
use crate::store::ids::new_table;

const OPTIONS: IdOptions = IdOptions { window: Duration::from_secs(3_600), bytes_max: 64 << 20, table_bytes: 1 << 16 };

fn hash(sequence: u64) -> IdHash {
    IdHash(u128::from(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64)
}

/// Writes a run of all ids of the events with these sequences, the newest of which arrived so long ago.
fn write(directory: &DataDir, sequences: RangeInclusive<u64>, ago: Duration, forgotten: Forgotten) {
    let mut table = IdTable::new(0, 1_000);
    for sequence in sequences.clone() {
        table.find_or_add(Entry { hash: hash(sequence), sequence, created_at: 5 });
    }
    let newest_received_at = now_ms() - ago.as_millis() as i64;
    let span = Span { first: *sequences.start(), last: *sequences.end(), newest_received_at, forgotten };
    lay_down(&directory.path().join(IDS), &table, span, Age { number: 0, newest_at: Instant::now() }).unwrap();
}

fn find(directory: &DataDir, next_sequence: u64) -> FoundIds {
    find_ids(directory, &[], OPTIONS, &|| new_table(OPTIONS, 0), next_sequence).unwrap()
}

/// The sequences of the ids that are known.
fn known(found: &FoundIds) -> Vec<u64> {
    let is_known = |sequence: &u64| found.runs.iter().any(|run| run.find(hash(*sequence)).unwrap().is_some());
    (1..200).filter(is_known).collect()
}

fn files(directory: &DataDir) -> usize {
    fs::read_dir(directory.path().join(IDS)).unwrap().count()
}

const NOW: Duration = Duration::ZERO;
const NOTHING: Forgotten = Forgotten { sequence: 0, received_at: 0 };

#[test]
fn what_no_event_has_is_cut_off() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    // What a merge has left, with a border where the events end.
    write(&directory, 1..=22, NOW, NOTHING);
    write(&directory, 23..=30, NOW, NOTHING);
    write(&directory, 1..=30, NOW, NOTHING);
    write(&directory, 31..=40, NOW, NOTHING);
    for next in [23, 23, 22, 10] {
        assert_eq!(known(&find(&directory, next)), (1..next).collect::<Vec<_>>());
        assert_eq!(files(&directory), 1);
    }
}

#[test]
fn what_has_left_the_window_is_gone_and_told() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    let long_ago = OPTIONS.window + Duration::from_secs(5);
    write(&directory, 1..=10, long_ago, NOTHING);
    write(&directory, 11..=20, NOW, NOTHING);
    let found = find(&directory, 21);
    assert_eq!((known(&found), files(&directory)), ((11..=20).collect(), 1));
    assert_eq!(found.forgotten.sequence, 10);
    assert!(found.forgotten.received_at < now_ms() - OPTIONS.window.as_millis() as i64);
}

#[test]
fn what_was_forgotten_is_told_by_the_runs_that_came_after() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    let forgotten = Forgotten { sequence: 10, received_at: 77 };
    write(&directory, 11..=20, NOW, forgotten);
    write(&directory, 21..=30, NOW, NOTHING);
    assert_eq!(find(&directory, 31).forgotten, forgotten);
}

#[test]
fn what_is_no_file_is_left_alone() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    write(&directory, 1..=10, NOW, NOTHING);
    for name in ["laying", "merging", "00000000000000000011-00000000000000000020.ids"] {
        fs::create_dir(directory.path().join(IDS).join(name)).unwrap();
    }
    assert_eq!(known(&find(&directory, 21)), (1..=10).collect::<Vec<_>>());
    assert_eq!(files(&directory), 4);
    fs::remove_dir_all(directory.path().join(IDS)).unwrap();
    fs::write(directory.path().join(IDS), "").unwrap();
    assert_eq!(known(&find(&directory, 21)), Vec::<u64>::new());
}

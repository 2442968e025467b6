//! Tables, runs and what is made of them, against a plain map.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::now_ms,
    event::{IdHash, Original},
    metrics::{BuildInfo, Metrics},
    store::{
        format::{DataDir, blocks::BlockError},
        options::IdOptions,
    },
};

const FORGOTTEN: Forgotten = Forgotten { sequence: 3, received_at: 5 };
const AGE: fn() -> Age = || Age { number: 0, newest_at: Instant::now() };

/// A hash that looks like any other, one for each number.
fn hash(number: u64) -> IdHash {
    let mix = |number: u64, seed| xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), seed);
    IdHash(u128::from(mix(number, 0)) << 64 | u128::from(mix(number, 1)))
}

fn entry(number: u64) -> Entry {
    Entry { hash: hash(number), sequence: number, created_at: number as i64 * 3 - 100 }
}

fn original(number: u64) -> Option<Original> {
    Some(entry(number).original())
}

/// A run of the ids of the events with these sequences.
fn run(folder: &Path, first: u64, last: u64) -> IdRun {
    let mut table = IdTable::new(0, (last - first) as usize + 1);
    (first..=last).for_each(|number| assert_eq!(table.find_or_add(entry(number)), None));
    lay_down(folder, &table, Span { first, last, newest_received_at: 7, forgotten: Forgotten::default() }, AGE())
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn runs_and_what_is_merged_of_them_know_all_ids_and_no_others(
        sizes in prop::collection::vec(1..3_000_u64, 1..5),
        below in 1..8_000_u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut runs, mut next) = (Vec::new(), 1);
        for size in sizes {
            runs.push(Arc::new(run(folder.path(), next, next + size - 1)));
            next += size;
        }
        for of in &runs {
            for number in (of.span.first..=of.span.last).step_by(7) {
                prop_assert!(of.may_hold(hash(number)));
                prop_assert_eq!(of.find(hash(number)).unwrap(), original(number));
            }
            for number in [next, next + 1_000_000, u64::MAX] {
                prop_assert_eq!(of.find(hash(number)).unwrap(), None);
            }
        }
        let below = below.clamp(2, next);
        let merged = IdRun::open(&merge(&runs, below, &mut || true).unwrap(), AGE()).unwrap();
        prop_assert_eq!(merged.count, below - 1);
        prop_assert_eq!(merged.span, Span { first: 1, last: below - 1, newest_received_at: 7, forgotten: Forgotten::default() });
        for number in 1..next {
            prop_assert_eq!(merged.find(hash(number)).unwrap(), original(number).filter(|_| number < below));
        }
    }
}

#[test]
fn a_filter_lets_few_through() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), 1, 300_000);
    let through = (1_000_000..2_000_000).filter(|number| run.may_hold(hash(*number))).count();
    assert!(through < 50, "{through} of a million: 15 are expected, 100 are allowed");
    assert!(run.bytes() < 300_000 * 11 / 4, "{} bytes", run.bytes());
}

#[test]
fn of_an_id_that_was_stored_anew_the_newer_event_counts() {
    let folder = tempfile::tempdir().unwrap();
    let older = Arc::new(run(folder.path(), 1, 10));
    let mut table = IdTable::new(0, 10);
    table.find_or_add(Entry { sequence: 11, ..entry(4) });
    let span = Span { first: 11, last: 11, newest_received_at: 9, forgotten: FORGOTTEN };
    let newer = Arc::new(lay_down(folder.path(), &table, span, AGE()).unwrap());
    let merged = IdRun::open(&merge(&[older, newer], u64::MAX, &mut || true).unwrap(), AGE()).unwrap();
    assert_eq!((merged.count, merged.find(hash(4)).unwrap().unwrap().sequence), (10, 11));
    assert_eq!(merged.span, Span { first: 1, last: 11, newest_received_at: 9, forgotten: FORGOTTEN });
}

#[test]
fn an_empty_run_covers_its_sequences() {
    let folder = tempfile::tempdir().unwrap();
    let span = Span { first: 5, last: 500, newest_received_at: 1, forgotten: Forgotten::default() };
    let empty = lay_down(folder.path(), &IdTable::new(0, 0), span, AGE()).unwrap();
    assert_eq!((empty.count, empty.span, empty.may_hold(hash(7))), (0, span, false));
    assert_eq!(empty.find(hash(7)).unwrap(), None);
}

#[test]
fn a_changed_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let whole = run(folder.path(), 1, 2_000);
    let bytes = fs::read(&whole.path).unwrap();
    for at in (0..bytes.len()).step_by(997) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&whole.path, &changed).unwrap();
        let found = IdRun::open(&whole.path, AGE())
            .and_then(|run| (1..=2_000).try_for_each(|number| run.find(hash(number)).map(drop)));
        assert!(matches!(found, Err(BlockError::Damaged(_))), "byte {at}");
    }
}

fn ids(directory: &DataDir, runs: Vec<Arc<IdRun>>, options: IdOptions) -> (Arc<Ids>, Arc<Metrics>, IdKeeper) {
    let build = BuildInfo { version: "", sqlite: "", sqlite_build: "", durability: "full" };
    let metrics = Arc::new(Metrics::new(&build).unwrap());
    let (wake, woken) = crossbeam_channel::bounded(1);
    let ids = Arc::new(Ids::new(
        (runs, Forgotten::default()),
        directory.clone(),
        options,
        (wake, Arc::clone(&metrics.store)),
    ));
    let remake: Remake = Box::new(|_, _| Ok(Vec::new()));
    let keeper = IdKeeper::spawn(Arc::clone(&ids), woken, remake, Arc::new(|reason| panic!("{reason}"))).unwrap();
    (ids, metrics, keeper)
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    let text = metrics.render();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().parse().unwrap()
}

/// The event with this sequence, found by its id.
fn find(ids: &Ids, set: &IdSet, number: u64) -> Option<Original> {
    let (repeats, perhaps) = set.look_for(vec![(7, hash(number))]);
    match (&repeats[..], &perhaps[..]) {
        ([repeat], []) => Some(repeat.original),
        ([], [(7, hash)]) => ids.find_in_runs(set, *hash).unwrap(),
        ([], []) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_that_a_merge_meets_is_mended() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    let folder = work.path().join("data/ids");
    let runs: Vec<_> = (0..8).map(|at| Arc::new(run(&folder, at * 1_000 + 1, (at + 1) * 1_000))).collect();
    let mut bytes = fs::read(&runs[3].path).unwrap();
    bytes[100] ^= 1;
    fs::write(&runs[3].path, bytes).unwrap();
    let options = IdOptions { window: DAY, bytes_max: 64 << 20, table_bytes: 1 << 16 };
    let (ids, _, keeper) = ids(&directory, runs, options);
    // The keeper's remaking gives nothing back here.
    for _ in 0..500 {
        if find(&ids, &ids.set(), 3_001).is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    keeper.stop();
    assert_eq!(find(&ids, &ids.set(), 3_001), None, "made anew, of no events");
    assert_eq!(find(&ids, &ids.set(), 1), original(1));
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn full_tables_become_few_runs_that_know_all() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    let options = IdOptions { window: DAY, bytes_max: 64 << 20, table_bytes: 1 << 16 };
    let (ids, metrics, keeper) = ids(&directory, Vec::new(), options);
    let tables: u64 = 70;
    for number in 0..tables {
        let mut table = ids.new_table(0);
        let (first, last) = (number * 1_000 + 1, (number + 1) * 1_000);
        (first..=last).for_each(|number| assert_eq!(table.find_or_add(entry(number)), None));
        let before = ids.set();
        ids.add(table, (first, last), 7);
        // Known at every moment, to those who look anew and to those who looked before.
        let set = ids.set();
        assert!(find(&ids, &set, last).is_some());
        assert!(set.look_since(hash(last), before.number) != Found::No);
        assert_eq!(set.look_since(hash(last), set.number), Found::No);
    }
    keeper.stop();
    let set = ids.set();
    for number in 1..=tables * 1_000 {
        assert_eq!(find(&ids, &set, number), original(number), "{number}");
    }
    assert_eq!(value(&metrics, "hitlog_dedup_ids"), 70_000.0);
    assert_eq!(value(&metrics, "hitlog_dedup_window_seconds"), 86_400.0);
}

#[test]
fn what_does_not_fit_is_forgotten_from_the_oldest_on() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    // What is held for building, and a megabyte.
    let options = IdOptions { window: DAY, bytes_max: 5 << 20, table_bytes: 1 << 16 };
    let (ids, metrics, keeper) = ids(&directory, Vec::new(), options);
    for number in 0..60 {
        let mut table = ids.new_table(10_000);
        let (first, last) = (number * 10_000 + 1, (number + 1) * 10_000);
        (first..=last).for_each(|number| assert_eq!(table.find_or_add(entry(number)), None));
        ids.add(table, (first, last), now_ms());
        assert!(value(&metrics, "hitlog_dedup_bytes") <= f64::from(5 << 20));
    }
    keeper.stop();
    let set = ids.set();
    assert_eq!(find(&ids, &set, 1), None);
    assert_eq!(find(&ids, &set, 600_000), original(600_000));
    let window = value(&metrics, "hitlog_dedup_window_seconds");
    assert!((0.0..86_400.0).contains(&window), "{window}");
    let files: BTreeMap<_, _> = fs::read_dir(work.path().join("data/ids"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
        .collect();
    let bytes: u64 = files.values().sum();
    assert!(bytes < 600_000 * 34, "the files of what is forgotten are gone: {files:?}");
}

#[test]
fn what_has_left_the_window_is_forgotten() {
    let work = tempfile::tempdir().unwrap();
    let directory = DataDir::open(&work.path().join("data")).unwrap();
    let folder = work.path().join("data/ids");
    let old = Age { number: 0, newest_at: Instant::now().checked_sub(Duration::from_secs(3)).unwrap() };
    let runs = [(1, 100, old), (101, 200, AGE())];
    let runs = runs.map(|(first, last, age)| {
        let mut run = run(&folder, first, last);
        run.age = age;
        Arc::new(run)
    });
    let options = IdOptions { window: Duration::from_secs(2), bytes_max: 64 << 20, table_bytes: 1 << 16 };
    let (ids, _, keeper) = ids(&directory, runs.to_vec(), options);
    keeper.stop();
    assert_eq!(find(&ids, &ids.set(), 1), None);
    assert_eq!(find(&ids, &ids.set(), 101), original(101));
    assert!(runs[0].path.exists(), "somebody may look in it");
}

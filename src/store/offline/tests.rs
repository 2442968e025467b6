//! What a tool finds when files move under it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{
    consistent::{Observed, read_consistent},
    directory::{Fate, OpenSegment},
    *,
};
use crate::store::{
    DataDir,
    catalog::{CatalogFile, SegmentChange},
    format::{file, room::Room},
    tests::{metrics, options},
};

/// A directory with one active segment, not open anywhere.
fn directory(path: &Path) -> OfflineDir {
    let directory = DataDir::open(path).unwrap();
    let mut catalog = CatalogFile::open(&directory, Room::Enough).unwrap();
    let paths = directory.segment_paths();
    file::create(&paths.of(1, 1), directory.ties(), &options(100).log, &metrics().store).unwrap();
    catalog.change_segments(&SegmentChange::Prepared(1)).unwrap();
    catalog.change_segments(&SegmentChange::Activated { number: 1, sequence_floor: 1 }).unwrap();
    OfflineDir::open(path).unwrap()
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_look_leaves_nothing_behind() {
    let work = tempfile::tempdir().unwrap();
    let directory = directory(work.path());
    let before = (files(work.path()), files(&work.path().join("segments")));
    let catalog = directory.catalog().unwrap();
    assert_eq!(segment_lines(&directory, &catalog).len(), 1);
    assert!(count(&directory, &catalog, None).unwrap().sites.is_empty());
    let report = Check::new(&directory).unwrap().run(|_| {}, |fault| panic!("{fault:?}")).unwrap();
    assert_eq!((report.segments, report.faults), (1, 0));
    assert_eq!((files(work.path()), files(&work.path().join("segments"))), before);
}

#[test]
fn what_moves_is_read_again() {
    let work = tempfile::tempdir().unwrap();
    let path = directory(work.path()).catalog_path();
    let look = |sealed, meanwhile: &dyn Fn()| {
        let answer = read_consistent(&path, sealed, |connection| {
            meanwhile();
            connection.query_row("SELECT count(*) FROM Segment", [], |row| row.get::<_, i64>(0))
        });
        matches!(answer.unwrap(), Observed::Consistent(Ok(1)))
    };
    assert!(look(false, &|| {}));
    let change = "UPDATE Log SET sequenceFloor = sequenceFloor + 1";
    let write = || Connection::open(&path).unwrap().execute_batch(change).unwrap();
    assert!(!look(false, &write), "a daemon started, wrote and stopped");
    let writer = Connection::open(&path).unwrap();
    assert!(!look(false, &|| writer.execute_batch(change).unwrap()), "it started");
    assert!(look(false, &write), "beside a log SQLite sees to it");
    let aside = path.with_extension("aside");
    assert!(!look(false, &|| fs::rename(&path, &aside).unwrap()), "its name is gone");
    assert!(!look(true, &|| {}), "there is none");
    fs::rename(&aside, &path).unwrap();
    assert!(look(true, &|| fs::rename(&path, &aside).unwrap()), "an open file that never changes stays readable");
}

#[test]
fn a_segment_is_followed_to_its_generation() {
    let work = tempfile::tempdir().unwrap();
    let directory = directory(work.path());
    let before = directory.catalog().unwrap().segment(1).unwrap();
    let generation = |directory: &OfflineDir| {
        let mut now = before;
        directory.on_segment(&mut now, |open| Ok(open.listed.generation))
    };
    assert_eq!(generation(&directory).unwrap(), Some(1));
    fs::rename(directory.segments.of(1, 1), directory.segments.of(1, 2)).unwrap();
    assert!(matches!(generation(&directory), Err(OfflineError::Missing(_))), "the catalog still lists the first");
    let catalog = Connection::open(directory.catalog_path()).unwrap();
    catalog.execute_batch("UPDATE Segment SET generation = 2").unwrap();
    assert_eq!(generation(&directory).unwrap(), Some(2));
    catalog.execute_batch("UPDATE Segment SET state = 'dropped', generation = 3").unwrap();
    fs::remove_file(directory.segments.of(1, 2)).unwrap();
    assert_eq!(generation(&directory).unwrap(), None);
}

/// What is found wrong with a generation while another takes its place is wrong with nothing any more.
#[test]
fn no_fault_is_told_of_what_was_replaced() {
    let work = tempfile::tempdir().unwrap();
    let directory = directory(work.path());
    let listed = directory.catalog().unwrap().segment(1).unwrap();
    let replace = |by: i64| {
        let (from, to) = (directory.segments.of(1, by - 1), directory.segments.of(1, by));
        fs::copy(&from, to).unwrap();
        let catalog = Connection::open(directory.catalog_path()).unwrap();
        catalog.execute("UPDATE Segment SET generation = ?1", [by]).unwrap();
        fs::remove_file(from).unwrap();
    };
    let failed = || rusqlite::Error::InvalidQuery;
    let mut now = listed;
    let answer = directory.on_segment(&mut now, |open| match open.listed.generation {
        1 => {
            replace(2);
            Err(failed())
        }
        generation => Ok(generation),
    });
    assert_eq!((answer.unwrap(), now.generation), (Some(2), 2), "an error");
    let look = |open: &OpenSegment<'_>| {
        if open.listed.generation == 2 {
            replace(3);
        }
        Ok(open.listed.generation)
    };
    let answer = directory.on_sound_segment(&mut now, look, |generation| *generation > 2);
    assert_eq!(answer.unwrap(), Some(3), "damage");
    let answer = directory.on_sound_segment(&mut now, |_| Ok(7), |_| false);
    assert_eq!(answer.unwrap(), Some(7), "damage of what is listed is told");
    assert!(matches!(directory.on_segment::<()>(&mut now, |_| Err(failed())), Err(OfflineError::Read { .. })));
    // A file that was there before the catalog was read may have been replaced after that; it is not missing.
    assert!(matches!(directory.fate(&now, false).unwrap(), Fate::Listed));
    fs::remove_file(directory.segments.of(1, 3)).unwrap();
    assert!(matches!(directory.fate(&now, true).unwrap(), Fate::Missing));
    assert!(matches!(directory.on_segment(&mut now, |_| Ok(())), Err(OfflineError::Missing(_))));
    let dropped = || {
        let catalog = Connection::open(directory.catalog_path()).unwrap();
        catalog.execute_batch("UPDATE Segment SET state = 'dropped'").unwrap();
    };
    assert!(matches!(directory.fate(&now, true).unwrap(), Fate::Missing));
    dropped();
    assert!(matches!(directory.fate(&now, true).unwrap(), Fate::Gone));
}

/// A file that the catalog knew before the check or knows after it, or knew in between, is not left over.
#[test]
fn what_a_daemon_makes_while_a_check_runs_is_not_left_over() {
    for (listed_before, file, listed_after, is_told) in
        [(1, 2, 3, false), (1, 2, 2, false), (2, 1, 2, true), (2, 1, 3, true), (1, 2, 1, true), (2, 3, 9, false)]
    {
        let work = tempfile::tempdir().unwrap();
        let directory = directory(work.path());
        let list = |generation: i64| {
            let catalog = Connection::open(directory.catalog_path()).unwrap();
            catalog.execute("UPDATE Segment SET generation = ?1", [generation]).unwrap();
            let leave = "INSERT OR IGNORE INTO Leftover VALUES(1, ?1)";
            for old in 1..9 {
                catalog.execute(leave, [old]).unwrap();
            }
        };
        let (first, path) = (directory.segments.of(1, 1), directory.segments.of(1, file));
        for generation in [listed_before, file, listed_after] {
            let copy = directory.segments.of(1, generation);
            if copy != first {
                fs::copy(&first, copy).unwrap();
            }
        }
        list(listed_before);
        let check = Check::new(&directory).unwrap();
        list(listed_after);
        let report = check.run(|_| {}, |fault| panic!("{fault:?}")).unwrap();
        assert_eq!(report.unlisted.contains(&path), is_told, "{listed_before} {file} {listed_after}: {report:?}");
    }
}

/// So is a file of another stamp: it is one more of that name, or grows.
#[test]
fn what_is_written_while_a_check_runs_is_not_left_over() {
    let work = tempfile::tempdir().unwrap();
    let directory = directory(work.path());
    let building = directory.segments.unfinished(1);
    let is_told = |meanwhile: &dyn Fn()| {
        fs::write(&building, "begun").unwrap();
        let check = Check::new(&directory).unwrap();
        meanwhile();
        check.run(|_| {}, |fault| panic!("{fault:?}")).unwrap().unlisted == [building.clone()]
    };
    assert!(is_told(&|| {}));
    assert!(!is_told(&|| fs::write(&building, "more").unwrap()));
    assert!(!is_told(&|| {
        let other = work.path().join("other");
        fs::write(&other, "begun").unwrap();
        fs::rename(other, &building).unwrap();
    }));
    assert!(!is_told(&|| fs::remove_file(&building).unwrap()));
}

#[test]
fn catalogs_of_other_versions() {
    let work = tempfile::tempdir().unwrap();
    let directory = directory(work.path());
    let set = |sql: &str| Connection::open(directory.catalog_path()).unwrap().execute_batch(sql).unwrap();
    set("DROP TABLE Erasure; PRAGMA user_version = 1");
    assert_eq!(directory.catalog().unwrap().segments.len(), 1, "what the first version lists can be read");
    for (sql, wanted) in [
        ("PRAGMA user_version = 99", "start the newer hitlog"),
        ("PRAGMA user_version = 0", "start `hitlog serve` once"),
        ("PRAGMA application_id = 7", "not a file of hitlog's"),
    ] {
        set(sql);
        let error = directory.catalog().unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

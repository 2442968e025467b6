//! The folder `quarantine`: files of segments that the catalog does not list and that may hold events.
//!
//! What comes here is moved, never copied and never over another file, and leaves only when a person says so. A file
//! comes together with what SQLite keeps beside it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    access::make_directory,
    directory::{SegmentName, SegmentPaths},
    file,
    sync::sync_directory,
};
use crate::store::error::OpenError;

/// The name of the folder in a data directory.
const QUARANTINE: &str = "quarantine";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Quarantine(PathBuf);

/// A file in the folder, with what SQLite keeps beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuarantinedFile {
    /// The name of the database.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The number and the generation of the segment that it was.
    pub(crate) number: i64,
    pub(crate) generation: i64,
}

impl Quarantine {
    /// The one of a data directory, whether it is there or not.
    pub(crate) fn of_directory(path: &Path) -> Self {
        Self(path.join(QUARANTINE))
    }

    /// What is in it, by name.
    pub(crate) fn files(&self) -> Result<Vec<QuarantinedFile>, OpenError> {
        let read = OpenError::io("read the directory", &self.0);
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>().map_err(read)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error)),
        };
        let mut files = BTreeMap::new();
        for entry in entries {
            let Some(name) = entry.file_name().to_str().and_then(database_of) else { continue };
            let Some((number, generation)) = parse(&name) else { continue };
            if !entry.path().is_file() {
                continue;
            }
            let path = self.0.join(&name);
            files.insert(name.clone(), QuarantinedFile { name, path, number, generation });
        }
        Ok(files.into_values().collect())
    }

    /// Moves a database here, with what is beside it, and makes that durable. Returns its name here.
    pub(crate) fn take_in(&self, path: &Path) -> Result<String, OpenError> {
        self.make()?;
        // Only what was beside a database is there when an earlier move was cut short: it follows.
        let to = self.free_path(path, path.exists());
        move_database(path, &to)?;
        Ok(name_of(&to))
    }

    /// Moves what is beside a database here, without the database. Returns the name that it would have here.
    pub(crate) fn take_in_beside(&self, path: &Path) -> Result<String, OpenError> {
        self.make()?;
        let to = self.free_path(path, true);
        move_files(&file::BESIDE, path, &to)?;
        Ok(name_of(&to))
    }

    /// Makes the folder, for whoever the data directory is of.
    fn make(&self) -> Result<(), OpenError> {
        match make_directory(&self.0) {
            Ok(()) => sync_directory(self.0.parent().unwrap_or(&self.0)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(OpenError::io("make the directory", &self.0)(error)),
        }
    }

    /// Where a database can go without being in the way of another. `is_whole`: it does not belong to one that is here.
    fn free_path(&self, path: &Path, is_whole: bool) -> PathBuf {
        let name = name_of(path);
        let stem = name.strip_suffix(".db").unwrap_or(&name);
        let is_there = |path: &Path, suffix: &str| file::with_suffix(path, suffix).exists();
        let is_free = |to: &Path| match is_whole {
            true => !to.exists() && !file::BESIDE.iter().any(|suffix| is_there(to, suffix)),
            false => !file::BESIDE.iter().any(|suffix| is_there(to, suffix) && is_there(path, suffix)),
        };
        let mut to = self.0.join(&name);
        let mut number = 1;
        while !is_free(&to) {
            number += 1;
            to = self.0.join(format!("{stem}.{number}.db"));
        }
        to
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Moves a database that nobody has open, and what SQLite keeps beside it, to where nothing is. The database goes
/// first: a write-ahead log that is found alone is known for what it is, and a database without its log is not.
pub(crate) fn move_database(from: &Path, to: &Path) -> Result<(), OpenError> {
    let keys = file::keys_path(from);
    match fs::remove_file(&keys) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::io("remove the keys", keys)(error));
        }
        _ => {}
    }
    move_files(&[""], from, to)?;
    move_files(&file::BESIDE, from, to)
}

fn move_files(suffixes: &[&str], from: &Path, to: &Path) -> Result<(), OpenError> {
    for suffix in suffixes {
        let (from, to) = (file::with_suffix(from, suffix), file::with_suffix(to, suffix));
        match fs::rename(&from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::io("move", from)(error)),
            _ => {}
        }
    }
    for path in [to, from] {
        sync_directory(path.parent().unwrap_or(path))?;
    }
    Ok(())
}

/// The name of the database that a file is, or is beside.
fn database_of(name: &str) -> Option<String> {
    let beside = file::BESIDE.iter().find_map(|suffix| name.strip_suffix(suffix));
    Some(beside.unwrap_or(name)).filter(|name| name.ends_with(".db")).map(str::to_owned)
}

/// The number and the generation that a name here tells: that of a segment, perhaps with one more number; none, as
/// zeros, of a catalog's log.
fn parse(name: &str) -> Option<(i64, i64)> {
    let catalog = name.strip_suffix(".db").and_then(|stem| stem.strip_prefix("catalog"));
    if catalog.is_some_and(|again| again.is_empty() || again.starts_with('.')) {
        return Some((0, 0));
    }
    let told = |name: &str| match SegmentPaths::parse(name) {
        SegmentName::Generation(number, generation) => Some((number, generation)),
        _ => None,
    };
    told(name).or_else(|| {
        let (rest, again) = name.strip_suffix(".db")?.rsplit_once('.')?;
        again.parse::<u32>().ok()?;
        told(&format!("{rest}.db"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(quarantine: &Quarantine) -> Vec<(String, i64, i64)> {
        quarantine.files().unwrap().into_iter().map(|file| (file.name, file.number, file.generation)).collect()
    }

    #[test]
    fn nothing_is_written_over() {
        let work = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::of_directory(work.path());
        assert_eq!(names(&quarantine), []);
        let source = work.path().join("000000000007.g2.db");
        for round in 1..=3 {
            fs::write(&source, format!("database {round}")).unwrap();
            fs::write(file::with_suffix(&source, "-wal"), format!("log {round}")).unwrap();
            quarantine.take_in(&source).unwrap();
        }
        let found = ["000000000007.g2.2.db", "000000000007.g2.3.db", "000000000007.g2.db"];
        assert_eq!(names(&quarantine), found.map(|name| (name.to_owned(), 7, 2)));
        for (name, round) in found.iter().zip([2, 3, 1]) {
            let read = |suffix| fs::read_to_string(work.path().join("quarantine").join(format!("{name}{suffix}")));
            assert_eq!(
                (read("").unwrap(), read("-wal").unwrap()),
                (format!("database {round}"), format!("log {round}"))
            );
        }
        assert!(!source.exists() && !file::with_suffix(&source, "-wal").exists());
        fs::create_dir(work.path().join("quarantine/000000000008.db")).unwrap();
        assert_eq!(names(&quarantine).len(), 3, "what is no file is none of a segment");
    }

    #[test]
    fn what_was_beside_a_file_follows_it() {
        let work = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::of_directory(work.path());
        let source = work.path().join("000000000007.db");
        let wal = file::with_suffix(&source, "-wal");
        fs::write(&source, "database").unwrap();
        quarantine.take_in(&source).unwrap();
        // As though hitlog had been killed in between.
        fs::write(&wal, "log").unwrap();
        assert_eq!(quarantine.take_in(&source).unwrap(), "000000000007.db");
        assert_eq!(fs::read_to_string(work.path().join("quarantine/000000000007.db-wal")).unwrap(), "log");
        assert_eq!(names(&quarantine), [("000000000007.db".to_owned(), 7, 1)]);
    }

    #[test]
    fn names_that_tell_nothing_are_left_alone() {
        for (name, told) in [
            ("000000000007.db", Some((7, 1))),
            ("000000000007.2.db", Some((7, 1))),
            ("000000000007.g3.db", Some((7, 3))),
            ("000000000007.g3.12.db", Some((7, 3))),
            ("notes.db", None),
            ("000000000007.g3.x.db", None),
        ] {
            assert_eq!(parse(name), told, "{name}");
        }
        assert_eq!(database_of("000000000007.db-shm").as_deref(), Some("000000000007.db"));
        assert_eq!(database_of("notes.txt"), None);
    }
}

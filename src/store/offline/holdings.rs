//! What a file of a segment holds, whether the catalog knows it or not.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::store::{
    error::OpenError,
    format::{file, quarantine::QuarantinedFile, schema},
    segments::{Facts, Identity, Sites, Summary},
};

/// What a file of a segment holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings {
    pub(crate) rows: u64,
    /// The first and the last.
    pub(crate) sequences: Option<(u64, u64)>,
    /// The lowest and the highest `createdAt`, in milliseconds since 1970, UTC.
    pub(crate) times: Option<(i64, i64)>,
    /// What it says of itself, if it has its indexes.
    pub(crate) facts: Option<Facts>,
    /// Which segment it says that it is.
    pub(crate) identity: Option<Identity>,
}

impl Holdings {
    /// Looks into a file that nobody writes to.
    pub(crate) fn read(path: &Path) -> Result<Self, OpenError> {
        if file::last_sequence_of(path)?.is_none() {
            return Ok(Self::default());
        }
        let sqlite = || OpenError::sqlite(path);
        let connection = file::open_unwritten(path).map_err(sqlite())?;
        schema::check_segment(&connection, path)?;
        Self::of(&connection).map_err(sqlite())
    }

    /// What a sealed segment said of itself.
    pub(crate) fn of_facts(facts: &Facts) -> Self {
        let sequences = Some((facts.first_sequence, facts.last_sequence));
        let times = Some((facts.first_created_at, facts.last_created_at));
        Self { rows: facts.rows, sequences, times, facts: Some(*facts), identity: None }
    }

    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let identity = Identity::read(connection)?;
        let is_sealed = connection.table_exists(None, "Whole")?;
        let summary = if is_sealed { Summary::read(connection, &Sites::default()).ok() } else { None };
        if let Some(facts) = summary.map(|summary| summary.facts) {
            return Ok(Self { identity, ..Self::of_facts(&facts) });
        }
        let select = "SELECT count(*), min(id), max(id), min(createdAt), max(createdAt) FROM Event";
        connection.query_row(select, [], |row| {
            let pair =
                |first: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(first)?.zip(row.get(first + 1)?));
            let sequences = pair(1)?.map(|(first, last): (i64, i64)| (first.unsigned_abs(), last.unsigned_abs()));
            let rows = row.get::<_, i64>(0)?.unsigned_abs();
            Ok(Self { rows, sequences, times: pair(3)?, facts: None, identity })
        })
    }
}

/// What is told of a file in quarantine.
#[derive(Debug, Clone)]
pub struct QuarantineLine {
    /// Its name there.
    pub file: String,
    /// Where it is.
    pub path: PathBuf,
    /// The number of its segment.
    pub segment: i64,
    /// The generation of its segment.
    pub generation: i64,
    /// The number of its events; 0 if it cannot be read.
    pub rows: u64,
    /// The bytes of the file and its write-ahead log.
    pub bytes: u64,
    /// The first and the last sequence in it.
    pub sequences: Option<(u64, u64)>,
    /// The lowest and the highest `createdAt` in milliseconds since 1970, UTC.
    pub times: Option<(i64, i64)>,
    /// Why it is there.
    pub reason: String,
    /// Why it cannot be read; `None` if it can.
    pub fault: Option<String>,
}

impl QuarantineLine {
    /// What is told of a file; it is read for that.
    pub(super) fn of(file: QuarantinedFile, reason: Option<&str>) -> Self {
        let (holdings, fault) = match Holdings::read(&file.path) {
            Ok(holdings) => (holdings, None),
            Err(error) => (Holdings::default(), Some(error.reason())),
        };
        let bytes = file::bytes(&file.path) + file::bytes(&file::with_suffix(&file.path, "-wal"));
        let unknown = match file.number {
            0 => "the log of another catalog.db: it may hold changes of websites, and whom erasures are of",
            _ => "the catalog does not know it",
        };
        let reason = reason.unwrap_or(unknown).to_owned();
        let Holdings { rows, sequences, times, .. } = holdings;
        let (segment, generation) = (file.number, file.generation);
        Self { file: file.name, path: file.path, segment, generation, rows, bytes, sequences, times, reason, fault }
    }
}

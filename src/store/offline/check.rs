//! Whether the files hold what was written: SQLite's own check of every file, and of sealed segments whether their
//! summaries, fence posts and filters say what the rows say.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    thread,
};

use rusqlite::{Connection, OpenFlags};

use super::{
    catalog::CatalogContents,
    consistent::{Observed, Stamp, read_consistent},
    directory::{OfflineDir, OpenSegment, RETRY_PAUSE, TRIES_MAX, bytes_of},
    error::OfflineError,
};
use crate::{
    command::hitlog,
    store::{
        catalog::{ListedSegment, SegmentState},
        error::{OpenError, is_damage, sqlite_advice},
        format::{
            IDS, SegmentName, SegmentPaths, file,
            hash::{session_hash, visitor_hash},
            schema,
        },
        ids::{self, IdRun},
        rollup::{self, RollupError},
        segments::{Identity, Sites, Summary, SummaryError},
    },
};

/// Most faults of one kind that are told of one file; one is enough to act on.
const FAULTS_TOLD: usize = 5;

/// How often what nothing lists is looked at, with a pause after each: a daemon lists what it has made, and unlinks
/// what it has replaced, within some hundredths of a second.
const LOOKS: usize = 10;

/// Something that is not as it was written.
#[derive(Debug)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What to do now.
    pub advice: Cow<'static, str>,
}

/// What a check has looked at.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// The number of segments.
    pub segments: u64,
    /// The number of events in them.
    pub rows: u64,
    /// The number of faults found.
    pub faults: u64,
    /// Files among the segments that hold nothing, or that the next start removes: they do no harm but take room.
    pub unlisted: Vec<PathBuf>,
}

const RESTORE_CATALOG: &str = "leave it as it is, and restore a backup into another directory";
const RESTORE_SEALED: &str = "keep a copy of what is there, and restore this file from a backup; until then hitlog \
                              serves without its events, or with wrong totals";
const RESTORE_OPEN: &str = "leave it as it is, restore a backup into another directory, and look at the disk of this \
                            machine";
const WILL_MOVE: &str = "start hitlog anew, which puts it into quarantine";

const IDS_REMADE: &str =
    "no event is lost: hitlog makes them anew from the events when it meets this. Look at the disk";

fn give_name() -> String {
    format!(
        "hitlog gives no file such a name, and leaves it alone. If its events are missing, put a copy of it into the \
         folder quarantine of the data directory, with the name that a segment's file has, such as \
         000000000007.g2.db; `{}` then tells more",
        hitlog(["quarantine", "list"])
    )
}

fn put_back() -> String {
    format!(
        "put the very file back that was there, with its -wal; where that is lost, `{}`, said once, goes on with this \
         one",
        hitlog(["serve", "--restored"])
    )
}

fn adopt_or_discard() -> String {
    format!("adopt or discard it; `{}` tells more", hitlog(["quarantine", "list"]))
}

/// Files that the catalog does not list, each with its stamp; none for one that can't be looked at.
type Unlisted = BTreeMap<PathBuf, Option<Stamp>>;

/// A check that is about to begin.
pub struct Check<'a> {
    directory: &'a OfflineDir,
    catalog: CatalogContents,
    unlisted: Unlisted,
}

impl<'a> Check<'a> {
    /// Reads what there is to check.
    pub fn new(directory: &'a OfflineDir) -> Result<Self, OfflineError> {
        let catalog = directory.catalog()?;
        let unlisted = unlisted(directory, &catalog)?;
        Ok(Self { directory, catalog, unlisted })
    }

    /// The bytes of all that is to be checked.
    pub fn bytes(&self) -> u64 {
        self.catalog.segments_in_use().map(|listed| bytes_of(self.directory, &listed)).sum()
    }

    /// Checks everything. `done` is called with the bytes of each segment that is through, `found` with each fault.
    pub fn run(self, mut done: impl FnMut(u64), mut found: impl FnMut(&Fault)) -> Result<CheckReport, OfflineError> {
        let mut report = CheckReport::default();
        let mut tell = |path: PathBuf, what: String, advice: Cow<'static, str>| {
            report.faults += 1;
            found(&Fault { path, what, advice });
        };
        let path = self.directory.catalog_path();
        for what in check_catalog(self.directory)? {
            tell(path.clone(), what, RESTORE_CATALOG.into());
        }
        let mut last_before = 0;
        for listed in self.catalog.segments_in_use() {
            let advice = if listed.state == SegmentState::Sealed { RESTORE_SEALED } else { RESTORE_OPEN };
            let advice: Cow<'static, str> = advice.into();
            let (mut now, mut bytes) = (listed, 0);
            let look = |open: &OpenSegment<'_>| {
                bytes = open.bytes;
                CheckedSegment::check(&self.directory.path_of(open.listed), open.listed, open.connection)
            };
            let checked = self.directory.on_sound_segment(&mut now, look, |checked| checked.faults.is_empty());
            let path = self.directory.path_of(&now);
            match checked {
                Ok(None) => {}
                Ok(Some(segment)) => {
                    segment.faults.into_iter().for_each(|what| tell(path.clone(), what, advice.clone()));
                    if let Some((first, last)) = segment.sequences {
                        if first <= last_before {
                            let what =
                                format!("it begins with event {first}, but one before it ends with {last_before}");
                            tell(path.clone(), what, advice.clone());
                        }
                        last_before = last_before.max(last);
                    }
                    let last = segment.sequences.map(|(_, last)| last.unsigned_abs());
                    if now.state != SegmentState::Sealed
                        && let Some(what) = self.catalog.lacking(now.number, last)
                    {
                        tell(path, what, put_back().into());
                    }
                    report.rows += segment.rows;
                }
                Err(busy @ OfflineError::KeepsChanging(_)) => return Err(busy),
                Err(error) => {
                    let (what, other_advice) = unread(&error, &path);
                    tell(path, what, other_advice.unwrap_or(advice));
                }
            }
            report.segments += 1;
            done(bytes);
        }
        let damaged = damaged_ids(self.directory)?;
        damaged.into_iter().for_each(|(path, what)| tell(path, what, IDS_REMADE.into()));
        let (catalog, left) = self.left_over()?;
        for path in left {
            match unknown_holds(&catalog, &path) {
                Some(what) => tell(path.clone(), what, of_unknown(&path)),
                None => report.unlisted.push(path),
            }
        }
        for line in self.directory.quarantined(&catalog)? {
            let holds =
                line.fault.map_or(format!("{} events", line.rows), |fault| format!("what cannot be read: {fault}"));
            tell(
                line.path,
                format!("it is in quarantine and holds {holds} ({})", line.reason),
                adopt_or_discard().into(),
            );
        }
        Ok(report)
    }

    /// What the catalog knew nothing of before the check and knows nothing of now, and the catalog as it is now. What a
    /// daemon is making is listed before long, and what it has replaced is gone: both are waited for.
    fn left_over(&self) -> Result<(CatalogContents, Vec<PathBuf>), OfflineError> {
        let mut left = self.unlisted.clone();
        let mut looks = 0;
        loop {
            let catalog = self.directory.catalog()?;
            let still = unlisted(self.directory, &catalog)?;
            // What has another stamp is being written, by a daemon that makes one such file after the other.
            let is_left = |path: &Path, stamp: &Option<Stamp>| {
                still.get(path).is_some_and(|now| now == stamp || name_of(path) == SegmentName::Foreign)
            };
            left.retain(|path, stamp| is_left(path, stamp) && !was_listed(path, &self.catalog, &catalog));
            looks += 1;
            if looks == LOOKS || left.keys().all(|path| name_of(path) == SegmentName::Foreign) {
                return Ok((catalog, left.into_keys().collect()));
            }
            thread::sleep(RETRY_PAUSE);
        }
    }
}

/// The files of ids that cannot be read, and why.
fn damaged_ids(directory: &OfflineDir) -> Result<Vec<(PathBuf, String)>, OfflineError> {
    let mut found = Vec::new();
    for path in ids::runs(&directory.path().join(IDS))? {
        match IdRun::check(&path) {
            // What is gone was merged with others, or forgotten, by a daemon.
            Err(error) if path.exists() => found.push((path, format!("ids of events cannot be read: {error}"))),
            _ => {}
        }
    }
    Ok(found)
}

fn name_of(path: &Path) -> SegmentName {
    path.file_name().and_then(|name| name.to_str()).map_or(SegmentName::Foreign, SegmentPaths::parse)
}

/// Whether this is a generation that the catalog began to list while one look at it came after the other, however long
/// it did: it was made by a daemon, and has been replaced since.
fn was_listed(path: &Path, before: &CatalogContents, after: &CatalogContents) -> bool {
    let SegmentName::Generation(number, generation) = name_of(path) else { return false };
    let listed = |catalog: &CatalogContents| catalog.segment(number).map(|listed| listed.generation);
    match (listed(before), listed(after)) {
        (Some(before), after) => generation >= before && after.is_none_or(|after| after > generation),
        (None, Some(after)) => after > generation,
        (None, None) => false,
    }
}

/// What a file holds that the catalog does not list; `None` if the next start removes it, or it has no events of ours.
fn unknown_holds(catalog: &CatalogContents, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let is_left = match name_of(path) {
        SegmentName::Generation(number, generation) => catalog.leftovers.contains(&Identity { number, generation }),
        SegmentName::Unfinished => true,
        SegmentName::Foreign => false,
    };
    // What SQLite keeps beside a file is told of with that.
    if is_left || !path.is_file() || !name.ends_with(".db") {
        return None;
    }
    match file::last_sequence_of(path) {
        Ok(None) => None,
        // It may be anybody's.
        Err(_) if name_of(path) == SegmentName::Foreign => None,
        Ok(Some(last)) => Some(format!("the catalog does not know it, and it holds events up to sequence {last}")),
        Err(error) => Some(format!("the catalog does not know it, and it cannot be read: {}", error.reason())),
    }
}

/// What to do about a file that the catalog does not know and that holds events.
fn of_unknown(path: &Path) -> Cow<'static, str> {
    match name_of(path) {
        SegmentName::Foreign => give_name().into(),
        _ => WILL_MOVE.into(),
    }
}

/// Why a segment could not be read, without the advice to run a check; and what to do where it is not damaged for that.
fn unread(error: &OfflineError, path: &Path) -> (String, Option<Cow<'static, str>>) {
    match error {
        OfflineError::Missing(_) => ("it is listed and not there".into(), None),
        OfflineError::Read { source, .. } => {
            let advice = (!is_damage(source)).then(|| sqlite_advice(source, path));
            (format!("it cannot be read: {source}"), advice)
        }
        other => (other.to_string(), None),
    }
}

fn check_catalog(directory: &OfflineDir) -> Result<Vec<String>, OfflineError> {
    let path = directory.catalog_path();
    for _ in 0..TRIES_MAX {
        match read_consistent(&path, false, integrity).map_err(OfflineError::read(&path))? {
            Observed::Consistent(faults) => return faults.map_err(OfflineError::read(path)),
            // A daemon has just started or stopped.
            Observed::Changed => thread::sleep(RETRY_PAUSE),
        }
    }
    Err(OfflineError::KeepsChanging(path))
}

/// What SQLite finds wrong with a file.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = connection.prepare(&format!("PRAGMA integrity_check({FAULTS_TOLD})"))?;
    let lines = check.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// What was found of one segment.
pub(crate) struct CheckedSegment {
    rows: u64,
    sequences: Option<(i64, i64)>,
    pub(crate) faults: Vec<String>,
}

/// Checks a file that nobody writes to. `listed` is what the catalog says of it, or would.
pub(crate) fn check_file(path: &Path, listed: &ListedSegment) -> Result<CheckedSegment, OpenError> {
    let connection = file::open_unwritten(path).map_err(OpenError::sqlite(path))?;
    schema::check_segment(&connection, path)?;
    CheckedSegment::check(path, listed, &connection).map_err(OpenError::sqlite(path))
}

impl CheckedSegment {
    fn check(path: &Path, listed: &ListedSegment, connection: &Connection) -> rusqlite::Result<Self> {
        let mut faults = integrity(connection)?;
        // Damaged pages would show up again in everything that is counted from them.
        if faults.is_empty() && listed.state == SegmentState::Sealed {
            faults.extend(check_summary(path)?);
            faults.extend(check_filter(connection, listed)?);
            faults.extend(check_rollups(connection)?);
        }
        let (rows, sequences) = connection.query_row("SELECT count(*), min(id), max(id) FROM Event", [], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, Option<i64>>(1)?.zip(row.get(2)?)))
        })?;
        Ok(Self { rows, sequences, faults })
    }
}

/// Compares what a sealed segment says of itself with what its rows say now: the summary is written once more, into
/// memory, and the two are laid side by side.
fn check_summary(path: &Path) -> rusqlite::Result<Vec<String>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let counted = Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    counted.execute_batch("PRAGMA temp_store = MEMORY")?;
    counted.execute("ATTACH ?1 AS kept", [file::read_only_uri(path, true)])?;
    match Summary::write(&counted) {
        Ok(()) => {}
        Err(SummaryError::Sqlite(error)) => return Err(error),
        Err(damaged @ SummaryError::Damaged(_)) => return Ok(vec![damaged.to_string()]),
    }
    let mut faults = Vec::new();
    for (table, keys, columns) in [
        ("Summary", "websiteId, eventType", &["count", "firstCreatedAt", "lastCreatedAt", "fencePosts"][..]),
        ("Daily", "websiteId, eventType, day", &["count"]),
        ("Whole", "id", &["count", "firstCreatedAt", "lastCreatedAt", "firstSequence", "lastSequence"]),
    ] {
        // Segments that were sealed before there was a table of days have none.
        if table == "Daily" && !counted.table_exists(Some("kept"), table)? {
            continue;
        }
        for column in columns {
            let mut differ = counted.prepare(&format!(
                "SELECT concat_ws(', ', {keys}) FROM main.{table} AS counted FULL JOIN kept.{table} AS kept
                 USING ({keys}) WHERE counted.{column} IS NOT kept.{column} LIMIT {FAULTS_TOLD}"
            ))?;
            for of in differ.query_map([], |row| row.get::<_, String>(0))? {
                faults.push(format!("table {table}: {column} of ({}) is not what the rows say", of?));
            }
        }
    }
    Ok(faults)
}

/// Compares what a sealed segment's numbers are answered from with its rows. One that an older hitlog sealed has none.
fn check_rollups(connection: &Connection) -> rusqlite::Result<Option<String>> {
    if !connection.table_exists(None, "RollupList")? {
        return Ok(None);
    }
    match rollup::verify(connection) {
        Ok(differing) => Ok(differing),
        Err(RollupError::Sqlite(error)) => Err(error),
        Err(other) => Ok(Some(other.to_string())),
    }
}

/// Whether the file is the one that the catalog lists, and its filter lets every session and visitor of it through.
fn check_filter(connection: &Connection, listed: &ListedSegment) -> rusqlite::Result<Vec<String>> {
    let summary = match Summary::read_listed(connection, &Sites::default(), listed.number, listed.facts) {
        Ok(summary) => summary,
        Err(SummaryError::Sqlite(error)) => return Err(error),
        Err(damaged @ SummaryError::Damaged(_)) => return Ok(vec![damaged.to_string()]),
    };
    let mut faults = Vec::new();
    for (what, select, hash) in [
        ("session", "SELECT DISTINCT sessionId FROM Event", session_hash as fn(&[u8]) -> u64),
        ("visitor", "SELECT DISTINCT visitorId FROM Event", visitor_hash),
    ] {
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        let mut missed = 0_u64;
        while let Some(row) = rows.next()? {
            missed += u64::from(!summary.may_hold(hash(row.get_ref(0)?.as_bytes()?)));
        }
        if missed > 0 {
            faults.push(missed_by_filter(what, missed));
        }
    }
    Ok(faults)
}

fn missed_by_filter(what: &str, missed: impl Display) -> String {
    format!("its filter denies {missed} {what}s that it holds")
}

/// Files among the segments that the catalog knows nothing of.
fn unlisted(directory: &OfflineDir, catalog: &CatalogContents) -> Result<Unlisted, OfflineError> {
    let folder = directory.segments.folder();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(OfflineError::io("read the directory", folder))? {
        let entry = entry.map_err(OfflineError::io("read the directory", folder))?;
        let path = entry.path();
        let is_listed = match name_of(&path) {
            SegmentName::Generation(number, generation) => {
                catalog.segment(number).is_some_and(|listed| listed.generation == generation)
            }
            _ => false,
        };
        if !is_listed {
            let stamp = Stamp::of(&path).ok();
            found.insert(path, stamp);
        }
    }
    Ok(found)
}

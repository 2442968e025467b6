//! The files of segments: made, opened for writing, opened for reading, removed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, config::DbConfig};
use rustix::io::Errno;

pub(crate) use super::names::{bytes, has_wal, with_suffix};
use super::{access::make_file, schema, sync::sync_directory, ties::Ties, vfs};
use crate::{
    metrics::StoreMetrics,
    store::{
        error::OpenError,
        options::{Durability, LogOptions},
    },
};

const KEYS_SUFFIX: &str = "-keys";

/// What SQLite keeps beside a database is called as that is, with one of these at the end.
pub(crate) const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes a segment's file, complete and durable, before anybody hears of it. Until then it has another
/// name, so that a file with a segment's name is always one that was whole. It has its tag from the beginning.
pub(crate) fn create(
    path: &Path,
    ties: &Ties,
    options: &LogOptions,
    metrics: &Arc<StoreMetrics>,
) -> Result<(), OpenError> {
    remove_leftover(path)?;
    let unfinished = path.with_extension("making");
    remove(&unfinished).map_err(OpenError::io("remove the leftover", &unfinished))?;
    build(&unfinished, ties.tag_of(path), options, metrics)?;
    fs::rename(&unfinished, path).map_err(OpenError::io("rename", &unfinished))?;
    sync_directory(path.parent().unwrap_or(path))
}

fn build(path: &Path, tag: u32, options: &LogOptions, metrics: &Arc<StoreMetrics>) -> Result<(), OpenError> {
    make_file(path).map_err(OpenError::io("make the segment", path))?;
    let flags = schema::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = connect(path, flags, metrics)?;
    let sql = format!(
        "PRAGMA page_size = {}; PRAGMA journal_mode = WAL;
         BEGIN; PRAGMA application_id = {}; PRAGMA user_version = {}; {} COMMIT;
         PRAGMA schema_version = {tag};",
        options.page_bytes,
        schema::APPLICATION_ID,
        schema::SEGMENT_VERSION,
        schema::SEGMENT_SQL
    );
    // The pages must be in the file itself: SQLite deletes the write-ahead log of a database that has no pages.
    connection.execute_batch(&sql).and_then(|()| truncate_wal(&connection)).map_err(OpenError::sqlite(path))?;
    drop(connection);
    File::open(path).and_then(|file| file.sync_all()).map_err(OpenError::io("sync", path))
}

/// Removes what a start that was cut short left under this name. The catalog does not know the file, so it has no
/// events; if it has, then it is the catalog that is lost, and nothing may be touched.
fn remove_leftover(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Err(OpenError::io("make the segment", path)(Errno::ISDIR.into()));
    }
    if bytes(path) > 0 {
        let connection = Connection::open_with_flags(path, schema::write_flags()).map_err(OpenError::sqlite(path))?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'Event'", [], |row| row.get(0))
            .map_err(OpenError::sqlite(path))?;
        if tables > 0 && last_sequence(&connection).map_err(OpenError::sqlite(path))?.is_some() {
            let reason = "it holds events, but catalog.db does not list it: was catalog.db replaced?".into();
            return Err(OpenError::NotOurs { path: path.into(), reason });
        }
    }
    remove(path).map_err(OpenError::io("remove the leftover", path))
}

/// Opens a segment for writing, and refuses one whose format this hitlog does not know.
pub(crate) fn open(path: &Path, options: &LogOptions, metrics: &Arc<StoreMetrics>) -> Result<Connection, OpenError> {
    refuse_empty(path)?;
    let connection = connect(path, schema::write_flags(), metrics)?;
    schema::check_segment(&connection, path)?;
    let synchronous = match options.durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {synchronous};
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA mmap_size = 0;
             PRAGMA journal_size_limit = {};
             PRAGMA cache_size = -{};",
            options.wal_bytes_max,
            options.cache_bytes / 1024,
        ))
        .map_err(OpenError::sqlite(path))?;
    Ok(connection)
}

/// Opens a segment with nothing in its write-ahead log, to look at it at the start, and refuses one whose format this
/// hitlog does not know.
pub(crate) fn open_at_rest(path: &Path) -> Result<Connection, OpenError> {
    refuse_empty(path)?;
    let connection = open_read_only(path, true).map_err(OpenError::sqlite(path))?;
    schema::check_segment(&connection, path)?;
    Ok(connection)
}

/// SQLite would take an empty file for a new database and delete its write-ahead log.
fn refuse_empty(path: &Path) -> Result<(), OpenError> {
    let file = fs::metadata(path).map_err(OpenError::io("find the segment", path))?;
    if file.len() == 0 {
        return Err(OpenError::NotOurs { path: path.into(), reason: "it is empty".into() });
    }
    Ok(())
}

/// Opens a segment for reading only. A sealed one never changes, which spares every statement its file locks.
pub(crate) fn open_read_only(path: &Path, sealed: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(read_only_uri(path, sealed), flags)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA mmap_size = 0;")?;
    Ok(connection)
}

/// Opens a file that nobody writes to, for reading only. With nothing in its write-ahead log it is what never changes,
/// and to read it takes no file beside it, for which a full disk has no room.
pub(crate) fn open_unwritten(path: &Path) -> rusqlite::Result<Connection> {
    open_read_only(path, !has_wal(path))
}

/// The name under which SQLite reads a file, <https://sqlite.org/uri.html>.
pub(crate) fn read_only_uri(path: &Path, sealed: bool) -> String {
    const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    let path = percent_encode(path.as_os_str().as_encoded_bytes(), IN_PATH);
    let immutable = if sealed { "&immutable=1" } else { "" };
    format!("file:{path}?mode=ro{immutable}")
}

fn connect(path: &Path, flags: OpenFlags, metrics: &Arc<StoreMetrics>) -> Result<Connection, OpenError> {
    vfs::observe(metrics);
    Connection::open_with_flags_and_vfs(path, flags, vfs::TIMED).map_err(OpenError::sqlite(path))
}

/// Copies everything that is in the write-ahead log into the segment, and empties it. Returns whether somebody was
/// in the way.
pub(crate) fn truncate_wal(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? != 0))
}

/// Gives a file this run's tag, and empties its write-ahead log, so that the tag is in its header. The list must have
/// the tag that is there now. Where another program is in the way, both count until the end.
pub(crate) fn tie(connection: &Connection, path: &Path, ties: &Ties) -> rusqlite::Result<()> {
    connection.pragma_update(None, "schema_version", ties.tag_of(path))?;
    if !truncate_wal(connection)? {
        ties.note_tied(path);
    }
    Ok(())
}

/// Copies what is in the write-ahead log of a file that nobody serves from into it. Returns whether another program was
/// in the way.
pub(crate) fn empty_wal(path: &Path) -> Result<bool, OpenError> {
    let connection = Connection::open_with_flags(path, schema::write_flags()).map_err(OpenError::sqlite(path))?;
    truncate_wal(&connection).map_err(OpenError::sqlite(path))
}

/// Has the connection leave the write-ahead log as it is when it is closed, also as the last one.
pub(crate) fn leave_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// The first and the last sequence in a segment; `None` if it is empty.
pub(crate) fn sequences(connection: &Connection) -> rusqlite::Result<Option<(u64, u64)>> {
    let select = "SELECT (SELECT min(id) FROM Event), (SELECT max(id) FROM Event)";
    let number = |row: &Row<'_>, column| row.get::<_, Option<i64>>(column).map(|id| id.map(i64::unsigned_abs));
    connection.query_row(select, [], |row| Ok(number(row, 0)?.zip(number(row, 1)?)))
}

/// When the newest event of a segment arrived, in milliseconds since 1970, UTC; `None` if it is empty.
pub(crate) fn newest_received_at(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let select = "SELECT receivedAt FROM Event ORDER BY id DESC LIMIT 1";
    connection.query_row(select, [], |row| row.get(0)).optional()
}

/// The highest sequence in a segment.
pub(crate) fn last_sequence(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let last: Option<i64> = connection.query_row("SELECT max(id) FROM Event", [], |row| row.get(0))?;
    Ok(last.map(i64::unsigned_abs))
}

/// The highest sequence in a segment that nobody writes to, its write-ahead log included; `None` if nothing is in it.
pub(crate) fn last_sequence_of(path: &Path) -> Result<Option<u64>, OpenError> {
    if bytes(path) == 0 {
        // SQLite would take the two for a new database, and delete the log.
        let reason = || "there is only its write-ahead log".to_owned();
        return if has_wal(path) { Err(OpenError::NotOurs { path: path.into(), reason: reason() }) } else { Ok(None) };
    }
    let sqlite = || OpenError::sqlite(path);
    let connection = open_unwritten(path).map_err(sqlite())?;
    // An older hitlog left files without a table when it was killed while it made them.
    let is_made: bool =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0)).map_err(sqlite())?;
    if !is_made {
        return Ok(None);
    }
    schema::check_segment(&connection, path)?;
    last_sequence(&connection).map_err(sqlite())
}

/// Removes a segment's file with all that is kept beside it; what is not there need not be removed. The file goes
/// first: who opens it from another process finds it with its write-ahead log, or not at all.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for suffix in ["", KEYS_SUFFIX].into_iter().chain(BESIDE) {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The size of a segment's file with all that is kept beside it.
pub(crate) fn bytes_in_all(path: &Path) -> u64 {
    ["", KEYS_SUFFIX].into_iter().chain(BESIDE).map(|suffix| bytes(&with_suffix(path, suffix))).sum()
}

/// Whether a name is that of laid keys.
pub(crate) fn is_keys(name: &str) -> bool {
    name.ends_with(KEYS_SUFFIX)
}

/// Where the keys of a segment without an index are laid down.
pub(crate) fn keys_path(segment: &Path) -> PathBuf {
    with_suffix(segment, KEYS_SUFFIX)
}

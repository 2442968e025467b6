//! The format of the files: application id, versions, tables.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use crate::store::error::OpenError;

/// "hitl" in ASCII: marks every file of hitlog's, <https://sqlite.org/pragma.html#pragma_application_id>.
pub(crate) const APPLICATION_ID: i32 = 0x6869_746c;

/// The version of a segment's format.
pub(crate) const SEGMENT_VERSION: i64 = 3;

/// The first version whose events have a column for the hash of their client's id.
pub(crate) const SEGMENT_VERSION_OF_IDS: i64 = 2;

/// The first version whose events have flags, and whose sealed segments have rollups.
pub(crate) const SEGMENT_VERSION_OF_ROLLUPS: i64 = 3;

/// The highest sequence that hitlog can have given: a million a second for a hundred thousand years, and more. A higher
/// one in a file is damage, or somebody's doing.
pub(crate) const SEQUENCE_MAX: u64 = 1 << 62;

/// An active segment: rows in the order of their sequence, no index, so that an insert touches the last page only.
pub(crate) const SEGMENT_SQL: &str = "
    CREATE TABLE Event(
        id INTEGER PRIMARY KEY, -- the sequence
        websiteId TEXT NOT NULL,
        eventType TEXT NOT NULL,
        url TEXT NOT NULL,
        referrer TEXT,
        sessionId TEXT NOT NULL,
        visitorId TEXT NOT NULL,
        deviceType TEXT,
        browser TEXT,
        os TEXT,
        location TEXT,
        properties TEXT, -- JSON
        createdAt INTEGER NOT NULL, -- milliseconds since 1970, UTC: the client's timestamp, or the arrival
        receivedAt INTEGER NOT NULL, -- milliseconds since 1970, UTC: the arrival
        eventIdHash BLOB, -- 16 bytes: a keyed hash of what its client calls it; NULL without that
        flags INTEGER NOT NULL DEFAULT 0 -- 1: a bot's, 2: its referrer is spam, 4: its ids were made by the server
    );";

/// The flag of an event whose ids were made by the server.
pub(crate) const IDS_BY_SERVER: i64 = 4;

/// What a segment lacks that was made before there were ids.
pub(crate) const ADD_IDS: &str = "ALTER TABLE Event ADD COLUMN eventIdHash BLOB";

/// What a segment lacks that was made before there were flags.
pub(crate) const ADD_FLAGS: &str = "ALTER TABLE Event ADD COLUMN flags INTEGER NOT NULL DEFAULT 0";

/// What sealing adds: the indexes, made when every row is there.
pub(crate) const SEGMENT_INDEXES: [(&str, &str); 4] = [
    ("EventByType", "CREATE INDEX EventByType ON Event(websiteId, eventType, createdAt)"),
    ("EventBySession", "CREATE INDEX EventBySession ON Event(sessionId)"),
    ("EventByVisitor", "CREATE INDEX EventByVisitor ON Event(visitorId)"),
    ("EventByTime", "CREATE INDEX EventByTime ON Event(createdAt)"),
];

/// What a sealed segment says of itself: of each website and type, and of the whole.
pub(crate) const SUMMARY_SQL: &str = "
    CREATE TABLE Summary(
        websiteId TEXT NOT NULL,
        eventType TEXT NOT NULL,
        count INTEGER NOT NULL,
        firstCreatedAt INTEGER NOT NULL,
        lastCreatedAt INTEGER NOT NULL,
        -- Of every 1,024th entry of EventByType, the oldest first: createdAt and id, 8 bytes each, little-endian.
        fencePosts BLOB NOT NULL,
        PRIMARY KEY(websiteId, eventType)
    ) WITHOUT ROWID;
    CREATE TABLE Whole(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        count INTEGER NOT NULL,
        firstCreatedAt INTEGER NOT NULL,
        lastCreatedAt INTEGER NOT NULL,
        firstSequence INTEGER NOT NULL,
        lastSequence INTEGER NOT NULL,
        -- A binary fuse filter over the XXH3 hashes of all session ids (seed 0) and visitor ids (seed 1).
        filter BLOB NOT NULL,
        -- The XXH3 hash of the filter's bytes.
        filterHash INTEGER NOT NULL
    );
    -- Days since 1970, UTC, of createdAt.
    CREATE TABLE Daily(
        websiteId TEXT NOT NULL,
        eventType TEXT NOT NULL,
        day INTEGER NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY(websiteId, eventType, day)
    ) WITHOUT ROWID;";

/// Which segment a sealed file is: a copy under another's name is known for what it is.
pub(crate) const IDENTITY_SQL: &str = "
    CREATE TABLE Identity(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        number INTEGER NOT NULL,
        generation INTEGER NOT NULL
    );";

/// Milliseconds of a day of `Daily`.
pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The columns of an event that are read, in the order in which `log/insert.rs` binds and `format/row.rs` reads them.
macro_rules! event_columns {
    () => {
        "id, websiteId, eventType, url, referrer, sessionId, visitorId, deviceType, browser, os, location, \
         properties, createdAt, receivedAt"
    };
}

/// The column that is only written and copied, and read when ids are found again.
macro_rules! event_id_hash {
    () => {
        "eventIdHash"
    };
}

/// The columns of an event, for statements that copy whole rows.
pub(crate) const EVENT_COLUMNS: &str = concat!(event_columns!(), ", ", event_id_hash!(), ", flags");

/// The same, as a segment of this version has them: what came later is empty.
pub(crate) fn columns_of_version(version: i64) -> &'static str {
    if version >= SEGMENT_VERSION_OF_ROLLUPS {
        EVENT_COLUMNS
    } else if version >= SEGMENT_VERSION_OF_IDS {
        concat!(event_columns!(), ", ", event_id_hash!(), ", 0")
    } else {
        concat!(event_columns!(), ", NULL, 0")
    }
}

/// Reads all events with their flags, in the order of their arrival.
pub(crate) const SELECT_FLAGGED_EVENTS: &str =
    concat!("SELECT ", event_columns!(), ", flags FROM Event NOT INDEXED ORDER BY id");

/// Adds an event.
pub(crate) const INSERT_EVENT: &str = concat!(
    "INSERT INTO Event(",
    event_columns!(),
    ", ",
    event_id_hash!(),
    ", flags) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)"
);

/// Reads the ids of the events from one sequence to another.
pub(crate) const SELECT_IDS: &str = concat!(
    "SELECT id, ",
    event_id_hash!(),
    ", createdAt, receivedAt FROM Event NOT INDEXED WHERE id >= ?1 AND id <= ?2 AND ",
    event_id_hash!(),
    " IS NOT NULL ORDER BY id"
);

/// Reads an event by its sequence.
pub(crate) const SELECT_EVENT: &str = concat!("SELECT ", event_columns!(), " FROM Event WHERE id = ?1");

/// Reads the next events after a sequence, in the order of their arrival.
pub(crate) const SELECT_EVENTS_AFTER: &str =
    concat!("SELECT ", event_columns!(), " FROM Event WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3");

/// Reads the events of a website (and of a type, unless that is NULL) after a sequence up to another, in the order of
/// their arrival.
pub(crate) const SELECT_EVENTS_OF_WEBSITE_AFTER: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM Event NOT INDEXED WHERE id > ?1 AND id <= ?2 AND websiteId = ?3 AND (?4 IS NULL OR eventType = ?4) \
     ORDER BY id"
);

/// Reads the events of a website after a sequence up to another with their flags, in the order of their arrival.
const SELECT_FLAGGED_EVENTS_OF_WEBSITE: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", flags FROM Event NOT INDEXED WHERE id > ?1 AND id <= ?2 AND websiteId = ?3 ORDER BY id"
);

/// The same, of a segment that was made before there were flags.
const SELECT_EVENTS_OF_WEBSITE_WITHOUT_FLAGS: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", 0 FROM Event NOT INDEXED WHERE id > ?1 AND id <= ?2 AND websiteId = ?3 ORDER BY id"
);

/// The one of the two for a segment of a version.
pub(crate) fn select_events_of_website(version: i64) -> &'static str {
    if version >= SEGMENT_VERSION_OF_ROLLUPS {
        SELECT_FLAGGED_EVENTS_OF_WEBSITE
    } else {
        SELECT_EVENTS_OF_WEBSITE_WITHOUT_FLAGS
    }
}

/// Reads the events of a visitor of a website after a sequence with their flags, in the order of their arrival.
pub(crate) const SELECT_FLAGGED_EVENTS_OF_VISITOR: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", flags FROM Event INDEXED BY EventByVisitor WHERE visitorId = ?1 AND websiteId = ?2 AND id > ?3 ORDER BY id"
);

/// The steps that bring a catalog to its newest version.
pub(crate) const CATALOG_MIGRATIONS: Migrations<'static> = Migrations::from_slice(CATALOG_STEPS);

/// The version of the catalog's format that these steps lead to.
pub(crate) const CATALOG_VERSION: i64 = CATALOG_STEPS.len() as i64;

const CATALOG_STEPS: &[M<'static>] = &[
    M::up(CATALOG_1),
    M::up(CATALOG_2),
    M::up(CATALOG_3),
    M::up(CATALOG_4),
    M::up(CATALOG_5),
    M::up(CATALOG_6),
    M::up(CATALOG_7),
    M::up(CATALOG_8),
];

const CATALOG_1: &str = "
    CREATE TABLE Website(
        id TEXT PRIMARY KEY,
        trackingCode TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        domain TEXT NOT NULL UNIQUE,
        description TEXT,
        createdAt INTEGER NOT NULL, -- milliseconds since 1970, UTC
        updatedAt INTEGER NOT NULL
    ) STRICT;
    -- Websites that were deleted and whose events must still be erased from the segments.
    CREATE TABLE DeletedWebsite(
        id TEXT PRIMARY KEY,
        deletedAt INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE Segment(
        number INTEGER PRIMARY KEY,
        generation INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'unsealed', 'sealed'))
    ) STRICT;
    -- One row. No sequence below the floor is ever given again, whatever the segments still hold.
    CREATE TABLE Log(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sequenceFloor INTEGER NOT NULL,
        node INTEGER NOT NULL,
        idKey BLOB NOT NULL CHECK (length(idKey) = 16)
    ) STRICT;";

const CATALOG_2: &str = "
    -- What is to be erased from the segments, and what was.
    CREATE TABLE Erasure(
        id TEXT PRIMARY KEY,
        -- Both are forgotten when nothing is left of the events. A website's erasure names no visitor.
        websiteId TEXT,
        visitorId TEXT,
        -- A visitor's events up to this sequence; a website's all go, whenever they were committed.
        upTo INTEGER,
        requestedAt INTEGER NOT NULL, -- milliseconds since 1970, UTC
        doneAt INTEGER,
        segmentsDone INTEGER NOT NULL, -- rewritten without its events
        rows INTEGER NOT NULL -- gone from the disk
    ) STRICT;
    INSERT INTO Erasure
        SELECT 'era-' || substr(id, 5), id, NULL, NULL, deletedAt, NULL, 0, 0 FROM DeletedWebsite;
    DROP TABLE DeletedWebsite;
    -- Dropped: of a segment that is no longer one, the files may still be there.
    CREATE TABLE NewSegment(
        number INTEGER PRIMARY KEY,
        generation INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'unsealed', 'sealed', 'dropped'))
    ) STRICT;
    INSERT INTO NewSegment SELECT number, generation, state FROM Segment;
    DROP TABLE Segment;
    ALTER TABLE NewSegment RENAME TO Segment;";

const CATALOG_3: &str = "
    -- What a sealed segment said of itself when it was sealed; NULL for one that an older hitlog sealed, until the next
    -- start has looked.
    ALTER TABLE Segment ADD COLUMN rows INTEGER;
    ALTER TABLE Segment ADD COLUMN firstSequence INTEGER;
    ALTER TABLE Segment ADD COLUMN lastSequence INTEGER;
    ALTER TABLE Segment ADD COLUMN firstCreatedAt INTEGER; -- milliseconds since 1970, UTC
    ALTER TABLE Segment ADD COLUMN lastCreatedAt INTEGER;
    ALTER TABLE Segment ADD COLUMN digest INTEGER; -- of its summary
    -- No segment gets this number or a lower one again, whatever the folder still holds.
    ALTER TABLE Log ADD COLUMN numberFloor INTEGER NOT NULL DEFAULT 0;
    -- The only generations that a start may remove: those that were replaced, and those that were about to be listed.
    CREATE TABLE Leftover(
        number INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        PRIMARY KEY(number, generation)
    ) STRICT, WITHOUT ROWID;
    -- Of a sealed segment an older hitlog may have left any earlier generation, and the next, whose rows it all has.
    INSERT INTO Leftover
        WITH RECURSIVE Earlier(number, generation) AS (
            SELECT number, generation - 1 FROM Segment WHERE generation > 1
            UNION ALL SELECT number, generation - 1 FROM Earlier WHERE generation > 1
        )
        SELECT number, generation FROM Earlier
        UNION SELECT number, generation + 1 FROM Segment WHERE state IN ('sealed', 'dropped');
    -- Damage of sealed segments that a read has found, where their summaries do not show it.
    CREATE TABLE Damage(
        number INTEGER PRIMARY KEY,
        reason TEXT NOT NULL
    ) STRICT;
    -- Why a file is in the folder quarantine; of one that is not here nobody knows.
    CREATE TABLE Quarantine(
        file TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        since INTEGER NOT NULL -- milliseconds since 1970, UTC
    ) STRICT;
    -- Segments that were given up. One of which a file turns up again may hold events that were erased since.
    CREATE TABLE WrittenOff(
        number INTEGER PRIMARY KEY,
        erasedSince INTEGER NOT NULL DEFAULT 0 -- whether an erasure of a visitor's events has ended since
    ) STRICT;";

const CATALOG_4: &str = "
    -- Whose sequences public ids are made of, from which sequence on. Every start from a backup begins another.
    CREATE TABLE Epoch(
        number INTEGER PRIMARY KEY,
        firstSequence INTEGER NOT NULL,
        node INTEGER NOT NULL,
        idKey BLOB NOT NULL CHECK (length(idKey) = 16),
        begunAt INTEGER NOT NULL -- milliseconds since 1970, UTC; 0 of one that an older hitlog began
    ) STRICT;
    INSERT INTO Epoch SELECT 1, 0, node, idKey, 0 FROM Log;
    CREATE TABLE NewLog(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        sequenceFloor INTEGER NOT NULL,
        numberFloor INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    INSERT INTO NewLog SELECT id, sequenceFloor, numberFloor FROM Log;
    DROP TABLE Log;
    ALTER TABLE NewLog RENAME TO Log;
    -- Has a row in a backup from which nothing has started yet. The backup of an older catalog has the table already.
    CREATE TABLE IF NOT EXISTS Backup(
        madeAt INTEGER NOT NULL -- milliseconds since 1970, UTC
    ) STRICT;
    -- What the file of a segment without indexes holds at the least, on the disk and not only in memory: events up to
    -- this sequence; 0 if nothing is promised. One that holds less is an older copy.
    CREATE TABLE OpenSegment(
        number INTEGER PRIMARY KEY,
        lastSequence INTEGER NOT NULL
    ) STRICT;
    -- For how long hitlog has run since all events of a segment had expired.
    CREATE TABLE Expiry(
        number INTEGER PRIMARY KEY,
        expiredMs INTEGER NOT NULL
    ) STRICT;
    -- At most one row: whether the machine's clock is to be believed, for what is removed by its time.
    CREATE TABLE Clock(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        -- For how long hitlog has run without a jump since the clock came into doubt; NULL: it is in none.
        agreedMs INTEGER,
        -- The newest receivedAt, in milliseconds since 1970, UTC, that the clock stood behind, and was believed.
        settledReceivedAt INTEGER NOT NULL
    ) STRICT;";

const CATALOG_5: &str = "
    -- The key under which what clients call their events is hashed; NULL until the next start has made it.
    ALTER TABLE Log ADD COLUMN idHashKey BLOB CHECK (length(idHashKey) = 16);";

const CATALOG_6: &str = "
    -- Where events are shipped to, and how far that is. At most one row.
    CREATE TABLE ShipTarget(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        url TEXT NOT NULL,
        databaseName TEXT NOT NULL,
        tableName TEXT NOT NULL,
        begunAt INTEGER NOT NULL, -- milliseconds since 1970, UTC
        cutUpTo INTEGER NOT NULL, -- every sequence up to here is in a range, or was in none of its rows
        events INTEGER NOT NULL, -- confirmed
        verifiedAt INTEGER, -- when the last comparison ended
        differences INTEGER -- that it found
    ) STRICT;
    -- The node's number and the name under which events are shipped, from which sequence on. A start from a copy
    -- begins another.
    CREATE TABLE ShipNode(
        firstSequence INTEGER PRIMARY KEY,
        node INTEGER NOT NULL,
        instance TEXT NOT NULL
    ) STRICT;
    -- Runs of sequences that are, or were, one insert each. Those that are confirmed become one a segment.
    CREATE TABLE ShipRange(
        firstSequence INTEGER PRIMARY KEY,
        lastSequence INTEGER NOT NULL,
        segment INTEGER NOT NULL,
        node INTEGER NOT NULL,
        rows INTEGER NOT NULL,
        bytes INTEGER NOT NULL, -- of the block that is sent
        hash BLOB NOT NULL CHECK (length(hash) = 16), -- of that block
        epoch INTEGER NOT NULL, -- counts the blocks that were made of it
        missing BLOB, -- which of its sequences are sent: runs of first and last, 8 bytes each, little-endian; NULL: all
        state TEXT NOT NULL CHECK (state IN ('open', 'confirmed', 'dead', 'lost')),
        firstArrival INTEGER NOT NULL, -- milliseconds since 1970, UTC
        attempts INTEGER NOT NULL,
        begunAt INTEGER, -- the first attempt of this block, in milliseconds since 1970, UTC; NULL: none yet
        version TEXT, -- of the server at that attempt
        note TEXT
    ) STRICT;
    -- Events that the target refuses.
    CREATE TABLE ShipDead(
        sequence INTEGER PRIMARY KEY,
        error TEXT NOT NULL,
        since INTEGER NOT NULL -- milliseconds since 1970, UTC
    ) STRICT;
    -- Erasures that the target has to follow. Whose events they are of is forgotten when nothing is left of them there.
    CREATE TABLE ShipErasure(
        erasure TEXT PRIMARY KEY,
        websiteId TEXT,
        visitorId TEXT,
        upTo INTEGER, -- NULL: of a website, as long as more of its events may come
        state TEXT NOT NULL CHECK (state IN ('waiting', 'masked', 'done')),
        changedAt INTEGER NOT NULL -- milliseconds since 1970, UTC
    ) STRICT;";

const CATALOG_7: &str = "
    -- The zone of its days and hours, by its name at IANA.
    ALTER TABLE Website ADD COLUMN timezone TEXT;
    -- The hosts that are its own, beside its domain: an array of JSON.
    ALTER TABLE Website ADD COLUMN hosts TEXT NOT NULL DEFAULT '[]';
    -- What its visitors are to do: an array of JSON, of objects with a name and either an event or a page.
    ALTER TABLE Website ADD COLUMN goals TEXT NOT NULL DEFAULT '[]';";

const CATALOG_8: &str = "
    -- What becomes of events of pages of other hosts.
    ALTER TABLE Website ADD COLUMN hostsPolicy TEXT NOT NULL DEFAULT 'warn' CHECK (hostsPolicy IN ('warn', 'refuse'));
    -- What becomes of events of visitors who send Sec-GPC: 1.
    ALTER TABLE Website ADD COLUMN gpc TEXT NOT NULL DEFAULT 'ignore' CHECK (gpc IN ('ignore', 'anonymous', 'drop'));
    -- Tracking codes that websites had before, and that are as good as their own for some time.
    CREATE TABLE RetiredCode(
        code TEXT PRIMARY KEY,
        websiteId TEXT NOT NULL,
        validUntil INTEGER NOT NULL -- milliseconds since 1970, UTC
    ) STRICT;";

/// Refuses a file that is not hitlog's. A file without pages (made by a start that was cut short) passes.
pub(crate) fn check_application_id(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let id: i32 = pragma(connection, path, "application_id")?;
    let pages: i64 = pragma(connection, path, "page_count")?;
    if id == APPLICATION_ID || pages == 0 {
        return Ok(());
    }
    Err(OpenError::NotOurs { path: path.into(), reason: format!("its application id is {id:#x}") })
}

/// Refuses a catalog that is not hitlog's, or one of a newer hitlog.
pub(crate) fn check_catalog(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    check_application_id(connection, path)?;
    let found: i64 = pragma(connection, path, "user_version")?;
    if found > CATALOG_VERSION {
        return Err(OpenError::Newer { path: path.into(), found, known: CATALOG_VERSION });
    }
    Ok(())
}

/// Refuses a file that is not a segment of hitlog's, or one of a newer hitlog.
pub(crate) fn check_segment(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    check_application_id(connection, path)?;
    let found: i64 = pragma(connection, path, "user_version")?;
    if found > SEGMENT_VERSION {
        return Err(OpenError::Newer { path: path.into(), found, known: SEGMENT_VERSION });
    }
    Ok(())
}

/// Reads one value of a pragma.
pub(crate) fn pragma<T: rusqlite::types::FromSql>(
    connection: &Connection,
    path: &Path,
    name: &str,
) -> Result<T, OpenError> {
    connection.pragma_query_value(None, name, |row| row.get(0)).map_err(OpenError::sqlite(path))
}

/// How hitlog opens files that it writes and that are there. Each connection belongs to one thread at a time, so
/// SQLite's own mutexes would only cost.
pub(crate) fn write_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

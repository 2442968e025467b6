//! The tables of rollups, and what is read of properties, which stand in none.

/// What numbers are answered from: of each website the sums of quarters of an hour, and its events as fragments.
pub(crate) const ROLLUP_SQL: &str = "
    CREATE TABLE Rollup(
        websiteId TEXT PRIMARY KEY,
        events INTEGER NOT NULL,
        unwanted INTEGER NOT NULL, -- of them, those with flags 1 or 2
        firstCreatedAt INTEGER NOT NULL,
        lastCreatedAt INTEGER NOT NULL,
        quarters BLOB NOT NULL, -- sums and visitors of each quarter of an hour, UTC
        blocks BLOB NOT NULL, -- ids, sizes and times of its blocks
        hash INTEGER NOT NULL, -- XXH3 of all that stands before
        dictionaries BLOB NOT NULL, -- what events are filed under
        dictionariesHash INTEGER NOT NULL
    );
    CREATE TABLE RollupBlock(
        id INTEGER PRIMARY KEY,
        keys BLOB NOT NULL, -- whose its fragments are, and when they begin and end
        keysHash INTEGER NOT NULL,
        hits BLOB NOT NULL, -- their events
        hitsHash INTEGER NOT NULL
    );
    CREATE TABLE RollupList(
        websiteId TEXT NOT NULL,
        kind INTEGER NOT NULL, -- what events are grouped by
        groups BLOB NOT NULL, -- sums and visitors of each group
        hash INTEGER NOT NULL, -- XXH3 of website, kind and that
        PRIMARY KEY(websiteId, kind)
    );";

/// Reads the properties of a website's events up to a sequence, where a text stands in them or may stand in another
/// spelling.
pub(crate) const SELECT_PROPERTIES_OF_WEBSITE: &str = "
    SELECT id, visitorId, properties FROM Event NOT INDEXED
    WHERE id <= ?1 AND websiteId = ?2 AND (instr(properties, ?3) > 0 OR instr(properties, '\\') > 0)";

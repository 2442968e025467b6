//! The catalog's tables of segments: which there are, in which state, which generation of each counts and what it says
//! of itself; and which other generations may be removed.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, params};

use super::{erasure::ErasedRows, erasure_table, ship_table, written_off_table};
use crate::{
    clock::now_ms,
    store::segments::{FACTS_COLUMNS, Facts, Identity, Segment},
};

/// What a segment is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// Made ahead, empty.
    Prepared,
    /// Being written.
    Active,
    /// Full, waiting for its indexes.
    Unsealed,
    /// Indexed; its file never changes again.
    Sealed,
    /// Gone; its files may still be there.
    Dropped,
}

impl SegmentState {
    const ALL: [Self; 5] = [Self::Prepared, Self::Active, Self::Unsealed, Self::Sealed, Self::Dropped];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Unsealed => "unsealed",
            Self::Sealed => "sealed",
            Self::Dropped => "dropped",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListedSegment {
    pub(crate) number: i64,
    pub(crate) generation: i64,
    pub(crate) state: SegmentState,
    /// What a sealed one said of itself when it was sealed; `None` if nobody has noted that yet.
    pub(crate) facts: Option<Facts>,
}

impl ListedSegment {
    /// Which segment and which generation is listed.
    pub(crate) fn identity(&self) -> Identity {
        Identity { number: self.number, generation: self.generation }
    }

    /// Whether no row was ever in it: it is being made, or its making was cut short. A missing file has no bytes.
    pub(crate) fn is_unmade(&self, file_bytes: u64) -> bool {
        self.state == SegmentState::Prepared && file_bytes == 0
    }
}

/// A change of the table, made in one transaction.
#[derive(Debug)]
pub(crate) enum SegmentChange {
    /// A new segment's file is complete.
    Prepared(i64),
    /// Rows go to this segment from now on; those that they went to before wait for their indexes.
    Activated {
        /// The segment's number.
        number: i64,
        /// No sequence below this one is given any more, whatever becomes of the files.
        sequence_floor: u64,
    },
    /// A generation is complete and about to get its name: until it is listed, it may be removed.
    Built(Identity),
    /// The segment's generation takes the place of the one before, which may be removed from now on.
    Sealed {
        /// The new generation.
        segment: Arc<Segment>,
        /// What it says of itself.
        facts: Facts,
        /// No sequence below this one is given any more.
        sequence_floor: u64,
        /// How many events of each erasure the new generation leaves out.
        erased: Vec<ErasedRows>,
    },
    /// The segment is gone: all of its events have expired or are erased.
    Dropped {
        /// The segment's number.
        number: i64,
        /// No sequence below this one is given any more.
        sequence_floor: u64,
        /// What it held that was to be erased.
        erased: Vec<ErasedRows>,
        /// Its first sequence, if its events have expired: those that were not shipped are lost to whoever ships.
        /// `None` if all of them are erased.
        expired_from: Option<u64>,
    },
    /// The files of generations that were replaced or dropped are gone, and cannot come back.
    Unlinked(Vec<Identity>),
    /// What sealed segments say of themselves, by number.
    Noted(Vec<(i64, Facts)>),
    /// A read has found that a sealed segment is damaged, and how; `None` when its file is whole again.
    Damaged(i64, Option<String>),
    /// What files of segments without indexes hold by now, durably: the last sequence, by number.
    OpenNoted {
        /// 0 where nothing is in it.
        last: Vec<(i64, u64)>,
        /// No sequence below this one is given any more.
        sequence_floor: u64,
    },
    /// The segment with this number is none: nothing is in it.
    Unlisted(i64),
    /// The segment is given up.
    WrittenOff {
        /// The segment's number, which is not given again.
        number: i64,
        /// No sequence below this one is given any more.
        sequence_floor: u64,
    },
    /// A file of a segment, with its first and its last sequence, has the place of the one that was listed, if one was.
    Adopted(ListedSegment, (u64, u64)),
    /// Files were moved to the quarantine.
    Quarantined {
        /// The name of each there, and why.
        files: Vec<(String, String)>,
        /// No segment gets this number or a lower one any more.
        number_floor: i64,
        /// No sequence below this one is given any more.
        sequence_floor: u64,
    },
    /// This file has left the quarantine.
    Released(String),
}

/// Every segment, by number.
pub(crate) fn read_segments(connection: &Connection) -> rusqlite::Result<Vec<ListedSegment>> {
    // An older hitlog did not note what sealed segments say.
    let has_facts = connection.column_exists(None, "Segment", "digest")?;
    let facts = if has_facts { FACTS_COLUMNS } else { "NULL, NULL, NULL, NULL, NULL, NULL" };
    let mut statement =
        connection.prepare(&format!("SELECT number, generation, state, {facts} FROM Segment ORDER BY number"))?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(2)?;
        // The table's CHECK lets no other name in.
        let state = SegmentState::ALL.into_iter().find(|state| state.as_str() == name);
        Ok(ListedSegment {
            number: row.get(0)?,
            generation: row.get(1)?,
            state: state.ok_or(rusqlite::Error::InvalidQuery)?,
            facts: Facts::of_row(row, 3)?,
        })
    })?;
    rows.collect()
}

/// The generations that may be removed: replaced, or never listed.
pub(crate) fn read_leftovers(connection: &Connection) -> rusqlite::Result<Vec<Identity>> {
    if !connection.table_exists(None, "Leftover")? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare("SELECT number, generation FROM Leftover")?;
    let rows = select.query_map([], |row| Ok(Identity { number: row.get(0)?, generation: row.get(1)? }))?;
    rows.collect()
}

/// The damage that reads have found, by the number of the segment.
pub(crate) fn read_damage(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, String>> {
    if !connection.table_exists(None, "Damage")? {
        return Ok(BTreeMap::new());
    }
    let mut select = connection.prepare("SELECT number, reason FROM Damage")?;
    select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// What the files of segments without indexes hold at the least: the last sequence, by the number of the segment.
pub(crate) fn read_open_notes(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, u64>> {
    if !connection.table_exists(None, "OpenSegment")? {
        return Ok(BTreeMap::new());
    }
    let mut select = connection.prepare("SELECT number, lastSequence FROM OpenSegment")?;
    select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?.collect()
}

/// Why each file is in the quarantine, by its name there.
pub(crate) fn read_quarantine(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    if !connection.table_exists(None, "Quarantine")? {
        return Ok(Vec::new());
    }
    let mut select = connection.prepare("SELECT file, reason FROM Quarantine ORDER BY file")?;
    select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Makes a change, and what it means for the sequence floor and for erasures.
pub(super) fn apply(connection: &mut Connection, change: &SegmentChange) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    match change {
        SegmentChange::Prepared(number) => {
            // An earlier try may have got as far as this row.
            transaction.execute(
                "INSERT OR REPLACE INTO Segment(number, generation, state) VALUES(?1, 1, 'prepared')",
                [number],
            )?;
            note_open(&transaction, *number, 0)?;
        }
        SegmentChange::Activated { number, sequence_floor } => {
            let before = "UPDATE Segment SET state = 'unsealed' WHERE number < ?1 AND state IN ('active', 'prepared')";
            transaction.execute(before, [number])?;
            transaction.execute("UPDATE Segment SET state = 'active' WHERE number = ?1", [number])?;
            raise_floor(&transaction, *sequence_floor)?;
        }
        SegmentChange::Built(identity) => insert_leftover(&transaction, *identity)?,
        SegmentChange::Sealed { segment, facts, sequence_floor, erased } => {
            let identity = Identity { number: segment.number, generation: segment.generation };
            replace_listed(&transaction, identity)?;
            note_sealed(&transaction, identity, facts, *sequence_floor)?;
            forget_open(&transaction, segment.number)?;
            erasure_table::segment_done(&transaction, erased)?;
        }
        SegmentChange::Dropped { number, sequence_floor, erased, expired_from } => {
            transaction.execute("UPDATE Segment SET state = 'dropped' WHERE number = ?1", [number])?;
            forget_open(&transaction, *number)?;
            raise_floor(&transaction, *sequence_floor)?;
            erasure_table::segment_done(&transaction, erased)?;
            let expired = expired_from.map(|first| (first, sequence_floor.saturating_sub(1)));
            ship_table::drop_segment(&transaction, *number, expired)?;
        }
        SegmentChange::Unlinked(gone) => gone.iter().try_for_each(|identity| unlinked(&transaction, *identity))?,
        SegmentChange::Noted(all) => {
            all.iter().try_for_each(|(number, facts)| note_facts(&transaction, *number, facts))?;
        }
        SegmentChange::Damaged(number, Some(reason)) => {
            transaction.execute("INSERT OR REPLACE INTO Damage VALUES(?1, ?2)", params![number, reason])?;
        }
        SegmentChange::Damaged(number, None) => forget_damage(&transaction, *number)?,
        SegmentChange::OpenNoted { last, sequence_floor } => {
            last.iter().try_for_each(|(number, last)| note_open(&transaction, *number, *last))?;
            raise_floor(&transaction, *sequence_floor)?;
        }
        SegmentChange::Unlisted(number) => {
            transaction.execute("DELETE FROM Segment WHERE number = ?1", [number])?;
            forget_open(&transaction, *number)?;
        }
        SegmentChange::WrittenOff { number, sequence_floor } => {
            write_off(&transaction, *number)?;
            raise_floor(&transaction, *sequence_floor)?;
            written_off_table::insert(&transaction, *number)?;
        }
        SegmentChange::Adopted(adopted, sequences) => adopt(&transaction, adopted, *sequences)?,
        SegmentChange::Quarantined { files, number_floor, sequence_floor } => {
            files.iter().try_for_each(|(file, reason)| note_quarantined(&transaction, file, reason))?;
            raise_number_floor(&transaction, *number_floor)?;
            raise_floor(&transaction, *sequence_floor)?;
        }
        SegmentChange::Released(file) => {
            transaction.execute("DELETE FROM Quarantine WHERE file = ?1", [file])?;
        }
    }
    transaction.commit()
}

/// Notes that a generation is the one that counts, and what it says of itself, within a transaction.
pub(crate) fn note_sealed(
    connection: &Connection,
    Identity { number, generation }: Identity,
    facts: &Facts,
    sequence_floor: u64,
) -> rusqlite::Result<()> {
    let sealed = "UPDATE Segment SET state = 'sealed', generation = ?2 WHERE number = ?1";
    connection.execute(sealed, params![number, generation])?;
    note_facts(connection, number, facts)?;
    // A segment is sealed only after the log has rolled to the next; the change that says so may have failed.
    let followed = "UPDATE Segment SET state = 'active'
                    WHERE number = (SELECT min(number) FROM Segment WHERE number > ?1) AND state = 'prepared'";
    connection.execute(followed, [number])?;
    raise_floor(connection, sequence_floor)
}

fn note_facts(connection: &Connection, number: i64, facts: &Facts) -> rusqlite::Result<()> {
    // The copy of an older catalog, for a backup, has no place for them.
    if !connection.column_exists(None, "Segment", "digest")? {
        return Ok(());
    }
    let note = format!("UPDATE Segment SET ({FACTS_COLUMNS}) = (?2, ?3, ?4, ?5, ?6, ?7) WHERE number = ?1");
    let [rows, first_sequence, last_sequence, first_created_at, last_created_at, digest] = facts.values();
    let values = params![number, rows, first_sequence, last_sequence, first_created_at, last_created_at, digest];
    connection.prepare_cached(&note)?.execute(values).map(drop)
}

/// Notes that the listed generation of a segment is a leftover from now on, and that this one no longer is.
fn replace_listed(connection: &Connection, by: Identity) -> rusqlite::Result<()> {
    let leave = "INSERT OR IGNORE INTO Leftover SELECT number, generation FROM Segment
                 WHERE number = ?1 AND generation <> ?2";
    connection.execute(leave, [by.number, by.generation])?;
    connection.execute("DELETE FROM Leftover WHERE number = ?1 AND generation = ?2", [by.number, by.generation])?;
    Ok(())
}

fn insert_leftover(connection: &Connection, of: Identity) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO Leftover(number, generation) VALUES(?1, ?2)";
    connection.execute(insert, [of.number, of.generation]).map(drop)
}

/// Forgets a generation that is gone; a dropped segment goes with the generation that was its last.
fn unlinked(connection: &Connection, gone: Identity) -> rusqlite::Result<()> {
    let of = [gone.number, gone.generation];
    connection.prepare_cached("DELETE FROM Leftover WHERE number = ?1 AND generation = ?2")?.execute(of)?;
    let dropped = "DELETE FROM Segment WHERE number = ?1 AND generation = ?2 AND state = 'dropped'";
    connection.prepare_cached(dropped)?.execute(of).map(drop)
}

fn adopt(connection: &Connection, adopted: &ListedSegment, sequences: (u64, u64)) -> rusqlite::Result<()> {
    let ListedSegment { number, generation, state, facts } = *adopted;
    replace_listed(connection, Identity { number, generation })?;
    let list = "INSERT OR REPLACE INTO Segment(number, generation, state) VALUES(?1, ?2, ?3)";
    connection.execute(list, params![number, generation, state.as_str()])?;
    forget_damage(connection, number)?;
    forget_open(connection, number)?;
    written_off_table::remove(connection, number)?;
    ship_table::adopt_segment(connection, number, sequences)?;
    if let Some(facts) = &facts {
        note_facts(connection, number, facts)?;
        raise_floor(connection, facts.last_sequence + 1)?;
    }
    Ok(())
}

fn write_off(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM Segment WHERE number = ?1", [number])?;
    connection.execute("DELETE FROM Leftover WHERE number = ?1", [number])?;
    forget_damage(connection, number)?;
    forget_open(connection, number)?;
    raise_number_floor(connection, number)
}

fn note_quarantined(connection: &Connection, file: &str, reason: &str) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO Quarantine(file, reason, since) VALUES(?1, ?2, ?3)";
    connection.execute(insert, params![file, reason, now_ms()]).map(drop)
}

fn forget_damage(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM Damage WHERE number = ?1", [number]).map(drop)
}

fn note_open(connection: &Connection, number: i64, last: u64) -> rusqlite::Result<()> {
    let note = "INSERT OR REPLACE INTO OpenSegment(number, lastSequence) VALUES(?1, ?2)";
    connection.execute(note, params![number, last.cast_signed()]).map(drop)
}

fn forget_open(connection: &Connection, number: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM OpenSegment WHERE number = ?1", [number]).map(drop)
}

fn raise_number_floor(connection: &Connection, number_floor: i64) -> rusqlite::Result<()> {
    connection.execute("UPDATE Log SET numberFloor = max(numberFloor, ?1)", [number_floor]).map(drop)
}

fn raise_floor(connection: &Connection, sequence_floor: u64) -> rusqlite::Result<()> {
    let raise = "UPDATE Log SET sequenceFloor = max(sequenceFloor, ?1)";
    connection.execute(raise, [sequence_floor.cast_signed()]).map(|_| ())
}

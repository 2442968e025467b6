//! The catalog's table of segments: which there are, in which state, and which generation of each counts.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{erasure::ErasedRows, erasure_table};
use crate::store::segments::Segment;

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
}

impl ListedSegment {
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
    /// The segment's generation is complete and takes the place of the one before.
    Sealed {
        /// The new generation.
        segment: Arc<Segment>,
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
    },
    /// The files of a dropped segment are gone.
    Unlisted(i64),
}

/// Every segment, by number.
pub(crate) fn read_segments(connection: &Connection) -> rusqlite::Result<Vec<ListedSegment>> {
    let mut statement = connection.prepare("SELECT number, generation, state FROM Segment ORDER BY number")?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(2)?;
        // The table's CHECK lets no other name in.
        let state = SegmentState::ALL.into_iter().find(|state| state.as_str() == name);
        Ok(ListedSegment {
            number: row.get(0)?,
            generation: row.get(1)?,
            state: state.ok_or(rusqlite::Error::InvalidQuery)?,
        })
    })?;
    rows.collect()
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
        }
        SegmentChange::Activated { number, sequence_floor } => {
            let before = "UPDATE Segment SET state = 'unsealed' WHERE number < ?1 AND state IN ('active', 'prepared')";
            transaction.execute(before, [number])?;
            transaction.execute("UPDATE Segment SET state = 'active' WHERE number = ?1", [number])?;
            raise_floor(&transaction, *sequence_floor)?;
        }
        SegmentChange::Sealed { segment, sequence_floor, erased } => {
            note_sealed(&transaction, segment.number, segment.generation, *sequence_floor)?;
            erasure_table::segment_done(&transaction, erased)?;
        }
        SegmentChange::Dropped { number, sequence_floor, erased } => {
            transaction.execute("UPDATE Segment SET state = 'dropped' WHERE number = ?1", [number])?;
            raise_floor(&transaction, *sequence_floor)?;
            erasure_table::segment_done(&transaction, erased)?;
        }
        SegmentChange::Unlisted(number) => {
            transaction.execute("DELETE FROM Segment WHERE number = ?1 AND state = 'dropped'", [number])?;
        }
    }
    transaction.commit()
}

/// Notes that a generation is the one that counts, within a transaction.
pub(crate) fn note_sealed(
    connection: &Connection,
    number: i64,
    generation: i64,
    sequence_floor: u64,
) -> rusqlite::Result<()> {
    let sealed = "UPDATE Segment SET state = 'sealed', generation = ?2 WHERE number = ?1";
    connection.execute(sealed, params![number, generation])?;
    // A segment is sealed only after the log has rolled to the next; the change that says so may have failed.
    let followed = "UPDATE Segment SET state = 'active' WHERE number = ?1 + 1 AND state = 'prepared'";
    connection.execute(followed, [number])?;
    raise_floor(connection, sequence_floor)
}

fn raise_floor(connection: &Connection, sequence_floor: u64) -> rusqlite::Result<()> {
    let raise = "UPDATE Log SET sequenceFloor = max(sequenceFloor, ?1)";
    connection.execute(raise, [sequence_floor.cast_signed()]).map(|_| ())
}

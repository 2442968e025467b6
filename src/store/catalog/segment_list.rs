//! The catalog's list of segments: which there are, in which state, and which generation of each counts.

use rusqlite::{Connection, params};

/// What a segment is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum SegmentState {
    /// Made ahead, empty.
    Prepared,
    /// Being written.
    Active,
    /// Full, waiting for its indexes.
    Unsealed,
    /// Indexed; its file never changes again.
    Sealed,
    /// Not a segment any more; its files may still be there.
    Dropped,
}

impl SegmentState {
    const ALL: [Self; 5] = [Self::Prepared, Self::Active, Self::Unsealed, Self::Sealed, Self::Dropped];

    pub(in crate::store) fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Unsealed => "unsealed",
            Self::Sealed => "sealed",
            Self::Dropped => "dropped",
        }
    }
}

/// A line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct ListedSegment {
    pub(in crate::store) number: i64,
    pub(in crate::store) generation: i64,
    pub(in crate::store) state: SegmentState,
}

/// A change of the list, made in one transaction.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum SegmentChange {
    /// A new segment's file is complete.
    Prepared(i64),
    /// Rows go to this segment from now on; those that they went to before wait for their indexes.
    Activated {
        /// Which.
        number: i64,
        /// No sequence below is given any more, whatever becomes of the files that hold them.
        sequence_floor: u64,
    },
    /// The segment's generation is complete and takes the place of the one before.
    Sealed {
        /// Which.
        number: i64,
        /// Its new generation.
        generation: i64,
        /// No sequence below is given any more.
        sequence_floor: u64,
    },
}

pub(in crate::store) fn read(connection: &Connection) -> rusqlite::Result<Vec<ListedSegment>> {
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

pub(in crate::store) fn apply(connection: &mut Connection, change: SegmentChange) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    match change {
        SegmentChange::Prepared(number) => {
            // Or replace: an earlier try may have failed later on.
            transaction.execute(
                "INSERT OR REPLACE INTO Segment(number, generation, state) VALUES(?1, 1, 'prepared')",
                [number],
            )?;
        }
        SegmentChange::Activated { number, sequence_floor } => {
            let before = "UPDATE Segment SET state = 'unsealed' WHERE number < ?1 AND state IN ('active', 'prepared')";
            transaction.execute(before, [number])?;
            transaction.execute("UPDATE Segment SET state = 'active' WHERE number = ?1", [number])?;
            raise_floor(&transaction, sequence_floor)?;
        }
        SegmentChange::Sealed { number, generation, sequence_floor } => {
            transaction.execute(
                "UPDATE Segment SET state = 'sealed', generation = ?2 WHERE number = ?1",
                params![number, generation],
            )?;
            // Only a segment that was followed by the next is sealed; the change that said so may have failed.
            let followed = "UPDATE Segment SET state = 'active' WHERE number = ?1 + 1 AND state = 'prepared'";
            transaction.execute(followed, [number])?;
            raise_floor(&transaction, sequence_floor)?;
        }
    }
    transaction.commit()
}

fn raise_floor(connection: &Connection, sequence_floor: u64) -> rusqlite::Result<()> {
    let raise = "UPDATE Log SET sequenceFloor = max(sequenceFloor, ?1)";
    connection.execute(raise, [sequence_floor.cast_signed()]).map(|_| ())
}

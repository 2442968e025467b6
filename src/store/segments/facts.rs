//! What a sealed segment says of itself in a few numbers, which the catalog keeps to know the file again.

use rusqlite::{Connection, OptionalExtension, Row, params};
use xxhash_rust::xxh3::Xxh3;

use crate::store::format::schema;

/// What a sealed segment says of itself. Two files that say the same hold the same events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The number of its events.
    pub(crate) rows: u64,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    /// The lowest and the highest `createdAt`, in milliseconds since 1970, UTC.
    pub(crate) first_created_at: i64,
    pub(crate) last_created_at: i64,
    /// The XXH3 hash of its number, its generation and its summary.
    pub(crate) digest: u64,
}

/// The columns of [`Facts`], in the order of [`Facts::of_row`].
pub(crate) const FACTS_COLUMNS: &str = "rows, firstSequence, lastSequence, firstCreatedAt, lastCreatedAt, digest";

impl Facts {
    /// Reads [`FACTS_COLUMNS`], which begin at this column; `None` if nothing was noted.
    pub(crate) fn of_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Self>> {
        let Some(digest) = row.get::<_, Option<i64>>(first + 5)? else { return Ok(None) };
        let unsigned = |column: usize| row.get::<_, i64>(first + column).map(i64::cast_unsigned);
        Ok(Some(Self {
            rows: unsigned(0)?,
            first_sequence: unsigned(1)?,
            last_sequence: unsigned(2)?,
            first_created_at: row.get(first + 3)?,
            last_created_at: row.get(first + 4)?,
            digest: digest.cast_unsigned(),
        }))
    }

    /// The values of [`FACTS_COLUMNS`].
    pub(crate) fn values(&self) -> [i64; 6] {
        [
            self.rows.cast_signed(),
            self.first_sequence.cast_signed(),
            self.last_sequence.cast_signed(),
            self.first_created_at,
            self.last_created_at,
            self.digest.cast_signed(),
        ]
    }
}

/// Which segment a file says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) number: i64,
    pub(crate) generation: i64,
}

impl Identity {
    /// Has a file say which segment it is.
    pub(crate) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        // What a copy was before it was copied.
        connection.execute_batch("DROP TABLE IF EXISTS Identity")?;
        connection.execute_batch(schema::IDENTITY_SQL)?;
        connection.execute("INSERT INTO Identity VALUES(1, ?1, ?2)", params![self.number, self.generation]).map(drop)
    }

    /// Which segment a file says it is; `None` if an older hitlog sealed it, which did not have it say so.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        if !connection.table_exists(None, "Identity")? {
            return Ok(None);
        }
        let read = |row: &Row<'_>| Ok(Self { number: row.get(0)?, generation: row.get(1)? });
        connection.query_row("SELECT number, generation FROM Identity", [], read).optional()
    }
}

/// Takes in what a segment says, always in the same order, each text with its length before it.
pub(super) struct Digest(Xxh3);

impl Digest {
    pub(super) fn new(identity: Option<Identity>) -> Self {
        let mut digest = Self(Xxh3::new());
        digest.numbers(&identity.map_or([0, 0], |of| [of.number, of.generation]));
        digest
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    pub(super) fn numbers(&mut self, numbers: &[i64]) {
        numbers.iter().for_each(|number| self.0.update(&number.to_le_bytes()));
    }

    pub(super) fn end(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The catalogs on people's disks hold these numbers: another encoding would call every segment damaged.
    #[test]
    fn the_digest_stays_what_it_is() {
        let digest = |identity, texts: &[&str], numbers: &[i64]| {
            let mut digest = Digest::new(identity);
            texts.iter().for_each(|text| digest.text(text.as_bytes()));
            digest.numbers(numbers);
            digest.end()
        };
        let identity = |number, generation| Some(Identity { number, generation });
        let all = [
            digest(None, &[], &[]),
            digest(identity(7, 2), &["web-1", "click"], &[1, -1]),
            digest(identity(2, 7), &["web-1", "click"], &[1, -1]),
            digest(identity(7, 2), &["web-1c", "lick"], &[1, -1]),
            digest(identity(7, 2), &["web-1", "click"], &[-1, 1]),
        ];
        let noted = [
            15_034_821_391_391_295_848,
            13_053_600_400_071_697_826,
            167_088_483_156_958_168,
            388_757_750_826_968_131,
            3_063_199_969_273_185_350,
        ];
        assert_eq!(all, noted);
    }
}

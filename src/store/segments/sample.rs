//! A few rows of a full segment in one number, so that keys which were laid down for other rows are told from its own:
//! a copy of the data directory may have filled a segment of the same number with the same sequences.

use rusqlite::{Connection, OptionalExtension};
use xxhash_rust::xxh3::xxh3_64;

use super::{columns::RowKeys, keys::Sites};

/// Rows of a segment that are looked at, and its last one.
const SAMPLE_ROWS: u64 = 64;

/// How far apart the rows of a sample are.
pub(crate) fn sample_step(first: u64, last: u64) -> u64 {
    ((last - first) / SAMPLE_ROWS).max(1)
}

/// The hash of a sample of rows, by sequence: each one's, its `createdAt`, the place of its type, and the fingerprints
/// of its session and visitor.
pub(crate) fn sample(rows: impl IntoIterator<Item = (u64, i64, u32, (u32, u32))>) -> u64 {
    let mut bytes = Vec::new();
    for (sequence, created_at, kind, (session, visitor)) in rows {
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&created_at.to_le_bytes());
        for number in [kind, session, visitor] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    xxh3_64(&bytes)
}

/// The sample of the rows that are in a segment.
pub(crate) fn sample_of_rows(
    connection: &Connection,
    (first, last): (u64, u64),
    sites: &Sites,
) -> rusqlite::Result<u64> {
    let mut select =
        connection.prepare("SELECT websiteId, eventType, createdAt, sessionId, visitorId FROM Event WHERE id = ?1")?;
    let step = usize::try_from(sample_step(first, last)).unwrap_or(usize::MAX);
    let sampled = (first..last).step_by(step).chain([last]);
    let mut rows = Vec::new();
    for sequence in sampled {
        let row = select.query_row([sequence.cast_signed()], |row| {
            let text = |column| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_bytes()?);
            let keys = RowKeys::new(sites, (text(0)?, text(1)?), row.get(2)?, (text(3)?, text(4)?));
            Ok((sequence, keys.created_at, keys.stream.kind(), (keys.session, keys.visitor)))
        });
        rows.extend(row.optional()?);
    }
    Ok(sample(rows))
}

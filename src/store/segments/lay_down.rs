//! Lays the keys of a full segment down in a file beside it: sorts them once, and gives their memory back.

use std::{io, path::Path};

use super::{
    columns::ColumnsSnapshot,
    fence::FENCE_ENTRIES,
    keys::{Sites, Stream},
    laid::{FINGERPRINT_BYTES, KEY_BYTES, VERSION},
};
use crate::store::format::blocks::BlockWriter;

/// A row, as it is sorted.
struct Entry {
    created_at: i64,
    stream: Stream,
    row: u32,
}

/// Writes the keys of the segment with this number to `path`, by way of the temporary name `unfinished`. Takes up to
/// 24 bytes of memory a row for the time that it takes.
pub(crate) fn lay_down(
    columns: &ColumnsSnapshot,
    number: i64,
    sites: &Sites,
    unfinished: &Path,
    path: &Path,
) -> io::Result<()> {
    let (first, last) = (columns.first_sequence(), columns.last_sequence());
    if last - first > u64::from(u32::MAX) {
        // Only where sequences were left out: a segment of four thousand million rows is none that hitlog makes.
        return Err(io::Error::other("the sequences of the segment lie too far apart"));
    }
    let mut file = BlockWriter::create(unfinished)?;
    let (streams, posts) = write_streams(&mut file, columns, first, sites)?;
    let posts_at = file.position();
    file.write(&posts)?;
    let mut header = Vec::new();
    for number in [VERSION, number.unsigned_abs(), first, last, posts_at, file.position()] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    for of in [|(session, _): (u32, u32)| session, |(_, visitor)| visitor] {
        write_fingerprints(&mut file, &mut header, columns, first, of)?;
    }
    header.extend_from_slice(&streams);
    file.finish(&header, path)
}

/// Writes the keys of each stream; returns where they are, for the header, and their fence posts.
fn write_streams(
    file: &mut BlockWriter,
    columns: &ColumnsSnapshot,
    first: u64,
    sites: &Sites,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut streams, mut posts) = (Vec::new(), Vec::new());
    let mut entries = Vec::with_capacity(columns.rows());
    entries.extend(columns.entries().map(|(stream, key)| Entry {
        created_at: key.created_at,
        stream,
        row: (key.sequence - first) as u32,
    }));
    // Stable, because it finds the runs that the chunks of the columns are.
    entries.sort_by_key(|entry| (entry.stream, entry.created_at, entry.row));
    for of_stream in entries.chunk_by(|one, next| one.stream == next.stream) {
        let Some((oldest, newest)) = of_stream.first().zip(of_stream.last()) else { continue };
        let website_id = sites.id(oldest.stream.site());
        for number in [oldest.stream.kind().into(), website_id.len() as u64] {
            streams.extend_from_slice(&number.to_le_bytes());
        }
        streams.extend_from_slice(&website_id);
        for number in [
            file.position(),
            of_stream.len() as u64,
            oldest.created_at.cast_unsigned(),
            newest.created_at.cast_unsigned(),
        ] {
            streams.extend_from_slice(&number.to_le_bytes());
        }
        for (at, entry) in (0..).zip(of_stream) {
            let mut bytes = [0; KEY_BYTES];
            bytes[..8].copy_from_slice(&entry.created_at.to_le_bytes());
            bytes[8..].copy_from_slice(&entry.row.to_le_bytes());
            file.write(&bytes)?;
            if u64::is_multiple_of(at, FENCE_ENTRIES) {
                posts.extend_from_slice(&bytes);
            }
        }
    }
    Ok((streams, posts))
}

/// Writes the rows of each fingerprint, and adds where they are to the header.
fn write_fingerprints(
    file: &mut BlockWriter,
    header: &mut Vec<u8>,
    columns: &ColumnsSnapshot,
    first: u64,
    of: impl Fn((u32, u32)) -> u32,
) -> io::Result<()> {
    let mut entries = Vec::with_capacity(columns.rows());
    let entry = |(sequence, fingerprints)| u64::from(of(fingerprints)) << 32 | (sequence - first);
    entries.extend(columns.fingerprints().map(entry));
    entries.sort_unstable();
    for number in [file.position(), entries.len() as u64] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    for post in entries.iter().step_by(FENCE_ENTRIES as usize) {
        header.extend_from_slice(&((post >> 32) as u32).to_le_bytes());
    }
    for entry in entries {
        let mut bytes = [0; FINGERPRINT_BYTES];
        bytes[..4].copy_from_slice(&((entry >> 32) as u32).to_le_bytes());
        bytes[4..].copy_from_slice(&(entry as u32).to_le_bytes());
        file.write(&bytes)?;
    }
    Ok(())
}

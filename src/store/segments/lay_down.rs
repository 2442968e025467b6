//! Lays keys down in a file beside their segment, sorted: those of all rows of a full one, which gives their memory
//! back, or those of some rows of any.

use std::{io, path::Path};

use rustix::io::Errno;

use super::{
    columns::ColumnsSnapshot,
    fence::FENCE_ENTRIES,
    keys::{Key, Sites, Stream},
    laid::{FINGERPRINT_BYTES, KEY_BYTES, VERSION},
    sample::{sample, sample_step},
};
use crate::store::format::{blocks::BlockWriter, room::free_bytes};

/// A row, as it is sorted and written.
#[derive(Clone, Copy)]
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
    let mut entries = Vec::with_capacity(columns.rows());
    entries.extend(columns.entries().map(|(stream, key)| entry(first, stream, key)));
    // Stable, because it finds the runs that the chunks of the columns are.
    entries.sort_by_key(|entry| (entry.stream, entry.created_at, entry.row));
    let sample = sample_of_columns(columns, &entries, (first, last));
    let mut laying = Laying::begin(unfinished, (number, sample), (first, last), (&entries, |entry| *entry), sites)?;
    drop(entries);
    for of in [|(session, _): (u32, u32)| session, |(_, visitor)| visitor] {
        let fingerprints = columns.fingerprints().map(|(sequence, both)| (sequence, of(both)));
        laying.fingerprints(columns.rows(), fingerprints)?;
    }
    laying.finish(path)
}

/// Writes the keys of some rows of the segment with this number to `path`; sorts them where they are.
pub(crate) fn lay_some_down(
    keys: &mut [(Stream, Key)],
    number: i64,
    sites: &Sites,
    unfinished: &Path,
    path: &Path,
) -> io::Result<()> {
    keys.sort_unstable();
    let sequences = keys.iter().map(|(_, key)| key.sequence);
    let (first, last) = (sequences.clone().min().unwrap_or(0), sequences.max().unwrap_or(0));
    let of = |&(stream, key): &(Stream, Key)| entry(first, stream, key);
    let mut laying = Laying::begin(unfinished, (number, 0), (first, last), (&*keys, of), sites)?;
    for _ in 0..2 {
        laying.fingerprints(0, std::iter::empty())?;
    }
    laying.finish(path)
}

/// The [`sample`] of a segment's rows, of which these are the sorted keys.
fn sample_of_columns(columns: &ColumnsSnapshot, entries: &[Entry], (first, last): (u64, u64)) -> u64 {
    let step = sample_step(first, last);
    let is_in = |row: u64| row.is_multiple_of(step) || row == last - first;
    let fingerprints = columns.fingerprints().filter(|(sequence, _)| is_in(sequence - first));
    let mut rows: Vec<_> = fingerprints.map(|(sequence, both)| (sequence, 0, 0, both)).collect();
    for entry in entries.iter().filter(|entry| is_in(entry.row.into())) {
        let sequence = first + u64::from(entry.row);
        if let Ok(at) = rows.binary_search_by_key(&sequence, |row| row.0) {
            (rows[at].1, rows[at].2) = (entry.created_at, entry.stream.kind());
        }
    }
    sample(rows)
}

fn entry(first_sequence: u64, stream: Stream, key: Key) -> Entry {
    Entry { created_at: key.created_at, stream, row: (key.sequence - first_sequence) as u32 }
}

/// What a row's keys take in a file, in bytes.
const LAID_ROW_BYTES: u64 = 30;

/// Looks for twice the room that the keys of so many rows take: on a disk that is about to be full, events and what is
/// asked of them go first.
pub(crate) fn look_for_room(path: &Path, rows: usize) -> io::Result<()> {
    match free_bytes(path.parent().unwrap_or(path)) {
        Some(free) if free / 2 < LAID_ROW_BYTES * rows as u64 => Err(Errno::NOSPC.into()),
        _ => Ok(()),
    }
}

/// A file that is being written.
struct Laying {
    file: BlockWriter,
    header: Vec<u8>,
    /// The end of the header.
    streams: Vec<u8>,
    first_sequence: u64,
}

impl Laying {
    /// Begins with sorted rows of a segment, between the first and the last sequence.
    fn begin<E>(
        unfinished: &Path,
        (number, sample): (i64, u64),
        (first, last): (u64, u64),
        (rows, entry): (&[E], impl Fn(&E) -> Entry),
        sites: &Sites,
    ) -> io::Result<Self> {
        if last - first > u64::from(u32::MAX) {
            // Only where sequences were left out: a segment of four thousand million rows is none that hitlog makes.
            return Err(io::Error::other("the sequences of the segment lie too far apart"));
        }
        look_for_room(unfinished, rows.len())?;
        let mut file = BlockWriter::create(unfinished)?;
        let (streams, posts) = write_streams(&mut file, rows, entry, sites)?;
        let posts_at = file.position();
        file.write(&posts)?;
        let mut header = Vec::new();
        for number in [VERSION, number.unsigned_abs(), first, last, sample, posts_at, file.position()] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        Ok(Self { file, header, streams, first_sequence: first })
    }

    /// Adds the fingerprints of so many rows, by their sequences.
    fn fingerprints(&mut self, rows: usize, of: impl Iterator<Item = (u64, u32)>) -> io::Result<()> {
        let first = self.first_sequence;
        let mut entries = Vec::with_capacity(rows);
        entries.extend(of.map(|(sequence, fingerprint)| u64::from(fingerprint) << 32 | (sequence - first)));
        entries.sort_unstable();
        for number in [self.file.position(), entries.len() as u64] {
            self.header.extend_from_slice(&number.to_le_bytes());
        }
        for post in entries.iter().step_by(FENCE_ENTRIES as usize) {
            self.header.extend_from_slice(&((post >> 32) as u32).to_le_bytes());
        }
        for entry in entries {
            let mut bytes = [0; FINGERPRINT_BYTES];
            bytes[..4].copy_from_slice(&((entry >> 32) as u32).to_le_bytes());
            bytes[4..].copy_from_slice(&(entry as u32).to_le_bytes());
            self.file.write(&bytes)?;
        }
        Ok(())
    }

    fn finish(mut self, path: &Path) -> io::Result<()> {
        self.header.extend_from_slice(&self.streams);
        self.file.finish(&self.header, path)
    }
}

/// Writes the keys of each stream; returns where they are, for the header, and their fence posts.
fn write_streams<E>(
    file: &mut BlockWriter,
    rows: &[E],
    entry: impl Fn(&E) -> Entry,
    sites: &Sites,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut streams, mut posts) = (Vec::new(), Vec::new());
    for of_stream in rows.chunk_by(|one, next| entry(one).stream == entry(next).stream) {
        let Some((oldest, newest)) = of_stream.first().zip(of_stream.last()) else { continue };
        let (oldest, newest) = (entry(oldest), entry(newest));
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
        for (at, row) in (0..).zip(of_stream) {
            let entry = entry(row);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{
        format::blocks::BlockError,
        segments::{Columns, Key, LaidKeys, RowKeys},
    };

    /// The number of a website and of a type, the time, and who it was.
    type Row = (u8, usize, i64, u8);

    /// Columns of the rows of these groups, each of which may leave sequences out before it.
    fn columns(sites: &Sites, groups: &[(u64, Vec<Row>)]) -> (Columns, Vec<(u64, RowKeys)>) {
        let (columns, mut model, mut next) = (Columns::default(), Vec::new(), 1);
        for (gap, group) in groups {
            next += gap;
            let row = |&(site, kind, created_at, of): &Row| {
                let ids = ([b's', of % 7], [b'v', of % 5]);
                let website = [b'w', site];
                RowKeys::new(
                    sites,
                    (&website, ["pageview", "click", "custom", "odd"][kind].as_bytes()),
                    created_at,
                    (&ids.0, &ids.1),
                )
            };
            let rows: Vec<RowKeys> = group.iter().map(row).collect();
            columns.add(next, &rows);
            model.extend((next..).zip(rows.iter().copied()));
            next += rows.len() as u64;
        }
        (columns, model)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_laid_down_is_what_was_in_memory(
            groups in prop::collection::vec(
                (0..3_u64, prop::collection::vec((0..3_u8, 0..4_usize, 0..4_000_000_000_i64, 0..35_u8), 1..4_000)),
                1..4
            ),
            times in prop::collection::vec(0..4_000_000_000_i64, 10)
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (sites, path) = (Sites::default(), folder.path().join("keys"));
            let (columns, model) = columns(&sites, &groups);
            lay_down(&columns.snapshot(), 7, &sites, &folder.path().join("unfinished"), &path).unwrap();
            // Another process gives websites other numbers.
            let others = Sites::default();
            others.number(&[b'w', 2]);
            let keys = LaidKeys::open(&path, 7, &others).unwrap();
            prop_assert_eq!(Some((keys.first_sequence, keys.last_sequence)), columns.sequences());
            for (site, kind) in (0..3_u8).flat_map(|site| (0..4).map(move |kind| (site, kind))) {
                let here = Stream::of_kind(sites.number(&[b'w', site]), kind);
                let wanted = model.iter().filter(|(_, row)| row.stream == here);
                let mut wanted: Vec<Key> =
                    wanted.map(|&(sequence, row)| Key { created_at: row.created_at, sequence }).collect();
                wanted.sort_unstable();
                let Some(run) = keys.run(Stream::of_kind(others.number(&[b'w', site]), kind)) else {
                    prop_assert!(wanted.is_empty());
                    continue;
                };
                prop_assert_eq!(&run.read(0..run.count).unwrap(), &wanted);
                prop_assert_eq!(run.first_created_at, wanted[0].created_at);
                prop_assert_eq!(run.last_created_at, wanted[wanted.len() - 1].created_at);
                let between = times.iter().map(|&created_at| Key { created_at, sequence: 9 });
                for key in between.chain(wanted.first().copied()) {
                    let rank = wanted.partition_point(|entry| *entry <= key) as u64;
                    let bounds = run.rank_bounds(key);
                    prop_assert!((bounds.least..=bounds.most).contains(&rank), "{rank} {bounds:?}");
                    if let Some((post, before)) = bounds.walk_from {
                        let walked = run.read(before..before + FENCE_ENTRIES).unwrap();
                        prop_assert_eq!(walked[0], post);
                        prop_assert_eq!(before + walked.partition_point(|entry| *entry <= key) as u64, rank);
                    }
                }
            }
            for (_, row) in model.iter().step_by(500) {
                for (session, visitor) in [
                    (Some(row.session), None), (None, Some(row.visitor)), (Some(row.session), Some(row.visitor)),
                    (Some(row.session ^ 1), None), (Some(row.session), Some(row.visitor ^ 1)),
                    (Some(0), Some(u32::MAX)),
                ] {
                    prop_assert_eq!(
                        keys.candidates(session, visitor).unwrap(),
                        columns.snapshot().candidates(session, visitor)
                    );
                }
            }
        }
    }

    #[test]
    fn keys_of_another_segment_are_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (sites, path) = (Sites::default(), folder.path().join("keys"));
        let (columns, _) = columns(&sites, &[(0, vec![(0, 0, 1, 1); 3])]);
        lay_down(&columns.snapshot(), 7, &sites, &folder.path().join("unfinished"), &path).unwrap();
        assert!(matches!(LaidKeys::open(&path, 8, &sites), Err(BlockError::Damaged(_))));
        let at = std::fs::metadata(&path).unwrap().len() / 2;
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at as usize] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(LaidKeys::open(&path, 7, &sites).is_err());
    }
}

//! A file of data in blocks, each with its checksum: written once, from front to back, and then read in any order.
//!
//! Trusted when it is complete, which its last bytes tell, and block by block as it is read; what is kept in such files
//! can be made anew. Holds no descriptor between two reads, as there may be one file for each of many segments.
//!
//! Shape: the blocks of [`BLOCK_BYTES`], the last one shorter; a header; the XXH3 hash of each block; and a tail of
//! 32 bytes: [`MAGIC`], the bytes of all blocks, the bytes of the header, and the XXH3 hash of all that follows the
//! blocks. Numbers are little-endian, 8 bytes each.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use super::access::make_file;
use crate::store::error::{ReadError, is_errno_of_full_disk};

/// A block is read and checked whole: large enough that a check is short beside a look at the disk.
const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes after which what was written goes to the disk, so that no commit waits for all of it at once.
const SYNC_BYTES: usize = 4 * 1024 * 1024;
const WRITE_BYTES: usize = 16 * BLOCK_BYTES;
const MAGIC: u64 = u64::from_le_bytes(*b"hitlblk1");
const TAIL_BYTES: usize = 32;
/// The most that the header and the hashes may be: who reads a damaged file must not take memory for what it says.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a file of blocks cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written, or not all of it.
    #[error("{} is not what was written", .0.display())]
    Damaged(PathBuf),
}

impl From<BlockError> for ReadError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Io(error) if error.raw_os_error().is_some_and(is_errno_of_full_disk) => {
                Self::StorageFull(error)
            }
            error => Self::Keys(error.into()),
        }
    }
}

/// Writes a file of blocks under a temporary name.
pub(crate) struct BlockWriter {
    file: File,
    unfinished: PathBuf,
    /// Whole blocks that are to be written, and the beginning of one.
    waiting: Vec<u8>,
    hashes: Vec<u8>,
    bytes: u64,
    /// How many of them are in the file.
    written: u64,
    unsynced: usize,
    is_finished: bool,
}

impl BlockWriter {
    /// Begins a file that is at `unfinished` until it is complete; what is there is replaced.
    pub(crate) fn create(unfinished: &Path) -> io::Result<Self> {
        make_file(unfinished)?;
        let file = fs::OpenOptions::new().write(true).truncate(true).open(unfinished)?;
        let waiting = Vec::with_capacity(WRITE_BYTES);
        Ok(Self {
            file,
            unfinished: unfinished.into(),
            waiting,
            hashes: Vec::new(),
            bytes: 0,
            written: 0,
            unsynced: 0,
            is_finished: false,
        })
    }

    /// The place of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WRITE_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() == WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the file with a header, makes it durable and gives it its name.
    pub(crate) fn finish(mut self, header: &[u8], path: &Path) -> io::Result<()> {
        self.flush()?;
        let mut index = [header, &self.hashes].concat();
        for number in [MAGIC, self.bytes, header.len() as u64] {
            index.extend_from_slice(&number.to_le_bytes());
        }
        index.extend_from_slice(&xxh3_64(&index).to_le_bytes());
        self.file.write_all_at(&index, self.bytes)?;
        self.file.sync_data()?;
        fs::rename(&self.unfinished, path)?;
        self.is_finished = true;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for block in self.waiting.chunks(BLOCK_BYTES) {
            self.hashes.extend_from_slice(&xxh3_64(block).to_le_bytes());
        }
        self.file.write_all_at(&self.waiting, self.written)?;
        self.written += self.waiting.len() as u64;
        self.unsynced += self.waiting.len();
        self.waiting.clear();
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        // On a full disk others need the room; where it cannot be removed the next start does.
        if !self.is_finished {
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// A complete file of blocks.
#[derive(Debug)]
pub(crate) struct BlockFile {
    path: PathBuf,
    bytes: u64,
    hashes: Box<[u64]>,
}

impl BlockFile {
    /// Opens a file; returns it with its header. One that is not complete is damaged.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<u8>), BlockError> {
        let file = File::open(path)?;
        let damaged = || BlockError::Damaged(path.into());
        let length = file.metadata()?.len();
        let tail_at = length.checked_sub(TAIL_BYTES as u64).ok_or_else(damaged)?;
        let mut tail = [0; TAIL_BYTES];
        file.read_exact_at(&mut tail, tail_at)?;
        let [magic, bytes, header_bytes, hash] = numbers(&tail);
        let blocks = bytes.div_ceil(BLOCK_BYTES as u64);
        let index_bytes = blocks.checked_mul(8).and_then(|hashes| hashes.checked_add(header_bytes));
        let is_whole = |index: &u64| *index <= INDEX_BYTES_MAX && bytes.checked_add(*index) == Some(tail_at);
        let index_bytes = index_bytes.filter(is_whole).filter(|_| magic == MAGIC).ok_or_else(damaged)?;
        let mut index = vec![0; index_bytes as usize];
        file.read_exact_at(&mut index, bytes)?;
        index.extend_from_slice(&tail[..24]);
        if xxh3_64(&index) != hash {
            return Err(damaged());
        }
        index.truncate(index_bytes as usize);
        let hashes = index.split_off(header_bytes as usize);
        let hashes = hashes.chunks_exact(8).map(|hash| numbers::<1>(hash)[0]).collect();
        Ok((Self { path: path.into(), bytes, hashes }, index))
    }

    /// Reads some of the bytes, and checks them.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, BlockError> {
        let damaged = || BlockError::Damaged(self.path.clone());
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.end > self.bytes {
            return Err(damaged());
        }
        let block_bytes = BLOCK_BYTES as u64;
        let first = range.start / block_bytes;
        let (from, to) = (first * block_bytes, range.end.next_multiple_of(block_bytes).min(self.bytes));
        let mut bytes = vec![0; (to - from) as usize];
        match File::open(&self.path)?.read_exact_at(&mut bytes, from) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
            other => other?,
        }
        let hashes = &self.hashes[first as usize..];
        if bytes.chunks(BLOCK_BYTES).zip(hashes).any(|(block, hash)| xxh3_64(block) != *hash) {
            return Err(damaged());
        }
        bytes.truncate((range.end - from) as usize);
        bytes.drain(..(range.start - from) as usize);
        Ok(bytes)
    }
}

fn numbers<const COUNT: usize>(bytes: &[u8]) -> [u64; COUNT] {
    std::array::from_fn(|at| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
        u64::from_le_bytes(number)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(folder: &Path, bytes: &[u8], header: &[u8]) -> PathBuf {
        let path = folder.join("file");
        let mut writer = BlockWriter::create(&folder.join("unfinished")).unwrap();
        for part in bytes.chunks(10_000) {
            writer.write(part).unwrap();
        }
        assert_eq!(writer.position(), bytes.len() as u64);
        writer.finish(header, &path).unwrap();
        path
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_written_is_read(length in 0..600_000_usize, from in 0..600_000_usize, count in 0..100_000_usize) {
            let folder = tempfile::tempdir().unwrap();
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 / 5) as u8).collect();
            let (file, header) = BlockFile::open(&write(folder.path(), &bytes, b"header")).unwrap();
            prop_assert_eq!(&header, b"header");
            let (from, to) = (from.min(length), (from + count).min(length));
            prop_assert_eq!(file.read(from as u64..to as u64).unwrap(), &bytes[from..to]);
            prop_assert!(file.read(0..length as u64 + 1).is_err());
            prop_assert!(!folder.path().join("unfinished").exists());
        }

        #[test]
        fn a_changed_or_missing_byte_is_found(length in 1..100_000_usize, at in 0.0..1.0_f64, is_cut: bool) {
            let folder = tempfile::tempdir().unwrap();
            let path = write(folder.path(), &vec![7; length], b"header");
            let mut whole = fs::read(&path).unwrap();
            let at = (whole.len() as f64 * at) as usize;
            whole[at] ^= 1;
            whole.truncate(if is_cut { at } else { whole.len() });
            fs::write(&path, &whole).unwrap();
            let read = BlockFile::open(&path).and_then(|(file, _)| file.read(0..length as u64));
            prop_assert!(matches!(read, Err(BlockError::Damaged(_))));
        }
    }

    #[test]
    fn a_file_that_claims_too_much_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), b"some", b"header");
        let mut whole = fs::read(&path).unwrap();
        let bytes_at = whole.len() - 24;
        whole[bytes_at..bytes_at + 16].fill(0xff);
        fs::write(&path, whole).unwrap();
        assert!(matches!(BlockFile::open(&path), Err(BlockError::Damaged(_))));
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = BlockWriter::create(&folder.path().join("unfinished")).unwrap();
        writer.write(&vec![7; 2 * WRITE_BYTES]).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

//! The file of salts: what visitors' ids are made with for a day, and then with nothing any more.
//!
//! Of a fixed size, and written in place, so that what was there before is overwritten and not left in blocks that
//! belong to nobody. No backup has it: whoever has the salt of a day can try addresses until an id comes out.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;
use xxhash_rust::xxh3::xxh3_64;
use zeroize::Zeroizing;

use super::{access::make_file, sync::sync_directory};

/// The file, in the data directory.
pub(super) const SALTS: &str = "salts";

/// What it begins with.
const MAGIC: &[u8; 8] = b"hitlsalt";
/// A salt in the file: the day, the secret, and the XXH3 hash of both.
const SALT_BYTES: usize = 8 + SECRET_BYTES + 8;
/// The secret of a salt, in bytes.
const SECRET_BYTES: usize = 32;
/// How many salts there are room for.
const SALTS_MAX: usize = 2;
/// The file; less than a sector of any disk, so that it is written as a whole or not at all.
const FILE_BYTES: usize = MAGIC.len() + SALTS_MAX * SALT_BYTES;

/// The salt of a day.
#[derive(Clone)]
pub struct Salt {
    /// The day: so many days since 1970, UTC.
    pub day: i64,
    /// What nobody knows; overwritten when it is dropped.
    pub secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// The file, open.
pub struct SaltFile(File);

impl SaltFile {
    /// Opens the file of a data directory, making it if there is none, and reads what is good of it.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<Salt>)> {
        let path = directory.join(SALTS);
        make_file(&path)?;
        sync_directory(directory).map_err(io::Error::other)?;
        // Where a link leads is not hitlog's, and whatever else has the name must not be waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        (&mut file).take(FILE_BYTES as u64).read_to_end(&mut bytes)?;
        Ok((Self(file), read(&bytes)))
    }

    /// Writes these salts in the place of what was there; of more than two the last are left out.
    pub fn write(&self, salts: &[Salt]) -> io::Result<()> {
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        for (place, salt) in bytes[MAGIC.len()..].chunks_exact_mut(SALT_BYTES).zip(salts) {
            let (said, hash) = place.split_at_mut(SALT_BYTES - 8);
            said[..8].copy_from_slice(&salt.day.to_le_bytes());
            said[8..].copy_from_slice(&*salt.secret);
            hash.copy_from_slice(&xxh3_64(said).to_le_bytes());
        }
        self.0.write_all_at(&*bytes, 0)?;
        self.0.set_len(FILE_BYTES as u64)?;
        self.0.sync_all()
    }
}

/// The salts in the bytes of a file; what is damaged, or was never written, is none.
fn read(bytes: &[u8]) -> Vec<Salt> {
    let Some(salts) = bytes.strip_prefix(MAGIC) else { return Vec::new() };
    salts.chunks_exact(SALT_BYTES).filter_map(salt).collect()
}

fn salt(place: &[u8]) -> Option<Salt> {
    let (said, hash) = place.split_at(SALT_BYTES - 8);
    let (day, secret) = said.split_at(8);
    let is_good = hash == xxh3_64(said).to_le_bytes();
    let salt = Salt { day: i64::from_le_bytes(day.try_into().ok()?), secret: Zeroizing::new(secret.try_into().ok()?) };
    is_good.then_some(salt)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn days(salts: &[Salt]) -> Vec<(i64, u8)> {
        salts.iter().map(|salt| (salt.day, salt.secret[0])).collect()
    }

    fn salt_of(day: i64, byte: u8) -> Salt {
        Salt { day, secret: Zeroizing::new([byte; SECRET_BYTES]) }
    }

    #[test]
    fn what_is_written_is_read_and_what_was_there_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let (file, found) = SaltFile::open(directory).unwrap();
        assert_eq!(days(&found), []);
        file.write(&[salt_of(7, 70), salt_of(6, 60)]).unwrap();
        drop(file);
        let (file, found) = SaltFile::open(directory).unwrap();
        assert_eq!(days(&found), [(7, 70), (6, 60)]);
        file.write(&[salt_of(8, 80)]).unwrap();
        let bytes = fs::read(directory.join(SALTS)).unwrap();
        assert_eq!(bytes.len(), FILE_BYTES);
        assert!(!bytes.contains(&70) && !bytes.contains(&60), "{bytes:?}");
        assert_eq!(days(&SaltFile::open(directory).unwrap().1), [(8, 80)]);
    }

    #[test]
    fn what_is_damaged_is_no_salt() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let path = directory.join(SALTS);
        SaltFile::open(directory).unwrap().0.write(&[salt_of(7, 70), salt_of(6, 60)]).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[20] ^= 1;
        for (bytes, wanted) in [
            (&whole[..], &[(7, 70), (6, 60)][..]),
            (&damaged, &[(6, 60)]),
            (&whole[..FILE_BYTES - 1], &[(7, 70)]),
            (&whole[..3], &[]),
            (&[], &[]),
            (&vec![0; 1 << 20], &[]),
        ] {
            fs::write(&path, bytes).unwrap();
            let (file, found) = SaltFile::open(directory).unwrap();
            assert_eq!(days(&found), wanted);
            file.write(&found).unwrap();
            assert_eq!(fs::read(&path).unwrap().len(), FILE_BYTES);
        }
    }

    #[test]
    fn what_else_has_the_name_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let (path, other) = (directory.join(SALTS), directory.join("other"));
        fs::write(&other, "somebody's").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(SaltFile::open(directory).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "somebody's");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(SaltFile::open(directory).is_err());
    }
}

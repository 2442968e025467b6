//! The header of a database, read without SQLite, <https://sqlite.org/fileformat2.html#the_database_header>.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// What the header says.
pub(crate) struct Header {
    /// Whether the file is written through a log. A backup's is not, until hitlog has started from it.
    pub(super) has_log: bool,
    /// The schema cookie.
    pub(super) cookie: u32,
    /// The version of the format of what is in it.
    pub(crate) user_version: i32,
}

impl Header {
    /// `None` for what has no header of SQLite's. No connection that writes to the file may be open in this process:
    /// closing any descriptor gives up SQLite's locks.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut header = [0; 64];
        match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
            Ok(()) => {}
            Err(error) => {
                use io::ErrorKind::{IsADirectory, NotFound, UnexpectedEof};
                let is_none = matches!(error.kind(), IsADirectory | NotFound | UnexpectedEof);
                return if is_none { Ok(None) } else { Err(error) };
            }
        }
        let number = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let is_database = header.starts_with(b"SQLite format 3\0");
        Ok(is_database.then_some(Self {
            has_log: header[18..20] != [1, 1],
            cookie: u32::from_be_bytes(number(40)),
            user_version: i32::from_be_bytes(number(60)),
        }))
    }
}

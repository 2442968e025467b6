//! Whose the files are, and who may read them: they hold what visitors did, and `catalog.db` the key of the ids.
//!
//! Nobody but the owner, or the group where the settings say so, whatever the umask that hitlog was started with.
//! SQLite makes databases with the umask's leave, and what it keeps beside a database with the database's owner and
//! mode; so both are put right when a database is made. What root makes, with a tool say, belongs to the owner of the
//! directory that it is made in: the service, which runs as another user, must be able to open it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid, fchmod, fchown},
    process::{geteuid, umask},
};

/// Who may read the files of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileAccess {
    /// Their owner: files have the mode 0600, directories 0700.
    Owner,
    /// Their group as well: 0640 and 0750.
    Group,
}

/// What others than the owner may do with a directory; with a file, all of it but to enter. The process has one umask,
/// and so one of these.
static OTHERS: AtomicU32 = AtomicU32::new(0);

/// Says who may read what the process makes from now on. To be called before the first data directory is opened.
pub fn set_file_access(access: FileAccess) {
    let others = match access {
        FileAccess::Owner => 0,
        FileAccess::Group => 0o050,
    };
    OTHERS.store(others, Ordering::Relaxed);
    umask(Mode::from_raw_mode(0o077 & !others));
}

/// The mode of a directory.
pub(super) fn directory_mode() -> u32 {
    0o700 | OTHERS.load(Ordering::Relaxed)
}

/// The mode of a file.
pub(super) fn file_mode() -> u32 {
    directory_mode() & 0o660
}

/// To whom belongs what is made; whoever makes it, unless that is root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner(Option<(Uid, Gid)>);

impl Owner {
    /// The owner and the group of a directory.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        // The parent of a relative path of one part is the empty path.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        Ok(Self::in_metadata(&fs::metadata(directory)?))
    }

    /// The owner and the group of an open directory.
    pub(super) fn of_open(directory: &File) -> io::Result<Self> {
        Ok(if geteuid().is_root() { Self::in_metadata(&directory.metadata()?) } else { Self(None) })
    }

    fn in_metadata(found: &fs::Metadata) -> Self {
        Self(Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid()))))
    }

    /// Gives a file or a directory that the process has made.
    pub(crate) fn give(self, file: &File) -> io::Result<()> {
        let Some((uid, gid)) = self.0 else { return Ok(()) };
        Ok(fchown(file, Some(uid), Some(gid))?)
    }

    /// Makes a directory.
    pub(crate) fn make_directory(self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(directory_mode()).create(path)?;
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
        self.give(&OpenOptions::new().read(true).custom_flags(flags).open(path)?)
    }
}

/// Makes a directory, whose owner is that of the one that it is in.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    Owner::of(path.parent().unwrap_or(path))?.make_directory(path)
}

/// Makes an empty file, unless there is one, for SQLite to make a database of.
pub(crate) fn make_file(path: &Path) -> io::Result<()> {
    let owner = Owner::of(path.parent().unwrap_or(path))?;
    match OpenOptions::new().write(true).create_new(true).mode(file_mode()).open(path) {
        Ok(file) => owner.give(&file),
        // It is not even opened: to close a database would give up SQLite's locks on it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes from others what they may not do with these files, and directories with all files in them, as far as they are
/// the process's own. What is not there is passed over.
pub(super) fn restrict(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> io::Result<()> {
    for path in paths {
        let path = path.as_ref();
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if found.uid() != geteuid().as_raw() || !(found.is_file() || found.is_dir()) {
            continue;
        }
        let others = if found.is_dir() { directory_mode() } else { file_mode() } & 0o077;
        let mode = found.mode() & 0o7777;
        let wanted = (mode & !0o077) | others;
        if mode != wanted {
            fs::set_permissions(path, Permissions::from_mode(wanted))?;
        }
        if found.is_dir() {
            let entries: io::Result<Vec<_>> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect();
            restrict(entries?)?;
        }
    }
    Ok(())
}

/// Lets the group into an open directory, where the settings say so and the directory is the process's own. Returns
/// its mode, if that was changed; an error tells which one it should have.
pub(super) fn let_group_in(directory: &File) -> Result<Option<u32>, u32> {
    let Ok(found) = directory.metadata() else { return Ok(None) };
    let mode = found.mode() & 0o7777;
    let wanted = mode | (directory_mode() & 0o070);
    if mode == wanted {
        return Ok(None);
    }
    if found.uid() != geteuid().as_raw() {
        return Err(wanted);
    }
    fchmod(directory, Mode::from_raw_mode(wanted)).map(|()| Some(wanted)).map_err(|_| wanted)
}

/// The mode that a directory should have, if others may do more with it than they should.
pub(super) fn wider_than(directory: &File) -> Option<u32> {
    let mode = directory.metadata().ok()?.mode();
    (mode & 0o077 & !directory_mode() != 0).then(directory_mode)
}

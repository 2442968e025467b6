//! Where lines come from, so that they can be read twice.
//!
//! A file is read where it is, through one descriptor, and each time from where that stood: whatever takes its name
//! meanwhile is another file, which can be told. What can be read only once, a pipe, is kept in a file without a name
//! first.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, IsTerminal, Read, Seek},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::Path,
    time::SystemTime,
};

use indicatif::ProgressBar;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{major, minor},
};

use crate::{
    command,
    store::{SpoolError, StoreOptions, spool},
    tools::ToolError,
};

/// The name of standard input.
pub(super) const STDIN: &str = "-";
/// `/dev/null`, by its numbers on Linux.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// Lines that can be read as often as they are wanted.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    /// Where the first line begins.
    begin: u64,
    /// What it is called in messages.
    name: String,
    /// What names it in a command; `None` if whoever runs that must send the lines again.
    path: Option<OsString>,
    stamp: Stamp,
}

/// What changes when a file is written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self { bytes: found.len(), modified: found.modified().ok() }
    }
}

impl Source {
    /// Opens a file, or keeps what comes from a pipe. Waits for whoever writes into that. `from_stdin` is the command
    /// that does the same with what it is sent.
    pub(super) fn open(
        path: &Path,
        data_dir: &Path,
        store: &StoreOptions,
        bar: &ProgressBar,
        from_stdin: &str,
    ) -> Result<Self, ToolError> {
        let is_stdin = path.as_os_str() == STDIN;
        let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let failed = |error: io::Error| ToolError::Import(format!("cannot read {name}: {error}"));
        let opened = if is_stdin { stdin() } else { File::open(path) };
        let mut file = opened.map_err(|error| match fs::metadata(path) {
            Ok(found) if found.file_type().is_socket() => ToolError::Import(format!(
                "{name} is a socket, which nobody can open; send its lines into: {from_stdin}"
            )),
            _ => failed(error),
        })?;
        let found = file.metadata().map_err(failed)?;
        let source = match Kind::of(&file, &found) {
            Kind::File => {
                let begin = if found.is_file() { file.stream_position().map_err(failed)? } else { 0 };
                let path = (!is_stdin && !command::is_descriptor(path)).then(|| command::absolute(path));
                Self { begin, stamp: Stamp::of(&found), file, name, path }
            }
            Kind::Pipe => {
                let on_bytes = |bytes| {
                    bar.inc_length(bytes);
                    bar.inc(bytes);
                };
                let file = spool(&mut Awaited(&file), data_dir, store, on_bytes).map_err(|error| match error {
                    SpoolError::Pipe(error) => failed(error),
                    SpoolError::File(error) => ToolError::Import(format!(
                        "{error}. Nothing was imported; --scratch-dir may name a folder on another disk"
                    )),
                })?;
                let found = file.metadata().map_err(failed)?;
                Self { begin: 0, stamp: Stamp::of(&found), file, name, path: None }
            }
            Kind::Terminal => {
                return Err(ToolError::Arguments(format!(
                    "{name} is a terminal; name a file of lines, or send the lines into: {from_stdin}"
                )));
            }
            Kind::Unfit(what) => return Err(ToolError::Arguments(format!("{name} is {what}"))),
        };
        // A shell passes over the failure of whatever stands before a pipe: this one must not look like success.
        if source.path.is_none() && source.bytes() == 0 {
            return Err(ToolError::Import(format!(
                "nothing came from {}, and nothing was imported: look at what was to send the lines, and send them \
                 again",
                source.name
            )));
        }
        Ok(source)
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The bytes that there are to read.
    pub(super) fn bytes(&self) -> u64 {
        self.stamp.bytes.saturating_sub(self.begin)
    }

    /// The lines, from the first one on.
    pub(super) fn read(&self) -> Reading<'_> {
        Reading { file: &self.file, at: self.begin }
    }

    /// Whether somebody has written to it since it was opened.
    pub(super) fn has_changed(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.file.metadata()?) != self.stamp)
    }

    /// Whether its name leads to another file by now, or to none.
    pub(super) fn is_replaced(&self) -> bool {
        let identity = |found: Metadata| (found.dev(), found.ino());
        let at = |path| fs::metadata(path).map(identity).ok();
        self.path.as_ref().is_some_and(|path| at(path) != self.file.metadata().map(identity).ok())
    }

    /// What names it in a command. `None`: nothing does, and the lines must be sent again.
    pub(super) fn path(&self) -> Option<&OsString> {
        self.path.as_ref()
    }
}

/// A second descriptor of standard input.
fn stdin() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// A pipe that is waited for, even where its descriptor does not wait, which all who share it have in common.
struct Awaited<'a>(&'a File);

impl Read for Awaited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.0;
        loop {
            match file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(file, PollFlags::IN)], None)?;
                }
                read => return read,
            }
        }
    }
}

/// How often something can be read.
enum Kind {
    /// As often as it is wanted.
    File,
    /// Once.
    Pipe,
    /// Once, and only what somebody types.
    Terminal,
    /// It cannot be, and why not.
    Unfit(&'static str),
}

impl Kind {
    fn of(file: &File, found: &Metadata) -> Self {
        let kind = found.file_type();
        let is_null = || (major(found.rdev()), minor(found.rdev())) == NULL_DEVICE;
        if kind.is_file() || (kind.is_char_device() && is_null()) {
            Self::File
        } else if kind.is_fifo() || kind.is_socket() {
            Self::Pipe
        } else if kind.is_dir() {
            Self::Unfit("a directory; name a file of lines, or - for standard input")
        } else if file.is_terminal() {
            Self::Terminal
        } else {
            Self::Unfit("neither a file nor a pipe; name a file of lines, or - for standard input")
        }
    }
}

/// One reading of the lines. Leaves the descriptor where it stands.
pub(super) struct Reading<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

//! What a run did to its disk and when it answered, as strace saw it; and what a loss of power at any moment may have
//! left of its files.
//!
//! The disk is the worst that POSIX allows: a write, a new length or a name counts from the return of a sync that began
//! after it, of the file or of the folder; until then any part of it may be there. Only names keep their order, as a
//! file system's journal has it.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::{RngExt, rngs::SmallRng};

/// A call, with the lines of the trace at which it began and had ended.
pub struct Call {
    pub began: usize,
    pub ended: usize,
    pub what: What,
}

/// What a call did.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    MakeFolder(PathBuf),
    Open { path: PathBuf, truncate: bool },
    Write { path: PathBuf, offset: usize, data: Vec<u8> },
    Resize { path: PathBuf, length: usize },
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
    Sync(PathBuf),
    Response(Vec<u8>),
}

impl What {
    /// The file that is changed.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::MakeFolder(path) | Self::Remove(path) | Self::Sync(path) | Self::Rename { to: path, .. } => {
                Some(path)
            }
            Self::Open { path, .. } | Self::Write { path, .. } | Self::Resize { path, .. } => Some(path),
            Self::Response(_) => None,
        }
    }
}

/// Everything that changes a file or its name, makes it durable, or goes to a client. What a mapping changes is not
/// seen, which is SQLite's index of the write-ahead log alone: nobody syncs it, and a start makes it anew.
const TRACED: &str = "trace=openat,pwrite64,pwritev,write,writev,sendto,sendmsg,ftruncate,fallocate,fsync,fdatasync,\
                      rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,linkat,copy_file_range,sendfile";

/// `command` under strace, which writes what it sees to `trace` and leaves the process the child of whoever starts it.
pub fn traced(command: &Command, trace: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "1000000", "-e", TRACED, "-o"]).arg(trace);
    strace.arg(command.get_program()).args(command.get_args());
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

/// Reads the calls that had an effect, in the order in which they ended.
pub fn calls(trace: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let (thread, text) = line.split_once(' ').unwrap_or_default();
        let text = text.trim_start();
        let (began, text) = if let Some(text) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (at, text));
            continue;
        } else if text.starts_with("<... ") {
            let (began, first) = begun.remove(thread).expect("a call ends that began");
            (began, format!("{first}{}", text.split_once("resumed>").expect("strace's form").1))
        } else {
            (at, text.to_owned())
        };
        calls.extend(read_call(&text).map(|what| Call { began, ended: at, what }));
    }
    calls
}

/// What a line of the trace says; `None` if that changed nothing. All text in it is written as `\x` and two digits, so
/// quotes and brackets are strace's own.
fn read_call(line: &str) -> Option<What> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let count: usize = result.split(['<', ' ']).next()?.parse().ok()?;
    let descriptor = |text: &str| path(text.split_once('<')?.1.split_once('>')?.0);
    let quoted = || arguments.split('"').skip(1).step_by(2);
    let last_number = || {
        let number = arguments.trim_end().trim_end_matches(')').rsplit(", ").next()?.parse::<usize>();
        Some(number.unwrap_or_else(|error| panic!("{error}: {line:.200}")))
    };
    Some(match name {
        "openat" if !arguments.contains("O_CREAT") => return None,
        "openat" => What::Open { path: descriptor(result)?, truncate: arguments.contains("O_TRUNC") },
        "mkdir" | "mkdirat" => What::MakeFolder(path(quoted().next()?)?),
        "write" | "writev" | "sendto" | "sendmsg" | "pwrite64" => {
            let (to, mut data) = (descriptor(arguments)?, quoted().flat_map(bytes).collect::<Vec<_>>());
            data.truncate(count);
            if name == "pwrite64" {
                What::Write { path: to, offset: last_number()?, data }
            } else if to.to_str()?.starts_with("TCP") || to.to_str()?.starts_with("socket:") {
                What::Response(data)
            } else {
                // What the lock holds is for people, the reserve holds nothing, and what has no path is no file.
                let is_read_by_nobody = to.ends_with("lock") || to.ends_with("reserve");
                assert!(!to.is_absolute() || is_read_by_nobody, "a write without a place: {line:.200}");
                return None;
            }
        }
        "ftruncate" => What::Resize { path: descriptor(arguments)?, length: last_number()? },
        "fsync" | "fdatasync" => What::Sync(descriptor(arguments)?),
        "rename" => What::Rename { from: path(quoted().next()?)?, to: path(quoted().nth(1)?)? },
        "unlink" => What::Remove(path(quoted().next()?)?),
        _ => panic!("a way to write that is not understood here: {line:.200}"),
    })
}

fn bytes(text: &str) -> impl Iterator<Item = u8> {
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).expect("strace writes every byte in hex"))
}

fn path(text: &str) -> Option<PathBuf> {
    String::from_utf8(bytes(text).collect()).ok().map(PathBuf::from)
}

/// Files by their names.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// What is left of what no sync has made durable.
pub enum Loss<'a> {
    Everything,
    /// Some writes are there, some are not, and of some every other sector of 512 bytes.
    Random(&'a mut SmallRng),
}

const SECTOR: usize = 512;

#[derive(Default)]
struct File<'a> {
    durable: Vec<u8>,
    pending: Vec<&'a Call>,
}

#[derive(Default)]
struct Folder<'a> {
    /// Names, and which file each is; `None` for a folder.
    durable: BTreeMap<OsString, Option<usize>>,
    pending: Vec<(&'a Call, Entry)>,
}

#[derive(Clone)]
enum Entry {
    Add(OsString, Option<usize>),
    Rename(OsString, OsString),
    Remove(OsString),
}

impl Folder<'_> {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Add(name, file) => drop(self.durable.insert(name, file)),
            Entry::Rename(from, to) => {
                let file = self.durable.remove(&from).expect("names change in order");
                self.durable.insert(to, file);
            }
            Entry::Remove(name) => drop(self.durable.remove(&name)),
        }
    }
}

/// The files below `root`, by name, that a loss of power just before line `cut` of the trace leaves.
pub fn image<'a>(calls: impl Iterator<Item = &'a Call>, root: &Path, cut: usize, mut loss: Loss<'_>) -> Image {
    let mut files: Vec<File<'_>> = Vec::new();
    let mut folders: BTreeMap<PathBuf, Folder<'_>> = BTreeMap::from([(root.to_owned(), Folder::default())]);
    let mut live: HashMap<&Path, usize> = HashMap::new();
    for call in calls.filter(|call| call.began < cut) {
        match &call.what {
            What::MakeFolder(path) => {
                note(&mut folders, call, path, Entry::Add(name(path), None));
                folders.insert(path.clone(), Folder::default());
            }
            What::Open { path, truncate } if path.parent().is_some_and(|parent| folders.contains_key(parent)) => {
                let file = *live.entry(path).or_insert_with(|| {
                    note(&mut folders, call, path, Entry::Add(name(path), Some(files.len())));
                    files.push(File::default());
                    files.len() - 1
                });
                if *truncate {
                    files[file].pending.push(call);
                }
            }
            What::Write { path, .. } | What::Resize { path, .. } => {
                // A file whose name is gone already has no other.
                if let Some(&file) = live.get(&**path) {
                    files[file].pending.push(call);
                }
            }
            What::Rename { from, to } => {
                if let Some(file) = live.remove(&**from) {
                    live.insert(to, file);
                    note(&mut folders, call, to, Entry::Rename(name(from), name(to)));
                }
            }
            What::Remove(path) => {
                if live.remove(&**path).is_some() {
                    note(&mut folders, call, path, Entry::Remove(name(path)));
                }
            }
            What::Sync(path) if call.ended < cut => {
                let is_covered = |earlier: &Call| earlier.ended < call.began;
                if let Some(folder) = folders.get_mut(path) {
                    let (covered, pending) = std::mem::take(&mut folder.pending)
                        .into_iter()
                        .partition::<Vec<_>, _>(|(earlier, _)| is_covered(earlier));
                    folder.pending = pending;
                    covered.into_iter().for_each(|(_, entry)| folder.apply(entry));
                } else if let Some(&file) = live.get(&**path) {
                    let file = &mut files[file];
                    let (covered, pending) =
                        std::mem::take(&mut file.pending).into_iter().partition::<Vec<_>, _>(|call| is_covered(call));
                    file.pending = pending;
                    covered.into_iter().for_each(|call| apply(&mut file.durable, &call.what, |_| true));
                }
            }
            What::Open { .. } | What::Sync(_) | What::Response(_) => {}
        }
    }
    if let Loss::Random(random) = &mut loss {
        files.iter_mut().for_each(|file| keep_some(file, random));
        for folder in folders.values_mut() {
            let kept = random.random_range(0..=folder.pending.len());
            let entries: Vec<_> = folder.pending.drain(..kept).map(|(_, entry)| entry).collect();
            entries.into_iter().for_each(|entry| folder.apply(entry));
        }
    }
    let mut image = Image::new();
    collect(root, &folders, &files, &mut image);
    image
}

/// A name that changed, in a folder that is looked at.
fn note<'a>(folders: &mut BTreeMap<PathBuf, Folder<'a>>, call: &'a Call, path: &Path, entry: Entry) {
    if let Some(folder) = path.parent().and_then(|parent| folders.get_mut(parent)) {
        folder.pending.push((call, entry));
    }
}

fn name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}

/// Makes part of what is pending part of the file, in any order that a disk may choose: later writes may be there
/// without earlier ones.
fn keep_some(file: &mut File<'_>, random: &mut SmallRng) {
    // Each file has luck of its own, so that all and nothing come up, too.
    let luck = [0.0, 0.1, 0.5, 0.9, 1.0][random.random_range(0..5)];
    for call in std::mem::take(&mut file.pending) {
        if random.random_bool(luck) {
            apply(&mut file.durable, &call.what, |_| true);
        } else if random.random_bool(0.3) {
            apply(&mut file.durable, &call.what, |_| random.random_bool(0.5));
        }
    }
}

/// Makes a change to a file, of a write only the sectors that are kept.
fn apply(content: &mut Vec<u8>, what: &What, mut is_kept: impl FnMut(usize) -> bool) {
    match what {
        What::Write { offset, data, .. } => {
            let end = offset + data.len();
            if content.len() < end {
                // The length may come without what was written: zeros.
                content.resize(end, 0);
            }
            let mut at = *offset;
            while at < end {
                let next = end.min((at / SECTOR + 1) * SECTOR);
                if is_kept(at) {
                    content[at..next].copy_from_slice(&data[at - offset..next - offset]);
                }
                at = next;
            }
        }
        What::Resize { length, .. } => content.resize(*length, 0),
        _ => content.clear(),
    }
}

fn collect(folder: &Path, folders: &BTreeMap<PathBuf, Folder<'_>>, files: &[File<'_>], image: &mut Image) {
    for (name, file) in &folders[folder].durable {
        let path = folder.join(name);
        match file {
            Some(file) => drop(image.insert(path, files[*file].durable.clone())),
            None => collect(&path, folders, files, image),
        }
    }
}

/// Writes an image of what was below `root` to the disk, below `target`.
pub fn write_image(image: &Image, root: &Path, target: &Path) {
    for (path, content) in image {
        let path = target.join(path.strip_prefix(root).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

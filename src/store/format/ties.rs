//! Which write-ahead log belongs to which file.
//!
//! SQLite takes whatever log it finds beside a file for that file's own. Where a copy of a directory was put over that
//! of a hitlog that was killed, the logs of the files that were there before are still there, and SQLite would write
//! their pages into files that know nothing of them. So the two are tied to each other:
//!
//! - Each file that is written through a log has a **tag** in its header: its schema cookie, which is of no use to
//!   hitlog otherwise and whose change is a write like any other. Every start after an orderly
//!   end gives new ones, made of a number that is random for each run and of the file's name.
//! - The **list** in the data directory says which tags the files may have whose logs hold something. It is there while
//!   hitlog runs and after a crash, and is removed at an orderly end, when every log is empty.
//!
//! The rule that makes it true, at every moment and after a crash at any: nothing is written into a log unless the list
//! on the disk has the tag that is in the file's own header, not the one that is seen through the log. So a start lists
//! what the headers have and what they are about to get, then writes the new tags, empties the logs, which brings the
//! tags into the headers, and only then takes the old ones from the list.
//!
//! A copy of a directory that was stopped has tags that no later run has, and no list, so that the one of the directory
//! that it is put over stays. So a log beside a file whose tag is not in the list is another's. Where there is no list,
//! no copy was put over anything, but somebody has left the list out, or an older hitlog was killed: the log is the
//! file's own, as it is to SQLite. A hitlog that knows nothing of this leaves the tags as they are, and a list that has
//! more tags than there are logs takes no log away from anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use rand::RngExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    access::make_file,
    header::Header,
    names::{CATALOG, SEGMENTS, bytes, has_wal},
    sync::sync_directory,
};
use crate::store::error::{OpenError, is_no_room};

/// The name of the list in the data directory, and what it has until it is complete.
pub(crate) const TIES: &str = "wal-tags";
pub(crate) const UNFINISHED_TIES: &str = "wal-tags.unfinished";

const FIRST_LINE: &str = "Which write-ahead logs belong to which files. Leave this file where it is.";
/// Set in every tag: a cookie that SQLite has counted up from 0 never gets there.
const TAG: u32 = 0x4000_0000;
/// SQLite adds one for each change of a table; a file with so many changes has its tag still.
const CHANGES: u32 = 0x3f;

/// The list of one data directory, as it is on the disk.
#[derive(Debug)]
pub(crate) struct Ties {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: there is no list.
    list: Option<List>,
    /// The names of the files whose headers have this run's tags by now.
    tied: BTreeSet<String>,
    /// Whether hitlog had stopped in order before this start: every log was empty.
    was_ended: bool,
}

/// What the list says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct List {
    /// The number of the run, of which the tags of its files are made.
    run: u64,
    /// Cookies that headers had before the run gave them its tags, by the names of the files.
    files: BTreeMap<String, u32>,
    /// Logs of other files were found, and no start has begun another epoch of ids for that yet.
    is_copy: bool,
}

impl List {
    /// The tag that a file gets in this run.
    fn tag_of(&self, name: &str) -> u32 {
        let hash = xxh3_64_with_seed(name.as_bytes(), self.run) as u32;
        TAG | (hash & (TAG - 1) & !CHANGES)
    }

    /// Whether the log of a file with this cookie is its own.
    fn covers(&self, name: &str, cookie: u32) -> bool {
        let is_same = |tag: u32| tag & !CHANGES == cookie & !CHANGES;
        is_same(self.tag_of(name)) || self.files.get(name).is_some_and(|tag| is_same(*tag))
    }

    fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\nrun {:016x}\n", self.run);
        for (name, cookie) in &self.files {
            // Writing to a string never fails.
            let _ = writeln!(text, "file {cookie:08x} {name}");
        }
        if self.is_copy {
            text.push_str("copy\n");
        }
        text + "end\n"
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next().filter(|line| *line == FIRST_LINE)?;
        let run = u64::from_str_radix(lines.next()?.strip_prefix("run ")?, 16).ok()?;
        let mut list = Self { run, ..Self::default() };
        for line in lines {
            match line.split_once(' ') {
                None if line == "copy" => list.is_copy = true,
                None if line == "end" => return Some(list),
                Some(("file", rest)) => {
                    let (cookie, name) = rest.split_once(' ')?;
                    list.files.insert(name.to_owned(), u32::from_str_radix(cookie, 16).ok()?);
                }
                _ => return None,
            }
        }
        None
    }
}

impl State {
    /// Takes what is on the disk. What an earlier try of the same start has written does not count as a run.
    fn load(&mut self, list: Option<List>) -> &Option<List> {
        self.was_ended = list.is_none() || (self.was_ended && self.list.is_some());
        self.list = list;
        &self.list
    }
}

/// Whether the log beside a file is another's.
fn is_foreign(list: Option<&List>, path: &Path, header: Option<&Header>) -> bool {
    let Some(header) = header.filter(|_| has_wal(path)) else { return false };
    let is_own = list.is_none_or(|list| list.covers(&name_of(path), header.cookie));
    !header.has_log || !is_own
}

/// Whether the write-ahead log beside a file of a data directory holds something, and is its own: for who only reads.
pub(crate) fn has_own_wal(path: &Path) -> bool {
    if !has_wal(path) {
        return false;
    }
    let above = if name_of(path) == CATALOG { 1 } else { 2 };
    let list = path.ancestors().nth(above).and_then(|folder| Ties::of_directory(folder).read().ok().flatten());
    // What can't be read SQLite can't read either, and says why.
    !is_foreign(list.as_ref(), path, Header::read(path).ok().flatten().as_ref())
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Ties {
    /// Those of a data directory; nothing is read yet.
    pub(crate) fn of_directory(folder: &Path) -> Self {
        Self { folder: folder.into(), state: Mutex::default() }
    }

    /// Reads the list that an earlier run has left.
    pub(crate) fn load(&self) -> Result<(), OpenError> {
        self.state.lock().load(self.read()?);
        Ok(())
    }

    /// Begins a run: from now on the logs of these files, which are all that hitlog may write to, may be written, but
    /// for those whose logs are another's. `may_go_on`: with the list of a run that was killed, if it has all of them,
    /// so that nothing is written. No connection to any of the files may be open here.
    pub(crate) fn begin(&self, files: &[PathBuf], may_go_on: bool) -> Result<(), OpenError> {
        let mut state = self.state.lock();
        let before = state.load(self.read()?).clone();
        state.tied = BTreeSet::new();
        let mut list = List { run: rand::rng().random(), ..List::default() };
        for path in files {
            let (name, header) = (name_of(path), read_header(path)?);
            if is_foreign(before.as_ref(), path, header.as_ref()) {
                continue;
            }
            // The log may have the tag that an earlier start has written into it, and any checkpoint brings that into
            // the header. So a run whose logs are not empty yet goes on, however often its starts are cut short.
            if let Some(before) = before.as_ref().filter(|_| has_wal(path)) {
                list.run = before.run;
            }
            let cookie = header.map_or(0, |header| header.cookie);
            if name == CATALOG && bytes(path) > 0 && before.as_ref().is_some_and(|list| !list.covers(&name, cookie)) {
                tracing::warn!("catalog.db is not the one that hitlog wrote to when it ended last");
                list.is_copy = true;
            }
            list.files.insert(name, cookie);
        }
        if let Some(before) = before {
            let has_all = list.files.iter().all(|(name, cookie)| before.covers(name, *cookie));
            list.is_copy |= before.is_copy;
            if may_go_on && has_all {
                state.list = Some(before);
                return Ok(());
            }
        }
        self.change(&mut state, list)
    }

    /// Whether the log beside a file is another's, by the list of this run. No connection to it may be open here.
    pub(crate) fn is_foreign(&self, path: &Path) -> Result<bool, OpenError> {
        Ok(is_foreign(self.state.lock().list.as_ref(), path, read_header(path)?.as_ref()))
    }

    /// Notes that logs of other files are about to be set aside, so that no later start forgets what that means.
    pub(crate) fn note_copy(&self) -> Result<(), OpenError> {
        self.edit(|list| list.is_copy = true)
    }

    /// Whether what is here is a copy that was put over another directory.
    pub(crate) fn is_copy(&self) -> bool {
        self.state.lock().list.as_ref().is_some_and(|list| list.is_copy)
    }

    /// Lists a file whose log was another's, and is gone.
    pub(crate) fn admit(&self, path: &Path) -> Result<(), OpenError> {
        let cookie = read_header(path)?.map_or(0, |header| header.cookie);
        self.edit(|list| {
            list.files.insert(name_of(path), cookie);
        })
    }

    /// The tag that a file gets in this run.
    pub(crate) fn tag_of(&self, path: &Path) -> u32 {
        self.state.lock().list.as_ref().map_or(0, |list| list.tag_of(&name_of(path)))
    }

    /// Notes that the header of a file has this run's tag, and that its log was empty since.
    pub(crate) fn note_tied(&self, path: &Path) {
        self.state.lock().tied.insert(name_of(path));
    }

    /// Whether every log was empty when this run began.
    pub(crate) fn was_ended(&self) -> bool {
        self.state.lock().was_ended
    }

    /// The start is done: takes what no log needs any more from the list. `are_emptied`: every log was emptied, unless
    /// another program was in the way; a file whose log was not is written to under the tag that it had.
    pub(crate) fn settle(&self, are_emptied: bool) -> Result<(), OpenError> {
        let mut state = self.state.lock();
        state.was_ended = false;
        let Some(mut list) = state.list.clone() else { return Ok(()) };
        list.is_copy = false;
        if are_emptied {
            let tied = &state.tied;
            list.files.retain(|name, _| !tied.contains(name) && has_wal(&self.path_of(name)));
        }
        if state.list.as_ref() == Some(&list) {
            return Ok(());
        }
        match self.change(&mut state, list) {
            // A list with more than there need be does no harm.
            Err(OpenError::Io { source, .. }) if is_no_room(&source) => Ok(()),
            changed => changed,
        }
    }

    /// Removes the list at an orderly end, when nothing writes any more; but where a log of these files is not empty.
    pub(crate) fn end(&self, files: &[PathBuf]) -> Result<(), OpenError> {
        let mut state = self.state.lock();
        if state.list.as_ref().is_none_or(|list| list.is_copy) || files.iter().any(|path| has_wal(path)) {
            return Ok(());
        }
        let path = self.folder.join(TIES);
        fs::remove_file(&path).map_err(OpenError::io("remove", path))?;
        sync_directory(&self.folder)?;
        state.list = None;
        Ok(())
    }

    fn edit(&self, change: impl FnOnce(&mut List)) -> Result<(), OpenError> {
        let mut state = self.state.lock();
        let Some(mut list) = state.list.clone() else { return Ok(()) };
        change(&mut list);
        if state.list.as_ref() == Some(&list) { Ok(()) } else { self.change(&mut state, list) }
    }

    /// Makes the list another one, durably or not at all.
    fn change(&self, state: &mut State, list: List) -> Result<(), OpenError> {
        let (path, unfinished) = (self.folder.join(TIES), self.folder.join(UNFINISHED_TIES));
        let written = make_file(&unfinished)
            .and_then(|()| OpenOptions::new().write(true).truncate(true).open(&unfinished))
            .and_then(|file| file.write_all_at(list.text().as_bytes(), 0).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            // On a full disk its room is needed.
            let _ = fs::remove_file(&unfinished);
            return Err(OpenError::io("write", unfinished)(error));
        }
        fs::rename(&unfinished, &path).map_err(OpenError::io("rename", &unfinished))?;
        sync_directory(&self.folder)?;
        state.list = Some(list);
        Ok(())
    }

    fn read(&self) -> Result<Option<List>, OpenError> {
        let path = self.folder.join(TIES);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(OpenError::io("read", path)(error)),
        };
        let list = List::parse(&text);
        if list.is_none() {
            tracing::warn!(
                file = %path.display(),
                "it does not say which write-ahead logs belong to which files: each is taken for that of its file"
            );
        }
        Ok(list)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        if name == CATALOG { self.folder.join(name) } else { self.folder.join(SEGMENTS).join(name) }
    }
}

fn read_header(path: &Path) -> Result<Option<Header>, OpenError> {
    Header::read(path).map_err(OpenError::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "000000000007.db";

    /// A file with such a header, and with a log of so many bytes.
    fn write(folder: &Path, versions: u8, cookie: u32, log_bytes: usize) -> PathBuf {
        let path = folder.join(NAME);
        let mut header = [0; 100];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[18..20].fill(versions);
        header[40..44].copy_from_slice(&cookie.to_be_bytes());
        fs::write(&path, header).unwrap();
        fs::write(super::super::names::with_suffix(&path, "-wal"), vec![7; log_bytes]).unwrap();
        path
    }

    #[test]
    fn whose_a_log_is() {
        let work = tempfile::tempdir().unwrap();
        let list = List { run: 77, files: BTreeMap::from([(NAME.to_owned(), TAG | 0x1240)]), is_copy: false };
        let (tag, other) = (list.tag_of(NAME), list.tag_of("000000000008.db"));
        assert!(tag >= TAG && tag != other && list.tag_of(NAME) == tag);
        assert!(i32::try_from(tag | CHANGES).is_ok(), "SQLite takes it");
        for (list, versions, cookie, log_bytes, foreign, why) in [
            (Some(&list), 2, tag, 9, false, "this run's"),
            (Some(&list), 2, tag + 5, 9, false, "tables were changed"),
            (Some(&list), 2, TAG | 0x1240, 9, false, "what it had before this run"),
            (Some(&list), 2, TAG | 0x9940, 9, true, "another run's"),
            (Some(&list), 2, other, 9, true, "another file's"),
            (Some(&list), 2, 12, 9, true, "an older hitlog's, put here"),
            (Some(&list), 1, tag, 9, true, "a file that is written through no log"),
            (Some(&list), 1, 12, 0, false, "there is none"),
            (None, 2, 12, 9, false, "an older hitlog's"),
            (None, 2, tag, 9, false, "of a killed one's copy that the list was left out of"),
            (None, 1, tag, 9, true, "a backup, put here"),
            (None, 2, tag, 0, false, "what had stopped"),
        ] {
            let path = write(work.path(), versions, cookie, log_bytes);
            let header = Header::read(&path).unwrap();
            assert_eq!(is_foreign(list, &path, header.as_ref()), foreign, "{why}");
        }
        fs::write(work.path().join(NAME), "no database").unwrap();
        assert!(Header::read(&work.path().join(NAME)).unwrap().is_none());
    }

    #[test]
    fn the_list_says_what_it_said() {
        let files = BTreeMap::from([(CATALOG.to_owned(), 5), (NAME.to_owned(), TAG | 0x40)]);
        for list in [List::default(), List { run: u64::MAX, files, is_copy: true }] {
            let text = list.text();
            assert_eq!(List::parse(&text), Some(list));
            // What was cut off anywhere is no list, rather than one that lacks something.
            assert!((0..text.len() - 1).all(|length| List::parse(&text[..length]).is_none()), "{text}");
        }
        let work = tempfile::tempdir().unwrap();
        fs::write(work.path().join(TIES), "something else").unwrap();
        let ties = Ties::of_directory(work.path());
        ties.load().unwrap();
        assert!(ties.state.lock().list.is_none());
    }

    #[test]
    fn a_run_lists_what_there_is_until_it_is_done() {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir(work.path().join(SEGMENTS)).unwrap();
        let path = write(&work.path().join(SEGMENTS), 2, 12, 9);
        let files = [path.clone()];
        let begin = |may_go_on| {
            let ties = Ties::of_directory(work.path());
            ties.begin(&files, may_go_on).unwrap();
            ties
        };
        let ties = begin(false);
        assert!(ties.was_ended() && !ties.is_foreign(&path).unwrap());
        let tag = ties.tag_of(&path);
        // Cut short before and after the new tag is in the header, each start finds its log.
        for cookie in [12, tag] {
            write(&work.path().join(SEGMENTS), 2, cookie, 9);
            let again = Ties::of_directory(work.path());
            again.load().unwrap();
            assert!(!again.was_ended() && !again.is_foreign(&path).unwrap(), "{cookie:x}");
        }
        ties.note_tied(&path);
        ties.settle(true).unwrap();
        write(&work.path().join(SEGMENTS), 2, 12, 9);
        assert!(ties.is_foreign(&path).unwrap(), "what it had before is another's from now on");
        ties.end(&files).unwrap();
        assert!(work.path().join(TIES).exists(), "its log is not empty");

        // With little room the run that was killed is gone on with.
        write(&work.path().join(SEGMENTS), 2, tag, 9);
        let scarce = begin(true);
        assert_eq!(scarce.tag_of(&path), tag);
        // And with enough as well, as long as a log may have its tag and the header not, yet.
        write(&work.path().join(SEGMENTS), 2, 12, 9);
        fs::remove_file(work.path().join(TIES)).unwrap();
        let tag = begin(false).tag_of(&path);
        for cookie in [12, 12, tag, tag] {
            write(&work.path().join(SEGMENTS), 2, cookie, 9);
            let again = begin(false);
            assert_eq!(again.tag_of(&path), tag);
            assert!(!again.is_foreign(&path).unwrap(), "{cookie:x}");
            // A checkpoint of what the log has.
            write(&work.path().join(SEGMENTS), 2, tag, 9);
            assert!(!again.is_foreign(&path).unwrap(), "{cookie:x}");
        }
        write(&work.path().join(SEGMENTS), 2, tag, 0);
        let next = begin(false);
        assert_ne!(next.tag_of(&path), tag);
        assert!(!next.is_foreign(&path).unwrap());
        next.note_copy().unwrap();
        next.end(&files).unwrap();
        assert!(begin(false).is_copy(), "no start has begun another epoch yet");
        next.load().unwrap();
        next.settle(true).unwrap();
        next.end(&files).unwrap();
        assert!(!work.path().join(TIES).exists());
        next.end(&files).unwrap();
    }
}

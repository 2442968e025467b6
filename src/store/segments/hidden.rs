//! Which events of a segment are in no answer any more, until it is rewritten without them.
//!
//! Those of most erasures are in memory. Those of one that hides very many are laid down beside their segment, sorted,
//! as keys are: totals and ranks stay exact however many events a visitor has. Such a file names no visitor, goes with
//! the erasure, and is made anew by the next start, or by the first read that finds it to be damaged.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    fence::FENCE_ENTRIES,
    keys::{Key, Sites, Stream},
    laid::{LaidKeys, LaidRun},
    lay_down::lay_some_down,
};
use crate::store::format::{DataDir, blocks::BlockError};

/// The events of one segment that are being erased, by who asked for it, in that order. No key is hidden by two
/// erasures, so that what is hidden can be counted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hidden(Vec<HiddenBy>);

#[derive(Debug, Clone)]
struct HiddenBy {
    erasure: Arc<str>,
    /// Whose they are.
    visitor: HiddenVisitor,
    events: HiddenEvents,
}

#[derive(Debug, Clone)]
enum HiddenEvents {
    /// Sorted.
    InMemory(Arc<Vec<(Stream, Vec<Key>)>>),
    Laid(Arc<LaidEvents>),
}

/// Whose events are hidden.
#[derive(Debug, Clone)]
pub(crate) struct HiddenVisitor {
    pub(crate) website_id: Arc<str>,
    pub(crate) visitor_id: Arc<str>,
    /// The last sequence.
    pub(crate) up_to: u64,
}

/// A visitor's events in one segment.
#[derive(Debug)]
pub(crate) struct FoundIn {
    /// The segment's number.
    pub(crate) segment: i64,
    /// The generation that was looked at.
    pub(crate) generation: i64,
    /// How many erasures hid something in the segment when it was looked at.
    pub(crate) hidden_by: usize,
    /// Those that were not hidden by then: none, if others have asked for all of them to be erased.
    pub(crate) events: FoundEvents,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum FoundEvents {
    InMemory(Vec<(Stream, Key)>),
    Laid(Arc<LaidEvents>),
}

/// Hidden keys in one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HiddenKeys<'a> {
    InMemory(&'a [Key]),
    Laid(&'a Arc<LaidEvents>, &'a LaidRun),
}

/// What is hidden of one stream in one segment, asked for key by key. The keys that were read last of each list stay at
/// hand: whoever asks in the order of the keys has every block read once.
#[derive(Debug, Default)]
pub(crate) struct HiddenOf<'a>(Vec<(HiddenKeys<'a>, Vec<Key>)>);

/// A list of hidden events that cannot be read.
#[derive(Debug)]
pub(crate) struct UnreadableList {
    pub(crate) list: Arc<LaidEvents>,
    pub(crate) error: BlockError,
}

/// Hidden events in a file, which is removed when nobody looks at it any more.
#[derive(Debug)]
pub(crate) struct LaidEvents {
    path: PathBuf,
    runs: Vec<(Stream, LaidRun)>,
    /// Whose they are: with that they can be found again.
    pub(crate) visitor: HiddenVisitor,
    /// Where the file is, as long as that is so.
    directory: DataDir,
}

impl Hidden {
    /// The hidden events of every stream; a stream may come several times, a key comes once.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (Stream, HiddenKeys<'_>)> {
        self.0.iter().flat_map(|by| {
            let (in_memory, laid) = match &by.events {
                HiddenEvents::InMemory(streams) => (Some(streams), None),
                HiddenEvents::Laid(list) => (None, Some(list)),
            };
            let in_memory = in_memory.into_iter().flat_map(|streams| &**streams);
            let in_memory = in_memory.map(|(stream, keys)| (*stream, HiddenKeys::InMemory(keys)));
            let laid = laid.into_iter().flat_map(|list| list.runs.iter().map(move |run| (list, run)));
            in_memory.chain(laid.map(|(list, (stream, run))| (*stream, HiddenKeys::Laid(list, run))))
        })
    }

    /// What is hidden of a stream.
    pub(crate) fn of(&self, stream: Stream) -> HiddenOf<'_> {
        let of_stream = self.streams().filter(|(of, _)| *of == stream);
        HiddenOf(of_stream.map(|(_, keys)| (keys, Vec::new())).collect())
    }

    /// Leaves the events that are not hidden, sorted.
    pub(crate) fn retain_shown(&self, events: &mut Vec<(Stream, Key)>) -> Result<(), UnreadableList> {
        events.sort_unstable();
        let (mut of, mut failed): (Option<(Stream, HiddenOf<'_>)>, _) = (None, None);
        events.retain(|(stream, key)| {
            if of.as_ref().is_none_or(|(last, _)| last != stream) {
                of = Some((*stream, self.of(*stream)));
            }
            // What cannot be looked up is not shown.
            failed.is_none()
                && match of.as_mut().map_or(Ok(false), |(_, hidden)| hidden.holds(*key)) {
                    Ok(is_hidden) => !is_hidden,
                    Err(unreadable) => failed.replace(unreadable).is_some(),
                }
        });
        failed.map_or(Ok(()), Err)
    }

    /// What was hidden here when this list was made; `None` if it is in use no more.
    pub(crate) fn before(&self, list: &Arc<LaidEvents>) -> Option<Self> {
        let at = self.0.iter().position(|by| by.is_laid_in(list))?;
        Some(Self(self.0[..at].to_vec()))
    }

    /// Puts a list that was made anew into the place of the one that it is of, if that is in use still.
    pub(crate) fn replace(&mut self, list: &Arc<LaidEvents>, new: &Arc<LaidEvents>) {
        if let Some(by) = self.0.iter_mut().find(|by| by.is_laid_in(list)) {
            by.events = HiddenEvents::Laid(Arc::clone(new));
        }
    }

    /// Whose events are hidden here.
    pub(crate) fn visitors(&self) -> impl Iterator<Item = &HiddenVisitor> {
        self.0.iter().map(|by| &by.visitor)
    }

    /// How many erasures hide something here.
    pub(crate) fn erasures(&self) -> usize {
        self.0.len()
    }

    /// How many events are hidden; and how many of them in memory.
    pub(crate) fn events(&self) -> (usize, usize) {
        self.streams().fold((0, 0), |(all, in_memory), (_, keys)| match keys {
            HiddenKeys::InMemory(keys) => (all + keys.len(), in_memory + keys.len()),
            HiddenKeys::Laid(_, run) => (all + run.count as usize, in_memory),
        })
    }

    /// Hides more events, none of which is hidden.
    pub(crate) fn hide(&mut self, erasure: &Arc<str>, visitor: &HiddenVisitor, found: FoundEvents) {
        let events = match found {
            FoundEvents::InMemory(mut events) => {
                events.sort_unstable();
                let streams = events.chunk_by(|one, next| one.0 == next.0);
                let streams = streams.map(|of| (of[0].0, of.iter().map(|(_, key)| *key).collect())).collect();
                HiddenEvents::InMemory(Arc::new(streams))
            }
            FoundEvents::Laid(list) => HiddenEvents::Laid(list),
        };
        self.0.push(HiddenBy { erasure: Arc::clone(erasure), visitor: visitor.clone(), events });
    }

    /// Ends the hiding of what these erasures hid. Returns whether anything else is hidden.
    pub(crate) fn erased(&mut self, erasures: &[Arc<str>]) -> bool {
        self.0.retain(|by| !erasures.contains(&by.erasure));
        !self.0.is_empty()
    }
}

impl HiddenBy {
    fn is_laid_in(&self, list: &Arc<LaidEvents>) -> bool {
        matches!(&self.events, HiddenEvents::Laid(laid) if Arc::ptr_eq(laid, list))
    }
}

impl HiddenOf<'_> {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the event with this key is hidden.
    pub(crate) fn holds(&mut self, key: Key) -> Result<bool, UnreadableList> {
        for (keys, last) in &mut self.0 {
            let holds = match keys {
                HiddenKeys::InMemory(keys) => keys.binary_search(&key).is_ok(),
                HiddenKeys::Laid(list, run) => {
                    let is_among = |keys: &[Key]| Some(*keys.first()? <= key && key <= *keys.last()?);
                    if is_among(last) != Some(true) {
                        let Some((post, begin)) = run.rank_bounds(key).walk_from else { continue };
                        if last.first() != Some(&post) {
                            last.clear();
                            let read = run.read(begin..begin + FENCE_ENTRIES);
                            *last = read.map_err(|error| UnreadableList { list: Arc::clone(list), error })?;
                        }
                    }
                    last.binary_search(&key).is_ok()
                }
            };
            if holds {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl LaidEvents {
    /// Lays a visitor's events in the segment with this number down at `path`, in this directory.
    pub(crate) fn write(
        events: &mut [(Stream, Key)],
        visitor: HiddenVisitor,
        (number, sites): (i64, &Sites),
        (directory, path): (&DataDir, &Path),
    ) -> Result<Self, BlockError> {
        // Its own name is a temporary one, too: the next start removes what has it.
        lay_some_down(events, number, sites, path, path)?;
        let runs = LaidKeys::open(path, number, sites)?.into_runs();
        Ok(Self { path: path.into(), runs, visitor, directory: directory.clone() })
    }

    /// Where they are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LaidEvents {
    fn drop(&mut self) {
        // In the place of a directory that was moved there may be another's.
        if self.directory.check().is_err() {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "could not remove a list of erased events; the next start does");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor() -> HiddenVisitor {
        HiddenVisitor { website_id: "web".into(), visitor_id: "many".into(), up_to: 9 }
    }

    fn keys(sequences: std::ops::Range<u64>) -> Vec<(Stream, Key)> {
        sequences.map(|sequence| (Stream(4), Key { created_at: 7 * sequence.cast_signed() % 100, sequence })).collect()
    }

    fn lay(directory: &DataDir, sites: &Sites, mut events: Vec<(Stream, Key)>, list: u64) -> Arc<LaidEvents> {
        let path = directory.segment_paths().hidden(1, list);
        Arc::new(LaidEvents::write(&mut events, visitor(), (1, sites), (directory, &path)).unwrap())
    }

    #[test]
    fn a_list_that_cannot_be_read_hides_more_and_never_less() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&parent.path().join("data")).unwrap();
        let sites = Sites::default();
        assert_eq!([b"other", b"web.."].map(|id| sites.number(id)), [0, 1]);
        let mut hidden = Hidden::default();
        hidden.hide(&"first".into(), &visitor(), FoundEvents::InMemory(keys(0..10)));
        let lists = [lay(&directory, &sites, keys(10..5_000), 1), lay(&directory, &sites, keys(5_000..5_010), 2)];
        for list in &lists {
            hidden.hide(&"laid".into(), &visitor(), FoundEvents::Laid(Arc::clone(list)));
        }
        let shown = |hidden: &Hidden| {
            let mut events = keys(0..6_000);
            events.push((Stream(9), Key { created_at: 1, sequence: 10 }));
            hidden.retain_shown(&mut events).map(|()| events.len())
        };
        assert_eq!(shown(&hidden).unwrap(), 991);
        assert_eq!(hidden.events(), (5_010, 10));
        fs::write(lists[0].path(), "no list").unwrap();
        let unreadable = shown(&hidden).unwrap_err();
        assert!(Arc::ptr_eq(&unreadable.list, &lists[0]));
        assert!(hidden.of(Stream(4)).holds(Key { created_at: 0, sequence: 0 }).unwrap(), "what is in memory is known");
        let mut of_others = hidden.of(Stream(9));
        assert!(of_others.is_empty() && !of_others.holds(Key { created_at: 1, sequence: 10 }).unwrap());
        // Made anew of what was not hidden before it.
        let mut events = keys(0..5_000);
        hidden.before(&lists[0]).unwrap().retain_shown(&mut events).unwrap();
        hidden.replace(&lists[0], &lay(&directory, &sites, events, 3));
        assert!(hidden.before(&lists[0]).is_none() && hidden.before(&lists[1]).is_some());
        assert_eq!((shown(&hidden).unwrap(), hidden.events()), (991, (5_010, 10)));
    }

    #[test]
    fn a_list_takes_nothing_from_another_directory() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("data"), parent.path().join("away"));
        let sites = Sites::default();
        let first = DataDir::open(&path).unwrap();
        let list = lay(&first, &sites, keys(0..10), 0);
        let (own, others) = (lay(&first, &sites, keys(0..10), 1), list.path().to_owned());
        let own_path = own.path().to_owned();
        drop(own);
        assert!(others.exists() && !own_path.exists());
        fs::rename(&path, &away).unwrap();
        let second = DataDir::open(&path).unwrap();
        fs::write(second.segment_paths().hidden(1, 0), "another's").unwrap();
        drop(list);
        assert_eq!(fs::read_to_string(others).unwrap(), "another's");
    }
}

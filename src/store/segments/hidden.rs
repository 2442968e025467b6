//! Which events of a segment are in no answer any more, until it is rewritten without them.
//!
//! Those of most erasures are in memory. Those of one that hides very many are laid down beside their segment, sorted,
//! as keys are: totals and ranks stay exact however many events a visitor has. Such a file names no visitor, goes with
//! the erasure, and is made anew by the next start.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    fence::FENCE_ENTRIES,
    keys::{Key, Sites, Stream},
    laid::{LaidKeys, LaidRun},
    lay_down::lay_some_down,
};
use crate::store::format::blocks::BlockError;

/// The events of one segment that are being erased, by who asked for it. No key is hidden by two erasures, so that what
/// is hidden can be counted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Hidden(Vec<HiddenBy>);

#[derive(Debug, Clone)]
struct HiddenBy {
    erasure: Arc<str>,
    events: HiddenEvents,
}

#[derive(Debug, Clone)]
enum HiddenEvents {
    /// Sorted.
    InMemory(Arc<Vec<(Stream, Vec<Key>)>>),
    Laid(Arc<LaidEvents>),
}

/// A visitor's events in one segment.
#[derive(Debug)]
pub(crate) struct FoundIn {
    /// The segment's number.
    pub(crate) segment: i64,
    /// The generation that was looked at.
    pub(crate) generation: i64,
    pub(crate) events: FoundEvents,
}

/// What was found: all of it, or what is not hidden yet.
#[derive(Debug)]
pub(crate) enum FoundEvents {
    InMemory(Vec<(Stream, Key)>),
    Laid {
        events: Arc<LaidEvents>,
        /// How many erasures hid something in the segment when it was looked at.
        hidden_by: usize,
    },
}

/// Hidden keys in one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HiddenKeys<'a> {
    InMemory(&'a [Key]),
    Laid(&'a LaidRun),
}

/// Hidden events in a file, which is removed when nobody looks at it any more.
#[derive(Debug)]
pub(crate) struct LaidEvents {
    path: PathBuf,
    runs: Vec<(Stream, LaidRun)>,
    /// What was read last, and of which run: whoever goes through a listing asks for one key after the other.
    last: Mutex<(usize, u64, Vec<Key>)>,
}

impl Hidden {
    /// The hidden events of every stream; a stream may come several times, a key comes once.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (Stream, HiddenKeys<'_>)> {
        self.0.iter().flat_map(|by| {
            let (in_memory, laid) = match &by.events {
                HiddenEvents::InMemory(streams) => (&***streams, &[][..]),
                HiddenEvents::Laid(events) => (&[][..], &*events.runs),
            };
            let in_memory = in_memory.iter().map(|(stream, keys)| (*stream, HiddenKeys::InMemory(keys)));
            in_memory.chain(laid.iter().map(|(stream, run)| (*stream, HiddenKeys::Laid(run))))
        })
    }

    /// Whether the event with this key is hidden.
    pub(crate) fn holds(&self, key: Key) -> Result<bool, BlockError> {
        for by in &self.0 {
            let holds = match &by.events {
                HiddenEvents::InMemory(streams) => streams.iter().any(|(_, keys)| keys.binary_search(&key).is_ok()),
                HiddenEvents::Laid(events) => events.holds(key)?,
            };
            if holds {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many erasures hide something here.
    pub(crate) fn erasures(&self) -> usize {
        self.0.len()
    }

    /// How many events are hidden; and how many of them in memory.
    pub(crate) fn events(&self) -> (usize, usize) {
        self.streams().fold((0, 0), |(all, in_memory), (_, keys)| match keys {
            HiddenKeys::InMemory(keys) => (all + keys.len(), in_memory + keys.len()),
            HiddenKeys::Laid(run) => (all + run.count as usize, in_memory),
        })
    }

    /// Hides more events; of those in memory, those that are not hidden already.
    pub(crate) fn hide(&mut self, erasure: &Arc<str>, found: FoundEvents) {
        let events = match found {
            FoundEvents::InMemory(mut events) => {
                // What cannot be looked up is hidden twice rather than shown.
                events.retain(|(_, key)| !self.holds(*key).unwrap_or(false));
                events.sort_unstable();
                let streams = events.chunk_by(|one, next| one.0 == next.0);
                let streams = streams.map(|of| (of[0].0, of.iter().map(|(_, key)| *key).collect())).collect();
                HiddenEvents::InMemory(Arc::new(streams))
            }
            FoundEvents::Laid { events, .. } => HiddenEvents::Laid(events),
        };
        self.0.push(HiddenBy { erasure: Arc::clone(erasure), events });
    }

    /// Ends the hiding of what these erasures hid. Returns whether anything else is hidden.
    pub(crate) fn erased(&mut self, erasures: &[Arc<str>]) -> bool {
        self.0.retain(|by| !erasures.contains(&by.erasure));
        !self.0.is_empty()
    }
}

impl LaidEvents {
    /// Lays events of the segment with this number down at `path`.
    pub(crate) fn write(
        events: &mut [(Stream, Key)],
        number: i64,
        sites: &Sites,
        path: &Path,
    ) -> Result<Self, BlockError> {
        // Its own name is a temporary one, too: the next start removes what has it.
        lay_some_down(events, number, sites, path, path)?;
        let runs = LaidKeys::open(path, number, sites)?.into_runs();
        Ok(Self { path: path.into(), runs, last: Mutex::default() })
    }

    fn holds(&self, key: Key) -> Result<bool, BlockError> {
        for (at, (_, run)) in self.runs.iter().enumerate() {
            let Some((_, begin)) = run.rank_bounds(key).walk_from else { continue };
            let mut last = self.last.lock();
            if last.2.is_empty() || (last.0, last.1) != (at, begin) {
                *last = (at, begin, run.read(begin..begin + FENCE_ENTRIES)?);
            }
            if last.2.binary_search(&key).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for LaidEvents {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            let file = self.path.display();
            tracing::warn!(%file, %error, "could not remove a list of erased events; the next start does");
        }
    }
}

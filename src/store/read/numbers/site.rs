//! What is known of one website between two questions: tallies of the segments without rollups, and the visits that go
//! on from one segment to another.

mod answers;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    border::{JOINED_EVENTS_MAX, PAIRS_AT_ONCE, find_fragments, join_pairs},
    cache::Generation,
    joined::{Counted, Joined},
    question::Span,
    scene::{EVER, Piece, Scene, block_of, is_near, later_events, number_of},
    sealed::Sealed,
    sum::Sign,
    tally::{HiddenHash, Tally},
};
use crate::{
    clock::now_ms,
    store::{
        error::ReadError,
        rollup::{Answer, FragmentKey, List, PAUSE_MAX_MS},
        segments::{Hidden, Segment},
    },
};

/// Events in tallies from which on answers may be as old as [`RECENT_MAX`]: to go through fewer takes some ten
/// milliseconds.
const MANY_EVENTS: usize = 100_000;
/// How old: however often somebody asks, no more than a part of a core goes into it.
const RECENT_MAX: Duration = Duration::from_secs(1);

/// Lists that are to be added, or to be taken off.
type SignedLists = Vec<(Arc<List>, Sign)>;

/// What is known of a website.
#[derive(Default)]
pub(super) struct Site {
    tallies: HashMap<Generation, Tally>,
    /// Visits that go on between sealed segments.
    sealed: Joined,
    /// The sealed segments that it has looked at. Not the segments themselves: one that is held is not unlinked.
    looked_at: HashSet<Generation>,
    /// Whether there was no room to put all of those together.
    has_unjoined: bool,
    /// What was hidden in them then.
    hidden: HashMap<i64, Vec<HiddenHash>>,
    /// The start of the retention for which fragments that begin before it and go on after it are in it.
    cut_at: Option<i64>,
    sealed_answers: HashMap<([u64; 2], i64), [Arc<Answer>; 2]>,
    /// Visits that go on between tallies and other segments.
    open: Joined,
    /// Keys of tallies of which all that there is is there.
    open_keys: HashSet<FragmentKey>,
    /// Whether there was no room for all of them.
    has_unjoined_open: bool,
    /// What it was made of.
    open_of: Option<OpenVersion>,
    /// When all rows that there were by then were read, in milliseconds since 1970, UTC, and by the other clock.
    caught_up_at: Option<(i64, Instant)>,
    tally_answers: HashMap<(Generation, [u64; 2]), (OpenVersion, Arc<Answer>)>,
    /// Lists of tallies and open visits, for lists and the start of the retention.
    open_lists: HashMap<([u64; 2], i64), (OpenVersion, SignedLists)>,
}

/// Of what tallies and open visits were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OpenVersion {
    /// How many events each tally has, and what was hidden in it.
    tallies: Vec<(Generation, usize, Vec<HiddenHash>)>,
    sealed: Vec<Generation>,
    cut_at: Option<i64>,
}

/// How far a website's tallies are.
pub(super) struct Progress {
    pub(super) is_complete: bool,
    /// When the last event that is counted had come in, if some are not.
    pub(super) as_of: i64,
}

impl Site {
    /// The memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let tallies: usize = self.tallies.values().map(|tally| tally.piece.memory_bytes()).sum();
        let answers =
            self.sealed_answers.values().flatten().chain(self.tally_answers.values().map(|(_, answer)| answer));
        tallies
            + self.sealed.memory_bytes()
            + self.open.memory_bytes()
            + answers.map(|answer| answer.memory_bytes()).sum::<usize>()
            + self.open_lists.values().flat_map(|(_, lists)| lists).map(|(list, _)| list.memory_bytes()).sum::<usize>()
    }

    /// Brings everything to the moment of the scene, as far as there is time; or leaves it as it was a moment ago,
    /// where very many events would be gone through for a few new ones.
    pub(super) fn catch_up(&mut self, scene: &Scene<'_>) -> Result<Progress, ReadError> {
        self.look_at_sealed(scene)?;
        if let Some(as_of) = self.is_recent(scene) {
            return Ok(Progress { is_complete: false, as_of });
        }
        let begun_at = now_ms();
        let progress = self.read_tallies(scene)?;
        let all_are_joined = self.join_open(scene)?;
        self.caught_up_at = progress.is_complete.then(|| (begun_at, Instant::now()));
        let is_complete = progress.is_complete && all_are_joined && !self.has_unjoined;
        Ok(Progress { is_complete, ..progress })
    }

    /// When it was brought up to date, in milliseconds since 1970, UTC, if that is recent enough for the many events
    /// that it has, and nothing has happened since but that events came in.
    fn is_recent(&self, scene: &Scene<'_>) -> Option<i64> {
        let (as_of, _) = self.caught_up_at.filter(|(_, at)| at.elapsed() < RECENT_MAX)?;
        let made_of = self.open_of.as_ref()?;
        let events: usize = made_of.tallies.iter().map(|(_, events, _)| events).sum();
        let is_hidden_as_before = |(of, _, hidden): &(Generation, usize, _)| *hidden == scene.hidden(of.number);
        let is_same = events >= MANY_EVENTS
            && made_of.sealed == self.looked_at_sorted()
            && made_of.cut_at == self.cut_at
            && made_of.tallies.iter().all(is_hidden_as_before);
        let is_read = |(segment, up_to): &(Arc<Segment>, u64)| {
            self.tallies.get(&Generation::of(segment)).is_some_and(|tally| tally.read_up_to >= *up_to)
        };
        // Where nothing came in, all is as it is now.
        (is_same && !scene.open.iter().all(is_read)).then_some(as_of)
    }

    fn looked_at_sorted(&self) -> Vec<Generation> {
        let mut sealed: Vec<Generation> = self.looked_at.iter().copied().collect();
        sealed.sort_unstable();
        sealed
    }

    /// Whether rows are left that a question had no time to read.
    pub(super) fn is_behind(&self) -> bool {
        self.caught_up_at.is_none()
    }

    /// Reads the rows that came in since, as far as there is time.
    pub(super) fn read_tallies(&mut self, scene: &Scene<'_>) -> Result<Progress, ReadError> {
        let is_there = |of: &Generation| scene.open.iter().any(|(segment, _)| Generation::of(segment) == *of);
        self.tallies.retain(|of, _| is_there(of));
        self.tally_answers.retain(|(of, _), _| is_there(of));
        let begun_at = Instant::now();
        let mut progress = Progress { is_complete: true, as_of: i64::MAX };
        let mut bytes: usize = self.tallies.values().map(|tally| tally.piece.memory_bytes()).sum();
        for (segment, up_to) in scene.open {
            let tally = self.tallies.entry(Generation::of(segment)).or_default();
            let time_max = scene.wait_max.saturating_sub(begun_at.elapsed());
            let (own_bytes, is_too_large) = (tally.piece.memory_bytes(), bytes > scene.bytes_max);
            let is_read = tally.read_up_to >= *up_to
                || (!is_too_large && tally.catch_up(scene.snapshot, segment, scene.website_id, (*up_to, time_max))?);
            bytes += tally.piece.memory_bytes() - own_bytes;
            if !is_read {
                progress = Progress { is_complete: false, as_of: progress.as_of.min(tally.last_received_at) };
            }
        }
        Ok(progress)
    }

    /// Looks for visits that go on between sealed segments, where it has not looked before.
    fn look_at_sealed(&mut self, scene: &Scene<'_>) -> Result<(), ReadError> {
        let hidden: HashMap<i64, Vec<HiddenHash>> = scene
            .sealed
            .iter()
            .map(|piece| (piece.segment.number, scene.hidden(piece.segment.number)))
            .filter(|(_, hidden)| !hidden.is_empty())
            .collect();
        let listed: HashSet<Generation> = scene.sealed.iter().map(Piece::generation).collect();
        if hidden != self.hidden || !self.looked_at.is_subset(&listed) {
            self.sealed = Joined::default();
            self.looked_at.clear();
            self.sealed_answers.clear();
            (self.cut_at, self.has_unjoined) = (None, false);
            // What is open was put together with what was sealed then.
            (self.open_of, self.tally_answers) = (None, HashMap::new());
        }
        self.hidden = hidden;
        self.look_at_new(scene).inspect_err(|_| {
            // What a visitor has left after an erasure must not be added again.
            if !self.hidden.is_empty() {
                (self.sealed, self.looked_at) = (Joined::default(), HashSet::new());
            }
        })?;
        if self.cut_at != Some(scene.expired_before) {
            self.take_cut(scene)?;
            self.cut_at = Some(scene.expired_before);
        }
        Ok(())
    }

    fn look_at_new(&mut self, scene: &Scene<'_>) -> Result<(), ReadError> {
        let is_new = |piece: &&Piece| !self.looked_at.contains(&piece.generation());
        let (new, mut old): (Vec<&Piece>, Vec<&Piece>) = scene.sealed.iter().partition(is_new);
        let mut pairs = Vec::new();
        for (at, piece) in new.iter().enumerate() {
            self.sealed_answers.clear();
            self.take_hidden(scene, piece)?;
            let near = old.iter().filter(|other| is_near(piece.times, other.times));
            pairs.extend(near.map(|other| (*piece, *other)));
            old.push(piece);
            if pairs.len() >= PAIRS_AT_ONCE || at + 1 == new.len() {
                self.join(scene, &pairs)?;
                pairs.clear();
                // What was looked at stays so, however far the question comes.
                self.looked_at.extend(old.iter().map(|piece| piece.generation()));
                // They may have fragments that have begun to expire already.
                self.cut_at = None;
            }
        }
        Ok(())
    }

    /// Joins the visits that go on between the segments of each pair. Where there is no room for more of them, they
    /// count once for each segment, and the answer is not complete.
    fn join(&mut self, scene: &Scene<'_>, pairs: &[(&Piece, &Piece)]) -> Result<(), ReadError> {
        let has_unjoined = &mut self.has_unjoined;
        join_pairs(&mut self.sealed, scene, pairs, |joined| {
            *has_unjoined |= joined.memory_bytes() > scene.bytes_max;
            !*has_unjoined
        })
    }

    /// Takes off what a visitor has that is hidden, and adds what came in later.
    fn take_hidden(&mut self, scene: &Scene<'_>, piece: &Piece) -> Result<(), ReadError> {
        let number = piece.segment.number;
        let Some(hidden) = self.hidden.get(&number) else { return Ok(()) };
        let sealed = scene.open(piece)?;
        let is_hidden = |key: FragmentKey, _| hidden.iter().any(|hidden| hidden.visitor == key.visitor);
        find_fragments(scene, &sealed, EVER, is_hidden, &mut |found| {
            found.add_to(&mut self.sealed, true);
            true
        })?;
        let last = piece.segment.sequences().map_or(0, |(_, last)| last);
        let visitors = scene.snapshot.hidden(number).into_iter().flat_map(Hidden::visitors);
        let mut done = HashSet::new();
        for visitor in visitors.filter(|visitor| visitor.website_id == *scene.website_id) {
            let up_to = hidden.iter().filter(|hidden| hidden.visitor == HiddenHash::of(visitor).visitor);
            let up_to = up_to.map(|hidden| hidden.up_to).max().unwrap_or(visitor.up_to);
            if up_to < last && done.insert(&visitor.visitor_id) {
                let later = later_events(scene, &piece.segment, &visitor.visitor_id, up_to)?;
                let mut hits = Vec::new();
                for chain in 0..later.chains() {
                    later.sorted(chain, &mut hits);
                    self.sealed.add((number, &later.dictionaries), later.key(chain), &hits, Counted::No, false);
                }
            }
        }
        Ok(())
    }

    /// Adds the fragments that have begun to expire: they are visits that begin later now.
    fn take_cut(&mut self, scene: &Scene<'_>) -> Result<(), ReadError> {
        let cut_at = scene.expired_before;
        for piece in scene.sealed.iter().filter(|piece| piece.times.0 < cut_at && cut_at <= piece.times.1) {
            let sealed = scene.open(piece)?;
            let is_cut = |_, (first, last): (i64, i64)| first < cut_at && cut_at <= last;
            let at = Span { from: cut_at, to: cut_at.saturating_add(1) };
            find_fragments(scene, &sealed, at, is_cut, &mut |found| {
                found.add_to(&mut self.sealed, false);
                self.sealed_answers.clear();
                true
            })?;
        }
        Ok(())
    }

    /// Looks for visits that go on between tallies and other segments, if anything has changed.
    /// Returns whether there was room for all of them.
    fn join_open(&mut self, scene: &Scene<'_>) -> Result<bool, ReadError> {
        let mut tallies: Vec<_> =
            self.tallies.iter().map(|(of, tally)| (*of, tally.piece.len(), scene.hidden(of.number))).collect();
        tallies.sort_unstable_by_key(|(of, ..)| *of);
        let version = OpenVersion { tallies, sealed: self.looked_at_sorted(), cut_at: self.cut_at };
        if self.open_of.as_ref() == Some(&version) {
            return Ok(!self.has_unjoined_open);
        }
        (self.open, self.open_of) = (Joined::default(), None);
        self.open_keys.clear();
        let mut fragments: Vec<(Sealed, HashSet<u32>)> = Vec::new();
        for piece in scene.sealed {
            if let Some((sealed, found)) = self.near_tallies(scene, piece)? {
                fragments.push((sealed, found));
            }
        }
        for (sealed, found) in &fragments {
            self.add_near(scene, sealed, found)?;
        }
        self.add_shared_keys();
        let keys = std::mem::take(&mut self.open_keys);
        self.has_unjoined_open = false;
        let mut hits = Vec::new();
        for key in &keys {
            let chains = || self.tallies.values().filter_map(|tally| Some((tally, tally.piece.chain(*key)?)));
            let is_long = chains().any(|(tally, chain)| tally.piece.hits(chain).nth(JOINED_EVENTS_MAX).is_some());
            self.has_unjoined_open |= self.open.memory_bytes() > scene.bytes_max;
            if is_long || self.has_unjoined_open {
                continue;
            }
            self.open_keys.insert(*key);
            self.open.add_chain_of(&self.sealed, *key);
            for (of, tally) in &self.tallies {
                let Some(chain) = tally.piece.chain(*key) else { continue };
                tally.piece.sorted(chain, &mut hits);
                tally.hide(key.visitor, &mut hits, &scene.hidden(of.number));
                self.open.add((of.number, &tally.piece.dictionaries), *key, &hits, Counted::No, false);
            }
        }
        self.open_of = Some(version);
        Ok(!self.has_unjoined_open)
    }

    /// The fragments of a sealed segment that may go on in a tally: numbers of those that are not joined yet. Notes the
    /// keys of all of them.
    fn near_tallies(&mut self, scene: &Scene<'_>, piece: &Piece) -> Result<Option<(Sealed, HashSet<u32>)>, ReadError> {
        let mut found = HashSet::new();
        let Self { tallies, open_keys, sealed: joined, .. } = self;
        let number = piece.segment.number;
        let near = tallies.values().filter(|tally| tally.times.is_some_and(|times| is_near(times, piece.times)));
        let near: Vec<&Tally> = near.collect();
        if near.is_empty() {
            return Ok(None);
        }
        let sealed = scene.open(piece)?;
        for tally in near {
            let Some((first, last)) = tally.times else { continue };
            let around = Span { from: first - PAUSE_MAX_MS, to: last + PAUSE_MAX_MS + 1 };
            for (block, entry) in sealed.blocks(around) {
                let keys = sealed.keys(scene.snapshot, scene.kept, entry)?;
                scene.snapshot.check_limits()?;
                for at in 0..keys.len() {
                    let key = keys.key(at);
                    let Some(chain) = tally.piece.chain(key) else { continue };
                    if tally.is_near(chain, keys.times(at)) {
                        open_keys.insert(key);
                        let fragment = number_of(block, at);
                        if !joined.holds(number, fragment) {
                            found.insert(fragment);
                        }
                    }
                }
            }
        }
        Ok(Some((sealed, found)))
    }

    fn add_near(&mut self, scene: &Scene<'_>, sealed: &Sealed, found: &HashSet<u32>) -> Result<(), ReadError> {
        let number = sealed.segment.number;
        let dictionaries = sealed.dictionaries(scene.snapshot, scene.kept)?;
        for (block, entry) in sealed.blocks(EVER) {
            if !found.iter().any(|fragment| block_of(*fragment) == block) {
                continue;
            }
            let fragments = sealed.block(scene.snapshot, scene.kept, entry)?;
            let is_wanted =
                |at: &usize| found.contains(&number_of(block, *at)) && fragments.hits(*at).len() <= JOINED_EVENTS_MAX;
            for at in (0..fragments.len()).filter(is_wanted) {
                let counted = Counted::Alone { segment: number, fragment: number_of(block, at) };
                self.open.add((number, &dictionaries), fragments.key(at), fragments.hits(at), counted, false);
            }
        }
        Ok(())
    }

    /// Notes the keys that are in several tallies.
    fn add_shared_keys(&mut self) {
        let mut tallies: Vec<&Tally> = self.tallies.values().collect();
        tallies.sort_unstable_by_key(|tally| tally.piece.chains());
        for (at, tally) in tallies.iter().enumerate() {
            let larger = &tallies[at + 1..];
            if !larger.is_empty() {
                let keys = (0..tally.piece.chains()).map(|chain| tally.piece.key(chain));
                let is_shared = |key: &FragmentKey| larger.iter().any(|other| other.piece.chain(*key).is_some());
                self.open_keys.extend(keys.filter(is_shared));
            }
        }
    }
}

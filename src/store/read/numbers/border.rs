//! Finds the fragments of sealed segments that are of one visit with fragments of others.

use std::sync::Arc;

use super::{
    joined::{Counted, Joined},
    question::Span,
    scene::{Piece, Scene, is_near, number_of},
    sealed::Sealed,
};
use crate::store::{
    error::ReadError,
    rollup::{Dictionaries, FragmentKey, Fragments, PAUSE_MAX_MS},
};

/// Most events that a session has in one segment if its visit is to go on in another: one id for everything, as of a
/// program that watches a website, must not take the memory of all.
pub(super) const JOINED_EVENTS_MAX: usize = 10_000;

/// Pairs that are looked at before what was found is added.
pub(super) const PAIRS_AT_ONCE: usize = 16;
/// Most bytes that are found of one of these pairs. Where there is more, the pair is looked at again, and what is found
/// is added at once.
const FOUND_BYTES_MAX: usize = 256 << 10;

/// The part of dictionaries that counts beside that: those of a usual segment must not be too much.
const DICTIONARIES_PART: usize = 16;

/// Some fragments of a block of a sealed segment.
pub(super) struct Found {
    segment: i64,
    dictionaries: Arc<Dictionaries>,
    block: u32,
    /// Their numbers in the block.
    numbers: Vec<usize>,
    fragments: Fragments,
}

impl Found {
    /// Adds them. With `is_gone` their events are hidden, and only taken off.
    pub(super) fn add_to(&self, joined: &mut Joined, is_gone: bool) {
        for (at, number) in self.numbers.iter().enumerate() {
            let hits = self.fragments.hits(at);
            if is_gone || hits.len() <= JOINED_EVENTS_MAX {
                let counted = Counted::Alone { segment: self.segment, fragment: number_of(self.block, *number) };
                joined.add((self.segment, &self.dictionaries), self.fragments.key(at), hits, counted, is_gone);
            }
        }
    }
}

/// Hands on the fragments of a segment that have something in a span and are wanted, block by block, for as long as
/// `each` wants more.
pub(super) fn find_fragments(
    scene: &Scene<'_>,
    sealed: &Sealed,
    span: Span,
    is_wanted: impl Fn(FragmentKey, (i64, i64)) -> bool,
    each: &mut impl FnMut(Found) -> bool,
) -> Result<bool, ReadError> {
    let mut of_segment = None;
    for (block, entry) in sealed.blocks(span) {
        scene.snapshot.check_limits()?;
        let keys = sealed.keys(scene.snapshot, scene.kept, entry)?;
        let is_wanted = |at: &usize| overlaps(span, keys.times(*at)) && is_wanted(keys.key(*at), keys.times(*at));
        let numbers: Vec<usize> = (0..keys.len()).filter(is_wanted).collect();
        if numbers.is_empty() {
            continue;
        }
        // Once for all blocks: very large ones are not kept.
        let dictionaries = match &of_segment {
            Some(dictionaries) => Arc::clone(dictionaries),
            None => Arc::clone(of_segment.insert(sealed.dictionaries(scene.snapshot, scene.kept)?)),
        };
        // Needed once only, and large: not kept.
        let fragments = sealed.read_some(scene.snapshot, entry, &keys, &numbers)?;
        if !each(Found { segment: sealed.segment.number, dictionaries, block, numbers, fragments }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Joins the visits that go on between the two segments of each of these pairs. Before each pair, and while something
/// is found of it, `has_room` says whether there is room for more.
pub(super) fn join_pairs(
    joined: &mut Joined,
    scene: &Scene<'_>,
    pairs: &[(&Piece, &Piece)],
    mut has_room: impl FnMut(&Joined) -> bool,
) -> Result<(), ReadError> {
    for pairs in pairs.chunks(PAIRS_AT_ONCE) {
        if !has_room(joined) {
            return Ok(());
        }
        for (pair, found) in pairs.iter().zip(scene.map(pairs, |scene, pair| find_few(scene, *pair))?) {
            if !has_room(joined) {
                return Ok(());
            }
            match found {
                Some(found) => found.iter().for_each(|found| found.add_to(joined, false)),
                None => drop(find(scene, *pair, &mut |found| {
                    found.add_to(joined, false);
                    has_room(joined)
                })?),
            }
        }
    }
    Ok(())
}

/// What is found of a pair; `None` where that is too much.
fn find_few(scene: &Scene<'_>, pair: (&Piece, &Piece)) -> Result<Option<Vec<Found>>, ReadError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let is_all = find(scene, pair, &mut |of_block: Found| {
        // What all blocks of a segment share is counted for each, so that very large dictionaries are not held.
        bytes += of_block.fragments.memory_bytes() + of_block.dictionaries.memory_bytes() / DICTIONARIES_PART;
        found.push(of_block);
        bytes <= FOUND_BYTES_MAX
    })?;
    Ok(is_all.then_some(found))
}

/// Hands on the fragments of two segments that are of one visit with some of the other, for as long as `each` wants
/// more. Returns whether those were all.
fn find(
    scene: &Scene<'_>,
    (one, other): (&Piece, &Piece),
    each: &mut impl FnMut(Found) -> bool,
) -> Result<bool, ReadError> {
    let (one, other) = (scene.open(one)?, scene.open(other)?);
    let around = |sealed: &Sealed| {
        let (first, last) = sealed.rollup.times;
        Span { from: first - PAUSE_MAX_MS, to: last + PAUSE_MAX_MS + 1 }
    };
    let fragments =
        |sealed: &Sealed, span: Span| sealed.blocks(span).map(|(_, block)| u64::from(block.fragments)).sum::<u64>();
    let (one_near, other_near) = (around(&other), around(&one));
    // The fewer of them are kept while the others pass.
    let (few, few_near, many, many_near) = if fragments(&one, one_near) <= fragments(&other, other_near) {
        (&one, one_near, &other, other_near)
    } else {
        (&other, other_near, &one, one_near)
    };
    let mut kept = Times::default();
    for (_, entry) in few.blocks(few_near) {
        let keys = few.keys(scene.snapshot, scene.kept, entry)?;
        let near = (0..keys.len()).filter(|at| overlaps(few_near, keys.times(*at)));
        kept.0.extend(near.map(|at| (keys.key(at), keys.times(at))));
    }
    kept.sort();
    let mut met = Times::default();
    for (_, entry) in many.blocks(many_near) {
        scene.snapshot.check_limits()?;
        let keys = many.keys(scene.snapshot, scene.kept, entry)?;
        let fragments = (0..keys.len()).map(|at| (keys.key(at), keys.times(at)));
        let near = fragments.filter(|(_, times)| overlaps(many_near, *times));
        met.0.extend(near.filter(|(key, times)| kept.meets(*key, *times)));
    }
    if met.0.is_empty() {
        return Ok(true);
    }
    met.sort();
    Ok(find_fragments(scene, few, few_near, |key, times| met.meets(key, times), each)?
        && find_fragments(scene, many, many_near, |key, times| kept.meets(key, times), each)?)
}

fn overlaps(span: Span, (first, last): (i64, i64)) -> bool {
    first < span.to && span.from <= last
}

/// When fragments of one segment begin and end.
#[derive(Default)]
struct Times(Vec<(FragmentKey, (i64, i64))>);

impl Times {
    /// Makes it ready to be asked.
    fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// Whether one of them may be of a visit with another fragment.
    fn meets(&self, key: FragmentKey, times: (i64, i64)) -> bool {
        // Those of one key in one segment lie apart, so the last that begins in time is the nearest.
        let begins_in_time =
            |(of, (first, _)): &(FragmentKey, (i64, i64))| (*of, *first) <= (key, times.1 + PAUSE_MAX_MS);
        let nearest = self.0.partition_point(begins_in_time).checked_sub(1).map(|at| self.0[at]);
        nearest.is_some_and(|(of, nearest)| of == key && is_near(nearest, times))
    }
}

//! What a question is about: the segments of one moment, and how fragments of them are found that are of one visit.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    cache::Generation,
    joined::{Counted, Joined},
    question::Span,
    sealed::{Kept, Sealed},
    tally::HiddenHash,
};
use crate::store::{
    error::ReadError,
    format::{row, schema},
    read::snapshot::Snapshot,
    rollup::{FRAGMENTS_MAX, FragmentKey, MemoryPiece, Needed, PAUSE_MAX_MS},
    segments::{Hidden, Segment},
};

/// Most events that a session has in one segment if its visit is to go on in another: one id for everything, as of a
/// program that watches a website, must not take the memory of all.
pub(super) const JOINED_EVENTS_MAX: usize = 10_000;

/// All of time.
pub(super) const EVER: Span = Span { from: i64::MIN, to: i64::MAX };

/// A sealed segment with something of the website.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) segment: Arc<Segment>,
    /// First and last `createdAt`.
    pub(super) times: (i64, i64),
}

impl Piece {
    pub(super) fn generation(&self) -> Generation {
        Generation::of(&self.segment)
    }
}

/// What a question is about: the segments of one moment.
pub(super) struct Scene<'a> {
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) kept: Kept<'a>,
    pub(super) website_id: &'a Arc<str>,
    pub(super) sealed: &'a [Piece],
    /// Segments without rollups, and the last sequence of each.
    pub(super) open: &'a [(Arc<Segment>, u64)],
    /// Events with an earlier `createdAt` have expired; a quarter of an hour begins there.
    pub(super) expired_before: i64,
    /// How long to wait for tallies, and what all that is kept of the website may take.
    pub(super) wait_max: Duration,
    pub(super) bytes_max: usize,
}

impl Scene<'_> {
    /// Whose events of the website are hidden in a segment.
    pub(super) fn hidden(&self, number: i64) -> Vec<HiddenHash> {
        hidden_in(self.snapshot, self.website_id, number)
    }

    pub(super) fn open(&self, piece: &Piece) -> Result<Sealed, ReadError> {
        Sealed::open(self.snapshot, self.kept, &piece.segment, self.website_id)
    }
}

/// Whose events of a website are hidden in a segment.
pub(super) fn hidden_in(snapshot: &Snapshot<'_>, website_id: &str, number: i64) -> Vec<HiddenHash> {
    let hidden = snapshot.hidden(number).into_iter().flat_map(Hidden::visitors);
    hidden.filter(|visitor| *visitor.website_id == *website_id).map(HiddenHash::of).collect()
}

/// Whether events of the one may be of a visit with events of the other.
pub(super) fn is_near(one: (i64, i64), other: (i64, i64)) -> bool {
    one.0 - PAUSE_MAX_MS <= other.1 && other.0 - PAUSE_MAX_MS <= one.1
}

/// The number of a fragment in its piece: no block has more fragments than are counted for each.
pub(super) fn number_of(block: u32, at: usize) -> u32 {
    block * FRAGMENTS_MAX as u32 + at as u32
}

pub(super) fn block_of(fragment: u32) -> u32 {
    fragment / FRAGMENTS_MAX as u32
}

/// Adds those fragments of a piece that are wanted. Returns whether there were any.
pub(super) fn add_fragments(
    joined: &mut Joined,
    scene: &Scene<'_>,
    sealed: &Sealed,
    span: Span,
    is_wanted: impl Fn(FragmentKey, (i64, i64)) -> bool,
    is_gone: bool,
) -> Result<bool, ReadError> {
    let number = sealed.segment.number;
    let mut has_any = false;
    for (block, entry) in sealed.blocks(span) {
        scene.snapshot.check_limits()?;
        let keys = sealed.keys(scene.snapshot, scene.kept, entry)?;
        let wanted: Vec<usize> = (0..keys.len()).filter(|at| is_wanted(keys.key(*at), keys.times(*at))).collect();
        if wanted.is_empty() {
            continue;
        }
        has_any = true;
        let dictionaries = sealed.dictionaries(scene.snapshot, scene.kept)?;
        // Needed once only, and large: not kept.
        let fragments = sealed.read(scene.snapshot, entry, Needed::ALL)?;
        for at in wanted {
            if !is_gone && fragments.hits(at).len() > JOINED_EVENTS_MAX {
                continue;
            }
            let counted = Counted::Alone { segment: number, fragment: number_of(block, at) };
            joined.add((number, &dictionaries), fragments.key(at), fragments.hits(at), counted, is_gone);
        }
    }
    Ok(has_any)
}

/// Joins the visits that go on from one of two sealed segments to the other.
pub(super) fn join_sealed(joined: &mut Joined, scene: &Scene<'_>, one: &Piece, other: &Piece) -> Result<(), ReadError> {
    if !is_near(one.times, other.times) {
        return Ok(());
    }
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
    let mut times: HashMap<FragmentKey, Vec<(i64, i64)>> = HashMap::new();
    for (_, entry) in few.blocks(few_near) {
        let keys = few.keys(scene.snapshot, scene.kept, entry)?;
        let near = (0..keys.len()).filter(|at| overlaps(few_near, keys.times(*at)));
        near.for_each(|at| times.entry(keys.key(at)).or_default().push(keys.times(at)));
    }
    let mut met: HashMap<FragmentKey, Vec<(i64, i64)>> = HashMap::new();
    for (_, entry) in many.blocks(many_near) {
        scene.snapshot.check_limits()?;
        let keys = many.keys(scene.snapshot, scene.kept, entry)?;
        for at in 0..keys.len() {
            let (key, own) = (keys.key(at), keys.times(at));
            if times.get(&key).is_some_and(|of_few| of_few.iter().any(|times| is_near(*times, own))) {
                met.entry(key).or_default().push(own);
            }
        }
    }
    if met.is_empty() {
        return Ok(());
    }
    let meets = |of: &HashMap<FragmentKey, Vec<(i64, i64)>>, key: FragmentKey, own| {
        of.get(&key).is_some_and(|times| times.iter().any(|times| is_near(*times, own)))
    };
    add_fragments(joined, scene, few, few_near, |key, own| meets(&met, key, own), false)?;
    add_fragments(joined, scene, many, many_near, |key, own| meets(&times, key, own), false)?;
    Ok(())
}

fn overlaps(span: Span, (first, last): (i64, i64)) -> bool {
    first < span.to && span.from <= last
}

/// The events of a visitor after a sequence, from the rows of a sealed segment.
pub(super) fn later_events(
    scene: &Scene<'_>,
    segment: &Arc<Segment>,
    visitor_id: &str,
    after: u64,
) -> Result<MemoryPiece, ReadError> {
    scene.snapshot.on(segment, |connection| {
        let mut piece = MemoryPiece::default();
        let mut select = connection.prepare_cached(schema::SELECT_FLAGGED_EVENTS_OF_VISITOR)?;
        let mut rows = select.query((visitor_id, &**scene.website_id, after.cast_signed()))?;
        let mut order = 0;
        while let Some(row) = rows.next()? {
            let flags: i64 = row.get(row::FLAGS)?;
            piece.add_row(&row::event_row(row)?, flags, order);
            order += 1;
        }
        Ok(piece)
    })
}

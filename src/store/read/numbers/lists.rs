//! Lists of the values of a dimension: pages, countries, campaigns and so on, with what each of them has.
//!
//! A sealed segment that lies in the range as a whole has its list in its file; of one that lies in it only in part, or
//! where filters leave something out, the events are gone through. What sealed segments have together is kept for the
//! next question; what is not sealed yet is added to it.

use std::sync::Arc;

use super::{
    cache::CacheKey,
    merged::Merged,
    question::{
        GoalCounts, ListOrder, ListPage, ListReply, ListRow, Listed, Listing, NumbersQuestion, NumbersReply, Span,
        SpanNumbers,
    },
    scene::{EVER, Piece, Scene},
    sealed::Sealed,
    shared::{Shared, lock, pieces},
    sum::{Sign, VisitorHash},
};
use crate::{
    metrics::ReadRefused,
    store::{
        error::ReadError,
        read::snapshot::Snapshot,
        rollup::{Counts, Dimension, Filter, KeptGroup, List, first_whole_quarter},
    },
};

/// Whether a value stands in its list. Of a property only those events are listed that have it.
fn is_listed(listed: &Listed, value: &[u8]) -> bool {
    match listed {
        Listed::Dimension(dimension) => dimension.lists(value),
        Listed::Property(_) => !value.is_empty(),
    }
}

fn conversions(dimension: Dimension, counts: &Counts) -> i64 {
    if dimension == Dimension::Page { counts.pageviews } else { counts.events }
}

impl Shared {
    /// Rows of the list of a dimension.
    pub(super) fn list(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        listed: &Listed,
        (span, page): (Span, ListPage),
    ) -> Result<ListReply, ReadError> {
        let (merged, all) = match listed {
            Listed::Dimension(dimension) => self.merged(snapshot, question, *dimension, span)?,
            Listed::Property(name) => self.properties(snapshot, question, name, span)?,
        };
        let (total, rows) = merged.rows(page.order, (page.offset, page.limit), |value| is_listed(listed, value));
        Ok(ListReply { rows, total, other: merged.other(), all })
    }

    /// How often each of these is reached: by events with a name, or by views of pages.
    pub(super) fn goals(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        span: Span,
        goals: &[Filter],
    ) -> Result<(Vec<GoalCounts>, NumbersReply), ReadError> {
        let mut counts: Vec<Option<GoalCounts>> = vec![None; goals.len()];
        let mut all: Option<NumbersReply> = None;
        for dimension in [Dimension::Event, Dimension::Page] {
            let of = || goals.iter().zip(0..).filter(|(goal, _)| goal.dimension() == dimension);
            if of().next().is_none() {
                continue;
            }
            let (merged, mut of_list) = self.merged(snapshot, question, dimension, span)?;
            for (goal, at) in of() {
                snapshot.check_limits()?;
                counts[at] = Some(if merged.other() == Counts::default() {
                    let (counts, (converted, converted_error)) = merged.together(goal);
                    GoalCounts { conversions: conversions(dimension, &counts), converted, converted_error }
                } else {
                    // Some pages are not told apart: it takes to go through all events.
                    let reply = self.ask_one(snapshot, &question.clone().and(vec![goal.clone()]), span)?;
                    let SpanNumbers { counts, visitors } = reply.spans.first().copied().unwrap_or_default();
                    of_list = of_list.and(&reply);
                    let conversions = conversions(dimension, &counts);
                    GoalCounts { conversions, converted: visitors, converted_error: reply.visitors_error }
                });
            }
            all = Some(all.iter().fold(of_list, NumbersReply::and));
        }
        let all = match all {
            Some(all) => all,
            None => self.ask_one(snapshot, question, span)?,
        };
        Ok((counts.into_iter().flatten().collect(), all))
    }

    /// All values of a dimension, with all that they have together.
    pub(super) fn merged(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        dimension: Dimension,
        span: Span,
    ) -> Result<(MergedList, NumbersReply), ReadError> {
        // Held from here on, so that what is counted now is not forgotten before it is listed.
        let entry = self.entry(&question.website_id);
        let mut all = self.ask_one(snapshot, question, span)?;
        let expired_before = first_whole_quarter(snapshot.expired_before);
        let from = span.from.max(expired_before);
        let span = Span { from, to: span.to.max(from) };
        let listing = Listing { asked: &question.asked, dimension, span };
        let pieces = pieces(snapshot, &question.website_id);
        let scene = self.scene(snapshot, question, &pieces, expired_before);
        let mut site = lock(&entry, snapshot)?;
        let progress = site.catch_up(&scene)?;
        if !progress.is_complete {
            all.is_complete = false;
            all.as_of = all.as_of.min(progress.as_of);
        }
        let open = site.open_lists(&scene, listing)?;
        let is_exact = all.visitors_error.is_none();
        let state = site.sealed_state();
        let known = MergedList::known(&scene, listing, is_exact, state);
        let joined = if known.is_none() { Some(site.sealed_lists(&scene, listing)?) } else { None };
        self.note_bytes(&entry, &site);
        drop(site);
        let mut merged = match (known, joined) {
            (Some(known), _) => known,
            (None, joined) => {
                let joined = (state, joined.as_ref().into_iter().flatten());
                // Many values of few visits may take more than the visits themselves: then they are estimated.
                let may_estimate = !question.is_exact;
                MergedList::make(&scene, listing, (is_exact, may_estimate), joined)?
            }
        };
        merged.add_open(&open);
        self.bound();
        Ok((merged, all))
    }
}

/// The values of a dimension, with their visitors counted one by one, or estimated.
#[derive(Clone)]
pub(super) enum MergedList {
    Exact(Arc<Merged<u64>>),
    Estimated(Arc<Merged<u32>>),
}

impl MergedList {
    /// What sealed segments have, with visits that go on between them in this state, if it is in memory.
    fn known(scene: &Scene<'_>, listing: Listing<'_>, is_exact: bool, state: u64) -> Option<Self> {
        let key = merged_key(scene, listing, is_exact, state);
        if is_exact {
            scene.kept.cache.get(&key).map(Self::Exact)
        } else {
            scene.kept.cache.get(&key).map(Self::Estimated)
        }
    }

    /// The same, of the segments.
    fn make<'j>(
        scene: &Scene<'_>,
        listing: Listing<'_>,
        (is_exact, may_estimate): (bool, bool),
        (state, joined): (u64, impl Iterator<Item = &'j List> + Clone),
    ) -> Result<Self, ReadError> {
        if is_exact {
            match merge_sealed(scene, listing, joined.clone(), None) {
                Err(ReadError::Refused(ReadRefused::Memory)) if may_estimate => {}
                made => return Ok(Self::Exact(keep(scene, listing, state, made?))),
            }
            if let Some(known) = Self::known(scene, listing, false, state) {
                return Ok(known);
            }
        }
        let made = merge_sealed(scene, listing, joined, Some(Merged::add_kept))?;
        Ok(Self::Estimated(keep(scene, listing, state, made)))
    }

    /// Adds what is not sealed yet.
    fn add_open(&mut self, open: &[(Arc<List>, Sign)]) {
        match self {
            Self::Exact(merged) => add_open(merged, open),
            Self::Estimated(merged) => add_open(merged, open),
        }
    }

    /// How many values there are that are listed, and some of them.
    fn rows(&self, order: ListOrder, page: (usize, usize), is_listed: impl Fn(&[u8]) -> bool) -> (usize, Vec<ListRow>) {
        match self {
            Self::Exact(merged) => merged.rows(order, page, is_listed),
            Self::Estimated(merged) => merged.rows(order, page, is_listed),
        }
    }

    /// Of values that are not told apart.
    fn other(&self) -> Counts {
        match self {
            Self::Exact(merged) => merged.other(),
            Self::Estimated(merged) => merged.other(),
        }
    }

    /// What the values have together that a filter leaves, different visitors among it, and the error of these.
    fn together(&self, filter: &Filter) -> (Counts, (u64, Option<f64>)) {
        match self {
            Self::Exact(merged) => merged.together(filter),
            Self::Estimated(merged) => merged.together(filter),
        }
    }
}

/// What the list of all sealed segments is kept under, with visits that go on between them in this state.
fn merged_key(scene: &Scene<'_>, listing: Listing<'_>, is_exact: bool, state: u64) -> CacheKey {
    CacheKey::Merged(scene.newest(), Arc::clone(scene.website_id), listing.id_with((is_exact, state)))
}

/// Keeps a list of all sealed segments for the next question.
fn keep<H: VisitorHash>(scene: &Scene<'_>, listing: Listing<'_>, state: u64, made: Merged<H>) -> Arc<Merged<H>> {
    let made = Arc::new(made);
    if listing.is_lasting() {
        let key = merged_key(scene, listing, H::IS_WHOLE, state);
        scene.kept.cache.put(key, &made, made.memory_bytes(), scene.kept.bytes_max);
    }
    made
}

fn add_open<H: VisitorHash>(merged: &mut Arc<Merged<H>>, open: &[(Arc<List>, Sign)]) {
    if open.iter().any(|(list, _)| !list.is_empty()) {
        let merged = Arc::make_mut(merged);
        open.iter().for_each(|(list, sign)| merged.add(list, *sign));
        merged.count();
    }
}

/// Adds a group of a list as it is kept in a file, if such a list is of use.
type AddKept<H> = Option<fn(&mut Merged<H>, Option<&[u8]>, KeptGroup<'_>)>;

/// What sealed segments have, and the visits that go on between them.
fn merge_sealed<'j, H: VisitorHash>(
    scene: &Scene<'_>,
    listing: Listing<'_>,
    joined: impl Iterator<Item = &'j List>,
    add_kept: AddKept<H>,
) -> Result<Merged<H>, ReadError> {
    let joined: Vec<_> = joined.zip([Sign::Plus, Sign::Minus]).collect();
    let begun = |bytes_max: usize| {
        let mut merged = Merged::new(bytes_max);
        joined.iter().for_each(|(list, sign)| merged.add(list, *sign));
        merged.keep_these();
        merged
    };
    let pieces: Vec<&Piece> = scene.sealed.iter().filter(|piece| is_in_part(piece, listing.span)).collect();
    let (first, rest) = pieces.split_at(pieces.len() / 2);
    // Two halves, whether there are two threads or one: an estimate must not depend on that.
    let bytes_max = scene.bytes_max / 2;
    let merged = begun(bytes_max);
    let halves = if first.is_empty() { vec![(merged, rest)] } else { vec![(merged.emptied(), rest), (merged, first)] };
    let made = scene.map(&halves, |scene, (begun, pieces)| {
        merge_pieces(scene, listing, (begun.clone(), pieces), (add_kept, bytes_max), Merged::has_all)
    });
    drop(halves);
    let made = match made {
        Ok(made) => made,
        Err(ReadError::Refused(ReadRefused::Memory)) => Vec::new(),
        Err(error) => return Err(error),
    };
    // What lacks values is given up before anything is made in its place.
    let made = if made.iter().all(Merged::has_all) { made } else { Vec::new() };
    let both = made.into_iter().reduce(|own, other| own.with_room(scene.bytes_max).with(&other));
    let together = both.filter(Merged::has_all);
    let mut merged = match together {
        Some(together) => together,
        // One alone has more room.
        None => {
            let begun = (begun(scene.bytes_max), &*pieces);
            merge_pieces(scene, listing, begun, (add_kept, scene.bytes_max), |_| true)?
        }
    };
    merged.count();
    Ok(merged)
}

/// Adds what these segments have, as long as what was made so far will do.
fn merge_pieces<H: VisitorHash>(
    scene: &Scene<'_>,
    listing: Listing<'_>,
    (mut merged, pieces): (Merged<H>, &[&Piece]),
    (add_kept, bytes_max): (AddKept<H>, usize),
    will_do: impl Fn(&Merged<H>) -> bool,
) -> Result<Merged<H>, ReadError> {
    for piece in pieces {
        if !will_do(&merged) {
            break;
        }
        let sealed = scene.open(piece)?;
        add_sealed(&mut merged, scene, &sealed, listing, add_kept)?;
        merged.look_who_is_busy();
        scene.snapshot.check_limits()?;
        if merged.memory_bytes() > bytes_max {
            merged.lower();
        }
        if merged.memory_bytes() > bytes_max {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
    }
    Ok(merged)
}

fn is_in_part(piece: &Piece, span: Span) -> bool {
    piece.times.0 < span.to && span.from <= piece.times.1
}

/// Adds what a sealed segment has, as though its fragments were all there is.
fn add_sealed<H: VisitorHash>(
    merged: &mut Merged<H>,
    scene: &Scene<'_>,
    sealed: &Sealed,
    listing: Listing<'_>,
    add_kept: AddKept<H>,
) -> Result<(), ReadError> {
    let (first, last) = sealed.rollup.times;
    let is_whole = listing.span.from <= first && last < listing.span.to;
    if let Some(add) = add_kept.filter(|_| is_whole)
        && sealed.for_each_kept(scene.snapshot, scene.kept, listing, |value, group| add(merged, value, group))?
    {
        return Ok(());
    }
    // Of a segment that lies in the range as a whole the list is that of all of time.
    let span = if is_whole { EVER } else { listing.span };
    let list = sealed.list(scene.snapshot, scene.kept, Listing { span, ..listing }, H::IS_WHOLE)?;
    merged.add(&list, Sign::Plus);
    Ok(())
}

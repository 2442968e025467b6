//! Lists of the values of a dimension: pages, countries, campaigns and so on, with what each of them has.
//!
//! A sealed segment that lies in the range as a whole has its list in its file; of one that lies in it only in part, or
//! where filters leave something out, the events are gone through. What sealed segments have together is kept for the
//! next question; what is not sealed yet is added to it.

use std::sync::Arc;

use super::{
    cache::{CacheKey, Generation},
    merged::Merged,
    question::{GoalCounts, ListPage, ListReply, Listed, Listing, NumbersQuestion, NumbersReply, Span, SpanNumbers},
    scene::{EVER, Piece, Scene},
    sealed::Sealed,
    shared::{Shared, lock, pieces},
    sum::Sign,
};
use crate::{
    metrics::ReadRefused,
    store::{
        error::ReadError,
        read::snapshot::Snapshot,
        rollup::{Counts, Dimension, Filter, List, first_whole_quarter},
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
                    let mut together = merged.together(goal);
                    let (converted, converted_error) = together.visitors();
                    GoalCounts { conversions: conversions(dimension, &together.counts), converted, converted_error }
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
    ) -> Result<(Arc<Merged>, NumbersReply), ReadError> {
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
        let known = match self.cache.get::<Merged>(&merged_key(&scene, listing, is_exact, state)) {
            Some(known) => Ok(known),
            None => Err(site.sealed_lists(&scene, listing)?),
        };
        self.note_bytes(&entry, &site);
        drop(site);
        let made = |joined: &_, is_exact| self.sealed_merged(&scene, listing, is_exact, (state, joined));
        let merged = known.or_else(|joined| match made(&joined, is_exact) {
            // Many values of few visits may take more than the visits themselves: then they are estimated.
            Err(ReadError::Refused(ReadRefused::Memory)) if is_exact && !question.is_exact => made(&joined, false),
            merged => merged,
        })?;
        let merged = with_open(merged, &open);
        self.bound();
        Ok((merged, all))
    }

    /// What sealed segments have, from memory if it is there.
    fn sealed_merged(
        &self,
        scene: &Scene<'_>,
        listing: Listing<'_>,
        is_exact: bool,
        (state, joined): (u64, &[List; 2]),
    ) -> Result<Arc<Merged>, ReadError> {
        let key = merged_key(scene, listing, is_exact, state);
        if let Some(known) = self.cache.get::<Merged>(&key) {
            return Ok(known);
        }
        let made = Arc::new(merge_sealed(scene, listing, is_exact, joined)?);
        if listing.is_lasting() {
            self.cache.put(key, &made, made.memory_bytes(), scene.kept.bytes_max);
        }
        Ok(made)
    }
}

/// What the list of all sealed segments is kept under, with visits that go on between them in this state.
fn merged_key(scene: &Scene<'_>, listing: Listing<'_>, is_exact: bool, state: u64) -> CacheKey {
    CacheKey::Merged(newest(scene), Arc::clone(scene.website_id), listing.id_with((is_exact, state)))
}

/// The same with what is not sealed yet.
fn with_open(sealed: Arc<Merged>, open: &[(Arc<List>, Sign)]) -> Arc<Merged> {
    if open.iter().all(|(list, _)| list.is_empty()) {
        return sealed;
    }
    let mut merged = Arc::unwrap_or_clone(sealed);
    open.iter().for_each(|(list, sign)| merged.add(list, *sign));
    merged.count();
    Arc::new(merged)
}

/// What sealed segments have, and the visits that go on between them.
fn merge_sealed(
    scene: &Scene<'_>,
    listing: Listing<'_>,
    is_exact: bool,
    joined: &[List; 2],
) -> Result<Merged, ReadError> {
    let mut merged = Merged::new(is_exact, scene.bytes_max);
    for (list, sign) in joined.iter().zip([Sign::Plus, Sign::Minus]) {
        merged.add(list, sign);
    }
    merged.keep_these();
    for piece in scene.sealed.iter().filter(|piece| is_in_part(piece, listing.span)) {
        let sealed = scene.open(piece)?;
        add_sealed(&mut merged, scene, &sealed, listing, is_exact)?;
        scene.snapshot.check_limits()?;
        if merged.memory_bytes() > scene.bytes_max && !is_exact {
            merged.lower();
        }
        if merged.memory_bytes() > scene.bytes_max {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
    }
    merged.count();
    Ok(merged)
}

fn newest(scene: &Scene<'_>) -> Generation {
    scene.sealed.last().map_or(Generation { number: 0, generation: 0 }, Piece::generation)
}

fn is_in_part(piece: &Piece, span: Span) -> bool {
    piece.times.0 < span.to && span.from <= piece.times.1
}

/// Adds what a sealed segment has, as though its fragments were all there is.
fn add_sealed(
    merged: &mut Merged,
    scene: &Scene<'_>,
    sealed: &Sealed,
    listing: Listing<'_>,
    is_exact: bool,
) -> Result<(), ReadError> {
    let (first, last) = sealed.rollup.times;
    let is_whole = listing.span.from <= first && last < listing.span.to;
    if is_whole && !is_exact && sealed.add_kept_list(scene.snapshot, scene.kept, listing, merged)? {
        return Ok(());
    }
    // Of a segment that lies in the range as a whole the list is that of all of time.
    let span = if is_whole { EVER } else { listing.span };
    let list = sealed.list(scene.snapshot, scene.kept, Listing { span, ..listing }, is_exact)?;
    merged.add(&list, Sign::Plus);
    Ok(())
}

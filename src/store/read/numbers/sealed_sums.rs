//! What sealed segments have in spans, each as though its fragments were all there is. What they have together is kept,
//! so that who asks the same again need not wait for every segment.

use std::sync::Arc;

use super::{
    cache::{CacheKey, Generation},
    question::NumbersQuestion,
    scene::{Piece, Scene},
    sealed::Sealed,
    spans::Sums,
    sum::{Sign, Sum},
};
use crate::{
    metrics::ReadRefused,
    store::{
        error::ReadError,
        rollup::{Answer, BlockEntry},
    },
};

/// Segments of which what they have is in memory before it is added up.
const PIECES_AT_ONCE: usize = 8;

/// What is kept of them.
#[derive(Debug)]
struct SealedSums {
    /// One for each span.
    of: Vec<Sum>,
    /// By how much they weigh in the question whether visitors are counted or estimated.
    visits: i64,
}

impl SealedSums {
    fn memory_bytes(&self) -> usize {
        self.of.iter().map(|sum| size_of::<Sum>() + sum.memory_bytes()).sum()
    }
}

/// Adds what sealed segments have. Up to `exact_visits_max` visits in all spans together visitors are counted one by
/// one.
pub(super) fn add_sealed(
    scene: &Scene<'_>,
    question: &NumbersQuestion,
    sums: &mut Sums,
    exact_visits_max: u64,
) -> Result<(), ReadError> {
    let exact_visits_max = if question.is_exact { i64::MAX } else { exact_visits_max.cast_signed() };
    let own_visits = sums.counted_visits();
    let generations: Vec<Generation> = scene.sealed.iter().map(Piece::generation).collect();
    let key = |is_estimated: bool| {
        let id = sums.id((&question.asked, &generations, is_estimated));
        CacheKey::Sums(scene.newest(), Arc::clone(scene.website_id), id)
    };
    let is_lasting = sums.cut_quarters().is_empty();
    if is_lasting {
        for is_estimated in [false, true] {
            let fits = |known: &Arc<SealedSums>| (own_visits + known.visits > exact_visits_max) == is_estimated;
            if let Some(known) = scene.kept.cache.get(&key(is_estimated)).filter(fits) {
                sums.add_of(&known.of);
                return Ok(());
            }
        }
    }
    let mut of_sealed = sums.emptied();
    let visits = add_pieces(scene, question, &mut of_sealed, (own_visits, exact_visits_max))?;
    let is_estimated = own_visits + visits > exact_visits_max;
    let made = Arc::new(SealedSums { of: of_sealed.into_parts(is_estimated), visits });
    if is_lasting {
        scene.kept.cache.put(key(is_estimated), &made, made.memory_bytes(), scene.kept.bytes_max);
    }
    match Arc::try_unwrap(made) {
        // Not kept: it need not be there twice.
        Ok(made) => sums.take_in(made.of),
        Err(kept) => sums.add_of(&kept.of),
    }
    Ok(())
}

/// Adds what sealed segments answer, beside what has so many visits already. Returns by how much they weigh.
fn add_pieces(
    scene: &Scene<'_>,
    question: &NumbersQuestion,
    sums: &mut Sums,
    (own_visits, exact_visits_max): (i64, i64),
) -> Result<i64, ReadError> {
    let reach = sums.reach();
    let mut sealed = Vec::new();
    for piece in scene.sealed.iter().filter(|piece| piece.times.0 < reach.to && reach.from <= piece.times.1) {
        sealed.push(scene.open(piece)?);
    }
    let asked = &question.asked;
    // What is known says how many visits there are; the rest is counted, with every visitor as long as they are few.
    let mut visits = own_visits;
    let mut answers: Vec<Option<Arc<Answer>>> = Vec::new();
    for piece in &sealed {
        let known = piece.known(scene.kept, asked);
        visits += known.as_ref().map_or(0, |answer| sums.weight(answer));
        answers.push(known);
    }
    let unknown: Vec<usize> = (0..sealed.len()).filter(|at| answers[*at].is_none()).collect();
    for unknown in unknown.chunks(PIECES_AT_ONCE) {
        let counted = scene.map(unknown, |scene, at| sealed[*at].answer(scene.snapshot, scene.kept, asked))?;
        for (at, counted) in unknown.iter().zip(counted) {
            visits += sums.weight(&counted);
            // Once it is clear that all is estimated, less is held.
            let is_estimated = visits > exact_visits_max;
            answers[*at] = Some(if is_estimated { sealed[*at].thin(scene.kept, asked, &counted) } else { counted });
        }
    }
    let is_estimated = visits > exact_visits_max;
    let found: Vec<(&Sealed, Arc<Answer>)> =
        sealed.iter().zip(answers).filter_map(|(piece, answer)| Some((piece, answer?))).collect();
    let to_add = |scene: &Scene<'_>, (piece, answer): &(&Sealed, Arc<Answer>)| {
        Ok::<_, ReadError>(if is_estimated {
            // An estimate must not depend on what happens to be known of the piece.
            piece.thin(scene.kept, asked, answer)
        } else if answer.is_whole() {
            Arc::clone(answer)
        } else {
            piece.answer(scene.snapshot, scene.kept, asked)?
        })
    };
    let has_all = is_estimated || found.iter().all(|(_, answer)| answer.is_whole());
    for found in found.chunks(if has_all { 1 } else { PIECES_AT_ONCE }) {
        for answer in scene.map(found, to_add)? {
            sums.add(&answer, Sign::Plus, is_estimated);
            if sums.memory_bytes() > scene.bytes_max {
                return Err(ReadError::Refused(ReadRefused::Memory));
            }
        }
    }
    let quarters = sums.cut_quarters();
    if !quarters.is_empty() {
        for piece in &sealed {
            let is_cut =
                |block: &&BlockEntry| quarters.iter().any(|span| block.times.0 < span.to && span.from <= block.times.1);
            let mut sink = sums.cut_sink();
            piece.run(scene.snapshot, scene.kept, asked, piece.rollup.blocks.iter().filter(is_cut), &mut sink)?;
            sums.add_cuts(sink, Sign::Plus);
        }
    }
    Ok(visits - own_visits)
}

//! What sealed segments have in spans, each as though its fragments were all there is. What they have together is kept,
//! so that who asks the same again need not wait for every segment.

use std::sync::Arc;

use super::{
    cache::{CacheKey, Generation},
    question::{Asked, NumbersQuestion},
    scene::{Piece, Scene},
    sealed::Sealed,
    spans::Sums,
    sum::{Sign, Sum},
};
use crate::{
    metrics::ReadRefused,
    store::{error::ReadError, rollup::Answer},
};

/// Segments of which what they have is in memory before it is added up, unless it is few visits.
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
    let is_asked = |piece: &&Piece| piece.times.0 < reach.to && reach.from <= piece.times.1;
    let pieces: Vec<&Piece> = scene.sealed.iter().filter(is_asked).collect();
    let asked = &question.asked;
    // Whether visitors are estimated, once that is certain. What is not added before that has few visits.
    let mut is_estimated = question.is_exact.then_some(false);
    let mut visits = own_visits;
    let mut held: Vec<(&Piece, Arc<Answer>)> = Vec::new();
    for pieces in pieces.chunks(PIECES_AT_ONCE) {
        for (piece, answer) in pieces.iter().zip(answers(scene, pieces, asked)?) {
            visits += sums.weight(&answer);
            held.push((piece, answer));
        }
        is_estimated = is_estimated.or((visits > exact_visits_max).then_some(true));
        if let Some(is_estimated) = is_estimated {
            add(scene, asked, &held, is_estimated, sums)?;
            held.clear();
        }
    }
    add(scene, asked, &held, false, sums)?;
    add_cuts(scene, asked, &pieces, sums)?;
    Ok(visits - own_visits)
}

/// What pieces answer: with some of the visitors of each quarter if that is known, else with every visitor.
fn answers(scene: &Scene<'_>, pieces: &[&Piece], asked: &Asked) -> Result<Vec<Arc<Answer>>, ReadError> {
    let sealed = pieces.iter().map(|piece| scene.open(piece)).collect::<Result<Vec<_>, _>>()?;
    let known: Vec<_> = sealed.iter().map(|piece| piece.known(scene.kept, asked)).collect();
    let unknown: Vec<&Sealed> =
        sealed.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(piece, _)| piece).collect();
    let mut counted = scene.map(&unknown, |scene, piece| piece.answer(scene.snapshot, scene.kept, asked))?.into_iter();
    Ok(known.into_iter().filter_map(|known| known.or_else(|| counted.next())).collect())
}

/// Adds what pieces answer: with every visitor, or with some of them, whatever happens to be known of a piece.
fn add(
    scene: &Scene<'_>,
    asked: &Asked,
    found: &[(&Piece, Arc<Answer>)],
    is_estimated: bool,
    sums: &mut Sums,
) -> Result<(), ReadError> {
    let will_do = |answer: &Arc<Answer>| if is_estimated { answer.is_thinned() } else { answer.is_whole() };
    let to_add = |scene: &Scene<'_>, (piece, answer): &(&Piece, Arc<Answer>)| {
        if will_do(answer) {
            return Ok(Arc::clone(answer));
        }
        let sealed = scene.open(piece)?;
        if is_estimated {
            Ok(sealed.thin(scene.kept, asked, answer))
        } else {
            sealed.answer(scene.snapshot, scene.kept, asked)
        }
    };
    let has_all = found.iter().all(|(_, answer)| will_do(answer));
    for found in found.chunks(if has_all { 1 } else { PIECES_AT_ONCE }) {
        for answer in scene.map(found, to_add)? {
            sums.add(&answer, Sign::Plus, is_estimated);
            if sums.memory_bytes() > scene.bytes_max {
                return Err(ReadError::Refused(ReadRefused::Memory));
            }
        }
    }
    Ok(())
}

/// Adds what the pieces have in the quarters of an hour of which the spans have a part only.
fn add_cuts(scene: &Scene<'_>, asked: &Asked, pieces: &[&Piece], sums: &mut Sums) -> Result<(), ReadError> {
    let quarters = sums.cut_quarters();
    let is_cut = |times: (i64, i64)| quarters.iter().any(|span| times.0 < span.to && span.from <= times.1);
    for piece in pieces.iter().filter(|piece| is_cut(piece.times)) {
        let sealed = scene.open(piece)?;
        let blocks = sealed.rollup.blocks.iter().filter(|block| is_cut(block.times));
        let mut sink = sums.cut_sink();
        sealed.run(scene.snapshot, scene.kept, asked, blocks, &mut sink)?;
        sums.add_cuts(sink, Sign::Plus);
    }
    Ok(())
}

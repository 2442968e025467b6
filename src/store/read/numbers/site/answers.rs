//! What tallies and the visits that go on from them answer.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use super::{
    super::{
        cache::Generation,
        question::{Asked, Listing},
        scene::Scene,
        spans::{Quarters, Sums},
        sum::Sign,
        tally::Tally,
    },
    SignedLists, Site,
};
use crate::store::{
    error::ReadError,
    rollup::{Answer, Collector, Damaged, List, Lister, Sink},
};

/// Most answers of tallies and of joined visits that are kept.
const ANSWERS_MAX: usize = 16;

impl Site {
    /// Adds in which quarters of an hour somebody was there.
    pub(in super::super) fn quarters(
        &mut self,
        scene: &Scene<'_>,
        asked: &Asked,
        quarters: &mut Quarters,
    ) -> Result<(), ReadError> {
        for (answer, sign) in self.answers(scene, asked)? {
            quarters.add(&answer, sign);
        }
        Ok(())
    }

    /// Adds what tallies and joined visits answer.
    pub(in super::super) fn add_to(
        &mut self,
        scene: &Scene<'_>,
        asked: &Asked,
        sums: &mut Sums,
    ) -> Result<(), ReadError> {
        for (answer, sign) in self.answers(scene, asked)? {
            sums.add(&answer, sign, false);
        }
        if sums.cut_quarters().is_empty() {
            return Ok(());
        }
        for (of, tally) in &self.tallies {
            let mut sink = sums.cut_sink();
            self.run_tally(scene, asked, *of, tally, &mut sink)?;
            sums.add_cuts(sink, Sign::Plus);
        }
        for (joined, sign) in [&self.sealed, &self.open].into_iter().flat_map(|joined| SIGNS.map(|sign| (joined, sign)))
        {
            let mut sink = sums.cut_sink();
            joined.run(asked, scene.expired_before, sign, &mut sink).map_err(damaged)?;
            sums.add_cuts(sink, sign);
        }
        Ok(())
    }

    fn run_tally(
        &self,
        scene: &Scene<'_>,
        asked: &Asked,
        of: Generation,
        tally: &Tally,
        sink: &mut impl Sink,
    ) -> Result<(), ReadError> {
        let is_left_out = |key| self.open_keys.contains(&key);
        tally.run(asked, scene.expired_before, &scene.hidden(of.number), is_left_out, sink).map_err(damaged)
    }

    /// A hash of what visits that go on between sealed segments depend on.
    pub(in super::super) fn sealed_state(&self) -> u64 {
        let mut looked_at: Vec<Generation> = self.looked_at.iter().copied().collect();
        looked_at.sort_unstable();
        let mut hidden: Vec<_> = self.hidden.iter().collect();
        hidden.sort_unstable_by_key(|(number, _)| **number);
        let mut hasher = Xxh3::new();
        (looked_at, hidden, self.cut_at, self.has_unjoined).hash(&mut hasher);
        hasher.finish()
    }

    /// What visits that go on between sealed segments add to a list, and what they take off it.
    pub(in super::super) fn sealed_lists(
        &self,
        scene: &Scene<'_>,
        listing: Listing<'_>,
    ) -> Result<[List; 2], ReadError> {
        let [plus, minus] = SIGNS.map(|sign| self.sealed.list(listing, scene.expired_before, sign));
        Ok([plus.map_err(damaged)?, minus.map_err(damaged)?])
    }

    /// What tallies and the visits that go on from them add to a list, or take off it.
    pub(in super::super) fn open_lists(
        &mut self,
        scene: &Scene<'_>,
        listing: Listing<'_>,
    ) -> Result<SignedLists, ReadError> {
        let version = self.open_of.clone().unwrap_or_default();
        let key = (listing.id(), scene.expired_before);
        if let Some((_, lists)) = self.open_lists.get(&key).filter(|(made_of, _)| *made_of == version) {
            return Ok(lists.clone());
        }
        let mut lists = Vec::new();
        for (of, tally) in &self.tallies {
            let Listing { asked, dimension, .. } = listing;
            let lister = Lister::new(dimension, &tally.piece.dictionaries, asked.filters.own(), listing.times());
            let mut lister = lister.map_err(damaged)?;
            self.run_tally(scene, asked, *of, tally, &mut lister)?;
            lists.push((Arc::new(lister.end()), Sign::Plus));
        }
        for sign in SIGNS {
            let list = self.open.list(listing, scene.expired_before, sign).map_err(damaged)?;
            lists.push((Arc::new(list), sign));
        }
        let bytes = |lists: &[(Arc<List>, Sign)]| lists.iter().map(|(list, _)| list.memory_bytes()).sum::<usize>();
        let kept: usize = self.open_lists.values().map(|(_, lists)| bytes(lists)).sum();
        // A list up to this very moment is never asked for again.
        let fits = listing.is_lasting() && kept + bytes(&lists) <= scene.bytes_max / 4;
        self.open_lists.retain(|_, (made_of, _)| *made_of == version);
        if fits {
            make_room(&mut self.open_lists);
            self.open_lists.insert(key, (version, lists.clone()));
        }
        Ok(lists)
    }

    /// What tallies and joined visits answer.
    fn answers(&mut self, scene: &Scene<'_>, asked: &Asked) -> Result<Vec<(Arc<Answer>, Sign)>, ReadError> {
        let version = self.open_of.clone().unwrap_or_default();
        let mut answers = Vec::new();
        let mut made = Vec::new();
        for (of, tally) in &self.tallies {
            let key = (*of, asked.id());
            if let Some((_, answer)) = self.tally_answers.get(&key).filter(|(made_of, _)| *made_of == version) {
                answers.push((Arc::clone(answer), Sign::Plus));
                continue;
            }
            let mut collector = Collector::default();
            self.run_tally(scene, asked, *of, tally, &mut collector)?;
            let answer = Arc::new(collector.end());
            answers.push((Arc::clone(&answer), Sign::Plus));
            made.push((key, (version.clone(), answer)));
        }
        for (key, answer) in made {
            let bytes: usize = self.tally_answers.values().map(|(_, answer)| answer.memory_bytes()).sum();
            let fits = bytes + answer.1.memory_bytes() <= scene.bytes_max / 2;
            self.tally_answers.retain(|_, (made_of, _)| fits && *made_of == version);
            make_room(&mut self.tally_answers);
            self.tally_answers.insert(key, answer);
        }
        let key = (asked.id(), scene.expired_before);
        if !self.sealed_answers.contains_key(&key) {
            let [plus, minus] = SIGNS.map(|sign| self.sealed.answer(asked, scene.expired_before, sign));
            make_room(&mut self.sealed_answers);
            self.sealed_answers.insert(key, [plus.map_err(damaged)?, minus.map_err(damaged)?].map(Arc::new));
        }
        let of_sealed = self.sealed_answers.get(&key).into_iter().flatten();
        answers.extend(of_sealed.map(Arc::clone).zip(SIGNS));
        for sign in SIGNS {
            let of_open = self.open.answer(asked, scene.expired_before, sign).map_err(damaged)?;
            answers.push((Arc::new(of_open), sign));
        }
        Ok(answers)
    }
}

const SIGNS: [Sign; 2] = [Sign::Plus, Sign::Minus];

fn make_room<K, V>(answers: &mut HashMap<K, V>) {
    if answers.len() >= ANSWERS_MAX {
        answers.clear();
    }
}

/// What is in memory is not damaged by a disk.
fn damaged(damaged: Damaged) -> ReadError {
    ReadError::Keys(Box::new(damaged))
}

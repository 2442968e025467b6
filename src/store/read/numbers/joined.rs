//! Visits that go on from one piece to another.
//!
//! Every piece answers for itself, as though its fragments were all there is. Those that go on elsewhere are put
//! together here; what they count together is added, and what each of them has counted by itself is taken off.

use std::collections::HashSet;

use super::{
    question::{Asked, Listing},
    sum::Sign,
};
use crate::store::rollup::{
    Answer, Collector, Damaged, Dictionaries, Evaluation, FragmentKey, Hit, List, Lister, MemoryPiece, Selection, Sink,
};

/// What a fragment has counted by itself already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    /// As a fragment of this piece, by itself.
    Alone { segment: i64, fragment: u32 },
    /// Together with others of its key of which that holds.
    Together,
    /// Not yet.
    No,
}

/// Fragments of several pieces, put together by session and visitor.
pub(super) struct Joined {
    piece: MemoryPiece,
    /// What each event of the piece has counted as, in the same order.
    counted: Vec<Counted>,
    /// The fragments of other pieces that are in it.
    fragments: HashSet<(i64, u32)>,
}

impl Default for Joined {
    fn default() -> Self {
        let mut piece = MemoryPiece::default();
        piece.dictionaries = Dictionaries::unlimited();
        Self { piece, counted: Vec::new(), fragments: HashSet::new() }
    }
}

impl Joined {
    /// Adds a fragment of the segment with this number, its events in the order of time. With `is_gone` its events are
    /// hidden, and only taken off.
    pub(super) fn add(
        &mut self,
        (segment, from): (i64, &Dictionaries),
        key: FragmentKey,
        hits: &[Hit],
        counted: Counted,
        is_gone: bool,
    ) {
        if let Counted::Alone { segment, fragment } = counted
            && !self.fragments.insert((segment, fragment))
        {
            return;
        }
        // Of events of the same time those of an earlier segment came in first.
        let gone = if is_gone { Hit::GONE } else { 0 };
        let of_piece = |hit: &Hit| Hit { order: segment as u32, flags: hit.flags | gone, ..*hit };
        self.piece.add_of(from, key, hits.iter().map(of_piece));
        self.counted.resize(self.piece.len(), counted);
    }

    /// Whether a fragment of a piece is in it.
    pub(super) fn holds(&self, segment: i64, fragment: u32) -> bool {
        self.fragments.contains(&(segment, fragment))
    }

    /// Adds all that another has of a key, as what has counted together.
    pub(super) fn add_chain_of(&mut self, other: &Self, key: FragmentKey) {
        let Some(chain) = other.piece.chain(key) else { return };
        self.piece.add_of(&other.piece.dictionaries, key, other.piece.hits(chain).copied());
        self.counted.resize(self.piece.len(), Counted::Together);
    }

    /// The memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.piece.memory_bytes()
            + self.counted.capacity() * size_of::<Counted>()
            + self.fragments.capacity() * (size_of::<(i64, u32)>() + 8)
    }

    /// Has a sink go through what counts now, or through what has counted.
    pub(super) fn run(
        &self,
        asked: &Asked,
        expired_before: i64,
        sign: Sign,
        sink: &mut impl Sink,
    ) -> Result<(), Damaged> {
        let matcher = asked.filters.look_up(&self.piece.dictionaries)?;
        let with_unwanted = asked.with_unwanted;
        let now = Evaluation { selection: Selection { with_unwanted, expired_before }, matcher: &matcher };
        let alone = Evaluation { selection: Selection { with_unwanted, expired_before: i64::MIN }, matcher: &matcher };
        let (mut hits, mut some, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        for chain in 0..self.piece.chains() {
            let key = self.piece.key(chain);
            hits.clear();
            hits.extend(self.piece.places(chain).map(|place| (*self.piece.hit(place), self.counted[place])));
            hits.sort_by_key(|(hit, _)| hit.place());
            if sign == Sign::Plus {
                some.clear();
                some.extend(hits.iter().map(|(hit, _)| *hit));
                now.run(key, &some, &mut scratch, sink);
                continue;
            }
            // Stable, so those of one fragment stay in the order of time.
            hits.sort_by_key(|(_, counted)| *counted);
            for same in hits.chunk_by(|(_, one), (_, next)| one == next) {
                let counted = same[0].1;
                some.clear();
                some.extend(same.iter().map(|(hit, _)| *hit));
                match counted {
                    Counted::No => {}
                    Counted::Together => now.run(key, &some, &mut scratch, sink),
                    Counted::Alone { .. } => {
                        some.iter_mut().for_each(|hit| hit.flags &= !Hit::GONE);
                        alone.run(key, &some, &mut scratch, sink);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is to be added to a list, or to be taken off it.
    pub(super) fn list(&self, listing: Listing<'_>, expired_before: i64, sign: Sign) -> Result<List, Damaged> {
        let Listing { asked, dimension, .. } = listing;
        let mut lister = Lister::new(dimension, &self.piece.dictionaries, asked.filters.own(), listing.times())?;
        self.run(asked, expired_before, sign, &mut lister)?;
        Ok(lister.end())
    }

    /// What is to be added, or to be taken off, by quarters of an hour.
    pub(super) fn answer(&self, asked: &Asked, expired_before: i64, sign: Sign) -> Result<Answer, Damaged> {
        let mut collector = Collector::default();
        self.run(asked, expired_before, sign, &mut collector)?;
        Ok(collector.end())
    }
}

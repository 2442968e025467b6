//! What a question is about: the segments of one moment.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    cache::Generation,
    question::Span,
    sealed::{Kept, Sealed},
    tally::HiddenHash,
};
use crate::store::{
    error::ReadError,
    format::{row, schema},
    read::snapshot::Snapshot,
    rollup::{FRAGMENTS_MAX, MemoryPiece, PAUSE_MAX_MS},
    segments::{Hidden, Segment},
};

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

    /// The newest of the sealed segments.
    pub(super) fn newest(&self) -> Generation {
        self.sealed.last().map_or(Generation { number: 0, generation: 0 }, Piece::generation)
    }

    /// What becomes of each item, with two threads on it where there are several, so that the first question after a
    /// start, which has everything to read, has both of two cores, unless events come in.
    pub(super) fn map<I: Sync, T: Send>(
        &self,
        items: &[I],
        each: impl Fn(&Scene<'_>, &I) -> Result<T, ReadError> + Sync,
    ) -> Result<Vec<T>, ReadError> {
        if items.len() < 2 {
            return items.iter().map(|item| each(self, item)).collect();
        }
        let next = AtomicUsize::new(0);
        let work = |scene: &Scene<'_>| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { break };
                // The first one that fails ends the other thread's work, too.
                done.push((at, each(scene, item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?));
            }
            Ok::<_, ReadError>(done)
        };
        let beside = self.snapshot.beside();
        let Self { kept, website_id, sealed, open, expired_before, wait_max, bytes_max, .. } = *self;
        let mut done = thread::scope(|scope| {
            let work_beside = || {
                let snapshot = beside;
                let snapshot = &snapshot;
                work(&Scene { snapshot, kept, website_id, sealed, open, expired_before, wait_max, bytes_max })
            };
            // Where there is no thread to be had, this one does it all.
            let thread = thread::Builder::new().name("reader-beside".into());
            let other = thread.spawn_scoped(scope, work_beside).ok();
            let own = work(self);
            let other = other.map_or(Ok(Vec::new()), |other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            own.and_then(|mut done| {
                done.extend(other?);
                Ok(done)
            })
        })?;
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, done)| done).collect())
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

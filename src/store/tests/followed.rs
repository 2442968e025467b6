//! A tail beside the model: what it shows and what it should.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use super::model::{ANYTHING, Asked, Pair};
use crate::{
    event::EventType,
    store::{Gap, GapReason, Shown, TailFilter, TailPlace},
};

/// Somebody who follows events, whom anything may interrupt.
pub(super) struct Followed {
    pub(super) website: u8,
    event_type: Option<EventType>,
    place: TailPlace,
    /// The sequence from which on events are to be seen.
    from: u64,
    from_start: bool,
    /// What had expired when it began to look; nothing of it is told to who wants all that is kept.
    expired_at_first: i64,
    pub(super) seen: Vec<u64>,
    pub(super) gaps: Vec<Gap>,
}

impl Followed {
    /// Begins to follow events, unless their website is deleted.
    pub(super) fn begin(pair: &Pair, (website, event_type): (u8, Option<EventType>), from_start: bool) -> Option<Self> {
        pair.website_id(website)?;
        let (place, from) =
            if from_start { (TailPlace::start(), 1) } else { (pair.store().tails.now(), pair.next_sequence()) };
        let expired_at_first = if from_start { pair.expired_before() } else { i64::MIN };
        Some(Self {
            website,
            event_type,
            place,
            from,
            from_start,
            expired_at_first,
            seen: Vec::new(),
            gaps: Vec::new(),
        })
    }

    /// Goes on from what its client was told.
    pub(super) fn go_on_from(&mut self, sequence: u64, time: i64) {
        self.place = TailPlace::told(sequence, time);
    }

    /// Comes back with what its client was told, which has kept nothing else.
    pub(super) fn come_back(&mut self) {
        self.go_on_from(self.place.sequence(), self.place.time());
    }

    /// Reads some more; says whether that was all.
    pub(super) fn go_on(&mut self, pair: &Pair, limit: u64) -> bool {
        if self.from_start && self.place.sequence() == 0 {
            self.expired_at_first = pair.expired_before();
        }
        let Some(website_id) = pair.website_id(self.website) else { return true };
        let filter = TailFilter { website_id, event_type: self.event_type };
        let tail = pair.store().tails.follow(filter).unwrap();
        let shown = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let out = Arc::clone(&shown);
        let read = tail.read(self.place.clone(), move |_, what| {
            let (events, gaps) = &mut *out.lock().unwrap();
            match what {
                Shown::Gap(gap) => gaps.push(*gap),
                Shown::Event(sequence, _) => events.push(*sequence),
            }
            Ok(if events.len() as u64 >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        let (read, _) = pair.runtime.block_on(read).unwrap();
        let (events, gaps) = std::mem::take(&mut *shown.lock().unwrap());
        assert!(events.len() as u64 <= limit);
        let is_visible = |of: &u64| pair.created_at(*of).is_some_and(|created_at| created_at >= pair.expired_before());
        assert!(events.iter().all(is_visible), "of {events:?} some are erased or have expired");
        self.seen.extend(events);
        self.gaps.extend(gaps);
        self.place = read.place;
        if !read.is_at_end && limit.is_multiple_of(4) {
            self.come_back();
        }
        read.is_at_end
    }

    /// Every event since it began was seen once and in order, but for what has been erased or has expired meanwhile;
    /// and of what has expired it was told.
    pub(super) fn end(&mut self, pair: &Pair) {
        while !self.go_on(pair, 5) {}
        let Self { website, event_type, .. } = *self;
        let all: BTreeSet<u64> = pair.sequences(&Asked { website, event_type, ..ANYTHING }).collect();
        assert!(self.seen.is_sorted() && self.seen.windows(2).all(|two| two[0] != two[1]), "{:?}", self.seen);
        let seen: BTreeSet<u64> = self.seen.iter().copied().collect();
        let missed: Vec<u64> = all.range(self.from..).filter(|of| !seen.contains(of)).copied().collect();
        for sequence in &missed {
            let created_at = pair.created_at(*sequence).unwrap();
            assert!(created_at < pair.expired_before(), "{sequence} is missing after {}", self.from);
            let is_told = self.gaps.iter().any(|gap| gap.reason == GapReason::Retention && created_at < gap.to);
            assert!(
                is_told || created_at < self.expired_at_first,
                "{sequence} is gone, and nobody said so: {:?}",
                self.gaps
            );
        }
        assert!(self.gaps.iter().all(|gap| gap.from <= gap.to), "{:?}", self.gaps);
        let others = seen.iter().filter(|of| !all.contains(of));
        for sequence in others {
            assert!(pair.created_at(*sequence).is_none(), "{sequence} is not what is followed");
        }
    }
}

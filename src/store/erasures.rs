//! Erasures: whose events are to go, how far that is, and what is left to do.
//!
//! An erasure is a line of the catalog and a value here; both say the same, as the catalog's thread changes them
//! together. From the answer to whoever asked for it, no question shows its events. They leave the disk with the
//! segments that hold them, which the sealer rewrites without them; then the catalog forgets whose they were, and the
//! erasure is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::{
    error::OpenError,
    list::FoundIn,
    now_ms,
    segments::{Content, Segments},
    snapshot::Snapshot,
};
use crate::metrics::StoreMetrics;

/// How far an erasure is.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// Its name in the API.
    pub id: Arc<str>,
    /// Whose events go; `None` when that is forgotten, as nothing is left of them.
    pub(super) subject: Option<Subject>,
    /// When it was asked for, in milliseconds since 1970, UTC.
    pub requested_at: i64,
    /// When nothing was left in any file.
    pub done_at: Option<i64>,
    /// Segments that held its events and are rewritten.
    pub segments_done: u64,
    /// Segments that hold its events still, by number.
    pub(super) remaining: BTreeSet<i64>,
    /// Events that are gone from the disk.
    pub rows: u64,
}

/// Whose events are erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) website_id: Arc<str>,
    /// `None`: everybody's.
    pub(super) visitor: Option<VisitorSubject>,
}

/// One visitor's events up to a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VisitorSubject {
    pub(super) visitor_id: Arc<str>,
    pub(super) up_to: u64,
}

/// A visitor's erasure as it is asked for: the events found in each segment are still to be hidden.
#[derive(Debug)]
pub(super) struct NewErasure {
    pub(super) website_id: Arc<str>,
    pub(super) visitor_id: Arc<str>,
    pub(super) up_to: u64,
    pub(super) found: Vec<FoundIn>,
}

/// How much may be under way; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ErasureOptions {
    /// Erasures that are remembered, those that are done included.
    pub erasures_max: usize,
    /// Events that may be hidden at once.
    pub hidden_events_max: usize,
}

impl Erasure {
    pub(super) fn new(id: Arc<str>, subject: Option<Subject>, requested_at: i64) -> Self {
        let (done_at, segments_done, rows) = (None, 0, 0);
        Self { id, subject, requested_at, done_at, segments_done, remaining: BTreeSet::new(), rows }
    }

    /// Segments that held its events, rewritten or not.
    pub fn segments(&self) -> u64 {
        self.segments_done + self.remaining.len() as u64
    }
}

/// The erasures as the catalog lists them. Hides what is to be erased; websites that are gone hide themselves.
pub(super) fn recover(
    listed: Vec<Erasure>,
    segments: &Segments,
    wake: Sender<()>,
    metrics: &Arc<StoreMetrics>,
) -> Result<Arc<Erasures>, OpenError> {
    let erasures = Erasures { all: Mutex::default(), wake, metrics: Arc::clone(metrics) };
    for mut erasure in listed {
        if let Some(Subject { website_id, visitor: Some(visitor) }) = &erasure.subject {
            let mut found = loop {
                let damaged = segments.damaged();
                match Snapshot::at_start(segments).find_visitor(website_id, &visitor.visitor_id, usize::MAX) {
                    Ok(found) => break found,
                    // A segment was found to be damaged, and is set aside by now.
                    Err(_) if segments.damaged() > damaged => {}
                    Err(error) => return Err(OpenError::Erasure(Arc::clone(&erasure.id), error)),
                }
            };
            for (_, _, events) in &mut found {
                events.retain(|(_, key)| key.sequence <= visitor.up_to);
            }
            found.retain(|(_, _, events)| !events.is_empty());
            erasure.remaining = found.iter().map(|(number, _, _)| *number).collect();
            segments.hide(&erasure.id, found);
        }
        erasures.insert(erasure);
    }
    Ok(Arc::new(erasures))
}

/// Every erasure that is remembered.
pub(super) struct Erasures {
    all: Mutex<BTreeMap<Arc<str>, Erasure>>,
    /// Has the sealer look what there is to do.
    wake: Sender<()>,
    metrics: Arc<StoreMetrics>,
}

impl Erasures {
    /// What is known of an erasure.
    pub(super) fn get(&self, id: &str) -> Option<Erasure> {
        self.all.lock().get(id).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// Adds one, and has the sealer begin.
    pub(super) fn insert(&self, erasure: Erasure) {
        self.all.lock().insert(Arc::clone(&erasure.id), erasure);
        self.report();
        // When it is full, the sealer is about to look anyway.
        let _ = self.wake.try_send(());
    }

    /// Forgets those that were done before this time.
    pub(super) fn remove_done_before(&self, time: i64) {
        self.all.lock().retain(|_, erasure| erasure.done_at.is_none_or(|done_at| done_at >= time));
    }

    /// Looks which segments hold events of deleted websites: what was taken in before the deletion may be committed
    /// after it. Whoever still has such an event in hand, a request on its way to the writer, holds the website's id.
    pub(super) fn look_for_websites(&self, segments: &Segments) {
        let view = segments.view();
        for erasure in self.all.lock().values_mut() {
            let Some(Subject { website_id, visitor: None }) = &erasure.subject else { continue };
            let site = segments.sites.find(website_id.as_bytes());
            let holds = |content: &Content| match (content, site) {
                (_, None) => false,
                (Content::Sealed(summary), Some(site)) => summary.holds_site(site),
                (Content::Open(open), Some(site)) => open.holds_site(site),
            };
            let remaining = view.segments.iter().filter(|segment| holds(&segment.content));
            erasure.remaining = remaining.map(|segment| segment.number).collect();
        }
    }

    /// The segments that hold events that are to be erased, by number.
    pub(super) fn remaining(&self) -> BTreeSet<i64> {
        let all = self.all.lock();
        // A website's segments are not rewritten, nor rolled, while more of its events may be on their way.
        all.values().filter(|erasure| erasure.is_settled()).flat_map(|erasure| &erasure.remaining).copied().collect()
    }

    /// Whose events are to be left out when this segment is rewritten.
    pub(super) fn in_segment(&self, number: i64) -> Vec<(Arc<str>, Subject)> {
        let all = self.all.lock();
        let here = all.values().filter(|erasure| erasure.remaining.contains(&number));
        here.filter_map(|erasure| Some((Arc::clone(&erasure.id), erasure.subject.clone()?))).collect()
    }

    /// A segment was rewritten without these erasures' events, of which it had so many.
    pub(super) fn segment_done(&self, number: i64, erased: &[(Arc<str>, u64)]) {
        let mut all = self.all.lock();
        for (id, rows) in erased {
            if let Some(erasure) = all.get_mut(id) {
                erasure.remaining.remove(&number);
                erasure.segments_done += 1;
                erasure.rows += rows;
                self.metrics.erased_events.increment(*rows);
            }
        }
    }

    /// Those of which no segment holds anything, but the catalog still knows whose they were.
    pub(super) fn to_forget(&self) -> Vec<Arc<str>> {
        let all = self.all.lock();
        let finished =
            |erasure: &&Erasure| erasure.done_at.is_none() && erasure.remaining.is_empty() && erasure.is_settled();
        all.values().filter(finished).map(|erasure| Arc::clone(&erasure.id)).collect()
    }

    /// Whether one that is not done has been waiting for so long.
    pub(super) fn oldest_is(&self, age: Duration) -> bool {
        let all = self.all.lock();
        let oldest = all.values().filter(|erasure| erasure.done_at.is_none()).map(|erasure| erasure.requested_at).min();
        oldest.is_some_and(|requested_at| u128::from(now_ms().abs_diff(requested_at)) >= age.as_millis())
    }

    /// Whether anything is left to do.
    pub(super) fn are_pending(&self) -> bool {
        self.all.lock().values().any(|erasure| erasure.done_at.is_none())
    }

    /// Nothing of it is left in any file.
    pub(super) fn done(&self, id: &str, done_at: i64) {
        if let Some(erasure) = self.all.lock().get_mut(id) {
            erasure.subject = None;
            erasure.done_at = Some(done_at);
        }
        self.report();
    }

    fn report(&self) {
        let pending = self.all.lock().values().filter(|erasure| erasure.done_at.is_none()).count();
        self.metrics.erasures_pending.set(pending as f64);
    }
}

impl Erasure {
    /// Whether no event of it can come any more: nobody but this value knows the website any more.
    fn is_settled(&self) -> bool {
        match &self.subject {
            Some(Subject { website_id, visitor: None }) => Arc::strong_count(website_id) == 1,
            _ => true,
        }
    }
}

/// Whether what was found is what the segments still hold: none of them was rewritten since.
pub(super) fn is_current(found: &[FoundIn], segments: &Segments) -> bool {
    let view = segments.view();
    let is_same = |(number, generation, _): &FoundIn| {
        view.segment(*number).is_some_and(|segment| segment.generation == *generation)
    };
    found.iter().all(is_same)
}

//! Erasures: whose events are to go, how far that is, and what is left to do.
//!
//! An erasure is a row of the catalog and a value here; both say the same, because the catalog's thread changes them
//! together. Once it has been answered, no other answer shows its events. They leave the disk with the
//! segments that hold them, which the sealer rewrites without them; then the catalog forgets whose they were, and the
//! erasure is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::erasure::{ErasedRows, Erasure, Subject, Target};
use crate::{
    clock::now_ms,
    metrics::StoreMetrics,
    store::segments::{Content, Segments},
};

/// Every erasure that is remembered, those that are done included.
pub(crate) struct Erasures {
    all: Mutex<BTreeMap<Arc<str>, Erasure>>,
    /// Has the sealer look what there is to do.
    wake: Sender<()>,
    metrics: Arc<StoreMetrics>,
}

impl Erasures {
    /// Starts without any erasure; a message to `wake` has the sealer look for work.
    pub(crate) fn new(wake: Sender<()>, metrics: Arc<StoreMetrics>) -> Self {
        Self { all: Mutex::default(), wake, metrics }
    }

    /// What is known of an erasure.
    pub(crate) fn get(&self, id: &str) -> Option<Erasure> {
        self.all.lock().get(id).cloned()
    }

    /// How many of visitors, or of websites, are not done.
    pub(crate) fn pending(&self, of_visitors: bool) -> usize {
        let is_pending = |of: &&Erasure| of.done_at.is_none() && of.is_of_visitor() == of_visitors;
        self.all.lock().values().filter(is_pending).count()
    }

    /// Adds one, and has the sealer begin.
    pub(crate) fn insert(&self, erasure: Erasure) {
        self.all.lock().insert(Arc::clone(&erasure.id), erasure);
        self.report();
        // When a message waits already, the sealer is about to look anyway.
        let _ = self.wake.try_send(());
    }

    /// Forgets those that were done before this time, and of the others that are done all but the newest `done_max`.
    /// Returns their ids.
    pub(crate) fn forget_done(&self, before: i64, done_max: usize) -> Vec<Arc<str>> {
        let mut all = self.all.lock();
        let mut done: Vec<_> = all.values().filter_map(|of| Some((of.done_at?, Arc::clone(&of.id)))).collect();
        done.sort_unstable();
        let too_many = done.len().saturating_sub(done_max);
        let too_old = done.partition_point(|(done_at, _)| *done_at < before);
        done.truncate(too_many.max(too_old));
        let forgotten: Vec<_> = done.into_iter().map(|(_, id)| id).collect();
        for id in &forgotten {
            all.remove(id);
        }
        forgotten
    }

    /// Looks which segments hold events of deleted websites: what was taken in before the deletion may be committed
    /// after it. Whoever still has such an event in hand, a request on its way to the writer, holds the website's id.
    pub(crate) fn look_for_websites(&self, segments: &Segments) {
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

    /// Whether no more events of an erasure's can come in. One that is not known is one of long ago.
    pub(crate) fn is_settled(&self, id: &str) -> bool {
        self.all.lock().get(id).is_none_or(Erasure::is_settled)
    }

    /// The segments that hold events that are to be erased, by number.
    pub(crate) fn remaining(&self) -> BTreeSet<i64> {
        let all = self.all.lock();
        // A website's segments are not rewritten, nor rolled, while more of its events may be on their way.
        all.values().filter(|erasure| erasure.is_settled()).flat_map(|erasure| &erasure.remaining).copied().collect()
    }

    /// Whose events are to be left out when this segment is rewritten: who asked first comes first, as an event that
    /// several asked for counts as the first one's.
    pub(crate) fn in_segment(&self, number: i64) -> Vec<Target> {
        let all = self.all.lock();
        let here = all.values().filter(|erasure| erasure.remaining.contains(&number));
        let here = here.filter_map(|of| Some(Target { erasure: Arc::clone(&of.id), subject: of.subject.clone()? }));
        let mut targets: Vec<_> = here.collect();
        targets.sort_by_key(|target| target.subject.visitor.as_ref().map_or(u64::MAX, |visitor| visitor.up_to));
        targets
    }

    /// Notes that a segment was rewritten or dropped, and how many events of each erasure went with it.
    pub(crate) fn segment_done(&self, number: i64, erased: &[ErasedRows]) {
        let mut all = self.all.lock();
        for ErasedRows { erasure, rows } in erased {
            if let Some(erasure) = all.get_mut(erasure) {
                erasure.remaining.remove(&number);
                erasure.segments_done += 1;
                erasure.rows += rows;
                self.metrics.events_erased.increment(*rows);
            }
        }
    }

    /// The erasures with no events left in any segment, whose subject the catalog has still to forget.
    pub(crate) fn to_finish(&self) -> Vec<Arc<str>> {
        let all = self.all.lock();
        let is_removed =
            |erasure: &&Erasure| erasure.done_at.is_none() && erasure.remaining.is_empty() && erasure.is_settled();
        all.values().filter(is_removed).map(|erasure| Arc::clone(&erasure.id)).collect()
    }

    /// Whether any erasure has been pending for at least this long.
    pub(crate) fn one_has_waited(&self, age: Duration) -> bool {
        let all = self.all.lock();
        let oldest = all.values().filter(|erasure| erasure.done_at.is_none()).map(|erasure| erasure.requested_at).min();
        oldest.is_some_and(|requested_at| u128::from(now_ms().abs_diff(requested_at)) >= age.as_millis())
    }

    /// Whether anything is left to do.
    pub(crate) fn are_pending(&self) -> bool {
        self.all.lock().values().any(|erasure| erasure.done_at.is_none())
    }

    /// Marks an erasure as done: no file holds anything of its events.
    pub(crate) fn done(&self, id: &str, done_at: i64) {
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

//! What is done to full segments, behind everybody's back: they get their indexes, lose the events that are to be
//! erased, and leave the disk when all they hold has expired.
//!
//! One thread decides what is next and does one thing at a time, so that no segment is rewritten twice at once. Low
//! priority: the machine belongs to the events that are coming in, unless segments pile up.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, select};

use super::{
    catalog::SegmentChange,
    directory::sync_directory,
    erasures::Erasures,
    error::OpenError,
    lower_priority, now_ms, retention,
    rewrite::{RewriteError, Rewriter},
    segments::Segment,
};

/// After a failure the next try of the same thing waits this long.
const RETRY: Duration = Duration::from_secs(30);
/// While something waits for readers to leave an old generation, it is looked at this often.
const POLL: Duration = Duration::from_millis(50);
/// How long an erasure may wait for full segments to be sealed.
const ERASE_PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether segments have expired.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Where full segments are handed in.
#[derive(Clone)]
pub(super) struct SealOrders(Sender<Arc<Segment>>);

impl SealOrders {
    /// Has the segment sealed when those that were handed in before it are.
    pub(super) fn order(&self, segment: Arc<Segment>) {
        // The thread is gone only when hitlog stops; then the next start hands the segment in.
        let _ = self.0.send(segment);
    }
}

/// The thread.
pub(super) struct Sealer {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
pub(super) struct Sealing {
    pub(super) rewriter: Rewriter,
    pub(super) erasures: Arc<Erasures>,
    /// Has a message when there is something new to erase.
    pub(super) wake: Receiver<()>,
    /// How long events are kept; `None`: for ever.
    pub(super) retention: Option<Duration>,
}

impl Sealer {
    /// Starts the thread.
    pub(super) fn spawn(sealing: Sealing) -> Result<(Self, SealOrders), OpenError> {
        let (orders, receiver) = crossbeam_channel::unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let stopping = Arc::clone(&stopping);
            thread::Builder::new().name("sealer".into()).spawn(move || sealing.run(&receiver, &stopping))
        };
        Ok((Self { stopping, thread: thread.map_err(OpenError::Thread)? }, SealOrders(orders)))
    }

    /// Ends the thread; a rewriting under way is given up, and begun anew at the next start. Every [`SealOrders`] must
    /// be gone by now.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the sealer panicked");
        }
    }
}

/// What is to be done, and not before when.
#[derive(Default)]
struct Plan {
    unsealed: VecDeque<Arc<Segment>>,
    /// By number, what failed.
    retry_at: HashMap<i64, Instant>,
    retention_at: Option<Instant>,
    forget_at: Option<Instant>,
    /// Sealing goes first, or takes turns with an erasure that has waited long.
    erased_last: bool,
}

impl Plan {
    fn is_delayed(&self, number: i64) -> bool {
        self.retry_at.get(&number).is_some_and(|retry_at| *retry_at > Instant::now())
    }
}

impl Sealing {
    /// Until the last [`SealOrders`] is gone.
    fn run(&self, orders: &Receiver<Arc<Segment>>, stopping: &Arc<AtomicBool>) {
        let mut plan = Plan::default();
        loop {
            self.remove_expired(&mut plan);
            self.unlink_replaced();
            self.erasures.look_for_websites(&self.rewriter.segments);
            self.finish_erasures(&mut plan);
            let next = self.next(&mut plan);
            let patience = if next.is_some() { Duration::ZERO } else { self.patience(&plan) };
            select! {
                recv(orders) -> segment => match segment {
                    Ok(segment) => plan.unsealed.push_back(segment),
                    Err(_) => return,
                },
                recv(self.wake) -> _ => {}
                default(patience) => {}
            }
            let Some(segment) = next else { continue };
            match self.rewrite_beside(&segment, plan.unsealed.len(), stopping) {
                Ok(()) => {
                    plan.unsealed.retain(|unsealed| unsealed.number != segment.number);
                    plan.retry_at.remove(&segment.number);
                }
                Err(RewriteError::Stopping) => return,
                Err(error) => {
                    self.rewriter.clear_away(&segment, &error);
                    tracing::error!(
                        segment = segment.number, %error, retry_seconds = RETRY.as_secs(),
                        "a segment could not be rewritten; it serves as it is, and will be tried again"
                    );
                    self.rewriter.metrics.seals_failed.increment(1);
                    plan.retry_at.insert(segment.number, Instant::now() + RETRY);
                }
            }
        }
    }

    /// The segment to rewrite next, if there is one.
    fn next(&self, plan: &mut Plan) -> Option<Arc<Segment>> {
        let to_seal = plan.unsealed.iter().find(|segment| !plan.is_delayed(segment.number)).map(Arc::clone);
        let to_erase = self.next_to_erase(plan);
        let takes_turns = || !plan.erased_last && !is_behind(&plan.unsealed) && self.erasures.oldest_is(ERASE_PATIENCE);
        let erase_now = to_erase.is_some() && (to_seal.is_none() || takes_turns());
        plan.erased_last = erase_now;
        if erase_now { to_erase } else { to_seal }
    }

    /// The oldest sealed segment that holds events which are to be erased. When the active one does, it is rolled.
    fn next_to_erase(&self, plan: &Plan) -> Option<Arc<Segment>> {
        let view = self.rewriter.segments.view();
        let newest = view.segments.last().map(|segment| segment.number);
        let mut to_erase = None;
        for number in self.erasures.remaining() {
            let Some(segment) = view.segment(number).filter(|_| !plan.is_delayed(number)) else { continue };
            if segment.is_sealed() {
                to_erase = to_erase.or_else(|| Some(Arc::clone(segment)));
            } else if Some(number) == newest {
                self.rewriter.segments.request_roll(number);
            }
        }
        to_erase
    }

    fn patience(&self, plan: &Plan) -> Duration {
        if self.erasures.are_pending() || !self.rewriter.segments.replaced().is_empty() {
            return POLL;
        }
        let now = Instant::now();
        let until_retry = plan.retry_at.values().min().map(|at| at.saturating_duration_since(now));
        let until_retention = plan.retention_at.map(|at| at.saturating_duration_since(now));
        until_retry.into_iter().chain(until_retention).min().unwrap_or(Duration::MAX)
    }

    /// Rewrites on a thread that lives for this rewriting: a priority once lowered can't be raised again without
    /// privileges.
    fn rewrite_beside(
        &self,
        segment: &Segment,
        unsealed: usize,
        stopping: &Arc<AtomicBool>,
    ) -> Result<(), RewriteError> {
        let targets = self.erasures.in_segment(segment.number);
        thread::scope(|scope| {
            let rewrite = thread::Builder::new().name("seal".into()).spawn_scoped(scope, || {
                lower_priority(niceness(unsealed));
                self.rewriter.rewrite(segment, &targets, stopping)
            })?;
            rewrite.join().unwrap_or_else(|_| Err(io::Error::other("the rewriting panicked").into()))
        })
    }

    /// Drops the segments of which every event has expired.
    fn remove_expired(&self, plan: &mut Plan) {
        if self.retention.is_none() || plan.retention_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        plan.retention_at = Some(Instant::now() + RETENTION_INTERVAL);
        let Rewriter { segments, metrics, catalog, .. } = &self.rewriter;
        let expired_before = retention::expired_before(self.retention, now_ms());
        let expired = retention::expired_segments(&segments.view().segments, expired_before);
        let rows = |segment: &Segment| segment.summary().map_or(0, |summary| summary.count);
        let set_due = |due: &[Arc<Segment>]| {
            metrics.retention_due_segments.set(due.len() as f64);
            metrics.retention_due_events.set(due.iter().map(|segment| rows(segment)).sum::<u64>() as f64);
        };
        set_due(&expired);
        for (at, segment) in expired.iter().enumerate() {
            let (number, rows) = (segment.number, rows(segment));
            tracing::info!(segment = number, rows, "all events of a segment have expired: it is being removed");
            let sequence_floor = segment.sequences().map_or(0, |(_, last)| last + 1);
            let erased = self.erasures.in_segment(number).into_iter().map(|(erasure, _)| (erasure, 0)).collect();
            match catalog.change_segments(SegmentChange::Dropped { number, sequence_floor, erased }) {
                Ok(()) => {
                    metrics.retention_removed_segments.increment(1);
                    metrics.retention_removed_events.increment(rows);
                    tracing::info!(segment = number, rows, "an expired segment is removed");
                }
                Err(error) => tracing::error!(segment = number, %error, "an expired segment could not be removed"),
            }
            set_due(&expired[at + 1..]);
        }
    }

    /// Unlinks what nobody reads any more, and has the catalog forget dropped segments of which nothing is left.
    fn unlink_replaced(&self) {
        let segments = &self.rewriter.segments;
        let (gone, view) = (segments.unlink_replaced(), segments.view());
        for number in gone.into_iter().filter(|number| view.segment(*number).is_none()) {
            if let Err(error) = self.rewriter.catalog.change_segments(SegmentChange::Forgotten(number)) {
                // The next start does it.
                tracing::warn!(segment = number, %error, "the catalog still lists a segment that was removed");
            }
        }
    }

    /// Has the catalog forget whose events were erased, when none is left in any other file.
    fn finish_erasures(&self, plan: &mut Plan) {
        let Rewriter { segments, catalog, paths, .. } = &self.rewriter;
        let finished = self.erasures.to_forget();
        if finished.is_empty()
            || !segments.replaced().is_empty()
            || plan.forget_at.is_some_and(|at| at > Instant::now())
        {
            return;
        }
        plan.forget_at = Some(Instant::now() + RETRY);
        if segments.has_damaged() {
            tracing::warn!("an erasure can't end while a damaged segment may hold its events: restore or remove that");
            return;
        }
        // A file that is unlinked must not be there again after a loss of power.
        if let Err(error) = sync_directory(paths.folder()) {
            tracing::error!(%error, "an erasure could not be finished; it will be tried again");
            return;
        }
        for erasure in finished {
            match catalog.forget_erased(Arc::clone(&erasure)) {
                Ok(true) => tracing::info!(%erasure, "nothing is left of what was to be erased"),
                // Somebody reads the catalog, for a moment.
                Ok(false) => {
                    plan.forget_at = None;
                    return;
                }
                Err(error) => {
                    tracing::error!(%erasure, %error, "an erasure could not be finished; it will be tried again");
                    return;
                }
            }
        }
        plan.forget_at = None;
    }
}

/// Low while the sealer keeps up or lags a little, so that events cost the same whether segments are being sealed or
/// not; as good as the writer's when so many wait that their keys in memory grow large.
fn niceness(unsealed: usize) -> i32 {
    if unsealed < UNSEALED_MAX { 15 } else { 0 }
}

/// Then erasures wait.
fn is_behind(unsealed: &VecDeque<Arc<Segment>>) -> bool {
    unsealed.len() >= UNSEALED_MAX
}

/// Segments that wait for their indexes, before sealing gets all that it can get.
const UNSEALED_MAX: usize = 5;

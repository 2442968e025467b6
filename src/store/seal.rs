//! What is done to full segments in the background: they get their indexes, lose the events that are to be
//! erased, and leave the disk when all they hold has expired.
//!
//! One thread decides what is next and does one thing at a time, so that no segment is rewritten twice at once. Low
//! priority: the machine belongs to the events that are coming in, unless segments pile up.

mod copy;
mod error;
mod expiry;
mod held;
pub(super) mod rewrite;
mod upgrade;

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

use self::{
    error::RewriteError,
    expiry::{Doubt, Expiry, Look, Times},
    rewrite::Rewriter,
};
use super::{
    catalog::{ErasedRows, Erasures, ExpiryNotes, SegmentChange, Shipped, Target},
    error::{CatalogError, OpenError, is_damage},
    format::{room::Reserve, sync_directory},
    priority::lower_priority,
    segments::{Segment, retention},
};
use crate::{
    allocator,
    clock::{now_ms, since_boot},
    command::{hitlog, write_off},
    metrics::Outcome,
};

/// Most damaged segments of which it is said how to give them up.
const DAMAGED_TOLD: usize = 10;
/// The pause after a failure before the same thing is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// How often it is checked whether the last reader of an old generation has gone.
const POLL: Duration = Duration::from_millis(50);
/// While an erasure waits for something else (a segment that rolls, a retry), the plan is looked at this often.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// How long erasures wait for full segments to be sealed; after that the two take turns.
const ERASE_WAIT_MAX: Duration = Duration::from_secs(600);

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
    /// What has still to be sent elsewhere, and stays for that.
    pub(super) shipped: Arc<Shipped>,
    /// Has a message when there is something new to erase.
    pub(super) wake: Receiver<()>,
    pub(super) retention: Retention,
    /// Given up where a full disk has no room to note that something is removed.
    pub(super) reserve: Reserve,
}

/// What decides when an expired segment leaves the disk.
pub(super) struct Retention {
    /// How long events are kept; `None`: for ever.
    pub(super) kept: Option<Duration>,
    /// The running time for which a segment must have been expired.
    pub(super) grace: Duration,
    /// Expired segments that may stay because they are not shipped yet, in bytes; `None`: as many as there are.
    pub(super) held_bytes_max: Option<u64>,
    /// What an earlier run noted.
    pub(super) notes: ExpiryNotes,
    /// The newest `receivedAt` of all events, in milliseconds since 1970, UTC; 0 if there is none.
    pub(super) newest_received_at: i64,
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

/// What is to be done, and the earliest time for each.
struct Plan {
    unsealed: VecDeque<Arc<Segment>>,
    /// When what failed is tried again, by the number of the segment.
    retry_at: HashMap<i64, Instant>,
    retention_at: Option<Instant>,
    expiry: Expiry,
    /// What of it the catalog has.
    noted: ExpiryNotes,
    begun_at: Instant,
    unlink_at: Option<Instant>,
    finish_at: Option<Instant>,
    /// Whether the last rewriting was an erasure's: sealing goes first, or takes turns with one that has waited long.
    erased_last: bool,
}

impl Plan {
    fn new(retention: &Retention) -> Self {
        let Retention { grace, notes, newest_received_at, .. } = retention;
        Self {
            unsealed: VecDeque::new(),
            retry_at: HashMap::new(),
            retention_at: None,
            expiry: Expiry::new(*grace, notes, *newest_received_at),
            noted: notes.clone(),
            begun_at: Instant::now(),
            unlink_at: None,
            finish_at: None,
            erased_last: false,
        }
    }

    fn is_delayed(&self, number: i64) -> bool {
        is_delayed(self.retry_at.get(&number).copied())
    }
}

impl Sealing {
    /// Runs until the last [`SealOrders`] is gone.
    fn run(&self, orders: &Receiver<Arc<Segment>>, stopping: &Arc<AtomicBool>) {
        let mut plan = Plan::new(&self.retention);
        loop {
            self.note_damage();
            self.remove_expired(&mut plan);
            self.unlink_replaced(&mut plan);
            self.erasures.look_for_websites(&self.rewriter.segments);
            self.finish_erasures(&mut plan);
            let next = self.next(&mut plan);
            let timeout = if next.is_some() { Duration::ZERO } else { self.timeout(&plan) };
            select! {
                recv(orders) -> segment => match segment {
                    Ok(segment) => plan.unsealed.push_back(segment),
                    Err(_) => return,
                },
                recv(self.wake) -> _ => {}
                default(timeout) => {}
            }
            let Some(segment) = next else { continue };
            match self.rewrite_beside(&segment, plan.unsealed.len(), stopping) {
                Ok(()) => {
                    self.rewriter.count(&segment, Outcome::Ok);
                    plan.unsealed.retain(|unsealed| unsealed.number != segment.number);
                    plan.retry_at.remove(&segment.number);
                    self.rewriter.segments.note_rewriting(segment.number, None);
                    if plan.unsealed.is_empty() {
                        allocator::give_back();
                    }
                }
                Err(RewriteError::Stopping) => return,
                Err(error) => {
                    self.rewriter.clear_away(&segment, &error);
                    self.rewriter.segments.note_rewriting(segment.number, Some(error.is_damage()));
                    if let RewriteError::Sqlite(error) = &error
                        && segment.is_sealed()
                        && is_damage(error)
                    {
                        self.rewriter.segments.note_damage(segment.number, &segment.path, error);
                    }
                    tracing::error!(
                        segment = segment.number, %error, retry_seconds = RETRY.as_secs(),
                        "a segment could not be rewritten; it serves as it is, and will be tried again"
                    );
                    self.rewriter.count(&segment, Outcome::Failed);
                    plan.retry_at.insert(segment.number, Instant::now() + RETRY);
                }
            }
        }
    }

    /// Has the catalog note the damage that reads have found: the next start would not see it.
    fn note_damage(&self) {
        for (segment, reason) in self.rewriter.segments.take_found_damage() {
            if let Err(error) = self.rewriter.catalog.change_segments(SegmentChange::Damaged(segment, Some(reason))) {
                tracing::warn!(segment, %error, "a segment's damage could not be noted; the next read finds it anew");
            }
        }
    }

    /// The segment to rewrite next, if there is one.
    fn next(&self, plan: &mut Plan) -> Option<Arc<Segment>> {
        let to_seal = plan.unsealed.iter().find(|segment| !plan.is_delayed(segment.number)).map(Arc::clone);
        let to_erase = self.next_to_erase(plan);
        let takes_turns =
            || !plan.erased_last && !is_behind(&plan.unsealed) && self.erasures.one_has_waited(ERASE_WAIT_MAX);
        let erase_now = to_erase.is_some() && (to_seal.is_none() || takes_turns());
        plan.erased_last = erase_now;
        if erase_now {
            to_erase
        } else {
            to_seal.or_else(|| upgrade::next(&self.rewriter, |number| plan.is_delayed(number)))
        }
    }

    /// The oldest sealed segment that holds events which are to be erased. When the active one does, it is rolled.
    fn next_to_erase(&self, plan: &Plan) -> Option<Arc<Segment>> {
        let view = self.rewriter.segments.view();
        let newest = view.segments.last().map(|segment| segment.number);
        let mut to_erase = None;
        for number in self.erasures.remaining() {
            let Some(segment) = view.segment(number).filter(|_| !plan.is_delayed(number)) else { continue };
            if segment.is_sealed() && self.is_being_sent(segment) {
                continue;
            }
            if segment.is_sealed() {
                to_erase = to_erase.or_else(|| Some(Arc::clone(segment)));
            } else if Some(number) == newest {
                self.rewriter.segments.request_roll(number);
            }
        }
        to_erase
    }

    /// Whether rows of a segment are on their way elsewhere, and may have to be sent again just as they are.
    fn is_being_sent(&self, segment: &Segment) -> bool {
        segment.sequences().is_some_and(|span| self.shipped.holds(span))
    }

    /// How long to wait for orders when nothing can be done now.
    fn timeout(&self, plan: &Plan) -> Duration {
        let is_unlinking = !self.rewriter.segments.replaced().is_empty() && !is_delayed(plan.unlink_at);
        let is_erasing = self.erasures.are_pending();
        // The next look for what has expired may have come due since the last one, where much was done meanwhile.
        let is_looking = self.retention.kept.is_some() && !is_delayed(plan.retention_at);
        if is_looking || is_unlinking || (is_erasing && !is_delayed(plan.finish_at)) {
            return POLL;
        }
        let delays = [plan.retention_at, plan.unlink_at, plan.finish_at].into_iter().flatten();
        let now = Instant::now();
        // A time that has passed is no reason to wake: what was due then was done, or is not to be done any more.
        let next = plan.retry_at.values().copied().chain(delays).filter(|at| *at > now).min();
        let timeout = next.map_or(Duration::MAX, |next| next - now);
        // One erasure may wait for a segment that rolls while another waits to be tried again.
        if is_erasing { timeout.min(SLOW_POLL) } else { timeout }
    }

    /// Rewrites on a thread that lives for this rewriting: a priority once lowered can't be raised again without
    /// privileges.
    fn rewrite_beside(
        &self,
        segment: &Segment,
        unsealed: usize,
        stopping: &Arc<AtomicBool>,
    ) -> Result<(), RewriteError> {
        // Sealing does not wait for what is being sent, as it leaves the rows as they are; what is erased goes later.
        let targets = if self.is_being_sent(segment) { Vec::new() } else { self.erasures.in_segment(segment.number) };
        thread::scope(|scope| {
            let rewrite = thread::Builder::new().name("seal".into()).spawn_scoped(scope, || {
                lower_priority(niceness(unsealed));
                self.rewriter.rewrite(segment, &targets, stopping)
            })?;
            rewrite.join().unwrap_or_else(|_| Err(io::Error::other("the rewriting panicked").into()))
        })
    }

    /// Announces the segments of which every event has expired, and drops those for which that has held for the grace:
    /// whoever set the wrong retention, or whose clock is wrong, has the time to see what goes.
    fn remove_expired(&self, plan: &mut Plan) {
        // Kept for ever, nothing is expired, and what was noted of it is taken back once.
        let is_kept = self.retention.kept.is_none();
        if is_delayed(plan.retention_at) || (is_kept && plan.noted.held.is_empty()) {
            return;
        }
        let Rewriter { segments, metrics, .. } = &self.rewriter;
        let times = Times { now_ms: now_ms(), since_boot: since_boot(), running: plan.begun_at.elapsed() };
        let expired_before = retention::expired_before(self.retention.kept, times.now_ms);
        let mut expired = retention::expired_segments(&segments.view().segments, expired_before);
        let numbers: Vec<_> = expired.iter().map(|segment| segment.number).collect();
        let look = plan.expiry.look(times, &numbers);
        // Before it is told: whoever reads that line and looks finds it so.
        metrics.retention_suspended.set(f64::from(u8::from(plan.expiry.is_suspended())));
        if !is_kept {
            self.tell(&look, &plan.expiry, &expired);
        }
        let due = expired.iter().filter(|segment| look.due.contains(&segment.number));
        let held = held::held_for_shipping(due, &self.shipped, self.retention.held_bytes_max, metrics);
        expired.retain(|segment| {
            let last = segment.sequences().map_or(0, |(_, last)| last);
            // Sent again, its events must not be stored again, so their ids must be on the disk.
            let is_due = look.due.contains(&segment.number)
                && !held.contains(&segment.number)
                && self.rewriter.ids.are_laid_down(last);
            let is_removed = is_due && self.remove(segment);
            if is_removed {
                plan.expiry.forget(segment.number);
            }
            !is_removed
        });
        metrics.retention_due_segments.set(expired.len() as f64);
        metrics.retention_due_events.set(expired.iter().map(|segment| rows(segment)).sum::<u64>() as f64);
        metrics.retention_due_seconds.set(plan.expiry.due_in().unwrap_or_default().as_secs_f64());
        let notes = plan.expiry.notes();
        if notes != plan.noted {
            match self.rewriter.catalog.note_expiry(notes.clone()) {
                Ok(()) => plan.noted = notes,
                // After a restart that comes before the next try, segments stay for a little longer.
                Err(error) => tracing::warn!(%error, "it could not be noted for how long segments have been expired"),
            }
        }
        plan.retention_at = Some(Instant::now() + plan.expiry.pause());
    }

    /// Logs what a look at the expired segments has found.
    fn tell(&self, look: &Look, expiry: &Expiry, expired: &[Arc<Segment>]) {
        let grace_seconds = self.retention.grace.as_secs_f64();
        for segment in expired.iter().filter(|segment| look.new.contains(&segment.number)) {
            let (segment, rows) = (segment.number, rows(segment));
            tracing::info!(
                segment,
                rows,
                grace_seconds,
                "all events of a segment have expired: it is about to be removed, when that has held for the grace"
            );
        }
        let seconds_off = match look.doubt {
            Some(Doubt::JumpedAhead(milliseconds)) => milliseconds as f64 / 1_000.0,
            Some(Doubt::Behind(milliseconds)) => -(milliseconds as f64) / 1_000.0,
            Some(Doubt::Before) | None => 0.0,
        };
        let what = match look.doubt {
            Some(Doubt::JumpedAhead(_)) => "the machine's clock has jumped ahead",
            Some(Doubt::Behind(_)) => "the machine's clock stands behind the newest event",
            Some(Doubt::Before) => "the machine's clock was in doubt when hitlog last ran",
            None if look.is_settled => {
                tracing::info!("the machine's clock is believed again: expired segments are removed as they are due");
                return;
            }
            None => return,
        };
        let due_in_seconds = expiry.due_in().map(|due_in| due_in.as_secs());
        tracing::warn!(
            seconds_off,
            grace_seconds,
            due_in_seconds,
            "{what}: no expired segment is removed until it has gone on without a jump for the grace. If it is wrong, \
             set it right: what has expired by it is in no answer meanwhile, and will be again"
        );
    }

    /// Drops an expired segment; whether that could be done.
    fn remove(&self, segment: &Segment) -> bool {
        let Rewriter { metrics, catalog, .. } = &self.rewriter;
        let (number, rows) = (segment.number, rows(segment));
        let sequence_floor = segment.sequence_floor();
        let drop = || {
            let not_counted = |Target { erasure, .. }| ErasedRows { erasure, rows: 0 };
            let erased = self.erasures.in_segment(number).into_iter().map(not_counted).collect();
            let expired_from = segment.sequences().map(|(first, _)| first);
            catalog.change_segments(SegmentChange::Dropped { number, sequence_floor, erased, expired_from })
        };
        let mut dropped = drop();
        // A disk that is full of what has expired gets its room back from nothing else.
        if let Err(CatalogError::StorageFull) = dropped
            && self.reserve.give_up("an expired segment can be removed").is_ok()
        {
            dropped = drop();
        }
        match &dropped {
            Ok(()) => {
                metrics.segments_removed.increment(1);
                metrics.events_removed.increment(rows);
                tracing::info!(segment = number, rows, "an expired segment is removed");
            }
            // It will be tried again at the next look.
            Err(error) => tracing::error!(segment = number, %error, "an expired segment could not be removed"),
        }
        dropped.is_ok()
    }

    /// Unlinks what nobody reads any more, and has the catalog forget it.
    fn unlink_replaced(&self, plan: &mut Plan) {
        if is_delayed(plan.unlink_at) {
            return;
        }
        let Rewriter { segments, catalog, paths, .. } = &self.rewriter;
        let (gone, failed) = segments.unlink_replaced();
        plan.unlink_at = failed.then(|| Instant::now() + RETRY);
        if gone.is_empty() {
            return;
        }
        // What comes back after a loss of power must still be known as a leftover.
        let forgotten = sync_directory(paths.folder()).map_err(|error| error.to_string());
        let change = || catalog.change_segments(SegmentChange::Unlinked(gone)).map_err(|error| error.to_string());
        if let Err(error) = forgotten.and_then(|()| change()) {
            // The next start makes up for it.
            tracing::warn!(%error, "the catalog still knows of generations that were removed");
        }
    }

    /// Has the catalog forget whose events were erased, when none is left in any other file.
    fn finish_erasures(&self, plan: &mut Plan) {
        let Rewriter { segments, catalog, paths, .. } = &self.rewriter;
        let finished = self.erasures.to_finish();
        if finished.is_empty() || !segments.replaced().is_empty() || is_delayed(plan.finish_at) {
            return;
        }
        plan.finish_at = Some(Instant::now() + RETRY);
        let (damaged, quarantined) = (segments.damaged_numbers(), segments.quarantined());
        if !damaged.is_empty() || quarantined > 0 {
            let give_up: Vec<_> =
                damaged.iter().take(DAMAGED_TOLD).map(|number| format!(" (`{}`)", write_off(*number))).collect();
            tracing::warn!(
                ?damaged,
                quarantined,
                "an erasure can't end while segments that are damaged or files in quarantine may hold its events. \
                 Restore such a segment from a backup or give it up{}; adopt or discard such a file (`{}`)",
                give_up.join(","),
                hitlog(["quarantine", "list"])
            );
            return;
        }
        // An unlinked file must not come back after a loss of power.
        if let Err(error) = sync_directory(paths.folder()) {
            tracing::error!(%error, "an erasure could not be finished; it will be tried again");
            return;
        }
        for erasure in finished {
            match catalog.finish_erasure(Arc::clone(&erasure)) {
                Ok(true) => tracing::info!(%erasure, "nothing is left of what was to be erased"),
                // Another program reads the catalog at the moment.
                Ok(false) => {
                    plan.finish_at = None;
                    return;
                }
                Err(error) => {
                    tracing::error!(%erasure, %error, "an erasure could not be finished; it will be tried again");
                    return;
                }
            }
        }
        plan.finish_at = None;
    }
}

/// Whether this time, if there is one, is still to come.
fn is_delayed(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until > Instant::now())
}

fn rows(segment: &Segment) -> u64 {
    segment.summary().map_or(0, |summary| summary.facts.rows)
}

/// The priority of a rewriting: low, so that events cost the same whether segments are being sealed or not. Segments
/// that wait cost no memory and little time to ask, so it rises only when there are very many.
fn niceness(unsealed: usize) -> i32 {
    match unsealed {
        0..16 => 15,
        16..64 => 10,
        _ => 0,
    }
}

/// Whether so many segments wait to be sealed that erasures must wait too.
fn is_behind(unsealed: &VecDeque<Arc<Segment>>) -> bool {
    const UNSEALED_MAX: usize = 5;
    unsealed.len() >= UNSEALED_MAX
}

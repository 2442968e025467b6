//! What a connection is doing and since when, as its socket and its requests tell; what is held for it, and whether it
//! must give way to others.
//!
//! hyper's own header timeout also runs while a connection is merely idle, and it knows nothing of clients that do
//! not read. So each connection has an [`Activity`], and whoever serves it asks it whether to go on.

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::options::ConnectionLimits;
use crate::metrics::Closed;

/// When a stop begins, a connection without a request stays this long: one may be on its way already.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(100);
/// How often, while draining, a connection is looked at whose request is being handled.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or sending a response that is complete.
    Idle,
    /// Some bytes of a head have come.
    Head,
    /// Idle, but the bytes that come still belong to a body that nobody wants.
    Discarding,
    /// A body is awaited, or the rest of one, which did not come together with its head.
    Body,
    /// A request is being handled; it has time limits of its own.
    Handling,
    /// An answer is sent that is still being made: it may take long, and its client has to read it.
    Streaming,
    /// An answer is sent that goes on for as long as its client wants: events that it follows.
    Tailing,
    /// All of an answer has been made that was made while it was sent, and the last of it is on its way.
    Ending,
}

/// What a client makes hitlog hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Bodies on their way in that are small.
    SmallBody,
    /// The others.
    LargeBody,
    /// Answers on their way out that are small.
    SmallAnswer,
    /// The others.
    LargeAnswer,
    /// Chunks of pages of events, which readers make in a memory of their own.
    EventPage,
    /// Pages of events that are followed, which other readers make in another memory.
    TailPage,
}

impl Held {
    pub(super) const KINDS: usize = 6;
}

/// What a connection is doing and since when. Written by the connection's own task, which moves between threads, and by
/// the one that reads the rest of a body; read by whoever looks for a connection that must give way.
pub(super) struct Activity {
    /// Whose it is.
    pub(super) peer: IpAddr,
    born_at: Instant,
    phase: AtomicU8,
    /// Nanoseconds after `born_at`.
    since: AtomicU64,
    write_blocked: AtomicBool,
    /// When the client first left the answer unread that it is reading, in nanoseconds after `born_at`.
    blocked_since: AtomicU64,
    /// The bytes that went since then.
    went: AtomicU64,
    /// When the answer that is streaming has to have been read, in nanoseconds after `born_at`.
    streamed_by: AtomicU64,
    /// How fast bytes went in or out lately.
    pace: Pace,
    /// The bytes of each kind that are held for it.
    held: [AtomicUsize; Held::KINDS],
    /// It must give way to others.
    ended: AtomicBool,
    /// Its end is that of the answer that is streaming.
    ends_with_its_answer: AtomicBool,
    /// Its client follows events and will send nothing more.
    is_done_sending: AtomicBool,
    /// It is hyper's, and has hyper's buffers.
    has_buffers: AtomicBool,
    /// Wakes its task, which is the same for as long as it lasts.
    task: OnceLock<Waker>,
}

/// The bytes of the last moments: what is a second old counts half. A client that sent much at once and then nothing
/// is slow a few seconds later, which an average over all its time would not show.
#[derive(Default)]
struct Pace {
    bytes: AtomicU64,
    /// Whole seconds after the connection's birth.
    second: AtomicU64,
}

impl Pace {
    /// Only the connection's own task calls it.
    fn moved(&self, bytes: usize, second: u64) {
        let recent = self.at(second) + bytes as u64;
        self.second.store(second, Ordering::Relaxed);
        self.bytes.store(recent, Ordering::Relaxed);
    }

    /// About the bytes of the last second.
    fn at(&self, second: u64) -> u64 {
        let halvings = second.saturating_sub(self.second.load(Ordering::Relaxed));
        self.bytes.load(Ordering::Relaxed).checked_shr(halvings as u32).unwrap_or(0)
    }
}

/// What somebody needs for whom a connection is to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A connection.
    Slot,
    /// hyper's buffers, which a connection has from the first byte of a request to the last of its answer.
    Buffers,
    /// Memory of this kind.
    Bytes(Held),
}

/// For so long a client may be on the point of sending the rest of a body.
const NEW_FOR: Duration = Duration::from_secs(1);
/// For so long one may whose body is small, or has not come at all.
const SMALL_FOR: Duration = Duration::from_millis(500);
/// For so long one may be on the point of sending the rest of a head, or of reading more of an answer.
const AT_ONCE: Duration = Duration::from_millis(250);
/// For so long nobody may have looked whether a request has come already.
pub(super) const JUST_COME: Duration = Duration::from_millis(10);
/// Whoever moves more than this is not what is slow.
const FAST_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// More than any connection lasts, in nanoseconds: those between two requests go before those within a head.
const IDLE_FIRST: u64 = 1 << 62;

/// What a connection is cut off from at the end of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The answer to a request that was taken in.
    Unanswered,
    /// A body that its client has not sent, or an answer that it has not read.
    Slow,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    LookAgain(Instant),
    Close(Closed),
}

impl Activity {
    pub(super) fn new(peer: IpAddr) -> Self {
        Self {
            peer,
            born_at: Instant::now(),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
            blocked_since: AtomicU64::new(0),
            went: AtomicU64::new(0),
            streamed_by: AtomicU64::new(0),
            pace: Pace::default(),
            held: Default::default(),
            ended: AtomicBool::new(false),
            ends_with_its_answer: AtomicBool::new(false),
            is_done_sending: AtomicBool::new(false),
            has_buffers: AtomicBool::new(false),
            task: OnceLock::new(),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Discarding,
            3 => Phase::Body,
            4 => Phase::Handling,
            5 => Phase::Streaming,
            6 => Phase::Tailing,
            _ => Phase::Ending,
        }
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        now.duration_since(self.born_at).as_nanos() as u64
    }

    fn touch(&self, now: Instant) {
        self.since.store(self.nanoseconds(now), Ordering::Relaxed);
    }

    /// Called several times a request, so whoever knows the time hands it in.
    pub(super) fn enter(&self, phase: Phase, now: Instant) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.touch(now);
    }

    /// The head of an answer is ready whose body is made while it is sent, which may take as long as `timeout`.
    pub(super) fn begin_streaming(&self, now: Instant, timeout: Duration) {
        let by = self.nanoseconds(now).saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.streamed_by.store(by, Ordering::Relaxed);
        self.enter(Phase::Streaming, now);
    }

    /// The head of an answer is ready that goes on for as long as its client wants.
    pub(super) fn begin_tailing(&self, now: Instant) {
        self.enter(Phase::Tailing, now);
    }

    /// All of that answer has been made.
    pub(super) fn end_streaming(&self, now: Instant) {
        // Whoever follows events may read as slowly as it likes; for the end it has the time that others have.
        if self.is_tailing() && self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.went.store(0, Ordering::Relaxed);
            self.blocked_since.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
        }
        self.enter(Phase::Ending, now);
    }

    /// The client knows of no other end of the answer that is streaming than that of the connection.
    pub(super) fn ends_with_its_answer(&self) {
        self.ends_with_its_answer.store(true, Ordering::Relaxed);
    }

    /// Whether the client would take an end of the connection now for the end of its answer.
    pub(super) fn end_would_mislead(&self) -> bool {
        self.ends_with_its_answer.load(Ordering::Relaxed) && matches!(self.phase(), Phase::Streaming | Phase::Ending)
    }

    /// Whether the end of an answer is still missing on the socket that was made while it was sent.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.phase(), Phase::Streaming | Phase::Tailing | Phase::Ending)
    }

    /// Whether events are followed, so that nothing may be written for a while.
    pub(super) fn is_tailing(&self) -> bool {
        self.phase() == Phase::Tailing
    }

    /// Its client, which follows events, will send nothing more: it may be gone, or only be done.
    pub(super) fn done_sending(&self) {
        self.is_done_sending.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    pub(super) fn is_done_sending(&self) -> bool {
        self.is_done_sending.load(Ordering::Relaxed)
    }

    /// The rest of a body that nobody wants has come to its end: what comes now is the next request.
    pub(super) fn discarded(&self, now: Instant) {
        let (from, to) = (Phase::Discarding as u8, Phase::Idle as u8);
        if self.phase.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.touch(now);
        }
    }

    /// Whether bytes may be on their way that nobody wants.
    pub(super) fn is_discarding(&self) -> bool {
        self.phase() == Phase::Discarding
    }

    /// Whether the answer to a body that nobody wants may still be on its way.
    pub(super) fn has_just_refused(&self) -> bool {
        let lasted = self.nanoseconds(Instant::now()).saturating_sub(self.since.load(Ordering::Relaxed));
        self.is_discarding() && lasted < NEW_FOR.as_nanos() as u64
    }

    /// Whether there is nothing to do until the next request begins.
    pub(super) fn is_resting(&self) -> bool {
        self.phase() == Phase::Idle && !self.write_blocked.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_came(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
    }

    /// `written` bytes went, or none could because the client does not read.
    pub(super) fn bytes_went(&self, written: Option<usize>) {
        let is_slow = self.blocked_since.load(Ordering::Relaxed) != 0;
        if !is_slow && written.is_some() {
            return;
        }
        let now = Instant::now();
        let bytes = written.unwrap_or(0);
        self.pace.moved(bytes, now.duration_since(self.born_at).as_secs());
        let was_blocked = self.write_blocked.load(Ordering::Relaxed);
        if was_blocked != written.is_none() {
            self.write_blocked.store(!was_blocked, Ordering::Relaxed);
            self.touch(now);
        }
        if is_slow {
            self.went.store(self.went.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
        } else {
            self.went.store(0, Ordering::Relaxed);
            self.blocked_since.store(self.nanoseconds(now).max(1), Ordering::Relaxed);
        }
    }

    /// Everything that was to be written has been.
    pub(super) fn all_went(&self) {
        if self.phase() == Phase::Ending {
            self.enter(Phase::Idle, Instant::now());
        }
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    /// More of a body came.
    pub(super) fn body_came(&self, bytes: usize, now: Instant) {
        self.pace.moved(bytes, now.duration_since(self.born_at).as_secs());
    }

    /// Counts that `bytes` are held for it which were `before`.
    pub(super) fn holds(&self, kind: Held, before: usize, bytes: usize) {
        self.held[kind as usize].fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Says whether it has hyper's buffers; while it waits for them a request has begun.
    pub(super) fn buffers_held(&self, held: bool) {
        self.has_buffers.store(held, Ordering::Relaxed);
    }

    /// Says which task serves the connection, so that it can be woken.
    pub(super) fn served_by(&self, task: &Waker) {
        if self.task.get().is_none() {
            let _ = self.task.set(task.clone());
        }
    }

    /// Bids the connection give way.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// Whether the connection must give way.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether it must, and no request is being handled or answered, which would get its answer first. One that is
    /// answered bit by bit to a client that does not read gives way as a complete answer does.
    pub(super) fn gives_way(&self) -> bool {
        self.is_ended()
            && match self.phase() {
                Phase::Handling | Phase::Body => false,
                Phase::Streaming | Phase::Tailing | Phase::Ending => self.write_blocked.load(Ordering::Relaxed),
                Phase::Idle | Phase::Head | Phase::Discarding => true,
            }
    }

    /// What this connection would give back by giving way, to somebody who needs `need`: how long it has been of no
    /// use, or how much it holds for how little that it moves. `None` if it is not to be disturbed: a request that is
    /// being handled always gets its answer.
    pub(super) fn yields(&self, need: Need, now: Instant) -> Option<u64> {
        if self.is_ended() {
            return None;
        }
        let is_blocked = self.write_blocked.load(Ordering::Relaxed);
        let lasted = self.nanoseconds(now).saturating_sub(self.since.load(Ordering::Relaxed));
        let lasts = |at_least: Duration| lasted >= at_least.as_nanos() as u64;
        let phase = self.phase();
        if need == Need::Buffers && !self.has_buffers.load(Ordering::Relaxed) {
            return None;
        }
        match (need, phase) {
            (_, phase) if is_blocked || phase == Phase::Body => {
                let held = match need {
                    Need::Bytes(kind) => self.held[kind as usize].load(Ordering::Relaxed) as u64,
                    Need::Slot | Need::Buffers => 1,
                };
                let patience = match need {
                    _ if is_blocked => AT_ONCE,
                    Need::Buffers | Need::Bytes(Held::SmallBody) => SMALL_FOR,
                    Need::Slot | Need::Bytes(_) => NEW_FOR,
                };
                self.slowness(held, now).filter(|_| held > 0 && lasts(patience))
            }
            (Need::Slot, Phase::Idle | Phase::Discarding) if lasts(JUST_COME) => Some(IDLE_FIRST + lasted),
            (Need::Slot | Need::Buffers, Phase::Head) if lasts(AT_ONCE) => Some(lasted),
            _ => None,
        }
    }

    /// Whether nobody may have looked yet whether a request has come.
    pub(super) fn has_just_come(&self, now: Instant) -> bool {
        let lasted = self.nanoseconds(now).saturating_sub(self.since.load(Ordering::Relaxed));
        self.phase() == Phase::Idle && lasted < JUST_COME.as_nanos() as u64
    }

    /// How much is held for how little that moves.
    fn slowness(&self, held: u64, now: Instant) -> Option<u64> {
        let age = now.duration_since(self.born_at).as_secs();
        let pace = self.pace.at(age);
        (pace < FAST_BYTES_PER_SECOND).then(|| held.saturating_mul(1 << 20) / (pace + 1_024))
    }

    pub(super) fn verdict(&self, now: Instant, limits: &ConnectionLimits, draining: bool) -> Verdict {
        let since = self.born_at + Duration::from_nanos(self.since.load(Ordering::Relaxed));
        let streamed_by = self.born_at + Duration::from_nanos(self.streamed_by.load(Ordering::Relaxed));
        // A head or an answer may begin at any moment from now on, and must find the timer awake when its time is up.
        let soonest = now + if draining { DRAIN_POLL } else { limits.soonest() };
        let (limit, reason) = match self.phase() {
            phase if phase != Phase::Tailing && self.is_trickling(now, limits) => {
                (Duration::ZERO, Closed::WriteStalled)
            }
            Phase::Idle | Phase::Discarding | Phase::Head if self.is_ended() => (Duration::ZERO, Closed::GaveWay),
            Phase::Streaming if now >= streamed_by => (Duration::ZERO, Closed::BrokenOff),
            _ if self.write_blocked.load(Ordering::Relaxed) => (limits.write_stall_timeout, Closed::WriteStalled),
            Phase::Head => (limits.head_timeout, Closed::HeadTimeout),
            Phase::Idle | Phase::Discarding if draining => (DRAIN_GRACE, Closed::Drain),
            Phase::Idle | Phase::Discarding => (limits.idle_timeout, Closed::Idle),
            Phase::Streaming => return Verdict::LookAgain(soonest.min(streamed_by)),
            Phase::Body | Phase::Handling | Phase::Tailing | Phase::Ending => return Verdict::LookAgain(soonest),
        };
        if now >= since + limit {
            return Verdict::Close(reason);
        }
        Verdict::LookAgain((since + limit).min(soonest))
    }

    /// Whether so little of an answer was read since its client first left it unread that it might last for ever. What
    /// is read at once counts for long: the kernel tells of it in steps of up to some 100 KB.
    fn is_trickling(&self, now: Instant, limits: &ConnectionLimits) -> bool {
        let blocked_since = self.blocked_since.load(Ordering::Relaxed);
        let seconds = Duration::from_nanos(self.nanoseconds(now).saturating_sub(blocked_since)).as_secs_f64();
        blocked_since != 0
            && seconds >= limits.write_stall_timeout.as_secs_f64()
            && (self.went.load(Ordering::Relaxed) as f64) < seconds * limits.bytes_per_second_min as f64
    }

    /// What it is cut off from if it ends now; `None` if that is nothing.
    pub(super) fn left(&self) -> Option<Left> {
        match self.phase() {
            Phase::Handling => Some(Left::Unanswered),
            Phase::Body | Phase::Streaming | Phase::Ending => Some(Left::Slow),
            _ if self.write_blocked.load(Ordering::Relaxed) => Some(Left::Slow),
            Phase::Idle | Phase::Head | Phase::Discarding | Phase::Tailing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        idle_timeout: Duration::from_secs(30),
        write_stall_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(100),
        ..ConnectionLimits::OF_TESTS
    };

    #[test]
    fn when_a_connection_is_closed() {
        use Closed::{BrokenOff, Drain, HeadTimeout, Idle, WriteStalled};
        for (phase, blocked, draining, seconds, closed) in [
            (Phase::Idle, false, false, 29.0, None),
            (Phase::Idle, false, false, 30.5, Some(Idle)),
            (Phase::Idle, false, true, 0.05, None),
            (Phase::Idle, false, true, 0.2, Some(Drain)),
            (Phase::Idle, true, false, 5.5, Some(WriteStalled)),
            (Phase::Head, false, false, 9.0, None),
            (Phase::Head, false, false, 10.5, Some(HeadTimeout)),
            (Phase::Head, false, true, 9.0, None),
            (Phase::Discarding, false, false, 29.0, None),
            (Phase::Discarding, false, false, 30.5, Some(Idle)),
            (Phase::Handling, false, false, 1_000.0, None),
            (Phase::Handling, false, true, 1_000.0, None),
            (Phase::Handling, true, false, 5.5, Some(WriteStalled)),
            (Phase::Streaming, false, false, 99.0, None),
            (Phase::Streaming, false, true, 99.0, None),
            (Phase::Ending, false, false, 1_000.0, None),
            (Phase::Ending, true, false, 5.5, Some(WriteStalled)),
            (Phase::Streaming, false, false, 100.5, Some(BrokenOff)),
            (Phase::Streaming, false, true, 100.5, Some(BrokenOff)),
            (Phase::Streaming, true, false, 4.0, None),
            (Phase::Streaming, true, false, 5.5, Some(WriteStalled)),
            (Phase::Streaming, true, true, 5.5, Some(WriteStalled)),
            (Phase::Tailing, false, false, 100_000.0, None),
            (Phase::Tailing, false, true, 100_000.0, None),
            (Phase::Tailing, true, false, 4.0, None),
            (Phase::Tailing, true, false, 5.5, Some(WriteStalled)),
            (Phase::Tailing, true, true, 5.5, Some(WriteStalled)),
        ] {
            let activity = Activity::new(Ipv4Addr::LOCALHOST.into());
            if phase == Phase::Streaming {
                activity.begin_streaming(activity.born_at, LIMITS.answer_timeout);
            } else {
                activity.enter(phase, activity.born_at);
            }
            activity.write_blocked.store(blocked, Ordering::Relaxed);
            let now = Instant::now() + Duration::from_secs_f64(seconds);
            match (activity.verdict(now, &LIMITS, draining), closed) {
                (Verdict::Close(reason), Some(wanted)) => assert_eq!(reason, wanted),
                (Verdict::LookAgain(at), None) => assert!(at <= now + LIMITS.soonest(), "{phase:?}"),
                (verdict, wanted) => panic!("{phase:?} after {seconds}: {verdict:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn an_answer_that_is_being_made_is_no_rest_and_gives_way_only_unread() {
        let activity = Activity::new(Ipv4Addr::LOCALHOST.into());
        activity.begin_streaming(activity.born_at, Duration::from_secs(100));
        let later = || Instant::now() + Duration::from_secs(2);
        activity.buffers_held(true);
        assert!(activity.is_streaming() && !activity.is_resting());
        activity.bytes_came();
        assert!(activity.is_streaming(), "the next request may be sent already");
        for need in [Need::Slot, Need::Buffers] {
            assert_eq!(activity.yields(need, later()), None, "{need:?}: its client reads");
        }
        activity.bytes_went(None);
        for need in [Need::Slot, Need::Buffers] {
            assert!(activity.yields(need, later()).is_some(), "{need:?}: its client does not read");
        }
        activity.end();
        assert!(activity.gives_way());
        activity.bytes_went(Some(1));
        assert!(!activity.gives_way(), "whoever reads gets its answer");
        activity.end_streaming(Instant::now());
        assert!(!activity.gives_way() && activity.is_streaming(), "the last of it is on its way");
        activity.bytes_went(None);
        assert!(activity.gives_way() && activity.is_streaming(), "and is not read");
        activity.bytes_went(Some(1));
        activity.all_went();
        assert!(activity.gives_way() && !activity.is_streaming());
        let done = Activity::new(Ipv4Addr::LOCALHOST.into());
        done.begin_streaming(done.born_at, Duration::from_secs(100));
        done.all_went();
        assert!(!done.is_resting(), "more is being made");
        done.end_streaming(Instant::now());
        done.all_went();
        assert!(done.is_resting());
    }

    #[test]
    fn whoever_follows_events_reads_as_slowly_as_it_likes_and_gives_way_only_unread() {
        let activity = Activity::new(Ipv4Addr::LOCALHOST.into());
        activity.begin_tailing(activity.born_at);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        let is_closed = |at| matches!(activity.verdict(at, &LIMITS, false), Verdict::Close(Closed::WriteStalled));
        assert!(activity.is_streaming() && !activity.is_resting() && !activity.end_would_mislead());
        assert_eq!(activity.left(), None, "a stop cuts nothing off");
        activity.bytes_came();
        assert!(activity.is_streaming(), "the next request may be sent already");
        activity.end();
        assert!(!activity.gives_way());
        activity.bytes_went(None);
        assert!(activity.gives_way());
        assert_eq!(activity.left(), Some(Left::Slow));
        activity.bytes_went(Some(1));
        assert!(!activity.gives_way());
        assert!(!is_closed(later(60)), "a byte a minute will do");
        activity.end_streaming(later(60));
        assert!(!is_closed(later(61)), "the end has its time");
        assert!(is_closed(later(70)), "and not more than others'");
        activity.all_went();
        assert!(activity.is_resting());
    }
}

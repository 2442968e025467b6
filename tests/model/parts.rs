//! What the queue and the writer are made of, modelled: loom decides what runs next and what a load may see.
//!
//! Held to what the real ones promise and to nothing more, so that no schedule and no stale value that they allow
//! is ruled out here. All threads of a model run on one thread of the system, one at a time; so what loom need not
//! see may stand in plain thread-locals and locks.

pub mod atomic;
pub mod channel;
pub mod clock;
pub mod metrics;
pub mod oneshot;
pub mod panic;
pub mod parker;
pub mod scenario;
pub mod store;
pub mod world;

use core::{cell::RefCell, future::Future, pin::pin, task::Poll};
use real::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::{Context, Wake, Waker},
};

/// What a part does wrong, to see that the model finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The channel keeps what is queued when its receiver goes, as crossbeam's bounded one does.
    ChannelKeepsRequests,
    /// The channel hands out the newest first.
    ChannelIsAStack,
    /// A parker that is unparked while awake sleeps the next time all the same.
    ParkerForgets,
    /// A sender of an answer that goes without one wakes nobody.
    DropIsSilent,
    /// An answer does not pass on what its sender did before it.
    AnswerIsRelaxed,
    /// Adding to a counter is a load and a store.
    AdditionIsTorn,
    /// Adding to a counter says that there was nothing before.
    RoomLooksFree,
    /// The log says one sequence too many.
    LogMiscounts,
    /// The log looks for repeats among what was committed before, and not in the group that it commits.
    LogForgetsItsGroup,
    /// The log takes for stored what it has not committed yet.
    LogKnowsBeforeCommit,
}

/// What the running execution has come to, and the fault planted in it.
struct Run {
    fault: Fault,
    /// The scenario looks at what stands between an answer and its request's being gone.
    looks: bool,
    /// The writer has said that it ended.
    ended: bool,
    /// What was met in all executions of a scenario.
    met: BTreeSet<&'static str>,
}

impl Run {
    const fn new(fault: Fault, looks: bool) -> Self {
        Self { fault, looks, ended: false, met: BTreeSet::new() }
    }
}

real::thread_local! {
    static RUN: RefCell<Run> = const { RefCell::new(Run::new(Fault::None, false)) };
}

/// Begins a scenario.
pub fn plant(fault: Fault, looks: bool) {
    RUN.set(Run::new(fault, looks));
}

/// Begins an execution of it.
pub fn begin() {
    clock::reset();
    RUN.with_borrow_mut(|run| run.ended = false);
}

pub fn planted(fault: Fault) -> bool {
    RUN.with_borrow(|run| run.fault == fault)
}

pub fn looks() -> bool {
    RUN.with_borrow(|run| run.looks)
}

/// Notes that the scenario comes to this in some schedule.
pub fn meet(what: &'static str) {
    RUN.with_borrow_mut(|run| _ = run.met.insert(what));
}

pub fn met() -> BTreeSet<&'static str> {
    RUN.with_borrow(|run| run.met.clone())
}

pub fn set_ended() {
    RUN.with_borrow_mut(|run| run.ended = true);
}

pub fn has_ended() -> bool {
    RUN.with_borrow(|run| run.ended)
}

/// A value that threads change in steps. A step is a place where loom may run another thread first. It passes on
/// what its ordering says and no more, where a lock of loom's would pass on everything, to everybody.
pub struct Steps<T> {
    turn: loom::sync::atomic::AtomicUsize,
    value: Mutex<T>,
}

impl<T> Steps<T> {
    pub fn new(value: T) -> Self {
        Self { turn: loom::sync::atomic::AtomicUsize::new(0), value: Mutex::new(value) }
    }

    /// The change must not itself come to a place where loom may switch.
    pub fn step<R>(&self, ordering: Ordering, change: impl FnOnce(&mut T) -> R) -> R {
        if !panic::is_lost() {
            self.turn.fetch_add(1, ordering);
        }
        self.change(change)
    }

    /// A change that makes no difference to anybody else, so that its place among their steps does not matter.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Unpark(loom::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future. If nothing ever wakes it, loom reports a deadlock.
pub fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(loom::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => loom::thread::park(),
        }
    }
}

//! Memory that clients share, for bodies on their way in or for answers on their way out.
//!
//! What is small never competes with what is large: each has a part of its own. What a client gets is counted before it
//! is taken. When a part is used up, whoever holds most of it for least movement gives way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::{
    activity::{Activity, Held, Need},
    connections::Connections,
};
use crate::budget::{Budget, OverBudget};

/// What counts as small, in bytes: an event and its answer, however large they usually are.
pub(super) const SMALL_BYTES_MAX: usize = 16 * 1024;
/// How often whoever needs memory looks for somebody to give way, and how long it waits for that each time. The last
/// look is later than those give way who have just left an answer unread.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(50);

/// The memory.
#[derive(Clone)]
pub struct SharedMemory(Arc<Inner>);

struct Inner {
    small: Budget,
    large: Budget,
    kinds: [Held; 2],
    connections: Arc<Connections>,
    /// How many wait for memory, and what tells them that some was given back.
    waiting: AtomicUsize,
    freed: Notify,
}

impl SharedMemory {
    /// The memory of bodies: `bytes_max` in all, of which `small_bytes` are for small ones only.
    pub fn of_bodies(bytes_max: usize, small_bytes: usize, connections: &Arc<Connections>) -> Self {
        Self::new(bytes_max, small_bytes, [Held::SmallBody, Held::LargeBody], connections)
    }

    /// The memory of answers: `bytes_max` in all, of which `small_bytes` are for small ones only.
    pub fn of_answers(bytes_max: usize, small_bytes: usize, connections: &Arc<Connections>) -> Self {
        Self::new(bytes_max, small_bytes, [Held::SmallAnswer, Held::LargeAnswer], connections)
    }

    fn new(bytes_max: usize, small_bytes: usize, kinds: [Held; 2], connections: &Arc<Connections>) -> Self {
        Self(Arc::new(Inner {
            small: Budget::new(small_bytes),
            large: Budget::new(bytes_max - small_bytes),
            kinds,
            connections: Arc::clone(connections),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }))
    }

    /// The bytes that are held at the moment.
    pub(super) fn used(&self) -> usize {
        self.0.small.used() + self.0.large.used()
    }

    /// The bound.
    pub(super) fn bytes_max(&self) -> usize {
        self.0.small.bytes_max() + self.0.large.bytes_max()
    }

    /// A holding of nothing yet.
    pub(super) fn hold(&self) -> Holding {
        Holding { memory: self.clone(), bytes: 0, is_large: false, holder: None }
    }

    fn was_freed(&self) {
        if self.0.waiting.load(Ordering::Relaxed) > 0 {
            self.0.freed.notify_waiters();
        }
    }
}

/// What one body or one answer takes; given back when dropped.
pub(crate) struct Holding {
    memory: SharedMemory,
    bytes: usize,
    /// Whether they are of the large ones' part.
    is_large: bool,
    /// The connection for which it is held, once it may have to give way.
    holder: Option<Arc<Activity>>,
}

impl Holding {
    /// Counts `bytes` as held, unless as many are counted already; refused, it holds what it held before.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if bytes <= self.bytes {
            return Ok(());
        }
        if self.is_large || bytes <= SMALL_BYTES_MAX {
            self.part().take(bytes - self.bytes)?;
            self.is_now(bytes, self.is_large);
        } else {
            self.memory.0.large.take(bytes)?;
            self.part().give_back(self.bytes);
            self.is_now(bytes, true);
            self.memory.was_freed();
        }
        Ok(())
    }

    /// The same, but if there is too little, others are bidden give way, and for some moments it waits for them.
    pub(super) async fn grow_in_time(&mut self, bytes: usize) -> Result<(), OverBudget> {
        match self.grow_to(bytes) {
            Ok(()) => Ok(()),
            // In a box, so that those who need not wait, which is nearly all, take no room for it.
            Err(OverBudget) => Box::pin(self.wait_to_grow(bytes)).await,
        }
    }

    async fn wait_to_grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let memory = self.memory.clone();
        let _waiting = Waiting::count(&memory.0.waiting);
        let need = Need::Bytes(memory.0.kinds[usize::from(self.is_large || bytes > SMALL_BYTES_MAX)]);
        for _ in 0..ROUNDS {
            let freed = memory.0.freed.notified();
            // Even if nobody gives way, what is on its way in or out is soon done.
            memory.0.connections.end_some(need, self.holder.as_ref());
            let _ = timeout(ROUND, freed).await;
            if self.grow_to(bytes).is_ok() {
                return Ok(());
            }
        }
        Err(OverBudget)
    }

    /// Gives back all but `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.part().give_back(self.bytes - bytes);
            self.is_now(bytes, self.is_large);
            self.memory.was_freed();
        }
    }

    /// Says for whom it is held: from now on that connection may have to give way.
    pub(super) fn is_held_by(&mut self, holder: &Arc<Activity>) {
        if self.holder.is_none() {
            holder.holds(self.memory.0.kinds[usize::from(self.is_large)], 0, self.bytes);
            self.holder = Some(Arc::clone(holder));
        }
    }

    /// The part of the memory that its bytes are of.
    fn part(&self) -> &Budget {
        if self.is_large { &self.memory.0.large } else { &self.memory.0.small }
    }

    fn is_now(&mut self, bytes: usize, is_large: bool) {
        let kinds = self.memory.0.kinds;
        match &self.holder {
            Some(holder) if is_large == self.is_large => holder.holds(kinds[usize::from(is_large)], self.bytes, bytes),
            Some(holder) => {
                holder.holds(kinds[usize::from(self.is_large)], self.bytes, 0);
                holder.holds(kinds[usize::from(is_large)], 0, bytes);
            }
            None => {}
        }
        (self.bytes, self.is_large) = (bytes, is_large);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Counts somebody who waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

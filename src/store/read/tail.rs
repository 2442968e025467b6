//! Following events: those of one website after a place, in the order in which they became durable, each once.
//!
//! A place is the sequence up to which everything has been shown or is of others. Nothing is kept for whoever follows
//! but its place, so a slow reader holds nothing: every page is read from the segments when it is wanted, and who has
//! seen all is woken by the next group that has events of its website ([`Segments`] knows who follows which).
//!
//! Tails have threads and a queue of their own, so that a thousand of them stand in nobody's way.

pub(crate) mod place;
mod walk;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use self::{
    place::{Shown, TailFilter, TailPlace, TailRead},
    walk::Walk,
};
use super::{Pool, Readers, budget::PageBuffer, snapshot::Snapshot};
use crate::{
    budget::Budget,
    clock::now_ms,
    metrics::StoreMetrics,
    store::{
        error::{OpenError, ReadError},
        options::{ReadOptions, TailOptions},
        segments::{Following, ReaderInterrupt, RowKeys, Segments},
    },
};

/// The longest that one read may take, its wait for its turn included; then it is tried again.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The part of the memory that is for lists of rows to come, so that pages never lack it.
const LISTS_SHARE: usize = 4;
/// So few are woken at once by the thread that commits: it takes less time than asking another one to do it.
const WOKEN_AT_ONCE: usize = 8;

/// All who follow events.
#[derive(Clone)]
pub struct Tails {
    readers: Readers,
    segments: Arc<Segments>,
    open: Arc<AtomicUsize>,
    tails_max: usize,
    /// The memory of lists of rows to come.
    lists: Budget,
    metrics: Arc<StoreMetrics>,
}

/// More follow events than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooManyTails {
    /// Nobody may.
    Off,
    /// To be tried again later.
    Taken,
}

impl Tails {
    /// Starts the threads that read for them: half as many as there are readers, beside those.
    pub(crate) fn spawn(
        segments: &Arc<Segments>,
        read: ReadOptions,
        options: TailOptions,
        interrupt: &ReaderInterrupt,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let read = ReadOptions {
            readers: read.readers.div_ceil(2),
            // One question of each, and as many of those who have just gone; and who is to be woken.
            waiting_max: 2 * options.tails_max + 1,
            deadline: READ_TIMEOUT,
            answer_bytes_max: options.bytes_max - options.bytes_max / LISTS_SHARE,
            ..read
        };
        metrics.tails_max.set(options.tails_max as f64);
        metrics.tail_bytes_max.set(options.bytes_max as f64);
        let (readers, threads) = Readers::spawn(Pool::Tails, segments, read, interrupt, Arc::clone(&metrics))?;
        let (segments, open) = (Arc::clone(segments), Arc::default());
        let (tails_max, lists) = (options.tails_max, Budget::new(options.bytes_max / LISTS_SHARE));
        Ok((Self { readers, segments, open, tails_max, lists, metrics }, threads))
    }

    /// Follows the events of a website from now on.
    pub fn follow(&self, filter: TailFilter) -> Result<Tail, TooManyTails> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.tails_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(if self.tails_max == 0 { TooManyTails::Off } else { TooManyTails::Taken });
        }
        self.metrics.tails.increment(1);
        let following = self.segments.followers.follow(self.segments.sites.number(filter.website_id.as_bytes()));
        Ok(Tail { tails: self.clone(), filter: Arc::new(filter), following })
    }

    /// The place behind everything that is durable.
    pub fn now(&self) -> TailPlace {
        let sequence = self.segments.durable();
        // By a clock that was set back since, some of it arrives later than now.
        TailPlace::at(sequence, now_ms().max(self.segments.newest_arrival()))
    }

    /// The memory that what is on its way to all of them holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.readers.answer_bytes() + self.lists.used()
    }

    /// Tells those whose events are among the rows of a group, which readers find by now.
    pub(crate) fn tell(&self, rows: &[RowKeys]) {
        let woken = self.segments.followers.of_group(rows);
        if woken.is_empty() {
            return;
        }
        if woken.followers() <= WOKEN_AT_ONCE { woken.wake() } else { self.readers.wake(woken) }
    }
}

/// One who follows events. Dropped, it does so no longer.
pub struct Tail {
    tails: Tails,
    filter: Arc<TailFilter>,
    following: Following,
}

impl Tail {
    /// The place behind everything that is durable.
    pub fn now(&self) -> TailPlace {
        self.tails.now()
    }

    /// Waits until events of its website have become durable since this was last waited for, or since it follows them.
    /// May be given up and begun again at any time.
    pub async fn more(&mut self) {
        self.following.more().await;
    }

    /// Whether events have become durable since a place, of whatever website, or it is to be looked at for another
    /// reason.
    pub fn is_behind(&self, place: &TailPlace) -> bool {
        place.is_doubtful || self.tails.segments.durable() > place.after
    }

    /// Has `write` put what comes after a place into a page, until it has enough. A read that fails is one that did not
    /// take place. One that leaves the page empty may have passed by others' events only, and not have come to the end.
    pub fn read<W>(
        &self,
        place: TailPlace,
        mut write: W,
    ) -> impl Future<Output = Result<(TailRead, PageBuffer), ReadError>> + Send + use<W>
    where
        W: FnMut(&mut PageBuffer, &Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError> + Send + 'static,
    {
        let (filter, metrics) = (Arc::clone(&self.filter), Arc::clone(&self.tails.metrics));
        let (lists, readers) = (self.tails.lists.clone(), self.tails.readers.clone());
        async move {
            let mut page = readers.page_buffer();
            let read = move |snapshot: &Snapshot<'_>| {
                let mut shown = 0;
                let read = Walk::new(snapshot, &filter, place, lists).run(|what| {
                    shown += u64::from(matches!(what, Shown::Event(..)));
                    write(&mut page, &what)
                })?;
                metrics.tail_events.increment(shown);
                // Here and not where it is sent: while it waits for that it holds no more than it has.
                Ok((read, page.trimmed()))
            };
            readers.ask(read).await
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.tails.open.fetch_sub(1, Ordering::Relaxed);
        self.tails.metrics.tails.decrement(1);
    }
}

//! What the store offers to whoever ships events elsewhere: reads in the order of sequences, on a thread of their own,
//! and what is noted of ranges.
//!
//! A range is in the catalog, synced, before its first byte is sent; until its end is noted its events stay on the disk
//! ([`Shipped`]).

use std::{sync::Arc, thread::JoinHandle, time::Duration};

use super::{
    catalog::{Catalog, Erasures, ShipChange, ShipErasureState, ShipRange, ShipState, Shipped},
    error::{CatalogError, OpenError, ReadError},
    format::room::Reserve,
    options::{ReadOptions, StoreOptions},
    priority::lower_priority,
    read::{Pool, Readers, snapshot::Snapshot},
    segments::{ReaderInterrupt, Segments},
};
use crate::{
    clock::now_ms,
    metrics::{ShipMetrics, StoreMetrics},
};

/// The longest that one read may take; then it is tried again. A range is read in some tenths of a second.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long is waited when very many changes wait for the catalog, before the next try.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// The thread that ships goes after everything else.
const NICENESS: i32 = 15;

/// The store, for whoever ships events.
#[derive(Clone)]
pub struct Shipping {
    catalog: Catalog,
    /// `None` where nothing is shipped.
    readers: Option<Readers>,
    segments: Arc<Segments>,
    erasures: Arc<Erasures>,
    shipped: Arc<Shipped>,
    reserve: Reserve,
}

impl Shipping {
    /// Starts the thread that reads, if anything is shipped.
    pub(super) fn spawn(
        (catalog, segments, erasures, shipped, reserve): (
            Catalog,
            &Arc<Segments>,
            Arc<Erasures>,
            Arc<Shipped>,
            Reserve,
        ),
        options: &StoreOptions,
        interrupt: &ReaderInterrupt,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), OpenError> {
        let (mut readers, mut threads) = (None, Vec::new());
        if options.is_shipping {
            // What is read is counted by whoever ships.
            let read =
                ReadOptions { readers: 1, waiting_max: 4, deadline: READ_TIMEOUT, answer_bytes_max: 0, ..options.read };
            let (spawned, spawned_threads) = Readers::spawn(Pool::Shipping, segments, read, interrupt, metrics)?;
            (readers, threads) = (Some(spawned), spawned_threads);
        }
        Ok((Self { catalog, readers, segments: Arc::clone(segments), erasures, shipped, reserve }, threads))
    }

    /// Puts a question to the store, on the thread for that.
    pub async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        match &self.readers {
            Some(readers) => readers.ask(question).await,
            None => Err(ReadError::Stopped),
        }
    }

    /// How far shipping is.
    pub fn state(&self) -> ShipState {
        self.shipped.state()
    }

    /// Looks at how far shipping is, without a copy of it.
    pub fn look<T>(&self, look: impl FnOnce(&ShipState) -> T) -> T {
        self.shipped.look(look)
    }

    /// Changes what is told of the moment: a pause, an error. What the catalog notes is changed by
    /// [`note`](Self::note).
    pub fn tell<T>(&self, change: impl FnOnce(&mut ShipState) -> T) -> T {
        self.shipped.change(change)
    }

    /// Notes a change in the catalog, synced when this returns.
    pub async fn note(&self, change: impl Fn() -> ShipChange) -> Result<(), CatalogError> {
        let mut is_without_room = false;
        loop {
            match self.catalog.change_shipping(change()).await {
                // People's changes wait; nothing of this one was made.
                Err(CatalogError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                Err(CatalogError::StorageFull) if !is_without_room && self.makes_room() => is_without_room = true,
                other => return other,
            }
        }
    }

    /// Gives up the reserve, where expired segments wait for nothing but being shipped: a disk that is full of those
    /// gets its room back from nothing else.
    fn makes_room(&self) -> bool {
        self.shipped.look(|state| state.now.holds_expired)
            && self.reserve.give_up("what has expired can be shipped, and then removed").is_ok()
    }

    /// The events that the target refuses: sequence, why, and since when in milliseconds since 1970, UTC.
    pub async fn dead(&self) -> Result<Vec<(u64, String, i64)>, CatalogError> {
        self.catalog.dead().await
    }

    /// Has the events that the target refuses be sent again, each by itself.
    pub async fn retry_dead(&self) -> Result<(), CatalogError> {
        self.catalog.change_shipping(ShipChange::Retried).await
    }

    /// The ranges that were lost.
    pub async fn lost(&self) -> Result<Vec<ShipRange>, CatalogError> {
        self.catalog.ranges("lost").await
    }

    /// The ranges that are confirmed and whose segments are still here.
    pub async fn confirmed(&self) -> Result<Vec<ShipRange>, CatalogError> {
        self.catalog.ranges("confirmed").await
    }

    /// The highest sequence that is durable.
    pub fn durable(&self) -> u64 {
        self.segments.durable()
    }

    /// When the oldest event arrived that is not confirmed, in milliseconds since 1970, UTC; `None`: all are.
    pub fn behind_since(&self) -> Option<i64> {
        let (durable, now) = (self.durable(), now_ms());
        self.shipped.change(|state| state.look_behind(durable, now))
    }

    /// Tells the metrics how far shipping is.
    pub fn report(&self, metrics: &ShipMetrics) {
        let lag_ms = self.behind_since().map_or(0, |since| (now_ms() - since).max(0));
        let durable = self.durable();
        self.look(|state| {
            metrics.on.set(f64::from(u8::from(state.now.is_on)));
            if !state.now.is_on {
                return;
            }
            metrics.lag_seconds.set(lag_ms as f64 / 1_000.0);
            metrics.lag_events.set(state.behind(durable) as f64);
            metrics.shipped_up_to.set(state.shipped_up_to() as f64);
            metrics.open_ranges.set(state.open.len() as f64);
            metrics.paused.set(f64::from(u8::from(state.now.paused.is_some())));
            metrics.dead.set(state.dead as f64);
            metrics.lost.set(state.lost as f64);
            metrics.erasures_waiting.set(state.erasures_in(ShipErasureState::Waiting) as f64);
            metrics.erasures_masked.set(state.erasures_in(ShipErasureState::Masked) as f64);
            let (verified_at, differences) = state.verified.unwrap_or_default();
            metrics.verified.set(verified_at as f64 / 1_000.0);
            metrics.differences.set(differences as f64);
        });
    }

    /// Whether no more events of an erasure's can come in: of a deleted website some may still be on their way.
    pub fn is_settled(&self, erasure: &str) -> bool {
        self.erasures.is_settled(erasure)
    }

    /// Has whoever ships look at once what there is to do.
    pub fn wake(&self) {
        self.shipped.wake.notify_one();
    }

    /// Waits until [`wake`](Self::wake) is called.
    pub async fn woken(&self) {
        self.shipped.wake.notified().await;
    }

    /// Lowers the priority of the thread that calls: events that come in go first.
    pub fn lower_priority() {
        lower_priority(NICENESS);
    }
}

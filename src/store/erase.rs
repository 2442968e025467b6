//! Asking for erasures: what goes is looked for by a reader, and hidden by the catalog's thread.

mod waits;

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{
    catalog::{Catalog, Erasure, Erasures, NewErasure, ShipErasureState, Shipped},
    error::{CatalogError, ReadError},
    options::ErasureOptions,
    read::{Readers, list::hiding::HidingRoom},
    segments::{HiddenVisitor, Segments},
};

/// Why nothing is erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The events could not be looked for.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The catalog did not take it.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Asks for erasures, and tells how far they are.
#[derive(Clone)]
pub struct Eraser {
    pub(super) catalog: Catalog,
    pub(super) readers: Readers,
    pub(super) segments: Arc<Segments>,
    pub(super) erasures: Arc<Erasures>,
    pub(super) shipped: Arc<Shipped>,
    pub(super) options: ErasureOptions,
    /// Held while events are looked for: as many as a segment has may be in memory for that, once.
    pub(super) looking: Arc<Mutex<()>>,
}

/// The longest look for the events of one visitor: there may be as many as there are events.
const LOOK_TIMEOUT: Duration = Duration::from_secs(600);

impl Eraser {
    /// Erases the events that a visitor of a website has by now: once this returns, no answer shows them.
    pub async fn erase_visitor(&self, website_id: Arc<str>, visitor_id: String) -> Result<Erasure, EraseError> {
        /// Segments are rewritten while the events are looked for, but not this many times in a row.
        const TRIES_MAX: usize = 10;
        let visitor_id: Arc<str> = visitor_id.into();
        let _nobody_else = self.looking.lock().await;
        let mut tries = 0;
        loop {
            let (website_id, visitor_id) = (Arc::clone(&website_id), Arc::clone(&visitor_id));
            let (_, in_memory) = self.segments.view().hidden_events();
            let room = HidingRoom::new(self.options.hidden_events_max, in_memory);
            let begun_at = self.segments.begun_at();
            let found = self.readers.ask_within(LOOK_TIMEOUT, move |snapshot| {
                // What is in quarantine may have higher sequences, and be adopted before the erasure is done.
                let up_to = snapshot.high_water_mark().max(begun_at.saturating_sub(1));
                let visitor = HiddenVisitor { website_id, visitor_id, up_to };
                Ok((snapshot.find_visitor(&visitor, room)?, visitor))
            });
            let (found, HiddenVisitor { website_id, visitor_id, up_to }) = found.await?;
            let new = NewErasure { website_id, visitor_id, up_to, found };
            match self.catalog.erase_visitor(new).await {
                Err(CatalogError::Stale) if tries < TRIES_MAX => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// What an erasure waits for, in words for people; empty when it is done.
    pub fn waits_for(&self, erasure: &Erasure) -> Vec<String> {
        waits::waits_for(&self.segments, erasure)
    }

    /// How far an erasure is where events are shipped to, and since when in milliseconds since 1970, UTC; `None` if
    /// none were shipped when it was asked for.
    pub fn at_target(&self, erasure: &Erasure) -> Option<(ShipErasureState, i64)> {
        self.shipped.look(|state| state.erasures.get(&erasure.id).map(|of| (of.state, of.changed_at)))
    }

    /// How far an erasure is; `None` if there is none with this id.
    pub fn get(&self, id: &str) -> Option<Erasure> {
        self.erasures.get(id)
    }
}

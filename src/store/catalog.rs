//! The catalog: websites, erasures, the list of segments with what they say of themselves and what they leave over, the
//! floors of sequences and numbers, the epochs of the public ids, how far what has expired is, and how far shipping is.
//!
//! [`CatalogFile`] is the connection; it opens the store and then moves into a thread of its own, which [`Catalog`]
//! talks to. A change is answered after its COMMIT, and only then does [`Websites`] show it.

mod catalog_file;
mod change_error;
mod epoch_table;
mod erasure;
mod erasure_table;
mod erasures;
mod expiry_table;
mod segment_table;
mod ship_table;
mod shipped;
mod website_changes;
mod website_table;
mod websites;
mod written_off_table;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

pub(super) use self::{
    catalog_file::CatalogFile,
    epoch_table::{mark_backup, read_epochs},
    erasure::{ErasedRows, NewErasure, Subject, Target},
    erasures::Erasures,
    expiry_table::ExpiryNotes,
    segment_table::{
        ListedSegment, SegmentChange, SegmentState, note_sealed, read_damage, read_leftovers, read_open_notes,
        read_quarantine, read_segments,
    },
    ship_table::{read_dead, read_ranges},
    shipped::Shipped,
    website_table::read_websites,
    written_off_table::read_erased_since,
};
use self::{change_error::ChangeError, erasure::VisitorSubject, website_changes::random_letters};
pub use self::{
    erasure::Erasure,
    ship_table::ShipChange,
    shipped::{
        Pause, RangeEnd, Resume, ShipErasure, ShipErasureState, ShipNode, ShipNow, ShipRange, ShipState, ShipTarget,
        Verify, VerifyDifference, VerifyWork,
    },
    website_changes::{CodeRenewal, Renewed},
    website_table::{NewWebsite, WebsiteChange},
    websites::{Aim, Goal, Website, WebsiteAge, WebsitePage, Websites},
};
use super::{
    error::{CatalogError, OnFailure, OpenError},
    format::schema,
    segments::{HiddenVisitor, Segments},
};
use crate::clock::now_ms;

/// Changes that may wait for the catalog's thread. Each takes a sync, and people make them, not trackers.
const CHANGES_WAITING_MAX: usize = 64;
/// How long an erasure that is done is remembered.
const ERASURE_KEPT_MS: i64 = 30 * schema::DAY_MS;

/// A change to make on the catalog's thread; it answers whoever asked for it. An error leaves the disk in doubt.
type Change = Box<dyn FnOnce(&mut CatalogFile, &InMemory) -> rusqlite::Result<()> + Send>;

/// What the catalog's thread changes in memory, each time that a change is committed.
pub(super) struct InMemory {
    pub(super) segments: Arc<Segments>,
    pub(super) erasures: Arc<Erasures>,
    pub(super) shipped: Arc<Shipped>,
    /// Most erasures that are under way, of visitors and of websites each.
    pub(super) erasures_max: usize,
}

impl CatalogFile {
    /// Moves the catalog to its thread. When it ends early, `on_failure` is called with the reason: the storage can't
    /// be trusted any more.
    pub(super) fn spawn(self, memory: InMemory, on_failure: OnFailure) -> Result<(Catalog, JoinHandle<()>), OpenError> {
        let (sender, receiver) = crossbeam_channel::bounded(CHANGES_WAITING_MAX);
        let catalog = Catalog { changes: sender };
        let thread = thread::Builder::new()
            .name("catalog".into())
            .spawn(move || {
                if let Err(reason) = self.run(&receiver, &memory) {
                    on_failure(reason);
                }
            })
            .map_err(OpenError::Thread)?;
        Ok((catalog, thread))
    }

    /// Runs until the last [`Catalog`] is dropped, or a change fails in a way that leaves the disk in doubt.
    fn run(mut self, changes: &Receiver<Change>, memory: &InMemory) -> Result<(), String> {
        let directory = &memory.segments.directory;
        let ended = changes.iter().try_for_each(|change| {
            directory.check().map_err(|lost| lost.to_string())?;
            change(&mut self, memory)
                .and_then(|()| self.checkpoint_if_due())
                .map_err(|error| format!("the catalog: {error}"))
        });
        directory.unwatch(&self.path);
        if directory.check().is_err() {
            // To close it would remove what has the name of its write-ahead log by now.
            std::mem::forget(self);
            return ended;
        }
        let is_log_closed = self.is_log_closed;
        drop(self);
        if is_log_closed && ended.is_ok() {
            directory.end_ties();
        }
        ended
    }

    fn delete(&mut self, id: &str, memory: &InMemory) -> Result<(Arc<Website>, Arc<str>), ChangeError> {
        let website = self.find(id)?;
        let (erasure, now) = self.new_erasure(false, memory)?;
        let transaction = self.connection.transaction()?;
        website_table::remove(&transaction, id)?;
        erasure_table::insert_website(&transaction, &erasure, id, now)?;
        ship_table::insert_erasure(&transaction, &erasure, id, None)?;
        transaction.commit()?;
        self.show_ship_erasures(memory)?;
        self.websites.remove(id);
        let subject = Subject { website_id: Arc::clone(&website.id), visitor: None };
        memory.erasures.insert(Erasure::new(Arc::clone(&erasure), Some(subject), now));
        Ok((Arc::new(website), erasure))
    }

    fn erase(&mut self, new: NewErasure, memory: &InMemory) -> Result<Erasure, ChangeError> {
        self.find(&new.website_id)?;
        // Generations change on this thread only, so none can change before the events are hidden.
        if !memory.segments.view().still_holds(&new.found) {
            return Err(ChangeError::Refused(CatalogError::Stale));
        }
        // What is damaged, in quarantine or replaced and still there may hold events that were not found.
        let segments = &memory.segments;
        let is_all_seen = segments.damaged() == 0 && segments.quarantined() == 0 && segments.replaced().is_empty();
        if new.found.is_empty() && is_all_seen {
            return self.erase_nothing(&new, memory);
        }
        let (id, now) = self.new_erasure(true, memory)?;
        let transaction = self.connection.transaction()?;
        erasure_table::insert_visitor(&transaction, &id, &new, now)?;
        ship_table::insert_erasure(&transaction, &id, &new.website_id, Some((&new.visitor_id, new.up_to)))?;
        transaction.commit()?;
        self.show_ship_erasures(memory)?;
        let NewErasure { website_id, visitor_id, up_to, found } = new;
        let hidden = HiddenVisitor { website_id: Arc::clone(&website_id), visitor_id: Arc::clone(&visitor_id), up_to };
        let visitor = Some(VisitorSubject { visitor_id, up_to });
        let mut erasure = Erasure::new(id, Some(Subject { website_id, visitor }), now);
        erasure.remaining = found.iter().map(|found| found.segment).collect();
        memory.segments.hide(&erasure.id, &hidden, found);
        memory.erasures.insert(erasure.clone());
        Ok(erasure)
    }

    /// The id and the time of an erasure that is asked for now. Those of websites have a place of their own, or
    /// visitors that are erased could keep a website from being deleted.
    fn new_erasure(&mut self, of_visitor: bool, memory: &InMemory) -> Result<(Arc<str>, i64), ChangeError> {
        if memory.erasures.pending(of_visitor) >= memory.erasures_max {
            return Err(ChangeError::Refused(CatalogError::ErasuresFull));
        }
        Ok((new_erasure_id(), now_ms()))
    }

    /// Notes an erasure that found nothing.
    fn erase_nothing(&mut self, new: &NewErasure, memory: &InMemory) -> Result<Erasure, ChangeError> {
        let now = now_ms();
        let mut erasure = Erasure::new(new_erasure_id(), None, now);
        let transaction = self.connection.transaction()?;
        erasure_table::insert_done(&transaction, &erasure.id, now)?;
        // What has left the disk here may still be there.
        ship_table::insert_erasure(&transaction, &erasure.id, &new.website_id, Some((&new.visitor_id, new.up_to)))?;
        transaction.commit()?;
        self.show_ship_erasures(memory)?;
        erasure.done_at = Some(now);
        memory.erasures.insert(erasure.clone());
        self.forget_erasures(now, memory)?;
        Ok(erasure)
    }

    /// Forgets erasures that were done long ago, or before very many others.
    fn forget_erasures(&mut self, now: i64, memory: &InMemory) -> Result<(), ChangeError> {
        let forgotten = memory.erasures.forget_done(now - ERASURE_KEPT_MS, memory.erasures_max);
        if !forgotten.is_empty() {
            ship_table::remove_erasures(&self.connection, &forgotten)?;
            self.show_ship_erasures(memory)?;
        }
        Ok(erasure_table::remove(&self.connection, &forgotten)?)
    }

    fn finish_erasure(&mut self, id: &str, memory: &InMemory) -> Result<bool, ChangeError> {
        let now = now_ms();
        let is_done = erasure_table::finish(&self.connection, id, now)?;
        if is_done {
            memory.erasures.done(id, now);
            self.forget_erasures(now, memory)?;
        }
        Ok(is_done)
    }

    fn change_segment(&mut self, change: SegmentChange, memory: &InMemory) -> Result<(), ChangeError> {
        segment_table::apply(&mut self.connection, &change)?;
        match change {
            SegmentChange::Prepared(_)
            | SegmentChange::Activated { .. }
            | SegmentChange::Built(_)
            | SegmentChange::Unlinked(_)
            | SegmentChange::Noted(_)
            | SegmentChange::OpenNoted { .. }
            | SegmentChange::Damaged(..) => {}
            // What the start does, or a tool that has the directory to itself, before anything is in memory.
            SegmentChange::Unlisted(_)
            | SegmentChange::WrittenOff { .. }
            | SegmentChange::Adopted(..)
            | SegmentChange::Quarantined { .. }
            | SegmentChange::Released(_) => {}
            SegmentChange::Sealed { segment, erased, .. } => {
                let number = segment.number;
                let erasures: Vec<_> = erased.iter().map(|of| Arc::clone(&of.erasure)).collect();
                memory.segments.replace(segment, &erasures);
                memory.erasures.segment_done(number, &erased);
            }
            SegmentChange::Dropped { number, erased, .. } => {
                // Before it is gone: whoever does not find its events learns why.
                let lost = memory.shipped.look(|state| state.lost);
                self.show_shipping(memory)?;
                memory.segments.drop_segment(number);
                memory.erasures.segment_done(number, &erased);
                let ranges = memory.shipped.look(|state| state.lost.saturating_sub(lost));
                if ranges > 0 {
                    tracing::error!(
                        segment = number,
                        ranges,
                        "events of a segment that has left the disk were never shipped, and are lost to where they are \
                         shipped to"
                    );
                }
            }
        }
        Ok(())
    }

    fn change_shipping(&mut self, change: &ShipChange, memory: &InMemory) -> Result<(), ChangeError> {
        ship_table::apply(&mut self.connection, change)?;
        if change.is_of_erasures() {
            self.show_ship_erasures(memory)?;
        }
        self.show_shipping(memory)
    }

    /// Shows how far shipping is by the tables to whoever looks at it in memory.
    fn show_shipping(&self, memory: &InMemory) -> Result<(), ChangeError> {
        let stored = ship_table::read_progress(&self.connection)?;
        memory.shipped.change(|state| {
            let ShipState { now, erasures, .. } = std::mem::take(state);
            *state = ShipState { now, erasures, ..stored };
        });
        Ok(())
    }

    /// The same of the erasures that the target has to follow.
    fn show_ship_erasures(&self, memory: &InMemory) -> Result<(), ChangeError> {
        let erasures = ship_table::read_erasures(&self.connection)?;
        memory.shipped.change(|state| state.erasures = erasures);
        Ok(())
    }
}

/// A change, and where its answer comes.
fn change<T: Send + 'static>(
    make: impl FnOnce(&mut CatalogFile, &InMemory) -> Result<T, ChangeError> + Send + 'static,
) -> (Change, oneshot::Receiver<Result<T, CatalogError>>) {
    let (sender, answer) = oneshot::channel();
    let change = Box::new(move |catalog: &mut CatalogFile, memory: &InMemory| {
        let (answer, outcome) = match make(catalog, memory) {
            Ok(value) => (Ok(value), Ok(())),
            // A refusal says that nothing was changed, which holds if SQLite is out of the transaction again.
            Err(ChangeError::Refused(_)) if !catalog.connection.is_autocommit() => {
                (Err(CatalogError::Unknown), Err(rusqlite::Error::InvalidQuery))
            }
            Err(ChangeError::Refused(error)) => (Err(error), Ok(())),
            Err(ChangeError::Fatal(error)) => (Err(CatalogError::Unknown), Err(error)),
        };
        // Whoever asked may have gone away; the change is made all the same.
        let _ = sender.send(answer);
        outcome
    });
    (change, answer)
}

/// Asks the catalog's thread for changes. Dropping the last one ends the thread.
#[derive(Clone)]
pub struct Catalog {
    changes: Sender<Change>,
}

impl Catalog {
    /// Registers a website under a new id and tracking code.
    pub async fn create_website(&self, new: NewWebsite) -> Result<Arc<Website>, CatalogError> {
        self.ask(move |catalog, _| catalog.create(new)).await
    }

    /// Changes a website, never its id or its code.
    pub async fn update_website(&self, id: String, change: WebsiteChange) -> Result<Arc<Website>, CatalogError> {
        self.ask(move |catalog, _| catalog.update(&id, change)).await
    }

    /// Gives a website a new tracking code. The one that it has is as good for a while.
    pub async fn renew_code(&self, id: String, renewal: CodeRenewal) -> Result<Renewed, CatalogError> {
        self.ask(move |catalog, _| catalog.renew_code(&id, renewal)).await
    }

    /// Deletes a website, and has its events erased: once this returns, no answer shows them. The second value is the
    /// erasure's id.
    pub async fn delete_website(&self, id: String) -> Result<(Arc<Website>, Arc<str>), CatalogError> {
        self.ask(move |catalog, memory| catalog.delete(&id, memory)).await
    }

    /// Registers a website under the id and the tracking code that it had elsewhere. Blocks: for the import, which has
    /// the store to itself.
    pub fn import_website(&self, website: Website) -> Result<Arc<Website>, CatalogError> {
        self.ask_blocking(move |catalog, _| catalog.insert(website))
    }

    /// Gives a website what it had elsewhere, but for its id, its code and its domain, which are the same here. Blocks:
    /// for the import, which has the store to itself.
    pub fn fill_in_website(&self, website: Website) -> Result<Arc<Website>, CatalogError> {
        self.ask_blocking(move |catalog, _| catalog.fill_in(website))
    }

    /// Has a visitor's events erased: once this returns, no answer shows them.
    pub(super) async fn erase_visitor(&self, new: NewErasure) -> Result<Erasure, CatalogError> {
        self.ask(move |catalog, memory| catalog.erase(new, memory)).await
    }

    /// Changes the list of segments, and then what readers see of it. Blocks: for the store's own threads.
    pub(super) fn change_segments(&self, change: SegmentChange) -> Result<(), CatalogError> {
        self.ask_blocking(move |catalog, memory| catalog.change_segment(change, memory))
    }

    /// Notes that the log is closed: what the files of segments hold, and the next sequence. Blocks: for the log.
    pub(super) fn note_end(&self, last: Vec<(i64, u64)>, sequence_floor: u64) -> Result<(), CatalogError> {
        self.ask_blocking(move |catalog, memory| {
            catalog.change_segment(SegmentChange::OpenNoted { last, sequence_floor }, memory)?;
            catalog.is_log_closed = true;
            Ok(())
        })
    }

    /// Forgets whose events an erasure has removed. Returns whether nothing of it is left: a program that reads the
    /// catalog can keep its write-ahead log from being emptied. Blocks: for the store's own threads.
    pub(super) fn finish_erasure(&self, erasure: Arc<str>) -> Result<bool, CatalogError> {
        self.ask_blocking(move |catalog, memory| catalog.finish_erasure(&erasure, memory))
    }

    /// Notes for how long segments have been expired, in the place of what was noted before. Blocks: for the store's
    /// own threads.
    pub(super) fn note_expiry(&self, notes: ExpiryNotes) -> Result<(), CatalogError> {
        self.ask_blocking(move |catalog, _| Ok(expiry_table::replace(&mut catalog.connection, &notes)?))
    }

    /// Changes what is noted of shipping. A change that is refused has changed nothing, and may be tried again.
    pub(super) async fn change_shipping(&self, change: ShipChange) -> Result<(), CatalogError> {
        self.ask(move |catalog, memory| catalog.change_shipping(&change, memory)).await
    }

    /// The events that the target of shipping refuses: sequence, why, and since when in milliseconds since 1970, UTC.
    pub(super) async fn dead(&self) -> Result<Vec<(u64, String, i64)>, CatalogError> {
        self.ask(|catalog, _| Ok(read_dead(&catalog.connection)?)).await
    }

    /// The ranges in this state.
    pub(super) async fn ranges(&self, state: &'static str) -> Result<Vec<ShipRange>, CatalogError> {
        self.ask(move |catalog, _| Ok(read_ranges(&catalog.connection, state)?)).await
    }

    fn ask_blocking<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut CatalogFile, &InMemory) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let (change, answer) = change(make);
        self.changes.send(change).map_err(|_| CatalogError::Unknown)?;
        answer.blocking_recv().unwrap_or(Err(CatalogError::Unknown))
    }

    async fn ask<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut CatalogFile, &InMemory) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let (change, answer) = change(make);
        self.changes.try_send(change).map_err(|error| match error {
            TrySendError::Full(_) => CatalogError::Busy,
            TrySendError::Disconnected(_) => CatalogError::Unknown,
        })?;
        answer.await.unwrap_or(Err(CatalogError::Unknown))
    }
}

fn new_erasure_id() -> Arc<str> {
    format!("era-{}", random_letters(12)).into()
}

#[cfg(test)]
mod tests;

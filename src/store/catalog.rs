//! The catalog: websites, the list of segments, the sequence floor, the key of the public ids.
//!
//! [`CatalogFile`] is the connection; it opens the store and then moves into a thread of its own, which [`Catalog`]
//! talks to. A change is answered after its COMMIT, and only then does [`Websites`] show it.

mod erasure;
mod erasure_table;
mod erasures;
mod segment_table;
mod website_table;
mod websites;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rand::RngExt;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};
use tokio::sync::oneshot;

use self::erasure::VisitorSubject;
pub use self::{
    erasure::Erasure,
    website_table::{NewWebsite, WebsiteChange},
    websites::{Website, WebsiteAge, WebsitePage, Websites},
};
pub(super) use self::{
    erasure::{ErasedRows, NewErasure, Subject, Target},
    erasures::Erasures,
    segment_table::{
        ListedSegment, SegmentChange, SegmentState, note_sealed, read_damage, read_leftovers, read_quarantine,
        read_segments,
    },
    website_table::read_websites,
};
use super::{
    error::{CatalogError, OnFailure, OpenError, is_disk_full},
    format::{DataDir, file, quarantine::Quarantine, schema, sync_directory},
    segments::{Identity, Segments},
};
use crate::{clock::now_ms, domain::Domain};

/// Changes that may wait for the catalog's thread. Each takes a sync, and people make them, not trackers.
const CHANGES_WAITING_MAX: usize = 64;
/// How long an erasure that is done is remembered.
const ERASURE_KEPT_MS: i64 = 30 * schema::DAY_MS;
const NODE: u32 = 0;

/// A change to make on the catalog's thread; it answers whoever asked for it. An error leaves the disk in doubt.
type Change = Box<dyn FnOnce(&mut CatalogFile, &InMemory) -> rusqlite::Result<()> + Send>;

/// What public ids are made with; never changes once a catalog has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdKey {
    /// The number of this hitlog among several.
    pub node: u32,
    /// The key under which a sequence is encrypted.
    pub key: [u8; 16],
}

impl IdKey {
    /// The one that a catalog keeps.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let read = |row: &Row<'_>| Ok(Self { node: row.get(0)?, key: row.get(1)? });
        connection.query_row("SELECT node, idKey FROM Log", [], read)
    }
}

/// What the catalog's thread changes in memory, each time that a change is committed.
pub(super) struct InMemory {
    pub(super) segments: Arc<Segments>,
    pub(super) erasures: Arc<Erasures>,
    /// Most erasures that are remembered.
    pub(super) erasures_max: usize,
}

/// The open catalog.
pub(super) struct CatalogFile {
    path: PathBuf,
    connection: Connection,
    websites: Arc<Websites>,
    sequence_floor: u64,
    id_key: IdKey,
}

impl CatalogFile {
    /// Opens `catalog.db`, makes it if there is none, and reads all websites into memory.
    pub(super) fn open(directory: &DataDir) -> Result<Self, OpenError> {
        let path = directory.catalog_path();
        let sqlite = || OpenError::sqlite(&path);
        if file::has_foreign_wal(&path).map_err(OpenError::io("read", &path))? {
            let name = Quarantine::of_directory(directory.path()).take_in_beside(&path)?;
            tracing::warn!(
                to = %name,
                "catalog.db was put here, and catalog.db-wal is the log of the one that was here before: it is in the \
                 folder quarantine now, as nothing of it belongs to this one"
            );
        }
        let flags = schema::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = Connection::open_with_flags(&path, flags).map_err(sqlite())?;
        schema::check_application_id(&connection, &path)?;
        let found: i64 = schema::pragma(&connection, &path, "user_version")?;
        if found > schema::CATALOG_VERSION {
            return Err(OpenError::Newer { path, found, known: schema::CATALOG_VERSION });
        }
        // The very first write: a start that is cut short later must leave a file that is known as hitlog's. Written
        // only once, so that a start which fails further on, at a segment of a newer hitlog say, changes nothing.
        if schema::pragma::<i32>(&connection, &path, "application_id")? != schema::APPLICATION_ID {
            connection.pragma_update(None, "application_id", schema::APPLICATION_ID).map_err(sqlite())?;
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;
                 PRAGMA secure_delete = ON; -- of who was erased nothing may stay",
            )
            .map_err(sqlite())?;
        schema::CATALOG_MIGRATIONS.to_latest(&mut connection).map_err(|error| OpenError::NotOurs {
            path: path.clone(),
            reason: format!("its format could not be brought up to date: {error}"),
        })?;
        let new_key: [u8; 16] = rand::rng().random();
        connection
            .execute(
                "INSERT OR IGNORE INTO Log(id, sequenceFloor, node, idKey) VALUES(1, 1, ?1, ?2)",
                params![NODE, new_key],
            )
            .map_err(sqlite())?;
        sync_directory(directory.path())?;
        let sequence_floor: i64 =
            connection.query_row("SELECT sequenceFloor FROM Log", [], |row| row.get(0)).map_err(sqlite())?;
        let id_key = IdKey::read(&connection).map_err(sqlite())?;
        let websites = Arc::new(read_websites(&connection).map_err(sqlite())?);
        Ok(Self { path, connection, websites, sequence_floor: sequence_floor.unsigned_abs(), id_key })
    }

    /// The lowest sequence that may be given from now on.
    pub(super) fn sequence_floor(&self) -> u64 {
        self.sequence_floor
    }

    /// What public ids are made with.
    pub(super) fn id_key(&self) -> IdKey {
        self.id_key
    }

    /// The websites, as this catalog keeps them.
    pub(super) fn websites(&self) -> Arc<Websites> {
        Arc::clone(&self.websites)
    }

    /// The segments, by number.
    pub(super) fn segments(&self) -> Result<Vec<ListedSegment>, OpenError> {
        read_segments(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// The highest number that no segment may get any more.
    pub(super) fn number_floor(&self) -> Result<i64, OpenError> {
        let floor = self.connection.query_row("SELECT numberFloor FROM Log", [], |row| row.get(0));
        floor.map_err(OpenError::sqlite(&self.path))
    }

    /// The damage that reads have found, by the number of the segment.
    pub(super) fn damage(&self) -> Result<BTreeMap<i64, String>, OpenError> {
        read_damage(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// The generations that may be removed: replaced, or never listed.
    pub(super) fn leftovers(&self) -> Result<Vec<Identity>, OpenError> {
        read_leftovers(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// Changes the list of segments, before the catalog moves to its thread.
    pub(super) fn change_segments(&mut self, change: &SegmentChange) -> Result<(), OpenError> {
        segment_table::apply(&mut self.connection, change).map_err(OpenError::sqlite(&self.path))?;
        let floor = self.connection.query_row("SELECT sequenceFloor FROM Log", [], |row| row.get::<_, i64>(0));
        self.sequence_floor = floor.map_err(OpenError::sqlite(&self.path))?.unsigned_abs();
        Ok(())
    }

    /// The erasures, those that are done included.
    pub(super) fn erasures(&self) -> Result<Vec<Erasure>, OpenError> {
        erasure_table::read(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// Moves the catalog to its thread. When it ends early, `on_failure` is called with the reason: the storage can't
    /// be trusted any more.
    pub(super) fn spawn(self, memory: InMemory, on_failure: OnFailure) -> Result<(Catalog, JoinHandle<()>), OpenError> {
        let (sender, receiver) = crossbeam_channel::bounded(CHANGES_WAITING_MAX);
        let catalog = Catalog { changes: sender };
        let thread = thread::Builder::new()
            .name("catalog".into())
            .spawn(move || {
                if let Err(error) = self.run(&receiver, &memory) {
                    on_failure(format!("the catalog: {error}"));
                }
            })
            .map_err(OpenError::Thread)?;
        Ok((catalog, thread))
    }

    /// Runs until the last [`Catalog`] is dropped, or a change fails in a way that leaves the disk in doubt.
    fn run(mut self, changes: &Receiver<Change>, memory: &InMemory) -> rusqlite::Result<()> {
        changes.iter().try_for_each(|change| change(&mut self, memory))
    }

    fn create(&mut self, new: NewWebsite) -> Result<Arc<Website>, ChangeError> {
        // Later than every other website's, so that "newest first" is an order even within a millisecond.
        let now = now_ms().max(self.websites.newest_created_at() + 1);
        let website = Website {
            id: format!("web-{}", random_letters(12)).into(),
            tracking_code: format!("pm-{}-{now:013}", random_letters(6)).into(),
            name: new.name,
            domain: new.domain.into_string(),
            description: new.description,
            created_at: now,
            updated_at: now,
        };
        self.insert(website)
    }

    fn insert(&mut self, website: Website) -> Result<Arc<Website>, ChangeError> {
        self.connection.execute(
            "INSERT INTO Website(id, trackingCode, name, domain, description, createdAt, updatedAt)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                &*website.id,
                &*website.tracking_code,
                website.name,
                website.domain,
                website.description,
                website.created_at,
                website.updated_at
            ],
        )?;
        Ok(self.websites.insert(website))
    }

    fn update(&mut self, id: &str, change: WebsiteChange) -> Result<Arc<Website>, ChangeError> {
        let mut website = self.find(id)?;
        website.name = change.name.unwrap_or(website.name);
        website.domain = change.domain.map_or(website.domain, Domain::into_string);
        website.description = change.description.unwrap_or(website.description);
        website.updated_at = now_ms().max(website.created_at);
        self.connection.execute(
            "UPDATE Website SET name = ?2, domain = ?3, description = ?4, updatedAt = ?5 WHERE id = ?1",
            params![id, website.name, website.domain, website.description, website.updated_at],
        )?;
        Ok(self.websites.insert(website))
    }

    fn delete(&mut self, id: &str, memory: &InMemory) -> Result<(Arc<Website>, Arc<str>), ChangeError> {
        let website = self.find(id)?;
        let (erasure, now) = self.new_erasure(memory)?;
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM Website WHERE id = ?1", [id])?;
        erasure_table::insert_website(&transaction, &erasure, id, now)?;
        transaction.commit()?;
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
        let (id, now) = self.new_erasure(memory)?;
        erasure_table::insert_visitor(&self.connection, &id, &new, now)?;
        let NewErasure { website_id, visitor_id, up_to, found } = new;
        let visitor = Some(VisitorSubject { visitor_id, up_to });
        let mut erasure = Erasure::new(id, Some(Subject { website_id, visitor }), now);
        erasure.remaining = found.iter().map(|found| found.segment).collect();
        memory.segments.hide(&erasure.id, found);
        memory.erasures.insert(erasure.clone());
        Ok(erasure)
    }

    /// The id and the time of an erasure that is asked for now.
    fn new_erasure(&mut self, memory: &InMemory) -> Result<(Arc<str>, i64), ChangeError> {
        let now = now_ms();
        erasure_table::remove_done_before(&self.connection, now - ERASURE_KEPT_MS)?;
        memory.erasures.remove_done_before(now - ERASURE_KEPT_MS);
        if memory.erasures.len() >= memory.erasures_max {
            return Err(ChangeError::Refused(CatalogError::ErasuresFull));
        }
        Ok((format!("era-{}", random_letters(12)).into(), now))
    }

    fn finish_erasure(&mut self, id: &str, memory: &InMemory) -> Result<bool, ChangeError> {
        let now = now_ms();
        let is_done = erasure_table::finish(&self.connection, id, now)?;
        if is_done {
            memory.erasures.done(id, now);
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
            | SegmentChange::Damaged(..) => {}
            // What the start does, or a tool that has the directory to itself, before anything is in memory.
            SegmentChange::Unlisted(_)
            | SegmentChange::WrittenOff { .. }
            | SegmentChange::Adopted(_)
            | SegmentChange::Quarantined { .. }
            | SegmentChange::Released(_) => {}
            SegmentChange::Sealed { segment, erased, .. } => {
                let number = segment.number;
                let erasures: Vec<_> = erased.iter().map(|of| Arc::clone(&of.erasure)).collect();
                memory.segments.replace(segment, &erasures);
                memory.erasures.segment_done(number, &erased);
            }
            SegmentChange::Dropped { number, erased, .. } => {
                memory.segments.drop_segment(number);
                memory.erasures.segment_done(number, &erased);
            }
        }
        Ok(())
    }

    fn find(&self, id: &str) -> Result<Website, ChangeError> {
        self.websites.get(id).map(Arc::unwrap_or_clone).ok_or(ChangeError::Refused(CatalogError::NotFound))
    }
}

/// Why a change failed: refused, with the disk as it was, or broken off, with the disk in doubt.
enum ChangeError {
    Refused(CatalogError),
    Fatal(rusqlite::Error),
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // Ids are random and codes hold the time: only domains can collide.
            Some(ErrorCode::ConstraintViolation) => Self::Refused(CatalogError::DomainTaken),
            _ if is_disk_full(&error) => Self::Refused(CatalogError::StorageFull),
            _ => Self::Fatal(error),
        }
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

    /// Has a visitor's events erased: once this returns, no answer shows them.
    pub(super) async fn erase_visitor(&self, new: NewErasure) -> Result<Erasure, CatalogError> {
        self.ask(move |catalog, memory| catalog.erase(new, memory)).await
    }

    /// Changes the list of segments, and then what readers see of it. Blocks: for the store's own threads.
    pub(super) fn change_segments(&self, change: SegmentChange) -> Result<(), CatalogError> {
        self.ask_blocking(move |catalog, memory| catalog.change_segment(change, memory))
    }

    /// Forgets whose events an erasure has removed. Returns whether nothing of it is left: a program that reads the
    /// catalog can keep its write-ahead log from being emptied. Blocks: for the store's own threads.
    pub(super) fn finish_erasure(&self, erasure: Arc<str>) -> Result<bool, CatalogError> {
        self.ask_blocking(move |catalog, memory| catalog.finish_erasure(&erasure, memory))
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

/// Letters of a to z and 0 to 9, from the system's secure generator.
fn random_letters(count: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    (0..count).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests;

//! The catalog: websites, the list of segments, the sequence floor, the key of the public ids.
//!
//! [`CatalogFile`] is the connection; it opens the store and then moves into a thread of its own, which [`Catalog`]
//! talks to. A change is answered after its COMMIT, and only then does [`Websites`] show it.

mod erasure_list;
mod segment_list;

use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rand::RngExt;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};
pub(super) use segment_list::{ListedSegment, SegmentChange, SegmentState, note_sealed, read as read_segments};
use tokio::sync::oneshot;

use super::{
    directory::{DataDir, sync_directory},
    erasures::{self, Erasure, Erasures, NewErasure, Subject, VisitorSubject},
    error::{OpenError, is_full},
    now_ms, schema,
    segments::Segments,
    websites::{Website, Websites},
};

/// A website to register; its values have been checked.
#[derive(Debug)]
pub struct NewWebsite {
    /// Its name for people.
    pub name: String,
    /// Its host, in lower case.
    pub domain: String,
    /// What it is.
    pub description: Option<String>,
}

/// What to change of a website; `None` leaves a value as it is.
#[derive(Debug, Default)]
pub struct WebsiteChange {
    /// The new name.
    pub name: Option<String>,
    /// The new host, in lower case.
    pub domain: Option<String>,
    /// The new description, which may be none.
    pub description: Option<Option<String>>,
}

/// Why the catalog did not do as it was asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// There is no such website.
    #[error("no such website")]
    NotFound,
    /// Another website has that domain.
    #[error("another website has that domain")]
    DomainTaken,
    /// The disk is full; nothing was changed.
    #[error("the disk is full")]
    StorageFull,
    /// Segments were rewritten since the events to erase were looked for; nothing was changed.
    #[error("segments were rewritten meanwhile")]
    Stale,
    /// Too many changes wait; nothing was changed.
    #[error("too many changes wait")]
    Busy,
    /// The storage failed; the change may or may not be found after a restart.
    #[error("the storage failed")]
    Unknown,
}

/// Changes that may wait for the catalog's thread. Each takes a sync, and people make them, not trackers.
const CHANGES_WAITING_MAX: usize = 64;
/// How long an erasure that is done is remembered.
const ERASURE_KEPT_MS: i64 = 30 * schema::DAY_MS;
const NODE: u32 = 0;

type Answer<T> = oneshot::Sender<Result<T, CatalogError>>;

enum Change {
    Create(NewWebsite, Answer<Arc<Website>>),
    Update(String, WebsiteChange, Answer<Arc<Website>>),
    Delete(String, Answer<(Arc<Website>, Arc<str>)>),
    Import(Website, Answer<Arc<Website>>),
    Erase(NewErasure, Answer<Erasure>),
    Forget(Arc<str>, Answer<bool>),
    Segment(SegmentChange, Answer<()>),
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
    node: u32,
    id_key: [u8; 16],
}

impl CatalogFile {
    /// Opens `catalog.db`, makes it if there is none, and reads all websites into memory.
    pub(super) fn open(directory: &DataDir) -> Result<Self, OpenError> {
        let path = directory.catalog();
        let sqlite = || OpenError::sqlite(&path);
        let flags = schema::write_flags() | OpenFlags::SQLITE_OPEN_CREATE;
        let mut connection = Connection::open_with_flags(&path, flags).map_err(sqlite())?;
        schema::check_application_id(&connection, &path)?;
        let found: i64 = schema::pragma(&connection, &path, "user_version")?;
        if found > schema::CATALOG_VERSION {
            return Err(OpenError::Newer { path, found, known: schema::CATALOG_VERSION });
        }
        // The very first write, or a start that is cut short leaves a file that nobody knows for hitlog's. And not
        // again: a start that fails further on, at a segment of a newer hitlog say, has written nothing.
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
        let id_key: [u8; 16] = rand::rng().random();
        connection
            .execute(
                "INSERT OR IGNORE INTO Log(id, sequenceFloor, node, idKey) VALUES(1, 1, ?1, ?2)",
                params![NODE, id_key],
            )
            .map_err(sqlite())?;
        sync_directory(directory.path())?;
        let (sequence_floor, node, id_key) = connection
            .query_row("SELECT sequenceFloor, node, idKey FROM Log", [], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?, row.get(2)?))
            })
            .map_err(sqlite())?;
        let websites = Arc::new(read_websites(&connection).map_err(sqlite())?);
        Ok(Self { path, connection, websites, sequence_floor, node, id_key })
    }

    /// The lowest sequence that may be given from now on.
    pub(super) fn sequence_floor(&self) -> u64 {
        self.sequence_floor
    }

    /// The node and the key of the public ids.
    pub(super) fn id_key(&self) -> (u32, [u8; 16]) {
        (self.node, self.id_key)
    }

    /// The websites, as this catalog keeps them.
    pub(super) fn websites(&self) -> Arc<Websites> {
        Arc::clone(&self.websites)
    }

    /// The segments, by number.
    pub(super) fn segments(&self) -> Result<Vec<ListedSegment>, OpenError> {
        segment_list::read(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// Changes the list of segments, before the catalog moves to its thread.
    pub(super) fn change_segments(&mut self, change: &SegmentChange) -> Result<(), OpenError> {
        segment_list::apply(&mut self.connection, change).map_err(OpenError::sqlite(&self.path))
    }

    /// The erasures, those that are done included.
    pub(super) fn erasures(&self) -> Result<Vec<Erasure>, OpenError> {
        erasure_list::read(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// Moves the catalog to its thread. When it ends early, `failed` is called with the reason: the storage can't
    /// be trusted any more.
    pub(super) fn spawn(
        self,
        memory: InMemory,
        failed: impl FnOnce(String) + Send + 'static,
    ) -> Result<(Catalog, JoinHandle<()>), OpenError> {
        let (sender, receiver) = crossbeam_channel::bounded(CHANGES_WAITING_MAX);
        let catalog = Catalog { changes: sender };
        let thread = thread::Builder::new()
            .name("catalog".into())
            .spawn(move || {
                if let Err(error) = self.run(&receiver, &memory) {
                    failed(format!("the catalog: {error}"));
                }
            })
            .map_err(OpenError::Thread)?;
        Ok((catalog, thread))
    }

    /// Until the last [`Catalog`] is dropped, or a change fails in a way that leaves the disk in doubt.
    fn run(mut self, changes: &Receiver<Change>, memory: &InMemory) -> rusqlite::Result<()> {
        for change in changes {
            match change {
                Change::Create(new, answer) => reply(answer, self.create(new))?,
                Change::Update(id, change, answer) => reply(answer, self.update(&id, change))?,
                Change::Delete(id, answer) => reply(answer, self.delete(&id, memory))?,
                Change::Import(website, answer) => reply(answer, self.insert(website))?,
                Change::Erase(new, answer) => reply(answer, self.erase(new, memory))?,
                Change::Forget(id, answer) => reply(answer, self.forget(&id, memory))?,
                Change::Segment(change, answer) => reply(answer, self.change_segment(change, memory))?,
            }
        }
        Ok(())
    }

    fn create(&mut self, new: NewWebsite) -> Result<Arc<Website>, ChangeError> {
        // Later than every other, so that "newest first" is an order even within a millisecond.
        let now = now_ms().max(self.websites.newest_created_at() + 1);
        let website = Website {
            id: format!("web-{}", random_letters(12)).into(),
            tracking_code: format!("pm-{}-{now:013}", random_letters(6)).into(),
            name: new.name,
            domain: new.domain,
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
        website.domain = change.domain.unwrap_or(website.domain);
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
        erasure_list::insert_website(&transaction, &erasure, id, now)?;
        transaction.commit()?;
        self.websites.remove(id);
        let subject = Subject { website_id: Arc::clone(&website.id), visitor: None };
        memory.erasures.insert(Erasure::new(Arc::clone(&erasure), Some(subject), now));
        Ok((Arc::new(website), erasure))
    }

    fn erase(&mut self, new: NewErasure, memory: &InMemory) -> Result<Erasure, ChangeError> {
        self.find(&new.website_id)?;
        // Generations change on this thread only, so what is current stays so until the events are hidden.
        if !erasures::is_current(&new.found, &memory.segments) {
            return Err(ChangeError::Refused(CatalogError::Stale));
        }
        let (id, now) = self.new_erasure(memory)?;
        erasure_list::insert_visitor(&self.connection, &id, &new, now)?;
        let NewErasure { website_id, visitor_id, up_to, found } = new;
        let visitor = Some(VisitorSubject { visitor_id, up_to });
        let mut erasure = Erasure::new(id, Some(Subject { website_id, visitor }), now);
        erasure.remaining = found.iter().map(|(number, _, _)| *number).collect();
        memory.segments.hide(&erasure.id, found);
        memory.erasures.insert(erasure.clone());
        Ok(erasure)
    }

    /// The id and the time of an erasure that is asked for now.
    fn new_erasure(&mut self, memory: &InMemory) -> Result<(Arc<str>, i64), ChangeError> {
        let now = now_ms();
        erasure_list::remove_done_before(&self.connection, now - ERASURE_KEPT_MS)?;
        memory.erasures.remove_done_before(now - ERASURE_KEPT_MS);
        if memory.erasures.len() >= memory.erasures_max {
            return Err(ChangeError::Refused(CatalogError::Busy));
        }
        Ok((format!("era-{}", random_letters(12)).into(), now))
    }

    fn forget(&mut self, id: &str, memory: &InMemory) -> Result<bool, ChangeError> {
        let now = now_ms();
        let is_done = erasure_list::forget(&self.connection, id, now)?;
        if is_done {
            memory.erasures.done(id, now);
        }
        Ok(is_done)
    }

    fn change_segment(&mut self, change: SegmentChange, memory: &InMemory) -> Result<(), ChangeError> {
        segment_list::apply(&mut self.connection, &change)?;
        match change {
            SegmentChange::Prepared(_) | SegmentChange::Activated { .. } | SegmentChange::Forgotten(_) => {}
            SegmentChange::Sealed { segment, erased, .. } => {
                let number = segment.number;
                let erasures: Vec<_> = erased.iter().map(|(erasure, _)| Arc::clone(erasure)).collect();
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

/// How a change ends badly: refused with the disk as it was, or with the disk in doubt.
enum ChangeError {
    Refused(CatalogError),
    Fatal(rusqlite::Error),
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // The ids are random and the codes carry the time: what collides is the domain.
            Some(ErrorCode::ConstraintViolation) => Self::Refused(CatalogError::DomainTaken),
            _ if is_full(&error) => Self::Refused(CatalogError::StorageFull),
            _ => Self::Fatal(error),
        }
    }
}

fn reply<T>(answer: Answer<T>, result: Result<T, ChangeError>) -> rusqlite::Result<()> {
    // Whoever asked may be gone; the change is made all the same.
    match result {
        Ok(value) => drop(answer.send(Ok(value))),
        Err(ChangeError::Refused(error)) => drop(answer.send(Err(error))),
        Err(ChangeError::Fatal(error)) => {
            drop(answer.send(Err(CatalogError::Unknown)));
            return Err(error);
        }
    }
    Ok(())
}

/// Asks the catalog's thread for changes. Dropping the last one ends the thread.
#[derive(Clone)]
pub struct Catalog {
    changes: Sender<Change>,
}

impl Catalog {
    /// Registers a website under a new id and tracking code.
    pub async fn create_website(&self, new: NewWebsite) -> Result<Arc<Website>, CatalogError> {
        self.ask(|answer| Change::Create(new, answer)).await
    }

    /// Changes a website, never its id or its code.
    pub async fn update_website(&self, id: String, change: WebsiteChange) -> Result<Arc<Website>, CatalogError> {
        self.ask(|answer| Change::Update(id, change, answer)).await
    }

    /// Forgets a website, and has its events erased; from the answer on they are in no answer. The second value is the
    /// erasure's id.
    pub async fn delete_website(&self, id: String) -> Result<(Arc<Website>, Arc<str>), CatalogError> {
        self.ask(|answer| Change::Delete(id, answer)).await
    }

    /// Registers a website under the id and the tracking code that it had elsewhere. Blocks: for the import, which has
    /// the store to itself.
    pub fn import_website(&self, website: Website) -> Result<Arc<Website>, CatalogError> {
        self.ask_blocking(|answer| Change::Import(website, answer))
    }

    /// Has a visitor's events erased; from the answer on they are in no answer.
    pub(super) async fn erase_visitor(&self, new: NewErasure) -> Result<Erasure, CatalogError> {
        self.ask(|answer| Change::Erase(new, answer)).await
    }

    /// Changes the list of segments, and then what readers see of it. Blocks: for the store's own threads.
    pub(super) fn change_segments(&self, change: SegmentChange) -> Result<(), CatalogError> {
        self.ask_blocking(|answer| Change::Segment(change, answer))
    }

    /// Forgets whose events an erasure has removed. Returns whether nothing of it is left: who reads the catalog may be
    /// in the way. Blocks, as above.
    pub(super) fn forget_erased(&self, erasure: Arc<str>) -> Result<bool, CatalogError> {
        self.ask_blocking(|answer| Change::Forget(erasure, answer))
    }

    fn ask_blocking<T>(&self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, CatalogError> {
        let (sender, answer) = oneshot::channel();
        self.changes.send(change(sender)).map_err(|_| CatalogError::Unknown)?;
        answer.blocking_recv().unwrap_or(Err(CatalogError::Unknown))
    }

    async fn ask<T>(&self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, CatalogError> {
        let (sender, answer) = oneshot::channel();
        self.changes.try_send(change(sender)).map_err(|error| match error {
            TrySendError::Full(_) => CatalogError::Busy,
            TrySendError::Disconnected(_) => CatalogError::Unknown,
        })?;
        answer.await.unwrap_or(Err(CatalogError::Unknown))
    }
}

pub(super) fn read_websites(connection: &Connection) -> rusqlite::Result<Websites> {
    let websites = Websites::default();
    let mut statement =
        connection.prepare("SELECT id, trackingCode, name, domain, description, createdAt, updatedAt FROM Website")?;
    let read = |row: &Row<'_>| {
        Ok(Website {
            id: row.get(0)?,
            tracking_code: row.get(1)?,
            name: row.get(2)?,
            domain: row.get(3)?,
            description: row.get(4)?,
            created_at: row.get(5)?,
            updated_at: row.get(6)?,
        })
    };
    for website in statement.query_map([], read)? {
        websites.insert(website?);
    }
    Ok(websites)
}

/// Letters of a to z and 0 to 9, from the system's secure generator.
fn random_letters(count: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    (0..count).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests;

//! The catalog: websites, the list of segments, the sequence floor, the key of the public ids.
//!
//! [`CatalogFile`] is the connection; it opens the store and then moves into a thread of its own, which [`Catalog`]
//! talks to. A change is answered after its COMMIT, and only then does [`Websites`] show it.

mod segment_list;

use std::{
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rand::RngExt;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, params};
pub(super) use segment_list::{
    ListedSegment, SegmentChange, SegmentState, apply as change_segments, read as read_segments,
};
use tokio::sync::oneshot;

use super::{
    directory::{DataDir, sync_directory},
    error::{OpenError, is_full},
    now_ms, schema,
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
    /// Too many changes wait; nothing was changed.
    #[error("too many changes wait")]
    Busy,
    /// The storage failed; the change may or may not be found after a restart.
    #[error("the storage failed")]
    Unknown,
}

/// Changes that may wait for the catalog's thread. Each takes a sync, and people make them, not trackers.
const CHANGES_WAITING_MAX: usize = 64;
const NODE: u32 = 0;

type Answer<T> = oneshot::Sender<Result<T, CatalogError>>;

enum Change {
    Create(NewWebsite, Answer<Arc<Website>>),
    Update(String, WebsiteChange, Answer<Arc<Website>>),
    Delete(String, Answer<Arc<Website>>),
    Import(Website, Answer<Arc<Website>>),
    Segment(SegmentChange, Answer<()>),
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
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;")
            .and_then(|()| connection.pragma_update(None, "application_id", schema::APPLICATION_ID))
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
    pub(super) fn change_segments(&mut self, change: SegmentChange) -> Result<(), OpenError> {
        segment_list::apply(&mut self.connection, change).map_err(OpenError::sqlite(&self.path))
    }

    /// Moves the catalog to its thread. When it ends early, `failed` is called with the reason: the storage can't
    /// be trusted any more.
    pub(super) fn spawn(
        self,
        failed: impl FnOnce(String) + Send + 'static,
    ) -> Result<(Catalog, JoinHandle<()>), OpenError> {
        let (sender, receiver) = crossbeam_channel::bounded(CHANGES_WAITING_MAX);
        let catalog = Catalog { changes: sender };
        let thread = thread::Builder::new()
            .name("catalog".into())
            .spawn(move || {
                if let Err(error) = self.run(&receiver) {
                    failed(format!("the catalog: {error}"));
                }
            })
            .map_err(OpenError::Thread)?;
        Ok((catalog, thread))
    }

    /// Until the last [`Catalog`] is dropped, or a change fails in a way that leaves the disk in doubt.
    fn run(mut self, changes: &Receiver<Change>) -> rusqlite::Result<()> {
        for change in changes {
            match change {
                Change::Create(new, answer) => reply(answer, self.create(new))?,
                Change::Update(id, change, answer) => reply(answer, self.update(&id, change))?,
                Change::Delete(id, answer) => reply(answer, self.delete(&id))?,
                Change::Import(website, answer) => reply(answer, self.insert(website))?,
                Change::Segment(change, answer) => {
                    reply(answer, segment_list::apply(&mut self.connection, change).map_err(ChangeError::from))?;
                }
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

    fn delete(&mut self, id: &str) -> Result<Arc<Website>, ChangeError> {
        let website = self.find(id)?;
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM Website WHERE id = ?1", [id])?;
        transaction.execute(
            "INSERT INTO Erasure(id, websiteId, requestedAt, segments, segmentsDone, rows) VALUES(?1, ?2, ?3, 0, 0, 0)",
            params![format!("era-{}", random_letters(12)), id, now_ms()],
        )?;
        transaction.commit()?;
        self.websites.remove(id);
        Ok(Arc::new(website))
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

    /// Forgets a website; from the answer on its events are in no answer.
    pub async fn delete_website(&self, id: String) -> Result<Arc<Website>, CatalogError> {
        self.ask(|answer| Change::Delete(id, answer)).await
    }

    /// Registers a website under the id and the tracking code that it had elsewhere. Blocks: for the import, which has
    /// the store to itself.
    pub fn import_website(&self, website: Website) -> Result<Arc<Website>, CatalogError> {
        let (sender, answer) = oneshot::channel();
        self.changes.send(Change::Import(website, sender)).map_err(|_| CatalogError::Unknown)?;
        answer.blocking_recv().unwrap_or(Err(CatalogError::Unknown))
    }

    /// Changes the list of segments. Blocks: for the store's own threads, one of which asks at a time.
    pub(super) fn change_segments(&self, change: SegmentChange) -> Result<(), CatalogError> {
        let (sender, answer) = oneshot::channel();
        self.changes.send(Change::Segment(change, sender)).map_err(|_| CatalogError::Unknown)?;
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

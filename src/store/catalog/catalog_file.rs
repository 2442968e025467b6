//! The open file of the catalog: how it is opened, made and brought up to date, and what a start reads of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use rand::RngExt;
use rusqlite::Connection;

use super::{
    epoch_table::{self, read_epochs},
    erasure::Erasure,
    erasure_table,
    expiry_table::{self, ExpiryNotes},
    segment_table::{self, ListedSegment, SegmentChange, read_damage, read_leftovers, read_open_notes, read_segments},
    ship_table,
    shipped::Shipped,
    website_table::{read_websites, remove_retired},
    websites::Websites,
    written_off_table,
};
use crate::{
    clock::now_ms,
    event_id::Epochs,
    store::{
        error::{OpenError, is_disk_full},
        format::{DataDir, file, make_file, quarantine::Quarantine, room::Room, schema, sync_directory},
        segments::Identity,
    },
};

/// The size of the catalog's write-ahead log from which on it is copied into the catalog after a change.
pub(super) const WAL_DUE_BYTES: u64 = 4 << 20;
/// Starts from copies past which somebody is told that there are many: each costs 400 bytes, and 50 ns for each id.
const EPOCHS_EXPECTED: usize = 100;

/// The open catalog.
pub(crate) struct CatalogFile {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) websites: Arc<Websites>,
    sequence_floor: u64,
    epochs: Epochs,
    id_hash_key: [u8; 16],
    /// Whether the log has said that it is closed, so that nothing writes any more but to the catalog.
    pub(super) is_log_closed: bool,
}

impl CatalogFile {
    /// Opens `catalog.db`, makes it if there is none, and reads all websites into memory. From now on the files of the
    /// directory may be written to.
    pub(crate) fn open(directory: &DataDir, room: Room) -> Result<Self, OpenError> {
        let path = directory.catalog_path();
        begin_ties(directory, &path, room)?;
        let sqlite = || OpenError::sqlite(&path);
        make_file(&path).map_err(OpenError::io("make", &path))?;
        let mut connection = Connection::open_with_flags(&path, schema::write_flags()).map_err(sqlite())?;
        schema::check_catalog(&connection, &path)?;
        // The very first write: a start that is cut short later must leave a file that is known as hitlog's. Written
        // only once, so that a start which fails further on, at a segment of a newer hitlog say, changes nothing.
        if schema::pragma::<i32>(&connection, &path, "application_id")? != schema::APPLICATION_ID {
            connection.pragma_update(None, "application_id", schema::APPLICATION_ID).map_err(sqlite())?;
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;
                 PRAGMA wal_autocheckpoint = 0; -- SQLite would keep to itself that one has failed
                 PRAGMA journal_size_limit = 0; -- a log that begins anew gives its room back
                 PRAGMA secure_delete = ON; -- of who was erased nothing may stay",
            )
            .map_err(sqlite())?;
        schema::CATALOG_MIGRATIONS.to_latest(&mut connection).map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => sqlite()(err),
            error => {
                let reason = format!("its format could not be brought up to date: {error}");
                OpenError::NotOurs { path: path.clone(), reason }
            }
        })?;
        connection
            .execute("INSERT OR IGNORE INTO Log(id, sequenceFloor) VALUES(1, 1)", [])
            .and_then(|_| epoch_table::begin_first(&connection, now_ms()))
            .and_then(|()| {
                let key: [u8; 16] = rand::rng().random();
                connection.execute("UPDATE Log SET idHashKey = ?1 WHERE idHashKey IS NULL", [key])
            })
            .map_err(sqlite())?;
        sync_directory(directory.path())?;
        let sequence_floor: i64 =
            connection.query_row("SELECT sequenceFloor FROM Log", [], |row| row.get(0)).map_err(sqlite())?;
        let epochs = read_epochs(&connection).map_err(sqlite())?;
        let id_hash_key = connection.query_row("SELECT idHashKey FROM Log", [], |row| row.get(0)).map_err(sqlite())?;
        match remove_retired(&connection, now_ms()) {
            // They are not valid, whether they are noted or not; and a start on a full disk must go on.
            Err(error) if !is_disk_full(&error) => return Err(sqlite()(error)),
            _ => {}
        }
        let websites = Arc::new(read_websites(&connection).map_err(sqlite())?);
        if room == Room::Enough {
            file::tie(&connection, &path, directory.ties()).map_err(sqlite())?;
        }
        let sequence_floor = sequence_floor.unsigned_abs();
        Ok(Self { path, connection, websites, sequence_floor, epochs, id_hash_key, is_log_closed: false })
    }

    /// The lowest sequence that may be given from now on.
    pub(crate) fn sequence_floor(&self) -> u64 {
        self.sequence_floor
    }

    /// What public ids are made with.
    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// The key under which what clients call their events is hashed.
    pub(crate) fn id_hash_key(&self) -> [u8; 16] {
        self.id_hash_key
    }

    /// Begins another epoch of ids with the next sequence if this is a backup, or `is_restored` says that it is another
    /// kind of copy: the original may have given the same sequences to other events.
    pub(crate) fn begin_epoch_of_copy(&mut self, is_restored: bool, next_sequence: u64) -> Result<(), OpenError> {
        let path = self.path.clone();
        let sqlite = || OpenError::sqlite(&path);
        let is_backup = epoch_table::is_backup(&self.connection).map_err(sqlite())?;
        if !is_backup && !is_restored {
            return Ok(());
        }
        let transaction = self.connection.transaction().map_err(sqlite())?;
        epoch_table::begin(&transaction, next_sequence, now_ms()).map_err(sqlite())?;
        transaction.commit().map_err(sqlite())?;
        self.epochs = read_epochs(&self.connection).map_err(sqlite())?;
        let epochs = self.epochs.with_ends().len();
        tracing::info!(
            is_backup,
            next_sequence,
            epochs,
            "hitlog starts from a copy: the ids of events from now on are made with a new key, so that no id of an \
             event that came after the copy was made leads to another"
        );
        if epochs > EPOCHS_EXPECTED {
            tracing::warn!(
                epochs,
                "each id is tried with the key of each start from a copy: is --restored given at every start?"
            );
        }
        Ok(())
    }

    /// The websites, as this catalog keeps them.
    pub(crate) fn websites(&self) -> Arc<Websites> {
        Arc::clone(&self.websites)
    }

    /// The segments, by number.
    pub(crate) fn segments(&self) -> Result<Vec<ListedSegment>, OpenError> {
        read_segments(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// The highest number that no segment may get any more.
    pub(crate) fn number_floor(&self) -> Result<i64, OpenError> {
        let floor = self.connection.query_row("SELECT numberFloor FROM Log", [], |row| row.get(0));
        floor.map_err(OpenError::sqlite(&self.path))
    }

    /// What the files of segments without indexes hold at the least: the last sequence, by the number of the segment.
    pub(crate) fn open_notes(&self) -> Result<BTreeMap<i64, u64>, OpenError> {
        read_open_notes(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// The damage that reads have found, by the number of the segment.
    pub(crate) fn damage(&self) -> Result<BTreeMap<i64, String>, OpenError> {
        read_damage(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// The generations that may be removed: replaced, or never listed.
    pub(crate) fn leftovers(&self) -> Result<Vec<Identity>, OpenError> {
        read_leftovers(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// Changes the list of segments, before the catalog moves to its thread.
    pub(crate) fn change_segments(&mut self, change: &SegmentChange) -> Result<(), OpenError> {
        segment_table::apply(&mut self.connection, change).map_err(OpenError::sqlite(&self.path))?;
        let floor = self.connection.query_row("SELECT sequenceFloor FROM Log", [], |row| row.get::<_, i64>(0));
        self.sequence_floor = floor.map_err(OpenError::sqlite(&self.path))?.unsigned_abs();
        Ok(())
    }

    /// The erasures, those that are done included.
    pub(crate) fn erasures(&self) -> Result<Vec<Erasure>, OpenError> {
        erasure_table::read(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// What an earlier run noted of what has expired.
    pub(crate) fn expiry_notes(&self) -> Result<ExpiryNotes, OpenError> {
        expiry_table::read(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// How far shipping is.
    pub(crate) fn shipped(&self) -> Result<Shipped, OpenError> {
        ship_table::read(&self.connection).map(Shipped::new).map_err(OpenError::sqlite(&self.path))
    }

    /// The numbers of the segments that were given up.
    pub(crate) fn written_off(&self) -> Result<BTreeSet<i64>, OpenError> {
        written_off_table::read(&self.connection).map_err(OpenError::sqlite(&self.path))
    }

    /// Copies the write-ahead log into the catalog when it has grown. An error leaves the disk in doubt.
    pub(super) fn checkpoint_if_due(&self) -> rusqlite::Result<()> {
        if file::bytes(&file::with_suffix(&self.path, "-wal")) < WAL_DUE_BYTES {
            return Ok(());
        }
        match self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            // No room to copy into: what is in the write-ahead log is as durable there.
            Err(error) if !is_disk_full(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Begins the run, unless this is no catalog that hitlog can write to: lists which write-ahead logs belong to which
/// files. The catalog's own, where it is another's, is set aside first, as SQLite would write it into this one.
fn begin_ties(directory: &DataDir, path: &Path, room: Room) -> Result<(), OpenError> {
    let ties = directory.ties();
    ties.load()?;
    // With a log of its own it is one that hitlog has written to; and a first start that was cut short leaves a
    // journal, without which the file may be anything.
    let is_half_made = file::bytes(&file::with_suffix(path, "-journal")) > 0;
    if file::bytes(path) > 0 && !is_half_made && (!file::has_wal(path) || ties.is_foreign(path)?) {
        let connection = file::open_read_only(path, true).map_err(OpenError::sqlite(path))?;
        schema::check_catalog(&connection, path)?;
    }
    ties.begin(&directory.logged_files()?, room == Room::Scarce)?;
    if ties.is_foreign(path)? {
        ties.note_copy()?;
        let name = Quarantine::of_directory(directory.path()).take_in_beside(path)?;
        tracing::warn!(
            to = %name,
            "catalog.db was put here, and catalog.db-wal is the log of the one that was here before: it is in the \
             folder quarantine now, as nothing of it belongs to this one"
        );
        ties.admit(path)?;
    }
    Ok(())
}

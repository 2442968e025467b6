//! The catalog's tables of shipping: target, nodes, ranges, events that the target refuses, and erasures that it has to
//! follow.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::shipped::{RangeEnd, ShipErasure, ShipErasureState, ShipNode, ShipRange, ShipState, ShipTarget};
use crate::clock::now_ms;

/// A change of the tables, made in one transaction.
#[derive(Debug)]
pub enum ShipChange {
    /// Events are shipped to a target from the beginning of all that is kept; what was noted of another is forgotten.
    Begun(ShipTarget, ShipNode),
    /// What was shipped is forgotten, but for where and under which nodes: everything up to before this sequence is
    /// looked for at the target, and what comes from there on has a node of its own.
    Anew(u64),
    /// The target is the same, and is reached in another way.
    Moved(ShipTarget),
    /// A node is registered.
    Registered(ShipNode),
    /// Ranges were confirmed, and the next is cut.
    Cut {
        /// The first sequences of those that are confirmed.
        confirmed: Vec<u64>,
        /// The next, which is about to be sent.
        opened: Option<ShipRange>,
        /// Everything up to here is in a range by then, or is of no event.
        cut_up_to: u64,
    },
    /// A block is about to be sent (again).
    Tried {
        /// The first sequence of its range.
        first: u64,
        /// The version of the server.
        version: String,
    },
    /// Other blocks take the place of an open range's.
    Remade {
        /// The first sequence of the range.
        first: u64,
        /// What is sent for it from now on.
        with: Vec<ShipRange>,
    },
    /// Of a range that was lost some events are here again.
    Found {
        /// The first sequence of the range.
        first: u64,
        /// What is sent for it from now on.
        with: Vec<ShipRange>,
        /// What of it stays lost.
        lost: Vec<ShipRange>,
    },
    /// A range is not sent any more.
    Ended {
        /// Its first sequence.
        first: u64,
        /// What has become of it.
        end: RangeEnd,
        /// Why.
        note: String,
    },
    /// Sequences that no longer can be sent: their segment is gone, or damaged.
    Lost(ShipRange, String),
    /// The target has followed an erasure so far.
    Erasure {
        /// Its id.
        id: Arc<str>,
        /// Up to which sequence, if that is known by now.
        up_to: Option<u64>,
        /// How far it is.
        state: ShipErasureState,
    },
    /// The target's events were compared with those here.
    Verified {
        /// How many differences there were.
        differences: u64,
    },
    /// Events that the target has refused are tried again: all of them, in the ranges that they are.
    Retried,
}

impl ShipChange {
    /// Whether it is about erasures.
    pub(super) fn is_of_erasures(&self) -> bool {
        matches!(self, Self::Begun(..) | Self::Erasure { .. })
    }
}

/// What the tables say.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<ShipState> {
    let progress = read_progress(connection)?;
    Ok(ShipState { erasures: read_erasures(connection)?, ..progress })
}

/// What they say but for erasures, of which there may be very many.
pub(super) fn read_progress(connection: &Connection) -> rusqlite::Result<ShipState> {
    let mut state = ShipState::default();
    if !connection.table_exists(None, "ShipTarget")? {
        return Ok(state);
    }
    let sql = "SELECT url, databaseName, tableName, begunAt, cutUpTo, events, verifiedAt, differences FROM ShipTarget";
    let target = connection.query_row(sql, [], |row| {
        let target = ShipTarget { url: row.get(0)?, database: row.get(1)?, table: row.get(2)?, begun_at: row.get(3)? };
        let verified: Option<i64> = row.get(6)?;
        let differences: Option<i64> = row.get(7)?;
        let verified = verified.zip(differences.map(i64::unsigned_abs));
        Ok((target, unsigned(row, 4)?, unsigned(row, 5)?, verified))
    });
    if let Some((target, cut_up_to, events, verified)) = target.optional()? {
        (state.target, state.cut_up_to, state.events, state.verified) = (Some(target), cut_up_to, events, verified);
    }
    let mut select = connection.prepare("SELECT firstSequence, node, instance FROM ShipNode ORDER BY firstSequence")?;
    let node =
        |row: &Row<'_>| Ok(ShipNode { first_sequence: unsigned(row, 0)?, node: row.get(1)?, instance: row.get(2)? });
    state.nodes = select.query_map([], node)?.collect::<rusqlite::Result<_>>()?;
    let ranges = read_ranges(connection, "open")?;
    state.open = ranges.into_iter().map(|range| (range.first, range)).collect();
    let count = |sql| connection.query_row(sql, [], |row| unsigned(row, 0));
    state.dead = count("SELECT count(*) FROM ShipDead")?;
    state.lost = count("SELECT count(*) FROM ShipRange WHERE state = 'lost'")?;
    let mut select = connection.prepare("SELECT segment FROM ShipRange WHERE state = 'lost' AND note <> ?1")?;
    let segments = select.query_map([EXPIRED], |row| row.get(0))?;
    state.lost_segments = segments.collect::<rusqlite::Result<_>>()?;
    Ok(state)
}

/// The ranges in a state, by their first sequence.
pub(crate) fn read_ranges(connection: &Connection, state: &str) -> rusqlite::Result<Vec<ShipRange>> {
    let mut select = connection.prepare(
        "SELECT firstSequence, lastSequence, segment, node, rows, bytes, hash, epoch, missing, firstArrival, attempts,
                begunAt, version
         FROM ShipRange WHERE state = ?1 ORDER BY firstSequence",
    )?;
    let range = |row: &Row<'_>| {
        Ok(ShipRange {
            first: unsigned(row, 0)?,
            last: unsigned(row, 1)?,
            segment: row.get(2)?,
            node: row.get(3)?,
            rows: unsigned(row, 4)?,
            bytes: unsigned(row, 5)?,
            hash: row.get(6)?,
            epoch: row.get(7)?,
            missing: row.get::<_, Option<Vec<u8>>>(8)?.map(|bytes| runs_of(&bytes)),
            first_arrival: row.get(9)?,
            attempts: row.get(10)?,
            begun_at: row.get(11)?,
            version: row.get(12)?,
        })
    };
    select.query_map([state], range)?.collect()
}

/// The events that the target refuses: sequence, why, and since when in milliseconds since 1970, UTC.
pub(crate) fn read_dead(connection: &Connection) -> rusqlite::Result<Vec<(u64, String, i64)>> {
    let mut select = connection.prepare("SELECT sequence, error, since FROM ShipDead ORDER BY sequence")?;
    select.query_map([], |row| Ok((unsigned(row, 0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// The erasures that the target has to follow, those that it has followed included.
pub(super) fn read_erasures(connection: &Connection) -> rusqlite::Result<BTreeMap<Arc<str>, ShipErasure>> {
    if !connection.table_exists(None, "ShipErasure")? {
        return Ok(BTreeMap::new());
    }
    let mut select =
        connection.prepare("SELECT erasure, websiteId, visitorId, upTo, state, changedAt FROM ShipErasure")?;
    let erasure = |row: &Row<'_>| {
        let id: Arc<str> = row.get(0)?;
        let name: String = row.get(4)?;
        let state = ShipErasureState::ALL.into_iter().find(|state| state.as_str() == name);
        let erasure = ShipErasure {
            id: Arc::clone(&id),
            website_id: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            visitor_id: row.get(2)?,
            up_to: row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs),
            // The table's CHECK lets no other name in.
            state: state.ok_or(rusqlite::Error::InvalidQuery)?,
            changed_at: row.get(5)?,
        };
        Ok((id, erasure))
    };
    select.query_map([], erasure)?.collect()
}

const FORGET_PROGRESS: &str = "DELETE FROM ShipRange; DELETE FROM ShipDead;
                               UPDATE ShipTarget SET cutUpTo = 0, events = 0, verifiedAt = NULL, differences = NULL;";
const FORGET: &str = "DELETE FROM ShipTarget; DELETE FROM ShipNode; DELETE FROM ShipRange; DELETE FROM ShipDead;
                      DELETE FROM ShipErasure;";

/// Makes a change.
pub(super) fn apply(connection: &mut Connection, change: &ShipChange) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    match change {
        ShipChange::Begun(target, node) => {
            transaction.execute_batch(FORGET)?;
            let sql = "INSERT INTO ShipTarget(id, url, databaseName, tableName, begunAt, cutUpTo, events)
                       VALUES(1, ?1, ?2, ?3, ?4, 0, 0)";
            transaction.execute(sql, params![target.url, target.database, target.table, target.begun_at])?;
            register(&transaction, node)?;
            take_over_erasures(&transaction)?;
        }
        ShipChange::Anew(first_sequence) => {
            transaction.execute_batch(FORGET_PROGRESS)?;
            begin_node(&transaction, *first_sequence)?;
        }
        ShipChange::Moved(target) => {
            let sql = "UPDATE ShipTarget SET url = ?1, databaseName = ?2, tableName = ?3";
            transaction.execute(sql, params![target.url, target.database, target.table])?;
        }
        ShipChange::Registered(node) => register(&transaction, node)?,
        ShipChange::Cut { confirmed, opened, cut_up_to } => {
            for first in confirmed {
                confirm(&transaction, *first)?;
            }
            if let Some(range) = opened {
                open(&transaction, range)?;
            }
            self::cut_up_to(&transaction, *cut_up_to)?;
        }
        ShipChange::Tried { first, version } => {
            let sql = "UPDATE ShipRange SET attempts = attempts + 1, begunAt = ifnull(begunAt, ?2),
                              version = ifnull(version, ?3)
                       WHERE firstSequence = ?1";
            transaction.execute(sql, params![first.cast_signed(), now_ms(), version])?;
        }
        ShipChange::Remade { first, with } => {
            // One that was lost meanwhile, as its segment has left the disk, stays lost; one whose events are here
            // again is sent again.
            remake(&transaction, *first, with)?;
        }
        ShipChange::Found { first, with, lost } => {
            if remake(&transaction, *first, with)? {
                lost.iter().try_for_each(|range| lose(&transaction, range, GONE))?;
            }
        }
        ShipChange::Ended { first, end, note } => end_range(&transaction, *first, *end, note)?,
        ShipChange::Lost(range, note) => {
            // A segment that has left the disk was noted here, if the one behind it is lost as well.
            let sql = "DELETE FROM ShipRange WHERE firstSequence = ?1 AND state = 'lost'";
            transaction.execute(sql, [range.first.cast_signed()])?;
            lose(&transaction, range, note)?;
            cut_up_to(&transaction, range.last)?;
        }
        ShipChange::Erasure { id, up_to, state } => note_erasure(&transaction, id, *up_to, *state)?,
        ShipChange::Verified { differences } => {
            let sql = "UPDATE ShipTarget SET verifiedAt = ?1, differences = ?2";
            transaction.execute(sql, params![now_ms(), differences.cast_signed()])?;
        }
        ShipChange::Retried => {
            // As if they had been sent long ago: what is there is looked for first, and what was erased since is left
            // out.
            transaction.execute_batch(
                "UPDATE ShipRange SET state = 'open', note = NULL, begunAt = 0 WHERE state = 'dead';
                 DELETE FROM ShipDead;",
            )?;
        }
    }
    transaction.commit()
}

fn register(connection: &Connection, node: &ShipNode) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO ShipNode(firstSequence, node, instance) VALUES(?1, ?2, ?3)";
    connection.execute(sql, params![node.first_sequence.cast_signed(), node.node, node.instance]).map(drop)
}

/// Notes up to where ranges were cut.
fn cut_up_to(connection: &Connection, sequence: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE ShipTarget SET cutUpTo = max(cutUpTo, ?1)";
    connection.execute(sql, [sequence.cast_signed()]).map(drop)
}

/// Puts other ranges into the place of one, unless it was lost for good meanwhile. Returns whether it has.
fn remake(connection: &Connection, first: u64, with: &[ShipRange]) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM ShipRange WHERE firstSequence = ?1 AND NOT (state = 'lost' AND note = ?2)";
    let was_there = connection.execute(sql, params![first.cast_signed(), EXPIRED])? > 0;
    if was_there {
        with.iter().try_for_each(|range| open(connection, range))?;
    }
    Ok(was_there)
}

/// Notes a range that can't be sent for now.
fn lose(connection: &Connection, range: &ShipRange, note: &str) -> rusqlite::Result<()> {
    open(connection, range)?;
    end_range(connection, range.first, RangeEnd::Lost, note)
}

fn open(connection: &Connection, range: &ShipRange) -> rusqlite::Result<()> {
    let sql = "INSERT INTO ShipRange(firstSequence, lastSequence, segment, node, rows, bytes, hash, epoch, missing,
                                     state, firstArrival, attempts, begunAt, version)
               VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'open', ?10, ?11, ?12, ?13)";
    connection.execute(
        sql,
        params![
            range.first.cast_signed(),
            range.last.cast_signed(),
            range.segment,
            range.node,
            range.rows.cast_signed(),
            range.bytes.cast_signed(),
            range.hash,
            range.epoch,
            range.missing.as_deref().map(bytes_of),
            range.first_arrival,
            range.attempts,
            range.begun_at,
            range.version,
        ],
    )?;
    // The target may have these events before a loss of power takes them from here (durability `normal`): no other
    // event may get one of their sequences.
    let floor = "UPDATE Log SET sequenceFloor = max(sequenceFloor, ?1)";
    connection.execute(floor, [range.last.cast_signed() + 1]).map(drop)
}

/// Counts the events of a range, and joins it with its neighbours of the same segment that are confirmed. One that was
/// lost meanwhile, as its segment has left the disk, stays lost: nobody can tell any more what there was to arrive.
fn confirm(connection: &Connection, first: u64) -> rusqlite::Result<()> {
    let first = first.cast_signed();
    let rows = "UPDATE ShipTarget SET events = events + ifnull((SELECT rows FROM ShipRange
                WHERE firstSequence = ?1 AND state = 'open'), 0)";
    connection.execute(rows, [first])?;
    let state = "UPDATE ShipRange SET state = 'confirmed', missing = NULL, version = NULL
                 WHERE firstSequence = ?1 AND state = 'open'";
    if connection.execute(state, [first])? == 0 {
        return Ok(());
    }
    let before = "SELECT max(firstSequence) FROM ShipRange WHERE firstSequence < ?1";
    let after = "SELECT min(firstSequence) FROM ShipRange WHERE firstSequence > ?1";
    let before: Option<i64> = connection.query_row(before, [first], |row| row.get(0))?;
    let after: Option<i64> = connection.query_row(after, [first], |row| row.get(0))?;
    for (left, right) in [(Some(first), after), (before, Some(first))] {
        if let (Some(left), Some(right)) = (left, right) {
            join(connection, left, right)?;
        }
    }
    Ok(())
}

/// Joins two neighbours, if both are confirmed, of one segment and of one node.
fn join(connection: &Connection, left: i64, right: i64) -> rusqlite::Result<()> {
    let joined = connection.execute(
        "UPDATE ShipRange SET (lastSequence, rows, bytes) =
             (SELECT r.lastSequence, r.rows + ShipRange.rows, r.bytes + ShipRange.bytes FROM ShipRange r
              WHERE r.firstSequence = ?2)
         WHERE firstSequence = ?1 AND state = 'confirmed' AND EXISTS (SELECT 1 FROM ShipRange r
             WHERE r.firstSequence = ?2 AND r.state = 'confirmed' AND r.segment = ShipRange.segment
                 AND r.node = ShipRange.node)",
        [left, right],
    )?;
    if joined > 0 {
        connection.execute("DELETE FROM ShipRange WHERE firstSequence = ?1", [right])?;
    }
    Ok(())
}

fn end_range(connection: &Connection, first: u64, end: RangeEnd, note: &str) -> rusqlite::Result<()> {
    let state = if end == RangeEnd::Lost { "lost" } else { "dead" };
    let sql = "UPDATE ShipRange SET state = ?2, note = ?3 WHERE firstSequence = ?1 AND state = 'open'";
    let was_open = connection.execute(sql, params![first.cast_signed(), state, note])? > 0;
    if let RangeEnd::Dead(sequence) = end
        && was_open
    {
        let sql = "INSERT OR REPLACE INTO ShipDead(sequence, error, since) VALUES(?1, ?2, ?3)";
        connection.execute(sql, params![sequence.cast_signed(), note, now_ms()])?;
    }
    Ok(())
}

/// What stands in the place of why an event was refused, after an erasure.
const WORDS_ARE_GONE: &str = "the target's words are gone: an erasure came after them, and they may have named who was \
                              erased. `hitlog ship resume --dead` sends the event again, and then shows why it is \
                              refused";

/// Notes an erasure that the target has to follow, if there is a target. Why events were refused is told in words that
/// may quote any of their fields: these go.
pub(super) fn insert_erasure(
    connection: &Connection,
    id: &str,
    website_id: &str,
    visitor: Option<(&str, u64)>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO ShipErasure(erasure, websiteId, visitorId, upTo, state, changedAt)
               SELECT ?1, ?2, ?3, ?4, 'waiting', ?5 WHERE EXISTS (SELECT 1 FROM ShipTarget)";
    let (visitor_id, up_to) = (visitor.map(|(id, _)| id), visitor.map(|(_, up_to)| up_to.cast_signed()));
    connection.execute(sql, params![id, website_id, visitor_id, up_to, now_ms()])?;
    let refused: i64 = connection.query_row("SELECT count(*) FROM ShipDead", [], |row| row.get(0))?;
    if refused > 0 {
        connection.execute("UPDATE ShipDead SET error = ?1", [WORDS_ARE_GONE])?;
        connection.execute("UPDATE ShipRange SET note = ?1 WHERE state = 'dead'", [WORDS_ARE_GONE])?;
    }
    Ok(())
}

/// Notes the erasures that are under way here when shipping begins: events of theirs are not gone from here yet, and
/// may be shipped.
fn take_over_erasures(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO ShipErasure(erasure, websiteId, visitorId, upTo, state, changedAt)
               SELECT id, websiteId, visitorId, upTo, 'waiting', ?1 FROM Erasure
               WHERE doneAt IS NULL AND websiteId IS NOT NULL";
    connection.execute(sql, [now_ms()]).map(drop)
}

fn note_erasure(
    connection: &Connection,
    id: &str,
    up_to: Option<u64>,
    state: ShipErasureState,
) -> rusqlite::Result<()> {
    let sql = "UPDATE ShipErasure SET upTo = ?2, state = ?3, changedAt = ?4 WHERE erasure = ?1";
    connection.execute(sql, params![id, up_to.map(u64::cast_signed), state.as_str(), now_ms()])?;
    if state == ShipErasureState::Done {
        // Of who was erased nothing stays.
        let forget = "UPDATE ShipErasure SET websiteId = NULL, visitorId = NULL WHERE erasure = ?1";
        connection.execute(forget, [id])?;
        // It is remembered for as long as the erasure itself.
        let ended = "DELETE FROM ShipErasure WHERE erasure = ?1 AND erasure NOT IN (SELECT id FROM Erasure)";
        connection.execute(ended, [id])?;
    }
    Ok(())
}

/// Forgets erasures that are remembered no more, where the target has followed them.
pub(super) fn remove_erasures(connection: &Connection, ids: &[Arc<str>]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM ShipErasure WHERE erasure = ?1 AND state = 'done'")?;
    ids.iter().try_for_each(|id| delete.execute([&**id]).map(|_| ()))
}

/// Forgets what was confirmed of a segment that is gone. What was not, or what the target refuses, is lost if its
/// events have expired: those from the first to the last sequence. Within a transaction.
pub(super) fn drop_segment(connection: &Connection, number: i64, expired: Option<(u64, u64)>) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM ShipRange WHERE segment = ?1 AND state = 'confirmed'", [number])?;
    let dead = "DELETE FROM ShipDead WHERE EXISTS (SELECT 1 FROM ShipRange r WHERE r.segment = ?1 AND r.state = 'dead'
                    AND sequence BETWEEN r.firstSequence AND r.lastSequence)";
    connection.execute(dead, [number])?;
    let Some((first, last)) = expired else {
        return connection.execute("DELETE FROM ShipRange WHERE segment = ?1 AND state = 'dead'", [number]).map(drop);
    };
    let lost = "UPDATE ShipRange SET state = 'lost', note = ?2 WHERE segment = ?1 AND state IN ('open', 'dead')";
    connection.execute(lost, params![number, EXPIRED])?;
    let uncut = "INSERT OR IGNORE INTO ShipRange(firstSequence, lastSequence, segment, node, rows, bytes, hash, epoch,
                                                 state, firstArrival, attempts, note)
                 SELECT max(?1, cutUpTo + 1), ?2, ?3, 0, 0, 0, zeroblob(16), 0, 'lost', 0, 0, ?4 FROM ShipTarget
                 WHERE cutUpTo < ?2";
    connection.execute(uncut, params![first.cast_signed(), last.cast_signed(), number, EXPIRED]).map(drop)
}

/// Has the events of a segment that was not listed until now be looked for at the target, and shipped if they are not
/// there: those from the first to the last sequence that shipping has passed over. Within a transaction.
pub(super) fn adopt_segment(connection: &Connection, number: i64, (first, last): (u64, u64)) -> rusqlite::Result<()> {
    let state = read_progress(connection)?;
    let last = last.min(state.cut_up_to);
    if last < first {
        return Ok(());
    }
    let mut select = connection.prepare(
        "SELECT firstSequence, lastSequence FROM ShipRange
         WHERE lastSequence >= ?1 AND firstSequence <= ?2 ORDER BY firstSequence",
    )?;
    let span = |row: &Row<'_>| Ok((unsigned(row, 0)?, unsigned(row, 1)?));
    let known = select.query_map([first.cast_signed(), last.cast_signed()], span)?;
    let known = known.collect::<rusqlite::Result<Vec<_>>>()?;
    for span in state.passed_over((first, last), &known) {
        let node = state.node_of(span.0).map_or(0, |node| node.node);
        lose(connection, &ShipRange::unsent(number, span, node), "its segment was not listed")?;
    }
    Ok(())
}

const GONE: &str = "its segment is damaged, or was given up";
const EXPIRED: &str = "its segment has left the disk, as its events have expired";

/// Has the events from this sequence on be shipped under a node of their own, as the original of this copy may have
/// shipped others with the same sequences. Within the transaction that begins the epoch.
pub(super) fn begin_node(connection: &Connection, first_sequence: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM ShipNode WHERE firstSequence >= ?1", [first_sequence.cast_signed()])?;
    let sql = "INSERT INTO ShipNode(firstSequence, node, instance)
               SELECT ?1, node, '' FROM ShipNode ORDER BY firstSequence DESC LIMIT 1";
    connection.execute(sql, [first_sequence.cast_signed()]).map(drop)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn runs_of(bytes: &[u8]) -> Vec<(u64, u64)> {
    let (numbers, _) = bytes.as_chunks::<8>();
    let numbers: Vec<_> = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
    numbers.chunks_exact(2).map(|run| (run[0], run[1])).collect()
}

fn bytes_of(runs: &[(u64, u64)]) -> Vec<u8> {
    runs.iter().flat_map(|(first, last)| [first.to_le_bytes(), last.to_le_bytes()]).flatten().collect()
}

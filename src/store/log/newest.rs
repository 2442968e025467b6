//! The ids of the newest events, which the writer alone looks in: it knows what was committed a moment ago, and what is
//! about to be.

use std::{sync::Arc, time::Instant};

use crate::{
    clock::now_ms,
    event::{Original, Repeat, ValidEvents},
    store::ids::{Entry, Found, IdKeeper, IdTable, Ids},
};

/// A table is handed on when its first id is as old as this part of the window, so that what it has leaves the window
/// together.
const WINDOW_PARTS: u32 = 16;

/// The newest ids, and who takes them when there are many.
pub(crate) struct NewestIds {
    ids: Arc<Ids>,
    keeper: IdKeeper,
    table: IdTable,
    /// Every id of an event with a sequence from this one on is in the table.
    first_sequence: u64,
    newest_received_at: i64,
    begun_at: Option<Instant>,
    /// How many are of the transaction under way.
    added: usize,
}

impl NewestIds {
    /// Goes on with a table that has the ids of all events from this sequence on.
    pub(crate) fn new(
        ids: Arc<Ids>,
        keeper: IdKeeper,
        table: IdTable,
        (first_sequence, newest_received_at): (u64, i64),
    ) -> Self {
        let begun_at = (table.len() > 0).then(Instant::now);
        Self { ids, keeper, table, first_sequence, newest_received_at, begun_at, added: 0 }
    }

    /// Makes room for so many ids of events with sequences from `next_sequence` on.
    pub(super) fn make_room(&mut self, ids: usize, next_sequence: u64) {
        if self.table.room() < ids {
            self.hand_on(next_sequence);
            self.table = self.ids.new_table(ids);
        }
    }

    /// The events of a request that are stored already, but for those in the newest table; `None` where it takes a look
    /// at the disk to tell.
    pub(super) fn repeats_before(&self, events: &ValidEvents) -> Option<Vec<Repeat>> {
        let looked_up = events.looked_up();
        let mut repeats = looked_up.repeats.clone();
        if events.id_hashes().is_empty() {
            return Some(repeats);
        }
        let set = self.ids.set();
        if looked_up.seen < set.number {
            let known = |index: usize| looked_up.repeats.binary_search_by_key(&index, |repeat| repeat.index).is_ok();
            for (index, hash) in events.id_hashes().iter().enumerate().filter(|(index, _)| !known(*index)) {
                match hash.map_or(Found::No, |hash| set.look_since(hash, looked_up.seen)) {
                    Found::Known(original) => repeats.push(Repeat { index, original }),
                    Found::Perhaps => return None,
                    Found::No => {}
                }
            }
            repeats.sort_unstable_by_key(|repeat| repeat.index);
        }
        Some(repeats)
    }

    /// Adds the id of an event of the transaction under way, or returns the event that has it.
    pub(super) fn find_or_add(&mut self, entry: Entry) -> Option<Original> {
        let known = self.table.find_or_add(entry);
        if known.is_none() {
            self.added += 1;
        }
        known
    }

    /// The transaction is committed; its newest event arrived at this time, in milliseconds since 1970, UTC.
    pub(super) fn committed(&mut self, received_at: i64) {
        if self.added > 0 {
            self.begun_at.get_or_insert_with(Instant::now);
            self.newest_received_at = self.newest_received_at.max(received_at);
            self.added = 0;
        }
    }

    /// The transaction is not committed: what it would have stored is free to be sent again.
    pub(super) fn failed(&mut self) {
        self.table.remove_newest(std::mem::take(&mut self.added));
    }

    /// Hands the table on if it has ids of a while ago.
    pub(super) fn hand_on_if_due(&mut self, next_sequence: u64) {
        if self.begun_at.is_some_and(|begun_at| begun_at.elapsed() > self.ids.window() / WINDOW_PARTS) {
            self.hand_on(next_sequence);
        }
    }

    /// Hands the table on and begins another for the events from `next_sequence` on.
    pub(crate) fn hand_on(&mut self, next_sequence: u64) {
        if self.first_sequence >= next_sequence {
            return;
        }
        let full = std::mem::replace(&mut self.table, self.ids.new_table(0));
        let newest_received_at = std::mem::take(&mut self.newest_received_at);
        // Of none, when that was known.
        let newest_received_at = if full.len() == 0 { now_ms() } else { newest_received_at };
        self.ids.add(full, (self.first_sequence, next_sequence - 1), newest_received_at);
        self.first_sequence = next_sequence;
        self.begun_at = None;
    }

    /// Ends the keeper, when all that was handed on is on the disk.
    pub(super) fn stop(self) {
        self.keeper.stop();
    }
}

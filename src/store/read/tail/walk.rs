//! A read for somebody who follows events: from a place on through the segments, in the order of sequences.
//!
//! What is known of a segment without a look at its rows says which of them are wanted: its summary, then the keys. Few
//! among many are found by their keys and read one by one; where they are many, all rows are read in their order. Never
//! is so much read for one that others wait long.

use std::{
    collections::BinaryHeap,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use rusqlite::{OptionalExtension, params};

use super::place::{Ahead, AheadList, FROM_START, Gap, GapReason, Missing, Shown, TailFilter, TailPlace, TailRead};
use crate::{
    budget::Budget,
    clock::now_ms,
    event::{EventRow, EventType},
    store::{
        error::ReadError,
        format::{row, schema},
        read::snapshot::Snapshot,
        segments::{
            Content, HiddenOf, Key, KeysSnapshot, LaidKeys, NextRows, Segment, Stream, Summary, UnreadableList,
        },
    },
};

// In tests of the store's the limits are so small that its few rows come up to them.

/// All rows are read in their order where at least one of so many is wanted: to find one by its key costs as much as to
/// pass by so many.
const SCANNED_FOR_EACH: u64 = 8;
/// Rows that are read in their order before it is noted how far that has come.
const SCANNED_AT_ONCE: u64 = if cfg!(test) { 3 } else { 4_096 };
/// The most work of one read, in rows that are passed by; some 20 ms.
const WORK_MAX: u64 = if cfg!(test) { 40 } else { 32 * 1024 };
/// What an event that is found by its key costs, in rows that are passed by.
const FOUND_WORK: u64 = SCANNED_FOR_EACH;
/// The most of the next rows of a segment that are kept, 4 bytes each, if there is memory for them; and where there is
/// not.
const AHEAD_MAX: usize = if cfg!(test) { 4 } else { 32 * 1024 };
const AHEAD_MIN: usize = if cfg!(test) { 2 } else { 1_024 };

/// How the next rows of a segment are read.
enum Stretch {
    /// Up to this sequence none is wanted.
    Nothing(u64),
    /// All of them, up to this sequence, in their order.
    All(u64),
    /// These alone.
    Some(NextRows),
}

/// One read.
pub(super) struct Walk<'a> {
    snapshot: &'a Snapshot<'a>,
    filter: &'a TailFilter,
    place: TailPlace,
    /// Streams that are wanted, and their types.
    streams: Vec<(Stream, EventType)>,
    /// What is hidden of them in the segment that it is in.
    hidden: Vec<(Stream, HiddenOf<'a>)>,
    /// What is left of [`WORK_MAX`].
    work: u64,
    /// Counts the rows ahead.
    budget: Budget,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot<'a>,
        filter: &'a TailFilter,
        mut place: TailPlace,
        budget: Budget,
    ) -> Self {
        let of_site = |site: u32| {
            let wanted = EventType::ALL.into_iter().filter(|of| filter.event_type.is_none_or(|wanted| wanted == *of));
            wanted.map(|of| (Stream::new(site, of.as_str().as_bytes()), of)).collect()
        };
        let streams = snapshot.site(&filter.website_id).map(of_site).unwrap_or_default();
        if place.gaps_told_to == FROM_START {
            // Whoever wants all that is kept does not miss what is not.
            place.gaps_told_to = snapshot.expired_before;
        }
        Self { snapshot, filter, place, streams, hidden: Vec::new(), work: WORK_MAX, budget }
    }

    /// Shows what comes until `show` has enough, or the work is done.
    pub(super) fn run(
        mut self,
        mut show: impl FnMut(Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<TailRead, ReadError> {
        let begun_at = now_ms();
        let end = self.snapshot.durable();
        if self.place.is_doubtful {
            self.settle(end)?;
        }
        let (mut before, mut newest) = (0, 0);
        for segment in self.snapshot.segments() {
            newest = segment.number;
            let Some((first, last)) = self.snapshot.span(segment) else { continue };
            if last > self.place.after {
                self.note_hole(before + 1..segment.number, first);
                self.hidden = self.hidden_in(segment);
                if !self.walk_through(segment, (first, last), &mut show)? {
                    return Ok(TailRead { place: self.place, is_at_end: false });
                }
            }
            before = segment.number;
        }
        self.note_hole(before + 1..newest + 1, end + 1);
        self.place.after = self.place.after.max(end);
        // What is there has arrived by now, and before that by a clock that was set back.
        self.place.time = begun_at.max(self.snapshot.shared().newest_arrival());
        self.place.ahead = None;
        if let Some(Missing { reason, from, to, .. }) = self.place.missing.take() {
            // Nothing was shown behind it yet, so it can be told on its own.
            let _ = show(Shown::Gap(Gap { reason, from, to: to.unwrap_or(begun_at) }))?;
        }
        Ok(TailRead { place: self.place, is_at_end: true })
    }

    /// Leads a place that a client was told back to where it is still true. A loss of power may have taken the last
    /// events with it (durability `normal`), and their sequences are given again: an event that is there now and
    /// arrived after the place was told is one that its client has not seen.
    fn settle(&mut self, end: u64) -> Result<(), ReadError> {
        self.place.is_doubtful = false;
        self.place.after = self.place.after.min(end);
        let TailPlace { after, time, .. } = self.place;
        let Some(segment) = self.snapshot.segment_with(after) else { return Ok(()) };
        let first = self.snapshot.span(segment).map_or(after, |(first, _)| first);
        let settled = self.snapshot.on(segment, |connection| {
            let arrived_at = row::fetch(connection, after, |row| Ok(row.received_at))?;
            if arrived_at.is_none_or(|arrived_at| arrived_at <= time) {
                return Ok(after);
            }
            let mut select = connection.prepare_cached(LAST_ARRIVED_BY)?;
            let last: Option<i64> =
                select.query_row(params![after.cast_signed(), time], |row| row.get(0)).optional()?;
            // What segments before it hold was made durable before this one began.
            Ok(last.map_or(first - 1, i64::unsigned_abs))
        })?;
        self.place.after = settled;
        Ok(())
    }

    /// Notes that rows between the place and the sequence `first` are missing, if one of the segments with these
    /// numbers is.
    fn note_hole(&mut self, mut numbers: Range<i64>, first: u64) {
        if self.place.after + 1 >= first {
            return;
        }
        let (snapshot, place) = (self.snapshot, &self.place);
        if snapshot.shared().has_lost_any(numbers.clone()) {
            let TailPlace { after, time, .. } = *place;
            self.note_missing(Missing { reason: GapReason::Damage, from: time, to: None, after, time });
            return;
        }
        let is_there = |number| snapshot.segments().binary_search_by_key(&number, |segment| segment.number).is_ok();
        if numbers.any(|number| !is_there(number) && !snapshot.shared().is_emptied(number)) {
            // The newest of it was older than what has expired by now.
            self.note_expired(snapshot.expired_before.saturating_sub(1));
        }
    }

    /// Notes that expired rows were passed by, of which the newest was made at this time.
    fn note_expired(&mut self, newest: i64) {
        let expired_before = self.snapshot.expired_before;
        if expired_before == i64::MIN || newest < self.place.gaps_told_to {
            return;
        }
        self.place.gaps_told_to = expired_before;
        let TailPlace { after, time, .. } = self.place;
        let (from, to) = (time.min(newest), Some(expired_before));
        self.note_missing(Missing { reason: GapReason::Retention, from, to, after, time });
    }

    /// Notes that rows are missing, beside those that are not told of yet.
    fn note_missing(&mut self, more: Missing) {
        self.place.missing = Some(match self.place.missing {
            None => more,
            Some(noted) => Missing {
                // What was lost is worse than what was meant to go.
                reason: if noted.reason == more.reason { noted.reason } else { GapReason::Damage },
                from: noted.from.min(more.from),
                to: noted.to.zip(more.to).map(|(noted, more)| noted.max(more)),
                ..noted
            },
        });
    }

    fn hidden_in(&self, segment: &Segment) -> Vec<(Stream, HiddenOf<'a>)> {
        let Some(hidden) = self.snapshot.hidden(segment.number) else { return Vec::new() };
        let of_streams = self.streams.iter().map(|(stream, _)| (*stream, hidden.of(*stream)));
        of_streams.filter(|(_, hidden)| !hidden.is_empty()).collect()
    }

    /// Shows the rows of one segment. Returns whether it has come to its end.
    fn walk_through(
        &mut self,
        segment: &Arc<Segment>,
        (first, last): (u64, u64),
        show: &mut impl FnMut(Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<bool, ReadError> {
        self.place.after = self.place.after.max(first - 1);
        while self.place.after < last {
            let goes_on = match self.next_stretch(segment, (first, last))? {
                Stretch::Nothing(up_to) => {
                    self.place.after = up_to;
                    true
                }
                Stretch::All(up_to) => self.show_all(segment, up_to, show)?,
                Stretch::Some(rows) => self.show_some(segment, &rows, show)?,
            };
            if !goes_on || (self.work == 0 && self.place.after < last) {
                return Ok(false);
            }
        }
        self.place.ahead = None;
        Ok(true)
    }

    /// How the next rows are read.
    fn next_stretch(&mut self, segment: &Arc<Segment>, (first, last): (u64, u64)) -> Result<Stretch, ReadError> {
        let after = self.place.after;
        if let Some(ahead) = self.place.ahead.as_ref().filter(|of| of.segment == segment.number && of.up_to > after) {
            return Ok(Stretch::Some(ahead.next_rows(after)));
        }
        let count = match (&segment.content, self.snapshot.keys(segment)) {
            (Content::Sealed(summary), _) => self.count_sealed(summary),
            (_, Some(KeysSnapshot::Laid(keys))) => {
                self.streams.iter().filter_map(|(stream, _)| keys.run(*stream)).map(|run| run.count).sum()
            }
            (_, Some(KeysSnapshot::InMemory(columns))) => {
                let streams: Vec<Stream> = self.streams.iter().map(|(stream, _)| *stream).collect();
                let Some(rows) = columns.next_rows(after, &streams) else { return Ok(Stretch::Nothing(last)) };
                let up_to = rows.up_to.min(last);
                return Ok(if rows.sequences.is_empty() {
                    Stretch::Nothing(up_to)
                } else if rows.sequences.len() as u64 * SCANNED_FOR_EACH >= up_to - after {
                    Stretch::All(up_to)
                } else {
                    Stretch::Some(rows)
                });
            }
            (Content::Open(_), None) => 0,
        };
        if count == 0 {
            return Ok(Stretch::Nothing(last));
        }
        if count * SCANNED_FOR_EACH > last - first {
            return Ok(Stretch::All(last.min(after + SCANNED_AT_ONCE)));
        }
        let ahead = self.look_ahead(segment, (first, last), count)?;
        let rows = ahead.next_rows(after);
        self.place.ahead = Some(ahead);
        Ok(Stretch::Some(rows))
    }

    /// How many rows of a sealed segment are wanted; none where all of them have expired.
    fn count_sealed(&mut self, summary: &Summary) -> u64 {
        let of_streams: Vec<_> = self.streams.iter().filter_map(|(stream, _)| summary.of(*stream)).collect();
        if of_streams.is_empty() {
            return 0;
        }
        let newest = of_streams.iter().map(|of| of.last_created_at).max().unwrap_or(i64::MIN);
        if newest < self.snapshot.expired_before {
            self.note_expired(newest);
            return 0;
        }
        of_streams.iter().map(|of| of.count).sum()
    }

    /// Finds the next of so many rows by their keys, which are in another order.
    fn look_ahead(
        &mut self,
        segment: &Arc<Segment>,
        (first, last): (u64, u64),
        count: u64,
    ) -> Result<Ahead, ReadError> {
        let mut share = self.budget.share();
        let most = usize::try_from(count).unwrap_or(usize::MAX).min(AHEAD_MAX);
        let most = if most <= AHEAD_MIN || share.grow_to(most * size_of::<u32>()).is_ok() { most } else { AHEAD_MIN };
        let mut lowest = Lowest { after: self.place.after, most, is_cut: false, rows: BinaryHeap::new() };
        match (&segment.content, self.snapshot.keys(segment)) {
            (Content::Sealed(_), _) => self.look_in_index(segment, first, &mut lowest)?,
            (_, Some(KeysSnapshot::Laid(keys))) => self.look_in_laid(segment, keys, first, &mut lowest)?,
            _ => {}
        }
        let (rows, is_cut) = (lowest.rows.into_sorted_vec(), lowest.is_cut);
        let up_to = rows.last().filter(|_| is_cut).map_or(last, |row| first + u64::from(*row));
        let list = Arc::new(AheadList { first, rows, _share: share });
        Ok(Ahead { segment: segment.number, up_to, list })
    }

    fn look_in_index(&mut self, segment: &Arc<Segment>, first: u64, lowest: &mut Lowest) -> Result<(), ReadError> {
        let (mut expired, expired_before) = (None, self.snapshot.expired_before);
        for (_, event_type) in &self.streams {
            self.snapshot.on(segment, |connection| {
                let mut select = connection.prepare_cached(KEYS_OF_STREAM)?;
                let mut rows = select.query(params![self.filter.website_id, event_type.as_str()])?;
                while let Some(row) = rows.next()? {
                    let sequence = row.get::<_, i64>(1)?.unsigned_abs();
                    let created_at: i64 = row.get(0)?;
                    if created_at >= expired_before {
                        lowest.offer(first, sequence);
                    } else if sequence > lowest.after {
                        expired = expired.max(Some(created_at));
                    }
                }
                Ok(())
            })?;
        }
        expired.into_iter().for_each(|newest| self.note_expired(newest));
        Ok(())
    }

    fn look_in_laid(
        &self,
        segment: &Segment,
        keys: &Arc<LaidKeys>,
        first: u64,
        lowest: &mut Lowest,
    ) -> Result<(), ReadError> {
        for run in self.streams.iter().filter_map(|(stream, _)| keys.run(*stream)) {
            for begin in (0..run.count).step_by(KEYS_AT_ONCE) {
                self.snapshot.check_limits()?;
                let read = run.read(begin..run.count.min(begin + KEYS_AT_ONCE as u64));
                let read = self.snapshot.read_laid(segment, keys, read)?;
                read.iter().for_each(|key| lowest.offer(first, key.sequence));
            }
        }
        Ok(())
    }

    /// Shows what is wanted of all rows up to a sequence. Returns whether `show` wants more.
    fn show_all(
        &mut self,
        segment: &Arc<Segment>,
        up_to: u64,
        show: &mut impl FnMut(Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<bool, ReadError> {
        let (snapshot, filter, after) = (self.snapshot, self.filter, self.place.after);
        self.work = self.work.saturating_sub(up_to - after);
        let goes_on = snapshot.on(segment, |connection| {
            let mut select = connection.prepare_cached(schema::SELECT_EVENTS_OF_WEBSITE_AFTER)?;
            let event_type = filter.event_type.map(EventType::as_str);
            let mut rows =
                select.query(params![after.cast_signed(), up_to.cast_signed(), filter.website_id, event_type])?;
            while let Some(row) = rows.next()? {
                let sequence = row.get::<_, i64>(0)?.unsigned_abs();
                if !self.show(segment.number, sequence, &row::event_row(row)?, show)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if goes_on {
            self.place.after = up_to;
        }
        Ok(goes_on)
    }

    /// Shows these rows. Returns whether `show` wants more.
    fn show_some(
        &mut self,
        segment: &Arc<Segment>,
        rows: &NextRows,
        show: &mut impl FnMut(Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<bool, ReadError> {
        let snapshot = self.snapshot;
        for &sequence in &rows.sequences {
            if self.work == 0 {
                return Ok(false);
            }
            self.work = self.work.saturating_sub(FOUND_WORK);
            let more = snapshot.on(segment, |connection| {
                row::fetch(connection, sequence, |row| self.show(segment.number, sequence, row, show))
            })?;
            // One that is not there any more has been erased.
            self.place.after = sequence;
            if more == Some(false) {
                return Ok(false);
            }
        }
        self.place.after = rows.up_to;
        Ok(true)
    }

    /// Shows one event, unless it is hidden or has expired. Returns whether `show` wants more.
    fn show(
        &mut self,
        segment: i64,
        sequence: u64,
        row: &EventRow<'_>,
        show: &mut impl FnMut(Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<bool, ReadError> {
        if row.created_at < self.snapshot.expired_before {
            self.note_expired(row.created_at);
            self.place.after = sequence;
            return Ok(true);
        }
        if self.is_hidden(row, sequence).map_err(|unreadable| self.snapshot.remake_list(segment, &unreadable))? {
            self.place.after = sequence;
            return Ok(true);
        }
        if let Some(Missing { reason, from, to, .. }) = self.place.missing {
            // That there is no room for more is told by the event.
            let _ = show(Shown::Gap(Gap { reason, from, to: to.unwrap_or(row.received_at) }))?;
        }
        let more = show(Shown::Event(sequence, row))?;
        self.place.missing = None;
        (self.place.after, self.place.time) = (sequence, row.received_at);
        Ok(more.is_continue())
    }

    fn is_hidden(&mut self, row: &EventRow<'_>, sequence: u64) -> Result<bool, UnreadableList> {
        if self.hidden.is_empty() {
            return Ok(false);
        }
        let of = self.streams.iter().find(|(_, of)| of.as_str().as_bytes() == row.event_type).map(|(of, _)| *of);
        let hidden = self.hidden.iter_mut().find(|(stream, _)| Some(*stream) == of);
        hidden.map_or(Ok(false), |(_, hidden)| hidden.holds(Key { created_at: row.created_at, sequence }))
    }
}

/// Keys of a stream that are read at once.
const KEYS_AT_ONCE: usize = 4_096;
/// The last event up to a sequence that had arrived by a time.
const LAST_ARRIVED_BY: &str =
    "SELECT id FROM Event NOT INDEXED WHERE id <= ?1 AND receivedAt <= ?2 ORDER BY id DESC LIMIT 1";
/// The keys of one website and type.
const KEYS_OF_STREAM: &str =
    "SELECT createdAt, id FROM Event INDEXED BY EventByType WHERE websiteId = ?1 AND eventType = ?2";

/// The lowest sequences after one, of those that are offered.
struct Lowest {
    after: u64,
    most: usize,
    /// There were more.
    is_cut: bool,
    /// Counted from the first sequence of the segment.
    rows: BinaryHeap<u32>,
}

impl Lowest {
    fn offer(&mut self, first: u64, sequence: u64) {
        if sequence <= self.after {
            return;
        }
        let row = (sequence - first) as u32;
        if self.rows.len() < self.most {
            self.rows.push(row);
            return;
        }
        self.is_cut = true;
        if self.rows.peek().is_some_and(|highest| row < *highest) {
            self.rows.pop();
            self.rows.push(row);
        }
    }
}

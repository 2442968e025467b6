//! Lists of the values of a property. Properties are in no rollup, since they may be anything: the events themselves
//! are read, first to find the visitors who have the property, and then all that these visitors did.

use std::{collections::HashSet, sync::Arc};

use rusqlite::params;

use super::{
    lists::MergedList,
    merged::Merged,
    question::{NumbersQuestion, NumbersReply, Span},
    scene::{hidden_in, is_near},
    shared::Shared,
    sum::Sign,
    tally::HiddenHash,
};
use crate::{
    event::EventRow,
    metrics::ReadRefused,
    store::{
        error::ReadError,
        format::{hash::visitor_hash, rollup_schema, row, schema},
        read::snapshot::Snapshot,
        rollup::{Evaluation, Lister, MemoryPiece, Selection, Values, first_whole_quarter, property},
        segments::{Content, Segment},
    },
};

/// For how long visits are followed beyond the range.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Rows between two looks at the clock and at the memory.
const ROWS_PER_LOOK: usize = 4_096;

/// What is read of a website's segments.
struct Reading<'a> {
    snapshot: &'a Snapshot<'a>,
    website_id: &'a Arc<str>,
    name: &'a str,
    segments: Vec<(Arc<Segment>, u64)>,
    bytes_max: usize,
}

impl Shared {
    /// The values of a property, with all that a question is about.
    pub(super) fn properties(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        name: &str,
        span: Span,
    ) -> Result<(MergedList, NumbersReply), ReadError> {
        let all = self.ask_one(snapshot, question, span)?;
        let around = (span.from.saturating_sub(DAY_MS), span.to.saturating_add(DAY_MS));
        let segments = segments(snapshot, &question.website_id, around);
        let bytes_max = self.options.bytes_max / 2;
        let reading = Reading { snapshot, website_id: &question.website_id, name, segments, bytes_max };
        let visitors = reading.visitors()?;
        let (piece, values, numbers) = reading.events(&visitors)?;
        let expired_before = first_whole_quarter(snapshot.expired_before);
        let asked = &question.asked;
        let matcher =
            asked.filters.look_up(&piece.dictionaries).map_err(|damaged| ReadError::Keys(Box::new(damaged)))?;
        let selection = Selection { with_unwanted: asked.with_unwanted, expired_before };
        let from = span.from.max(expired_before);
        let mut lister = Lister::by_order(values, numbers, (from, span.to.max(from)));
        piece.run(&Evaluation { selection, matcher: &matcher }, |_, _| {}, &mut lister);
        let mut merged = Merged::new(bytes_max);
        merged.add(&lister.end(), Sign::Plus);
        merged.count();
        Ok((MergedList::Exact(Arc::new(merged)), all))
    }
}

/// The segments that may have events of a website in a span, and the last sequence of each.
fn segments(snapshot: &Snapshot<'_>, website_id: &str, span: (i64, i64)) -> Vec<(Arc<Segment>, u64)> {
    let Some(site) = snapshot.site(website_id) else { return Vec::new() };
    let is_in = |segment: &&Arc<Segment>| match &segment.content {
        Content::Sealed(summary) => summary.times_of_site(site).is_some_and(|times| is_near(times, span)),
        Content::Open(open) => open.holds_site(site),
    };
    let up_to = |segment: &Arc<Segment>| snapshot.span(segment).map(|(_, last)| (Arc::clone(segment), last));
    snapshot.segments().iter().filter(is_in).filter_map(up_to).collect()
}

impl Reading<'_> {
    fn check(&self, bytes: usize) -> Result<(), ReadError> {
        if bytes > self.bytes_max {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
        self.snapshot.check_limits()
    }

    /// The hashes of the visitors with an event that has the property.
    fn visitors(&self) -> Result<HashSet<u64>, ReadError> {
        let mut visitors = HashSet::new();
        let needle = serde_json::to_string(self.name).unwrap_or_default();
        for (segment, up_to) in &self.segments {
            self.check(visitors.capacity() * 2 * size_of::<u64>())?;
            self.snapshot.on(segment, |connection| {
                let mut select = connection.prepare_cached(rollup_schema::SELECT_PROPERTIES_OF_WEBSITE)?;
                let mut rows = select.query(params![up_to.cast_signed(), self.website_id, needle])?;
                while let Some(row) = rows.next()? {
                    let properties = row.get_ref(2)?.as_bytes().map_err(rusqlite::Error::from)?;
                    if property(properties, self.name).is_some() {
                        visitors.insert(visitor_hash(row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?));
                    }
                }
                Ok(())
            })?;
        }
        Ok(visitors)
    }

    /// All events of these visitors; the values of the property; and the number of the value of each event.
    fn events(&self, visitors: &HashSet<u64>) -> Result<(MemoryPiece, Values, Vec<u32>), ReadError> {
        let (mut piece, mut values, mut numbers) = (MemoryPiece::default(), Values::unlimited(), Vec::new());
        if visitors.is_empty() {
            return Ok((piece, values, numbers));
        }
        for (segment, up_to) in &self.segments {
            let hidden = hidden_in(self.snapshot, self.website_id, segment.number);
            let is_wanted = |event: &EventRow<'_>, sequence: u64| {
                let visitor = visitor_hash(event.visitor_id);
                let is_hidden = |hidden: &HiddenHash| hidden.visitor == visitor && sequence <= hidden.up_to;
                visitors.contains(&visitor) && !hidden.iter().any(is_hidden)
            };
            self.snapshot.on(segment, |connection| {
                let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
                let mut select = connection.prepare_cached(schema::select_events_of_website(version))?;
                let mut rows = select.query(params![0, up_to.cast_signed(), self.website_id])?;
                while let Some(row) = rows.next()? {
                    let event = row::event_row(row)?;
                    if !is_wanted(&event, row.get::<_, i64>(0)?.unsigned_abs()) {
                        continue;
                    }
                    let value = event.properties.and_then(|properties| property(properties, self.name));
                    piece.add_row(&event, row.get(row::FLAGS)?, numbers.len() as u32);
                    numbers.push(values.number(value.unwrap_or_default().as_bytes()));
                    if numbers.len().is_multiple_of(ROWS_PER_LOOK) {
                        self.check(piece.memory_bytes() + values.memory_bytes() + numbers.capacity() * 4)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok((piece, values, numbers))
    }
}

//! A batch as it is read: what its items turn into, and the fast way, which reads the whole body at once.

use std::sync::Arc;

use simd_json::Node;

use super::reasons::shorten;
use crate::event::{
    fields::{Output, Place, ReadEvent},
    intake::Intake,
    record::ValidEvents,
    rejection::{Faults, Rejection},
    rules::Rules,
    tape::{TapeCursor, entries_max, kind_of, with_tape},
    values::is_tracking_code,
    warning::Warnings,
};

/// A batch whose body could be read: what is valid, and what is wrong with the rest.
#[derive(Debug)]
pub struct ParsedBatch {
    /// The valid events, in the order of the request; may be empty.
    pub events: ValidEvents,
    /// Index and fault of each refused item, in order.
    pub refused: Vec<(usize, Rejection)>,
    /// What is odd about the valid ones.
    pub warnings: Warnings,
}

pub(super) struct Batch<'r, F> {
    pub(super) rules: &'r Rules,
    pub(super) out: Output<'r>,
    pub(super) refused: Vec<(usize, Rejection)>,
    intake: F,
    /// The tracking code found last: nearly always that of the next item, too.
    last: Option<(String, Arc<Intake>)>,
}

impl<'r, F: Fn(&str) -> Option<Arc<Intake>>> Batch<'r, F> {
    pub(super) fn new(out: Output<'r>, rules: &'r Rules, intake: F) -> Self {
        Self { rules, out, refused: Vec::new(), intake, last: None }
    }

    pub(super) fn finish(self, body: Vec<u8>) -> ParsedBatch {
        let (events, warnings) = self.out.finish(body);
        ParsedBatch { events, refused: self.refused, warnings }
    }

    /// Reads the body at once; `false` if that cannot be, with nothing read and the body as it was sent.
    pub(super) fn read_whole(&mut self, body: &mut [u8], len: usize, has_escapes: bool) -> Result<bool, Rejection> {
        let limit = self.rules.item_bytes_max;
        let is_large = len > limit;
        // A large body cannot be kept as it was sent, so it must have nothing to unescape; and it must not need more of
        // the parser's memory than a small one may.
        if is_large && (has_escapes || entries_max(&body[..len]) > limit) {
            return Ok(false);
        }
        let rules = self.rules;
        let read = with_tape(body, has_escapes, rules.depth_max(), |nodes| {
            let (count, mut items) = find_items(nodes, rules.batch_events_max)?;
            if is_large && !self.items_are_small(&items, count, len) {
                return Ok(false);
            }
            self.out.events.records.reserve_exact(count);
            let place = Place { rules, end: len, cut: None };
            for index in 0..count {
                let event = self.out.read_event(&mut items, &place);
                self.take(index, event);
            }
            Ok(true)
        });
        // What the parser refuses may be the fault of single items.
        read.unwrap_or(Ok(false))
    }

    /// Takes an event in, or says why not.
    pub(super) fn take(&mut self, index: usize, event: ReadEvent<'_>) {
        // The contract puts an unknown code before every other fault of its item.
        let website = event.tracking_code.map(|code| self.website_of(code));
        match website {
            Some(Err(unknown)) => self.refused.push((index, unknown)),
            Some(Ok(website)) if event.faults.is_empty() => {
                if let Err(refusal) = self.out.accept(index, event, website, self.rules) {
                    self.refused.push((index, refusal));
                }
            }
            _ => self.refused.push((index, Rejection::Invalid(event.faults))),
        }
    }

    /// The website of a code, well formed or not.
    pub(super) fn website_of(&mut self, code: &str) -> Result<Arc<Intake>, Rejection> {
        if let Some((known, website)) = &self.last
            && known == code
        {
            return Ok(Arc::clone(website));
        }
        let website = if is_tracking_code(code) { (self.intake)(code) } else { None };
        let website = website.ok_or_else(|| Rejection::UnknownWebsite(shorten(code)))?;
        self.last = Some((code.to_owned(), Arc::clone(&website)));
        Ok(website)
    }

    /// Whether no item can be over its limit. The tape does not tell where an item begins and ends, but each lies
    /// between the string before it and the first one behind it, and so within two steps from one item's first string
    /// to the next one's.
    fn items_are_small(&self, items: &TapeCursor<'_, '_>, count: usize, len: usize) -> bool {
        let mut items = TapeCursor { nodes: items.nodes };
        let step_max = self.rules.item_bytes_max / 2;
        let (mut before, mut first, mut nodes_from_first) = (0, 0, usize::MAX);
        for _ in 0..count {
            // Many items may lie before one string: it is looked for once.
            if items.nodes.len() < nodes_from_first {
                let found = items.next_string(self.out.body_start);
                (first, nodes_from_first) = found.map_or((len, 0), |(at, skipped)| (at, items.nodes.len() - skipped));
            }
            if first - before > step_max {
                return false;
            }
            before = first;
            items.skip();
        }
        len - before <= step_max
    }
}

/// Finds `events` in a batch's body: how many items, and a cursor that stands on the first.
fn find_items<'t, 'b>(nodes: &'t [Node<'b>], events_max: usize) -> Result<(usize, TapeCursor<'t, 'b>), Rejection> {
    let mut cursor = TapeCursor { nodes };
    let Some(members) = cursor.enter_object() else { return Err(no_object(kind_of(cursor.peek()))) };
    let mut found = None;
    for _ in 0..members {
        if cursor.next_key() != "events" {
            cursor.skip();
            continue;
        }
        if found.is_some() {
            return Err(doubled());
        }
        found = Some(TapeCursor { nodes: cursor.nodes });
        cursor.skip();
    }
    let Some(mut items) = found else { return Err(absent()) };
    let Some(count) = items.enter_array() else { return Err(no_array(kind_of(items.peek()))) };
    check_count(count, events_max)?;
    Ok((count, items))
}

pub(super) fn no_object(kind: &str) -> Rejection {
    Rejection::Invalid(Faults::of_form(format!("Expected an object with \"events\", received {kind}")))
}

pub(super) fn no_array(kind: &str) -> Rejection {
    of_events(format!("Expected an array, received {kind}"))
}

pub(super) fn doubled() -> Rejection {
    of_events("Given more than once".into())
}

pub(super) fn absent() -> Rejection {
    of_events("Required".into())
}

pub(super) fn check_count(count: usize, events_max: usize) -> Result<(), Rejection> {
    match count {
        0 => Err(of_events("Expected at least 1 event".into())),
        count if count > events_max => Err(of_events(format!(
            "Expected at most {events_max} events, received {count}; send them in several batches"
        ))),
        _ => Ok(()),
    }
}

fn of_events(text: String) -> Rejection {
    Rejection::Invalid(Faults::of_field("events", text))
}

//! Parsing: one pass over the body, one walk over its tape, no allocation per field.

use std::sync::Arc;

use simd_json::Node;

use super::{
    fields::{Output, is_tracking_code},
    record::ValidEvents,
    rejection::{Faults, Rejection},
    rules::Rules,
    tape::{TapeCursor, kind_of, with_tape},
};

/// A batch whose body could be read: what is valid, and what is wrong with the rest.
#[derive(Debug)]
pub struct ParsedBatch {
    /// The valid events, in the order of the request; may be empty.
    pub events: ValidEvents,
    /// Index and fault of each refused item, in order.
    pub refused: Vec<(usize, Rejection)>,
    /// How many timestamps were too far ahead and were set to the arrival.
    pub clocks_corrected: u64,
}

/// Nesting above an event's properties in a batch: the body, its array, the event.
const DEPTH_ABOVE_PROPERTIES: usize = 3;
/// How much of an unknown tracking code is repeated to the client.
const ECHO_CHARS_MAX: usize = 64;

/// Parses the body of one event that arrived at `received_at` (milliseconds since 1970).
///
/// `website_id` finds the website of a well-formed tracking code. The second value tells how many timestamps
/// (none or one) were set to the arrival.
pub fn parse_event(
    body: Vec<u8>,
    rules: &Rules,
    received_at: i64,
    website_id: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<(ValidEvents, u64), Rejection> {
    let mut out = Output::new(received_at, 1);
    let body = with_tape(body, depth_max(rules), |nodes, body_start| {
        out.body_start = body_start;
        let mut cursor = TapeCursor { nodes };
        let event = out.read_event(&mut cursor, rules)?;
        if !event.faults.is_empty() {
            return Err(Rejection::Invalid(event.faults));
        }
        // Without a fault there is a code, and it is well formed.
        let code = event.tracking_code.unwrap_or_default();
        let website = website_id(code).ok_or_else(|| Rejection::UnknownWebsite(shorten(code)))?;
        out.accept(event, website);
        Ok(())
    })?;
    Ok(out.finish(body))
}

/// Parses the body of a batch that arrived at `received_at` (milliseconds since 1970).
///
/// An error refuses the whole body; faults of single items are in [`ParsedBatch::refused`].
pub fn parse_batch(
    body: Vec<u8>,
    rules: &Rules,
    received_at: i64,
    website_id: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<ParsedBatch, Rejection> {
    let mut out = Output::new(received_at, 0);
    let mut refused = Vec::new();
    let body = with_tape(body, depth_max(rules), |nodes, body_start| {
        out.body_start = body_start;
        let (count, mut items) = find_items(nodes, rules.batch_events_max)?;
        out.events.records.reserve_exact(count);
        let mut last: Option<(&str, Arc<str>)> = None;
        for index in 0..count {
            let event = out.read_event(&mut items, rules)?;
            let website = match event.tracking_code {
                // The contract puts an unknown code before every other fault of its item.
                Some(code) => match &last {
                    Some((known, website)) if *known == code => Some(Arc::clone(website)),
                    _ if !is_tracking_code(code) => None,
                    _ => website_id(code).inspect(|website| last = Some((code, Arc::clone(website)))),
                }
                .ok_or_else(|| Rejection::UnknownWebsite(shorten(code))),
                None => Err(Rejection::Invalid(event.faults.clone())),
            };
            match website {
                Err(rejection) => refused.push((index, rejection)),
                Ok(_) if !event.faults.is_empty() => refused.push((index, Rejection::Invalid(event.faults))),
                Ok(website) => out.accept(event, website),
            }
        }
        Ok(())
    })?;
    let (events, clocks_corrected) = out.finish(body);
    Ok(ParsedBatch { events, refused, clocks_corrected })
}

/// Finds `events` in a batch's body: how many items, and a cursor that stands on the first.
fn find_items<'t, 'b>(nodes: &'t [Node<'b>], events_max: usize) -> Result<(usize, TapeCursor<'t, 'b>), Rejection> {
    let invalid = |text: String| Err(Rejection::Invalid(Faults::of_field("events", text)));
    let mut cursor = TapeCursor { nodes };
    let Some(members) = cursor.enter_object() else {
        return Err(Rejection::Invalid(Faults::of_form(format!(
            "Expected an object with \"events\", received {}",
            kind_of(cursor.peek())
        ))));
    };
    let mut found = None;
    for _ in 0..members {
        if cursor.next_key() != "events" {
            cursor.skip();
            continue;
        }
        if found.is_some() {
            return invalid("Given more than once".into());
        }
        found = Some(TapeCursor { nodes: cursor.nodes });
        cursor.skip();
    }
    let Some(mut items) = found else { return invalid("Required".into()) };
    let Some(count) = items.enter_array() else {
        return invalid(format!("Expected an array, received {}", kind_of(items.peek())));
    };
    match count {
        0 => invalid("Expected at least 1 event".into()),
        count if count > events_max => {
            invalid(format!("Expected at most {events_max} events, received {count}; send them in several batches"))
        }
        count => Ok((count, items)),
    }
}

fn depth_max(rules: &Rules) -> usize {
    DEPTH_ABOVE_PROPERTIES + rules.properties_depth_max
}

fn shorten(code: &str) -> String {
    match code.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &code[..at]),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests;

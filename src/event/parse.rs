//! Parsing: one pass over the body, one walk over its tape, no allocation per field.
//!
//! What the parser refuses is looked at again: for the place of the fault, and, in a batch, for the items that it does
//! not concern.

mod batch;
mod items;

use std::sync::Arc;

use super::{
    body::Body,
    field::Field,
    fields::{Output, Place},
    record::ValidEvents,
    rejection::Rejection,
    rules::Rules,
    scan::{Excess, Fault, scan, text_of},
    tape::{TapeCursor, with_tape},
    warning::Warnings,
};
use batch::Batch;

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

/// How much of an unknown tracking code is repeated to the client.
const ECHO_CHARS_MAX: usize = 64;

/// Parses the body of one event that arrived at `received_at` (milliseconds since 1970).
///
/// `website_id` finds the website of a well-formed tracking code.
pub fn parse_event(
    body: Vec<u8>,
    rules: &Rules,
    received_at: i64,
    website_id: impl Fn(&str) -> Option<Arc<str>>,
) -> Result<(ValidEvents, Warnings), Rejection> {
    let Body { mut bytes, len, has_escapes, repairs } = Body::prepare(body)?;
    let mut out = Output::new(received_at, bytes.as_ptr() as usize, repairs);
    let place = Place { rules, end: len, cut: None };
    let read = with_tape(&mut bytes, has_escapes, depth_max(rules), |nodes| {
        let event = out.read_event(&mut TapeCursor { nodes }, &place);
        if !event.faults.is_empty() {
            return Err(Rejection::Invalid(event.faults));
        }
        // Without a fault there is a code, and it is well formed.
        let code = event.tracking_code.unwrap_or_default();
        let website = website_id(code).ok_or_else(|| Rejection::UnknownWebsite(shorten(code)))?;
        out.events.records.reserve_exact(1);
        out.accept(0, event, website, rules);
        Ok(())
    });
    match read {
        Ok(read) => read?,
        Err(_) => return Err(why_refused(&bytes[..len], rules)),
    }
    Ok(out.finish(bytes))
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
    let Body { mut bytes, len, has_escapes, repairs } = Body::prepare(body)?;
    let out = Output::new(received_at, bytes.as_ptr() as usize, repairs);
    let mut batch = Batch::new(out, rules, website_id);
    if !batch.read_whole(&mut bytes, len, has_escapes)? {
        batch.read_by_items(&mut bytes, len, has_escapes)?;
    }
    Ok(batch.finish(bytes))
}

/// Nesting that the parser takes: an event, and its `properties` with all that is in them.
fn depth_max(rules: &Rules) -> usize {
    1 + rules.properties_depth_max
}

/// Tells why the parser refused the body of an event, with the first byte that is wrong.
fn why_refused(body: &[u8], rules: &Rules) -> Rejection {
    let mut excess = None;
    let scanned = scan(body, depth_max(rules), |scanner| {
        if scanner.peek() == Some(b'{') {
            scanner.members(|scanner, name| {
                scanner.value()?;
                if let Some((at, kind)) = scanner.take_excess().filter(|_| excess.is_none()) {
                    let field = Field::from_name(&text_of(name)).map(Field::name);
                    excess = Some((at, kind, field));
                }
                Ok(())
            })
        } else {
            scanner.value()?;
            excess = scanner.take_excess().map(|(at, kind)| (at, kind, None));
            Ok(())
        }
    });
    match (scanned, excess) {
        (Err(fault), _) => malformed(&fault),
        (Ok(()), Some((at, kind, field))) => {
            let of = field.map_or_else(String::new, |field| format!(" in \"{field}\""));
            Rejection::Malformed(format!("Invalid JSON at byte {at}: {}{of}", excess_text(kind, rules)))
        }
        (Ok(()), None) => Rejection::Malformed("Invalid JSON".into()),
    }
}

fn malformed(fault: &Fault) -> Rejection {
    Rejection::Malformed(format!("Invalid JSON at byte {}: {}", fault.at, fault.what))
}

fn excess_text(kind: Excess, rules: &Rules) -> String {
    match kind {
        Excess::Depth => format!("nested more than {} deep", rules.properties_depth_max),
        Excess::Number => "a number outside -2^63 to 2^64-1 (whole) or the finite doubles".into(),
    }
}

fn shorten(code: &str) -> String {
    match code.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &code[..at]),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! Parsing: one pass over the body, one walk over its tape, no allocation per field.
//!
//! What the parser refuses is looked at again: for the place of the fault, and, in a batch, for the items that it does
//! not concern.

mod batch;
mod items;
mod reasons;

use std::sync::Arc;

use super::{
    arrival::Arrival,
    body::Body,
    fields::{Output, Place},
    intake::Intake,
    naming::Naming,
    record::ValidEvents,
    rejection::Rejection,
    rules::Rules,
    tape::{TapeCursor, with_tape},
    warning::Warnings,
};
use batch::Batch;
pub use batch::ParsedBatch;
use reasons::{shorten, why_refused};

/// Parses the body of one event.
///
/// `intake` finds what the website of a well-formed tracking code takes.
pub fn parse_event(
    body: Vec<u8>,
    rules: &Rules,
    arrival: &Arrival,
    intake: impl Fn(&str) -> Option<Arc<Intake>>,
) -> Result<(ValidEvents, Warnings), Rejection> {
    parse_named_event(Naming::Own, body, rules, arrival, intake)
}

/// Parses the body of one event whose members have these names.
///
/// `intake` finds what the website of a well-formed tracking code takes.
pub fn parse_named_event(
    naming: Naming,
    body: Vec<u8>,
    rules: &Rules,
    arrival: &Arrival,
    intake: impl Fn(&str) -> Option<Arc<Intake>>,
) -> Result<(ValidEvents, Warnings), Rejection> {
    let Body { mut bytes, len, has_escapes, repairs } = Body::prepare(body)?;
    let mut out = Output::new(naming, arrival, &bytes, repairs);
    let place = Place { rules, end: len, cut: None };
    let read = with_tape(&mut bytes, has_escapes, rules.depth_max(), |nodes| {
        let event = out.read_event(&mut TapeCursor { nodes }, &place);
        if !event.faults.is_empty() {
            return Err(Rejection::Invalid(event.faults));
        }
        // Without a fault there is a code, and it is well formed.
        let code = event.tracking_code.unwrap_or_default();
        let website = intake(code).ok_or_else(|| Rejection::UnknownWebsite(shorten(code)))?;
        out.events.records.reserve_exact(1);
        out.accept(0, event, website, rules)
    });
    match read {
        Ok(read) => read?,
        Err(_) => return Err(why_refused(naming, &bytes[..len], rules)),
    }
    Ok(out.finish(bytes))
}

/// Parses the body of a batch.
///
/// An error refuses the whole body; faults of single items are in [`ParsedBatch::refused`].
pub fn parse_batch(
    body: Vec<u8>,
    rules: &Rules,
    arrival: &Arrival,
    intake: impl Fn(&str) -> Option<Arc<Intake>>,
) -> Result<ParsedBatch, Rejection> {
    let Body { mut bytes, len, has_escapes, repairs } = Body::prepare(body)?;
    let out = Output::new(Naming::Own, arrival, &bytes, repairs);
    let mut batch = Batch::new(out, rules, intake);
    if !batch.read_whole(&mut bytes, len, has_escapes)? {
        batch.read_by_items(&mut bytes, len, has_escapes)?;
    }
    Ok(batch.finish(bytes))
}

#[cfg(test)]
mod tests;

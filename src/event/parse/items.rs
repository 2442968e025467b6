//! The way of a batch that cannot be read at once: its items one by one, so that one's fault is no other's.
//!
//! The body as a whole must be well-formed JSON, or nobody could say where an item ends. What the parser refuses in an
//! item is cut out of it, and told; the rest is read as ever.

use std::{ops::Range, sync::Arc};

use super::{
    batch::{Batch, absent, check_count, doubled, no_array, no_object},
    reasons::{excess_text, malformed},
};
use crate::event::{
    body::has_backslash,
    field::{Field, FieldSet},
    fields::{Cut, Place},
    intake::Intake,
    rejection::{Faults, Rejection},
    rules::Rules,
    scan::{Scanner, scan, text_of},
    tape::{BODY_PADDING, TapeCursor, with_tape},
    values::expected_object,
};

/// What the members named `events` of a batch hold.
#[derive(Default)]
struct Outline {
    /// How many such members there are, and the kind of the first one's value.
    found: usize,
    kind: &'static str,
    /// Where the first items stand, as many as may be.
    items: Vec<Range<usize>>,
    count: usize,
}

impl<F: Fn(&str) -> Option<Arc<Intake>>> Batch<'_, F> {
    /// Reads the items of the body, each by itself.
    pub(super) fn read_by_items(&mut self, body: &mut [u8], len: usize, has_escapes: bool) -> Result<(), Rejection> {
        let items = find_items(&body[..len], self.rules)?;
        self.out.events.records.reserve_exact(items.len());
        for (index, item) in items.into_iter().enumerate() {
            self.read_item(index, body, item, has_escapes);
        }
        Ok(())
    }

    fn read_item(&mut self, index: usize, body: &mut [u8], item: Range<usize>, has_escapes: bool) {
        let rules = self.rules;
        let text = &body[item.clone()];
        if text.first() != Some(&b'{') {
            self.refused
                .push((index, Rejection::Invalid(Faults::of_form(expected_object(kind_of(text.first().copied()))))));
            return;
        }
        if text.len() > rules.item_bytes_max {
            let fault = format!("At most {} bytes, received {}", rules.item_bytes_max, text.len());
            let unknown = tracking_code(text).and_then(|code| self.website_of(&code).err());
            self.refused.push((index, unknown.unwrap_or_else(|| Rejection::Invalid(Faults::of_form(fault)))));
            return;
        }
        let has_escapes = has_escapes && has_backslash(text);
        if self.read_tape(index, body, &item, has_escapes, None) {
            return;
        }
        let cut = cut_out(&mut body[item.clone()], item.start, rules);
        if !self.read_tape(index, body, &item, has_escapes, Some(&cut)) {
            // The two readers of JSON disagree, which tests have not seen.
            self.refused.push((index, Rejection::Invalid(Faults::of_form("Not JSON that is taken"))));
        }
    }

    /// `false` if the parser refuses the item.
    fn read_tape(
        &mut self,
        index: usize,
        body: &mut [u8],
        item: &Range<usize>,
        has_escapes: bool,
        cut: Option<&Cut>,
    ) -> bool {
        let place = Place { rules: self.rules, end: item.end, cut };
        let padded = &mut body[item.start..item.end + BODY_PADDING];
        with_tape(padded, has_escapes, place.rules.depth_max(), |nodes| {
            let event = self.out.read_event(&mut TapeCursor { nodes }, &place);
            self.take(index, event);
        })
        .is_ok()
    }
}

/// Finds the items of a batch, or says why the body as a whole is refused.
fn find_items(body: &[u8], rules: &Rules) -> Result<Vec<Range<usize>>, Rejection> {
    let outline = scan(body, usize::MAX, |scanner| {
        let mut outline = Outline::default();
        if scanner.peek() != Some(b'{') {
            outline.kind = kind_of(scanner.peek());
            scanner.value()?;
            return Ok(Err(no_object(outline.kind)));
        }
        scanner.members(|scanner, name| {
            let is_first = text_of(name) == "events" && {
                outline.found += 1;
                outline.found == 1
            };
            if !is_first {
                return scanner.value().map(drop);
            }
            outline.kind = kind_of(scanner.peek());
            if scanner.peek() != Some(b'[') {
                return scanner.value().map(drop);
            }
            scanner.items(|scanner| {
                let item = scanner.value()?;
                if outline.count < rules.batch_events_max {
                    outline.items.push(item);
                }
                outline.count += 1;
                Ok(())
            })
        })?;
        Ok(Ok(outline))
    });
    let outline = outline.map_err(|fault| malformed(&fault))??;
    match outline.found {
        0 => Err(absent()),
        1 if outline.kind != ARRAY => Err(no_array(outline.kind)),
        1 => check_count(outline.count, rules.batch_events_max).map(|()| outline.items),
        _ => Err(doubled()),
    }
}

const ARRAY: &str = "an array";

/// The kind of the value that begins with this byte.
fn kind_of(first: Option<u8>) -> &'static str {
    match first {
        Some(b'{') => "an object",
        Some(b'[') => ARRAY,
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Cuts the values that the parser refuses out of an item that begins at byte `start` of the body, and leaves others of
/// their kind.
fn cut_out(item: &mut [u8], start: usize, rules: &Rules) -> Cut {
    let mut cut = Cut::default();
    let mut seen = FieldSet::default();
    let mut values = Vec::new();
    // The item is well-formed, so the scan comes to its end.
    let _ = scan(item, rules.depth_max(), |scanner| {
        scanner.members(|scanner, name| {
            let value = scanner.value()?;
            let field = Field::from_name(&text_of(name));
            let is_second = field.is_some_and(|field| !seen.insert(field));
            let Some((at, kind)) = scanner.take_excess() else { return Ok(()) };
            values.push(value);
            let fault = format!("At byte {} of the body: {}", start + at, excess_text(kind, rules));
            match field {
                // A second one is a fault whatever it says.
                Some(_) if is_second => {}
                // Whatever is no URL is dropped from there, and costs nothing else.
                Some(Field::Referrer) => {}
                Some(field) => {
                    cut.fields.insert(field);
                    cut.faults.add(field.name(), fault);
                }
                None => cut.faults.add_of_form(fault),
            }
            Ok(())
        })
    });
    for value in values {
        let value = &mut item[value];
        let first = value[0];
        value.fill(b' ');
        let other: &[u8] = match first {
            b'{' => b"{}",
            b'[' => b"[]",
            _ => b"0",
        };
        value[..other.len()].copy_from_slice(other);
    }
    cut
}

/// The tracking code of an item that is not parsed, if it is a string.
fn tracking_code(item: &[u8]) -> Option<String> {
    let mut code = None;
    let read = |scanner: &mut Scanner<'_>| {
        scanner.members(|scanner, name| {
            let is_code = code.is_none() && text_of(name) == Field::TrackingCode.name();
            let value = scanner.value()?;
            if is_code {
                code = Some(text_of_string(scanner.bytes_of(value)));
            }
            Ok(())
        })
    };
    let _ = scan(item, usize::MAX, read);
    code.flatten()
}

fn text_of_string(value: &[u8]) -> Option<String> {
    value.starts_with(b"\"").then(|| text_of(value).into_owned())
}

//! Why a body or an item is refused, in words, with the byte.

use crate::event::{
    naming::Naming,
    rejection::Rejection,
    rules::Rules,
    scan::{Excess, Fault, scan, text_of},
};

/// How much of an unknown tracking code is repeated to the client.
pub(super) const ECHO_CHARS_MAX: usize = 64;

/// Tells why the parser refused the body of an event, with the first byte that is wrong.
pub(super) fn why_refused(naming: Naming, body: &[u8], rules: &Rules) -> Rejection {
    let mut excess = None;
    let scanned = scan(body, rules.depth_max(), |scanner| {
        if scanner.peek() == Some(b'{') {
            scanner.members(|scanner, name| {
                scanner.value()?;
                if let Some((at, kind)) = scanner.take_excess().filter(|_| excess.is_none()) {
                    let field = naming.field(&text_of(name)).map(|field| naming.name(field));
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

pub(super) fn malformed(fault: &Fault) -> Rejection {
    Rejection::Malformed(format!("Invalid JSON at byte {}: {}", fault.at, fault.what))
}

pub(super) fn excess_text(kind: Excess, rules: &Rules) -> String {
    match kind {
        Excess::Depth => format!("nested more than {} deep", rules.properties_depth_max),
        Excess::Number => "a number outside -2^63 to 2^64-1 (whole) or the finite doubles".into(),
    }
}

pub(super) fn shorten(code: &str) -> String {
    match code.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &code[..at]),
        None => code.to_owned(),
    }
}

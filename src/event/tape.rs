//! simd-json's tape: the whole body parsed in one pass, without a copy of its strings.
//!
//! Owns the parser's memory, which each thread keeps from one body to the next, the cursor that walks a tape, and
//! the words for what is malformed. Knows JSON, not events.

use std::{borrow::Cow, cell::RefCell};

use simd_json::{Buffers, ErrorType, Node, StaticNode, Tape};

use super::{json, rejection::Rejection};

/// Spare room that the parser needs behind a body. A body whose buffer has it is parsed in place.
pub const BODY_PADDING: usize = simd_json::INPUT_PADDING;

/// Bodies above this size give their parser's memory back at once: 4 MiB of `[[[…` need a tape of 100 MB.
const WORKSPACE_BODY_BYTES_MAX: usize = 256 * 1024;

/// simd-json's memory, kept by each thread from one body to the next.
struct Workspace {
    buffers: Buffers,
    tape: Tape<'static>,
    depth_max: usize,
}

thread_local! {
    static WORKSPACE: RefCell<Option<Workspace>> = const { RefCell::new(None) };
}

/// Runs `walk` over the tape of `body`, with the address at which the body stands, and gives the body back, its
/// strings unescaped in place.
pub(super) fn with_tape(
    mut body: Vec<u8>,
    depth_max: usize,
    walk: impl FnOnce(&[Node<'_>], usize) -> Result<(), Rejection>,
) -> Result<Vec<u8>, Rejection> {
    let len = body.len();
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Rejection::Malformed("The body is empty; send a JSON object".into()));
    }
    let kept = WORKSPACE.take().filter(|workspace| workspace.depth_max == depth_max);
    let Workspace { mut buffers, tape, .. } = kept.unwrap_or_else(|| Workspace {
        buffers: Buffers::with_max_depth(len, depth_max),
        tape: Tape(Vec::new()),
        depth_max,
    });
    body.resize(len + BODY_PADDING, 0);
    let body_start = body.as_ptr() as usize;
    let mut tape = tape.reset();
    let walked = simd_json::fill_tape_padded(&mut body, len, &mut buffers, &mut tape)
        .map(|()| walk(&tape.0, body_start))
        .map_err(|error| (error, Reached::on(&tape.0, body_start)));
    let tape = tape.reset();
    let result = match walked {
        Ok(result) => result.map(|()| body),
        Err((error, reached)) => {
            let place = place_of(&error, &reached, buffers.structural_indexes(), &body[..len]);
            Err(malformed(&error, &reached, place, depth_max))
        }
    };
    if len <= WORKSPACE_BODY_BYTES_MAX {
        WORKSPACE.set(Some(Workspace { buffers, tape, depth_max }));
    }
    result
}

/// Says in words, and with the byte, why the parser refused a body.
fn malformed(error: &simd_json::Error, reached: &Reached, place: Option<usize>, depth_max: usize) -> Rejection {
    let what: Cow<'static, str> = match error.error() {
        ErrorType::InvalidUtf8 => "the body is not valid UTF-8 (or escapes half a surrogate pair)".into(),
        ErrorType::InvalidUnicodeEscape | ErrorType::InvalidUnicodeCodepoint => {
            "an escape \\uXXXX is invalid, or half a surrogate pair".into()
        }
        ErrorType::InvalidEscape => "an escape in a string is invalid".into(),
        ErrorType::InvalidNumber | ErrorType::InvalidExponent | ErrorType::Overflow => {
            "a number is invalid, or outside -2^63 to 2^64-1 (whole) or the finite doubles".into()
        }
        ErrorType::DepthLimitExceeded => format!("nested more than {depth_max} deep").into(),
        ErrorType::UnterminatedString => "a string does not end".into(),
        ErrorType::TrailingData => "something follows the JSON value".into(),
        // Its first pass looks at strings only, its second at what they are part of; both call their faults this.
        ErrorType::Syntax if matches!(reached, Reached::Nothing) => {
            "a string does not end, or holds a control character".into()
        }
        ErrorType::Eof | ErrorType::Syntax => "the body ends too early".into(),
        ErrorType::ExpectedObjectColon => "expected ':' after a member's name".into(),
        ErrorType::ExpectedMapComma => "expected ',' or '}' after a member".into(),
        ErrorType::ExpectedArrayComma => "expected ',' or ']' after an item".into(),
        ErrorType::KeyMustBeAString | ErrorType::ExpectedObjectKey | ErrorType::BadKeyType => {
            "expected a member's name in quotes".into()
        }
        _ => "expected a JSON value".into(),
    };
    match place {
        Some(index) => Rejection::Malformed(format!("Invalid JSON at byte {index}: {what}")),
        None => Rejection::Malformed(format!("Invalid JSON: {what}")),
    }
}

/// How far the parser came before it failed.
enum Reached {
    /// Its first pass failed, over the whole body at once; the body is as it was sent.
    Nothing,
    /// The tape was begun; its last string, if any, stands at this byte.
    Tape(Option<usize>),
}

impl Reached {
    fn on(tape: &[Node<'_>], body_start: usize) -> Self {
        if tape.is_empty() {
            return Self::Nothing;
        }
        Self::Tape(tape.iter().rev().find_map(|node| match node {
            Node::String(text) => Some(text.as_ptr() as usize - body_start),
            _ => None,
        }))
    }
}

/// The byte of a fault. simd-json does not tell the place of some; they are looked for again, more slowly.
fn place_of(error: &simd_json::Error, reached: &Reached, structurals: &[u32], body: &[u8]) -> Option<usize> {
    if error.index() > 0 {
        return Some(error.index());
    }
    if let Reached::Tape(last_string) = reached {
        // A string with a bad escape: the one that follows the last good one.
        let quote = structurals
            .iter()
            .map(|index| *index as usize)
            .find(|index| body.get(*index) == Some(&b'"') && last_string.is_none_or(|start| *index >= start));
        if quote.is_some() {
            return quote;
        }
    }
    // Bad encoding, an unclosed string, a control character, an early end.
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(fault) => return Some(fault.valid_up_to()),
    };
    let Err(fault) = serde_json::from_str::<serde::de::IgnoredAny>(text) else {
        // A body that is nothing but a number out of range: the fault is at the very first byte.
        return Some(0);
    };
    let lines_before: usize = text.split_inclusive('\n').take(fault.line() - 1).map(str::len).sum();
    Some(lines_before + fault.column())
}

/// A place on the tape. Every value knows how many nodes it spans, so anything can be stepped over.
pub(super) struct TapeCursor<'t, 'b> {
    pub(super) nodes: &'t [Node<'b>],
}

impl<'t, 'b> TapeCursor<'t, 'b> {
    pub(super) fn peek(&self) -> Node<'b> {
        self.nodes.first().copied().unwrap_or(Node::Static(StaticNode::Null))
    }

    fn advance(&mut self, nodes: usize) {
        self.nodes = self.nodes.get(nodes..).unwrap_or_default();
    }

    pub(super) fn enter_object(&mut self) -> Option<usize> {
        let Node::Object { len, .. } = self.peek() else { return None };
        self.advance(1);
        Some(len)
    }

    pub(super) fn enter_array(&mut self) -> Option<usize> {
        let Node::Array { len, .. } = self.peek() else { return None };
        self.advance(1);
        Some(len)
    }

    pub(super) fn next_key(&mut self) -> &'b str {
        let key = match self.peek() {
            Node::String(key) => key,
            _ => "",
        };
        self.advance(1);
        key
    }

    pub(super) fn skip(&mut self) {
        match self.peek() {
            Node::Object { count, .. } | Node::Array { count, .. } => self.advance(1 + count),
            Node::String(_) | Node::Static(_) => self.advance(1),
        }
    }
}

pub(super) fn kind_of(node: Node<'_>) -> &'static str {
    match node {
        Node::String(_) => "a string",
        Node::Object { .. } => "an object",
        Node::Array { .. } => "an array",
        Node::Static(StaticNode::Null) => "null",
        Node::Static(StaticNode::Bool(_)) => "a boolean",
        Node::Static(_) => "a number",
    }
}

/// Writes the value at `cursor` as compact JSON and moves the cursor past it. Recursion is as deep as the value, at
/// most `depth_left`.
pub(super) fn write_value(
    cursor: &mut TapeCursor<'_, '_>,
    out: &mut Vec<u8>,
    depth_left: usize,
) -> Result<(), Rejection> {
    let node = cursor.peek();
    if matches!(node, Node::Object { .. } | Node::Array { .. }) && depth_left == 0 {
        return Err(Rejection::Malformed("Invalid JSON: \"properties\" is nested too deep".into()));
    }
    cursor.advance(1);
    match node {
        Node::String(text) => json::write_string(out, text.as_bytes()),
        Node::Static(StaticNode::Null) => out.extend_from_slice(b"null"),
        Node::Static(StaticNode::Bool(true)) => out.extend_from_slice(b"true"),
        Node::Static(StaticNode::Bool(false)) => out.extend_from_slice(b"false"),
        Node::Static(StaticNode::I64(number)) => json::write_integer(out, number),
        Node::Static(StaticNode::U64(number)) => json::write_integer(out, number),
        Node::Static(StaticNode::F64(number)) => json::write_double(out, number),
        Node::Array { len, .. } => {
            out.push(b'[');
            for at in 0..len {
                if at > 0 {
                    out.push(b',');
                }
                write_value(cursor, out, depth_left - 1)?;
            }
            out.push(b']');
        }
        Node::Object { len, .. } => {
            out.push(b'{');
            for at in 0..len {
                if at > 0 {
                    out.push(b',');
                }
                json::write_string(out, cursor.next_key().as_bytes());
                out.push(b':');
                write_value(cursor, out, depth_left - 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

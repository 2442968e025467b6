//! simd-json's tape: JSON parsed in one pass, without a copy of its strings.
//!
//! Owns the parser's memory, which each thread keeps from one body to the next, and the cursor that walks a tape.
//! What the parser refuses is told by `scan`. Knows JSON, not events.

use std::cell::RefCell;

use simd_json::{Buffers, Node, StaticNode, Tape};

use super::json;

/// Spare room that the parser needs behind a body. A body whose buffer has it is parsed in place.
pub const BODY_PADDING: usize = simd_json::INPUT_PADDING;

/// Bodies above this size give their parser's memory back at once.
const WORKSPACE_BODY_BYTES_MAX: usize = 256 * 1024;

/// The parser's memory, kept by each thread from one body to the next.
struct Workspace {
    buffers: Buffers,
    tape: Tape<'static>,
    depth_max: usize,
    /// A text with escapes as it was sent: the parser unescapes it in place even when it goes on to refuse it.
    sent: Vec<u8>,
}

thread_local! {
    static WORKSPACE: RefCell<Option<Workspace>> = const { RefCell::new(None) };
}

/// The parser refused a text, which is as it was sent.
#[derive(Debug)]
pub(super) struct Refused;

/// Runs `walk` over the tape of the text, whose strings are unescaped in place. It is followed by [`BODY_PADDING`]
/// bytes that belong to nobody or to what comes next: they are read, and left as they are.
pub(super) fn with_tape<R>(
    padded: &mut [u8],
    has_escapes: bool,
    depth_max: usize,
    walk: impl FnOnce(&[Node<'_>]) -> R,
) -> Result<R, Refused> {
    let len = padded.len().saturating_sub(BODY_PADDING);
    let kept = WORKSPACE.take().filter(|workspace| workspace.depth_max == depth_max);
    let Workspace { mut buffers, tape, mut sent, .. } = kept.unwrap_or_else(|| Workspace {
        // The parser makes room for each body; asked for it here, it makes some for a copy, too, which is not made.
        buffers: Buffers::with_max_depth(0, depth_max),
        tape: Tape(Vec::new()),
        depth_max,
        sent: Vec::new(),
    });
    if has_escapes {
        sent.clear();
        sent.extend_from_slice(&padded[..len]);
    }
    let mut tape = tape.reset();
    let walked = match simd_json::fill_tape_padded(padded, len, &mut buffers, &mut tape) {
        Ok(()) => Ok(walk(&tape.0)),
        Err(_) => Err(Refused),
    };
    let tape = tape.reset();
    if walked.is_err() && has_escapes {
        padded[..len].copy_from_slice(&sent);
    }
    if len <= WORKSPACE_BODY_BYTES_MAX {
        WORKSPACE.set(Some(Workspace { buffers, tape, depth_max, sent }));
    }
    walked
}

/// A bound on the entries that the parser would make of a text, each some 28 bytes of its memory: one for each bracket,
/// comma and colon, one for each string, and one for each other value, which follows one of these, a quote or white
/// space. What stands in strings is counted as though it stood outside.
pub(super) fn entries_max(text: &[u8]) -> usize {
    // Counts of a byte each, and no branch: so the compiler vectorises it.
    const CHUNK: usize = 255;
    let is_mark = |byte: u8| matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':');
    let is_space = |byte: u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let Some((first, rest)) = text.split_first() else { return 0 };
    let mut entries = 1;
    let mut quotes = usize::from(*first == b'"');
    for (before, now) in text.chunks(CHUNK).zip(rest.chunks(CHUNK)) {
        let (mut chunk_marks, mut chunk_begins, mut chunk_quotes) = (0_u8, 0_u8, 0_u8);
        for (&before, &now) in before.iter().zip(now) {
            let may_begin = is_mark(before) | is_space(before) | (before == b'"');
            let begins = may_begin & !(is_mark(now) | is_space(now) | (now == b'"'));
            chunk_marks += u8::from(is_mark(now));
            chunk_begins += u8::from(begins);
            chunk_quotes += u8::from(now == b'"');
        }
        entries += usize::from(chunk_marks) + usize::from(chunk_begins);
        quotes += usize::from(chunk_quotes);
    }
    entries + quotes.div_ceil(2)
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

    /// Where the next string of the tape stands in the body that begins at `body_start`, and the nodes before it.
    pub(super) fn next_string(&self, body_start: usize) -> Option<(usize, usize)> {
        self.nodes.iter().enumerate().find_map(|(skipped, node)| match node {
            Node::String(text) => Some((text.as_ptr() as usize - body_start, skipped)),
            _ => None,
        })
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

/// Writes the value at `cursor` as compact JSON and moves the cursor past it. Recursion is as deep as the value, which
/// the parser has bounded.
pub(super) fn write_value(cursor: &mut TapeCursor<'_, '_>, out: &mut Vec<u8>) {
    let node = cursor.peek();
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
                write_value(cursor, out);
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
                write_value(cursor, out);
            }
            out.push(b'}');
        }
    }
}

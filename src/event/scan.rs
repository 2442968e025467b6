//! The grammar of JSON, read slowly and exactly: where values begin and end, and at which byte a fault stands.
//!
//! simd-json tells neither, refuses by limits what is well-formed, and needs memory for everything that it reads. So
//! what it has refused is looked at here, and a body that is too large for it is divided here. Nothing is changed or
//! kept, nesting costs a bit a level. Knows JSON, not events.

use std::{borrow::Cow, ops::Range};

/// Why bytes are not JSON, and the byte at which a reader would say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// JSON that is well-formed, and yet not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// A whole number outside -2^63 to 2^64-1, or a double that is not finite.
    Number,
    /// A bracket inside too many others.
    Depth,
}

/// A place in a JSON text, with what was met on the way.
pub(super) struct Scanner<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Brackets open around the value that is read next.
    depth: usize,
    depth_max: usize,
    /// The first excess since it was last taken away, and its byte.
    excess: Option<(usize, Excess)>,
}

const ENDS_EARLY: &str = "the body ends too early";

/// Reads a whole body: `read` what stands in it, and nothing may follow.
pub(super) fn scan<'b, R>(
    body: &'b [u8],
    depth_max: usize,
    read: impl FnOnce(&mut Scanner<'b>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text.as_bytes(),
        Err(fault) => &body[..fault.valid_up_to()],
    };
    let mut scanner = Scanner { bytes: text, at: 0, depth: 0, depth_max, excess: None };
    scanner.skip_space();
    let read = read(&mut scanner).and_then(|read| {
        scanner.skip_space();
        let is_end = scanner.peek().is_none();
        if is_end { Ok(read) } else { scanner.fault("something follows the JSON value") }
    });
    // Up to the first byte that is no UTF-8 a fault of grammar comes first.
    match read {
        Err(fault) if fault.at < text.len() => Err(fault),
        _ if text.len() < body.len() => Err(Fault { at: text.len(), what: "the body is not valid UTF-8" }),
        read => read,
    }
}

/// The text of a string that is known to be well-formed, given with its quotes.
pub(super) fn text_of(quoted: &[u8]) -> Cow<'_, str> {
    let plain = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if plain.contains(&b'\\') {
        return serde_json::from_slice::<String>(quoted).unwrap_or_default().into();
    }
    String::from_utf8_lossy(plain)
}

impl<'b> Scanner<'b> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The first excess since this was last asked.
    pub(super) fn take_excess(&mut self) -> Option<(usize, Excess)> {
        self.excess.take()
    }

    pub(super) fn bytes_of(&self, range: Range<usize>) -> &'b [u8] {
        &self.bytes[range]
    }

    /// Reads an object whose bracket stands here: `each` is given a member's name, in its quotes, and reads the value.
    pub(super) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, &'b [u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter();
        let mut is_open = !self.closes(b'}');
        while is_open {
            let name = self.name()?;
            each(self, name)?;
            is_open = self.goes_on(true)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array whose bracket stands here: `each` reads an item.
    pub(super) fn items(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.enter();
        let mut is_open = !self.closes(b']');
        while is_open {
            self.skip_space();
            each(self)?;
            is_open = self.goes_on(false)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads any value and tells where it stands.
    pub(super) fn value(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.at;
        let mut open = Brackets::default();
        loop {
            let is_empty = match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    self.enter();
                    let is_object = bracket == b'{';
                    let is_empty = self.closes(if is_object { b'}' } else { b']' });
                    if is_empty {
                        self.depth -= 1;
                    } else {
                        open.push(is_object);
                        if is_object {
                            self.name()?;
                        }
                    }
                    is_empty
                }
                Some(b'"') => self.string().map(|()| true)?,
                _ => self.scalar().map(|()| true)?,
            };
            if !is_empty {
                continue;
            }
            // A value has ended, and with it perhaps what is around it.
            loop {
                let Some(is_object) = open.top() else { return Ok(start..self.at) };
                if !self.goes_on(is_object)? {
                    open.pop();
                    self.depth -= 1;
                    continue;
                }
                if is_object {
                    self.name()?;
                }
                break;
            }
        }
    }

    fn fault<R>(&self, what: &'static str) -> Result<R, Fault> {
        let what = if self.at < self.bytes.len() { what } else { ENDS_EARLY };
        Err(Fault { at: self.at, what })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over a bracket and the space behind it.
    fn enter(&mut self) {
        self.depth += 1;
        if self.depth > self.depth_max {
            self.excess.get_or_insert((self.at, Excess::Depth));
        }
        self.at += 1;
        self.skip_space();
    }

    /// Steps over this bracket if it stands here.
    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    /// Behind a member or an item: whether another one follows. Stands on it, or behind the closing bracket.
    fn goes_on(&mut self, is_object: bool) -> Result<bool, Fault> {
        self.skip_space();
        match (self.peek(), is_object) {
            (Some(b','), _) => {
                self.at += 1;
                self.skip_space();
                Ok(true)
            }
            (Some(b'}'), true) | (Some(b']'), false) => {
                self.at += 1;
                Ok(false)
            }
            (_, true) => self.fault("expected ',' or '}' after a member"),
            (_, false) => self.fault("expected ',' or ']' after an item"),
        }
    }

    /// Reads a member's name and what stands between it and the value.
    fn name(&mut self) -> Result<&'b [u8], Fault> {
        if self.peek() != Some(b'"') {
            return self.fault("expected a member's name in quotes");
        }
        let start = self.at;
        self.string()?;
        let name = &self.bytes[start..self.at];
        self.skip_space();
        if self.peek() != Some(b':') {
            return self.fault("expected ':' after a member's name");
        }
        self.at += 1;
        self.skip_space();
        Ok(name)
    }

    /// Reads the string whose quote stands here.
    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20));
            let Some(plain) = plain else {
                return Err(Fault { at: self.bytes.len(), what: "a string does not end" });
            };
            self.at += plain;
            match &rest[plain..] {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(());
                }
                [b'\\', b'u', digits @ ..] => {
                    if !digits.get(..4).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                        return self.fault("an escape \\uXXXX needs four hexadecimal digits");
                    }
                    self.at += 6;
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
                [b'\\', ..] => return self.fault("an escape in a string is invalid"),
                _ => return self.fault("a control character in a string must be escaped"),
            }
        }
    }

    /// Reads a number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<(), Fault> {
        let rest = &self.bytes[self.at..];
        let ends =
            |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' | b'[' | b']' | b'{' | b'}' | b'"');
        let token = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
        match token {
            b"true" | b"false" | b"null" => {}
            [b'-' | b'0'..=b'9', ..] if is_number(token) => {
                if !is_in_range(token) {
                    self.excess.get_or_insert((self.at, Excess::Number));
                }
            }
            [b'-' | b'0'..=b'9', ..] => return self.fault("a number is invalid"),
            _ => return self.fault("expected a JSON value"),
        }
        self.at += token.len();
        Ok(())
    }
}

fn is_number(token: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let token = token.strip_prefix(b"-").unwrap_or(token);
    let mut rest = match token {
        [b'0', rest @ ..] => rest,
        _ => &token[digits(token)..],
    };
    let mut is_valid = rest.len() < token.len();
    if let [b'.', fraction @ ..] = rest {
        rest = &fraction[digits(fraction)..];
        is_valid &= rest.len() < fraction.len();
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        rest = &exponent[digits(exponent)..];
        is_valid &= rest.len() < exponent.len();
    }
    is_valid && rest.is_empty()
}

fn is_in_range(number: &[u8]) -> bool {
    let text = std::str::from_utf8(number).unwrap_or_default();
    if text.contains(['.', 'e', 'E']) {
        return text.parse::<f64>().is_ok_and(f64::is_finite);
    }
    // Most numbers are short.
    text.len() < 19 || text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

/// The brackets that are open, a bit for each: a body may be nothing but brackets.
#[derive(Default)]
struct Brackets {
    bits: Vec<u64>,
    len: usize,
}

impl Brackets {
    fn push(&mut self, is_object: bool) {
        let (word, bit) = (self.len / 64, self.len % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.len += 1;
    }

    fn top(&self) -> Option<bool> {
        let last = self.len.checked_sub(1)?;
        Some(self.bits[last / 64] >> (last % 64) & 1 == 1)
    }

    fn pop(&mut self) {
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests;

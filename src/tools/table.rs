//! Tables of text, and words cut or inflected to fit them, or made such that a terminal shows them.

use std::borrow::Cow;

use indicatif::HumanCount;

/// Columns with a head each, the cells below it.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// To which side a column's cells are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, two spaces between columns, none at the end of a line.
    pub(super) fn render(&self) -> String {
        let heads: Vec<String> = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let width = |column: usize| {
            lines().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                let space = " ".repeat(width - cell.chars().count());
                let (before, after) =
                    if *align == Align::Right { (space, String::new()) } else { (String::new(), space) };
                line.extend([&before, cell.as_str(), &after, "  "]);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A number and its noun, in the plural unless the number is 1.
pub(super) fn pluralize(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(number))
}

/// A text cut to a width.
pub(super) fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars_max - 1).collect();
    short.push('…');
    short
}

/// A text without what would do something to a terminal: control characters, those of ISO 6429 that are none in JSON
/// included, marks that turn the direction of writing, and ends of lines.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let acts = |char: char| {
        char.is_control()
            || matches!(char, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(acts) { text.replace(acts, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use indicatif::HumanBytes;

    use super::*;

    #[test]
    fn columns_stand_below_their_heads() {
        let mut table = Table::new(&[("name", Align::Left), ("n", Align::Right), ("note", Align::Left)]);
        table.row(["a".into(), "10".into(), String::new()]);
        table.row(["grüße".into(), "7".into(), "x".into()]);
        assert_eq!(table.render(), "name    n  note\na      10\ngrüße   7  x\n");
    }

    #[test]
    fn numbers_for_people() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(HumanCount(number).to_string(), text);
        }
        for (number, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.50 KiB"), (5 << 30, "5.00 GiB"), (1 << 50, "1.00 PiB")]
        {
            assert_eq!(HumanBytes(number).to_string(), text);
        }
        assert_eq!((pluralize(1, "event"), pluralize(1_000, "event")), ("1 event".into(), "1,000 events".into()));
        assert_eq!((shorten("größer", 6), shorten("größere", 6)), ("größer".into(), "größe…".into()));
    }
    #[test]
    fn nothing_that_is_shown_acts_on_a_terminal() {
        for text in ["plain", "gr\u{fc}\u{df}e \u{1f469}\u{200d}\u{1f4bb}", ""] {
            assert_eq!(printable(text), text);
        }
        for acts in "\u{0}\n\r\u{1b}\u{7f}\u{9b}\u{202e}\u{2067}\u{200f}\u{61c}\u{2028}".chars() {
            assert_eq!(printable(&format!("a{acts}b")), "a\u{fffd}b", "{acts:?}");
        }
    }
}

//! `hitlog export`: every event as a line, of JSON or of CSV, on standard output.

use std::{path::PathBuf, sync::Arc};

use super::{
    Outcome, ToolError, print,
    progress::{Unit, bar},
    stats::find_website,
};
use crate::{
    event::{
        EventRow, EventType, json,
        time::{parse_time, write_time},
    },
    event_id::EventIds,
    store::{
        Website,
        offline::{EventChoice, Export, OfflineDir},
    },
};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The event as the API returns it, and its website's tracking code and domain.
    Ndjson,
    /// The values of such an event, separated by commas; the first line has their names.
    Csv,
}

/// Which events to export, and how.
#[derive(Debug)]
pub struct ExportOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
    /// How a line looks.
    pub format: Format,
    /// The first `createdAt` that is exported, as RFC 3339 or milliseconds.
    pub from: Option<String>,
    /// The first `createdAt` that is not exported any more, as RFC 3339 or milliseconds.
    pub to: Option<String>,
    /// The only website whose events are exported: its id, tracking code or domain.
    pub website: Option<String>,
    /// The only type of events that is exported.
    pub event_type: Option<String>,
    /// Events before this `createdAt` are past their retention; `i64::MIN` if they are kept for ever.
    pub expired_before: i64,
}

/// Members of a line, in their order.
const MEMBERS: [&str; 15] = [
    "id",
    "websiteId",
    "eventType",
    "url",
    "referrer",
    "sessionId",
    "visitorId",
    "deviceType",
    "browser",
    "os",
    "location",
    "properties",
    "createdAt",
    "trackingCode",
    "domain",
];

/// Writes the events in the order of their arrival.
pub fn run(options: &ExportOptions) -> Outcome {
    let (from, to) = (time("--from", options.from.as_deref())?, time("--to", options.to.as_deref())?);
    let event_type = options.event_type.as_deref().map(event_type).transpose()?;
    let directory = OfflineDir::open(&options.data_dir)?;
    let catalog = directory.catalog()?;
    let website = options.website.as_deref().map(|text| find_website(&catalog, text)).transpose()?;
    let choice = EventChoice {
        website_id: website.map(|website| Arc::clone(&website.id)),
        event_type,
        from: from.unwrap_or(i64::MIN),
        to: to.unwrap_or(i64::MAX),
        expired_before: options.expired_before,
    };
    let mut lines = LineWriter { ids: EventIds::of(&catalog.epochs), site: None };
    let mut export = Export::new(&directory, &catalog, choice)?;
    let bar = bar("exporting", export.rows_left(), Unit::Events);
    let mut out = Vec::new();
    if options.format == Format::Csv {
        out.extend_from_slice(MEMBERS.join(",").as_bytes());
        out.push(b'\n');
    }
    loop {
        let rows = match options.format {
            Format::Ndjson => {
                export.next_chunk(&mut out, |out, sequence, row, site| lines.json(out, sequence, row, site))
            }
            Format::Csv => export.next_chunk(&mut out, |out, sequence, row, site| lines.csv(out, sequence, row, site)),
        }?;
        print(&out)?;
        out.clear();
        match rows {
            Some(rows) => bar.inc(rows),
            None => break,
        }
    }
    bar.finish_and_clear();
    Ok(true)
}

fn time(flag: &str, text: Option<&str>) -> Result<Option<i64>, ToolError> {
    let Some(text) = text else { return Ok(None) };
    let parsed = parse_time(text).ok_or_else(|| {
        ToolError::Arguments(format!(
            "{flag} {text}: expected RFC 3339 with an offset, such as 2026-01-28T20:00:00Z, or milliseconds since 1970"
        ))
    });
    parsed.map(Some)
}

fn event_type(text: &str) -> Result<EventType, ToolError> {
    EventType::from_name(text).ok_or_else(|| {
        let names = EventType::ALL.map(EventType::as_str).join(", ");
        ToolError::Arguments(format!("--type {text}: expected one of: {names}"))
    })
}

/// Writes lines; events of one website often follow each other.
struct LineWriter {
    ids: EventIds,
    /// The website written last, and its end of a line of JSON.
    site: Option<(Arc<Website>, Vec<u8>)>,
}

impl LineWriter {
    fn json(&mut self, out: &mut Vec<u8>, sequence: u64, row: &EventRow<'_>, site: &Arc<Website>) {
        json::write_event(out, &self.ids.encode(sequence), row);
        // The closing brace comes after two more members here.
        out.pop();
        match &self.site {
            Some((last, end)) if Arc::ptr_eq(last, site) => out.extend_from_slice(end),
            _ => {
                let mut end = b",\"trackingCode\":".to_vec();
                json::write_string(&mut end, site.tracking_code.as_bytes());
                end.extend_from_slice(b",\"domain\":");
                json::write_string(&mut end, site.domain.as_bytes());
                end.extend_from_slice(b"}\n");
                out.extend_from_slice(&end);
                self.site = Some((Arc::clone(site), end));
            }
        }
    }

    fn csv(&self, out: &mut Vec<u8>, sequence: u64, row: &EventRow<'_>, site: &Website) {
        for cell in [
            Some(&self.ids.encode(sequence)[..]),
            Some(row.website_id),
            Some(row.event_type),
            Some(row.url),
            row.referrer,
            Some(row.session_id),
            Some(row.visitor_id),
            row.device_type,
            row.browser,
            row.os,
            row.location,
            row.properties,
        ] {
            write_cell(out, cell.unwrap_or_default());
            out.push(b',');
        }
        write_time(out, row.created_at);
        for cell in [&*site.tracking_code, &site.domain] {
            out.push(b',');
            write_cell(out, cell.as_bytes());
        }
        out.push(b'\n');
    }
}

/// Whether a spreadsheet may take a text for a formula, <https://owasp.org/www-community/attacks/CSV_Injection>. Some
/// take the full-width and the small forms of the four signs for the signs themselves, some a minus for a hyphen, and
/// many pass over whatever shows nothing before them.
fn is_formula(text: &str) -> bool {
    let begin = text.chars().find(|char| matches!(char, '\t' | '\r' | '\n') || !is_blank(*char));
    matches!(
        begin,
        Some(
            '=' | '+'
                | '-'
                | '@'
                | '\t'
                | '\r'
                | '\n'
                | '＝'
                | '＋'
                | '－'
                | '＠'
                | '﹦'
                | '﹢'
                | '﹣'
                | '﹫'
                | '\u{2212}'
        )
    )
}

/// Whether a character shows nothing: a space of any kind, a control character, or one of those that Unicode has fonts
/// ignore (`Default_Ignorable_Code_Point`), such as a byte-order mark.
fn is_blank(char: char) -> bool {
    char.is_whitespace()
        || char.is_control()
        || matches!(
            char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Writes a cell as RFC 4180 has it. What trackers send is anybody's text, and a spreadsheet would run some of it as a
/// formula; an apostrophe before it makes it text.
fn write_cell(out: &mut Vec<u8>, text: &[u8]) {
    let is_quoted = text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r'));
    if is_quoted {
        out.push(b'"');
    }
    // Texts are UTF-8, checked when they came in.
    for (index, part) in str::from_utf8(text).unwrap_or_default().split_inclusive(';').enumerate() {
        // Where a comma is the decimal sign, many spreadsheets begin a cell after every semicolon, within quotes, too.
        let begin = if index == 0 { part } else { part.trim_start_matches(|char| char == '"' || is_blank(char)) };
        if is_formula(begin) {
            out.push(b'\'');
        }
        for byte in part.bytes() {
            out.push(byte);
            if byte == b'"' {
                out.push(b'"');
            }
        }
    }
    if is_quoted {
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_harmless() {
        for (text, cell) in [
            ("", ""),
            ("plain", "plain"),
            ("a=b", "a=b"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            (" =1", "' =1"),
            ("＝1", "'＝1"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("\n=1", "\"'\n=1\""),
            ("=HYPERLINK(\"http://x\",\"y\")", "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("\"", "\"\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("grüße 🦀", "grüße 🦀"),
            ("a;b;-", "a;b;'-"),
            ("x;=1+1;@y", "x;'=1+1;'@y"),
            ("x; \u{a0}+1", "x;' \u{a0}+1"),
            ("x;\"=1\"", "\"x;'\"\"=1\"\"\""),
            ("x;\" \"=1", "\"x;'\"\" \"\"=1\""),
            (";=1", ";'=1"),
            (";;a=1;\"", "\";;a=1;\"\"\""),
            ("{\"a\":1}", "\"{\"\"a\"\":1}\""),
        ] {
            let mut out = Vec::new();
            write_cell(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), cell, "{text:?}");
        }
    }

    #[test]
    fn nothing_that_is_not_seen_hides_a_formula() {
        let blanks = " \u{85}\u{a0}\u{ad}\u{1680}\u{180e}\u{2003}\u{200b}\u{200d}\u{200f}\u{2028}\u{2029}\u{202e}\
                      \u{202f}\u{205f}\u{2060}\u{2800}\u{3000}\u{3164}\u{fe0f}\u{feff}\u{1}\u{7f}\u{e0020}";
        let signs = "=+-@＝＋－＠﹦﹢﹣﹫\u{2212}";
        let guarded = |text: &str| {
            let mut out = Vec::new();
            write_cell(&mut out, text.as_bytes());
            out.starts_with(b"'")
        };
        for blank in blanks.chars() {
            for sign in signs.chars() {
                for text in [format!("{sign}1"), format!("{blank}{sign}1"), format!(" {blank}{blank} {sign}1")] {
                    assert!(guarded(&text), "{text:?}");
                }
                assert!(!guarded(&format!("{blank}a{sign}1")), "{blank:?}");
            }
            assert!(guarded(&format!("{blank}\t1")) && !guarded(&blank.to_string()), "{blank:?}");
        }
    }

    #[test]
    fn arguments_that_make_no_sense() {
        for text in ["yesterday", "2026-01-28", "-1"] {
            assert!(matches!(time("--from", Some(text)), Err(ToolError::Arguments(_))), "{text}");
        }
        assert_eq!(time("--from", Some("2026-01-28T20:00:00Z")).unwrap(), Some(1_769_630_400_000));
        assert!(matches!(event_type("hover"), Err(ToolError::Arguments(_))));
    }
}

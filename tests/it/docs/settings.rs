//! The documents of the settings: the reference for people, and the commented file to begin with.

use std::fmt::Write;

use hitlog::{
    cli::memory,
    config::{Config, Kind, RawSettings, SETTINGS, Setting, Unit},
};

use super::check;

const LINE_CHARS_MAX: usize = 120;

/// What the reference says before the settings.
const REFERENCE_HEAD: &str = "\
# Settings

<!-- Made from src/config/settings.rs and src/cli/memory.rs by tests/it/docs/settings.rs: change them and not this. -->

Every setting is a key of a TOML file, an environment variable and a flag. Nothing has to be set.

- A flag goes before a variable, a variable before the file, and the file before the default.
- `--config FILE` or `HITLOG_CONFIG` names the file. It is flat, without sections, and a key that is no setting is an
  error. [config/hitlog.toml](../config/hitlog.toml) has every setting with its default, to begin with.
- A number of bytes may be written with KiB, MiB or GiB behind it: `\"8MiB\"` in the file, `8MiB` elsewhere.
- A value that is there and cannot be read is an error and never the same as none. An empty one is such a value: leave
  the setting out instead.
- `hitlog config check` says what is wrong, all at once, and with exit code 2; `hitlog serve` says the same before it
  touches the disk or a port. `hitlog config show` prints what is in force and where each value comes from.

";

const MEMORY_HEAD: &str = "\
## Memory

The most memory that hitlog takes is this sum over its limits, which the log states at the start with the values in
force. With the defaults, on two cores; a head counts as 16 KiB at least, an event as 256 KiB:

| what | bounded by | at most |
|---|---|---|
";

const EXAMPLE_HEAD: &str = "\
# hitlog's settings, each with its default. Take the \"#\" away to change one. Those with \"\" have none, and may not be
# given empty.
#
# `hitlog serve --config FILE`, or HITLOG_CONFIG=FILE. A flag (--queue-events-max) goes before an environment
# variable (HITLOG_QUEUE_EVENTS_MAX), which goes before this file. Bytes may be written with KiB, MiB or GiB.
# `hitlog config show` prints what is in force and where each value comes from; docs/settings.md has the bounds.
";

/// The groups of the table, in its order.
fn groups() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    SETTINGS.chunk_by(|one, other| one.group == other.group).map(|settings| (settings[0].group, settings))
}

/// Breaks text between its words; every line but the first begins with `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut chars = 0;
    for word in text.split(' ') {
        let word_chars = word.chars().count();
        if chars > 0 && chars + 1 + word_chars > LINE_CHARS_MAX {
            lines += "\n";
            lines += indent;
            chars = indent.len();
        } else if chars > 0 {
            lines += " ";
            chars += 1;
        }
        lines += word;
        chars += word_chars;
    }
    lines
}

/// A whole number with a comma between thousands, or a fraction as it is.
fn number(number: f64) -> String {
    let digits = number.to_string();
    let is_before_thousands = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3);
    let grouped =
        |text: String, (at, digit)| format!("{text}{}{digit}", if is_before_thousands(at) { "," } else { "" });
    if digits.contains('.') { digits } else { digits.chars().enumerate().fold(String::new(), grouped) }
}

/// A number of bytes in the largest unit that it is whole in.
fn bytes(count: f64) -> String {
    let whole = [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find_map(|(unit, shift)| {
        let in_unit = count / f64::from(1 << shift);
        (in_unit >= 1.0 && in_unit.fract() == 0.0).then(|| format!("{} {unit}", number(in_unit)))
    });
    whole.unwrap_or_else(|| format!("{} B", number(count)))
}

/// What values a setting takes, in words.
fn values(kind: Kind) -> String {
    match kind {
        Kind::Text(name) | Kind::Path(name) | Kind::Secret(name) => format!("`{name}`"),
        Kind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Kind::Number { unit, min, max } => match unit {
            Unit::Bytes => format!("bytes, from {} to {}", bytes(min), bytes(max)),
            Unit::Count => format!("a whole number from {} to {}", number(min), number(max)),
            Unit::Seconds => format!("seconds, from {} to {}", number(min), number(max)),
            Unit::Days => format!("days, from {} to {}", number(min), number(max)),
        },
    }
}

/// Text with every name of a setting leading to it.
fn linked(text: &str) -> String {
    let is_of_name = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let mut linked = String::new();
    // Either all of a part's letters may stand in a name, or it is a single one that may not.
    for part in text.split_inclusive(|letter| !is_of_name(letter)) {
        let (name, behind) = part.split_at(part.trim_end_matches(|letter| !is_of_name(letter)).len());
        let is_setting = name.contains('_') && SETTINGS.iter().any(|setting| setting.name == name);
        linked += &if is_setting { format!("[`{name}`](#{name})") } else { name.to_owned() };
        linked += behind;
    }
    linked
}

fn reference() -> String {
    let mut made = String::from(REFERENCE_HEAD);
    let anchor = |group: &str| group.to_lowercase().replace(' ', "-").replace(',', "");
    for (group, settings) in groups() {
        let names: Vec<_> = settings.iter().map(|setting| format!("[`{0}`](#{0})", setting.name)).collect();
        let line = format!("- [{group}](#{}): {}", anchor(group), names.join(", "));
        writeln!(made, "{}", wrapped(&line, "  ")).unwrap();
    }
    made += "- [Memory](#memory): the sum of what the limits allow\n\n";
    for (group, settings) in groups() {
        writeln!(made, "## {group}\n").unwrap();
        for setting in settings {
            let default = if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
            writeln!(made, "### `{}`\n", setting.name).unwrap();
            writeln!(made, "{}.\n", wrapped(&linked(setting.help), "")).unwrap();
            writeln!(made, "- default: {default}").unwrap();
            writeln!(made, "- values: {}", values(setting.kind)).unwrap();
            writeln!(made, "- `--{}`, `{}`\n", setting.flag(), setting.variable()).unwrap();
        }
    }
    made + &memory()
}

fn memory() -> String {
    let defaults = Config::check(&RawSettings::default()).unwrap();
    let config = Config { worker_threads: 1, ..defaults };
    let mut made = String::from(MEMORY_HEAD);
    for part in memory::parts(&config) {
        let mebibytes = part.bytes.div_ceil(1 << 20);
        writeln!(made, "| {} | {} | {mebibytes} MiB |", part.what, linked(part.settings)).unwrap();
    }
    writeln!(made, "| in all | | {} MiB |", memory::bytes_max(&config).div_ceil(1 << 20)).unwrap();
    made
}

fn example() -> String {
    let mut made = String::from(EXAMPLE_HEAD);
    for (group, settings) in groups() {
        writeln!(made, "\n## {group}").unwrap();
        for setting in settings {
            let is_bare = matches!(setting.kind, Kind::Number { .. }) && setting.default.parse::<f64>().is_ok();
            let default = if is_bare { setting.default.to_owned() } else { format!("\"{}\"", setting.default) };
            let help = wrapped(&format!("# {}.", setting.help), "# ");
            writeln!(made, "\n{help}\n#{} = {default}", setting.name).unwrap();
        }
    }
    made
}

#[test]
fn the_reference_is_made_from_the_table() {
    check("docs/settings.md", &reference());
}

#[test]
fn the_example_is_made_from_the_table() {
    check("config/hitlog.toml", &example());
}

#[test]
fn every_setting_has_one_place_in_the_documents() {
    let (reference, example) = (reference(), example());
    let mut seen = std::collections::BTreeSet::new();
    assert!(groups().all(|(group, _)| seen.insert(group)), "a group stands in two places of the table: {seen:?}");
    for setting in SETTINGS {
        let count = |text: &str, words: &str| text.matches(words).count();
        assert_eq!(count(&reference, &format!("\n### `{}`\n", setting.name)), 1, "{}", setting.name);
        assert_eq!(count(&reference, &format!("\n- `--{}`, `{}`\n", setting.flag(), setting.variable())), 1);
        assert_eq!(count(&example, &format!("\n#{} = ", setting.name)), 1, "{}", setting.name);
    }
    let mut lines = reference.lines().chain(example.lines()).filter(|line| !line.starts_with('|'));
    assert!(lines.all(|line| line.chars().count() <= LINE_CHARS_MAX));
}

#[test]
fn numbers_and_names_as_they_are_written() {
    for (made, written) in [
        (number(1_000_000.0), "1,000,000"),
        (number(100.0), "100"),
        (number(0.1), "0.1"),
        (number(36_500.0), "36,500"),
        (bytes(0.0), "0 B"),
        (bytes(512.0), "512 B"),
        (bytes(65_536.0), "64 KiB"),
        (bytes(1_024.0 * 1_024.0 * 1_024.0 * 64.0), "64 GiB"),
        (
            linked("past readers, body_bytes_max; not unknown_name"),
            "past readers, [`body_bytes_max`](#body_bytes_max); not unknown_name",
        ),
        (wrapped(&"word ".repeat(30), "  "), &format!("{}\n  {}", ["word"; 24].join(" "), "word ".repeat(6))),
    ] {
        assert_eq!(made, written);
    }
}

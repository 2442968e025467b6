//! What people are told to do: never anything that could lose events.

use std::{fs, path::Path};

use crate::papers::documents;

/// Words that send somebody to a file that may hold acknowledged events with a tool that loses it.
const VERBS: [&str; 6] = ["move", "remove", "delete", "unlink", "rm", "erase"];
const OBJECTS: [&str; 9] =
    ["it", "that", "them", "this", "the file", "the segment", "the log", "the data", "the catalog"];

/// Advice in this text to take something away, with the words after it.
fn advice_to_take_away(text: &str) -> Vec<String> {
    // As people read it: a line that goes on is one line.
    let text = text.replace("\\\n", " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let mut found = Vec::new();
    for verb in VERBS {
        for object in OBJECTS {
            let words = format!("{verb} {object}");
            for (at, _) in text.match_indices(&words) {
                let (before, after) = (&text[..at], &text[at + words.len()..]);
                // Advice begins a clause; everything else tells what happens or what a function does.
                let begins =
                    ["; ", ", ", ": ", ". ", " or ", " and ", " then ", "\""].iter().any(|end| before.ends_with(end));
                let is_word = after.chars().next().is_none_or(|next| !next.is_alphanumeric());
                if begins && is_word {
                    found.push(format!("{words}{}", after.chars().take(40).collect::<String>()));
                }
            }
        }
    }
    found
}

/// The texts of a source file: what stands in quotes, without comments.
fn texts(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let code: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    code.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else if entry.path().extension().is_some_and(|end| end == "rs") {
            found.push(entry.path());
        }
    }
}

#[test]
fn nobody_is_told_to_take_a_file_away() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    files(&root.join("src"), &mut sources);
    assert!(sources.len() > 100);
    let mut found = Vec::new();
    for path in sources {
        for text in texts(&fs::read_to_string(&path).unwrap()) {
            let advice = advice_to_take_away(&text);
            found.extend(advice.into_iter().map(|advice| format!("{}: {advice}", path.display())));
        }
    }
    let documents = documents();
    assert!(documents.len() > 3);
    for document in documents.iter().map(String::as_str).chain(["config/openapi.yaml", "config/hitlog.toml"]) {
        let advice = advice_to_take_away(&fs::read_to_string(root.join(document)).unwrap());
        found.extend(advice.into_iter().map(|advice| format!("{document}: {advice}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn planted_advice_is_found() {
    for (text, wanted) in [
        ("{path} is not a file of hitlog's ({reason}); move it away, or restore it from a backup", 1),
        ("an erasure can't end: restore or remove that", 1),
        ("if the file is damaged, \\\n         delete the file", 1),
        ("could not remove a replaced segment; trying again later", 0),
        ("removing what an interrupted rewriting has left", 0),
        ("leave it as it is; a segment that is removed takes events with it", 0),
    ] {
        assert_eq!(advice_to_take_away(text).len(), wanted, "{text}");
    }
    assert_eq!(texts("let a = \"one\"; // \"two\n    // \"three\"\n f(\"four\")")[0], "one");
}

//! The house: who may know whom, and the style that a test can hold.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms, and the rooms that each may name. `main` and `app` know everything.
const ARROWS: [(&str, &[&str]); 9] = [
    ("config", &[]),
    ("event", &[]),
    ("event_id", &[]),
    ("metrics", &[]),
    ("queue", &["event", "metrics"]),
    ("http", &["event", "event_id", "queue", "metrics", "store"]),
    ("writer", &["event", "queue", "metrics", "store"]),
    ("store", &["event", "metrics"]),
    ("tools", &["event", "event_id", "metrics", "store"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The room of a file, by its path below `src`.
fn room_of(path: &Path) -> String {
    let first = path.strip_prefix(src()).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The rooms that a text names as `crate::room`, alone or in braces.
fn rooms_named(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            rooms.extend(name_at(rest));
            continue;
        };
        // In `crate::{a, b::{c, d}, e}` the rooms are at depth one.
        let mut depth = 1;
        let mut expects_name = true;
        for (at, letter) in list.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => expects_name = true,
                _ if depth == 1 && expects_name && letter.is_alphabetic() => {
                    rooms.extend(name_at(&list[at..]));
                    expects_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms
}

fn name_at(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn rooms_know_whom_they_may() {
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    for path in sources(&src()) {
        let room = room_of(&path);
        if ["main", "app", "lib"].contains(&room.as_str()) || path.ends_with("tests.rs") {
            continue;
        }
        let allowed = arrows.get(room.as_str()).unwrap_or_else(|| panic!("{room} is a new room: draw its arrows here"));
        let text = fs::read_to_string(&path).unwrap();
        let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for named in rooms_named(&code) {
            let fine = named == room || allowed.contains(&named.as_str());
            assert!(fine, "{} names {named}, which {room} must not know", path.display());
        }
    }
}

#[test]
fn the_reader_of_use_lines_can_see() {
    let text = "use crate::a::B;\nuse crate::{b, c::{d, e::F}, g as h};\nlet x = crate::i::J;";
    assert_eq!(rooms_named(text).into_iter().collect::<Vec<_>>().join(" "), "a b c g i");
}

#[test]
fn only_the_store_knows_sqlite() {
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        if room_of(&path) != "store" {
            assert!(!text.contains("rusqlite"), "{} names rusqlite", path.display());
        }
    }
}

#[test]
fn unsafe_code_has_its_named_rooms() {
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        let named = ["store/insert.rs", "store/sync_timer.rs"].iter().any(|name| path.ends_with(name));
        assert_eq!(text.contains("allow(unsafe_code)"), named, "{}", path.display());
    }
}

#[test]
fn files_and_lines_keep_their_size() {
    let mut wide_lines = Vec::new();
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(src()).unwrap().display().to_string();
        assert!(text.starts_with("//!") || name.ends_with("tests.rs"), "{name} does not say what it owns");
        let own_lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(own_lines <= 500, "{name} has {own_lines} lines: split it by purpose");
        // A test's table may have a wide row.
        let wide = text.lines().enumerate().filter(|(_, line)| line.chars().count() > 120);
        wide_lines.extend(wide.filter(|_| !name.ends_with("tests.rs")).map(|(at, _)| format!("{name}:{}", at + 1)));
    }
    assert!(wide_lines.is_empty(), "longer than 120 characters: {wide_lines:?}");
}

//! What the documents say of the code is so: paths, names, tests and links lead somewhere, and the tables of rooms,
//! layers and threads are those of the code.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use hitlog::config::{SETTINGS, Setting};

use crate::architecture::{ARROWS, STORE_LAYERS};
use harness::{Daemon, command, event_with, wait_until};

const README_LINES_MAX: usize = 150;
/// Where code and its settings are. What is named in a document stands in one of these.
const CODE: [&str; 6] = ["src", "tests", "benches", "scripts", "config", ".cargo"];
/// Settings of other programs, which documents name.
const FOREIGN: [&str; 6] = [
    "stop_grace_period",
    "non_idempotent",
    "proxy_read_timeout",
    "non_replicated_deduplication_window",
    "replicated_deduplication_window",
    "internal_replication",
];
/// How the series of a histogram end, and how the metrics begin that every process has.
const SERIES: [&str; 3] = ["_bucket", "_count", "_sum"];
const OF_EVERY_PROCESS: &str = "process_";
/// A document that tells of what was: what it names may be gone.
const HISTORY: &str = "CHANGELOG.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the project, by its path from the root.
pub(crate) fn documents() -> Vec<String> {
    let built = |name: &str| name.starts_with('.') || name == "target" || name == "data";
    files_below(root(), &|path| !built(&path.file_name().unwrap().to_string_lossy()))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn files_below(folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort_unstable();
    let wanted = entries.into_iter().filter(|path| is_wanted(path));
    wanted.flat_map(|path| if path.is_dir() { files_below(&path, is_wanted) } else { vec![path] }).collect()
}

/// A document, read.
#[derive(Debug, Default)]
pub(crate) struct Paper {
    /// Where links lead to.
    links: Vec<String>,
    /// What links may lead to within it.
    anchors: BTreeSet<String>,
    /// What stands in backquotes.
    pub(crate) spans: Vec<String>,
    /// Blocks of code: what is said behind the fence, and the text.
    pub(crate) blocks: Vec<(String, String)>,
    /// Tables: rows of cells, the head first.
    tables: Vec<Vec<Vec<String>>>,
}

impl Paper {
    /// Reads a document of the project.
    pub(crate) fn of(document: &str) -> Self {
        Self::read(&fs::read_to_string(root().join(document)).unwrap())
    }

    fn read(text: &str) -> Self {
        let mut paper = Self::default();
        // The text of the heading, of the block of code and of the cell that is being read.
        let (mut heading, mut block, mut cell) = (None::<String>, None::<(String, String)>, None::<String>);
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => paper.add_heading(&heading.take().unwrap_or_default()),
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = if let CodeBlockKind::Fenced(info) = kind { info.into_string() } else { String::new() };
                    block = Some((info, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => paper.blocks.extend(block.take()),
                Event::Start(Tag::Table(_)) => paper.tables.push(Vec::new()),
                Event::Start(Tag::TableHead | Tag::TableRow) => paper.rows().push(Vec::new()),
                Event::Start(Tag::TableCell) => cell = Some(String::new()),
                Event::End(TagEnd::TableCell) => {
                    let text = cell.take().unwrap_or_default();
                    paper.rows().last_mut().unwrap().push(text);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    paper.links.push(dest_url.into_string());
                }
                Event::Code(text) => {
                    heading.iter_mut().chain(&mut cell).for_each(|of| of.push_str(&text));
                    paper.spans.push(text.into_string());
                }
                Event::Text(text) => {
                    let of_block = block.as_mut().map(|(_, of)| of);
                    heading.iter_mut().chain(&mut cell).chain(of_block).for_each(|of| of.push_str(&text));
                }
                Event::Html(text) | Event::InlineHtml(text) => {
                    let ids = text.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next());
                    paper.anchors.extend(ids.map(str::to_owned));
                }
                _ => {}
            }
        }
        paper
    }

    fn rows(&mut self) -> &mut Vec<Vec<String>> {
        self.tables.last_mut().unwrap()
    }

    /// Notes what a link to this heading is called: as those who show documents make it of the text.
    fn add_heading(&mut self, text: &str) {
        let kept = text.to_lowercase();
        let kept = kept.chars().filter(|of| of.is_alphanumeric() || [' ', '-', '_'].contains(of));
        let anchor: String = kept.map(|of| if of == ' ' { '-' } else { of }).collect();
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }

    /// The rows of the table whose first column has this head.
    fn table(&self, head: &str) -> &[Vec<String>] {
        let of_head = |table: &&Vec<Vec<String>>| table[0][0] == head;
        &self.tables.iter().find(of_head).unwrap_or_else(|| panic!("there is no table of {head}"))[1..]
    }
}

/// Everything that is no document, by path from the root, and the words that stand in it.
struct Code {
    files: BTreeMap<String, String>,
    words: HashSet<String>,
    /// The names of crates: what begins with one of them is not ours to look for.
    crates: HashSet<String>,
}

impl Code {
    fn read() -> Self {
        let mut files = BTreeMap::new();
        let folders = CODE.iter().flat_map(|folder| files_below(&root().join(folder), &|_| true));
        for path in folders
            .chain(["Cargo.toml", "build.rs", "deny.toml", "clippy.toml", "rustfmt.toml"].map(|of| root().join(of)))
        {
            // What is kept of random inputs is no text.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            files.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text);
        }
        let is_word = |of: char| of.is_alphanumeric() || of == '_';
        // This file names what is not there.
        let others = files.iter().filter(|(path, _)| *path != "tests/it/papers.rs");
        let words = others.flat_map(|(_, text)| text.split(|of| !is_word(of))).map(str::to_owned).collect();
        let crates = files["Cargo.toml"].lines().filter_map(|line| line.split(" = ").next());
        let crates = crates.map(|name| name.replace('-', "_")).chain(["std".into(), "core".into()]).collect();
        Self { files, words, crates }
    }

    /// What is wrong with what stands in backquotes, or in a line of a shell's.
    fn fault(&self, span: &str) -> Option<String> {
        let mut words = span.split_whitespace();
        let is_ours = words.next() == Some("hitlog");
        if is_ours && let Some(flag) = words.clone().find(|word| word.starts_with("--") && !self.has_flag(word)) {
            return Some(format!("hitlog has no {flag}"));
        }
        if let Some(path) = span.split_whitespace().find(|word| !self.has_path(word)) {
            return Some(format!("{path} is not there"));
        }
        let name = span.strip_suffix("()").unwrap_or(span);
        if name.split("::").any(|part| !is_name(part)) {
            return None;
        }
        let parts: Vec<_> = name.split("::").collect();
        let is_there = match parts[..] {
            [word] => !word.contains('_') || self.has_word(word),
            [first, ..] if self.crates.contains(first) => true,
            [ref parents @ .., last] => self.files.iter().any(|(path, text)| is_in(path, text, parents, last)),
            [] => true,
        };
        (!is_there).then(|| format!("there is no {name}"))
    }

    fn has_word(&self, word: &str) -> bool {
        let metric = SERIES.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
        let is_foreign = FOREIGN.contains(&word) || word.starts_with(OF_EVERY_PROCESS);
        let is_variable = || word.strip_prefix("HITLOG_").is_some_and(|name| self.has_setting(&name.to_lowercase()));
        is_foreign || self.words.contains(word) || self.words.contains(metric) || is_variable()
    }

    /// Whether there is a setting by this name: the commented example has them all.
    fn has_setting(&self, name: &str) -> bool {
        self.files["config/hitlog.toml"].contains(&format!("{name} = "))
    }

    /// Whether a word is no path of the project, or leads to a file, and to a test or an item that is in it.
    fn has_path(&self, word: &str) -> bool {
        let word = word.trim_matches(|of: char| ",;:()\"'".contains(of));
        let (path, item) = word.split_once("::").map_or((word, None), |(path, item)| (path, Some(item)));
        let top = path.split_once('/').map(|(top, _)| top);
        let is_ours = top.is_some_and(|top| CODE.contains(&top) || top == "docs" || top == ".ci");
        let is_file = path.ends_with(".rs") || (path.ends_with(".md") && top.is_none());
        if path.contains(['*', '…', '<', '$']) || !(is_ours || (is_file && !path.starts_with(['/', '.']))) {
            return true;
        }
        let Some(item) = item.filter(|item| !item.is_empty()) else {
            let is_named = |known: &String| known.rsplit('/').next() == Some(path);
            return root().join(path).exists() || (top.is_none() && self.files.keys().any(is_named));
        };
        let Some(text) = self.files.get(path) else { return false };
        let name = item.rsplit("::").next().unwrap_or(item);
        let is_test = path.starts_with("tests/it/") || path.starts_with("tests/model/");
        if is_test { has_test(text, name) } else { defines(text, name) }
    }

    /// Whether hitlog has a flag: a setting's, or one that a command names.
    fn has_flag(&self, flag: &str) -> bool {
        let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
        let name = name.trim_end_matches(|of: char| !of.is_alphanumeric());
        let is_setting = self.has_setting(&name.replace('-', "_"));
        let is_named = |text: &String| text.contains(&format!("\"{name}\""));
        let is_of_command = || self.files.iter().any(|(path, text)| path.starts_with("src/cli") && is_named(text));
        ["help", "version"].contains(&name) || is_setting || is_of_command()
    }
}

fn is_name(text: &str) -> bool {
    let begins = text.starts_with(|of: char| of.is_ascii_alphabetic() || of == '_');
    begins && text.chars().all(|of| of.is_ascii_alphanumeric() || of == '_')
}

/// Whether a file defines something, in the modules or the types that are named before it.
fn is_in(path: &str, text: &str, parents: &[&str], name: &str) -> bool {
    let stem = path.strip_suffix(".rs");
    let is_parent = |parent: &&str| {
        let is_module = stem.is_some_and(|stem| stem.split('/').any(|part| part == *parent));
        let is_type = parent.starts_with(|of: char| of.is_ascii_uppercase()) && has_word(text, parent);
        is_module || is_type || (*parent == "tests" && text.contains("mod tests"))
    };
    stem.is_some() && parents.iter().all(is_parent) && defines(text, name)
}

/// Whether a source defines something by this name: an item, a field or a variant.
fn defines(text: &str, name: &str) -> bool {
    const KINDS: [&str; 9] = ["fn", "struct", "enum", "const", "static", "trait", "type", "mod", "macro_rules!"];
    let follows = |kind: &str| text.match_indices(&format!("{kind} {name}")).any(|(at, found)| ends(text, at, found));
    let is_variant = name.starts_with(|of: char| of.is_ascii_uppercase()) && has_word(text, name);
    is_variant || KINDS.iter().any(|kind| follows(kind)) || text.contains(&format!(" {name}: "))
}

/// Whether a source has a test by this name.
fn has_test(text: &str, name: &str) -> bool {
    let found = text.match_indices(&format!("fn {name}")).find(|(at, found)| ends(text, *at, found));
    let before = found.map_or("", |(at, _)| &text[..at]);
    before.rsplit("\n}").next().is_some_and(|since| since.contains("#[test]") || since.contains("#[tokio::test"))
}

fn has_word(text: &str, word: &str) -> bool {
    let begins = |at: usize| !text[..at].ends_with(|of: char| of.is_alphanumeric() || of == '_');
    text.match_indices(word).any(|(at, found)| begins(at) && ends(text, at, found))
}

/// Whether a word ends where what was found does.
fn ends(text: &str, at: usize, found: &str) -> bool {
    !text[at + found.len()..].starts_with(|of: char| of.is_alphanumeric() || of == '_')
}

/// What is wrong with a link from this document.
fn fault_of_link(document: &str, link: &str, papers: &BTreeMap<String, Paper>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let folder = Path::new(document).parent().unwrap();
    let target = if path.is_empty() { PathBuf::from(document) } else { plain(&folder.join(path)) };
    let target = target.to_str().unwrap().to_owned();
    if !root().join(&target).exists() && !papers.contains_key(&target) {
        return Some(format!("{link} leads nowhere"));
    }
    let is_there = |anchor| papers.get(&target).is_some_and(|paper| paper.anchors.contains(anchor));
    anchor.filter(|anchor| !is_there(*anchor)).map(|_| format!("{link}: the document has no such place"))
}

/// A path without its `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut to, part| {
        match part {
            Component::ParentDir => drop(to.pop()),
            Component::CurDir => {}
            part => to.push(part),
        }
        to
    })
}

#[test]
fn what_is_named_is_there() {
    let code = Code::read();
    assert!(code.files.len() > 200 && code.words.contains("segment_rows_max"));
    let mut faults = Vec::new();
    for document in documents().iter().filter(|document| *document != HISTORY) {
        let paper = Paper::of(document);
        let in_shell = |(info, _): &&(String, String)| info == "sh";
        let lines = paper.blocks.iter().filter(in_shell).flat_map(|(_, text)| text.lines());
        let lines = lines.map(|line| line.split(" #").next().unwrap_or_default().to_owned());
        let named = paper.spans.iter().cloned().chain(lines).filter_map(|span| code.fault(&span));
        faults.extend(named.map(|fault| format!("{document}: {fault}")));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn planted_names_are_found() {
    let code = Code::read();
    for there in [
        "src/queue.rs",
        "tests/it",
        "queue.rs",
        "tests/it/crash.rs::killed_at_random_moments_full_keeps_what_it_acknowledged",
        "tests/it/crash.rs",
        "src/store/log/roll.rs::is_due",
        "roll::is_due",
        "Log::append()",
        "store::tests::the_store_answers_as_a_sorted_list_would",
        "segment_rows_max",
        "serde_json::Value",
        "hitlog serve --restored --segment-rows-max 7",
        "cargo test --test it crash::",
        "scripts/soak 30",
        "/etc/hitlog.md",
        "createdAt",
        "process_cpu_seconds_total",
        "hitlog_group_events_bucket",
        "HITLOG_WAL_BYTES_MAX",
        "stop_grace_period",
    ] {
        assert_eq!(code.fault(there), None);
    }
    for gone in [
        "src/queues.rs",
        "tests/its",
        "queues.rs",
        "cargo run src/queues.rs",
        "tests/it/crash.rs::killed_at_random_moments_full",
        "tests/it/crash.rs::kill_and_check",
        "src/store/log/roll.rs::is_due_now",
        "roll::is_due_now",
        "segments::is_due_now",
        "Log::append_all_of_it()",
        "store::tests::the_store_answers_as_a_list_would",
        "segment_rows_most",
        "HITLOG_WAL_BYTES_MOST",
        "hitlog serve --restore",
        "scripts/soaks 30",
        "NOTHING.md",
    ] {
        assert!(code.fault(gone).is_some(), "{gone}");
    }
}

#[test]
fn links_lead_somewhere() {
    let papers: BTreeMap<_, _> = documents().into_iter().map(|name| (name.clone(), Paper::of(&name))).collect();
    assert!(papers["README.md"].links.iter().any(|link| link == "LICENSE"));
    let of_paper = |(name, paper): (&String, &Paper)| {
        let faults = paper.links.iter().filter_map(|link| fault_of_link(name, link, &papers));
        faults.map(|fault| format!("{name}: {fault}")).collect::<Vec<_>>()
    };
    assert_eq!(papers.iter().flat_map(of_paper).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn planted_links_are_found() {
    let text = "# One, two\n\n## `three`_four\n\n## One, two\n\n<a id=\"five\"></a>[x](#one-two)\n\n```sh\n# no\n```";
    let papers = BTreeMap::from([("docs/a.md".to_owned(), Paper::read(text))]);
    assert_eq!(papers["docs/a.md"].links, ["#one-two"]);
    for (link, is_good) in [
        ("#one-two", true),
        ("#one-two-1", true),
        ("#three_four", true),
        ("#five", true),
        ("a.md#five", true),
        ("../Cargo.toml", true),
        ("../src", true),
        ("https://example.com/no#where", true),
        ("#one-two-2", false),
        ("#no", false),
        ("Cargo.toml", false),
        ("../src/no.rs", false),
        ("../Cargo.toml#L7", false),
    ] {
        assert_eq!(fault_of_link("docs/a.md", link, &papers).is_none(), is_good, "{link}");
    }
}

/// Where the lines of every document stand that are found in it.
fn lines_of_all(found_in: impl Fn(&str) -> Vec<usize>) -> Vec<String> {
    let found = documents().into_iter().flat_map(|document| {
        let text = fs::read_to_string(root().join(&document)).unwrap();
        found_in(&text).into_iter().map(move |line| format!("{document}:{line}"))
    });
    found.collect()
}

#[test]
fn documents_keep_their_size() {
    let wide = lines_of_all(wide_lines);
    assert!(wide.is_empty(), "longer than 120 characters: {wide:?}");
    let line = "word ".repeat(30);
    assert_eq!(wide_lines(&format!("a\n{line}\n| {line} |\n```\n{line}\n```\n{line}")), [2, 7]);
}

/// The lines that are longer than 120 characters, but for tables, code, and addresses that cannot be wrapped.
fn wide_lines(text: &str) -> Vec<usize> {
    let mut in_block = false;
    let mut is_wide = |line: &str| {
        in_block ^= line.trim_start().starts_with("```");
        !in_block && line.chars().count() > 120 && !line.starts_with('|') && line.trim().contains(' ')
    };
    (1..).zip(text.lines()).filter(|(_, line)| is_wide(line)).map(|(number, _)| number).collect()
}

#[test]
fn no_sentence_became_a_list() {
    let torn = lines_of_all(torn_lines);
    assert!(torn.is_empty(), "a number or a dash begins a line of a paragraph, and so a list: {torn:?}");
    assert_eq!(torn_lines("a\n\n- b\n  - c\n- d\n\nit exits with\n1. That\n\n1. e\nf\n"), [8]);
}

/// The lines that begin a list right behind a line of a paragraph.
fn torn_lines(text: &str) -> Vec<usize> {
    let (mut depth, mut torn) = (0, Vec::new());
    for (event, at) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::List(_)) => {
                let before = text[..at.start].trim_end_matches([' ', '\t']);
                if depth == 0 && !before.is_empty() && !before.ends_with("\n\n") {
                    torn.push(before.lines().count() + 1);
                }
                depth += 1;
            }
            Event::End(TagEnd::List(_)) => depth -= 1,
            _ => {}
        }
    }
    torn
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines < README_LINES_MAX, "{lines} lines: what is not for the first reading goes to docs");
}

/// The names in a cell.
fn names(cell: &str) -> BTreeSet<&str> {
    cell.split(", ").filter(|name| *name != "nobody").collect()
}

#[test]
fn the_tables_of_rooms_and_layers_are_the_codes() {
    let paper = Paper::of("ARCHITECTURE.md");
    let told: BTreeMap<_, _> = paper.table("room").iter().map(|row| (&*row[0], names(&row[2]))).collect();
    let all = ("main, cli, app", BTreeSet::from(["everything"]));
    let drawn = ARROWS.iter().map(|(room, known)| (*room, known.iter().copied().collect()));
    assert_eq!(told, drawn.chain([all]).collect());
    let layers: Vec<_> = paper.table("layer").iter().map(|row| names(&row[1])).collect();
    assert_eq!(layers, STORE_LAYERS.map(|layer| layer.iter().copied().collect()));
}

/// Every thread of a busy daemon stands in the table, and all of the table that live for long are there.
#[test]
fn the_table_of_threads_is_the_daemons() {
    let paper = Paper::of("ARCHITECTURE.md");
    let told: BTreeSet<_> = paper.table("thread").iter().map(|row| row[0].clone()).collect();
    // Nobody listens there, and what ships is there all the same.
    let daemon = Daemon::start(&["--segment-rows-max=20", "--ship-url=http://127.0.0.1:9"]);
    let code = daemon.register("example.com");
    let events = vec![event_with(&code, serde_json::json!({})); 25];
    let batch = serde_json::json!({ "events": events }).to_string();
    assert_eq!(daemon.client().post("/api/v1/events/batch", batch).status, 201);
    let mut seen = BTreeSet::new();
    wait_until("a segment is sealed", || {
        seen.extend(threads(&daemon));
        (daemon.segments("sealed") == 1).then_some(())
    });
    daemon.wait_until_sealed();
    seen.extend(threads(&daemon));
    daemon.stop();
    assert_eq!(seen.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the table");
    let short_lived = ["seal", "rollup", "reader-beside", "ready line"].map(str::to_owned).into();
    let missing = &(&told - &seen) - &short_lived;
    assert!(missing.is_empty(), "in the table and not there: {missing:?}");
}

/// The names of a daemon's threads, with N for a number.
fn threads(daemon: &Daemon) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().map_while(Result::ok);
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    let numbered = |name: &str| match name.split_once('-') {
        Some((kind, _)) => format!("{kind}-N"),
        None => name.to_owned(),
    };
    names.map(|name| numbered(name.trim_end())).collect()
}

/// The commands that begin with these words, as they are called, each with its help.
fn commands(words: &[&str]) -> Vec<(String, String)> {
    let output = command(&[words, &["--help"]].concat()).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.split("\n\n").find_map(|part| part.strip_prefix("Commands:\n")).unwrap_or_default();
    let named = listed.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let below: Vec<_> = named.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").collect();
    // Where another word must follow, it is none by itself.
    let is_one = !words.is_empty() && !help.contains("<COMMAND>");
    let mut found: Vec<_> = below.iter().flat_map(|name| commands(&[words, &[*name]].concat())).collect();
    found.extend(is_one.then(|| (format!("hitlog {}", words.join(" ")), help.clone())));
    found
}

/// The flags that stand in a text, without their dashes.
fn flags(text: &str) -> Vec<String> {
    let words = text.split(|of: char| !of.is_ascii_lowercase() && of != '-');
    words.filter_map(|word| word.strip_prefix("--")).filter(|flag| !flag.is_empty()).map(str::to_owned).collect()
}

/// Each command stands in the table of tools with the flags that are its own, and nothing else does.
#[test]
fn the_table_of_tools_is_the_command_lines() {
    let paper = Paper::of("docs/operations.md");
    // A command is called in small letters; what it takes is in brackets or in capitals.
    let called = |cell: &str| {
        let words = cell.split(' ').take_while(|word| word.chars().all(|of| of.is_ascii_lowercase() || of == '-'));
        words.filter(|word| !word.starts_with('-')).collect::<Vec<_>>().join(" ")
    };
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in paper.table("command") {
        told.entry(called(&row[0])).or_default().extend(flags(&row[0]));
    }
    let settings: BTreeSet<_> = SETTINGS.iter().map(Setting::flag).collect();
    let is_own = |flag: &String| !settings.contains(flag) && !["help", "version", "config"].contains(&flag.as_str());
    let own = |help: &str| {
        let options = help.lines().map(str::trim_start).filter(|line| line.starts_with("--"));
        options.filter_map(|line| flags(line).into_iter().next()).filter(is_own).collect()
    };
    let found = commands(&[]).into_iter().filter(|(name, _)| name != "hitlog serve");
    let taken: BTreeMap<_, BTreeSet<_>> = found.map(|(name, help)| (name, own(&help))).collect();
    assert!(taken.len() > 10, "{taken:?}");
    assert_eq!(told, taken);
}

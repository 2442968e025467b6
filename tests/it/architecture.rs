//! The house: who may know whom, and the style that a test can hold.
//!
//! Every file of `src` is read as tokens. A path that begins with `crate`, `super`, `self`, a module declared in the
//! file or, in the binary, the name of the library is resolved to the file that it leads to; that is an arrow. Modules
//! under `#[cfg(test)]` are left out: a test may look at anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The rooms, and the rooms that each may name. `main`, `cli` and `app` know everything.
pub(crate) const ARROWS: [(&str, &[&str]); 20] = [
    ("allocator", &[]),
    ("budget", &[]),
    ("calendar", &["event"]),
    ("clock", &[]),
    ("command", &[]),
    ("config", &[]),
    ("domain", &[]),
    ("event", &[]),
    ("event_id", &[]),
    ("metrics", &[]),
    ("numbers", &["calendar", "event", "store"]),
    ("website", &["calendar", "domain", "event", "store"]),
    ("queue", &["event", "metrics"]),
    (
        "http",
        &[
            "budget", "calendar", "clock", "domain", "event", "event_id", "numbers", "queue", "metrics", "store",
            "visitor", "web", "website",
        ],
    ),
    ("visitor", &["event", "store"]),
    ("web", &[]),
    ("writer", &["event", "queue", "metrics", "store"]),
    ("ship", &["budget", "clock", "event", "metrics", "store"]),
    ("store", &["allocator", "budget", "clock", "command", "domain", "event", "event_id", "metrics"]),
    (
        "tools",
        &[
            "calendar", "clock", "command", "domain", "event", "event_id", "metrics", "numbers", "store", "web",
            "website",
        ],
    ),
];

/// The store's layers, the lowest first: a file may name its own room and those of lower layers.
pub(crate) const STORE_LAYERS: [&[&str]; 9] = [
    &["error", "options", "priority"],
    &["format"],
    &["rollup"],
    &["ids", "segments"],
    &["catalog", "read"],
    &["seal", "erase", "shipping", "offline"],
    &["log", "repair"],
    &["recover"],
    &["store"],
];

const FUNCTION_LINES_MAX: usize = 70;

/// A file of `src`, read.
#[derive(Debug, Default)]
struct Source {
    /// Where it stands: `["store", "read"]` is `src/store/read.rs`, `[]` the root of the library, `["main"]` that of
    /// the binary.
    module: Vec<String>,
    /// The modules that it declares, in files of their own.
    children: BTreeSet<String>,
    /// The paths that it names, as they are written.
    paths: BTreeSet<Vec<String>>,
    /// Its functions: name and lines.
    functions: Vec<(String, usize)>,
    /// The lines of what is there for tests.
    test_lines: usize,
    /// What this test could not follow to a file.
    detours: Vec<String>,
}

impl Source {
    fn read(name: &str, text: &str) -> Self {
        let mut module: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module == ["lib"] {
            module.clear();
        }
        let mut source = Self { module, ..Self::default() };
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        source.walk(&tokens.into_iter().collect::<Vec<_>>());
        source
    }

    fn walk(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(mark) if mark.as_char() == '#' && is_test_item(&tokens[at..]) => {
                    let end = end_of_item(tokens, at + 2);
                    self.test_lines += tokens[end - 1].span().end().line - tokens[at].span().start().line + 1;
                    end
                }
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    self.note_attribute(tokens.get(at + 1));
                    at + 1
                }
                // In `-> impl Iterator + use<'a>` it imports nothing.
                TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                    let end = end_of_item(tokens, at);
                    self.note_import(tokens, at, end);
                    end
                }
                TokenTree::Ident(word) if word == "mod" && is_punct(tokens.get(at + 2), ';') => {
                    self.children.insert(plain(&tokens[at + 1]));
                    at + 3
                }
                TokenTree::Ident(word) if word == "mod" || word == "include" || is_extern_crate(&tokens[at..]) => {
                    self.detours.push(format!("{word} {}", tokens[at + 1]));
                    at + 1
                }
                TokenTree::Ident(word) if word == "fn" => {
                    self.note_function(tokens, at);
                    at + 1
                }
                TokenTree::Ident(_) => self.note_path(tokens, at),
                TokenTree::Group(group) => {
                    self.walk(&group.stream().into_iter().collect::<Vec<_>>());
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Notes an import. One that passes on what another room has would hide who needs that.
    fn note_import(&mut self, tokens: &[TokenTree], begin: usize, end: usize) {
        let is_public = tokens[begin.saturating_sub(2)..begin].iter().any(|token| is_word(Some(token), "pub"));
        if is_public && ["crate", "rusqlite"].iter().any(|root| is_word(tokens.get(begin + 1), root)) {
            self.detours.push(format!("pub use {}", tokens[begin + 1]));
        }
        self.add_use_tree(&[], &tokens[begin + 1..end - 1]);
    }

    /// Notes the paths in an attribute's strings, where serde takes them.
    fn note_attribute(&mut self, attribute: Option<&TokenTree>) {
        let Some(TokenTree::Group(group)) = attribute else { return };
        let text = group.stream().to_string();
        if text.starts_with("path") || text.starts_with("macro_use") {
            self.detours.push(format!("#[{text}]"));
        }
        let paths = text.split('"').skip(1).step_by(2).filter(|_| !text.starts_with("doc"));
        let paths = paths.map(|path| path.split("::").map(str::to_owned).collect::<Vec<_>>());
        self.paths.extend(paths.filter(|path| path.len() > 1));
    }

    /// Adds every path of a `use`: `a::{b, c::{d, e as f}}` names `a::b`, `a::c::d` and `a::c::e`.
    fn add_use_tree(&mut self, before: &[String], tokens: &[TokenTree]) {
        // Behind the last comma there is nothing.
        let branches = tokens.split(|token| is_punct(Some(token), ','));
        for branch in branches.filter(|branch| !branch.is_empty()) {
            let mut path = before.to_vec();
            for token in branch {
                match token {
                    TokenTree::Ident(word) if word == "as" => {
                        self.note_whole(&path);
                        break;
                    }
                    TokenTree::Ident(_) => path.push(plain(token)),
                    TokenTree::Punct(mark) if mark.as_char() == '*' => self.note_whole(&path),
                    TokenTree::Group(group) => {
                        self.add_use_tree(&path, &group.stream().into_iter().collect::<Vec<_>>());
                        path.clear();
                    }
                    _ => {}
                }
            }
            if !path.is_empty() {
                self.paths.insert(path);
            }
        }
    }

    /// A module of this crate taken whole, or by another name, hides what is named through it.
    fn note_whole(&mut self, path: &[String]) {
        if path.iter().all(|word| ["crate", "super", "self"].contains(&word.as_str())) {
            self.detours.push(format!("use {} as a whole, or by another name", path.join("::")));
        }
    }

    /// Notes a path in code, and returns where it ends.
    fn note_path(&mut self, tokens: &[TokenTree], begin: usize) -> usize {
        let mut path = vec![plain(&tokens[begin])];
        let mut at = begin + 1;
        while is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':') {
            let Some(word @ TokenTree::Ident(_)) = tokens.get(at + 2) else { break };
            path.push(plain(word));
            at += 3;
        }
        if path.len() > 1 {
            self.paths.insert(path);
        }
        at
    }

    fn note_function(&mut self, tokens: &[TokenTree], begin: usize) {
        // What has no name is the type of a pointer to a function.
        let Some(TokenTree::Ident(name)) = tokens.get(begin + 1) else { return };
        if let Some(TokenTree::Group(body)) = tokens.get(end_of_item(tokens, begin) - 1) {
            let lines = body.span_close().end().line - tokens[begin].span().start().line + 1;
            self.functions.push((name.to_string(), lines));
        }
    }

    /// Where a path leads to: a module that has a file.
    fn resolve(&self, path: &[String], files: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
        let is_binary = self.module.first().is_some_and(|root| root == "main");
        let (first, mut rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" if is_binary => vec!["main".to_owned()],
            "crate" => Vec::new(),
            "hitlog" if is_binary => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            child if self.children.contains(child) => [&self.module[..], std::slice::from_ref(first)].concat(),
            _ => return None,
        };
        while let Some((next, after)) = rest.split_first() {
            if next == "super" {
                place.pop();
            } else if files.contains(&[&place[..], std::slice::from_ref(next)].concat()) {
                place.push(next.clone());
            } else {
                break;
            }
            rest = after;
        }
        Some(place)
    }

    /// The modules that it names.
    fn arrows(&self, files: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
        let named = self.paths.iter().filter_map(|path| self.resolve(path, files));
        named.filter(|place| *place != self.module).collect()
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_word(token: Option<&TokenTree>, wanted: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(word)) if word == wanted)
}

/// A word without the `r#` that a keyword needs.
fn plain(token: &TokenTree) -> String {
    token.to_string().trim_start_matches("r#").to_owned()
}

fn is_extern_crate(tokens: &[TokenTree]) -> bool {
    is_word(tokens.first(), "extern") && is_word(tokens.get(1), "crate")
}

/// Whether an item for tests begins here. A field, a variant or an arm has no end that could be told, so it counts as
/// what is shipped.
fn is_test_item(tokens: &[TokenTree]) -> bool {
    const ITEMS: [&str; 11] = ["const", "enum", "fn", "impl", "let", "mod", "static", "struct", "trait", "type", "use"];
    let is_cfg_test = matches!(tokens.get(1), Some(TokenTree::Group(group))
        if group.stream().to_string().replace(' ', "") == "cfg(test)");
    let is_before = |token: &&TokenTree| match token {
        TokenTree::Punct(mark) => mark.as_char() == '#',
        TokenTree::Group(group) => group.delimiter() != Delimiter::Brace,
        TokenTree::Ident(word) => ["pub", "async", "unsafe", "extern"].iter().any(|known| word == known),
        TokenTree::Literal(_) => false,
    };
    let first = tokens.iter().find(|token| !is_before(token));
    is_cfg_test && ITEMS.iter().any(|item| is_word(first, item))
}

/// The place behind an item that ends with a block or a semicolon; a `use` ends with a semicolon only.
fn end_of_item(tokens: &[TokenTree], begin: usize) -> usize {
    let is_use = matches!(&tokens[begin], TokenTree::Ident(word) if word == "use");
    // `X<{ 1 }, { 2 }>` is a type and goes on.
    let goes_on = |at: usize| is_punct(tokens.get(at + 1), '>') || is_punct(tokens.get(at + 1), ',');
    let is_end = |at: &usize| match &tokens[*at] {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use && !goes_on(*at),
        other => is_punct(Some(other), ';'),
    };
    (begin..tokens.len()).find(is_end).map_or(tokens.len(), |at| at + 1)
}

/// Every file of `src`, by its module.
struct House(BTreeMap<Vec<String>, Source>);

impl House {
    fn of(files: &[(&str, &str)]) -> Self {
        let sources = files.iter().map(|(name, text)| Source::read(name, text));
        Self(sources.map(|source| (source.module.clone(), source)).collect())
    }

    fn read() -> Self {
        let texts: Vec<_> = files().iter().map(|path| (name_of(path), fs::read_to_string(path).unwrap())).collect();
        Self::of(&texts.iter().map(|(name, text)| (&**name, &**text)).collect::<Vec<_>>())
    }

    /// Whom each file names.
    fn arrows(&self) -> BTreeMap<&[String], BTreeSet<Vec<String>>> {
        let files = self.0.keys().cloned().collect();
        self.0.iter().map(|(module, source)| (&**module, source.arrows(&files))).collect()
    }

    /// Files that lead back to themselves, each with all that lie on a way back.
    fn circles(&self) -> Vec<BTreeSet<String>> {
        let arrows = self.arrows();
        let reach = |from: &[String]| {
            let (mut reached, mut waiting) = (BTreeSet::new(), vec![from.to_vec()]);
            while let Some(next) = waiting.pop() {
                let new = arrows[&*next].iter().filter(|place| reached.insert((*place).clone()));
                waiting.extend(new.cloned().collect::<Vec<_>>());
            }
            reached
        };
        let reached: BTreeMap<_, _> = arrows.keys().map(|from| (*from, reach(from))).collect();
        let circle = |from: &[String]| -> BTreeSet<String> {
            let on_it = reached[from].iter().filter(|place| reached[&***place].contains(from));
            on_it.map(|place| place.join("/")).collect()
        };
        let circles: BTreeSet<_> = arrows.keys().map(|from| circle(from)).filter(|circle| !circle.is_empty()).collect();
        circles.into_iter().collect()
    }

    /// Arrows that the house does not allow.
    fn wrong_arrows(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (from, places) in self.arrows() {
            for to in places.iter().filter(|to| !is_allowed(from, to)) {
                wrong.push(format!("{} names {}", from.join("/"), to.join("/")));
            }
        }
        wrong
    }
}

fn is_allowed(from: &[String], to: &[String]) -> bool {
    let Some(room) = from.first().filter(|room| !["main", "cli", "app"].contains(&room.as_str())) else {
        // Whoever named the root of the library could name everything through it.
        return !to.is_empty();
    };
    match to.first() {
        Some(other) if other == room => room != "store" || is_down(from, to),
        Some(other) => {
            let known = ARROWS.iter().find(|(name, _)| name == room).map(|(_, known)| known);
            known.unwrap_or_else(|| panic!("{room} is a new room: draw its arrows here")).contains(&other.as_str())
        }
        None => false,
    }
}

/// Whether a file of the store names one of a lower layer, or of its own room.
fn is_down(from: &[String], to: &[String]) -> bool {
    let layer = |module: &[String]| {
        let room = module.get(1).map_or("store", String::as_str);
        let at = STORE_LAYERS.iter().position(|layer| layer.contains(&room));
        at.unwrap_or_else(|| panic!("{room} is a new room of the store: say its layer here"))
    };
    layer(to) < layer(from) || to.get(1) == from.get(1)
}

fn files() -> Vec<PathBuf> {
    fn below(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
        let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
        files.chain(folders.iter().flat_map(|folder| below(folder))).collect()
    }
    let is_test =
        |path: &PathBuf| path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
    below(&src()).into_iter().filter(|path| !is_test(&path.strip_prefix(src()).unwrap().to_owned())).collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A file's path below `src`.
fn name_of(path: &Path) -> String {
    path.strip_prefix(src()).unwrap().display().to_string()
}

#[test]
fn no_circle_of_imports() {
    assert_eq!(House::read().circles(), Vec::<BTreeSet<String>>::new());
}

#[test]
fn every_import_can_be_followed() {
    let detours = |source: &Source| {
        let detours = source.detours.iter().map(|detour| format!("{}: {detour}", source.module.join("/")));
        detours.collect::<Vec<_>>()
    };
    let house = House::read();
    assert_eq!(house.0.values().flat_map(detours).collect::<Vec<_>>(), Vec::<String>::new());
    assert!(house.0.keys().all(|module| module.last().is_none_or(|name| name != "mod")), "a mod.rs");
    for planted in [
        "use super::*;",
        "use crate as root;",
        "use crate::{self as root};",
        "pub use crate::store::Store;",
        "pub(crate) use rusqlite as sql;",
        "extern crate self as other;",
        "#[path = \"x.rs\"] mod x;",
        "include!(\"x.rs\");",
        "mod inner { use super::super::x; }",
    ] {
        assert!(!detours(&Source::read("a/b.rs", planted)).is_empty(), "{planted}");
    }
}

#[test]
fn rooms_and_layers_know_whom_they_may() {
    assert_eq!(House::read().wrong_arrows(), Vec::<String>::new());
}

#[test]
fn a_planted_circle_is_found() {
    let circle = |files: &[(&str, &str)]| {
        let circles: Vec<_> = House::of(files).circles().into_iter().flatten().collect();
        circles.join(" ")
    };
    let of_two = |a: &str, b: &str| {
        circle(&[("lib.rs", "mod store;"), ("store.rs", "mod a; mod b;"), ("store/a.rs", a), ("store/b.rs", b)])
    };
    for (a, b, found) in [
        ("use super::b::B;", "", ""),
        ("use super::b::B;", "use super::a::A;", "store/a store/b"),
        ("use super::{c, b::{B, D as E}};", "fn f() { crate::store::a::f(); }", "store/a store/b"),
        ("fn f(b: &self::super::b::B) {}", "struct B(Vec<super::a::A>);", "store/a store/b"),
        ("fn f() { g(|| vec![super::b::B]) }", "impl super::a::A for B {}", "store/a store/b"),
        ("use crate::{store::{b::B, c::{D,},},};", "use super::{ac, b::a,};", ""),
        ("use super::b::B;", "fn f() -> impl Iterator + use<> { super::a::f() }", "store/a store/b"),
        ("use super::b::B;", "struct S { #[cfg(test)] t: u8, a: super::a::A }", "store/a store/b"),
        ("use super::b::B;", "#[serde(default = \"super::a::f\")] struct S;", "store/a store/b"),
        ("use super::b::B;", "fn f() { super::r#a::f() }", "store/a store/b"),
        ("use super::b::B;", "#[cfg(test)] pub(crate) fn f() { super::a::f() }", ""),
        ("use super::b::B;", "// use super::a::A;\nconst A: &str = \"super::a::A\";", ""),
        ("use super::b::B;", "#[cfg(test)]\nmod tests { use super::super::a::A; }", ""),
    ] {
        assert_eq!(of_two(a, b), found, "{a} {b}");
    }
    let parent = [("store.rs", "mod a; pub use a::A;"), ("store/a.rs", "use super::B;")];
    assert_eq!(circle(&parent), "store store/a", "a parent that passes on what a child has, which needs the parent");
    let parent = [("store.rs", "mod a; fn f() { a::g() }"), ("store/a.rs", "fn g() { super::h() }")];
    assert_eq!(circle(&parent), "store store/a");
    let far = [
        ("lib.rs", "pub mod a; pub mod b; pub mod c;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
    ];
    assert_eq!(circle(&far), "a b c");
    assert_eq!(circle(&[("main.rs", "mod x; fn f() { x::f() }"), ("main/x.rs", "use crate::f;")]), "main main/x");
}

#[test]
fn a_planted_arrow_up_is_found() {
    let wrong = |from: &str, text: &str| {
        let to = ["lib", "http", "queue", "store", "store/error", "store/format", "store/read", "store/catalog"];
        let mut files: Vec<_> = to.iter().map(|name| (format!("{name}.rs"), "")).collect();
        files.retain(|(name, _)| name != from);
        files.push((from.to_owned(), text));
        House::of(&files.iter().map(|(name, text)| (&**name, *text)).collect::<Vec<_>>()).wrong_arrows().join(" ")
    };
    for (from, text, found) in [
        ("store/read.rs", "use super::{error::E, format};", ""),
        ("store/format.rs", "use super::read::R;", "store/format names store/read"),
        ("store/format/row.rs", "use super::super::read::R;", "store/format/row names store/read"),
        ("store/read.rs", "fn f() { super::catalog::f() }", "store/read names store/catalog"),
        ("store/error.rs", "use super::Store;", "store/error names store"),
        ("store/error.rs", "use crate::http;", "store/error names http"),
        ("queue.rs", "fn f() -> crate::store::E {}", "queue names store"),
        ("http.rs", "use crate::{queue::Q, store};", ""),
    ] {
        assert_eq!(wrong(from, text), found, "{from} {text}");
    }
}

#[test]
fn only_the_store_knows_sqlite() {
    for path in files() {
        let (name, text) = (name_of(&path), fs::read_to_string(&path).unwrap());
        let is_store = name == "store.rs" || name.starts_with("store/");
        assert!(is_store || !text.contains("rusqlite"), "{name} names rusqlite");
    }
}

/// The statements that write events, by the file that has them.
#[test]
fn rows_are_written_in_two_places() {
    let writes = |text: &str| {
        let text = text.to_lowercase();
        let statements = ["insert_event", "into event(", "into main.event(", "update event ", "delete from event"];
        statements.iter().any(|statement| text.contains(statement))
    };
    let named = files().into_iter().map(|path| (name_of(&path), fs::read_to_string(path).unwrap()));
    let found: BTreeSet<_> = named.filter(|(_, text)| writes(text)).map(|(name, _)| name).collect();
    let known = ["store/format/schema.rs", "store/log/insert.rs", "store/seal/copy.rs"];
    assert_eq!(found, known.map(str::to_owned).into());
    for planted in ["DELETE FROM Event WHERE id = 1", "UPDATE Event SET url = ''", "INSERT INTO Event(id) VALUES(1)"] {
        assert!(writes(planted), "{planted}");
    }
}

#[test]
fn only_the_clock_tells_the_time() {
    for path in files() {
        let (name, text) = (name_of(&path), fs::read_to_string(&path).unwrap());
        let asks = ["SystemTime::now", "Timestamp::now", "ClockId::Realtime"].iter().any(|of| text.contains(of));
        assert_eq!(asks, name == "clock.rs", "{name}");
    }
}

#[test]
fn unsafe_code_has_its_named_rooms() {
    for path in files() {
        let (name, text) = (name_of(&path), fs::read_to_string(&path).unwrap());
        let is_named = ["allocator.rs", "store/log/insert.rs", "store/format/scratch.rs", "store/format/vfs.rs"]
            .contains(&name.as_str());
        assert_eq!(text.contains("unsafe_code"), is_named, "{name}");
    }
}

#[test]
fn functions_fit_a_screen() {
    let long = |source: &Source| {
        let long = source.functions.iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        long.map(|(name, lines)| format!("{}: {name} has {lines} lines", source.module.join("/"))).collect::<Vec<_>>()
    };
    let house = House::read();
    let longest = house.0.values().flat_map(|source| &source.functions).map(|(_, lines)| *lines).max();
    assert!(longest.is_some_and(|lines| lines > FUNCTION_LINES_MAX / 2), "the lines are counted: {longest:?}");
    assert_eq!(house.0.values().flat_map(long).collect::<Vec<_>>(), Vec::<String>::new());
    let planted = format!("fn long() {{{}}}\nfn short<A, B>(f: fn(A) -> B) {{\n}}", "\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long(&Source::read("a.rs", &planted)), ["a: long has 71 lines"]);
}

#[test]
fn files_and_lines_keep_their_size() {
    let mut wide_lines = Vec::new();
    for path in files() {
        let (name, text) = (name_of(&path), fs::read_to_string(&path).unwrap());
        assert!(text.starts_with("//!"), "{name} does not say what it owns");
        let own_lines = text.lines().count() - Source::read(&name, &text).test_lines;
        assert!(own_lines <= 500, "{name} has {own_lines} lines: split it by purpose");
        let wide = text.lines().enumerate().filter(|(_, line)| line.chars().count() > 120);
        wide_lines.extend(wide.map(|(at, _)| format!("{name}:{}", at + 1)));
    }
    assert!(wide_lines.is_empty(), "longer than 120 characters: {wide_lines:?}");
}

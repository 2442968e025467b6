//! `hitlog import`: the lines of an export, appended as new events, and the websites that they tell of.
//!
//! The lines are read twice. The first time every line and every website is checked, by the rules of the HTTP
//! interface, and nothing is written: a bad line means that nothing is imported. The second time the events are
//! appended, group by group, each durable before the next; a failure there says after which line to go on. No group is
//! appended whose bytes are not those that were checked.

mod lines;
mod source;
mod stop;
mod websites;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::Arc,
};

use indicatif::ProgressBar;
pub use lines::WebsiteRules;
use lines::{BAD_LINES_TOLD, LineReader, LineRules};
use parking_lot::Mutex;
use source::Source;
pub use stop::Stop;
use websites::Destinations;

use super::{
    Outcome, ToolError,
    progress::{Unit, bar},
    stats::find_website,
    table::pluralize,
    tell_done,
};
use crate::{
    command,
    event::Rules,
    metrics::{BuildInfo, Metrics},
    store::{
        self, AppendError, DataDir, OnFailure, Store, StoreOptions,
        offline::{CatalogContents, OfflineDir},
    },
};

/// What is said of an import that was interrupted before its first event.
pub const NOTHING_IMPORTED: &str = "interrupted; nothing was imported";

/// What to import, and where to.
#[derive(Debug)]
pub struct ImportOptions {
    /// The file of lines; `-` is standard input.
    pub file: PathBuf,
    /// Where the events are to be.
    pub data_dir: PathBuf,
    /// The website that all events are to belong to, by its id, tracking code or domain; if none, each keeps its own.
    pub website: Option<String>,
    /// How many lines at the beginning of the file are left out.
    pub skip: u64,
    /// The rules of an event, made by [`rules`].
    pub rules: Rules,
    /// Longest line, in bytes.
    pub line_bytes_max: usize,
    /// The rules of a website.
    pub website_rules: WebsiteRules,
    /// How the store works.
    pub store: StoreOptions,
    /// How somebody asks the import to end.
    pub stop: Arc<Stop>,
}

/// The rules of an event that comes from an export, where others hold for one that a client sends.
pub fn rules(of_clients: &Rules, line_bytes_max: usize) -> Rules {
    Rules {
        // An event keeps its `createdAt`, which was accepted when it first came in.
        timestamp_ahead_max_ms: i64::MAX,
        // An older hitlog took addresses whose scheme has no `//`.
        any_bare_scheme: true,
        batch_events_max: lines::GROUP_LINES as usize,
        // An event is written anew for the parser, with a few words more than its line has.
        item_bytes_max: 2 * line_bytes_max,
        ..of_clients.clone()
    }
}

/// Checks the file, then appends its events.
pub fn run(options: &ImportOptions) -> Outcome {
    store::check_sqlite_version()?;
    // A directory that is not there yet is made only when the file is known to be good.
    let locked = options.data_dir.exists().then(|| DataDir::open(&options.data_dir)).transpose()?;
    let catalog = match &locked {
        Some(directory) if directory.has_catalog() => Some(OfflineDir::open(&options.data_dir)?.catalog()?),
        _ => None,
    };
    let mut targets = Destinations::new(catalog.as_ref(), forced_website(options, catalog.as_ref())?);
    let bar = bar("reading", 0, Unit::Bytes);
    // Nothing is to be ended in order while a pipe is waited for.
    let from_stdin = command_from(options, source::STDIN.as_ref(), (options.skip > 0).then_some(options.skip));
    let open = || Source::open(&options.file, &options.data_dir, &options.store, &bar, &from_stdin);
    let opened = options.stop.while_nothing_is_done(open);
    let source = opened.ok_or_else(|| ToolError::Import(NOTHING_IMPORTED.into()))??;
    let import = Import { options, source: &source, bar: &bar };
    bar.reset();
    bar.set_length(source.bytes());
    bar.set_message("checking");
    let checked = import.check(&mut targets)?;
    bar.reset();
    bar.set_message("importing");
    let directory = locked.map_or_else(|| DataDir::open(&options.data_dir), Ok)?;
    let events = import.append(&directory, &mut targets, &checked)?;
    bar.finish_and_clear();
    let then = if events > 0 { "Do not import these lines again" } else { "" };
    tell_done(&summary(events, &targets), then)?;
    Ok(true)
}

/// Most websites that are named.
const WEBSITES_TOLD: usize = 20;

fn summary(events: u64, targets: &Destinations<'_>) -> String {
    let websites = |count: usize| pluralize(count as u64, "website");
    let registered = match targets.planned().len() {
        0 => String::new(),
        new => format!(", and {} registered", websites(new)),
    };
    let mut text = format!("{} imported{registered}\n", pluralize(events, "event"));
    let filled_in = targets.filled_in().len();
    if filled_in > 0 {
        text.push_str(&format!(
            "of which only events had told, and named now as the lines have them: {}\n",
            websites(filled_in)
        ));
    }
    let stay = targets.stay();
    if !stay.is_empty() {
        text.push_str(&format!("here already, and left as they are: {}\n", websites(stay.len())));
    }
    let other: Vec<_> = stay.iter().filter(|(_, differs)| **differs).map(|(id, _)| &**id).collect();
    if !other.is_empty() {
        let more = if other.len() > WEBSITES_TOLD { " and more" } else { "" };
        let named = other[..other.len().min(WEBSITES_TOLD)].join(", ");
        text.push_str(&format!(
            "of them with another name, domain, description, time zone, hosts or goals than in the lines: \
             {named}{more}\n"
        ));
    }
    if targets.left_out() > 0 {
        let left_out = websites(targets.left_out());
        text.push_str(&format!("left out, because --website says where all events go: {left_out}\n"));
    }
    text
}

/// The command that imports what this path names, and leaves out so many lines of it.
fn command_from(options: &ImportOptions, path: &OsStr, skip: Option<u64>) -> String {
    let mut words: Vec<OsString> = vec!["import".into()];
    words.extend(skip.into_iter().flat_map(|lines| ["--skip".into(), lines.to_string().into()]));
    words.extend(options.website.as_ref().map(|website| command::flag("website", website)));
    words.push(path.to_owned());
    command::hitlog(words)
}

/// The website that all events are to belong to.
fn forced_website(options: &ImportOptions, catalog: Option<&CatalogContents>) -> Result<Option<Arc<str>>, ToolError> {
    let Some(text) = &options.website else { return Ok(None) };
    let catalog = catalog.ok_or_else(|| {
        ToolError::Arguments(format!(
            "--website {text}: there is nothing in {} yet, and so no website; without --website, those that the lines \
             name are registered",
            options.data_dir.display()
        ))
    })?;
    Ok(Some(Arc::clone(&find_website(catalog, text)?.id)))
}

/// An import under way.
struct Import<'a> {
    options: &'a ImportOptions,
    source: &'a Source,
    bar: &'a ProgressBar,
}

impl Import<'_> {
    fn cannot_read(&self, error: &std::io::Error) -> ToolError {
        ToolError::Import(format!("cannot read {}: {error}", self.source.name()))
    }

    /// The lines from the first one that is not skipped.
    fn open(&self) -> Result<LineReader<'_>, ToolError> {
        let ImportOptions { rules: event, line_bytes_max, website_rules: website, skip, .. } = self.options;
        let rules = LineRules { event, line_bytes_max: *line_bytes_max, website: *website };
        let mut lines = LineReader::new(self.source.read(), rules, self.bar.clone());
        let skipped = lines.skip(*skip).map_err(|error| self.cannot_read(&error))?;
        if skipped < *skip {
            let name = self.source.name();
            return Err(ToolError::Arguments(format!("--skip {skip}: {name} has only {}", pluralize(skipped, "line"))));
        }
        Ok(lines)
    }

    /// The first reading: checks every line, and where its event would go. Returns the digest of each group.
    fn check(&self, targets: &mut Destinations<'_>) -> Result<Vec<u64>, ToolError> {
        let mut lines = self.open()?;
        let (mut bad, mut digests) = (Vec::new(), Vec::new());
        while bad.len() < BAD_LINES_TOLD {
            if self.options.stop.is_asked() {
                return Err(ToolError::Import(NOTHING_IMPORTED.into()));
            }
            let Some(group) = lines.next_group(targets).map_err(|error| self.cannot_read(&error))? else { break };
            digests.push(group.digest);
            bad.extend(group.bad);
        }
        if !bad.is_empty() {
            bad.truncate(BAD_LINES_TOLD);
            let faults: String = bad.iter().map(|bad| format!("\n  line {}: {}", bad.number, bad.what)).collect();
            let name = self.source.name();
            let text = format!("{name}: nothing was imported, because of what is wrong with it:{faults}");
            return Err(ToolError::Import(text));
        }
        if self.source.has_changed().map_err(|error| self.cannot_read(&error))? {
            return Err(ToolError::Import(format!(
                "{} was written to while it was checked, and nothing was imported; try again when nobody writes to it",
                self.source.name()
            )));
        }
        Ok(digests)
    }

    /// The second reading: appends the events, and returns how many there were.
    fn append(&self, directory: &DataDir, targets: &mut Destinations<'_>, checked: &[u64]) -> Result<u64, ToolError> {
        let metrics = Metrics::new(&BuildInfo {
            version: env!("CARGO_PKG_VERSION"),
            sqlite: store::sqlite_version(),
            sqlite_build: "",
            durability: "import",
        });
        let metrics = metrics.map_err(|error| ToolError::Import(format!("cannot register the metrics: {error}")))?;
        let failure = Arc::new(Mutex::new(None));
        let failed: OnFailure = {
            let failure = Arc::clone(&failure);
            Arc::new(move |reason| *failure.lock() = Some(reason))
        };
        let open = || Store::open(directory, &self.options.store, &metrics.store, failed);
        let opened = self.options.stop.while_nothing_is_done(open);
        let mut store = opened.ok_or_else(|| ToolError::Import(NOTHING_IMPORTED.into()))??;
        let appended = self.append_all(&mut store, targets, checked, &failure);
        // The store ends in the same order as when the daemon stops.
        let closed = store.close();
        let events = appended?;
        closed.map_err(|error| {
            ToolError::Import(format!(
                "{} imported, so do not import these lines again; but the store was not closed in order: {error}. \
                 `{}` tells whether all is well with it",
                pluralize(events, "event"),
                command::hitlog(["check"])
            ))
        })?;
        Ok(events)
    }

    fn append_all(
        &self,
        store: &mut Store,
        targets: &mut Destinations<'_>,
        checked: &[u64],
        failure: &Mutex<Option<String>>,
    ) -> Result<u64, ToolError> {
        let mut done = Done { events: 0, lines: self.options.skip, are_websites_registered: false };
        let mut lines = self.open()?;
        for digest in checked {
            if self.options.stop.is_asked() {
                return Err(self.cut_short(&done, "interrupted"));
            }
            if let Some(reason) = failure.lock().take() {
                return Err(self.cut_short(&done, &reason));
            }
            let group = lines.next_group(targets).map_err(|error| self.cut_short(&done, &error.to_string()))?;
            let group = group.filter(|group| group.digest == *digest && group.bad.is_empty());
            let Some(group) = group else { return Err(self.changed(&done)) };
            self.register(store, targets, &mut done)?;
            if !group.events.is_empty() {
                store.log.append(std::iter::once(&group.events)).map_err(|error| match error {
                    AppendError::StorageFull(_) | AppendError::Lost(_) => self.cut_short(&done, &error.to_string()),
                    AppendError::Fatal(_) => self.in_doubt(&done, group.last_line, &error.to_string()),
                })?;
            }
            done.events += group.events.len() as u64;
            done.lines = group.last_line;
            store.log.maintain().map_err(|error| self.cut_short(&done, &error.to_string()))?;
        }
        match lines.next_group(targets) {
            Ok(None) => Ok(done.events),
            // It has grown by whole groups.
            Ok(Some(_)) => Err(self.changed(&done)),
            Err(error) => Err(self.cut_short(&done, &error.to_string())),
        }
    }

    /// Registers the websites and fills in others, before the first event.
    fn register(&self, store: &Store, targets: &Destinations<'_>, done: &mut Done) -> Result<(), ToolError> {
        if done.are_websites_registered {
            return Ok(());
        }
        for website in targets.planned() {
            let domain = website.domain.clone();
            let registered = store.catalog.import_website(website);
            registered.map_err(|error| self.cut_short(done, &format!("the website {domain}: {error}")))?;
        }
        for website in targets.filled_in() {
            let domain = website.domain.clone();
            let filled_in = store.catalog.fill_in_website(website);
            filled_in.map_err(|error| self.cut_short(done, &format!("the website {domain}: {error}")))?;
        }
        done.are_websites_registered = true;
        Ok(())
    }

    /// The storage failed while lines were on their way: nobody knows whether they are there.
    fn in_doubt(&self, done: &Done, last_line: u64, what: &str) -> ToolError {
        ToolError::Import(format!(
            "{what}. The first {} lines are imported, and those up to line {last_line} may be: when the disk is well \
             again, see whether `{}` ends with them.\nIf it does not: {}\nIf it does: {}",
            done.lines,
            command::hitlog(["export"]),
            self.how_to_go_on(done.lines),
            self.how_to_go_on(last_line)
        ))
    }

    fn cut_short(&self, done: &Done, what: &str) -> ToolError {
        let go_on = self.how_to_go_on(done.lines);
        let changed = match self.source.has_changed() {
            Ok(false) => String::new(),
            _ => format!(" {} was written to meanwhile: {STILL_THE_SAME}.", self.source.name()),
        };
        ToolError::Import(format!("{what}. The first {} lines are imported.{changed} {go_on}", done.lines))
    }

    /// The second reading found other lines than the first.
    fn changed(&self, done: &Done) -> ToolError {
        let name = self.source.name();
        if done.lines == self.options.skip {
            return ToolError::Import(format!(
                "{name} was changed after it was checked, and nothing was imported; try again when nobody writes to it"
            ));
        }
        ToolError::Import(format!(
            "{name} was changed after it was checked. Its first {} lines are imported as they were then, and nothing \
             after them: {STILL_THE_SAME}. {}",
            done.lines,
            self.how_to_go_on(done.lines)
        ))
    }

    fn how_to_go_on(&self, lines: u64) -> String {
        let name = self.source.name();
        let command = |path: &OsStr| command_from(self.options, path, Some(lines));
        match self.source.path() {
            // Its lines would be left out as though they were those of the other.
            Some(_) if self.source.is_replaced() => format!(
                "But {name} is another file by now, or gone: these were lines of the file that was there before, and \
                 of what is there now none is imported. Look for the one that was there, and import that with --skip \
                 {lines}"
            ),
            Some(path) => format!("Go on with: {}", command(path)),
            None => {
                format!("Send the same lines again, from the first one on, into: {}", command(source::STDIN.as_ref()))
            }
        }
    }
}

/// What to look at before lines are left out.
const STILL_THE_SAME: &str = "see that nobody writes to it any more, and that these lines are still the same";

/// How far an import is.
struct Done {
    events: u64,
    /// Lines from the first one on, those that were skipped included.
    lines: u64,
    are_websites_registered: bool,
}

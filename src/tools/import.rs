//! `hitlog import`: the lines of an export, appended as new events.
//!
//! The file is read twice. The first time every line and every website is checked, by the rules of the HTTP interface,
//! and nothing is written: a bad line means that nothing is imported. The second time the events are appended, group
//! by group, each durable before the next; a failure there says after which line to go on.

mod lines;
mod stop;
mod websites;

use std::{
    fs::{self, File},
    path::PathBuf,
    sync::Arc,
};

use indicatif::ProgressBar;
use lines::{LineReader, ParsedLines};
use parking_lot::Mutex;
pub use stop::Stop;
use websites::Destinations;

use super::{
    Outcome, ToolError, print,
    progress::{Unit, bar},
    table::pluralize,
};
use crate::{
    event::Rules,
    metrics::{BuildInfo, Metrics},
    store::{
        self, AppendError, DataDir, OnFailure, Store, StoreOptions,
        offline::{CatalogContents, OfflineDir},
    },
};

/// How many bad lines are reported; a file that has more is the wrong one.
const BAD_LINES_TOLD: usize = 10;

/// What is said of an import that was interrupted before its first event.
pub const NOTHING_IMPORTED: &str = "interrupted; nothing was imported";

/// What to import, and where to.
#[derive(Debug)]
pub struct ImportOptions {
    /// The file of lines.
    pub file: PathBuf,
    /// Where the events are to be.
    pub data_dir: PathBuf,
    /// The website that all events are to belong to, by its id, tracking code or domain; if none, each keeps its own.
    pub website: Option<String>,
    /// How many lines at the beginning of the file are left out.
    pub skip: u64,
    /// The rules of an event.
    pub rules: Rules,
    /// Longest line, in bytes.
    pub line_bytes_max: usize,
    /// How the store works.
    pub store: StoreOptions,
    /// How somebody asks the import to end.
    pub stop: Arc<Stop>,
}

/// Checks the file, then appends its events.
pub fn run(options: ImportOptions) -> Outcome {
    store::check_sqlite_version()?;
    let options = ImportOptions {
        rules: Rules {
            // An event keeps its `createdAt`, which was accepted when it first came in.
            timestamp_ahead_max_ms: i64::MAX,
            // An older hitlog took addresses whose scheme has no `//`.
            any_bare_scheme: true,
            batch_events_max: lines::GROUP_EVENTS,
            // An event is written anew for the parser, with a few words more than its line has.
            item_bytes_max: 2 * options.line_bytes_max,
            ..options.rules
        },
        ..options
    };
    // A directory that is not there yet is made only when the file is known to be good.
    let locked = options.data_dir.exists().then(|| DataDir::open(&options.data_dir)).transpose()?;
    let catalog = match &locked {
        Some(directory) if directory.has_catalog() => Some(OfflineDir::open(&options.data_dir)?.catalog()?),
        _ => None,
    };
    let mut targets = Destinations::new(catalog.as_ref(), forced_website(&options, catalog.as_ref())?);
    let bytes = fs::metadata(&options.file).map_err(|error| cannot_read(&options, &error))?.len();
    let bar = bar("checking", bytes, Unit::Bytes);
    check(&options, &mut targets, &bar)?;
    bar.reset();
    bar.set_message("importing");
    let directory = locked.map_or_else(|| DataDir::open(&options.data_dir), Ok)?;
    let events = append(&options, &directory, &mut targets, &bar)?;
    bar.finish_and_clear();
    let websites = match targets.planned().len() {
        0 => String::new(),
        new => format!(", and {} registered", pluralize(new as u64, "website")),
    };
    print(format!("{} imported{websites}\n", pluralize(events, "event")).as_bytes())?;
    Ok(true)
}

fn cannot_read(options: &ImportOptions, error: &std::io::Error) -> ToolError {
    ToolError::Import(format!("cannot read {}: {error}", options.file.display()))
}

fn forced_website(options: &ImportOptions, catalog: Option<&CatalogContents>) -> Result<Option<Arc<str>>, ToolError> {
    let Some(text) = &options.website else { return Ok(None) };
    let found = catalog.and_then(|catalog| catalog.find_website(text));
    let found = found.ok_or_else(|| {
        let text = format!(
            "--website {text}: no website here has this id, tracking code or domain; `hitlog stats` lists them"
        );
        ToolError::Arguments(text)
    });
    found.map(|website| Some(Arc::clone(&website.id)))
}

fn open<'a>(options: &'a ImportOptions, bar: &ProgressBar) -> Result<LineReader<'a>, ToolError> {
    let file = File::open(&options.file).map_err(|error| cannot_read(options, &error))?;
    let mut lines = LineReader::new(file, &options.rules, options.line_bytes_max, bar.clone());
    lines.skip(options.skip).map_err(|error| cannot_read(options, &error))?;
    Ok(lines)
}

/// The first reading: checks every line, and where its event would go.
fn check(options: &ImportOptions, targets: &mut Destinations<'_>, bar: &ProgressBar) -> Result<(), ToolError> {
    let mut lines = open(options, bar)?;
    let mut bad = Vec::new();
    while bad.len() < BAD_LINES_TOLD {
        if options.stop.is_asked() {
            return Err(ToolError::Import(NOTHING_IMPORTED.into()));
        }
        let Some(group) = lines.next_group(targets).map_err(|error| cannot_read(options, &error))? else { break };
        bad.extend(group.bad);
    }
    if bad.is_empty() {
        return Ok(());
    }
    bad.truncate(BAD_LINES_TOLD);
    let faults: String = bad.iter().map(|bad| format!("\n  line {}: {}", bad.number, bad.what)).collect();
    let file = options.file.display();
    Err(ToolError::Import(format!("{file}: nothing was imported, because of what is wrong with it:{faults}")))
}

/// The second reading: appends the events, and returns how many there were.
fn append(
    options: &ImportOptions,
    directory: &DataDir,
    targets: &mut Destinations<'_>,
    bar: &ProgressBar,
) -> Result<u64, ToolError> {
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
    let opened = options.stop.recover(|| Store::open(directory, &options.store, &metrics.store, failed));
    let mut store = opened.ok_or_else(|| ToolError::Import(NOTHING_IMPORTED.into()))??;
    let appended = append_all(options, &mut store, targets, bar, &failure);
    // The store ends in the same order as when the daemon stops.
    let closed = store.close();
    let events = appended?;
    closed
        .map_err(|error| ToolError::Import(format!("everything is imported, but the store was not closed: {error}")))?;
    Ok(events)
}

fn append_all(
    options: &ImportOptions,
    store: &mut Store,
    targets: &mut Destinations<'_>,
    bar: &ProgressBar,
    failure: &Mutex<Option<String>>,
) -> Result<u64, ToolError> {
    let mut lines = open(options, bar)?;
    let (mut events, mut stored_lines) = (0, options.skip);
    for website in targets.planned() {
        let domain = website.domain.clone();
        store
            .catalog
            .import_website(website)
            .map_err(|error| cut_short(options, stored_lines, &format!("the website {domain}: {error}")))?;
    }
    loop {
        if options.stop.is_asked() {
            return Err(cut_short(options, stored_lines, "interrupted"));
        }
        if let Some(reason) = failure.lock().take() {
            return Err(cut_short(options, stored_lines, &reason));
        }
        let group = lines.next_group(targets);
        let group = group.map_err(|error| cut_short(options, stored_lines, &error.to_string()))?;
        let Some(ParsedLines { events: of_group, bad, last_line }) = group else { return Ok(events) };
        if let Some(bad) = bad.first() {
            let what = format!("line {}: {}; the file has changed since it was checked", bad.number, bad.what);
            return Err(cut_short(options, stored_lines, &what));
        }
        store.log.append(std::iter::once(&of_group)).map_err(|error| match error {
            AppendError::StorageFull(_) | AppendError::Lost(_) => cut_short(options, stored_lines, &error.to_string()),
            AppendError::Fatal(_) => in_doubt(options, stored_lines, last_line, &error.to_string()),
        })?;
        (events, stored_lines) = (events + of_group.len() as u64, last_line);
        store.log.maintain().map_err(|error| cut_short(options, stored_lines, &error.to_string()))?;
    }
}

/// The storage failed while lines were on their way: nobody knows whether they are there.
fn in_doubt(options: &ImportOptions, stored_lines: u64, last_line: u64, what: &str) -> ToolError {
    ToolError::Import(format!(
        "{what}. The first {stored_lines} lines are imported, and those up to line {last_line} may be: when the disk \
         is well again, see whether `hitlog export` ends with them, and go on with: hitlog import --skip \
         {stored_lines} {}, or with --skip {last_line} if it does",
        options.file.display()
    ))
}

fn cut_short(options: &ImportOptions, stored_lines: u64, what: &str) -> ToolError {
    ToolError::Import(format!(
        "{what}. The first {stored_lines} lines are imported; go on with: hitlog import --skip {stored_lines} {}",
        options.file.display()
    ))
}

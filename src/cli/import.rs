//! `hitlog import`: appends the events of an export, until a signal asks for a stop.

use std::{
    path::PathBuf,
    process::{self, ExitCode},
    sync::Arc,
};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{
    arguments::{flag, shown, text},
    output::{EXIT_FAILURE, fail},
    signals::{Reaction, Signals},
    tool::run_tool,
};
use crate::{
    app,
    config::contract,
    tools::import::{self, ImportOptions, Stop},
};

/// The settings in its help; it takes all others from the environment and the file.
const WRITING: &[&str] = &["data_dir", "file_access", "durability", "segment_rows_max"];

pub(super) fn command() -> Command {
    let skip = flag("skip", "LINES", "Leave out this many lines at the beginning, which are imported already");
    Command::new("import")
        .about("Appends the events of an export (ndjson) as new ones. Refuses to run while hitlog serves")
        .arg(Arg::new("file").value_name("FILE").required(true).help("The events; read twice, first to check them all"))
        .arg(flag("website", "WEBSITE", "Put all events into this website, by its id, tracking code or domain"))
        .arg(skip.value_parser(value_parser!(u64)).default_value("0"))
        .args(shown(WRITING))
        .after_help(
            "createdAt stays, ids are new. A website that is not here, by its id or its tracking code, is registered. \
             Every setting of `hitlog serve` is taken from the environment and the file.",
        )
}

pub(super) fn run(arguments: &ArgMatches, signals: &Signals) -> ExitCode {
    run_tool(arguments, |config| {
        import::run(ImportOptions {
            file: text(arguments, "file").map(PathBuf::from).unwrap_or_default(),
            website: text(arguments, "website"),
            skip: arguments.get_one("skip").copied().unwrap_or_default(),
            rules: app::rules(&config),
            line_bytes_max: contract::IMPORT_LINE_BYTES_MAX,
            store: app::store_options(&config),
            stop: on_stop(signals),
            data_dir: config.data_dir,
        })
    })
}

/// What the first SIGINT, SIGTERM or SIGHUP asks to end; a terminal sends SIGHUP when it is closed.
fn on_stop(signals: &Signals) -> Arc<Stop> {
    let asked = Arc::new(Stop::default());
    let stop = Arc::clone(&asked);
    let ask = move || {
        if stop.ask() {
            fail(&format!("hitlog: {}", import::NOTHING_IMPORTED));
            process::exit(EXIT_FAILURE.into());
        }
    };
    signals.react(Reaction::Tell { stop: Box::new(ask), hangup: None });
    asked
}

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
    config::{Key, contract},
    tools::import::{self, ImportOptions, Stop, WebsiteRules},
};

/// The settings in its help; it takes all others from the environment and the file.
const WRITING: &[Key] = &[Key::data_dir, Key::file_access, Key::durability, Key::segment_rows_max, Key::scratch_dir];

pub(super) fn command() -> Command {
    let skip = flag("skip", "LINES", "Leave out this many lines at the beginning, which are imported already");
    let file = Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf));
    Command::new("import")
        .about(
            "Appends the events of an export (ndjson) as new ones, and registers its websites. Refuses to run while \
             hitlog serves",
        )
        .arg(file.help(
            "Lines of events and of websites, in any order; - is standard input. Read twice, first to check them all",
        ))
        .arg(flag("website", "WEBSITE", "Put all events into this website, by its id, tracking code or domain"))
        .arg(skip.value_parser(value_parser!(u64)).default_value("0"))
        .args(shown(WRITING))
        .after_help(
            "createdAt stays, ids of events are new. A website that is here stays as it is; one that is not, by its id \
             or its tracking code, is registered: as a line of `hitlog export --websites` has it, and else with its \
             domain for a name. To make a copy of everything: \
             (hitlog export; hitlog export --websites) | hitlog import --data-dir COPY -\n\n\
             If nothing at all comes from standard input or from a pipe, that is an error; an empty FILE is none. What \
             comes from a pipe is kept in scratch_dir until the import ends, in a file without a name. Every \
             setting of `hitlog serve` is taken from the environment and the file.",
        )
}

pub(super) fn run(arguments: &ArgMatches, signals: &Signals) -> ExitCode {
    run_tool(arguments, |config| {
        import::run(ImportOptions {
            file: arguments.get_one::<PathBuf>("file").cloned().unwrap_or_default(),
            website: text(arguments, "website"),
            skip: arguments.get_one("skip").copied().unwrap_or_default(),
            rules: app::rules(&config),
            line_bytes_max: contract::IMPORT_LINE_BYTES_MAX,
            website_rules: WebsiteRules {
                name_chars_max: contract::WEBSITE_NAME_CHARS_MAX,
                description_chars_max: contract::WEBSITE_DESCRIPTION_CHARS_MAX,
                ahead_max_ms: i64::try_from(config.timestamp_ahead_max_seconds.as_millis()).unwrap_or(i64::MAX),
            },
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

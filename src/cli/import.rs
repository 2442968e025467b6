//! `hitlog import`: appends the events of an export, until a signal asks for a stop.

use std::{
    path::PathBuf,
    process::{self, ExitCode},
    sync::Arc,
};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{
    arguments::{flag, settings, text},
    output::{EXIT_FAILURE, fail},
    signals::{Reaction, Signals},
    tool::run_tool,
};
use crate::{
    app,
    config::{Config, Key, contract},
    store::StoreOptions,
    tools::import::{self, ImportOptions, Stop, WebsiteRules},
};

/// The settings in its short help: what people may want to choose.
const SHOWN: &[Key] = &[Key::data_dir, Key::file_access, Key::durability, Key::segment_rows_max, Key::scratch_dir];
/// Other settings that it heeds, beside those of the store.
const ALSO: &[Key] = &[Key::timestamp_ahead_max_seconds];
/// The groups of settings that are the store's.
const GROUPS: [&str; 5] = [
    "Segments and the write-ahead log",
    "Events that are sent again",
    "Retention and erasure",
    "Indexes, and room on the disk",
    "Reads",
];

/// The flags of the settings that it heeds, which is how a start works that takes in what it imports.
fn heeded() -> Vec<Arg> {
    let is_shown =
        |flag: &Arg| flag.get_id() == "config" || SHOWN.iter().any(|key| flag.get_id() == key.setting().name);
    let flags = settings(|key| [SHOWN, ALSO].concat().contains(&key) || GROUPS.contains(&key.setting().group));
    flags.into_iter().map(|flag| if is_shown(&flag) { flag } else { flag.hide_short_help(true) }).collect()
}

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
        .args(heeded())
        .after_help(
            "createdAt stays, ids of events are new. A website that is here stays as it is; one that is not, by its id \
             or its tracking code, is registered: as a line of `hitlog export --websites` has it, and else with its \
             domain for a name, until an import brings that line. To make a copy of everything: \
             (hitlog export; hitlog export --websites) | hitlog import --data-dir COPY -\n\n\
             If nothing at all comes from standard input or from a pipe, that is an error; an empty FILE is none. What \
             comes from a pipe is kept in scratch_dir until the import ends, in a file without a name. Give it the \
             settings of `hitlog serve`; -h shows fewer of them.",
        )
}

pub(super) fn run(arguments: &ArgMatches, signals: &Signals) -> ExitCode {
    run_tool(arguments, |config| import::run(&options(arguments, config, on_stop(signals))))
}

fn options(arguments: &ArgMatches, config: Config, stop: Arc<Stop>) -> ImportOptions {
    let line_bytes_max = contract::IMPORT_LINE_BYTES_MAX;
    ImportOptions {
        file: arguments.get_one::<PathBuf>("file").cloned().unwrap_or_default(),
        website: text(arguments, "website"),
        skip: arguments.get_one("skip").copied().unwrap_or_default(),
        rules: import::rules(&app::rules(&config), line_bytes_max),
        line_bytes_max,
        website_rules: WebsiteRules {
            limits: app::WEBSITE_LIMITS,
            ahead_max_ms: i64::try_from(config.timestamp_ahead_max_seconds.as_millis()).unwrap_or(i64::MAX),
        },
        // Nothing is shipped meanwhile, so nothing has to leave the disk before it is.
        store: StoreOptions { ship_held_bytes_max: None, ..app::store_options(&config) },
        stop,
        data_dir: config.data_dir,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kind, Layer, RawSettings, SETTINGS, Setting};

    /// What an import does with this configuration.
    fn done_with(raw: &RawSettings) -> Option<String> {
        let config = Config::check_for_tool(raw).ok()?;
        let arguments = command().get_matches_from(["import", "FILE"]);
        let access = config.file_access;
        Some(format!("{access:?} {:?}", options(&arguments, config, Arc::default())))
    }

    fn other_values(setting: &Setting) -> Vec<String> {
        match setting.kind {
            Kind::Choice(words) => words.iter().map(|word| (*word).to_owned()).collect(),
            Kind::Number { min, max, .. } => [min, max, max / 2.0].map(|number| number.to_string()).into(),
            Kind::Path(_) => vec!["/elsewhere".into()],
            Kind::Secret(_) => vec!["0123456789abcdef".into()],
            Kind::Text(_) => vec!["10.0.0.0/8".into(), "127.0.0.1:7".into()],
        }
    }

    /// So a command that is told with every flag that was given does the same again, whatever settings there will be.
    #[test]
    fn it_takes_every_setting_that_it_heeds_and_no_other() {
        let usual = done_with(&RawSettings::default()).unwrap();
        let flags = command();
        for setting in SETTINGS {
            let heeds = other_values(setting).into_iter().any(|value| {
                let mut raw = RawSettings::default();
                raw.set(setting.key, value, Layer::Flag);
                done_with(&raw).is_some_and(|done| done != usual)
            });
            let takes = flags.get_arguments().any(|flag| flag.get_id() == setting.name);
            assert_eq!(takes, heeds, "{}: its group, or its name, belongs into the lists of this file", setting.name);
        }
    }
}

//! The tools of the command line: their arguments and their exit codes.

use std::{
    path::PathBuf,
    process::{self, ExitCode},
    sync::Arc,
};

use crate::{
    app,
    config::{Config, contract},
    tools::{
        Outcome, ToolError,
        backup::{self, BackupOptions},
        check::{self, CheckOptions},
        export::{self, ExportOptions, Format},
        import::{self, ImportOptions, Stop},
        quarantine::{self, QuarantineAction},
        segments::{self, SegmentsOptions},
        stats::{self, StatsOptions},
        write_off::{self, WriteOffOptions},
    },
};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{
    arguments::settings,
    output::{EXIT_BAD_SETTING, EXIT_FAILURE, fail, start_tool_log},
    signals::{Reaction, Signals},
};

/// The settings in the help of a tool that only reads.
const READING: &[&str] = &["data_dir"];
/// The settings in the help of the import, which takes all others from the environment and the file.
const WRITING: &[&str] = &["data_dir", "file_access", "durability", "segment_rows_max"];
const MAY_RUN: &str = "May run while hitlog serves.";

/// The tools as subcommands.
pub(super) fn commands() -> [Command; 7] {
    let segments = Command::new("segments")
        .about(format!("Lists the segments: state, generation, events, bytes, first and last time. {MAY_RUN}"))
        .args(shown_everywhere(READING))
        .arg(json())
        .subcommand(write_off_command());
    let check = Command::new("check")
        .about(format!(
            "Checks every file, and what sealed segments say of themselves against their events; exits 1 if anything \
             is wrong. {MAY_RUN}"
        ))
        .args(shown(READING));
    let backup = Command::new("backup")
        .about(format!("Copies the data directory so that hitlog can start from the copy. {MAY_RUN}"))
        .arg(Arg::new("directory").value_name("DIR").required(true).help("Empty, or does not exist yet"))
        .args(shown(READING))
        .after_help(
            "Sealed segments are linked where the copy is on the same file system, and copied elsewhere. Start from it \
             with `hitlog serve --data-dir DIR`.",
        );
    let days = flag("days", "COUNT", "How many of the newest days with events to show");
    let stats = Command::new("stats")
        .about(format!("Counts events by day and type, and the busiest websites, from summaries. {MAY_RUN}"))
        .arg(website())
        .arg(days.value_parser(value_parser!(u32).range(1..)).default_value("14"))
        .args(shown(READING))
        .arg(json())
        .after_help(
            "Sealed segments are not read, only their summaries. The active segment and those that wait for their \
             indexes have none and are read through.",
        );
    [segments, check, backup, export_command(), import_command(), stats, quarantine_command()]
}

fn write_off_command() -> Command {
    let number = Arg::new("number").value_name("NUMBER").required(true).value_parser(value_parser!(i64).range(1..));
    let discard = Arg::new("discard").long("discard").action(ArgAction::SetTrue);
    Command::new("write-off")
        .about("Gives up a segment that is lost or damaged, after saying what goes. Refuses to run while hitlog serves")
        .arg(number.help("The segment's number"))
        .arg(yes("Give it up; without this it is only told what would go, and the exit code is 1"))
        .arg(discard.help("Remove a damaged file for good; otherwise it goes to the quarantine"))
        .after_help(
            "Its events are in no answer any more, its sequences are not given again, and erasures that waited for it \
             go on. While its file is in quarantine they wait for that.",
        )
}

fn quarantine_command() -> Command {
    let which = Arg::new("file").value_name("FILE|NUMBER").required(true);
    let list = Command::new("list").about(format!("Tells what is there, and why. {MAY_RUN}")).arg(json());
    let adopt = Command::new("adopt")
        .about("Lists a file again, if nothing that is listed holds the same sequences. Not while hitlog serves")
        .arg(which.clone().help("The file's name, or the number of its segment"))
        .after_help(
            "It may have the place of a listed generation of its segment that is damaged, or of which it has every \
             event. Erasures under way apply to it; those that are done do not.",
        );
    let discard = Command::new("discard")
        .about("Removes a file for good, after saying what goes. Not while hitlog serves")
        .arg(which.help("The file's name, or the number of its segment"))
        .arg(yes("Remove it; without this it is only told what would go, and the exit code is 1"));
    Command::new("quarantine")
        .about("Files of segments that the catalog does not list and that may hold events: list, adopt, discard")
        .args(shown_everywhere(READING))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([list, adopt, discard])
}

fn export_command() -> Command {
    let format = flag("format", "ndjson|csv", "How a line looks");
    Command::new("export")
        .about(format!("Writes events to standard output, in the order of their arrival. {MAY_RUN}"))
        .arg(format.value_parser(["ndjson", "csv"]).default_value("ndjson"))
        .arg(flag("from", "TIME", "createdAt at or after this: RFC 3339, or milliseconds since 1970"))
        .arg(flag("to", "TIME", "createdAt before this"))
        .arg(website())
        .arg(flag("type", "TYPE", "Of this type only: pageview, click or custom"))
        .args(shown(READING))
        .after_help(
            "Events that arrive while it runs are not in it, and neither are those of deleted websites. In CSV an \
             apostrophe stands before a cell that a spreadsheet would run as a formula.",
        )
}

fn import_command() -> Command {
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

/// The flags of the settings with these names.
fn shown(names: &[&str]) -> Vec<Arg> {
    settings(|name| names.contains(&name))
}

/// The flags of the settings with these names, before a subcommand or after it.
fn shown_everywhere(names: &[&str]) -> Vec<Arg> {
    shown(names).into_iter().map(|flag| flag.global(true)).collect()
}

fn yes(help: &'static str) -> Arg {
    Arg::new("yes").long("yes").action(ArgAction::SetTrue).help(help)
}

fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON, for programs: all numbers exact")
}

fn website() -> Arg {
    flag("website", "WEBSITE", "Of this website only: its id, tracking code or domain")
}

/// Runs a tool.
pub(super) fn run(
    name: &str,
    arguments: &ArgMatches,
    config: &Config,
    warnings: &[String],
    signals: &Signals,
) -> ExitCode {
    let data_dir = config.data_dir.clone();
    let text = |name: &str| arguments.get_one::<String>(name).cloned();
    let path = |name: &str| text(name).map(PathBuf::from).unwrap_or_default();
    let is_json = || arguments.get_flag("json");
    start_tool_log(config);
    app::restrict_files(config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    end(match name {
        "segments" => match arguments.subcommand() {
            Some((_, given)) => write_off::run(&WriteOffOptions {
                data_dir,
                number: given.get_one("number").copied().unwrap_or_default(),
                yes: given.get_flag("yes"),
                discard: given.get_flag("discard"),
            }),
            None => segments::run(&SegmentsOptions { data_dir, json: is_json() }),
        },
        "quarantine" => quarantine::run(&data_dir, &quarantine_action(arguments)),
        "check" => check::run(&CheckOptions { data_dir }),
        "backup" => backup::run(&BackupOptions { data_dir, to: path("directory") }),
        "export" => export::run(&ExportOptions {
            data_dir,
            format: if text("format").as_deref() == Some("csv") { Format::Csv } else { Format::Ndjson },
            from: text("from"),
            to: text("to"),
            website: text("website"),
            event_type: text("type"),
            expired_before: crate::store::expired_before(config.retention),
        }),
        "import" => import::run(ImportOptions {
            file: path("file"),
            data_dir,
            website: text("website"),
            skip: arguments.get_one("skip").copied().unwrap_or_default(),
            rules: app::rules(config),
            line_bytes_max: contract::IMPORT_LINE_BYTES_MAX,
            store: app::store_options(config),
            stop: on_stop(signals),
        }),
        _ => stats::run(&StatsOptions {
            data_dir,
            website: text("website"),
            days: arguments.get_one::<u32>("days").map_or(1, |days| *days as usize),
            json: is_json(),
        }),
    })
}

fn quarantine_action(arguments: &ArgMatches) -> QuarantineAction {
    let file = |given: &ArgMatches| given.get_one::<String>("file").cloned().unwrap_or_default();
    match arguments.subcommand() {
        Some(("adopt", given)) => QuarantineAction::Adopt(file(given)),
        Some(("discard", given)) => QuarantineAction::Discard { file: file(given), yes: given.get_flag("yes") },
        other => QuarantineAction::List { json: other.is_some_and(|(_, given)| given.get_flag("json")) },
    }
}

fn end(outcome: Outcome) -> ExitCode {
    match outcome {
        // Whoever read the output has seen enough, as `head` has after its lines.
        Ok(true) | Err(ToolError::OutputClosed) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        Err(error) => {
            fail(&format!("hitlog: {error}"));
            let is_argument = matches!(error, ToolError::Arguments(_));
            ExitCode::from(if is_argument { EXIT_BAD_SETTING } else { EXIT_FAILURE })
        }
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

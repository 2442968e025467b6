//! `hitlog export`: writes events out.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, flag, shown, text, website},
    signals::Signals,
    tool::run_tool,
};
use crate::{
    config::Key,
    store,
    tools::{
        export::{self, ExportOptions, Format},
        export_websites::{self, ExportWebsitesOptions},
    },
};

/// The settings that it heeds.
const HEEDED: &[Key] = &[Key::data_dir, Key::retention_days];

pub(super) fn command() -> Command {
    let format = flag("format", "ndjson|csv", "How a line looks");
    let websites = Arg::new("websites")
        .long("websites")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["format", "from", "to", "type"])
        .help("Write the websites instead: one a line, as the API shows it (ndjson), those without events, too");
    Command::new("export")
        .about(format!("Writes events, or websites, to standard output, in the order of their arrival. {MAY_RUN}"))
        .arg(websites)
        .arg(format.value_parser(["ndjson", "csv"]).default_value("ndjson"))
        .arg(flag("from", "TIME", "createdAt at or after this: RFC 3339, or milliseconds since 1970"))
        .arg(flag("to", "TIME", "createdAt before this"))
        .arg(website())
        .arg(flag("type", "TYPE", "Of this type only: pageview, click or custom"))
        .args(shown(HEEDED))
        .after_help(
            "Events that arrive while it runs are not in it, and neither are those of deleted websites and those that \
             are older than retention_days. In CSV an apostrophe stands before a cell that a spreadsheet would run as \
             a formula.\n\n\
             `hitlog import` takes lines of events and of websites, in one file or in several. To make a copy of \
             everything: (hitlog export; hitlog export --websites) | hitlog import --data-dir COPY -\n\
             The websites come last, so that one that is registered meanwhile keeps its name.",
        )
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    if arguments.get_flag("websites") {
        return run_tool(arguments, |config| {
            let website = text(arguments, "website");
            export_websites::run(&ExportWebsitesOptions { data_dir: config.data_dir, website })
        });
    }
    run_tool(arguments, |config| {
        export::run(&ExportOptions {
            data_dir: config.data_dir,
            format: if text(arguments, "format").as_deref() == Some("csv") { Format::Csv } else { Format::Ndjson },
            from: text(arguments, "from"),
            to: text(arguments, "to"),
            website: text(arguments, "website"),
            event_type: text(arguments, "type"),
            expired_before: store::expired_before(config.retention_days),
        })
    })
}

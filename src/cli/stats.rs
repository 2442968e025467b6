//! `hitlog stats`: counts what is stored.

use std::process::ExitCode;

use clap::{ArgMatches, Command, value_parser};

use super::{
    arguments::{MAY_RUN, READING, flag, json, shown, text, website},
    signals::Signals,
    tool::run_tool,
};
use crate::tools::stats::{self, StatsOptions};

pub(super) fn command() -> Command {
    let days = flag("days", "COUNT", "How many of the newest days with events to show");
    Command::new("stats")
        .about(format!("Counts events by day and type, and the busiest websites, from summaries. {MAY_RUN}"))
        .arg(website())
        .arg(days.value_parser(value_parser!(u32).range(1..)).default_value("14"))
        .args(shown(READING))
        .arg(json())
        .after_help(
            "Sealed segments are not read, only their summaries. The active segment and those that wait for their \
             indexes have none and are read through.",
        )
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_tool(arguments, |config| {
        stats::run(&StatsOptions {
            data_dir: config.data_dir,
            website: text(arguments, "website"),
            days: arguments.get_one::<u32>("days").map_or(1, |days| *days as usize),
            json: arguments.get_flag("json"),
        })
    })
}

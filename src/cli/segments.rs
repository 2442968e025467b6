//! `hitlog segments`: lists the segments, and gives one up.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, WRITING, json, shown_everywhere},
    signals::Signals,
    tool::run_tool,
    write_off,
};
use crate::tools::segments::{self, SegmentsOptions};

pub(super) fn command() -> Command {
    Command::new("segments")
        .about(format!("Lists the segments: state, generation, events, bytes, first and last time. {MAY_RUN}"))
        .args(shown_everywhere(WRITING))
        .arg(json())
        .subcommand(write_off::command())
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_tool(arguments, |config| match arguments.subcommand() {
        Some((_, arguments)) => write_off::run(arguments, config),
        None => segments::run(&SegmentsOptions { data_dir: config.data_dir, json: arguments.get_flag("json") }),
    })
}

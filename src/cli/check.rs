//! `hitlog check`: looks for damage.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, READING, shown},
    signals::Signals,
    tool::run_tool,
};
use crate::tools::check::{self, CheckOptions};

pub(super) fn command() -> Command {
    Command::new("check")
        .about(format!(
            "Checks every file, and what sealed segments say of themselves against their events; exits 1 if anything \
             is wrong. {MAY_RUN}"
        ))
        .args(shown(READING))
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_tool(arguments, |config| check::run(&CheckOptions { data_dir: config.data_dir }))
}

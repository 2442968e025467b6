//! `hitlog backup`: copies the data directory.

use std::{path::PathBuf, process::ExitCode};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{
    arguments::{MAY_RUN, READING, shown},
    signals::Signals,
    tool::run_tool,
};
use crate::tools::backup::{self, BackupOptions};

pub(super) fn command() -> Command {
    Command::new("backup")
        .about(format!("Copies the data directory so that hitlog can start from the copy. {MAY_RUN}"))
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Empty, or does not exist yet"),
        )
        .args(shown(READING))
        .after_help(
            "Sealed segments are linked where the copy is on the same file system, and copied elsewhere. Start from it \
             with `hitlog serve --data-dir DIR`.",
        )
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_tool(arguments, |config| {
        backup::run(&BackupOptions {
            data_dir: config.data_dir,
            to: arguments.get_one::<PathBuf>("directory").cloned().unwrap_or_default(),
        })
    })
}

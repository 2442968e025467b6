//! `hitlog backup`: copies the data directory.

use std::{path::PathBuf, process::ExitCode};

use clap::{Arg, ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, WRITING, shown, text},
    signals::Signals,
    tool::run_tool,
};
use crate::tools::backup::{self, BackupOptions};

pub(super) fn command() -> Command {
    Command::new("backup")
        .about(format!("Copies the data directory so that hitlog can start from the copy. {MAY_RUN}"))
        .arg(Arg::new("directory").value_name("DIR").required(true).help("Empty, or does not exist yet"))
        .args(shown(WRITING))
        .after_help(
            "Sealed segments are linked where the copy is on the same file system, and copied elsewhere. Start from it \
             with `hitlog serve --data-dir DIR`.",
        )
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_tool(arguments, |config| {
        backup::run(&BackupOptions {
            data_dir: config.data_dir,
            to: text(arguments, "directory").map(PathBuf::from).unwrap_or_default(),
        })
    })
}

//! The command line: which commands there are, and what each takes and does.
//!
//! A command is a file of its own, which has its arguments beside what it does, and a line in the list below. What a
//! command does with a data directory, or with a hitlog that runs, stands in [`crate::tools`].

mod arguments;
mod backup;
mod check;
mod config;
mod export;
mod import;
mod log;
pub mod memory;
mod output;
mod quarantine;
mod reload;
mod segments;
mod serve;
mod ship;
mod signals;
mod stats;
mod tail;
mod tool;
mod tracker;
mod write_off;

use std::{env, io, process::ExitCode};

use clap::{Arg, ArgMatches, Command};

use self::{
    output::{EXIT_BAD_SETTING, EXIT_FAILURE, fail},
    signals::Signals,
};
use crate::{allocator, command, tools::ToolError};

/// How a command is called and what it takes.
type Describe = fn() -> Command;
/// What a command does.
type Run = fn(&ArgMatches, &Signals) -> ExitCode;

/// Every command, in the order of `--help`.
const COMMANDS: &[(Describe, Run)] = &[
    (serve::command, serve::run),
    (config::command, config::run),
    (segments::command, segments::run),
    (check::command, check::run),
    (backup::command, backup::run),
    (export::command, export::run),
    (import::command, import::run),
    (stats::command, stats::run),
    (tracker::command, tracker::run),
    (tail::command, tail::run),
    (ship::command, ship::run),
    (quarantine::command, quarantine::run),
];

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    allocator::keep_little();
    // Before anything else: a daemon's start may be stopped at any moment.
    let is_daemon = env::args_os().nth(1).is_some_and(|command| command == serve::NAME);
    let signals = match Signals::listen(is_daemon) {
        Ok(signals) => signals,
        Err(error) => {
            fail(&format!("hitlog: cannot listen for signals: {error}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    command::keep_flags(flags());
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(asked) => return tell(&asked),
    };
    let asked = matches.subcommand().and_then(|(name, arguments)| Some((find(name)?, arguments)));
    // Without a command there are no matches.
    asked.map_or(ExitCode::from(EXIT_BAD_SETTING), |(run, arguments)| run(arguments, &signals))
}

/// Tells what clap has to say: its help, the version, or what is wrong with the arguments.
fn tell(asked: &clap::Error) -> ExitCode {
    match asked.print() {
        Err(error) if !asked.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
            tool::end(Err(ToolError::Output(error)))
        }
        _ => u8::try_from(asked.exit_code()).map_or(ExitCode::from(EXIT_BAD_SETTING), ExitCode::from),
    }
}

fn find(name: &str) -> Option<Run> {
    COMMANDS.iter().find(|(describe, _)| describe().get_name() == name).map(|(_, run)| *run)
}

/// What each command takes.
fn flags() -> command::Flags {
    let longs = |known: &Command| known.get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect();
    command().get_subcommands().map(|known| (known.get_name().to_owned(), longs(known))).collect()
}

fn command() -> Command {
    Command::new("hitlog")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Takes web-analytics events over HTTP and answers 201 only when they are safely on disk")
        .after_help(
            "Start it with `hitlog serve`, register a website with POST /api/v1/websites, and send events to \
             POST /api/v1/events. README.md shows the requests.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(COMMANDS.iter().map(|(describe, _)| describe()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_sound_and_found_by_its_name() {
        // clap checks names, flags and defaults against each other, and that no name is there twice.
        command().debug_assert();
        assert!(command().get_subcommands().all(|known| find(known.get_name()).is_some()));
        assert!(find("fly").is_none());
    }
}

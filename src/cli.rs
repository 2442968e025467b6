//! The command line: which commands there are, and what each takes and does.

mod arguments;
mod log;
mod memory;
mod output;
mod reload;
mod serve;
mod signals;
mod tools;

use std::{env, process::ExitCode};

use clap::{Arg, ArgAction, Command};

use self::{
    arguments::{settings, with_config},
    output::{EXIT_BAD_SETTING, EXIT_FAILURE, fail, print},
    serve::serve,
    signals::Signals,
};
use crate::{allocator, config::RawSettings};

const RESTORED: &str = "restored";

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    allocator::keep_little();
    // Before anything else: a daemon's start may be stopped at any moment.
    let is_daemon = env::args_os().nth(1).is_some_and(|command| command == "serve");
    let signals = match Signals::listen(is_daemon) {
        Ok(signals) => signals,
        Err(error) => {
            fail(&format!("hitlog: cannot listen for signals: {error}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let arguments = command().get_matches();
    match arguments.subcommand() {
        Some(("serve", arguments)) => with_config(arguments, |config, _, warnings| {
            serve(config, warnings, arguments.get_flag(RESTORED), &signals)
        }),
        Some(("config", arguments)) => match arguments.subcommand() {
            Some(("show", arguments)) => with_config(arguments, |_, raw, warnings| show(raw, warnings)),
            Some((_, arguments)) => with_config(arguments, |_, _, warnings| check(warnings)),
            None => ExitCode::from(EXIT_BAD_SETTING),
        },
        Some((tool, arguments)) => {
            with_config(arguments, |config, _, warnings| tools::run(tool, arguments, &config, warnings, &signals))
        }
        None => ExitCode::from(EXIT_BAD_SETTING),
    }
}

fn show(raw: &RawSettings, warnings: &[String]) -> ExitCode {
    for warning in warnings {
        fail(&format!("hitlog: {warning}"));
    }
    print(&raw.show())
}

/// What `serve` only warns of, it calls wrong: a setting whose name is mistyped is not in force.
fn check(warnings: &[String]) -> ExitCode {
    if warnings.is_empty() {
        return print("The configuration is good.\n");
    }
    fail(&format!("hitlog: the configuration is not good:\n{}", warnings.join("\n")));
    ExitCode::from(EXIT_BAD_SETTING)
}

/// No setting: it is true of one start, and would be wrong of the next.
fn restored() -> Arg {
    Arg::new(RESTORED).long(RESTORED).action(ArgAction::SetTrue).help(
        "The data directory is a copy that `hitlog backup` did not make, such as the snapshot of a volume. Give it at \
         the first start from the copy, and only there: ids of events that came after the copy was made then lead \
         nowhere, and never to events that come from now on",
    )
}

fn command() -> Command {
    let settings = || settings(|_| true);
    Command::new("hitlog")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Takes web-analytics events over HTTP and answers 201 only when they are safely on disk")
        .after_help(
            "Start it with `hitlog serve`, register a website with POST /api/v1/websites, and send events to \
             POST /api/v1/events. README.md shows the requests.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about("Takes events in and serves them, until SIGTERM or SIGINT; SIGHUP reads token_file anew")
                .after_help(
                    "A setting is looked for in the flags, the environment, the file and the defaults, in this order.",
                )
                .args(settings())
                .arg(restored()),
        )
        .subcommand(
            Command::new("config")
                .about("Checks or shows the configuration that `serve` would run with")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("check")
                        .about("Says what is wrong with the settings, if anything is")
                        .args(settings()),
                )
                .subcommand(
                    Command::new("show")
                        .about("Prints every setting, its value and where it comes from")
                        .args(settings()),
                ),
        )
        .subcommands(tools::commands())
}

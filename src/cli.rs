//! The command line: which commands there are, and what each takes and does.

mod arguments;
mod memory;
mod output;
mod serve;
mod tools;

use std::process::ExitCode;

use clap::Command;

use self::{
    arguments::{settings, with_config},
    output::{EXIT_BAD_SETTING, print},
    serve::serve,
};

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let arguments = command().get_matches();
    match arguments.subcommand() {
        Some(("serve", arguments)) => with_config(arguments, serve),
        Some(("config", arguments)) => match arguments.subcommand() {
            Some(("show", arguments)) => with_config(arguments, |_, raw, _| print(&raw.show())),
            Some((_, arguments)) => with_config(arguments, |_, _, _| print("The configuration is good.\n")),
            None => ExitCode::from(EXIT_BAD_SETTING),
        },
        Some((tool, arguments)) => with_config(arguments, |config, _, _| tools::run(tool, arguments, &config)),
        None => ExitCode::from(EXIT_BAD_SETTING),
    }
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
                .about("Takes events in and serves them, until SIGTERM or SIGINT")
                .after_help(
                    "A setting is looked for in the flags, the environment, the file and the defaults, in this order.",
                )
                .args(settings()),
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

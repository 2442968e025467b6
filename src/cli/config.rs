//! `hitlog config`: checks or shows the settings, and touches no disk but for their files.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{
    arguments::{settings, with_config},
    output::{EXIT_BAD_SETTING, fail},
    signals::Signals,
    tool::end,
};
use crate::{
    config::{Config, RawSettings},
    tools,
};

pub(super) fn command() -> Command {
    let settings = || settings(|_| true);
    Command::new("config")
        .about("Checks or shows the configuration that `serve` would run with")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("check").about("Says what is wrong with the settings, if anything is").args(settings()),
        )
        .subcommand(
            Command::new("show").about("Prints every setting, its value and where it comes from").args(settings()),
        )
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    match arguments.subcommand() {
        Some(("show", arguments)) => with_config(arguments, Config::check, |_, raw, warnings| show(raw, warnings)),
        Some((_, arguments)) => {
            with_config(arguments, Config::check, |_, raw, warnings| check(&[warnings, &raw.without_effect()].concat()))
        }
        None => ExitCode::from(EXIT_BAD_SETTING),
    }
}

fn show(raw: &RawSettings, warnings: &[String]) -> ExitCode {
    for warning in warnings {
        fail(&format!("hitlog: {warning}"));
    }
    end(tools::print(raw.show().as_bytes()).map(|()| true))
}

/// What `serve` only warns of, it calls wrong: a setting whose name is mistyped is not in force, nor is one that does
/// nothing.
fn check(warnings: &[String]) -> ExitCode {
    if warnings.is_empty() {
        return end(tools::print(b"The configuration is good.\n").map(|()| true));
    }
    fail(&format!("hitlog: the configuration is not good:\n{}", warnings.join("\n")));
    ExitCode::from(EXIT_BAD_SETTING)
}

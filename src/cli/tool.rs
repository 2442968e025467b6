//! What the tools have in common: each is given the configuration, logs to standard error, and ends with an exit code.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{
    arguments::with_config,
    output::{EXIT_BAD_SETTING, EXIT_FAILURE, fail, start_tool_log},
};
use crate::{
    app,
    config::{Config, ConfigError, RawSettings},
    tools::{Outcome, ToolError},
};

/// Runs a tool with the configuration that flags, environment and file give.
pub(super) fn run_tool(arguments: &ArgMatches, tool: impl FnOnce(Config) -> Outcome) -> ExitCode {
    run_checked(arguments, Config::check_for_tool, tool)
}

/// Runs a tool that asks a running hitlog, with the same configuration.
pub(super) fn run_client(arguments: &ArgMatches, tool: impl FnOnce(Config) -> Outcome) -> ExitCode {
    run_checked(arguments, Config::check_for_client, tool)
}

fn run_checked(
    arguments: &ArgMatches,
    check: impl FnOnce(&RawSettings) -> Result<Config, ConfigError>,
    tool: impl FnOnce(Config) -> Outcome,
) -> ExitCode {
    with_config(arguments, check, |config, _, warnings| {
        start_tool_log(&config);
        app::restrict_files(&config);
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        end(tool(config))
    })
}

/// The exit code of what was done; an error is told.
pub(super) fn end(outcome: Outcome) -> ExitCode {
    match outcome {
        // Whoever read the output has seen enough, as `head` has after its lines.
        Ok(true) | Err(ToolError::OutputClosed) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        Err(error) => {
            fail(&format!("hitlog: {error}"));
            let is_argument = matches!(error, ToolError::Arguments(_));
            ExitCode::from(if is_argument { EXIT_BAD_SETTING } else { EXIT_FAILURE })
        }
    }
}

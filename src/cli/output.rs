//! What the command line tells whoever started it: exit codes, logging, plain text.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use crate::config::{Config, LogFormat};

/// The exit code for whatever fails once the settings are known to be good.
pub(super) const EXIT_FAILURE: u8 = 1;
/// The exit code for a bad setting, before any disk or port is touched. clap uses it for bad arguments, too.
pub(super) const EXIT_BAD_SETTING: u8 = 2;

/// Sends the log to standard error: text on a terminal, JSON otherwise, unless the configuration says which.
pub(super) fn start_logging(config: &Config, level: tracing::Level) {
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// Writes text to standard output; fails if nobody reads it.
pub(super) fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILURE),
    }
}

/// Writes a line to standard error. Nothing can be done if that fails.
pub(super) fn fail(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

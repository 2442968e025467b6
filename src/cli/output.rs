//! What the command line tells whoever started it: exit codes, the tools' log, last words.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::config::{Config, LogFormat};

/// The exit code for whatever fails once the settings are known to be good.
pub(super) const EXIT_FAILURE: u8 = 1;
/// The exit code for a bad setting, before any disk or port is touched. clap uses it for bad arguments, too.
pub(super) const EXIT_BAD_SETTING: u8 = 2;

/// How long the last words of a process wait for whoever reads them.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether log lines are JSON: unless the configuration says so, wherever nobody reads them on a terminal.
pub(super) fn is_json(config: &Config) -> bool {
    match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

/// Sends the log of a tool to standard error. Somebody waits for the tool, which waits for whoever reads.
pub(super) fn start_tool_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN.min(config.log_level))
        // It would tell of a line that was not written by eprintln!, which panics.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    if is_json(config) {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

/// Writes a line to standard error. Nothing can be done if that fails, and a pipe that nobody reads must not keep the
/// process from its end, so a thread writes it, and is waited for only so long.
pub(super) fn fail(text: &str) {
    let line = format!("{text}\n");
    let (written, wait) = mpsc::sync_channel(1);
    let write = move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = written.send(());
    };
    if thread::Builder::new().name("last words".into()).spawn(write).is_ok() {
        let _ = wait.recv_timeout(LAST_WORDS_TIMEOUT);
    }
}

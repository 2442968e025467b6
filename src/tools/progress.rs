//! Progress bars, on standard error and only where somebody looks at it.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a bar counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unit {
    Events,
    Bytes,
    /// Parts of a thousand of the work.
    Parts,
}

/// A bar towards a total; one that shows nothing if standard error is not a terminal.
pub(super) fn bar(what: &'static str, total: u64, unit: Unit) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match unit {
        Unit::Events => "{msg} {bar:30} {percent}%, {human_pos} of {human_len} events, {per_sec}, {eta} left",
        Unit::Parts => "{msg} {bar:30} {percent}%, {eta} left",
        Unit::Bytes => "{msg} {bar:30} {percent}%, {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.with_style(style).with_message(what)
}

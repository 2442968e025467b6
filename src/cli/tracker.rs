//! `hitlog tracker`: what to put into a site's pages.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, flag, json, shown, text, website},
    signals::Signals,
    tool::run_client,
};
use crate::{
    config::Key,
    tools::{
        ToolError,
        tracker::{self, TrackerOptions},
    },
};

/// The settings that it heeds.
const HEEDED: &[Key] = &[Key::data_dir, Key::listen, Key::tracker_path, Key::events_path_alias];

pub(super) fn command() -> Command {
    let url = flag("url", "URL", "Where browsers reach hitlog, such as https://stats.example.com");
    Command::new("tracker")
        .about(format!("Prints the tag that a site's pages need to be counted. {MAY_RUN}"))
        .arg(website())
        .arg(url)
        .args(shown(HEEDED))
        .arg(json())
        .after_help(
            "It prints the tag for the website's pages, the same with an integrity for pages that name one, what the \
             site's Content-Security-Policy has to allow, and a picture for pages without JavaScript. What the tag may \
             say beside the code is in docs/tracker.md.",
        )
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    // Where it listens is heeded, as by what asks a running hitlog.
    run_client(arguments, |config| {
        let url = text(arguments, "url");
        if url.is_none() && config.listen.ip().is_unspecified() {
            let what = "say with --url where browsers reach hitlog: it listens on every address of this machine";
            return Err(ToolError::Arguments(what.into()));
        }
        tracker::run(&TrackerOptions {
            url: url.unwrap_or_else(|| format!("http://{}", config.listen)),
            data_dir: config.data_dir,
            website: text(arguments, "website"),
            tracker_path: config.tracker_path,
            events_path: config.events_path_alias,
            json: arguments.get_flag("json"),
        })
    })
}

//! `hitlog tracker`: what to put into a site's pages.

use std::process::ExitCode;

use clap::{ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, flag, json, shown, text, website},
    signals::Signals,
    tool::run_tool,
};
use crate::{
    config::Key,
    tools::tracker::{self, TrackerOptions},
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
    run_tool(arguments, |config| {
        tracker::run(&TrackerOptions {
            url: text(arguments, "url").unwrap_or_else(|| format!("http://{}", config.listen)),
            data_dir: config.data_dir,
            website: text(arguments, "website"),
            tracker_path: config.tracker_path,
            events_path: config.events_path_alias,
            json: arguments.get_flag("json"),
        })
    })
}

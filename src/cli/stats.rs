//! `hitlog stats`: counts what is stored.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource, value_parser};

use super::{
    arguments::{MAY_RUN, flag, json, shown, text, website},
    signals::Signals,
    tool::run_tool,
};
use crate::{
    calendar::Period,
    config::{Config, Key},
    store::{self, Dimension, Filter},
    tools::{
        numbers::{self, NumbersOptions},
        stats::{self, StatsOptions},
    },
};

/// The settings that it heeds.
const HEEDED: &[Key] = &[Key::data_dir, Key::retention_days];

pub(super) fn command() -> Command {
    let days = flag("days", "COUNT", "How many of the newest days with events to show");
    Command::new("stats")
        .about(format!("Counts events by day and type, or shows the numbers of a website. {MAY_RUN}"))
        .arg(website())
        .arg(days.value_parser(value_parser!(u32).range(1..)).default_value("14"))
        .args(shown(HEEDED))
        .args(of_numbers())
        .arg(json())
        .after_help(
            "Without the flags of numbers, sealed segments are not read, only their summaries; the active segment and \
             those that wait for their indexes have none and are read through.\n\n\
             With --period, --timezone, --top or --filter it shows the numbers of one website as GET /api/v1/stats has \
             them: visitors, visits, page views, bounce rate and so on, day by day, and what --top names. All of them \
             are counted one by one, from the rollups of sealed segments and the rows of the others. What each number \
             is, is in docs/numbers.md.",
        )
}

/// The flags of numbers.
fn of_numbers() -> [Arg; 6] {
    let periods = Period::ALL.map(Period::as_str);
    let dimensions = Dimension::ALL.map(Dimension::as_str);
    [
        flag("period", "PERIOD", "The range of the numbers").value_parser(periods).conflicts_with("days"),
        flag("timezone", "ZONE", "Of the days, an IANA name such as Europe/Berlin; if not said, the website's, or UTC")
            .conflicts_with("days"),
        flag("top", "NAME", "List the values of this, those with the most visitors first")
            .value_parser(dimensions)
            .conflicts_with("days"),
        flag("limit", "COUNT", "Most values to list")
            .value_parser(value_parser!(u32).range(1..=200_000))
            .default_value("10"),
        flag("filter", "NAME=VALUE", "Count only what has this value, such as page=/blog/*; may be given again")
            .action(ArgAction::Append)
            .value_parser(filter)
            .conflicts_with("days"),
        Arg::new("bots")
            .long("bots")
            .action(ArgAction::SetTrue)
            .help("Count what is flagged as a bot's or as spam, too"),
    ]
}

fn filter(text: &str) -> Result<Filter, String> {
    let found = text.split_once('=').and_then(|(name, value)| Some((Dimension::from_name(name)?, value)));
    let (dimension, value) = found.ok_or_else(|| {
        format!("expected NAME=VALUE, NAME one of {}", Dimension::ALL.map(Dimension::as_str).join(", "))
    })?;
    Ok(Filter::new(dimension, value))
}

fn numbers_options(arguments: &ArgMatches, config: &Config) -> NumbersOptions {
    let name = |name| arguments.get_one::<String>(name).map(String::as_str);
    NumbersOptions {
        data_dir: config.data_dir.clone(),
        website: text(arguments, "website"),
        period: name("period").and_then(Period::from_name).unwrap_or(Period::Days7),
        timezone: text(arguments, "timezone"),
        top: name("top").and_then(Dimension::from_name),
        limit: arguments.get_one::<u32>("limit").map_or(10, |limit| *limit as usize),
        filters: arguments.get_many("filter").into_iter().flatten().cloned().collect(),
        with_bots: arguments.get_flag("bots"),
        expired_before: store::expired_before(config.retention_days),
        json: arguments.get_flag("json"),
    }
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    let is_of_numbers = ["period", "timezone", "top", "filter"].iter().any(|name| arguments.contains_id(name))
        || arguments.get_flag("bots")
        || arguments.value_source("limit") == Some(ValueSource::CommandLine);
    run_tool(arguments, |config| {
        if is_of_numbers {
            return numbers::run(&numbers_options(arguments, &config));
        }
        stats::run(&StatsOptions {
            data_dir: config.data_dir,
            website: text(arguments, "website"),
            days: arguments.get_one::<u32>("days").map_or(1, |days| *days as usize),
            json: arguments.get_flag("json"),
        })
    })
}

//! `hitlog segments write-off`: gives up a segment that is lost or damaged.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::arguments::yes;
use crate::{
    config::Config,
    tools::{
        Outcome,
        write_off::{self, WriteOffOptions},
    },
};

pub(super) fn command() -> Command {
    let number = Arg::new("number").value_name("NUMBER").required(true).value_parser(value_parser!(i64).range(1..));
    let discard = Arg::new("discard").long("discard").action(ArgAction::SetTrue);
    Command::new("write-off")
        .about("Gives up a segment that is lost or damaged, after saying what goes. Refuses to run while hitlog serves")
        .arg(number.help("The segment's number"))
        .arg(yes("Give it up; without this it is only told what would go, and the exit code is 1"))
        .arg(discard.help("Remove a damaged file for good; otherwise it goes to the quarantine"))
        .after_help(
            "Its events are in no answer any more, its sequences are not given again, and erasures that waited for it \
             go on. While its file is in quarantine they wait for that.",
        )
}

pub(super) fn run(arguments: &ArgMatches, config: Config) -> Outcome {
    write_off::run(&WriteOffOptions {
        data_dir: config.data_dir,
        number: arguments.get_one("number").copied().unwrap_or_default(),
        yes: arguments.get_flag("yes"),
        discard: arguments.get_flag("discard"),
    })
}

//! `hitlog quarantine`: what becomes of files that the catalog does not list.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::{
    arguments::{MAY_RUN, WRITING, json, shown_everywhere, text, yes},
    signals::Signals,
    tool::run_tool,
};
use crate::tools::quarantine::{self, QuarantineAction};

pub(super) fn command() -> Command {
    let which = Arg::new("file").value_name("FILE|NUMBER").required(true);
    let list = Command::new("list").about(format!("Tells what is there, and why. {MAY_RUN}")).arg(json());
    let adopt = Command::new("adopt")
        .about("Lists a file again, if nothing that is listed holds the same sequences. Not while hitlog serves")
        .arg(which.clone().help("The file's name, or the number of its segment"))
        .after_help(
            "It may have the place of a listed generation of its segment that is damaged, or of which it has every \
             event. Erasures under way apply to it; those that are done do not.",
        );
    let discard = Command::new("discard")
        .about("Removes a file for good, after saying what goes. Not while hitlog serves")
        .arg(which.help("The file's name, or the number of its segment"))
        .arg(yes("Remove it; without this it is only told what would go, and the exit code is 1"));
    Command::new("quarantine")
        .about("Files of segments that the catalog does not list and that may hold events: list, adopt, discard")
        .args(shown_everywhere(WRITING))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([list, adopt, discard])
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_tool(arguments, |config| quarantine::run(&config.data_dir, &action(arguments)))
}

fn action(arguments: &ArgMatches) -> QuarantineAction {
    let file = |given: &ArgMatches| text(given, "file").unwrap_or_default();
    match arguments.subcommand() {
        Some(("adopt", given)) => QuarantineAction::Adopt(file(given)),
        Some(("discard", given)) => QuarantineAction::Discard { file: file(given), yes: given.get_flag("yes") },
        other => QuarantineAction::List { json: other.is_some_and(|(_, given)| given.get_flag("json")) },
    }
}

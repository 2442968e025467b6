//! `hitlog ship`: how far a running hitlog has shipped its events, and what is in the way.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{
    arguments::{flag, help, json, shown_everywhere, text},
    signals::Signals,
    tool::run_client,
};
use crate::{
    config::{Config, Key, Secret},
    tools::{
        ToolError,
        client::{BaseUrl, Client, Patience},
        ship::{self, ShipAction},
    },
};

/// The settings that tell where hitlog listens, and with which token it is asked.
const HEEDED: &[Key] = &[Key::listen, Key::token, Key::token_file];

pub(super) fn command() -> Command {
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let with_base = |command: Command| {
        command
            .arg(flag(
                "url",
                "URL",
                "Where the running hitlog is reached; without it, on this machine, where it listens",
            ))
            .arg(json())
    };
    let status =
        Command::new("status").about("Tells how far it is, and what is in the way. Exit code 1: somebody should act");
    let verify = Command::new("verify")
        .about(
            "Checks that every shipped event is there exactly once. Exit code 1: it is not so; which events differ is \
             told",
        )
        .arg(switch("deep", "Also compares the contents of the events, which takes some seconds a million"));
    let resume = Command::new("resume")
        .about("Goes on after a pause, when what it was for is mended. Exit code 1: something is still in the way")
        .arg(switch("dead", "Sends the events that the target has refused again, too"))
        .arg(
            switch("from-start", "Looks for all events that are kept, and ships those that are not there")
                .conflicts_with("dead"),
        );
    let dead =
        Command::new("dead").about("Lists the events that the target refuses, and why. Exit code 1: there are some");
    Command::new("ship")
        .about("Shipping to ClickHouse, of a running hitlog: status, verify, resume, dead")
        .args(shown_everywhere(HEEDED).into_iter().map(of_client))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([status, verify, resume, dead].map(with_base))
        .after_help("It needs an admin's token, if hitlog has tokens. Nothing is encrypted on its way.")
}

/// What a setting says of whoever serves, said to whoever asks.
fn of_client(flag: Arg) -> Arg {
    let listen = Key::listen.setting();
    if flag.get_id() != listen.name {
        return flag;
    }
    flag.help(help(listen, "Where the running hitlog listens"))
}

pub(super) fn run(arguments: &ArgMatches, _: &Signals) -> ExitCode {
    run_client(arguments, |config| {
        let Some((name, given)) = arguments.subcommand() else {
            return Err(ToolError::Arguments("say status, verify, resume or dead".into()));
        };
        let action = match name {
            "verify" => ShipAction::Verify(given.get_flag("deep")),
            "resume" => ShipAction::Resume { dead: given.get_flag("dead"), from_start: given.get_flag("from-start") },
            "dead" => ShipAction::Dead,
            _ => ShipAction::Status,
        };
        ship::run(&client(given, &config)?, action, given.get_flag("json"))
    })
}

fn client(given: &ArgMatches, config: &Config) -> Result<Client, ToolError> {
    let base = match text(given, "url") {
        Some(url) => BaseUrl::parse(&url).map_err(|said| ToolError::Arguments(format!("--url: {said}"))),
        None => BaseUrl::of_listener(config.listen).map_err(ToolError::Arguments),
    };
    Ok(Client::new(base?, config.admin_token().map(Secret::reveal), Patience::default()))
}

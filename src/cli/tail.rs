//! `hitlog tail`: follows the events of a website that a running hitlog takes in, until a signal ends it.

use std::{process::ExitCode, sync::Arc};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{
    arguments::{flag, shown, text, website},
    output::fail,
    signals::{Reaction, Signals},
    tool::run_client,
};
use crate::{
    config::{Config, Key, Secret},
    event::EventType,
    tools::{
        ToolError,
        client::{BaseUrl, Client, Patience},
        tail::{self, Bookmark, TailOptions},
    },
};

/// The settings that tell where hitlog listens, and with which token it is asked.
const HEEDED: &[Key] = &[Key::listen, Key::token, Key::read_token, Key::token_file];

pub(super) fn command() -> Command {
    let types = EventType::ALL.map(EventType::as_str);
    let after =
        "Begin behind this position, or with all that is kept: start. Without it, with what comes in from now on";
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    Command::new("tail")
        .about("Prints the events of a website as they come in, from a running hitlog, until it is interrupted")
        .arg(website())
        .arg(flag("type", "TYPE", "Of this type only").value_parser(types))
        // A position may begin with a dash.
        .arg(flag("after", "POSITION", after).allow_hyphen_values(true))
        .arg(json.help("Print the lines of JSON as hitlog sends them, each with its position"))
        .arg(flag("url", "URL", "Where hitlog listens; without it, where the setting listen says"))
        .args(shown(HEEDED))
        .after_help(
            "It needs a token that reads, if hitlog has tokens: read_token, or one of the role read in token_file; \
             that of an admin does, too. Nothing is encrypted on its way, so for a hitlog on another machine make a \
             tunnel: ssh -N -L 3000:127.0.0.1:3000 MACHINE\n\n\
             When the connection is cut it goes on where it was: nothing is shown twice, and nothing is left out. When \
             it is interrupted it says on standard error with which command to go on. Without --website there has to \
             be one website only.",
        )
}

pub(super) fn run(arguments: &ArgMatches, signals: &Signals) -> ExitCode {
    let bookmark = Arc::new(Bookmark::default());
    let place = Arc::clone(&bookmark);
    let tell = move || {
        if let Some(words) = place.last_words() {
            fail(&format!("hitlog: interrupted. {words}"));
        }
    };
    signals.react(Reaction::TellAndEnd(Box::new(tell)));
    run_client(arguments, |config| tail::run(&options(arguments, &config, bookmark)?))
}

fn options(arguments: &ArgMatches, config: &Config, bookmark: Arc<Bookmark>) -> Result<TailOptions, ToolError> {
    let url = text(arguments, "url");
    let base = match &url {
        Some(url) => BaseUrl::parse(url).map_err(|said| ToolError::Arguments(format!("--url: {said}"))),
        None => BaseUrl::of_listener(config.listen).map_err(ToolError::Arguments),
    };
    let token = config.reading_token().map(Secret::reveal);
    Ok(TailOptions {
        client: Client::new(base?, token, Patience::default()),
        url,
        website: text(arguments, "website"),
        event_type: text(arguments, "type"),
        after: text(arguments, "after"),
        json: arguments.get_flag("json"),
        tell: fail,
        bookmark,
    })
}

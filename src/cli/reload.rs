//! Reads the file of tokens and the database of countries anew, each in a thread of its own: a file may be a pipe or on
//! a disk that stalls, and then the other is read all the same.

use std::{io, thread};

use crate::{
    config::{Role, Token, TokenSources},
    visitor::CountriesError,
};

/// Starts the threads, and returns what asks them to read their files. What was valid stays so if a file is bad.
pub(super) fn spawn(
    sources: TokenSources,
    change: impl Fn(&[Token]) + Send + 'static,
    read_countries: Option<impl Fn() -> Result<(), CountriesError> + Send + 'static>,
) -> io::Result<impl Fn() + Send + 'static> {
    let ask_for_tokens = reader("reload", move || reload(&sources, &change))?;
    let countries = read_countries.map(|read| reader("countries", move || reload_countries(read())));
    let ask_for_countries = countries.transpose()?;
    Ok(move || {
        ask_for_tokens();
        if let Some(ask) = &ask_for_countries {
            ask();
        }
    })
}

/// Starts a thread that reads a file when it is asked to.
fn reader(name: &str, read: impl Fn() + Send + 'static) -> io::Result<impl Fn() + Send + 'static> {
    // One that waits is enough, however often it is asked for: it has not begun to read.
    let (ask, asked) = crossbeam_channel::bounded(1);
    thread::Builder::new().name(name.into()).spawn(move || asked.into_iter().for_each(|()| read()))?;
    Ok(move || {
        let _ = ask.try_send(());
    })
}

fn reload_countries(read: Result<(), CountriesError>) {
    match read {
        Ok(()) => tracing::info!("geoip_database was read anew"),
        Err(error) => tracing::error!(
            %error,
            "geoip_database is not good; the one that was read before stays. Put a good one there, and send SIGHUP \
             again"
        ),
    }
}

fn reload(sources: &TokenSources, change: &impl Fn(&[Token])) {
    let Some(file) = sources.file() else {
        tracing::info!("SIGHUP reads token_file anew, and there is none: nothing has changed");
        return;
    };
    match sources.read() {
        Ok(tokens) => {
            change(&tokens);
            tell("token_file was read anew: these tokens are valid now, and no others", &tokens);
        }
        Err(faults) => tracing::error!(
            token_file = %file.display(),
            faults = faults.join("; "),
            "token_file is not good; the tokens that were valid stay so"
        ),
    }
}

/// Tells how many tokens there are of each role, and what follows if nobody may do everything.
pub(super) fn tell(what: &str, tokens: &[Token]) {
    let count = |role| tokens.iter().filter(|token| token.role == role).count();
    let [metrics, read, admin] = Role::ALL.map(count);
    tracing::info!(metrics, read, admin, "{what}");
    if admin == 0 {
        tracing::warn!("no token has the role admin: nobody may register, change or erase anything");
    }
}

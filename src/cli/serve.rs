//! `hitlog serve`: the daemon's process, with its signals, its socket and its limit on open files.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::{net::TcpListener, runtime, sync::mpsc};

use super::{
    arguments::{settings, with_config},
    log, memory,
    output::{EXIT_FAILURE, fail},
    reload,
    signals::{Reaction, Signals},
};
use crate::{
    app::{self, App},
    config::{Config, contract},
};

/// The name of the command.
pub(super) const NAME: &str = "serve";
const RESTORED: &str = "restored";

/// Connections that the kernel holds ready while we are busy. std's 128 makes bursts wait for retransmissions.
const LISTEN_BACKLOG: u32 = 4_096;

/// How long the end waits for what runs beside the connections once all of those have ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn command() -> Command {
    // No setting: it is true of one start, and would be wrong of the next.
    let restored = Arg::new(RESTORED).long(RESTORED).action(ArgAction::SetTrue).help(
        "The data directory is a copy that `hitlog backup` did not make, such as the snapshot of a volume. Give it at \
         the first start from the copy, and only there: ids of events that came after the copy was made then lead \
         nowhere, and never to events that come from now on",
    );
    Command::new(NAME)
        .about(
            "Takes events in and serves them, until SIGTERM or SIGINT; SIGHUP reads token_file and geoip_database anew",
        )
        .after_help("A setting is looked for in the flags, the environment, the file and the defaults, in this order.")
        .args(settings(|_| true))
        .arg(restored)
}

pub(super) fn run(arguments: &ArgMatches, signals: &Signals) -> ExitCode {
    with_config(arguments, Config::check, |config, raw, warnings| {
        let warnings = [warnings, &raw.without_effect()].concat();
        serve(config, &warnings, arguments.get_flag(RESTORED), signals)
    })
}

/// Serves until a signal asks for a stop.
fn serve(mut config: Config, warnings: &[String], is_restored: bool, signals: &Signals) -> ExitCode {
    app::restrict_files(&config);
    if let Err(error) = log::start(&config) {
        fail(&format!("hitlog: cannot start the thread that writes the log: {error}"));
        return ExitCode::from(EXIT_FAILURE);
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit(&mut config);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
        .thread_name("edge")
        .enable_io()
        .enable_time()
        .build();
    let ended = runtime.map_err(|error| format!("cannot start the runtime: {error}")).and_then(|runtime| {
        let ended = runtime.block_on(start_and_serve(&config, is_restored, signals));
        // A disk that stands still while the file of salts is written must not hold up the end.
        runtime.shutdown_timeout(END_TIMEOUT);
        ended
    });
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::from(EXIT_FAILURE)
        }
    };
    log::flush();
    code
}

async fn start_and_serve(config: &Config, is_restored: bool, signals: &Signals) -> Result<(), String> {
    let app = App::start(config, is_restored).map_err(|error| error.to_string())?;
    log::count(&app.metrics().log);
    let listener = listen(config.listen)
        .map_err(|error| format!("cannot listen on {}: {error}; {}", config.listen, listen_advice(&error)))?;
    let address = listener.local_addr().map_err(|error| format!("cannot find out the address: {error}"))?;
    if config.is_protected_mode() {
        tracing::warn!(
            "no token is set: everybody on this machine may read the events, nobody elsewhere may connect; but a proxy \
             on this machine that adds no header looks like its owner: set a token before you put one in front"
        );
    } else {
        reload::tell("requests other than sending events need one of these tokens", &config.tokens);
    }
    let reload = reload::spawn(config.token_sources.clone(), app.token_change(), app.countries_change(config))
        .map_err(|error| format!("cannot start the thread that reads files anew: {error}"))?;
    let (asks_for_stop, mut stop) = mpsc::unbounded_channel();
    let ask_for_stop = move || {
        let _ = asks_for_stop.send(());
    };
    signals.react(Reaction::Tell { stop: Box::new(ask_for_stop), hangup: Some(Box::new(reload)) });
    let memory_bytes_max = memory::bytes_max(config);
    tracing::info!(memory_bytes_max, "the most memory that hitlog takes: {}", memory::in_words(config));
    tracing::info!(%address, connections_max = config.connections_max, "hitlog listens");
    tell_ready(address);
    let shutdown = async move {
        stop.recv().await;
    };
    app.serve(listener, shutdown).await.map_err(|error| error.to_string())
}

/// Tells whoever started hitlog that it listens. They may not be reading, so a thread of its own waits for them.
fn tell_ready(address: SocketAddr) {
    let tell = move || {
        let mut stdout = io::stdout();
        let _ = writeln!(stdout, "hitlog listening on http://{address}").and_then(|()| stdout.flush());
    };
    if let Err(error) = thread::Builder::new().name("ready line".into()).spawn(tell) {
        tracing::warn!(%error, "the line that tells the address cannot be written");
    }
}

/// What to do where hitlog cannot listen.
fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program is there: end it, or choose another port with --listen",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address: choose another with --listen",
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 takes a right that hitlog does not have (CAP_NET_BIND_SERVICE): choose another with \
             --listen"
        }
        _ => "choose another address with --listen",
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A restart must not wait until the connections of the previous process have timed out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG as i32)?;
    TcpListener::from_std(socket.into())
}

/// Raises the limit on file descriptors as far as the system allows, and takes no more connections than fit in it.
fn raise_descriptor_limit(config: &mut Config) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files could not be raised");
        }
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return };
    let fitting = usize::try_from(descriptors.saturating_sub(contract::DESCRIPTORS_RESERVED)).unwrap_or(usize::MAX);
    if fitting < config.connections_max {
        tracing::warn!(
            connections_max = config.connections_max,
            fitting,
            "fewer connections than configured: the limit on open files (ulimit -n) leaves no more"
        );
        config.connections_max = fitting.max(1);
    }
}

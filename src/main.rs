//! The command line: arguments, logging, signals, exit code.

// Of what is shipped more is asked than of tests and benches.
#![warn(missing_docs, unreachable_pub)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![warn(clippy::needless_pass_by_value)]

// Beside this file, as every room's parts are; a crate's root would look for it one folder up.
#[path = "main/commands.rs"]
mod commands;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    process::ExitCode,
};

use clap::{Arg, ArgMatches, Command};
use hitlog::{
    app::App,
    config::{Config, ConfigError, Layer, LogFormat, RawSettings, SETTINGS, contract},
};
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
};

/// For anything that fails once the settings are known to be good.
const EXIT_FAILURE: u8 = 1;
/// For a bad setting, before any disk or port is touched. clap uses the same for bad arguments.
const EXIT_BAD_SETTING: u8 = 2;
/// Connections that the kernel holds ready while we are busy. std's 128 makes bursts wait for retransmissions.
const LISTEN_BACKLOG: u32 = 4_096;

fn main() -> ExitCode {
    let arguments = command().get_matches();
    match arguments.subcommand() {
        Some(("serve", arguments)) => with_config(arguments, serve),
        Some(("config", arguments)) => match arguments.subcommand() {
            Some(("show", arguments)) => with_config(arguments, |_, raw, _| print(&raw.show())),
            Some((_, arguments)) => with_config(arguments, |_, _, _| print("The configuration is good.\n")),
            None => ExitCode::from(EXIT_BAD_SETTING),
        },
        Some((tool, arguments)) => with_config(arguments, |config, _, _| commands::run(tool, arguments, &config)),
        None => ExitCode::from(EXIT_BAD_SETTING),
    }
}

/// The flags of the settings that are wanted, and of the file that all of them may come from.
fn settings(is_wanted: impl Fn(&str) -> bool) -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("A TOML file of settings; config/hitlog.toml is a commented example [env: HITLOG_CONFIG]");
    SETTINGS.iter().filter(|setting| is_wanted(setting.name)).fold(vec![file], |mut flags, setting| {
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        let help = format!("{}{default} [env: {}]", setting.help, setting.variable());
        flags.push(Arg::new(setting.name).long(setting.flag()).value_name(setting.value_name).help(help));
        flags
    })
}

fn command() -> Command {
    let settings = || settings(|_| true);
    Command::new("hitlog")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Takes web-analytics events over HTTP and answers 201 only when they are safely on disk")
        .after_help(
            "Start it with `hitlog serve`, register a website with POST /api/v1/websites, and send events to \
             POST /api/v1/events. README.md shows the requests.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about("Takes events in and serves them, until SIGTERM or SIGINT")
                .after_help(
                    "A setting is looked for in the flags, the environment, the file and the defaults, in this order.",
                )
                .args(settings()),
        )
        .subcommand(
            Command::new("config")
                .about("Checks or shows the configuration that `serve` would run with")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("check")
                        .about("Says what is wrong with the settings, if anything is")
                        .args(settings()),
                )
                .subcommand(
                    Command::new("show")
                        .about("Prints every setting, its value and where it comes from")
                        .args(settings()),
                ),
        )
        .subcommands(commands::commands())
}

/// Gathers and checks the settings, then runs `run`.
fn with_config(arguments: &ArgMatches, run: impl FnOnce(Config, &RawSettings, &[String]) -> ExitCode) -> ExitCode {
    let mut warnings = Vec::new();
    let checked = gather(arguments, &mut warnings).and_then(|raw| Ok((Config::check(&raw)?, raw)));
    match checked {
        Ok((config, raw)) => run(config, &raw, &warnings),
        Err(error) => {
            fail(&format!("hitlog: the configuration is not good:\n{error}"));
            ExitCode::from(EXIT_BAD_SETTING)
        }
    }
}

fn gather(arguments: &ArgMatches, warnings: &mut Vec<String>) -> Result<RawSettings, ConfigError> {
    let mut raw = RawSettings::default();
    let file = arguments.get_one::<String>("config").cloned().or_else(|| std::env::var("HITLOG_CONFIG").ok());
    if let Some(file) = file {
        let text = fs::read_to_string(&file)
            .map_err(|error| ConfigError(vec![format!("{file}: the file cannot be read: {error}")]))?;
        raw.read_file(&text)
            .map_err(|problems| ConfigError(problems.iter().map(|problem| format!("{file}: {problem}")).collect()))?;
    }
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    for name in raw.read_environment(variables) {
        warnings.push(format!(
            "the environment variable {name} is no setting of hitlog's; `hitlog config show` lists them"
        ));
    }
    for setting in SETTINGS {
        // The tools show only the flags that matter to them.
        if let Ok(Some(value)) = arguments.try_get_one::<String>(setting.name) {
            raw.set(setting, value, Layer::Flag);
        }
    }
    Ok(raw)
}

fn serve(mut config: Config, _raw: &RawSettings, warnings: &[String]) -> ExitCode {
    start_logging(&config, config.log_level);
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
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => failure(&reason),
    }
}

async fn run(config: &Config) -> Result<(), String> {
    // From here on a signal is a wish to stop in order, not the end of the process.
    let (mut terminate, mut interrupt) = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)))
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let app = App::start(config).map_err(|error| error.to_string())?;
    let listener = listen(config.listen).map_err(|error| {
        format!("cannot listen on {}: {error}; is another program there? See --listen", config.listen)
    })?;
    let address = listener.local_addr().map_err(|error| format!("cannot tell the address: {error}"))?;
    if config.is_protected_mode() {
        tracing::warn!("no token is set: everybody on this machine may read the events, nobody elsewhere may connect");
    }
    tracing::info!(%address, connections_max = config.connections_max, "hitlog listens");
    let mut stdout = io::stdout();
    // Whoever started us may not be reading.
    let _ = writeln!(stdout, "hitlog listening on http://{address}").and_then(|()| stdout.flush());
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::error!("a second signal: exiting at once, requests under way are not answered");
            std::process::exit(EXIT_FAILURE.into());
        });
    };
    app.serve(listener, shutdown).await.map_err(|error| error.to_string())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A restart must not wait for the connections of the process before to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG as i32)?;
    TcpListener::from_std(socket.into())
}

/// Takes as many file descriptors as the system lets us have, and no more connections than fit them.
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

fn start_logging(config: &Config, level: tracing::Level) {
    let json = match config.log_format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(io::stderr().is_terminal()).init();
    }
}

fn failure(reason: &str) -> ExitCode {
    tracing::error!("{reason}");
    ExitCode::from(EXIT_FAILURE)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILURE),
    }
}

fn fail(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

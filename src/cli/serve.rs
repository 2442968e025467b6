//! `hitlog serve`: the daemon's process, with its signals, its socket and its limit on open files.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
};

use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
};

use super::{
    memory,
    output::{EXIT_FAILURE, start_logging},
};
use crate::{
    app::App,
    config::{Config, RawSettings, contract},
};

/// Connections that the kernel holds ready while we are busy. std's 128 makes bursts wait for retransmissions.
const LISTEN_BACKLOG: u32 = 4_096;

/// Serves until a signal asks for a stop.
pub(super) fn serve(mut config: Config, _raw: &RawSettings, warnings: &[String]) -> ExitCode {
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
    // From here on a signal asks for a stop in order and does not end the process.
    let (mut terminate, mut interrupt) = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)))
        .map_err(|error| format!("cannot listen for signals: {error}"))?;
    let app = App::start(config).map_err(|error| error.to_string())?;
    let listener = listen(config.listen).map_err(|error| {
        format!("cannot listen on {}: {error}; is another program there? See --listen", config.listen)
    })?;
    let address = listener.local_addr().map_err(|error| format!("cannot find out the address: {error}"))?;
    if config.is_protected_mode() {
        tracing::warn!(
            "no token is set: everybody on this machine may read the events, nobody elsewhere may connect; but a proxy \
             on this machine that adds no header looks like its owner: set a token before you put one in front"
        );
    }
    let memory_bytes_max = memory::bytes_max(config);
    tracing::info!(%address, connections_max = config.connections_max, memory_bytes_max, "hitlog listens");
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

fn failure(reason: &str) -> ExitCode {
    tracing::error!("{reason}");
    ExitCode::from(EXIT_FAILURE)
}

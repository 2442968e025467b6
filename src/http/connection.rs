//! Accepting connections, serving them, and ending them in time.
//!
//! hyper's own header timeout also runs while a connection is merely idle, and it knows nothing of clients that do
//! not read. So each connection has a [`Pulse`], which its socket and its requests keep up to date, and one timer
//! that looks at it: the timer is set anew only when it has run out, which costs a busy connection nothing.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Context,
    body::Rest,
    route::{self, Answered},
};
use crate::metrics::{Closed, Metrics};

/// Limits of connections; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// Largest head of a request, in bytes.
    pub head_bytes_max: usize,
    /// For a head, from its first byte.
    pub head_timeout: Duration,
    /// For a connection without a request.
    pub idle_timeout: Duration,
    /// For a client that does not read its answer.
    pub write_stall_timeout: Duration,
}

/// hyper's buffer of a connection, in bytes. Bodies are read through it; heads have a limit of their own. hyper's
/// default of 400 KiB would let a thousand slow clients hold 400 MiB.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// A head and a body that are this small together are copied into one piece: the kernel takes one piece in less time
/// than two, by far more than the copy costs. The answer to an event is 700 bytes.
const GATHER_BYTES_MAX: usize = 2 * 1024;
/// When a stop begins, a connection without a request stays this long: one may be on its way already.
const DRAIN_GRACE: Duration = Duration::from_millis(100);
/// How often the end of a request that is being handled is looked for while draining.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Out of file descriptors, the next try to accept waits from this ...
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// ... to this long.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Accepts and serves until `stop`, then lets every request that was taken in be answered. Returns whether that was
/// so within the time that `stop` gave for it.
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    limits: ConnectionLimits,
    stop: impl Future<Output = Duration>,
) -> bool {
    context.metrics.connections_max.set(limits.connections_max as f64);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let (stopping, stopped) = watch::channel(false);
    let server = Server { http: http_builder(limits), context, limits, slots, stopped };
    let drain_timeout = tokio::select! {
        never = server.accept_all(&listener) => match never {},
        drain_timeout = stop => drain_timeout,
    };
    server.context.stopping.store(true, Ordering::Release);
    server.accept_waiting(&listener).await;
    drop(listener);
    let _ = stopping.send(true);
    let everybody = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    timeout(drain_timeout, server.slots.acquire_many(everybody)).await.is_ok()
}

fn http_builder(limits: ConnectionLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_buf_size(CONNECTION_BUFFER_BYTES)
        .max_header_size(limits.head_bytes_max)
        .header_read_timeout(None)
        // A client may say that it is done sending and still wait for its answer.
        .half_close(true);
    http
}

struct Server {
    http: http1::Builder,
    context: Arc<Context>,
    limits: ConnectionLimits,
    slots: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Server {
    async fn accept_all(&self, listener: &TcpListener) -> Infallible {
        let mut backoff = ACCEPT_BACKOFF_MIN;
        loop {
            // The slots are never closed, so there always comes one.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { std::future::pending().await };
            match listener.accept().await {
                Ok((stream, _)) => {
                    backoff = ACCEPT_BACKOFF_MIN;
                    self.spawn(stream, slot);
                }
                // The client was faster to leave than we to accept.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.context.metrics.accept_errors.increment(1);
                    if backoff == ACCEPT_BACKOFF_MIN {
                        tracing::warn!(%error, "cannot accept connections; raise the limit on open files (ulimit -n)");
                    }
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                }
            }
        }
    }

    /// Takes in the connections that the kernel has already made: closing the listener would reset them.
    async fn accept_waiting(&self, listener: &TcpListener) {
        while let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            match timeout(Duration::ZERO, listener.accept()).await {
                Ok(Ok((stream, _))) => self.spawn(stream, slot),
                _ => return,
            }
        }
    }

    fn spawn(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        // Without it an answer can wait for the client's delayed acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (http, context, limits, stopped) =
            (self.http.clone(), Arc::clone(&self.context), self.limits, self.stopped.clone());
        tokio::spawn(async move {
            let metrics = Arc::clone(&context.metrics);
            let _open = OpenConnection::count(&metrics);
            let reason = serve_connection(&http, stream, context, limits, stopped).await;
            metrics.connections_closed(reason).increment(1);
            drop(slot);
        });
    }
}

/// Counts a connection as open, even if its task panics.
struct OpenConnection<'a>(&'a Metrics);

impl<'a> OpenConnection<'a> {
    fn count(metrics: &'a Metrics) -> Self {
        metrics.connections_accepted.increment(1);
        metrics.connections.increment(1);
        Self(metrics)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.decrement(1);
    }
}

async fn serve_connection(
    http: &http1::Builder,
    stream: TcpStream,
    context: Arc<Context>,
    limits: ConnectionLimits,
    mut stopped: watch::Receiver<bool>,
) -> Closed {
    let pulse = Arc::new(Pulse::new());
    let requests = {
        let pulse = Arc::clone(&pulse);
        service_fn(move |request| {
            let (context, pulse) = (Arc::clone(&context), Arc::clone(&pulse));
            async move {
                let started = Instant::now();
                pulse.enter(Phase::Handling, started);
                let Answered { answer, rest, at } = route::answer(&context, request, started).await;
                let phase = match rest {
                    Rest::Read => Phase::Idle,
                    Rest::Unread => Phase::Discarding,
                };
                pulse.enter(phase, at);
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let io = TokioIo::new(PulsedStream { stream, pulse: Arc::clone(&pulse) });
    let mut connection = http.serve_connection(io, requests);
    let mut timer = pin!(sleep(limits.head_timeout.min(limits.idle_timeout)));
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            result = &mut connection => return match result {
                Err(error) if error.is_parse() => Closed::Malformed,
                Err(error) if !error.is_incomplete_message() => {
                    tracing::debug!(%error, "a connection failed");
                    Closed::Error
                }
                _ if draining => Closed::Drain,
                _ => Closed::Client,
            },
            () = &mut timer => match pulse.verdict(Instant::now(), &limits, draining) {
                Verdict::LookAgain(at) => timer.as_mut().reset(at),
                Verdict::Close(reason) => {
                    if reason == Closed::HeadTimeout {
                        // hyper has no request to answer here; the socket is ours again once it is taken apart.
                        let stream = connection.into_parts().io.into_inner().stream;
                        let _ = stream.try_write(HEAD_TIMEOUT_ANSWER);
                    }
                    return reason;
                }
            },
            _ = &mut stop, if !draining => {
                draining = true;
                timer.set(sleep_until(Instant::now() + DRAIN_GRACE));
            }
        }
    }
}

/// The answer to a head that does not come: the contract's error, written without hyper.
const HEAD_TIMEOUT_ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
    connection: close\r\ncontent-length: 81\r\n\r\n\
    {\"error\":\"REQUEST_TIMEOUT\",\"message\":\"The head of the request came too slowly\"}\r\n";

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests, or sending an answer.
    Idle,
    /// Some bytes of a head have come.
    Head,
    /// As idle, but the bytes that come belong to a body which nobody wants.
    Discarding,
    /// A request is being handled; it has time limits of its own.
    Handling,
}

/// What a connection is doing and since when. Written by the connection's own task only; atomic because that task
/// moves between threads.
struct Pulse {
    born_at: Instant,
    phase: AtomicU8,
    /// Nanoseconds after `born_at`.
    since: AtomicU64,
    write_blocked: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    LookAgain(Instant),
    Close(Closed),
}

impl Pulse {
    fn new() -> Self {
        Self {
            born_at: Instant::now(),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Discarding,
            _ => Phase::Handling,
        }
    }

    fn touch(&self, now: Instant) {
        self.since.store(now.duration_since(self.born_at).as_nanos() as u64, Ordering::Relaxed);
    }

    /// A busy connection comes through here several times a request, so whoever knows the time hands it in.
    fn enter(&self, phase: Phase, now: Instant) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.touch(now);
    }

    fn bytes_came(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
    }

    fn bytes_went(&self, blocked: bool) {
        if self.write_blocked.load(Ordering::Relaxed) != blocked {
            self.write_blocked.store(blocked, Ordering::Relaxed);
            self.touch(Instant::now());
        }
    }

    fn verdict(&self, now: Instant, limits: &ConnectionLimits, draining: bool) -> Verdict {
        let since = self.born_at + Duration::from_nanos(self.since.load(Ordering::Relaxed));
        let (limit, reason) = match self.phase() {
            _ if self.write_blocked.load(Ordering::Relaxed) => (limits.write_stall_timeout, Closed::WriteStalled),
            Phase::Head => (limits.head_timeout, Closed::HeadTimeout),
            Phase::Idle | Phase::Discarding if draining => (DRAIN_GRACE, Closed::Drain),
            Phase::Idle | Phase::Discarding => (limits.idle_timeout, Closed::Idle),
            Phase::Handling => {
                return Verdict::LookAgain(now + if draining { DRAIN_POLL } else { limits.head_timeout });
            }
        };
        if now >= since + limit {
            return Verdict::Close(reason);
        }
        // A head may begin at any moment from now on, and must find the timer awake when its own time is up.
        let soonest = now + if draining { DRAIN_POLL } else { limits.head_timeout };
        Verdict::LookAgain((since + limit).min(soonest))
    }
}

/// A socket that keeps its connection's [`Pulse`].
struct PulsedStream {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl AsyncRead for PulsedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pulse.bytes_came();
        }
        result
    }
}

impl AsyncWrite for PulsedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, data);
        self.pulse.bytes_went(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        let result = if length <= GATHER_BYTES_MAX {
            let mut gathered = [0; GATHER_BYTES_MAX];
            let mut end = 0;
            for part in data {
                gathered[end..][..part.len()].copy_from_slice(part);
                end += part.len();
            }
            Pin::new(&mut self.stream).poll_write(context, &gathered[..length])
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(context, data)
        };
        self.pulse.bytes_went(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections_max: 1,
        head_bytes_max: 1,
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(30),
        write_stall_timeout: Duration::from_secs(5),
    };

    #[test]
    fn the_written_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(HEAD_TIMEOUT_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn when_a_connection_is_closed() {
        use Closed::{Drain, HeadTimeout, Idle, WriteStalled};
        for (phase, blocked, draining, seconds, closed) in [
            (Phase::Idle, false, false, 29.0, None),
            (Phase::Idle, false, false, 30.5, Some(Idle)),
            (Phase::Idle, false, true, 0.05, None),
            (Phase::Idle, false, true, 0.2, Some(Drain)),
            (Phase::Idle, true, false, 5.5, Some(WriteStalled)),
            (Phase::Head, false, false, 9.0, None),
            (Phase::Head, false, false, 10.5, Some(HeadTimeout)),
            (Phase::Head, false, true, 9.0, None),
            (Phase::Discarding, false, false, 29.0, None),
            (Phase::Discarding, false, false, 30.5, Some(Idle)),
            (Phase::Handling, false, false, 1_000.0, None),
            (Phase::Handling, false, true, 1_000.0, None),
            (Phase::Handling, true, false, 5.5, Some(WriteStalled)),
        ] {
            let pulse = Pulse::new();
            pulse.enter(phase, pulse.born_at);
            pulse.write_blocked.store(blocked, Ordering::Relaxed);
            let now = Instant::now() + Duration::from_secs_f64(seconds);
            match (pulse.verdict(now, &LIMITS, draining), closed) {
                (Verdict::Close(reason), Some(wanted)) => assert_eq!(reason, wanted),
                (Verdict::LookAgain(at), None) => assert!(at <= now + LIMITS.head_timeout, "{phase:?}"),
                (verdict, wanted) => panic!("{phase:?} after {seconds}: {verdict:?}, not {wanted:?}"),
            }
        }
    }
}

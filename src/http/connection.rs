//! Accepting connections, serving them, and ending them in time.
//!
//! Each connection has an [`Activity`], kept up to date by its socket and its requests, and one timer that looks at it.
//! The timer is set anew only when it has run out, which costs a busy connection nothing. A connection is hyper's only
//! from the first byte of a request on, because hyper's buffers are most of what it costs.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Poll, ready},
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    activity::{Activity, DRAIN_GRACE, Phase, TrackedStream, Verdict},
    body::Rest,
    context::Context,
    options::ConnectionLimits,
    response::Body,
    route::{self, Handled},
};
use crate::metrics::{Closed, HttpMetrics};

/// hyper's buffer of a connection, in bytes, unless heads may be larger. Bodies are read through it. A thousand clients
/// that send large batches hold it a thousand times: hyper's default would be 400 MiB, and 64 KiB were no faster.
const CONNECTION_BUFFER_BYTES: usize = 16 * 1024;
/// The first wait before accepting again when file descriptors have run out. It doubles with each failure.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait before accepting again.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Accepts and serves until `stop`, then lets every request that was taken in be answered. Returns whether all of them
/// were within the time that `stop` gave.
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    limits: ConnectionLimits,
    stop: impl Future<Output = Duration>,
) -> bool {
    context.metrics.http.connections_max.set(limits.connections_max as f64);
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
    http.max_buf_size(CONNECTION_BUFFER_BYTES.max(limits.head_bytes_max))
        .max_header_size(limits.head_bytes_max)
        .header_read_timeout(None)
        // A client may say that it is done sending and still wait for its response.
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
            // The slots are never closed, so one always comes.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { std::future::pending().await };
            match listener.accept().await {
                Ok((stream, _)) => {
                    backoff = ACCEPT_BACKOFF_MIN;
                    self.spawn(stream, slot);
                }
                // The client left before we accepted it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.context.metrics.http.accept_errors.increment(1);
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
        // Without it a response can wait for the client's delayed acknowledgement of the previous one.
        let _ = stream.set_nodelay(true);
        let (http, context, limits, stopped) =
            (self.http.clone(), Arc::clone(&self.context), self.limits, self.stopped.clone());
        tokio::spawn(async move {
            let metrics = Arc::clone(&context.metrics.http);
            let _open = OpenConnection::count(&metrics);
            let (reason, lingering) = serve_connection(&http, stream, context, limits, &slot, stopped).await;
            metrics.connections_closed(reason).increment(1);
            if let Some(stream) = lingering {
                stream.linger().await;
            }
        });
    }
}

/// Counts a connection as open, even if its task panics.
struct OpenConnection<'a>(&'a HttpMetrics);

impl<'a> OpenConnection<'a> {
    fn count(metrics: &'a HttpMetrics) -> Self {
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

/// Serves until either side ends it; gives the socket back if a response may be on its way to the client.
async fn serve_connection(
    http: &http1::Builder,
    stream: TcpStream,
    context: Arc<Context>,
    limits: ConnectionLimits,
    slot: &OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) -> (Closed, Option<TrackedStream>) {
    let activity = Arc::new(Activity::new());
    // One of the two is set: the connection is hyper's, or it rests without hyper's buffers.
    let mut active = None;
    let mut resting = Some(TrackedStream::new(stream, Arc::clone(&activity)));
    let is_crowded = || limits.connections_max - slot.semaphore().available_permits() > limits.warm_connections_max;
    let mut timer = pin!(sleep(limits.head_timeout.min(limits.idle_timeout)));
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    let mut draining = false;
    loop {
        let serving = poll_fn(|task| {
            loop {
                if let Some(stream) = &mut resting {
                    ready!(stream.poll_first_byte(task));
                    let io = resting.take().map(TokioIo::new);
                    active =
                        io.map(|io| http.serve_connection(io, requests(Arc::clone(&context), Arc::clone(&activity))));
                }
                let Some(connection) = &mut active else { return Poll::Pending };
                if let Poll::Ready(result) = Pin::new(connection).poll(task) {
                    return Poll::Ready(result);
                }
                if !(activity.is_resting() && is_crowded()) {
                    return Poll::Pending;
                }
                resting = active.take().map(take_apart);
            }
        });
        tokio::select! {
            biased;
            result = serving => return (why_ended(result, draining), active.map(take_apart)),
            () = &mut timer => match activity.verdict(Instant::now(), &limits, draining) {
                Verdict::LookAgain(at) => timer.as_mut().reset(at),
                Verdict::Close(reason) => {
                    // hyper has no request to answer here; the socket is ours again once it is taken apart.
                    let is_slow = reason == Closed::HeadTimeout;
                    let lingering = active.filter(|_| is_slow || activity.is_discarding()).map(take_apart);
                    if let Some(stream) = lingering.as_ref().filter(|_| is_slow) {
                        stream.try_write(HEAD_TIMEOUT_RESPONSE);
                    }
                    return (reason, lingering);
                }
            },
            _ = &mut stop, if !draining => {
                draining = true;
                timer.set(sleep_until(Instant::now() + DRAIN_GRACE));
            }
        }
    }
}

fn why_ended(result: hyper::Result<()>, draining: bool) -> Closed {
    match result {
        Err(error) if error.is_parse() => Closed::Malformed,
        Err(error) if !error.is_incomplete_message() => {
            tracing::debug!(%error, "a connection failed");
            Closed::Error
        }
        _ if draining => Closed::Drain,
        _ => Closed::Client,
    }
}

/// Answers the requests of one connection.
fn requests(
    context: Arc<Context>,
    activity: Arc<Activity>,
) -> impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send> + Send {
    service_fn(move |request: Request<Incoming>| {
        let (context, activity) = (Arc::clone(&context), Arc::clone(&activity));
        async move {
            let started = Instant::now();
            activity.enter(Phase::Handling, started);
            let Handled { response, rest, at } = route::handle(&context, request, started).await;
            match rest {
                Rest::Read => activity.enter(Phase::Idle, at),
                Rest::Unread(body) => {
                    activity.enter(Phase::Discarding, at);
                    tokio::spawn(async move {
                        if body.discard(&context.body_limits).await {
                            activity.discarded(Instant::now());
                        }
                    });
                }
            }
            Ok(response)
        }
    })
}

/// The socket of a connection, with what hyper has read from it and not used.
fn take_apart<S: HttpService<Incoming, ResBody = Body, Error = Infallible>>(
    connection: http1::Connection<TokioIo<TrackedStream>, S>,
) -> TrackedStream {
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    stream.put_back(parts.read_buf);
    stream
}

/// The response to a head that does not come: the contract's error, written without hyper.
const HEAD_TIMEOUT_RESPONSE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
    connection: close\r\ncontent-length: 81\r\n\r\n\
    {\"error\":\"REQUEST_TIMEOUT\",\"message\":\"The head of the request came too slowly\"}\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_response_is_as_long_as_it_says() {
        let text = std::str::from_utf8(HEAD_TIMEOUT_RESPONSE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}

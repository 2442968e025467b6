//! Accepting connections, serving them, and ending them in time.
//!
//! Each connection has an [`Activity`], kept up to date by its stream and its requests, and one timer that looks at it.
//! The timer is set anew only when it has run out, which costs a busy connection nothing. A connection is hyper's only
//! from the first byte of a request on, because hyper's buffers are most of what it costs. Who gives way when
//! connections or buffers run short is decided in `connections`.

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    io, mem,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    activity::{Activity, DRAIN_GRACE, Phase, Verdict},
    body::{InboundBody, Rest},
    connections::{Connections, Place},
    handle::{Edge, Handled},
    options::ConnectionLimits,
    parts::EdgeParts,
    refused_head::{self, Refused},
    response::Body,
    stop::{CutOff, Stage},
    stream::TrackedStream,
};
use crate::metrics::{Closed, HttpMetrics, Outcome};

/// hyper's buffer of a connection, in bytes, unless heads may be larger. Bodies are read through it. A thousand clients
/// that send large batches hold it a thousand times: hyper's default would be 400 MiB, and 64 KiB were no faster.
const CONNECTION_BUFFER_BYTES: usize = 16 * 1024;
/// How many bytes of answers the kernel takes for a client before they are on their way to it. Its own default is some
/// 4 MB for each, and it wants more only when a third of that has been read: a client that reads 100 KB/s would seem to
/// stand still for ten seconds and more. What is on the way is not bounded by it.
const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// The first wait before accepting again when file descriptors have run out. It doubles with each failure.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest wait before accepting again.
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long connections have to end when the time of a stop is over, and nothing is waited for any more.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Who is to be closed is looked at again after this: when the process has been stopped for a while, time is up before
/// it is known what has come in the meantime.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// Accepts and serves until `stop`, then lets every request that was taken in be answered, within the time that `stop`
/// gives. Returns what was cut off then.
pub async fn serve(listener: TcpListener, parts: EdgeParts, stop: impl Future<Output = Duration>) -> CutOff {
    // Every socket that is accepted inherits it.
    if let Err(error) = SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
        tracing::warn!(%error, "slow readers of large answers will seem to stall (TCP_NOTSENT_LOWAT)");
    }
    let connections = Arc::clone(&parts.connections);
    let limits = *connections.limits();
    let metrics = Arc::clone(&parts.metrics.http);
    metrics.connections_max.set(limits.connections_max as f64);
    let edge = Arc::new(Edge::new(parts));
    let server = Server { http: http_builder(limits), connections: Arc::clone(&connections), edge, metrics };
    let mut waiting = None;
    let drain_timeout = tokio::select! {
        never = server.accept_all(&listener, &mut waiting) => match never {},
        drain_timeout = stop => drain_timeout,
    };
    server.edge.stop.begin();
    server.accept_waiting(&listener, waiting).await;
    drop(listener);
    server.edge.stop.tell(Stage::Draining);
    if timeout(drain_timeout, connections.all_ended()).await.is_ok() {
        return CutOff::default();
    }
    server.edge.stop.tell(Stage::Over);
    let _ = timeout(END_TIMEOUT, connections.all_ended()).await;
    server.edge.stop.cut_off()
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
    connections: Arc<Connections>,
    edge: Arc<Edge>,
    metrics: Arc<HttpMetrics>,
}

impl Server {
    /// Accepts for ever. Whoever has been accepted and waits for a slot is in `waiting`.
    async fn accept_all(&self, listener: &TcpListener, waiting: &mut Option<(TcpStream, SocketAddr)>) -> Infallible {
        let mut backoff = ACCEPT_BACKOFF_MIN;
        loop {
            match listener.accept().await {
                Ok(accepted) => {
                    backoff = ACCEPT_BACKOFF_MIN;
                    *waiting = Some(accepted);
                    // Nobody is bidden give way before there is somebody to give way to.
                    let slot = self.connections.slot().await;
                    if let Some((stream, peer)) = waiting.take() {
                        self.spawn(stream, peer, slot);
                    }
                }
                // The client left before we accepted it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.metrics.accepts(Outcome::Failed).increment(1);
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
    async fn accept_waiting(&self, listener: &TcpListener, mut waiting: Option<(TcpStream, SocketAddr)>) {
        while let Some(slot) = self.connections.try_slot() {
            let (stream, peer) = match waiting.take() {
                Some(accepted) => accepted,
                None => match timeout(Duration::ZERO, listener.accept()).await {
                    Ok(Ok(accepted)) => accepted,
                    _ => return,
                },
            };
            self.spawn(stream, peer, slot);
        }
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        // Without it a response can wait for the client's delayed acknowledgement of the previous one.
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::new(peer.ip()));
        let metrics = Arc::clone(&self.metrics);
        let Some(place) = self.connections.admit(peer.ip(), slot, &activity) else {
            metrics.accepts(Outcome::Ok).increment(1);
            metrics.connections_closed(Closed::OverShare).increment(1);
            return;
        };
        let (http, edge) = (self.http.clone(), Arc::clone(&self.edge));
        tokio::spawn(async move {
            let _open = OpenConnection::count(&metrics);
            let (reason, lingering) = serve_connection(&http, stream, &edge, activity, &place).await;
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
        metrics.accepts(Outcome::Ok).increment(1);
        metrics.connections.increment(1);
        Self(metrics)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.decrement(1);
    }
}

/// Whose the socket of a connection is.
enum Socket<S: HttpService<Incoming, ResBody = Body, Error = Infallible>> {
    /// Nobody's: it waits for the first byte of a request, and there are no buffers for it.
    Resting(TrackedStream),
    /// hyper's, with the right to hyper's buffers. In a box, so that one that rests takes no room for it.
    Active { connection: Box<http1::Connection<TokioIo<TrackedStream>, S>>, _buffers: Option<OwnedSemaphorePermit> },
    /// On its way from one to the other, which nobody sees.
    Passing,
}

impl<S: HttpService<Incoming, ResBody = Body, Error = Infallible>> Socket<S> {
    /// Hands one that rests to hyper.
    fn activate(&mut self, http: &http1::Builder, service: S, buffers: Option<OwnedSemaphorePermit>) {
        *self = match mem::replace(self, Self::Passing) {
            Self::Resting(stream) => {
                let connection = Box::new(http.serve_connection(TokioIo::new(stream), service));
                Self::Active { connection, _buffers: buffers }
            }
            other => other,
        };
    }

    /// Takes one back from hyper that has nothing to do.
    fn take_back(&mut self, activity: &Activity) {
        if let Some(stream) = mem::replace(self, Self::Passing).into_stream() {
            *self = Self::Resting(stream);
        }
        activity.buffers_held(false);
    }

    /// Waits for requests and has hyper answer them, until either side ends it. `None` if it has to give way.
    fn poll_serve(
        &mut self,
        http: &http1::Builder,
        service: impl Fn() -> S,
        wanted: &mut BuffersWanted,
        connections: &Arc<Connections>,
        activity: &Activity,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<hyper::Result<()>>> {
        activity.served_by(task.waker());
        loop {
            // A request that is being handled gets its answer first, and the answer says that it is the last.
            if activity.gives_way() {
                return Poll::Ready(None);
            }
            if let Self::Resting(stream) = self {
                ready!(stream.poll_first_byte(task));
                let buffers = ready!(wanted.poll(connections, activity, task));
                self.activate(http, service(), buffers);
            }
            let Self::Active { connection, .. } = self else { return Poll::Pending };
            if let Poll::Ready(result) = Pin::new(connection.as_mut()).poll(task) {
                return Poll::Ready(Some(result));
            }
            if !(activity.gives_way() || activity.is_resting() && connections.is_crowded()) {
                return Poll::Pending;
            }
            self.take_back(activity);
        }
    }

    /// The socket, with what hyper has read from it and not used.
    fn into_stream(self) -> Option<TrackedStream> {
        match self {
            Self::Resting(stream) => Some(stream),
            Self::Active { connection, .. } => {
                let parts = connection.into_parts();
                let mut stream = parts.io.into_inner();
                stream.put_back(parts.read_buf);
                Some(stream)
            }
            Self::Passing => None,
        }
    }
}

/// Waits for hyper's buffers.
#[derive(Default)]
struct BuffersWanted(Option<Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>>);

impl BuffersWanted {
    fn poll(
        &mut self,
        connections: &Arc<Connections>,
        activity: &Activity,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<OwnedSemaphorePermit>> {
        if self.0.is_none() {
            if let Some(buffers) = connections.try_buffers() {
                activity.buffers_held(true);
                return Poll::Ready(Some(buffers));
            }
            // It is not idle: a request has begun to come.
            activity.bytes_came();
            self.0 = Some(Box::pin(Arc::clone(connections).buffers()));
        }
        let buffers = match &mut self.0 {
            Some(waiting) => ready!(waiting.as_mut().poll(task)),
            None => None,
        };
        self.0 = None;
        activity.buffers_held(true);
        Poll::Ready(buffers)
    }
}

/// Serves until either side ends it; gives the socket back if a response may be on its way to the client.
async fn serve_connection(
    http: &http1::Builder,
    stream: TcpStream,
    edge: &Arc<Edge>,
    activity: Arc<Activity>,
    place: &Place,
) -> (Closed, Option<TrackedStream>) {
    let connections = place.connections();
    let limits = *connections.limits();
    let mut socket = Socket::Resting(TrackedStream::new(stream, Arc::clone(&activity)));
    let mut wanted = BuffersWanted::default();
    let mut timer = pin!(sleep(limits.soonest()));
    let mut stop = edge.stop.told();
    let (mut draining, mut was_to_be_closed) = (false, false);
    loop {
        let service = || requests(Arc::clone(edge), Arc::clone(&activity));
        let serving = poll_fn(|task| socket.poll_serve(http, service, &mut wanted, connections, &activity, task));
        tokio::select! {
            biased;
            // Before anything else: what has come by the end of a stop and was not read is not begun.
            Ok(()) = stop.changed() => match *stop.borrow_and_update() {
                Stage::Serving => {}
                Stage::Draining => {
                    draining = true;
                    timer.set(sleep_until(Instant::now() + DRAIN_GRACE));
                }
                Stage::Over => {
                    edge.stop.cuts_off(activity.left());
                    return closed(Closed::Drain, socket.into_stream(), &activity);
                }
            },
            result = serving => {
                return ended(result, draining, socket.into_stream(), &activity);
            }
            () = &mut timer => match activity.verdict(Instant::now(), &limits, draining) {
                Verdict::LookAgain(at) => {
                    was_to_be_closed = false;
                    // What came behind the last request may be half a head, which hyper has read and tells nobody of.
                    // It is read again, and its time begins.
                    if activity.is_resting() {
                        socket.take_back(&activity);
                    }
                    timer.as_mut().reset(at);
                }
                Verdict::Close(_) if !was_to_be_closed => {
                    was_to_be_closed = true;
                    timer.as_mut().reset(Instant::now() + SECOND_LOOK);
                }
                Verdict::Close(reason) => {
                    return closed(reason, socket.into_stream(), &activity);
                }
            },
        }
    }
}

/// A connection whose time is up. One whose head does not come hears so.
fn closed(reason: Closed, stream: Option<TrackedStream>, activity: &Activity) -> (Closed, Option<TrackedStream>) {
    if let Some(stream) = stream.as_ref().filter(|_| reason == Closed::HeadTimeout) {
        stream.try_write(&refused_head::answer(Refused::Slow, stream.unread()));
    }
    let is_awaited = reason == Closed::HeadTimeout || activity.is_discarding();
    (reason, broken_off(stream, activity).filter(|_| is_awaited))
}

/// The socket, unless the end of an answer is missing on it: that is reset, since a client of HTTP/1.0 would take a
/// closed one for the end of the answer.
fn broken_off(stream: Option<TrackedStream>, activity: &Activity) -> Option<TrackedStream> {
    if activity.is_streaming() {
        stream.into_iter().for_each(TrackedStream::reset);
        return None;
    }
    stream
}

/// Why hyper has ended a connection, or that it gave way to others. What hyper would say to a head that it refuses is
/// said here, in the contract's words.
fn ended(
    result: Option<hyper::Result<()>>,
    draining: bool,
    stream: Option<TrackedStream>,
    activity: &Activity,
) -> (Closed, Option<TrackedStream>) {
    let stream = broken_off(stream, activity);
    match result {
        None => (Closed::GaveWay, stream.filter(|_| activity.has_just_refused())),
        Some(Err(error)) if error.is_parse() => {
            let refused = if error.is_parse_too_large() { Refused::TooLarge } else { Refused::Malformed };
            if let Some(stream) = &stream {
                stream.try_write(&refused_head::answer(refused, stream.unread()));
            }
            (Closed::Malformed, stream)
        }
        Some(Err(error)) if error.is_user() => {
            let reason = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!("{reason}; its client has to ask again");
            (Closed::BrokenOff, stream)
        }
        Some(Err(error)) if !error.is_incomplete_message() => {
            tracing::debug!(%error, "a connection failed");
            (Closed::Error, stream)
        }
        _ if draining => (Closed::Drain, stream),
        _ => (Closed::Client, stream),
    }
}

/// Answers the requests of one connection.
fn requests(
    edge: Arc<Edge>,
    activity: Arc<Activity>,
) -> impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send> + Send {
    service_fn(move |request: Request<Incoming>| {
        let (edge, activity) = (Arc::clone(&edge), Arc::clone(&activity));
        // Taken apart here, so that the future, which hyper moves as a whole, holds each part once.
        let started = Instant::now();
        activity.enter(Phase::Handling, started);
        let (head, incoming) = request.into_parts();
        let body = InboundBody::new(incoming, &head.headers, &activity, started);
        async move {
            let Handled { response, rest, at } = edge.handle(&head, body, started).await;
            let is_streaming = activity.is_streaming();
            match rest {
                Rest::Read if is_streaming => {}
                Rest::Read => activity.enter(Phase::Idle, at),
                Rest::Unread(body) => {
                    if !is_streaming {
                        activity.enter(Phase::Discarding, at);
                    }
                    tokio::spawn(async move {
                        if body.discard(&edge.bodies.limits).await {
                            activity.discarded(Instant::now());
                        }
                    });
                }
            }
            Ok(response)
        }
    })
}

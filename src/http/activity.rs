//! What a connection is doing and since when, as its socket and its requests tell.
//!
//! hyper's own header timeout also runs while a connection is merely idle, and it knows nothing of clients that do
//! not read. So each connection has an [`Activity`], and whoever serves it asks it whether to go on.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::options::ConnectionLimits;
use crate::metrics::Closed;

/// When a stop begins, a connection without a request stays this long: one may be on its way already.
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(100);
/// How often, while draining, a connection is looked at whose request is being handled.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How long a connection that has ended waits until its client has closed it, too.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How many bytes are read and thrown away at a time during that wait.
const LINGER_READ_BYTES: usize = 4 * 1024;
/// A head and a body that are this small together are copied into one piece: the kernel takes one piece so much sooner
/// than two that the copy costs less. The response to an event is 700 bytes.
const GATHER_BYTES_MAX: usize = 2 * 1024;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or sending a response.
    Idle,
    /// Some bytes of a head have come.
    Head,
    /// Idle, but the bytes that come still belong to a body that nobody wants.
    Discarding,
    /// A request is being handled; it has time limits of its own.
    Handling,
}

/// What a connection is doing and since when. Written by the connection's own task, which moves between threads, and by
/// the one that reads the rest of a body.
pub(super) struct Activity {
    born_at: Instant,
    phase: AtomicU8,
    /// Nanoseconds after `born_at`.
    since: AtomicU64,
    write_blocked: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    LookAgain(Instant),
    Close(Closed),
}

impl Activity {
    pub(super) fn new() -> Self {
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

    /// Called several times a request, so whoever knows the time hands it in.
    pub(super) fn enter(&self, phase: Phase, now: Instant) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.touch(now);
    }

    /// The rest of a body that nobody wants has come to its end: what comes now is the next request.
    pub(super) fn discarded(&self, now: Instant) {
        let (from, to) = (Phase::Discarding as u8, Phase::Idle as u8);
        if self.phase.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.touch(now);
        }
    }

    /// Whether bytes may be on their way that nobody wants.
    pub(super) fn is_discarding(&self) -> bool {
        self.phase() == Phase::Discarding
    }

    /// Whether there is nothing to do until the next request begins.
    pub(super) fn is_resting(&self) -> bool {
        self.phase() == Phase::Idle && !self.write_blocked.load(Ordering::Relaxed)
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

    pub(super) fn verdict(&self, now: Instant, limits: &ConnectionLimits, draining: bool) -> Verdict {
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

/// A socket that keeps its connection's [`Activity`].
pub(super) struct TrackedStream {
    stream: TcpStream,
    /// Read already, and to be read again.
    unread: Bytes,
    activity: Arc<Activity>,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, unread: Bytes::new(), activity }
    }

    /// Gives back what was read and not used. It goes before what was given back earlier and is still unread.
    pub(super) fn put_back(&mut self, unread: Bytes) {
        let earlier = std::mem::take(&mut self.unread);
        self.unread = match (unread.is_empty(), earlier.is_empty()) {
            // Even an empty slice would keep the buffer alive that it was cut from.
            (true, true) => Bytes::new(),
            (true, false) => earlier,
            (false, true) => unread,
            (false, false) => [unread, earlier].concat().into(),
        };
    }

    /// Waits until there is something to read, or the client is gone.
    pub(super) fn poll_first_byte(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.unread.is_empty() { self.stream.poll_read_ready(context).map(drop) } else { Poll::Ready(()) }
    }

    /// Closes the socket so that the client can read its last response: one that is closed with bytes unread is reset,
    /// and the reset overtakes the response. So what the client still sends is read, until it closes its side too.
    pub(super) async fn linger(mut self) {
        drop(std::mem::take(&mut self.unread));
        let until_closed = async {
            self.stream.shutdown().await?;
            loop {
                self.stream.readable().await?;
                match self.stream.try_read(&mut [0; LINGER_READ_BYTES]) {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        };
        // A client that is gone has closed its side, too.
        let _: Result<io::Result<()>, _> = timeout(LINGER_MAX, until_closed).await;
    }

    /// Writes what goes without waiting.
    pub(super) fn try_write(&self, data: &[u8]) {
        let _ = self.stream.try_write(data);
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = if self.unread.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let length = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread[..length]);
            self.unread.advance(length);
            Poll::Ready(Ok(()))
        };
        if buffer.filled().len() > before {
            self.activity.bytes_came();
        }
        result
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, data);
        self.activity.bytes_went(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
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
        self.activity.bytes_went(result.is_pending());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections_max: 1,
        warm_connections_max: 1,
        head_bytes_max: 1,
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(30),
        write_stall_timeout: Duration::from_secs(5),
    };

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
            let activity = Activity::new();
            activity.enter(phase, activity.born_at);
            activity.write_blocked.store(blocked, Ordering::Relaxed);
            let now = Instant::now() + Duration::from_secs_f64(seconds);
            match (activity.verdict(now, &LIMITS, draining), closed) {
                (Verdict::Close(reason), Some(wanted)) => assert_eq!(reason, wanted),
                (Verdict::LookAgain(at), None) => assert!(at <= now + LIMITS.head_timeout, "{phase:?}"),
                (verdict, wanted) => panic!("{phase:?} after {seconds}: {verdict:?}, not {wanted:?}"),
            }
        }
    }
}

//! A client's socket, which tells its connection's [`Activity`] what goes in and out, and can be closed so that the
//! client still reads its last answer.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::activity::Activity;

/// How long a connection that has ended waits until its client has closed it, too.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How many bytes are read and thrown away at a time during that wait.
const LINGER_READ_BYTES: usize = 4 * 1024;
/// A head and a body that are this small together are copied into one piece: the kernel takes one piece so much sooner
/// than two that the copy costs less. The response to an event is 700 bytes.
const GATHER_BYTES_MAX: usize = 2 * 1024;

/// A socket that keeps its connection's [`Activity`].
pub(super) struct TrackedStream {
    stream: TcpStream,
    /// Read already, and to be read again.
    unread: Bytes,
    activity: Arc<Activity>,
    /// An answer of hyper's own was kept from the socket, and ours takes its place.
    has_more_to_say: bool,
    /// Whoever closes it, and if the process is killed, its client sees a reset: an orderly end would mislead it.
    resets: bool,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, unread: Bytes::new(), activity, has_more_to_say: false, resets: false }
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

    /// What was read and not used.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
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

    /// Closes the socket so that the client sees that the end is missing, whatever it has read.
    pub(super) fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    /// Whether the client has reset the connection; and notes it when the client says that it is done sending, as one
    /// does that is gone. While events are followed nothing else would tell: nothing is read then, and perhaps nothing
    /// is written for a while.
    fn was_reset(&self, context: &mut Context<'_>) -> bool {
        if !(self.activity.is_tailing() && self.stream.poll_read_ready(context).is_ready()) {
            return false;
        }
        if SockRef::from(&self.stream).take_error().is_ok_and(|error| error.is_some()) {
            return true;
        }
        let mut byte = [MaybeUninit::uninit()];
        let is_done = !self.activity.is_done_sending()
            && matches!(self.stream.poll_peek(context, &mut ReadBuf::uninit(&mut byte)), Poll::Ready(Ok(0)));
        if is_done {
            self.activity.done_sending();
            // What comes next on this answer is decided anew.
            context.waker().wake_by_ref();
        }
        false
    }

    fn note(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.activity.bytes_went(None),
            Poll::Ready(Ok(written)) => self.activity.bytes_went(Some(*written)),
            Poll::Ready(Err(_)) => {}
        }
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
        if is_hypers_own(data) {
            self.has_more_to_say = true;
            return Poll::Ready(Ok(data.len()));
        }
        let result = Pin::new(&mut self.stream).poll_write(context, data);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|part| part.len()).sum();
        if data.first().is_some_and(|part| is_hypers_own(part)) {
            self.has_more_to_say = true;
            return Poll::Ready(Ok(length));
        }
        let result = if length <= GATHER_BYTES_MAX {
            let mut gathered = [0; GATHER_BYTES_MAX];
            let mut end = 0;
            for part in data {
                gathered[end..][..part.len()].copy_from_slice(part);
                end += part.len();
            }
            Pin::new(&mut self.stream).poll_write(context, &gathered[..length])
        } else {
            if !self.resets && self.activity.end_would_mislead() {
                self.resets = self.stream.set_zero_linger().is_ok();
            }
            Pin::new(&mut self.stream).poll_write_vectored(context, data)
        };
        self.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for it when it has written all that it had.
        self.activity.all_went();
        if self.resets && !self.activity.end_would_mislead() {
            self.resets = SockRef::from(&self.stream).set_linger(None).is_err();
        }
        if self.was_reset(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_more_to_say {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// hyper answers a head that it refuses by itself, without the contract's body. It is kept from the socket: whoever
/// serves the connection hears of the fault right after it and says more. All other refusals have a body.
fn is_hypers_own(head: &[u8]) -> bool {
    const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";
    // Of nearly all answers one byte is enough to tell.
    head.get(9) == Some(&b'4')
        && head.starts_with(b"HTTP/1.")
        && head.windows(EMPTY.len()).any(|part| part.eq_ignore_ascii_case(EMPTY))
}

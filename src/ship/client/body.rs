//! The body of a request: pieces whose length all together is known before the first is sent.

use std::{
    convert::Infallible,
    future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};

/// Most bytes that are handed on at a time, so that a slow network is seen to make progress.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How far the sending of a body has come.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    /// When a piece was last handed on, in milliseconds since then.
    moved_ms: AtomicU64,
    is_whole: AtomicBool,
}

impl Progress {
    fn note(&self, is_whole: bool) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(since, Ordering::Relaxed);
        self.is_whole.store(is_whole, Ordering::Relaxed);
    }

    /// Ends when no piece was wanted for so long. Not once all of them are gone: then the other side works.
    pub(super) async fn silence(&self, silence_max: Duration) {
        loop {
            if self.is_whole.load(Ordering::Relaxed) {
                return future::pending().await;
            }
            let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
            let silence = self.began.elapsed().saturating_sub(moved);
            if silence >= silence_max {
                return;
            }
            sleep(silence_max - silence).await;
        }
    }
}

/// A body that says how long it is.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// What is still to be handed on, the last first.
    pieces: Vec<Bytes>,
    left: u64,
    progress: Arc<Progress>,
}

impl Outgoing {
    pub(super) fn new(mut pieces: Vec<Bytes>) -> (Self, Arc<Progress>) {
        pieces.retain(|piece| !piece.is_empty());
        pieces.reverse();
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        let progress =
            Progress { began: Instant::now(), moved_ms: AtomicU64::new(0), is_whole: AtomicBool::new(left == 0) };
        let progress = Arc::new(progress);
        (Self { pieces, left, progress: Arc::clone(&progress) }, progress)
    }

    /// How many bytes it still has.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.last_mut() else { return Poll::Ready(None) };
        let part = piece.split_to(piece.len().min(PIECE_BYTES_MAX));
        if piece.is_empty() {
            self.pieces.pop();
        }
        self.left -= part.len() as u64;
        self.progress.note(self.left == 0);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

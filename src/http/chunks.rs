//! Answers that are sent in chunks: none is made before the one before it has nearly left, so that an answer holds the
//! memory of one chunk however large it is and however slowly it is read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::Instant;

use super::activity::Activity;

/// The size from which on a chunk is full, in bytes. What is smaller as a whole is sent as a whole, with its length: a
/// page of 1,000 usual events has 400 KiB.
pub(super) const CHUNK_BYTES: usize = 512 * 1024;

/// Some bytes of an answer, and what makes those that come after them.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// `None` behind the last one.
    pub(super) more: Option<More>,
}

/// Makes the next chunk, from when it is first polled on.
pub(super) type More = Pin<Box<dyn Future<Output = Result<Chunk, Cut>> + Send>>;

/// An answer whose rest can't be made. It is broken off, which its client sees by the missing end.
#[derive(Debug, thiserror::Error)]
#[error("an answer was broken off: {0}")]
pub(super) struct Cut(pub(super) String);

/// How long a chunk waits for what it lacks, memory or a reader, once the head of its answer is gone and the answer can
/// no more be refused; then it is broken off.
pub(super) const CHUNK_WAIT: Duration = Duration::from_secs(10);

/// The body of an answer that is sent in chunks. From [`begin`](Self::begin) on its connection is busy with it, until
/// all of it has been sent; one that is dropped before takes its connection with it.
pub(super) struct Chunks {
    state: State,
    /// Whether it ends by itself, and so has to have been read at some time.
    has_end: bool,
    activity: Option<Arc<Activity>>,
}

enum State {
    Ready(Chunk),
    Waiting(More),
    Ended,
}

impl Chunks {
    pub(super) fn new(first: Chunk) -> Self {
        Self { state: State::Ready(first), has_end: true, activity: None }
    }

    /// One that goes on for as long as its client wants.
    pub(super) fn endless(first: Chunk) -> Self {
        Self { has_end: false, ..Self::new(first) }
    }

    /// Notes that its head is on its way to the client of `activity`, which has until `timeout` is over to read it all
    /// if it has an end.
    pub(super) fn begin(&mut self, activity: &Arc<Activity>, timeout: Duration) {
        if self.has_end {
            activity.begin_streaming(Instant::now(), timeout);
        } else {
            activity.begin_tailing(Instant::now());
        }
        self.activity = Some(Arc::clone(activity));
    }

    fn end(&mut self) {
        self.state = State::Ended;
        if let Some(activity) = self.activity.take() {
            activity.end_streaming(Instant::now());
        }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            match &mut self.state {
                State::Ready(_) => {
                    if let State::Ready(Chunk { bytes, more }) = std::mem::replace(&mut self.state, State::Ended) {
                        self.state = more.map_or(State::Ended, State::Waiting);
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                State::Waiting(more) => match ready!(more.as_mut().poll(task)) {
                    Ok(chunk) => self.state = State::Ready(chunk),
                    Err(cut) => {
                        // Its connection ends with it, as the phase says that it has not ended in order.
                        self.state = State::Ended;
                        return Poll::Ready(Some(Err(cut)));
                    }
                },
                State::Ended => {
                    self.end();
                    return Poll::Ready(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    fn chunk(text: &'static str, more: Option<More>) -> Chunk {
        Chunk { bytes: text.into(), more }
    }

    async fn frame(chunks: &mut Chunks) -> Option<Result<Bytes, String>> {
        let frame = poll_fn(|task| Pin::new(&mut *chunks).poll_frame(task)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()).map_err(|cut| cut.to_string()))
    }

    #[tokio::test]
    async fn a_chunk_is_made_when_it_is_wanted() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let second: More = Box::pin(async move {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(chunk("b", None))
        });
        let activity = Arc::new(Activity::new(std::net::Ipv4Addr::LOCALHOST.into()));
        let mut chunks = Chunks::new(chunk("a", Some(second)));
        assert!(!activity.is_streaming(), "not before its head is on its way");
        chunks.begin(&activity, Duration::from_secs(1));
        assert_eq!(frame(&mut chunks).await, Some(Ok("a".into())));
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert_eq!(frame(&mut chunks).await, Some(Ok("b".into())));
        assert!(activity.is_streaming(), "its end has not been told");
        assert_eq!(frame(&mut chunks).await, None);
        assert!(activity.is_streaming(), "its end has not been sent");
        activity.all_went();
        assert!(!activity.is_streaming());
    }

    #[tokio::test]
    async fn a_rest_that_cannot_be_made_leaves_the_end_missing() {
        let activity = Arc::new(Activity::new(std::net::Ipv4Addr::LOCALHOST.into()));
        let mut chunks = Chunks::new(chunk("a", Some(Box::pin(ready(Err(Cut("gone".into())))))));
        chunks.begin(&activity, Duration::from_secs(1));
        assert_eq!(frame(&mut chunks).await, Some(Ok("a".into())));
        assert_eq!(frame(&mut chunks).await, Some(Err("an answer was broken off: gone".into())));
        assert!(activity.is_streaming(), "which is how its connection knows that it has to be reset");
    }

    #[tokio::test]
    async fn a_chunk_that_is_waited_for_holds_nothing_up() {
        let mut chunks = Chunks::new(chunk("a", Some(Box::pin(pending()))));
        assert!(!chunks.is_end_stream() && chunks.size_hint().exact().is_none());
        assert_eq!(frame(&mut chunks).await, Some(Ok("a".into())));
        let waits = poll_fn(|task| Poll::Ready(Pin::new(&mut chunks).poll_frame(task).is_pending())).await;
        assert!(waits);
    }
}

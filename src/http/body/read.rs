//! Reading bodies: in time, and within the memory that all bodies share.

use std::{
    error::Error,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Body, Frame, Incoming},
    header::{CONTENT_LENGTH, EXPECT},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    decode::{Encoding, UnpackSlots, packed_bytes_max, unpack},
    memory::{BodyBytes, BodyError},
};
use crate::http::{
    activity::{Activity, Phase},
    heavy::Heavy,
    memory::SharedMemory,
};

/// The limits of reading a body; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Longest pause within a body.
    pub stall_timeout: Duration,
    /// Longest time for a whole body.
    pub timeout: Duration,
    /// The least rate at which a body comes, in bytes a second, averaged over the longest pause.
    pub bytes_per_second_min: u64,
    /// Memory for what unpacks bodies, beside the bodies, in bytes.
    pub unpack_bytes_max: usize,
    /// How much of a refused body is still read, in bytes.
    pub discard_bytes_max: usize,
    /// How long a refused body is still read.
    pub discard_time_max: Duration,
}

/// How bodies are read.
pub struct Bodies {
    pub(crate) limits: BodyLimits,
    pub(crate) memory: SharedMemory,
    pub(crate) heavy: Heavy,
    unpack_slots: UnpackSlots,
}

impl Bodies {
    /// Bodies of at most `bytes_max` bytes each, in this memory; large ones are worked on by `heavy`.
    pub fn new(limits: BodyLimits, memory: SharedMemory, heavy: Heavy, bytes_max: usize) -> Self {
        Self { limits, memory, heavy, unpack_slots: UnpackSlots::new(limits.unpack_bytes_max, bytes_max) }
    }
}

impl Bodies {
    /// What came in the head of a request in the place of a body, with `spare` bytes of room behind it.
    pub(crate) async fn of_head(&self, text: &[u8], spare: usize) -> Result<BodyBytes, BodyError> {
        let mut body = BodyBytes::new(&self.memory, text.len() + spare);
        body.reserve_in_time(text.len() + spare).await?;
        body.append(text)?;
        Ok(body)
    }
}

/// The next piece of a body; `None` behind the last.
type Next<'a> = Pin<Box<dyn Future<Output = Result<Option<Bytes>, BodyError>> + Send + 'a>>;

/// How long what has come is waited for when time is up.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// A request's body on its way in.
pub(crate) struct InboundBody {
    incoming: Incoming,
    /// The client waits for a "100 Continue", which hyper sends at the first look at the body.
    awaits_continue: bool,
    /// It has been read to its end.
    ended: bool,
    /// Trailers followed its last chunk.
    trailed: bool,
    /// When its head had come.
    began_at: Instant,
    /// What its connection is doing.
    activity: Arc<Activity>,
}

impl InboundBody {
    pub(crate) fn new(incoming: Incoming, headers: &HeaderMap, activity: &Arc<Activity>, began_at: Instant) -> Self {
        let awaits_continue =
            headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { incoming, awaits_continue, ended: false, trailed: false, began_at, activity: Arc::clone(activity) }
    }

    /// Reads and unpacks the body, at most `bytes_max` of it. `spare` is the room that the caller wants behind it, so
    /// that nothing is copied later.
    pub(crate) async fn read(
        &mut self,
        headers: &HeaderMap,
        bytes_max: usize,
        spare: usize,
        bodies: &Bodies,
    ) -> Result<BodyBytes, BodyError> {
        let encoding = Encoding::of(headers);
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let sent_max = if encoding == Ok(None) { bytes_max } else { packed_bytes_max(bytes_max) };
        if length.is_some_and(|length| length > sent_max) {
            return Err(if encoding.is_err() { BodyError::Encoding } else { BodyError::TooLarge(bytes_max) });
        }
        let mut body = BodyBytes::new(&bodies.memory, length.unwrap_or(0) + spare);
        self.awaits_continue = false;
        self.read_all(&mut body, (sent_max, bytes_max), bodies, |beginning| {
            if encoding.is_err() && !Encoding::is_gzip(beginning) { Err(BodyError::Encoding) } else { Ok(()) }
        })
        .await?;
        let encoding = if Encoding::is_gzip(body.as_slice()) { Some(Encoding::Gzip) } else { encoding? };
        match encoding {
            None if body.reserve(spare).is_ok() => Ok(body),
            None => body.reserve_in_time(spare).await.map(|()| body),
            Some(encoding) => {
                let unpackers = (&bodies.heavy, &bodies.unpack_slots);
                // In a box, so that bodies that are not packed take no room for it.
                Box::pin(unpack(encoding, body, (bytes_max, spare), &bodies.memory, unpackers)).await
            }
        }
    }

    async fn take(
        &mut self,
        body: &mut BodyBytes,
        data: &[u8],
        (sent_max, bytes_max): (usize, usize),
    ) -> Result<(), BodyError> {
        if body.len() + data.len() > sent_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        if body.append(data).is_ok() {
            return Ok(());
        }
        body.reserve_in_time(data.len()).await?;
        body.append(data)
    }

    /// Reads all of it; `check` is shown its beginning. Most bodies come in one piece with their head, and need no look
    /// at the clock. Once one has to be waited for, its connection may have to give way to others.
    async fn read_all(
        &mut self,
        body: &mut BodyBytes,
        maxima: (usize, usize),
        bodies: &Bodies,
        check: impl Fn(&[u8]) -> Result<(), BodyError>,
    ) -> Result<(), BodyError> {
        let limits = &bodies.limits;
        // What comes pays for time, at the least rate and up to the longest pause.
        let mut due_at = None;
        while !self.incoming.is_end_stream() {
            let data = match self.next_at_once().await? {
                Some(data) => Some(data),
                None if self.ended => break,
                None => {
                    let due_at = *due_at.get_or_insert_with(|| self.begin_to_wait(body, limits));
                    self.next(due_at.min(self.began_at + limits.timeout), SECOND_LOOK).await?
                }
            };
            let Some(data) = data else { break };
            if body.len() == 0 {
                check(&data)?;
            }
            self.take(body, &data, maxima).await?;
            if let Some(due_at) = &mut due_at {
                let now = Instant::now();
                self.activity.body_came(data.len(), now);
                let paid = Duration::from_secs_f64(data.len() as f64 / limits.bytes_per_second_min as f64);
                *due_at = (*due_at + paid).min(now + limits.stall_timeout);
            }
        }
        if due_at.is_some() {
            self.activity.enter(Phase::Handling, Instant::now());
        }
        Ok(())
    }

    /// Returns until when something has to come.
    fn begin_to_wait(&self, body: &mut BodyBytes, limits: &BodyLimits) -> Instant {
        let now = Instant::now();
        self.activity.enter(Phase::Body, now);
        self.activity.body_came(body.len(), now);
        body.holding_mut().is_held_by(&self.activity);
        now + limits.stall_timeout
    }

    /// What has come already. `None` if nothing has, or nothing will.
    async fn next_at_once(&mut self) -> Result<Option<Bytes>, BodyError> {
        while let Some(frame) = self.frame_at_once().await {
            let (is_last, data) = self.data_of(frame?)?;
            if is_last || data.is_some() {
                return Ok(data);
            }
        }
        Ok(None)
    }

    /// What comes next, by the deadline. In a box, so that the many bodies that came with their heads take no room for
    /// its timers.
    fn next(&mut self, deadline: Instant, second_look: Duration) -> Next<'_> {
        Box::pin(self.wait_for_next(deadline, second_look))
    }

    async fn wait_for_next(&mut self, deadline: Instant, second_look: Duration) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = match timeout_at(deadline, self.frame()).await {
                Ok(frame) => frame?,
                // When the process has been stopped for a while, time is up before it is known what has come meanwhile.
                Err(_) => timeout(second_look, self.frame()).await.map_err(|_| BodyError::Timeout)??,
            };
            let (is_last, data) = self.data_of(frame)?;
            if is_last || data.is_some() {
                return Ok(data);
            }
        }
    }

    /// Whether a frame is the end, and the data in it.
    fn data_of(&mut self, frame: Option<hyper::Result<Frame<Bytes>>>) -> Result<(bool, Option<Bytes>), BodyError> {
        match frame {
            None => {
                self.ended = true;
                Ok((true, None))
            }
            Some(Err(error)) if is_malformed(&error) => Err(BodyError::Damaged(reason_of(&error))),
            Some(Err(_)) => Err(BodyError::BrokenOff),
            Some(Ok(frame)) => {
                let data = frame.into_data().ok();
                // Anything but data is a trailer, which nobody asked for.
                self.trailed |= data.is_none();
                Ok((false, data))
            }
        }
    }

    /// What has come already.
    async fn frame_at_once(&mut self) -> Option<Result<Option<hyper::Result<Frame<Bytes>>>, BodyError>> {
        let mut frame = pin!(self.incoming.frame());
        poll_fn(|task| {
            Poll::Ready(match frame.as_mut().poll(task) {
                Poll::Ready(frame) => Some(Ok(frame)),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// What comes next, unless the connection has to give way.
    async fn frame(&mut self) -> Result<Option<hyper::Result<Frame<Bytes>>>, BodyError> {
        let (mut frame, activity) = (pin!(self.incoming.frame()), &self.activity);
        // Whoever bids it give way wakes the connection's task, which is the one that this runs in while the body is
        // wanted.
        poll_fn(|task| {
            if activity.is_ended() { Poll::Ready(Err(BodyError::Memory)) } else { frame.as_mut().poll(task).map(Ok) }
        })
        .await
    }

    /// Whether a proxy may put the end of this body somewhere else. hyper reads all up to an empty line as trailers,
    /// and if a lone line feed stands there, the head of the next request, too. So the connection ends after a body
    /// that had trailers or may still have some.
    pub(crate) fn has_doubtful_end(&self) -> bool {
        self.trailed || !self.ended && self.incoming.size_hint().exact().is_none()
    }

    /// What is left of the body when the response is there. A small one that came together with its head is read to its
    /// end here, because it would be hard to tell afterwards when the next head begins.
    pub(crate) async fn rest(mut self) -> Rest {
        if !self.has_ended() && !self.awaits_continue {
            // hyper hands out what it holds only after it has been asked for it and has had its turn.
            let _ = self.next(Instant::now(), Duration::ZERO).await;
            tokio::task::yield_now().await;
            let _ = self.next(Instant::now(), Duration::ZERO).await;
        }
        if self.has_ended() { Rest::Read } else { Rest::Unread(self) }
    }

    /// What the connection is doing on which it comes.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    fn has_ended(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    /// After a response that did not need the rest of the body: reads it and throws it away for a while, so that the
    /// client gets to see the response instead of a reset connection. Returns whether it came to its end.
    pub(crate) async fn discard(mut self, limits: &BodyLimits) -> bool {
        // hyper takes what has come with the head, or closes the connection; until then these bytes are no request.
        if self.awaits_continue {
            return false;
        }
        let (deadline, mut discarded) = (Instant::now() + limits.discard_time_max, 0);
        while discarded < limits.discard_bytes_max {
            match self.next(deadline, Duration::ZERO).await {
                Ok(Some(data)) => discarded += data.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// Whether bytes of a request may still come after its response.
pub(crate) enum Rest {
    /// No: the next byte begins the next request.
    Read,
    /// Yes: those of this body.
    Unread(InboundBody),
}
/// What is wrong, which hyper tells as the source of its error.
fn reason_of(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether the chunks of a body are at fault, and not the connection.
fn is_malformed(error: &hyper::Error) -> bool {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

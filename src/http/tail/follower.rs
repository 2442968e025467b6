//! One client that follows events: when its next page is read, what it is told in between, and when it ends.

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    form::Bye,
    page::{PageWriter, What},
};
use crate::{
    http::{
        activity::{Activity, Held, Need},
        auth::Holder,
        chunks::{CHUNK_WAIT, Chunk, Cut},
        connections::Connections,
        held_page::{Leaving, leaving_page},
        stop::Stage,
    },
    metrics::ReadRefused,
    store::{PageBuffer, ReadError, Tail, TailPlace, TailRead},
};

/// After so long without anything else it is told that the connection is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Heartbeats for a client that will send nothing more: if it is gone its kernel refuses the first, which is sent at
/// once, and the second, so long after it, ends the connection.
const PROBES: u8 = 2;
const PROBED_AFTER: Duration = Duration::from_secs(1);
/// So long it is looked how far the events of others have come, before a heartbeat tells of it.
const HEARTBEAT_LOOK: Duration = Duration::from_secs(1);
/// The sizes of a page, in bytes: whoever reads slowly holds little, and whoever reads fast is not held up.
const PAGE_BYTES_MIN: usize = 4 * 1024;
const PAGE_BYTES_MAX: usize = 64 * 1024;
/// The next page is twice as large if the one before it was sent within this time.
const FAST: Duration = Duration::from_millis(50);
/// It is half as large if that took longer than this.
const SLOW: Duration = Duration::from_millis(500);
/// How long it waits before it asks again for a page that could not be read; twice as long each time.
const WAIT_MIN: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A page that is being read, and where that leads.
type Reading = Pin<Box<dyn Future<Output = Result<(TailRead, PageBuffer), ReadError>> + Send>>;

/// One client that follows events.
pub(super) struct Follower {
    what: Arc<What>,
    tail: Tail,
    connections: Arc<Connections>,
    /// Of the connection of its client.
    activity: Arc<Activity>,
    stop: watch::Receiver<Stage>,
    /// Who was let in.
    holder: Holder,
    /// Everything before it is on its way.
    place: TailPlace,
    /// There was nothing behind it when it was last looked.
    is_at_end: bool,
    /// The page before the next one, until it has been sent: no client holds more than one.
    leaving: Option<Leaving>,
    /// Goes on while its client is told that the connection is alive.
    reading: Option<Reading>,
    /// How many of [`PROBES`] it was sent.
    probes: u8,
    /// When something was last ready for its client.
    told_at: Instant,
    page_bytes: usize,
    /// The last page had no room for all that there was.
    was_full: bool,
    /// How long it waits before the next read; nothing unless the last one failed.
    wait: Duration,
    /// Since when reads have failed for another reason than that there was too much to do.
    failing_since: Option<Instant>,
}

/// What happens next.
enum Happening {
    Stop,
    ShutOut,
    /// The page before has been sent.
    Left,
    Read(Result<(TailRead, PageBuffer), ReadError>),
    More,
    Heartbeat,
    /// Its client may be gone.
    Doubt,
}

impl Follower {
    pub(super) fn new(
        what: What,
        tail: Tail,
        place: TailPlace,
        connections: Arc<Connections>,
        activity: &Arc<Activity>,
        (stop, holder): (watch::Receiver<Stage>, Holder),
    ) -> Self {
        Self {
            what: Arc::new(what),
            is_at_end: !tail.is_behind(&place),
            tail,
            connections,
            activity: Arc::clone(activity),
            stop,
            holder,
            place,
            leaving: None,
            reading: None,
            probes: 0,
            told_at: Instant::now(),
            page_bytes: PAGE_BYTES_MIN,
            was_full: false,
            wait: Duration::ZERO,
            failing_since: None,
        }
    }

    /// The first piece of the answer, which begins with `head`.
    pub(super) fn begin(self, head: Vec<u8>) -> Chunk {
        Box::new(self).tell(head.into())
    }

    /// Makes the next piece of the answer.
    async fn next(mut self: Box<Self>) -> Result<Chunk, Cut> {
        let mut heartbeat_at = self.told_at + HEARTBEAT;
        let mut looks_around = false;
        loop {
            if self.leaving.is_none() && self.reading.is_none() && !self.is_at_end {
                if self.what.is_deleted() {
                    return Ok(self.bye(Bye::Deleted));
                }
                self.reading = Some(self.read());
            }
            match self.happening(heartbeat_at).await {
                Happening::Stop => return Ok(self.bye(Bye::Stop)),
                Happening::ShutOut => return Ok(self.bye(Bye::Token)),
                Happening::Left => {
                    self.fit_page_bytes();
                    heartbeat_at = Instant::now() + HEARTBEAT;
                }
                Happening::More => self.is_at_end = false,
                Happening::Read(Ok((read, page))) => {
                    (self.place, self.is_at_end) = (read.place, read.is_at_end);
                    (self.wait, self.failing_since) = (Duration::ZERO, None);
                    if !page.is_empty() {
                        return Ok(self.page(page));
                    }
                    if looks_around && self.is_at_end {
                        return Ok(self.heartbeat());
                    }
                }
                Happening::Read(Err(failure)) => self.note_failure(failure)?,
                Happening::Heartbeat if self.what.is_deleted() => return Ok(self.bye(Bye::Deleted)),
                // Events of others have passed: it moves on with them, so that it never has far to go on from.
                Happening::Heartbeat if self.is_at_end && self.tail.is_behind(&self.place) && !looks_around => {
                    (looks_around, self.is_at_end) = (true, false);
                    heartbeat_at = Instant::now() + HEARTBEAT_LOOK;
                }
                Happening::Heartbeat => return Ok(self.heartbeat()),
                Happening::Doubt => {
                    self.probes += 1;
                    return Ok(self.heartbeat());
                }
            }
        }
    }

    /// Waits for what happens next. Of what has ended by then nothing is left.
    async fn happening(&mut self, heartbeat_at: Instant) -> Happening {
        let (doubted_at, is_in_doubt) = (self.told_at + PROBED_AFTER * self.probes.into(), self.probes < PROBES);
        let Self { stop, holder, leaving, reading, tail, activity, .. } = self;
        let (is_leaving, is_reading) = (leaving.is_some(), reading.is_some());
        let happening = tokio::select! {
            biased;
            _ = stop.wait_for(|stage| *stage != Stage::Serving) => Happening::Stop,
            () = holder.is_shut_out() => Happening::ShutOut,
            () = end(leaving), if is_leaving => Happening::Left,
            read = result(reading), if is_reading => Happening::Read(read),
            () = tail.more(), if !(is_leaving || is_reading) => Happening::More,
            // While the page before is in the way, it would not come through.
            () = sleep_until(heartbeat_at), if !is_leaving => Happening::Heartbeat,
            () = doubt(activity, doubted_at), if !is_leaving && is_in_doubt => Happening::Doubt,
        };
        match happening {
            Happening::Left => self.leaving = None,
            Happening::Read(_) => self.reading = None,
            _ => {}
        }
        happening
    }

    /// Reads the next page, from when it is first polled on.
    fn read(&self) -> Reading {
        let mut writer = PageWriter::new(&self.what, &self.place, self.page_bytes);
        let read = self.tail.read(self.place.clone(), move |page, shown| writer.write(page, shown));
        let wait = self.wait;
        Box::pin(async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            read.await
        })
    }

    fn note_failure(&mut self, failure: ReadError) -> Result<(), Cut> {
        self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.page_bytes = PAGE_BYTES_MIN;
        match failure {
            ReadError::Refused(reason) => {
                if reason == ReadRefused::Memory {
                    // Those go who leave unread what holds most of the memory of pages.
                    self.connections.end_some(Need::Bytes(Held::TailPage), Some(&self.activity));
                }
                self.failing_since = None;
                Ok(())
            }
            failure => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() < CHUNK_WAIT { Ok(()) } else { Err(Cut(failure.to_string())) }
            }
        }
    }

    /// Fits the size of the next page to how fast the last one went.
    fn fit_page_bytes(&mut self) {
        if !self.was_full {
            return;
        }
        let took = self.told_at.elapsed();
        if took <= FAST {
            self.page_bytes = (self.page_bytes * 2).min(PAGE_BYTES_MAX);
        } else if took > SLOW {
            self.page_bytes = (self.page_bytes / 2).max(PAGE_BYTES_MIN);
        }
    }

    fn page(mut self: Box<Self>, page: PageBuffer) -> Chunk {
        self.was_full = !self.is_at_end;
        let (bytes, leaving) = leaving_page(page, Held::TailPage, &self.activity);
        self.leaving = Some(leaving);
        self.tell(bytes)
    }

    fn heartbeat(self: Box<Self>) -> Chunk {
        let bytes = self.what.form.heartbeat(&self.what.position(&self.place));
        self.tell(bytes.into())
    }

    fn tell(mut self: Box<Self>, bytes: Bytes) -> Chunk {
        self.told_at = Instant::now();
        Chunk { bytes, more: Some(Box::pin(self.next())) }
    }

    fn bye(self: Box<Self>, bye: Bye) -> Chunk {
        let bytes = self.what.form.bye(&self.what.position(&self.place), bye);
        Chunk { bytes: bytes.into(), more: None }
    }
}

/// Waits until a client has said that it will send nothing more, which wakes the task of its connection; and until a
/// time.
async fn doubt(activity: &Activity, until: Instant) {
    poll_fn(|_| if activity.is_done_sending() { Poll::Ready(()) } else { Poll::Pending }).await;
    sleep_until(until).await;
}

/// Waits until a page has been sent.
async fn end(leaving: &mut Option<Leaving>) {
    match leaving {
        // That its other end is gone says so.
        Some(leaving) => drop(leaving.await),
        None => pending().await,
    }
}

/// Waits for what became of a read.
async fn result(reading: &mut Option<Reading>) -> Result<(TailRead, PageBuffer), ReadError> {
    match reading {
        Some(reading) => reading.await,
        None => pending().await,
    }
}

//! The chunks of a page of events: read when they are wanted, each by a question of its own.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    budget::Share,
    event::{EventRow, json},
    event_id::EventIds,
    http::{
        activity::{Activity, Held, Need},
        chunks::{CHUNK_BYTES, CHUNK_WAIT, Chunk, Cut, More},
        connections::Connections,
        cursor::Cursors,
        held_page::held_page,
    },
    metrics::ReadRefused,
    store::{EventFilter, Page, PageBuffer, PageSummary, ReadError, Readers, RestOfPage, Snapshot, Websites},
};

/// How long a chunk waits before it asks again when there is no reader or no memory for it.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long the first chunk asks again while it lacks memory: until those give way who have just left theirs unread.
/// Its head is not gone, so it can be refused after that.
const FIRST_CHUNK_WAIT: Duration = Duration::from_millis(400);

/// A page of events, on its way to one client.
#[derive(Clone)]
pub(super) struct EventPage {
    pub(super) readers: Readers,
    pub(super) connections: Arc<Connections>,
    /// Of the connection of its client.
    pub(super) activity: Arc<Activity>,
    pub(super) what: Arc<What>,
}

/// What it is a page of, and how it is written.
pub(super) struct What {
    pub(super) websites: Arc<Websites>,
    pub(super) ids: EventIds,
    pub(super) cursors: Cursors,
    pub(super) filter: EventFilter,
    pub(super) page: Page,
    /// Members that follow all others: what is odd about the request.
    pub(super) warnings: Vec<u8>,
}

/// What is still to be written of a page.
#[derive(Clone)]
struct Rest {
    rows: RestOfPage,
    /// What follows the events.
    end: Vec<u8>,
    /// No event has been written yet.
    is_first: bool,
}

impl EventPage {
    /// Reads its first chunk.
    pub(super) async fn begin(self) -> Result<Chunk, ReadError> {
        let until = Instant::now() + FIRST_CHUNK_WAIT;
        loop {
            let what = Arc::clone(&self.what);
            let (buffer, share) = (self.readers.page_buffer(), self.readers.share());
            match self.readers.ask(move |snapshot| what.read_first(snapshot, buffer, share)).await {
                Ok(read) => return Ok(self.chunk(read)),
                Err(ReadError::Refused(ReadRefused::Memory)) if Instant::now() < until => {
                    self.others_give_way();
                    sleep(ASK_AGAIN).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Reads another.
    async fn go_on(self, rest: Rest) -> Result<Chunk, Cut> {
        let until = Instant::now() + CHUNK_WAIT;
        loop {
            let (what, rest, buffer) = (Arc::clone(&self.what), rest.clone(), self.readers.page_buffer());
            match self.readers.ask(move |snapshot| what.read_on(snapshot, buffer, rest)).await {
                Ok(read) => return Ok(self.chunk(read)),
                Err(ReadError::Refused(reason)) if Instant::now() < until => {
                    if reason == ReadRefused::Memory {
                        self.others_give_way();
                    }
                    sleep(ASK_AGAIN).await;
                }
                Err(failure) => return Err(Cut(failure.to_string())),
            }
        }
    }

    /// Bids those give way who leave unread what holds most of the memory of pages.
    fn others_give_way(&self) {
        self.connections.end_some(Need::Bytes(Held::EventPage), Some(&self.activity));
    }

    fn chunk(self, (buffer, rest): (PageBuffer, Option<Rest>)) -> Chunk {
        let bytes = held_page(buffer, Held::EventPage, &self.activity);
        Chunk { bytes, more: rest.map(|rest| -> More { Box::pin(self.go_on(rest)) }) }
    }
}

impl What {
    fn read_first(
        &self,
        snapshot: &Snapshot<'_>,
        mut buffer: PageBuffer,
        share: Share,
    ) -> Result<(PageBuffer, Option<Rest>), ReadError> {
        buffer.write(|out| out.extend_from_slice(b"{\"events\":["))?;
        let mut is_first = true;
        let (listed, rest) = snapshot.list(&self.filter, self.page, share, |sequence, row| {
            self.write_event(&mut buffer, &mut is_first, sequence, row)
        })?;
        let end = self.end(&listed);
        if rest.is_none() {
            buffer.write(|out| out.extend_from_slice(&end))?;
        }
        Ok((buffer.trimmed(), rest.map(|rows| Rest { rows, end, is_first })))
    }

    fn read_on(
        &self,
        snapshot: &Snapshot<'_>,
        mut buffer: PageBuffer,
        mut rest: Rest,
    ) -> Result<(PageBuffer, Option<Rest>), ReadError> {
        // The events of a deleted website are gone at once, even while they are still on the disk.
        let is_deleted = self.websites.get(&self.filter.website_id).is_none();
        let is_last = is_deleted
            || snapshot.go_on(&mut rest.rows, |sequence, row| {
                self.write_event(&mut buffer, &mut rest.is_first, sequence, row)
            })?;
        if is_last {
            buffer.write(|out| out.extend_from_slice(&rest.end))?;
        }
        Ok((buffer.trimmed(), (!is_last).then_some(rest)))
    }

    /// Writes an event, and says whether there is room for more in its chunk.
    fn write_event(
        &self,
        buffer: &mut PageBuffer,
        is_first: &mut bool,
        sequence: u64,
        row: &EventRow<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        buffer.write(|out| {
            if !std::mem::replace(is_first, false) {
                out.push(b',');
            }
            json::write_event(out, &self.ids.encode(sequence), row);
        })?;
        Ok(if buffer.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// What follows the events.
    fn end(&self, listed: &PageSummary) -> Vec<u8> {
        let mut end = Vec::with_capacity(256 + self.warnings.len());
        end.extend_from_slice(b"],\"pagination\":{\"total\":");
        json::write_integer(&mut end, listed.total);
        end.extend_from_slice(b",\"limit\":");
        json::write_integer(&mut end, self.page.limit);
        end.extend_from_slice(b",\"offset\":");
        json::write_integer(&mut end, self.page.start.passed());
        end.extend_from_slice(b",\"next\":");
        match &listed.next {
            Some(next) => json::write_string(&mut end, self.cursors.encode(next, &self.filter).as_bytes()),
            None => end.extend_from_slice(b"null"),
        }
        end.push(b'}');
        end.extend_from_slice(&self.warnings);
        end.push(b'}');
        end
    }
}

//! A page of events that are followed, written while they are read.

use std::{ops::ControlFlow, sync::Arc};

use super::form::Form;
use crate::{
    event_id::EventIds,
    http::cursor::{Cursors, PositionText, Positions},
    store::{PageBuffer, ReadError, Shown, TailPlace, Websites},
};

/// What is followed, and how it is written.
pub(super) struct What {
    pub(super) form: Form,
    pub(super) website_id: Arc<str>,
    pub(super) websites: Arc<Websites>,
    pub(super) ids: EventIds,
    pub(super) cursors: Cursors,
}

impl What {
    /// Whether the website is gone. Its events are gone at once then, even while they are still on the disk.
    pub(super) fn is_deleted(&self) -> bool {
        self.websites.get(&self.website_id).is_none()
    }

    /// A place as its client sees it.
    pub(super) fn position(&self, place: &TailPlace) -> PositionText {
        self.cursors.positions().encode(self.website_id.as_bytes(), place)
    }
}

/// Writes a page on the thread that reads it.
pub(super) struct PageWriter {
    what: Arc<What>,
    positions: Positions,
    /// Of what was shown last, or of where the page begins.
    position: PositionText,
    /// With so many bytes it is full.
    bytes_max: usize,
}

impl PageWriter {
    /// Writes what comes after `place`.
    pub(super) fn new(what: &Arc<What>, place: &TailPlace, bytes_max: usize) -> Self {
        let mut positions = what.cursors.positions();
        let position = positions.encode(what.website_id.as_bytes(), place);
        Self { what: Arc::clone(what), positions, position, bytes_max }
    }

    /// Writes what comes next into `page`, and says whether there is room for more.
    pub(super) fn write(&mut self, page: &mut PageBuffer, shown: &Shown<'_, '_>) -> Result<ControlFlow<()>, ReadError> {
        let form = self.what.form;
        match shown {
            Shown::Gap(gap) => page.write(|out| form.gap(out, &self.position, *gap))?,
            Shown::Event(sequence, row) => {
                self.position = self.positions.encode(row.website_id, &TailPlace::at(*sequence, row.received_at));
                page.write(|out| form.event(out, &self.position, &self.what.ids.encode(*sequence), row))?;
            }
        }
        Ok(if page.len() < self.bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

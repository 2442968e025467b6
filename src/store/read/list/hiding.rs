//! Hiding a visitor's events: they are looked for in every segment, and a list of them that turns out to be damaged is
//! made anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::page::EventFilter;
use crate::{
    metrics::ReadRefused,
    store::{
        error::ReadError,
        read::snapshot::Snapshot,
        segments::{FoundEvents, FoundIn, Hidden, HiddenVisitor, Key, LaidEvents, Segment, Stream, UnreadableList},
    },
};

/// The longest look for the events of a list that is made anew: longer than any one question may take.
const REMAKE_TIMEOUT: Duration = Duration::from_secs(600);

/// How many events an erasure may hide in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HidingRoom {
    /// Most that one of few events may take.
    pub(crate) free: usize,
    /// One of more than this has them laid down on the disk.
    pub(crate) laid_from: usize,
}

impl HidingRoom {
    /// What is left of room for so many.
    pub(crate) fn new(events_max: usize, in_memory: usize) -> Self {
        Self { free: events_max.saturating_sub(in_memory), laid_from: events_max / 2 }
    }
}

impl Snapshot<'_> {
    /// Every event of a visitor of a website up to a sequence that is not hidden yet, by segment; a segment in which
    /// all of them are hidden is told as well.
    pub(crate) fn find_visitor(&self, visitor: &HiddenVisitor, room: HidingRoom) -> Result<Vec<FoundIn>, ReadError> {
        let (mut found, mut in_memory) = (Vec::new(), 0);
        for segment in self.segments() {
            let mut here = self.find_visitor_in(segment, visitor)?;
            if !here.is_empty() {
                self.retain_shown(segment.number, &mut here)?;
                in_memory += here.len();
                found.push(FoundIn {
                    segment: segment.number,
                    generation: segment.generation,
                    hidden_by: self.hidden(segment.number).map_or(0, Hidden::erasures),
                    events: FoundEvents::InMemory(here),
                });
            }
            // Once there are so many, those of every further segment are laid down when they are found.
            if in_memory > room.laid_from {
                found.iter_mut().try_for_each(|found| self.lay_found_down(found, visitor))?;
            }
        }
        if in_memory > room.free && in_memory <= room.laid_from {
            return Err(ReadError::Refused(ReadRefused::Memory));
        }
        Ok(found)
    }

    /// Every event of a visitor in a segment, hidden or not.
    fn find_visitor_in(
        &self,
        segment: &Arc<Segment>,
        HiddenVisitor { website_id, visitor_id, up_to }: &HiddenVisitor,
    ) -> Result<Vec<(Stream, Key)>, ReadError> {
        let filter = EventFilter {
            website_id: Arc::clone(website_id),
            event_type: None,
            session_id: None,
            visitor_id: Some(visitor_id.to_string()),
            from: i64::MIN,
            to: i64::MAX,
        };
        let mut here = Vec::new();
        let Some(site) = self.site(website_id) else { return Ok(here) };
        self.find(segment, &filter, site, |key, event_type| {
            if key.sequence <= *up_to {
                here.push((Stream::new(site, event_type), key));
            }
            Ok(())
        })?;
        Ok(here)
    }

    fn lay_found_down(&self, found: &mut FoundIn, visitor: &HiddenVisitor) -> Result<(), ReadError> {
        if let FoundEvents::InMemory(events) = &mut found.events
            && !events.is_empty()
        {
            let list = self.shared().lay_hidden_down(found.segment, events, visitor.clone())?;
            found.events = FoundEvents::Laid(Arc::new(list));
        }
        Ok(())
    }

    /// Leaves the events of the segment with this number that are not hidden, sorted.
    pub(super) fn retain_shown(&self, number: i64, events: &mut Vec<(Stream, Key)>) -> Result<(), ReadError> {
        let shown = self.hidden(number).map_or(Ok(()), |hidden| hidden.retain_shown(events));
        shown.map_err(|unreadable| self.remake_list(number, &unreadable))
    }

    /// Has a list of hidden events in the segment with this number made anew from the segment's rows. As the question
    /// looks at the lists of one moment, it must be asked again: the answer says so.
    pub(crate) fn remake_list(&self, number: i64, unreadable: &UnreadableList) -> ReadError {
        let UnreadableList { list, error } = unreadable;
        let Some(_nobody_else) = self.shared().remaking_list.try_lock() else {
            return ReadError::Refused(ReadRefused::Keys);
        };
        let file = list.path().display();
        tracing::warn!(%file, %error, "a list of events that are being erased is made anew from their segment");
        match self.make_list_anew(number, list) {
            Ok(()) => ReadError::Refused(ReadRefused::Keys),
            Err(ReadError::StorageFull(error)) => {
                tracing::error!(
                    %file, %error,
                    "there is no room to make a list of events that are being erased anew: what is asked of their \
                     website is refused until there is. Make some on the file system of the data directory"
                );
                ReadError::Refused(ReadRefused::NoRoom)
            }
            Err(error) => {
                tracing::error!(
                    %file, %error,
                    "a list of events that are being erased could not be made anew: what is asked of their website is \
                     refused until it is"
                );
                ReadError::Refused(ReadRefused::Keys)
            }
        }
    }

    fn make_list_anew(&self, number: i64, list: &Arc<LaidEvents>) -> Result<(), ReadError> {
        let now = self.without_limits(Instant::now() + REMAKE_TIMEOUT);
        let before = now.hidden(number).and_then(|hidden| hidden.before(list));
        // Somebody else may have done it, or the segment may be rewritten by now.
        let (Some(before), Ok(at)) = (before, now.segments().binary_search_by_key(&number, |segment| segment.number))
        else {
            return Ok(());
        };
        let mut events = now.find_visitor_in(&now.segments()[at], &list.visitor)?;
        if let Err(unreadable) = before.retain_shown(&mut events) {
            // First the one that this one was made after; then the question is asked again, and it is this one's turn.
            return self.make_list_anew(number, &unreadable.list);
        }
        let new = self.shared().lay_hidden_down(number, &mut events, list.visitor.clone())?;
        self.shared().replace_list(number, list, new);
        Ok(())
    }
}

//! One erasure: whose events are to go, and how far that is.

use std::{collections::BTreeSet, sync::Arc};

use crate::store::segments::FoundIn;

/// How far an erasure is.
#[derive(Debug, Clone)]
pub struct Erasure {
    /// The id by which the API names it.
    pub id: Arc<str>,
    /// Whose events go; `None` when that is forgotten, as nothing is left of them.
    pub(crate) subject: Option<Subject>,
    /// When it was asked for, in milliseconds since 1970, UTC.
    pub requested_at: i64,
    /// When no file held its events any more, in milliseconds since 1970, UTC; `None` until then.
    pub done_at: Option<i64>,
    /// Segments that held its events and are rewritten.
    pub segments_done: u64,
    /// The numbers of the segments that still hold its events.
    pub(crate) remaining: BTreeSet<i64>,
    /// Events that are gone from the disk.
    pub rows: u64,
}

impl Erasure {
    /// A new erasure, of which nothing is done yet.
    pub(crate) fn new(id: Arc<str>, subject: Option<Subject>, requested_at: i64) -> Self {
        let (done_at, segments_done, rows) = (None, 0, 0);
        Self { id, subject, requested_at, done_at, segments_done, remaining: BTreeSet::new(), rows }
    }

    /// Whether no event of it can still arrive: an event of a deleted website that is on its way holds the
    /// website's id, and this value is the only one that still does.
    pub(super) fn is_settled(&self) -> bool {
        match &self.subject {
            Some(Subject { website_id, visitor: None }) => Arc::strong_count(website_id) == 1,
            _ => true,
        }
    }

    /// Whether it is, or was, of one visitor's events: a website's is still known, and of one that is done it does not
    /// matter.
    pub(super) fn is_of_visitor(&self) -> bool {
        self.subject.as_ref().is_some_and(|subject| subject.visitor.is_some())
    }

    /// Segments that held its events, rewritten or not.
    pub fn segments_total(&self) -> u64 {
        self.segments_done + self.remaining.len() as u64
    }
}

/// Whose events are erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) website_id: Arc<str>,
    /// The visitor whose events are meant; `None` for all events of the website.
    pub(crate) visitor: Option<VisitorSubject>,
}

/// One visitor's events up to a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VisitorSubject {
    pub(crate) visitor_id: Arc<str>,
    pub(crate) up_to: u64,
}

/// An erasure whose events a rewriting leaves out.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) erasure: Arc<str>,
    pub(crate) subject: Subject,
}

/// How many events of an erasure a rewriting left out.
#[derive(Debug, Clone)]
pub(crate) struct ErasedRows {
    pub(crate) erasure: Arc<str>,
    pub(crate) rows: u64,
}

/// A visitor's erasure as it is asked for: the events found in each segment are still to be hidden.
#[derive(Debug)]
pub(crate) struct NewErasure {
    pub(crate) website_id: Arc<str>,
    pub(crate) visitor_id: Arc<str>,
    pub(crate) up_to: u64,
    pub(crate) found: Vec<FoundIn>,
}

//! What is asked, and what is answered.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use crate::store::rollup::{Counts, Dimension, Filter, Filters, Own, QUARTER_MS};

/// From one instant up to, not including, another; in milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first instant.
    pub from: i64,
    /// The first one after it.
    pub to: i64,
}

/// Numbers of a website that are asked for.
#[derive(Debug, Clone)]
pub struct NumbersQuestion {
    /// Whose.
    pub(super) website_id: Arc<str>,
    pub(super) asked: Asked,
    /// Whether visitors are counted one by one however many there are.
    pub(super) is_exact: bool,
}

/// Which of a website's events and visits are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    pub(crate) filters: Filters,
    /// Events of bots and spam count, too.
    pub(crate) with_unwanted: bool,
}

impl Asked {
    /// What it is known by where it would take too much memory itself.
    pub(crate) fn id(&self) -> [u64; 2] {
        id_of(self)
    }
}

/// What a question is known by where it would take too much memory itself.
pub(super) fn id_of(question: impl Hash) -> [u64; 2] {
    [1, 2].map(|seed| {
        let mut hasher = Xxh3::with_seed(seed);
        question.hash(&mut hasher);
        hasher.finish()
    })
}

impl NumbersQuestion {
    /// Asks for what the filters leave. Of what is flagged as a bot's or as spam nothing counts.
    pub fn new(website_id: Arc<str>, own: Own, filters: Vec<Filter>) -> Self {
        let asked = Asked { filters: Filters::new(filters, own), with_unwanted: false };
        Self { website_id, asked, is_exact: false }
    }

    /// Leaves only what these leave, too, whatever is asked of the same dimensions already.
    #[must_use]
    pub(super) fn and(mut self, filters: Vec<Filter>) -> Self {
        self.asked.filters = self.asked.filters.and(filters);
        self
    }

    /// Whether events of bots and spam count, too.
    #[must_use]
    pub fn with_bots(mut self, with_bots: bool) -> Self {
        self.asked.with_unwanted = with_bots;
        self
    }

    /// Whether visitors are counted one by one however many there are.
    #[must_use]
    pub fn exactly(mut self, is_exact: bool) -> Self {
        self.is_exact = is_exact;
        self
    }
}

/// Numbers of a span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanNumbers {
    /// Everything that adds up.
    pub counts: Counts,
    /// Different visitors.
    pub visitors: u64,
}

/// By what the rows of a list are in order, the highest first; those that are the same by their value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListOrder {
    /// Different visitors.
    Visitors,
    /// Visits.
    Visits,
    /// Page views.
    Pageviews,
    /// Events of every kind.
    Events,
}

impl ListOrder {
    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "visitors" => Self::Visitors,
            "visits" => Self::Visits,
            "pageviews" => Self::Pageviews,
            "events" => Self::Events,
            _ => return None,
        })
    }
}

/// What a list is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listed {
    /// The values of a dimension.
    Dimension(Dimension),
    /// The values that events have of this property.
    Property(Arc<str>),
}

impl Listed {
    /// Its name in questions.
    pub fn name(&self) -> String {
        match self {
            Self::Dimension(dimension) => dimension.as_str().to_owned(),
            Self::Property(name) => format!("property:{name}"),
        }
    }
}

/// What a list is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing<'a> {
    pub(super) asked: &'a Asked,
    pub(super) dimension: Dimension,
    pub(super) span: Span,
}

impl Listing<'_> {
    /// What it is known by where it would take too much memory itself.
    pub(super) fn id(&self) -> [u64; 2] {
        self.id_with(())
    }

    /// The same, of a list that depends on more.
    pub(super) fn id_with(&self, more: impl Hash) -> [u64; 2] {
        id_of((self.asked, self.dimension, self.span, &more))
    }

    /// Whether it will be asked for again: not if it is up to the moment of a question.
    pub(super) fn is_lasting(&self) -> bool {
        let Span { from, to } = self.span;
        from % QUARTER_MS == 0 && to % QUARTER_MS == 0
    }

    /// Its span as lists are made with it.
    pub(super) fn times(&self) -> (i64, i64) {
        (self.span.from, self.span.to)
    }
}

/// Which rows of a list are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListPage {
    /// What the order is by.
    pub order: ListOrder,
    /// How many rows to leave out, and how many to show after them.
    pub offset: usize,
    /// Most rows.
    pub limit: usize,
}

/// A value of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRow {
    /// `None` is nothing: direct, unknown.
    pub value: Option<String>,
    /// Everything that adds up.
    pub counts: Counts,
    /// Different visitors.
    pub visitors: u64,
    /// The relative standard error of that; `None` if they were counted one by one.
    pub visitors_error: Option<f64>,
}

/// Some rows of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListReply {
    /// The rows that were asked for.
    pub rows: Vec<ListRow>,
    /// How many there are in all.
    pub total: usize,
    /// What values have together that are not told apart, as there are too many; a visit counts for each of them.
    pub other: Counts,
    /// What all of them have, each visit and visitor once.
    pub all: NumbersReply,
}

/// How often a goal was reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoalCounts {
    /// Of a page, its page views; of an event, the events.
    pub conversions: i64,
    /// The different visitors of the page, or with the event.
    pub converted: u64,
    /// The relative standard error of that; `None` if they were counted one by one.
    pub converted_error: Option<f64>,
}

/// Numbers of several spans.
#[derive(Debug, Clone, PartialEq)]
pub struct NumbersReply {
    /// One for each span.
    pub spans: Vec<SpanNumbers>,
    /// Up to when events are counted, by their arrival, in milliseconds since 1970, UTC.
    pub as_of: i64,
    /// Whether every event that was stored by now is counted.
    pub is_complete: bool,
    /// The relative standard error of the visitors of the span where it is largest; `None` if they were counted one by
    /// one.
    pub visitors_error: Option<f64>,
}

impl NumbersReply {
    /// The same, only as complete as another one is.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.is_complete &= other.is_complete;
        self.as_of = self.as_of.min(other.as_of);
        self
    }
}

//! What is asked, and what is answered.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::Xxh3;

use crate::store::rollup::{Counts, Filter, Filters, Own};

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
        [1, 2].map(|seed| {
            let mut hasher = Xxh3::with_seed(seed);
            self.hash(&mut hasher);
            hasher.finish()
        })
    }
}

impl NumbersQuestion {
    /// Asks for what the filters leave. Of what is flagged as a bot's or as spam nothing counts.
    pub fn new(website_id: Arc<str>, own: Own, filters: Vec<Filter>) -> Self {
        let asked = Asked { filters: Filters::new(filters, own), with_unwanted: false };
        Self { website_id, asked, is_exact: false }
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

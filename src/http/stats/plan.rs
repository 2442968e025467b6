//! How a question about numbers is asked of the store, and its answer made.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use hyper::header::HeaderValue;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::question::StatsQuery;
use crate::{
    calendar::{Range, Zone},
    event::Faults,
    store::{
        Filter, GoalCounts, ListPage, ListReply, Listed, Numbers, NumbersQuestion, NumbersReply, ReadError, Snapshot,
        Span, Website,
    },
};

/// A question that can be asked.
pub(super) struct Question {
    pub(super) query: StatsQuery,
    pub(super) website: Arc<Website>,
    /// Of days and hours.
    pub(super) zone: Zone,
    /// What the client has already.
    pub(super) known_tag: Option<HeaderValue>,
    pub(super) now_ms: i64,
}

/// A question that is being asked.
pub(super) struct Asking<'a> {
    pub(super) numbers: &'a Numbers,
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) question: NumbersQuestion,
}

impl Asking<'_> {
    pub(super) fn ask(&self, lists: &[Vec<Span>]) -> Result<Vec<NumbersReply>, ReadError> {
        self.numbers.ask(self.snapshot, &self.question, lists)
    }

    pub(super) fn list(&self, listed: &Listed, part: (Span, ListPage)) -> Result<ListReply, ReadError> {
        self.numbers.list(self.snapshot, &self.question, listed, part)
    }

    pub(super) fn goals(&self, span: Span, goals: &[Filter]) -> Result<(Vec<GoalCounts>, NumbersReply), ReadError> {
        self.numbers.goals(self.snapshot, &self.question, span, goals)
    }
}

/// What is to be counted for a question, and how that is shown.
pub(super) struct Plan {
    /// The spans that the answer is of.
    pub(super) lists: Vec<Vec<Span>>,
    /// A hash of what else it depends on.
    pub(super) rest: u64,
    pub(super) work: Work,
}

/// Makes an answer. The client may know it by a tag, if that is what comes with it.
pub(super) type Work = Box<dyn FnOnce(&Asking<'_>, &[Vec<Span>]) -> Result<(Vec<u8>, bool), ReadError>>;
/// Makes a plan for a question about a range and an earlier one.
pub(super) type Planner = fn(&Question, Range, Option<Range>) -> Result<Plan, Faults>;

pub(super) fn span_of(range: &Range) -> Span {
    Span { from: range.from, to: range.to }
}

/// An answer as JSON.
pub(crate) fn shown(answer: &impl Serialize) -> Result<Vec<u8>, ReadError> {
    serde_json::to_vec(answer).map_err(|failure| ReadError::Keys(Box::new(failure)))
}

pub(super) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = Xxh3::new();
    value.hash(&mut hasher);
    hasher.finish()
}

//! Numbers of a website: page views, visits, visitors.
//!
//! Sealed segments answer from their rollups, segments without them from a tally of their rows, and visits that go on
//! from one segment to another are put together. What was read or worked out stays in memory for the next question, up
//! to a number of bytes that all of it shares. Whoever asks for numbers costs the writer nothing.

mod border;
mod cache;
mod joined;
mod lists;
mod merged;
mod properties;
mod question;
mod scene;
mod sealed;
mod sealed_sums;
mod shared;
mod site;
mod spans;
mod sum;
mod tally;

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::Sender;
use xxhash_rust::xxh3::Xxh3;

pub use self::question::{
    GoalCounts, ListOrder, ListPage, ListReply, ListRow, Listed, NumbersQuestion, NumbersReply, Span, SpanNumbers,
};
use self::shared::Shared;
use super::snapshot::Snapshot;
use crate::{
    metrics::StoreMetrics,
    store::{
        error::{OpenError, ReadError},
        options::NumbersOptions,
        priority::lower_priority,
        rollup::{Filter, first_whole_quarter},
        segments::{Hidden, ReaderInterrupt, Segments},
    },
};

/// It goes after whoever waits for an answer.
const TALLY_NICENESS: i32 = 12;
/// Most websites that wait to be read behind their questions.
const ORDERS_MAX: usize = 64;

/// Answers questions about numbers.
#[derive(Clone)]
pub struct Numbers {
    shared: Arc<Shared>,
    orders: Sender<Arc<str>>,
}

impl Numbers {
    /// Starts the thread that reads what takes longer than a question may wait.
    pub(crate) fn spawn(
        segments: &Arc<Segments>,
        options: NumbersOptions,
        interrupt: &ReaderInterrupt,
        metrics: Arc<StoreMetrics>,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let (orders, ordered) = crossbeam_channel::bounded(ORDERS_MAX);
        let shared = Arc::new(Shared::new(options, metrics));
        let behind = (Arc::clone(&shared), Arc::clone(segments), interrupt.clone());
        let thread = thread::Builder::new().name("tally".into()).spawn(move || {
            lower_priority(TALLY_NICENESS);
            let (shared, segments, interrupt) = behind;
            shared.read_behind(&segments, &interrupt, &ordered);
        });
        Ok((Self { shared, orders }, thread.map_err(OpenError::Thread)?))
    }

    /// When the first event of a website happened that is neither erased nor expired, to a quarter of an hour, in
    /// milliseconds since 1970, UTC; `None` if there is none.
    pub fn first_event(&self, snapshot: &Snapshot<'_>, website_id: &Arc<str>) -> Result<Option<i64>, ReadError> {
        self.shared.first_event(snapshot, website_id)
    }

    /// A hash of what an answer depends on: equal ones mean equal numbers.
    pub fn version(&self, snapshot: &Snapshot<'_>, question: &NumbersQuestion, lists: &[Vec<Span>]) -> u64 {
        let mut hasher = Xxh3::new();
        for segment in snapshot.segments() {
            let hidden = snapshot.hidden(segment.number).map_or(0, Hidden::erasures);
            (segment.number, segment.generation, hidden).hash(&mut hasher);
        }
        snapshot.durable().hash(&mut hasher);
        first_whole_quarter(snapshot.expired_before).hash(&mut hasher);
        (&question.website_id, &question.asked, question.is_exact, lists).hash(&mut hasher);
        hasher.finish()
    }

    /// Answers for several lists of spans, each of which is sorted and has none that overlap.
    pub fn ask(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        lists: &[Vec<Span>],
    ) -> Result<Vec<NumbersReply>, ReadError> {
        let replies = self.shared.ask(snapshot, question, lists)?;
        self.order_rest(question, replies.iter().all(|reply| reply.is_complete));
        Ok(replies)
    }

    /// Answers with some rows of the list of a dimension's values, each with what a filter for it would leave.
    pub fn list(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        listed: &Listed,
        (span, page): (Span, ListPage),
    ) -> Result<ListReply, ReadError> {
        let reply = self.shared.list(snapshot, question, listed, (span, page))?;
        self.order_rest(question, reply.all.is_complete);
        Ok(reply)
    }

    /// Answers how often each of these was reached: filters for an event or for pages; and with all that there is.
    pub fn goals(
        &self,
        snapshot: &Snapshot<'_>,
        question: &NumbersQuestion,
        span: Span,
        goals: &[Filter],
    ) -> Result<(Vec<GoalCounts>, NumbersReply), ReadError> {
        let (counts, all) = self.shared.goals(snapshot, question, span, goals)?;
        self.order_rest(question, all.is_complete);
        Ok((counts, all))
    }

    /// Has what an answer lacked be read behind it.
    fn order_rest(&self, question: &NumbersQuestion, is_complete: bool) {
        if !is_complete {
            // When very many are being read already, the next question orders it.
            let _ = self.orders.try_send(Arc::clone(&question.website_id));
        }
    }
}

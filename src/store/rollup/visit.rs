//! Visits: runs of events of one session and visitor with no pause of more than 30 minutes, and a page view in them.

use super::{
    filter::Matcher,
    hit::{FragmentKey, Hit},
};

/// Which events there are at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    /// Events of bots and spam count, too.
    pub(crate) with_unwanted: bool,
    /// Events with an earlier `createdAt` have expired.
    pub(crate) expired_before: i64,
}

impl Selection {
    fn has(self, hit: &Hit) -> bool {
        let unwanted = if self.with_unwanted { Hit::GONE } else { Hit::GONE | Hit::UNWANTED };
        hit.flags & unwanted == 0 && hit.at >= self.expired_before
    }
}

/// A visit that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visit {
    /// Its first event.
    pub(crate) begun_at: i64,
    pub(crate) duration_ms: i64,
    /// Its page views.
    pub(crate) views: u32,
    pub(crate) is_bounce: bool,
    /// Whether its first page view is left by the filters of pages: if not, its bounce is not asked for.
    pub(crate) is_entered: bool,
    pub(crate) engaged_ms: i64,
    /// How many events told of that.
    pub(crate) engagements: u32,
}

/// What becomes of the events and visits that count.
pub(crate) trait Sink {
    /// What comes next is of another run of events; `entry` is its first page view.
    fn begin_run(&mut self, run: &[Hit], entry: Option<&Hit>);
    /// An event that counts.
    fn event(&mut self, visitor: u64, hit: &Hit);
    /// A visit that counts.
    fn visit(&mut self, visit: &Visit);
}

/// Which events count, and which of them are asked for.
#[derive(Clone, Copy)]
pub(crate) struct Evaluation<'a> {
    pub(crate) selection: Selection,
    pub(crate) matcher: &'a Matcher,
}

impl Evaluation<'_> {
    /// Goes through events of one session and visitor, in their order; `scratch` is overwritten.
    pub(crate) fn run(&self, key: FragmentKey, hits: &[Hit], scratch: &mut Vec<Hit>, sink: &mut impl Sink) {
        let mut hits = hits;
        if !hits.iter().all(|hit| self.selection.has(hit)) {
            scratch.clear();
            scratch.extend(hits.iter().filter(|hit| self.selection.has(hit)));
            hits = scratch;
        }
        for run in hits.chunk_by(|hit, next| hit.is_joined_by(next.at)) {
            self.visit(key, run, sink);
        }
    }

    fn visit(&self, key: FragmentKey, run: &[Hit], sink: &mut impl Sink) {
        let matcher = self.matcher;
        let entry = run.iter().find(|hit| hit.kind.is_pageview());
        if !matcher.has_run(run, entry) {
            return;
        }
        sink.begin_run(run, entry);
        let mut is_left = false;
        for hit in run.iter().filter(|hit| matcher.has_event(hit)) {
            is_left = true;
            sink.event(key.visitor, hit);
        }
        let Some(entry) = entry.filter(|_| is_left) else { return };
        let (mut views, mut interactions, mut engaged_ms, mut engagements) = (0, 0, 0, 0);
        for hit in run {
            views += u32::from(hit.kind.is_pageview());
            interactions += u32::from(hit.kind.is_interaction());
            engagements += u32::from(hit.kind.is_engagement());
            engaged_ms += i64::from(hit.engaged_ms);
        }
        sink.visit(&Visit {
            begun_at: run[0].at,
            duration_ms: run[run.len() - 1].at - run[0].at,
            views,
            is_bounce: views == 1 && interactions == 0,
            is_entered: matcher.is_entered_by(entry),
            engaged_ms,
            engagements,
        });
    }
}

//! `GET /api/v1/stats`: the numbers of a range, and of an earlier one.

use std::sync::Arc;

use serde::Serialize;

use super::{
    answer::{Meta, OfWebsite},
    plan::{Asking, Plan, Question, shown, span_of},
};
use crate::{
    calendar::Range,
    event::Faults,
    numbers::{Change, Metrics, OfRange},
    store::{NumbersReply, Span, SpanNumbers},
};

/// Numbers of an earlier range, and how they have changed since.
#[derive(Serialize)]
struct Comparison {
    range: OfRange,
    metrics: Metrics,
    change: Change,
}

#[derive(Serialize)]
struct Totals {
    website: OfWebsite,
    range: OfRange,
    metrics: Metrics,
    comparison: Option<Comparison>,
    meta: Meta,
}

pub(super) fn plan(question: &Question, range: Range, earlier: Option<Range>) -> Result<Plan, Faults> {
    let lists = vec![vec![span_of(&range)], earlier.iter().map(span_of).collect()];
    let (zone, website) = (question.zone.clone(), Arc::clone(&question.website));
    let show = move |replies: &[NumbersReply]| {
        let meta = Meta::of(replies.iter());
        let mut metrics = replies.iter().flat_map(|reply| &reply.spans).map(Metrics::from);
        let metrics_now = metrics.next().unwrap_or_else(|| Metrics::from(&SpanNumbers::default()));
        let comparison = earlier.zip(metrics.next()).map(|(range, then)| Comparison {
            range: OfRange::new(&range, &zone),
            metrics: then,
            change: Change::between(&metrics_now, &then),
        });
        let range = OfRange::new(&range, &zone);
        let website = website.as_ref().into();
        shown(&Totals { website, range, metrics: metrics_now, comparison, meta })
    };
    let work = move |asking: &Asking<'_>, lists: &[Vec<Span>]| {
        let replies = asking.ask(lists)?;
        Ok((show(&replies)?, replies.iter().all(|reply| reply.is_complete)))
    };
    Ok(Plan { lists, rest: 0, work: Box::new(work) })
}

//! `GET /api/v1/stats/live`: who is there now, and what they look at.

use serde::Serialize;

use super::{
    answer::Meta,
    plan::{Asking, Plan, Question, shown},
};
use crate::{
    calendar::Range,
    event::{Faults, time::time_text},
    store::{Dimension, ListOrder, ListPage, ListRow, Listed, NumbersReply, ReadError, Span, SpanNumbers},
};

const MINUTE_MS: i64 = 60_000;
/// Minutes that are shown one by one; the last one goes on.
const MINUTES: i64 = 30;
/// The rows of each list.
const PAGE: ListPage = ListPage { order: ListOrder::Visitors, offset: 0, limit: 10 };

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Visitors {
    last5_minutes: u64,
    last30_minutes: u64,
}

#[derive(Serialize)]
struct Minute {
    at: String,
    visitors: u64,
    pageviews: i64,
}

#[derive(Serialize)]
struct Row {
    value: Option<String>,
    visitors: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Live {
    as_of: String,
    visitors: Visitors,
    minutes: Vec<Minute>,
    pages: Vec<Row>,
    sources: Vec<Row>,
    locations: Vec<Row>,
    meta: Meta,
}

pub(super) fn plan(question: &Question, _: Range, _: Option<Range>) -> Result<Plan, Faults> {
    let now_ms = question.now_ms;
    let this_minute = now_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
    let minute = |ago: i64| {
        let from = this_minute - ago * MINUTE_MS;
        Span { from, to: from + MINUTE_MS }
    };
    // What has happened is in it, and nothing of which the clock of a visitor says that it is to come.
    let last = move |minutes: i64| Span { from: now_ms - minutes * MINUTE_MS, to: now_ms + 1 };
    let minutes: Vec<Span> = (0..MINUTES).rev().map(minute).collect();
    let lists = vec![minutes, vec![last(5)], vec![last(30)]];
    let work = move |asking: &Asking<'_>, lists: &[Vec<Span>]| {
        let replies = asking.ask(lists)?;
        let rows = |dimension| -> Result<Vec<Row>, ReadError> {
            let reply = asking.list(&Listed::Dimension(dimension), (last(MINUTES), PAGE))?;
            let row = |row: ListRow| Row { value: row.value, visitors: row.visitors };
            Ok(reply.rows.into_iter().filter(|row| row.visitors > 0).map(row).collect())
        };
        let pages = rows(Dimension::Page)?;
        let (sources, locations) = (rows(Dimension::Source)?, rows(Dimension::Location)?);
        let [minutes, last5_minutes, last30_minutes] = [0, 1, 2].map(|at| replies.get(at));
        let visitors =
            |reply: Option<&NumbersReply>| reply.and_then(|reply| reply.spans.first()).map_or(0, |span| span.visitors);
        let spans = minutes.map(|reply| reply.spans.as_slice()).unwrap_or_default();
        let minute = |(span, numbers): (&Span, &SpanNumbers)| Minute {
            at: time_text(span.from),
            visitors: numbers.visitors,
            pageviews: numbers.counts.pageviews,
        };
        let live = Live {
            as_of: time_text(replies.iter().map(|reply| reply.as_of).min().unwrap_or(now_ms).max(0)),
            visitors: Visitors { last5_minutes: visitors(last5_minutes), last30_minutes: visitors(last30_minutes) },
            minutes: lists.first().into_iter().flatten().zip(spans).map(minute).collect(),
            pages,
            sources,
            locations,
            meta: Meta::of(replies.iter()),
        };
        // The next moment has another answer: there is nothing to know it by.
        Ok((shown(&live)?, false))
    };
    Ok(Plan { lists, rest: 0, work: Box::new(work) })
}

//! `GET /api/v1/stats/top/:dimension`: the values of a dimension, those with the most visitors first.

use serde::Serialize;

use super::{
    answer::Meta,
    plan::{Asking, Plan, Question, hash_of, shown, span_of},
};
use crate::{
    calendar::Range,
    event::Faults,
    numbers::{OfRange, OtherNumbers, ValueNumbers},
    store::{ListPage, ListReply, Listed, Span},
};

#[derive(Serialize)]
struct Pagination {
    total: usize,
    limit: usize,
    offset: usize,
}

#[derive(Serialize)]
struct Top {
    range: OfRange,
    dimension: String,
    rows: Vec<ValueNumbers>,
    other: OtherNumbers,
    pagination: Pagination,
    meta: Meta,
}

pub(super) fn plan(question: &Question, range: Range, _: Option<Range>) -> Result<Plan, Faults> {
    let (listed, page) = (question.query.listed.clone(), question.query.page);
    let rest = hash_of(&(&listed, page));
    let zone = question.zone.clone();
    let span = span_of(&range);
    let work = move |asking: &Asking<'_>, _: &[Vec<Span>]| {
        let reply = asking.list(&listed, (span, page))?;
        let is_complete = reply.all.is_complete;
        Ok((shown(&top(reply, &listed, page, OfRange::new(&range, &zone)))?, is_complete))
    };
    Ok(Plan { lists: vec![vec![span]], rest, work: Box::new(work) })
}

fn top(reply: ListReply, listed: &Listed, page: ListPage, range: OfRange) -> Top {
    let ListReply { rows, total, other, all } = reply;
    let errors = rows.iter().map(|row| row.visitors_error);
    let meta = Meta::of([&all].into_iter()).with_errors(errors);
    let visitors_of_all = all.spans.first().map_or(0, |span| span.visitors);
    Top {
        range,
        dimension: listed.name(),
        rows: rows.into_iter().map(|row| ValueNumbers::new(row, visitors_of_all)).collect(),
        other: other.into(),
        pagination: Pagination { total, limit: page.limit, offset: page.offset },
        meta,
    }
}

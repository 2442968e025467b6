//! `GET /api/v1/stats/goals`: how many visitors did what the website is there for.

use std::sync::Arc;

use serde::Serialize;

use super::{
    answer::Meta,
    plan::{Asking, Plan, Question, hash_of, shown, span_of},
};
use crate::{
    calendar::Range,
    event::Faults,
    numbers::{OfRange, scaled},
    store::{Aim, Dimension, Filter, Goal, GoalCounts, Span},
};

/// What became of a goal.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfGoal {
    name: String,
    event: Option<String>,
    page: Option<String>,
    conversions: i64,
    converted: u64,
    conversion_rate: f64,
}

#[derive(Serialize)]
struct Goals {
    range: OfRange,
    goals: Vec<OfGoal>,
    meta: Meta,
}

pub(super) fn plan(question: &Question, range: Range, _: Option<Range>) -> Result<Plan, Faults> {
    let website = Arc::clone(&question.website);
    let rest = hash_of(&website.goals.iter().map(|goal| (&goal.name, filter_of(goal))).collect::<Vec<_>>());
    let zone = question.zone.clone();
    let span = span_of(&range);
    let work = move |asking: &Asking<'_>, _: &[Vec<Span>]| {
        let filters: Vec<Filter> = website.goals.iter().map(filter_of).collect();
        let (counts, all) = asking.goals(span, &filters)?;
        let visitors = all.spans.first().map_or(0, |span| span.visitors);
        let meta = Meta::of([&all].into_iter()).with_errors(counts.iter().map(|goal| goal.converted_error));
        let goals = website.goals.iter().zip(counts).map(|(goal, counts)| OfGoal::new(goal, counts, visitors));
        let goals = goals.collect();
        Ok((shown(&Goals { range: OfRange::new(&range, &zone), goals, meta })?, all.is_complete))
    };
    Ok(Plan { lists: vec![vec![span]], rest, work: Box::new(work) })
}

/// What reaches a goal.
fn filter_of(goal: &Goal) -> Filter {
    match &goal.aim {
        Aim::Event(event) => Filter::literally(Dimension::Event, event),
        Aim::Page(page) => Filter::new(Dimension::Page, page),
    }
}

impl OfGoal {
    fn new(goal: &Goal, counts: GoalCounts, visitors: u64) -> Self {
        let GoalCounts { conversions, converted, .. } = counts;
        let part = converted.min(visitors).cast_signed();
        let (event, page) = match &goal.aim {
            Aim::Event(event) => (Some(event.clone()), None),
            Aim::Page(page) => (None, Some(page.clone())),
        };
        Self {
            name: goal.name.clone(),
            event,
            page,
            conversions,
            converted,
            conversion_rate: scaled(part, visitors.cast_signed(), 1_000) as f64 / 10.0,
        }
    }
}

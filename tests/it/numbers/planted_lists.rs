//! What hitlog would answer if it listed as an oracle does; and that what is wrong with who is live is found.

use serde_json::{Value, json};

use super::{
    calendar::Range,
    dice::Dice,
    fault::{Fault, Rules},
    lists::Row,
    live::{Live, differences},
    oracle::{self, Oracle},
    planted::traffic_of,
    questions::{Question, Top, filters},
};

const MINUTE_MS: i64 = 60_000;
/// Questions about who is live within which a fault is found.
const QUESTIONS_MAX: usize = 400;

/// The members of a list beside its range and `meta`.
pub fn list(oracle: &Oracle, question: &Question, top: &Top, (from, to): Range, expired_before: Option<i64>) -> Value {
    let asked = oracle::Question { website: question.website, from, to, filters: &question.filters, expired_before };
    let rows = oracle.list(&asked, &top.name, top.order.unwrap_or("visitors"));
    let (limit, offset) = (top.limit.unwrap_or(10), top.offset.unwrap_or(0));
    let shown: Vec<Value> = rows.iter().skip(offset).take(limit).map(row).collect();
    json!({
        "dimension": top.name, "rows": shown, "other": {"visits": 0, "pageviews": 0, "events": 0},
        "pagination": {"total": rows.len(), "limit": limit, "offset": offset}
    })
}

fn row(Row { value, totals, events, share }: &Row) -> Value {
    let tenths = |units: u64| units as f64 / 10.0;
    json!({
        "value": value, "visitors": totals.visitors, "visits": totals.visits, "pageviews": totals.pageviews,
        "events": events, "bounceRate": tenths(totals.bounce_rate), "visitDuration": tenths(totals.visit_duration),
        "share": tenths(*share)
    })
}

#[test]
fn every_rule_of_who_is_live_is_missed() {
    for (seed, fault) in [
        Fault::WhatIsToComeIsLive,
        Fault::LiveIsOfWholeMinutes,
        Fault::LastMinuteIsOver,
        Fault::NobodyIsLive,
        Fault::NoneIsNotListed,
        Fault::VisitsAreListedByEvent,
        Fault::TiesByValueBackwards,
    ]
    .into_iter()
    .enumerate()
    {
        let dice = &mut Dice(seed as u64);
        let right = traffic_of(dice);
        let wrong = Oracle { rules: Rules(Some(fault)), ..right.clone() };
        let found = (1..=QUESTIONS_MAX).find(|_| {
            // Soon after some event, so that there is somebody.
            let now = dice.pick(&right.events).created_at + dice.between(-MINUTE_MS, 20 * MINUTE_MS);
            let live = Live { website: dice.below(2), filters: filters(dice, &right, 0), expired_before: None };
            !differences(&live.expected(&wrong, now), &live.expected(&right, now)).is_empty()
        });
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?} was not noticed in {QUESTIONS_MAX} questions");
    }
}

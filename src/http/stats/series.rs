//! `GET /api/v1/stats/series`: the numbers of each hour, day, week or month of a range, and of an earlier one.

use serde::Serialize;

use super::{
    answer::Meta,
    plan::{Asking, Plan, Question, shown},
};
use crate::{
    calendar::{Bucket, Range, buckets, buckets_like},
    event::Faults,
    numbers::{BucketNumbers, OfRange},
    store::{NumbersReply, Span},
};

/// Most buckets of a series.
const BUCKETS_MAX: usize = 2_000;

#[derive(Serialize)]
struct Series {
    range: OfRange,
    interval: &'static str,
    series: Vec<BucketNumbers>,
    comparison: Option<Vec<Option<BucketNumbers>>>,
    meta: Meta,
}

pub(super) fn plan(question: &Question, range: Range, earlier: Option<Range>) -> Result<Plan, Faults> {
    let (zone, now_ms) = (question.zone.clone(), question.now_ms);
    let interval = question.query.interval.of(&range);
    let Ok(series) = buckets(&range, interval, &zone, now_ms, BUCKETS_MAX) else {
        let mut faults = Faults::default();
        let too_many =
            format!("The range has more than {BUCKETS_MAX} of them; ask for longer ones, or a shorter range");
        faults.add("interval", too_many);
        return Err(faults);
    };
    let earlier = earlier.map(|earlier| buckets_like(&series, &earlier, interval, &zone, now_ms));
    let span = |bucket: &Bucket| Span { from: bucket.from, to: bucket.to };
    let of_earlier = earlier.iter().flatten().flatten().map(span).collect();
    let lists = vec![series.iter().map(span).collect(), of_earlier];
    let show = move |replies: &[NumbersReply]| {
        let meta = Meta::of(replies.iter());
        let mut numbers = replies.iter().map(|reply| reply.spans.iter());
        let (mut now, mut then) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let series = series.into_iter().zip(now.by_ref()).map(|(bucket, of)| BucketNumbers::new(bucket, of)).collect();
        let comparison = earlier.map(|buckets| {
            let shown = |bucket: Option<Bucket>| {
                bucket.and_then(|bucket| then.next().map(|numbers| BucketNumbers::new(bucket, numbers)))
            };
            buckets.into_iter().map(shown).collect()
        });
        let range = OfRange::new(&range, &zone);
        shown(&Series { range, interval: interval.as_str(), series, comparison, meta })
    };
    let work = move |asking: &Asking<'_>, lists: &[Vec<Span>]| {
        let replies = asking.ask(lists)?;
        Ok((show(&replies)?, replies.iter().all(|reply| reply.is_complete)))
    };
    Ok(Plan { lists, rest: 0, work: Box::new(work) })
}

//! A question while it is asked, and the numbers that several of its answers show.

use crate::{
    numbers::scaled,
    store::{
        Counts, Dimension, ListOrder, ListPage, ListReply, Listed, Numbers, NumbersQuestion, NumbersReply, ReadError,
        Snapshot, Span,
    },
};

/// A day of the range, in milliseconds. The days of UTC are as long.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A question that is being asked.
pub(super) struct Asking<'a> {
    pub(super) numbers: &'a Numbers,
    pub(super) snapshot: &'a Snapshot<'a>,
    pub(super) question: NumbersQuestion,
    pub(super) website_id: &'a str,
    pub(super) days: i64,
    /// Most rows of a list.
    pub(super) limit: usize,
    pub(super) now_ms: i64,
}

impl Asking<'_> {
    pub(super) fn ask(&self, spans: Vec<Span>) -> Result<Vec<NumbersReply>, ReadError> {
        self.numbers.ask(self.snapshot, &self.question, &[spans])
    }

    pub(super) fn list(&self, dimension: Dimension, order: ListOrder, limit: usize) -> Result<ListReply, ReadError> {
        let page = ListPage { order, offset: 0, limit };
        self.numbers.list(self.snapshot, &self.question, &Listed::Dimension(dimension), (self.range(), page))
    }

    pub(super) fn range(&self) -> Span {
        ranges(self.days, self.now_ms)[1]
    }
}

/// As many days before the last ones, and the last ones, which end now. They do not overlap.
pub(super) fn ranges(days: i64, now_ms: i64) -> [Span; 2] {
    // What happens in this millisecond is in it. By a clock that is set to no time at all nothing is before 1970.
    let to = now_ms + 1;
    let ago = |days: i64| (to - days * DAY_MS).max(0);
    let from = ago(days);
    [Span { from: ago(2 * days), to: from }, Span { from, to }]
}

/// The part of visits with one page view and nothing else, in whole percent.
pub(super) fn bounce_rate(counts: &Counts) -> i64 {
    scaled(counts.bounces, counts.entered, 100)
}

/// How long a visit takes, in whole seconds.
pub(super) fn visit_seconds(counts: &Counts) -> i64 {
    scaled(counts.duration_ms, counts.visits.saturating_mul(1_000), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_meet_and_the_later_one_ends_now() {
        let now = 1_769_630_400_123;
        for days in [1, 7, 3_660] {
            let [then, last] = ranges(days, now);
            assert_eq!((last.to, last.to - last.from), (now + 1, days * DAY_MS));
            assert_eq!((then.to, then.to - then.from), (last.from, days * DAY_MS));
        }
        assert_eq!(ranges(7, 0), [Span { from: 0, to: 0 }, Span { from: 0, to: 1 }]);
    }

    #[test]
    fn rates_and_means_are_whole_with_halves_up() {
        let counts = |bounces, duration_ms| Counts { visits: 8, entered: 8, bounces, duration_ms, ..Counts::default() };
        for (bounces, duration_ms, percent, seconds) in
            [(0, 0, 0, 0), (1, 8 * 499, 13, 0), (3, 8 * 500, 38, 1), (8, 8 * 83_499, 100, 83)]
        {
            let counts = counts(bounces, duration_ms);
            assert_eq!((bounce_rate(&counts), visit_seconds(&counts)), (percent, seconds), "{counts:?}");
        }
        assert_eq!((bounce_rate(&Counts::default()), visit_seconds(&Counts::default())), (0, 0));
    }
}

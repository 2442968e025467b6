//! Sums over spans of what pieces answer by quarters of an hour.

use std::{collections::BTreeMap, hash::Hash};

use super::{
    question::{Span, SpanNumbers, id_of},
    sum::{Sign, Sum},
};
use crate::store::rollup::{Answer, Counts, Hit, QUARTER_MS, Quarter, Sink, Visit, quarter_of};

/// Visitors that are enough for an estimate of all spans together: of one, it is off by 0.4 % then.
const ESTIMATED_FROM: usize = 64 * 1_024;
/// Those that are enough for each of many: it is off by 1.6 %.
const ESTIMATED_FROM_MIN: usize = 4 * 1_024;

/// Sorted spans that do not overlap, and what counts in each.
pub(super) struct Sums {
    spans: Vec<Span>,
    of: Vec<Sum>,
    /// The parts of spans that fill a quarter of an hour only in part, sorted.
    cuts: Vec<Cut>,
}

/// A part of a span that fills a quarter only in part.
#[derive(Debug, Clone, Copy)]
struct Cut {
    part: Span,
    /// The number of its span.
    of: usize,
}

impl Sums {
    /// Of spans that are sorted and do not overlap; nothing counts before `expired_before`, where a quarter begins.
    pub(super) fn new(spans: &[Span], expired_before: i64) -> Self {
        let not_expired = |span: &Span| {
            let from = span.from.max(expired_before);
            Span { from, to: span.to.max(from) }
        };
        let spans: Vec<Span> = spans.iter().map(not_expired).collect();
        let mut cuts = Vec::new();
        for (of, span) in spans.iter().enumerate() {
            let (begin, end) = whole(*span);
            let head = Span { from: span.from, to: begin.min(span.to) };
            let tail = Span { from: end.max(head.to), to: span.to };
            cuts.extend([head, tail].into_iter().filter(|part| part.from < part.to).map(|part| Cut { part, of }));
        }
        let of = spans.iter().map(|_| Sum::default()).collect();
        Self { spans, of, cuts }
    }

    /// From the first instant to the last.
    pub(super) fn reach(&self) -> Span {
        let from = self.spans.first().map_or(0, |span| span.from);
        Span { from, to: self.spans.last().map_or(0, |span| span.to) }
    }

    /// The quarters that are to be looked at event by event, from the first to the last of each run of them.
    pub(super) fn cut_quarters(&self) -> Vec<Span> {
        let mut quarters: Vec<Span> = Vec::new();
        for Cut { part, .. } in &self.cuts {
            let from = i64::from(quarter_of(part.from)) * QUARTER_MS;
            let to = (i64::from(quarter_of(part.to - 1)) + 1) * QUARTER_MS;
            match quarters.last_mut() {
                Some(last) if last.to >= from => last.to = last.to.max(to),
                _ => quarters.push(Span { from, to }),
            }
        }
        quarters
    }

    /// The visits that were added.
    pub(super) fn counted_visits(&self) -> i64 {
        self.of.iter().map(|sum| sum.counts.visits).sum()
    }

    /// The visits of an answer in all whole quarters; or, where there are hardly any visits, half of what is kept of
    /// visitors for them.
    pub(super) fn weight(&self, answer: &Answer) -> i64 {
        let weight = |(_, quarter): (&u32, &Quarter)| quarter.counts.visits.max(quarter.visitors.estimate() / 2);
        let of = |span: &Span| quarters(answer, *span).map(weight).sum::<i64>();
        self.spans.iter().map(of).sum()
    }

    /// Adds the whole quarters of an answer; where visitors are estimated, those up to a threshold.
    pub(super) fn add(&mut self, answer: &Answer, sign: Sign, is_estimated: bool) {
        let enough = is_estimated.then_some(self.enough());
        for (span, sum) in self.spans.iter().zip(&mut self.of) {
            for (_, Quarter { counts, visitors }) in quarters(answer, *span) {
                sum.add(*counts, visitors, sign, enough);
            }
        }
    }

    /// Adds what [`CutSink`] has collected.
    pub(super) fn add_cuts(&mut self, sink: CutSink, sign: Sign) {
        for (Cut { of, .. }, (counts, visitors)) in self.cuts.iter().zip(sink.parts) {
            self.of[*of].add_all(counts, visitors, sign);
        }
    }

    /// A sink for the events of the quarters that are cut.
    pub(super) fn cut_sink(&self) -> CutSink {
        let parts = self.cuts.iter().map(|_| Default::default()).collect();
        CutSink { cuts: self.cuts.iter().map(|cut| cut.part).collect(), parts, noted: None }
    }

    /// Others of the same spans, with nothing in them.
    pub(super) fn emptied(&self) -> Self {
        let of = self.spans.iter().map(|_| Sum::default()).collect();
        Self { spans: self.spans.clone(), of, cuts: self.cuts.clone() }
    }

    /// What its spans are known by, with more on which their sums depend.
    pub(super) fn id(&self, more: impl Hash) -> [u64; 2] {
        id_of((&self.spans, more))
    }

    /// What counts in each span. Where visitors are estimated, no more of them than that takes.
    pub(super) fn into_parts(mut self, is_estimated: bool) -> Vec<Sum> {
        if is_estimated {
            let enough = self.enough();
            self.of.iter_mut().for_each(|sum| sum.lower(enough));
        }
        self.of
    }

    /// Adds what counts in each span.
    pub(super) fn add_of(&mut self, of: &[Sum]) {
        self.of.iter_mut().zip(of).for_each(|(own, other)| own.add_sum(other));
    }

    /// The same, of what nobody else has.
    pub(super) fn take_in(&mut self, of: Vec<Sum>) {
        for (own, mut other) in self.of.iter_mut().zip(of) {
            other.add_sum(own);
            *own = other;
        }
    }

    /// Visitors that are enough for an estimate of each span.
    fn enough(&self) -> usize {
        (ESTIMATED_FROM / self.spans.len().max(1)).max(ESTIMATED_FROM_MIN)
    }

    /// The memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.of.iter().map(Sum::memory_bytes).sum()
    }

    /// The numbers, and the largest error of the visitors if any are estimated.
    pub(super) fn end(self) -> (Vec<SpanNumbers>, Option<f64>) {
        let mut largest: Option<f64> = None;
        let numbers = self.of.into_iter().map(|mut sum| {
            let (counts, (visitors, error)) = (sum.counts, sum.visitors());
            largest = largest.map_or(error, |largest| Some(error.map_or(largest, |error| largest.max(error))));
            SpanNumbers { counts, visitors }
        });
        (numbers.collect(), largest)
    }
}

/// In which quarters of an hour somebody was there.
#[derive(Debug, Default)]
pub(super) struct Quarters(BTreeMap<u32, isize>);

impl Quarters {
    /// Adds those of an answer.
    pub(super) fn add(&mut self, answer: &Answer, sign: Sign) {
        for (number, quarter) in &answer.quarters {
            let visitors = quarter.visitors.below(u64::MAX).len() as isize;
            let sum = self.0.entry(*number).or_default();
            *sum = sum.saturating_add(match sign {
                Sign::Minus => -visitors,
                // Of a thinned quarter there are more than are known, whatever is taken off.
                Sign::Plus if quarter.visitors.threshold < u64::MAX => isize::MAX / 2,
                Sign::Plus => visitors,
            });
        }
    }

    /// When the first of them begins that has not expired.
    pub(super) fn first(&self, expired_before: i64) -> Option<i64> {
        let begins = |(number, _): (&u32, &isize)| i64::from(*number) * QUARTER_MS;
        self.0.iter().filter(|(_, visitors)| **visitors > 0).map(begins).find(|at| *at >= expired_before)
    }
}

/// From the first instant of a span where a quarter begins to the last.
fn whole(span: Span) -> (i64, i64) {
    let begin = span.from.div_euclid(QUARTER_MS) * QUARTER_MS;
    let begin = if begin < span.from { begin + QUARTER_MS } else { begin };
    (begin, span.to.div_euclid(QUARTER_MS) * QUARTER_MS)
}

/// The quarters of an answer that lie in a span as a whole.
fn quarters(answer: &Answer, span: Span) -> impl Iterator<Item = (&u32, &Quarter)> {
    let (begin, end) = whole(span);
    let range = quarter_of(begin)..quarter_of(end.max(begin));
    answer.quarters.range(range)
}

/// Counts the events and visits of parts of quarters.
pub(super) struct CutSink {
    cuts: Vec<Span>,
    parts: Vec<(Counts, Vec<u64>)>,
    /// The part in which the visitor of this run was noted last.
    noted: Option<usize>,
}

impl CutSink {
    fn part(&self, at: i64) -> Option<usize> {
        let after = self.cuts.partition_point(|part| part.from <= at);
        after.checked_sub(1).filter(|part| at < self.cuts[*part].to)
    }
}

impl Sink for CutSink {
    fn begin_run(&mut self, _: &[Hit], _: Option<&Hit>) {
        self.noted = None;
    }

    fn event(&mut self, visitor: u64, hit: &Hit) {
        let Some(part) = self.part(hit.at) else { return };
        let (counts, visitors) = &mut self.parts[part];
        counts.add_event(hit);
        if self.noted != Some(part) {
            visitors.push(visitor);
            self.noted = Some(part);
        }
    }

    fn visit(&mut self, visit: &Visit) {
        if let Some(part) = self.part(visit.begun_at) {
            self.parts[part].0.add_visit(visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_quarters_and_what_is_cut_off_them() {
        let spans = [Span { from: 10, to: QUARTER_MS }, Span { from: QUARTER_MS, to: 3 * QUARTER_MS + 5 }];
        let sums = Sums::new(&spans, i64::MIN);
        let parts: Vec<_> = sums.cuts.iter().map(|cut| (cut.part.from, cut.part.to, cut.of)).collect();
        assert_eq!(parts, [(10, QUARTER_MS, 0), (3 * QUARTER_MS, 3 * QUARTER_MS + 5, 1)]);
        let within = Sums::new(&[Span { from: 10, to: 20 }], i64::MIN);
        assert_eq!(within.cuts.iter().map(|cut| (cut.part.from, cut.part.to)).collect::<Vec<_>>(), [(10, 20)]);
        assert_eq!(within.cut_quarters(), [Span { from: 0, to: QUARTER_MS }]);
        let expired = Sums::new(&spans, QUARTER_MS);
        assert_eq!(expired.cuts.len(), 1);
        assert_eq!(expired.reach(), Span { from: QUARTER_MS, to: 3 * QUARTER_MS + 5 });
    }
}

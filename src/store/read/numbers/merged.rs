//! The values of a dimension with what each of them has, put together of several pieces.

use std::cmp::Reverse;

use super::{
    question::{ListOrder, ListRow},
    sum::{Sign, Sum},
};
use crate::store::rollup::{Counts, Filter, Group, List, Values};

/// Most values that are told apart. Where there are more, those with the fewest visits are put together.
const VALUES_MAX: usize = 200_000;
/// Those that are left then, so that room need not be made for each value that comes next.
const VALUES_LEFT: usize = 150_000;
/// Visitors from which those of a value are estimated: it is off by 2.2 % then.
const ESTIMATED_FROM: usize = 2_048;
/// Values that keep as many; the rest keep fewer, and are off by 4.4 %.
const BUSY_VALUES: usize = 250;
const ESTIMATED_FROM_REST: usize = 512;

/// Values with what they have.
#[derive(Debug, Clone)]
pub(super) struct Merged {
    values: Values,
    /// By the number of the value; the first is of nothing.
    sums: Vec<Sum>,
    /// Different visitors of each, and the error of that, as far as they were counted.
    counted: Vec<Option<(u64, Option<f64>)>>,
    /// Of values that are not told apart.
    other: Counts,
    /// Whether visitors are counted one by one; if not, by the high half of their hashes.
    is_exact: bool,
}

impl Merged {
    pub(super) fn new(is_exact: bool) -> Self {
        Self { values: Values::unlimited(), sums: Vec::new(), counted: Vec::new(), other: Counts::default(), is_exact }
    }

    /// Adds what a piece has, or takes it off.
    pub(super) fn add(&mut self, list: &List, sign: Sign) {
        for (value, group) in list.groups() {
            self.add_group(value, group, sign);
        }
    }

    /// The same for one value; `None` stands for those that are not told apart.
    pub(super) fn add_group(&mut self, value: Option<&[u8]>, group: &Group, sign: Sign) {
        let Some(value) = value else {
            match sign {
                Sign::Plus => self.other += group.counts,
                Sign::Minus => self.other -= group.counts,
            }
            return;
        };
        let number = self.values.number(value) as usize;
        if number >= self.sums.len() {
            self.sums.resize_with(number + 1, Sum::default);
            self.counted.resize(number + 1, None);
        }
        let (sum, visitors) = (&mut self.sums[number], &group.visitors);
        self.counted[number] = None;
        if self.is_exact {
            sum.add_all(group.counts, visitors.below(u64::MAX), sign);
        } else {
            sum.add(group.counts, &visitors.coarse(), sign, ESTIMATED_FROM);
        }
        if self.sums.len() > VALUES_MAX {
            self.keep_busiest();
        }
    }

    /// Puts those with the fewest visits together.
    fn keep_busiest(&mut self) {
        let by_visits = |number: &usize| {
            let counts = self.sums[*number].counts;
            (Reverse(counts.visits), Reverse(counts.events), *number)
        };
        let mut numbers: Vec<usize> = (1..self.sums.len()).collect();
        numbers.sort_unstable_by_key(by_visits);
        let mut kept = Self::new(self.is_exact);
        kept.other = self.other;
        // Nothing has no number of its own to be given.
        kept.sums.push(std::mem::take(&mut self.sums[0]));
        for (at, number) in numbers.into_iter().enumerate() {
            if at < VALUES_LEFT {
                kept.values.number(self.values.get(number as u32));
                kept.sums.push(std::mem::take(&mut self.sums[number]));
            } else {
                kept.other += self.sums[number].counts;
            }
        }
        kept.counted = vec![None; kept.sums.len()];
        *self = kept;
    }

    /// Counts the visitors of each value, and gives up those that an estimate does not need.
    pub(super) fn count(&mut self) {
        let mut left: Vec<usize> = (0..self.sums.len()).filter(|number| self.counted[*number].is_none()).collect();
        if !self.is_exact {
            left.sort_by_key(|number| Reverse(self.sums[*number].counts.visits));
            for (at, number) in left.iter().enumerate() {
                let enough = if at < BUSY_VALUES { ESTIMATED_FROM } else { ESTIMATED_FROM_REST };
                self.sums[*number].lower(enough);
            }
        }
        for number in left {
            self.counted[number] = Some(self.sums[number].visitors());
        }
    }

    /// The memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let sums = self.sums.capacity() * (size_of::<Sum>() + size_of::<Option<(u64, Option<f64>)>>());
        self.values.memory_bytes() + sums + self.sums.iter().map(Sum::memory_bytes).sum::<usize>()
    }

    /// Of values that are not told apart.
    pub(super) fn other(&self) -> Counts {
        self.other
    }

    /// The values that have anything, by their numbers, the first of them first.
    fn in_order(&self, order: ListOrder, is_listed: impl Fn(&[u8]) -> bool) -> Vec<usize> {
        let has_any = |number: &usize| {
            let Counts { visits, events, .. } = self.sums[*number].counts;
            (visits > 0 || events > 0) && is_listed(self.values.get(*number as u32))
        };
        let mut numbers: Vec<usize> = (0..self.sums.len()).filter(has_any).collect();
        let by = |number: usize| {
            let Counts { visits, pageviews, events, .. } = self.sums[number].counts;
            match order {
                ListOrder::Visitors => self.visitors(number).0.cast_signed(),
                ListOrder::Visits => visits,
                ListOrder::Pageviews => pageviews,
                ListOrder::Events => events,
            }
        };
        let place = |number: &usize| (Reverse(by(*number)), self.values.get(*number as u32));
        numbers.sort_unstable_by(|one, other| place(one).cmp(&place(other)));
        numbers
    }

    fn visitors(&self, number: usize) -> (u64, Option<f64>) {
        self.counted[number].unwrap_or_default()
    }

    /// How many values there are that are listed, and some of them.
    pub(super) fn rows(
        &self,
        order: ListOrder,
        (offset, limit): (usize, usize),
        is_listed: impl Fn(&[u8]) -> bool,
    ) -> (usize, Vec<ListRow>) {
        let numbers = self.in_order(order, is_listed);
        let row = |number: &usize| {
            let value = self.values.get(*number as u32);
            let (visitors, visitors_error) = self.visitors(*number);
            ListRow {
                value: (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned()),
                counts: self.sums[*number].counts,
                visitors,
                visitors_error,
            }
        };
        (numbers.len(), numbers.iter().skip(offset).take(limit).map(row).collect())
    }

    /// What the values have together that a filter leaves; a visit counts once for each of them.
    pub(super) fn together(&self, filter: &Filter) -> Sum {
        let mut together = Sum::default();
        for (number, sum) in self.sums.iter().enumerate() {
            if filter.leaves(self.values.get(number as u32)) {
                together.add_sum(sum);
            }
        }
        together
    }
}

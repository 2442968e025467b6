//! The values of a dimension with what each of them has, put together of several pieces.

use std::cmp::Reverse;

use super::{
    question::{ListOrder, ListRow},
    sum::{Sign, Sum},
};
use crate::store::rollup::{Counts, Filter, Group, List, Values};

/// Most values that are told apart. Where there are more, those with the fewest visits are put together.
const VALUES_MAX: usize = 200_000;
/// What each takes beside its text, with one visitor.
const VALUE_BYTES: usize = size_of::<Sum>() + size_of::<Option<(u64, Option<f64>)>>() + 4 * size_of::<u64>();
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
    /// How many of the first values stay told apart.
    kept: usize,
    /// Most bytes of values, without most of their visitors.
    values_bytes_max: usize,
    /// Whether visitors are counted one by one; if not, by the high half of their hashes.
    is_exact: bool,
}

impl Merged {
    /// One that is to take no more than so many bytes.
    pub(super) fn new(is_exact: bool, bytes_max: usize) -> Self {
        let (values, other, values_bytes_max) = (Values::unlimited(), Counts::default(), bytes_max / 4 * 3);
        Self { values, sums: Vec::new(), counted: Vec::new(), other, kept: 0, values_bytes_max, is_exact }
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
            sum.add(group.counts, &visitors.coarse(), sign, Some(ESTIMATED_FROM));
        }
        // Nothing is the first of them, and no value.
        let bytes = self.sums.len() * VALUE_BYTES + self.values.memory_bytes();
        if self.sums.len() > VALUES_MAX + 1 || bytes > self.values_bytes_max {
            self.keep_busiest();
        }
    }

    /// Has all values that are there by now told apart, whatever comes: what visits that go on between segments take
    /// off must meet what it is taken off of.
    pub(super) fn keep_these(&mut self) {
        self.kept = self.sums.len();
    }

    /// Puts those with the fewest visits together.
    fn keep_busiest(&mut self) {
        let by_visits = |number: &usize| {
            let counts = self.sums[*number].counts;
            (Reverse(counts.visits), Reverse(counts.events), *number)
        };
        let first = self.kept.max(1);
        let mut numbers: Vec<usize> = (first..self.sums.len()).collect();
        numbers.sort_unstable_by_key(by_visits);
        let left = numbers.len() / 4 * 3;
        let values_bytes_max = self.values_bytes_max;
        let mut kept = Self { kept: self.kept, other: self.other, values_bytes_max, ..Self::new(self.is_exact, 0) };
        // Nothing has no number of its own to be given.
        kept.sums.push(std::mem::take(&mut self.sums[0]));
        for (at, number) in (1..first).chain(numbers).enumerate() {
            if at < first - 1 + left {
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

    /// Keeps as few visitors of each value as the least busy ones keep.
    pub(super) fn lower(&mut self) {
        self.sums.iter_mut().for_each(|sum| sum.lower(ESTIMATED_FROM_REST));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rollup::{Dimension, Visitors};

    fn group(visits: i64, visitors: &[u64]) -> Group {
        let counts = Counts { visits, events: visits, ..Counts::default() };
        Group { counts, visitors: Visitors::all(visitors.to_vec()) }
    }

    fn value_of(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    #[test]
    fn values_that_are_not_told_apart_are_added_up_and_those_of_joined_visits_stay() {
        let mut merged = Merged::new(true, 64 << 20);
        merged.add_group(Some(b"joined"), &group(1, &[7]), Sign::Plus);
        merged.add_group(Some(b"joined"), &group(3, &[7, 7, 7]), Sign::Minus);
        merged.keep_these();
        for number in 0..VALUES_MAX as u32 {
            merged.add_group(Some(&value_of(number)), &group(i64::from(number % 9), &[1]), Sign::Plus);
        }
        merged.add_group(None, &group(5, &[1]), Sign::Plus);
        for _ in 0..3 {
            merged.add_group(Some(b"joined"), &group(1, &[7]), Sign::Plus);
        }
        merged.count();
        let (total, rows) = merged.rows(ListOrder::Visits, (0, 10), |_| true);
        assert!((VALUES_MAX / 2..VALUES_MAX).contains(&total), "{total}");
        assert!(rows.iter().all(|row| (row.counts.visits, row.visitors) == (8, 1)), "{rows:?}");
        let (_, all) = merged.rows(ListOrder::Visits, (0, VALUES_MAX), |value| value == b"joined");
        assert_eq!((all.len(), all[0].counts.visits, all[0].visitors), (1, 1, 1));
        let told: i64 = merged.sums.iter().map(|sum| sum.counts.visits).sum();
        let expected: i64 = (0..VALUES_MAX as i64).map(|number| number % 9).sum();
        assert_eq!(told + merged.other().visits, expected + 5 + 1);
    }

    #[test]
    fn where_there_is_little_room_few_are_told_apart() {
        let mut merged = Merged::new(false, 1 << 20);
        for number in 0..50_000_u32 {
            merged.add_group(Some(&value_of(number)), &group(1, &[u64::from(number)]), Sign::Plus);
        }
        merged.count();
        let (total, _) = merged.rows(ListOrder::Visits, (0, 1), |_| true);
        assert!((1_000..50_000).contains(&total) && merged.memory_bytes() < 2 << 20, "{total}");
        assert_eq!(merged.other().visits as usize + total, 50_000);
    }

    #[test]
    fn estimates_hold_no_more_than_they_need_however_many_pieces_there_are() {
        let mut merged = Merged::new(false, 64 << 20);
        for piece in 0..200_u64 {
            let visitors: Vec<u64> =
                (0..500).map(|at| (piece * 500 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            merged.add_group(Some(b"page"), &group(500, &visitors), Sign::Plus);
        }
        assert!(merged.memory_bytes() < 200_000, "{}", merged.memory_bytes());
        merged.count();
        let (_, rows) = merged.rows(ListOrder::Visitors, (0, 1), |_| true);
        let error = rows[0].visitors_error.unwrap();
        let off = (rows[0].visitors as f64 / 100_000.0 - 1.0).abs();
        assert!(off < 3.0 * error && error < 0.03, "{off} {error}");
    }

    #[test]
    fn rows_come_in_order_and_ties_by_value() {
        let mut merged = Merged::new(true, 64 << 20);
        for (value, visits, visitors) in [("b", 1, &[1, 2][..]), ("a", 5, &[3, 4]), ("", 9, &[1]), ("gone", 0, &[])] {
            merged.add_group(Some(value.as_bytes()), &group(visits, visitors), Sign::Plus);
        }
        merged.count();
        let values = |order| -> Vec<Option<String>> {
            merged.rows(order, (0, 9), |_| true).1.into_iter().map(|row| row.value).collect()
        };
        let [a, b] = ["a", "b"].map(|value| Some(value.to_owned()));
        assert_eq!(values(ListOrder::Visitors), [a.clone(), b.clone(), None]);
        assert_eq!(values(ListOrder::Visits), [None, a, b]);
        assert_eq!(merged.rows(ListOrder::Visits, (1, 1), |value| !value.is_empty()).0, 2);
        assert_eq!(merged.together(&Filter::new(Dimension::Page, "*")).visitors(), (4, None));
    }
}

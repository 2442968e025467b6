//! The values of a dimension with what each of them has, put together of several pieces.

use std::{cmp::Reverse, sync::Arc};

use super::{
    question::{ListOrder, ListRow},
    sum::{Sign, Sum, VisitorHash},
};
use crate::store::rollup::{Counts, Filter, Group, KeptGroup, List, Values};

/// Most values that are told apart. Where there are more, those with the fewest visits are put together.
const VALUES_MAX: usize = 200_000;
/// What each takes beside its text, with one visitor.
const VALUE_BYTES: usize = SUM_BYTES + size_of::<Option<(u64, Option<f64>)>>() + 4 * size_of::<u64>();
/// A sum with its place.
const SUM_BYTES: usize = size_of::<Sum>() + 3 * size_of::<usize>();
/// Visitors from which those of a value are estimated: it is off by 2.2 % then.
const ESTIMATED_FROM: usize = 2_048;
/// Values that keep as many; the rest keep fewer, and are off by 4.4 %.
const BUSY_VALUES: usize = 250;
const ESTIMATED_FROM_REST: usize = 512;

/// Values with what they have. Visitors are counted one by one where their hashes are whole, else estimated.
#[derive(Debug, Clone)]
pub(super) struct Merged<H> {
    /// Shared with a copy until one of them is changed, as the sums are.
    values: Arc<Values>,
    /// By the number of the value; the first is of nothing.
    sums: Vec<Arc<Sum<H>>>,
    /// Different visitors of each, and the error of that, as far as they were counted.
    counted: Vec<Option<(u64, Option<f64>)>>,
    /// Of values that are not told apart.
    other: Counts,
    /// How many of the first values stay told apart.
    kept: usize,
    /// Most bytes of values, without most of their visitors.
    values_bytes_max: usize,
    /// A value with fewer events is not one of the busy ones.
    busy_from: i64,
    /// Whether there was no room to tell all values apart.
    has_lost: bool,
}

impl<H: VisitorHash> Merged<H> {
    /// One that is to take no more than so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            values: Arc::new(Values::unlimited()),
            sums: Vec::new(),
            counted: Vec::new(),
            other: Counts::default(),
            kept: 0,
            values_bytes_max: bytes_max / 4 * 3,
            busy_from: 0,
            has_lost: false,
        }
    }

    /// Adds what a piece has, or takes it off.
    pub(super) fn add(&mut self, list: &List, sign: Sign) {
        for (value, group) in list.groups() {
            self.add_group(value, group, sign);
        }
    }

    /// The same for one value; `None` stands for those that are not told apart.
    pub(super) fn add_group(&mut self, value: Option<&[u8]>, Group { counts, visitors }: &Group, sign: Sign) {
        self.change(value, (*counts, sign), |sum, enough| {
            if H::IS_WHOLE {
                let all = visitors.below(u64::MAX).iter().map(|hash| H::of(*hash));
                sum.add_all(*counts, all, sign);
            } else {
                sum.add(*counts, visitors, sign, enough);
            }
        });
    }

    /// Changes the sum of a value, or the counts of those that are not told apart. `change` is told how many visitors
    /// are enough for an estimate.
    fn change(
        &mut self,
        value: Option<&[u8]>,
        (counts, sign): (Counts, Sign),
        change: impl FnOnce(&mut Sum<H>, Option<usize>),
    ) {
        let Some(value) = value else {
            match sign {
                Sign::Plus => self.other += counts,
                Sign::Minus => self.other -= counts,
            }
            return;
        };
        let number = self.number(value);
        if number >= self.sums.len() {
            self.sums.resize_with(number + 1, Arc::default);
            self.counted.resize(number + 1, None);
        }
        self.counted[number] = None;
        let sum = Arc::make_mut(&mut self.sums[number]);
        let is_busy = sum.counts.events >= self.busy_from;
        let enough = if is_busy { ESTIMATED_FROM } else { ESTIMATED_FROM_REST };
        change(sum, (!H::IS_WHOLE).then_some(enough));
        // Nothing is the first of them, and no value.
        let bytes = self.sums.len() * VALUE_BYTES + self.values.memory_bytes();
        if self.sums.len() > VALUES_MAX + 1 || bytes > self.values_bytes_max {
            self.keep_busiest();
        }
    }

    /// The number of a value, a new one if it has none yet.
    fn number(&mut self, value: &[u8]) -> usize {
        let known = self.values.find(value);
        known.unwrap_or_else(|| Arc::make_mut(&mut self.values).number(value)) as usize
    }

    /// Has all values that are there by now told apart, whatever comes: what visits that go on between segments take
    /// off must meet what it is taken off of.
    pub(super) fn keep_these(&mut self) {
        self.kept = self.sums.len();
    }

    /// One with the same values told apart, and nothing in it.
    pub(super) fn emptied(&self) -> Self {
        Self {
            values: Arc::clone(&self.values),
            sums: self.sums.iter().map(|_| Arc::default()).collect(),
            counted: vec![None; self.sums.len()],
            other: Counts::default(),
            ..*self
        }
    }

    /// With so many bytes for it.
    pub(super) fn with_room(self, bytes_max: usize) -> Self {
        Self { values_bytes_max: Self::new(bytes_max).values_bytes_max, ..self }
    }

    /// With all that another has.
    pub(super) fn with(mut self, other: &Self) -> Self {
        self.other += other.other;
        for (sum, number) in other.sums.iter().zip(0..) {
            if !sum.is_empty() {
                let value = other.values.get(number);
                self.change(Some(value), (sum.counts, Sign::Plus), |own, enough| own.absorb(sum, enough));
            }
        }
        self
    }

    /// Whether all values that were added are told apart.
    pub(super) fn has_all(&self) -> bool {
        !self.has_lost
    }

    /// Looks which values are busy by now: more of their visitors are kept.
    pub(super) fn look_who_is_busy(&mut self) {
        let mut events: Vec<i64> = self.sums.iter().map(|sum| sum.counts.events).collect();
        if events.len() > BUSY_VALUES && !H::IS_WHOLE {
            let (_, least, _) = events.select_nth_unstable_by_key(BUSY_VALUES, |events| Reverse(*events));
            self.busy_from = *least;
        }
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
        let mut kept = Self { kept: self.kept, other: self.other, values_bytes_max, has_lost: true, ..Self::new(0) };
        // Nothing has no number of its own to be given.
        kept.sums.push(std::mem::take(&mut self.sums[0]));
        for (at, number) in (1..first).chain(numbers).enumerate() {
            if at < first - 1 + left {
                kept.number(self.values.get(number as u32));
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
        let left: Vec<usize> = (0..self.sums.len()).filter(|number| self.counted[*number].is_none()).collect();
        self.lower_these(left.clone());
        for number in left {
            let sum = Arc::make_mut(&mut self.sums[number]);
            self.counted[number] = Some(sum.visitors());
            sum.shrink();
        }
    }

    /// Gives up the visitors that an estimate does not need.
    pub(super) fn lower(&mut self) {
        self.lower_these((0..self.sums.len()).collect());
    }

    fn lower_these(&mut self, mut numbers: Vec<usize>) {
        if H::IS_WHOLE {
            return;
        }
        numbers.sort_by_key(|number| Reverse(self.sums[*number].counts.events));
        for (at, number) in numbers.into_iter().enumerate() {
            let enough = if at < BUSY_VALUES { ESTIMATED_FROM } else { ESTIMATED_FROM_REST };
            Arc::make_mut(&mut self.sums[number]).lower(enough);
        }
    }

    /// The memory that it takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let sums = self.sums.capacity() * (SUM_BYTES + size_of::<Option<(u64, Option<f64>)>>());
        self.values.memory_bytes() + sums + self.sums.iter().map(|sum| sum.memory_bytes()).sum::<usize>()
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

    /// What the values have together that a filter leaves, a visit once for each of them; different visitors among it,
    /// and the error of these.
    pub(super) fn together(&self, filter: &Filter) -> (Counts, (u64, Option<f64>)) {
        let mut together = Sum::<H>::default();
        for (number, sum) in self.sums.iter().enumerate() {
            if filter.leaves(self.values.get(number as u32)) {
                together.add_sum(sum);
            }
        }
        (together.counts, together.visitors())
    }
}

impl Merged<u32> {
    /// Adds what the list in a file has of a value; `None` stands for those that are not told apart.
    pub(super) fn add_kept(&mut self, value: Option<&[u8]>, group: KeptGroup<'_>) {
        self.change(value, (group.counts, Sign::Plus), |sum, enough| sum.add_kept(group, Sign::Plus, enough));
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
        let mut merged = Merged::<u64>::new(64 << 20);
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
        let mut merged = Merged::<u32>::new(1 << 20);
        for number in 0..50_000_u32 {
            merged.add_group(Some(&value_of(number)), &group(1, &[u64::from(number)]), Sign::Plus);
        }
        merged.count();
        let (total, _) = merged.rows(ListOrder::Visits, (0, 1), |_| true);
        assert!((1_000..50_000).contains(&total) && merged.memory_bytes() < 2 << 20, "{total}");
        assert_eq!(merged.other().visits as usize + total, 50_000);
    }

    #[test]
    fn two_halves_have_what_one_has_also_where_counts_add_up_to_nothing() {
        let mut begun = Merged::<u64>::new(64 << 20);
        // A visit that goes on: each half has counted its visitor, and together they have one.
        begun.add_group(Some(b"/a"), &group(2, &[7]), Sign::Plus);
        begun.add_group(Some(b"/a"), &group(2, &[7, 7]), Sign::Minus);
        begun.keep_these();
        let mut other = begun.emptied();
        for (half, visitors) in [(&mut begun, [7, 1]), (&mut other, [7, 2])] {
            half.add_group(Some(b"/a"), &group(2, &visitors), Sign::Plus);
            half.add_group(None, &group(1, &[3]), Sign::Plus);
        }
        let mut joined = Merged::<u64>::new(64 << 20);
        joined.add_group(Some(b"/a"), &group(0, &[7]), Sign::Plus);
        joined.add_group(Some(b"/b"), &group(1, &[9]), Sign::Plus);
        let mut merged = other.with(&begun).with(&joined);
        merged.count();
        let (total, rows) = merged.rows(ListOrder::Visits, (0, 10), |_| true);
        assert_eq!((total, rows[0].counts.visits, rows[0].visitors, merged.other().visits), (2, 4, 3, 2));
        assert!(merged.has_all());
        merged.keep_busiest();
        assert!(!merged.has_all());
        // What fits into two small ones fits into one large one.
        let [one, other] = [0, 3_000].map(|first| {
            let mut small = Merged::<u32>::new(1 << 20);
            (first..first + 3_000).for_each(|at| small.add_group(Some(&value_of(at)), &group(1, &[1]), Sign::Plus));
            small
        });
        assert!(one.has_all() && other.has_all() && !one.clone().with(&other).has_all());
        assert!(one.with_room(8 << 20).with(&other).has_all());
    }

    #[test]
    fn estimates_hold_no_more_than_they_need_however_many_pieces_there_are() {
        let mut merged = Merged::<u32>::new(64 << 20);
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
        let mut merged = Merged::<u64>::new(64 << 20);
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
        assert_eq!(merged.together(&Filter::new(Dimension::Page, "*")).1, (4, None));
    }
}

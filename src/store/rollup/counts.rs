//! Sums that add up over parts of time and over segments.

use std::ops::{AddAssign, SubAssign};

use super::{
    bytes::{Damaged, Reader, put_signed},
    hit::Hit,
    visit::Visit,
};

/// What is counted. Signed, as what is counted twice is taken off again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events of every kind.
    pub events: i64,
    /// Page views.
    pub pageviews: i64,
    /// Clicks and custom events that show that somebody does something.
    pub interactions: i64,
    /// Visits that began here.
    pub visits: i64,
    /// Those of them whose bounces are asked for.
    pub entered: i64,
    /// Those of them with one page view and nothing else.
    pub bounces: i64,
    /// From first to last event, summed over these visits, in milliseconds.
    pub duration_ms: i64,
    /// Page views of these visits, wherever they are.
    pub views: i64,
    /// Visible time that was reported in these visits, in milliseconds.
    pub engaged_ms: i64,
    /// How many events reported it.
    pub engagements: i64,
}

impl Counts {
    const LEN: usize = 10;

    fn numbers(&self) -> [i64; Self::LEN] {
        let Self {
            events,
            pageviews,
            interactions,
            visits,
            entered,
            bounces,
            duration_ms,
            views,
            engaged_ms,
            engagements,
        } = *self;
        [events, pageviews, interactions, visits, entered, bounces, duration_ms, views, engaged_ms, engagements]
    }

    fn of_numbers(numbers: [i64; Self::LEN]) -> Self {
        let [events, pageviews, interactions, visits, entered, bounces, duration_ms, views, engaged_ms, engagements] =
            numbers;
        Self { events, pageviews, interactions, visits, entered, bounces, duration_ms, views, engaged_ms, engagements }
    }

    /// Counts an event.
    pub(crate) fn add_event(&mut self, hit: &Hit) {
        self.events += 1;
        self.pageviews += i64::from(hit.kind.is_pageview());
        self.interactions += i64::from(hit.kind.is_interaction());
    }

    /// Counts a visit.
    pub(crate) fn add_visit(&mut self, visit: &Visit) {
        self.visits += 1;
        self.entered += i64::from(visit.is_entered);
        self.bounces += i64::from(visit.is_bounce && visit.is_entered);
        self.duration_ms += visit.duration_ms;
        self.views += i64::from(visit.views);
        self.engaged_ms += visit.engaged_ms;
        self.engagements += i64::from(visit.engagements);
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        self.numbers().iter().for_each(|number| put_signed(bytes, *number));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut numbers = [0; Self::LEN];
        for number in &mut numbers {
            *number = reader.signed()?;
        }
        Ok(Self::of_numbers(numbers))
    }
}

impl Counts {
    /// Sums number by number. They wrap, as what a damaged file says must not end the process.
    fn combined(self, other: Self, combine: impl Fn(i64, i64) -> i64) -> Self {
        let (mut numbers, others) = (self.numbers(), other.numbers());
        numbers.iter_mut().zip(others).for_each(|(number, other)| *number = combine(*number, other));
        Self::of_numbers(numbers)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = self.combined(other, i64::wrapping_add);
    }
}

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        *self = self.combined(other, i64::wrapping_sub);
    }
}

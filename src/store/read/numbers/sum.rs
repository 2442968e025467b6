//! A sum of what pieces answer, and who was there.

use std::fmt;

use crate::store::rollup::{Counts, KeptGroup, Visitors, high};

/// A hash of a visitor: whole, or its high half, which is enough where visitors are estimated.
pub(super) trait VisitorHash: Copy + Ord + fmt::Debug + Send + Sync + 'static {
    /// The threshold of what has every visitor.
    const ALL: Self;
    /// Whether it tells visitors apart for certain.
    const IS_WHOLE: bool;
    /// Of the whole hash.
    fn of(hash: u64) -> Self;
    /// Which part of all numbers lies below it.
    fn part(self) -> f64;
    /// The threshold below which so much of this part lies.
    fn scaled(self, by: f64) -> Self;
}

impl VisitorHash for u64 {
    const ALL: Self = Self::MAX;
    const IS_WHOLE: bool = true;

    fn of(hash: u64) -> Self {
        hash
    }

    fn part(self) -> f64 {
        self as f64 / 2.0_f64.powi(64)
    }

    fn scaled(self, by: f64) -> Self {
        (self as f64 * by) as Self
    }
}

impl VisitorHash for u32 {
    const ALL: Self = Self::MAX;
    const IS_WHOLE: bool = false;

    fn of(hash: u64) -> Self {
        high(hash)
    }

    fn part(self) -> f64 {
        f64::from(self) / 2.0_f64.powi(32)
    }

    fn scaled(self, by: f64) -> Self {
        (f64::from(self) * by) as Self
    }
}

/// What counts of a span, or of a value.
#[derive(Debug, Clone)]
pub(super) struct Sum<H = u64> {
    pub(super) counts: Counts,
    /// Hashes of visitors, and up to where they are all there is.
    plus: Vec<H>,
    minus: Vec<H>,
    threshold: Option<H>,
}

impl<H> Default for Sum<H> {
    fn default() -> Self {
        Self { counts: Counts::default(), plus: Vec::new(), minus: Vec::new(), threshold: None }
    }
}

/// Whether what is added counts, or is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

impl<H: VisitorHash> Sum<H> {
    fn add_counts(&mut self, counts: Counts, sign: Sign) {
        match sign {
            Sign::Plus => self.counts += counts,
            Sign::Minus => self.counts -= counts,
        }
    }

    /// Adds counts and every visitor.
    pub(super) fn add_all(&mut self, counts: Counts, visitors: impl IntoIterator<Item = H>, sign: Sign) {
        self.add_counts(counts, sign);
        let hashes = if sign == Sign::Plus { &mut self.plus } else { &mut self.minus };
        hashes.extend(visitors);
    }

    /// Adds counts and visitors up to their threshold. Where they are estimated, so many visitors are enough.
    pub(super) fn add(&mut self, counts: Counts, visitors: &Visitors, sign: Sign, enough: Option<usize>) {
        let below = visitors.below(u64::MAX).iter().map(|hash| H::of(*hash));
        let threshold = self.threshold.unwrap_or(H::ALL).min(H::of(visitors.threshold));
        self.add_below(counts, (below.take_while(|hash| threshold == H::ALL || *hash < threshold), threshold), sign);
        self.lower_above(enough);
    }

    /// Adds counts and visitors, which are all that there are below a threshold that is no higher than its own.
    fn add_below(&mut self, counts: Counts, (visitors, threshold): (impl IntoIterator<Item = H>, H), sign: Sign) {
        self.threshold = Some(threshold);
        self.add_all(counts, visitors, sign);
    }

    /// Lowers the threshold once there are twice as many visitors as are enough.
    fn lower_above(&mut self, enough: Option<usize>) {
        if let Some(enough) = enough.filter(|enough| self.plus.len().max(self.minus.len()) > 2 * enough) {
            self.lower(enough);
        }
    }

    /// Adds all of another sum.
    pub(super) fn add_sum(&mut self, other: &Self) {
        self.counts += other.counts;
        self.plus.extend_from_slice(&other.plus);
        self.minus.extend_from_slice(&other.minus);
        self.threshold = self.threshold.into_iter().chain(other.threshold).min();
    }

    /// Whether nothing was added. What adds up to nothing may have visitors still, to be added or taken off.
    pub(super) fn is_empty(&self) -> bool {
        self.counts == Counts::default() && self.plus.is_empty() && self.minus.is_empty()
    }

    /// Adds all of another sum; so many visitors are enough where they are estimated.
    pub(super) fn absorb(&mut self, other: &Self, enough: Option<usize>) {
        self.add_sum(other);
        self.lower_above(enough);
    }

    /// Lowers the threshold so that about as many visitors are below it as it takes, if there are more.
    pub(super) fn lower(&mut self, enough: usize) {
        let threshold = self.threshold.unwrap_or(H::ALL);
        self.plus.retain(|hash| *hash < threshold);
        // One who comes very often is one.
        let different = about_different(&self.plus, threshold);
        let lowered = if different > enough { threshold.scaled(enough as f64 / different as f64) } else { threshold };
        self.plus.retain(|hash| *hash < lowered);
        self.minus.retain(|hash| *hash < lowered);
        self.plus.shrink_to(self.plus.len() * 2);
        self.threshold = Some(lowered);
    }

    /// Gives up memory that it does not need.
    pub(super) fn shrink(&mut self) {
        self.plus.shrink_to_fit();
        self.minus.shrink_to_fit();
    }

    /// How many different visitors there are, and the relative standard error of that if it is an estimate.
    pub(super) fn visitors(&mut self) -> (u64, Option<f64>) {
        let threshold = self.threshold.unwrap_or(H::ALL);
        if threshold < H::ALL {
            self.plus.retain(|hash| *hash < threshold);
            self.minus.retain(|hash| *hash < threshold);
        }
        let counted = different(&mut self.plus, &mut self.minus);
        if threshold == H::ALL {
            return (counted, None);
        }
        let part = threshold.part();
        let error = ((1.0 - part) / (counted as f64).max(1.0)).sqrt();
        ((counted as f64 / part).round() as u64, Some(error))
    }

    /// The memory that it takes beside itself, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.plus.capacity() + self.minus.capacity()) * size_of::<H>()
    }
}

impl Sum<u32> {
    /// Adds counts and visitors as they are kept in a file.
    pub(super) fn add_kept(
        &mut self,
        KeptGroup { counts, visitors }: KeptGroup<'_>,
        sign: Sign,
        enough: Option<usize>,
    ) {
        let threshold = self.threshold.unwrap_or(u32::MAX).min(visitors.threshold);
        self.add_below(counts, (visitors.below(threshold), threshold), sign);
        self.lower_above(enough);
    }
}

/// About how many of these hashes are different, all of which are below a threshold: without the time to sort them, by
/// how many of many equal parts of the way there have any (linear counting,
/// <https://doi.org/10.1145/78922.78925>). With eight parts a hash it is off by about 1 % for some hundred of them.
fn about_different<H: VisitorHash>(hashes: &[H], threshold: H) -> usize {
    const PARTS_EACH: usize = 8;
    let parts = hashes.len() * PARTS_EACH;
    let mut taken = vec![0_u64; parts.div_ceil(64)];
    for hash in hashes {
        let part = ((hash.part() / threshold.part()) * parts as f64) as usize;
        if let Some(word) = taken.get_mut(part / 64) {
            *word |= 1 << (part % 64);
        }
    }
    let taken: u32 = taken.iter().map(|word| word.count_ones()).sum();
    let free = 1.0 - f64::from(taken) / parts.max(1) as f64;
    (-free.ln() * parts as f64).round() as usize
}

/// How many different numbers come more often in the first list than in the second.
fn different<H: Copy + Ord>(plus: &mut [H], minus: &mut [H]) -> u64 {
    // Mostly sorted already, but for what was added last.
    plus.sort();
    minus.sort_unstable();
    let mut minus = &*minus;
    let mut count = 0;
    for same in plus.chunk_by(|one, next| one == next) {
        let hash = same[0];
        let below = minus.iter().take_while(|gone| **gone < hash).count();
        let gone = minus[below..].iter().take_while(|gone| **gone == hash).count();
        minus = &minus[below + gone..];
        count += u64::from(same.len() > gone);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_off_once_still_counts_if_it_came_twice() {
        assert_eq!(different(&mut [5, 3, 3, 9], &mut [3, 9, 1]), 2);
        assert_eq!(different::<u64>(&mut [], &mut [1]), 0);
    }

    #[test]
    fn a_sum_is_lowered_to_as_many_different_visitors_as_are_enough() {
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for often in [1, 30] {
            let mut sum = Sum::<u32>::default();
            let visitors = (0..20_000 * often).map(|at| high(spread(at % 20_000)));
            sum.add_all(Counts::default(), visitors, Sign::Plus);
            sum.lower(500);
            let kept = different(&mut sum.plus, &mut []);
            assert!((450..=550).contains(&kept), "{kept}");
            let (visitors, error) = sum.visitors();
            assert!((visitors as f64 / 20_000.0 - 1.0).abs() < 3.0 * error.unwrap(), "{visitors}");
        }
        let mut few = Sum::<u64>::default();
        few.add_all(Counts::default(), (0..100).map(spread), Sign::Plus);
        few.lower(100);
        assert!(few.visitors().0 >= 99);
        few.lower(0);
        assert_eq!(few.visitors().0, 0);
    }
}

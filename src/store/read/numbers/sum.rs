//! A sum of what pieces answer, and who was there.

use crate::store::rollup::{Counts, Visitors};

/// What counts of a span, or of a value.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum {
    pub(super) counts: Counts,
    /// Hashes of visitors, and up to where they are all there is.
    plus: Vec<u64>,
    minus: Vec<u64>,
    threshold: Option<u64>,
}

/// Whether what is added counts, or is taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

impl Sum {
    fn add_counts(&mut self, counts: Counts, sign: Sign) {
        match sign {
            Sign::Plus => self.counts += counts,
            Sign::Minus => self.counts -= counts,
        }
    }

    /// Adds counts and every visitor.
    pub(super) fn add_all(&mut self, counts: Counts, visitors: &[u64], sign: Sign) {
        self.add_counts(counts, sign);
        let hashes = if sign == Sign::Plus { &mut self.plus } else { &mut self.minus };
        hashes.extend_from_slice(visitors);
    }

    /// Adds counts and visitors up to their threshold. Where they are estimated, so many visitors are enough.
    pub(super) fn add(&mut self, counts: Counts, visitors: &Visitors, sign: Sign, enough: Option<usize>) {
        let threshold = self.threshold.unwrap_or(u64::MAX).min(visitors.threshold);
        self.threshold = Some(threshold);
        self.add_all(counts, visitors.below(threshold), sign);
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

    /// Lowers the threshold so that no more visitors are below it than it takes.
    pub(super) fn lower(&mut self, enough: usize) {
        let mut threshold = self.threshold.unwrap_or(u64::MAX);
        self.plus.retain(|hash| *hash < threshold);
        self.plus.sort_unstable();
        // One who comes very often is one.
        let lowered = self.plus.chunk_by(|one, next| one == next).nth(enough).map(|same| same[0]);
        if let Some(lowered) = lowered {
            threshold = lowered;
            self.plus.truncate(self.plus.partition_point(|hash| *hash < threshold));
        }
        self.minus.retain(|hash| *hash < threshold);
        self.plus.shrink_to(self.plus.len() * 2);
        self.threshold = Some(threshold);
    }

    /// How many different visitors there are, and the relative standard error of that if it is an estimate.
    pub(super) fn visitors(&mut self) -> (u64, Option<f64>) {
        let threshold = self.threshold.unwrap_or(u64::MAX);
        if threshold < u64::MAX {
            self.plus.retain(|hash| *hash < threshold);
            self.minus.retain(|hash| *hash < threshold);
        }
        let counted = different(&mut self.plus, &mut self.minus);
        if threshold == u64::MAX {
            return (counted, None);
        }
        let part = threshold as f64 / 2.0_f64.powi(64);
        let error = ((1.0 - part) / (counted as f64).max(1.0)).sqrt();
        ((counted as f64 / part).round() as u64, Some(error))
    }

    /// The memory that it takes beside itself, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.plus.capacity() + self.minus.capacity()) * size_of::<u64>()
    }
}

/// How many different numbers come more often in the first list than in the second.
fn different(plus: &mut [u64], minus: &mut [u64]) -> u64 {
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
        assert_eq!(different(&mut [], &mut [1]), 0);
    }
}

//! What to do next, decided from numbers: when a range ends, what becomes of one that is in doubt, how long to wait.

use std::time::Duration;

/// The first pause after something has failed, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// For how long the target is trusted to know a block again by its token. ClickHouse has changed its windows by
/// version, down to one hour, and others ship to the same table and use them up as well: a window of 10,000 lasts for
/// as long as this with 16 inserts a second, which are 33 hitlogs that send every two seconds.
pub(super) const HORIZON_MS: u64 = 10 * 60 * 1_000;
/// The least window of tokens, in inserts, in which a token is trusted to last for that time.
pub(super) const WINDOW_MIN: u64 = 1_000;

/// How long to wait after so many tries in a row have failed. `spread`, from 0 to 1, keeps many hitlogs from coming
/// back at once.
pub(super) fn pause(failed: u32, spread: f64) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(PAUSE_MAX);
    doubled.mul_f64(0.75 + 0.25 * spread.clamp(0.0, 1.0))
}

/// What a block of a range that may have arrived is known by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    /// How long ago it was sent first, in milliseconds; `None`: it never was.
    pub(super) age_ms: Option<u64>,
    /// Whether the server still has the version that it had then.
    pub(super) is_same_version: bool,
    /// How many tokens the table remembers.
    pub(super) window: u64,
    /// Whether the same bytes can be sent again.
    pub(super) are_same_bytes: bool,
    /// Whether the original of this copy may have sent its events, cut in another way.
    pub(super) is_inherited: bool,
}

impl Doubt {
    /// Whether the target knows the block again by its token: then it is sent once more, which stores what is missing,
    /// in the table and in what is derived from it, and nothing twice.
    pub(super) fn is_known_by_token(&self) -> bool {
        self.age_ms.is_none_or(|age| age <= HORIZON_MS)
            && self.is_same_version
            && self.window >= WINDOW_MIN
            && self.are_same_bytes
            && !self.is_inherited
    }
}

/// The sequences of `wanted` that are not among `present`, as runs; both rising. Between the first and the last of a
/// run nothing of `wanted` is present.
pub(super) fn missing(wanted: &[u64], present: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let (mut there, mut is_open) = (present.iter().peekable(), false);
    for sequence in wanted {
        while there.next_if(|present| *present < sequence).is_some() {}
        if there.peek() == Some(&sequence) {
            is_open = false;
        } else if let Some(run) = runs.last_mut().filter(|_| is_open) {
            run.1 = *sequence;
        } else {
            runs.push((*sequence, *sequence));
            is_open = true;
        }
    }
    runs
}

/// Whether a sequence is in one of the runs, which rise.
pub(super) fn is_in(runs: &[(u64, u64)], sequence: u64) -> bool {
    let at = runs.partition_point(|(_, last)| *last < sequence);
    runs.get(at).is_some_and(|(first, _)| *first <= sequence)
}

/// Months since the year 0, UTC, of a time in milliseconds since 1970: the partition that an event goes to. A block of
/// one month is one part there, all of it or nothing.
pub(super) fn month(time_ms: i64) -> i64 {
    // Days to a civil date, by the algorithm of <https://howardhinnant.github.io/date_algorithms.html>.
    let days = time_ms.div_euclid(86_400_000) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month_from_march
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for (failed, seconds) in [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 10.0), (u32::MAX, 10.0)] {
            assert_eq!(pause(failed, 1.0).as_secs_f64(), seconds, "{failed}");
        }
        assert_eq!(pause(1, 0.0), Duration::from_millis(375));
    }

    #[test]
    fn a_token_is_trusted_only_where_nothing_speaks_against_it() {
        let known = Doubt {
            age_ms: Some(HORIZON_MS),
            is_same_version: true,
            window: WINDOW_MIN,
            are_same_bytes: true,
            is_inherited: false,
        };
        assert!(known.is_known_by_token());
        assert!(Doubt { age_ms: None, ..known }.is_known_by_token());
        for doubt in [
            Doubt { age_ms: Some(HORIZON_MS + 1), ..known },
            Doubt { is_same_version: false, ..known },
            Doubt { window: WINDOW_MIN - 1, ..known },
            Doubt { are_same_bytes: false, ..known },
            Doubt { is_inherited: true, ..known },
        ] {
            assert!(!doubt.is_known_by_token(), "{doubt:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_in_runs() {
        let check = |wanted: &[u64], present: &[u64], runs: &[(u64, u64)]| {
            assert_eq!(missing(wanted, present), runs, "{wanted:?} {present:?}");
            for sequence in wanted {
                assert_eq!(is_in(runs, *sequence), !present.contains(sequence), "{sequence} {runs:?}");
            }
        };
        check(&[], &[1], &[]);
        check(&[1, 2, 3], &[], &[(1, 3)]);
        check(&[1, 2, 3], &[1, 2, 3], &[]);
        check(&[1, 2, 5, 6, 7], &[2, 3, 4], &[(1, 1), (5, 7)]);
        check(&[2, 4, 6, 8], &[1, 2, 3, 6, 9], &[(4, 4), (8, 8)]);
        // What is gone from here between two that are missing makes no second run.
        check(&[2, 4], &[3], &[(2, 4)]);
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        for (before, after) in [
            ("2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00Z"),
            ("2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00Z"),
            ("2025-02-28T23:59:59.999Z", "2025-03-01T00:00:00Z"),
            ("2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00Z"),
            ("2000-02-29T23:59:59.999Z", "2000-03-01T00:00:00Z"),
        ] {
            assert_eq!(month(ms(before)) + 1, month(ms(after)), "{before} {after}");
            assert_eq!(month(ms(after)), month(ms(after) + 27 * 86_400_000), "{after}");
        }
    }
}

//! What holds for every zone of the database, every range and every interval.

use std::ops;

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::{TimeZone, TimeZoneDatabase},
};
use proptest::{prelude::*, sample::Index};

use super::{
    super::{Bucket, Compare, Interval, Moment, Range, Zone, buckets, comparison},
    text, zone,
};

const HOUR_MS: i64 = 3_600_000;
const QUARTER_MS: i64 = HOUR_MS / 4;
/// Since then every zone's offset is a multiple of 15 minutes.
const YEAR_1980_MS: i64 = 315_532_800_000;
const YEAR_2060_MS: i64 = 2_840_140_800_000;

/// A zone as this test knows it: by jiff's own wall clocks, without the arithmetic that is tested.
struct Model(TimeZone);

impl Model {
    fn of(zone: &Zone) -> Self {
        Self(TimeZoneDatabase::bundled().get(zone.name()).unwrap())
    }

    fn clock(&self, instant: i64) -> DateTime {
        self.0.to_datetime(Timestamp::from_millisecond(instant).unwrap())
    }

    fn date(&self, instant: i64) -> Date {
        self.clock(instant).date()
    }

    /// Whether the clock never showed this day.
    fn skipped(&self, day: Date) -> bool {
        let [first, last] = [day.at(0, 0, 0, 0), day.at(23, 59, 59, 0)];
        [first, last].into_iter().all(|clock| {
            let instant = self.0.to_timestamp(clock).unwrap();
            self.0.to_datetime(instant) != clock
        })
    }

    fn is_change(&self, instant: i64) -> bool {
        let before = Timestamp::from_millisecond(instant - 1).unwrap();
        self.0.to_offset(before) != self.0.to_offset(Timestamp::from_millisecond(instant).unwrap())
    }

    /// The changes within a stretch.
    fn changes(&self, stretch: ops::Range<i64>) -> Vec<i64> {
        let all = self.0.following(Timestamp::from_millisecond(stretch.start).unwrap());
        all.map(|change| change.timestamp().as_millisecond()).take_while(|change| *change < stretch.end).collect()
    }
}

fn zones() -> Vec<Zone> {
    let names: Vec<String> = TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect();
    names.iter().map(|name| zone(name)).collect()
}

/// What holds for every bucket by itself.
fn check_bucket(bucket: &Bucket, interval: Interval, model: &Model) -> Result<(), TestCaseError> {
    let (clock, before) = (model.clock(bucket.at), model.date(bucket.at - 1));
    let about = format!("{bucket:?} in {:?}, {}", model.0, text(bucket.at));
    match interval {
        Interval::Hour => {
            prop_assert!(clock.minute() == 0 && clock.second() == 0 || model.is_change(bucket.at), "{}", about);
            prop_assert_eq!(&bucket.label, &format!("{}T{:02}:00", clock.date(), clock.hour()), "{}", about);
        }
        Interval::Day => {
            prop_assert_eq!(&bucket.label, &clock.date().to_string(), "{}", about);
            prop_assert!(before < clock.date(), "{}", about);
        }
        Interval::Week => {
            let monday: Date = bucket.label.parse().unwrap();
            prop_assert_eq!(monday.weekday().to_monday_zero_offset(), 0, "{}", about);
            prop_assert!(before < monday && (clock.date() == monday || model.skipped(monday)), "{}", about);
        }
        Interval::Month => {
            let first: Date = format!("{}-01", bucket.label).parse().unwrap();
            prop_assert!(before < first && (clock.date() == first || model.skipped(first)), "{}", about);
        }
    }
    Ok(())
}

fn check_series(range: &Range, interval: Interval, zone: &Zone, now: i64) -> Result<(), TestCaseError> {
    let model = Model::of(zone);
    let all = buckets(range, interval, zone, now, usize::MAX).unwrap();
    let about = format!("{} {interval:?} {} {}", zone.name(), text(range.from), text(range.to));
    prop_assert_eq!(all.first().map(|bucket| bucket.from), Some(range.from), "{}", about);
    prop_assert_eq!(all.last().map(|bucket| bucket.to), Some(range.to), "{}", about);
    for bucket in &all {
        prop_assert!(bucket.at <= bucket.from && bucket.from < bucket.to, "{}", about);
        check_bucket(bucket, interval, &model)?;
    }
    for pair in all.windows(2) {
        let [one, next] = pair else { continue };
        prop_assert_eq!(one.to, next.from, "{}", about);
        prop_assert_eq!(next.at, next.from, "{}", about);
        let is_cut = one.at < range.from || one.to > now;
        prop_assert_eq!(one.is_partial, is_cut, "{}", about);
        if interval == Interval::Day {
            let mut missed: Date = one.label.parse().unwrap();
            missed = missed.tomorrow().unwrap();
            while missed.to_string() != next.label {
                prop_assert!(model.skipped(missed), "{} lacks {}", about, missed);
                missed = missed.tomorrow().unwrap();
            }
        }
        if interval == Interval::Hour {
            prop_assert!(next.at - one.at <= HOUR_MS, "{}", about);
            prop_assert!(next.at % QUARTER_MS == 0 || next.at < YEAR_1980_MS, "{}", about);
        }
    }
    Ok(())
}

/// A range by milliseconds or by days, whichever its ends are written as.
fn a_range(zone: &Zone, from: i64, length: i64, by_days: bool) -> Option<Range> {
    let model = Model::of(zone);
    let text = |instant: i64| if by_days { model.date(instant).to_string() } else { instant.to_string() };
    let [from, to] = [from, from + length].map(|instant| Moment::parse(&text(instant)));
    Range::between(from.ok()?, to.ok()?, zone).ok()
}

proptest! {
    #[test]
    fn buckets_are_the_range(
        of_zones in any::<Index>(),
        of_changes in any::<Index>(),
        near_change in any::<bool>(),
        by_days in any::<bool>(),
        from in HOUR_MS * 48..YEAR_2060_MS,
        before in prop_oneof![0..1_000 * HOUR_MS, -2 * HOUR_MS..2 * HOUR_MS],
        length in 1..1_000 * HOUR_MS,
        times in prop::sample::select(vec![1, 1, 10, 50]),
        now in -1.0..2.0_f64,
    ) {
        let zones = zones();
        let zone = of_zones.get(&zones);
        let changes = Model::of(zone).changes(HOUR_MS * 1_000..YEAR_2060_MS);
        // Most ranges would meet nothing worth a test.
        let from = if near_change && !changes.is_empty() { of_changes.get(&changes) - before } else { from };
        if let Some(range) = a_range(zone, from, length * times, by_days) {
            let now = range.from + ((range.to - range.from) as f64 * now) as i64;
            for interval in Interval::ALL {
                check_series(&range, interval, zone, now)?;
            }
        }
    }

    #[test]
    fn an_earlier_range_ends_where_now_is(
        of_zones in any::<Index>(),
        by_days in any::<bool>(),
        from in 20 * 365 * 24 * HOUR_MS..YEAR_2060_MS,
        length in 1..3_000 * HOUR_MS,
        now in 0.0..1.0_f64,
        is_year in any::<bool>(),
    ) {
        let zones = zones();
        let zone = of_zones.get(&zones);
        let Some(range) = a_range(zone, from, length, by_days) else { return Ok(()) };
        let model = Model::of(zone);
        let compare = if is_year { Compare::Year } else { Compare::Previous };
        let about = format!("{} {compare:?} {} {}", zone.name(), text(range.from), text(range.to));
        let whole = comparison(&range, compare, zone, range.to).unwrap();
        prop_assert!(whole.from < whole.to && whole.from < range.from, "{}", about);
        let now = range.from + ((range.to - range.from) as f64 * now) as i64;
        let earlier = comparison(&range, compare, zone, now).unwrap();
        prop_assert_eq!(earlier.from, whole.from, "{}", about);
        prop_assert!(earlier.to <= whole.to, "{}", about);
        if !is_year {
            prop_assert_eq!(whole.to, range.from, "{}", about);
            prop_assert_eq!(whole.days(), range.days(), "{}", about);
        }
        if range.days().is_none() && now > range.from {
            prop_assert!(earlier.to - earlier.from == now - range.from || earlier.to == whole.to, "{}", about);
        } else if now > range.from && whole.from < earlier.to && earlier.to < whole.to {
            let [then, now] = [earlier.to, now].map(|instant| model.clock(instant).time());
            prop_assert!(then == now || model.is_change(earlier.to), "{}: {} {}", about, then, now);
        }
    }
}

#[test]
fn around_every_change_of_every_zone() {
    for zone in zones() {
        // Of those of our time, one every few years will do: they differ by their rules, and these stay for long.
        for change in Model::of(&zone).changes(HOUR_MS * 100..YEAR_2060_MS).into_iter().step_by(7) {
            let range = a_range(&zone, change - 50 * HOUR_MS, 100 * HOUR_MS, true).unwrap();
            for interval in [Interval::Hour, Interval::Day] {
                check_series(&range, interval, &zone, range.to).unwrap();
            }
            let hours = buckets(&range, Interval::Hour, &zone, range.to, 1_000).unwrap();
            for day in buckets(&range, Interval::Day, &zone, range.to, 10).unwrap() {
                let is_there = hours.binary_search_by_key(&day.at, |hour| hour.at).is_ok();
                assert!(is_there, "{} {} does not begin with an hour", zone.name(), day.label);
            }
        }
    }
}

//! A time zone: what its wall clocks show, and when. Its rules are jiff's, from the IANA database that is compiled in.

use std::iter;

use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

use super::day::{DAY_MS, Day};

/// More than the longest name has, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A time zone of the IANA database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone with this name, whatever the case of its letters; None if the database has no such name. Neither a
    /// file nor the environment is looked at.
    pub fn find(name: &str) -> Option<Self> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        // `bundled`, and not `TimeZone::get`: if a crate beside this one switched on jiff's feature `tzdb-zoneinfo`,
        // that would ask the machine. jiff has a name for a zone that nobody knows, which is none of IANA's.
        TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown()).map(Self)
    }

    /// Coordinated Universal Time.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Its name, as IANA writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What the wall clock shows at an instant, in milliseconds since 1970 as if it were that of UTC.
    pub(super) fn wall_clock(&self, instant: i64) -> i64 {
        instant + self.offset_ms(instant)
    }

    /// The first instant at which the wall clock shows this or something later.
    ///
    /// Where clocks are set forward over it, that is the change; where they are set back and it comes twice, the first
    /// one. So what is later on the clock is never earlier here, and what follows one another has no gap.
    pub(super) fn first_instant_of(&self, wall_clock: i64) -> i64 {
        // No zone is a whole day away from UTC, so the clock shows something earlier here.
        let mut at = wall_clock - DAY_MS;
        loop {
            let instant = at.max(wall_clock - self.offset_ms(at));
            match self.next_change(at) {
                Some(change) if change <= instant => at = change,
                _ => return instant,
            }
        }
    }

    /// The first instant of a day; where a country skipped that day, of the next one.
    pub(super) fn start_of(&self, day: Day) -> i64 {
        self.first_instant_of(day.midnight())
    }

    /// The day that an instant belongs to.
    ///
    /// That is the date which the wall clock shows, but where clocks were set back over midnight (from 00:01 to 23:01
    /// in St. John's): a day that has begun goes on.
    pub(super) fn day_of(&self, instant: i64) -> Day {
        let mut day = Day::of_wall_clock(self.wall_clock(instant));
        while self.start_of(day.plus(1)) <= instant {
            day = day.plus(1);
        }
        day
    }

    /// The next instant, after this one, at which the zone's offset changes.
    pub(super) fn next_change(&self, after: i64) -> Option<i64> {
        let mut at = after;
        let offset = self.offset_ms(after);
        // Some changes are of a name or of what counts as summer time, and no clock moves.
        iter::from_fn(|| {
            at = self.0.following(timestamp(at)).next()?.timestamp().as_millisecond();
            Some(at)
        })
        .find(|change| self.offset_ms(*change) != offset)
    }

    fn offset_ms(&self, instant: i64) -> i64 {
        i64::from(self.0.to_offset(timestamp(instant)).seconds()) * 1_000
    }
}

/// As jiff has it. Its instants end a day before the year 9999 does; what is later has the offset of the last one.
fn timestamp(instant: i64) -> Timestamp {
    let nearest = if instant < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(instant).unwrap_or(nearest)
}

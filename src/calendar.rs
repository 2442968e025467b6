//! Days of people, as instants: ranges, what they are compared with, and the buckets that they fall into.
//!
//! Owns what `docs/numbers.md` says of ranges, days and zones. Everything here turns texts and the time of now into
//! milliseconds since 1970; what was counted between these is the business of others. Pure: no clock, no file. The
//! rules of the zones are the ones that were compiled in, so that every machine gives the same answer.

mod buckets;
mod compare;
mod day;
mod interval;
mod moment;
mod period;
mod range;
mod zone;

pub use buckets::{Bucket, TooMany, buckets, buckets_like};
pub use compare::{Compare, comparison};
pub use interval::{Interval, IntervalChoice};
pub use moment::Moment;
pub use period::Period;
pub use range::Range;
pub use zone::Zone;

#[cfg(test)]
mod tests;

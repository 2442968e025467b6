//! What is odd about an event that is stored all the same: told to its client, and counted by kind.

use std::borrow::Cow;

/// The kinds of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningCode {
    /// The timestamp is before 2000, and would be a likely time if it were seconds.
    TimestampLooksLikeSeconds,
    /// The timestamp is before 2000.
    TimestampBefore2000,
    /// The timestamp is too far ahead, and the arrival is stored in its place.
    TimestampAhead,
    /// The referrer is no absolute URL that is taken, and null is stored in its place.
    ReferrerDropped,
    /// Half a surrogate pair in a text is stored as U+FFFD.
    TextRepaired,
    /// The page is of none of its website's hosts.
    HostNotListed,
}

impl WarningCode {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::TimestampLooksLikeSeconds,
        Self::TimestampBefore2000,
        Self::TimestampAhead,
        Self::ReferrerDropped,
        Self::TextRepaired,
        Self::HostNotListed,
    ];

    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimestampLooksLikeSeconds => "TIMESTAMP_LOOKS_LIKE_SECONDS",
            Self::TimestampBefore2000 => "TIMESTAMP_BEFORE_2000",
            Self::TimestampAhead => "TIMESTAMP_AHEAD",
            Self::ReferrerDropped => "REFERRER_DROPPED",
            Self::TextRepaired => "TEXT_REPAIRED",
            Self::HostNotListed => "HOST_NOT_LISTED",
        }
    }
}

/// One oddity of one stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The event's place in its batch, or 0.
    pub index: usize,
    /// The member that is odd.
    pub field: &'static str,
    /// What kind of oddity.
    pub code: WarningCode,
    /// What was done about it, in words.
    pub message: Cow<'static, str>,
}

/// The oddities of one request: all are counted, the first ones are told. Without any, no memory is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    told: Vec<Warning>,
    // There are some for each event of a request at the most; and every request that waits has room for these.
    counts: [u32; WarningCode::ALL.len()],
}

impl Warnings {
    pub(super) fn add(&mut self, warning: Warning, told_max: usize) {
        self.counts[warning.code as usize] += 1;
        if self.told.len() < told_max {
            self.told.push(warning);
        }
    }

    /// The first ones, in the order of their events and there of the members.
    pub fn told(&self) -> &[Warning] {
        &self.told
    }

    /// How many there are of each kind that is there.
    pub fn counts(&self) -> impl Iterator<Item = (WarningCode, u64)> {
        let counts = WarningCode::ALL.into_iter().zip(self.counts.map(u64::from));
        counts.filter(|(_, count)| *count > 0)
    }

    /// How many there are that are not told.
    pub fn untold(&self) -> u64 {
        self.counts.map(u64::from).iter().sum::<u64>() - self.told.len() as u64
    }
}

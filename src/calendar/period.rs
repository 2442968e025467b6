//! The names of ranges that move with the time.

/// A range that is named by how it lies to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// This day.
    Today,
    /// The day before.
    Yesterday,
    /// The last 24 hours.
    Hours24,
    /// Seven days, the last of which is today.
    Days7,
    /// Four weeks, the last day of which is today.
    Days28,
    /// Thirty days, the last of which is today.
    Days30,
    /// Thirteen weeks, the last day of which is today.
    Days91,
    /// This calendar month.
    Month,
    /// The calendar month before.
    LastMonth,
    /// This calendar year.
    Year,
    /// Twelve calendar months, the last of which is this one.
    Months12,
    /// From the day of the first event up to the end of today.
    All,
}

impl Period {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 12] = [
        Self::Today,
        Self::Yesterday,
        Self::Hours24,
        Self::Days7,
        Self::Days28,
        Self::Days30,
        Self::Days91,
        Self::Month,
        Self::LastMonth,
        Self::Year,
        Self::Months12,
        Self::All,
    ];

    /// The period with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Yesterday => "yesterday",
            Self::Hours24 => "24h",
            Self::Days7 => "7d",
            Self::Days28 => "28d",
            Self::Days30 => "30d",
            Self::Days91 => "91d",
            Self::Month => "month",
            Self::LastMonth => "lastmonth",
            Self::Year => "year",
            Self::Months12 => "12mo",
            Self::All => "all",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_period() {
        for period in Period::ALL {
            assert_eq!(Period::from_name(period.as_str()), Some(period));
        }
        for name in ["", "Today", "8d", "7d ", "7d\0"] {
            assert_eq!(Period::from_name(name), None, "{name:?}");
        }
    }
}

//! One event, as numbers are made of it.

/// The longest pause between two events of a visit, in milliseconds. Part of the format: fragments end at longer ones.
pub(crate) const PAUSE_MAX_MS: i64 = 30 * 60 * 1_000;

/// Whose events a fragment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FragmentKey {
    /// The hash of the visitor's id.
    pub(crate) visitor: u64,
    /// Half of the hash of the session's id: it tells the sessions of one visitor apart.
    pub(crate) session: u32,
}

/// An event. Page, name and so on are numbers in the dictionaries of the piece that it is in; 0 is nothing, and
/// [`Hit::TOO_MANY`] a value that the dictionary had no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// `createdAt`, in milliseconds since 1970, UTC.
    pub(crate) at: i64,
    /// Its place among events of the same time, within its piece.
    pub(crate) order: u32,
    pub(crate) page: u32,
    pub(crate) name: u32,
    pub(crate) acquisition: u32,
    pub(crate) client: u32,
    pub(crate) location: u32,
    /// Visible time that it reports, in milliseconds.
    pub(crate) engaged_ms: u32,
    pub(crate) kind: Kind,
    /// Of `Event.flags`, and [`Hit::GONE`].
    pub(crate) flags: u8,
}

/// What an event counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) u8);

impl Kind {
    pub(crate) const PAGEVIEW: u8 = 1;
    /// A click or custom event that shows that somebody does something.
    pub(crate) const INTERACTION: u8 = 2;
    /// Reports a visible time.
    pub(crate) const ENGAGEMENT: u8 = 4;

    pub(crate) fn is_pageview(self) -> bool {
        self.0 & Self::PAGEVIEW != 0
    }

    pub(crate) fn is_interaction(self) -> bool {
        self.0 & Self::INTERACTION != 0
    }

    pub(crate) fn is_engagement(self) -> bool {
        self.0 & Self::ENGAGEMENT != 0
    }
}

impl Hit {
    /// The number of a value that a full dictionary did not take.
    pub(crate) const TOO_MANY: u32 = u32::MAX;
    /// Flags of `Event.flags` with which an event counts only where that is asked for: a bot's, or spam.
    pub(crate) const UNWANTED: u8 = 1 | 2;
    /// All flags that `Event.flags` may have and that are kept.
    pub(crate) const STORED_FLAGS: i64 = 0x7f;
    /// The event is hidden, or its fragment stands in only to be taken off.
    pub(crate) const GONE: u8 = 128;

    /// The order in which events follow each other.
    pub(crate) fn place(&self) -> (i64, u32) {
        (self.at, self.order)
    }

    /// Whether another event at `at` follows within the same fragment.
    pub(crate) fn is_joined_by(&self, at: i64) -> bool {
        at - self.at <= PAUSE_MAX_MS
    }
}

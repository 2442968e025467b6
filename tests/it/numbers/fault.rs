//! Rules of docs/numbers.md that can be taken away from the oracle, one at a time, to see that somebody notices.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    PauseOfAMillisecondLess,
    PauseOfAMillisecondMore,
    SessionsJoinOverPauses,
    SessionsJoinVisitors,
    VisitorsJoinSessions,
    MidnightEndsVisits,
    /// Each so many events in the order of arrival.
    SegmentsEndVisits(usize),
    TiesBackwards,
    InOrderOfArrival,
    WebsitesMix,
    ErasedOnesStay,
    QuarterOfTheCutCounts,
    VisitsBeginWithAView,
    DurationOfViews,
    EngagementInteracts,
    EngagementHasNoBound,
    SilentOnesInteract,
    RangeHasItsEnd,
    RateOfAllVisits,
    HalvesDown,
    NamesInAnotherOrder,
    FragmentsAreDropped,
    AllFragmentsStay,
    FragmentsKeepTheirQuery,
    PortsStay,
    HostsKeepTheirCase,
    LastOfAQueryCounts,
    PlusIsPlus,
    WwwStays,
    OwnReferrersStay,
    SourceOfReferrerOnly,
    ClientOfTheFirstView,
    AcquisitionOfTheLastView,
    ExitIsEntry,
    LongValuesStay,
    EmptyIsAValue,
    StarIsALetter,
    StarTakesNone,
    NotLeavesNoNone,
    RepeatedMeansAnd,
    RepeatedNotMeansOr,
    DomainIsNoHost,
    WwwIsAnotherHost,
    HostsAreStrangers,
    ViewsHaveNoProperties,
    NumbersAreNoProperties,
    TruthIsNoProperty,
    AnythingIsAProperty,
    VisitsForEachView,
    RowsOfWholeVisits,
    RowsRateAllVisits,
    RowsMeanOrToFilters,
    VisitsAreListedByEvent,
    EventsAreInteractions,
    NoneIsNotListed,
    NoneIsAlwaysListed,
    EngagementIsListed,
    QuietValuesAreNotListed,
    ValuesOfVisitsAloneAreNotListed,
    ValuesOfAllTimeAreListed,
    OrderIsOfVisitors,
    TiesByValueBackwards,
    ShareOfVisits,
    ShareOfRows,
    GoalsHaveNoFilters,
    GoalEventsArePatterns,
    ConversionsAreEvents,
    RateOfVisits,
    WhatIsToComeIsLive,
    LiveIsOfWholeMinutes,
    LastMinuteIsOver,
    NobodyIsLive,
}

/// All rules, or all but one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules(pub Option<Fault>);

impl Rules {
    pub fn lack(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}

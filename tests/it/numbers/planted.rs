//! The comparison finds what it is there for: answers that are made of an oracle that lacks one of the rules differ
//! within so many random questions, and those of the whole oracle never do.

use serde_json::{Map, Value, json};

use super::{
    calendar::{Bucket, Range, Zone},
    compare::{Moment, differences},
    dice::Dice,
    fault::{Fault, Rules},
    goals::GOALS,
    oracle::{self, Event, Left, Oracle, QUARTER_MS, Totals, Website, change},
    planted_lists,
    questions::{Kind, Question, question, text_of},
    traffic::{self, Shape, VISITORS},
};

const FROM: i64 = 1_743_120_000_000;
pub const NOW: i64 = FROM + 9 * 24 * 60 * 60 * 1_000;
const QUESTIONS_MAX: usize = 4_000;
const ROWS: usize = 60;
const FAULTS: [Fault; 68] = [
    Fault::PauseOfAMillisecondLess,
    Fault::PauseOfAMillisecondMore,
    Fault::SessionsJoinOverPauses,
    Fault::SessionsJoinVisitors,
    Fault::VisitorsJoinSessions,
    Fault::MidnightEndsVisits,
    Fault::SegmentsEndVisits(ROWS),
    Fault::TiesBackwards,
    Fault::InOrderOfArrival,
    Fault::WebsitesMix,
    Fault::ErasedOnesStay,
    Fault::QuarterOfTheCutCounts,
    Fault::VisitsBeginWithAView,
    Fault::DurationOfViews,
    Fault::EngagementInteracts,
    Fault::EngagementHasNoBound,
    Fault::SilentOnesInteract,
    Fault::RangeHasItsEnd,
    Fault::RateOfAllVisits,
    Fault::HalvesDown,
    Fault::NamesInAnotherOrder,
    Fault::FragmentsAreDropped,
    Fault::AllFragmentsStay,
    Fault::FragmentsKeepTheirQuery,
    Fault::PortsStay,
    Fault::HostsKeepTheirCase,
    Fault::LastOfAQueryCounts,
    Fault::PlusIsPlus,
    Fault::WwwStays,
    Fault::OwnReferrersStay,
    Fault::SourceOfReferrerOnly,
    Fault::ClientOfTheFirstView,
    Fault::AcquisitionOfTheLastView,
    Fault::ExitIsEntry,
    Fault::LongValuesStay,
    Fault::EmptyIsAValue,
    Fault::StarIsALetter,
    Fault::StarTakesNone,
    Fault::NotLeavesNoNone,
    Fault::RepeatedMeansAnd,
    Fault::RepeatedNotMeansOr,
    Fault::DomainIsNoHost,
    Fault::WwwIsAnotherHost,
    Fault::HostsAreStrangers,
    Fault::ViewsHaveNoProperties,
    Fault::NumbersAreNoProperties,
    Fault::TruthIsNoProperty,
    Fault::AnythingIsAProperty,
    Fault::VisitsForEachView,
    Fault::RowsOfWholeVisits,
    Fault::RowsRateAllVisits,
    Fault::RowsMeanOrToFilters,
    Fault::VisitsAreListedByEvent,
    Fault::EventsAreInteractions,
    Fault::NoneIsNotListed,
    Fault::NoneIsAlwaysListed,
    Fault::EngagementIsListed,
    Fault::QuietValuesAreNotListed,
    Fault::ValuesOfVisitsAloneAreNotListed,
    Fault::ValuesOfAllTimeAreListed,
    Fault::OrderIsOfVisitors,
    Fault::TiesByValueBackwards,
    Fault::ShareOfVisits,
    Fault::ShareOfRows,
    Fault::GoalsHaveNoFilters,
    Fault::GoalEventsArePatterns,
    Fault::ConversionsAreEvents,
    Fault::RateOfVisits,
];

/// What the hosts of a website may be, beside its domain.
pub const HOSTS: [&[&str]; 5] =
    [&[], &["www.example.com"], &["shop.example"], &["blog.example.com", "www.shop.example"], &["www.google.de"]];

/// Websites of the tests: one whose domain has a `www.`, and one without.
pub fn websites() -> Vec<Website> {
    let goals = |at: usize| GOALS.into_iter().skip(at).step_by(2).collect();
    let website =
        |(at, domain): (usize, &str)| Website { domain: domain.to_owned(), goals: goals(at), ..Website::default() };
    ["example.com", "www.shop.example"].into_iter().enumerate().map(website).collect()
}

/// The same, with some of the hosts.
pub fn websites_with_hosts(dice: &mut Dice) -> Vec<Website> {
    let with_hosts =
        |website| Website { hosts: dice.pick(&HOSTS).iter().map(|&host| host.to_owned()).collect(), ..website };
    websites().into_iter().map(with_hosts).collect()
}

#[test]
fn the_whole_oracle_agrees_with_itself() {
    assert_eq!(found_after(Rules::default(), 1, 300), None);
}

#[test]
fn every_rule_that_is_taken_away_is_missed() {
    for (seed, fault) in (2..).zip(FAULTS) {
        let found = found_after(Rules(Some(fault)), seed, QUESTIONS_MAX);
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?} was not noticed in {QUESTIONS_MAX} questions");
    }
}

/// An oracle with random events of two websites.
pub fn traffic_of(dice: &mut Dice) -> Oracle {
    let shape = Shape { websites: 2, events: 500, from: FROM, to: NOW, some_on_arrival: false };
    let arrived = |(arrival, event)| Event { arrival, ..event };
    let events = traffic::events(dice, shape).into_iter().enumerate().map(arrived).collect();
    Oracle { websites: websites_with_hosts(dice), events, ..Oracle::default() }
}

/// How many questions it took until an answer of an oracle with these rules was not the right one.
fn found_after(rules: Rules, seed: u64, questions_max: usize) -> Option<usize> {
    let dice = &mut Dice(seed);
    let mut right = traffic_of(dice);
    let mut wrong = Oracle { rules, ..right.clone() };
    for oracle in [&mut right, &mut wrong] {
        oracle.erase(0, VISITORS[3]);
    }
    (1..=questions_max).find(|at| {
        if at % 50 == 0 {
            right.websites = websites_with_hosts(dice);
            wrong.websites.clone_from(&right.websites);
        }
        let question = question(dice, &right, NOW);
        let cut = FROM + 24 * 4 * QUARTER_MS + dice.between(0, 40) * QUARTER_MS;
        let moment = Moment { now: NOW, expired_before: dice.once_in(4).then_some(cut) };
        let answer = answer(&wrong, &question, moment);
        let found = differences(&right, &question, &answer, moment);
        assert!(found.is_empty() || rules.0.is_some(), "seed {seed}: {}\n{found:#?}", question.path("pm-x"));
        !found.is_empty()
    })
}

/// What hitlog would answer if it counted as an oracle does.
fn answer(oracle: &Oracle, question: &Question, moment: Moment) -> Value {
    let zone = Zone::named(question.zone_name());
    let first_at = oracle.first_at(question.website, moment.expired_before);
    let day = 24 * 60 * 60 * 1_000;
    let range = question.range(&zone, moment.now, first_at).unwrap_or((moment.now - day, moment.now));
    let mut earlier = match question.compare {
        Some("previous") => Some(zone.previous(range)),
        Some("year") => Some(zone.year_earlier(range)),
        _ => None,
    };
    if let Some(earlier) = earlier.as_mut().filter(|_| range.1 > moment.now) {
        earlier.1 = earlier.1.min(earlier.0 + moment.now - range.0);
    }
    let left = oracle.left(question.website, &question.filters, moment.expired_before);
    let said =
        |range: Range| json!({"from": text_of(range.0), "to": text_of(range.1), "timezone": question.zone_name()});
    let meta = json!({"asOf": text_of(moment.now), "complete": true, "visitors": "exact", "visitorsError": 0.0});
    if matches!(question.kind, Kind::Goals) {
        let Question { website, filters, .. } = question;
        let expired_before = moment.expired_before;
        let asked = oracle::Question { website: *website, from: range.0, to: range.1, filters, expired_before };
        return json!({"range": said(range), "goals": oracle.goals_shown(&asked), "meta": meta});
    }
    if let Kind::Top(top) = &question.kind {
        let mut answer = planted_lists::list(oracle, question, top, range, moment.expired_before);
        answer["range"] = said(range);
        answer["meta"] = meta;
        return answer;
    }
    if matches!(question.kind, Kind::Series) {
        let interval = question.interval(range).unwrap_or(super::calendar::Interval::Day);
        let buckets = zone.buckets(range, interval);
        let comparison = earlier.map(|earlier| {
            let mut then = series(&left, &zone.buckets(earlier, interval), earlier, moment.now);
            then.resize(buckets.len(), Value::Null);
            then
        });
        let series = series(&left, &buckets, range, moment.now);
        let name = format!("{interval:?}").to_lowercase();
        let range = said(range);
        return json!({"range": range, "interval": name, "series": series, "comparison": comparison, "meta": meta});
    }
    let now = left.totals(range.0, range.1);
    let comparison = earlier.map(|earlier| {
        let then = left.totals(earlier.0, earlier.1);
        let changes: Map<String, Value> = now.named().into_iter().zip(then.named()).map(changed).collect();
        json!({"range": said(earlier), "metrics": metrics(&then), "change": changes})
    });
    json!({"range": said(range), "metrics": metrics(&now), "comparison": comparison, "meta": meta})
}

type Metric = (&'static str, Option<u64>, u64);

fn changed(((name, now, _), (_, then, _)): (Metric, Metric)) -> (String, Value) {
    (name.to_owned(), change(now, then).map_or(Value::Null, |tenths| json!(tenths as f64 / 10.0)))
}

fn metrics(totals: &Totals) -> Map<String, Value> {
    let value = |units: u64, per_one: u64| match per_one {
        1 => json!(units),
        _ => json!(units as f64 / per_one as f64),
    };
    let named = totals.named().into_iter();
    named
        .map(|(name, units, per_one)| (name.to_owned(), units.map_or(Value::Null, |units| value(units, per_one))))
        .collect()
}

fn series(left: &Left, buckets: &[Bucket], (from, to): Range, now: i64) -> Vec<Value> {
    let one = |bucket: &Bucket| {
        let mut one = metrics(&left.totals(bucket.from.max(from), bucket.to.min(to)));
        one.insert("at".into(), text_of(bucket.from).into());
        one.insert("label".into(), bucket.date.to_string().into());
        one.insert("partial".into(), (bucket.to > now || bucket.from < from || bucket.to > to).into());
        Value::Object(one)
    };
    buckets.iter().map(one).collect()
}

//! Goals of docs/numbers.md, and answers about them.

use serde_json::{Value, json};

use super::{
    by_hand::{ALWAYS, MINUTE, event, of, oracle, view},
    compare::Comparison,
    fault::Fault,
    filed,
    filters::Filters,
    oracle::{Event, Kept, Oracle, Question, rounded},
};

/// What a website is there for.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    pub name: &'static str,
    pub event: Option<&'static str>,
    pub page: Option<&'static str>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub conversions: u64,
    pub converted: u64,
    /// In tenths of a percent.
    pub rate: u64,
}

const fn by_event(name: &'static str, event: &'static str) -> Goal {
    Goal { name, event: Some(event), page: None }
}

const fn by_page(name: &'static str, page: &'static str) -> Goal {
    Goal { name, event: None, page: Some(page) }
}

/// Some that events of the tests reach, and some that none does.
pub const GOALS: [Goal; 12] = [
    by_event("Signup", "signup"),
    by_event("A star is a letter", "buy*now!"),
    by_event("And is no pattern", "*"),
    by_event("Clicks", "click"),
    by_event("Time", "$engagement"),
    by_event("Other letters", "Signup"),
    by_page("Blog", "/blog*"),
    by_page("One page", "/blog/b\\*c"),
    by_page("Any", "*"),
    by_page("Front", "/"),
    by_page("Of a host", "shop.example/*"),
    by_page("A mark", "\\!x"),
];

impl Oracle {
    pub fn goals(&self, asked: &Question) -> Vec<Reached> {
        let Question { website, from, to, filters, expired_before } = *asked;
        let filters = if self.rules.lack(Fault::GoalsHaveNoFilters) { &[] } else { filters };
        let kept = self.kept(website, filters, expired_before);
        let all = self.left_of(&kept, false).totals(from, to);
        let reached = |goal: &Goal| {
            let left = self.left_of(&self.reaching(website, goal, &kept), false);
            let totals = left.totals(from, to);
            let of_events = goal.event.is_some() || self.rules.lack(Fault::ConversionsAreEvents);
            let conversions = if of_events { left.events(from, to) } else { totals.pageviews };
            let rate = match self.rules.lack(Fault::RateOfVisits) {
                true => rounded(totals.visits * 1_000, all.visits),
                false => rounded(totals.visitors * 1_000, all.visitors),
            };
            Reached { conversions, converted: totals.visitors, rate }
        };
        self.websites[website].goals.iter().map(reached).collect()
    }

    /// What is left by a filter for what reaches a goal.
    fn reaching<'a>(&self, website: usize, goal: &Goal, kept: &[Kept<'a>]) -> Vec<Kept<'a>> {
        let (site, rules) = (&self.websites[website], self.rules);
        let is_literal = goal.event.is_some() && !rules.lack(Fault::GoalEventsArePatterns);
        let (name, text) = match *goal {
            Goal { event: Some(event), .. } => ("event", event),
            Goal { page, .. } => ("page", page.unwrap_or_default()),
        };
        let filters = Filters::new(&[(name.to_owned(), text.to_owned())], rules);
        let reaches = |event: &Event| {
            let value = filed::of_event(site, event, name, rules);
            if is_literal { value.as_deref() == Some(text) } else { filters.leave(&[name], |_| value.clone()) }
        };
        let reaching = |kept: &Kept<'a>| {
            let hits: Vec<_> = kept.hits.iter().copied().filter(|event| reaches(event)).collect();
            Some(Kept { hits, ..kept.clone() }).filter(|kept| !kept.hits.is_empty())
        };
        kept.iter().filter_map(reaching).collect()
    }

    /// The goals of an answer.
    pub fn goals_shown(&self, asked: &Question) -> Value {
        let shown = |(goal, Reached { conversions, converted, rate }): (&Goal, Reached)| {
            json!({
                "name": goal.name, "event": goal.event, "page": goal.page, "conversions": conversions,
                "converted": converted, "conversionRate": rate as f64 / 10.0
            })
        };
        self.websites[asked.website].goals.iter().zip(self.goals(asked)).map(shown).collect()
    }
}

impl Comparison<'_> {
    pub fn goals(&mut self, oracle: &Oracle, (from, to): (i64, i64)) {
        let asked = Question {
            website: self.question.website,
            from,
            to,
            filters: &self.question.filters,
            expired_before: self.moment.expired_before,
        };
        let (got, expected) = (&self.answer["goals"], oracle.goals_shown(&asked));
        self.expect("goals", got, *got == expected, &expected);
    }
}

#[test]
fn what_reaches_a_goal() {
    let named = |name: &str, path: &str, at| event("custom", path, at, json!({ "name": name }));
    let mut oracle = oracle([
        of("one", view("/docs/a", 0)),
        of("one", view("/docs/b", MINUTE)),
        of("one", named("a*b", "/x", MINUTE)),
        of("two", view("/x", 0)),
        of("two", named("a*b", "/x", 0)),
        of("two", named("axb", "/docs/c", 0)),
        of("three", view("/x", 0)),
    ]);
    oracle.websites[0].goals = vec![by_event("Star", "a*b"), by_page("Docs", "/docs/*"), by_page("None", "/none")];
    let (from, to) = ALWAYS;
    let asked = Question { website: 0, from, to, filters: &[], expired_before: None };
    let reached = |[conversions, converted, rate]: [u64; 3]| Reached { conversions, converted, rate };
    // The one who did something on a page without a view of it is left by a filter for that page, too.
    assert_eq!(oracle.goals(&asked), [[2, 2, 667], [2, 2, 667], [0, 0, 0]].map(reached));
    let filters = [("entryPage".to_owned(), "/x".to_owned())];
    let asked = Question { filters: &filters, ..asked };
    assert_eq!(oracle.goals(&asked), [[1, 1, 500], [0, 1, 500], [0, 0, 0]].map(reached));
}

//! Lists of docs/numbers.md: one value after the other is asked for, beside the filters of the question.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{
    fault::Fault,
    filed,
    filters::escaped,
    oracle::{Kept, Left, Oracle, Question, Totals, first_view, rounded},
};

/// What a list may be in the order of.
pub const ORDERS: [&str; 4] = ["visitors", "visits", "pageviews", "events"];

/// A value, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub value: Option<String>,
    pub totals: Totals,
    pub events: u64,
    /// In tenths of a percent.
    pub share: u64,
}

/// A run of events that is left, with the value of each of those that are.
struct Valued<'a> {
    kept: Kept<'a>,
    values: Vec<Option<String>>,
    /// That of the first page view.
    at_entry: Option<String>,
}

impl<'a> Valued<'a> {
    /// What is left of it by a filter for a value, which is another one than those of the question.
    fn with(&self, value: &Option<String>, by_entry: bool) -> Option<Kept<'a>> {
        let has_value = |(_, own): &(&&'a _, &Option<String>)| *own == value;
        let hits: Vec<_> = self.kept.hits.iter().zip(&self.values).filter(has_value).map(|(event, _)| *event).collect();
        let began_there = self.kept.began_there && (!by_entry || self.at_entry == *value);
        Some(Kept { run: self.kept.run.clone(), hits, began_there }).filter(|kept| !kept.hits.is_empty())
    }
}

impl Oracle {
    /// All rows of the list of a name or of a property, in their order.
    pub fn list(&self, asked: &Question, name: &str, order: &str) -> Vec<Row> {
        let Question { website, from, to, filters, expired_before } = *asked;
        let kept = self.kept(website, filters, expired_before);
        let by_entry = filters.iter().any(|(name, _)| filed::OF_PAGES.contains(&&**name));
        let all = self.left_of(&kept, by_entry).totals(from, to);
        let valued: Vec<Valued> = kept.into_iter().map(|kept| self.valued(website, kept, name)).collect();
        let values: BTreeSet<&Option<String>> = valued.iter().flat_map(|valued| &valued.values).collect();
        let mut rows = Vec::new();
        for value in values.into_iter().filter(|value| self.may_be_listed(name, value)) {
            let left = self.of_value(asked, &valued, name, value);
            let (totals, events) = (left.totals(from, to), left.events(from, to));
            let events = if self.rules.lack(Fault::EventsAreInteractions) { totals.interactions } else { events };
            rows.push(Row { value: value.clone(), totals, events, share: 0 });
        }
        rows.retain(|row| self.is_listed(row));
        let lacks = |fault| self.rules.lack(fault);
        let visitors_of_rows = rows.iter().map(|row| row.totals.visitors).sum();
        for row in &mut rows {
            row.share = match () {
                () if lacks(Fault::ShareOfVisits) => rounded(row.totals.visits * 1_000, all.visits),
                () if lacks(Fault::ShareOfRows) => rounded(row.totals.visitors * 1_000, visitors_of_rows),
                () => rounded(row.totals.visitors * 1_000, all.visitors),
            };
        }
        self.sort(&mut rows, order);
        rows
    }

    fn valued<'a>(&self, website: usize, kept: Kept<'a>, name: &str) -> Valued<'a> {
        let (site, rules) = (&self.websites[website], self.rules);
        if filed::OF_VISIT.contains(&name) {
            let of = |run: &[&'a _]| filed::of_visit(site, run, name, rules);
            let of_run = of(&kept.run);
            let by_event = rules.lack(Fault::VisitsAreListedByEvent);
            let values = kept.hits.iter().map(|event| if by_event { of(&[event]) } else { of_run.clone() }).collect();
            return Valued { kept, values, at_entry: None };
        }
        let of = |event: &'a _| filed::of_event(site, event, name, rules);
        let values = kept.hits.iter().map(|event| of(event)).collect();
        let at_entry = first_view(&kept.run).and_then(of);
        Valued { kept, values, at_entry }
    }

    /// What a filter for a value leaves of what is left already.
    fn of_value(&self, asked: &Question, valued: &[Valued], name: &str, value: &Option<String>) -> Left {
        let lacks = |fault| self.rules.lack(fault);
        let is_of_pages = filed::OF_PAGES.contains(&name) && !lacks(Fault::RowsRateAllVisits);
        let by_entry = is_of_pages || asked.filters.iter().any(|(name, _)| filed::OF_PAGES.contains(&&**name));
        if lacks(Fault::RowsMeanOrToFilters) && !name.starts_with(filed::PROPERTY) {
            let text = value.as_deref().map_or_else(String::new, escaped);
            let filters = [asked.filters, &[(name.to_owned(), text)]].concat();
            return self.left(asked.website, &filters, asked.expired_before);
        }
        let mut kept: Vec<Kept> = Vec::new();
        for run in valued {
            let Some(mut left) = run.with(value, is_of_pages) else { continue };
            if lacks(Fault::RowsOfWholeVisits) {
                left.hits.clone_from(&run.kept.hits);
            }
            let views = left.hits.iter().filter(|event| event.is_view()).count();
            let others = if lacks(Fault::VisitsForEachView) { views.saturating_sub(1) } else { 0 };
            kept.extend((0..others).map(|_| Kept { hits: Vec::new(), ..left.clone() }));
            kept.push(left);
        }
        self.left_of(&kept, by_entry)
    }

    /// Whether a value is one that is in the list of this name, if there is anything of it.
    fn may_be_listed(&self, name: &str, value: &Option<String>) -> bool {
        let lacks = |fault| self.rules.lack(fault);
        match value.as_deref() {
            None if name == "event" || name.starts_with(filed::PROPERTY) => lacks(Fault::NoneIsAlwaysListed),
            None => !lacks(Fault::NoneIsNotListed),
            Some("$engagement") if name == "event" => lacks(Fault::EngagementIsListed),
            Some(_) => true,
        }
    }

    fn is_listed(&self, row: &Row) -> bool {
        match self.rules.0 {
            Some(Fault::ValuesOfAllTimeAreListed) => true,
            Some(Fault::QuietValuesAreNotListed) => row.totals.visits > 0,
            Some(Fault::ValuesOfVisitsAloneAreNotListed) => row.events > 0,
            _ => row.events > 0 || row.totals.visits > 0,
        }
    }

    /// The most first, and none before a value.
    fn sort(&self, rows: &mut [Row], order: &str) {
        let order = if self.rules.lack(Fault::OrderIsOfVisitors) { "visitors" } else { order };
        let most = |row: &Row| match order {
            "visitors" => row.totals.visitors,
            "visits" => row.totals.visits,
            "pageviews" => row.totals.pageviews,
            "events" => row.events,
            other => panic!("{other} is no order of a list"),
        };
        rows.sort_by(|one, other| one.value.cmp(&other.value));
        if self.rules.lack(Fault::TiesByValueBackwards) {
            rows.reverse();
        }
        rows.sort_by_key(|row| Reverse(most(row)));
    }
}

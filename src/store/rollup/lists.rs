//! The lists that a sealed segment keeps of a website while they are made, all of them in one go through its events.

use std::collections::BTreeMap;

use super::{
    answer::Collector,
    bytes::Damaged,
    dictionary::Dictionaries,
    hit::Hit,
    list::{Group, Grouper, Grouping, ListKind, thin, write},
    visit::{Sink, Visit},
};

/// Most groups of a list that is kept: where nearly every event has another value, a list is as large as the events
/// themselves, and is made of these when it is asked for.
const GROUPS_MAX: usize = 32_768;

/// What each group has, by its number.
type Groups = Vec<(u32, Group)>;

/// A website's lists while they are made.
#[derive(Default)]
pub(super) struct ListsBuilder {
    lists: BTreeMap<ListKind, Groups>,
    /// Those that have too many groups.
    dropped: Vec<ListKind>,
}

impl ListsBuilder {
    /// How those that have not too many groups are grouped.
    pub(super) fn groupings(&mut self, dictionaries: &Dictionaries) -> Result<Vec<(ListKind, Grouping)>, Damaged> {
        let mut groupings = Vec::new();
        for kind in ListKind::ALL {
            if self.dropped.contains(&kind) {
                continue;
            }
            let grouping = kind.grouping(dictionaries)?;
            if kind == ListKind::Path && grouping.is_by_number() {
                continue;
            }
            if grouping.groups() > GROUPS_MAX {
                self.dropped.push(kind);
                self.lists.remove(&kind);
                continue;
            }
            self.begin(kind);
            groupings.push((kind, grouping));
        }
        Ok(groupings)
    }

    /// What the passes before have of a list that they had no need of: of paths where they are the pages.
    fn begin(&mut self, kind: ListKind) {
        if kind == ListKind::Path && !self.lists.contains_key(&kind) {
            self.lists.extend(self.lists.get(&ListKind::PAGE).cloned().map(|groups| (kind, groups)));
        }
    }

    /// Adds what another pass has found, whose visitors are others.
    pub(super) fn add(&mut self, found: Vec<(ListKind, Groups)>) {
        for (kind, groups) in found {
            let own = self.lists.entry(kind).or_default();
            if own.is_empty() {
                *own = groups;
            } else {
                let mut all: BTreeMap<u32, Group> = std::mem::take(own).into_iter().collect();
                for (number, group) in groups {
                    match all.get_mut(&number) {
                        Some(known) => {
                            known.counts += group.counts;
                            known.visitors.add(&group.visitors);
                        }
                        None => drop(all.insert(number, group)),
                    }
                }
                *own = all.into_iter().collect();
            }
            own.iter_mut().for_each(|(_, group)| thin(group));
        }
    }

    /// Those that are kept, as bytes.
    pub(super) fn end(self) -> impl Iterator<Item = (ListKind, Vec<u8>)> {
        self.lists.into_iter().map(|(kind, groups)| (kind, write(&groups)))
    }
}

/// Makes all lists of a pass, and its sums.
pub(super) struct ListsSink {
    collector: Collector,
    groupers: Vec<(ListKind, Grouper)>,
}

impl ListsSink {
    pub(super) fn new(groupings: Vec<(ListKind, Grouping)>) -> Self {
        let grouper = |(kind, grouping)| (kind, Grouper::new(grouping, (i64::MIN, i64::MAX)));
        Self { collector: Collector::default(), groupers: groupings.into_iter().map(grouper).collect() }
    }

    /// Sums, and lists.
    pub(super) fn end(self) -> (Collector, Vec<(ListKind, Groups)>) {
        (self.collector, self.groupers.into_iter().map(|(kind, grouper)| (kind, grouper.end())).collect())
    }
}

impl Sink for ListsSink {
    fn begin_run(&mut self, run: &[Hit], entry: Option<&Hit>) {
        self.collector.begin_run(run, entry);
        self.groupers.iter_mut().for_each(|(_, grouper)| grouper.begin_run(run, entry));
    }

    fn event(&mut self, visitor: u64, hit: &Hit) {
        self.collector.event(visitor, hit);
        self.groupers.iter_mut().for_each(|(_, grouper)| grouper.event(visitor, hit));
    }

    fn visit(&mut self, visit: &Visit) {
        self.collector.visit(visit);
        self.groupers.iter_mut().for_each(|(_, grouper)| grouper.visit(visit));
    }
}

//! Numbers by value: what a list of pages, of countries or of campaigns is made of.
//!
//! What a value has is what is left by a filter for it: of an event, the events and the visits with one of them; of a
//! visit, the whole visit.

use std::collections::HashMap;

use super::{
    block::Needed,
    bytes::{Damaged, Reader, put},
    counts::Counts,
    dictionary::{Dictionaries, Values},
    dimension::{Dimension, Field, Own},
    hit::Hit,
    visit::{Sink, Visit},
    visitors::{HighVisitors, Visitors},
};

/// Different visitors of a value that are kept of a list that is thinned: the error of one value in one piece is 3.1 %
/// at the most, and less over several pieces with other visitors.
const THINNED_VISITORS: usize = 1_024;

/// What a value has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) counts: Counts,
    pub(crate) visitors: Visitors,
}

/// Which group each number of a dictionary is in. The first group, 0, is of nothing.
#[derive(Debug)]
pub(crate) struct Grouping {
    field: Field,
    group_of: Vec<u32>,
    /// The group of each event by its order, where that is not what it is filed under.
    by_order: Vec<u32>,
    /// Bounces are those of visits whose first page view is in the group.
    is_of_pages: bool,
}

/// The group of values that their dictionary had no room for.
pub(crate) const OTHER: u32 = Hit::TOO_MANY;

impl Grouping {
    /// By the values of a dimension as they are shown, which are put into `values`; a group has its number there.
    pub(crate) fn shown(
        dimension: Dimension,
        dictionaries: &Dictionaries,
        own: &Own,
        values: &mut Values,
    ) -> Result<Self, Damaged> {
        let field = dimension.field();
        let of = field.values(dictionaries);
        let group = |number| Ok(values.number(&dimension.shown(of.get(number), own)?));
        let group_of = (0..=of.len() as u32).map(group).collect::<Result<_, Damaged>>()?;
        let is_of_pages = matches!(dimension, Dimension::Page | Dimension::Hostname);
        Ok(Self { field, group_of, by_order: Vec::new(), is_of_pages })
    }

    /// By event: the group of each by its order in its piece, which counts from 0.
    fn by_order(by_order: Vec<u32>) -> Self {
        Self {
            field: Field::Name,
            group_of: by_order.iter().max().map(|last| vec![*last]).unwrap_or_default(),
            by_order,
            is_of_pages: false,
        }
    }

    /// How many groups there may be.
    pub(super) fn groups(&self) -> usize {
        // The number of a group is that of its first value.
        let is_first = |(number, group): &(usize, &u32)| *number == **group as usize;
        self.group_of.iter().enumerate().filter(is_first).count()
    }

    /// Whether each number is a group of its own.
    pub(super) fn is_by_number(&self) -> bool {
        self.group_of.iter().zip(0..).all(|(group, number)| *group == number)
    }

    /// The highest number of a group, but for that of the other ones.
    fn highest(&self) -> usize {
        self.group_of.iter().filter(|group| **group != OTHER).max().map_or(0, |group| *group as usize)
    }

    /// The group of a number of the dictionary.
    pub(crate) fn group(&self, number: u32) -> u32 {
        // A number that the dictionary does not have is one of those that it had no room for.
        self.group_of.get(number as usize).copied().unwrap_or(OTHER)
    }
}

/// What events were filed under in a list that is kept in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ListKind {
    /// By host, and by path, of the page of each event: groups have the number of the first page that has it. There is
    /// none of paths where it would be that of pages, as where all pages have one host.
    Host,
    Path,
    /// By the numbers of a field.
    Of(Field),
}

impl ListKind {
    /// By the numbers of pages.
    pub(crate) const PAGE: Self = Self::Of(Field::Page);
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Host,
        Self::Path,
        Self::Of(Field::Page),
        Self::Of(Field::Name),
        Self::Of(Field::Entry),
        Self::Of(Field::Exit),
        Self::Of(Field::Acquisition),
        Self::Of(Field::Client),
        Self::Of(Field::Location),
    ];

    /// Its number in files: for good.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Host => 0,
            Self::Path => 1,
            Self::Of(Field::Page) => 2,
            Self::Of(Field::Name) => 3,
            Self::Of(Field::Entry) => 4,
            Self::Of(Field::Exit) => 5,
            Self::Of(Field::Acquisition) => 6,
            Self::Of(Field::Client) => 7,
            Self::Of(Field::Location) => 8,
        }
    }

    /// The one from which a dimension's groups are put together without counting a visit twice, where they are grouped
    /// as they are shown.
    pub(crate) fn of(dimension: Dimension, own: &Own, shown: &Grouping) -> Self {
        match dimension {
            Dimension::Hostname => Self::Host,
            // Where each page is shown by itself, the list of pages is that of paths, and there is no other.
            Dimension::Page if !own.has_several && !shown.is_by_number() => Self::Path,
            _ => Self::Of(dimension.field()),
        }
    }

    /// How it groups.
    pub(crate) fn grouping(self, dictionaries: &Dictionaries) -> Result<Grouping, Damaged> {
        let part = match self {
            Self::Host => Dimension::Hostname,
            Self::Path => Dimension::Page,
            Self::Of(field) => {
                let group_of = (0..=field.values(dictionaries).len() as u32).collect();
                return Ok(Grouping { field, group_of, by_order: Vec::new(), is_of_pages: field == Field::Page });
            }
        };
        let mut first: HashMap<Box<[u8]>, u32> = HashMap::new();
        let pages = &dictionaries.pages;
        let mut group = |number| {
            let shown = part.shown(pages.get(number), &Own::default())?;
            Ok(if shown.is_empty() { 0 } else { *first.entry(shown.into()).or_insert(number) })
        };
        let group_of = (0..=pages.len() as u32).map(&mut group).collect::<Result<_, Damaged>>()?;
        Ok(Grouping { field: Field::Page, group_of, by_order: Vec::new(), is_of_pages: true })
    }
}

/// Makes groups of events and visits.
#[derive(Debug)]
pub(crate) struct Grouper {
    grouping: Grouping,
    /// What happened from here on, up to there, counts.
    span: (i64, i64),
    /// The place of a group, by its number; of the other ones at the end.
    places: Vec<u32>,
    groups: Vec<Building>,
    run: u64,
    /// The group of the run, where all its events are in one, and that of its first page view.
    of_run: Option<u32>,
    entry: u32,
    /// The places of groups in which the run has an event.
    touched: Vec<u32>,
}

#[derive(Debug)]
struct Building {
    group: u32,
    counts: Counts,
    visitors: Vec<u64>,
    /// The run in which the visitor was noted last, and the one in which there was an event.
    noted: u64,
    touched: u64,
}

const NONE: u32 = u32::MAX;

impl Grouper {
    /// Of what happened from an instant up to, not including, another.
    pub(crate) fn new(grouping: Grouping, span: (i64, i64)) -> Self {
        let groups = grouping.highest() + 1;
        Self {
            grouping,
            span,
            places: vec![NONE; groups + 1],
            groups: Vec::new(),
            run: 0,
            of_run: None,
            entry: 0,
            touched: Vec::new(),
        }
    }

    fn place(&mut self, group: u32) -> usize {
        let at = (group as usize).min(self.places.len() - 1);
        if self.places[at] == NONE {
            self.places[at] = self.groups.len() as u32;
            let (counts, visitors) = (Counts::default(), Vec::new());
            self.groups.push(Building { group, counts, visitors, noted: 0, touched: 0 });
        }
        self.places[at] as usize
    }

    fn has(&self, at: i64) -> bool {
        self.span.0 <= at && at < self.span.1
    }

    /// The groups that have anything, by their numbers.
    pub(crate) fn end(mut self) -> Vec<(u32, Group)> {
        self.groups.sort_unstable_by_key(|building| building.group);
        let group = |Building { group, counts, visitors, .. }| {
            let has_any = counts != Counts::default();
            has_any.then(|| (group, Group { counts, visitors: Visitors::all(visitors) }))
        };
        self.groups.into_iter().filter_map(group).collect()
    }
}

impl Sink for Grouper {
    fn begin_run(&mut self, run: &[Hit], entry: Option<&Hit>) {
        self.run += 1;
        self.touched.clear();
        let page = |hit: Option<&Hit>| hit.map_or(0, |hit| hit.page);
        let number = match self.grouping.field {
            Field::Page | Field::Name => {
                self.entry = self.grouping.group(page(entry));
                self.of_run = None;
                return;
            }
            Field::Entry => page(entry),
            Field::Exit => page(run.iter().rev().find(|hit| hit.kind.is_pageview())),
            Field::Acquisition => entry.map_or(0, |hit| hit.acquisition),
            Field::Client => run[0].client,
            Field::Location => run[0].location,
        };
        self.of_run = Some(self.grouping.group(number));
    }

    fn event(&mut self, visitor: u64, hit: &Hit) {
        let group = self.of_run.unwrap_or_else(|| match self.grouping.by_order.get(hit.order as usize) {
            Some(group) => *group,
            None => self.grouping.group(if self.grouping.field == Field::Page { hit.page } else { hit.name }),
        });
        let (is_in, run) = (self.has(hit.at), self.run);
        let place = self.place(group);
        let building = &mut self.groups[place];
        if building.touched != run {
            building.touched = run;
            self.touched.push(place as u32);
        }
        if is_in {
            building.counts.add_event(hit);
            if building.noted != run {
                building.noted = run;
                building.visitors.push(visitor);
            }
        }
    }

    fn visit(&mut self, visit: &Visit) {
        if !self.has(visit.begun_at) {
            return;
        }
        for place in &self.touched {
            let building = &mut self.groups[*place as usize];
            let is_entered = visit.is_entered && (!self.grouping.is_of_pages || building.group == self.entry);
            building.counts.add_visit(&Visit { is_entered, ..*visit });
        }
    }
}

/// What a piece has of each value of a dimension.
#[derive(Debug)]
pub(crate) struct List {
    values: Values,
    groups: Vec<(u32, Group)>,
}

impl List {
    /// Each value with what it has; `None` stands for all those that the dictionary had no room for, and nothing is an
    /// empty value.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (Option<&[u8]>, &Group)> {
        self.groups.iter().map(|(number, group)| ((*number != OTHER).then(|| self.values.get(*number)), group))
    }

    /// Leaves some of the visitors of each value, from which their number can be estimated.
    pub(crate) fn thin(&mut self) {
        self.groups.iter_mut().for_each(|(_, group)| thin(group));
    }

    /// Whether nothing has anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let of = |(_, group): &(u32, Group)| size_of::<(u32, Group)>() + group.visitors.memory_bytes();
        self.values.memory_bytes() + self.groups.iter().map(of).sum::<usize>()
    }
}

/// Makes a list of a piece.
pub(crate) struct Lister {
    grouper: Grouper,
    values: Values,
}

impl Lister {
    /// Of the values of a dimension; what happened from an instant up to, not including, another counts.
    pub(crate) fn new(
        dimension: Dimension,
        dictionaries: &Dictionaries,
        own: &Own,
        span: (i64, i64),
    ) -> Result<Self, Damaged> {
        let mut values = Values::unlimited();
        let grouping = Grouping::shown(dimension, dictionaries, own, &mut values)?;
        Ok(Self { grouper: Grouper::new(grouping, span), values })
    }

    /// Of values that are numbered already, by the order of the events that have them.
    pub(crate) fn by_order(values: Values, numbers: Vec<u32>, span: (i64, i64)) -> Self {
        Self { grouper: Grouper::new(Grouping::by_order(numbers), span), values }
    }

    /// What of an event's files it looks at.
    pub(crate) fn needed(&self) -> Needed {
        self.grouper.grouping.field.needed()
    }

    /// The list, with those values only that have anything.
    pub(crate) fn end(self) -> List {
        let mut values = Values::unlimited();
        let kept = |(number, group)| {
            let number = if number == OTHER { OTHER } else { values.number(self.values.get(number)) };
            (number, group)
        };
        let groups = self.grouper.end().into_iter().map(kept).collect();
        List { values, groups }
    }
}

impl Sink for Lister {
    fn begin_run(&mut self, run: &[Hit], entry: Option<&Hit>) {
        self.grouper.begin_run(run, entry);
    }

    fn event(&mut self, visitor: u64, hit: &Hit) {
        self.grouper.event(visitor, hit);
    }

    fn visit(&mut self, visit: &Visit) {
        self.grouper.visit(visit);
    }
}

/// Leaves some of the visitors of a group, from which their number can be estimated.
pub(super) fn thin(group: &mut Group) {
    group.visitors.thin(THINNED_VISITORS);
}

/// Groups as bytes. Of the hashes of visitors only the high half is written: enough to tell those of one group apart
/// where they are counted by estimate.
pub(super) fn write(groups: &[(u32, Group)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, groups.len() as u64);
    let mut before = 0;
    for (number, Group { counts, visitors }) in groups {
        put(&mut bytes, u64::from(number - before));
        before = *number;
        counts.write(&mut bytes);
        visitors.write_high(&mut bytes);
    }
    bytes
}

/// A list as it is kept in a file: what [`write()`] has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptList<'a>(pub(super) &'a [u8]);

/// What a group has in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptGroup<'a> {
    pub(crate) counts: Counts,
    pub(crate) visitors: HighVisitors<'a>,
}

impl KeptList<'_> {
    /// Hands each group on, in the order of their numbers.
    pub(crate) fn for_each(self, mut each: impl FnMut(u32, KeptGroup<'_>)) -> Result<(), Damaged> {
        let mut reader = Reader(self.0);
        let mut number = 0_u32;
        for at in 0..reader.number()? {
            let more = reader.small()?;
            number = number.checked_add(more).filter(|_| at == 0 || more > 0).ok_or(Damaged)?;
            let counts = Counts::read(&mut reader)?;
            each(number, KeptGroup { counts, visitors: HighVisitors::read(&mut reader)? });
        }
        reader.end()
    }
}

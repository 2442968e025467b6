//! Which of a website's events and visits are asked for.

use super::{
    block::Needed,
    bytes::Damaged,
    dictionary::{Dictionaries, Values},
    dimension::{Dimension, Own},
    hit::Hit,
    pattern::Pattern,
};

/// What one parameter asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Filter {
    dimension: Dimension,
    pattern: Pattern,
}

impl Filter {
    /// What is asked of a dimension, as docs/numbers.md has it.
    pub fn new(dimension: Dimension, text: &str) -> Self {
        Self { dimension, pattern: Pattern::of(text) }
    }

    /// What has this value, letter for letter.
    pub fn literally(dimension: Dimension, value: &str) -> Self {
        Self { dimension, pattern: Pattern::literal(value) }
    }

    /// What it looks at.
    pub(crate) fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// Whether it leaves a value of its dimension; an empty one is none.
    pub(crate) fn leaves(&self, value: &[u8]) -> bool {
        self.pattern.fits(value) != self.pattern.is_negated
    }
}

/// All that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Filters {
    /// Sorted by dimension.
    filters: Vec<Filter>,
    /// As sorted; what is left must be left by both.
    also: Vec<Filter>,
    own: Own,
}

/// Which numbers of a dictionary are asked for.
#[derive(Debug, Clone)]
struct Chosen {
    has: Vec<bool>,
    /// Whether values that the dictionary had no room for are.
    has_other: bool,
}

impl Chosen {
    fn has(&self, number: u32) -> bool {
        self.has.get(number as usize).copied().unwrap_or(self.has_other)
    }
}

/// Filters, looked up in the dictionaries of one piece. `None`: everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matcher {
    pages: Option<Chosen>,
    names: Option<Chosen>,
    entries: Option<Chosen>,
    exits: Option<Chosen>,
    acquisitions: Option<Chosen>,
    clients: Option<Chosen>,
    locations: Option<Chosen>,
}

impl Filters {
    pub(crate) fn new(filters: Vec<Filter>, own: Own) -> Self {
        Self { filters: sorted(filters), also: Vec::new(), own }
    }

    /// The same of a website with one host, or with several.
    #[cfg(test)]
    pub(super) fn of_site(mut self, has_several: bool) -> Self {
        self.own.has_several = has_several;
        self
    }

    /// What the website is.
    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    /// Whether nothing is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.also.is_empty()
    }

    /// Leaves only what these leave, too, whatever is asked of the same dimensions already.
    pub(crate) fn and(mut self, filters: Vec<Filter>) -> Self {
        self.also = sorted(filters);
        self
    }

    /// Whether a value of a dimension is asked for.
    fn allows(&self, dimension: Dimension, value: &[u8]) -> bool {
        [&self.filters, &self.also].into_iter().all(|filters| allows(filters, dimension, value))
    }

    fn of(&self, dimension: Dimension) -> impl Iterator<Item = &Filter> {
        self.filters.iter().chain(&self.also).filter(move |filter| filter.dimension == dimension)
    }

    /// Looks the values of a dictionary up, if any of these dimensions is asked for.
    fn choose(&self, dimensions: &[Dimension], values: &Values) -> Result<Option<Chosen>, Damaged> {
        let asked = dimensions.iter().copied().filter(|dimension| self.of(*dimension).next().is_some());
        let asked: Vec<Dimension> = asked.collect();
        if asked.is_empty() {
            return Ok(None);
        }
        let allows = |number| {
            for dimension in &asked {
                if !self.allows(*dimension, &dimension.shown(values.get(number), &self.own)?) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        // One that is told apart no more is no value that anybody asks for.
        let has_other = asked.iter().all(|dimension| self.of(*dimension).all(|filter| filter.pattern.is_negated));
        let has = (0..=values.len() as u32).map(allows).collect::<Result<_, Damaged>>()?;
        Ok(Some(Chosen { has, has_other }))
    }

    /// The same, looked up in the dictionaries of a piece.
    pub(crate) fn look_up(&self, dictionaries: &Dictionaries) -> Result<Matcher, Damaged> {
        use Dimension as D;
        let Dictionaries { pages, names, acquisitions, clients, locations } = dictionaries;
        let of_acquisition =
            [D::Referrer, D::Source, D::UtmSource, D::UtmMedium, D::UtmCampaign, D::UtmContent, D::UtmTerm];
        Ok(Matcher {
            pages: self.choose(&[D::Page, D::Hostname], pages)?,
            names: self.choose(&[D::Event], names)?,
            entries: self.choose(&[D::EntryPage], pages)?,
            exits: self.choose(&[D::ExitPage], pages)?,
            acquisitions: self.choose(&of_acquisition, acquisitions)?,
            clients: self.choose(&[D::Browser, D::Os, D::DeviceType], clients)?,
            locations: self.choose(&[D::Location], locations)?,
        })
    }
}

/// Whether filters that are given together leave a value.
fn allows(filters: &[Filter], dimension: Dimension, value: &[u8]) -> bool {
    let (mut has_wanted, mut is_wanted) = (false, false);
    for Filter { pattern, .. } in filters.iter().filter(|filter| filter.dimension == dimension) {
        let fits = pattern.fits(value);
        if pattern.is_negated && fits {
            return false;
        }
        has_wanted |= !pattern.is_negated;
        is_wanted |= !pattern.is_negated && fits;
    }
    !has_wanted || is_wanted
}

fn sorted(mut filters: Vec<Filter>) -> Vec<Filter> {
    filters.sort_by_key(|filter| filter.dimension);
    filters
}

impl Matcher {
    /// What of an event's files it looks at.
    pub(crate) fn needed(&self) -> Needed {
        let pages = self.pages.is_some() || self.entries.is_some() || self.exits.is_some();
        let files = [pages, self.names.is_some(), self.acquisitions.is_some(), self.clients.is_some()];
        let files = files.into_iter().chain([self.locations.is_some()]);
        Needed(files.enumerate().map(|(at, is_needed)| u8::from(is_needed) << at).sum())
    }

    /// Whether a run of events is asked for; `entry` is its first page view.
    pub(super) fn has_run(&self, run: &[Hit], entry: Option<&Hit>) -> bool {
        let page = |hit: Option<&Hit>| hit.map_or(0, |hit| hit.page);
        let has = |chosen: &Option<Chosen>, number| chosen.as_ref().is_none_or(|chosen| chosen.has(number));
        has(&self.clients, run[0].client)
            && has(&self.locations, run[0].location)
            && has(&self.acquisitions, entry.map_or(0, |hit| hit.acquisition))
            && has(&self.entries, page(entry))
            && (self.exits.is_none() || has(&self.exits, page(run.iter().rev().find(|hit| hit.kind.is_pageview()))))
    }

    /// Whether an event of such a run is asked for.
    pub(super) fn has_event(&self, hit: &Hit) -> bool {
        self.is_entered_by(hit) && self.names.as_ref().is_none_or(|chosen| chosen.has(hit.name))
    }

    /// Whether a page view is of a page that is asked for.
    pub(super) fn is_entered_by(&self, hit: &Hit) -> bool {
        self.pages.as_ref().is_none_or(|chosen| chosen.has(hit.page))
    }
}

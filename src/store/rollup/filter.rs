//! Which of a website's events and visits are asked for.

use std::{borrow::Cow, sync::Arc};

use super::{
    attributes::cut,
    block::Needed,
    bytes::Damaged,
    dictionary::{Acquisition, Client, Dictionaries, Values, fields},
    hit::Hit,
    pattern::Pattern,
    source::source_of,
};

/// What events and visits are filed under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "docs/numbers.md says what each is")]
pub enum Dimension {
    Hostname,
    Page,
    Event,
    EntryPage,
    ExitPage,
    Referrer,
    Source,
    UtmSource,
    UtmMedium,
    UtmCampaign,
    UtmContent,
    UtmTerm,
    Browser,
    Os,
    DeviceType,
    Location,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Page,
        Self::EntryPage,
        Self::ExitPage,
        Self::Hostname,
        Self::Referrer,
        Self::Source,
        Self::UtmSource,
        Self::UtmMedium,
        Self::UtmCampaign,
        Self::UtmContent,
        Self::UtmTerm,
        Self::Browser,
        Self::Os,
        Self::DeviceType,
        Self::Location,
        Self::Event,
    ];

    /// Its name in questions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "hostname",
            Self::Page => "page",
            Self::Event => "event",
            Self::EntryPage => "entryPage",
            Self::ExitPage => "exitPage",
            Self::Referrer => "referrer",
            Self::Source => "source",
            Self::UtmSource => "utmSource",
            Self::UtmMedium => "utmMedium",
            Self::UtmCampaign => "utmCampaign",
            Self::UtmContent => "utmContent",
            Self::UtmTerm => "utmTerm",
            Self::Browser => "browser",
            Self::Os => "os",
            Self::DeviceType => "deviceType",
            Self::Location => "location",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == name)
    }
}

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
}

/// What a website is, as far as it matters to what its events are filed under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Own {
    /// Its hosts, in lower case, without `www.`: as referrers they are none.
    pub hosts: Arc<[String]>,
    /// Whether pages are told apart by host, too.
    pub has_several: bool,
}

/// All that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Filters {
    /// Sorted by dimension.
    filters: Vec<Filter>,
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

/// A page as it is shown: with its host where there are several.
fn shown_page<'a>([host, path]: [&'a [u8]; 2], own: &Own) -> Cow<'a, [u8]> {
    if own.has_several { cut(&[host, path].concat()).to_vec().into() } else { path.into() }
}

impl Filters {
    pub(crate) fn new(mut filters: Vec<Filter>, own: Own) -> Self {
        filters.sort_by_key(|filter| filter.dimension);
        Self { filters, own }
    }

    /// Whether nothing is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether a value of a dimension is asked for.
    fn allows(&self, dimension: Dimension, value: &[u8]) -> bool {
        let (mut has_wanted, mut is_wanted) = (false, false);
        for Filter { pattern, .. } in self.of(&[dimension]) {
            let fits = pattern.fits(value);
            if pattern.is_negated && fits {
                return false;
            }
            has_wanted |= !pattern.is_negated;
            is_wanted |= !pattern.is_negated && fits;
        }
        !has_wanted || is_wanted
    }

    fn of(&self, dimensions: &[Dimension]) -> impl Iterator<Item = &Filter> {
        self.filters.iter().filter(move |filter| dimensions.contains(&filter.dimension))
    }

    /// Looks the values of a dictionary up, if any of these dimensions is asked for.
    fn choose(
        &self,
        dimensions: &[Dimension],
        values: &Values,
        allows: impl Fn(&[u8]) -> Result<bool, Damaged>,
    ) -> Result<Option<Chosen>, Damaged> {
        let mut of = self.of(dimensions).peekable();
        if of.peek().is_none() {
            return Ok(None);
        }
        // One that is told apart no more is no value that anybody asks for.
        let has_other = of.all(|filter| filter.pattern.is_negated);
        let has = (0..=values.len() as u32).map(|number| allows(values.get(number))).collect::<Result<_, _>>()?;
        Ok(Some(Chosen { has, has_other }))
    }

    /// The same, looked up in the dictionaries of a piece.
    pub(crate) fn look_up(&self, dictionaries: &Dictionaries) -> Result<Matcher, Damaged> {
        use Dimension as D;
        let Dictionaries { pages, names, acquisitions, clients, locations } = dictionaries;
        let page = |dimension| move |value: &[u8]| Ok(self.allows(dimension, &shown_page(fields(value)?, &self.own)));
        let page_of_event = |value: &[u8]| {
            let page @ [host, _] = fields(value)?;
            Ok(self.allows(D::Page, &shown_page(page, &self.own)) && self.allows(D::Hostname, host))
        };
        let acquisition = |value: &[u8]| {
            let [referrer, named, source, medium, campaign, content, term]: Acquisition<'_> = fields(value)?;
            let is_own = self.own.hosts.iter().any(|host| host.as_bytes() == referrer);
            let referrer = if is_own { &b""[..] } else { referrer };
            let utm = [
                (D::Referrer, referrer),
                (D::UtmSource, source),
                (D::UtmMedium, medium),
                (D::UtmCampaign, campaign),
                (D::UtmContent, content),
                (D::UtmTerm, term),
            ];
            Ok(utm.into_iter().all(|(dimension, value)| self.allows(dimension, value))
                && (self.of(&[D::Source]).next().is_none()
                    || self.allows(D::Source, &source_of(source, named, referrer))))
        };
        let client = |value: &[u8]| {
            let [browser, os, device]: Client<'_> = fields(value)?;
            Ok(self.allows(D::Browser, browser) && self.allows(D::Os, os) && self.allows(D::DeviceType, device))
        };
        let of_acquisition =
            [D::Referrer, D::Source, D::UtmSource, D::UtmMedium, D::UtmCampaign, D::UtmContent, D::UtmTerm];
        Ok(Matcher {
            pages: self.choose(&[D::Page, D::Hostname], pages, page_of_event)?,
            names: self.choose(&[D::Event], names, |value| Ok(self.allows(D::Event, value)))?,
            entries: self.choose(&[D::EntryPage], pages, page(D::EntryPage))?,
            exits: self.choose(&[D::ExitPage], pages, page(D::ExitPage))?,
            acquisitions: self.choose(&of_acquisition, acquisitions, acquisition)?,
            clients: self.choose(&[D::Browser, D::Os, D::DeviceType], clients, client)?,
            locations: self.choose(&[D::Location], locations, |value| Ok(self.allows(D::Location, value)))?,
        })
    }
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

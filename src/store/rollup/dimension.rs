//! What events and visits are filed under, and how a value of it is shown.

use std::{borrow::Cow, sync::Arc};

use super::{
    attributes::cut,
    block::Needed,
    bytes::Damaged,
    dictionary::{Acquisition, Client, Dictionaries, Values, fields},
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

/// What a website is, as far as it matters to what its events are filed under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Own {
    /// Its hosts, in lower case, without `www.`: as referrers they are none.
    pub hosts: Arc<[String]>,
    /// Whether pages are told apart by host, too.
    pub has_several: bool,
}

/// What of an event, or of the run of events that it is in, says a value of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Field {
    Page,
    Name,
    /// The page of a visit's first, and of its last page view.
    Entry,
    Exit,
    /// Of a visit's first page view.
    Acquisition,
    /// Of a visit's first event.
    Client,
    Location,
}

impl Field {
    /// What of an event's files it looks at.
    pub(crate) fn needed(self) -> Needed {
        Needed(match self {
            Self::Page | Self::Entry | Self::Exit => 1,
            Self::Name => 2,
            Self::Acquisition => 4,
            Self::Client => 8,
            Self::Location => 16,
        })
    }

    /// The dictionary that its numbers are of.
    pub(super) fn values(self, dictionaries: &Dictionaries) -> &Values {
        match self {
            Self::Page | Self::Entry | Self::Exit => &dictionaries.pages,
            Self::Name => &dictionaries.names,
            Self::Acquisition => &dictionaries.acquisitions,
            Self::Client => &dictionaries.clients,
            Self::Location => &dictionaries.locations,
        }
    }
}

impl Dimension {
    /// Whether a value stands in its list. Page views have no name, and are no event that has none; and with
    /// `$engagement` trackers report visible time, which is nothing that a visitor does.
    pub fn lists(self, value: &[u8]) -> bool {
        self != Self::Event || (!value.is_empty() && value != b"$engagement")
    }

    /// What says its values.
    pub(crate) fn field(self) -> Field {
        match self {
            Self::Page | Self::Hostname => Field::Page,
            Self::Event => Field::Name,
            Self::EntryPage => Field::Entry,
            Self::ExitPage => Field::Exit,
            Self::Referrer
            | Self::Source
            | Self::UtmSource
            | Self::UtmMedium
            | Self::UtmCampaign
            | Self::UtmContent
            | Self::UtmTerm => Field::Acquisition,
            Self::Browser | Self::Os | Self::DeviceType => Field::Client,
            Self::Location => Field::Location,
        }
    }

    /// How it shows a value of the dictionary of its field; empty is nothing.
    pub(super) fn shown<'a>(self, value: &'a [u8], own: &Own) -> Result<Cow<'a, [u8]>, Damaged> {
        Ok(match self {
            Self::Page | Self::EntryPage | Self::ExitPage => shown_page(fields(value)?, own),
            Self::Hostname => fields::<2>(value)?[0].into(),
            Self::Event | Self::Location => value.into(),
            Self::Browser | Self::Os | Self::DeviceType => {
                let [browser, os, device]: Client<'_> = fields(value)?;
                match self {
                    Self::Browser => browser,
                    Self::Os => os,
                    _ => device,
                }
                .into()
            }
            _ => {
                let [referrer, named, source, medium, campaign, content, term]: Acquisition<'_> = fields(value)?;
                let is_own = own.hosts.iter().any(|host| host.as_bytes() == referrer);
                let referrer = if is_own { &b""[..] } else { referrer };
                match self {
                    Self::Referrer => referrer,
                    Self::UtmSource => source,
                    Self::UtmMedium => medium,
                    Self::UtmCampaign => campaign,
                    Self::UtmContent => content,
                    Self::UtmTerm => term,
                    _ => return Ok(source_of(source, named, referrer)),
                }
                .into()
            }
        })
    }
}

/// A page as it is shown: with its host where there are several.
fn shown_page<'a>([host, path]: [&'a [u8]; 2], own: &Own) -> Cow<'a, [u8]> {
    if own.has_several { cut(&[host, path].concat()).to_vec().into() } else { path.into() }
}

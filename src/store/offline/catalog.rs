//! The catalog, read in one transaction and never written.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use rusqlite::Connection;

use super::error::OfflineError;
use crate::{
    clock::now_ms,
    command::hitlog,
    domain::Domain,
    event_id::Epochs,
    store::{
        catalog::{
            ListedSegment, SegmentState, Website, read_damage, read_epochs, read_erased_since, read_leftovers,
            read_open_notes, read_quarantine, read_segments, read_websites,
        },
        error::OpenError,
        format::schema,
        segments::Identity,
    },
};

/// What the catalog said at one moment.
#[derive(Debug)]
pub struct CatalogContents {
    /// By id.
    websites: HashMap<Box<[u8]>, Arc<Website>>,
    /// The tracking codes that websites had and may still be called by, with the ids of the websites.
    earlier_codes: HashMap<Arc<str>, Arc<str>>,
    pub(crate) segments: Vec<ListedSegment>,
    /// Generations that a start may remove.
    pub(crate) leftovers: Vec<Identity>,
    /// The damage that reads have found, by the number of the segment.
    pub(super) damage: BTreeMap<i64, String>,
    /// How far the files of segments without indexes go at the least, by the number of the segment.
    open_notes: BTreeMap<i64, u64>,
    /// Why files are in quarantine, by their names there.
    pub(super) quarantine: HashMap<String, String>,
    /// Segments that were written off, and may have had events that were erased since.
    erased_since: BTreeSet<i64>,
    pub(super) erasures: PendingErasures,
    /// What public ids are made with.
    pub epochs: Epochs,
}

impl CatalogContents {
    /// The website with this id.
    pub fn website(&self, id: &[u8]) -> Option<&Arc<Website>> {
        self.websites.get(id)
    }

    /// Every website, in no order.
    pub fn websites(&self) -> impl Iterator<Item = &Arc<Website>> {
        self.websites.values()
    }

    /// The tracking codes that websites had and may still be called by, each with the id of its website, in no order.
    pub fn earlier_codes(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.earlier_codes.iter()
    }

    /// The website with this id, tracking code (that it has, or had and may still be called by) or domain, which may be
    /// written in any way that names it.
    pub fn find_website(&self, text: &str) -> Option<&Arc<Website>> {
        let by_text =
            |text: &str| self.websites().find(|website| *website.tracking_code == *text || website.domain == text);
        let by_earlier_code = || self.earlier_codes.get(text).and_then(|id| self.website(id.as_bytes()));
        // As it stands first: the domain of an older hitlog may be none by today's rules.
        self.website(text.as_bytes())
            .or_else(|| by_text(text))
            .or_else(by_earlier_code)
            .or_else(|| Domain::parse(text).ok().and_then(|domain| by_text(domain.as_str())))
    }

    /// Whether the website with this id was deleted and still has events to be erased.
    pub fn is_being_erased(&self, website_id: &str) -> bool {
        self.erasures.websites.contains(website_id)
    }

    /// The ids of the erasures under way that may mean events with this sequence or higher ones, in order.
    pub(crate) fn erasures_from(&self, sequence: u64) -> Vec<String> {
        let may_mean = |of: &&(String, u64)| of.1 >= sequence;
        self.erasures.pending.iter().filter(may_mean).map(|(id, _)| id.clone()).collect()
    }

    /// Whether this segment was written off and may have had events that were erased since.
    pub(crate) fn is_erased_since(&self, number: i64) -> bool {
        self.erased_since.contains(&number)
    }

    pub(crate) fn segment(&self, number: i64) -> Option<ListedSegment> {
        self.segments.iter().find(|listed| listed.number == number).copied()
    }

    /// What a segment without indexes lacks that holds events up to this sequence; `None` if nothing is known of that.
    pub(crate) fn lacking(&self, number: i64, last: Option<u64>) -> Option<String> {
        let noted = self.open_notes.get(&number).copied().filter(|noted| last.unwrap_or(0) < *noted)?;
        let held = last.map_or_else(|| "no events".to_owned(), |last| format!("events up to sequence {last}"));
        Some(format!("it is an older copy: it holds {held}, and the catalog knows that it held them up to {noted}"))
    }

    /// The segments that may have rows, by number.
    pub(crate) fn segments_in_use(&self) -> impl DoubleEndedIterator<Item = ListedSegment> {
        self.segments.iter().filter(|listed| listed.state != SegmentState::Dropped).copied()
    }
}

/// Events that are to be erased: no answer shows them, although their rows may still be there.
#[derive(Debug, Default)]
pub(super) struct PendingErasures {
    /// The id of each, and the last sequence that it means.
    pending: Vec<(String, u64)>,
    websites: HashSet<String>,
    visitors: HashMap<Box<[u8]>, Vec<OfVisitor>>,
}

/// The erasure of one visitor's events.
#[derive(Debug)]
struct OfVisitor {
    /// The events' website; `None` for every website.
    website_id: Option<String>,
    /// Events up to this sequence.
    up_to: u64,
}

impl PendingErasures {
    /// Whether events of any visitor are to be erased.
    pub(super) fn is_any_under_way(&self) -> bool {
        !self.visitors.is_empty()
    }

    /// Whether an event is to be erased.
    pub(super) fn covers(&self, website_id: &[u8], visitor_id: &[u8], sequence: u64) -> bool {
        let is_meant = |of: &OfVisitor| {
            sequence <= of.up_to && of.website_id.as_ref().is_none_or(|website| website.as_bytes() == website_id)
        };
        // Most of the time nothing is being erased.
        !self.visitors.is_empty() && self.visitors.get(visitor_id).is_some_and(|erasures| erasures.iter().any(is_meant))
    }
}

pub(super) fn read_catalog(connection: &Connection, path: &Path) -> Result<CatalogContents, OfflineError> {
    let sqlite = || OfflineError::read(path);
    let transaction = connection.unchecked_transaction().map_err(sqlite())?;
    schema::check_catalog(&transaction, path)?;
    if schema::pragma::<i64>(&transaction, path, "user_version")? == 0 {
        let reason = format!("its making was cut short; start `{}` once, which finishes it", hitlog(["serve"]));
        return Err(OpenError::NotOurs { path: path.into(), reason }.into());
    }
    read_tables(&transaction).map_err(sqlite())
}

fn read_tables(connection: &Connection) -> rusqlite::Result<CatalogContents> {
    let websites = read_websites(connection)?;
    let earlier_codes = websites.earlier_codes(now_ms()).into_iter().collect();
    let websites = websites.newest_first();
    // A catalog of version 1 knows erasures of websites only, and has already removed those websites from its list.
    let erasures =
        if connection.table_exists(None, "Erasure")? { read_erasures(connection)? } else { PendingErasures::default() };
    Ok(CatalogContents {
        websites: websites.into_iter().map(|website| (website.id.as_bytes().into(), website)).collect(),
        earlier_codes,
        segments: read_segments(connection)?,
        leftovers: read_leftovers(connection)?,
        damage: read_damage(connection)?,
        open_notes: read_open_notes(connection)?,
        quarantine: read_quarantine(connection)?.into_iter().collect(),
        erased_since: read_erased_since(connection)?,
        erasures,
        epochs: read_epochs(connection)?,
    })
}

fn read_erasures(connection: &Connection) -> rusqlite::Result<PendingErasures> {
    let mut erasures = PendingErasures::default();
    let select = "SELECT websiteId, visitorId, upTo, id FROM Erasure WHERE doneAt IS NULL ORDER BY requestedAt, id";
    let mut select = connection.prepare(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (website_id, visitor, up_to): (Option<String>, Option<String>, Option<i64>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        erasures.pending.push((row.get(3)?, up_to.map_or(u64::MAX, i64::unsigned_abs)));
        match visitor {
            Some(visitor) => {
                let up_to = up_to.map_or(u64::MAX, i64::unsigned_abs);
                let of_visitor = erasures.visitors.entry(visitor.into_bytes().into()).or_default();
                of_visitor.push(OfVisitor { website_id, up_to });
            }
            None => erasures.websites.extend(website_id),
        }
    }
    Ok(erasures)
}

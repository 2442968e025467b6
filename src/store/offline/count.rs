//! How many events there are, of which website, day and type: from the summaries of sealed segments.
//!
//! Segments without a summary (active or unsealed) are read through; one that was sealed
//! before summaries had counts by day is counted from its index. What is stored is counted: a visitor whose
//! erasure is under way is in them until it has reached their segment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rusqlite::{Connection, Row, params};

use super::{
    catalog::CatalogContents,
    directory::{OfflineDir, OpenSegment},
    error::OfflineError,
    segment_lines::damage_of,
};
use crate::{
    event::EventType,
    store::{catalog::Website, format::schema},
};

/// Counts by type, in the order of [`EventType::ALL`].
pub(super) type ByType = [u64; EventType::ALL.len()];

/// Counts by day since 1970, UTC.
pub type Days = BTreeMap<i64, ByType>;

/// What is stored of one website.
#[derive(Debug, Clone)]
pub struct SiteCounts {
    /// The website.
    pub website: Arc<Website>,
    /// Its events by type.
    pub events: ByType,
    /// The lowest and the highest `createdAt`.
    pub times: Option<(i64, i64)>,
}

/// What is stored.
#[derive(Debug)]
pub struct Counts {
    /// Events by day, of all websites that were asked for.
    pub days: Days,
    /// One entry for each website that was asked for, even if it has no events.
    pub sites: Vec<SiteCounts>,
    /// The bytes of the files of all segments, whatever was asked for.
    pub segment_bytes: u64,
}

/// Counts the events of one website, or of all that exist.
pub fn count(
    directory: &OfflineDir,
    catalog: &CatalogContents,
    website: Option<&Arc<Website>>,
) -> Result<Counts, OfflineError> {
    let wanted = website.map(|website| &*website.id);
    let mut all = Tally::default();
    let mut segment_bytes = 0;
    for mut segment in catalog.segments_in_use() {
        let look = |open: &OpenSegment<'_>| {
            if let Some(damage) = damage_of(open)? {
                return Ok(Err(damage));
            }
            let mut tally = Tally::default();
            if open.is_sealed() {
                tally.read_summary(open.connection, wanted)?;
            } else {
                tally.read_rows(open.connection, wanted)?;
            }
            Ok(Ok((tally, open.bytes)))
        };
        let tally = directory.on_sound_segment(&mut segment, look, Result::is_ok)?.transpose();
        let tally = tally.map_err(|damage| OfflineError::damaged(directory.path_of(&segment), damage))?;
        let Some((tally, bytes)) = tally else { continue };
        all.merge(tally);
        segment_bytes += bytes;
    }
    let mut counts = Counts { days: Days::new(), sites: Vec::new(), segment_bytes };
    let websites = catalog.websites().filter(|of| wanted.is_none_or(|wanted| wanted == &*of.id));
    for website in websites {
        let SiteTally { events, times, days } = all.0.remove(website.id.as_bytes()).unwrap_or_default();
        counts.sites.push(SiteCounts { website: Arc::clone(website), events, times });
        for (day, events) in days {
            add(counts.days.entry(day).or_default(), events);
        }
    }
    Ok(counts)
}

/// Counts by the id of a website.
#[derive(Default)]
struct Tally(HashMap<Box<[u8]>, SiteTally>);

#[derive(Default)]
struct SiteTally {
    events: ByType,
    times: Option<(i64, i64)>,
    days: Days,
}

impl Tally {
    fn site(&mut self, website_id: &[u8]) -> &mut SiteTally {
        self.0.entry(website_id.into()).or_default()
    }

    fn read_summary(&mut self, connection: &Connection, wanted: Option<&str>) -> rusqlite::Result<()> {
        let select = "SELECT websiteId, eventType, count, firstCreatedAt, lastCreatedAt FROM Summary
                      WHERE ?1 IS NULL OR websiteId = ?1";
        for_each(connection, select, wanted, |row| {
            let site = self.site(row.get_ref(0)?.as_bytes()?);
            site.events[type_of(row)?] += row.get::<_, i64>(2)?.unsigned_abs();
            site.times = span(site.times, (row.get(3)?, row.get(4)?));
            Ok(())
        })?;
        let by_day = if connection.table_exists(None, "Daily")? {
            "SELECT websiteId, eventType, day, count FROM Daily WHERE ?1 IS NULL OR websiteId = ?1".to_owned()
        } else {
            format!(
                "SELECT websiteId, eventType, createdAt / {}, count(*) FROM Event INDEXED BY EventByType
                 WHERE ?1 IS NULL OR websiteId = ?1 GROUP BY 1, 2, 3",
                schema::DAY_MS
            )
        };
        for_each(connection, &by_day, wanted, |row| {
            let day = self.site(row.get_ref(0)?.as_bytes()?).days.entry(row.get(2)?).or_default();
            day[type_of(row)?] += row.get::<_, i64>(3)?.unsigned_abs();
            Ok(())
        })
    }

    fn read_rows(&mut self, connection: &Connection, wanted: Option<&str>) -> rusqlite::Result<()> {
        let select = "SELECT websiteId, eventType, createdAt FROM Event WHERE ?1 IS NULL OR websiteId = ?1";
        for_each(connection, select, wanted, |row| {
            let (kind, at) = (type_of(row)?, row.get(2)?);
            let site = self.site(row.get_ref(0)?.as_bytes()?);
            site.events[kind] += 1;
            site.times = span(site.times, (at, at));
            site.days.entry(at.div_euclid(schema::DAY_MS)).or_default()[kind] += 1;
            Ok(())
        })
    }

    fn merge(&mut self, other: Self) {
        for (website_id, from) in other.0 {
            let site = self.0.entry(website_id).or_default();
            add(&mut site.events, from.events);
            site.times = from.times.map_or(site.times, |times| span(site.times, times));
            for (day, events) in from.days {
                add(site.days.entry(day).or_default(), events);
            }
        }
    }
}

fn for_each(
    connection: &Connection,
    select: &str,
    wanted: Option<&str>,
    mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare(select)?;
    let mut rows = select.query(params![wanted])?;
    while let Some(row) = rows.next()? {
        each(row)?;
    }
    Ok(())
}

/// The place of a row's type in a [`ByType`].
fn type_of(row: &Row<'_>) -> rusqlite::Result<usize> {
    let name = row.get_ref(1)?.as_bytes()?;
    // No other type is ever stored.
    Ok(EventType::ALL.iter().position(|kind| kind.as_str().as_bytes() == name).unwrap_or(EventType::ALL.len() - 1))
}

fn span(known: Option<(i64, i64)>, (first, last): (i64, i64)) -> Option<(i64, i64)> {
    Some(known.map_or((first, last), |known| (known.0.min(first), known.1.max(last))))
}

fn add(to: &mut ByType, from: ByType) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

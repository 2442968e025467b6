//! `hitlog stats`: how much there is, of what and when.

use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{
    Outcome, ToolError, print, print_json,
    table::{Align, Table, pluralize, shorten},
};
use crate::{
    command::hitlog,
    event::{EventType, time::time_text},
    store::offline::{CatalogContents, Counts, OfflineDir, count},
};

/// Websites in the table; JSON has them all.
const SITES_SHOWN: usize = 10;
/// Width of a tracking code that hitlog makes.
const CODE_CHARS: usize = 23;
/// Width that a terminal of 80 columns leaves for a domain.
const DOMAIN_CHARS: usize = 28;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What to count, and how to show it.
#[derive(Debug)]
pub struct StatsOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
    /// The only website that is counted: its id, tracking code or domain.
    pub website: Option<String>,
    /// How many of the newest days are shown.
    pub days: usize,
    /// Prints JSON, for programs.
    pub json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    websites: usize,
    events: Events,
    segment_bytes: u64,
    oldest: Option<String>,
    newest: Option<String>,
    /// How many days have events.
    days_with_events: usize,
    /// The newest days with events, the oldest of them first.
    days: Vec<Day>,
    /// The websites, the busiest first.
    sites: Vec<Site>,
}

#[derive(Serialize)]
struct Events {
    pageview: u64,
    click: u64,
    custom: u64,
    total: u64,
}

#[derive(Serialize)]
struct Day {
    day: String,
    #[serde(flatten)]
    events: Events,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Site {
    id: String,
    tracking_code: String,
    domain: String,
    events: Events,
    oldest: Option<String>,
    newest: Option<String>,
}

impl From<[u64; EventType::ALL.len()]> for Events {
    fn from(counts @ [pageview, click, custom]: [u64; EventType::ALL.len()]) -> Self {
        Self { pageview, click, custom, total: counts.iter().sum() }
    }
}

/// Prints what is stored, of all websites or of one.
pub fn run(options: &StatsOptions) -> Outcome {
    let directory = OfflineDir::open(&options.data_dir)?;
    let catalog = directory.catalog()?;
    let website = options.website.as_deref().map(|text| find_website(&catalog, text)).transpose()?;
    let stats = summarize(count(&directory, &catalog, website)?, options.days);
    if options.json {
        print_json(&stats)?;
    } else {
        print(text(&stats).as_bytes())?;
    }
    Ok(true)
}

/// The website that somebody means by its id, tracking code or domain.
pub(super) fn find_website<'a>(
    catalog: &'a CatalogContents,
    text: &str,
) -> Result<&'a std::sync::Arc<crate::store::Website>, ToolError> {
    catalog.find_website(text).ok_or_else(|| {
        ToolError::Arguments(match catalog.websites().count() {
            0 => format!("no website has the id, tracking code or domain {text}: none is registered here yet"),
            known => format!(
                "no website has the id, tracking code or domain {text}; `{}` lists the {known} that there are",
                hitlog(["export", "--websites"])
            ),
        })
    })
}

fn summarize(counts: Counts, days_shown: usize) -> Stats {
    let times = || counts.sites.iter().filter_map(|site| site.times);
    let mut all = [0; EventType::ALL.len()];
    for site in &counts.sites {
        all.iter_mut().zip(site.events).for_each(|(all, of)| *all += of);
    }
    let (oldest, newest) = (times().map(|(first, _)| first).min(), times().map(|(_, last)| last).max());
    let mut sites: Vec<Site> = counts
        .sites
        .into_iter()
        .map(|site| Site {
            id: site.website.id.to_string(),
            tracking_code: site.website.tracking_code.to_string(),
            domain: site.website.domain.clone(),
            events: site.events.into(),
            oldest: site.times.map(|(first, _)| time_text(first)),
            newest: site.times.map(|(_, last)| time_text(last)),
        })
        .collect();
    sites.sort_by(|a, b| (b.events.total, &a.domain).cmp(&(a.events.total, &b.domain)));
    let days_with_events = counts.days.len();
    let shown = counts.days.into_iter().skip(days_with_events.saturating_sub(days_shown));
    Stats {
        websites: sites.len(),
        events: all.into(),
        segment_bytes: counts.segment_bytes,
        oldest: oldest.map(time_text),
        newest: newest.map(time_text),
        days_with_events,
        days: shown.map(|(day, events)| Day { day: date(day), events: events.into() }).collect(),
        sites,
    }
}

/// The date of a day that is counted from 1970 on.
fn date(day: i64) -> String {
    let mut text = time_text(day.saturating_mul(DAY_MS));
    text.truncate("1970-01-01".len());
    text
}

fn text(stats: &Stats) -> String {
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".into());
    let mut out = format!(
        "events    {} of {}\nsegments  {}\noldest    {}\nnewest    {}\n",
        HumanCount(stats.events.total),
        pluralize(stats.websites as u64, "website"),
        HumanBytes(stats.segment_bytes),
        time(&stats.oldest),
        time(&stats.newest)
    );
    let numbers = |events: &Events| {
        [events.pageview, events.click, events.custom, events.total]
            .map(|number| HumanCount(number).to_string())
            .to_vec()
    };
    if !stats.days.is_empty() {
        let right = |head| (head, Align::Right);
        let mut table = Table::new(&[
            ("day (UTC)", Align::Left),
            right("pageview"),
            right("click"),
            right("custom"),
            right("total"),
        ]);
        for day in &stats.days {
            table.row([vec![day.day.clone()], numbers(&day.events)].concat());
        }
        table.row(
            [vec![format!("all {}", pluralize(stats.days_with_events as u64, "day"))], numbers(&stats.events)].concat(),
        );
        out.push('\n');
        out.push_str(&table.render());
    }
    if !stats.sites.is_empty() {
        let mut table = Table::new(&[
            ("busiest websites", Align::Left),
            ("domain", Align::Left),
            ("events", Align::Right),
            ("share", Align::Right),
        ]);
        for site in stats.sites.iter().take(SITES_SHOWN) {
            let share = site.events.total as f64 * 100.0 / (stats.events.total.max(1)) as f64;
            table.row([
                shorten(&site.tracking_code, CODE_CHARS),
                shorten(&site.domain, DOMAIN_CHARS),
                HumanCount(site.events.total).to_string(),
                format!("{share:.1}%"),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render());
        if stats.sites.len() > SITES_SHOWN {
            out.push_str(&format!("and {} more; --json lists them all\n", stats.sites.len() - SITES_SHOWN));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_fits_a_terminal() {
        let events = || Events { pageview: 99_999_999_999, click: 1, custom: 9_999_999_999, total: 109_999_999_999 };
        let site = |number: usize| Site {
            id: "web-1".into(),
            tracking_code: format!("pm-{}", "c".repeat(61)),
            domain: "d".repeat(250),
            events: Events { total: number as u64 * 1_000_000_000, ..events() },
            oldest: None,
            newest: None,
        };
        let stats = Stats {
            websites: 11,
            events: events(),
            segment_bytes: 1 << 44,
            oldest: Some(time_text(0)),
            newest: None,
            days_with_events: 20_000,
            days: vec![Day { day: date(20_000), events: events() }],
            sites: (0..11).map(site).collect(),
        };
        let text = text(&stats);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("2024-10-04") && text.contains("and 1 more"), "{text}");
    }
}

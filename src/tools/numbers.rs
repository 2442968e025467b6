//! `hitlog stats --period`: the numbers of a website, as `GET /api/v1/stats` has them.

use std::{path::PathBuf, sync::Arc};

use indicatif::HumanCount;
use serde::Serialize;

use super::{
    Outcome, ToolError, print, print_json,
    progress::{Unit, bar},
    stats::find_website,
    table::{Align, Table, pluralize, printable, shorten},
};
use crate::{
    calendar::{Bucket, Interval, Period, Range, Zone, buckets},
    clock::now_ms,
    command::hitlog,
    event::time::time_text,
    numbers::{BucketNumbers, Metrics, OfRange, OtherNumbers, ValueNumbers},
    store::{
        Counts, Dimension, Filter, ListRow, SpanNumbers, Website,
        offline::{CatalogContents, CountNumbers, NumbersFound, OfflineDir, count_numbers, first_event},
    },
    website,
};

/// Most buckets of a series.
const BUCKETS_MAX: usize = 2_000;
/// Width that a terminal of 80 columns leaves for a value.
const VALUE_CHARS: usize = 32;
/// Width of the longest bar.
const BAR_CHARS: u64 = 20;
/// The steps that show how far the work is.
const STEPS: u64 = 1_000;

/// What to count, and how to show it.
#[derive(Debug)]
pub struct NumbersOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
    /// Whose: an id, tracking code or domain. Needed where there is more than one website.
    pub website: Option<String>,
    /// The range.
    pub period: Period,
    /// The IANA name of the zone of its days; if not said, the website's.
    pub timezone: Option<String>,
    /// What is listed, and how many of its values.
    pub top: Option<Dimension>,
    /// Rows of the list.
    pub limit: usize,
    /// What leaves something out.
    pub filters: Vec<Filter>,
    /// Events of bots and spam count, too.
    pub with_bots: bool,
    /// Events with an earlier `createdAt` are past their retention; `i64::MIN` if they are kept for ever.
    pub expired_before: i64,
    /// Prints JSON, for programs.
    pub json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfWebsite {
    id: String,
    tracking_code: String,
    domain: String,
}

/// The list of a dimension.
#[derive(Serialize)]
struct Top {
    dimension: &'static str,
    rows: Vec<ValueNumbers>,
    other: OtherNumbers,
    total: usize,
}

#[derive(Serialize)]
struct Meta {
    #[serde(rename = "asOf")]
    as_of: String,
    complete: bool,
    visitors: &'static str,
    #[serde(rename = "visitorsError")]
    visitors_error: f64,
}

#[derive(Serialize)]
struct Numbers {
    website: OfWebsite,
    range: OfRange,
    interval: &'static str,
    metrics: Metrics,
    series: Vec<BucketNumbers>,
    top: Option<Top>,
    meta: Meta,
}

/// Prints the numbers of a website.
pub fn run(options: &NumbersOptions) -> Outcome {
    let now_ms = now_ms();
    let directory = OfflineDir::open(&options.data_dir)?;
    let catalog = directory.catalog()?;
    let website = website_of(&catalog, options.website.as_deref())?;
    let zone = zone_of(&website, options.timezone.as_deref())?;
    let first_event = match options.period {
        Period::All => first_event(&directory, &catalog, &website, options.expired_before)?,
        _ => None,
    };
    let range = Range::of_period(options.period, &zone, now_ms, first_event);
    let interval = Interval::auto(&range);
    let Ok(series) = buckets(&range, interval, &zone, now_ms, BUCKETS_MAX) else {
        return Err(ToolError::Arguments(format!(
            "the range has more than {BUCKETS_MAX} months; ask for a shorter one"
        )));
    };
    let spans = std::iter::once((range.from, range.to)).chain(series.iter().map(|bucket| (bucket.from, bucket.to)));
    let wanted = CountNumbers {
        own: website::own(&website),
        website: Arc::clone(&website),
        filters: options.filters.clone(),
        with_bots: options.with_bots,
        expired_before: options.expired_before,
        spans: spans.collect(),
        listed: options.top,
    };
    let progress = bar("counting", STEPS, Unit::Parts);
    let found =
        count_numbers(&directory, &catalog, &wanted, |done| progress.set_position((done * STEPS as f64) as u64))?;
    progress.finish_and_clear();
    let shown_range = OfRange::new(&range, &zone);
    let numbers = numbers(&website, shown_range, (interval, series), found, (options, now_ms));
    if options.json {
        print_json(&numbers)?;
    } else {
        print(text(&numbers, options.period).as_bytes())?;
    }
    Ok(true)
}

/// The website that is meant, or the only one that there is.
pub(super) fn website_of(catalog: &CatalogContents, text: Option<&str>) -> Result<Arc<Website>, ToolError> {
    if let Some(text) = text {
        return find_website(catalog, text).map(Arc::clone);
    }
    let mut websites = catalog.websites();
    match (websites.next(), websites.next()) {
        (Some(website), None) => Ok(Arc::clone(website)),
        (None, _) => Err(ToolError::Arguments("no website is registered here yet".into())),
        (Some(_), Some(_)) => Err(ToolError::Arguments(format!(
            "there are several websites: say which one with --website; `{}` lists them",
            hitlog(["export", "--websites"])
        ))),
    }
}

fn zone_of(website: &Website, name: Option<&str>) -> Result<Zone, ToolError> {
    let unknown = |name: &str| {
        ToolError::Arguments(format!(
            "{} is no time zone that is known; name one of IANA's, such as Europe/Berlin",
            printable(name)
        ))
    };
    match name {
        Some(name) => Zone::find(name).ok_or_else(|| unknown(name)),
        None => Ok(website::zone(website)),
    }
}

fn numbers(
    website: &Website,
    range: OfRange,
    (interval, series): (Interval, Vec<Bucket>),
    found: NumbersFound,
    (options, now_ms): (&NumbersOptions, i64),
) -> Numbers {
    let numbers = |(counts, visitors)| SpanNumbers { counts, visitors };
    let mut spans = found.spans.into_iter().map(numbers);
    let all = spans.next().unwrap_or_default();
    let other = found.values.get(&None).map_or(Counts::default(), |(counts, _)| *counts);
    let top = options.top.map(|dimension| {
        let listed = |row: &ListRow| dimension.lists(row.value.as_deref().unwrap_or_default().as_bytes());
        let rows = found.values.into_iter().filter_map(|(value, (counts, visitors))| {
            let value = value?;
            let value = (!value.is_empty()).then(|| String::from_utf8_lossy(&value).into_owned());
            Some(ListRow { value, counts, visitors, visitors_error: None })
        });
        let mut rows: Vec<ListRow> = rows.filter(listed).collect();
        rows.sort_by(|one, other| (other.visitors, &one.value).cmp(&(one.visitors, &other.value)));
        let total = rows.len();
        let shown = rows.into_iter().take(options.limit).map(|row| ValueNumbers::new(row, all.visitors));
        Top { dimension: dimension.as_str(), rows: shown.collect(), other: other.into(), total }
    });
    Numbers {
        website: OfWebsite {
            id: website.id.to_string(),
            tracking_code: website.tracking_code.to_string(),
            domain: website.domain.clone(),
        },
        range,
        interval: interval.as_str(),
        metrics: Metrics::from(&all),
        series: series.into_iter().zip(spans).map(|(bucket, numbers)| BucketNumbers::new(bucket, &numbers)).collect(),
        top,
        meta: Meta { as_of: time_text(now_ms), complete: true, visitors: "exact", visitors_error: 0.0 },
    }
}

fn text(numbers: &Numbers, period: Period) -> String {
    let Numbers { website, range, interval, metrics, series, top, .. } = numbers;
    let mut out = format!(
        "{}, {}, from {} to {} ({})\n\n",
        shorten(&website.domain, VALUE_CHARS),
        period.as_str(),
        range.from,
        range.to,
        range.timezone
    );
    out.push_str(&summary(metrics));
    let count = |number: i64| HumanCount(number.unsigned_abs()).to_string();
    let most = series.iter().map(|bucket| bucket.visitors).max().unwrap_or(0);
    let right = |head| (head, Align::Right);
    let mut table = Table::new(&[
        (interval, Align::Left),
        right("visitors"),
        right("visits"),
        right("page views"),
        ("", Align::Left),
    ]);
    for bucket in series {
        let label = if bucket.partial { format!("{} *", bucket.label) } else { bucket.label.clone() };
        let visitors = HumanCount(bucket.visitors).to_string();
        table.row([label, visitors, count(bucket.visits), count(bucket.pageviews), drawn(bucket.visitors, most)]);
    }
    out.push('\n');
    out.push_str(&table.render());
    if series.iter().any(|bucket| bucket.partial) {
        out.push_str("* goes on, or is in the range only in part\n");
    }
    let Some(Top { dimension, rows, other, total }) = top else { return out };
    let most = rows.iter().map(|row| row.visitors).max().unwrap_or(0);
    let mut table = Table::new(&[
        (*dimension, Align::Left),
        right("visitors"),
        right("share"),
        right("page views"),
        ("", Align::Left),
    ]);
    for row in rows {
        let value = row.value.as_deref().map_or("(none)".into(), |value| shorten(&printable(value), VALUE_CHARS));
        let share = format!("{:.1}%", row.share);
        let visitors = HumanCount(row.visitors).to_string();
        table.row([value, visitors, share, count(row.pageviews), drawn(row.visitors, most)]);
    }
    out.push('\n');
    out.push_str(&table.render());
    if *total > rows.len() {
        out.push_str(&format!("and {} more; --limit shows them\n", HumanCount((total - rows.len()) as u64)));
    }
    if other.events > 0 {
        out.push_str(&format!("and {} of values that were not told apart\n", pluralize(other.events as u64, "event")));
    }
    out
}

fn summary(metrics: &Metrics) -> String {
    let count = |number: i64| HumanCount(number.unsigned_abs()).to_string();
    let mut lines = vec![
        ("visitors", HumanCount(metrics.visitors).to_string()),
        ("visits", count(metrics.visits)),
        ("page views", count(metrics.pageviews)),
        ("interactions", count(metrics.interactions)),
        ("views per visit", format!("{:.2}", metrics.views_per_visit)),
        ("bounce rate", format!("{:.1}%", metrics.bounce_rate)),
        ("visit duration", format!("{:.1} s", metrics.visit_duration)),
    ];
    if let Some(engaged) = metrics.engaged_seconds {
        lines.push(("engaged", format!("{engaged:.1} s")));
    }
    lines.iter().map(|(name, value)| format!("{name:<16}{value:>16}\n")).collect()
}

/// A bar as long as a part of the most.
fn drawn(part: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (u128::from(part) * u128::from(BAR_CHARS) * 8).div_ceil(u128::from(most.max(1))) as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_part() {
        assert_eq!((drawn(0, 0), drawn(0, 5), drawn(5, 5)), (String::new(), String::new(), "█".repeat(20)));
        assert_eq!((drawn(1, 2), drawn(1, 1_000_000)), ("█".repeat(10), "▏".into()));
    }

    #[test]
    fn the_text_fits_a_terminal() {
        let counts = Counts { pageviews: 99_999_999_999, visits: 9_999_999_999, ..Default::default() };
        let metrics = Metrics::from(&SpanNumbers { counts, visitors: 9_999_999_999 });
        let row = |value: &str| {
            let value = Some(value.to_owned());
            ValueNumbers::new(ListRow { value, counts, visitors: 9_999_999, visitors_error: None }, 9_999_999_999)
        };
        let zone = Zone::find("America/Argentina/Buenos_Aires").unwrap();
        let range = Range::of_period(Period::Days7, &zone, 1_764_000_000_000, None);
        let shown = buckets(&range, Interval::Day, &zone, 1_764_000_000_000, 9).unwrap();
        let numbers = Numbers {
            website: OfWebsite { id: "web-1".into(), tracking_code: "pm-1".into(), domain: "d".repeat(250) },
            range: OfRange::new(&range, &zone),
            interval: "day",
            metrics,
            series: shown
                .into_iter()
                .map(|bucket| BucketNumbers::new(bucket, &SpanNumbers { counts, visitors: 9_999_999 }))
                .collect(),
            top: Some(Top {
                dimension: "page",
                rows: vec![row(&"/é".repeat(99)), row("/\u{1b}[2J")],
                other: OtherNumbers { visits: 1, pageviews: 1, events: 9_999_999_999 },
                total: 3,
            }),
            meta: Meta { as_of: time_text(0), complete: true, visitors: "exact", visitors_error: 0.0 },
        };
        let text = text(&numbers, Period::Days7);
        let rows = text.lines().skip(1);
        assert!(rows.clone().all(|line| line.chars().count() <= 90), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("and 1 more") && text.contains(" *"), "{text}");
    }
}

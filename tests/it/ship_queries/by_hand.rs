//! The answers to the ten questions, from the definitions and without SQL: every event is looked at, nothing is fast.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::events::{HOUR, MINUTE, Row};

/// A table of an answer: rows of cells, as ClickHouse shows them.
pub(super) type Table = Vec<Vec<String>>;

const PAUSE_MAX: i64 = 30 * MINUTE;
const KEYS_OF_A_NAME: [&str; 6] = ["name", "event", "eventName", "event_name", "action", "buttonId"];

/// What is asked about: a website from one moment until another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) site: &'static str,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Range {
    fn has(&self, at: i64) -> bool {
        self.from <= at && at < self.to
    }
}

/// The events of a website that count, of all times.
fn counted<'a>(rows: &'a [Row], range: &Range) -> Vec<&'a Row> {
    // Bit 1 is a bot, bit 2 is spam.
    rows.iter().filter(|row| row.site == range.site && row.flags % 4 == 0).collect()
}

fn events<'a>(rows: &'a [Row], range: &Range) -> Vec<&'a Row> {
    counted(rows, range).into_iter().filter(|row| range.has(row.created_at)).collect()
}

fn is_pageview(row: &Row) -> bool {
    row.kind == "pageview"
}

fn properties(row: &Row) -> Value {
    if row.properties.is_empty() { Value::Null } else { serde_json::from_str(row.properties).unwrap() }
}

fn name(row: &Row) -> String {
    let properties = properties(row);
    let text = KEYS_OF_A_NAME.iter().find_map(|key| properties[key].as_str());
    text.unwrap_or(row.kind).to_owned()
}

fn is_interaction(row: &Row) -> bool {
    !is_pageview(row) && name(row) != "$engagement" && properties(row)["interactive"] != Value::Bool(false)
}

/// The host of a URL and what comes behind it.
fn host_and_rest(url: &str) -> (&str, &str) {
    let behind = url.split_once("://").map_or("", |(_, behind)| behind);
    let end = behind.find(['/', '?', '#']).unwrap_or(behind.len());
    let (authority, rest) = behind.split_at(end);
    let host = authority.rsplit('@').next().unwrap();
    (host.split(':').next().unwrap(), rest)
}

fn page(row: &Row) -> String {
    let (_, rest) = host_and_rest(row.url);
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let path = rest.split('?').next().unwrap();
    let is_part = fragment.starts_with('/') || fragment.starts_with("!/");
    let page = if is_part { format!("{path}#{fragment}") } else { path.to_owned() };
    if page.is_empty() { "/".to_owned() } else { page }
}

/// The visits of a website that began in the range, each with its events in order.
fn visits<'a>(rows: &'a [Row], range: &Range) -> Vec<Vec<&'a Row>> {
    let mut of_session: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in counted(rows, range) {
        of_session.entry((&row.session, &row.visitor)).or_default().push(row);
    }
    let mut visits = Vec::new();
    for mut events in of_session.into_values() {
        events.sort_by_key(|row| (row.created_at, row.node, row.seq));
        let runs = events.chunk_by(|before, after| after.created_at - before.created_at <= PAUSE_MAX);
        visits.extend(runs.map(<[_]>::to_vec));
    }
    visits.retain(|visit| visit.iter().any(|row| is_pageview(row)) && range.has(visit[0].created_at));
    visits
}

fn first_view<'a>(visit: &[&'a Row]) -> &'a Row {
    visit.iter().find(|row| is_pageview(row)).unwrap()
}

fn last_view<'a>(visit: &[&'a Row]) -> &'a Row {
    visit.iter().rfind(|row| is_pageview(row)).unwrap()
}

/// Counts by a name: how often, and how many visitors; the most frequent first, ties by name.
fn top(counted: impl IntoIterator<Item = (Vec<String>, String)>, limit: usize) -> Vec<(Vec<String>, usize, usize)> {
    let mut found: BTreeMap<Vec<String>, (usize, BTreeSet<String>)> = BTreeMap::new();
    for (name, visitor) in counted {
        let (times, visitors) = found.entry(name).or_default();
        *times += 1;
        visitors.insert(visitor);
    }
    let mut found: Vec<_> = found.into_iter().map(|(name, (times, who))| (name, times, who.len())).collect();
    // Stable, so that names stay in order.
    found.sort_by_key(|(_, times, _)| usize::MAX - times);
    found.truncate(limit);
    found
}

fn with_visitors(top: Vec<(Vec<String>, usize, usize)>) -> Table {
    top.into_iter()
        .map(|(name, times, visitors)| [name, vec![times.to_string(), visitors.to_string()]].concat())
        .collect()
}

fn count_visitors<'a>(rows: impl IntoIterator<Item = &'a &'a Row>) -> usize {
    rows.into_iter().map(|row| &row.visitor).collect::<BTreeSet<_>>().len()
}

fn line(cells: &[usize]) -> Vec<String> {
    cells.iter().map(usize::to_string).collect()
}

pub(super) fn visitors(rows: &[Row], day: &Range) -> Table {
    let events = events(rows, day);
    let views = events.iter().filter(|row| is_pageview(row)).count();
    vec![line(&[count_visitors(&events), views])]
}

/// Visits, and what is rounded in the answer, as it is before that.
pub(super) fn visit_numbers(rows: &[Row], range: &Range) -> (usize, [f64; 3]) {
    let visits = visits(rows, range);
    let views = |visit: &Vec<&Row>| visit.iter().filter(|row| is_pageview(row)).count();
    let is_bounce = |visit: &&Vec<&Row>| views(visit) == 1 && !visit.iter().any(|row| is_interaction(row));
    let milliseconds: i64 = visits.iter().map(|visit| visit.last().unwrap().created_at - visit[0].created_at).sum();
    let (all, bounces) = (visits.len() as f64, visits.iter().filter(is_bounce).count() as f64);
    let views: usize = visits.iter().map(views).sum();
    (visits.len(), [100.0 * bounces / all, milliseconds as f64 / 1_000.0 / all, views as f64 / all])
}

pub(super) fn top_pages(rows: &[Row], range: &Range) -> Table {
    let views = events(rows, range).into_iter().filter(|row| is_pageview(row));
    with_visitors(top(views.map(|row| (vec![page(row)], row.visitor.clone())), 10))
}

pub(super) fn top_referrers(rows: &[Row], range: &Range, hosts: &[&str]) -> Table {
    let host_of = |visit: Vec<&Row>| {
        let host = host_and_rest(first_view(&visit).referrer).0.to_lowercase();
        let host = host.strip_prefix("www.").unwrap_or(&host).to_owned();
        let is_none = host.is_empty() || hosts.contains(&&*host);
        (vec![if is_none { "direct".to_owned() } else { host }], visit[0].visitor.clone())
    };
    with_visitors(top(visits(rows, range).into_iter().map(host_of), 10))
}

pub(super) fn entry_and_exit_pages(rows: &[Row], range: &Range) -> Table {
    let visits = visits(rows, range);
    let of = |end: &str, view: fn(&[&Row]) -> String| {
        let pages = visits.iter().map(|visit| (vec![end.to_owned(), view(visit)], String::new()));
        let rows = top(pages, 10).into_iter();
        rows.map(|(name, times, _)| [name, vec![times.to_string()]].concat()).collect::<Table>()
    };
    [of("entry", |visit| page(first_view(visit))), of("exit", |visit| page(last_view(visit)))].concat()
}

pub(super) fn devices_and_browsers(rows: &[Row], range: &Range) -> Table {
    let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let of = |visit: Vec<&Row>| (vec![known(visit[0].device), known(visit[0].browser)], visit[0].visitor.clone());
    with_visitors(top(visits(rows, range).into_iter().map(of), 20))
}

/// An hour's beginning in milliseconds, then visitors, visits, page views. `shift` is how far hours of the zone begin
/// behind those of UTC.
pub(super) fn series_by_hour(rows: &[Row], range: &Range, shift: i64) -> Vec<(i64, [usize; 3])> {
    let events = events(rows, range);
    let visits = visits(rows, range);
    let first = range.from - (range.from - shift).rem_euclid(HOUR);
    let hours = (first..range.to).step_by(usize::try_from(HOUR).unwrap());
    hours
        .map(|hour| {
            let is_in = |at: i64| (hour..hour + HOUR).contains(&at);
            let of_hour: Vec<_> = events.iter().filter(|row| is_in(row.created_at)).collect();
            let views = of_hour.iter().filter(|row| is_pageview(row)).count();
            let begun = visits.iter().filter(|visit| is_in(visit[0].created_at)).count();
            (hour, [count_visitors(of_hour), begun, views])
        })
        .collect()
}

pub(super) fn funnel(rows: &[Row], range: &Range, steps: [&str; 3]) -> Table {
    let mut reached = [0; 3];
    for visit in visits(rows, range) {
        let mut left = visit.into_iter();
        for (step, reached) in steps.iter().zip(&mut reached) {
            let is_step = |row: &Row| if is_pageview(row) { page(row) == *step } else { name(row) == *step };
            if !left.any(is_step) {
                break;
            }
            *reached += 1;
        }
    }
    vec![line(&reached)]
}

pub(super) fn new_and_returning(rows: &[Row], range: &Range) -> Table {
    let all = counted(rows, range);
    let of_range: BTreeSet<_> = events(rows, range).into_iter().map(|row| &row.visitor).collect();
    let was_there = |visitor: &&&String| all.iter().any(|row| row.visitor == ***visitor && row.created_at < range.from);
    let returning = of_range.iter().filter(was_there).count();
    vec![line(&[of_range.len() - returning, returning])]
}

pub(super) fn custom_events_by_property(rows: &[Row], range: &Range, wanted: &str, property: &str) -> Table {
    let events = events(rows, range).into_iter().filter(|row| row.kind == "custom" && name(row) == wanted);
    let value = |row: &Row| match &properties(row)[property] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    with_visitors(top(events.map(|row| (vec![value(row)], row.visitor.clone())), 20))
}

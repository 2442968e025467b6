//! The ten questions of docs/clickhouse.md, asked of a real ClickHouse about events at random: each answer is that of
//! a count by hand. Faults that are planted into the statements change the answers, so the events are such that they tell.

mod by_hand;
mod events;

use std::collections::BTreeMap;

use harness::ClickHouse;
use jiff::Timestamp;
use rand::{SeedableRng, rngs::SmallRng};

use self::{
    by_hand::{Range, Table},
    events::{BERLIN_DAY, EMPTY, HOUR, MINUTE, RANGES, Row, SECOND, SITES, random_events},
};
use crate::ship_page::{run, statements, try_run, with_table};

const QUESTIONS: [&str; 10] = [
    "visitors",
    "visit-numbers",
    "top-pages",
    "top-referrers",
    "entry-and-exit-pages",
    "devices-and-browsers",
    "series-by-hour",
    "funnel",
    "new-and-returning",
    "custom-events-by-property",
];
/// What is counted by hand, as often as questions are asked about it, so not too many.
const SESSIONS: usize = 600;
/// Any number does, but faults are found with some events and not with others.
const SEED: u64 = 8_123;

/// Statements with a fault: where it is planted, the question that must notice, what is replaced by what.
const FAULTS: [(&str, &str, &str, &str); 42] = [
    ("visitors", "visitors", "uniqExact(visitor)", "uniqExact(session)"),
    ("visitors", "visitors", "bitAnd(flags, 3) = 0", "flags = 0"),
    ("visitors", "visitors", "bitAnd(flags, 3)", "bitAnd(flags, 1)"),
    ("visitors", "visitors", "+ 1, 3, {zone:String})", "+ 1, 3, 'UTC')"),
    ("visitors", "visitors", "{day:Date} + 1", "{day:Date} + 2"),
    ("visitors", "visitors", "created_at", "received_at"),
    ("visits", "visit-numbers", "INTERVAL 30 MINUTE AS begins", "INTERVAL 29 MINUTE AS begins"),
    ("visits", "visit-numbers", "INTERVAL 30 MINUTE AS begins", "INTERVAL 31 MINUTE AS begins"),
    ("visits", "visit-numbers", "created_at > lagInFrame", "created_at >= lagInFrame"),
    ("visits", "visit-numbers", "'UTC')} - INTERVAL 30 MINUTE", "'UTC')}"),
    ("visits", "visit-numbers", "'UTC')} + INTERVAL 1 DAY", "'UTC')}"),
    ("visits", "visit-numbers", "PARTITION BY session, visitor", "PARTITION BY session"),
    ("visits", "visit-numbers", "PARTITION BY session, visitor", "PARTITION BY visitor"),
    ("visits", "visit-numbers", "HAVING pageviews > 0 AND", "HAVING"),
    ("visits", "visit-numbers", "began >= {from", "ended >= {from"),
    ("visits", "visit-numbers", "began < {to", "began <= {to"),
    ("visits", "visit-numbers", "max(created_at) AS ended", "maxIf(created_at, type = 'pageview') AS ended"),
    ("visits", "visit-numbers", "!= '$engagement'", "!= 'engagement'"),
    ("visits", "visit-numbers", "!= 'false'", "!= '\"false\"'"),
    ("visits", "visit-numbers", "'event_name', 'action', 'buttonId'", "'event_name', 'buttonId'"),
    ("visit-numbers", "visit-numbers", "pageviews = 1 AND interactions = 0", "pageviews = 1"),
    ("visit-numbers", "visit-numbers", "avg(seconds)", "avgIf(seconds, seconds > 0)"),
    ("top-pages", "top-pages", "cutQueryStringAndFragment(url)", "url"),
    ("top-pages", "top-pages", "'^!?/'", "'^/'"),
    ("top-pages", "top-pages", "AND created_at < {to", "AND created_at <= {to"),
    ("top-referrers", "top-referrers", "referrer = '' OR ", ""),
    ("visits", "top-referrers", "domainWithoutWWWRFC(lower", "domainRFC(lower"),
    (
        "visits",
        "top-referrers",
        "lower(argMinIf(referrer, place, type = 'pageview'))",
        "lower(argMin(referrer, place))",
    ),
    ("visits", "entry-and-exit-pages", "created_at, node, seq", "created_at, seq, node"),
    ("visits", "entry-and-exit-pages", "argMinIf(page, place", "argMaxIf(page, place"),
    ("visits", "devices-and-browsers", "argMin(browser, place)", "argMax(browser, place)"),
    ("visits", "devices-and-browsers", "argMin(device, place)", "argMinIf(device, place, type = 'pageview')"),
    ("series-by-hour", "series-by-hour", "toStartOfHour(at, {zone:String})", "toStartOfHour(at, 'UTC')"),
    ("series-by-hour", "series-by-hour", "STEP INTERVAL 1 HOUR", "STEP INTERVAL 1 DAY"),
    ("series-by-hour", "series-by-hour", "SELECT began", "SELECT ended"),
    ("funnel", "funnel", "place > at_first", "place >= at_first"),
    ("funnel", "funnel", "place > at_second AND ", ""),
    ("visits", "funnel", "if(type = 'pageview', page, name)", "page"),
    ("new-and-returning", "new-and-returning", "min(created_at)", "max(created_at)"),
    ("new-and-returning", "new-and-returning", "HAVING max(created_at) >= {from:DateTime64(3, 'UTC')}", ""),
    ("custom-events-by-property", "custom-events-by-property", "AND type = 'custom'", "AND type != 'pageview'"),
    ("custom-events-by-property", "custom-events-by-property", "'name', 'event',", "'name',"),
];

/// A time as it stands in a statement's parameter.
fn utc(at: i64) -> String {
    Timestamp::from_millisecond(at).unwrap().strftime("%F %T%.3f").to_string()
}

/// A ClickHouse with the events, and the statements to ask.
struct Asked<'a> {
    clickhouse: &'a ClickHouse,
    statements: BTreeMap<String, String>,
    rows: Vec<Row>,
}

impl<'a> Asked<'a> {
    /// Fills the table `events`, which is there, and makes the view.
    fn fill(clickhouse: &'a ClickHouse) -> Self {
        let rows: Vec<Row> = random_events(&mut SmallRng::seed_from_u64(SEED), SESSIONS);
        let lines: Vec<_> = rows.iter().map(|row| row.to_json().to_string()).collect();
        // Of a table over several servers, the insert is answered when all of them have their part.
        let insert = "INSERT INTO events SETTINGS distributed_foreground_insert = 1 FORMAT JSONEachRow";
        run(clickhouse, &format!("{insert}\n{}", lines.join("\n")));
        let statements = statements();
        run(clickhouse, &statements["visits"]);
        Self { clickhouse, statements, rows }
    }

    /// Has a statement of the page be another one.
    fn plant(&mut self, name: &str, statement: &str) {
        if name == "visits" {
            run(self.clickhouse, &statement.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"));
        }
        self.statements.insert(name.to_owned(), statement.to_owned());
    }

    /// Asks a question about a range, and says how the answer differs from what is counted by hand.
    fn difference(&self, question: &str, range: &Range) -> Option<String> {
        match question {
            "visitors" => self.visitors_differ(range.site),
            "visit-numbers" => self.visit_numbers_differ(range),
            "series-by-hour" => self.series_differ(range),
            _ => self.table_differs(question, range),
        }
    }

    fn answer(&self, question: &str, range: &Range, more: &[(&str, &str)]) -> Table {
        let (from, to) = (utc(range.from), utc(range.to));
        let parameters = [&[("site", range.site), ("from", &from), ("to", &to)], more].concat();
        let answer = try_run(self.clickhouse, "default", &self.statements[question], &parameters);
        let cells = |line: &str| line.split('\t').map(str::to_owned).collect();
        answer.unwrap_or_else(|(_, text)| panic!("{text}")).lines().map(cells).collect()
    }

    fn visitors_differ(&self, site: &'static str) -> Option<String> {
        // The day has 25 hours in Berlin, and begins at 18:15 UTC in Kathmandu.
        let kathmandu = BERLIN_DAY - 3 * HOUR - 45 * MINUTE;
        let days = [("Europe/Berlin", BERLIN_DAY, 25), ("Asia/Kathmandu", kathmandu, 24)];
        days.into_iter().find_map(|(zone, from, hours)| {
            let day = Range { site, from, to: from + hours * HOUR };
            let answer = self.answer("visitors", &day, &[("day", "2026-10-25"), ("zone", zone)]);
            differ(zone, answer, by_hand::visitors(&self.rows, &day))
        })
    }

    fn visit_numbers_differ(&self, range: &Range) -> Option<String> {
        /// Half of the last digit, and what a float lacks.
        const ROUNDED: [f64; 3] = [0.050_001, 0.050_001, 0.005_001];
        let answer = self.answer("visit-numbers", range, &[]);
        let told: Vec<f64> = answer[0].iter().map(|cell| cell.parse().unwrap()).collect();
        let (visits, numbers) = by_hand::visit_numbers(&self.rows, range);
        let is_close = |((told, counted), most): ((&f64, f64), f64)| {
            (told - counted).abs() <= most || (told.is_nan() && counted.is_nan())
        };
        let is_same = told[0] == visits as f64 && told[1..].iter().zip(numbers).zip(ROUNDED).all(is_close);
        (!is_same).then(|| format!("{answer:?}, by hand {visits} {numbers:?}"))
    }

    fn series_differ(&self, range: &Range) -> Option<String> {
        // Hours of Kathmandu begin at a quarter past those of UTC.
        [("Europe/Berlin", 0), ("Asia/Kathmandu", 15 * MINUTE)].into_iter().find_map(|(zone, shift)| {
            let answer = self.answer("series-by-hour", range, &[("zone", zone)]);
            let hour = |(at, counts): (i64, [usize; 3])| {
                let counts = counts.iter().map(usize::to_string);
                std::iter::once((at / SECOND).to_string()).chain(counts).collect()
            };
            let series = by_hand::series_by_hour(&self.rows, range, shift);
            differ(zone, answer, series.into_iter().map(hour).collect())
        })
    }

    fn table_differs(&self, question: &str, range: &Range) -> Option<String> {
        /// A step that comes twice, one that is a page and a name, and what nobody does.
        const FUNNELS: [[&str; 3]; 3] =
            [["/", "/pricing", "signup"], ["/pricing", "/pricing", "/pricing"], ["/", "nothing", "/"]];
        let rows = &self.rows;
        let asks: Vec<(Vec<(&str, &str)>, Table)> = match question {
            "top-pages" => vec![(vec![], by_hand::top_pages(rows, range))],
            "top-referrers" => {
                let counted = by_hand::top_referrers(rows, range, &["example.com"]);
                vec![(vec![("hosts", "['example.com']")], counted)]
            }
            "entry-and-exit-pages" => vec![(vec![], by_hand::entry_and_exit_pages(rows, range))],
            "devices-and-browsers" => vec![(vec![], by_hand::devices_and_browsers(rows, range))],
            "new-and-returning" => vec![(vec![], by_hand::new_and_returning(rows, range))],
            "funnel" => FUNNELS
                .map(|steps| {
                    let parameters = ["first", "second", "third"].into_iter().zip(steps).collect();
                    (parameters, by_hand::funnel(rows, range, steps))
                })
                .into(),
            "custom-events-by-property" => ["signup", "scroll", "custom"]
                .map(|name| {
                    let counted = by_hand::custom_events_by_property(rows, range, name, "plan");
                    (vec![("name", name), ("property", "plan")], counted)
                })
                .into(),
            other => panic!("{other}"),
        };
        asks.into_iter().find_map(|(parameters, counted)| {
            let answer = self.answer(question, range, &parameters);
            differ(&format!("{parameters:?}"), answer, counted)
        })
    }

    /// Asks a question about everything that there is to ask about, until an answer differs.
    fn first_difference(&self, question: &str) -> Option<String> {
        let ranges = [&RANGES[..], &[EMPTY]].concat();
        let asked = |site| ranges.iter().map(move |&(from, to)| Range { site, from, to });
        let mut all = SITES.into_iter().flat_map(asked);
        all.find_map(|range| {
            let difference = self.difference(question, &range)?;
            Some(format!("{question} of {} from {} to {}: {difference}", range.site, utc(range.from), utc(range.to)))
        })
    }
}

fn differ(what: &str, answer: Table, counted: Table) -> Option<String> {
    (answer != counted).then(|| format!("{what}: {answer:?}, by hand {counted:?}"))
}

/// Holds that every question is answered as by hand, from a filled database.
pub(crate) fn answers_are_as_by_hand(clickhouse: &ClickHouse) {
    let asked = Asked::fill(clickhouse);
    for question in QUESTIONS {
        assert_eq!(asked.first_difference(question), None);
    }
}

#[test]
fn ten_questions_are_answered_as_by_hand() {
    let Some(clickhouse) = with_table() else { return };
    answers_are_as_by_hand(&clickhouse);
}

#[test]
fn planted_faults_change_the_answers() {
    let Some(clickhouse) = with_table() else { return };
    let mut asked = Asked::fill(&clickhouse);
    let mut unnoticed = Vec::new();
    for (of, question, sound, faulty) in FAULTS {
        let whole = asked.statements[of].clone();
        assert!(whole.contains(sound), "{of}: {sound}");
        asked.plant(of, &whole.replace(sound, faulty));
        if asked.first_difference(question).is_none() {
            unnoticed.push((question, sound, faulty));
        }
        asked.plant(of, &whole);
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}

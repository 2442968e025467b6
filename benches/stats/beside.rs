//! Numbers beside the same questions as SQL: each side with a store or connection of its own, opened anew for each
//! question, one after the other. What is counted one by one must be the same on both.

use std::{
    path::Path,
    process,
    time::{Duration, Instant},
};

use harness::measure::cpu_seconds;
use hitlog::store::{Dimension, ListRow, NumbersReply, Span};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{
    Asked, DAY_MS, FIRST_TIME, Question, WARM,
    table::{Rows, Sql, Table},
};

/// No question is asked for longer than this again, once it was asked some times.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_MIN: usize = 3;

/// Asks hitlog and the table, which is made if it is not there.
pub fn compare(data: &Path, table: &Path, events: usize, days: i64, runtime: &Runtime) {
    Table::make(table, events);
    let head = ["first", "again p50", "again p99", "processor", "askings"].map(|name| format!("{name:>14}")).concat();
    println!("{:48}{head}", "");
    for Pair { question, sql } in pairs(days) {
        let [estimated, exact] = [false, true].map(|is_exact| {
            let asked = Asked::open(data);
            let answer = Times::of(|| rows(&question.spans, &asked.ask(runtime, &question, is_exact)[0]));
            asked.store.close().unwrap();
            answer
        });
        let connection = Table::open(table, events);
        let (times, answer) = Times::of(|| connection.ask(&sql));
        assert_eq!(exact.1, answer, "{}", question.name);
        connection.note(question.name, &sql, &answer);
        estimated.0.show(question.name, "hitlog", &times);
        exact.0.show("", "hitlog, exact=true", &times);
        times.show("", "one table", &times);
    }
    compare_pages(data, table, events, days, runtime);
}

/// The pages that most visitors have seen.
fn compare_pages(data: &Path, table: &Path, events: usize, days: i64, runtime: &Runtime) {
    let span = Span { from: FIRST_TIME, to: FIRST_TIME + days * DAY_MS };
    let question = Question { name: "top pages of everything", filters: Vec::new(), spans: vec![span], listed: None };
    let [estimated, exact] = [false, true].map(|is_exact| {
        let asked = Asked::open(data);
        let answer = Times::of(|| asked.list(runtime, &question, Dimension::Page, is_exact).rows);
        asked.store.close().unwrap();
        answer
    });
    let (sql, connection) = (Sql::pages(span), Table::open(table, events));
    let (times, answer) = Times::of(|| connection.ask(&sql));
    connection.note(question.name, &sql, &answer);
    let row = |row: &ListRow| {
        let numbers = [row.visitors as i64, row.counts.pageviews, row.counts.visits].map(Value::from);
        [vec![Value::from(row.value.clone())], numbers.to_vec()].concat()
    };
    assert_eq!(exact.1.iter().map(row).collect::<Rows>(), answer);
    estimated.0.show(question.name, "hitlog", &times);
    exact.0.show("", "hitlog, exact=true", &times);
    times.show("", "one table", &times);
}

/// The same question twice.
struct Pair {
    question: Question<'static>,
    sql: Sql,
}

fn pairs(days: i64) -> Vec<Pair> {
    let asked = ["totals of everything", "days of everything", "totals of a week"];
    let all = Question::all(days).into_iter().filter(|question| asked.contains(&question.name));
    all.map(|question| {
        let range = Span { from: question.spans[0].from, to: question.spans[question.spans.len() - 1].to };
        let is_series = question.name.starts_with("days");
        Pair { sql: if is_series { Sql::days(range) } else { Sql::totals(range) }, question }
    })
    .collect()
}

/// An answer of hitlog's as the table gives it.
fn rows(spans: &[Span], reply: &NumbersReply) -> Rows {
    let of = spans.iter().zip(&reply.spans);
    of.map(|(span, numbers)| {
        let counts = numbers.counts;
        let visits = [counts.visits, counts.bounces, counts.duration_ms];
        let seen = [span.from, numbers.visitors as i64, counts.pageviews, counts.interactions];
        seen.into_iter().chain(visits).map(Into::into).collect()
    })
    .collect()
}

/// What askings took, in milliseconds.
struct Times {
    first: f64,
    p50: f64,
    p99: f64,
    /// Of processor time, of all threads together, on average. It hardly depends on what else the machine does.
    cpu: f64,
    askings: usize,
}

impl Times {
    /// Asks once, and then again, which must be answered with the same.
    fn of<T: PartialEq + std::fmt::Debug>(ask: impl Fn() -> T) -> (Self, T) {
        let timed = || {
            let begun = Instant::now();
            let answer = ask();
            (begun.elapsed().as_secs_f64() * 1e3, answer)
        };
        let (first, answer) = timed();
        let (begun, cpu_before, mut times) = (Instant::now(), cpu_seconds(process::id()), Vec::new());
        while times.len() < WARM && (times.len() < AGAIN_MIN || begun.elapsed() < AGAIN) {
            let (time, again) = timed();
            assert_eq!(again, answer);
            times.push(time);
        }
        times.sort_by(f64::total_cmp);
        let askings = times.len();
        let cpu = (cpu_seconds(process::id()) - cpu_before) * 1e3 / askings as f64;
        (Self { first, p50: times[askings / 2], p99: times[askings * 99 / 100], cpu, askings }, answer)
    }

    /// Shows them, and how many times as long the table took: the middle asking, and the processor.
    fn show(&self, question: &str, side: &str, table: &Self) {
        let Self { first, p50, p99, cpu, askings } = self;
        let times = [first, p50, p99, cpu].map(|time| format!("{time:>11.1} ms")).concat();
        let ratios = format!("{:.1} and {:.1} times", table.p50 / p50, table.cpu / cpu);
        println!("{question:<28}{side:<20}{times}{askings:>14}   {ratios}");
    }
}

//! Whether a list is what the oracle says, to the digit.

use serde_json::{Value, json};

use super::{
    calendar::Range,
    compare::Comparison,
    lists::Row,
    oracle::{self, Oracle},
    questions::Top,
};

/// Rows of a list where the question names no number.
const LIMIT: usize = 10;

impl Comparison<'_> {
    pub fn list(&mut self, oracle: &Oracle, top: &Top, (from, to): Range) {
        let asked = oracle::Question {
            website: self.question.website,
            from,
            to,
            filters: &self.question.filters,
            expired_before: self.moment.expired_before,
        };
        let rows = oracle.list(&asked, &top.name, top.order.unwrap_or("visitors"));
        let (limit, offset) = (top.limit.unwrap_or(LIMIT), top.offset.unwrap_or(0));
        let answer = self.answer;
        self.expect("dimension", &answer["dimension"], answer["dimension"] == *top.name, &top.name);
        let other = json!({"visits": 0, "pageviews": 0, "events": 0});
        self.expect("other", &answer["other"], answer["other"] == other, &other);
        let pagination = json!({"total": rows.len(), "limit": limit, "offset": offset});
        self.expect("pagination", &answer["pagination"], answer["pagination"] == pagination, &pagination);
        let shown: Vec<&Row> = rows.iter().skip(offset).take(limit).collect();
        self.rows(&answer["rows"], &shown);
    }

    fn rows(&mut self, got: &Value, expected: &[&Row]) {
        let values = |rows: &[Value]| -> Vec<Value> { rows.iter().map(|row| row["value"].clone()).collect() };
        let got = got.as_array().map_or(&[][..], Vec::as_slice);
        let expected_values: Vec<Value> = expected.iter().map(|row| json!(row.value)).collect();
        let got_values = values(got);
        self.expect(
            "the values",
            &json!(got_values),
            got_values == expected_values,
            json!(expected_values).to_string(),
        );
        for (got, expected) in got.iter().zip(expected).filter(|(got, row)| got["value"] == json!(row.value)) {
            self.row(got, expected);
        }
    }

    fn row(&mut self, got: &Value, Row { value, totals, events, share }: &Row) {
        for (name, units, per_one) in [
            ("visitors", totals.visitors, 1),
            ("visits", totals.visits, 1),
            ("pageviews", totals.pageviews, 1),
            ("events", *events, 1),
            ("bounceRate", totals.bounce_rate, 10),
            ("visitDuration", totals.visit_duration, 10),
            ("share", *share, 10),
        ] {
            self.number(&format!("{name} of {value:?}"), &got[name], Some(units as i64), per_one);
        }
    }
}

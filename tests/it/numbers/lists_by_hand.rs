//! Lists of the oracle, in cases that were counted by hand, and beside its own filters.

use serde_json::{Value, json};

use super::{
    by_hand::{ALWAYS, MINUTE, event, of, oracle, view},
    dice::Dice,
    filed::{OF_EVENT, OF_VISIT},
    filters::escaped,
    lists::{ORDERS, Row},
    oracle::{Event, Oracle, Question},
    planted::{NOW, traffic_of},
    questions::filters,
};

fn list(oracle: &Oracle, name: &str, order: &str, filters: &[(&str, &str)]) -> Vec<Row> {
    let filters: Vec<_> = filters.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let (from, to) = ALWAYS;
    oracle.list(&Question { website: 0, from, to, filters: &filters, expired_before: None }, name, order)
}

/// Value, visitors, visits, page views, events, and the bounce rate and the share in tenths of a percent.
fn shown(rows: &[Row]) -> Vec<(&str, [u64; 6])> {
    let numbers = |Row { totals, events, share, .. }: &Row| {
        [totals.visitors, totals.visits, totals.pageviews, *events, totals.bounce_rate, *share]
    };
    rows.iter().map(|row| (row.value.as_deref().unwrap_or("(none)"), numbers(row))).collect()
}

#[test]
fn a_visit_stands_under_every_page_that_it_saw_and_bounces_where_it_began() {
    let oracle = oracle([
        of("one", view("/a", 0)),
        of("two", view("/b", 0)),
        of("two", view("/a", MINUTE)),
        of("two", view("/a", 2 * MINUTE)),
        of("two", event("click", "/c", 2 * MINUTE, Value::Null)),
        of("three", view("/c", 0)),
    ]);
    let expected = [("/a", [2, 2, 3, 3, 1_000, 667]), ("/c", [2, 2, 1, 2, 1_000, 667]), ("/b", [1, 1, 1, 1, 0, 333])];
    assert_eq!(shown(&list(&oracle, "page", "visitors", &[])), expected);
    assert_eq!(list(&oracle, "page", "visitors", &[])[0].totals.visit_duration, 600, "of whole visits");
    let [a, c, b] = expected;
    assert_eq!(shown(&list(&oracle, "page", "visits", &[])), [a, c, b]);
    assert_eq!(shown(&list(&oracle, "page", "pageviews", &[])), [a, b, c]);
    assert_eq!(shown(&list(&oracle, "page", "events", &[])), [a, c, b]);
    // The value is another filter beside that of the question, and not one more of its values.
    assert_eq!(shown(&list(&oracle, "page", "visitors", &[("page", "/b")])), [("/b", [1, 1, 1, 1, 0, 1_000])]);
    assert_eq!(
        shown(&list(&oracle, "entryPage", "visitors", &[("page", "/a")])),
        [("/a", [1, 1, 1, 1, 1_000, 500]), ("/b", [1, 1, 2, 2, 0, 500]),]
    );
}

#[test]
fn events_are_listed_by_their_names_and_views_have_none() {
    let named = |name: &str, at| event("custom", "/", at, json!({ "name": name }));
    let oracle = oracle([view("/", 0), named("b", 1), named("b", 2), named("$engagement", 3), named("a", 4)]);
    let expected = [("a", [1, 1, 0, 1, 0, 1_000]), ("b", [1, 1, 0, 2, 0, 1_000])];
    assert_eq!(shown(&list(&oracle, "event", "visitors", &[])), expected);
    assert_eq!(shown(&list(&oracle, "hostname", "events", &[]))[0].1[3], 5, "events of every kind");
}

#[test]
fn none_is_a_row_and_so_is_what_only_quiet_ones_have() {
    let lynx = |event: Event| Event { browser: Some("Lynx".to_owned()), ..event };
    let oracle = oracle([view("/?ref=x", 0), of("other", lynx(event("click", "/?ref=y", 0, Value::Null)))]);
    let expected = [("(none)", [1, 1, 1, 1, 1_000, 500]), ("Lynx", [1, 0, 0, 1, 0, 500])];
    assert_eq!(shown(&list(&oracle, "browser", "visitors", &[])), expected);
    let expected = [("(none)", [1, 0, 0, 1, 0, 500]), ("x", [1, 1, 1, 1, 1_000, 500])];
    assert_eq!(shown(&list(&oracle, "source", "visitors", &[])), expected);
}

#[test]
fn a_value_is_listed_for_a_visit_of_the_range_even_if_its_events_are_not() {
    let oracle =
        oracle([view("/a", 0), view("/b", 10), event("click", "/c", 20, Value::Null), view("/d", MINUTE * 31)]);
    let question = Question { website: 0, from: 0, to: 10, filters: &[], expired_before: None };
    let rows = oracle.list(&question, "page", "visitors");
    let expected = [("/a", [1, 1, 1, 1, 0, 1_000]), ("/b", [0, 1, 0, 0, 0, 0]), ("/c", [0, 1, 0, 0, 0, 0])];
    assert_eq!(shown(&rows), expected);
}

#[test]
fn what_the_value_of_a_property_is() {
    let long = format!("{}\u{fc}", "x".repeat(1_023));
    for (value, shown) in [
        (json!("gold"), Some("gold")),
        (json!(" "), Some(" ")),
        (json!(7), Some("7")),
        (json!(-2.5), Some("-2.5")),
        (json!(u64::MAX), Some("18446744073709551615")),
        (json!(true), Some("true")),
        (json!(false), Some("false")),
        (json!(long), Some(&long[..1_023])),
        (json!(""), None),
        (Value::Null, None),
        (json!(["gold"]), None),
        (json!({"plan": "gold"}), None),
    ] {
        for kind in ["pageview", "click", "custom"] {
            let oracle = oracle([event(kind, "/", 0, json!({"plan": value, "other": "x"}))]);
            let rows = list(&oracle, "property:plan", "visitors", &[]);
            let values: Vec<_> = rows.iter().map(|row| row.value.as_deref()).collect();
            assert_eq!(values, shown.map(Some).into_iter().collect::<Vec<_>>(), "{kind} {value}");
        }
    }
    let oracle = oracle([view("/", 0), view("/", MINUTE), event("click", "/", 2 * MINUTE, json!({"plan": "gold"}))]);
    let expected = [("gold", [1, 1, 0, 1, 0, 1_000])];
    assert_eq!(shown(&list(&oracle, "property:plan", "visitors", &[])), expected);
    assert_eq!(list(&oracle, "property:plan", "visitors", &[("event", "")]), []);
}

/// Where the question has no filter of the list's name, one for the value of a row leaves what the row has.
#[test]
fn rows_have_what_a_filter_for_their_value_leaves() {
    let dice = &mut Dice(1);
    let oracle = traffic_of(dice);
    for name in [&OF_EVENT[..], &OF_VISIT].concat() {
        for _ in 0..3 {
            let mut filters = filters(dice, &oracle, 0);
            filters.retain(|(other, _)| other != name);
            let from = NOW - dice.between(1, 200) * 60 * MINUTE;
            let asked = Question { website: 0, from, to: NOW, filters: &filters, expired_before: None };
            let rows = oracle.list(&asked, name, ORDERS[dice.below(4)]);
            for row in rows {
                let value = row.value.as_deref().map_or_else(String::new, escaped);
                let with_value = [&filters[..], &[(name.to_owned(), value)]].concat();
                assert_eq!(
                    oracle.totals(&Question { filters: &with_value, ..asked.clone() }),
                    row.totals,
                    "{name} {row:?}"
                );
            }
        }
    }
}

//! A rollup answers as a tally of the same events does, and however it is made.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::{Connection, params, types::Value};

use super::{
    block::Needed,
    filter::{Filter, Filters},
    list::KeptList,
    memory::MemoryPiece,
    *,
};
use crate::store::format::{row, schema};

/// An event: time in minutes, visitor, session, type, page, flags.
type Made = (i64, u8, u8, u8, u8, u8);

fn segment(events: &[Made]) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(schema::SEGMENT_SQL).unwrap();
    for (id, (minute, visitor, session, kind, page, flags)) in events.iter().enumerate() {
        let event_type = ["pageview", "click", "custom"][usize::from(*kind)];
        let properties = (*kind == 2).then_some(r#"{"name":"$engagement","engagedMs":1500}"#);
        connection
            .execute(
                "INSERT INTO Event VALUES(?1, 'web-1', ?2, ?3, ?4, ?5, ?6, NULL, 'Firefox', NULL, ?7, ?8, ?9, 0, NULL, ?10)",
                params![
                    id as i64 + 1,
                    event_type,
                    {
                        let host = ["", "shop."][usize::from(minute % 2 == 1)];
                        format!("https://{host}example.com/{page}?utm_source=s{}", page % 2)
                    },
                    (page % 3 == 0).then_some("https://www.google.com/"),
                    format!("s{session}"),
                    format!("v{visitor}"),
                    ["DE", "US"][usize::from(visitor % 2)],
                    properties,
                    minute * 60_000,
                    flags
                ],
            )
            .unwrap();
    }
    connection
}

fn tally(connection: &Connection) -> MemoryPiece {
    let mut piece = MemoryPiece::default();
    let mut select = connection.prepare(schema::SELECT_FLAGGED_EVENTS).unwrap();
    let mut rows = select.query([]).unwrap();
    let mut order = 0;
    while let Some(row) = rows.next().unwrap() {
        piece.add_row(&row::event_row(row).unwrap(), row.get(row::FLAGS).unwrap(), order);
        order += 1;
    }
    piece
}

fn questions() -> [Filters; 4] {
    let own = || Own { hosts: ["example.com".to_owned()].into(), has_several: false };
    [
        vec![],
        vec![(Dimension::Page, "/1")],
        vec![(Dimension::Location, "DE"), (Dimension::Source, "s1")],
        vec![(Dimension::ExitPage, "!/2")],
    ]
    .map(|filters| {
        Filters::new(filters.into_iter().map(|(dimension, text)| Filter::new(dimension, text)).collect(), own())
    })
}

const SELECTIONS: [Selection; 2] = [
    Selection { with_unwanted: false, expired_before: i64::MIN },
    Selection { with_unwanted: true, expired_before: i64::MIN },
];

fn of_tally(piece: &MemoryPiece, filters: &Filters, selection: Selection) -> Answer {
    let matcher = filters.look_up(&piece.dictionaries).unwrap();
    let mut collector = Collector::default();
    piece.run(&Evaluation { selection, matcher: &matcher }, |_, _| {}, &mut collector);
    collector.end()
}

fn of_rollup(connection: &Connection, filters: &Filters, selection: Selection) -> Answer {
    let rollup = Rollup::read(connection, "web-1").unwrap().unwrap();
    let dictionaries = Rollup::read_dictionaries(connection, "web-1").unwrap();
    let matcher = filters.look_up(&dictionaries).unwrap();
    let evaluation = Evaluation { selection, matcher: &matcher };
    let (mut collector, mut scratch) = (Collector::default(), Vec::new());
    for block in &rollup.blocks {
        let fragments = read_block(connection, block, matcher.needed()).unwrap();
        for at in 0..fragments.len() {
            let (first, last) = fragments.times(at);
            assert!(block.times.0 <= first && last <= block.times.1);
            evaluation.run(fragments.key(at), fragments.hits(at), &mut scratch, &mut collector);
        }
    }
    collector.end()
}

/// What each value has: sums, and visitors by the high half of their hashes, once for each run.
type Listed = BTreeMap<Vec<u8>, (Counts, Vec<u32>)>;

fn list_of_tally(piece: &MemoryPiece, filters: &Filters, selection: Selection, dimension: Dimension) -> Listed {
    let matcher = filters.look_up(&piece.dictionaries).unwrap();
    let ever = (i64::MIN, i64::MAX);
    let mut lister = Lister::new(dimension, &piece.dictionaries, filters.own(), ever).unwrap();
    piece.run(&Evaluation { selection, matcher: &matcher }, |_, _| {}, &mut lister);
    let list = lister.end();
    let group = |(value, group): (Option<&[u8]>, &Group)| {
        let visitors = group.visitors.below(u64::MAX).iter().map(|hash| high(*hash)).collect();
        (value.expect("every value has room").to_vec(), (group.counts, visitors))
    };
    list.groups().map(group).collect()
}

/// What the file has, with the groups of one value put together.
fn list_of_file(connection: &Connection, own: &Own, dimension: Dimension) -> Listed {
    let dictionaries = Rollup::read_dictionaries(connection, "web-1").unwrap();
    let mut values = Values::unlimited();
    let grouping = Grouping::shown(dimension, &dictionaries, own, &mut values).unwrap();
    let mut listed = Listed::new();
    let kind = ListKind::of(dimension, own, &grouping);
    let read = Rollup::read_list(connection, "web-1", kind, |kept| {
        kept.for_each(|number, group| {
            assert_eq!(group.visitors.threshold, u32::MAX);
            let value = values.get(grouping.group(number)).to_vec();
            let (counts, visitors) = listed.entry(value).or_default();
            *counts += group.counts;
            visitors.extend(group.visitors.below(u32::MAX));
            visitors.sort_unstable();
        })
    });
    assert_eq!(read.unwrap(), Some(()));
    listed
}

/// What a filter for a value leaves.
fn of_value(
    piece: &MemoryPiece,
    filters: &Filters,
    selection: Selection,
    (dimension, value): (Dimension, &[u8]),
) -> Counts {
    let literally = Filter::literally(dimension, std::str::from_utf8(value).unwrap());
    let answer = of_tally(piece, &filters.clone().and(vec![literally]), selection);
    let mut counts = Counts::default();
    answer.quarters.values().for_each(|quarter| counts += quarter.counts);
    counts
}

fn rows(connection: &Connection, table: &str) -> Vec<Vec<Value>> {
    let mut select = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
    let columns = select.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
    select.query_map([], row).unwrap().map(Result::unwrap).collect()
}

fn events() -> impl Strategy<Value = Vec<Made>> {
    let event = (0..400_i64, 0..5_u8, 0..3_u8, 0..3_u8, 0..4_u8, prop_oneof![9 => Just(0_u8), 1 => 1..4_u8]);
    prop::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_rollup_answers_as_a_tally_does(events in events(), passes in 1..4_u64) {
        let connection = segment(&events);
        write::write_in_passes(&connection, (events.len() as u64).div_ceil(passes)).unwrap();
        let piece = tally(&connection);
        for filters in questions() {
            for selection in SELECTIONS {
                let answer = of_tally(&piece, &filters, selection);
                prop_assert_eq!(&of_rollup(&connection, &filters, selection), &answer);
                if filters.is_empty() && !selection.with_unwanted {
                    let kept = Rollup::read(&connection, "web-1").unwrap().unwrap();
                    prop_assert_eq!(&*kept.answer, &answer);
                    prop_assert_eq!(Answer::read(&answer.write()), Ok(answer));
                }
            }
        }
        let kept = Rollup::read(&connection, "web-1").unwrap().unwrap();
        prop_assert_eq!((kept.events as usize, Some(kept.times)), (events.len(), piece.times()));
    }

    #[test]
    fn a_list_has_of_each_value_what_a_filter_for_it_leaves(
        events in events(), passes in 1..4_u64, has_several in any::<bool>()
    ) {
        let connection = segment(&events);
        write::write_in_passes(&connection, (events.len() as u64).div_ceil(passes)).unwrap();
        let piece = tally(&connection);
        for filters in questions().map(|filters| filters.of_site(has_several)) {
            for (selection, dimension) in SELECTIONS.into_iter().flat_map(|selection| Dimension::ALL.map(|of| (selection, of))) {
                let list = list_of_tally(&piece, &filters, selection, dimension);
                let mut all = 0;
                for (value, (counts, _)) in &list {
                    prop_assert_eq!(*counts, of_value(&piece, &filters, selection, (dimension, value)));
                    all += counts.events;
                }
                let everything = of_tally(&piece, &filters, selection);
                prop_assert_eq!(all, everything.quarters.values().map(|quarter| quarter.counts.events).sum::<i64>());
                if filters.is_empty() && !selection.with_unwanted {
                    prop_assert_eq!(list_of_file(&connection, filters.own(), dimension), list);
                }
            }
        }
    }

    #[test]
    fn what_is_made_ahead_is_what_would_be_written(events in events()) {
        let (written, copy) = (segment(&events), segment(&events));
        write(&written).unwrap();
        copy.pragma_update(None, "user_version", schema::SEGMENT_VERSION).unwrap();
        let made = make(&copy).unwrap().unwrap();
        made.write(&copy).unwrap();
        prop_assert!(written.table_exists(None, "RollupList").unwrap());
        for table in ["Rollup", "RollupBlock", "RollupList"] {
            prop_assert_eq!(rows(&copy, table), rows(&written, table));
        }
    }

    #[test]
    fn bytes_that_were_changed_are_refused_or_read_and_nothing_breaks(
        events in events(), at in any::<prop::sample::Index>(), flip in 1..=255_u8
    ) {
        let connection = segment(&events);
        write(&connection).unwrap();
        let mut keys: Vec<u8> = connection.query_row("SELECT keys FROM RollupBlock", [], |row| row.get(0)).unwrap();
        let mut hits: Vec<u8> = connection.query_row("SELECT hits FROM RollupBlock", [], |row| row.get(0)).unwrap();
        let whole = Fragments::read_keys(&keys).unwrap();
        let place = at.index(hits.len());
        hits[place] ^= flip;
        let _ = whole.clone().read_hits(&hits, Needed::ALL);
        let place = at.index(keys.len());
        keys[place] ^= flip;
        if let Ok(mut fragments) = Fragments::read_keys(&keys) {
            let _ = fragments.read_hits(&hits, Needed::ALL);
        }
        let other = connection.execute("UPDATE RollupBlock SET hits = ?1", [&hits]).unwrap();
        prop_assert_eq!(other, 1);
        let rollup = Rollup::read(&connection, "web-1").unwrap().unwrap();
        prop_assert!(read_block(&connection, &rollup.blocks[0], Needed::ALL).is_err());
        let select = "SELECT groups FROM RollupList WHERE kind = 3";
        let mut groups: Vec<u8> = connection.query_row(select, [], |row| row.get(0)).unwrap();
        let place = at.index(groups.len());
        groups[place] ^= flip;
        let mut visitors = 0;
        let _ = KeptList(&groups).for_each(|_, group| visitors += group.visitors.below(u32::MAX).count());
        prop_assert!(visitors <= groups.len());
        connection.execute("UPDATE RollupList SET groups = ?1 WHERE kind = 3", [&groups]).unwrap();
        let kind = ListKind::Of(Dimension::Event.field());
        prop_assert!(Rollup::read_list(&connection, "web-1", kind, |_| Ok(())).is_err());
        connection.execute("UPDATE RollupList SET kind = kind + 100", []).unwrap();
        connection.execute("UPDATE RollupList SET kind = 3 WHERE kind = 108", []).unwrap();
        let read = Rollup::read_list(&connection, "web-1", kind, |_| Ok(()));
        prop_assert!(read.is_err(), "a list of another kind");
    }
}

#[test]
fn a_visit_of_thirty_minutes_of_silence_is_one_and_of_more_are_two() {
    let minutes = |minute| (minute, 1, 1, 0, 1, 0);
    let piece = tally(&segment(&[minutes(0), minutes(30), minutes(61)]));
    let [everything, ..] = questions();
    let answer = of_tally(&piece, &everything, SELECTIONS[0]);
    let visits: i64 = answer.quarters.values().map(|quarter| quarter.counts.visits).sum();
    let bounces: i64 = answer.quarters.values().map(|quarter| quarter.counts.bounces).sum();
    assert_eq!((visits, bounces), (2, 1));
}

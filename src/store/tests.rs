//! The store against a model: a plain sorted list.

mod followed;
mod model;

use std::{path::Path, time::Duration};

use proptest::prelude::*;

pub(super) use self::model::{metrics, options};
use self::{
    followed::Followed,
    model::{ANYTHING, Asked, Event, Pair, Walk, unit},
};
use super::{read::list::merge, *};
use crate::{event::EventType, metrics::SegmentLabel};

fn event() -> impl Strategy<Value = Event> {
    let near = prop_oneof![4 => 1_000..1_050_i64, 2 => 0..10_000_i64].prop_map(unit);
    let time = prop_oneof![6 => near, 1 => 2 * now_ms()..250_000_000_000_000_i64];
    let id = prop::option::of(0..200_u8);
    (0..3_u8, 0..3_usize, 0..8_u16, 0..4_u8, time, id).prop_map(|(website, kind, session, visitor, created_at, id)| {
        Event { website, event_type: EventType::ALL[kind], session, visitor, created_at, id }
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..40)
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Event>),
    AppendLate(Vec<Event>, Vec<Vec<Event>>),
    Roll,
    Seal,
    Reopen,
    Retain(i64),
    Erase(u8, u8),
    FinishErasures,
    DeleteWebsite(u8),
    BeginWalk(u8, Option<u8>),
    /// A tail, from the start or from now.
    Follow(u8, Option<EventType>, bool),
    GoOn(u64),
    Check,
}

impl Step {
    /// Does what changes the store, whoever looks at it.
    fn change(self, pair: &mut Pair, erasures: &mut Vec<Arc<str>>) {
        match self {
            Self::Append(events) => pair.append(&events),
            Self::AppendLate(events, before) => pair.append_late(&events, &before),
            Self::Roll => pair.roll(),
            Self::Seal => pair.seal(),
            Self::Reopen => pair.reopen(),
            Self::Retain(from) => pair.retain(unit(from) + unit(1) / 2),
            Self::Erase(website, visitor) => erasures.extend(pair.erase(website, visitor)),
            Self::FinishErasures => erasures.drain(..).for_each(|erasure| pair.finish(&erasure)),
            Self::DeleteWebsite(website) => pair.delete_website(website),
            Self::BeginWalk(..) | Self::Follow(..) | Self::GoOn(_) | Self::Check => {}
        }
    }
}

/// An event of which only the time matters.
fn click(created_at: i64) -> Event {
    Event { website: 0, event_type: EventType::Click, session: 0, visitor: 0, created_at, id: None }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => events().prop_map(Step::Append),
        3 => (events(), prop::collection::vec(events(), 1..4)).prop_map(|(late, before)| Step::AppendLate(late, before)),
        4 => Just(Step::Roll),
        2 => Just(Step::Seal),
        2 => Just(Step::Reopen),
        1 => (900..1_040_i64).prop_map(Step::Retain),
        3 => (0..3_u8, 0..4_u8).prop_map(|(website, visitor)| Step::Erase(website, visitor)),
        1 => Just(Step::FinishErasures),
        1 => (1..3_u8).prop_map(Step::DeleteWebsite),
        2 => (0..3_u8, prop::option::of(0..4_u8)).prop_map(|(website, visitor)| Step::BeginWalk(website, visitor)),
        4 => (1..9_u64).prop_map(Step::GoOn),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_a_sorted_list_would(
        rows_max in 20..80_u64,
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let work = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(work.path(), options(rows_max));
        let (mut walks, mut erasures) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::DeleteWebsite(website) => {
                    walks.retain(|walk: &Walk| walk.asked.website != website);
                    pair.delete_website(website);
                }
                Step::BeginWalk(website, visitor) => {
                    walks.push(Walk::begin(&pair, Asked { website, visitor, ..ANYTHING }, 2));
                }
                Step::GoOn(limit) => {
                    walks.iter_mut().for_each(|walk| {
                        walk.go_on(&pair, limit);
                    });
                }
                Step::Check => pair.check(),
                other => other.change(&mut pair, &mut erasures),
            }
        }
        walks.into_iter().for_each(|walk| walk.end(&pair));
        pair.check();
        pair.seal();
        pair.check();
        erasures.drain(..).for_each(|erasure| pair.finish(&erasure));
        pair.check();
        pair.reopen();
        pair.check();
    }
}

fn step_of_tails() -> impl Strategy<Value = Step> {
    let follow = (0..3_u8, prop::option::of(0..3_usize), any::<bool>());
    let follow = follow.prop_map(|(website, kind, from_start)| {
        Step::Follow(website, kind.map(|kind| EventType::ALL[kind]), from_start)
    });
    prop_oneof![3 => step(), 1 => follow, 1 => (1..9_u64).prop_map(Step::GoOn)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn who_follows_events_sees_each_once_and_in_order(
        rows_max in 20..80_u64,
        steps in prop::collection::vec(step_of_tails(), 1..60)
    ) {
        let work = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(work.path(), options(rows_max));
        let (mut tails, mut erasures) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::DeleteWebsite(website) => {
                    tails.retain(|tail: &Followed| tail.website != website);
                    pair.delete_website(website);
                }
                Step::Follow(website, event_type, from_start) => {
                    tails.extend(Followed::begin(&pair, (website, event_type), from_start));
                }
                Step::GoOn(limit) => {
                    for tail in &mut tails {
                        tail.go_on(&pair, limit);
                    }
                }
                Step::BeginWalk(..) | Step::Check => {}
                other => other.change(&mut pair, &mut erasures),
            }
        }
        let middle = tails.len() / 2;
        tails[..middle].iter_mut().for_each(|tail| tail.end(&pair));
        pair.seal();
        // Once more, with what has become of the segments.
        tails.iter_mut().for_each(|tail| tail.end(&pair));
        (0..3).filter_map(|website| Followed::begin(&pair, (website, None), true)).for_each(|mut tail| tail.end(&pair));
    }
}

/// Where the sealer wants to build, something stands in the way, until the return value is called.
fn keep_from_sealing(work: &Path) -> impl FnOnce() + use<> {
    let folder = work.join("segments");
    let in_the_way = move |number: u64| folder.join(format!("{number:012}.building"));
    (1..=7).for_each(|number| std::fs::create_dir_all(in_the_way(number).join("x")).unwrap());
    move || (1..=7).for_each(|number| std::fs::remove_dir_all(in_the_way(number)).unwrap())
}

fn keys_files(work: &Path) -> usize {
    let entries = std::fs::read_dir(work.join("segments")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with("-keys")).count()
}

/// Keys of full segments are laid down beside them, and give the same answers.
#[test]
fn many_unsealed_segments() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(50));
    let let_seal = keep_from_sealing(work.path());
    for round in 0..12_i64 {
        let events = (0..25_u8).map(|at| Event {
            website: at % 3,
            event_type: EventType::ALL[usize::from(at % 2)],
            session: u16::from(at % 5),
            visitor: at % 2,
            created_at: 1_000 + round * 7 % 5 + i64::from(at),
            id: None,
        });
        pair.append(&events.collect::<Vec<_>>());
        pair.roll();
    }
    assert!(pair.segments(SegmentLabel::Unsealed) >= 5);
    pair.check();
    assert!(keys_files(work.path()) >= 4, "only the newest may still be in memory");
    let_seal();
    pair.reopen();
    pair.check();
    pair.seal();
    pair.check();
    assert_eq!(keys_files(work.path()), 0, "keys go with their segment");
}

#[test]
fn a_walk_begins_at_its_key_however_many_share_its_time() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch(format::schema::SEGMENT_SQL).unwrap();
    connection.execute_batch(format::schema::SEGMENT_INDEXES[0].1).unwrap();
    for (sql, sign) in [(merge::FROM_KEY_UP, '>'), (merge::FROM_KEY_DOWN, '<')] {
        let plan: String = connection
            .query_row(&format!("EXPLAIN QUERY PLAN {sql}"), rusqlite::params!["", "", 0, 0, 0], |row| row.get(3))
            .unwrap();
        assert!(plan.ends_with(&format!("(websiteId=? AND eventType=? AND (createdAt,rowid){sign}(?,?))")), "{plan}");
    }
}

#[test]
fn nothing_is_stored_in_a_directory_that_is_lost() {
    let work = tempfile::tempdir().unwrap();
    let (data, away) = (work.path().join("data"), work.path().join("away"));
    let event = click(1);
    let mut pair = Pair::new(&data, options(10));
    pair.append(&[event.clone(), event.clone()]);
    std::fs::rename(&data, &away).unwrap();
    pair.refuse_all(&[event]);
    assert!(!data.exists());
    let segment = rusqlite::Connection::open(away.join("segments/000000000001.db")).unwrap();
    assert_eq!(segment.query_row("SELECT count(*) FROM Event", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[test]
fn a_question_ends_when_nobody_waits_for_it() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(10));
    pair.append(&[click(1)]);
    // Far less than a question may take.
    let is_answered = pair.ask_and_go().recv_timeout(options(10).read.deadline / 2);
    assert_eq!(is_answered, Ok(false));
    pair.check();
}

/// A seal that fails is passed by; the next start finds a sealed segment that is newer than an unsealed one.
#[test]
fn segments_sealed_out_of_turn() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(10));
    let in_the_way = work.path().join("segments/000000000002.building/x");
    std::fs::create_dir_all(&in_the_way).unwrap();
    for round in 0..3_i64 {
        pair.append(&(0..10).map(|at| click(at % 3 + round % 2)).collect::<Vec<_>>());
        pair.roll();
    }
    while pair.segments(SegmentLabel::Sealed) < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    pair.check();
    std::fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    pair.reopen();
    pair.check();
}

/// Large enough for several fence posts and chunks, with as many ties as there may be.
#[test]
fn deep_pages_over_fence_posts_and_ties() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(9_000));
    let let_seal = keep_from_sealing(work.path());
    let mut next = 1_u64;
    let mut random = || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        next >> 33
    };
    for round in 0..9 {
        let events: Vec<Event> = (0..3_000)
            .map(|_| Event {
                website: 0,
                event_type: EventType::ALL[(random() % 10 / 8) as usize],
                session: (random() % 5_000) as u16,
                visitor: (random() % 50) as u8,
                // A third of a round's rows share one millisecond, which the next round's rows overlap.
                created_at: 1_000_000 + round * 500 + if random() % 3 == 0 { 0 } else { (random() % 1_000) as i64 },
                id: None,
            })
            .collect();
        pair.append(&events);
        if round % 3 == 2 && round < 8 {
            pair.roll();
        }
    }
    assert!(pair.segments(SegmentLabel::Unsealed) >= 2);
    // Hidden among the others, until the segments are rewritten.
    pair.erase(0, 11);
    pair.erase(0, 12);
    let check = |pair: &Pair| {
        for event_type in [None, Some(EventType::Pageview), Some(EventType::Click)] {
            pair.check_filter(Asked { event_type, ..ANYTHING });
            pair.check_filter(Asked { event_type, times: 1_000_700..1_003_000, ..ANYTHING });
        }
        pair.check_filter(Asked { visitor: Some(7), ..ANYTHING });
        pair.check_filter(Asked { session: Some(77), ..ANYTHING });
    };
    // From keys that were laid down, before and after a start, and then from indexes.
    check(&pair);
    let_seal();
    pair.reopen();
    check(&pair);
    pair.seal();
    assert_eq!(pair.segments(SegmentLabel::Sealed), 3);
    check(&pair);
}

/// What has expired among what has not is told once, and not to whoever wants what is kept.
#[test]
fn what_has_expired_is_told_once() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(40));
    let mut from_start = Followed::begin(&pair, (0, None), true).unwrap();
    let mut from_now = Followed::begin(&pair, (0, None), false).unwrap();
    for round in 0..30_i64 {
        let old_or_new = |at| click(unit(if at % 2 == 0 { 1_000 + round } else { 2_000 + round }));
        pair.append(&(0..10).map(old_or_new).collect::<Vec<_>>());
        pair.roll();
    }
    pair.seal();
    pair.retain(unit(1_500));
    from_start.end(&pair);
    from_now.end(&pair);
    assert_eq!((from_start.gaps.len(), from_now.gaps.len()), (0, 1), "{:?}", from_start.gaps);
    assert!(from_now.gaps[0].from <= unit(1_000) && from_now.gaps[0].to > unit(1_029), "{:?}", from_now.gaps);
}

/// Events that arrived before the clock was set back are seen once, whatever the time is when somebody comes back.
#[test]
fn a_place_stays_true_when_the_clock_is_set_back() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(40));
    pair.clock_ahead_ms = 60_000;
    pair.append(&(1_000..1_010).map(|at| click(unit(at))).collect::<Vec<_>>());
    pair.clock_ahead_ms = 0;
    for is_started_anew in [false, true] {
        if is_started_anew {
            pair.reopen();
        }
        for from_start in [true, false] {
            let mut tail = Followed::begin(&pair, (0, None), from_start).unwrap();
            if from_start {
                assert!(tail.go_on(&pair, 100));
                assert_eq!(tail.seen.len(), 10);
                tail.seen.clear();
            }
            tail.come_back();
            assert!(tail.go_on(&pair, 100));
            assert!(tail.seen.is_empty(), "started anew: {is_started_anew}: {:?}", tail.seen);
        }
    }
}

/// What was told of events that a loss of power has taken leads to the events that have their sequences now.
#[test]
fn a_place_that_is_lost_leads_to_what_took_its_place() {
    let work = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(work.path(), options(40));
    pair.append(&(1_000..1_010).map(|at| click(unit(at))).collect::<Vec<_>>());
    let before = now_ms();
    std::thread::sleep(Duration::from_millis(5));
    // The next start but one: what has been lost is long forgotten.
    pair.reopen();
    pair.append(&(1_010..1_014).map(|at| click(unit(at))).collect::<Vec<_>>());
    pair.reopen();
    for (sequence, time, leads_to) in
        [(9, before, 9), (10, before, 10), (12, before, 10), (14, before, 10), (99, before, 10), (12, now_ms(), 12)]
    {
        let mut tail = Followed::begin(&pair, (0, None), false).unwrap();
        tail.go_on_from(sequence, time);
        assert!(tail.go_on(&pair, 100));
        assert_eq!(tail.seen, (leads_to + 1..15).collect::<Vec<_>>(), "{sequence}");
    }
    let mut tail = Followed::begin(&pair, (0, None), false).unwrap();
    tail.go_on_from(99, now_ms());
    assert!(tail.go_on(&pair, 100) && tail.seen.is_empty());
    pair.append(&[click(unit(1_014))]);
    assert!(tail.go_on(&pair, 100));
    assert_eq!(tail.seen, [15]);
}

//! Random events, whatever happens to them, and random questions.

use super::{
    oracle::{Event, QUARTER_MS, expired_before},
    planted::{HOSTS, websites},
    site::{Site, now_ms, seed},
    traffic::{self, Shape, VISITORS},
};

const HOUR_MS: i64 = 60 * 60 * 1_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// 2025-03-28: two days before the clocks change in Berlin.
const FROM: i64 = 1_743_120_000_000;
const QUESTIONS: usize = 22;

/// What happens between events and questions.
#[derive(Debug, Clone, Copy)]
enum Step {
    Nothing,
    Seal,
    Erase,
    EraseAndWait,
    Stop,
    Crash,
    Hosts,
}

const STEPS: [Step; 10] = [
    Step::Nothing,
    Step::Seal,
    Step::Seal,
    Step::Erase,
    Step::Erase,
    Step::EraseAndWait,
    Step::Stop,
    Step::Crash,
    Step::Hosts,
    Step::Hosts,
];

/// Sends so many events of so long a time, to segments of so many.
fn drive(rows: usize, events: usize, span_ms: i64) {
    drive_with(&[], rows, events, span_ms);
}

fn drive_with(flags: &[&str], rows: usize, events: usize, span_ms: i64) {
    let rows_max = rows.to_string();
    let mut site = Site::start(seed(), websites(), &[&["--segment-rows-max", &rows_max], flags].concat());
    site.batch_events_max = rows.min(60);
    let shape = Shape { websites: 2, events, from: FROM, to: FROM + span_ms, some_on_arrival: true };
    let events = traffic::events(&mut site.dice, shape);
    let mut steps = STEPS;
    site.dice.shuffle(&mut steps);
    for (chunk, step) in events.chunks(events.len().div_ceil(STEPS.len())).zip(steps) {
        println!("{} events, and then {step:?}", chunk.len());
        site.send(chunk);
        take(&mut site, step);
        site.ask_some(QUESTIONS);
    }
    site.stop();
}

fn take(site: &mut Site, step: Step) {
    match step {
        Step::Nothing => {}
        Step::Seal => site.daemon().wait_until_sealed(),
        Step::Erase | Step::EraseAndWait => {
            let (website, visitor) = (site.dice.below(2), *site.dice.pick(&VISITORS));
            let erasure = site.erase(website, visitor);
            if matches!(step, Step::EraseAndWait) {
                site.wait_until_erased(&erasure);
            }
        }
        Step::Stop => {
            site.stop();
            site.start_again(&[]);
        }
        Step::Crash => site.start_again(&[]),
        Step::Hosts => {
            for website in 0..2 {
                let hosts = *site.dice.pick(&HOSTS);
                site.set_hosts(website, hosts);
            }
        }
    }
}

#[test]
fn many_small_segments_count_as_one_list() {
    drive(20, 600, 6 * DAY_MS);
}

/// Where visits are too many is certain only after some of the segments.
#[test]
fn many_small_segments_count_as_one_list_where_visitors_are_estimated() {
    drive_with(&["--stats-exact-visits-max", "30"], 20, 600, 6 * DAY_MS);
}

#[test]
fn crowded_hours_over_some_segments_count_as_one_list() {
    drive(150, 1_200, 9 * HOUR_MS);
}

#[test]
fn a_segment_that_is_not_full_counts_as_one_list() {
    drive(5000, 600, 2 * DAY_MS);
}

#[test]
fn segments_of_two_events_count_as_one_list() {
    drive(2, 160, DAY_MS);
}

/// The cut lies in the middle of a quarter of an hour and of the events, of which some are told apart by it: those that
/// listings have and numbers do not.
#[test]
fn what_has_expired_does_not_count_from_the_next_quarter_on() {
    let mut site = Site::start(seed(), websites(), &["--segment-rows-max", "40"]);
    let started = now_ms();
    let retained_from = started - 3 * DAY_MS;
    let cut = retained_from - retained_from.rem_euclid(QUARTER_MS) + QUARTER_MS / 2;
    let retention_ms = started - cut;
    let around = |hours: i64, events: usize| Shape {
        websites: 2,
        events,
        from: cut - hours * HOUR_MS,
        to: cut + hours * HOUR_MS,
        some_on_arrival: false,
    };
    let events = traffic::events(&mut site.dice, around(6, 500));
    site.send(&events);
    site.ask_some(QUESTIONS);
    site.stop();

    let days = format!("--retention-days={:.9}", retention_ms as f64 / DAY_MS as f64);
    site.retention_ms = Some(retention_ms);
    site.start_again(&[&days, "--retention-grace-seconds=1"]);
    site.ask_some(2 * QUESTIONS);
    // Old enough to be stored and not to count, as long as a slow machine may take for this test.
    let near = Shape { from: cut + QUARTER_MS / 4, to: cut + QUARTER_MS, ..around(0, 100) };
    let events: Vec<Event> = traffic::events(&mut site.dice, near);
    let counted_from = expired_before(started, retention_ms);
    assert!(events.iter().any(|event| event.created_at < counted_from));
    assert!(events.iter().any(|event| event.created_at >= counted_from));
    site.send(&events);
    site.ask_some(QUESTIONS);
    // What began before the cut is sealed after it was asked for with the same cut.
    site.daemon().wait_until_sealed();
    site.ask_some(QUESTIONS);
    site.erase(0, VISITORS[0]);
    site.ask_some(QUESTIONS);
    site.daemon().wait_until_sealed();
    site.start_again(&[]);
    site.ask_some(QUESTIONS);
    site.stop();
}

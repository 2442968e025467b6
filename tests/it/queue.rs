//! The queue over its real parts: what it takes, what it refuses, what it counts. Its schedules are the model's, in
//! `tests/model`; that one compiles `src/queue.rs` a second time, and so these tests cannot stand in there.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use hitlog::{
    event::{Arrival, Intake, Original, Repeat, Rules, ValidEvents, parse_batch},
    metrics::{BuildInfo, Metrics, Shed},
    queue::{Ack, CommitError, Limits, Overloaded, Receipt, Request, Requests, State, Stored, Taken, bounded},
};

const LIMITS: Limits = Limits { events_max: 10, bytes_max: 1 << 20 };

fn metrics() -> Metrics {
    Metrics::new(&BuildInfo { version: "0", sqlite: "0", sqlite_build: "", durability: "full" }).unwrap()
}

fn events(count: usize) -> ValidEvents {
    let rules = Rules {
        url_bytes_max: 100,
        any_bare_scheme: false,
        id_bytes_max: 100,
        text_chars_max: 100,
        properties_bytes_max: 100,
        properties_depth_max: 8,
        timestamp_ahead_max_ms: 0,
        timestamp_age_max_ms: i64::MAX,
        batch_events_max: 1_000,
        item_bytes_max: 256 * 1024,
        warnings_told_max: 100,
    };
    let event = r#"{"trackingCode":"pm-a","eventType":"click","url":"https://a.b/","sessionId":"s","visitorId":"v"}"#;
    let body = format!(r#"{{"events":[{}]}}"#, vec![event; count].join(","));
    let batch =
        parse_batch(body.into_bytes(), &rules, &Arrival::at(0), |_| Some(Intake::of_anything("web-a"))).unwrap();
    assert_eq!(batch.events.len(), count);
    batch.events
}

/// The sample of a metric in the rendered text.
fn value(metrics: &Metrics, name: &str) -> f64 {
    let text = metrics.render();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

fn shed(metrics: &Metrics, reason: Shed) -> f64 {
    value(metrics, &format!("hitlog_events_shed_total{{reason=\"{}\"}}", reason.as_str()))
}

fn wait_for(ack: Ack) -> Result<Stored, CommitError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ack)
}

fn take_all(requests: &Requests) -> Vec<Request> {
    let mut group = Vec::new();
    assert_eq!(requests.take(&mut group, None, |_| true), Taken::Group);
    group
}

#[test]
fn a_request_comes_back_with_its_receipt_and_its_events() {
    let metrics = metrics();
    let (queue, requests) = bounded(LIMITS, Arc::clone(&metrics.events));
    let acks = [queue.try_append(events(2)).unwrap(), queue.try_append(events(3)).unwrap()];
    assert_eq!(queue.depth().events, 5);
    let mut sequence = 40;
    for request in take_all(&requests) {
        assert!(queue.depth().oldest > Duration::ZERO);
        let count = request.len() as u64;
        request.acknowledge(sequence, Vec::new());
        sequence += count;
    }
    requests.group_answered(5, Duration::from_secs(1));
    for (ack, first_sequence, count) in acks.into_iter().zip([(40, 2), (42, 3)]).map(|(ack, (a, b))| (ack, a, b)) {
        let stored = wait_for(ack).unwrap();
        assert_eq!(stored.receipt, Receipt { first_sequence, count, repeats: Vec::new() });
        assert_eq!(stored.events.len(), count);
    }
    let depth = queue.depth();
    assert_eq!((depth.events, depth.bytes, depth.oldest), (0, 0, Duration::ZERO));
    assert_eq!(value(&metrics, "hitlog_events_committed_total"), 5.0);
}

#[test]
fn repeats_are_told_and_counted_as_such() {
    let metrics = metrics();
    let (queue, requests) = bounded(LIMITS, Arc::clone(&metrics.events));
    let ack = queue.try_append(events(3)).unwrap();
    let repeat = |index| Repeat { index, original: Original { sequence: 7, created_at: 1 } };
    for request in take_all(&requests) {
        request.acknowledge(40, vec![repeat(0), repeat(2)]);
    }
    let receipt = wait_for(ack).unwrap().receipt;
    assert_eq!(receipt, Receipt { first_sequence: 40, count: 3, repeats: vec![repeat(0), repeat(2)] });
    assert_eq!(value(&metrics, "hitlog_events_committed_total"), 1.0);
    assert_eq!(value(&metrics, "hitlog_events_replayed_total"), 2.0);
    assert_eq!(queue.depth().events, 0);

    let outdated = queue.try_append(events(2)).unwrap();
    take_all(&requests).into_iter().for_each(|request| request.fail(CommitError::Outdated));
    assert_eq!(wait_for(outdated).map(|_| ()), Err(CommitError::Outdated));
    assert_eq!(shed(&metrics, Shed::LookUp), 2.0);
}

#[test]
fn it_is_full_by_events_and_by_bytes() {
    let bytes = events(1).bytes() + size_of::<Request>();
    for (limits, fits) in [(Limits { events_max: 3, ..LIMITS }, 3), (Limits { bytes_max: 2 * bytes, ..LIMITS }, 2)] {
        let metrics = metrics();
        let (queue, requests) = bounded(limits, Arc::clone(&metrics.events));
        let mut acks: Vec<_> =
            (0..fits).map(|_| queue.try_append(events(1)).unwrap_or_else(|_| panic!("{limits:?}"))).collect();
        let refusal = queue.try_append(events(1)).map(|_| ()).unwrap_err();
        assert_eq!(refusal, Overloaded { reason: Shed::QueueFull, retry_after: Duration::from_secs(1) });
        assert_eq!(shed(&metrics, Shed::QueueFull), 1.0);
        let group = take_all(&requests);
        assert_eq!(queue.depth().events, fits, "a group in commit still counts");
        group.into_iter().for_each(|request| request.acknowledge(1, Vec::new()));
        assert_eq!(
            (queue.depth().events, queue.depth().bytes),
            (0, fits * bytes),
            "the memory counts until it is gone"
        );
        acks.clear();
        acks.push(queue.try_append(events(1)).unwrap());
        assert_eq!(queue.depth().bytes, bytes);
    }
}

#[test]
fn whoever_went_away_changes_nothing() {
    let metrics = metrics();
    let (queue, requests) = bounded(LIMITS, Arc::clone(&metrics.events));
    drop(queue.try_append(events(1)).unwrap());
    take_all(&requests).into_iter().for_each(|request| request.acknowledge(1, Vec::new()));
    assert_eq!(value(&metrics, "hitlog_events_committed_total"), 1.0);
}

#[test]
fn a_request_that_is_lost_is_answered_unknown() {
    let metrics = metrics();
    let (queue, requests) = bounded(LIMITS, Arc::clone(&metrics.events));
    let (taken, waiting) = (queue.try_append(events(1)).unwrap(), queue.try_append(events(2)).unwrap());
    let mut group = Vec::new();
    requests.take(&mut group, None, |_| false);
    drop(group);
    drop(requests);
    for ack in [taken, waiting] {
        assert_eq!(wait_for(ack).map(|_| ()), Err(CommitError::Unknown));
    }
    assert_eq!(value(&metrics, "hitlog_events_unknown_total"), 3.0);
    assert_eq!(queue.depth().events, 0);
    let refusal = queue.try_append(events(4)).map(|_| ()).unwrap_err();
    assert_eq!(refusal.reason, Shed::Stopping);
    assert_eq!(shed(&metrics, Shed::Stopping), 4.0);
}

#[test]
fn failures_are_told_and_counted() {
    let metrics = metrics();
    let (queue, requests) = bounded(LIMITS, Arc::clone(&metrics.events));
    let acks = [queue.try_append(events(1)).unwrap(), queue.try_append(events(2)).unwrap()];
    let mut group = take_all(&requests);
    group.pop().unwrap().fail(CommitError::Unknown);
    group.pop().unwrap().fail(CommitError::StorageFull);
    let responses = acks.map(|ack| wait_for(ack).map(|_| ()).unwrap_err());
    assert_eq!(responses, [CommitError::StorageFull, CommitError::Unknown]);
    assert_eq!((shed(&metrics, Shed::StorageFull), value(&metrics, "hitlog_events_unknown_total")), (1.0, 2.0));
    for (state, reason) in [(State::StorageFull, Shed::StorageFull), (State::Stopped, Shed::Stopping)] {
        requests.set_state(state);
        assert_eq!(queue.state(), state);
        assert_eq!(queue.try_append(events(1)).map(|_| ()).unwrap_err().reason, reason);
    }
}

#[test]
fn closing_the_edge_ends_the_writer_after_what_waits() {
    let (queue, requests) = bounded(LIMITS, metrics().events);
    let _ack = queue.try_append(events(1)).unwrap();
    drop(queue);
    let mut group = take_all(&requests);
    group.pop().unwrap().acknowledge(1, Vec::new());
    assert_eq!(requests.take(&mut group, None, |_| true), Taken::Closed);
}

#[test]
fn taking_from_an_empty_queue_times_out() {
    let (_queue, requests) = bounded(LIMITS, metrics().events);
    assert_eq!(requests.take(&mut Vec::new(), Some(Duration::from_millis(1)), |_| true), Taken::Nothing);
}

#[test]
fn how_long_to_wait_before_trying_again() {
    let limits = Limits { events_max: 1_000, bytes_max: 1 << 20 };
    for (queued, answered_in, seconds) in [
        (0, None, 1),
        (1_000, None, 1),
        (1_000, Some((0, 1)), 1),
        (10, Some((100, 1)), 1),
        (300, Some((100, 1)), 3),
        (1_000, Some((1, 1)), 60),
    ] {
        let (queue, requests) = bounded(limits, metrics().events);
        let _ack = (queued > 0).then(|| queue.try_append(events(queued)).unwrap_or_else(|_| panic!("{queued}")));
        if let Some((events, seconds)) = answered_in {
            requests.group_answered(events, Duration::from_secs(seconds));
        }
        assert_eq!(queue.retry_after(), Duration::from_secs(seconds), "{queued} queued, {answered_in:?} answered");
    }
}

/// Many edges, one writer, some requests refused: nothing is lost, and the room is all given back.
#[test]
fn every_request_has_one_answer() {
    let metrics = metrics();
    let (queue, requests) = bounded(Limits { events_max: 6, bytes_max: 1 << 20 }, Arc::clone(&metrics.events));
    let writer = thread::spawn(move || {
        let (mut group, mut next) = (Vec::new(), 1);
        while requests.take(&mut group, None, |_| true) == Taken::Group {
            for request in group.drain(..) {
                let count = request.len() as u64;
                request.acknowledge(next, Vec::new());
                next += count;
            }
        }
        next - 1
    });
    let (sender, responses) = mpsc::channel();
    for edge in 0..4 {
        let (queue, sender) = (queue.clone(), sender.clone());
        thread::spawn(move || {
            for round in 0..500 {
                let count = 1 + (edge + round) % 3;
                match queue.try_append(events(count)) {
                    Ok(ack) => sender.send((count, wait_for(ack).is_ok())).unwrap(),
                    Err(_) => sender.send((count, false)).unwrap(),
                }
            }
        });
    }
    drop((sender, queue));
    let responses: Vec<(usize, bool)> = responses.iter().collect();
    assert_eq!(responses.len(), 2_000);
    let stored: usize = responses.iter().filter(|(_, stored)| *stored).map(|(count, _)| count).sum();
    let refused: usize = responses.iter().filter(|(_, stored)| !stored).map(|(count, _)| count).sum();
    assert_eq!(writer.join().unwrap(), stored as u64);
    assert_eq!(value(&metrics, "hitlog_events_committed_total"), stored as f64);
    assert_eq!(shed(&metrics, Shed::QueueFull), refused as f64);
}
